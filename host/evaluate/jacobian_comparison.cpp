#include "host/evaluate/jacobian_comparison.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <utility>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "bracket/trace_estimators.h"
#include "host/evaluate/pareto_front.h"
#include "host/training/inference.h"

namespace bracket {
namespace {

using Clock = std::chrono::steady_clock;

/// Certified enough for a comparison, which knows s_1: in use nobody does.
constexpr double kRadauShare = 0.99;
constexpr std::size_t kTimedRuns = 5;
constexpr double kQuickMilliseconds = 100;

/// Exact values of the samples that count.
struct Reference {
  std::vector<bool> counts;
  std::vector<double> volume, smallest, trace;
  std::vector<double> ends;  ///< below s_1^2
};

class Comparison {
 public:
  Comparison(Context& context, const JacobianMaker& make, std::int64_t product_flops, std::uint64_t seed)
      : context_(context), make_(make), seed_(seed) {
    result_.product_flops = product_flops;
  }

  JacobianComparison run() {
    exact();
    for (const std::int64_t steps : {2, 5, 20})
      if (steps <= std::max<std::int64_t>(2, 2 * result_.inputs)) iterations(steps);
    for (const std::int64_t block : {2, 4}) blocks(block, 5);
    preconditioned(5);
    for (const auto& [probes, steps] : {std::pair<std::int64_t, std::int64_t>{1, 8}, {4, 16}, {10, 20}, {16, 32}})
      quadrature(probes, steps);
    for (const std::int64_t certain : {4, 16})
      if (certain == 4 || certain < result_.inputs) roulette(4, certain);
    traces(10);
    return std::move(result_);
  }

 private:
  using Estimator = std::function<JacobianEstimate(Ops&, Arena&, const JacobianOperator&)>;

  /// Runs an estimator; the values of its samples. What is quick is run again, and the median time counts.
  std::vector<double> measure(JacobianMethod& method, const Estimator& estimator) {
    std::vector<double> values;
    with_planned_arena(context_, [&](Ops& ops, Arena& arena) {
      const std::unique_ptr<JacobianOperator> jacobian = make_(ops, arena);
      if (jacobian->samples() < 1)
        throw InvalidArgument("a comparison of Jacobian estimators needs a sample, got none");
      roundoff_ = jacobian->dtype() == DType::f32 ? 0x1p-24 : 0x1p-53;
      const std::int64_t mark = arena.mark();
      std::vector<double> times, processor_times;
      do {
        arena.rewind(mark);
        if (!arena.planning()) context_.synchronize();
        const Clock::time_point start = Clock::now();
        const std::clock_t processor_start = std::clock();
        const JacobianEstimate e = estimator(ops, arena, *jacobian);
        if (arena.planning()) return;
        context_.synchronize();
        times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
        processor_times.push_back(1e3 * static_cast<double>(std::clock() - processor_start) / CLOCKS_PER_SEC);
        if (times.size() > 1) continue;
        method.certificate = e.certificate;
        method.passes = e.passes;
        values = read_values(ops, e.value);
        if (!e.standard_error.absent()) method.standard_error = mean_square_root(read_values(ops, e.standard_error));
      } while (times.size() < kTimedRuns && times.front() < kQuickMilliseconds);
      method.milliseconds = median(std::move(times));
      method.processor_milliseconds = median(std::move(processor_times));
    });
    return values;
  }

  static double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  double mean_square_root(const std::vector<double>& values) const {
    double sum = 0, count = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!reference_.counts[i]) continue;
      sum += values[i] * values[i];
      ++count;
    }
    return std::sqrt(sum / count);
  }

