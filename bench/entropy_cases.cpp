// The log-volume of the DCGAN-32 generator (128 latents, 3,072 outputs) and its gradient in parameters and latents, as
// a training step needs them: every estimator the trainer has, beside the exact one. 64 samples on a GPU, 4 on a CPU.
//
// A product with J or J^T is one pass of a sample through the generator: 102 million multiplications and additions
// each, layer by layer. Counters: passes per sample; their operations as they are carried out, composing included (the
// vector algebra of the estimator, the Gram matrix above all, is extra); the form of the pass (0 layers, 1 norm_folded,
// 2 linear_composed).
#include <benchmark/benchmark.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>

#include "bench/op_case.h"
#include "bracket/entropy.h"
#include "bracket/jacobian.h"
#include "host/config/image_networks.h"
#include "host/training/inference.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kGpuBatch = 64, kCpuBatch = 4;
constexpr std::int64_t kGateSamples = 2;
/// Allowed |f32 - f64| of h. J rounds by about 20 contractions' sqrt(K) u <= 5e-6 of its size, which moves log s_k by
/// that times s_d / s_k, 2 at the start: 128 of random sign.
constexpr double kGate = 11.3 * 5e-6 * 2;

struct EntropyCase {
  const char* name;
  EntropyConfig config;
};

constexpr std::array kCases = {EntropyCase{"exact", {.estimator = EntropyEstimator::exact}},
                               EntropyCase{"min_singular", {.estimator = EntropyEstimator::min_singular}},
                               EntropyCase{"lobpcg_2", {.estimator = EntropyEstimator::lobpcg, .iterations = 2}},
                               EntropyCase{"lobpcg_10", {.estimator = EntropyEstimator::lobpcg, .iterations = 10}}};

NetworkSpec generator_spec() { return dcgan_32(3, {}).generator; }

class Generator {
 public:
  Generator(Context& context, DType dtype, std::int64_t batch)
      : context_(context),
        network_(generator_spec(), dtype),
        values_(context.pool().allocate(2 * network_.value_elements() * dtype_bytes(dtype))),
        buffers_(context.pool().allocate(network_.buffer_elements() * dtype_bytes(dtype))),
        parameters_{Tensor(values_.data(), dtype, {network_.value_elements()}),
                    Tensor(buffers_.data(), dtype, {network_.buffer_elements()})},
        gradient_(static_cast<std::byte*>(values_.data()) + network_.value_elements() * dtype_bytes(dtype), dtype,
                  {network_.value_elements()}),
        batch_(batch),
        latents_(normal_values({1, RandomStream::evaluation, 0}, batch * network_.input_size())) {
    network_.initialize(context.ops(), parameters_, 1, RandomStream::generator_init);
  }

  const Network& network() const { return network_; }
  PassForm form() const { return pass_.primal.form; }
  /// Of `passes` passes of every sample. The reverse pass composes once more for every portion of it.
  double flops(double passes) const {
    const double rows =
        passes * static_cast<double>(batch_) * static_cast<double>(network_.flops_per_row(pass_.primal));
    if (form() != PassForm::linear_composed) return rows;
    const std::int64_t bytes =
        batch_ * network_.input_size() * network_.values_per_row() * dtype_bytes(network_.dtype());
    const std::int64_t portions = pass_.tangent_bytes > 0 ? (bytes + pass_.tangent_bytes - 1) / pass_.tangent_bytes : 1;
    return rows + static_cast<double>(1 + 2 * portions) * static_cast<double>(network_.composition_flops());
  }

