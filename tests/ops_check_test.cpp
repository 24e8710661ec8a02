// The checks of the op list: every op accepts a correct call, and every rule is broken once. No arithmetic runs: the
// planner has the same checks, counts the calls that passed, and its addresses are never used.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "kernels/plan_ops.h"

namespace bracket {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Hands out memory that is never touched.
class Addresses {
 public:
  Tensor f32(std::initializer_list<std::int64_t> shape) { return Tensor(next(), DType::f32, shape); }
  Tensor f64(std::initializer_list<std::int64_t> shape) { return Tensor(next(), DType::f64, shape); }
  Tensor u8(std::initializer_list<std::int64_t> shape) { return Tensor(next(), DType::u8, shape); }
  Tensor strided(std::int64_t rows, std::int64_t cols, std::int64_t stride) {
    return Tensor::matrix(next(), DType::f32, rows, cols, stride);
  }
  void* next() { return plan_.allocate_memory(1 << 20); }

 private:
  PlanOps plan_;
};

class OpsCheckTest : public ::testing::Test {
 protected:
  /// The call is refused with a message that names the op and contains `part`; nothing was passed on.
  void expect_refused(const std::function<void()>& call, const std::string& op, const std::string& part) {
    const std::int64_t before = ops.total_calls();
    try {
      call();
      ADD_FAILURE() << op << " accepted what should fail with: " << part;
    } catch (const InvalidArgument& error) {
      const std::string message = error.what();
      EXPECT_EQ(message.find(op + ": "), 0u) << message;
      EXPECT_NE(message.find(part), std::string::npos) << message << "\n  should contain: " << part;
      EXPECT_EQ(message.find('\n'), std::string::npos) << "an error is one line: " << message;
    }
    EXPECT_EQ(ops.total_calls(), before);
  }

  Tensor m(std::int64_t num_rows, std::int64_t cols) { return at.f32({num_rows, cols}); }
  Tensor v(std::int64_t n) { return at.f32({n}); }
  Stacked s(std::int64_t cols) { return {m(rows.primal, cols), m(rows.tangent_rows(), cols)}; }

