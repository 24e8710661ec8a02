// bracket sample: points or images from the generator.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <system_error>

#include "bracket/error.h"
#include "bracket/sampler.h"
#include "host/data/pixel_values.h"
#include "host/files/atomic_file.h"
#include "host/files/in_quotes.h"
#include "host/files/npy.h"
#include "host/files/pixel_file.h"
#include "host/files/posix_file.h"
#include "host/files/zip.h"
#include "host/run/run_pictures.h"
#include "host/training/inference.h"
#include "tools/program/command_line.h"
#include "tools/program/model.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

// What is held as doubles at a time, before it becomes pixels: whole blocks of chains, so that refined samples do not
// depend on it.
constexpr std::int64_t kChunkRows = 8 * kChainsPerBlock;
constexpr std::int64_t kMostValues = std::int64_t{1} << 40;
constexpr std::size_t kNameDigits = 6;
constexpr std::int64_t kLargestZip = std::int64_t{1} << 32;

struct SampleOptions {
  ModelOptions model;
  std::int64_t count = 64;
  std::optional<std::uint64_t> seed;
  std::string output;
  std::string format;
  std::int64_t refine = 0;
  std::string refine_space = "data";

  std::uint64_t seed_of(const Model& model_of_run) const { return seed.value_or(model_of_run.trainer->config().seed); }
};

// Samples [first, first + latents / d) from their latents.
std::vector<double> samples_of(Model& model, const SampleOptions& options, std::span<const double> latents,
                               std::int64_t first) {
  Trainer& trainer = *model.trainer;
  const Network& generator = trainer.generator_network();
  const Weights weights = options.model.chosen_weights();
  const auto count = static_cast<std::int64_t>(latents.size()) / generator.input_size();
  const auto images = [&](std::span<const double> z) {
    return network_outputs(trainer.context(), generator, trainer.generator_parameters(weights), z, count);
  };
  if (options.refine == 0) return images(latents);
  const bool latent_space = options.refine_space == "latent";
  SamplerTarget target{trainer.energy_network(), trainer.energy_parameters(weights)};
  if (latent_space) {
    target.generator = &generator;
    target.generator_parameters = trainer.generator_parameters(weights);
  }
  MalaOptions mala;
  mala.steps = options.refine;
  mala.adaptation_steps = options.refine / 2;
  mala.seed = options.seed_of(model);
  mala.first_chain = first;
  if (latent_space) return images(sample_mala(trainer.context(), target, latents, count, mala).states);
  return sample_mala(trainer.context(), target, images(latents), count, mala).states;
}

