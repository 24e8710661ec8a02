// Passes of the image networks layer by layer and with each saving of NetworkExecution: "plain" has none, "resampling",
// "norm" and "compose" one each, "all" what training uses. One repetition is
//   training    forward of a training pass, reverse with all gradients
//   inference   forward of an inference pass, reverse with all gradients
//   tangents    one tangent per sample through an inference pass and back: push_through, pull_through. The pass serves
//               kTangentProducts of them and is made before
//   estimate    inference forward, 5 times push_through and pull_through, reverse with all gradients: the passes of a
//               log-volume by LOBPCG of 4 steps
// Every pass is told what it serves. Counters: operations of the products as they are carried out, composing only where
// the forward pass is timed; the form of the pass (0 layers, 1 norm_folded, 2 linear_composed), which must be the one
// that the row is named after.
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
constexpr std::int64_t kProducts = 5;          // of an estimate, with J and with J^T
constexpr std::int64_t kTangentProducts = 16;  // with J and with J^T, the first of which is not timed
constexpr std::int64_t kGateSamples = 2;
/// Outputs of some 20 contractions of K <= 16,384 terms of random sign: 20 sqrt(K) u at most, as a share of the
/// largest.
constexpr double kGate = 20 * 128 * 6e-8;
/// Tangents and adjoints go through derivatives that jump at kinks. Values off by a share g of their size lie on the
/// other side of one in a share of 0.8 g of the places (normal density at zero), each of which changes a sum of terms
/// of equal size and random sign by one of them: a share of sqrt(g) of its norm.
constexpr double kAdjointGate = 0.0124;  // sqrt(kGate)

struct Model {
  const char* name;
  NetworkSpec spec;
  std::int64_t cpu_batch, gpu_batch;
};

struct Variant {
  const char* name;
  NetworkExecution execution;
  PassForm inference = PassForm::layers;  ///< form of its inference passes
};
constexpr Variant kPlain{"plain", {false, false, false}};

struct NetworkCase {
  const Model* model;
  Repetition repetition;
  Variant variant;
  bool gpu_only = false;
  PassForm form() const { return repetition == Repetition::training ? PassForm::layers : variant.inference; }
};

/// What a repetition computes.
struct Results {
  std::vector<double> primal;                 ///< the output; empty for tangents
  std::vector<std::vector<double>> adjoints;  ///< and tangents
};

class Subject {
 public:
  /// Of `batch` samples, by passes that are told they serve as many rows as those of `told` samples do.
  Subject(Context& context, const NetworkCase& item, DType dtype, std::int64_t batch, std::int64_t told)
      : context_(context),
        item_(item),
        network_(item.model->spec, dtype, item.variant.execution),
        values_(context.pool().allocate(2 * network_.value_elements() * dtype_bytes(dtype))),
        buffers_(context.pool().allocate(std::max<std::int64_t>(network_.buffer_elements(), 1) * dtype_bytes(dtype))),
        parameters_{Tensor(values_.data(), dtype, {network_.value_elements()}),
                    Tensor(buffers_.data(), dtype, {network_.buffer_elements()})},
        gradient_(static_cast<std::byte*>(values_.data()) + network_.value_elements() * dtype_bytes(dtype), dtype,
                  {network_.value_elements()}),
        batch_(batch),
        told_(told) {
    network_.initialize(context.ops(), parameters_, 1, RandomStream::generator_init);
  }

  /// Calls `repeat` with what does the work once; in a dry run too.
  void run(const std::function<void(Ops&, Arena&, const std::function<void()>&)>& repeat) {
    with_planned_arena(context_, [&](Ops& ops, Arena& arena) {
      const DType dtype = network_.dtype();
      const Tensor x = normal(ops, arena, network_.input_size(), 0),
                   tangents = normal(ops, arena, network_.input_size(), 1);
      const Tensor cotangents = normal(ops, arena, network_.output_size(), 2);
      pulled_ = arena.allocate(dtype, {batch_, network_.input_size()});
      grad_x_ = arena.allocate(dtype, {batch_, network_.input_size()});
      pushed_ = arena.allocate(dtype, {batch_, network_.output_size()});
      const bool tangents_alone = item_.repetition == Repetition::tangents;
      const PassMode mode = item_.repetition == Repetition::training ? PassMode::training : PassMode::inference;
      if (tangents_alone) network_.forward(ops, arena, pass_, parameters_, x, mode, further_use());
      const std::int64_t mark = arena.mark();
      repeat(ops, arena, [&] {
        arena.rewind(mark);
        if (!tangents_alone) network_.forward(ops, arena, pass_, parameters_, x, mode, further_use());
        for (std::int64_t k = 0; k < products(); ++k) {
          network_.push_through(ops, arena, pushed_, pass_, tangents, {0, batch_, 1});
          network_.pull_through(ops, arena, pulled_, pass_, cotangents, {0, batch_, 1});
        }
        if (tangents_alone) return;
        network_.reverse(ops, arena, pass_, nullptr, cotangents, {},
                         {.grad_input = grad_x_, .grad_parameters = gradient_});
      });
    });
  }

