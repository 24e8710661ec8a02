#include "host/data/named_images.h"

#include <algorithm>

#include "bracket/error.h"
#include "bracket/random.h"
#include "host/data/image_files.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

struct NamedSet {
  const char* name;
  const char* folder;
  std::int32_t classes;
};
constexpr NamedSet kSets[] = {{"mnist", "mnist", 10},
                              {"fashion-mnist", "fashion-mnist", 10},
                              {"cifar10", "cifar10", 10},
                              {"cifar100", "cifar100", 100},
                              {"stacked-mnist", "mnist", 10}};

// The numbers of the published experiments (PacGAN, Lin et al. 2018).
constexpr std::int64_t kTrainingTriples = 128000, kTestTriples = 26000;
constexpr std::int64_t kStacked = 3;

void require_labels(const ImageSet& set, std::int32_t classes, const std::string& folder) {
  if (set.labels.empty()) throw DataError(path_in_quotes(folder) + " holds images without labels; fetch them, too");
  const auto bad =
      std::find_if(set.labels.begin(), set.labels.end(), [&](std::int32_t label) { return label >= classes; });
  if (bad == set.labels.end()) return;
  throw DataError(path_in_quotes(folder) + ": label " + std::to_string(bad - set.labels.begin()) +
                  " (counted from 0) is " + std::to_string(*bad) + ", the classes are 0.." +
                  std::to_string(classes - 1) + "; fetch the files again");
}

}  // namespace

const std::vector<std::string>& named_image_sets() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const NamedSet& set : kSets) names.emplace_back(set.name);
    return names;
  }();
  return kNames;
}

ImageSet stacked_digits(const ImageSet& digits, std::int64_t count, std::uint64_t seed) {
  const auto size = static_cast<std::uint64_t>(digits.count());
  const std::int64_t pixels = digits.shape.pixels();
  const RandomKey key{seed, RandomStream::image_triples, 0};
  ImageSet set;
  set.shape = {.channels = kStacked, .height = digits.shape.height, .width = digits.shape.width};
  set.pixels.resize(static_cast<std::size_t>(count * set.shape.size()));
  set.labels.resize(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint8_t* const image = set.pixels.data() + i * set.shape.size();
    for (std::int64_t c = 0; c < kStacked; ++c) {
      const std::uint64_t digit = size * random_word(key, static_cast<std::uint64_t>(kStacked * i + c)) >> 32;
      const std::uint8_t* const source = digits.pixels.data() + static_cast<std::int64_t>(digit) * pixels;
      for (std::int64_t p = 0; p < pixels; ++p) image[p * kStacked + c] = source[p];
      std::int32_t& label = set.labels[static_cast<std::size_t>(i)];
      label = 10 * label + digits.labels[digit];
    }
  }
  return set;
}

ImageSet read_named_images(const std::string& name, const DatasetOptions& options) {
  const NamedSet& named =
      *std::find_if(std::begin(kSets), std::end(kSets), [&](const NamedSet& set) { return set.name == name; });
  if (options.data_dir.empty()) {
    throw InvalidArgument("data set '" + name +
                          "' is read from a data folder, and none was given; name the folder "
                          "that holds '" +
                          named.folder + "' (--data-dir or BRACKET_DATA_DIR)");
  }
  const std::filesystem::path folder = options.data_dir / named.folder;
  ImageSet set = read_image_folder(folder, options.split);
  require_labels(set, named.classes, folder.string());
  if (name != "stacked-mnist") return set;
  if (set.shape.channels != 1) throw DataError(path_in_quotes(folder) + " holds no gray digits; fetch MNIST again");
  return stacked_digits(set, options.split == Split::train ? kTrainingTriples : kTestTriples, options.seed);
}

}  // namespace bracket
