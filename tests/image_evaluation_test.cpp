// Evaluation of a pair on images: the images that probe an energy, neighbours and paths, and the whole on a tiny pair.
#include "host/evaluate/images/image_evaluation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "bracket/bounds.h"
#include "bracket/error.h"
#include "host/evaluate/images/nearest_images.h"
#include "host/evaluate/images/probe_images.h"
#include "host/run/image_pictures.h"

namespace bracket {
namespace {

constexpr ImageShape kShape{.channels = 3, .height = 16, .width = 16};

Dataset random_images(const ImageShape& shape, std::int64_t count, std::uint32_t seed, bool labelled = false) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int> byte(0, 255), label(0, 9);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(count * shape.size()));
  for (std::uint8_t& pixel : pixels) pixel = static_cast<std::uint8_t>(byte(engine));
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; labelled && i < count; ++i)
    labels.push_back(i < 10 ? static_cast<std::int32_t>(i) : label(engine));
  return Dataset::from_images(pixels, shape, count, labels);
}

// ---- probes, neighbours, paths -----------------------------------------------------------------------------------

TEST(ProbeImages, NoiseAndConstantsFillTheUnitsOfNetworks) {
  const ImageShape shape{.channels = 3, .height = 5, .width = 7};
  const std::vector<double> noise = noise_images(shape, 200, 1), constants = constant_images(shape, 200, 1);
  ASSERT_EQ(noise.size(), 200U * 105);
  ASSERT_EQ(constants.size(), noise.size());
  double mean = 0, squares = 0;
  for (const double v : noise) {
    ASSERT_LT(std::abs(v), 1);
    mean += v / static_cast<double>(noise.size());
    squares += v * v / static_cast<double>(noise.size());
  }
  // Of 21,000 uniform values: mean 0, deviation 1 / sqrt 3; mean square 1/3, deviation sqrt(4/45). Five deviations.
  EXPECT_NEAR(mean, 0, 5 * 0.5774 / std::sqrt(21000.0));
  EXPECT_NEAR(squares, 1.0 / 3, 5 * 0.2981 / std::sqrt(21000.0));
  std::set<double> colours;
  for (std::size_t i = 0; i < constants.size(); ++i) {
    EXPECT_EQ(constants[i], constants[i / 105 * 105 + i % 3]) << i;
    colours.insert(constants[i]);
  }
  EXPECT_EQ(colours.size(), 600U);
  EXPECT_EQ(noise, noise_images(shape, 200, 1));
  EXPECT_NE(noise, noise_images(shape, 200, 2));
  EXPECT_TRUE(noise_images(shape, 0, 1).empty());
}

TEST(ProbeImages, AveragesAreOfTwoDifferentRows) {
  for (const std::int64_t rows : {2, 3, 17}) {
    std::vector<double> images(static_cast<std::size_t>(rows * 4));
    for (std::size_t i = 0; i < images.size(); ++i) images[i] = std::exp2(static_cast<double>(i / 4));
    const std::vector<double> pairs = averaged_pairs(images, rows, 4, 5);
    ASSERT_EQ(pairs.size(), images.size());
    for (std::int64_t i = 0; i < rows; ++i) {
      // Twice the average less the row is a power of two: another row.
      const double other = 2 * pairs[static_cast<std::size_t>(4 * i)] - images[static_cast<std::size_t>(4 * i)];
      int exponent = 0;
      EXPECT_EQ(std::frexp(other, &exponent), 0.5) << i;
      EXPECT_NE(exponent - 1, i);
      EXPECT_LT(exponent - 1, rows);
      EXPECT_EQ(pairs[static_cast<std::size_t>(4 * i)], pairs[static_cast<std::size_t>(4 * i + 3)]);
    }
  }
  EXPECT_THROW(averaged_pairs(std::vector<double>(4), 1, 4, 0), InvalidArgument);
  EXPECT_THROW(averaged_pairs(std::vector<double>(7), 2, 4, 0), InvalidArgument);
}

double norm(const double* v, std::size_t d) { return std::sqrt(std::inner_product(v, v + d, v, 0.0)); }

