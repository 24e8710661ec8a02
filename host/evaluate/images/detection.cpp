#include "host/evaluate/images/detection.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "bracket/error.h"

namespace bracket {

double auroc(std::span<const double> in, std::span<const double> out) {
  if (in.empty() || out.empty())
    throw InvalidArgument("auroc: needs scores of both sets, got " + std::to_string(in.size()) + " and " +
                          std::to_string(out.size()));
  for (const auto& scores : {in, out}) {
    const auto bad = std::find_if(scores.begin(), scores.end(), [](double s) { return std::isnan(s); });
    if (bad != scores.end())
      throw InvalidArgument("auroc: score " + std::to_string(bad - scores.begin()) + " is NaN and has no rank");
  }
  std::vector<double> sorted(out.begin(), out.end());
  std::sort(sorted.begin(), sorted.end());
  double wins = 0;
  for (const double score : in) {
    const auto [low, high] = std::equal_range(sorted.begin(), sorted.end(), score);
    wins += static_cast<double>(low - sorted.begin()) + 0.5 * static_cast<double>(high - low);
  }
  return wins / static_cast<double>(in.size()) / static_cast<double>(out.size());
}

}  // namespace bracket