void require_finite(std::span<const double> values, std::int64_t cols, std::int64_t first) {
  const auto bad = std::find_if_not(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
  if (bad == values.end()) return;
  const std::int64_t index = bad - values.begin();
  throw Diverged("value " + std::to_string(index % cols) + " of sample " + std::to_string(first + index / cols) +
                     " (counted from 0) is not finite; use an earlier checkpoint",
                 "samples", 0);
}

// Calls take(first, values) for chunks of samples in order, all finite. The latents are those of Trainer::samples.
void for_each_chunk(Model& model, const SampleOptions& options,
                    const std::function<void(std::int64_t, std::span<const double>)>& take) {
  const Network& generator = model.trainer->generator_network();
  const std::int64_t d = generator.input_size(), cols = generator.output_size();
  if (options.count > kMostValues / cols) {
    throw InvalidArgument("--count " + std::to_string(options.count) + " samples of " + std::to_string(cols) +
                          " values are too many; give at most " + std::to_string(kMostValues / cols));
  }
  const std::vector<double> z = normal_values({options.seed_of(model), RandomStream::sampling, 0}, options.count * d);
  for (std::int64_t first = 0; first < options.count; first += kChunkRows) {
    const std::int64_t count = std::min(kChunkRows, options.count - first);
    const std::vector<double> values = samples_of(
        model, options, std::span(z).subspan(static_cast<std::size_t>(first * d), static_cast<std::size_t>(count * d)),
        first);
    require_finite(values, cols, first);
    take(first, values);
  }
}

std::vector<double> all_samples(Model& model, const SampleOptions& options) {
  std::vector<double> rows;
  for_each_chunk(model, options, [&](std::int64_t /*first*/, std::span<const double> chunk) {
    rows.insert(rows.end(), chunk.begin(), chunk.end());
  });
  return rows;
}

void for_each_pixels(Model& model, const SampleOptions& options,
                     const std::function<void(std::int64_t, std::span<const std::uint8_t>)>& take) {
  for_each_chunk(model, options, [&](std::int64_t first, std::span<const double> values) {
    take(first, pixels_of_values(values, model.description.data_cols, first));
  });
}

void write_rows(Model& model, const SampleOptions& options) {
  const std::vector<double> rows = all_samples(model, options);
  const std::array shape = {options.count, model.description.data_cols};
  const bool is_double = model.description.settings.trainer.dtype == DType::f64;
  write_file_atomically(options.output, is_double ? serialize_npy(rows, shape)
                                                  : serialize_npy(std::vector<float>(rows.begin(), rows.end()), shape));
}

void write_picture(Model& model, const SampleOptions& options) {
  const RunDescription& run = model.description;
  const auto image = drawable_image(run);
  if (!image && run.data_cols != 2) {
    throw InvalidArgument("rows of " + std::to_string(run.data_cols) +
                          " values are neither points in the plane nor square, gray or colour images; write a .npy "
                          "file");
  }
  const std::vector<double> rows = all_samples(model, options);
  const Image picture = image ? sample_picture(rows, options.count, *image, run.data_minimum, run.data_maximum)
                              : scatter_picture(rows, options.count, "samples");
  write_file_atomically(options.output, encode_png(picture));
}

std::vector<std::byte> npy_of_images(Model& model, const SampleOptions& options) {
  std::vector<std::uint8_t> pixels;
  for_each_pixels(model, options, [&](std::int64_t /*first*/, std::span<const std::uint8_t> chunk) {
    pixels.insert(pixels.end(), chunk.begin(), chunk.end());
  });
  const ImageShape& image = *model.description.image;
  return serialize_npy(pixels, std::array{options.count, image.height, image.width, image.channels});
}

// Read by pytorch-fid and torch-fidelity. A folder with other files in it, or with a part of the samples, would spoil
// their figures.
void write_png_folder(Model& model, const SampleOptions& options) {
  const ImageShape& image = *model.description.image;
  if (image.channels != 1 && image.channels != 3) {
    throw InvalidArgument("images of " + std::to_string(image.channels) +
                          " channels are no PNG files, 1 and 3 channels are; write a .npy or .npz file");
  }
  const fs::path folder = options.output;
  std::error_code error;
  if (fs::exists(folder, error) && !(fs::is_directory(folder, error) && fs::is_empty(folder, error))) {
    throw InvalidArgument("output " + path_in_quotes(folder) +
                          " exists and is no empty folder; remove it or choose another name");
  }
  // Under another name until it is whole: a run that is killed leaves nothing that looks like all samples.
  const fs::path whole = fs::absolute(folder).lexically_normal();
  const fs::path named = whole.has_filename() ? whole : whole.parent_path();
  const fs::path part = named.parent_path() / ("." + named.filename().string() + ".part-" + std::to_string(::getpid()));
  create_folders(part);
  try {
    const std::size_t digits = std::max(kNameDigits, std::to_string(options.count - 1).size());
    for_each_pixels(model, options, [&](std::int64_t first, std::span<const std::uint8_t> chunk) {
      const auto size = static_cast<std::size_t>(image.size());
      for (std::size_t i = 0; i < chunk.size() / size; ++i) {
        const std::string number = std::to_string(first + static_cast<std::int64_t>(i));
        write_file_atomically(part / (std::string(digits - number.size(), '0') + number + ".png"),
                              serialize_png(chunk.subspan(i * size, size), image));
      }
    });
    fs::rename(part, named, error);
    if (error)
      throw DataError("cannot rename " + path_in_quotes(part) + " to " + path_in_quotes(named) + ": " +
                      error.message());
  } catch (...) {
    fs::remove_all(part, error);
    throw;
  }
}

std::string format_of(const SampleOptions& options) {
  static constexpr const char* kEndings[] = {".npy", ".png", ".npz"};
  if (options.format == "png-folder") return options.format;
  const std::string ending = require_ending(options.output, kEndings).substr(1);
  if (options.format.empty() || options.format == ending) return ending;
  throw InvalidArgument("output " + path_in_quotes(options.output) + " does not end in ." + options.format +
                        " as --format " + options.format + " needs");
}

int sample(const SampleOptions& options) {
  const std::string format = format_of(options);
  Model model = load_model(options.model, DataUse::none);
  const bool is_images = model.description.image.has_value();
  if (!is_images && (format == "npz" || format == "png-folder")) {
    throw InvalidArgument("format " + format + " is for runs on images, this one was trained on " +
                          text_in_quotes(model.description.data) + "; write a .npy file");
  }
  if (format == "npz" && options.count > kLargestZip / model.description.image->size()) {  // said before the work
    throw InvalidArgument("--count " + std::to_string(options.count) + " images of " +
                          std::to_string(model.description.image->size()) +
                          " bytes exceed the 4 GiB of the ZIP format; write fewer, or a .npy file");
  }
  if (format == "png") {
    write_picture(model, options);
  } else if (format == "png-folder") {
    write_png_folder(model, options);
  } else if (!is_images) {
    write_rows(model, options);
  } else {
    const std::vector<std::byte> npy = npy_of_images(model, options);
    const NamedBytes member{"images.npy", npy};
    write_file_atomically(options.output, format == "npy" ? npy : serialize_zip(std::span(&member, 1)));
  }
  print("wrote " + options.output + ": " + std::to_string(options.count) + " samples\n");
  return 0;
}

}  // namespace