TEST(LatentPath, KeepsToTheCircleAndItsSpeed) {
  const std::vector<double> a = {3, 0, 0}, b = {0, 0, 12};
  const std::vector<double> path = latent_path(a, b, 5);
  ASSERT_EQ(path.size(), 15U);
  for (std::size_t k = 0; k < 5; ++k) {
    const double t = static_cast<double>(k) / 4, length = 3 * std::pow(4, t), angle = t * std::acos(0.0);
    EXPECT_NEAR(path[3 * k], length * std::cos(angle), 1e-13);
    EXPECT_NEAR(path[3 * k + 1], 0, 1e-13);
    EXPECT_NEAR(path[3 * k + 2], length * std::sin(angle), 1e-13);
    EXPECT_NEAR(norm(&path[3 * k], 3), length, 1e-12);
  }
}

TEST(LatentPath, StraightWhereThereIsNoCircle) {
  const std::vector<double> a = {1, 2}, opposite = {-1, -2}, zero = {0, 0};
  EXPECT_EQ(latent_path(a, a, 3), (std::vector<double>{1, 2, 1, 2, 1, 2}));
  EXPECT_EQ(latent_path(a, opposite, 3), (std::vector<double>{1, 2, 0, 0, -1, -2}));
  EXPECT_EQ(latent_path(a, zero, 2), (std::vector<double>{1, 2, 0, 0}));
  EXPECT_THROW(latent_path(a, zero, 1), InvalidArgument);
  EXPECT_THROW(latent_path(a, std::vector<double>(3), 4), InvalidArgument);
}

TEST(NearestImages, AreThoseOfASearchByHand) {
  const ImageShape shape{.channels = 1, .height = 8, .width = 9};
  const Dataset data = random_images(shape, 4001, 1);  // more than one panel
  const std::vector<double> all = image_values(data, 0, 4001);
  std::vector<double> wanted = image_values(random_images(shape, 3, 2), 0, 3);
  std::copy_n(all.begin() + 4000 * 72, 72, wanted.begin());  // the first is the last row itself
  const std::vector<Neighbour> found = nearest_images(data, wanted, 3, 5);
  ASSERT_EQ(found.size(), 15U);
  EXPECT_EQ(found[0].row, 4000);
  EXPECT_EQ(found[0].distance, 0);
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<std::pair<double, std::int64_t>> distances;
    for (std::size_t k = 0; k < 4001; ++k) {
      double squares = 0;
      for (std::size_t j = 0; j < 72; ++j) squares += std::pow(all[72 * k + j] - wanted[72 * i + j], 2);
      distances.emplace_back(std::sqrt(squares), static_cast<std::int64_t>(k));
    }
    std::sort(distances.begin(), distances.end());
    for (std::size_t n = 0; n < 5; ++n) {
      EXPECT_EQ(found[5 * i + n].row, distances[n].second);
      EXPECT_NEAR(found[5 * i + n].distance, distances[n].first, 1e-12 * distances[n].first);
    }
  }
  EXPECT_TRUE(nearest_images(data, {}, 0, 1).empty());
  EXPECT_EQ(nearest_images(random_images(shape, 2, 1), wanted, 3, 2).size(), 6U);
  EXPECT_THROW(nearest_images(data, wanted, 2, 5), InvalidArgument);
  EXPECT_THROW(nearest_images(data, wanted, 3, 0), InvalidArgument);
  EXPECT_THROW(nearest_images(data, wanted, 3, 4002), InvalidArgument);
}

// ---- the whole ---------------------------------------------------------------------------------------------------

// E = mean-free linear map + |x|^2 / 2, G linear onto 3 x 16 x 16: every figure of the Jacobian is known.
class ImagePair : public ::testing::Test {
 protected:
  ImagePair() {
    TrainerConfig config;
    config.energy.network.input_size = kShape.size();
    config.energy.network.layers = {LinearSpec{.features = 1}, ConfinementSpec{}};
    config.generator.network.input_size = 2;
    config.generator.network.layers = {LinearSpec{.features = kShape.size()}};
    config.batch_size = 4;
    config.dtype = DType::f64;
    trainer = std::make_unique<Trainer>(context, config, test_images);
  }

