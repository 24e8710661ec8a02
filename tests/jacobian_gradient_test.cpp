// Derivatives of the estimators in parameters and latents of a network against central differences of their values.
#include "bracket/singular_values.h"
#include "bracket/trace_estimators.h"
#include "tests/jacobian_fixture.h"
#include "tests/network_fixture.h"

namespace bracket::test {
namespace {

constexpr std::int64_t kLatents = 4;
constexpr std::int64_t kBatch = 3;
constexpr double kFactor = -0.7;

NetworkSpec generator() {
  LinearSpec hidden{9};
  hidden.bias_bound = 0.5;
  return {kLatents,
          {hidden, ActivationSpec{Activation::tanh}, BatchNormSpec{}, hidden, ActivationSpec{Activation::silu},
           LinearSpec{7}}};
}

// Fourth-order differences, step 3e-5, as in training_gradient_test.cpp: truncation and rounding are below 1e-7 of the
// largest derivative, and derivatives below 1e-3 of that are judged by it.
class JacobianGradientTest : public ::testing::Test {
 protected:
  static constexpr double kStep = 3e-5, kWorst = 1e-6;
  using Estimator = std::function<JacobianEstimate(Ops&, Arena&, const NetworkJacobian&)>;
  /// sum of the values that belong to vectors held constant, [n K, d].
  using Value = std::function<double(Ops&, Arena&, const NetworkJacobian&, const HostMatrix& held)>;

  JacobianGradientTest() : network_(device_.context(), generator(), DType::f64) {
    network_.perturb(0.1);
    network_.randomize_statistics();
  }
  Context& context() { return device_.context(); }

  double value_at(const Value& value, const HostMatrix& held) {
    network_.arena().rewind(0);
    const DeviceTensor z = upload(context(), z_);
    const NetworkJacobian jacobian(context().ops(), network_.arena(), network_.network(), network_.parameters(), z);
    return value(context().ops(), network_.arena(), jacobian, held);
  }

  void check(const Estimator& estimator, const Value& value) {
    for (const std::int64_t tangent_bytes : {std::int64_t{1}, NetworkJacobian::kTangentBytes}) {
      network_.arena().rewind(0);
      const DeviceTensor z = upload(context(), z_), grad_z = empty_matrix(context(), DType::f64, kBatch, kLatents);
      const NetworkJacobian jacobian(context().ops(), network_.arena(), network_.network(), network_.parameters(), z,
                                     tangent_bytes);
      const JacobianEstimate e = estimator(context().ops(), network_.arena(), jacobian);
      ReverseRequest request;
      request.grad_input = grad_z;
      request.grad_parameters = network_.gradient();
      jacobian.reverse(context().ops(), network_.arena(), e.tangents, e.cotangents, kFactor, request);
      const std::vector<double> in_parameters = to_host(context().ops(), network_.gradient());
      const HostMatrix in_latents = download(context(), grad_z), held = download(context(), e.tangents);
      double total = 0;
      for (const double v : download(context(), e.value).values) total += v;
      EXPECT_NEAR(value_at(value, held), total, 1e-10);
      compare(in_parameters, in_latents, value, held);
    }
  }

 private:
  void compare(const std::vector<double>& in_parameters, const HostMatrix& in_latents, const Value& value,
               const HostMatrix& held) {
    double scale = 0;
    for (const double g : in_parameters) scale = std::max(scale, std::abs(g));
    WorstError error(1e-3 * scale);
    const std::vector<double> centre = network_.values();
    std::int64_t compared = 0;
    for (const ParameterInfo& info : network_.network().parameters()) {
      if (info.buffer) continue;
      const std::int64_t stride = std::max<std::int64_t>(1, info.size() / 6);
      for (std::int64_t i = info.offset; i < info.offset + info.size(); i += stride, ++compared) {
        const double difference = central_difference(
            [&](double h) {
              std::vector<double> moved = centre;
              moved[static_cast<std::size_t>(i)] += h;
              network_.set_values(moved);
              return kFactor * value_at(value, held);
            },
            kStep);
        error.add(in_parameters[static_cast<std::size_t>(i)], difference, info.name);
      }
    }
    network_.set_values(centre);
    EXPECT_LE(error.worst(), kWorst) << error.where();
    EXPECT_GT(compared, 40);
    double latent_scale = 0;
    for (const double g : in_latents.values) latent_scale = std::max(latent_scale, std::abs(g));
    WorstError latent_error(1e-3 * latent_scale);
    for (std::int64_t i = 0; i < kBatch; ++i) {
      for (std::int64_t j = 0; j < kLatents; ++j) {
        const double at = z_(i, j);
        const double difference = central_difference(
            [&](double h) {
              z_(i, j) = at + h;
              return kFactor * value_at(value, held);
            },
            kStep);
        z_(i, j) = at;
        latent_error.add(in_latents(i, j), difference, "latent " + std::to_string(i));
      }
    }
    EXPECT_LE(latent_error.worst(), kWorst) << latent_error.where();
  }

