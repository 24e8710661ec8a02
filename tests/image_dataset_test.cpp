// Image sets: formats, folders, names, splits, statistics and samples. Sets at hand are read where BRACKET_DATA_DIR is.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>

#include "bracket/dataset.h"
#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/data/image_files.h"
#include "host/data/named_images.h"
#include "host/files/npy.h"
#include "host/files/pixel_file.h"
#include "host/files/zip.h"
#include "image_samples.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

std::string idx_images(const std::vector<std::uint8_t>& pixels, std::uint32_t height, std::uint32_t width) {
  return idx_file({static_cast<std::uint32_t>(pixels.size()) / height / width, height, width}, text_of(pixels));
}

std::string idx_labels(const std::string& labels) {
  return idx_file({static_cast<std::uint32_t>(labels.size())}, labels);
}

class ImageDataset : public FolderTest {
 protected:
  Dataset open(const std::string& name, Split split = Split::train) const {
    return Dataset::open(at(name).string(), {.data_dir = {}, .split = split, .seed = 0});
  }

  void expect_refused(const std::string& name, const std::vector<std::string>& parts,
                      Split split = Split::train) const {
    SCOPED_TRACE(name);
    expect_error<DataError>([&] { open(name, split); }, parts);
  }

  void folder(const std::string& name) const { fs::create_directories(at(name)); }

  void picture(const std::string& name, const std::vector<std::uint8_t>& pixels, const ImageShape& shape) const {
    put(at(name), text_of(serialize_png(pixels, shape)));
  }
};

std::vector<std::uint8_t> pixels_of(const Dataset& data) { return {data.pixels().begin(), data.pixels().end()}; }
std::vector<std::int32_t> labels_of(const Dataset& data) { return {data.labels().begin(), data.labels().end()}; }

TEST_F(ImageDataset, IdxFilesWithTheLabelsBesideThem) {
  const std::vector<std::uint8_t> pixels = random_pixels(3 * 5 * 7, 1);
  for (const bool gz : {false, true}) {
    const std::string end = gz ? ".gz" : "";
    const auto packed = [&](const std::string& text) { return gz ? gzipped(text) : text; };
    const std::string name = (gz ? "b" : "a") + std::string("-images-idx3-ubyte") + end;
    put(at(name), packed(idx_images(pixels, 5, 7)));
    const Dataset bare = open(name);
    EXPECT_TRUE(bare.is_images());
    EXPECT_FALSE(bare.is_density());
    EXPECT_EQ(bare.rows(), 3);
    EXPECT_EQ(bare.cols(), 35);
    EXPECT_EQ(bare.image(), (ImageShape{1, 5, 7}));
    EXPECT_EQ(pixels_of(bare), pixels);
    EXPECT_TRUE(bare.labels().empty());
    put(at((gz ? "b" : "a") + std::string("-labels-idx1-ubyte.gz")), gzipped(idx_labels("\x05\x01\x07")));
    EXPECT_EQ(labels_of(open(name)), (std::vector<std::int32_t>{5, 1, 7}));
  }
  put(at("a-labels-idx1-ubyte.gz"), gzipped(idx_labels("\x05\x01")));
  expect_refused("a-images-idx3-ubyte", {"2 labels", "3 images", "a-labels-idx1-ubyte.gz"});
  expect_refused("a-labels-idx1-ubyte.gz", {"labels, not images"});
  expect_refused("a-images-idx3-ubyte", {"no split 'test'"}, Split::test);
}

