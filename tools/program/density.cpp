// bracket density: data, samples, density and log-density in one picture.
#include <memory>

#include "host/files/atomic_file.h"
#include "host/run/run_pictures.h"
#include "tools/program/command_line.h"
#include "tools/program/model.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

struct DensityOptions {
  ModelOptions model;
  std::string output;
  DensityPictureOptions picture;
};

int density(DensityOptions options) {
  static constexpr const char* kEndings[] = {".png"};
  require_ending(options.output, kEndings);
  Model model = load_model(options.model, DataUse::required);
  options.picture.weights = options.model.chosen_weights();
  write_file_atomically(options.output, encode_png(density_picture(*model.trainer, model.data, options.picture)));
  print("wrote " + options.output + "\n");
  return 0;
}

}  // namespace

void add_density(CLI::App& program, Action& action) {
  auto options = std::make_shared<DensityOptions>();
  CLI::App* command = program.add_subcommand("density", "Picture of the learnt density beside data and samples (2-D)");
  add_model_options(*command, options->model, DataUse::required);
  command->add_option("-o,--output", options->output, "The picture, a .png file")->required();
  command->add_option("--points", options->picture.points, "Points of the data and of the samples")
      ->check(whole_number(0, 1000000))
      ->capture_default_str();
  command->add_option("--cells", options->picture.cells, "Cells of the density on each side")
      ->check(whole_number(1, 4000))
      ->capture_default_str();
  command->callback([options, &action] { action = [options] { return density(*options); }; });
}

}  // namespace bracket
