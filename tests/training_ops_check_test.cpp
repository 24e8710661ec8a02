// The checks of the ops of training: every rule is broken once.
#include <cstdint>
#include <functional>
#include <string>

#include "tests/ops_check_fixture.h"

namespace bracket {
namespace {

TEST_F(OpsCheckTest, Normalization) {
  const auto train = [&](const Tensor& running_mean, const Tensor& running_variance, const Tensor& gamma,
                         double momentum, double epsilon) {
    ops.batch_norm_train_forward(m(5, 3), v(3), v(3), running_mean, running_variance, m(5, 3), gamma, v(3), momentum,
                                 epsilon);
  };
  const std::string op = "batch_norm_train_forward";
  expect_refused([&] { train(v(3), {}, v(3), 0.1, 1e-5); }, op, "only one of running_mean and running_variance");
  expect_refused([&] { train(v(3), v(2), v(3), 0.1, 1e-5); }, op, "running_variance is f32[2]");
  expect_refused([&] { train({}, {}, {}, 0.1, 1e-5); }, op, "gamma is absent");
  expect_refused([&] { train({}, {}, v(3), 1.5, 1e-5); }, op, "momentum is 1.5; it must lie between 0 and 1");
  expect_refused([&] { train({}, {}, v(3), kNan, 1e-5); }, op, "momentum is nan");
  expect_refused([&] { train({}, {}, v(3), 0.1, 0); }, op, "epsilon is 0; it must be positive and finite");
  expect_refused([&] { train({}, {}, v(3), 0.1, kInfinity); }, op, "epsilon is inf");
  expect_refused([&] { train({}, {}, at.strided(3, 1, 2), 0.1, 1e-5); }, op, "gamma is f32[3, 1] with row stride 2");
  expect_refused([&] { ops.batch_norm_infer_forward(s(4), s(4), v(4), v(4), v(4), v(3), 1e-5, rows); },
                 "batch_norm_infer_forward", "running_variance is f32[3]");
  expect_refused(
      [&] {
        ops.batch_norm_infer_reverse(s(4), v(4), {}, s(4), {m(10, 4), {}}, v(4), v(4), v(4), 1e-5, rows,
                                     Update::overwrite);
      },
      "batch_norm_infer_reverse", "x.tangent is absent");
  expect_refused(
      [&] { ops.batch_norm_train_reverse(m(5, 3), {}, {}, m(5, 4), m(5, 3), v(3), v(3), v(3), Update::overwrite); },
      "batch_norm_train_reverse", "grad_y is f32[5, 4]");
  const auto spectral = [&](const Tensor& u, const Tensor& sigma, int iterations, double epsilon) {
    ops.spectral_norm_forward(m(4, 3), sigma, u, v(3), m(4, 3), iterations, epsilon);
  };
  expect_refused([&] { spectral(v(3), v(1), 1, 1e-12); }, "spectral_norm_forward",
                 "u is f32[3]; its shape must be [4]");
  expect_refused([&] { spectral(v(4), v(2), 1, 1e-12); }, "spectral_norm_forward", "sigma is f32[2]");
  expect_refused([&] { spectral(v(4), v(1), -1, 1e-12); }, "spectral_norm_forward", "iterations is -1");
  expect_refused([&] { spectral(v(4), v(1), 1, -1); }, "spectral_norm_forward", "epsilon is -1");
  expect_refused([&] { ops.spectral_norm_reverse(m(4, 3), m(3, 3), m(4, 3), v(1), v(4), v(3), Update::overwrite); },
                 "spectral_norm_reverse", "grad_w_normalized is f32[3, 3]");
}

TEST_F(OpsCheckTest, Densities) {
  expect_refused([&] { ops.fourier_features_forward(s(17), s(2), m(8, 2), rows); }, "fourier_features_forward",
                 "y.primal is f32[10, 17]; its shape must be [10, 18]");
  expect_refused([&] { ops.fourier_features_forward(s(18), s(3), m(8, 2), rows); }, "fourier_features_forward",
                 "x.primal is f32[10, 3]");
  expect_refused(
      [&] {
        ops.fourier_features_reverse(s(2), {{}, m(12, 18)}, s(2), m(8, 2), rows, Update::overwrite);
      },
      "fourier_features_reverse", "grad_y.primal is absent");
  const auto stairs = [&](const Staircase& map, std::int64_t parameters) {
    ops.monotone_staircase_forward(s(4), {}, s(4), s(parameters), map, rows);
  };
  const std::string op = "monotone_staircase_forward";
  expect_refused([&] { stairs(staircase, 33); }, op, "theta.primal is f32[10, 33]; its shape must be [10, 34]");
  expect_refused([&] { stairs({3, 2, 5, 2, 1}, 34); }, op, "active columns [3, 3 + 2) do not lie within the 4 columns");
  expect_refused([&] { stairs({-1, 2, 5, 2, 1}, 34); }, op, "active columns");
  expect_refused([&] { stairs({1, 2, -5, 2, 1}, 34); }, op, "knots is -5");
  expect_refused([&] { stairs({1, 2, 5, 0, 1}, 34); }, op, "max_slope is 0");
  expect_refused([&] { stairs({1, 2, 5, 2, kNan}, 34); }, op, "max_height is nan");
  expect_refused(
      [&] {
        ops.monotone_staircase_reverse(s(4), s(34), s(4), {}, s(4), {m(10, 34), {}}, staircase, rows);
      },
      "monotone_staircase_reverse", "theta.tangent is absent");
  Staircase jacobian = staircase;
  jacobian.passive_jacobian = true;
  expect_refused(
      [&] {
        ops.monotone_staircase_forward(s(4), {}, s(4), {m(10, 34), m(12, 34)}, jacobian, rows);
      },
      op, "theta.tangent is f32[12, 34]; its shape must be [8, 34]");
  // Logarithms of slopes, and what only their tangents need.
  expect_refused([&] { ops.monotone_staircase_forward(s(4), s(3), s(4), s(34), staircase, rows); }, op,
                 "log_slope.primal is f32[10, 3]; its shape must be [10, 2]");
  expect_refused(
      [&] {
        ops.monotone_staircase_forward({m(10, 4), {}}, s(2), {m(10, 4), {}}, s(34), staircase, rows);
      },
      op, "x.tangent is absent");
  const std::string reverse_op = "monotone_staircase_reverse";
  expect_refused([&] { ops.monotone_staircase_reverse(s(4), s(34), s(4), s(4), s(4), s(34), staircase, rows); },
                 reverse_op, "grad_log_slope.primal is f32[10, 4]");
  expect_refused(
      [&] {
        ops.monotone_staircase_reverse({m(10, 4), {}}, {}, {m(10, 4), {}}, s(2), s(4), s(34), staircase, rows);
      },
      reverse_op, "grad_y.tangent is absent");
  const auto splines = [&](const RationalQuadratic& map, std::int64_t parameters) {
    ops.rational_quadratic_forward(s(4), s(2), s(4), s(parameters), map, rows);
  };
  const std::string spline_op = "rational_quadratic_forward";
  expect_refused([&] { splines(spline, 27); }, spline_op, "theta.primal is f32[10, 27]; its shape must be [10, 28]");
  expect_refused([&] { splines({3, 2, 5, 3, 0.01, 0.01, 0.01}, 28); }, spline_op, "active columns");
  expect_refused([&] { splines({1, 2, 0, 3, 0.01, 0.01, 0.01}, 28); }, spline_op, "bins is 0");
  expect_refused([&] { splines({1, 2, 5, 0, 0.01, 0.01, 0.01}, 28); }, spline_op, "bound is 0");
  expect_refused([&] { splines({1, 2, 5, 3, 0.2, 0.01, 0.01}, 28); }, spline_op, "bins min_width is 1.0");
  expect_refused([&] { splines({1, 2, 5, 3, 0.01, 0, 0.01}, 28); }, spline_op, "min_height is 0");
  expect_refused([&] { splines({1, 2, 5, 3, 0.01, 0.01, 1}, 28); }, spline_op, "min_derivative is 1.0");
  expect_refused(
      [&] {
        ops.rational_quadratic_reverse(s(4), s(28), s(4), {}, s(4), {m(10, 28), {}}, spline, rows);
      },
      "rational_quadratic_reverse", "theta.tangent is absent");
  const Stacked tangents{{}, m(12, 4)}, theta{m(10, 34), {}}, grad_theta{{}, m(8, 34)}, x{m(10, 4), {}};
  expect_refused([&] { ops.monotone_staircase_reverse(tangents, {}, s(4), {}, s(4), theta, jacobian, rows); },
                 "monotone_staircase_reverse", "theta.tangent is absent");
  expect_refused([&] { ops.monotone_staircase_reverse({}, grad_theta, s(4), {}, x, theta, jacobian, rows); },
                 "monotone_staircase_reverse", "x.tangent is absent");
  expect_refused([&] { ops.confinement_forward(s(1), {}, s(2), {}, rows); }, "confinement_forward",
                 "e.primal is absent");
  expect_refused([&] { ops.confinement_forward(s(2), s(1), s(2), {}, rows); }, "confinement_forward",
                 "y.primal is f32[10, 2]; its shape must be [10, 1]");
  expect_refused(
      [&] {
        ops.confinement_forward(s(1), s(1), s(2), {-1, 0, 0}, rows);
      },
      "confinement_forward", "quadratic is -1");
  expect_refused([&] { ops.confinement_reverse(s(2), s(1), s(3), {}, rows, Update::overwrite); }, "confinement_reverse",
                 "grad_x.primal is f32[10, 2]; its shape must be [10, 3]");
  expect_refused([&] { ops.affine_columns_forward(s(4), s(4), v(4), v(3), rows); }, "affine_columns_forward",
                 "shift is f32[3]");
  expect_refused([&] { ops.affine_columns_reverse(s(4), s(3), v(4), rows, Update::overwrite); },
                 "affine_columns_reverse", "grad_y.primal is f32[10, 3]");
}

TEST_F(OpsCheckTest, OptimizerAndLosses) {
  const auto begin = [&](const std::function<void(Schedule&)>& change) {
    Schedule schedule;
    change(schedule);
    ops.begin_step(state, schedule);
  };
  EXPECT_NO_THROW(begin([](Schedule&) {}));
  expect_refused([&] { begin([](Schedule& x) { x.base_rate[0] = -1; }); }, "begin_step", "base_rate[energy] is -1");
  expect_refused([&] { begin([](Schedule& x) { x.base_rate[1] = kNan; }); }, "begin_step", "base_rate[generator]");
  expect_refused([&] { begin([](Schedule& x) { x.cosine = true; }); }, "begin_step", "total_steps is 0");
  expect_refused([&] { begin([](Schedule& x) { x.warmup_steps = -1; }); }, "begin_step", "warmup_steps is -1");
  expect_refused([&] { begin([](Schedule& x) { x.final_fraction = 2; }); }, "begin_step", "final_fraction is 2");
  expect_refused([&] { begin([](Schedule& x) { x.weight = -1; }); }, "begin_step", "weight is -1");
  expect_refused([&] { begin([](Schedule& x) { x.weight_rule = static_cast<Schedule::Weight>(7); }); }, "begin_step",
                 "weight_rule 7");
  expect_refused([&] { ops.begin_step(nullptr, {}); }, "begin_step", "state is null");
  auto* const misaligned = reinterpret_cast<StepState*>(static_cast<char*>(at.next()) + 4);
  expect_refused([&] { ops.count_update(misaligned, Player::energy); }, "count_update", "state is not aligned");
  expect_refused([&] { ops.count_update(state, static_cast<Player>(2)); }, "count_update", "player is 2");
  expect_refused([&] { ops.clip_gradient(state, v(1), 1, Player::energy); }, "clip_gradient", "squared_norm is f32[1]");
  expect_refused([&] { ops.clip_gradient(state, at.f64({1}), -1, Player::energy); }, "clip_gradient", "limit is -1");
  const auto adam = [&](const Tensor& first, const Adam& rule) {
    ops.adam(v(9), first, v(9), v(9), rule, state, Player::energy);
  };
  expect_refused([&] { adam({}, {}); }, "adam", "first_moment is absent");
  expect_refused([&] { adam(v(8), {}); }, "adam", "first_moment is f32[8]");
  expect_refused([&] { adam(v(9), {1.0, 0.9}); }, "adam", "beta1 is 1;");
  expect_refused([&] { adam(v(9), {0.9, -0.1}); }, "adam", "beta2 is -0.1");
  expect_refused([&] { adam(v(9), {0.9, 0.99, 0}); }, "adam", "epsilon is 0");
  expect_refused([&] { adam(v(9), {0.9, 0.99, 1e-8, -1}); }, "adam", "weight_decay is -1");
  expect_refused([&] { ops.adam(m(3, 3), v(9), v(9), v(9), {}, state, Player::energy); }, "adam",
                 "parameters is f32[3, 3]; its shape must be [9]");
  expect_refused([&] { ops.ema(v(9), v(8), 0.9, state); }, "ema", "average is f32[9]; its shape must be [8]");
  expect_refused([&] { ops.ema(v(9), v(9), 1.1, state); }, "ema", "decay is 1.1");
  expect_refused([&] { ops.end_step(state, nullptr, 1); }, "end_step", "ring is null");
  expect_refused([&] { ops.end_step(state, static_cast<StepRecord*>(at.next()), 0); }, "end_step", "ring_size is 0");

  const auto loss = [&](std::int64_t n, const Tensor& score_dot, const PenaltyRule& rule) {
    ops.energy_loss(v(n), v(n), v(n), state, v(n), v(n), v(n), score_dot, rule);
  };
  EXPECT_NO_THROW(loss(6, {}, {0, true}));
  expect_refused([&] { loss(0, v(0), {}); }, "energy_loss", "the batch size is 0; it must be at least 1");
  expect_refused([&] { loss(6, {}, {0, false}); }, "energy_loss", "score_dot is absent");
  expect_refused([&] { loss(6, v(6), {0, true}); }, "energy_loss", "the data-gradient penalty has none");
  expect_refused([&] { loss(6, v(6), {-1, false}); }, "energy_loss", "threshold is -1");
  expect_refused([&] { ops.energy_loss(v(6), v(6), v(6), state, v(6), v(5), v(6), v(6), {}); }, "energy_loss",
                 "e_fake is f32[5]");
  expect_refused([&] { ops.generator_loss(state, v(6), v(5), 1); }, "generator_loss", "h is f32[5]");
  expect_refused([&] { ops.generator_loss(state, v(0), v(0), 1); }, "generator_loss", "the batch size is 0");
  expect_refused([&] { ops.generator_loss(state, v(6), v(6), kNan); }, "generator_loss", "entropy_weight is nan");
  expect_refused([&] { ops.bound_record(state, v(6), v(6), m(5, 2)); }, "bound_record", "latent is f32[5, 2]");
  const auto adapt = [&](const WeightController& rule) { ops.adapt_penalty_weight(state, rule); };
  expect_refused([&] { adapt({0, 0.1, 0.9, 1, 2, 0}); }, "adapt_penalty_weight", "target is 0");
  expect_refused([&] { adapt({1, 0.1, 1.9, 1, 2, 0}); }, "adapt_penalty_weight", "decay is 1.9");
  expect_refused([&] { adapt({1, 0.1, 0.9, 3, 2, 0}); }, "adapt_penalty_weight", "maximum is 2; it must lie between 3");
  expect_refused([&] { adapt({1, 0.1, 0.9, 1, 2, -1}); }, "adapt_penalty_weight", "delay is -1");
}

TEST_F(OpsCheckTest, RandomNumbersAndData) {
  auto* const misaligned = reinterpret_cast<std::int64_t*>(static_cast<char*>(at.next()) + 2);
  RandomKey late = key;
  late.step = std::uint64_t{1} << 48;
  expect_refused([&] { ops.random_uniform(at.strided(2, 2, 3), key, 0, 1, nullptr); }, "random_uniform", "contiguous");
  expect_refused([&] { ops.random_uniform(v(4), key, 1, 0, nullptr); }, "random_uniform", "low is 1");
  expect_refused([&] { ops.random_uniform(v(4), key, 0, kInfinity, nullptr); }, "random_uniform", "high is inf");
  expect_refused([&] { ops.random_normal(v(4), late, nullptr); }, "random_normal",
                 "step 281474976710656 of the key is not below 2^48");
  expect_refused([&] { ops.random_normal(v(4), key, misaligned); }, "random_normal", "counter is not aligned");
  expect_refused([&] { ops.random_normal({}, key, nullptr); }, "random_normal", "y is absent");
  expect_refused([&] { ops.toy_samples(m(4, 3), ToyData::rings, key, nullptr); }, "toy_samples",
                 "y is f32[4, 3]; its shape must be [4, 2]");
  expect_refused([&] { ops.toy_samples(m(4, 2), static_cast<ToyData>(99), key, nullptr); }, "toy_samples",
                 "toy data set 99 is not known");
  expect_refused([&] { ops.gather_batch(m(4, 7), m(100, 6), key, nullptr); }, "gather_batch", "y is f32[4, 7]");
  expect_refused(
      [&] {
        ops.gather_batch(m(4, 7), Tensor(nullptr, DType::f32, {0, 7}), key, nullptr);
      },
      "gather_batch", "the number of table rows is 0");
  expect_refused([&] { ops.gather_batch(m(4, 7), {}, key, nullptr); }, "gather_batch", "table is absent");
}

}  // namespace
}  // namespace bracket
