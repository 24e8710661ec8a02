// bracket audit: whether what a run says of itself is true.
#include "host/evaluate/audit/audit.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>

#include "bracket/error.h"
#include "host/data/data_file.h"
#include "host/files/atomic_file.h"
#include "host/files/in_quotes.h"
#include "tools/program/command_line.h"
#include "tools/program/model.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

constexpr int kFindings = 8;  // the exit code of --strict where a check failed

struct AuditRequest {
  ModelOptions model;
  AuditOptions audit;
  std::string temperatures = "auto";
  std::string pictures;
  std::string test;
  bool json = false;
  bool strict = false;
};

// The run that holds a checkpoint; a run folder is its own.
fs::path run_folder(const Model& model) {
  return fs::absolute(model.checkpoint).lexically_normal().parent_path().parent_path();
}

void draw(const Model& model, const Audit& audit, const AuditRequest& request) {
  const fs::path run = run_folder(model);
  const fs::path folder = request.pictures.empty() ? run / "audit" : fs::path(request.pictures);
  create_folders(folder);
  std::error_code error;
  if (fs::exists(run / "metrics.jsonl", error))
    write_file_atomically(folder / "bounds.png", encode_png(bounds_picture(run / "metrics.jsonl", audit)));
  else
    warn("no bounds.png: " + (run / "metrics.jsonl").string() + " is not there");
  if (audit.spectrum) write_file_atomically(folder / "spectrum.png", encode_png(spectrum_picture(audit)));
  if (!request.json) print("Pictures in " + folder.string() + "\n");
}

int run_audit(const AuditRequest& request) {
  Model model = load_model(request.model, DataUse::required);
  if (model.data.is_images())
    throw InvalidArgument("audit is for runs on rows of numbers; this one was trained on images, " +
                          model.description.data + ": see 'bracket eval'");
  AuditOptions options = request.audit;
  options.weights = request.model.chosen_weights();
  options.temperatures = request.temperatures == "auto" ? 0 : std::stoll(request.temperatures);
  std::optional<Dataset> held_out;
  if (!request.test.empty()) {
    if (!is_data_file(request.test))
      throw InvalidArgument("--test wants a .npy or .csv file, got " + text_in_quotes(request.test));
    held_out = Dataset::open(request.test);
    options.held_out = &*held_out;
  }
  const Audit result = audit(*model.trainer, model.data, options);
  print(request.json ? to_json(result) + "\n" : summary(result));
  draw(model, result, request);
  const int lost = finish_output();
  if (lost != 0) return lost;
  return request.strict && !result.trustworthy ? kFindings : 0;
}

}  // namespace

void add_audit(CLI::App& program, Action& action) {
  auto options = std::make_shared<AuditRequest>();
  CLI::App* command = program.add_subcommand(
      "audit",
      "Whether a run's figures are true: intervals of L by annealing, mass where the generator never goes, folds");
  add_model_options(*command, options->model, DataUse::required);
  command->add_flag("--json", options->json, "Print one JSON object; null: not known for this run");
  command->add_flag("--strict", options->strict, "End with exit code 8 where a check fails");
  command
      ->add_option(
          "--test", options->test,
          "Held-out rows, a .npy or .csv file of the columns of the data; default: fresh samples of a density, "
          "the training rows of a table")
      ->check(not_empty());
  command->add_option("--samples", options->audit.samples, "Test points and latents")
      ->check(whole_number(2, std::uint64_t{1} << 32))
      ->capture_default_str();
  command->add_option("--chains", options->audit.chains, "Chains of annealed importance sampling, each way")
      ->check(whole_number(2, std::uint64_t{1} << 22))
      ->capture_default_str();
  command->add_option("--temperatures", options->temperatures, "Temperatures of annealing; auto: as many as it takes")
      ->check(CLI::IsMember({"auto"}) | whole_number(1, 10000))
      ->capture_default_str();
  command->add_option("--confidence", options->audit.confidence, "Of the intervals of log Z and L")
      ->check(CLI::Range(0.5, 0.9999))
      ->capture_default_str();
  command->add_option("--seed", options->audit.seed, "Seed of everything random")
      ->check(whole_number(0, kLargestSeed))
      ->capture_default_str();
  command->add_option("--pictures", options->pictures, "Folder for bounds.png and spectrum.png; default: RUN/audit")
      ->check(not_empty());
  command->callback([options, &action] { action = [options] { return run_audit(*options); }; });
}

}  // namespace bracket
