// Whole-set evaluation of networks from host memory, in chunks of bounded size.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/device.h"
#include "bracket/entropy.h"
#include "bracket/network.h"

namespace bracket {

/// Outputs [rows, network.output_size()] for points x [rows, network.input_size()], inference mode. Waits.
std::vector<double> network_outputs(Context& context, const Network& network, const ParameterSet& parameters,
                                    std::span<const double> x, std::int64_t rows);

/// G(z), its log-volume by both dense estimators, and optionally the Jacobians.
struct GeneratorOutputs {
  std::vector<double> x;                    ///< [rows, D]
  std::vector<double> log_volume;           ///< h [rows]
  std::vector<double> min_singular_volume;  ///< d log s_1 [rows]
  std::vector<double> jacobian_columns;     ///< [rows, d, D]: entry (i, k, j) = dG_j/dz_k at sample i
};
GeneratorOutputs generator_outputs(Context& context, const Network& generator, const ParameterSet& parameters,
                                   std::span<const double> z, std::int64_t rows, bool jacobians);

/// Standard normal latents [count, d] of a key, as the CPU draws them.
std::vector<double> normal_values(const RandomKey& key, std::int64_t count);

/// Host copies: doubles from a device tensor of either dtype and back.
std::vector<double> to_host(Ops& ops, const Tensor& tensor);
void to_device(Ops& ops, const Tensor& tensor, std::span<const double> values);

}  // namespace bracket
