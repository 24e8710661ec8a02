// bracket eval: the exact likelihood beside the bounds; of a run on images, how it ranks and makes images.
#include <memory>
#include <optional>

#include "bracket/error.h"
#include "host/data/data_file.h"
#include "host/evaluate/evaluate.h"
#include "host/files/in_quotes.h"
#include "tools/program/command_line.h"
#include "tools/program/image_eval.h"
#include "tools/program/model.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

std::string evaluation_text(Model& model, const EvalRequest& request) {
  if (model.data.is_images() && !request.test.empty())
    throw InvalidArgument("--test is for runs on points; runs on images are evaluated on their test split");
  if (model.data.is_images()) return evaluate_image_run(model, request);
  if (request.images.any())
    throw InvalidArgument(
        "--classifier, --ood, --pictures and --jacobians are for runs on images; this one was trained on " +
        model.description.data);
  EvaluationOptions options;
  options.samples = request.samples.value_or(options.samples);
  options.seed = request.seed;
  options.weights = request.model.chosen_weights();
  std::optional<Dataset> held_out;
  if (!request.test.empty()) {
    if (!is_data_file(request.test))
      throw InvalidArgument("--test wants a .npy or .csv file, got " + text_in_quotes(request.test));
    held_out = Dataset::open(request.test);
    options.held_out = &*held_out;
  }
  const Evaluation evaluation = evaluate(*model.trainer, model.data, options);
  return request.json ? to_json(evaluation) : summary(evaluation);
}

int eval(const EvalRequest& request) {
  Model model = load_model(request.model, DataUse::required);
  std::string text = evaluation_text(model, request);
  if (!text.ends_with('\n')) text += '\n';
  print(text);
  return 0;
}

}  // namespace

void add_eval(CLI::App& program, Action& action) {
  auto options = std::make_shared<EvalRequest>();
  CLI::App* command = program.add_subcommand(
      "eval",
      "Exact likelihood, bounds, calibration and mode coverage of a run; of images, detection and sample quality");
  add_model_options(*command, options->model, DataUse::required);
  command->add_flag("--json", options->json, "Print one JSON object; null: not known for this run");
  command
      ->add_option("--test", options->test,
                   "Held-out rows, a .npy or .csv file of the columns of the data; default: fresh samples of a density, "
                   "the training rows of a table")
      ->check(not_empty());
  command->add_option("--samples", options->samples, "Test points and latents; default: 20000, of images 10000")
      ->check(whole_number(2, std::uint64_t{1} << 32));
  command->add_option("--seed", options->seed, "Seed of the test points and latents")
      ->check(whole_number(0, kLargestSeed))
      ->capture_default_str();
  add_image_eval_options(*command, options->images);
  command->callback([options, &action] { action = [options] { return eval(*options); }; });
}

}  // namespace bracket
