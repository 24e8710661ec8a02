#include "host/evaluate/images/jacobian_spectrum.h"

#include <algorithm>
#include <cmath>
#include <string>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Eigenvalues>

#include "bracket/error.h"
#include "host/training/inference.h"
#include "host/training/row_chunks.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kTangentRows = 256;                       // of one push at most ...
constexpr std::int64_t kPushValues = std::int64_t{1} << 26;      // ... and their activations: 256 MB of floats
constexpr std::int64_t kJacobianValues = std::int64_t{1} << 24;  // of the samples of one chunk

// The d coordinate directions [first, first + count), once per sample.
std::vector<double> directions(std::int64_t samples, std::int64_t d, std::int64_t first, std::int64_t count) {
  std::vector<double> rows(static_cast<std::size_t>(samples * count * d));
  for (std::int64_t i = 0; i < samples; ++i)
    for (std::int64_t k = 0; k < count; ++k) rows[static_cast<std::size_t>((i * count + k) * d + first + k)] = 1;
  return rows;
}

std::int64_t rows_of_a_push(const Network& generator) {
  return std::clamp<std::int64_t>(kPushValues / generator.values_per_row(), 1, kTangentRows);
}

// J^T J of every sample, f64[samples, d, d], from pushes of `portion` directions a sample.
Tensor gram_matrices(Ops& ops, Arena& arena, const Network& generator, const PrimalPass& pass, std::int64_t samples,
                     std::int64_t portion) {
  const std::int64_t d = generator.input_size(), cols = generator.output_size();
  const Tensor gram = arena.allocate(DType::f64, {samples, d, d});
  const Tensor jacobian = arena.allocate(generator.dtype(), {samples * d, cols});
  for (std::int64_t first = 0; first < d; first += portion) {
    const std::int64_t mark = arena.mark();
    const std::int64_t count = std::min(portion, d - first);
    const Tensor tangents = arena.allocate(generator.dtype(), {samples * count, d});
    to_device(ops, tangents, directions(samples, d, first, count));
    const Tensor pushed = arena.allocate(generator.dtype(), {samples * count, cols});
    generator.push_through(ops, arena, pushed, pass, tangents, {0, samples, count});
    for (std::int64_t i = 0; i < samples; ++i)
      ops.copy(jacobian.slice_rows(i * d + first, count), pushed.slice_rows(i * count, count));
    arena.rewind(mark);
  }
  ops.gram(gram, jacobian);
  return gram;
}

void append_spectrum(JacobianSpectrum& out, const double* gram, std::int64_t d) {
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix> matrix(gram, d, d);
  if (!matrix.allFinite())
    throw Diverged("the Jacobian of latent " + std::to_string(out.smallest.size()) +
                       " is not finite; evaluate an earlier checkpoint",
                   "generator", 0);
  const Eigen::VectorXd squares =
      Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(matrix, Eigen::EigenvaluesOnly).eigenvalues().cwiseMax(0);
  out.smallest.push_back(std::sqrt(squares(0)));
  out.largest.push_back(std::sqrt(squares(d - 1)));
  out.log_volume.push_back(0.5 * squares.array().log().sum());
}

}  // namespace

JacobianSpectrum jacobian_spectrum(Context& context, const Network& generator, const ParameterSet& parameters,
                                   std::span<const double> z, std::int64_t rows) {
  const std::int64_t d = generator.input_size(), cols = generator.output_size();
  if (rows < 0 || static_cast<std::int64_t>(z.size()) != rows * d)
    throw InvalidArgument("jacobian_spectrum: expected " + std::to_string(rows) + " x " + std::to_string(d) +
                          " latent values, got " + std::to_string(z.size()));
  if (d > cols)
    throw InvalidArgument("jacobian_spectrum: the generator's latent size " + std::to_string(d) +
                          " exceeds its output size " + std::to_string(cols) + ", so J^T J is singular");
  JacobianSpectrum spectrum;
  const std::int64_t chunk = std::clamp<std::int64_t>(kJacobianValues / (d * cols), 1, rows_of_a_push(generator));
  // Of a whole chunk: the memory is planned for the first one, and a smaller last one must not take more.
  const std::int64_t samples = std::clamp<std::int64_t>(rows, 1, chunk);
  const std::int64_t portion = std::clamp<std::int64_t>(rows_of_a_push(generator) / samples, 1, d);
  PrimalPass pass;
  for_row_chunks(context, rows, chunk, [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
    const Tensor latent = arena.allocate(generator.dtype(), {count, d});
    to_device(ops, latent, z.subspan(static_cast<std::size_t>(first * d), static_cast<std::size_t>(count * d)));
    generator.forward(ops, arena, pass, parameters, latent, PassMode::inference);
    std::vector<double> grams;
    append_to_host(grams, ops, gram_matrices(ops, arena, generator, pass, count, portion));
    for (std::size_t i = 0; i < grams.size(); i += static_cast<std::size_t>(d * d))
      append_spectrum(spectrum, grams.data() + i, d);
  });
  return spectrum;
}

}  // namespace bracket
