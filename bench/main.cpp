// bracket_bench: time of every op on the shapes of the 2-D presets, of the layers of DCGAN-32 and ResNet-64, of the
// former's log-volumes, of passes of image networks, and of one training iteration of each preset. On a GPU also of what
// NVIDIA's libraries have in an op's place (op_case.h): tools/bench_table.py puts the two side by side.
//
// For a file that tools/bench_compare.py accepts:
//   bracket_bench --benchmark_out=FILE.json --benchmark_out_format=json
// Ten repetitions of 50 ms in random order unless flags say otherwise. Exit status 1 when a result was wrong, nothing
// matched the filter, or BRACKET_REQUIRE_GPU=1 and there is no GPU.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/op_case.h"
#include "bench/provenance.h"

namespace {

/// Google Benchmark takes the last value of a flag: what the user gives wins over these.
std::vector<std::string> with_defaults(int argc, char** argv) {
  std::vector<std::string> arguments(argv, argv + (argc > 0 ? 1 : 0));
  arguments.insert(arguments.end(),
                   {"--benchmark_repetitions=10", "--benchmark_min_time=0.05",
                    "--benchmark_enable_random_interleaving=true", "--benchmark_display_aggregates_only=true"});
  for (int i = 1; i < argc; ++i) arguments.emplace_back(argv[i]);
  return arguments;
}

/// Google Benchmark keeps what it read from the command line to itself.
bool is_list(int argc, char** argv) {
  constexpr std::string_view kFlag = "--benchmark_list_tests";
  bool list = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (!argument.starts_with(kFlag)) continue;
    const std::string_view value = argument.substr(kFlag.size());
    list = value.empty() || value == "=true" || value == "=1";
  }
  return list;
}

bool gpu_required() {
  const char* const text = std::getenv("BRACKET_REQUIRE_GPU");
  return text != nullptr && std::string(text) == "1";
}

/// The operands that benchmarks keep must go before the devices they are on, whatever happens.
struct RegisteredBenchmarks {
  ~RegisteredBenchmarks() { benchmark::ClearRegisteredBenchmarks(); }
};

/// The reporter that flags ask for, and word for the cases of every row that has had its last repetition.
class Reporter final : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context& context) override { return reporter_->ReportContext(context); }
  void ReportRuns(const std::vector<Run>& report) override {
    reporter_->ReportRuns(report);
    for (const Run& run : report) bracket::bench::row_is_done(run.run_name.function_name);
  }
  void Finalize() override { reporter_->Finalize(); }

 private:
  std::unique_ptr<BenchmarkReporter> reporter_{benchmark::CreateDefaultDisplayReporter()};
};

int run(int argc, char** argv) {
  std::vector<std::string> arguments = with_defaults(argc, argv);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, pointers.data());
  if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 1;

  const bool for_list = is_list(argc, argv);
  std::string no_gpu;
  std::vector<bracket::bench::BenchDevice> devices = bracket::bench::open_devices(gpu_required(), for_list, no_gpu);
  if (for_list && !no_gpu.empty())
    std::fprintf(stderr, "bracket_bench: cases of a GPU are listed where CUDA was built, and cannot run here: %s\n",
                 no_gpu.c_str());
  const RegisteredBenchmarks registered;
  bracket::bench::describe_run(devices);
  bracket::bench::register_linear_cases(devices);
  bracket::bench::register_convolution_cases(devices);
  bracket::bench::register_image_layer_cases(devices);
  bracket::bench::register_dense_cases(devices);
  bracket::bench::register_element_cases(devices);
  bracket::bench::register_entropy_cases(devices);
  bracket::bench::register_jacobian_cases(devices);
  bracket::bench::register_layer_cases(devices);
  bracket::bench::register_step_cases(devices);
  bracket::bench::register_network_cases(devices);
  bracket::bench::register_memory_cases(devices);
  bracket::bench::register_training_cases(devices);
  Reporter reporter;
  const std::size_t ran = benchmark::RunSpecifiedBenchmarks(&reporter);
  if (ran == 0) {
    bracket::bench::report_failure("no benchmark matches the filter; a GPU's have names with \"cuda\"" +
                                   (no_gpu.empty() ? "" : ", and there is none: " + no_gpu));
  }
  benchmark::Shutdown();
  return bracket::bench::failure_count() == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    bracket::bench::report_failure(error.what());
    return 1;
  }
}