  Addresses at;
  PlanOps ops;
  const Rows rows{10, 2, 4, 3};  // 12 tangent rows
  StepState* const state = static_cast<StepState*>(at.next());
  const Tensor workspace = at.f64({kReductionWorkspace});
  const Staircase staircase{1, 2, 5, 2.0, 1.0};        // 2 columns of 2 + 15 parameters
  const Convolution convolution{6, 5, 2, 4, 3, 2, 1};  // 6 x 5 pixels to 3 x 3
  const Window window{4, 4, 3, 2, 0.25};
  const RandomKey key{1, RandomStream::test, 0};
};

TEST_F(OpsCheckTest, CorrectCallsPassAndAreCountedOncePerOp) {
  const Tensor squares = at.f64({4, 3, 3});
  const Schedule schedule{{1e-3, 1e-3}, 100, 10, true, 0.1};
  ops.fill(m(3, 4), 1);
  ops.copy(m(3, 4), at.f64({3, 4}));
  ops.axpy(m(3, 4), 2, m(3, 4));
  ops.linear_forward(m(5, 2), m(5, 3), m(2, 3));
  ops.linear_reverse_data(m(5, 3), m(5, 2), m(2, 3), Update::overwrite);
  ops.linear_reverse_weights(m(2, 3), m(5, 2), m(5, 3), Update::accumulate);
  ops.conv2d_forward(m(5, 3 * 3 * 4), m(5, 6 * 5 * 2), m(4, 9 * 2), convolution);
  ops.conv2d_reverse_data(m(5, 6 * 5 * 2), m(5, 3 * 3 * 4), m(4, 9 * 2), convolution, Update::overwrite);
  ops.conv2d_reverse_weights(m(4, 9 * 2), m(5, 3 * 3 * 4), m(5, 6 * 5 * 2), convolution, Update::overwrite, {});
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
  ops.lobpcg_update(m(4, 3), m(4, 3), m(4, 5), m(4, 5), m(4, 3), m(4, 5));
  ops.lobpcg_volume(v(4), v(4), m(4, 3), m(4, 5));
  ops.lq_factor(squares, at.f64({12, 7}));
  ops.singular_values(at.f64({4, 3}), at.f64({4, 3, 3}), squares);
  ops.log_volume(at.f64({4}), at.f64({4}), at.f64({4, 3}), 1e-12);
  ops.normalize_rows(m(4, 3), at.f64({4}), m(4, 3));
  ops.golub_kahan_left(m(4, 7), at.f64({4, 5}), m(4, 7), at.f64({4, 5}), 4);
  ops.golub_kahan_right(m(20, 3), at.f64({4, 5}), m(4, 3), at.f64({4, 5}), 4);
  ops.bidiagonal(squares, at.f64({4, 2}), at.f64({4, 2}), at.f64({2}));
  ops.quadrature(at.f64({4}), at.f64({4, 3}), squares, at.f64({4}), at.f64({4}), kLogarithm, Update::accumulate);
  ops.singular_certificate(at.f64({4}), v(4), at.f64({4}), at.f64({4}), m(4, 3), m(4, 3), m(4, 7), 3);
  ops.conjugate_gradient_step(m(4, 3), m(4, 3), m(4, 3), at.f64({4}), m(4, 3), m(4, 7), at.f64({4}), 0.1);
  ops.random_signs(v(5), key, nullptr);
  ops.project_rows(m(4, 7), m(6, 7), 2);
  ops.probe_mean(at.f64({4}), at.f64({4}), at.f64({12}), 1);
  ops.roulette_weights(at.f64({5, 4}), 1, 0.5, key, nullptr);
  ops.leave_one_out_trace(at.f64({4}), at.f64({4}), at.f64({4, 6, 6}), at.f64({4, 6, 6}), squares);
  ops.combine_tangents(m(4, 7), m(12, 7), m(4, 3));
  ops.scale_rows(m(5, 3), m(5, 3), v(5), 2);
  ops.tile_identity(m(12, 3), 4);
  ops.fourier_features_forward(s(2 + 16), s(2), m(8, 2), rows);
  ops.fourier_features_reverse(s(2), s(2 + 16), s(2), m(8, 2), rows, Update::overwrite);
  ops.monotone_staircase_forward(s(4), s(4), s(34), staircase, rows);
  ops.monotone_staircase_reverse(s(4), s(34), s(4), s(4), s(34), staircase, rows);
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

TEST_F(OpsCheckTest, Convolutions) {
  const Tensor x = m(5, 6 * 5 * 2), w = m(4, 9 * 2), y = m(5, 3 * 3 * 4);
  const auto forward = [&](const Convolution& map) { ops.conv2d_forward(y, x, w, map); };
  const std::string op = "conv2d_forward";
  const auto with = [&](const auto& change) {
    Convolution map = convolution;
    change(map);
    return map;
  };
  EXPECT_NO_THROW(forward(convolution));
  expect_refused([&] { forward(with([](Convolution& map) { map.in_height = 0; })); }, op,
                 "in_height is 0; it must lie between 1 and 65536");
  expect_refused([&] { forward(with([](Convolution& map) { map.in_width = -5; })); }, op, "in_width is -5");
  expect_refused([&] { forward(with([](Convolution& map) { map.in_channels = 0; })); }, op, "in_channels is 0");
  expect_refused([&] { forward(with([](Convolution& map) { map.out_channels = 1 << 21; })); }, op,
                 "out_channels is 2097152; it must lie between 1 and 1048576");
  expect_refused([&] { forward(with([](Convolution& map) { map.kernel = 0; })); }, op, "kernel is 0");
  expect_refused([&] { forward(with([](Convolution& map) { map.stride = 0; })); }, op, "stride is 0");
  expect_refused([&] { forward(with([](Convolution& map) { map.padding = -1; })); }, op, "padding is -1");
  expect_refused([&] { forward(with([](Convolution& map) { map.kernel = 8; })); }, op,
                 "the convolution (6 x 5 pixels, 2 -> 4 channels, kernel 8, stride 2, padding 1) has no output; its "
                 "kernel must fit the padded image, 7 pixels on the shorter side");
  expect_refused([&] { forward(with([](Convolution& map) { map.in_channels = 1 << 20, map.in_width = 1 << 16; })); },
                 op, "elements; the limit is 2147483647");
  expect_refused([&] { forward(with([](Convolution& map) { map.in_width = 6; })); }, op,
                 "x is f32[5, 60]; its shape must be [5, 72]");
  expect_refused([&] { forward(with([](Convolution& map) { map.stride = 1; })); }, op,
                 "y is f32[5, 36]; its shape must be [5, 120]");
  expect_refused([&] { ops.conv2d_forward(y, x, m(4, 17), convolution); }, op, "w is f32[4, 17]; its shape must be [4");
  expect_refused([&] { ops.conv2d_forward(y, x, at.f64({4, 18}), convolution); }, op, "both must have one dtype");
  expect_refused([&] { ops.conv2d_forward(y, m(4, 60), w, convolution); }, op, "y is f32[5, 36]");
  const Convolution same{3, 3, 4, 4, 3, 1, 1};
  expect_refused([&] { ops.conv2d_forward(y, y, m(4, 36), same); }, op, "share memory; they must be apart");
  expect_refused([&] { ops.conv2d_reverse_data(y, y, m(4, 36), same, Update::overwrite); }, "conv2d_reverse_data",
                 "share memory");
  expect_refused([&] { ops.conv2d_reverse_data(x, m(5, 35), w, convolution, Update::overwrite); },
                 "conv2d_reverse_data", "grad_y is f32[5, 35]");
  expect_refused([&] { ops.conv2d_reverse_data(x, y, w, convolution, static_cast<Update>(9)); }, "conv2d_reverse_data",
                 "update is 9");

  const std::string weights = "conv2d_reverse_weights";
  const auto reverse = [&](const Tensor& grad_w, const Tensor& grad_y, const Tensor& sums) {
    ops.conv2d_reverse_weights(grad_w, grad_y, m(60, 60), convolution, Update::overwrite, sums);
  };
  // 540 pixels: two chunks of 4 x 18 weights.
  ASSERT_EQ(convolution.weights_workspace(60), 2 * 4 * 18);
  ASSERT_EQ(convolution.weights_workspace(56), 0);
  EXPECT_NO_THROW(reverse(w, m(60, 36), v(144)));
  expect_refused([&] { reverse(w, m(60, 36), {}); }, weights, "workspace is absent");
  expect_refused([&] { reverse(w, m(60, 36), v(143)); }, weights,
                 "workspace is f32[143]; it must hold at least 144 elements of f32");
  expect_refused([&] { reverse(w, m(60, 36), at.f64({144})); }, weights,
                 "workspace is f64[144]; it must hold at least");
  expect_refused([&] { reverse(w, m(60, 36), w.reshaped({72})); }, weights, "workspace is f32[72]");
  expect_refused([&] { reverse(w, m(59, 36), v(144)); }, weights, "x is f32[60, 60]; its shape must be [59, 60]");
  expect_refused([&] { reverse(m(4, 17), m(60, 36), v(144)); }, weights, "grad_w is f32[4, 17]");
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

TEST_F(OpsCheckTest, MaskedActivations) {
  const std::string forward = "masked_activation_forward";
  const std::string reverse = "masked_activation_reverse";
  const Tensor mask = at.u8({10, 4});  // two pixels of 11 channels
  const auto run = [&](const Stacked& y, const Tensor& bits, const Stacked& x, const Tensor& bias,
                       std::int64_t channels,
                       ActivationKind kind) { ops.masked_activation_forward(y, bits, x, bias, channels, kind, rows); };
  EXPECT_NO_THROW(run({{}, m(12, 22)}, mask, {{}, m(12, 22)}, {}, 11, {Activation::relu})) << "the mask is read";
  EXPECT_NO_THROW(run({m(10, 22), {}}, mask, {m(10, 22), {}}, {}, 11, {Activation::relu}));
  expect_refused([&] { run({}, mask, s(22), {}, 11, {Activation::relu}); }, forward, "y.tangent is absent");
  expect_refused([&] { run(s(22), mask, {{}, m(12, 22)}, {}, 11, {Activation::relu}); }, forward, "x.primal is absent");
  expect_refused(
      [&] {
        run(s(22), mask, {m(10, 22), {}}, {}, 11, {Activation::relu});
      },
      forward, "x.tangent is absent");
  expect_refused([&] { run(s(22), mask, s(22), {}, 11, {Activation::tanh}); }, forward, "use relu or leaky_relu");
  expect_refused(
      [&] {
        run(s(22), mask, s(22), {}, 11, {Activation::leaky_relu, kNan});
      },
      forward, "negative_slope is nan");
  expect_refused([&] { run(s(22), mask, s(22), {}, 10, {Activation::relu}); }, forward,
                 "channels is 10; it must be at least 1 and divide the number of columns, 22");
  expect_refused([&] { run(s(22), mask, s(22), {}, 0, {Activation::relu}); }, forward, "channels is 0");
  expect_refused([&] { run(s(22), mask, s(22), v(22), 11, {Activation::relu}); }, forward,
                 "bias is f32[22]; its shape must be [11]");
  expect_refused(
      [&] {
        run(s(22), at.u8({10, 3}), s(22), {}, 11, {Activation::relu});
      },
      forward, "mask is u8[10, 3]; its shape must be [10, 4]");
  expect_refused([&] { run(s(22), m(10, 4), s(22), {}, 11, {Activation::relu}); }, forward,
                 "mask is f32[10, 4]; it must be u8");
  const auto back = [&](const Stacked& grad_x, const Tensor& grad_bias, const Stacked& grad_y, Update update) {
    ops.masked_activation_reverse(grad_x, grad_bias, grad_y, mask, 11, {Activation::relu}, rows, update);
  };
  EXPECT_NO_THROW(back(s(22), v(11), {{}, m(12, 22)}, Update::overwrite)) << "grad_y.primal absent means zero";
  expect_refused(
      [&] {
        back({{}, m(12, 22)}, v(11), s(22), Update::overwrite);
      },
      reverse, "grad_bias is asked for without grad_x.primal");
  expect_refused([&] { back(s(22), v(22), s(22), Update::overwrite); }, reverse, "grad_bias is f32[22]");
  expect_refused([&] { back(s(22), {}, {m(10, 22), {}}, Update::overwrite); }, reverse, "grad_y.tangent is absent");
  expect_refused([&] { back(s(22), {}, s(22), static_cast<Update>(9)); }, reverse, "update is 9");
}

TEST_F(OpsCheckTest, Windows) {
  const auto sum = [&](const Tensor& y, const Tensor& x, const Window& map) {
    ops.window_sum(y, x, map, Update::overwrite);
  };
  const auto spread = [&](const Tensor& y, const Tensor& x, const Window& map) {
    ops.window_spread(y, x, map, Update::overwrite);
  };
  expect_refused(
      [&] {
        sum(m(3, 12), m(3, 48), {4, 4, 3, 3, 1});
      },
      "window_sum", "window is 3; it must be at least 1 and divide the height, 4");
  expect_refused([&] { sum(m(3, 12), m(3, 48), {4, 5, 3, 2, 1}); }, "window_sum", "divide the width, 5");
  expect_refused([&] { sum(m(3, 12), m(3, 48), {4, 4, 3, 0, 1}); }, "window_sum", "window is 0");
  expect_refused(
      [&] {
        sum(m(3, 12), m(3, 48), {4, 4, -3, 2, 1});
      },
      "window_sum", "height, width and channels are [4, 4, -3]; none may be negative");
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max() / 2;
  expect_refused([&] { sum(m(3, 12), m(3, 48), {huge, huge, 3, 1, 1}); }, "window_sum", "product at most 2^60");
  expect_refused([&] { sum(m(3, 12), m(3, 48), {4, 4, 3, 2, kInfinity}); }, "window_sum", "scale is inf");
  expect_refused([&] { sum(m(3, 48), m(3, 48), window); }, "window_sum", "y is f32[3, 48]; its shape must be [3, 12]");
  expect_refused([&] { sum(m(3, 12), m(3, 12), window); }, "window_sum", "x is f32[3, 12]; its shape must be [3, 48]");
  expect_refused([&] { spread(m(2, 48), m(3, 12), window); }, "window_spread", "y is f32[2, 48]");
  expect_refused([&] { spread(m(3, 48), m(3, 48), window); }, "window_spread", "x is f32[3, 48]");
  const Tensor shared = m(3, 12);
  expect_refused([&] { sum(shared, shared, {2, 2, 3, 1, 1}); }, "window_sum", "share memory");
  expect_refused([&] { ops.window_spread(m(3, 48), m(3, 12), window, static_cast<Update>(9)); }, "window_spread",
                 "update is 9");
}

TEST_F(OpsCheckTest, MaxPool) {
  const auto pool = [&](const Tensor& y, const Tensor& choice, const Window& map) {
    ops.max_pool_forward(y, choice, m(3, 48), map);
  };
  expect_refused([&] { pool(m(3, 12), at.u8({3, 12}), window); }, "max_pool_forward", "scale is 0.25");
  expect_refused([&] { pool(m(3, 12), m(3, 12), {4, 4, 3, 2}); }, "max_pool_forward", "it must be u8");
  expect_refused(
      [&] {
        pool(m(3, 12), at.u8({3, 11}), {4, 4, 3, 2});
      },
      "max_pool_forward", "choice is u8[3, 11]; its shape must be [3, 12]");
  expect_refused([&] { pool(m(3, 13), at.u8({3, 12}), {4, 4, 3, 2}); }, "max_pool_forward", "y is f32[3, 13]");
  expect_refused(
      [&] {
        ops.max_pool_forward(m(1, 1), at.u8({1, 1}), m(1, 289), {17, 17, 1, 17});
      },
      "max_pool_forward", "window is 17; a choice is one byte, so it must be at most 16");
  expect_refused(
      [&] {
        ops.max_pool_reverse(m(3, 48), m(2, 12), at.u8({3, 12}), {4, 4, 3, 2});
      },
      "max_pool_reverse", "grad_y is f32[2, 12]");
  expect_refused(
      [&] {
        ops.max_pool_reverse(at.u8({3, 48}), m(3, 12), at.u8({3, 12}), {4, 4, 3, 2});
      },
      "max_pool_reverse", "u8 is for storage");
}

TEST_F(OpsCheckTest, ImagesAndLabels) {
  const auto gather = [&](const Tensor& y, const Tensor& table, const ImageTransform& t) {
    ops.gather_images(y, table, key, nullptr, t);
  };
  expect_refused([&] { gather(m(4, 12), m(9, 12), {2, 2, 3}); }, "gather_images", "table is f32[9, 12]; it must be u8");
  expect_refused([&] { gather(m(4, 12), at.u8({9, 13}), {2, 2, 3}); }, "gather_images", "table is u8[9, 13]");
  expect_refused([&] { gather(m(4, 11), at.u8({9, 12}), {2, 2, 3}); }, "gather_images", "y is f32[4, 11]");
  expect_refused(
      [&] {
        gather(m(4, 12), at.u8({0, 12}), {2, 2, 3});
      },
      "gather_images", "the number of table rows is 0; it must be at least 1");
  ImageTransform in_order{2, 2, 3};
  in_order.in_order = true;
  expect_refused(
      [&] {
        gather(m(4, 12), at.u8({3, 12}), in_order);
      },
      "gather_images", "the number of table rows is 3; it must be at least 4");
  expect_refused([&] { gather(m(4, 12), at.u8({9, 12}), {-2, -2, 3}); }, "gather_images", "none may be negative");
  expect_refused(
      [&] {
        gather(m(4, 12), at.u8({9, 12}), {2, 2, 3, false, false, kNan});
      },
      "gather_images", "scale is nan");
  expect_refused(
      [&] {
        gather(m(4, 12), at.u8({9, 12}), {2, 2, 3, false, false, 1, kInfinity});
      },
      "gather_images", "shift is inf");
  const RandomKey late{1, RandomStream::test, std::uint64_t{1} << 48};
  expect_refused(
      [&] {
        ops.gather_images(m(4, 12), at.u8({9, 12}), late, nullptr, {2, 2, 3});
      },
      "gather_images", "is not below 2^48");
  const std::string entropy = "softmax_cross_entropy";
  EXPECT_NO_THROW(ops.softmax_cross_entropy(v(4), {}, m(4, 10), at.u8({4})));
  expect_refused([&] { ops.softmax_cross_entropy(v(4), {}, m(4, 0), at.u8({4})); }, entropy,
                 "the number of classes is 0");
  expect_refused([&] { ops.softmax_cross_entropy(v(3), {}, m(4, 10), at.u8({4})); }, entropy, "losses is f32[3]");
  expect_refused([&] { ops.softmax_cross_entropy(v(4), m(4, 9), m(4, 10), at.u8({4})); }, entropy, "grad_logits is");
  expect_refused([&] { ops.softmax_cross_entropy(v(4), {}, m(4, 10), v(4)); }, entropy, "labels is f32[4]");
  expect_refused([&] { ops.softmax_cross_entropy(v(4), {}, m(4, 10), at.u8({5})); }, entropy, "labels is u8[5]");
}

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
  expect_refused([&] { ops.bidiagonal(large, steps, steps, {}); }, "bidiagonal", "1 to 5 rows");
  expect_refused([&] { ops.bidiagonal(large, steps, steps, few); }, "bidiagonal", "lower");
  expect_refused([&] { ops.quadrature(n, other, squares, n, {}, kLogarithm, Update::overwrite); }, "quadrature",
                 "values is f64[4, 4]");
  expect_refused([&] { ops.quadrature(n, values, squares, few, {}, kLogarithm, Update::overwrite); }, "quadrature",
                 "norm is f64[3]");
  expect_refused([&] { ops.quadrature(n, values, squares, n, few, kLogarithm, Update::overwrite); }, "quadrature",
                 "weight is f64[3]");
  expect_refused([&] { ops.quadrature(n, values, squares, n, {}, power_function(kInfinity), Update::overwrite); },
                 "quadrature", "exponent is inf");
  expect_refused([&] { ops.singular_certificate(n, v(4), n, n, m(4, 3), m(4, 3), m(4, 7), 0); }, "singular_certificate",
                 "dimension is 0");
  expect_refused([&] { ops.singular_certificate(n, n, n, n, m(4, 3), m(4, 3), m(4, 7), 3); }, "singular_certificate",
                 "scale is f64[4]");
  expect_refused([&] { ops.conjugate_gradient_step(m(4, 3), m(4, 3), m(4, 3), n, m(4, 3), m(3, 7), n, 0.1); },
                 "conjugate_gradient_step", "jp is f32[3, 7]");
  expect_refused([&] { ops.conjugate_gradient_step(m(4, 3), m(4, 3), m(4, 3), n, m(4, 3), m(4, 7), n, -1); },
                 "conjugate_gradient_step", "tolerance is -1");
  expect_refused([&] { ops.random_signs(at.strided(3, 4, 5), key, nullptr); }, "random_signs", "y is");
  expect_refused([&] { ops.project_rows(m(4, 7), m(6, 7), 4); }, "project_rows", "rows of q");
  expect_refused([&] { ops.project_rows(m(4, 7), m(6, 6), 2); }, "project_rows", "q is f32[6, 6]");
  expect_refused([&] { ops.probe_mean(n, n, few, 1); }, "probe_mean", "samples is f64[3]");
  expect_refused([&] { ops.probe_mean(n, n, n, 2); }, "probe_mean", "correction is 2");
  expect_refused([&] { ops.roulette_weights(steps, -1, 0.5, key, nullptr); }, "roulette_weights", "certain is -1");
  expect_refused([&] { ops.roulette_weights(steps, 1, 0, key, nullptr); }, "roulette_weights", "survival is 0");
  expect_refused([&] { ops.leave_one_out_trace(n, n, large, wide, squares); }, "leave_one_out_trace",
                 "gram_basis is f64[4, 4, 4]");
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
    ops.monotone_staircase_forward(s(4), s(4), s(parameters), map, rows);
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
        ops.monotone_staircase_reverse(s(4), s(34), s(4), s(4), {m(10, 34), {}}, staircase, rows);
      },
      "monotone_staircase_reverse", "theta.tangent is absent");
  Staircase jacobian = staircase;
  jacobian.passive_jacobian = true;
  expect_refused(
      [&] {
        ops.monotone_staircase_forward(s(4), s(4), {m(10, 34), m(12, 34)}, jacobian, rows);
      },
      op, "theta.tangent is f32[12, 34]; its shape must be [8, 34]");
  const Stacked tangents{{}, m(12, 4)}, theta{m(10, 34), {}}, grad_theta{{}, m(8, 34)}, x{m(10, 4), {}};
  expect_refused([&] { ops.monotone_staircase_reverse(tangents, {}, s(4), s(4), theta, jacobian, rows); },
                 "monotone_staircase_reverse", "theta.tangent is absent");
  expect_refused([&] { ops.monotone_staircase_reverse({}, grad_theta, s(4), x, theta, jacobian, rows); },
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

TEST_F(OpsCheckTest, PlannerHasNothingToRead) {
  float host = 0;
  EXPECT_TRUE(ops.planning());
  EXPECT_NO_THROW(ops.upload(v(1), &host));
  EXPECT_THROW(ops.download(&host, v(1)), Error);
}

}  // namespace
}  // namespace bracket