  void judge(JacobianMethod method, std::vector<double> values, const std::vector<double>& exact) {
    double count = 0, squares = 0, size = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!reference_.counts[i]) continue;
      ++count;
      size += std::abs(exact[i]);
      method.value += values[i];
      method.bias += values[i] - exact[i];
    }
    method.value /= count;
    method.bias /= count;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (reference_.counts[i]) squares += std::pow(values[i] - exact[i] - method.bias, 2);
    method.deviation = count > 1 ? std::sqrt(squares / (count - 1)) : std::numeric_limits<double>::quiet_NaN();
    method.root_mean_square = std::sqrt(method.bias * method.bias + squares / count);
    // Columns of J are good to about u s_d, log s_k to u s_d / s_k and their sum to d u cond; a trace to d u of itself.
    const double roundings = static_cast<double>(result_.inputs) * roundoff_;
    method.rounding = roundings * (method.quantity == kTrace ? size / count : result_.median_condition);
    method.values = std::move(values);
    result_.methods.push_back(std::move(method));
  }

  void add(const std::string& family, const std::string& setting, const std::string& quantity,
           const std::vector<double>& exact, const Estimator& estimator) {
    JacobianMethod method{family, setting, quantity};
    std::vector<double> values = measure(method, estimator);
    judge(std::move(method), std::move(values), exact);
  }

  void exact() {
    std::vector<double> spectrum;
    JacobianMethod with_spectrum;  // which the log-volume alone does not need: measured below without it
    ExactOptions options{true, false};
    reference_.volume = measure(with_spectrum, [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) {
      // In f64 the square of a condition number would be the largest error of all; in f32 the columns' own is.
      if (jacobian.dtype() == DType::f64) options.qr_condition = 0;
      const ExactEstimate e = exact_log_volume(ops, arena, jacobian, options);
      result_.inputs = jacobian.inputs();
      result_.outputs = jacobian.outputs();
      result_.samples = jacobian.samples();
      result_.deficient = e.deficient;
      result_.not_finite = e.not_finite;
      result_.by_qr = e.by_qr;
      spectrum = read_values(ops, e.spectrum);
      return e;
    });
    const auto d = static_cast<std::size_t>(result_.inputs);
    std::vector<double> conditions;
    for (std::size_t i = 0; i < reference_.volume.size(); ++i) {
      const double* const s = spectrum.data() + i * d;
      reference_.counts.push_back(std::isfinite(reference_.volume[i]));
      reference_.smallest.push_back(static_cast<double>(d) * std::log(s[0]));
      reference_.ends.push_back(reference_.counts[i] ? kRadauShare * s[0] * s[0] : 1);
      double trace = 0;
      for (std::size_t k = 0; k < d; ++k) trace += s[k] * s[k];
      reference_.trace.push_back(trace);
      if (!reference_.counts[i]) continue;
      result_.singular_values.insert(result_.singular_values.end(), s, s + d);
      conditions.push_back(s[d - 1] / s[0]);
    }
    if (conditions.empty())
      throw Diverged("no Jacobian of " + std::to_string(result_.samples) +
                         " has full rank and finite elements: " + std::to_string(result_.deficient) +
                         " are rank-deficient, " + std::to_string(result_.not_finite) + " not finite",
                     "generator", 0);
    result_.median_condition = median(std::move(conditions));
    add("exact", "Gram, Cholesky, QR", kLogVolume, reference_.volume,
        [](Ops& ops, Arena& arena, const JacobianOperator& jacobian) -> JacobianEstimate {
          return exact_log_volume(ops, arena, jacobian, {false, false});
        });
    add("exact smallest", "Gram, Jacobi, QR", kSmallestVolume, reference_.smallest,
        [](Ops& ops, Arena& arena, const JacobianOperator& jacobian) -> JacobianEstimate {
          return exact_smallest_volume(ops, arena, jacobian, {false, false});
        });
  }

  /// Normals for `block` directions per sample.
  Tensor start(Ops& ops, Arena& arena, const JacobianOperator& jacobian, std::int64_t block = 1) const {
    return make_probes(ops, arena, jacobian, {ProbeKind::gaussian, block, seed_, 1}).directions;
  }

  /// The Krylov space of k + 1 Golub-Kahan steps is what k steps of LOBPCG search, for one product with each more.
  void iterations(std::int64_t steps) {
    add("LOBPCG", std::to_string(steps) + " steps", kSmallestVolume, reference_.smallest,
        [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) -> JacobianEstimate {
          return lobpcg_smallest(ops, arena, jacobian, start(ops, arena, jacobian), {steps, 0});
        });
    add("Golub-Kahan", std::to_string(std::min(steps + 1, result_.inputs)) + " steps", kSmallestVolume,
        reference_.smallest, [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) -> JacobianEstimate {
          return golub_kahan_extremes(ops, arena, jacobian, start(ops, arena, jacobian), {steps + 1, 0});
        });
  }

  void blocks(std::int64_t block, std::int64_t steps) {
    if (block > result_.inputs) return;
    add("LOBPCG block", "block of " + std::to_string(block) + ", " + std::to_string(steps) + " steps", kSmallestVolume,
        reference_.smallest, [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) -> JacobianEstimate {
          return lobpcg_smallest(ops, arena, jacobian, start(ops, arena, jacobian, block), {steps, 0, block});
        });
  }

  /// With the preconditioner of this batch, its ridge the mean of s_1^2; the products and the time that it costs count.
  void preconditioned(std::int64_t steps) {
    double squares = 0, count = 0;
    for (std::size_t i = 0; i < reference_.smallest.size(); ++i) {
      if (!reference_.counts[i]) continue;
      squares += std::exp(2 * reference_.smallest[i] / static_cast<double>(result_.inputs));
      ++count;
    }
    add("LOBPCG preconditioned", std::to_string(steps) + " steps", kSmallestVolume, reference_.smallest,
        [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) -> JacobianEstimate {
          LobpcgOptions options{steps};
          options.preconditioner = shared_preconditioner(ops, arena, jacobian, squares / count);
          JacobianEstimate e = lobpcg_smallest(ops, arena, jacobian, start(ops, arena, jacobian), options);
          e.passes.apply += jacobian.inputs();
          return e;
        });
  }

  void quadrature(std::int64_t probes, std::int64_t steps) {
    const std::string setting =
        std::to_string(probes) + " probes, " + std::to_string(std::min(steps, result_.inputs)) + " steps";
    for (const bool radau : {false, true}) {
      add(radau ? "SLQ Gauss-Radau" : "SLQ Gauss", setting, kLogVolume, reference_.volume,
          [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) -> JacobianEstimate {
            StochasticVolumeOptions options;
            options.quadrature.steps = steps;
            options.iterations = 0;
            if (radau) {
              options.quadrature.lower_end = arena.allocate(DType::f64, {jacobian.samples()});
              write_values(ops, options.quadrature.lower_end, reference_.ends);
            }
            return stochastic_log_volume(ops, arena, jacobian,
                                         make_probes(ops, arena, jacobian, {ProbeKind::rademacher, probes, seed_}),
                                         options);
          });
    }
  }

  void roulette(std::int64_t probes, std::int64_t certain) {
    add("roulette",
        std::to_string(probes) + " probes, " + std::to_string(std::min(certain, result_.inputs)) + " steps certain",
        kLogVolume, reference_.volume, [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) {
          RouletteOptions options;
          options.certain = certain;
          options.seed = seed_;
          return roulette_log_volume(
              ops, arena, jacobian, make_probes(ops, arena, jacobian, {ProbeKind::rademacher, probes, seed_}), options);
        });
  }

  /// Of about equal numbers of products with J.
  void traces(std::int64_t products) {
    const std::int64_t probes = std::min(products, result_.inputs);
    const std::int64_t third = std::clamp<std::int64_t>(products / 3, 1, result_.inputs);
    const std::int64_t half = std::clamp<std::int64_t>(products / 2, 1, result_.inputs);
    for (const auto& [kind, name] :
         {std::pair{ProbeKind::rademacher, "Rademacher"}, {ProbeKind::orthogonal, "orthogonal"}}) {
      add("Hutchinson", std::to_string(probes) + " " + name + " probes", kTrace, reference_.trace,
          [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) {
            return hutchinson_trace(ops, arena, jacobian, make_probes(ops, arena, jacobian, {kind, probes, seed_}));
          });
    }
    add("Hutch++", std::to_string(third) + " directions, " + std::to_string(third) + " probes", kTrace,
        reference_.trace, [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) {
          return hutch_plus_plus_trace(ops, arena, jacobian, {third, third, seed_});
        });
    add("XTrace", std::to_string(half) + " directions", kTrace, reference_.trace,
        [&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) {
          return exchangeable_trace(ops, arena, jacobian, {half, 1, seed_});
        });
  }

  Context& context_;
  const JacobianMaker& make_;
  std::uint64_t seed_;
  double roundoff_ = 0;  ///< of the operator's precision
  Reference reference_;
  JacobianComparison result_;
};

}  // namespace