  PassForm form() const { return pass_.form; }
  /// Forward and twice as much in reverse, products both ways; composing once, and its gradient.
  double flops() const {
    const double pass = static_cast<double>(batch_) * static_cast<double>(network_.flops_per_row(pass_));
    const double of_products = pass * static_cast<double>(2 * products());
    if (item_.repetition == Repetition::tangents) return of_products;
    const bool composed = pass_.form == PassForm::linear_composed;
    return of_products + 3 * pass + (composed ? 3 * static_cast<double>(network_.composition_flops()) : 0);
  }

  Results results() {
    Results results;
    run([&](Ops& ops, Arena&, const std::function<void()>& once) {
      once();
      results = {};
      if (products() > 0) results.adjoints = {read_values(ops, pushed_), read_values(ops, pulled_)};
      if (item_.repetition == Repetition::tangents) return;
      results.primal = read_values(ops, pass_.output());
      results.adjoints.push_back(read_values(ops, grad_x_));
      results.adjoints.push_back(learnt(read_values(ops, gradient_)));
    });
    return results;
  }

 private:
  Tensor normal(Ops& ops, Arena& arena, std::int64_t cols, std::uint64_t step) const {
    const Tensor x = arena.allocate(network_.dtype(), {batch_, cols});
    write_values(ops, x, normal_values({1, RandomStream::evaluation, step}, batch_ * cols));
    return x;
  }
  /// Products with J and with J^T in one repetition.
  std::int64_t products() const {
    if (item_.repetition == Repetition::estimate) return kProducts;
    return item_.repetition == Repetition::tangents ? 1 : 0;
  }
  FurtherUse further_use() const {
    const std::int64_t fewer = told_ - batch_;
    if (item_.repetition == Repetition::tangents)
      return {.rows = 2 * kTangentProducts * told_ + fewer, .parameter_passes = 0};
    return {.rows = (2 * products() + 2) * told_ + fewer, .parameter_passes = 1};
  }
  /// Without what lies between tensors.
  std::vector<double> learnt(const std::vector<double>& block) const {
    std::vector<double> values;
    for (const ParameterInfo& info : network_.parameters())
      if (!info.buffer)
        values.insert(values.end(), block.begin() + info.offset, block.begin() + info.offset + info.size());
    return values;
  }

  Context& context_;
  const NetworkCase& item_;
  Network network_;
  Buffer values_, buffers_;
  ParameterSet parameters_;
  Tensor gradient_, pushed_, pulled_, grad_x_;
  PrimalPass pass_;
  std::int64_t batch_, told_;
};

/// Largest difference as a share of the largest value.
double worst_share(const std::vector<double>& got, const std::vector<double>& want) {
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    worst = std::isfinite(got[i]) ? std::max(worst, std::abs(got[i] - want[i])) : HUGE_VAL;
    largest = std::max(largest, std::abs(want[i]));
  }
  return worst / largest;
}

/// Norm of the difference as a share of the norm.
double share_of_norm(const std::vector<double>& got, const std::vector<double>& want) {
  double difference = 0, squares = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    squares += want[i] * want[i];
  }
  return std::isfinite(difference) ? std::sqrt(difference / squares) : HUGE_VAL;
}

struct Gate {
  double primal = 0, adjoints = 0;
  PassForm form = PassForm::layers;
  bool open() const { return primal <= kGate && adjoints <= kAdjointGate; }
};

/// A few samples by passes of the form that is timed, against the layers in double.
Gate gate_of(Context& context, const NetworkCase& item, std::int64_t batch) {
  Context reference_context;
  const NetworkCase plain{item.model, item.repetition, kPlain};
  Subject subject(context, item, DType::f32, kGateSamples, batch);
  const Results got = subject.results();
  const Results want = Subject(reference_context, plain, DType::f64, kGateSamples, batch).results();
  Gate gate;
  gate.form = subject.form();
  if (!want.primal.empty()) gate.primal = worst_share(got.primal, want.primal);
  for (std::size_t k = 0; k < want.adjoints.size(); ++k)
    gate.adjoints = std::max(gate.adjoints, share_of_norm(got.adjoints[k], want.adjoints[k]));
  return gate;
}