  TestDevice device_{"cpu"};
  NetworkOnDevice network_;
  HostMatrix z_ = random_matrix(kBatch, kLatents, 1, -1.5, 1.5);
};

double sum_of(Ops& ops, const Tensor& values) {
  double sum = 0;
  for (const double value : read_values(ops, values)) sum += value;
  return sum;
}

double exact_value(Ops& ops, Arena& arena, const NetworkJacobian& jacobian, const HostMatrix& /*held*/) {
  return sum_of(ops, exact_log_volume(ops, arena, jacobian, {false, false, 0}).value);
}

/// d log |J v| / |v| with v held.
double held_value(Ops& ops, Arena& arena, const NetworkJacobian& jacobian, const HostMatrix& held) {
  const Tensor v = arena.allocate(DType::f64, {held.rows, held.cols}),
               y = arena.allocate(DType::f64, {held.rows, jacobian.outputs()});
  write_values(ops, v, held.values);
  jacobian.apply(ops, arena, y, v);
  const std::vector<double> image = read_values(ops, y);
  double sum = 0;
  for (std::int64_t i = 0; i < held.rows; ++i) {
    double length = 0, norm = 0;
    for (std::int64_t c = 0; c < jacobian.outputs(); ++c)
      length += std::pow(image[static_cast<std::size_t>(i * jacobian.outputs() + c)], 2);
    for (std::int64_t c = 0; c < held.cols; ++c) norm += held(i, c) * held(i, c);
    sum += static_cast<double>(held.cols) / 2 * std::log(length / norm);
  }
  return sum;
}

Tensor start(Ops& ops, Arena& arena) {
  const Tensor v = arena.allocate(DType::f64, {kBatch, kLatents});
  write_values(ops, v, random_matrix(kBatch, kLatents, 2).values);
  return v;
}

TEST_F(JacobianGradientTest, ExactByGramAndByQr) {
  for (const double threshold : {1e6, 0.0}) {
    check(
        [&](Ops& ops, Arena& arena, const NetworkJacobian& j) {
          return exact_log_volume(ops, arena, j, {false, true, threshold});
        },
        exact_value);
  }
}

// v_1 needs no derivative: the total derivative, not that with v held.
TEST_F(JacobianGradientTest, Smallest) {
  check([](Ops& ops, Arena& arena, const NetworkJacobian& j) { return exact_smallest_volume(ops, arena, j); },
        [](Ops& ops, Arena& arena, const NetworkJacobian& j, const HostMatrix&) {
          return sum_of(ops, exact_smallest_volume(ops, arena, j, {false, false}).value);
        });
}

TEST_F(JacobianGradientTest, LobpcgWithItsDirectionHeld) {
  check(
      [](Ops& ops, Arena& arena, const NetworkJacobian& j) -> JacobianEstimate {
        return lobpcg_smallest(ops, arena, j, start(ops, arena), {1, 0});
      },
      held_value);
}

TEST_F(JacobianGradientTest, GolubKahanWithItsDirectionHeld) {
  check(
      [](Ops& ops, Arena& arena, const NetworkJacobian& j) -> JacobianEstimate {
        return golub_kahan_extremes(ops, arena, j, start(ops, arena), {2, 0});
      },
      held_value);
}

// All probes and converged solves: the derivative of h itself.
TEST_F(JacobianGradientTest, StochasticWithAllProbes) {
  check(
      [](Ops& ops, Arena& arena, const NetworkJacobian& j) -> JacobianEstimate {
        StochasticVolumeOptions options;
        options.tolerance = 1e-12;
        return stochastic_log_volume(ops, arena, j, make_probes(ops, arena, j, {ProbeKind::orthogonal, kLatents, 3}),
                                     options);
      },
      exact_value);
}

}  // namespace
}  // namespace bracket::test
