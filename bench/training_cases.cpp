// One training iteration (an energy and a generator update, with everything around them) of each preset.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdio>
#include <exception>
#include <memory>

#include "bench/checked_trainer.h"
#include "bench/op_case.h"
#include "bracket/preset.h"
#include "bracket/trainer.h"

namespace bracket::bench {
namespace {

struct TrainingCase {
  const char* preset;
  const char* data;  ///< name of a density; null: normal rows of the shape of the 8 x 8 digits
};
constexpr std::array kCases = {TrainingCase{"toy-a", "25gaussians"}, TrainingCase{"toy-b", "25gaussians"},
                               TrainingCase{"calibrated-2d", "25gaussians"}, TrainingCase{"vectors", nullptr}};
constexpr std::uint64_t kSeed = 0;

constexpr int kStepsPerEventPair = 10;
constexpr int kWarmUpSteps = 100;

Dataset dataset_of(const TrainingCase& training) {
  if (training.data != nullptr) return Dataset::open(training.data);
  constexpr std::int64_t rows = 1797, cols = 64;
  std::mt19937_64 engine(7);
  std::normal_distribution<double> distribution;
  std::vector<double> values(static_cast<std::size_t>(rows * cols));
  for (double& value : values) value = static_cast<double>(static_cast<float>(distribution(engine)));
  return Dataset::from_rows(values, rows, cols);
}

void run_case(benchmark::State& state, const TrainingCase& training, BenchDevice& device,
              std::shared_ptr<CheckedTrainer>& kept) {
  if (!kept) {
    const Dataset data = dataset_of(training);
    kept = std::make_shared<CheckedTrainer>(
        checked_trainer(*device.context, make_preset(training.preset, data, kSeed), data));
    kept->trainer->run(kWarmUpSteps);
    kept->trainer->reports();
  }
  if (!(kept->error <= kAllowedFirstStepError)) {
    std::array<char, 128> text{};
    std::snprintf(text.data(), text.size(), "wrong first step: error %.3g, allowed %.3g", kept->error,
                  kAllowedFirstStepError);
    report_failure(std::string(training.preset) + " on " + device.name + ": " + text.data());
    state.SkipWithError(text.data());
    return;
  }
  Trainer& trainer = *kept->trainer;
  if (device.stopwatch) {
    while (state.KeepRunningBatch(kStepsPerEventPair)) {
      state.SetIterationTime(device.stopwatch->seconds([&] { trainer.run(kStepsPerEventPair); }));
    }
  } else {
    for ([[maybe_unused]] auto _ : state) trainer.run(1);
  }
  trainer.reports();  // throws Diverged: a time of steps that did nothing is no time
  state.counters["error"] = kept->error;
  state.counters["arena_KiB"] = static_cast<double>(trainer.memory_plan().step) / 1024;
}

}  // namespace

void register_training_cases(std::vector<BenchDevice>& devices) {
  for (const TrainingCase& training : kCases) {
    for (BenchDevice& device : devices) {
      const std::string name = std::string("training_iteration/") + training.preset + "/f32/" + device.name;
      auto kept = std::make_shared<std::shared_ptr<CheckedTrainer>>();
      auto* const bench =
          benchmark::RegisterBenchmark(name.c_str(), [training, &device, kept](benchmark::State& state) {
            try {
              run_case(state, training, device, *kept);
            } catch (const std::exception& error) {
              report_failure(std::string(training.preset) + " on " + device.name + ": " + error.what());
              state.SkipWithError(error.what());
            }
          });
      bench->Unit(benchmark::kMicrosecond);
      if (device.stopwatch)
        bench->UseManualTime();
      else
        bench->MeasureProcessCPUTime()->UseRealTime();
    }
  }
}

}  // namespace bracket::bench
