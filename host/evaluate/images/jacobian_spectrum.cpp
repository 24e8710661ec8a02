#include "host/evaluate/images/jacobian_spectrum.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/training/inference.h"
#include "host/training/row_chunks.h"

namespace bracket {
namespace {

constexpr std::int64_t kJacobianValues = std::int64_t{1} << 24;  // of the samples of one chunk

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
  const std::int64_t chunk = std::max<std::int64_t>(kJacobianValues / (d * cols), 1);
  for_row_chunks(context, rows, chunk, [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
    const Tensor latent = arena.allocate(generator.dtype(), {count, d});
    to_device(ops, latent, z.subspan(static_cast<std::size_t>(first * d), static_cast<std::size_t>(count * d)));
    const NetworkJacobian jacobian(ops, arena, generator, parameters, latent, NetworkJacobian::kTangentBytes,
                                   {.rows = count * d, .parameter_passes = 0});
    const ExactEstimate exact = exact_log_volume(ops, arena, jacobian, {.spectrum = true, .derivative = false});
    if (ops.planning()) return;
    const std::vector<double> volumes = read_values(ops, exact.value), values = read_values(ops, exact.spectrum);
    for (std::size_t i = 0; i < volumes.size(); ++i) {
      if (std::isnan(volumes[i]))
        throw Diverged("the Jacobian of latent " + std::to_string(spectrum.smallest.size()) +
                           " is not finite; evaluate an earlier checkpoint",
                       "generator", 0);
      spectrum.smallest.push_back(values[i * static_cast<std::size_t>(d)]);
      spectrum.largest.push_back(values[(i + 1) * static_cast<std::size_t>(d) - 1]);
      spectrum.log_volume.push_back(volumes[i]);
    }
    spectrum.values.insert(spectrum.values.end(), values.begin(), values.end());
  });
  return spectrum;
}

}  // namespace bracket
