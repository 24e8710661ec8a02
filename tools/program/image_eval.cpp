#include "tools/program/image_eval.h"

#include <algorithm>
#include <memory>

#include "bracket/error.h"
#include "host/evaluate/images/image_evaluation.h"
#include "host/files/atomic_file.h"
#include "host/files/in_quotes.h"
#include "host/files/posix_file.h"
#include "host/run/image_pictures.h"
#include "tools/program/command_line.h"
#include "tools/program/data_options.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

struct HeldOut {
  Dataset images;
  bool training_rows = false;
};

// The test split of the run's data, or its training images where there is none: a file of images serves as both.
HeldOut held_out_images(const Model& model, const ModelOptions& options) {
  try {
    Dataset test = open_run_data(model.description, options.data, options.data_dir, Split::test);
    const bool same = std::ranges::equal(test.pixels(), model.data.pixels());
    return {std::move(test), same};
  } catch (const AbsentSplit& error) {
    warn(std::string(error.what()) + "; the training images stand in for held-out ones");
    return {model.data, true};
  }
}

// A set's test images, or its training images where it has no others.
Dataset open_other(const std::string& name, const fs::path& folder) {
  try {
    return Dataset::open(name, {.data_dir = folder, .split = Split::test});
  } catch (const AbsentSplit& error) {
    warn(std::string(error.what()) + "; its training images are taken");
    return Dataset::open(name, {.data_dir = folder, .split = Split::train});
  }
}

void write_pictures(Model& model, const ImageEvaluation& evaluation, const EvalRequest& request) {
  const fs::path folder = *request.images.pictures;
  create_folders(folder);
  const auto write = [&](const char* name, const Image& picture) {
    write_file_atomically(folder / name, encode_png(picture));
  };
  write("energies.png", energy_histogram(evaluation));
  if (evaluation.image.channels != 1 && evaluation.image.channels != 3) {
    warn("images of " + std::to_string(evaluation.image.channels) +
         " channels cannot be drawn, so there is no picture of neighbours or paths");
    return;
  }
  ImagePictureOptions options;
  options.seed = request.seed;
  options.weights = evaluation.weights;
  options.columns = std::min(options.columns, model.data.rows() + 1);
  write("neighbours.png", neighbour_picture(*model.trainer, model.data, options));
  options.columns = ImagePictureOptions().columns;
  write("interpolations.png", interpolation_picture(*model.trainer, evaluation.image, options));
}

}  // namespace

void add_image_eval_options(CLI::App& command, ImageEvalOptions& options) {
  command
      .add_option("--classifier", options.classifier,
                  "Images: a file of 'bracket classifier', for feature_frechet, F8, F1/8, modes and KL")
      ->check(not_empty());
  command
      .add_option("--ood", options.others,
                  "Images: another set the energy should tell from the run's data; can be given more than once")
      ->check(not_empty());
  command
      .add_option("--pictures", options.pictures,
                  "Images: folder for energies.png, neighbours.png and interpolations.png")
      ->check(not_empty());
  command.add_option("--jacobians", options.jacobians, "Images: latents whose Jacobian is decomposed; default: 64")
      ->check(whole_number(2, std::uint64_t{1} << 32));
}

std::string evaluate_image_run(Model& model, const EvalRequest& request) {
  const HeldOut test = held_out_images(model, request.model);
  // Where the run's own data was found, if it is a named set: others lie beside it.
  const fs::path& beside = model.data.options().data_dir;
  const fs::path folder = beside.empty() ? data_folder(request.model.data_dir) : beside;
  std::vector<Dataset> others;
  for (const std::string& name : request.images.others) others.push_back(open_other(name, folder));
  std::optional<ImageClassifier> classifier;
  if (!request.images.classifier.empty()) classifier = ImageClassifier::load(*model.context, request.images.classifier);

  ImageEvaluationOptions options;
  options.samples = request.samples.value_or(options.samples);
  options.jacobians = request.images.jacobians.value_or(options.jacobians);
  options.seed = request.seed;
  options.weights = request.model.chosen_weights();
  options.test_images_are_training_rows = test.training_rows;
  const ImageEvaluation evaluation =
      evaluate_images(*model.trainer, test.images, others, classifier ? &*classifier : nullptr, options);
  if (request.images.pictures) write_pictures(model, evaluation, request);
  return request.json ? to_json(evaluation) : summary(evaluation);
}

}  // namespace bracket
