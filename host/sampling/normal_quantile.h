// Quantiles of the normal distribution.
#pragma once

namespace bracket {

/// z with P(|N(0, 1)| <= z) = confidence, by bisection of erfc; confidence in (0, 1).
double normal_quantile(double confidence);

}  // namespace bracket
