// Image sets from files and folders, recognised by their content.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "bracket/dataset.h"
#include "host/data/image_set.h"

namespace bracket {

/// The images of a split in a folder of IDX files, of CIFAR batches or of pictures (Dataset::open says which names).
/// Throws DataError: nothing of that kind there, or what the readers of the formats find.
ImageSet read_image_folder(const std::filesystem::path& folder, Split split);

/// A file that is an image set by itself: .npz, IDX or CIFAR, gzipped or not. Only an .npz has splits; a file of
/// another kind is what it is, and asking it for Split::test throws DataError.
ImageSet read_image_file(const std::filesystem::path& path, Split split);

/// An .npy file of unsigned bytes, already read.
ImageSet parse_npy_image_set(std::span<const std::byte> bytes, const std::string& file_name, Split split);

/// "train" or "test".
const char* split_name(Split split) noexcept;

}  // namespace bracket
