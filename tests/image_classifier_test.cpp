// The classifier: learning, its file, and MNIST where it is at hand (BRACKET_DATA_DIR).
#include "host/evaluate/images/image_classifier.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "host/files/safetensors.h"
#include "host/training/inference.h"
#include "tests/files_test_folder.h"

namespace bracket {
namespace {

constexpr ImageShape kShape{.channels = 2, .height = 16, .width = 20};

// Three classes told apart by where a bright bar lies, with noise and a place that moves.
Dataset bars(std::int64_t count, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int> noise(0, 60), place(4, 9);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(count * kShape.size()));
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto label = static_cast<std::int32_t>(i % 3);
    labels.push_back(label);
    const std::int64_t row = place(engine), column = place(engine);
    for (std::int64_t y = 0; y < kShape.height; ++y)
      for (std::int64_t x = 0; x < kShape.width; ++x)
        for (std::int64_t c = 0; c < kShape.channels; ++c) {
          const bool bright = label == 0 ? y == row : label == 1 ? x == column : c == 1 && y == row;
          pixels[static_cast<std::size_t>(((i * kShape.height + y) * kShape.width + x) * kShape.channels + c)] =
              static_cast<std::uint8_t>(noise(engine) + (bright ? 190 : 0));
        }
  }
  return Dataset::from_images(pixels, kShape, count, labels);
}

constexpr ClassifierTraining kTraining{.epochs = 6, .batch_size = 30, .seed = 3};

class Classifier : public FolderTest {
 protected:
  Context context_;
};

TEST_F(Classifier, LearnsWhatItIsShown) {
  std::vector<double> losses;
  const ImageClassifier classifier =
      ImageClassifier::train(context_, bars(600, 1), kTraining, [&](std::int64_t epoch, double loss) {
        EXPECT_EQ(epoch, static_cast<std::int64_t>(losses.size()) + 1);
        losses.push_back(loss);
      });
  ASSERT_EQ(losses.size(), 6U);
  // An untrained network is close to the log of three equal shares.
  EXPECT_LT(losses[0], 1.5 * std::log(3.0));
  EXPECT_LT(losses.back(), 0.2 * losses[0]);
  EXPECT_EQ(classifier.classes(), 3);
  EXPECT_EQ(classifier.features(), 50);
  // 200 images of each class in training; a learner that had only memorised would be near one third here.
  EXPECT_GT(classifier.accuracy(bars(300, 2)), 0.97);
}

TEST_F(Classifier, IsAFunctionOfTheSeedForAnyThreads) {
  std::vector<double> features[3];
  const Dataset data = bars(90, 1);
  const std::vector<double> images = image_values(data, 0, 10);
  for (int run = 0; run < 3; ++run) {
    ContextOptions options;
    options.threads = run + 1;
    Context context(options);
    ClassifierTraining training = kTraining;
    training.epochs = 2;
    if (run == 2) training.seed = 4;
    features[run] = ImageClassifier::train(context, data, training).classify(images, 10).features;
  }
  EXPECT_EQ(features[0], features[1]);
  EXPECT_NE(features[0], features[2]);
}

TEST_F(Classifier, ComesBackFromItsFile) {
  ClassifierTraining training = kTraining;
  training.epochs = 1;
  const ImageClassifier saved = ImageClassifier::train(context_, bars(60, 1), training);
  const auto path = folder_ / "c.safetensors";
  saved.save(path);
  const ImageClassifier loaded = ImageClassifier::load(context_, path);
  EXPECT_EQ(loaded.image(), kShape);
  EXPECT_EQ(loaded.classes(), 3);
  const std::vector<double> images = image_values(bars(20, 5), 0, 20);
  const Classified a = saved.classify(images, 20), b = loaded.classify(images, 20);
  EXPECT_EQ(a.features, b.features);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.features.size(), 20U * 50);

  const SafetensorsFile file = read_safetensors(path);
  ASSERT_EQ(file.tensors.size(), 8U);
  for (const StoredTensor& tensor : file.tensors) {
    if (tensor.name == "layers.3.weight") {
      EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{20, 10, 5, 5}));
    }
    if (tensor.name == "layers.7.weight") {
      EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{50, 20 * 1 * 2}));
    }
  }
}

