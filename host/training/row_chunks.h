// Work on many rows in chunks, with one arena planned for the largest.
#pragma once

#include <algorithm>
#include <cstdint>

#include "bracket/device.h"
#include "bracket/memory.h"
#include "kernels/ops.h"
#include "kernels/plan_ops.h"

namespace bracket {

/// Calls body(ops, arena, first, count) for rows [0, rows) in chunks of `chunk`, after a dry run of the first on
/// PlanOps.
template <class Body>
void for_row_chunks(Context& context, std::int64_t rows, std::int64_t chunk, const Body& body) {
  if (rows == 0) return;
  PlanOps plan;
  Arena planner;
  body(plan, planner, std::int64_t{0}, std::min(rows, chunk));
  Arena arena(context.pool(), planner.high_water_bytes());
  for (std::int64_t first = 0; first < rows; first += chunk) {
    arena.rewind(0);
    body(context.ops(), arena, first, std::min(chunk, rows - first));
  }
}

}  // namespace bracket
