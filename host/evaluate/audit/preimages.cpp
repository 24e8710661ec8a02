#include "host/evaluate/audit/preimages.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Cholesky>

#include "bracket/error.h"
#include "host/evaluate/audit/audit_streams.h"
#include "host/evaluate/folding.h"
#include "host/training/inference.h"
#include "host/training/row_chunks.h"

namespace bracket {
namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr std::int64_t kTangentValues = std::int64_t{1} << 22;  // columns of Jacobians at a time
constexpr std::int64_t kSearchValues = std::int64_t{1} << 24;   // of the Jacobians that searches keep at a time
constexpr double kFirstDamping = 1e-3;                          // relative to the mean of J^T J's diagonal
constexpr double kLargestDamping = 1e3;                         // a search whose steps keep failing is given up
constexpr double kLongestStep = 2;
constexpr double kMidpointTolerances = 100;

// G with columns in units of the deviations of generated points.
class ScaledMap {
 public:
  ScaledMap(Context& context, const Network& generator, const ParameterSet& parameters)
      : context_(context), generator_(generator), parameters_(parameters), deviation_(generator.output_size()) {
    deviation_.setOnes();
  }

  void measure(const RowMatrix& images) {
    const RowMatrix centred = images.rowwise() - images.colwise().mean();
    deviation_ = (centred.colwise().squaredNorm() / static_cast<double>(images.rows())).cwiseSqrt();
    for (double& d : deviation_)
      if (!(d > 0)) d = 1;
  }

  RowMatrix images(const RowMatrix& z) const {
    const std::vector<double> x =
        network_outputs(context_, generator_, parameters_, {z.data(), static_cast<std::size_t>(z.size())}, z.rows());
    RowMatrix result = Eigen::Map<const RowMatrix>(x.data(), z.rows(), generator_.output_size());
    result.array().rowwise() /= deviation_.array();
    return result;
  }

  /// Images, and rows i d + k of `columns` = dG/dz_k of row i.
  RowMatrix images(const RowMatrix& z, RowMatrix& columns) const {
    const std::int64_t d = generator_.input_size(), cols = generator_.output_size();
    RowMatrix result(z.rows(), cols);
    columns.resize(z.rows() * d, cols);
    const std::int64_t chunk = std::max<std::int64_t>(1, kTangentValues / (d * generator_.values_per_row()));
    for_row_chunks(context_, z.rows(), chunk, [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
      const Tensor input = arena.allocate(generator_.dtype(), {count * (1 + d), d});
      to_device(ops, input.slice_rows(0, count), {z.data() + first * d, static_cast<std::size_t>(count * d)});
      ops.tile_identity(input.slice_rows(count, count * d), count);
      PrimalPass pass;
      TangentPass basis;
      generator_.forward(ops, arena, pass, basis, parameters_, input.slice_rows(0, count),
                         input.slice_rows(count, count * d), {0, count, d}, PassMode::inference);
      if (ops.planning()) return;
      const std::vector<double> x = to_host(ops, pass.output()), t = to_host(ops, basis.output());
      result.middleRows(first, count) = Eigen::Map<const RowMatrix>(x.data(), count, cols);
      columns.middleRows(first * d, count * d) = Eigen::Map<const RowMatrix>(t.data(), count * d, cols);
    });
    result.array().rowwise() /= deviation_.array();
    columns.array().rowwise() /= deviation_.array();
    return result;
  }

