// Passes of the image networks layer by layer and with each saving of NetworkExecution: "plain" has none, "resampling",
// "norm" and "compose" one each, "all" what training uses. One repetition is
//   training    forward of a training pass, reverse with all gradients
//   inference   forward of an inference pass, reverse with all gradients
//   tangents    one tangent per sample through an inference pass of many and back: push_through, pull_through
//   estimate    inference forward, 5 times push_through and pull_through, reverse with all gradients: the passes of a
//               log-volume by LOBPCG of 4 steps, which the pass is told about
// Counter: operations of the products as they are carried out.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/op_case.h"
#include "bracket/jacobian.h"
#include "bracket/network.h"
#include "host/config/image_networks.h"
#include "host/core/host_values.h"

namespace bracket::bench {
namespace {

enum class Repetition : std::uint8_t { training, inference, tangents, estimate };
constexpr const char* kRepetitions[] = {"training", "inference", "tangents", "estimate"};
constexpr std::int64_t kProducts = 5;  // of an estimate, with J and with J^T
constexpr std::int64_t kManyRows = 100000;
constexpr std::int64_t kGateSamples = 2;
/// Outputs of some 20 contractions of K <= 16,384 terms of random sign: 20 sqrt(K) u at most, as a share of the
/// largest.
constexpr double kGate = 20 * 128 * 6e-8;

struct Model {
  const char* name;
  NetworkSpec spec;
  std::int64_t cpu_batch, gpu_batch;
};

struct Variant {
  const char* name;
  NetworkExecution execution;
};
constexpr Variant kPlain{"plain", {false, false, false}};

struct NetworkCase {
  const Model* model;
  Repetition repetition;
  Variant variant;
};

class Subject {
 public:
  Subject(Context& context, const NetworkCase& item, DType dtype, std::int64_t batch)
      : context_(context),
        item_(item),
        network_(item.model->spec, dtype, item.variant.execution),
        values_(context.pool().allocate(2 * network_.value_elements() * dtype_bytes(dtype))),
        buffers_(context.pool().allocate(std::max<std::int64_t>(network_.buffer_elements(), 1) * dtype_bytes(dtype))),
        parameters_{Tensor(values_.data(), dtype, {network_.value_elements()}),
                    Tensor(buffers_.data(), dtype, {network_.buffer_elements()})},
        gradient_(static_cast<std::byte*>(values_.data()) + network_.value_elements() * dtype_bytes(dtype), dtype,
                  {network_.value_elements()}),
        batch_(batch) {
    network_.initialize(context.ops(), parameters_, 1, RandomStream::generator_init);
  }

  /// Calls `repeat` with what does the work once and returns the output; in a dry run too.
  void run(const std::function<void(Ops&, Arena&, const std::function<Tensor()>&)>& repeat) {
    with_planned_arena(context_, [&](Ops& ops, Arena& arena) {
      const DType dtype = network_.dtype();
      const Tensor x = normal(ops, arena, network_.input_size(), 0),
                   tangents = normal(ops, arena, network_.input_size(), 1);
      const Tensor cotangents = normal(ops, arena, network_.output_size(), 2);
      const Tensor grad_x = arena.allocate(dtype, {batch_, network_.input_size()});
      const Tensor y = arena.allocate(dtype, {batch_, network_.output_size()});
      PrimalPass pass;
      if (item_.repetition == Repetition::tangents)
        network_.forward(ops, arena, pass, parameters_, x, PassMode::inference, kManyRows);
      const std::int64_t mark = arena.mark();
      repeat(ops, arena, [&]() -> Tensor {
        arena.rewind(mark);
        const bool training = item_.repetition == Repetition::training;
        const bool estimate = item_.repetition == Repetition::estimate;
        if (item_.repetition != Repetition::tangents)
          network_.forward(ops, arena, pass, parameters_, x, training ? PassMode::training : PassMode::inference,
                           estimate ? (2 * kProducts + 2) * batch_ : batch_);
        const std::int64_t products = training ? 0 : estimate ? kProducts : item_.repetition == Repetition::tangents;
        for (std::int64_t k = 0; k < products; ++k) {
          network_.push_through(ops, arena, y, pass, tangents, {0, batch_, 1});
          network_.pull_through(ops, arena, grad_x, pass, cotangents, {0, batch_, 1});
        }
        if (item_.repetition == Repetition::tangents) return y;
        network_.reverse(ops, arena, pass, nullptr, cotangents, {},
                         {.grad_input = grad_x, .grad_parameters = gradient_});
        flops_ = flops_of(pass, products);
        return pass.output();
      });
      if (item_.repetition == Repetition::tangents) flops_ = 2 * pass_flops(pass);
    });
  }

  double flops() const { return flops_; }
  std::vector<double> output() {
    std::vector<double> values;
    run([&](Ops& ops, Arena&, const std::function<Tensor()>& once) { values = read_values(ops, once()); });
    return values;
  }

