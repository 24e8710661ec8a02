// Whole figures: two-dimensional densities with their points, grids of generated images, metrics over training.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/picture/axes.h"
#include "host/picture/image.h"

namespace bracket {

struct Point {
  double x = 0;
  double y = 0;
};

struct Box {
  Range x;
  Range y;
};

/// Log densities in nats at the centres of columns x rows equal cells that tile the box; row 0 is the lowest, values
/// are row-major. -infinity is density zero; NaN cells are drawn gray and counted in the panel's note.
struct DensityGrid {
  std::int64_t columns = 0;
  std::int64_t rows = 0;
  std::vector<double> log_density;
};

struct DensityFigure {
  std::string caption;
  Box box;
  std::vector<Point> data;  ///< any number, none included; those outside the box or not finite are counted in the note
  std::vector<Point> samples;  ///< like data
  DensityGrid grid;
  double log_floor = 12;  ///< nats below the maximum at which the log-density panel is clipped
};

/// Data, samples, density and log-density side by side. A frame is 400 pixels on its longer side and keeps the aspect
/// ratio of the box up to 2 : 1. Where the grid is finer than the frame each pixel shows the mean density of the cells
/// it covers. Throws InvalidArgument for a box without extent, a grid whose size and values disagree or a bad floor.
Image density_figure(const DensityFigure& figure);

/// Data next to density; the samples are not drawn.
Image two_panel_figure(const DensityFigure& figure);

struct SampleGrid {
  std::int64_t count = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 1;  ///< 1 (gray) or 3 (RGB)
  /// count x height x width x channels, row-major. Values are clamped to [0, 1]; NaN pixels are magenta.
  std::span<const float> values;
  std::int64_t columns = 0;        ///< 0: the grid is as nearly square as it can be
  std::int64_t magnification = 2;  ///< side of the square of pixels drawn for each pixel
  std::int64_t gap = 2;            ///< pixels between and around the images
};

/// The images row by row. Throws InvalidArgument for no image or for sizes that do not agree with the values.
Image sample_grid(const SampleGrid& grid);

struct Series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;            ///< as many as x; a pair that is not finite interrupts the line
  bool points = false;              ///< a mark for every point, shaped by the place in the chart, and no line
  std::optional<Color> color = {};  ///< default: that of the place in the chart
};

struct LineChart {
  std::string title;
  std::string x_name;
  std::string y_name;
  std::vector<Series> series;
  std::optional<Range> y_range;  ///< default: everything, with a small margin
  std::int64_t width = 1040;
  std::int64_t height = 600;
};

/// Lines or points over a common x axis with a legend. Where many points of a line share a pixel column their extremes
/// are kept. Throws InvalidArgument for x and y of different length, a bad y_range, a side above 16384 or too small to
/// hold the axes.
Image line_chart(const LineChart& chart);

struct Sample {
  std::string name;
  std::span<const double> values;
};

struct HistogramChart {
  std::string title;
  std::string x_name;
  std::vector<Sample> samples;
  std::int64_t bins = 80;
  /// Share of every sample that the x axis leaves out at either end, so that a few outliers do not squeeze all others
  /// into one bin.
  double left_out = 0.005;
};

inline constexpr std::int64_t kMostBins = 4096;

/// The steps of a sample's density over `bins` equal bins of a range; no points when none of its values lies inside.
/// The name tells what share lies outside, values that are not finite included. Throws InvalidArgument for bins outside
/// [1, kMostBins] or a range without extent.
Series density_outline(const Sample& sample, const Range& range, std::int64_t bins);

/// Outlines of the densities of several samples over common bins.
/// Throws InvalidArgument for bins outside [1, kMostBins].
Image histogram_chart(const HistogramChart& chart);

}  // namespace bracket
