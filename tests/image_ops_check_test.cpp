// The checks of the ops on images: every rule is broken once.
#include <cstdint>
#include <string>

#include "tests/ops_check_fixture.h"

namespace bracket {
namespace {

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

TEST_F(OpsCheckTest, KernelBoxes) {
  const KernelBox box{4, 3, 3, 2, 0.25, false}, transposed{4, 3, 3, 2, 1, true};
  const Tensor w = m(4, 27), wide = m(4, 48), swapped = m(3, 64);
  const std::string forward = "kernel_box_forward", reverse = "kernel_box_reverse";
  const auto run = [&](const Tensor& y, const Tensor& from, const auto& change) {
    KernelBox map = box;
    change(map);
    ops.kernel_box_forward(y, from, map);
  };
  const auto same = [](KernelBox&) {};
  EXPECT_NO_THROW(run(wide, w, same));
  EXPECT_NO_THROW(ops.kernel_box_forward(swapped, w, transposed));
  EXPECT_NO_THROW(ops.kernel_box_reverse(w, swapped, transposed, Update::accumulate));
  expect_refused([&] { run(swapped, w, same); }, forward, "y is f32[3, 64]; its shape must be [4, 48]");
  expect_refused([&] { run(wide, m(4, 26), same); }, forward, "w is f32[4, 26]; its shape must be [4, 27]");
  expect_refused([&] { run(wide, at.f64({4, 27}), same); }, forward, "both must have one dtype");
  expect_refused([&] { run(wide, w, [](KernelBox& map) { map.out_channels = 0; }); }, forward, "out_channels is 0");
  expect_refused([&] { run(wide, w, [](KernelBox& map) { map.in_channels = -1; }); }, forward, "in_channels is -1");
  expect_refused([&] { run(wide, w, [](KernelBox& map) { map.kernel = 1025; }); }, forward,
                 "kernel is 1025; it must lie between 1 and 1024");
  expect_refused([&] { run(wide, w, [](KernelBox& map) { map.window = 0; }); }, forward, "window is 0");
  expect_refused([&] { run(wide, w, [](KernelBox& map) { map.scale = kNan; }); }, forward, "scale is nan");
  const KernelBox one{4, 3, 3, 1, 1, false};
  expect_refused([&] { ops.kernel_box_forward(w, w, one); }, forward, "share memory");
  expect_refused([&] { ops.kernel_box_reverse(w, w, one, Update::overwrite); }, reverse, "share memory");
  expect_refused([&] { ops.kernel_box_reverse(m(3, 27), wide, box, Update::overwrite); }, reverse,
                 "grad_w is f32[3, 27]; its shape must be [4, 27]");
  expect_refused([&] { ops.kernel_box_reverse(w, m(4, 47), box, Update::overwrite); }, reverse,
                 "grad_y is f32[4, 47]; its shape must be [4, 48]");
  expect_refused([&] { ops.kernel_box_reverse(w, wide, box, static_cast<Update>(9)); }, reverse, "update is 9");
}

TEST_F(OpsCheckTest, Epilogues) {
  using Part = ProductEpilogue::Part;
  const std::string op = "linear_forward";
  const Tensor y = m(12, 11), x = m(12, 3), w = m(11, 3), mask = at.u8({12, 2}), narrow = at.u8({10, 2});
  const auto run = [&](const ProductEpilogue& epilogue) { ops.linear_forward(y, x, w, epilogue); };
  const ActivationKind relu{Activation::relu}, tanh{Activation::tanh}, identity{};
  EXPECT_NO_THROW(run({}));
  EXPECT_NO_THROW(run({Part::primal, relu, v(11), mask, {}, {}}));
  EXPECT_NO_THROW(run({Part::primal, tanh, {}, {}, m(12, 11), {}}));
  EXPECT_NO_THROW(run({Part::primal, tanh, {}, {}, y, {}})) << "in place";
  EXPECT_NO_THROW(run({Part::primal, identity, v(11), {}, {}, {}}));
  EXPECT_NO_THROW(run({Part::tangent, relu, {}, narrow, {}, rows}));
  EXPECT_NO_THROW(ops.linear_forward(Tensor(nullptr, DType::f32, {12, 0}), x, Tensor(nullptr, DType::f32, {0, 3}),
                                     {Part::primal, relu, {}, Tensor(nullptr, DType::u8, {12, 0}), {}, {}}));
  expect_refused([&] { run({Part::none, {}, v(11), {}, {}, {}}); }, op, "its part is none, leave it absent");
  expect_refused([&] { run({static_cast<Part>(7), {}, {}, {}, {}, {}}); }, op, "epilogue.part is 7");
  expect_refused(
      [&] {
        run({Part::primal, {static_cast<Activation>(40)}, {}, {}, {}, {}});
      },
      op, "activation function 40 is not known");
  expect_refused([&] { run({Part::primal, {Activation::prelu}, {}, {}, {}, {}}); }, op, "prelu is no epilogue");
  expect_refused(
      [&] {
        run({Part::primal, {Activation::leaky_relu, kNan}, {}, mask, {}, {}});
      },
      op, "negative_slope is nan");
  expect_refused(
      [&] {
        run({Part::primal, relu, v(12), mask, {}, {}});
      },
      op, "epilogue.bias is f32[12]; its shape must be [11]");
  expect_refused([&] { run({Part::primal, relu, {}, {}, {}, {}}); }, op, "epilogue.mask is absent");
  expect_refused(
      [&] {
        run({Part::primal, relu, {}, at.u8({12, 3}), {}, {}});
      },
      op, "epilogue.mask is u8[12, 3]; its shape must be [12, 2]");
  expect_refused(
      [&] {
        run({Part::primal, relu, {}, mask, m(12, 11), {}});
      },
      op, "keep a mask instead, leave it absent");
  expect_refused([&] { run({Part::primal, tanh, {}, mask, m(12, 11), {}}); }, op, "only relu and leaky_relu have one");
  expect_refused([&] { run({Part::primal, tanh, {}, {}, {}, {}}); }, op, "epilogue.before is absent");
  expect_refused([&] { run({Part::primal, tanh, {}, {}, m(12, 10), {}}); }, op, "epilogue.before is f32[12, 10]");
  expect_refused([&] { run({Part::primal, identity, {}, {}, m(12, 11), {}}); }, op, "identity needs none");
  expect_refused(
      [&] {
        ops.linear_forward(m(5, 5), x.slice_rows(0, 5).slice_cols(0, 3), m(5, 3),
                           {Part::primal, tanh, {}, {}, at.f64({5, 5}), {}});
      },
      op, "epilogue.before is f64[5, 5]");
  const Tensor square = m(5, 5);
  expect_refused(
      [&] {
        ops.linear_forward(m(5, 5), square, m(5, 5), {Part::primal, tanh, {}, {}, square, {}});
      },
      op, "share memory");
  expect_refused(
      [&] {
        ops.linear_forward(m(5, 5), m(5, 5), square, {Part::primal, tanh, {}, {}, square, {}});
      },
      op, "share memory");
  expect_refused([&] { run({Part::tangent, tanh, {}, {}, {}, rows}); }, op, "has no mask to take the derivative");
  expect_refused([&] { run({Part::tangent, relu, v(11), narrow, {}, rows}); }, op, "tangent rows have none");
  expect_refused([&] { run({Part::tangent, relu, {}, mask, {}, rows}); }, op, "its shape must be [10, 2]");
  expect_refused(
      [&] {
        run({Part::tangent, relu, {}, narrow, {}, {10, 2, 4, 2}});
      },
      op, "epilogue.rows have 8 tangent rows, the result has 12");
  expect_refused(
      [&] {
        run({Part::tangent, relu, {}, narrow, {}, {10, 8, 4, 3}});
      },
      op, "first + count at most primal");

  const Tensor images = m(5, 6 * 5 * 2), outputs = m(5, 3 * 3 * 4), weights = m(4, 9 * 2);
  EXPECT_NO_THROW(
      ops.conv2d_forward(outputs, images, weights, convolution, {Part::primal, relu, v(4), at.u8({5, 9}), {}, {}}));
  EXPECT_NO_THROW(ops.conv2d_reverse_data(images, outputs, weights, convolution, Update::overwrite,
                                          {Part::primal, relu, v(2), at.u8({5, 30}), {}, {}}));
  expect_refused(
      [&] {
        ops.conv2d_forward(outputs, images, weights, convolution, {Part::primal, relu, v(2), at.u8({5, 9}), {}, {}});
      },
      "conv2d_forward", "epilogue.bias is f32[2]; its shape must be [4]");
  expect_refused(
      [&] {
        ops.conv2d_reverse_data(images, outputs, weights, convolution, Update::overwrite,
                                {Part::primal, relu, v(2), at.u8({5, 9}), {}, {}});
      },
      "conv2d_reverse_data", "epilogue.mask is u8[5, 9]; its shape must be [5, 30]");
  expect_refused(
      [&] {
        ops.conv2d_reverse_data(images, outputs, weights, convolution, Update::accumulate,
                                {Part::primal, relu, v(2), at.u8({5, 30}), {}, {}});
      },
      "conv2d_reverse_data", "use Update::overwrite");
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

}  // namespace
}  // namespace bracket
