// The steps of LOBPCG without what is said of their end: training takes its value from the pass that it differentiates.
#pragma once

#include "bracket/singular_values.h"

namespace bracket {

/// Moves `direction` on as lobpcg_smallest does and counts in `estimate`, whose `largest` is updated where it is
/// present; a tolerance needs it. The options have been checked.
void lobpcg_iterate(Ops& ops, Arena& arena, const JacobianOperator& jacobian, Tensor direction,
                    const LobpcgOptions& options, LobpcgEstimate& estimate);

}  // namespace bracket
