#include "host/evaluate/folding.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "bracket/random.h"
#include "host/training/inference.h"
#include "host/training/row_chunks.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kChunkRows = 4096;                // primal and tangent rows together
constexpr std::uint64_t kTargetStep = 2, kPoolStep = 3;  // of stream `evaluation`; 0: test points, 1: latents
constexpr std::size_t kStartsPerWave = 8;  // starts of one point tried together; the nearer half finds most folds
constexpr double kFirstDamping = 1e-3;     // of Levenberg-Marquardt, relative to the mean of J^T J's diagonal
constexpr double kLargestDamping = 1e3;    // a start whose steps keep failing is given up
constexpr int kTrialIterations = 4;        // within which a residual must halve, or its start is given up
constexpr double kLongestStep = 2;
constexpr double kMidpointTolerances = 100;

using Vector = std::array<double, 2>;  // of a one-dimensional map the second coordinate is 0

double distance(const Vector& a, const Vector& b) { return std::hypot(a[0] - b[0], a[1] - b[1]); }

// G(z) with columns in units of `deviations`, and dG/dz_k.
struct Image {
  Vector x{};
  std::array<Vector, 2> columns{};
};

// The generator as a map of points of the plane or the line.
class PlaneMap {
 public:
  PlaneMap(Context& context, const Network& generator, const ParameterSet& parameters)
      : context_(context), generator_(generator), parameters_(parameters), dimension_(generator.input_size()) {}

  void set_deviations(const Vector& deviations) { deviations_ = deviations; }

  std::vector<Image> images(const std::vector<Vector>& z, bool jacobians) const {
    const std::int64_t d = dimension_, stack = jacobians ? 1 + d : 1;
    std::vector<Image> images(z.size());
    PrimalPass pass;
    TangentPass basis;
    const auto body = [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
      const Tensor input = arena.allocate(generator_.dtype(), {count * stack, d});
      to_device(ops, input.slice_rows(0, count), coordinates(z, first, count));
      if (jacobians) {
        ops.tile_identity(input.slice_rows(count, count * d), count);
        generator_.forward(ops, arena, pass, basis, parameters_, input.slice_rows(0, count),
                           input.slice_rows(count, count * d), {0, count, d}, PassMode::inference);
      } else {
        generator_.forward(ops, arena, pass, parameters_, input, PassMode::inference);
      }
      if (ops.planning()) return;
      const std::vector<double> x = to_host(ops, pass.output());
      const std::vector<double> columns = jacobians ? to_host(ops, basis.output()) : std::vector<double>();
      for (std::int64_t i = 0; i < count; ++i) {
        Image& image = images[static_cast<std::size_t>(first + i)];
        image.x = vector_at(x, i);
        for (std::int64_t k = 0; k < (jacobians ? d : 0); ++k)
          image.columns[static_cast<std::size_t>(k)] = vector_at(columns, i * d + k);
      }
    };
    for_row_chunks(context_, static_cast<std::int64_t>(z.size()), kChunkRows / stack, body);
    return images;
  }

  std::vector<Vector> normal_latents(std::uint64_t seed, std::uint64_t step, std::int64_t count) const {
    const std::vector<double> values = normal_values({seed, RandomStream::evaluation, step}, count * dimension_);
    std::vector<Vector> z(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t k = 0; k < dimension_; ++k)
        z[static_cast<std::size_t>(i)][static_cast<std::size_t>(k)] =
            values[static_cast<std::size_t>(i * dimension_ + k)];
    return z;
  }

 private:
  std::vector<double> coordinates(const std::vector<Vector>& z, std::int64_t first, std::int64_t count) const {
    std::vector<double> values;
    for (std::int64_t i = first; i < first + count; ++i)
      for (std::int64_t k = 0; k < dimension_; ++k)
        values.push_back(z[static_cast<std::size_t>(i)][static_cast<std::size_t>(k)]);
    return values;
  }

  Vector vector_at(const std::vector<double>& values, std::int64_t row) const {
    Vector v{};
    for (std::int64_t j = 0; j < dimension_; ++j)
      v[static_cast<std::size_t>(j)] =
          values[static_cast<std::size_t>(row * dimension_ + j)] / deviations_[static_cast<std::size_t>(j)];
    return v;
  }

  Context& context_;
  const Network& generator_;
  const ParameterSet& parameters_;
  std::int64_t dimension_;
  Vector deviations_{1, 1};
};

