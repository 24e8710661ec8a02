#include "host/data/image_files.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "bracket/error.h"
#include "host/data/data_file.h"
#include "host/data/picture_folder.h"
#include "host/files/cifar.h"
#include "host/files/gzip.h"
#include "host/files/idx.h"
#include "host/files/in_quotes.h"
#include "host/files/npy.h"
#include "host/files/posix_file.h"
#include "host/files/zip.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

// Columns and products of columns stay far below 2^63.
constexpr std::int64_t kLargestImage = std::int64_t{1} << 31;

void require_no_split(const std::string& file_name, Split split) {
  if (split == Split::train) return;
  throw AbsentSplit(path_in_quotes(file_name) + " has no split 'test'; give a file of its own for it");
}

void require_as_many_labels(const ImageSet& set, const std::string& images_name, const std::string& labels_name) {
  if (std::cmp_equal(set.labels.size(), set.count())) return;
  throw DataError(path_in_quotes(labels_name) + " holds " + std::to_string(set.labels.size()) + " labels, " +
                  path_in_quotes(images_name) + " " + std::to_string(set.count()) +
                  " images; give files that belong together");
}

// `path` itself, or what it is called when gzipped.
std::optional<fs::path> plain_or_gzip(const fs::path& path) {
  std::error_code error;
  for (const char* ending : {"", ".gz"}) {
    fs::path candidate = path;
    candidate += ending;
    if (fs::is_regular_file(candidate, error)) return candidate;
  }
  return std::nullopt;
}

// The labels beside "train-images-idx3-ubyte" are "train-labels-idx1-ubyte".
std::optional<fs::path> labels_beside(const fs::path& images) {
  std::string name = images.filename().string();
  const auto replace = [&](const std::string& from, const std::string& to) {
    const std::size_t at = name.rfind(from);
    if (at == std::string::npos) return false;
    name.replace(at, from.size(), to);
    return true;
  };
  if (name.ends_with(".gz")) name.erase(name.size() - 3);
  if (!replace("images", "labels")) return std::nullopt;
  replace("idx3", "idx1");
  return plain_or_gzip(images.parent_path() / name);
}

ImageSet idx_image_set(std::span<const std::byte> bytes, const fs::path& path) {
  const IdxArray images = parse_idx(bytes, 3, path.string());
  ImageSet set;
  set.shape = {.channels = 1, .height = images.shape[1], .width = images.shape[2]};
  set.pixels.resize(images.values.size());
  std::transform(images.values.begin(), images.values.end(), set.pixels.begin(),
                 [](std::byte value) { return std::to_integer<std::uint8_t>(value); });
  if (const auto labels_path = labels_beside(path)) {
    const std::vector<std::byte> label_bytes = read_plain_or_gzip(*labels_path);
    for (const std::byte label : parse_idx(label_bytes, 1, labels_path->string()).values)
      set.labels.push_back(std::to_integer<std::int32_t>(label));
    require_as_many_labels(set, path.string(), labels_path->string());
  }
  return set;
}

ImageSet cifar_image_set(const std::vector<fs::path>& files) {
  ImageSet set;
  set.shape = kCifarShape;
  std::optional<CifarKind> kind;
  for (const fs::path& file : files) {
    const std::vector<std::byte> bytes = read_plain_or_gzip(file);
    if (!kind) kind = cifar_kind(bytes, file.string());
    append_cifar(set.pixels, set.labels, bytes, *kind, file.string());
  }
  return set;
}

// The batches of a split in the order of their numbers: data_batch_1.bin to data_batch_9.bin as far as they are there.
std::vector<fs::path> cifar_batches(const fs::path& folder, Split split) {
  std::vector<std::string> names;
  if (split == Split::train) {
    for (int batch = 1; batch <= 9; ++batch) names.push_back("data_batch_" + std::to_string(batch) + ".bin");
    names.emplace_back("train.bin");
  } else {
    names = {"test_batch.bin", "test.bin"};
  }
  std::vector<fs::path> files;
  for (const std::string& name : names) {
    if (auto file = plain_or_gzip(folder / name)) files.push_back(std::move(*file));
  }
  return files;
}

bool starts_with(std::span<const std::byte> bytes, std::string_view start) {
  return bytes.size() >= start.size() && std::equal(start.begin(), start.end(), bytes.begin(), [](char c, std::byte b) {
           return std::byte(static_cast<unsigned char>(c)) == b;
         });
}

std::optional<fs::path> idx_images(const fs::path& folder, Split split) {
  const std::string stem = split == Split::train ? "train-images" : "t10k-images";
  for (const char* rest : {"-idx3-ubyte", ".idx3-ubyte"}) {
    if (auto file = plain_or_gzip(folder / (stem + rest))) return file;
  }
  return std::nullopt;
}

std::vector<std::int32_t> labels_of_npy(std::span<const std::byte> bytes, const std::string& file_name) {
  std::vector<std::int32_t> labels;
  for (const std::int64_t label : parse_npy_integers(bytes, file_name)) {
    if (label < 0 || label > std::numeric_limits<std::int32_t>::max()) {
      throw DataError(path_in_quotes(file_name) + ": label " + std::to_string(labels.size()) + " (counted from 0) is " +
                      std::to_string(label) + "; labels count classes from 0");
    }
    labels.push_back(static_cast<std::int32_t>(label));
  }
  return labels;
}

