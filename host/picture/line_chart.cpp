#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "bracket/error.h"
#include "host/picture/coverage.h"
#include "host/picture/font.h"
#include "host/picture/plots.h"

namespace bracket {
namespace {

constexpr std::int64_t kScale = 2;
constexpr std::int64_t kOuterMargin = 16;
constexpr std::int64_t kSwatchWidth = 28;
constexpr std::int64_t kSwatchGap = 8;
constexpr std::int64_t kEntryGap = 28;
constexpr double kLineRadius = 1.25;
constexpr double kLonePointRadius = 3;
constexpr double kMarkRadius = 6;
constexpr double kMarkMargin = 0.03;  // of the x axis on either side, so that no mark is cut
constexpr std::int64_t kSmallestSide = 60;
constexpr std::int64_t kLargestSide = 16384;

// Okabe and Ito's palette for colour-blind readers, with gray for black, which has no darker shade, and
// without yellow, which is too light for lines on white.
constexpr std::array<Color, 7> kLineColors{
    {{0, 114, 178}, {213, 94, 0}, {0, 158, 115}, {204, 121, 167}, {230, 159, 0}, {86, 180, 233}, {110, 110, 110}}};

/// Beyond the palette the same hues come back darker.
Color line_color(std::size_t index) {
  constexpr double kDarker = 0.6;
  const Color& color = kLineColors[index % kLineColors.size()];
  const double share = std::pow(kDarker, static_cast<double>(index / kLineColors.size()));
  const auto shade = [share](std::uint8_t value) { return static_cast<std::uint8_t>(std::lround(value * share)); };
  return {shade(color.red), shade(color.green), shade(color.blue)};
}

Color color_of(const std::vector<Series>& series, std::size_t index) {
  return series[index].color ? *series[index].color : line_color(index);
}

struct Vertex {
  double x = 0;
  double y = 0;
};

/// Outlines, which leave what lies beneath them visible: triangle, square, cross, diamond, plus.
void add_mark(Mask& mask, const Vertex& at, std::size_t shape) {
  struct Stroke {
    Vertex from, to;
  };
  static const std::array<std::vector<Stroke>, 5> shapes{
      {{{{-1, 0.8}, {0, -1}}, {{0, -1}, {1, 0.8}}, {{1, 0.8}, {-1, 0.8}}},
       {{{-0.9, -0.9}, {0.9, -0.9}}, {{0.9, -0.9}, {0.9, 0.9}}, {{0.9, 0.9}, {-0.9, 0.9}}, {{-0.9, 0.9}, {-0.9, -0.9}}},
       {{{-0.8, -0.8}, {0.8, 0.8}}, {{-0.8, 0.8}, {0.8, -0.8}}},
       {{{-1.1, 0}, {0, -1.1}}, {{0, -1.1}, {1.1, 0}}, {{1.1, 0}, {0, 1.1}}, {{0, 1.1}, {-1.1, 0}}},
       {{{-1.1, 0}, {1.1, 0}}, {{0, -1.1}, {0, 1.1}}}}};
  for (const auto& [from, to] : shapes[shape % shapes.size()])
    mask.add({at.x + kMarkRadius * from.x, at.y + kMarkRadius * from.y, at.x + kMarkRadius * to.x,
              at.y + kMarkRadius * to.y, kLineRadius});
}

void blend(Image& image, std::int64_t left, std::int64_t top, const Mask& mask, Color color) {
  for (std::int64_t y = 0; y < mask.height(); ++y) {
    for (std::int64_t x = 0; x < mask.width(); ++x) image.blend(left + x, top + y, color, mask.at(x, y));
  }
}

/// Paints one unbroken line as vertices arrive. Vertices in the same pixel column are reduced to the first, the
/// extremes and the last, which look the same; the work then follows the pixels and not the number of points.
class LinePainter {
 public:
  explicit LinePainter(Mask& mask) : mask_(mask) {}

  void add(const Vertex& vertex) {
    if (count_ == 0) {
      start_column(vertex);
    } else if (std::floor(vertex.x) == std::floor(first_.x)) {
      if (vertex.y < lowest_.y) lowest_ = vertex;
      if (vertex.y > highest_.y) highest_ = vertex;
      last_ = vertex;
    } else {
      finish_column();
      stroke(last_, vertex);
      start_column(vertex);
    }
    ++count_;
  }