TEST_F(ImageDataset, AFolderOfIdxFilesHasSplits) {
  folder("set");
  const std::vector<std::uint8_t> train = random_pixels(4 * 6, 2), test = random_pixels(2 * 6, 3);
  put(at("set/train-images-idx3-ubyte.gz"), gzipped(idx_images(train, 2, 3)));
  expect_refused("set", {"split 'train' only", "'test'"}, Split::test);
  put(at("set/t10k-images.idx3-ubyte"), idx_images(test, 2, 3));
  put(at("set/t10k-labels.idx1-ubyte"), idx_labels("\x01\x02"));
  EXPECT_EQ(pixels_of(open("set")), train);
  const Dataset held_out = open("set", Split::test);
  EXPECT_EQ(pixels_of(held_out), test);
  EXPECT_EQ(labels_of(held_out), (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(held_out.options().split, Split::test);
}

TEST_F(ImageDataset, CifarFilesAndFolders) {
  const std::vector<std::uint8_t> pixels = random_pixels(3 * 3072, 4);
  const auto part = [&](std::size_t first, std::size_t count) {
    return std::vector<std::uint8_t>(pixels.begin() + static_cast<std::ptrdiff_t>(3072 * first),
                                     pixels.begin() + static_cast<std::ptrdiff_t>(3072 * (first + count)));
  };
  folder("set");
  put(at("set/data_batch_2.bin"), cifar_file(part(2, 1), {"\x03"}));
  put(at("set/data_batch_1.bin.gz"), gzipped(cifar_file(part(0, 2), {"\x09", "\x08"})));
  const Dataset data = open("set");
  EXPECT_EQ(data.image(), (ImageShape{3, 32, 32}));
  EXPECT_EQ(pixels_of(data), pixels);
  EXPECT_EQ(labels_of(data), (std::vector<std::int32_t>{9, 8, 3}));
  EXPECT_EQ(pixels_of(open("set/data_batch_1.bin.gz")), part(0, 2));
  expect_refused("set", {"split 'train' only"}, Split::test);
  put(at("set/test_batch.bin"), cifar_file(part(1, 1), {"\x01"}));
  EXPECT_EQ(pixels_of(open("set", Split::test)), part(1, 1));
  put(at("BATCH.BIN"), cifar_file(part(1, 1), {"\x01"}));
  EXPECT_EQ(pixels_of(open("BATCH.BIN")), part(1, 1));
  put(at("set/data_batch_3.bin"), cifar_file(part(1, 1), {"\x01\x02"}));  // of CIFAR-100
  expect_refused("set", {"data_batch_3.bin", "CIFAR-10 records of 3073"});
}

TEST_F(ImageDataset, NpyAndNpz) {
  const std::vector<std::uint8_t> pixels = random_pixels(4 * 3 * 2 * 3, 5);
  const auto npy = [&](const std::vector<std::int64_t>& shape) { return text_of(serialize_npy(pixels, shape)); };
  put(at("colour.npy"), npy({4, 3, 2, 3}));
  EXPECT_EQ(open("colour.npy").image(), (ImageShape{3, 3, 2}));
  EXPECT_EQ(pixels_of(open("colour.npy")), pixels);
  put(at("gray.npy"), npy({4, 6, 3}));
  EXPECT_EQ(open("gray.npy").image(), (ImageShape{1, 6, 3}));
  put(at("flat.npy"), npy({4, 18}));
  expect_refused("flat.npy", {"(4, 18)", "(N, H, W)"});
  put(at("planes.npy"), npy({1, 3, 4, 6}));
  expect_refused("planes.npy", {"(N, C, H, W)", "transpose"});
  expect_refused("gray.npy", {"no split 'test'"}, Split::test);

  const auto put_zip = [&](const std::string& name, const std::vector<std::pair<std::string, std::string>>& members) {
    std::vector<NamedBytes> named;
    for (const auto& [member, content] : members) named.push_back({member, bytes_of(content)});
    put(at(name), text_of(serialize_zip(named)));
  };
  const std::string labels =
      npy_file("<i8", "(4,)", std::string("\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0", 32));
  put_zip("images.npz", {{"labels.npy", labels}, {"images.npy", npy({4, 3, 2, 3})}});
  EXPECT_EQ(pixels_of(open("images.npz")), pixels);
  EXPECT_EQ(labels_of(open("images.npz")), (std::vector<std::int32_t>{1, 2, 3, 4}));
  put_zip("UPPER.NPZ", {{"images.npy", npy({4, 3, 2, 3})}});
  EXPECT_EQ(pixels_of(open("UPPER.NPZ")), pixels);
  put(at("colour.npy.gz"), gzipped(npy({4, 3, 2, 3})));
  EXPECT_EQ(pixels_of(open("colour.npy.gz")), pixels);
  put_zip("one.npz", {{"anything.npy", npy({4, 6, 3})}});
  EXPECT_EQ(open("one.npz").rows(), 4);
  expect_refused("one.npz", {"no split 'test'"}, Split::test);
  put_zip("split.npz", {{"x_train.npy", npy({4, 6, 3})}, {"x_test.npy", npy({2, 12, 3})}, {"y_train.npy", labels}});
  EXPECT_EQ(open("split.npz", Split::test).rows(), 2);
  EXPECT_TRUE(open("split.npz", Split::test).labels().empty());
  EXPECT_EQ(labels_of(open("split.npz")), (std::vector<std::int32_t>{1, 2, 3, 4}));
  put_zip("few.npz", {{"images.npy", npy({2, 12, 3})}, {"labels.npy", labels}});
  expect_refused("few.npz", {"4 labels", "2 images"});
  put_zip("negative.npz", {{"images.npy", npy({1, 24, 3})}, {"labels.npy", npy_file("|i1", "(1,)", "\xff")}});
  expect_refused("negative.npz", {"negative.npz:labels.npy", "label 0", "-1"});
  put_zip("two.npz", {{"a.npy", "x"}, {"b.npy", "y"}});
  expect_refused("two.npz", {"no array 'images'", "'a.npy', 'b.npy'", "numpy.savez"});
  put_zip("floats.npz", {{"images.npy", npy_file("<f4", "(1, 1, 1)", "abcd")}});
  expect_refused("floats.npz", {"floats.npz:images.npy", "'<f4'", "uint8"});
  put(at("broken.npz"), "PK");
  expect_refused("broken.npz", {"broken.npz", "end-of-archive"});
}

TEST_F(ImageDataset, FoldersOfPictures) {
  const ImageShape shape{3, 4, 5};
  const auto pixels = [&](std::uint64_t seed) { return random_pixels(shape.size(), seed); };
  folder("flat");
  for (const std::uint64_t i : {10, 2, 1}) picture("flat/" + std::to_string(i) + ".png", pixels(i), shape);
  put(at("flat/notes.txt"), "passed over");
  put(at("flat/.hidden.png"), "passed over");
  const Dataset flat = open("flat");
  EXPECT_EQ(flat.image(), shape);
  EXPECT_TRUE(flat.labels().empty());
  std::vector<std::uint8_t> expected = pixels(1);
  for (const std::uint64_t i : {10, 2}) {  // "1.png" < "10.png" < "2.png"
    const std::vector<std::uint8_t> more = pixels(i);
    expected.insert(expected.end(), more.begin(), more.end());
  }
  EXPECT_EQ(pixels_of(flat), expected);
  expect_refused("flat", {"no folder 'test'"}, Split::test);

  for (const char* name : {"split/train/b", "split/train/B", "split/test/b"}) folder(name);
  picture("split/train/b/1.png", pixels(1), shape);
  picture("split/train/b/2.PNG", pixels(2), shape);
  picture("split/train/B/3.png", pixels(3), shape);
  picture("split/test/b/4.png", pixels(4), shape);
  const Dataset train = open("split");
  EXPECT_EQ(labels_of(train), (std::vector<std::int32_t>{0, 1, 1}));  // 'B' < 'b'
  EXPECT_TRUE(std::equal(train.pixels().begin(), train.pixels().begin() + shape.size(), pixels(3).begin()));
  EXPECT_EQ(pixels_of(open("split", Split::test)), pixels(4));
  fs::remove_all(at("split/test"));
  expect_refused("split", {"no folder 'test'"}, Split::test);
}

TEST_F(ImageDataset, BadFoldersOfPictures) {
  const ImageShape shape{1, 4, 5};
  folder("set");
  expect_refused("set", {"'" + at("set").string() + "'", "no image set"});
  expect_refused("absent/", {"absent"});
  picture("set/a.png", random_pixels(20, 1), shape);
  picture("set/b.png", random_pixels(20, 2), shape);
  picture("set/c.png", random_pixels(20, 3), {1, 5, 4});
  picture("set/d.png", random_pixels(60, 4), {3, 4, 5});
  expect_refused("set", {"c.png", "4 x 5", "5 x 4"});
  fs::remove(at("set/c.png"));
  expect_refused("set", {"d.png", "colour", "gray"});
  fs::remove(at("set/d.png"));
  put(at("set/b.png"), content(at("set/b.png")).substr(0, 60));
  expect_refused("set", {"b.png", "PNG"});
  put(at("set/b.png"), "");
  expect_refused("set", {"b.png", "PNG"});
  fs::remove(at("set/b.png"));
  EXPECT_EQ(open("set").rows(), 1);
  folder("set/class");
  expect_refused("set", {"both pictures ('a.png') and folders ('class')"});
  fs::rename(at("set/a.png"), at("set/class/a.png"));
  folder("set/empty");
  expect_refused("set", {"empty", "no PNG or JPEG"});
}

TEST_F(ImageDataset, FilesThatAreNothing) {
  put(at("noise.bin"), "short");
  expect_refused("noise.bin", {"noise.bin", "5 bytes", "3073"});
  put(at("noise"), "short");
  expect_refused("noise", {"noise", "no image set"});
  put(at("noise.gz"), gzipped("short"));
  expect_refused("noise.gz", {"noise.gz", "no image set"});
  put(at("bomb.gz"), gzipped(std::string(std::size_t{80} << 20, '\0')));
  expect_refused("bomb.gz", {"bomb.gz", "more than"});
  put(at("cut-images-idx3-ubyte.gz"), gzipped(idx_images(random_pixels(4 * 6, 2), 2, 3)).substr(0, 30));
  expect_refused("cut-images-idx3-ubyte.gz", {"cut-images", "truncated"});
  // A folder needs a slash, so that names of densities stay free.
  expect_error<InvalidArgument>([] { Dataset::open("faces"); }, {"'faces'", "slash"});
}

TEST_F(ImageDataset, NamedSetsComeFromTheDataFolder) {
  const auto named = [&](const std::string& name, Split split = Split::train) {
    return Dataset::open(name, {.data_dir = folder_, .split = split, .seed = 0});
  };
  expect_error<InvalidArgument>([] { Dataset::open("mnist"); }, {"'mnist'", "--data-dir", "BRACKET_DATA_DIR"});
  expect_error<InvalidArgument>([&] { named("minst"); }, {"'minst'", "did you mean 'mnist'"});
  expect_error<DataError>([&] { named("cifar10"); }, {"cifar10", "No such file"});
  folder("mnist");
  put(at("mnist/train-images-idx3-ubyte"), idx_images(random_pixels(2 * 784, 1), 28, 28));
  expect_error<DataError>([&] { named("mnist"); }, {"without labels"});
  put(at("mnist/train-labels-idx1-ubyte"), idx_labels("\x09\x0a"));
  expect_error<DataError>([&] { named("mnist"); }, {"label 1", "10", "0..9"});
  put(at("mnist/train-labels-idx1-ubyte"), idx_labels("\x09\x02"));
  const Dataset data = named("mnist");
  EXPECT_EQ(data.name(), "mnist");
  EXPECT_EQ(data.rows(), 2);
  EXPECT_EQ(data.image(), (ImageShape{1, 28, 28}));
}

TEST(StackedDigits, ChannelsAndLabelsAreThoseOfTheDigitsDrawn) {
  ImageSet digits;
  digits.shape = {1, 2, 3};
  for (int digit = 0; digit < 7; ++digit) {  // every pixel says which digit it is of, and where
    for (int p = 0; p < 6; ++p) digits.pixels.push_back(static_cast<std::uint8_t>(10 * digit + p));
    digits.labels.push_back(digit);
  }
  const ImageSet stacked = stacked_digits(digits, 4000, 5);
  ASSERT_EQ(stacked.shape, (ImageShape{3, 2, 3}));
  ASSERT_EQ(stacked.count(), 4000);
  std::map<int, int> counts;
  for (std::size_t i = 0; i < 4000; ++i) {
    const int label = stacked.labels[i];
    const std::array<int, 3> of_channel = {label / 100, label / 10 % 10, label % 10};
    for (std::size_t p = 0; p < 6; ++p) {
      for (std::size_t c = 0; c < 3; ++c)
        ASSERT_EQ(stacked.pixels[18 * i + 3 * p + c], 10 * of_channel[c] + static_cast<int>(p)) << i;
    }
    for (const int digit : of_channel) ++counts[digit];
  }
  // 12,000 uniform draws from 7: each count has deviation sqrt(12000 6/49) = 38. Limit: 5.
  ASSERT_EQ(counts.size(), 7u);
  for (const auto& [digit, count] : counts) EXPECT_NEAR(count, 12000.0 / 7, 5 * 38.4) << digit;
  EXPECT_EQ(stacked_digits(digits, 4000, 5).labels, stacked.labels);
  EXPECT_NE(stacked_digits(digits, 4000, 6).labels, stacked.labels);
  const ImageSet fewer = stacked_digits(digits, 10, 5);  // an image does not depend on how many there are
  EXPECT_TRUE(std::equal(fewer.pixels.begin(), fewer.pixels.end(), stacked.pixels.begin()));
}

TEST(ImageRows, FromImagesAndItsRefusals) {
  const ImageShape shape{3, 2, 5};
  std::vector<std::uint8_t> pixels = random_pixels(4 * 30, 8);
  const std::vector<std::uint8_t> original = pixels;
  const Dataset data = Dataset::from_images(pixels, shape, 4, std::vector<std::int32_t>{3, 0, 999, 1});
  pixels.assign(pixels.size(), 0);  // they were copied
  EXPECT_EQ(pixels_of(data), original);
  EXPECT_EQ(data.name(), "images");
  EXPECT_EQ(data.labels()[2], 999);
  const Dataset copy = data;
  EXPECT_EQ(copy.pixels().data(), data.pixels().data());  // images are shared
  expect_error<InvalidArgument>([&] { (void)data.values(); }, {"'images'", "pixels()"});
  expect_error<InvalidArgument>([] { (void)Dataset::open("rings").image(); }, {"'rings'", "is_images()"});
  EXPECT_TRUE(Dataset::open("rings").pixels().empty());
  expect_error<DataError>([&] { Dataset::from_images({}, shape, 0); }, {"0 images", "empty"});
  expect_error<DataError>([&] { Dataset::from_images({}, {0, 2, 5}, 1); }, {"0 channels", "empty"});
  expect_error<InvalidArgument>([&] { Dataset::from_images(original, shape, 3); }, {"3 images", "120 values"});
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  expect_error<InvalidArgument>([&] { Dataset::from_images({}, {4, 1, 1}, kHuge); }, {"0 values"});
  expect_error<InvalidArgument>([&] { Dataset::from_images(original, shape, 4, std::vector<std::int32_t>{1}); },
                                {"4 images", "got 1"});
  expect_error<InvalidArgument>(
      [&] {
        Dataset::from_images(original, shape, 4, std::vector<std::int32_t>{1, 1, -2, 1});
      },
      {"label 2", "-2"});
}

TEST(ImageRows, SamplesAreShuffledRowsInNetworkUnits) {
  const ImageShape shape{1, 1, 3};
  std::vector<std::uint8_t> pixels;
  for (int i = 0; i < 37; ++i) pixels.insert(pixels.end(), {static_cast<std::uint8_t>(i), 0, 255});
  const Dataset images = Dataset::from_images(pixels, shape, 37);
  std::vector<double> values;
  for (const std::uint8_t pixel : pixels) values.push_back(2.0 / 255 * pixel - 1);
  const Dataset rows = Dataset::from_rows(values, 37, 3);
  EXPECT_EQ(images.sample(100, 4), rows.sample(100, 4));
  const std::vector<double> drawn = images.sample(5, 4);
  EXPECT_EQ(drawn[1], -1);
  EXPECT_EQ(drawn[2], 1);
  expect_error<InvalidArgument>([&] { (void)images.sample(-1, 0); }, {"-1 rows"});
}

TEST(ImageRows, StatisticsEqualThoseOfTheSameNumbers) {
  const ImageShape shape{3, 2, 2};
  std::vector<std::uint8_t> pixels = random_pixels(500 * 12, 9);
  for (std::size_t i = 4; i < pixels.size(); i += 12) pixels[i] = 77;  // a constant column
  const Dataset images = Dataset::from_images(pixels, shape, 500);
  std::vector<double> values;
  for (const std::uint8_t pixel : pixels) values.push_back(2.0 / 255 * pixel - 1);
  const DataStatistics found = images.statistics(0), wanted = Dataset::from_rows(values, 500, 12).statistics(0);
  // Sums of 500 rounded terms below 1 there, of whole numbers here.
  const double limit = 4 * 500 * 0x1p-53;
  for (std::size_t j = 0; j < 12; ++j) {
    EXPECT_NEAR(found.mean[j], wanted.mean[j], limit) << j;
    EXPECT_NEAR(found.deviation[j], wanted.deviation[j], limit) << j;
  }
  EXPECT_EQ(found.deviation[4], 1);
  EXPECT_NEAR(found.standardised_radius, wanted.standardised_radius, 12 * limit);
}

TEST(ImageRows, LargeSetsAreMeasuredOnShuffledRows) {
  // The first half is black, the second white; 100,000 of 150,000 rows drawn without replacement have a mean with
  // standard error sqrt(1/n - 1/N) = 0.0018. Limit: 5.
  std::vector<std::uint8_t> pixels(150000);
  std::fill(pixels.begin() + 75000, pixels.end(), std::uint8_t{255});
  const DataStatistics s = Dataset::from_images(pixels, {1, 1, 1}, 150000).statistics(1);
  EXPECT_NEAR(s.mean[0], 0, 5 * std::sqrt(1e-5 - 1.0 / 150000));
  EXPECT_NEAR(s.deviation[0], 1, 1e-4);  // 1 - mean^2 / 2
}

class SetsAtHand : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("BRACKET_DATA_DIR");
    if (folder == nullptr) GTEST_SKIP() << "BRACKET_DATA_DIR is not set: no image sets at hand";
    folder_ = folder;
  }

  Dataset open(const std::string& name, Split split) const {
    return Dataset::open(name, {.data_dir = folder_, .split = split, .seed = 3});
  }

  static double mean_pixel(const Dataset& data) {
    double sum = 0;
    for (const std::uint8_t pixel : data.pixels()) sum += pixel;
    return sum / 255 / static_cast<double>(data.pixels().size());
  }

  fs::path folder_;
};

