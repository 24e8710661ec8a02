// The image sets that have names.
#pragma once

#include <string>
#include <vector>

#include "bracket/dataset.h"
#include "host/data/image_set.h"

namespace bracket {

const std::vector<std::string>& named_image_sets();

/// Throws InvalidArgument without a data folder, DataError for files that are absent or not what the name says.
ImageSet read_named_images(const std::string& name, const DatasetOptions& options);

/// `count` images of three channels, each a digit drawn with replacement: channel c of image i is digit
/// floor(N w / 2^32), w word 3 i + c of (seed, stream image_triples, step 0). Labels are 100 a + 10 b + c.
ImageSet stacked_digits(const ImageSet& digits, std::int64_t count, std::uint64_t seed);

}  // namespace bracket