 private:
  Tensor normal(Ops& ops, Arena& arena, std::int64_t cols, std::uint64_t step) const {
    const Tensor x = arena.allocate(network_.dtype(), {batch_, cols});
    write_values(ops, x, normal_values({1, RandomStream::evaluation, step}, batch_ * cols));
    return x;
  }
  double pass_flops(const PrimalPass& pass) const {
    return static_cast<double>(batch_) * static_cast<double>(network_.flops_per_row(pass));
  }
  /// Forward and twice as much in reverse, products both ways; composing once, and its gradient.
  double flops_of(const PrimalPass& pass, std::int64_t products) const {
    return pass_flops(pass) * static_cast<double>(3 + 2 * products) +
           (pass.form == PassForm::linear_composed ? 3 * static_cast<double>(network_.composition_flops()) : 0);
  }

  Context& context_;
  const NetworkCase& item_;
  Network network_;
  Buffer values_, buffers_;
  ParameterSet parameters_;
  Tensor gradient_;
  std::int64_t batch_;
  double flops_ = 0;
};

double gate_error(Context& context, const NetworkCase& item) {
  Context reference_context;
  const NetworkCase reference{item.model, item.repetition, kPlain};
  const std::vector<double> got = Subject(context, item, DType::f32, kGateSamples).output();
  const std::vector<double> want = Subject(reference_context, reference, DType::f64, kGateSamples).output();
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    worst = std::isfinite(got[i]) ? std::max(worst, std::abs(got[i] - want[i])) : HUGE_VAL;
    largest = std::max(largest, std::abs(want[i]));
  }
  return worst / largest;
}

void run_case(benchmark::State& state, const NetworkCase& item, BenchDevice& device, std::optional<double>& known) {
  if (!known) known = gate_error(*device.context, item);
  const double error = *known;
  if (!(error <= kGate)) {
    std::array<char, 128> text{};
    std::snprintf(text.data(), text.size(), "wrong output: error %.3g of the largest, allowed %.3g", error, kGate);
    report_failure(std::string(item.model->name) + " on " + device.name + ": " + text.data());
    state.SkipWithError(text.data());
    return;
  }
  const std::int64_t batch = device.stopwatch ? item.model->gpu_batch : item.model->cpu_batch;
  Subject subject(*device.context, item, DType::f32, batch);
  subject.run([&](Ops& ops, Arena& arena, const std::function<Tensor()>& once) {
    once();  // plans, or warms up
    if (arena.planning()) return;
    ops.synchronize();
    for ([[maybe_unused]] auto _ : state) {
      if (device.stopwatch)
        state.SetIterationTime(device.stopwatch->seconds([&] { once(); }));
      else
        once();
    }
  });
  state.counters["error"] = error;
  state.counters["batch"] = static_cast<double>(batch);
  state.counters["flops"] = subject.flops();
}

const std::vector<Model>& models() {
  static const std::vector<Model> kModels = {{"faces64_generator", resnet_64(3, {}).generator, 2, 64},
                                             {"faces64_energy", resnet_64(3, {.spectral_norm = false}).energy, 2, 64},
                                             {"dcgan32_generator", dcgan_32(3, {}).generator, 8, 64},
                                             {"dcgan32_generator_64", dcgan_32(3, {}).generator, 64, 64}};
  return kModels;
}

std::vector<NetworkCase> cases() {
  constexpr Variant kResampling{"resampling", {true, false, false}}, kNorm{"norm", {false, true, false}},
      kCompose{"compose", {false, false, true}}, kAll{"all", {}};
  const std::vector<Model>& m = models();
  std::vector<NetworkCase> list;
  const auto add = [&](const Model& model, Repetition repetition, std::initializer_list<Variant> variants) {
    for (const Variant& variant : variants) list.push_back({&model, repetition, variant});
  };
  add(m[0], Repetition::training, {kPlain, kResampling});
  add(m[0], Repetition::inference, {kPlain, kResampling, kNorm, kAll});
  add(m[0], Repetition::tangents, {kPlain, kResampling, kNorm, kAll});
  add(m[1], Repetition::training, {kPlain, kResampling});
  add(m[1], Repetition::tangents, {kPlain, kResampling});
  add(m[2], Repetition::inference, {kPlain, kNorm});
  add(m[2], Repetition::tangents, {kPlain, kNorm});
  add(m[3], Repetition::estimate, {kPlain, kNorm, kCompose, kAll});
  return list;
}

}  // namespace

void register_network_cases(std::vector<BenchDevice>& devices) {
  static const std::vector<NetworkCase> kCases = cases();
  for (const NetworkCase& item : kCases) {
    for (BenchDevice& device : devices) {
      const std::int64_t batch = device.gpu ? item.model->gpu_batch : item.model->cpu_batch;
      const std::string name = std::string("network/") + item.model->name + "/" +
                               kRepetitions[static_cast<std::size_t>(item.repetition)] + "/" + item.variant.name +
                               "/batch" + std::to_string(batch) + "/f32/" + device.name;
      auto known = std::make_shared<std::optional<double>>();
      auto* const bench = benchmark::RegisterBenchmark(name.c_str(), [&item, &device, known](benchmark::State& state) {
        try {
          run_case(state, item, device, *known);
        } catch (const std::exception& error) {
          report_failure(std::string(item.model->name) + " on " + device.name + ": " + error.what());
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
