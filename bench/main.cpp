// bracket_bench: time of every op on the shapes of the 2-D presets, of the convolutions of DCGAN-32, of its
// log-volumes, of passes of image networks, and of one training iteration of each preset.
//
// For a file that tools/bench_compare.py accepts:
//   bracket_bench --benchmark_out=FILE.json --benchmark_out_format=json
// Ten repetitions of 50 ms in random order unless flags say otherwise. Exit status 1 when a result was wrong, nothing
// matched the filter, or BRACKET_REQUIRE_GPU=1 and there is no GPU.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <exception>
#include <string>
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

bool gpu_required() {
  const char* const text = std::getenv("BRACKET_REQUIRE_GPU");
  return text != nullptr && std::string(text) == "1";
}

/// The operands that benchmarks keep must go before the devices they are on, whatever happens.
struct RegisteredBenchmarks {
  ~RegisteredBenchmarks() { benchmark::ClearRegisteredBenchmarks(); }
};

int run(int argc, char** argv) {
  std::vector<std::string> arguments = with_defaults(argc, argv);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, pointers.data());
  if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 1;

  std::vector<bracket::bench::BenchDevice> devices = bracket::bench::open_devices(gpu_required());
  const RegisteredBenchmarks registered;
  bracket::bench::describe_run(devices);
  bracket::bench::register_linear_cases(devices);
  bracket::bench::register_convolution_cases(devices);
  bracket::bench::register_entropy_cases(devices);
  bracket::bench::register_jacobian_cases(devices);
  bracket::bench::register_layer_cases(devices);
  bracket::bench::register_step_cases(devices);
  bracket::bench::register_network_cases(devices);
  bracket::bench::register_memory_cases(devices);
  bracket::bench::register_training_cases(devices);
  const std::size_t ran = benchmark::RunSpecifiedBenchmarks();
  if (ran == 0) bracket::bench::report_failure("no benchmark matches the filter; a GPU's have names with \"cuda\"");
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