 private:
  Context& context_;
  const Network& generator_;
  const ParameterSet& parameters_;
  Eigen::RowVectorXd deviation_;
};

// One run towards G(z) = image of a sample.
struct Search {
  std::int64_t sample = 0;
  Eigen::RowVectorXd z, image;
  RowMatrix columns;  // [d, D]
  double residual = std::numeric_limits<double>::infinity();
  double damping = kFirstDamping;
};

Eigen::RowVectorXd next_latent(const Search& search, const Eigen::RowVectorXd& target) {
  Eigen::MatrixXd gram = search.columns * search.columns.transpose();
  const Eigen::VectorXd pull = search.columns * (target - search.image).transpose();
  gram.diagonal().array() += search.damping * gram.diagonal().mean() + std::numeric_limits<double>::min();
  Eigen::VectorXd step = gram.ldlt().solve(pull);
  const double length = step.norm();
  if (length > kLongestStep) step *= kLongestStep / length;
  return search.z + step.transpose();
}

// Searches that arrived at another preimage.
std::vector<Search> arrivals(const ScaledMap& map, const RowMatrix& z, const RowMatrix& x, std::vector<Search> searches,
                             const PreimageOptions& options, double tolerance) {
  std::vector<Search> arrived;
  const double largest = z.rowwise().norm().maxCoeff();
  const std::int64_t d = z.cols();
  std::vector<Eigen::RowVectorXd> trial;
  for (const Search& search : searches) trial.push_back(search.z);
  for (std::int64_t iteration = 0; iteration <= options.iterations && !searches.empty(); ++iteration) {
    RowMatrix latents(static_cast<std::int64_t>(trial.size()), d), columns;
    for (std::int64_t i = 0; i < latents.rows(); ++i) latents.row(i) = trial[static_cast<std::size_t>(i)];
    const RowMatrix images = map.images(latents, columns);
    std::vector<Search> alive;
    for (std::int64_t i = 0; i < latents.rows(); ++i) {
      Search& search = searches[static_cast<std::size_t>(i)];
      const double residual = (images.row(i) - x.row(search.sample)).norm();
      if (residual < search.residual) {
        search.z = latents.row(i);
        search.image = images.row(i);
        search.columns = columns.middleRows(i * d, d);
        search.residual = residual;
        search.damping *= iteration == 0 ? 1 : 0.1;
      } else {
        search.damping *= 10;
      }
      // The negations give up what is not finite.
      if (!((search.z - z.row(search.sample)).norm() >= options.separation)) continue;
      if (!(search.z.norm() <= largest) || !(search.damping <= kLargestDamping)) continue;
      (search.residual <= tolerance ? arrived : alive).push_back(std::move(search));
    }
    searches = std::move(alive);
    trial.clear();
    for (const Search& search : searches) trial.push_back(next_latent(search, x.row(search.sample)));
  }
  return arrived;
}

// The latents of the nearest images of every sample, apart by the separation.
std::vector<Search> starts(const RowMatrix& z, const RowMatrix& x, const PreimageOptions& options,
                           double& least_stretch) {
  std::vector<Search> searches;
  std::vector<std::pair<double, std::int64_t>> near;
  for (std::int64_t i = 0; i < z.rows(); ++i) {
    near.clear();
    for (std::int64_t j = 0; j < z.rows(); ++j) {
      const double apart = (z.row(j) - z.row(i)).norm();
      if (j != i && apart >= options.separation) near.emplace_back((x.row(j) - x.row(i)).norm(), j);
    }
    const auto count = std::min<std::ptrdiff_t>(options.neighbours, static_cast<std::ptrdiff_t>(near.size()));
    std::partial_sort(near.begin(), near.begin() + count, near.end());
    for (std::ptrdiff_t k = 0; k < count; ++k) {
      const auto& [distance, j] = near[static_cast<std::size_t>(k)];
      least_stretch = std::min(least_stretch, distance / (z.row(j) - z.row(i)).norm());
      Search search;
      search.sample = i;
      search.z = z.row(j);
      searches.push_back(std::move(search));
    }
  }
  return searches;
}

}  // namespace

SecondPreimages second_preimages(Context& context, const Network& generator, const ParameterSet& parameters,
                                 const PreimageOptions& options) {
  const std::int64_t d = generator.input_size();
  if (d > generator.output_size())
    throw InvalidArgument("second_preimages: " + std::to_string(d) + " latent columns make " +
                          std::to_string(generator.output_size()) + ", so nearly every image has many preimages");
  if (options.samples < 1 || options.neighbours < 1 || options.iterations < 0 || !(options.separation > 0) ||
      !(options.tolerance >= 0))
    throw InvalidArgument("second_preimages needs at least 1 sample and neighbour and a positive separation, got " +
                          std::to_string(options.samples) + ", " + std::to_string(options.neighbours) + " and " +
                          std::to_string(options.separation));
  FoldOptions folding;
  folding.tolerance = options.tolerance;
  const double tolerance = fold_tolerance(folding, generator.dtype());
  const std::vector<double> latents =
      normal_values({options.seed, RandomStream::evaluation, kPreimageStep}, options.samples * d);
  const RowMatrix z = Eigen::Map<const RowMatrix>(latents.data(), options.samples, d);
  ScaledMap map(context, generator, parameters);
  map.measure(map.images(z));
  const RowMatrix x = map.images(z);
  if (!x.allFinite())
    throw Diverged("the generator makes points that are not finite; evaluate an earlier checkpoint", "generator", 0);

  SecondPreimages result;
  result.samples = options.samples;
  result.least_stretch = std::numeric_limits<double>::infinity();
  std::vector<Search> searches = starts(z, x, options, result.least_stretch);
  const auto portion = std::max<std::ptrdiff_t>(1, kSearchValues / (d * generator.output_size()));
  std::vector<Search> arrived;
  for (std::ptrdiff_t first = 0; first < std::ssize(searches); first += portion) {
    const auto begin = searches.begin() + first, end = begin + std::min(portion, std::ssize(searches) - first);
    for (Search& search : arrivals(map, z, x, {begin, end}, options, tolerance)) {
      search.columns.resize(0, 0);
      arrived.push_back(std::move(search));
    }
  }
  RowMatrix midpoints(static_cast<std::int64_t>(arrived.size()), d);
  for (std::size_t i = 0; i < arrived.size(); ++i)
    midpoints.row(static_cast<std::int64_t>(i)) = 0.5 * (z.row(arrived[i].sample) + arrived[i].z);
  const RowMatrix between = map.images(midpoints);
  std::vector<bool> folded(static_cast<std::size_t>(options.samples));
  for (std::size_t i = 0; i < arrived.size(); ++i) {
    const std::int64_t sample = arrived[i].sample;
    if (!((between.row(static_cast<std::int64_t>(i)) - x.row(sample)).norm() > kMidpointTolerances * tolerance))
      continue;
    if (result.first.empty()) {
      result.first.assign(z.row(sample).begin(), z.row(sample).end());
      result.second.assign(arrived[i].z.begin(), arrived[i].z.end());
    }
    folded[static_cast<std::size_t>(sample)] = true;
  }
  result.share =
      static_cast<double>(std::count(folded.begin(), folded.end(), true)) / static_cast<double>(options.samples);
  return result;
}

}  // namespace bracket
