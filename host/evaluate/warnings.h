// Reasons not to trust an evaluation.
#pragma once

#include <string>
#include <vector>

#include "host/evaluate/evaluate.h"

namespace bracket {

/// Nats by which the exact value and importance sampling may differ.
inline constexpr double kLargestImportanceDifference = 0.05;
/// Effective share of the generated points behind importance sampling.
inline constexpr double kLeastEffectiveShare = 0.5;
/// Shares of the model's mass outside the data box, and at the edge of the widest one.
inline constexpr double kLargestMassOutside = 1e-3;
inline constexpr double kLargestEdgeMass = 1e-6;

/// One sentence each, from the figures alone; `variance_share` is the largest share of the variance of phi that one
/// latent contributes.
std::vector<std::string> evaluation_warnings(const Evaluation& evaluation, double variance_share);

}  // namespace bracket
