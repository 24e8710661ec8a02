// bracket doctor: what this machine and this build can do, tried out.

#include <cmath>
#include <memory>
#include <thread>

#include "bracket/error.h"
#include "bracket/preset.h"
#include "bracket/trainer.h"
#include "host/core/cpu_features.h"
#include "tools/program/command_line.h"
#include "tools/program/output.h"
#include "tools/program/version.h"

namespace bracket {
namespace {

constexpr std::int64_t kTrialSteps = 5;

std::string cpu_features_text() {
#if defined(__x86_64__)
  struct Feature {
    const char* name;
    bool present;
    bool compiled;
  };
  const Feature features[] = {
      {"avx2", __builtin_cpu_supports("avx2") != 0, kCompiledCpuFeatures.avx2},
      {"fma", __builtin_cpu_supports("fma") != 0, kCompiledCpuFeatures.fma},
      {"avx512f", __builtin_cpu_supports("avx512f") != 0, kCompiledCpuFeatures.avx512f},
  };
  std::string text;
  for (const Feature& feature : features) {
    text += std::string(text.empty() ? "" : ", ") + feature.name + (feature.present ? " present" : " absent") +
            (feature.compiled ? " and used" : "");
  }
  return text;
#else
  return "not x86-64; the code is compiled for the baseline";
#endif
}

// A few steps of the default preset must run and lower nothing but finite numbers.
void try_device(const Device& device, MathMode math) {
  ContextOptions options;
  options.device = device;
  options.math = math;
  Context context(options);
  const Dataset data = Dataset::open("25gaussians");
  Trainer trainer(context, make_preset("calibrated-2d", data, 0), data);
  trainer.run(kTrialSteps);
  const std::vector<StepRecord> records = trainer.reports();
  if (static_cast<std::int64_t>(records.size()) != kTrialSteps || !std::isfinite(records.back().lower_bound)) {
    throw Error(ExitCode::internal,
                "device " + device.name() + " returned no usable reports in math mode " + math_mode_name(math));
  }
}

int doctor() {
  print("Bracket " + std::string(version()) + " (revision " + revision() +
        "), compiled by GCC-compatible " __VERSION__ "\n");
  print("CPU       " + std::to_string(std::thread::hardware_concurrency()) + " logical cores; " + cpu_features_text() +
        "\n");
  int code = 0;
  const auto trial = [&](const Device& device) {
    const std::string name = device.name();
    const std::string label = name + std::string(10 - std::min<std::size_t>(9, name.size()), ' ');
    try {
      print(label + device_description(device) + "\n");
      const bool gpu = device.kind == DeviceKind::cuda;
      std::string modes;
      for (const MathMode math : {MathMode::fp32, MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
        if (math != MathMode::fp32 && !gpu) continue;
        try_device(device, math);
        modes += std::string(modes.empty() ? "" : ", ") + math_mode_name(math);
      }
      print(label + "works: " + std::to_string(kTrialSteps) + " training steps of calibrated-2d in math " + modes +
            (gpu ? "\n" : "; the other modes have no effect here\n"));
    } catch (const Error& error) {
      print(label + "FAILS: " + error.what() + "\n");
      code = static_cast<int>(error.code());
    }
  };
  trial({});
  std::string reason;
  const int count = cuda_device_count(&reason);
  if (count == 0) print("cuda      not usable: " + reason + "\n");
  for (int i = 0; i < count; ++i) trial({DeviceKind::cuda, i});
  return code;
}

}  // namespace

void add_doctor(CLI::App& program, Action& action) {
  CLI::App* command = program.add_subcommand("doctor", "Report versions, devices and CPU features, and try them out");
  command->callback([&action] { action = doctor; });
}

}  // namespace bracket
