#include "bracket/entropy_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/core/text.h"
#include "host/training/inference.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kMostSteps = 32;

/// A generator as training starts it, at latents.
class Start {
 public:
  Start(Context& context, const NetworkSpec& spec, DType dtype, const EntropyRequest& request)
      : context_(&context),
        network_(spec, dtype),
        values_(context.pool().allocate(network_.value_elements() * dtype_bytes(dtype), "parameters")),
        buffers_(context.pool().allocate(network_.buffer_elements() * dtype_bytes(dtype), "buffers")),
        parameters_{Tensor(values_.data(), dtype, {network_.value_elements()}),
                    Tensor(buffers_.data(), dtype, {network_.buffer_elements()})},
        rows_(request.samples),
        seed_(request.seed),
        latents_(normal_values({request.seed, RandomStream::energy_latent, 0}, rows_ * network_.input_size())) {
    network_.set_math(request.math);
    network_.initialize(context.ops(), parameters_, request.seed, RandomStream::generator_init);
  }

  const Network& network() const { return network_; }

  std::vector<double> estimates(const EntropyConfig& config) const {
    std::vector<double> values;
    with_planned_arena(*context_, [&](Ops& ops, Arena& arena) {
      const Tensor z = latents(ops, arena);
      Tensor direction;
      if (config.estimator == EntropyEstimator::lobpcg) {
        direction = arena.allocate(network_.dtype(), {rows_, network_.input_size()});
        ops.random_normal(direction, {seed_, RandomStream::energy_start, 0}, nullptr);
      }
      EntropyPass pass;
      entropy_forward(ops, arena, pass, network_, parameters_, z, config, direction);
      values = read_values(ops, pass.value);
    });
    return values;
  }

  struct Exact {
    std::vector<double> volume, spectrum;
  };
  Exact exact() const {
    Exact result;
    with_planned_arena(*context_, [&](Ops& ops, Arena& arena) {
      const NetworkJacobian jacobian(ops, arena, network_, parameters_, latents(ops, arena),
                                     NetworkJacobian::kTangentBytes,
                                     {.rows = rows_ * network_.input_size(), .parameter_passes = 0});
      const ExactEstimate estimate = exact_log_volume(ops, arena, jacobian, {.spectrum = true, .derivative = false});
      result = {read_values(ops, estimate.value), read_values(ops, estimate.spectrum)};
    });
    return result;
  }

 private:
  Tensor latents(Ops& ops, Arena& arena) const {
    const Tensor z = arena.allocate(network_.dtype(), {rows_, network_.input_size()});
    write_values(ops, z, latents_);
    return z;
  }

  Context* context_;
  Network network_;
  Buffer values_, buffers_;
  ParameterSet parameters_;
  std::int64_t rows_;
  std::uint64_t seed_;
  std::vector<double> latents_;
};

std::vector<EntropyCandidate> candidates_for(const Network& generator, DType least) {
  const std::int64_t d = generator.input_size();
  std::vector<EntropyCandidate> list;
  for (const DType dtype : {DType::f32, DType::f64}) {
    if (dtype == DType::f32 && least == DType::f64) continue;
    const auto add = [&](const EntropyConfig& config) { list.push_back({config, dtype, entropy_passes(config, d)}); };
    if (generator.has_log_volume()) add({.estimator = EntropyEstimator::triangular});
    add({.estimator = EntropyEstimator::exact});
    add({.estimator = EntropyEstimator::min_singular});
    for (std::int64_t steps = 1; steps <= kMostSteps && 2 * steps + 3 < 2 * d; steps *= 2)
      add({.estimator = EntropyEstimator::lobpcg, .iterations = steps});
  }
  std::stable_sort(list.begin(), list.end(),
                   [](const EntropyCandidate& a, const EntropyCandidate& b) { return a.cost() < b.cost(); });
  return list;
}

/// Over the samples whose h is finite.
double root_mean_square(const std::vector<double>& values, const std::vector<double>& expected) {
  double sum = 0;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(expected[i])) continue;
    if (!std::isfinite(values[i])) return std::numeric_limits<double>::infinity();
    sum += (values[i] - expected[i]) * (values[i] - expected[i]);
    ++count;
  }
  return std::sqrt(sum / static_cast<double>(count));
}

