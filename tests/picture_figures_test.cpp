// Whole pictures: density figures, grids of samples, line charts.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "host/picture/axes.h"
#include "host/picture/colormap.h"
#include "host/picture/font.h"
#include "host/picture/plots.h"
#include "tests/picture_fixture.h"

namespace bracket {
namespace {

// ------------------------------------------------------------------------------------------------- Density figures

/// The data areas: found by their frames, which are longer than anything else of that colour.
std::vector<Rect> frames(const Image& image) {
  const auto is_frame = [&](std::int64_t x, std::int64_t y) {
    return x < image.width() && y < image.height() && image.at(x, y) == kInkColor;
  };
  std::vector<Rect> found;
  for (std::int64_t y = 0; y < image.height(); ++y) {
    for (std::int64_t x = 0; x < image.width(); ++x) {
      std::int64_t end = x;
      while (is_frame(end, y)) ++end;
      if (end - x >= 150) {
        std::int64_t bottom = y;
        while (is_frame(x, bottom)) ++bottom;
        found.push_back({x + 1, y + 1, end - x - 2, bottom - y - 2});
      }
      x = std::max(x, end);
    }
    if (!found.empty()) return found;
  }
  return found;
}

Color color_at(const Image& image, const Rect& area, double across, double up) {
  return image.at(area.left + static_cast<std::int64_t>(across * static_cast<double>(area.width)),
                  area.bottom() - 1 - static_cast<std::int64_t>(up * static_cast<double>(area.height)));
}

std::int64_t count_in(const Image& image, const Rect& area, Color color) {
  std::int64_t count = 0;
  for (std::int64_t y = area.top; y < area.bottom(); ++y) {
    for (std::int64_t x = area.left; x < area.right(); ++x) count += image.at(x, y) == color ? 1 : 0;
  }
  return count;
}

DensityFigure small_figure() { return {"caption", {{-4, 4}, {-4, 4}}, {}, {}, {2, 2, {0, -1, -2, -3}}, 12}; }

TEST(DensityFigures, FourPanelsOf400PixelsAndTwoForTheDemo) {
  const Image four = density_figure(small_figure());
  ASSERT_EQ(frames(four).size(), 4U);
  for (const Rect& area : frames(four)) {
    EXPECT_EQ(area.width, 400);
    EXPECT_EQ(area.height, 400);
  }
  const Image two = two_panel_figure(small_figure());
  ASSERT_EQ(frames(two).size(), 2U);
  // Empty point sets leave their panels white, and the density panel is the same picture in both figures.
  EXPECT_EQ(count_in(four, frames(four)[0], kWhite), 400 * 400);
  EXPECT_EQ(count_in(four, frames(four)[1], kWhite), 400 * 400);
  EXPECT_EQ(count_in(two, frames(two)[0], kWhite), 400 * 400);
  const Color top = viridis()(1);
  EXPECT_EQ(count_in(four, frames(four)[2], top), 200 * 200);
  EXPECT_EQ(count_in(two, frames(two)[1], top), 200 * 200);
}

TEST(DensityFigures, RowZeroOfTheGridIsAtTheBottom) {
  const Image image = density_figure(small_figure());
  const Rect density = frames(image)[2];
  const Rect log_density = frames(image)[3];
  const std::array<std::array<double, 3>, 4> cells{
      {{0.02, 0.02, 0}, {0.98, 0.02, -1}, {0.02, 0.98, -2}, {0.98, 0.98, -3}}};
  for (const auto& [across, up, value] : cells) {
    EXPECT_EQ(color_at(image, density, across, up), viridis_root()(std::exp(value)));
    EXPECT_EQ(color_at(image, log_density, across, up), viridis()(1 + value / 12));
  }
}

TEST(DensityFigures, FloorClipsAndNonFiniteCellsAreMarked) {
  DensityFigure figure = small_figure();
  figure.log_floor = 2;
  figure.grid.log_density = {-5, -7.5, -kInf, kNaN};
  const Image image = density_figure(figure);
  const Rect log_density = frames(image)[3];
  EXPECT_EQ(color_at(image, log_density, 0.2, 0.2), viridis()(1));
  EXPECT_EQ(color_at(image, log_density, 0.8, 0.2), viridis()(0));
  EXPECT_EQ(color_at(image, log_density, 0.2, 0.8), viridis()(0));
  EXPECT_EQ(color_at(image, log_density, 0.8, 0.8), kNotANumberColor);
  EXPECT_EQ(color_at(image, frames(image)[2], 0.2, 0.8), viridis()(0));
  EXPECT_EQ(color_at(image, frames(image)[2], 0.8, 0.8), kNotANumberColor);
}

TEST(DensityFigures, DrawsWhateverAnEnergyMayReturn) {
  for (const std::vector<double>& values : std::vector<std::vector<double>>{{kNaN, kNaN, kNaN, kNaN},
                                                                            {-kInf, -kInf, -kInf, -kInf},
                                                                            {kInf, kInf, 0, -1},
                                                                            {1e9, 0, -1e9, 1},
                                                                            {-1e300, 1e300, 0, 0},
                                                                            {-2000, -2001, -2002, -2003},
                                                                            {3, 3, 3, 3}}) {
    DensityFigure figure = small_figure();
    figure.grid.log_density = values;
    const Image image = density_figure(figure);
    ASSERT_EQ(frames(image).size(), 4U) << values[0];
    for (const std::size_t panel : {2U, 3U}) {
      const double largest = *std::max_element(values.begin(), values.end());
      const Color expected = std::isnan(values[0]) ? kNotANumberColor : viridis()(largest == -kInf ? 0 : 1);
      EXPECT_GE(count_in(image, frames(image)[panel], expected), 200 * 200) << values[0];
    }
  }
}

TEST(DensityFigures, FinerGridsShowTheMeanDensityOfTheirCells) {
  constexpr std::int64_t kCells = 800;
  DensityFigure figure = small_figure();
  figure.grid = {kCells, kCells, {}};
  for (std::int64_t row = 0; row < kCells; ++row) {
    for (std::int64_t column = 0; column < kCells; ++column) {
      const double checkerboard = (row + column) % 2 == 0 ? 0 : -kInf;  // mean 1/2 over the 2 x 2 cells of a pixel
      figure.grid.log_density.push_back(column < kCells / 2 ? checkerboard : std::log(0.25));
    }
  }
  const Image image = density_figure(figure);
  EXPECT_EQ(count_in(image, frames(image)[2], viridis_root()(1)), 200 * 400);
  const Color half = color_at(image, frames(image)[2], 0.75, 0.5);
  EXPECT_NEAR(half.green, viridis_root()(0.5).green, 1);  // exp and log may round the level across a half byte
  EXPECT_EQ(count_in(image, frames(image)[2], half), 200 * 400);
}

TEST(DensityFigures, AnyGridSizeCoversThePanel) {
  for (const std::int64_t columns : {1, 3, 399, 401, 1000}) {
    DensityFigure figure = small_figure();
    figure.grid = {columns, 7, std::vector<double>(static_cast<std::size_t>(columns * 7), -1.5)};
    const Image image = density_figure(figure);
    // All cells are equal; weights that sum to 1 within rounding keep the level above 1 - 1e-12.
    EXPECT_EQ(count_in(image, frames(image)[2], viridis()(1)), 400 * 400) << columns;
  }
}

TEST(DensityFigures, PointsLandOnTheirPixels) {
  DensityFigure figure = small_figure();
  figure.data = {{0.01, 0.01}};  // the centre of pixel (200, 199) of the panel: 8 / 400 data units per pixel
  figure.samples = {{-4, -4}, {4, 4}, {4.001, 0}, {0, -9}, {kNaN, 0}, {0, kInf}};
  const Image image = density_figure(figure);
  const Rect data = frames(image)[0];
  const Rect samples = frames(image)[1];
  EXPECT_EQ(image.at(data.left + 200, data.top + 199), ink()(1));
  EXPECT_GT(count_in(image, data, kWhite), 400 * 400 - 36) << "a disc of radius 2.2 stays within 6 x 6 pixels";
  EXPECT_NE(image.at(samples.left, samples.bottom() - 1), kWhite);
  EXPECT_NE(image.at(samples.right() - 1, samples.top), kWhite);
  EXPECT_EQ(image.at(samples.left, samples.top), kWhite);
  EXPECT_GT(count_in(image, samples, kWhite), 400 * 400 - 2 * 9) << "points outside leave no ink at the edges";
}

TEST(DensityFigures, OnePointStaysVisibleBesideAMillion) {
  DensityFigure figure = small_figure();
  figure.data.assign(1'000'000, {-2, -2});
  figure.data.push_back({2.01, 2.01});
  const Image image = density_figure(figure);
  const Rect data = frames(image)[0];
  const Color lone = image.at(data.left + 300, data.top + 99);
  EXPECT_LT(lightness(lone), 100 - kJustNoticeable);
  EXPECT_GT(lightness(lone), lightness(color_at(image, data, 0.25, 0.25)) + 50);
}

TEST(DensityFigures, KeepTheAspectRatioOfTheBoxUpToTwo) {
  DensityFigure figure = small_figure();
  figure.box = {{0, 8}, {0, 4}};
  const Image flat = density_figure(figure);
  EXPECT_EQ(frames(flat)[3].width, 400);
  EXPECT_EQ(frames(flat)[3].height, 200);
  figure.box = {{0, 3}, {0, 4}};
  const Image tall = density_figure(figure);
  EXPECT_EQ(frames(tall)[3].width, 300);
  EXPECT_EQ(frames(tall)[3].height, 400);
  figure.box = {{0, 100}, {0, 1}};
  const Image stretched = density_figure(figure);
  EXPECT_EQ(frames(stretched)[3].height, 400);
}

TEST(DensityFigures, LongCaptionsWrapAndEmptyOnesTakeNoRoom) {
  DensityFigure figure = small_figure();
  const Image once = density_figure(figure);
  figure.caption.clear();
  EXPECT_EQ(density_figure(figure).height(), once.height() - line_height(3));
  for (int i = 0; i < 200; ++i) figure.caption += "caption ";
  const Image wrapped = density_figure(figure);
  EXPECT_EQ(wrapped.width(), once.width());
  EXPECT_GT(wrapped.height(), once.height());
}

TEST(DensityFigures, BadInputIsAnError) {
  const auto refused = [](auto&& change) {
    DensityFigure figure = small_figure();
    change(figure);
    EXPECT_THROW(density_figure(figure), InvalidArgument);
  };
  refused([](DensityFigure& f) { f.box.x = {1, 1}; });
  refused([](DensityFigure& f) { f.box.y = {4, -4}; });
  refused([](DensityFigure& f) { f.box.y = {0, kNaN}; });
  refused([](DensityFigure& f) { f.grid = {}; });
  refused([](DensityFigure& f) { f.grid.columns = 3; });
  refused([](DensityFigure& f) { f.grid.rows = std::int64_t{1} << 62; });
  refused([](DensityFigure& f) { f.grid.columns = -2, f.grid.rows = -2; });
  refused([](DensityFigure& f) { f.log_floor = 0; });
  refused([](DensityFigure& f) { f.log_floor = kNaN; });
}

// ------------------------------------------------------------------------------------------------------ Image grids

TEST(SampleGrids, PlacesMagnifiesAndClamps) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values{0, 1, -3, 7, 0.2F, nan};  // three images of one row of two pixels
  const Image image = sample_grid({3, 1, 2, 1, values, 2, 3, 2});
  ASSERT_EQ(image.width(), 2 + 2 * (2 * 3 + 2));
  ASSERT_EQ(image.height(), 2 + 2 * (3 + 2));
  const Color gap = image.at(0, 0);
  EXPECT_EQ(image.at(2, 2), kBlack);
  EXPECT_EQ(image.at(4, 4), kBlack);
  EXPECT_EQ(image.at(5, 2), kWhite);
  EXPECT_EQ(image.at(8, 2), gap);
  EXPECT_EQ(image.at(10, 2), kBlack);
  EXPECT_EQ(image.at(13, 2), kWhite);
  EXPECT_EQ(image.at(2, 7), (Color{51, 51, 51}));
  EXPECT_EQ(image.at(5, 7), (Color{255, 0, 255}));
  EXPECT_EQ(count_color(image, gap), 18 * 12 - 6 * 9) << "the place of the missing fourth image shows the gap colour";
}

TEST(SampleGrids, ColourImagesAreChannelLastAndNearlySquare) {
  const std::vector<float> values{1, 0, 0, 0, 1, 0, 0, 0, 1, 0.2F, 0.4F, 0.6F, 1, 1, 1};
  const Image image = sample_grid({5, 1, 1, 3, values, 0, 1, 0});
  ASSERT_EQ(image.width(), 3);
  ASSERT_EQ(image.height(), 2);
  EXPECT_EQ(image.at(0, 0), kRed);
  EXPECT_EQ(image.at(1, 0), (Color{0, 255, 0}));
  EXPECT_EQ(image.at(2, 0), (Color{0, 0, 255}));
  EXPECT_EQ(image.at(0, 1), (Color{51, 102, 153}));
}

TEST(SampleGrids, BadInputIsAnError) {
  const std::vector<float> values(12);
  const std::int64_t huge = std::int64_t{1} << 62;
  for (const SampleGrid& grid : std::vector<SampleGrid>{{0, 2, 2, 1, {}, 0, 2, 2},
                                                        {3, 0, 2, 1, values, 0, 2, 2},
                                                        {3, 2, 2, 2, values, 0, 2, 2},
                                                        {4, 2, 2, 1, values, 0, 2, 2},
                                                        {3, 2, 2, 1, values, -1, 2, 2},
                                                        {3, 2, 2, 1, values, 0, 0, 2},
                                                        {3, 2, 2, 1, values, 0, 2, -1},
                                                        {huge, huge, 4, 1, values, 0, 2, 2},
                                                        {3, 2, 2, 1, values, 0, huge, 2},
                                                        {3, 2, 2, 1, values, 0, 2, huge},
                                                        {3, 2, 2, 1, values, 0, 1 << 20, 2}}) {
    EXPECT_THROW(sample_grid(grid), InvalidArgument);
  }
}

// ----------------------------------------------------------------------------------------------------- Line charts

constexpr Color kFirstLine{0, 114, 178};

TEST(LineCharts, ADiagonalJoinsTheCorners) {
  const Image image = line_chart({"", "", "", {{"s", {0, 10}, {0, 5}}}, Range{0, 5}});
  const Rect area = frames(image).at(0);
  EXPECT_EQ(image.at(area.left, area.bottom() - 1), kFirstLine);
  EXPECT_EQ(image.at(area.right() - 1, area.top), kFirstLine);
  EXPECT_EQ(color_at(image, area, 0.5, 0.5), kFirstLine);
  EXPECT_NE(color_at(image, area, 0.25, 0.75), kFirstLine);
}

TEST(LineCharts, NonFiniteValuesInterruptTheLineAndLonePointsAreDots) {
  const Image image = line_chart({"", "", "", {{"s", {0, 4, 5, 6, 10}, {1, 1, kNaN, kInf, 1}}}, Range{0, 2}});
  const Rect area = frames(image).at(0);
  EXPECT_EQ(color_at(image, area, 0.2, 0.5), kFirstLine);
  EXPECT_NE(color_at(image, area, 0.7, 0.5), kFirstLine);
  EXPECT_EQ(image.at(area.right() - 1, area.top + area.height / 2), kFirstLine);
}

// Three marks with nothing between them, whole at the edges, in the shape and the colour of their place in the chart; a
// colour of one's own takes the place of that. The legend shows what the panel does.
TEST(LineCharts, PointsAreMarksWithoutALine) {
  const auto chart = [](std::optional<Color> color, bool second) {
    std::vector<Series> series = {{"s", {0, 5, 10}, {1, 1, 1}, true, color}};
    if (second) series.insert(series.begin(), Series{"t", {5}, {5}, true, {}});
    return line_chart({"", "", "", series, Range{0, 2}});
  };
  const Image image = chart({}, false), colored = chart(kRed, false), behind = chart(kRed, true);
  const Rect area = frames(image).at(0);
  const std::int64_t middle = area.top + area.height / 2;
  EXPECT_EQ(count_in(image, area, kFirstLine), count_in(colored, area, kRed));
  EXPECT_NE(count_in(colored, area, kRed), count_in(behind, frames(behind).at(0), kRed)) << "another shape";
  std::vector<std::int64_t> columns;
  for (std::int64_t x = area.left; x < area.right(); ++x) {
    bool marked = false;
    for (std::int64_t y = middle - 10; y < middle + 10; ++y) marked = marked || image.at(x, y) == kFirstLine;
    if (marked) columns.push_back(x);
  }
  ASSERT_FALSE(columns.empty());
  EXPECT_GT(columns.front(), area.left);
  EXPECT_LT(columns.back(), area.right() - 1);
  EXPECT_LT(columns.size(), 60u) << "no line";
  EXPECT_GT(count_color(image, kFirstLine), count_in(image, area, kFirstLine)) << "in the legend";
}

TEST(LineCharts, AMillionPointsKeepTheirExtremes) {
  Series line{"s", {}, {}};
  for (int i = 0; i < 1'000'000; ++i) {
    line.x.push_back(i);
    line.y.push_back(i == 612'345 ? 1 : i == 250'000 ? -1 : 0);
  }
  const Image image = line_chart({"", "", "", {line}, Range{-1.1, 1.1}});
  const Rect area = frames(image).at(0);
  EXPECT_EQ(color_at(image, area, 0.612345, 1.9 / 2.2), kFirstLine);
  EXPECT_EQ(color_at(image, area, 0.25, 0.3 / 2.2), kFirstLine);
  EXPECT_NE(color_at(image, area, 0.4, 1.9 / 2.2), kFirstLine);
}

TEST(LineCharts, RiseAndFallWithinOneColumnAreDrawn) {
  const Image image = line_chart({"", "", "", {{"s", {0, 0, 10, 10}, {0, 2, 2, 0}}}, Range{0, 2}});
  const Rect area = frames(image).at(0);
  for (std::int64_t y = area.top; y < area.bottom(); ++y) {
    ASSERT_EQ(image.at(area.left, y), kFirstLine) << y;
    ASSERT_EQ(image.at(area.right() - 1, y), kFirstLine) << y;
  }
}

TEST(LineCharts, ValuesFarOutsideTheGivenRangeAreClipped) {
  const Image image = line_chart({"", "", "", {{"s", {0, 1, 2, 3}, {1, 1e300, -1e300, 1}}}, Range{0, 2}});
  const Rect area = frames(image).at(0);
  // Each stroke crosses the panel within a fraction of a pixel: upwards at x = 0, downwards at 1.5, upwards at 3.
  for (const double up : {0.6, 0.9}) {
    EXPECT_EQ(image.at(area.left, area.bottom() - 1 - std::llround(up * static_cast<double>(area.height))), kFirstLine);
    EXPECT_EQ(color_at(image, area, 0.5, up), kFirstLine);
    EXPECT_EQ(color_at(image, area, 0.5, 1 - up), kFirstLine);
    EXPECT_NE(color_at(image, area, 0.3, up), kFirstLine);
  }
  EXPECT_GT(count_in(image, area, kWhite), area.width * area.height / 2);
}

TEST(LineCharts, EmptySingleConstantAndManySeries) {
  for (const std::vector<Series>& series :
       std::vector<std::vector<Series>>{{}, {{"s", {}, {}}}, {{"s", {kNaN}, {1}}}, {{"s", {3}, {kInf}}}}) {
    const Image image = line_chart({"title", "x", "y", series, std::nullopt});
    EXPECT_EQ(count_in(image, frames(image).at(0), kFirstLine), 0);
  }
  const Image single = line_chart({"title", "x", "y", {{"s", {3}, {-2}}}, std::nullopt});
  EXPECT_EQ(color_at(single, frames(single).at(0), 0.5, 0.5), kFirstLine);
  const Image constant = line_chart({"title", "x", "y", {{"s", {0, 1}, {7, 7}}}, std::nullopt});
  EXPECT_EQ(color_at(constant, frames(constant).at(0), 0.5, 0.5), kFirstLine);
  std::vector<Series> many;
  for (int i = 0; i < 20; ++i) many.push_back({"series number " + std::to_string(i), {0, 1}, {i * 1.0, i * 1.0}});
  const Image image = line_chart({"title", "x", "y", many, Range{-1, 20}});
  const Rect area = frames(image).at(0);
  EXPECT_GT(area.top, frames(constant).at(0).top) << "the legend takes more rows";
  std::set<std::array<int, 3>> colors;
  for (int i = 0; i < 20; ++i) {
    const Color color = color_at(image, area, 0.5, (i + 1) / 21.0);
    colors.insert({color.red, color.green, color.blue});
  }
  EXPECT_EQ(colors.size(), 20U);
}

TEST(LineCharts, BadInputIsAnError) {
  EXPECT_THROW(line_chart({"", "", "", {{"s", {1, 2}, {1}}}, std::nullopt}), InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, Range{2, 1}}), InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, std::nullopt, 50, 400}), InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, std::nullopt, 400, 90}), InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, std::nullopt, std::numeric_limits<std::int64_t>::min(), 400}),
               InvalidArgument);
  EXPECT_THROW(line_chart({"", "", "", {}, std::nullopt, std::int64_t{1} << 60, 400}), InvalidArgument);
  EXPECT_THROW(line_chart({std::string(20000, 'm'), "", "", {}, std::nullopt}), InvalidArgument);
}

}  // namespace
}  // namespace bracket
