// Location, scale and extent of images, from sums of whole numbers.
#pragma once

#include <cstdint>
#include <functional>

#include "bracket/dataset.h"
#include "host/data/image_set.h"

namespace bracket {

/// Of `count` images, at most 2^23, `row(i)` saying which is the i-th; in the units of networks.
DataStatistics image_statistics(const ImageSet& set, std::int64_t count,
                                const std::function<std::int64_t(std::int64_t)>& row);

}  // namespace bracket
