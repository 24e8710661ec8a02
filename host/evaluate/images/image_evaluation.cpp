#include "host/evaluate/images/image_evaluation.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "bracket/bounds.h"
#include "bracket/error.h"
#include "host/core/text.h"
#include "host/evaluate/generated_points.h"
#include "host/evaluate/images/class_coverage.h"
#include "host/evaluate/images/detection.h"
#include "host/evaluate/images/feature_frechet.h"
#include "host/evaluate/images/jacobian_spectrum.h"
#include "host/evaluate/images/precision_recall.h"
#include "host/evaluate/images/probe_images.h"
#include "host/files/in_quotes.h"
#include "host/network/layer.h"
#include "host/picture/plots.h"
#include "host/training/inference.h"

namespace bracket {
namespace {

constexpr std::uint64_t kLatentStep = 1;    // of stream `evaluation`; step 0 chooses the test images
constexpr std::uint64_t kJacobianStep = 2;  // latents of their own, so that their number changes no other figure
constexpr std::int64_t kMostClasses = std::int64_t{1} << 24;

void require(bool holds, const std::string& what) {
  if (!holds) throw InvalidArgument("image evaluation: " + what);
}

void check(const Trainer& trainer, const Dataset& test, const std::vector<Dataset>& others,
           const ImageEvaluationOptions& options) {
  require(test.is_images(), "the data set " + text_in_quotes(test.name()) + " holds no images");
  require(test.cols() == trainer.energy_network().input_size(),
          "the images have " + std::to_string(test.cols()) + " values, the energy reads " +
              std::to_string(trainer.energy_network().input_size()));
  for (const Dataset& other : others) {
    require(other.is_images() && other.image() == test.image(),
            "the data set " + text_in_quotes(other.name()) + " has " +
                (other.is_images() ? described(other.image()) : "no images") + ", the run has " +
                described(test.image()) + "; only images of one shape have an energy");
    require(
        std::count_if(others.begin(), others.end(), [&](const Dataset& o) { return o.name() == other.name(); }) == 1,
        "the data set " + text_in_quotes(other.name()) + " is named twice");
    require(other.rows() >= 1, "the data set " + text_in_quotes(other.name()) + " is empty");
  }
  require(options.samples >= 2 && test.rows() >= 2,
          "at least 2 samples and 2 held-out images are needed for a standard error, got " +
              std::to_string(options.samples) + " and " + std::to_string(test.rows()));
  require(options.jacobians >= 2,
          "at least 2 Jacobians are needed for a standard error, got " + std::to_string(options.jacobians));
}

EnergySet energy_set(Trainer& trainer, const std::string& name, std::span<const double> images, Weights weights) {
  EnergySet set;
  set.name = name;
  const auto rows = static_cast<std::int64_t>(images.size()) / trainer.energy_network().input_size();
  set.energies = trainer.energies(images, rows, weights);
  const auto bad = std::find_if(set.energies.begin(), set.energies.end(), [](double e) { return !std::isfinite(e); });
  if (bad != set.energies.end())
    throw Diverged("the energy of image " + std::to_string(bad - set.energies.begin()) + " of " + name + " is " +
                       format_number(*bad) + "; evaluate an earlier checkpoint",
                   "energy", 0);
  const SampleMoments moments = sample_moments(set.energies);
  set.mean = moments.mean;
  set.deviation = std::sqrt(moments.variance);
  return set;
}

std::vector<double> scores(const EnergySet& set) {
  std::vector<double> result;
  for (const double energy : set.energies) result.push_back(-energy);
  return result;
}

ValueRange range_of(std::span<const double> values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {*low, sample_moments(values).mean, *high};
}

void add_jacobians(ImageEvaluation& e, Trainer& trainer, const ImageEvaluationOptions& options) {
  const Network& generator = trainer.generator_network();
  const std::int64_t d = generator.input_size();
  const std::vector<double> z =
      normal_values({options.seed, RandomStream::evaluation, kJacobianStep}, options.jacobians * d);
  const JacobianSpectrum spectrum = jacobian_spectrum(
      trainer.context(), generator, trainer.generator_parameters(options.weights), z, options.jacobians);
  std::vector<double> condition;
  for (std::size_t i = 0; i < spectrum.smallest.size(); ++i)
    condition.push_back(spectrum.largest[i] / spectrum.smallest[i]);
  e.jacobians = options.jacobians;
  e.smallest_singular_value = range_of(spectrum.smallest);
  e.largest_singular_value = range_of(spectrum.largest);
  e.condition = range_of(condition);
  e.log_volume = range_of(spectrum.log_volume);
  if (!std::isfinite(e.log_volume.mean) || d >= e.image.size()) return;
  // The energies and the volumes come from different latents, so the errors of the three means add in squares.
  const SampleMoments data = sample_moments(e.energies[0].energies), fake = sample_moments(e.energies[1].energies),
                      volume = sample_moments(spectrum.log_volume);
  e.lower_bound_on_manifold = lower_bound(data.mean, fake.mean, volume.mean, d);
  e.lower_bound_on_manifold_standard_error =
      std::sqrt(data.standard_error * data.standard_error + fake.standard_error * fake.standard_error +
                volume.standard_error * volume.standard_error);
}

// A classifier of these images, or a gray one that looks at their channels one by one.
Classified classify_channels(const ImageClassifier& classifier, const ImageShape& shape, std::span<const double> images,
                             std::int64_t rows) {
  if (classifier.image() == shape) return classifier.classify(images, rows);
  Classified all;
  all.labels.resize(static_cast<std::size_t>(rows));
  const std::int64_t features = classifier.features(), width = features * shape.channels;
  all.features.resize(static_cast<std::size_t>(rows * width));
  for (std::int64_t c = 0; c < shape.channels; ++c) {
    std::vector<double> gray;
    gray.reserve(static_cast<std::size_t>(rows * shape.pixels()));
    for (std::int64_t i = c; i < rows * shape.size(); i += shape.channels)
      gray.push_back(images[static_cast<std::size_t>(i)]);
    const Classified one = classifier.classify(gray, rows);
    for (std::int64_t i = 0; i < rows; ++i) {
      std::int64_t& label = all.labels[static_cast<std::size_t>(i)];
      label = label * classifier.classes() + one.labels[static_cast<std::size_t>(i)];
      std::copy_n(one.features.begin() + i * features, features, all.features.begin() + i * width + c * features);
    }
  }
  return all;
}

void require_fitting(const ImageClassifier& classifier, const ImageShape& shape) {
  const ImageShape& seen = classifier.image();
  double classes = 1;
  for (std::int64_t c = 0; c < shape.channels; ++c) classes *= static_cast<double>(classifier.classes());
  const bool gray = seen.channels == 1 && seen.height == shape.height && seen.width == shape.width &&
                    classes <= static_cast<double>(kMostClasses);
  require(seen == shape || gray, "the classifier takes " + described(seen) + ", the run has " + described(shape) +
                                     "; train one with 'bracket classifier --data' on images of this size");
}

void add_features(ImageEvaluation& e, const ImageClassifier& classifier, std::span<const double> real,
                  std::span<const double> fake, const ImageEvaluationOptions& options) {
  const std::int64_t rows = static_cast<std::int64_t>(real.size()) / e.image.size();
  const Classified seen_real = classify_channels(classifier, e.image, real, rows);
  const Classified seen_fake = classify_channels(classifier, e.image, fake.first(real.size()), rows);
  const std::int64_t cols = static_cast<std::int64_t>(seen_real.features.size()) / rows;
  e.feature_samples = rows;
  e.feature_frechet =
      feature_frechet(feature_moments(seen_real.features, rows, cols), feature_moments(seen_fake.features, rows, cols));
  PrecisionRecallOptions quality;
  quality.seed = options.seed;
  quality.clusters = std::min(quality.clusters, 2 * rows);
  const PrecisionRecall found = precision_recall(seen_real.features, seen_fake.features, rows, cols, quality);
  e.f8 = found.f_beta;
  e.f1_8 = found.f_inverse_beta;
  const auto all = static_cast<std::int64_t>(fake.size()) / e.image.size();
  const std::vector<std::int64_t> labels =
      all == rows ? seen_fake.labels : classify_channels(classifier, e.image, fake, all).labels;
  const bool per_channel = classifier.image() != e.image;
  e.classes = classifier.classes();
  for (std::int64_t c = 1; per_channel && c < e.image.channels; ++c) *e.classes *= classifier.classes();
  const ClassCoverage coverage = class_coverage(labels, *e.classes);
  e.modes = coverage.modes;
  e.kl = coverage.kl;
}

}  // namespace

ImageEvaluation evaluate_images(Trainer& trainer, const Dataset& test, const std::vector<Dataset>& others,
                                const ImageClassifier* classifier, const ImageEvaluationOptions& options) {
  check(trainer, test, others, options);
  if (classifier != nullptr) require_fitting(*classifier, test.image());
  const Network& generator = trainer.generator_network();
  ImageEvaluation e;
  e.step = trainer.step();
  e.data = test.name();
  e.weights = options.weights;
  e.image = test.image();
  e.latent_dimension = generator.input_size();
  e.test_images_are_training_rows = options.test_images_are_training_rows;

  const std::int64_t rows = std::min(options.samples, test.rows());
  const std::vector<double> real = test.sample(rows, options.seed);
  const std::vector<double> z =
      normal_values({options.seed, RandomStream::evaluation, kLatentStep}, options.samples * e.latent_dimension);
  const std::vector<double> fake =
      network_outputs(trainer.context(), generator, trainer.generator_parameters(options.weights), z, options.samples);

  const auto add = [&](const std::string& name, const std::vector<double>& images) {
    e.energies.push_back(energy_set(trainer, name, images, options.weights));
    if (e.energies.size() > 1) e.energies.back().auroc = auroc(scores(e.energies[0]), scores(e.energies.back()));
  };
  add("data", real);
  add("samples", fake);
  add("noise", noise_images(e.image, rows, options.seed));
  add("constants", constant_images(e.image, rows, options.seed));
  add("interpolations", averaged_pairs(real, rows, e.image.size(), options.seed));
  for (const Dataset& other : others)
    add(other.name(), other.sample(std::min(options.samples, other.rows()), options.seed));
  add_jacobians(e, trainer, options);
  if (classifier != nullptr) add_features(e, *classifier, real, fake, options);
  return e;
}

Image energy_histogram(const ImageEvaluation& evaluation) {
  HistogramChart chart{"Energies at step " + std::to_string(evaluation.step), "E(x) in nats", {}};
  for (const EnergySet& set : evaluation.energies) chart.samples.push_back({set.name, set.energies});
  return histogram_chart(chart);
}

}  // namespace bracket
