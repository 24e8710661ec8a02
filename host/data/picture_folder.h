// Folders of pictures.
#pragma once

#include <filesystem>

#include "bracket/dataset.h"
#include "host/data/image_set.h"

namespace bracket {

/// PNG and JPEG files of one shape, in the bytewise order of their names. Folders in `folder` that hold pictures are
/// classes 0, 1, ... in the bytewise order of their names; where there are folders "train" or "test", they hold the
/// splits. Other files, and names that start with a dot, are passed over. Throws DataError naming the first file that
/// cannot be read or differs from the first, an empty class, pictures beside classes, or a split that is not there.
ImageSet read_picture_folder(const std::filesystem::path& folder, Split split);

}  // namespace bracket
