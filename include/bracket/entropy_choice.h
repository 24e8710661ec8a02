// Which estimator of a generator's log-volume to train with, measured on the generator that training starts from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bracket/device.h"
#include "bracket/entropy.h"
#include "bracket/network.h"

namespace bracket {

struct EntropyRequest {
  double target = 0.01;      ///< nats: what the root mean square of value - h may be
  DType least = DType::f32;  ///< the lowest precision allowed
  std::int64_t samples = 8;  ///< latents
  std::uint64_t seed = 0;    ///< of the generator's start and of the latents
  NetworkMath math = {};     ///< of the generator in f32: what the candidates are measured in
};

/// One estimator in one precision, measured. `passes`: products with J and with J^T per sample, those of the derivative
/// included; in f64 each counts twice in `cost`, as it moves twice the bytes.
struct EntropyCandidate {
  EntropyConfig config;
  DType dtype = DType::f32;
  std::int64_t passes = 0;
  /// nats: root mean square of value - h; infinity where a value is not finite. Of lobpcg, where more, of its value
  /// minus d log s_1: on the way from h down to that it passes near h without meaning it.
  double error = 0;
  double cost() const noexcept { return static_cast<double>(passes) * (dtype == DType::f64 ? 2 : 1); }
};

struct EntropyChoice {
  EntropyCandidate chosen;
  bool meets_target = false;
  double median_condition = 0;               ///< s_d / s_1 over the latents
  std::int64_t inputs = 0, outputs = 0;      ///< d, D
  std::vector<EntropyCandidate> candidates;  ///< cheapest first
};

/// The cheapest candidate whose error at `samples` latents keeps the target; where none does, the one with the least
/// error. Candidates: triangular where the generator has a log-volume, exact, min_singular, and lobpcg with 1, 2, 4, ...
/// 32 steps as long as that is cheaper than exact, each in the precisions from `least` on. h is that of exact_log_volume
/// (singular_values.h) in f64, which takes the QR path where J is ill-conditioned. A function of its arguments alone:
/// nothing is timed. It knows the start only: where J loses condition in training, so does the choice; `bracket
/// jacobian` measures a trained run.
/// Throws InvalidArgument for a generator with d > D, a target or number of samples that is not positive, and where J
/// has no full rank at any of the latents.
EntropyChoice choose_entropy(Context& context, const NetworkSpec& generator, const EntropyRequest& request = {});

/// A line per candidate with its error and cost, the choice first.
std::string summary(const EntropyChoice& choice);

}  // namespace bracket
