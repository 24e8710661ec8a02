// bracket eval: the exact likelihood beside the bounds.
#include <memory>

#include "host/evaluate/evaluate.h"
#include "tools/program/command_line.h"
#include "tools/program/model.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

struct EvalOptions {
  ModelOptions model;
  bool json = false;
  EvaluationOptions evaluation;
};

int eval(EvalOptions options) {
  Model model = load_model(options.model, DataUse::required);
  options.evaluation.weights = options.model.chosen_weights();
  const Evaluation evaluation = evaluate(*model.trainer, model.data, options.evaluation);
  std::string text = options.json ? to_json(evaluation) : summary(evaluation);
  if (!text.ends_with('\n')) text += '\n';
  print(text);
  return 0;
}

}  // namespace

void add_eval(CLI::App& program, Action& action) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command =
      program.add_subcommand("eval", "Exact likelihood, bounds, calibration and mode coverage of a run");
  add_model_options(*command, options->model, DataUse::required);
  command->add_flag("--json", options->json, "Print one JSON object; null: not known for this run");
  command->add_option("--samples", options->evaluation.samples, "Test points and latents")
      ->check(whole_number(2, std::uint64_t{1} << 32))
      ->capture_default_str();
  command->add_option("--seed", options->evaluation.seed, "Seed of the test points and latents")
      ->check(whole_number(0, kLargestSeed))
      ->capture_default_str();
  command->callback([options, &action] { action = [options] { return eval(*options); }; });
}

}  // namespace bracket
