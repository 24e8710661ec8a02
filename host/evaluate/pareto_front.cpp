#include "host/evaluate/pareto_front.h"

#include <algorithm>
#include <cmath>

namespace bracket {
namespace {

bool known(const CostAndError& point) { return std::isfinite(point.cost) && std::isfinite(point.error); }

bool beats(const CostAndError& a, const CostAndError& b) {
  return known(a) && a.cost <= b.cost && a.error <= b.error && (a.cost < b.cost || a.error < b.error);
}

}  // namespace

std::vector<bool> pareto_front(std::span<const CostAndError> points) {
  std::vector<bool> front;
  for (const CostAndError& point : points)
    front.push_back(known(point) && std::none_of(points.begin(), points.end(),
                                                 [&](const CostAndError& other) { return beats(other, point); }));
  return front;
}

}  // namespace bracket