ImageSet npz_image_set(std::span<const std::byte> bytes, const std::string& file_name, Split split) {
  const std::vector<ZipMember> members = zip_members(bytes, file_name);
  const auto find = [&](std::initializer_list<std::string> names) -> const ZipMember* {
    for (const std::string& name : names) {
      const auto found = std::find_if(members.begin(), members.end(),
                                      [&](const ZipMember& member) { return member.name == name + ".npy"; });
      if (found != members.end()) return &*found;
    }
    return nullptr;
  };
  const auto member_name = [&](const ZipMember& member) { return file_name + ":" + member.name; };
  const bool split_by_name = find({"x_train"}) != nullptr || find({"x_test"}) != nullptr;
  const std::string wanted = std::string("x_") + split_name(split);
  const ZipMember* images = split_by_name ? find({wanted}) : find({"images", "arr_0"});
  if (images == nullptr && !split_by_name && members.size() == 1) images = &members.front();
  if (images == nullptr) {
    std::string names;
    for (const ZipMember& member : members) names += (names.empty() ? "" : ", ") + text_in_quotes(member.name);
    const std::string text = path_in_quotes(file_name) + " holds no array '" + (split_by_name ? wanted : "images") +
                             "' of unsigned bytes (it holds " + (names.empty() ? "nothing" : names) +
                             "); write numpy.savez(file, images=...)";
    if (split_by_name) throw AbsentSplit(text);
    throw DataError(text);
  }
  if (!split_by_name) require_no_split(file_name, split);
  const std::vector<std::byte> content = unpack(*images, file_name);
  ImageSet set = parse_npy_image_set(content, member_name(*images), Split::train);
  const ZipMember* labels = split_by_name ? find({std::string("y_") + split_name(split)}) : find({"labels"});
  if (labels != nullptr) {
    set.labels = labels_of_npy(unpack(*labels, file_name), member_name(*labels));
    require_as_many_labels(set, member_name(*images), member_name(*labels));
  }
  return set;
}

}  // namespace

const char* split_name(Split split) noexcept { return split == Split::train ? "train" : "test"; }

ImageSet parse_npy_image_set(std::span<const std::byte> bytes, const std::string& file_name, Split split) {
  require_no_split(file_name, split);
  const NpyBytes array = parse_npy_bytes(bytes, file_name);
  const std::vector<std::int64_t>& shape = array.shape;
  const auto refuse = [&](const std::string& reason) {
    std::string extents;
    for (const std::int64_t extent : shape) extents += (extents.empty() ? "" : ", ") + std::to_string(extent);
    throw DataError(path_in_quotes(file_name) + ": shape (" + extents + ") " + reason);
  };
  if (shape.size() != 3 && shape.size() != 4)
    refuse("is no image set; unsigned bytes of shape (N, H, W) or (N, H, W, C) are");
  if (shape.size() == 4 && shape[1] <= 4 && shape[3] > 4)
    refuse("seems to be (N, C, H, W); write array.transpose(0, 2, 3, 1)");
  ImageSet set;
  set.shape = {.channels = shape.size() == 4 ? shape[3] : 1, .height = shape[1], .width = shape[2]};
  if (static_cast<std::int64_t>(array.values.size()) / shape[0] > kLargestImage)
    refuse("has images of more than " + std::to_string(kLargestImage) + " values");
  set.pixels.resize(array.values.size());
  std::transform(array.values.begin(), array.values.end(), set.pixels.begin(),
                 [](std::byte value) { return std::to_integer<std::uint8_t>(value); });
  return set;
}

ImageSet read_image_file(const fs::path& path, Split split) {
  const std::string name = path.string();
  const std::vector<std::byte> bytes = read_plain_or_gzip(path);
  if (starts_with(bytes, "PK")) return npz_image_set(bytes, name, split);
  if (starts_with(bytes, "\x93NUMPY")) return parse_npy_image_set(bytes, name, split);
  require_no_split(name, split);
  if (is_idx(bytes, 3)) return idx_image_set(bytes, path);
  if (has_ending(name, ".bin") || has_ending(name, ".bin.gz")) return cifar_image_set({path});
  if (is_idx(bytes, 1)) {
    throw DataError(path_in_quotes(name) + " holds labels, not images; give the file of the images");
  }
  throw DataError("data file " + path_in_quotes(name) +
                  " is no image set that is read by its content or its ending; give a folder, or a .npy, .npz, .csv, "
                  "IDX or CIFAR .bin file");
}

ImageSet read_image_folder(const fs::path& folder, Split split) {
  if (const auto images = idx_images(folder, split)) return idx_image_set(read_plain_or_gzip(*images), *images);
  if (const std::vector<fs::path> batches = cifar_batches(folder, split); !batches.empty())
    return cifar_image_set(batches);
  const Split other = split == Split::train ? Split::test : Split::train;
  if (idx_images(folder, other) || !cifar_batches(folder, other).empty()) {
    throw AbsentSplit(path_in_quotes(folder) + " holds the split '" + split_name(other) +
                      "' only; fetch the files of '" + split_name(split) + "', too");
  }
  return read_picture_folder(folder, split);
}

}  // namespace bracket
