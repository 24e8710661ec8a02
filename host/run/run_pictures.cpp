#include "host/run/run_pictures.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <utility>
#include <vector>

#include "bracket/checkpoint.h"
#include "bracket/error.h"
#include "host/config/json_text.h"
#include "host/core/text.h"
#include "host/data/data_file.h"
#include "host/evaluate/evaluate.h"
#include "host/files/in_quotes.h"
#include "host/files/posix_file.h"
#include "host/picture/axes.h"
#include "host/picture/plots.h"

namespace bracket {
namespace {

constexpr std::int64_t kSmallestSide = 4;
constexpr std::int64_t kDrawnSide = 64;  // smaller images are magnified up to it
constexpr std::int64_t kScatterSide = 640;
constexpr std::int64_t kTextScale = 2;
constexpr std::size_t kAveragedSteps = 20;
constexpr Color kPointColor{31, 90, 160};

std::vector<Point> points_of(std::span<const double> values) {
  std::vector<Point> points(values.size() / 2);
  for (std::size_t i = 0; i < points.size(); ++i) points[i] = {values[2 * i], values[2 * i + 1]};
  return points;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

}  // namespace

Image density_picture(Trainer& trainer, const Dataset& data, const DensityPictureOptions& options) {
  if (data.cols() != 2) {
    throw InvalidArgument("a density picture needs two-dimensional data, got " + std::to_string(data.cols()) +
                          " columns; draw samples instead");
  }
  const std::uint64_t seed = trainer.config().seed;
  const DataStatistics statistics = data.statistics(seed);
  const std::int64_t points = data.is_density() ? options.points : std::min(options.points, data.rows());
  const std::vector<double> rows = data.sample(points, seed);
  const auto num_rows = static_cast<std::int64_t>(rows.size()) / 2;
  QuadratureOptions quadrature;
  quadrature.tolerance = options.log_z_tolerance;
  const double log_z = log_partition(trainer, statistics, options.weights, quadrature).value().log_z;
  const double nll = mean(trainer.energies(rows, num_rows, options.weights)) + log_z;

  DensityFigure figure;
  const std::string name =
      is_data_file(data.name()) ? std::filesystem::path(data.name()).filename().string() : data.name();
  figure.caption = name + "   step " + std::to_string(trainer.step()) + "   NLL " + fixed_number(nll, 2) + " nats at " +
                   std::to_string(num_rows) + " points";
  figure.box = picture_box(statistics);
  figure.data = points_of(rows);
  figure.samples = points_of(trainer.samples(options.points, seed, options.weights));
  figure.grid = density_grid(trainer, figure.box, options.cells, options.cells, log_z, options.weights);
  return density_figure(figure);
}

LineChart lower_bound_chart(const std::filesystem::path& metrics_file) {
  Series batches{"batches", {}, {}}, average{"mean of " + std::to_string(kAveragedSteps) + " logged steps", {}, {}};
  const std::vector<std::byte> bytes = read_file(metrics_file);
  std::istringstream lines(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  double sum = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json metrics = Json::parse(line, nullptr, false);
    const auto step = metrics.find("step"), bound = metrics.find("lower_bound");
    if (step == metrics.end() || bound == metrics.end() || !step->is_number() || !bound->is_number()) continue;
    batches.x.push_back(step->get<double>());
    batches.y.push_back(bound->get<double>());
    sum += batches.y.back();
    if (batches.y.size() > kAveragedSteps) sum -= batches.y[batches.y.size() - 1 - kAveragedSteps];
    average.x.push_back(batches.x.back());
    average.y.push_back(sum / static_cast<double>(std::min(batches.y.size(), kAveragedSteps)));
  }
  if (batches.x.empty()) throw InvalidArgument(path_in_quotes(metrics_file) + " has no lower bound to draw");
  LineChart chart{"Lower bound of the negative log-likelihood", "step", "nats", {}, std::nullopt};
  // The first tenth can lie hundreds of nats below the rest.
  const auto settled =
      std::minmax_element(batches.y.begin() + static_cast<std::ptrdiff_t>(batches.y.size() / 10), batches.y.end());
  chart.y_range = padded({*settled.first, *settled.second}, 0.05);
  chart.series = {std::move(batches), std::move(average)};
  return chart;
}

Image lower_bound_picture(const std::filesystem::path& metrics_file, const Network& generator) {
  LineChart chart = lower_bound_chart(metrics_file);
  if (generator.output_size() > generator.input_size()) chart.title += ", on G's image";
  if (!generator.injective_by_construction()) chart.title += " (G not certified injective)";
  return line_chart(chart);
}

std::filesystem::path picture_path(const std::filesystem::path& run_folder, const char* kind, std::int64_t step) {
  return run_folder / kind / (checkpoint_folder("", step).filename().string() + ".png");
}

std::optional<ImageShape> drawable_image(const RunDescription& run) {
  if (run.image) return run.image->channels == 1 || run.image->channels == 3 ? run.image : std::nullopt;
  const auto side = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(run.data_cols))));
  if (side < kSmallestSide || side * side != run.data_cols) return std::nullopt;
  return ImageShape{.channels = 1, .height = side, .width = side};
}

Image sample_picture(std::span<const double> values, std::int64_t rows, const ImageShape& shape, double minimum,
                     double maximum) {
  const double scale = maximum > minimum ? 1 / (maximum - minimum) : 0;
  std::vector<float> gray(values.size());
  std::transform(values.begin(), values.end(), gray.begin(),
                 [&](double value) { return static_cast<float>((value - minimum) * scale); });
  SampleGrid grid;
  grid.count = rows;
  grid.height = shape.height;
  grid.width = shape.width;
  grid.channels = shape.channels;
  grid.values = gray;
  grid.magnification = std::max<std::int64_t>(1, kDrawnSide / std::max(shape.height, shape.width));
  return sample_grid(grid);
}

Image scatter_picture(std::span<const double> values, std::int64_t rows, const std::string& title) {
  const std::vector<Point> points = points_of(values);
  const auto range = [&](double Point::*member) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (const Point& point : points) {
      if (!std::isfinite(point.*member)) continue;
      low = std::min(low, point.*member);
      high = std::max(high, point.*member);
    }
    return low <= high ? padded({low, high}, 0.05) : Range{};
  };
  const Range x = range(&Point::x), y = range(&Point::y);
  const std::int64_t left =
      Axes::left_margin(label_extent(vertical_ticks(y, kScatterSide, kTextScale), kTextScale), kTextScale);
  const std::int64_t top = Axes::title_margin(kTextScale);
  Image image(left + kScatterSide + 24, top + kScatterSide + Axes::bottom_margin(kTextScale));
  const Rect area{left, top, kScatterSide, kScatterSide};
  const Axes axes(area, x, y, kTextScale);
  axes.draw_grid(image);
  const double radius = std::clamp(150 / std::sqrt(static_cast<double>(std::max<std::int64_t>(rows, 1))), 1.0, 4.0);
  for (const Point& point : points) {
    image.fill_disc(axes.pixel_x(point.x), axes.pixel_y(point.y), radius, kPointColor, 0.6);
  }
  axes.draw_frame(image);
  axes.draw_title(image, title, std::to_string(rows) + " points");
  return image;
}

}  // namespace bracket