  /// Ends the line; a line of one point becomes a dot.
  void finish() {
    if (count_ == 1) mask_.add({first_.x, first_.y, first_.x, first_.y, kLonePointRadius});
    if (count_ > 1) finish_column();
    count_ = 0;
  }

 private:
  void start_column(const Vertex& vertex) { first_ = lowest_ = highest_ = last_ = vertex; }
  void finish_column() {
    stroke(first_, lowest_);
    stroke(lowest_, highest_);
    stroke(highest_, last_);
  }
  void stroke(const Vertex& from, const Vertex& to) { mask_.add({from.x, from.y, to.x, to.y, kLineRadius}); }

  Mask& mask_;
  Vertex first_, lowest_, highest_, last_;
  std::int64_t count_ = 0;
};

struct LegendLine {
  std::int64_t left = 0;
  std::int64_t row = 0;
  std::string text;
};

struct Legend {
  std::vector<std::vector<LegendLine>> entries;  ///< one per series, more than one line where the name is wrapped
  std::int64_t rows = 0;
};

/// Entries from left to right on as many rows as needed; a name wider than a row starts on a row of its own.
Legend lay_out_legend(const std::vector<Series>& series, std::int64_t width) {
  constexpr std::int64_t kIndent = kSwatchWidth + kSwatchGap;
  Legend legend;
  std::int64_t pen = width;  // the first entry opens the first row
  for (const Series& line : series) {
    std::vector<std::string> names = wrap_text(line.name, kScale, width - kIndent);
    if (names.empty()) names.emplace_back();
    const std::int64_t extent = kIndent + text_width(names.front(), kScale);
    if (pen + extent > width || names.size() > 1) pen = 0;
    if (pen == 0) ++legend.rows;
    std::vector<LegendLine> lines;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (i > 0) ++legend.rows;
      lines.push_back({pen, legend.rows - 1, names[i]});
    }
    pen = names.size() > 1 ? width : pen + extent + kEntryGap;
    legend.entries.push_back(std::move(lines));
  }
  return legend;
}

void draw_legend(Image& image, const Legend& legend, const std::vector<Series>& series, std::int64_t top) {
  for (std::size_t i = 0; i < legend.entries.size(); ++i) {
    for (const LegendLine& line : legend.entries[i]) {
      draw_text(image, kOuterMargin + line.left + kSwatchWidth + kSwatchGap, top + line.row * line_height(kScale),
                line.text, {kInkColor, kScale});
    }
    const LegendLine& first = legend.entries[i].front();
    const auto left = static_cast<double>(kOuterMargin + first.left);
    const auto middle = static_cast<double>(top + first.row * line_height(kScale) + cap_height(kScale) / 2);
    if (series[i].points) {
      constexpr double kHalf = kSwatchWidth / 2.0;
      Mask mask(kSwatchWidth, kSwatchWidth);
      add_mark(mask, {kHalf, kHalf}, i);
      blend(image, kOuterMargin + first.left, std::llround(middle - kHalf), mask, color_of(series, i));
    } else {
      image.draw_line(left, middle, left + static_cast<double>(kSwatchWidth), middle, 2 * kLineRadius,
                      color_of(series, i));
    }
  }
}

struct Extent {
  Range x{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  Range y = x;
  void include(Range& range, double value) {
    range.low = std::min(range.low, value);
    range.high = std::max(range.high, value);
  }
  bool empty() const { return x.low > x.high; }
};

bool drawable(const Series& line, std::size_t i) { return std::isfinite(line.x[i]) && std::isfinite(line.y[i]); }

Extent measure(const std::vector<Series>& series) {
  Extent extent;
  for (const Series& line : series) {
    if (line.x.size() != line.y.size()) {
      throw InvalidArgument("series \"" + line.name + "\" has " + std::to_string(line.x.size()) + " x and " +
                            std::to_string(line.y.size()) + " y values; give as many of each");
    }
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      if (!drawable(line, i)) continue;
      extent.include(extent.x, line.x[i]);
      extent.include(extent.y, line.y[i]);
    }
  }
  return extent;
}

void draw_series(Image& image, const std::vector<Series>& series, std::size_t index, const Axes& axes) {
  // Far outside the panel a line only needs its direction; bounded coordinates keep the stroke arithmetic exact there.
  constexpr double kFar = 1e6;
  const Series& line = series[index];
  const Rect& area = axes.area();
  Mask mask(area.width, area.height);
  LinePainter painter(mask);
  for (std::size_t i = 0; i < line.x.size(); ++i) {
    if (!drawable(line, i)) {
      painter.finish();
      continue;
    }
    const Vertex at{std::clamp(axes.pixel_x(line.x[i]) - static_cast<double>(area.left), -kFar, kFar),
                    std::clamp(axes.pixel_y(line.y[i]) - static_cast<double>(area.top), -kFar, kFar)};
    if (line.points)
      add_mark(mask, at, index);
    else
      painter.add(at);
  }
  painter.finish();
  blend(image, area.left, area.top, mask, color_of(series, index));
}

}  // namespace