// Standard deviation of each column; 1 for a constant one. Throws for values that are not finite.
Vector column_deviations(const std::vector<Image>& images) {
  Vector result{1, 1};
  const auto n = static_cast<double>(images.size());
  for (std::size_t j = 0; j < 2; ++j) {
    double mean = 0, squares = 0;
    for (const Image& image : images) mean += image.x[j] / n;
    for (const Image& image : images) squares += (image.x[j] - mean) * (image.x[j] - mean) / n;
    if (!std::isfinite(squares))
      throw Diverged("generated points are not finite; evaluate an earlier checkpoint", "generator", 0);
    if (squares > 0) result[j] = std::sqrt(squares);
  }
  return result;
}

// A partition of latent space into `per_axis`^d boxes of equal mass, with the latents of the pool in each.
struct Pool {
  Pool(const PlaneMap& map, std::uint64_t seed, std::int64_t dimension, const FoldOptions& options)
      : per_axis(dimension == 1 ? options.starts : std::llround(std::sqrt(static_cast<double>(options.starts)))),
        cells(static_cast<std::size_t>(dimension == 1 ? per_axis : per_axis * per_axis)),
        latents(map.normal_latents(seed, kPoolStep, options.starts * options.pool_per_start)),
        images(map.images(latents, false)) {
    const auto axis_cell = [this](double z) {
      const double mass = 0.5 * std::erfc(-z / std::numbers::sqrt2);
      return std::min(per_axis - 1, static_cast<std::int64_t>(mass * static_cast<double>(per_axis)));
    };
    for (std::size_t i = 0; i < latents.size(); ++i) {
      const std::int64_t cell = axis_cell(latents[i][0]) + (dimension == 1 ? 0 : per_axis * axis_cell(latents[i][1]));
      cells[static_cast<std::size_t>(cell)].push_back(i);
    }
  }

  // The latent of each cell whose image is nearest to x, nearest image first.
  std::vector<Vector> starts(const Vector& x) const {
    std::vector<std::pair<double, std::size_t>> nearest;
    for (const std::vector<std::size_t>& cell : cells) {
      std::pair<double, std::size_t> best = {std::numeric_limits<double>::infinity(), 0};
      for (const std::size_t i : cell) best = std::min(best, {distance(images[i].x, x), i});
      if (std::isfinite(best.first)) nearest.push_back(best);
    }
    std::sort(nearest.begin(), nearest.end());
    std::vector<Vector> result;
    for (const auto& [unused, i] : nearest) result.push_back(latents[i]);
    return result;
  }

  std::int64_t per_axis;
  std::vector<std::vector<std::size_t>> cells;
  std::vector<Vector> latents;
  std::vector<Image> images;
};

// One run of Levenberg-Marquardt towards G(z) = target.
struct Search {
  std::size_t point = 0;  // index of the target
  Vector z{};
  Image image;
  double residual = 0;
  double first_residual = 0;
  double damping = kFirstDamping;
};

// z + (J^T J + damping mean(diagonal) I)^-1 J^T (target - G(z)), the step no longer than kLongestStep.
Vector next_latent(const Search& search, const Vector& target) {
  const auto& [a, b] = search.image.columns;
  const Vector r = {target[0] - search.image.x[0], target[1] - search.image.x[1]};
  const double aa = a[0] * a[0] + a[1] * a[1], bb = b[0] * b[0] + b[1] * b[1], ab = a[0] * b[0] + a[1] * b[1];
  const double shift = search.damping * 0.5 * (aa + bb), p = aa + shift, q = bb + shift;
  const double u = a[0] * r[0] + a[1] * r[1], v = b[0] * r[0] + b[1] * r[1];
  const double determinant = p * q - ab * ab;
  Vector step = {(q * u - ab * v) / determinant, (p * v - ab * u) / determinant};
  const double length = std::hypot(step[0], step[1]);
  const double scale = length > kLongestStep ? kLongestStep / length : 1;
  return {search.z[0] + scale * step[0], search.z[1] + scale * step[1]};
}

struct Target {
  Vector z{};
  Vector x{};
  bool folded = false;
};