  /// Calls `repeat` with what does the work once; in a dry run too.
  void run(const EntropyConfig& config,
           const std::function<void(Ops&, Arena&, const std::function<Tensor()>&)>& repeat) {
    with_planned_arena(context_, [&](Ops& ops, Arena& arena) {
      const DType dtype = network_.dtype();
      const std::int64_t d = network_.input_size();
      const Tensor z = arena.allocate(dtype, {batch_, d}), direction = arena.allocate(dtype, {batch_, d});
      const Tensor grad_z = arena.allocate(dtype, {batch_, d});
      write_values(ops, z, latents_);
      const std::int64_t mark = arena.mark();
      EntropyPass& pass = pass_;
      repeat(ops, arena, [&]() -> Tensor {
        arena.rewind(mark);
        ops.random_normal(direction, {1, RandomStream::energy_start, 0}, nullptr);
        entropy_forward(ops, arena, pass, network_, parameters_, z, config, direction);
        ReverseRequest request;
        request.grad_parameters = gradient_;
        request.grad_input = grad_z;
        entropy_reverse(ops, arena, pass, network_, {}, 1.0 / static_cast<double>(batch_), request);
        return pass.value;
      });
    });
  }

  std::vector<double> values(const EntropyConfig& config) {
    std::vector<double> values;
    run(config, [&](Ops& ops, Arena&, const std::function<Tensor()>& once) { values = read_values(ops, once()); });
    return values;
  }

 private:
  Context& context_;
  Network network_;
  Buffer values_, buffers_;
  ParameterSet parameters_;
  Tensor gradient_;
  std::int64_t batch_;
  std::vector<double> latents_;
  EntropyPass pass_;
};

/// Of the first samples of the batch that is timed, whose passes have its form; they are the same in a smaller batch.
double gate_error(Context& context, const EntropyConfig& config, std::int64_t batch) {
  Context reference_context;
  const std::vector<double> got = Generator(context, DType::f32, batch).values(config);
  const std::vector<double> expected = Generator(reference_context, DType::f64, kGateSamples).values(config);
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) worst = std::fmax(worst, std::abs(got[i] - expected[i]));
  return std::isfinite(got[0] + got[1]) ? worst : HUGE_VAL;
}

void run_case(benchmark::State& state, const EntropyCase& entropy, BenchDevice& device, std::int64_t batch) {
  const double error = gate_error(*device.context, entropy.config, batch);
  if (!(error <= kGate)) {
    std::array<char, 128> text{};
    std::snprintf(text.data(), text.size(), "wrong log-volume: error %.3g nats, allowed %.3g", error, kGate);
    report_failure(std::string(entropy.name) + " on " + device.name + ": " + text.data());
    state.SkipWithError(text.data());
    return;
  }
  Generator generator(*device.context, DType::f32, batch);
  generator.run(entropy.config, [&](Ops& ops, Arena& arena, const std::function<Tensor()>& once) {
    once();  // plans, or warms up
    if (arena.planning()) return;
    ops.synchronize();
    time_passes(state, device, ops, once);
  });
  const auto passes = static_cast<double>(entropy_passes(entropy.config, generator.network().input_size()));
  state.counters["error"] = error;
  state.counters["passes"] = passes;
  state.counters["form"] = static_cast<double>(generator.form());
  state.counters["flops"] = generator.flops(passes);
}

}  // namespace

void register_entropy_cases(std::vector<BenchDevice>& devices) {
  for (const EntropyCase& entropy : kCases) {
    for (BenchDevice& device : devices) {
      const std::int64_t batch = device.gpu ? kGpuBatch : kCpuBatch;
      const std::string name =
          std::string("entropy/dcgan32/") + entropy.name + "/batch" + std::to_string(batch) + "/f32/" + device.name;
      auto* const bench =
          benchmark::RegisterBenchmark(name.c_str(), [&entropy, &device, batch](benchmark::State& state) {
            try {
              run_case(state, entropy, device, batch);
            } catch (const std::exception& error) {
              report_failure(std::string(entropy.name) + " on " + device.name + ": " + error.what());
              state.SkipWithError(error.what());
            }
          });
      bench->Unit(benchmark::kMillisecond);
      if (device.gpu)
        bench->UseManualTime();
      else
        bench->MeasureProcessCPUTime()->UseRealTime();
    }
  }
}

}  // namespace bracket::bench
