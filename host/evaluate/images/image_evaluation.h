// Evaluation of a pair trained on images: how the energy ranks images, how the samples compare with data in a
// classifier's eyes, the generator's Jacobian, and the lower bound on its image. Energies and bounds in nats per image.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bracket/dataset.h"
#include "bracket/trainer.h"
#include "host/evaluate/images/image_classifier.h"
#include "host/picture/image.h"

namespace bracket {

struct ImageEvaluationOptions {
  std::int64_t samples = 10000;  ///< images of each kind; a data set serves each of its images at most once
  std::int64_t jacobians = 64;   ///< latents whose Jacobian is decomposed: d tangents each
  std::uint64_t seed = 0;
  Weights weights = Weights::average;
  bool test_images_are_training_rows = false;  ///< for the report: no other images are at hand
};

/// Energies of one kind of images. auroc: the probability that -E of held-out data exceeds -E of these, ties counting
/// one half; none for the data itself.
struct EnergySet {
  std::string name;
  std::vector<double> energies;
  double mean = 0;
  double deviation = 0;
  std::optional<double> auroc;
};

/// Smallest, mean and largest over the latents.
struct ValueRange {
  double minimum = 0;
  double mean = 0;
  double maximum = 0;
};

struct ImageEvaluation {
  std::int64_t step = 0;
  std::string data;
  Weights weights = Weights::average;
  ImageShape image;
  std::int64_t latent_dimension = 0;  ///< d
  bool test_images_are_training_rows = false;

  /// "data", "samples", "noise", "constants", "interpolations" (averages of pairs of data), then the other data sets.
  std::vector<EnergySet> energies;

  std::int64_t jacobians = 0;
  ValueRange smallest_singular_value, largest_singular_value, condition, log_volume;
  /// mean E(data) - mean E(G(z)) + d/2 log(2 pi e) + mean h, for D > d: bounds the likelihood on the image of G and not
  /// that in D dimensions, so it is not to be ordered against a likelihood. Absent where a Jacobian is singular.
  std::optional<double> lower_bound_on_manifold;
  std::optional<double> lower_bound_on_manifold_standard_error;

  // In the features of a classifier trained by this library, where one was given.
  std::optional<std::int64_t> feature_samples;  ///< of data and of samples each
  std::optional<double> feature_frechet;
  std::optional<double> f8;
  std::optional<double> f1_8;
  std::optional<std::int64_t> classes;  ///< of a gray classifier on images of k channels: all k-tuples
  std::optional<std::int64_t> modes;
  std::optional<double> kl;
};

/// `test`: held-out images; `others`: sets the energy should give higher energies. Waits. Throws InvalidArgument for an
/// image set of another shape, fewer than 2 samples or images, fewer than 2 Jacobians, or a classifier of another
/// shape; Diverged for energies that are not finite.
ImageEvaluation evaluate_images(Trainer& trainer, const Dataset& test, const std::vector<Dataset>& others,
                                const ImageClassifier* classifier, const ImageEvaluationOptions& options = {});

/// One object with the members above as keys, energies by name without the single values; null for what is unknown.
std::string to_json(const ImageEvaluation& evaluation);

/// A few lines for people.
std::string summary(const ImageEvaluation& evaluation);

/// Outlines of the energies of all sets.
Image energy_histogram(const ImageEvaluation& evaluation);

}  // namespace bracket
