// bracket sample: points from the generator.
#include <array>
#include <memory>
#include <optional>

#include "bracket/error.h"
#include "host/files/atomic_file.h"
#include "host/files/npy.h"
#include "host/run/run_pictures.h"
#include "tools/program/command_line.h"
#include "tools/program/model.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

struct SampleOptions {
  ModelOptions model;
  std::int64_t count = 64;
  std::optional<std::uint64_t> seed;
  std::string output;
};

std::vector<std::byte> png_of(const std::vector<double>& rows, std::int64_t count, const RunDescription& run) {
  if (const auto side = image_side(run.data_cols)) {
    return encode_png(sample_picture(rows, count, *side, run.data_minimum, run.data_maximum));
  }
  if (run.data_cols == 2) return encode_png(scatter_picture(rows, count, "samples"));
  throw InvalidArgument("rows of " + std::to_string(run.data_cols) +
                        " values are neither points in the plane nor square images; write a .npy file");
}

std::vector<std::byte> npy_of(const std::vector<double>& rows, std::int64_t count, const RunDescription& run) {
  const std::array shape = {count, run.data_cols};
  if (run.settings.trainer.dtype == DType::f64) return serialize_npy(rows, shape);
  return serialize_npy(std::vector<float>(rows.begin(), rows.end()), shape);
}

int sample(const SampleOptions& options) {
  static constexpr const char* kEndings[] = {".npy", ".png"};
  const std::string ending = require_ending(options.output, kEndings);
  Model model = load_model(options.model, DataUse::none);
  const std::uint64_t seed = options.seed.value_or(model.trainer->config().seed);
  const std::vector<double> rows = model.trainer->samples(options.count, seed, options.model.chosen_weights());
  const auto& encode = ending == ".png" ? png_of : npy_of;
  write_file_atomically(options.output, encode(rows, options.count, model.description));
  print("wrote " + options.output + ": " + std::to_string(options.count) + " samples\n");
  return 0;
}

}  // namespace

void add_sample(CLI::App& program, Action& action) {
  auto options = std::make_shared<SampleOptions>();
  CLI::App* command = program.add_subcommand("sample", "Samples of a run's generator, in raw data coordinates");
  add_model_options(*command, options->model, DataUse::none);
  command->add_option("-n,--count", options->count, "How many")
      ->check(whole_number(1, std::uint64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the latents; default: that of the run")
      ->check(whole_number(0, kLargestSeed));
  command
      ->add_option("-o,--output", options->output,
                   "A .npy file of shape (N, D), or a .png: points in the plane, or rows that are square images")
      ->required();
  command->callback([options, &action] { action = [options] { return sample(*options); }; });
}

}  // namespace bracket
