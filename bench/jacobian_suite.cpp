// bracket_jacobian_bench: every estimator of a Jacobian's log-volume, smallest singular value and trace on operators
// with prescribed spectra: bias, standard deviation, passes and time.
//
//   bracket_jacobian_bench [--device DEVICE] [--dtype f32|f64] [--samples N] [--least D] [--most D]
//                          [--json FILE]
//
// J = U diag(s) V^T, s_k from 1 to the condition number with equal ratios, U and V products of three random reflections
// each. All samples share J and differ in their probes. Times are of one run. Exit status 2 for a wrong command line.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bracket/device.h"
#include "bracket/error.h"
#include "bracket_revision.h"
#include "host/evaluate/jacobian_comparison.h"
#include "host/training/inference.h"
#include "kernels/ops.h"

namespace bracket::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Shape {
  std::int64_t inputs, outputs;
};

constexpr Shape kShapes[] = {{2, 16}, {8, 64}, {32, 512}, {128, 3072}, {512, 6144}, {1024, 12288}};
constexpr double kConditions[] = {1, 1e2, 1e4, 1e6};
constexpr int kReflections = 3;

/// J [D, d] row-major: singular values on the diagonal, reflected from both sides.
std::vector<double> prescribed(const Shape& shape, double condition, std::uint64_t seed) {
  const auto d = static_cast<std::size_t>(shape.inputs), D = static_cast<std::size_t>(shape.outputs);
  std::vector<double> j(D * d, 0.0);
  for (std::size_t k = 0; k < d; ++k)
    j[k * d + k] = d == 1 ? 1 : std::pow(condition, static_cast<double>(k) / static_cast<double>(d - 1));
  std::vector<double> product;
  for (int r = 0; r < 2 * kReflections; ++r) {
    const bool left = r % 2 == 0;
    const std::size_t size = left ? D : d;
    std::vector<double> h =
        normal_values({seed, RandomStream::test, static_cast<std::uint64_t>(r)}, static_cast<std::int64_t>(size));
    double squares = 0;
    for (const double x : h) squares += x * x;
    // J - 2 h (h^T J) / |h|^2 from the left, J - 2 (J h) h^T / |h|^2 from the right.
    product.assign(left ? d : D, 0.0);
    for (std::size_t i = 0; i < D; ++i)
      for (std::size_t k = 0; k < d; ++k) product[left ? k : i] += j[i * d + k] * h[left ? i : k];
    for (std::size_t i = 0; i < D; ++i)
      for (std::size_t k = 0; k < d; ++k) j[i * d + k] -= 2 / squares * h[left ? i : k] * product[left ? k : i];
  }
  return j;
}

struct Options {
  std::string device = "cpu";
  std::string dtype = "f64";
  std::int64_t samples = 16;
  std::int64_t least = 1, most = 1024;
  std::string json;
  std::uint64_t seed = 1;
};

JacobianComparison compare(Context& context, const Shape& shape, double condition, const Options& options) {
  const DType dtype = options.dtype == "f32" ? DType::f32 : DType::f64;
  const Network network({shape.inputs, {LinearSpec{.features = shape.outputs, .bias = false}}}, dtype);
  const Buffer memory = context.pool().allocate(network.value_elements() * dtype_bytes(dtype));
  const ParameterSet parameters{Tensor(memory.data(), dtype, {network.value_elements()}), {}};
  context.ops().fill(parameters.values, 0);
  write_values(context.ops(), parameters.values.slice_rows(0, shape.inputs * shape.outputs),
               prescribed(shape, condition, options.seed));
  return compare_jacobian_estimators(
      context,
      [&](Ops& ops, Arena& arena) -> std::unique_ptr<JacobianOperator> {
        const Tensor z = arena.allocate(dtype, {options.samples, shape.inputs});
        ops.fill(z, 0);
        return std::make_unique<NetworkJacobian>(ops, arena, network, parameters, z);
      },
      options.seed);
}

void run(const Options& options) {
  ContextOptions context_options;
  context_options.device = Device::parse(options.device);
  Context context(context_options);
  Json cases = Json::array();
  for (const Shape& shape : kShapes) {
    if (shape.inputs < options.least || shape.inputs > options.most) continue;
    for (const double condition : kConditions) {
      const JacobianComparison comparison = compare(context, shape, condition, options);
      std::printf("%s\n", summary(comparison).c_str());
      std::fflush(stdout);
      Json entry = Json::parse(to_json(comparison));
      entry["condition"] = condition;
      cases.push_back(std::move(entry));
    }
  }
  if (options.json.empty()) return;
  const Json all = {{"bracket_revision", BRACKET_REVISION},
                    {"device", device_description(context.device())},
                    {"dtype", options.dtype},
                    {"seed", options.seed},
                    {"cases", cases}};
  std::ofstream file(options.json);
  file << all.dump(1) << "\n";
  if (!file.flush()) throw DataError("cannot write '" + options.json + "'");
}

}  // namespace
}  // namespace bracket::bench

int main(int argc, char** argv) {
  bracket::bench::Options options;
  CLI::App program("Estimators of a Jacobian's log-volume, smallest singular value and trace on prescribed spectra");
  program.add_option("--device", options.device, "cpu, cuda, cuda:N or auto")->capture_default_str();
  program.add_option("--dtype", options.dtype, "Of J and of all vectors")
      ->check(CLI::IsMember({"f32", "f64"}))
      ->capture_default_str();
  program.add_option("--samples", options.samples, "Samples with probes of their own")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  program.add_option("--least", options.least, "Leave out shapes with fewer inputs than this")->capture_default_str();
  program.add_option("--most", options.most, "Leave out shapes with more inputs than this")->capture_default_str();
  program.add_option("--seed", options.seed, "Of J and of the probes")->capture_default_str();
  program.add_option("--json", options.json, "File for all figures");
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : 2;
  }
  try {
    bracket::bench::run(options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bracket_jacobian_bench: %s\n", error.what());
    return 1;
  }
}
