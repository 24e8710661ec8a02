// k-means clustering.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/random.h"

namespace bracket {

/// Cluster of each row of x [rows, cols], in [0, clusters): centres spread by k-means++ (Arthur and Vassilvitskii,
/// 2007), then Lloyd's iteration until no row changes its cluster, 100 times at most. A cluster that runs empty keeps
/// its centre. Deterministic in the key. Throws InvalidArgument for sizes that disagree or clusters outside [1, rows].
std::vector<std::int64_t> k_means(std::span<const double> x, std::int64_t rows, std::int64_t cols,
                                  std::int64_t clusters, const RandomKey& key);

}  // namespace bracket
