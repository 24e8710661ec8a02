// The part of bracket eval for runs on images.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/program/model.h"

namespace bracket {

/// What only runs on images take.
struct ImageEvalOptions {
  std::string classifier;               ///< file of `bracket classifier`; empty: no figures in its features
  std::vector<std::string> others;      ///< names of sets the energy should tell from the run's data
  std::optional<std::string> pictures;  ///< folder
  std::optional<std::int64_t> jacobians;
  bool any() const { return !classifier.empty() || !others.empty() || pictures || jacobians; }
};

struct EvalRequest {
  ModelOptions model;
  ImageEvalOptions images;
  std::optional<std::int64_t> samples;
  std::string test;  ///< file of held-out rows, of runs on points
  std::uint64_t seed = 0;
  bool json = false;
};

void add_image_eval_options(CLI::App& command, ImageEvalOptions& options);

/// The text to print.
std::string evaluate_image_run(Model& model, const EvalRequest& request);

}  // namespace bracket
