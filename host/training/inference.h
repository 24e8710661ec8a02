// Whole-set evaluation of networks from host memory, in chunks of bounded size.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/device.h"
#include "bracket/network.h"

namespace bracket {

/// Outputs [rows, network.output_size()] for points x [rows, network.input_size()], inference mode. Waits.
std::vector<double> network_outputs(Context& context, const Network& network, const ParameterSet& parameters,
                                    std::span<const double> x, std::int64_t rows);

/// Standard normal latents [count, d] of a key, as the CPU draws them.
std::vector<double> normal_values(const RandomKey& key, std::int64_t count);

/// Host copies: doubles from a device tensor of either dtype, and back.
std::vector<double> to_host(Ops& ops, const Tensor& tensor);
/// Appends them; nothing in a dry run.
void append_to_host(std::vector<double>& out, Ops& ops, const Tensor& tensor);
void to_device(Ops& ops, const Tensor& tensor, std::span<const double> values);

}  // namespace bracket