// Sizes and moments as published with the sets.
TEST_F(SetsAtHand, MnistAndFashionMnist) {
  struct Set {
    const char* name;
    double mean;
  };
  for (const Set& set : {Set{"mnist", 0.1307}, Set{"fashion-mnist", 0.2860}}) {
    const Dataset train = open(set.name, Split::train), test = open(set.name, Split::test);
    EXPECT_EQ(train.rows(), 60000);
    EXPECT_EQ(test.rows(), 10000);
    EXPECT_EQ(train.image(), (ImageShape{1, 28, 28}));
    EXPECT_NEAR(mean_pixel(train), set.mean, 5e-5) << set.name;
    EXPECT_EQ(train.labels().size(), 60000u);
  }
  const Dataset mnist = open("mnist", Split::train);
  EXPECT_EQ((std::vector<std::int32_t>(mnist.labels().begin(), mnist.labels().begin() + 5)),
            (std::vector<std::int32_t>{5, 0, 4, 1, 9}));
}

TEST_F(SetsAtHand, Cifar10AsFarAsItIsThere) {
  const Dataset train = open("cifar10", Split::train), test = open("cifar10", Split::test);
  EXPECT_EQ(train.image(), (ImageShape{3, 32, 32}));
  EXPECT_GT(train.rows(), 9000);
  EXPECT_GT(test.rows(), 9000);
  EXPECT_EQ(std::ranges::max(train.labels()), 9);
  // The means of the whole training set are 0.4914, 0.4822, 0.4465; batches of 10,000 differ in the third digit.
  const std::vector<double> mean = train.statistics(0).mean;
  std::array<double, 3> channel{};
  for (std::size_t j = 0; j < mean.size(); ++j) channel[j % 3] += (mean[j] + 1) / 2 / 1024;
  EXPECT_NEAR(channel[0], 0.4914, 5e-3);
  EXPECT_NEAR(channel[1], 0.4822, 5e-3);
  EXPECT_NEAR(channel[2], 0.4465, 5e-3);
}

TEST_F(SetsAtHand, StackedMnist) {
  const Dataset data = open("stacked-mnist", Split::train);
  EXPECT_EQ(data.rows(), 128000);
  EXPECT_EQ(data.image(), (ImageShape{3, 28, 28}));
  std::vector<int> counts(1000);
  for (const std::int32_t label : data.labels()) ++counts.at(static_cast<std::size_t>(label));
  // The rarest triple has probability 0.09^3, 93 of 128,000.
  EXPECT_GT(std::ranges::min(counts), 40);
  EXPECT_EQ(open("stacked-mnist", Split::test).rows(), 26000);
}

}  // namespace
}  // namespace bracket
