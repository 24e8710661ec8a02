// The checks of the op list: every op accepts a correct call, and every rule of the common ones is broken once.
#include <cstdint>
#include <string>
#include <vector>

#include "tests/ops_check_fixture.h"

namespace bracket {
namespace {

TEST_F(OpsCheckTest, CorrectCallsPassAndAreCountedOncePerOp) {
  const Tensor squares = at.f64({4, 3, 3});
  const Schedule schedule{{1e-3, 1e-3}, 100, 10, true, 0.1};
  const KernelBox box{4, 2, 3, 2};
  ops.fill(m(3, 4), 1);
  ops.copy(m(3, 4), at.f64({3, 4}));
  ops.axpy(m(3, 4), 2, m(3, 4));
  ops.linear_forward(m(5, 2), m(5, 3), m(2, 3));
  ops.linear_reverse_data(m(5, 3), m(5, 2), m(2, 3), Update::overwrite);
  ops.linear_reverse_weights(m(2, 3), m(5, 2), m(5, 3), Update::accumulate);
  ops.conv2d_forward(m(5, 3 * 3 * 4), m(5, 6 * 5 * 2), m(4, 9 * 2), convolution);
  ops.conv2d_reverse_data(m(5, 6 * 5 * 2), m(5, 3 * 3 * 4), m(4, 9 * 2), convolution, Update::overwrite);
  ops.conv2d_reverse_weights(m(4, 9 * 2), m(5, 3 * 3 * 4), m(5, 6 * 5 * 2), convolution, Update::overwrite, {});
  ops.kernel_box_forward(m(4, 16 * 2), m(4, 9 * 2), box);
  ops.kernel_box_reverse(m(4, 9 * 2), m(4, 16 * 2), box, Update::accumulate);
  ops.bias_activation_forward(s(4), s(4), v(4), {}, {Activation::silu}, rows);
  ops.bias_activation_reverse(s(4), v(4), v(1), s(4), s(4), v(4), v(1), {Activation::prelu}, rows, Update::overwrite);
  ops.masked_activation_forward(s(22), at.u8({10, 4}), s(22), v(11), 11, {Activation::relu}, rows);
  ops.masked_activation_reverse(s(22), v(11), s(22), at.u8({10, 4}), 11, {Activation::leaky_relu}, rows,
                                Update::overwrite);
  ops.window_sum(m(3, 12), m(3, 48), window, Update::overwrite);
  ops.window_spread(m(3, 48), m(3, 12), window, Update::accumulate);
  ops.max_pool_forward(m(3, 12), at.u8({3, 12}), m(3, 48), {4, 4, 3, 2});
  ops.max_pool_reverse(m(3, 48), m(3, 12), at.u8({3, 12}), {4, 4, 3, 2});
  ops.batch_norm_train_forward(m(5, 3), v(3), v(3), v(3), v(3), m(5, 3), v(3), v(3), 0.1, 1e-5);
  ops.batch_norm_train_reverse(m(5, 3), v(3), v(3), m(5, 3), m(5, 3), v(3), v(3), v(3), Update::overwrite);
  ops.batch_norm_infer_forward(s(4), s(4), v(4), v(4), v(4), v(4), 1e-5, rows);
  ops.batch_norm_infer_reverse(s(4), v(4), v(4), s(4), s(4), v(4), v(4), v(4), 1e-5, rows, Update::overwrite);
  ops.spectral_norm_forward(m(4, 3), v(1), v(4), v(3), m(4, 3), 1, 1e-12);
  ops.spectral_norm_reverse(m(4, 3), m(4, 3), m(4, 3), v(1), v(4), v(3), Update::overwrite);
  ops.row_dot(v(5), m(5, 3), m(5, 3));
  ops.row_norm(v(5), m(5, 3));
  ops.sum(at.f64({1}), m(5, 3), workspace);
  ops.squared_norm(at.f64({1}), m(5, 3), workspace);
  ops.finite_check(state, m(5, 3), 1, workspace);
  ops.gram(squares, m(12, 7));
  ops.cholesky(squares);
  ops.triangular_solve(m(12, 7), squares, m(12, 7), true);
  ops.log_diagonal_sum(v(4), squares);
  ops.symmetric_eigen(at.f64({4, 3}), at.f64({4, 3, 3}), squares);
  ops.min_singular(v(4), m(4, 3), v(4), at.f64({4, 3}), squares);
  ops.lobpcg_residual(m(4, 3), m(4, 3), m(4, 3), m(4, 5));
  ops.lobpcg_update(m(4, 3), m(4, 3), m(4, 5), m(4, 5), m(4, 3), m(4, 5), at.f64({4}));
  ops.lobpcg_volume(v(4), v(4), m(4, 3), m(4, 5));
  ops.lobpcg_block_update(m(4, 3), m(4, 3), m(4, 5), m(4, 5), m(4, 3), m(4, 5), 2, at.f64({2}));
  ops.lobpcg_block_order(m(4, 3), m(4, 5), v(4), at.f64({4}), at.f64({4}), at.f64({4}), 2);
  ops.lq_factor(squares, at.f64({12, 7}));
  ops.singular_values(at.f64({4, 3}), at.f64({4, 3, 3}), squares);
  ops.log_volume(at.f64({4}), at.f64({4}), at.f64({4, 3}), 1e-12);
  ops.rank_threshold(at.f64({4}), v(4), at.f64({2}), at.f64({4}), at.f64({2}), 1e-12);
  ops.normalize_rows(m(4, 3), at.f64({4}), m(4, 3));
  ops.golub_kahan_left(m(4, 7), at.f64({4, 5}), m(4, 7), at.f64({4, 5}), 4);
  ops.golub_kahan_right(m(20, 3), at.f64({4, 5}), m(4, 3), at.f64({4, 5}), 4);
  ops.bidiagonal(squares, at.f64({4, 5}), at.f64({4, 5}));
  ops.quadrature_rules(at.f64({3, 8}), at.f64({3, 8}), at.f64({4, 5}), at.f64({4, 5}), {}, at.f64({24}));
  ops.quadrature(at.f64({4}), at.f64({4}), at.f64({3, 8}), at.f64({3, 8}), at.f64({4}), at.f64({2, 4}), kLogarithm, 0);
  ops.spectral_coefficients(m(4, 5), at.f64({4, 3}), squares, at.f64({4}), kInverse, 0);
  ops.singular_certificate(at.f64({4}), v(4), at.f64({4}), at.f64({4}), m(4, 3), m(4, 3), m(4, 7), 3);
  ops.conjugate_gradient_step(m(4, 3), m(4, 3), m(4, 3), at.f64({4}), m(4, 3), m(4, 7), at.f64({4}), 0.1, at.f64({4}));
  ops.conjugate_direction(m(4, 3), at.f64({4}), m(4, 3), m(4, 3));
  ops.random_signs(v(5), key, nullptr);
  ops.project_rows(m(4, 7), m(6, 7), 2);
  ops.clear_rows(m(6, 7), at.f64({3}));
  ops.probe_mean(at.f64({4}), at.f64({4}), at.f64({12}), 1);
  ops.roulette_weights(at.f64({5, 4}), 1, 0.5, key, nullptr);
  ops.leave_one_out_trace(at.f64({4}), at.f64({4}), at.f64({4, 6, 6}), at.f64({4, 6, 6}), squares, at.f64({12}));
  ops.combine_tangents(m(4, 7), m(12, 7), m(4, 3));
  ops.scale_rows(m(5, 3), m(5, 3), v(5), 2);
  ops.tile_identity(m(12, 3), 4);
  ops.fourier_features_forward(s(2 + 16), s(2), m(8, 2), rows);
  ops.fourier_features_reverse(s(2), s(2 + 16), s(2), m(8, 2), rows, Update::overwrite);
  ops.monotone_staircase_forward(s(4), s(2), s(4), s(34), staircase, rows);
  ops.monotone_staircase_reverse(s(4), s(34), s(4), s(2), s(4), s(34), staircase, rows);
  ops.rational_quadratic_forward(s(4), s(2), s(4), s(28), spline, rows);
  ops.rational_quadratic_reverse(s(4), s(28), s(4), s(2), s(4), s(28), spline, rows);
  ops.confinement_forward(s(1), s(1), s(2), {0.1, 1, 3}, rows);
  ops.confinement_reverse(s(2), s(1), s(2), {0.1, 1, 3}, rows, Update::accumulate);
  ops.affine_columns_forward(s(4), s(4), v(4), v(4), rows);
  ops.affine_columns_reverse(s(4), s(4), v(4), rows, Update::overwrite);
  ops.begin_step(state, schedule);
  ops.clip_gradient(state, at.f64({1}), 1, Player::energy);
  ops.adam(v(9), v(9), v(9), v(9), {}, state, Player::generator);
  ops.count_update(state, Player::energy);
  ops.ema(v(9), v(9), 0.999, state);
  ops.end_step(state, static_cast<StepRecord*>(at.next()), 100);
  ops.energy_loss(v(6), v(6), v(6), state, v(6), v(6), v(6), v(6), {0.5, false});
  ops.generator_loss(state, v(6), v(6), 1);
  ops.bound_record(state, v(6), v(6), m(6, 2));
  ops.adapt_penalty_weight(state, {0.1, 0.1, 0.9, 1e-3, 1e3, 100});
  ops.random_uniform(v(9), key, 0, 1, nullptr);
  ops.random_normal(m(4, 4), key, static_cast<std::int64_t*>(at.next()));
  ops.toy_samples(m(4, 2), ToyData::two_moons, key, nullptr);
  ops.gather_batch(m(4, 7), m(100, 7), key, nullptr);
  ops.gather_images(m(4, 12), at.u8({100, 12}), key, nullptr, {2, 2, 3});
  ops.softmax_cross_entropy(v(4), m(4, 10), m(4, 10), at.u8({4}));

  std::int64_t num_ops = 0;
#define BRACKET_OP(...) ++num_ops;
#include "kernels/ops_list.inc"
#undef BRACKET_OP
  EXPECT_EQ(ops.total_calls(), num_ops);
  for (const auto& [name, calls] : ops.calls()) EXPECT_EQ(calls, 1) << name;
  EXPECT_EQ(static_cast<std::int64_t>(ops.calls().size()), num_ops) << "an op is missing in this test";
  EXPECT_EQ(ops.calls().at("linear_forward"), 1);
  ops.reset_calls();
  EXPECT_EQ(ops.total_calls(), 0);
}

TEST_F(OpsCheckTest, EmptyAndStridedOperandsPass) {
  EXPECT_NO_THROW(
      ops.linear_forward(Tensor(nullptr, DType::f32, {0, 2}), Tensor(nullptr, DType::f32, {0, 3}), m(2, 3)));
  EXPECT_NO_THROW(ops.linear_reverse_weights(m(2, 3), Tensor(nullptr, DType::f32, {0, 2}),
                                             Tensor(nullptr, DType::f32, {0, 3}), Update::overwrite));
  EXPECT_EQ(ops.calls().at("linear_reverse_weights"), 1) << "overwriting with an empty sum must still run";
  EXPECT_NO_THROW(ops.sum(at.f64({1}), Tensor(nullptr, DType::f32, {0}), workspace));
  EXPECT_NO_THROW(ops.linear_forward(at.strided(5, 2, 8), at.strided(5, 3, 9), at.strided(2, 3, 4)));
  EXPECT_NO_THROW(ops.bias_activation_forward({m(5, 4), {}}, {m(5, 4), {}}, {}, {}, {}, {5, 0, 0, 0}));
  EXPECT_NO_THROW(ops.bias_activation_forward({{}, m(0, 4)}, {m(5, 4), m(0, 4)}, {}, {}, {}, {5, 0, 0, 0}));
  const Stacked x = s(4);
  EXPECT_NO_THROW(ops.bias_activation_forward(x, x, {}, {}, {Activation::relu}, rows)) << "y may alias x";
  EXPECT_NO_THROW(ops.adam(v(9), {}, v(9), v(9), {0.0, 0.9}, state, Player::energy));
  EXPECT_NO_THROW(ops.bound_record(state, m(6, 1), v(6), m(6, 2))) << "[n, 1] serves as [n]";
}

TEST_F(OpsCheckTest, DtypesShapesAndMemory) {
  expect_refused(
      [&] {
        ops.linear_forward(m(5, 2), m(5, 3), at.f64({2, 3}));
      },
      "linear_forward", "w is f64[2, 3] but y is f32[5, 2]; both must have one dtype");
  expect_refused([&] { ops.linear_forward(m(5, 2), m(5, 3), m(2, 4)); }, "linear_forward",
                 "x is f32[5, 3]; its shape must be [5, 4]");
  expect_refused([&] { ops.linear_forward(m(4, 2), m(5, 3), m(2, 3)); }, "linear_forward",
                 "y is f32[4, 2]; its shape must be [5, 2]");
  expect_refused([&] { ops.linear_forward({}, m(5, 3), m(2, 3)); }, "linear_forward", "y is absent");
  expect_refused([&] { ops.linear_forward(m(5, 2), {}, m(2, 3)); }, "linear_forward", "x is absent");
  expect_refused([&] { ops.linear_forward(m(5, 2), m(5, 3), {}); }, "linear_forward", "w is absent");
  expect_refused([&] { ops.fill(Tensor(nullptr, DType::f32, {2}), 0); }, "fill", "y is f32[2] without memory");
  expect_refused([&] { ops.fill(Tensor(static_cast<char*>(at.next()) + 4, DType::f64, {2}), 0); }, "fill",
                 "starts 4 bytes past a multiple of its element size; align it to 8 bytes");
  expect_refused([&] { ops.copy(m(2, 3), m(3, 2)); }, "copy", "y is f32[2, 3] but x is f32[3, 2]");
  expect_refused([&] { ops.copy(v(6), m(3, 2)); }, "copy", "both must have one shape");
  expect_refused([&] { ops.copy(m(2, 3), {}); }, "copy", "x is absent");
  expect_refused([&] { ops.axpy(m(2, 3), 1, at.f64({2, 3})); }, "axpy", "one dtype");
  expect_refused([&] { ops.axpy(m(2, 3), 1, m(2, 4)); }, "axpy", "one shape");
  const Tensor shared = m(5, 5);
  expect_refused([&] { ops.linear_forward(shared, shared, m(5, 5)); }, "linear_forward", "share memory");
  expect_refused([&] { ops.linear_forward(shared.slice_rows(1, 4), shared.slice_rows(0, 4), m(5, 5)); },
                 "linear_forward", "y (f32[4, 5]) and x (f32[4, 5]) share memory; they must be apart");
  EXPECT_NO_THROW(ops.linear_forward(shared.slice_rows(0, 2), shared.slice_rows(2, 2), m(5, 5)));
  EXPECT_NO_THROW(ops.linear_forward(shared.slice_cols(0, 2), shared.slice_cols(2, 2), m(2, 2)));
  expect_refused([&] { ops.linear_reverse_data(m(5, 3), m(5, 2), m(3, 2), Update::overwrite); }, "linear_reverse_data",
                 "grad_x is f32[5, 3]; its shape must be [5, 2]");
  expect_refused([&] { ops.linear_reverse_data(m(5, 3), m(5, 3), m(2, 3), Update::overwrite); }, "linear_reverse_data",
                 "grad_y is f32[5, 3]");
  expect_refused([&] { ops.linear_reverse_data(m(5, 3), m(5, 2), m(2, 3), static_cast<Update>(9)); },
                 "linear_reverse_data", "update is 9");
  expect_refused([&] { ops.linear_reverse_weights(m(2, 3), m(5, 2), m(4, 3), Update::overwrite); },
                 "linear_reverse_weights", "grad_y is f32[5, 2]; its shape must be [4, 2]");
  expect_refused([&] { ops.linear_reverse_weights(m(2, 4), m(5, 2), m(5, 3), Update::overwrite); },
                 "linear_reverse_weights", "grad_w is f32[2, 4]; its shape must be [2, 3]");
  expect_refused([&] { ops.upload(at.strided(2, 2, 3), &rows); }, "upload", "must be contiguous");
  expect_refused([&] { ops.upload(v(2), nullptr); }, "upload", "host is null");
  std::vector<float> host(4);
  expect_refused([&] { ops.download(host.data(), at.strided(2, 2, 3)); }, "download", "must be contiguous");
  expect_refused([&] { ops.download(nullptr, v(2)); }, "download", "host is null");
}

TEST_F(OpsCheckTest, StackedRows) {
  const auto forward = [&](const Stacked& y, const Stacked& x, const Rows& r) {
    ops.bias_activation_forward(y, x, {}, {}, {Activation::tanh}, r);
  };
  const std::string op = "bias_activation_forward";
  expect_refused(
      [&] {
        forward(s(4), s(4), {10, 8, 4, 3});
      },
      op, "rows are {primal 10, first 8, count 4, tangents 3}; all must be 0 or more, first + count at most");
  expect_refused([&] { forward(s(4), s(4), {-1, 0, 0, 0}); }, op, "rows are {primal -1");
  expect_refused([&] { forward(s(4), s(4), {10, -1, 4, 3}); }, op, "rows are");
  expect_refused([&] { forward(s(4), s(4), {10, 2, 4, -3}); }, op, "rows are");
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  expect_refused([&] { forward(s(4), s(4), {10, 2, 4, huge / 2}); }, op, "rows are");
  expect_refused([&] { forward(s(4), s(4), {10, huge, huge, 1}); }, op, "rows are");
  expect_refused([&] { forward({m(9, 4), {}}, s(4), rows); }, op, "y.primal is f32[9, 4]; its shape must be [10, 4]");
  expect_refused(
      [&] {
        forward({m(10, 4), m(11, 4)}, s(4), rows);
      },
      op, "y.tangent is f32[11, 4]; its shape must be [12, 4]");
  expect_refused([&] { forward({}, s(4), rows); }, op, "y.primal and y.tangent are both absent");
  expect_refused([&] { forward(s(4), {m(10, 4), {}}, rows); }, op, "x.tangent is absent");
  expect_refused([&] { forward(s(4), {{}, m(12, 4)}, rows); }, op, "x.primal is absent");
  expect_refused([&] { forward(s(4), {m(10, 4), at.f64({12, 4})}, rows); }, op, "x.tangent is f64[12, 4] but x.primal");
  expect_refused([&] { forward({m(10, 3), {}}, s(4), rows); }, op, "y.primal is f32[10, 3]");
}

TEST_F(OpsCheckTest, Activations) {
  const std::string forward = "bias_activation_forward";
  const std::string reverse = "bias_activation_reverse";
  const auto run = [&](const Tensor& bias, const Tensor& slope, ActivationKind kind) {
    ops.bias_activation_forward(s(4), s(4), bias, slope, kind, rows);
  };
  expect_refused([&] { run(v(5), {}, {}); }, forward, "bias is f32[5]; its size must divide the number of columns, 4");
  expect_refused([&] { run(at.f32({0}), {}, {}); }, forward, "bias is f32[0]; its size must divide");
  EXPECT_NO_THROW(run(v(2), {}, {})) << "two pixels of two channels";
  EXPECT_NO_THROW(run({}, v(2), {Activation::prelu}));
  EXPECT_NO_THROW(run(v(2), v(2), {Activation::prelu}));
  expect_refused([&] { run(v(2), v(4), {Activation::prelu}); }, forward, "slope is f32[4]; its shape must be [2]");
  expect_refused([&] { run({}, {}, {Activation::prelu}); }, forward, "slope is absent");
  expect_refused([&] { run({}, v(3), {Activation::prelu}); }, forward, "slope is f32[3]; its size must divide");
  expect_refused([&] { run({}, v(4), {Activation::relu}); }, forward, "only prelu has one");
  expect_refused([&] { run({}, {}, {Activation::leaky_relu, kNan}); }, forward, "negative_slope is nan");
  expect_refused([&] { run({}, {}, {static_cast<Activation>(77)}); }, forward, "activation function 77 is not known");
  const auto back = [&](const Stacked& grad_x, const Tensor& grad_bias, const Tensor& grad_slope, const Stacked& grad_y,
                        const Stacked& x) {
    ops.bias_activation_reverse(grad_x, grad_bias, grad_slope, grad_y, x, {}, {}, {Activation::silu}, rows,
                                Update::overwrite);
  };
  EXPECT_NO_THROW(back(s(4), v(4), {}, {{}, m(12, 4)}, s(4))) << "grad_y.primal absent means zero";
  EXPECT_NO_THROW(back({m(10, 4), {}}, {}, {}, {m(10, 4), {}}, {m(10, 4), {}}));
  expect_refused([&] { back({{}, m(12, 4)}, v(4), {}, s(4), s(4)); }, reverse, "grad_bias is asked for without");
  expect_refused([&] { back(s(4), {}, v(1), s(4), s(4)); }, reverse, "grad_slope is asked for but there is no slope");
  expect_refused([&] { back(s(4), {}, {}, {m(10, 4), {}}, s(4)); }, reverse, "grad_y.tangent is absent");
  expect_refused([&] { back(s(4), {}, {}, s(4), {m(10, 4), {}}); }, reverse, "x.tangent is absent");
  expect_refused([&] { back(s(4), v(3), {}, s(4), s(4)); }, reverse, "grad_bias is f32[3]");
}

TEST_F(OpsCheckTest, StorageTypesAreNotForArithmetic) {
  const Tensor bytes = at.u8({3, 4});
  expect_refused([&] { ops.fill(bytes, 1); }, "fill", "y is u8[3, 4]; u8 is for storage, arithmetic needs f32 or f64");
  expect_refused([&] { ops.copy(bytes, m(3, 4)); }, "copy", "y is u8[3, 4]; u8 is for storage");
  expect_refused([&] { ops.copy(m(3, 4), bytes); }, "copy", "x is u8[3, 4]; u8 is for storage");
  expect_refused([&] { ops.axpy(bytes, 1, bytes); }, "axpy", "y is u8[3, 4]; u8 is for storage");
  expect_refused([&] { ops.linear_forward(m(5, 2), m(5, 3), at.u8({2, 3})); }, "linear_forward", "one dtype");
  expect_refused([&] { ops.row_dot(at.u8({3}), bytes, bytes); }, "row_dot", "u8 is for storage");
  expect_refused([&] { ops.squared_norm(at.f64({1}), bytes, workspace); }, "squared_norm", "u8 is for storage");
  expect_refused([&] { ops.random_uniform(bytes, key, 0, 1, nullptr); }, "random_uniform", "u8 is for storage");
  expect_refused([&] { ops.gather_batch(m(2, 4), bytes, key, nullptr); }, "gather_batch", "table is u8[3, 4]");
  expect_refused([&] { ops.gather_batch(at.u8({2, 4}), bytes, key, nullptr); }, "gather_batch", "u8 is for storage");
  std::vector<std::uint8_t> host(12);
  EXPECT_NO_THROW(ops.upload(bytes, host.data())) << "transfers take every dtype";
}

TEST_F(OpsCheckTest, ReductionsAndDenseAlgebra) {
  const Tensor squares = at.f64({4, 3, 3});
  expect_refused([&] { ops.row_dot(v(5), m(5, 3), m(5, 4)); }, "row_dot", "b is f32[5, 4]");
  expect_refused([&] { ops.row_dot(v(4), m(5, 3), m(5, 3)); }, "row_dot", "y is f32[4]");
  expect_refused([&] { ops.row_norm(v(4), m(5, 3)); }, "row_norm", "y is f32[4]");
  expect_refused([&] { ops.sum(v(1), m(5, 3), workspace); }, "sum", "sum is f32[1]; it must be f64");
  expect_refused([&] { ops.sum(at.f64({2}), m(5, 3), workspace); }, "sum", "sum is f64[2]; its shape must be [1]");
  expect_refused([&] { ops.sum(at.f64({1}), m(5, 3), at.f64({1023})); }, "sum",
                 "workspace is f64[1023]; it must hold at least 1024 elements");
  expect_refused([&] { ops.squared_norm(at.f64({1}), m(5, 3), v(2000)); }, "squared_norm", "workspace is f32[2000]");
  expect_refused([&] { ops.squared_norm(at.f64({1}), m(5, 3), {}); }, "squared_norm", "workspace is absent");
  expect_refused([&] { ops.finite_check(nullptr, m(5, 3), 1, workspace); }, "finite_check", "state is null");
  expect_refused([&] { ops.finite_check(state, m(5, 3), 0, workspace); }, "finite_check", "tag is 0");
  expect_refused(
      [&] {
        ops.gram(at.f64({4, 3, 2}), m(12, 7));
      },
      "gram", "g is f64[4, 3, 2]; its shape must be [4, 3, 3]");
  expect_refused([&] { ops.gram(at.f32({4, 3, 3}), m(12, 7)); }, "gram", "g is f32[4, 3, 3]; it must be f64");
  expect_refused([&] { ops.gram(squares, m(13, 7)); }, "gram", "t is f32[13, 7]; its shape must be [12, 7]");
  expect_refused([&] { ops.cholesky(at.f64({4, 9})); }, "cholesky", "its shape must be [n, K, K]");
  expect_refused([&] { ops.triangular_solve(m(12, 7), squares, m(11, 7), false); }, "triangular_solve",
                 "b is f32[11, 7]");
  expect_refused([&] { ops.log_diagonal_sum(v(3), squares); }, "log_diagonal_sum", "h is f32[3]");
  expect_refused(
      [&] {
        ops.symmetric_eigen(at.f64({4, 2}), at.f64({4, 3, 3}), squares);
      },
      "symmetric_eigen", "values is f64[4, 2]");
  expect_refused([&] { ops.symmetric_eigen(at.f64({4, 3}), squares, squares); }, "symmetric_eigen", "share memory");
  expect_refused(
      [&] {
        ops.min_singular(v(4), m(4, 2), v(4), at.f64({4, 3}), squares);
      },
      "min_singular", "v is f32[4, 2]");
  expect_refused(
      [&] {
        ops.min_singular(v(4), m(4, 3), at.f64({4}), at.f64({4, 3}), squares);
      },
      "min_singular", "scale is f64[4] but h is f32[4]");
  expect_refused(
      [&] {
        ops.min_singular(v(4), m(4, 0), v(4), at.f64({4, 0}), at.f64({4, 0, 0}));
      },
      "min_singular", "K is 0");
  expect_refused([&] { ops.combine_tangents(m(4, 7), m(11, 7), m(4, 3)); }, "combine_tangents", "t is f32[11, 7]");
  expect_refused([&] { ops.scale_rows(m(5, 3), m(5, 3), v(4), 1); }, "scale_rows", "scale is f32[4]");
  expect_refused([&] { ops.tile_identity(m(12, 3), 5); }, "tile_identity", "t is f32[12, 3], too small");
  expect_refused([&] { ops.tile_identity(m(12, 3), 3); }, "tile_identity", "its shape must be [9, 3]");
  expect_refused([&] { ops.tile_identity(m(12, 3), -1); }, "tile_identity", "samples is -1");
}

TEST_F(OpsCheckTest, LobpcgBlocks) {
  const Tensor x = m(4, 3), y = m(4, 5), numbers = at.f64({4});
  const auto update = [&](const Tensor& v, const Tensor& p, const Tensor& r, const Tensor& jr, std::int64_t block) {
    expect_refused([&] { ops.lobpcg_block_update(v, p, m(4, 5), m(4, 5), r, jr, block); }, "lobpcg_block_update",
                   block < 1 || block > 3 ? "block is " + std::to_string(block) : "");
  };
  update(x, m(4, 3), m(4, 3), m(4, 5), 0);
  update(x, m(4, 3), m(4, 3), m(4, 5), 4);  // of directions of 3 elements
  update(x, m(4, 3), m(4, 3), m(4, 5), 3);  // of 4 rows
  update(x, x, m(4, 3), m(4, 5), 2);
  update(x, m(4, 2), m(4, 3), m(4, 5), 2);
  update(x, m(4, 3), m(3, 3), m(4, 5), 2);
  update(x, m(4, 3), m(4, 3), at.f64({4, 5}), 2);
  expect_refused([&] { ops.lobpcg_block_update(m(10, 8), m(10, 8), m(10, 9), m(10, 9), m(10, 8), m(10, 9), 5); },
                 "lobpcg_block_update", "block is 5 for directions of 8 elements; must lie in 1 .. 4");
  expect_refused([&] { ops.lobpcg_block_update(x, m(4, 3), m(4, 5), m(4, 5), m(4, 3), m(4, 5), 2, numbers); },
                 "lobpcg_block_update", "largest is f64[4]");
  expect_refused([&] { ops.lobpcg_update(x, m(4, 3), m(4, 5), m(4, 5), m(4, 3), m(4, 5), v(4)); }, "lobpcg_update",
                 "largest is f32[4]");
  const auto order = [&](const Tensor& jv, const Tensor& scale, const Tensor& h, const Tensor& mu, std::int64_t block) {
    expect_refused([&] { ops.lobpcg_block_order(x, jv, scale, h, mu, at.f64({4}), block); }, "lobpcg_block_order", "");
  };
  order(y, v(4), at.f64({4}), at.f64({4}), 3);
  order(y, v(4), numbers, numbers, 2);
  order(y, v(4), v(4), at.f64({4}), 2);
  order(y, v(3), at.f64({4}), at.f64({4}), 2);
  order(m(3, 5), v(4), at.f64({4}), at.f64({4}), 2);
  order({}, v(4), at.f64({4}), at.f64({4}), 2);
}

TEST_F(OpsCheckTest, Jacobians) {
  const Tensor squares = at.f64({4, 3, 3}), n = at.f64({4}), steps = at.f64({4, 5});
  const Tensor thin = at.f64({12, 2}), few = at.f64({3}), values = at.f64({4, 3}), large = at.f64({4, 6, 6});
  const Tensor wide = at.f64({4, 4, 4}), other = at.f64({4, 4});
  expect_refused([&] { ops.lq_factor(squares, m(12, 7)); }, "lq_factor", "t is f32[12, 7]; it must be f64");
  expect_refused([&] { ops.lq_factor(squares, thin); }, "lq_factor", "3 rows of 2 columns");
  expect_refused([&] { ops.singular_values(values, squares, squares); }, "singular_values", "share memory");
  expect_refused([&] { ops.log_volume(few, n, values, 0); }, "log_volume", "h is f64[3]");
  expect_refused([&] { ops.log_volume(n, n, values, kNan); }, "log_volume", "tolerance is nan");
  expect_refused([&] { ops.normalize_rows(m(4, 3), v(4), m(4, 3)); }, "normalize_rows", "norm is f32[4]");
  expect_refused([&] { ops.golub_kahan_left(m(4, 7), steps, m(4, 7), steps, 5); }, "golub_kahan_left", "step is 5");
  expect_refused([&] { ops.golub_kahan_left(m(4, 7), steps, m(4, 6), steps, 0); }, "golub_kahan_left",
                 "jv is f32[4, 6]");
  expect_refused([&] { ops.golub_kahan_left(m(4, 7), steps, m(4, 7), other, 0); }, "golub_kahan_left",
                 "beta is f64[4, 4]");
  expect_refused([&] { ops.golub_kahan_right(m(16, 3), steps, m(4, 3), steps, 0); }, "golub_kahan_right",
                 "basis is f32[16, 3]");
  expect_refused([&] { ops.golub_kahan_right(m(20, 3), steps, m(4, 3), steps, -1); }, "golub_kahan_right",
                 "step is -1");
  expect_refused([&] { ops.rank_threshold(n, v(4), few, n, few, 0); }, "rank_threshold", "rows of largest");
  expect_refused([&] { ops.rank_threshold(n, v(4), n, n, n, kNan); }, "rank_threshold", "tolerance is nan");
  expect_refused([&] { ops.rank_threshold(few, v(4), n, n, n, 0); }, "rank_threshold", "h is f64[3]");
  expect_refused([&] { ops.bidiagonal(large, steps, steps); }, "bidiagonal", "1 to 5 rows");
  const auto rules = [&](const Tensor& nodes, const Tensor& lower, const Tensor& work, const char* text) {
    expect_refused(
        [&] {
          ops.quadrature_rules(nodes, at.f64({nodes.rows(), nodes.cols()}), steps, steps, lower, work);
        },
        "quadrature_rules", text);
  };
  rules(at.f64({6, 4}), {}, at.f64({24}), "1 to 5 nodes");
  rules(at.f64({7, 4}), n, at.f64({28}), "1 to 6 nodes");
  rules(at.f64({3, 6}), {}, at.f64({18}), "1 to 3 rules of 4 rows");
  rules(at.f64({3, 16}), {}, at.f64({48}), "1 to 3 rules of 4 rows");
  rules(at.f64({3, 4}), few, at.f64({12}), "rows of lower");
  rules(at.f64({3, 8}), n, at.f64({24}), "more than one rule per row");
  rules(at.f64({3, 4}), {}, few, "workspace is f64[3]");
  const Tensor nodes = at.f64({3, 4}), shares = at.f64({3, 4});
  const auto quadrature = [&](const Tensor& zeros, const Tensor& weight, const SpectralFunction& f, double tolerance,
                              const char* text) {
    expect_refused([&] { ops.quadrature(n, zeros, nodes, shares, n, weight, f, tolerance); }, "quadrature", text);
  };
  quadrature(few, {}, kLogarithm, 0, "zeros is f64[3]");
  quadrature(n, at.f64({2, 4}), kLogarithm, 0, "nodes is f64[3, 4]");
  quadrature(n, few, kLogarithm, 0, "weight is f64[3]");
  quadrature(n, {}, power_function(kInfinity), 0, "exponent is inf");
  quadrature(n, {}, kLogarithm, -1, "tolerance is -1");
  expect_refused([&] { ops.spectral_coefficients(m(4, 2), values, squares, n, kLogarithm, 0); },
                 "spectral_coefficients", "1 to 2 rows");
  expect_refused([&] { ops.spectral_coefficients(m(4, 5), other, squares, n, kLogarithm, 0); }, "spectral_coefficients",
                 "values is f64[4, 4]");
  expect_refused([&] { ops.singular_certificate(n, v(4), n, n, m(4, 3), m(4, 3), m(4, 7), 0); }, "singular_certificate",
                 "dimension is 0");
  expect_refused([&] { ops.singular_certificate(n, n, n, n, m(4, 3), m(4, 3), m(4, 7), 3); }, "singular_certificate",
                 "scale is f64[4]");
  expect_refused([&] { ops.conjugate_gradient_step(m(4, 3), m(4, 3), m(4, 3), n, m(4, 3), m(3, 7), n, 0.1); },
                 "conjugate_gradient_step", "jp is f32[3, 7]");
  expect_refused([&] { ops.conjugate_gradient_step(m(4, 3), m(4, 3), m(4, 3), n, m(4, 3), m(4, 7), n, -1); },
                 "conjugate_gradient_step", "tolerance is -1");
  expect_refused([&] { ops.conjugate_gradient_step(m(4, 3), m(4, 3), m(4, 3), n, m(4, 3), m(4, 7), n, 0, few); },
                 "conjugate_gradient_step", "energy is f64[3]");
  expect_refused([&] { ops.conjugate_direction(m(4, 3), few, m(4, 3), m(4, 3)); }, "conjugate_direction",
                 "energy is f64[3]");
  expect_refused([&] { ops.conjugate_direction(m(4, 3), n, m(4, 2), m(4, 3)); }, "conjugate_direction",
                 "z is f32[4, 2]");
  expect_refused([&] { ops.clear_rows(m(4, 3), few); }, "clear_rows", "each of 3 marks");
  expect_refused([&] { ops.random_signs(at.strided(3, 4, 5), key, nullptr); }, "random_signs", "y is");
  expect_refused([&] { ops.project_rows(m(4, 7), m(6, 7), 4); }, "project_rows", "rows of q");
  expect_refused([&] { ops.project_rows(m(4, 7), m(6, 6), 2); }, "project_rows", "q is f32[6, 6]");
  expect_refused([&] { ops.probe_mean(n, n, few, 1); }, "probe_mean", "samples is f64[3]");
  expect_refused([&] { ops.probe_mean(n, n, n, 2); }, "probe_mean", "correction is 2");
  expect_refused([&] { ops.roulette_weights(steps, -1, 0.5, key, nullptr); }, "roulette_weights", "certain is -1");
  expect_refused([&] { ops.roulette_weights(steps, 1, 0, key, nullptr); }, "roulette_weights", "survival is 0");
  expect_refused([&] { ops.leave_one_out_trace(n, n, large, wide, squares); }, "leave_one_out_trace",
                 "gram_basis is f64[4, 4, 4]");
  expect_refused(
      [&] {
        ops.leave_one_out_trace(n, n, large, at.f64({4, 6, 6}), squares, n);
      },
      "leave_one_out_trace", "forms is f64[4]");
}

TEST_F(OpsCheckTest, PlannerHasNothingToRead) {
  float host = 0;
  EXPECT_TRUE(ops.planning());
  EXPECT_NO_THROW(ops.upload(v(1), &host));
  EXPECT_THROW(ops.download(&host, v(1)), Error);
}

}  // namespace
}  // namespace bracket