  Context context;
  Dataset test_images = random_images(kShape, 40, 1);
  std::unique_ptr<Trainer> trainer;
  ImageEvaluationOptions options{.samples = 60, .jacobians = 3};
};

const EnergySet& set_of(const ImageEvaluation& e, const std::string& name) {
  return *std::find_if(e.energies.begin(), e.energies.end(), [&](const EnergySet& set) { return set.name == name; });
}

TEST_F(ImagePair, EnergiesAurocAndTheBound) {
  const ImageEvaluation e = evaluate_images(*trainer, test_images, {random_images(kShape, 50, 9)}, nullptr, options);
  ASSERT_EQ(e.energies.size(), 6U);
  EXPECT_EQ(set_of(e, "data").energies.size(), 40U);
  EXPECT_EQ(set_of(e, "samples").energies.size(), 60U);
  EXPECT_EQ(set_of(e, "noise").energies.size(), 40U);
  EXPECT_EQ(e.energies.back().energies.size(), 50U);
  EXPECT_FALSE(set_of(e, "data").auroc);
  // |x|^2 / 2 of 768 uniform values is 128 +- 4; averages of pairs have half of that, samples near zero far less.
  EXPECT_NEAR(set_of(e, "data").mean, 128, 5);
  EXPECT_NEAR(set_of(e, "noise").mean, 128, 5);
  EXPECT_EQ(set_of(e, "interpolations").auroc, 0);
  for (const EnergySet& set : e.energies) {
    if (!set.auroc) continue;
    double wins = 0;
    for (const double data : e.energies[0].energies)
      for (const double other : set.energies) wins += data < other ? 1 : data == other ? 0.5 : 0;
    EXPECT_NEAR(*set.auroc, wins / 40 / static_cast<double>(set.energies.size()), 1e-12) << set.name;
  }
  // One Jacobian for all latents.
  EXPECT_EQ(e.jacobians, 3);
  EXPECT_NEAR(e.log_volume.mean, std::log(e.smallest_singular_value.mean * e.largest_singular_value.mean), 1e-12);
  EXPECT_NEAR(e.condition.mean, e.largest_singular_value.maximum / e.smallest_singular_value.minimum, 1e-12);
  ASSERT_TRUE(e.lower_bound_on_manifold);
  EXPECT_NEAR(*e.lower_bound_on_manifold,
              lower_bound(set_of(e, "data").mean, set_of(e, "samples").mean, e.log_volume.mean, 2), 1e-10);
  const double variance =
      std::pow(set_of(e, "data").deviation, 2) / 40 + std::pow(set_of(e, "samples").deviation, 2) / 60;
  EXPECT_NEAR(*e.lower_bound_on_manifold_standard_error, std::sqrt(variance), 1e-9);
  EXPECT_FALSE(e.feature_frechet);
}

TEST_F(ImagePair, FeaturesOfAGrayClassifierPerChannel) {
  const Dataset gray = random_images({.channels = 1, .height = 16, .width = 16}, 60, 3, true);
  const ImageClassifier classifier = ImageClassifier::train(context, gray, {.epochs = 1, .batch_size = 20});
  options.samples = 30;
  const ImageEvaluation e = evaluate_images(*trainer, test_images, {}, &classifier, options);
  EXPECT_EQ(e.feature_samples, 30);
  EXPECT_EQ(e.classes, 1000);
  ASSERT_TRUE(e.feature_frechet && e.f8 && e.f1_8 && e.modes && e.kl);
  EXPECT_GT(*e.feature_frechet, 0);
  EXPECT_GE(*e.f8, 0);
  EXPECT_LE(*e.f8, 1);
  EXPECT_GE(*e.modes, 1);
  EXPECT_LE(*e.modes, 30);
  // 30 samples leave at least 970 classes empty: KL is between log(1000 / 30) and log 1000.
  EXPECT_GE(*e.kl, std::log(1000.0 / 30) - 1e-12);
  EXPECT_LE(*e.kl, std::log(1000.0) + 1e-12);

  const nlohmann::json json = nlohmann::json::parse(to_json(e));
  EXPECT_EQ(json["classes"], 1000);
  EXPECT_EQ(json["feature_frechet"], *e.feature_frechet);
  EXPECT_EQ(json["energies"]["noise"]["auroc"], *set_of(e, "noise").auroc);
  EXPECT_TRUE(json["energies"]["data"]["auroc"].is_null());
  EXPECT_FALSE(json.contains("nll_exact"));
  const std::string text = summary(e);
  EXPECT_NE(text.find("feature_frechet"), std::string::npos);
  EXPECT_NE(text.find("Lower bound on manifold"), std::string::npos);
  EXPECT_EQ(text.find("FID"), std::string::npos);
}