// Runs all searches and returns those that arrived at another preimage.
std::vector<Search> arrivals(const PlaneMap& map, const std::vector<Target>& targets, std::vector<Search> searches,
                             const FoldOptions& options, double tolerance) {
  std::vector<Search> arrived;
  std::vector<Vector> z;
  for (const Search& search : searches) z.push_back(search.z);
  for (std::int64_t iteration = 0; iteration <= options.iterations && !searches.empty(); ++iteration) {
    const std::vector<Image> images = map.images(z, true);
    std::vector<Search> alive;
    for (std::size_t i = 0; i < searches.size(); ++i) {
      Search search = searches[i];
      const Target& target = targets[search.point];
      const double residual = distance(images[i].x, target.x);
      if (iteration == 0 || residual < search.residual) {
        search.z = z[i];
        search.image = images[i];
        search.residual = residual;
        search.damping *= iteration == 0 ? 1 : 0.1;
      } else {
        search.damping *= 10;
      }
      if (iteration == 0) search.first_residual = residual;
      // The negations give up what is not finite.
      if (!(distance(search.z, target.z) >= options.separation)) continue;
      if (!(std::hypot(search.z[0], search.z[1]) <= options.largest_latent)) continue;
      if (!(search.damping <= kLargestDamping)) continue;
      if (iteration == kTrialIterations && !(search.residual <= 0.5 * search.first_residual)) continue;
      (search.residual <= tolerance ? arrived : alive).push_back(search);
    }
    searches = std::move(alive);
    z.clear();
    for (const Search& search : searches) z.push_back(next_latent(search, targets[search.point].x));
  }
  return arrived;
}

// Marks the points whose preimages differ by more than a flat stretch of G between them.
void mark_folds(const PlaneMap& map, std::vector<Target>& targets, const std::vector<Search>& arrived,
                double tolerance) {
  std::vector<Vector> midpoints;
  for (const Search& search : arrived) {
    const Vector& z = targets[search.point].z;
    midpoints.push_back({0.5 * (z[0] + search.z[0]), 0.5 * (z[1] + search.z[1])});
  }
  const std::vector<Image> images = map.images(midpoints, false);
  for (std::size_t i = 0; i < arrived.size(); ++i) {
    Target& target = targets[arrived[i].point];
    if (distance(images[i].x, target.x) > kMidpointTolerances * tolerance) target.folded = true;
  }
}

}  // namespace

double fold_tolerance(const FoldOptions& options, DType dtype) noexcept {
  if (options.tolerance > 0) return options.tolerance;
  return dtype == DType::f32 ? 1e-5 : 1e-10;
}

double fold_fraction(Context& context, const Network& generator, const ParameterSet& parameters, std::uint64_t seed,
                     const FoldOptions& options) {
  const std::int64_t d = generator.input_size();
  if (d != generator.output_size() || d > 2)
    throw InvalidArgument("fold_fraction needs a map of the line or the plane to itself, got " + std::to_string(d) +
                          " latent and " + std::to_string(generator.output_size()) + " data columns");
  if (options.samples < 1 || options.starts < 1 || options.pool_per_start < 1)
    throw InvalidArgument("fold_fraction needs at least 1 sample, start and latent per start, got " +
                          std::to_string(options.samples) + ", " + std::to_string(options.starts) + " and " +
                          std::to_string(options.pool_per_start));
  const double tolerance = fold_tolerance(options, generator.dtype());
  PlaneMap map(context, generator, parameters);
  const std::vector<Vector> latents = map.normal_latents(seed, kTargetStep, options.samples);
  map.set_deviations(column_deviations(map.images(latents, false)));
  const std::vector<Image> images = map.images(latents, false);
  std::vector<Target> targets(latents.size());
  for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = {latents[i], images[i].x};

  const Pool pool(map, seed, d, options);
  std::vector<std::vector<Vector>> starts;
  for (const Target& target : targets) starts.push_back(pool.starts(target.x));
  for (std::size_t first = 0; first < pool.cells.size(); first += kStartsPerWave) {
    std::vector<Search> searches;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (targets[i].folded) continue;
      for (std::size_t k = first; k < std::min(first + kStartsPerWave, starts[i].size()); ++k) {
        Search search;
        search.point = i;
        search.z = starts[i][k];
        searches.push_back(search);
      }
    }
    mark_folds(map, targets, arrivals(map, targets, std::move(searches), options, tolerance), tolerance);
  }
  const auto folded = std::count_if(targets.begin(), targets.end(), [](const Target& target) { return target.folded; });
  return static_cast<double>(folded) / static_cast<double>(targets.size());
}

}  // namespace bracket
