// Reasons not to trust an evaluation.
#pragma once

#include <string>
#include <vector>

#include "host/evaluate/evaluate.h"

namespace bracket {

/// One sentence each, from the figures alone; `variance_share` is the largest share of the variance of phi that one
/// latent contributes.
std::vector<std::string> evaluation_warnings(const Evaluation& evaluation, double variance_share);

}  // namespace bracket