Image line_chart(const LineChart& chart) {
  const Extent extent = measure(chart.series);
  const bool marked = std::any_of(chart.series.begin(), chart.series.end(), [](const Series& s) { return s.points; });
  const Range x_range = extent.empty() ? Range{0, 1} : padded(extent.x, marked ? kMarkMargin : 0);
  const Range y_range = chart.y_range ? *chart.y_range : extent.empty() ? Range{0, 1} : padded(extent.y, 0.05);
  check_range(x_range, "x values");
  check_range(y_range, chart.y_range ? "y_range" : "y values");

  if (std::min(chart.width, chart.height) < kSmallestSide || std::max(chart.width, chart.height) > kLargestSide) {
    throw InvalidArgument("a chart of " + std::to_string(chart.width) + " x " + std::to_string(chart.height) +
                          " pixels; give sides from " + std::to_string(kSmallestSide) + " to " +
                          std::to_string(kLargestSide));
  }
  const std::int64_t text_space = chart.width - 2 * kOuterMargin;
  const std::vector<std::string> title = wrap_text(chart.title, kScale, text_space);
  const Legend legend = lay_out_legend(chart.series, text_space);
  const std::int64_t name_space = text_height(kScale) + 3 * kScale;
  const std::int64_t top =
      kOuterMargin + (static_cast<std::int64_t>(title.size()) + legend.rows) * line_height(kScale) + kScale;
  const std::int64_t bottom =
      chart.height - kOuterMargin - Axes::bottom_margin(kScale) - (chart.x_name.empty() ? 0 : name_space);
  if (bottom - top < kSmallestSide) {
    throw InvalidArgument("a chart of " + std::to_string(chart.width) + " x " + std::to_string(chart.height) +
                          " pixels leaves " + std::to_string(bottom - top) + " rows for the lines; enlarge it");
  }
  const std::int64_t extent_of_labels = label_extent(vertical_ticks(y_range, bottom - top, kScale), kScale);
  const std::int64_t left =
      kOuterMargin + Axes::left_margin(extent_of_labels, kScale) + (chart.y_name.empty() ? 0 : name_space);
  const std::int64_t right = chart.width - 2 * kOuterMargin;
  if (right - left < kSmallestSide) {
    throw InvalidArgument("a chart " + std::to_string(chart.width) + " pixels wide leaves " +
                          std::to_string(right - left) + " columns for the lines; enlarge it");
  }

  Image image(chart.width, chart.height);
  std::int64_t line_top = kOuterMargin;
  for (const std::string& line : title) {
    draw_text(image, chart.width / 2, line_top, line, {kInkColor, kScale, Align::centre});
    line_top += line_height(kScale);
  }
  draw_legend(image, legend, chart.series, line_top);
  const Axes axes({left, top, right - left, bottom - top}, x_range, y_range, kScale);
  axes.draw_grid(image);
  for (std::size_t i = 0; i < chart.series.size(); ++i) draw_series(image, chart.series, i, axes);
  axes.draw_frame(image);
  axes.draw_axis_names(image, chart.x_name, chart.y_name);
  if (extent.empty()) {
    draw_text(image, left + axes.area().width / 2, top + axes.area().height / 2, "no finite values",
              {kNoteColor, kScale, Align::centre});
  }
  return image;
}

}  // namespace bracket