double JacobianMethod::resolved_error() const { return std::max(root_mean_square, rounding); }

JacobianComparison compare_jacobian_estimators(Context& context, const JacobianMaker& make, std::int64_t product_flops,
                                               std::uint64_t seed) {
  return Comparison(context, make, product_flops, seed).run();
}

JacobianFronts jacobian_fronts(const JacobianComparison& comparison) {
  const std::vector<JacobianMethod>& methods = comparison.methods;
  JacobianFronts fronts{std::vector<bool>(methods.size()), std::vector<bool>(methods.size())};
  for (const char* const quantity : {kLogVolume, kSmallestVolume, kTrace}) {
    std::vector<std::size_t> members;
    std::vector<CostAndError> products, times;
    for (std::size_t i = 0; i < methods.size(); ++i) {
      if (methods[i].quantity != quantity) continue;
      members.push_back(i);
      products.push_back({static_cast<double>(methods[i].products()), methods[i].resolved_error()});
      times.push_back({methods[i].milliseconds, methods[i].resolved_error()});
    }
    const std::vector<bool> by_products = pareto_front(products), by_time = pareto_front(times);
    for (std::size_t k = 0; k < members.size(); ++k) {
      fronts.by_products[members[k]] = by_products[k];
      fronts.by_time[members[k]] = by_time[k];
    }
  }
  return fronts;
}

}  // namespace bracket
