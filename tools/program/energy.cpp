// bracket energy: energies of points from a file.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <span>

#include "bracket/error.h"
#include "host/data/data_file.h"
#include "host/evaluate/images/image_classifier.h"
#include "host/files/atomic_file.h"
#include "host/files/in_quotes.h"
#include "host/files/npy.h"
#include "host/files/table.h"
#include "host/network/layer.h"
#include "tools/program/command_line.h"
#include "tools/program/data_options.h"
#include "tools/program/model.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

struct EnergyOptions {
  ModelOptions model;
  std::string points;
  std::string output;
  std::string data_dir;
};

/// Pixels take a byte each, the numbers that a network sees eight.
constexpr std::int64_t kImagesAtOnce = 4096;

std::vector<double> energies_of_rows(Model& model, const EnergyOptions& options, std::span<const double> values,
                                     std::int64_t rows, std::int64_t cols) {
  if (cols != model.description.data_cols) {
    throw DataError(path_in_quotes(options.points) + " has " + std::to_string(cols) + " columns, the model takes " +
                    std::to_string(model.description.data_cols));
  }
  return model.trainer->energies(values, rows, options.model.chosen_weights());
}

std::vector<double> energies_of_images(Model& model, const EnergyOptions& options, const Dataset& images) {
  const ImageShape& found = images.image();
  const ImageShape& wanted = *model.description.image;
  if (found != wanted)
    throw DataError(path_in_quotes(options.points) + " holds images of " + described(found) + ", the model takes " +
                    described(wanted));
  std::vector<double> energies;
  for (std::int64_t first = 0; first < images.rows(); first += kImagesAtOnce) {
    const std::int64_t count = std::min(kImagesAtOnce, images.rows() - first);
    const std::vector<double> part =
        model.trainer->energies(image_values(images, first, count), count, options.model.chosen_weights());
    energies.insert(energies.end(), part.begin(), part.end());
  }
  return energies;
}

std::vector<double> energies_of(Model& model, const EnergyOptions& options) {
  // A file of any name is a table where a model takes no images.
  if (!model.description.image) {
    const Table points = read_table(options.points);
    return energies_of_rows(model, options, points.values, points.rows, points.cols);
  }
  DatasetOptions data_options;
  data_options.data_dir = data_folder(options.data_dir);
  const Dataset data = Dataset::open(options.points, data_options);
  if (data.is_images()) return energies_of_images(model, options, data);
  if (data.is_density())
    throw InvalidArgument("--points " + options.points + " names a density; give a file of points");
  return energies_of_rows(model, options, data.values(), data.rows(), data.cols());
}

/// What is not finite is no energy: of a point too large for the model's precision, or of weights that are not finite.
void require_finite(Model& model, const EnergyOptions& options, const std::vector<double>& energies) {
  const auto bad = std::find_if_not(energies.begin(), energies.end(), [](double e) { return std::isfinite(e); });
  if (bad == energies.end()) return;
  const std::string what = "the energy of row " + std::to_string(bad - energies.begin()) + " (counted from 0) of " +
                           path_in_quotes(options.points) + " is not finite";
  const std::vector<double> origin(static_cast<std::size_t>(model.description.data_cols), 0.0);
  if (std::isfinite(model.trainer->energies(origin, 1, options.model.chosen_weights()).front()))
    throw DataError(what + ": it lies outside what the model's precision holds");
  throw Diverged(what + ", nor is that of zeros: use an earlier checkpoint", "energy", 0);
}

int energy(const EnergyOptions& options) {
  static constexpr const char* kEndings[] = {".npy"};
  require_ending(options.output, kEndings);
  Model model = load_model(options.model, DataUse::none);
  const std::vector<double> energies = energies_of(model, options);
  require_finite(model, options, energies);
  const auto count = static_cast<std::int64_t>(energies.size());
  write_file_atomically(options.output, serialize_npy(energies, std::array{count}));
  print("wrote " + options.output + ": energies of " + std::to_string(count) +
        (model.description.image ? " images" : " points") + " in nats\n");
  return 0;
}

}  // namespace

void add_energy(CLI::App& program, Action& action) {
  auto options = std::make_shared<EnergyOptions>();
  CLI::App* command = program.add_subcommand("energy", "Energies of given points, in raw data coordinates");
  add_model_options(*command, options->model, DataUse::none);
  command
      ->add_option("--points", options->points,
                   "Points, a .npy or .csv file of shape (N, D); for a run on images also a "
                   "file or folder of images as for train --data")
      ->required();
  add_data_dir(*command, options->data_dir);
  command->add_option("-o,--output", options->output, "Energies in nats, a .npy file of shape (N)")->required();
  command->callback([options, &action] { action = [options] { return energy(*options); }; });
}

}  // namespace bracket
