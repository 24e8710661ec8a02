// bracket_jacobian_bench: every estimator of a Jacobian's log-volume, smallest singular value and trace on operators
// with prescribed spectra, or on an image generator: bias, standard deviation, passes, flops and time.
//
//   bracket_jacobian_bench [--device DEVICE] [--threads N] [--dtype f32|f64] [--samples N] [--least D] [--most D]
//                          [--generator] [--rounding] [--json FILE]
//
// J = U diag(s) V^T, s_k from 1 to the condition number with equal ratios, U and V products of three random reflections
// each. All samples share J and differ in their probes. The generator is that of DCGAN-32 as it starts out, at latents
// N(0, I). Times are of one run. Exit status 2 for a wrong command line.
//
// --rounding: every case runs in f64 too, with the same parameters and latents, those of f32. The rounding of a method
// is the root-mean-square difference of the two over the samples, what its start and its Gaussian probes lose in f32
// included. It is all that is known of "exact" in f32, which is what the other rows are compared with.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "bracket/device.h"
#include "bracket/error.h"
#include "bracket_revision.h"
#include "host/config/image_networks.h"
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
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  std::string dtype = "f64";
  std::int64_t samples = 16;
  std::int64_t least = 1, most = 1024;
  bool generator = false, rounding = false;
  std::string json;
  std::uint64_t seed = 1;
};

/// A network and where its Jacobian is taken.
struct Case {
  NetworkSpec spec;
  std::vector<double> values, buffers, latents;
};

/// A network of one precision with parameters of its own.
struct Model {
  Model(Context& context, const NetworkSpec& spec, DType dtype)
      : network(spec, dtype),
        values(context.pool().allocate(network.value_elements() * dtype_bytes(dtype))),
        buffers(context.pool().allocate(network.buffer_elements() * dtype_bytes(dtype))),
        parameters{Tensor(values.data(), dtype, {network.value_elements()}),
                   Tensor(buffers.data(), dtype, {network.buffer_elements()})} {}
  Network network;
  Buffer values, buffers;
  ParameterSet parameters;
};

Case prescribed_case(const Shape& shape, double condition, const Options& options) {
  Case result{{shape.inputs, {LinearSpec{.features = shape.outputs, .bias = false}}},
              prescribed(shape, condition, options.seed),
              {},
              std::vector<double>(static_cast<std::size_t>(options.samples * shape.inputs))};
  result.values.resize(static_cast<std::size_t>(Network(result.spec, DType::f64).value_elements()));
  return result;
}

Case generator_case(Context& context, const Options& options) {
  Case result{dcgan_32(3, {}).generator, {}, {}, {}};
  const Model start(context, result.spec, DType::f64);
  start.network.initialize(context.ops(), start.parameters, options.seed, RandomStream::generator_init);
  result.values = read_values(context.ops(), start.parameters.values);
  result.buffers = read_values(context.ops(), start.parameters.buffers);
  result.latents =
      normal_values({options.seed, RandomStream::evaluation, 0}, options.samples * start.network.input_size());
  return result;
}

void round_to_float(std::vector<double>& values) {
  for (double& x : values) x = static_cast<double>(static_cast<float>(x));
}

JacobianComparison compare(Context& context, const Case& given, DType dtype, const Options& options) {
  const Model model(context, given.spec, dtype);
  write_values(context.ops(), model.parameters.values, given.values);
  write_values(context.ops(), model.parameters.buffers, given.buffers);
  return compare_jacobian_estimators(
      context,
      [&](Ops& ops, Arena& arena) -> std::unique_ptr<JacobianOperator> {
        const Tensor z = arena.allocate(dtype, {options.samples, model.network.input_size()});
        write_values(ops, z, given.latents);
        return std::make_unique<NetworkJacobian>(ops, arena, model.network, model.parameters, z);
      },
      model.network.flops_per_row(), options.seed);
}

/// Root of the mean square of a - b; NaN where a sample has no value in one of them.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    squares += std::isfinite(a[i]) && std::isfinite(b[i]) ? (a[i] - b[i]) * (a[i] - b[i])
                                                          : std::numeric_limits<double>::quiet_NaN();
  return std::sqrt(squares / static_cast<double>(a.size()));
}

Json measure(Context& context, Case given, const Options& options) {
  const bool single = options.dtype == "f32";
  if (single) {
    for (std::vector<double>* const values : {&given.values, &given.buffers, &given.latents}) round_to_float(*values);
  }
  const JacobianComparison comparison = compare(context, given, single ? DType::f32 : DType::f64, options);
  std::printf("%s", summary(comparison).c_str());
  Json entry = Json::parse(to_json(comparison));
  if (options.rounding) {
    const JacobianComparison unrounded = compare(context, given, DType::f64, options);
    std::printf("rounding of each row:");
    for (std::size_t i = 0; i < comparison.methods.size(); ++i) {
      const double rounding = distance(comparison.methods[i].values, unrounded.methods[i].values);
      std::printf(" %.2g", rounding);
      entry["methods"][i]["rounding"] = std::isfinite(rounding) ? Json(rounding) : Json(nullptr);
    }
    std::printf("\n");
  }
  std::printf("\n");
  std::fflush(stdout);
  return entry;
}

void run(const Options& options) {
  ContextOptions context_options;
  context_options.device = Device::parse(options.device);
  context_options.threads = options.threads;
  Context context(context_options);
  Json cases = Json::array();
  if (options.generator) cases.push_back(measure(context, generator_case(context, options), options));
  for (const Shape& shape : kShapes) {
    if (options.generator || shape.inputs < options.least || shape.inputs > options.most) continue;
    for (const double condition : kConditions) {
      try {
        cases.push_back(measure(context, prescribed_case(shape, condition, options), options));
      } catch (const Diverged& error) {  // in f32 the largest condition may count as missing rank
        std::printf("J [%lld, %lld], condition %g: %s\n\n", static_cast<long long>(shape.outputs),
                    static_cast<long long>(shape.inputs), condition, error.what());
        cases.push_back({{"inputs", shape.inputs}, {"outputs", shape.outputs}, {"failed", error.what()}});
      }
      cases.back()["condition"] = condition;
    }
  }
  if (options.json.empty()) return;
  const Json all = {{"bracket_revision", BRACKET_REVISION},
                    {"device", device_description(context.device())},
                    {"threads", options.threads},
                    {"dtype", options.dtype},
                    {"operator", options.generator ? "DCGAN-32 generator" : "prescribed spectra"},
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
  program.add_option("--threads", options.threads, "Threads of the CPU")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  program.add_option("--dtype", options.dtype, "Of J and of all vectors")
      ->check(CLI::IsMember({"f32", "f64"}))
      ->capture_default_str();
  program.add_option("--samples", options.samples, "Samples with probes of their own")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  program.add_option("--least", options.least, "Leave out shapes with fewer inputs than this")->capture_default_str();
  program.add_option("--most", options.most, "Leave out shapes with more inputs than this")->capture_default_str();
  program.add_flag("--generator", options.generator, "The generator of DCGAN-32 in place of prescribed spectra");
  program.add_flag("--rounding", options.rounding, "Every case in f64 too: what f32 rounds");
  program.add_option("--seed", options.seed, "Of J or the generator, of latents and probes")->capture_default_str();
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