double error_of(const std::vector<double>& values, const Start::Exact& exact, EntropyEstimator estimator,
                std::int64_t d) {
  const double error = root_mean_square(values, exact.volume);
  if (estimator != EntropyEstimator::lobpcg) return error;
  std::vector<double> limit = exact.volume;
  for (std::size_t i = 0; i < limit.size(); ++i)
    if (std::isfinite(limit[i]))
      limit[i] = static_cast<double>(d) * std::log(exact.spectrum[i * static_cast<std::size_t>(d)]);
  return std::max(error, root_mean_square(values, limit));
}

double median_condition(const Start::Exact& exact, std::int64_t d) {
  std::vector<double> conditions;
  const auto size = static_cast<std::size_t>(d);
  for (std::size_t i = 0; i < exact.volume.size(); ++i)
    if (std::isfinite(exact.volume[i]))
      conditions.push_back(exact.spectrum[(i + 1) * size - 1] / exact.spectrum[i * size]);
  const auto middle = conditions.begin() + static_cast<std::ptrdiff_t>(conditions.size() / 2);
  std::nth_element(conditions.begin(), middle, conditions.end());
  return *middle;
}

std::string name_of(const EntropyCandidate& c) {
  std::string name = entropy_estimator_name(c.config.estimator);
  if (c.config.estimator == EntropyEstimator::lobpcg)
    name += ", " + std::to_string(c.config.iterations) + (c.config.iterations == 1 ? " step," : " steps,");
  return name + " in " + dtype_name(c.dtype);
}

}  // namespace

EntropyChoice choose_entropy(Context& context, const NetworkSpec& generator, const EntropyRequest& request) {
  if (!(request.target > 0) || request.samples < 1)
    throw InvalidArgument("choose_entropy: target " + format_number(request.target) + " nats at " +
                          std::to_string(request.samples) + " latents; both must be positive");
  const Start reference(context, generator, DType::f64, request);
  const std::int64_t d = reference.network().input_size();
  const Start::Exact exact = reference.exact();
  if (std::none_of(exact.volume.begin(), exact.volume.end(), [](double h) { return std::isfinite(h); }))
    throw InvalidArgument("choose_entropy: J has no full rank at any of " + std::to_string(request.samples) +
                          " latents where training starts, so there is no log-volume; name an estimator, or change "
                          "the generator or the seed");
  EntropyChoice choice;
  choice.inputs = d;
  choice.outputs = reference.network().output_size();
  choice.median_condition = median_condition(exact, d);
  choice.candidates = candidates_for(reference.network(), request.least);
  for (const DType dtype : {DType::f32, DType::f64}) {
    if (dtype == DType::f32 && request.least == DType::f64) continue;
    const Start start(context, generator, dtype, request);
    for (EntropyCandidate& candidate : choice.candidates)
      if (candidate.dtype == dtype)
        candidate.error = error_of(start.estimates(candidate.config), exact, candidate.config.estimator, d);
  }
  const auto good = std::find_if(choice.candidates.begin(), choice.candidates.end(),
                                 [&](const EntropyCandidate& c) { return c.error <= request.target; });
  choice.meets_target = good != choice.candidates.end();
  choice.chosen = choice.meets_target
                      ? *good
                      : *std::min_element(choice.candidates.begin(), choice.candidates.end(),
                                          [](const auto& a, const auto& b) { return a.error < b.error; });
  return choice;
}

std::string summary(const EntropyChoice& choice) {
  std::string text =
      "entropy: " + name_of(choice.chosen) + ", " +
      (choice.meets_target ? "the cheapest within the target" : "no estimator keeps the target, the nearest") +
      "; J [" + std::to_string(choice.outputs) + ", " + std::to_string(choice.inputs) +
      "] starts with condition number " + rounded_number(choice.median_condition, 3) + "\n";
  for (const EntropyCandidate& c : choice.candidates)
    text += formatted("  %-28s %6lld passes   error %9s nats\n", name_of(c).c_str(), static_cast<long long>(c.passes),
                      rounded_number(c.error, 2).c_str());
  return text;
}

}  // namespace bracket
