#include "host/evaluate/modes.h"

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "bracket/error.h"

namespace bracket {

ModeCoverage mode_coverage(std::span<const double> samples, std::span<const std::array<double, 2>> centres,
                           double deviation) {
  const auto count = static_cast<std::int64_t>(samples.size() / 2);
  if (count == 0 || centres.empty() || !(deviation > 0))
    throw InvalidArgument("mode coverage needs samples, centres and a positive deviation, got " +
                          std::to_string(count) + ", " + std::to_string(centres.size()) + " and " +
                          std::to_string(deviation));
  std::vector<std::int64_t> nearest(centres.size()), within(centres.size());
  std::int64_t high_quality = 0;
  for (std::size_t i = 0; i + 1 < samples.size(); i += 2) {
    double best = std::numeric_limits<double>::infinity();
    std::size_t mode = 0;
    for (std::size_t k = 0; k < centres.size(); ++k) {
      const double distance = std::hypot(samples[i] - centres[k][0], samples[i + 1] - centres[k][1]);
      if (!(distance < best)) continue;
      best = distance;
      mode = k;
    }
    ++nearest[mode];
    if (best > kModeRadius * deviation) continue;
    ++within[mode];
    ++high_quality;
  }
  ModeCoverage coverage;
  const auto total = static_cast<double>(count);
  coverage.high_quality_fraction = static_cast<double>(high_quality) / total;
  for (std::size_t k = 0; k < centres.size(); ++k) {
    if (within[k] > 0 && within[k] * kSamplesPerMode >= count) ++coverage.found;
    const double share = static_cast<double>(nearest[k]) / total;
    if (share > 0) coverage.histogram_kl += share * std::log(share * static_cast<double>(centres.size()));
  }
  return coverage;
}

}  // namespace bracket