TEST_F(Classifier, LogitsAreThoseOfTheWholeNetwork) {
  // classify() runs all layers but the last, then the last on its part of the values; the label must be what one
  // network with the file's values gives.
  ClassifierTraining training = kTraining;
  training.epochs = 2;
  const ImageClassifier classifier = ImageClassifier::train(context_, bars(90, 1), training);
  const auto path = folder_ / "c.safetensors";
  classifier.save(path);
  const SafetensorsFile file = read_safetensors(path);
  const auto tensor = [&](const std::string& name) {
    for (const StoredTensor& t : file.tensors)
      if (t.name == name) {
        std::vector<float> values(t.bytes.size() / sizeof(float));
        std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
        return values;
      }
    return std::vector<float>();
  };
  const std::vector<float> weight = tensor("layers.9.weight"), bias = tensor("layers.9.bias");
  ASSERT_EQ(weight.size(), 150U);
  ASSERT_EQ(bias.size(), 3U);
  const Classified seen = classifier.classify(image_values(bars(30, 7), 0, 30), 30);
  for (std::size_t i = 0; i < 30; ++i) {
    double best = -1e300, chosen = -1e300;
    for (std::size_t k = 0; k < 3; ++k) {
      double logit = bias[k];
      for (std::size_t j = 0; j < 50; ++j) logit += static_cast<double>(weight[50 * k + j]) * seen.features[50 * i + j];
      best = std::max(best, logit);
      if (static_cast<std::int64_t>(k) == seen.labels[i]) chosen = logit;
    }
    EXPECT_NEAR(chosen, best, 1e-4) << i;  // 50 products in single precision, logits of size 10
    for (std::size_t j = 0; j < 50; ++j) EXPECT_GE(seen.features[50 * i + j], 0);
  }
}

TEST_F(Classifier, RefusesWhatItCannotTake) {
  const ImageShape shape{.channels = 1, .height = 16, .width = 16};
  EXPECT_THROW(classifier_network({.channels = 1, .height = 12, .width = 16}, 10), InvalidArgument);
  EXPECT_THROW(classifier_network({.channels = 1, .height = 16, .width = 18}, 10), InvalidArgument);
  EXPECT_THROW(classifier_network(shape, 1), InvalidArgument);
  EXPECT_THROW(classifier_network(shape, 257), InvalidArgument);
  const std::vector<std::uint8_t> black(4 * 256);
  EXPECT_THROW(ImageClassifier::train(context_, Dataset::from_images(black, shape, 4)), InvalidArgument);
  EXPECT_THROW(ImageClassifier::train(context_, Dataset::from_rows(std::vector<double>(4), 2, 2)), InvalidArgument);
  EXPECT_THROW(ImageClassifier::train(context_, bars(60, 1), {.epochs = 0}), InvalidArgument);
  EXPECT_THROW(ImageClassifier::train(context_, bars(60, 1), {.batch_size = 61}), InvalidArgument);
  EXPECT_THROW(ImageClassifier::train(context_, bars(60, 1), {.lr = 0}), InvalidArgument);
  EXPECT_THROW(ImageClassifier::train(context_, bars(60, 1), {.largest_shift = -1}), InvalidArgument);
  const ImageClassifier classifier = ImageClassifier::train(context_, bars(60, 1), {.epochs = 1, .batch_size = 60});
  EXPECT_THROW(static_cast<void>(classifier.classify(std::vector<double>(100), 1)), InvalidArgument);
  EXPECT_THROW(
      static_cast<void>(classifier.accuracy(Dataset::from_images(black, shape, 4, std::vector<std::int32_t>(4)))),
      InvalidArgument);
  EXPECT_TRUE(classifier.classify({}, 0).labels.empty());
}

TEST_F(Classifier, RefusesFilesThatAreNone) {
  const auto path = folder_ / "x.safetensors";
  EXPECT_THROW(ImageClassifier::load(context_, path), DataError);
  SafetensorsFile file;
  file.metadata = {{"format", "pt"}};
  const auto write = [&] {
    const std::vector<std::byte> bytes = serialize_safetensors(file);
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  };
  write();
  EXPECT_THROW(ImageClassifier::load(context_, path), CheckpointError);
  ImageClassifier::train(context_, bars(60, 1), {.epochs = 1, .batch_size = 60}).save(path);
  const SafetensorsFile good = read_safetensors(path);
  for (const char* key : {"channels", "height", "classes", "bracket"}) {
    file = good;
    file.metadata[key] = "17";
    write();
    EXPECT_THROW(ImageClassifier::load(context_, path), CheckpointError) << key;
    file.metadata.erase(key);
    write();
    EXPECT_THROW(ImageClassifier::load(context_, path), CheckpointError) << key;
  }
  file = good;
  file.tensors.pop_back();
  write();
  EXPECT_THROW(ImageClassifier::load(context_, path), CheckpointError);
}

TEST(Mnist, OneEpochReachesNinetySevenPercent) {
  const char* folder = std::getenv("BRACKET_DATA_DIR");
  if (!folder) GTEST_SKIP() << "BRACKET_DATA_DIR is not set: MNIST is not at hand";
  Context context;
  const ImageClassifier classifier =
      ImageClassifier::train(context, Dataset::open("mnist", {.data_dir = folder}), {.epochs = 1});
  EXPECT_GT(classifier.accuracy(Dataset::open("mnist", {.data_dir = folder, .split = Split::test})), 0.97);
}

}  // namespace
}  // namespace bracket
