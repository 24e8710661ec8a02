// Derivatives of the estimators in parameters and latents of a network against central differences of their values.
#include <map>

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
      request.accumulate_parameters = true;
      jacobian.reverse(context().ops(), network_.arena(), e.tangents, e.cotangents, kFactor, request);
      const std::vector<double> twice = to_host(context().ops(), network_.gradient());
      for (std::size_t i = 0; i < twice.size(); ++i) EXPECT_NEAR(twice[i], 2 * in_parameters[i], 1e-9);
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

// What holding the directions of an iteration constant leaves out: the total derivative, by central differences through
// the whole iteration from the same start, against <C, dJ V>. Differences of step 1e-5 are good to 1e-7 here. Medians
// over the operators: an iteration between two singular values has a derivative of any size. The directions of d
// Golub-Kahan steps are exact, and the value has no derivative in them.
class HeldDirections : public ::testing::Test {
 protected:
  static constexpr std::int64_t kOperators = 64, kInputs = 8, kOutputs = 12;

  using Iteration = std::function<JacobianEstimate(Ops&, Arena&, const JacobianOperator&, Tensor start)>;

  HeldDirections() {
    auto engine = test_engine(5);
    for (std::int64_t i = 0; i < kOperators; ++i) {
      operators_.push_back(with_singular_values(kOutputs, geometric_spectrum(kInputs, 0.3, 10), engine));
      changes_.push_back(normal_matrix(kOutputs, kInputs, engine));
    }
  }

  Tensor start(Ops& ops, Arena& arena) const {
    const Tensor v = arena.allocate(DType::f64, {kOperators, kInputs});
    write_values(ops, v, random_matrix(kOperators, kInputs, 2).values);
    return v;
  }

  std::vector<double> values(const Iteration& iteration, double step) {
    std::vector<MatrixXd> moved;
    for (std::size_t i = 0; i < operators_.size(); ++i) moved.push_back(operators_[i] + step * changes_[i]);
    const CallbackJacobian jacobian = matrix_jacobian(moved);
    return planned<std::vector<double>>(device_.context(), [&](Ops& ops, Arena& arena) {
      return read_values(ops, iteration(ops, arena, jacobian, start(ops, arena)).value);
    });
  }

  /// Share of the derivative that is missed, median over the operators.
  double distance(const Iteration& iteration) {
    constexpr double kStep = 1e-5;
    const CallbackJacobian jacobian = matrix_jacobian(operators_);
    struct Factors {
      HostMatrix v, c;
    };
    const Factors f = planned<Factors>(device_.context(), [&](Ops& ops, Arena& arena) {
      const JacobianEstimate e = iteration(ops, arena, jacobian, start(ops, arena));
      return Factors{download_from(device_.context(), ops, e.tangents),
                     download_from(device_.context(), ops, e.cotangents)};
    });
    const std::vector<double> above = values(iteration, kStep), below = values(iteration, -kStep);
    std::vector<double> missed;
    for (std::int64_t i = 0; i < kOperators; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double total = (above[at] - below[at]) / (2 * kStep);
      const double held = block_rows(f.c, i, 1).row(0).dot((changes_[at] * block_rows(f.v, i, 1).transpose()).col(0));
      missed.push_back(std::abs((held - total) / total));
    }
    std::nth_element(missed.begin(), missed.begin() + kOperators / 2, missed.end());
    return missed[kOperators / 2];
  }

  double lobpcg(std::int64_t steps) {
    return distance([steps](Ops& ops, Arena& arena, const JacobianOperator& j, Tensor v) -> JacobianEstimate {
      return lobpcg_smallest(ops, arena, j, v, {steps, 0});
    });
  }
  double golub_kahan(std::int64_t steps) {
    return distance([steps](Ops& ops, Arena& arena, const JacobianOperator& j, Tensor v) -> JacobianEstimate {
      return golub_kahan_extremes(ops, arena, j, v, {steps, 0});
    });
  }

 private:
  TestDevice device_{"cpu"};
  std::vector<MatrixXd> operators_, changes_;
};

// Far from convergence the direction turns with J about as fast as its image grows; near it, holding it costs nothing.
TEST_F(HeldDirections, MissMuchOfTheDerivativeUntilTheyConverge) {
  std::map<std::int64_t, double> missed;
  for (const std::int64_t steps : {1, 2, 4, 8, 16, 32}) {
    missed[steps] = lobpcg(steps);
    RecordProperty("lobpcg_" + std::to_string(steps), std::to_string(missed[steps]));
  }
  for (const std::int64_t steps : {1, 2, 4}) EXPECT_GT(missed[steps], 0.2) << steps;
  EXPECT_LT(missed[16], missed[8]);
  EXPECT_LT(missed[32], 1e-3);
  EXPECT_GT(golub_kahan(2), 0.2);
  EXPECT_LT(golub_kahan(kInputs), 1e-6);
}

}  // namespace
}  // namespace bracket::test
