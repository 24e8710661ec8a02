// How an evaluation on images is written down: as JSON for programs, as lines for people.
#include <cmath>

#include "host/core/text.h"
#include "host/evaluate/images/image_evaluation.h"
#include "host/evaluate/json_value.h"
#include "host/network/layer.h"

namespace bracket {
namespace {

Json json_of(const ValueRange& range) {  // infinities, which JSON does not know, become null
  return {{"minimum", range.minimum}, {"mean", range.mean}, {"maximum", range.maximum}};
}

std::string range_text(const ValueRange& range) {
  return rounded_number(range.minimum, 4) + " to " + rounded_number(range.maximum, 4) + ", mean " +
         rounded_number(range.mean, 4);
}

std::string energy_line(const EnergySet& set) {
  std::string line = formatted("  %-20.20s %12s  sd %-10s", set.name.c_str(), fixed_number(set.mean, 3).c_str(),
                               rounded_number(set.deviation, 4).c_str());
  if (set.auroc) line += " AUROC " + fixed_number(*set.auroc, 4);
  return line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
}

std::string feature_lines(const ImageEvaluation& e) {
  if (!e.feature_frechet) return "Sample quality: unknown, needs --classifier\n";
  return "In the classifier's features, " + std::to_string(*e.feature_samples) + " images each: feature_frechet " +
         rounded_number(*e.feature_frechet, 4) + ", F8 " + fixed_number(*e.f8, 4) + ", F1/8 " +
         fixed_number(*e.f1_8, 4) + "\nModes: " + std::to_string(*e.modes) + " of " + std::to_string(*e.classes) +
         " classes, KL from even shares " + fixed_number(*e.kl, 4) + " nats\n";
}

}  // namespace

std::string to_json(const ImageEvaluation& e) {
  Json energies = Json::object();
  for (const EnergySet& set : e.energies)
    energies[set.name] = {{"images", set.energies.size()},
                          {"mean", set.mean},
                          {"deviation", set.deviation},
                          {"auroc", or_null(set.auroc)}};
  const Json json = {
      {"step", e.step},
      {"data", e.data},
      {"weights", e.weights == Weights::average ? "ema" : "raw"},
      {"image", {{"channels", e.image.channels}, {"height", e.image.height}, {"width", e.image.width}}},
      {"latent_dimension", e.latent_dimension},
      {"test_images_are_training_rows", e.test_images_are_training_rows},
      {"energy_data", e.energies.front().mean},
      {"energies", std::move(energies)},
      {"jacobians", e.jacobians},
      {"smallest_singular_value", json_of(e.smallest_singular_value)},
      {"largest_singular_value", json_of(e.largest_singular_value)},
      {"condition", json_of(e.condition)},
      {"log_volume", json_of(e.log_volume)},
      {"lower_bound_on_manifold", or_null(e.lower_bound_on_manifold)},
      {"lower_bound_on_manifold_standard_error", or_null(e.lower_bound_on_manifold_standard_error)},
      {"feature_samples", or_null(e.feature_samples)},
      {"feature_frechet", or_null(e.feature_frechet)},
      {"f8", or_null(e.f8)},
      {"f1_8", or_null(e.f1_8)},
      {"classes", or_null(e.classes)},
      {"modes", or_null(e.modes)},
      {"kl", or_null(e.kl)},
  };
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string summary(const ImageEvaluation& e) {
  std::string text = "Evaluation on " + e.data + " (" + described(e.image) + ") at step " + std::to_string(e.step) +
                     ", " + (e.weights == Weights::average ? "averaged" : "raw") + " weights\nEnergies of " +
                     (e.test_images_are_training_rows ? "training images" : "held-out images") +
                     " and others, nats: mean, standard deviation; AUROC of -E between data and each:\n";
  for (const EnergySet& set : e.energies) text += energy_line(set);
  text += "Jacobian of G at " + std::to_string(e.jacobians) + " latents: smallest singular value " +
          range_text(e.smallest_singular_value) + "; largest " + range_text(e.largest_singular_value) + "; condition " +
          range_text(e.condition) + "; log-volume " + range_text(e.log_volume) + "\n";
  if (e.lower_bound_on_manifold)
    text += "Lower bound on manifold: " + fixed_number(*e.lower_bound_on_manifold, 2) + " +- " +
            fixed_number(*e.lower_bound_on_manifold_standard_error, 2) + " nats, of the likelihood on the " +
            std::to_string(e.latent_dimension) + "-dimensional image of G; not comparable with a likelihood in " +
            std::to_string(e.image.size()) + " dimensions\n";
  else
    text += e.latent_dimension < e.image.size()
                ? "Lower bound on manifold: unknown, the Jacobian is singular at some latents\n"
                : "Lower bound on manifold: none, the latent space has as many dimensions as an image\n";
  return text + feature_lines(e);
}

}  // namespace bracket
