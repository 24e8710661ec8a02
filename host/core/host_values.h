// Numbers on the host: random ones as the CPU draws them, and copies of tensors as doubles.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/random.h"
#include "bracket/tensor.h"

namespace bracket {

class Ops;

/// Standard normal latents [count, d] of a key, as the CPU draws them.
std::vector<double> normal_values(const RandomKey& key, std::int64_t count);

/// Doubles from a device tensor of either dtype, and back.
std::vector<double> to_host(Ops& ops, const Tensor& tensor);
/// Appends them; nothing in a dry run.
void append_to_host(std::vector<double>& out, Ops& ops, const Tensor& tensor);
void to_device(Ops& ops, const Tensor& tensor, std::span<const double> values);

}  // namespace bracket
