#include "host/picture/plots.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "bracket/error.h"
#include "host/picture/coverage.h"
#include "host/picture/font.h"

namespace bracket {
namespace {

constexpr std::int64_t kScale = 2;
constexpr std::int64_t kCaptionScale = 3;
constexpr std::int64_t kFrameSide = 400;  // whole pixels per cell for grids of 50, 80, 100, 200 and 400
constexpr double kLargestAspect = 2;
constexpr std::int64_t kOuterMargin = 16;
constexpr std::int64_t kPanelGap = 22;
constexpr std::int64_t kBarGap = 12;
constexpr std::int64_t kBarWidth = 18;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct ColorScale {
  Range range;
  const ColorMap* map = nullptr;
};

struct Panel {
  std::string title;
  std::string note;
  Image content;
  std::optional<ColorScale> bar;
};

struct FrameSize {
  std::int64_t width = 0;
  std::int64_t height = 0;
};

/// True to scale unless one side would become shorter than half the other; then a square.
FrameSize frame_size(const Box& box) {
  check_range(box.x, "box in x");
  check_range(box.y, "box in y");
  const double aspect = box.x.width() / box.y.width();
  if (!(aspect <= kLargestAspect && aspect >= 1 / kLargestAspect)) return {kFrameSide, kFrameSide};
  const double side = static_cast<double>(kFrameSide);
  if (aspect >= 1) return {kFrameSide, std::llround(side / aspect)};
  return {std::llround(side * aspect), kFrameSide};
}

/// The cells under one pixel along one direction.
struct Cells {
  std::int64_t first = 0;
  std::int64_t end = 0;
  double low = 0;  ///< covered interval in units of cells
  double high = 0;
  double weight(std::int64_t cell) const {
    return std::min(high, static_cast<double>(cell + 1)) - std::max(low, static_cast<double>(cell));
  }
};

Cells cells_under(std::int64_t pixel, std::int64_t pixels, std::int64_t cells) {
  // Integer quotients: a pixel edge that meets a cell edge meets it exactly.
  const std::int64_t low = pixel * cells;
  const std::int64_t high = low + cells;
  const double per_pixel = static_cast<double>(pixels);
  return {low / pixels, (high + pixels - 1) / pixels, static_cast<double>(low) / per_pixel,
          static_cast<double>(high) / per_pixel};
}

/// log of the mean density under each pixel, rows from top to bottom. NaN where any covered cell is NaN.
std::vector<double> log_mean_density(const DensityGrid& grid, const FrameSize& size) {
  std::vector<double> pixels;
  pixels.reserve(static_cast<std::size_t>(size.width * size.height));
  for (std::int64_t y = 0; y < size.height; ++y) {
    const Cells rows = cells_under(size.height - 1 - y, size.height, grid.rows);
    for (std::int64_t x = 0; x < size.width; ++x) {
      const Cells columns = cells_under(x, size.width, grid.columns);
      const auto for_each_cell = [&](auto&& visit) {
        for (std::int64_t row = rows.first; row < rows.end; ++row) {
          for (std::int64_t column = columns.first; column < columns.end; ++column) {
            visit(grid.log_density[static_cast<std::size_t>(row * grid.columns + column)],
                  rows.weight(row) * columns.weight(column));
          }
        }
      };
      double largest = -kInfinity;
      bool invalid = false;
      for_each_cell([&](double value, double) {
        invalid = invalid || std::isnan(value);
        largest = std::max(largest, value);
      });
      if (invalid) {
        pixels.push_back(std::numeric_limits<double>::quiet_NaN());
      } else if (std::isinf(largest)) {
        pixels.push_back(largest);
      } else {
        double sum = 0;
        double weights = 0;
        for_each_cell([&](double value, double weight) {
          sum += weight * std::exp(value - largest);
          weights += weight;
        });
        pixels.push_back(largest + std::log(sum / weights));
      }
    }
  }
  return pixels;
}

/// The resampled log density with what both heat maps need to know about it.
struct DensityImage {
  FrameSize size;
  std::vector<double> log_density;
  double maximum = -kInfinity;  ///< over finite pixels; -infinity when there is none
  std::int64_t invalid_cells = 0;
};

DensityImage resample(const DensityGrid& grid, const FrameSize& size) {
  const auto values = static_cast<std::int64_t>(grid.log_density.size());
  if (grid.columns < 1 || grid.rows < 1 || grid.columns > values || values / grid.columns != grid.rows ||
      values % grid.columns != 0) {
    throw InvalidArgument("density grid of " + std::to_string(grid.columns) + " columns and " +
                          std::to_string(grid.rows) + " rows comes with " + std::to_string(values) +
                          " values; give columns * rows values, at least one");
  }
  DensityImage image{size, log_mean_density(grid, size), -kInfinity, 0};
  for (const double value : image.log_density) {
    if (std::isfinite(value)) image.maximum = std::max(image.maximum, value);
  }
  image.invalid_cells =
      std::count_if(grid.log_density.begin(), grid.log_density.end(), [](double value) { return std::isnan(value); });
  return image;
}

/// `unit` unless something about the values needs to be said.
std::string heat_note(const DensityImage& density, const std::string& unit, bool relative) {
  std::string note = unit;
  if (std::isinf(density.maximum)) {
    note = "no finite value";
  } else if (relative) {
    note = "relative to its maximum";
  }
  if (density.invalid_cells > 0) {
    note += (note.empty() ? "NaN cells: " : ", NaN cells: ") + std::to_string(density.invalid_cells);
  }
  return note;
}

template <class Level>
Image paint(const DensityImage& density, const ColorMap& map, Level&& level) {
  Image content(density.size.width, density.size.height);
  for (std::int64_t y = 0; y < density.size.height; ++y) {
    for (std::int64_t x = 0; x < density.size.width; ++x) {
      content.set(x, y, map(level(density.log_density[static_cast<std::size_t>(y * density.size.width + x)])));
    }
  }
  return content;
}

Panel density_panel(const DensityImage& density) {
  // Beyond this exp leaves the range that an axis can show.
  constexpr double kLargestLog = 600;
  const bool relative = !(std::abs(density.maximum) <= kLargestLog);
  const double top = std::isinf(density.maximum) ? 0 : density.maximum;
  Image content = paint(density, viridis_root(), [top](double value) { return std::exp(value - top); });
  return {"density", heat_note(density, "", relative), std::move(content),
          ColorScale{{0, relative ? 1.0 : std::exp(top)}, &viridis_root()}};
}

Panel log_density_panel(const DensityImage& density, double floor) {
  // Beyond this the floor is lost in the digits of the labels, so they count from the maximum.
  const double kLargestLog = 1e5 * floor;
  const bool relative = !(std::abs(density.maximum) <= kLargestLog);
  const double top = std::isinf(density.maximum) ? 0 : density.maximum;
  Image content = paint(density, viridis(), [=](double value) { return (value - top) / floor + 1; });
  const double shown_top = relative ? 0 : top;
  return {"log-density", heat_note(density, "nats", relative), std::move(content),
          ColorScale{{shown_top - floor, shown_top}, &viridis()}};
}

double disc_radius(std::size_t points) {
  // From 2.2 pixels for a thousand points down to 1 for a few million: discs of dense clouds must not merge too early.
  return std::clamp(2.2 - 0.35 * std::log10(static_cast<double>(points) / 1000 + 1e-9), 1.0, 2.2);
}

/// Shade of a pixel grows with the logarithm of the points on it, so that a single point stays visible beside a mode of
/// thousands. kContrast sets how visible: one point among 1000 on top of each other still gets a fifth of the scale.
Image paint_points(const std::vector<double>& depth, const FrameSize& size) {
  constexpr double kContrast = 4;
  constexpr double kSaturated = 0.995;  // share of the inked pixels below full shade
  std::vector<double> inked;
  std::copy_if(depth.begin(), depth.end(), std::back_inserter(inked), [](double value) { return value > 0; });
  double full = 1;
  if (!inked.empty()) {
    const auto at = static_cast<std::ptrdiff_t>(kSaturated * static_cast<double>(inked.size() - 1));
    std::nth_element(inked.begin(), inked.begin() + at, inked.end());
    full = std::max(full, inked[static_cast<std::size_t>(at)]);
  }
  Image content(size.width, size.height);
  for (std::int64_t y = 0; y < size.height; ++y) {
    for (std::int64_t x = 0; x < size.width; ++x) {
      const double shade = std::log1p(kContrast * depth[static_cast<std::size_t>(y * size.width + x)]);
      content.set(x, y, ink()(shade / std::log1p(kContrast * full)));
    }
  }
  return content;
}

Panel scatter_panel(std::string title, const std::vector<Point>& points, const Box& box, const FrameSize& size) {
  const Axes axes({0, 0, size.width, size.height}, box.x, box.y, kScale);
  const double radius = disc_radius(points.size());
  std::vector<double> depth(static_cast<std::size_t>(size.width * size.height), 0.0);
  std::int64_t not_finite = 0;
  std::int64_t outside = 0;
  for (const Point& point : points) {
    if (!std::isfinite(point.x) || !std::isfinite(point.y)) {
      ++not_finite;
    } else if (point.x < box.x.low || point.x > box.x.high || point.y < box.y.low || point.y > box.y.high) {
      ++outside;
    } else {
      const double x = axes.pixel_x(point.x);
      const double y = axes.pixel_y(point.y);
      visit_capsule({x, y, x, y, radius}, size.width, size.height,
                    [&](std::int64_t column, std::int64_t row, double coverage) {
                      depth[static_cast<std::size_t>(row * size.width + column)] += coverage;
                    });
    }
  }
  std::string note = "n = " + std::to_string(points.size());
  if (outside > 0) note += ", " + std::to_string(outside) + " outside";
  if (not_finite > 0) note += ", " + std::to_string(not_finite) + " invalid";
  return {std::move(title), std::move(note), paint_points(depth, size), std::nullopt};
}

Image assemble(const std::string& caption, const Box& box, const FrameSize& size, const std::vector<Panel>& panels) {
  const Axes model({0, 0, size.width, size.height}, box.x, box.y, kScale);
  const std::int64_t left_margin = Axes::left_margin(label_extent(model.y_ticks(), kScale), kScale);
  const auto bar_space = [&](const Panel& panel) -> std::int64_t {
    if (!panel.bar) return 0;
    const std::vector<Tick> ticks = vertical_ticks(panel.bar->range, size.height, kScale);
    return kBarGap + kBarWidth + color_bar_margin(label_extent(ticks, kScale), kScale);
  };
  std::int64_t width = 2 * kOuterMargin - kPanelGap;
  for (const Panel& panel : panels) width += left_margin + size.width + bar_space(panel) + kPanelGap;
  const std::int64_t text_space = width - 2 * kOuterMargin;
  const std::int64_t caption_scale = text_width(caption, kCaptionScale) <= text_space ? kCaptionScale : kScale;
  const std::vector<std::string> lines = wrap_text(caption, caption_scale, text_space);
  const std::int64_t caption_height = static_cast<std::int64_t>(lines.size()) * line_height(caption_scale);
  const std::int64_t top = kOuterMargin + caption_height + Axes::title_margin(kScale);
  Image image(width, top + size.height + Axes::bottom_margin(kScale) + kOuterMargin);
  std::int64_t line_top = kOuterMargin;
  for (const std::string& line : lines) {
    draw_text(image, width / 2, line_top, line, {kInkColor, caption_scale, Align::centre});
    line_top += line_height(caption_scale);
  }
  std::int64_t left = kOuterMargin;
  for (const Panel& panel : panels) {
    left += left_margin;
    const Axes axes({left, top, size.width, size.height}, box.x, box.y, kScale);
    image.blit(panel.content, left, top);
    axes.draw_frame(image);
    axes.draw_title(image, panel.title, panel.note);
    left += size.width;
    if (panel.bar) {
      draw_color_bar(image, {left + kBarGap, top, kBarWidth, size.height}, panel.bar->range, *panel.bar->map, kScale);
    }
    left += bar_space(panel) + kPanelGap;
  }
  return image;
}

}  // namespace

Image density_figure(const DensityFigure& figure) {
  if (!(figure.log_floor >= 1e-3 && figure.log_floor <= 1e6)) {
    throw InvalidArgument("floor of the log-density panel is " + std::to_string(figure.log_floor) +
                          " nats below the maximum; give a value from 0.001 to 1000000");
  }
  const FrameSize size = frame_size(figure.box);
  const DensityImage density = resample(figure.grid, size);
  std::vector<Panel> panels;
  panels.push_back(scatter_panel("data", figure.data, figure.box, size));
  panels.push_back(scatter_panel("samples", figure.samples, figure.box, size));
  panels.push_back(density_panel(density));
  panels.push_back(log_density_panel(density, figure.log_floor));
  return assemble(figure.caption, figure.box, size, panels);
}

Image two_panel_figure(const DensityFigure& figure) {
  const FrameSize size = frame_size(figure.box);
  std::vector<Panel> panels;
  panels.push_back(scatter_panel("data", figure.data, figure.box, size));
  panels.push_back(density_panel(resample(figure.grid, size)));
  return assemble(figure.caption, figure.box, size, panels);
}

}  // namespace bracket