void add_sample(CLI::App& program, Action& action) {
  auto options = std::make_shared<SampleOptions>();
  CLI::App* command = program.add_subcommand(
      "sample", "Samples of a run's generator: rows in raw data coordinates, images as pixels round(255 (x + 1) / 2)");
  add_model_options(*command, options->model, DataUse::none);
  command->add_option("-n,--count", options->count, "How many")
      ->check(whole_number(1, std::uint64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the latents; default: that of the run")
      ->check(whole_number(0, kLargestSeed));
  command
      ->add_option(
          "-o,--output", options->output,
          "A .npy file of shape (N, D), of images (N, H, W, C) in unsigned bytes; a .png: points in the plane, "
          "or a grid of images; a .npz with such an array 'images'; with --format png-folder a folder")
      ->required();
  command
      ->add_option("--format", options->format,
                   "npy, png, npz, or png-folder: a new folder of 000000.png, ...; default: by the output's ending")
      ->check(CLI::IsMember({"npy", "png", "png-folder", "npz"}));
  command
      ->add_option(
          "--refine", options->refine,
          "Steps of a Metropolis-adjusted Langevin chain from each sample, the first half of them adapting the "
          "step size; 0: none")
      ->check(whole_number(0, 1 << 24))
      ->capture_default_str();
  command
      ->add_option("--refine-space", options->refine_space,
                   "data: chains in exp(-E); latent: in exp(-E(G(z)) - |z|^2 / 2), then through G")
      ->check(CLI::IsMember({"data", "latent"}))
      ->capture_default_str();
  command->callback([options, &action] { action = [options] { return sample(*options); }; });
}

}  // namespace bracket
