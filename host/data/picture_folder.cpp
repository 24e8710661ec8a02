#include "host/data/picture_folder.h"

#include <algorithm>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "bracket/error.h"
#include "host/data/image_files.h"
#include "host/files/in_quotes.h"
#include "host/files/pixel_file.h"
#include "host/files/posix_file.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

struct Listing {
  std::vector<std::string> pictures, folders;  // names, sorted bytewise
};

Listing list(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    std::error_code ignored;  // a link to nowhere is no folder
    if (name.starts_with('.')) continue;
    if (entries->is_directory(ignored)) {
      listing.folders.push_back(name);
    } else if (has_picture_ending(name)) {
      listing.pictures.push_back(name);
    }
  }
  if (error) throw_file_error("list", folder, error.value());
  std::sort(listing.pictures.begin(), listing.pictures.end());
  std::sort(listing.folders.begin(), listing.folders.end());
  return listing;
}

bool has(const std::vector<std::string>& names, const char* name) {
  return std::binary_search(names.begin(), names.end(), std::string(name));
}

// Appends the pictures of a folder; the first one ever gives the shape.
void append_pictures(ImageSet& set, const fs::path& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const fs::path path = folder / name;
    const std::optional<ImageShape> wanted = set.pixels.empty() ? std::nullopt : std::optional(set.shape);
    PixelArray picture = parse_picture(read_file(path), path.string(), wanted);
    set.shape = picture.shape;
    set.pixels.insert(set.pixels.end(), picture.values.begin(), picture.values.end());
  }
}

}  // namespace

ImageSet read_picture_folder(const fs::path& top, Split split) {
  fs::path folder = top;
  Listing listing = list(folder);
  if (has(listing.folders, "train") || has(listing.folders, "test")) {
    if (!has(listing.folders, split_name(split))) {
      throw AbsentSplit(path_in_quotes(top) + " has no folder '" + split_name(split) + "'; make one with its pictures");
    }
    folder /= split_name(split);
    listing = list(folder);
  } else if (split == Split::test) {
    throw AbsentSplit(path_in_quotes(top) + " has no folder 'test'; sort its pictures into folders 'train' and 'test'");
  }
  ImageSet set;
  if (listing.folders.empty()) {
    if (listing.pictures.empty()) {
      throw DataError(path_in_quotes(folder) +
                      " holds no image set: no IDX files, CIFAR batches (.bin), PNG or JPEG pictures; check the path");
    }
    append_pictures(set, folder, listing.pictures);
    return set;
  }
  if (!listing.pictures.empty()) {
    throw DataError(path_in_quotes(folder) + " holds both pictures (" + text_in_quotes(listing.pictures.front()) +
                    ") and folders (" + text_in_quotes(listing.folders.front()) +
                    "), which are classes; move one kind elsewhere");
  }
  for (std::size_t label = 0; label < listing.folders.size(); ++label) {
    const fs::path class_folder = folder / listing.folders[label];
    const std::vector<std::string> pictures = list(class_folder).pictures;
    if (pictures.empty())
      throw DataError("class folder " + path_in_quotes(class_folder) + " holds no PNG or JPEG picture; remove it");
    append_pictures(set, class_folder, pictures);
    set.labels.resize(set.labels.size() + pictures.size(), static_cast<std::int32_t>(label));
  }
  return set;
}

}  // namespace bracket
