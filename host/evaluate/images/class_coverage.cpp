#include "host/evaluate/images/class_coverage.h"

#include <cmath>
#include <string>
#include <vector>

#include "bracket/error.h"

namespace bracket {

ClassCoverage class_coverage(std::span<const std::int64_t> labels, std::int64_t classes) {
  if (labels.empty() || classes < 1)
    throw InvalidArgument("class_coverage: needs labels and classes, got " + std::to_string(labels.size()) + " and " +
                          std::to_string(classes));
  std::vector<std::int64_t> counts(static_cast<std::size_t>(classes));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= classes)
      throw InvalidArgument("class_coverage: label " + std::to_string(i) + " is " + std::to_string(labels[i]) +
                            ", must lie in [0, " + std::to_string(classes) + ")");
    ++counts[static_cast<std::size_t>(labels[i])];
  }
  ClassCoverage coverage;
  for (const std::int64_t count : counts) {
    if (count == 0) continue;
    ++coverage.modes;
    const double share = static_cast<double>(count) / static_cast<double>(labels.size());
    coverage.kl += share * std::log(share * static_cast<double>(classes));
  }
  return coverage;
}

}  // namespace bracket
