// Out-of-distribution detection: how well a score tells two sets apart.
#pragma once

#include <span>

namespace bracket {

/// Area under the receiver operating characteristic: the probability that a score of `in` exceeds one of `out`, ties
/// counting one half. 1: always, 0.5: no better than chance. Infinite scores are ordered like others. Throws
/// InvalidArgument when a set is empty or a score is NaN.
double auroc(std::span<const double> in, std::span<const double> out);

}  // namespace bracket
