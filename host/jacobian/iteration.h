// What the iterations for the smallest singular values share: what they may be asked for, when they end, and how the
// direction they found becomes an estimate.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/core/text.h"
#include "host/jacobian/certificate.h"
#include "host/jacobian/requirements.h"

namespace bracket {

/// direction [n block, d].
inline void check_iteration(const std::string& what, const JacobianOperator& jacobian, const Tensor& direction,
                            std::int64_t block, std::int64_t steps, double tolerance) {
  check_tall(what, jacobian);
  const std::int64_t rows = jacobian.samples() * block, d = jacobian.inputs();
  if (direction.rank() != 2 || direction.rows() != rows || direction.cols() != d ||
      direction.dtype() != jacobian.dtype())
    throw InvalidArgument(what + ": direction is " + (direction.absent() ? "absent" : direction.describe()) +
                          "; must be " + dtype_name(jacobian.dtype()) + "[" + std::to_string(rows) + ", " +
                          std::to_string(d) + "]");
  if (steps < 1) throw InvalidArgument(what + ": steps is " + std::to_string(steps) + ", must be at least 1");
  if (!(tolerance >= 0 && tolerance < 1))
    throw InvalidArgument(what + ": tolerance is " + format_number(tolerance) + ", must lie in [0, 1)");
}

/// Whether every value, several per sample, is within `tolerance` of itself of a singular value, or counts as zero
/// beside the largest of its sample. What is not finite never will be nearer.
inline bool all_near(const JacobianOperator& jacobian, const std::vector<double>& distance,
                     const std::vector<double>& value, const std::vector<double>& largest, double tolerance) {
  const std::size_t block = largest.empty() ? 1 : value.size() / largest.size();
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (distance[i] > tolerance * value[i] && value[i] > rank_tolerance(jacobian) * largest[i / block]) return false;
  }
  return true;
}

/// The estimate of one direction per sample; estimate.largest is there.
inline void finish_estimate(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const Tensor& direction,
                            SingularEstimate& estimate) {
  const SingularPair pair = certify(ops, arena, estimate.passes, jacobian, direction,
                                    static_cast<double>(jacobian.inputs()), estimate.largest);
  estimate.certificate = Certificate::optimistic;
  estimate.value = pair.volume;
  estimate.singular_value = pair.value;
  estimate.distance = pair.distance;
  estimate.deficient = pair.deficient;
  estimate.tangents = arena.allocate(jacobian.dtype(), {direction.rows(), direction.cols()});
  ops.copy(estimate.tangents, direction);
  estimate.cotangents = pair.cotangents;
}

}  // namespace bracket
