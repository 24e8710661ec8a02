// Layers of images: values by definition, what fits behind what, names, file order, starting values.
#include <cmath>
#include <set>

#include "host/network/file_order.h"
#include "tests/image_layer_specs.h"
#include "tests/network_checks.h"

namespace bracket::test {
namespace {

// A convolution as its definition has it, and the adjoint as a matrix transposed: a wrong pair can pass every identity.
TEST(ImageNetworkValues, ConvolutionAndTransposedConvolutionFollowPyTorchsDefinition) {
  TestDevice device("cpu");
  const std::int64_t ci = 2, co = 3, h = 4, w = 3, k = 3, s = 2, p = 1;
  NetworkOnDevice forward(device.context(), on_images({ci, h, w}, {conv(co, k, s, p)}), DType::f64);
  const std::vector<double> values = forward.values();
  const auto weight_info = forward.network().parameters()[1], bias_info = forward.network().parameters()[0];
  ASSERT_EQ(weight_info.shape, (std::vector<std::int64_t>{co, ci, k, k}));
  const auto weight = [&](std::int64_t o, std::int64_t i, std::int64_t y, std::int64_t x) {
    const std::int64_t file = ((o * ci + i) * k + y) * k + x;
    return values[static_cast<std::size_t>(weight_info.offset + weight_info.order.memory_element(file))];
  };
  const HostMatrix image = random_matrix(1, ci * h * w, 5);
  const std::vector<double> y =
      network_outputs(device.context(), forward.network(), forward.parameters(), image.values, 1);
  const std::int64_t ho = (h + 2 * p - k) / s + 1, wo = (w + 2 * p - k) / s + 1;
  ASSERT_EQ(forward.network().output_image(), (ImageShape{co, ho, wo}));
  for (std::int64_t oy = 0; oy < ho; ++oy)
    for (std::int64_t ox = 0; ox < wo; ++ox)
      for (std::int64_t o = 0; o < co; ++o) {
        double want = values[static_cast<std::size_t>(bias_info.offset + o)];
        for (std::int64_t ky = 0; ky < k; ++ky)
          for (std::int64_t kx = 0; kx < k; ++kx)
            for (std::int64_t i = 0; i < ci; ++i) {
              const std::int64_t iy = oy * s - p + ky, ix = ox * s - p + kx;
              if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
              want += weight(o, i, ky, kx) * image.values[static_cast<std::size_t>((iy * w + ix) * ci + i)];
            }
        EXPECT_NEAR(y[static_cast<std::size_t>((oy * wo + ox) * co + o)], want, 1e-14);
      }

  // Scatter form of the transposed convolution: pixel (y, x) adds to (s y - p + ky, s x - p + kx).
  const std::int64_t op = 1, hl = (h - 1) * s - 2 * p + k + op, wl = (w - 1) * s - 2 * p + k + op;
  NetworkOnDevice adjoint(device.context(), on_images({ci, h, w}, {transposed(co, k, s, p, op)}), DType::f64);
  const std::vector<double> adjoint_values = adjoint.values();
  const auto t_info = adjoint.network().parameters()[1], t_bias = adjoint.network().parameters()[0];
  ASSERT_EQ(t_info.shape, (std::vector<std::int64_t>{ci, co, k, k}));
  ASSERT_EQ(adjoint.network().output_image(), (ImageShape{co, hl, wl}));
  std::vector<double> want(static_cast<std::size_t>(hl * wl * co));
  for (std::size_t e = 0; e < want.size(); ++e)
    want[e] = adjoint_values[static_cast<std::size_t>(t_bias.offset) + e % static_cast<std::size_t>(co)];
  for (std::int64_t iy = 0; iy < h; ++iy)
    for (std::int64_t ix = 0; ix < w; ++ix)
      for (std::int64_t ky = 0; ky < k; ++ky)
        for (std::int64_t kx = 0; kx < k; ++kx) {
          const std::int64_t oy = iy * s - p + ky, ox = ix * s - p + kx;
          if (oy < 0 || oy >= hl || ox < 0 || ox >= wl) continue;
          for (std::int64_t i = 0; i < ci; ++i)
            for (std::int64_t o = 0; o < co; ++o) {
              const std::int64_t file = ((i * co + o) * k + ky) * k + kx;
              want[static_cast<std::size_t>((oy * wl + ox) * co + o)] +=
                  adjoint_values[static_cast<std::size_t>(t_info.offset + t_info.order.memory_element(file))] *
                  image.values[static_cast<std::size_t>((iy * w + ix) * ci + i)];
            }
        }
  const std::vector<double> large =
      network_outputs(device.context(), adjoint.network(), adjoint.parameters(), image.values, 1);
  for (std::size_t e = 0; e < want.size(); ++e) EXPECT_NEAR(large[e], want[e], 1e-14) << e;
}

// Linear behind flatten and before unflatten: the file's rows and columns are in the order (channel, y, x).
TEST(ImageNetworkValues, FlattenAndUnflattenReorderTheFileOnly) {
  TestDevice device("cpu");
  const ImageShape in{2, 3, 2}, out{3, 1, 2};
  NetworkOnDevice n(device.context(), on_images(in, {FlattenSpec{}, LinearSpec{6}, UnflattenSpec{3, 1, 2}}),
                    DType::f64);
  const ParameterInfo bias = n.network().parameters()[0], weight = n.network().parameters()[1];
  const std::vector<double> values = n.values();
  const HostMatrix image = random_matrix(1, in.size(), 6);
  const std::vector<double> y = network_outputs(device.context(), n.network(), n.parameters(), image.values, 1);
  for (std::int64_t c = 0; c < out.channels; ++c)
    for (std::int64_t x = 0; x < out.width; ++x) {
      const std::int64_t row = c * out.width + x;
      double want = values[static_cast<std::size_t>(bias.offset + bias.order.memory_element(row))];
      std::int64_t col = 0;
      for (std::int64_t ic = 0; ic < in.channels; ++ic)
        for (std::int64_t pixel = 0; pixel < in.pixels(); ++pixel, ++col)
          want += values[static_cast<std::size_t>(weight.offset + weight.order.memory_element(row * in.size() + col))] *
                  image.values[static_cast<std::size_t>(pixel * in.channels + ic)];
      EXPECT_NEAR(y[static_cast<std::size_t>(x * out.channels + c)], want, 1e-14);
    }
}

TEST(ImageNetworkValues, PoolsAndUpsampling) {
  TestDevice device("cpu");
  const auto run = [&](LayerSpec layer, const ImageShape& shape, const std::vector<double>& x) {
    NetworkOnDevice n(device.context(), on_images(shape, {std::move(layer)}), DType::f64);
    return network_outputs(device.context(), n.network(), n.parameters(), x, 1);
  };
  const std::vector<double> x = {1, 10, 2, 20, 3, 30, 4, 40};  // 2 x 2 pixels of 2 channels
  EXPECT_EQ(run(SumPoolSpec{2}, {2, 2, 2}, x), (std::vector<double>{10, 100}));
  EXPECT_EQ(run(AveragePoolSpec{2}, {2, 2, 2}, x), (std::vector<double>{2.5, 25}));
  EXPECT_EQ(run(MaxPoolSpec{2}, {2, 2, 2}, x), (std::vector<double>{4, 40}));
  EXPECT_EQ(run(UpsampleSpec{2}, {2, 1, 2}, {1, 10, 2, 20}),
            (std::vector<double>{1, 10, 1, 10, 2, 20, 2, 20, 1, 10, 1, 10, 2, 20, 2, 20}));
}

TEST(ImageNetworkStructure, NamesAreThoseOfSequential) {
  const Network n(resnet_generator(), DType::f32);
  std::set<std::string> names;
  for (const ParameterInfo& info : n.parameters()) names.insert(info.name);
  const std::set<std::string> want = {"layers.0.weight",
                                      "layers.0.bias",
                                      "layers.2.body.0.weight",
                                      "layers.2.body.0.bias",
                                      "layers.2.body.3.weight",
                                      "layers.2.body.3.bias",
                                      "layers.2.body.4.weight",
                                      "layers.2.body.4.bias",
                                      "layers.2.body.6.weight",
                                      "layers.2.body.6.bias",
                                      "layers.2.skip.0.weight",
                                      "layers.2.skip.0.bias",
                                      "layers.3.weight",
                                      "layers.3.bias",
                                      "layers.5.weight",
                                      "layers.5.bias",
                                      "layers.3.running_mean",
                                      "layers.3.running_var",
                                      "layers.2.body.0.running_mean",
                                      "layers.2.body.0.running_var",
                                      "layers.2.body.4.running_mean",
                                      "layers.2.body.4.running_var"};
  EXPECT_EQ(names, want);
  ConvTranspose2dSpec normalised = transposed(5, 3, 2, 1, 1);
  normalised.spectral_norm = true;
  const Network t(on_images({2, 4, 4}, {normalised}), DType::f32);
  for (const ParameterInfo& info : t.parameters()) {
    if (info.name.ends_with("._u")) {
      EXPECT_EQ(info.size(), 5);
    }
    if (info.name.ends_with("._v")) {
      EXPECT_EQ(info.size(), 2 * 3 * 3);
    }
  }
}

TEST(ImageNetworkStructure, ReluKeepsNoValueBeforeIt) {
  TestDevice device("cpu");
  for (const auto& [function, slots] :
       {std::pair{Activation::relu, 1U}, std::pair{Activation::leaky_relu, 1U}, std::pair{Activation::tanh, 2U}}) {
    NetworkOnDevice n(device.context(), on_images({1, 4, 4}, {conv(3, 3, 1, 1), activation(function)}), DType::f32);
    PrimalPass pass;
    const DeviceTensor x = upload(device.context(), random_matrix(2, 16, 1), DType::f32);
    n.network().forward(device.context().ops(), n.arena(), pass, n.parameters(), x, PassMode::inference);
    EXPECT_EQ(pass.slots.size(), slots);
  }
}

TEST(ImageNetworkStructure, BadSpecificationsAreRefusedWithTheLayer) {
  const auto message = [](NetworkSpec spec) -> std::string {
    try {
      Network n(std::move(spec), DType::f32);
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "accepted";
  };
  const auto expect = [&](NetworkSpec spec, const std::string& part) {
    const std::string text = message(std::move(spec));
    EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in: " << text;
  };
  const ImageShape shape{2, 4, 6};
  expect({47, {FlattenSpec{}}, shape}, "input_size is 47, its image has 4 x 6 pixels of 2 channels");
  expect(on_images(shape, {FlattenSpec{}}), "at least one layer that computes");
  expect(on_images(shape, {LinearSpec{3}}),
         "layer 0: linear reads rows, here come images of 4 x 6 pixels of 2 channels");
  expect({4, {conv(2, 3, 1, 1)}}, "layer 0: conv2d reads images, here come rows of 4 columns");
  expect(on_images(shape, {FlattenSpec{}, conv(2, 3, 1, 1)}), "layer 1: conv2d reads images");
  expect(on_images(shape, {conv(0, 3, 1, 1)}), "conv2d channels is 0, must lie in [1, ");
  expect(on_images(shape, {conv(2, 0, 1, 1)}), "conv2d kernel is 0");
  expect(on_images(shape, {conv(2, 3, 0, 1)}), "conv2d stride is 0");
  expect(on_images(shape, {conv(2, 3, 1, -1)}), "conv2d padding is -1");
  expect(on_images(shape, {conv(2, 7, 1, 1)}), "conv2d kernel 7 exceeds the height of 4 pixels with padding 1");
  expect(on_images(shape, {transposed(2, 3, 2, 1, 2)}), "output_padding is 2, must lie in [0, stride = 2)");
  expect(on_images(shape, {transposed(2, 1, 1, 2)}), "conv_transpose2d makes a height of 0 pixels from 4");
  expect(on_images(shape, {conv(1 << 20, 1024, 1, 1024)}), "has a weight of");
  expect(on_images(shape, {UpsampleSpec{60000}}), "upsample would make images of");
  expect(on_images(shape, {UpsampleSpec{0}}), "upsample factor is 0");
  expect(on_images(shape, {AveragePoolSpec{4}}), "average_pool window 4 must divide height and width");
  expect(on_images(shape, {SumPoolSpec{0}}), "sum_pool window is 0");
  expect(on_images({1, 17, 17}, {MaxPoolSpec{17}}), "max_pool window is 17, must lie in [1, 16]");
  expect(on_images(shape, {BatchNormSpec{0.1, 1e-5, -1}}), "deviation must not be negative");
  expect(on_images(shape, {FlattenSpec{}, BatchNormSpec{}}), "batch_norm on a flattened image");
  expect(on_images(shape, {FlattenSpec{}, FlattenSpec{}}), "layer 1: flatten reads images");
  expect({4, {UnflattenSpec{1, 2, 2}}}, "layer 0: unflatten must stand behind");
  expect({4, {LinearSpec{8}, BatchNormSpec{}, UnflattenSpec{2, 2, 2}}}, "layer 2: unflatten must stand behind");
  expect({4, {LinearSpec{7}, UnflattenSpec{2, 2, 2}}}, "linear has 7 features, unflatten behind it wants");
  expect(on_images(shape, {FlattenSpec{}, UnflattenSpec{2, 6, 4}}), "unflatten wants 6 x 4 pixels of 2 channels");
  expect(on_images(shape, {residual({}, {})}), "layer 0: residual body must compute something");
  expect(on_images(shape, {residual({conv(3, 3, 1, 1)}, {})}),
         "layer 0: residual paths must end alike, the body makes images of 4 x 6 pixels of 3 channels, the skip path "
         "images of 4 x 6 pixels of 2 channels");
  expect(on_images(shape, {residual({conv(2, 3, 1, 1), conv(0, 3, 1, 1)}, {})}),
         "layer 0.body.1: conv2d channels is 0");
  expect(on_images(shape, {AffineSpec{{1}, {1}}}), "affine reads rows");
}

TEST(ImageNetworkStart, FollowsPyTorchsBoundsAndTheDeviation) {
  TestDevice device("cpu");
  // Of n values uniform in +-b the largest exceeds b (1 - 20 / n) but for a chance of e^-10.
  const auto range = [&](const NetworkOnDevice& n, const std::string& name) {
    double largest = 0, sum = 0;
    const std::vector<double> values = n.values();
    for (const ParameterInfo& info : n.network().parameters()) {
      if (info.name != name) continue;
      for (std::int64_t i = info.offset; i < info.offset + info.size(); ++i) {
        largest = std::max(largest, std::abs(values[static_cast<std::size_t>(i)]));
        sum += values[static_cast<std::size_t>(i)] * values[static_cast<std::size_t>(i)];
      }
      return std::pair{largest, std::sqrt(sum / static_cast<double>(info.size()))};
    }
    ADD_FAILURE() << name;
    return std::pair{0.0, 0.0};
  };
  NetworkOnDevice a(device.context(), on_images({4, 8, 8}, {conv(40, 3, 1, 1), transposed(20, 5, 2, 2)}), DType::f64);
  for (const auto& [name, bound] :
       {std::pair{"layers.0.weight", 1 / std::sqrt(4 * 9.0)}, std::pair{"layers.1.weight", 1 / std::sqrt(20 * 25.0)}}) {
    EXPECT_LE(range(a, name).first, bound);
    EXPECT_GE(range(a, name).first, bound * (1 - 20 / 1440.0));
  }
  EXPECT_LE(range(a, "layers.1.bias").first, 1 / std::sqrt(20 * 25.0));
  Conv2dSpec normal = conv(40, 5, 1, 2);
  normal.deviation = 0.02;
  NetworkOnDevice b(device.context(), on_images({40, 4, 4}, {normal, BatchNormSpec{0.1, 1e-5, 0.02}}), DType::f64);
  // 40,000 values: the root mean square has a relative deviation of 1 / sqrt(2 n) = 0.0035.
  EXPECT_NEAR(range(b, "layers.0.weight").second, 0.02, 5 * 0.0035 * 0.02);
  EXPECT_NEAR(range(b, "layers.1.weight").second, 1, 5 * 0.02 / std::sqrt(40.0));
  EXPECT_GT(range(b, "layers.1.weight").first, 1);
}

TEST(FileOrderOfTensors, IsAPermutationAndItsInverse) {
  const FileOrder order = permuted_order({3, 2, 5, 4}, {3, 0, 2, 1});
  std::vector<bool> seen(120);
  std::int64_t visited = 0;
  for_each_element(order, 120, [&](std::int64_t file, std::int64_t memory) {
    EXPECT_EQ(file, visited++);
    EXPECT_EQ(order.memory_element(file), memory);
    EXPECT_EQ(order.file_element(memory), file);
    EXPECT_FALSE(seen[static_cast<std::size_t>(memory)]);
    seen[static_cast<std::size_t>(memory)] = true;
  });
  EXPECT_EQ(visited, 120);
  std::vector<std::byte> bytes(480);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % 251);
  const std::vector<std::byte> file = in_file_order(bytes, order, 4);
  EXPECT_NE(file, bytes);
  EXPECT_EQ(in_memory_order(file, order, 4), bytes);
}

}  // namespace
}  // namespace bracket::test