void refuse(benchmark::State& state, const NetworkCase& item, const BenchDevice& device, const std::string& why) {
  report_failure(std::string(item.model->name) + "/" + item.variant.name + " on " + device.name + ": " + why);
  state.SkipWithError(why.c_str());
}

void run_case(benchmark::State& state, const NetworkCase& item, BenchDevice& device, std::optional<Gate>& known) {
  const std::int64_t batch = device.stopwatch ? item.model->gpu_batch : item.model->cpu_batch;
  if (!known) known = gate_of(*device.context, item, batch);
  if (!known->open()) {
    std::array<char, 160> text{};
    std::snprintf(text.data(), text.size(),
                  "wrong result: output off by %.3g of the largest, allowed %.3g; adjoints by %.3g, allowed %.3g",
                  known->primal, kGate, known->adjoints, kAdjointGate);
    return refuse(state, item, device, text.data());
  }
  Subject subject(*device.context, item, DType::f32, batch, batch);
  bool same_form = true;
  subject.run([&](Ops& ops, Arena& arena, const std::function<void()>& once) {
    once();  // plans, or warms up
    same_form = subject.form() == item.form() && subject.form() == known->form;
    if (arena.planning() || !same_form) return;
    ops.synchronize();
    time_passes(state, device, ops, once);
  });
  if (!same_form)
    return refuse(state, item, device,
                  "the pass has form " + std::to_string(static_cast<int>(subject.form())) + ", at the gate " +
                      std::to_string(static_cast<int>(known->form)) + ", the row is of " +
                      std::to_string(static_cast<int>(item.form())));
  state.counters["error"] = known->primal;
  state.counters["adjoint_error"] = known->adjoints;
  state.counters["form"] = static_cast<double>(subject.form());
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
  constexpr Variant kResampling{"resampling", {true, false, false}},
      kNorm{"norm", {false, true, false}, PassForm::norm_folded},
      kCompose{"compose", {false, false, true}, PassForm::linear_composed}, kAll{"all", {}, PassForm::norm_folded},
      kAllComposed{"all", {}, PassForm::linear_composed};
  const std::vector<Model>& m = models();
  std::vector<NetworkCase> list;
  const auto add = [&](const Model& model, Repetition repetition, std::initializer_list<Variant> variants,
                       bool gpu_only = false) {
    for (const Variant& variant : variants) list.push_back({&model, repetition, variant, gpu_only});
  };
  add(m[0], Repetition::training, {kPlain, kResampling});
  add(m[0], Repetition::inference, {kPlain, kResampling});
  add(m[0], Repetition::inference, {kNorm, kAll}, true);  // a CPU's batch is too small for BatchNorm to be folded
  add(m[0], Repetition::tangents, {kPlain, kResampling, kNorm, kAll});
  add(m[1], Repetition::training, {kPlain, kResampling});
  add(m[1], Repetition::tangents, {kPlain, kResampling});
  add(m[2], Repetition::inference, {kPlain});
  add(m[2], Repetition::inference, {kNorm}, true);  // likewise
  add(m[2], Repetition::tangents, {kPlain, kNorm});
  add(m[3], Repetition::estimate, {kPlain, kNorm, kCompose, kAllComposed});
  return list;
}

}  // namespace

void register_network_cases(std::vector<BenchDevice>& devices) {
  static const std::vector<NetworkCase> kCases = cases();
  for (const NetworkCase& item : kCases) {
    for (BenchDevice& device : devices) {
      if (item.gpu_only && !device.gpu) continue;
      const std::int64_t batch = device.gpu ? item.model->gpu_batch : item.model->cpu_batch;
      const std::string name = std::string("network/") + item.model->name + "/" +
                               kRepetitions[static_cast<std::size_t>(item.repetition)] + "/" + item.variant.name +
                               "/batch" + std::to_string(batch) + "/f32/" + device.name;
      auto known = std::make_shared<std::optional<Gate>>();
      auto* const bench = benchmark::RegisterBenchmark(name.c_str(), [&item, &device, known](benchmark::State& state) {
        try {
          run_case(state, item, device, *known);
        } catch (const std::exception& error) {
          refuse(state, item, device, error.what());
        }
      });
      bench->Unit(benchmark::kMillisecond);
      if (item.repetition == Repetition::tangents) bench->Iterations(kTangentProducts - 1);
      if (device.gpu)
        bench->UseManualTime();
      else
        bench->MeasureProcessCPUTime()->UseRealTime();
    }
  }
}

}  // namespace bracket::bench
