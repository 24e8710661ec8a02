// bracket energy: energies of points from a file.
#include <array>
#include <memory>

#include "bracket/error.h"
#include "host/files/atomic_file.h"
#include "host/files/in_quotes.h"
#include "host/files/npy.h"
#include "host/files/table.h"
#include "tools/program/command_line.h"
#include "tools/program/model.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

struct EnergyOptions {
  ModelOptions model;
  std::string points;
  std::string output;
};

int energy(const EnergyOptions& options) {
  static constexpr const char* kEndings[] = {".npy"};
  require_ending(options.output, kEndings);
  Model model = load_model(options.model, DataUse::none);
  const Table points = read_table(options.points);
  if (points.cols != model.description.data_cols) {
    throw DataError(path_in_quotes(options.points) + " has " + std::to_string(points.cols) +
                    " columns, the model takes " + std::to_string(model.description.data_cols));
  }
  const std::vector<double> energies =
      model.trainer->energies(points.values, points.rows, options.model.chosen_weights());
  write_file_atomically(options.output, serialize_npy(energies, std::array{points.rows}));
  print("wrote " + options.output + ": energies of " + std::to_string(points.rows) + " points in nats\n");
  return 0;
}

}  // namespace

void add_energy(CLI::App& program, Action& action) {
  auto options = std::make_shared<EnergyOptions>();
  CLI::App* command = program.add_subcommand("energy", "Energies of given points, in raw data coordinates");
  add_model_options(*command, options->model, DataUse::none);
  command->add_option("--points", options->points, "Points, a .npy or .csv file of shape (N, D)")->required();
  command->add_option("-o,--output", options->output, "Energies in nats, a .npy file of shape (N)")->required();
  command->callback([options, &action] { action = [options] { return energy(*options); }; });
}

}  // namespace bracket
