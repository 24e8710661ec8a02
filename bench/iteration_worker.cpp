// bracket_iteration_worker: training iterations of a preset on demand, for tools/bench_peers.py.
//
//   bracket_iteration_worker --preset NAME [--batch N] [--width F] [--device cpu|cuda] [--threads N] [--math MODE]
//
// It speaks as bench/peers/worker.py does: first one line of JSON with versions and the error of the first step against
// double precision, then for each line with a number of iterations one with the seconds they took and the last losses.
// Exit status 1 when the first step was wrong or training diverged, 2 for a wrong command line.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/checked_trainer.h"
#include "bracket/device.h"
#include "bracket/image_shape.h"
#include "bracket/preset.h"
#include "bracket_revision.h"

namespace bracket::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kImages = 4096;  // in the table that batches are gathered from

struct Options {
  std::string preset;
  std::int64_t batch = 0;
  double width = 1;
  std::string device = "cpu";
  int threads = 0;
  MathMode math = MathMode::fp32;
};

Dataset data_for(const std::string& preset) {
  const std::int64_t side = preset.starts_with("cifar10") ? 32 : preset.starts_with("faces") ? 64 : 0;
  if (side == 0) return Dataset::open("25gaussians");
  const ImageShape shape{3, side, side};
  std::mt19937 engine(7);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(kImages * shape.size()));
  for (std::uint8_t& pixel : pixels) pixel = static_cast<std::uint8_t>(engine() >> 24);
  return Dataset::from_images(pixels, shape, kImages);
}

void print(const Json& json) {
  std::printf("%s\n", json.dump().c_str());
  std::fflush(stdout);
}

void serve(const Options& options) {
  const Dataset data = data_for(options.preset);
  PresetOptions preset_options;
  preset_options.width = options.width;
  TrainerConfig config = make_preset(options.preset, data, /*seed=*/0, preset_options);
  if (options.batch > 0) config.batch_size = options.batch;
  ContextOptions context_options;
  context_options.device = Device::parse(options.device);
  context_options.threads = options.threads;
  context_options.math = options.math;
  Context context(context_options);
  const CheckedTrainer checked = checked_trainer(context, config, data);
  if (const double allowed = allowed_first_step_error(options.math); !(checked.error <= allowed)) {
    throw std::runtime_error("wrong first step: error " + std::to_string(checked.error) + ", allowed " +
                             std::to_string(allowed));
  }
  print({{"versions",
          {{"bracket", BRACKET_REVISION},
           {"compiler", BRACKET_BENCH_COMPILER},
           {"cpu_arch", BRACKET_BENCH_CPU_ARCH},
           {"device", device_description(context.device())}}},
         {"first_step_error", checked.error}});
  for (std::int64_t count = 0; std::cin >> count;) {
    const auto begin = std::chrono::steady_clock::now();
    checked.trainer->run(count);
    const StepRecord last = checked.trainer->reports().back();  // waits; throws Diverged
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    print({{"seconds", seconds.count()},
           {"losses",
            {{"energy_data", last.energy_data},
             {"energy_samples", last.energy_samples},
             {"penalty", last.penalty},
             {"loss_energy", last.loss_energy},
             {"loss_generator", last.loss_generator}}}});
  }
}

}  // namespace
}  // namespace bracket::bench

int main(int argc, char** argv) {
  bracket::bench::Options options;
  CLI::App program("Training iterations of a preset on demand, for tools/bench_peers.py");
  program.add_option("--preset", options.preset, "Preset for 2-D data or for images of 32 x 32 or 64 x 64")->required();
  program.add_option("--batch", options.batch, "Instead of the preset's");
  program.add_option("--width", options.width, "Factor on the channels of image networks")->capture_default_str();
  program.add_option("--device", options.device, "cpu or cuda")->capture_default_str();
  program.add_option("--threads", options.threads, "Of the CPU; 0: one per processor")->capture_default_str();
  std::map<std::string, bracket::MathMode> modes;
  for (const auto mode :
       {bracket::MathMode::fp32, bracket::MathMode::tf32x3, bracket::MathMode::tf32, bracket::MathMode::bf16})
    modes.emplace(bracket::math_mode_name(mode), mode);
  program.add_option("--math", options.math, "How a GPU multiplies: fp32, tf32x3, tf32 or bf16")
      ->transform(CLI::CheckedTransformer(modes));
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : 2;
  }
  try {
    bracket::bench::serve(options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bracket_iteration_worker: %s\n", error.what());
    return 1;
  }
}