TEST_F(ImagePair, IsAFunctionOfTheSeed) {
  const std::string first = to_json(evaluate_images(*trainer, test_images, {}, nullptr, options));
  EXPECT_EQ(first, to_json(evaluate_images(*trainer, test_images, {}, nullptr, options)));
  options.seed = 1;
  EXPECT_NE(first, to_json(evaluate_images(*trainer, test_images, {}, nullptr, options)));
}

TEST_F(ImagePair, Pictures) {
  const ImageEvaluation e = evaluate_images(*trainer, test_images, {}, nullptr, options);
  EXPECT_GT(energy_histogram(e).width(), 100);
  const ImagePictureOptions picture{.rows = 2, .columns = 4};
  // 4 columns of 16 pixels, magnified twice, with gaps of 2.
  const Image neighbours = neighbour_picture(*trainer, test_images, picture);
  EXPECT_EQ(neighbours.width(), 4 * 34 + 2);
  EXPECT_EQ(neighbours.height(), 2 * 34 + 2);
  const Image path = interpolation_picture(*trainer, kShape, picture);
  EXPECT_EQ(path.width(), neighbours.width());
  EXPECT_NE(std::vector<std::uint8_t>(path.bytes().begin(), path.bytes().end()),
            std::vector<std::uint8_t>(neighbours.bytes().begin(), neighbours.bytes().end()));
  EXPECT_THROW(neighbour_picture(*trainer, test_images, {.rows = 1, .columns = 42}), InvalidArgument);
  EXPECT_THROW(interpolation_picture(*trainer, kShape, {.rows = 1, .columns = 1}), InvalidArgument);
  EXPECT_THROW(interpolation_picture(*trainer, {.channels = 2, .height = 24, .width = 16}, picture), InvalidArgument);
  EXPECT_THROW(interpolation_picture(*trainer, {.channels = 3, .height = 16, .width = 15}, picture), InvalidArgument);
}

TEST_F(ImagePair, BadInput) {
  const auto run = [&](const Dataset& data, const std::vector<Dataset>& others) {
    return evaluate_images(*trainer, data, others, nullptr, options);
  };
  const Dataset small = random_images({.channels = 1, .height = 16, .width = 16}, 10, 1, true);
  EXPECT_THROW(run(small, {}), InvalidArgument);
  EXPECT_THROW(run(test_images, {small}), InvalidArgument);
  EXPECT_THROW(run(test_images, {Dataset::from_rows(std::vector<double>(4), 2, 2)}), InvalidArgument);
  EXPECT_THROW(run(random_images(kShape, 1, 1), {}), InvalidArgument);
  options.samples = 1;
  EXPECT_THROW(run(test_images, {}), InvalidArgument);
  options = {.samples = 10, .jacobians = 1};
  EXPECT_THROW(run(test_images, {}), InvalidArgument);
  options.jacobians = 2;
  const Dataset other = random_images({.channels = 1, .height = 20, .width = 16}, 20, 1, true);
  const ImageClassifier classifier = ImageClassifier::train(context, other, {.epochs = 1, .batch_size = 20});
  EXPECT_THROW(evaluate_images(*trainer, test_images, {}, &classifier, options), InvalidArgument);
}

}  // namespace
}  // namespace bracket
