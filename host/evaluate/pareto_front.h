// What is worth its cost: the points that no other point beats.
#pragma once

#include <span>
#include <vector>

namespace bracket {

struct CostAndError {
  double cost = 0;
  double error = 0;
};

/// Which of the points are on the Pareto front: no other has both a cost and an error that are no larger and one of
/// them smaller. Equal points are on it together or not at all. A point with a NaN or an infinity is never on it and
/// beats none.
std::vector<bool> pareto_front(std::span<const CostAndError> points);

}  // namespace bracket
