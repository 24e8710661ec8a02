// Ops that move 16 bytes at a time where they may: the same bits wherever the operands lie, and nothing else is
// written.
//
// Every operand lies in memory of its own between sentinels, some elements behind a multiple of 16 bytes and with some
// elements between its rows. One element behind it, no op may use vectors: that is the reference.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>

#include "ops_fixture.h"

namespace bracket::test {
namespace {

constexpr double kSentinel = 7.75;

struct Layout {
  std::int64_t offset = 0;   ///< elements in front of each operand
  std::int64_t padding = 0;  ///< between its rows
  int odd = -1;              ///< number of the operand that lies one element further than the others
};
constexpr Layout kScalar{1, 1};

/// Memory of one operand and all around it.
class Frame {
 public:
  Frame(Context& context, DType dtype, const HostMatrix& values, std::int64_t offset, std::int64_t padding)
      : values_(values), offset_(offset), stride_(values.cols + padding) {
    HostMatrix all(1, offset + values.rows * stride_ + 8, kSentinel);
    for (std::int64_t i = 0; i < values.rows; ++i) {
      for (std::int64_t j = 0; j < values.cols; ++j) all(0, offset + i * stride_ + j) = values(i, j);
    }
    memory_ = upload_vector(context, all, dtype);
    tensor_ = Tensor::matrix(static_cast<std::byte*>(memory_.tensor().data()) + offset * dtype_bytes(dtype), dtype,
                             values.rows, values.cols, stride_);
  }
  Tensor matrix() const { return tensor_; }
  Tensor vector() const { return Tensor(tensor_.data(), tensor_.dtype(), {tensor_.size()}); }

  /// Appends its elements; those around them must be as they were.
  void read(Context& context, std::vector<double>& elements) const {
    const HostMatrix all = download(context, memory_);
    for (std::int64_t k = 0; k < all.size(); ++k) {
      const std::int64_t at = k - offset_;
      const bool inside = at >= 0 && at < values_.rows * stride_ && at % stride_ < values_.cols;
      const double value = all.values[static_cast<std::size_t>(k)];
      if (inside) {
        elements.push_back(value);
      } else {
        ASSERT_EQ(value, kSentinel) << "element " << at;
      }
    }
  }

 private:
  HostMatrix values_;
  std::int64_t offset_;
  std::int64_t stride_;
  DeviceTensor memory_;
  Tensor tensor_;
};

/// The operands of one call of an op.
class Operands {
 public:
  Operands(Context& context, DType dtype, const Layout& layout) : context_(context), dtype_(dtype), layout_(layout) {}

  Ops& ops() const { return context_.ops(); }
  Context& context() const { return context_; }
  DType dtype() const { return dtype_; }
  /// Random values, different for every operand.
  Tensor matrix(std::int64_t rows, std::int64_t cols, double low = -1, double high = 1) {
    return place(rows, cols, low, high).matrix();
  }
  Tensor vector(std::int64_t size, double low = -1, double high = 1) { return place(1, size, low, high).vector(); }
  int count() const { return static_cast<int>(frames_.size()); }
  void add_bits(const Tensor& u8) { bits_.push_back(u8); }

  std::vector<double> read() const {
    std::vector<double> elements;
    for (const auto& frame : frames_) frame->read(context_, elements);
    for (const Tensor& bits : bits_) {
      for (const double byte : download(context_, bits).values) elements.push_back(byte);
    }
    return elements;
  }

 private:
  const Frame& place(std::int64_t rows, std::int64_t cols, double low, double high) {
    const HostMatrix values =
        random_matrix(rows, cols, static_cast<std::uint64_t>(70 + count()), low, high).rounded(dtype_);
    const std::int64_t offset = layout_.offset + (count() == layout_.odd ? 1 : 0);
    frames_.push_back(std::make_unique<Frame>(context_, dtype_, values, offset, layout_.padding));
    return *frames_.back();
  }

  Context& context_;
  DType dtype_;
  Layout layout_;
  std::vector<std::unique_ptr<Frame>> frames_;
  std::vector<Tensor> bits_;
};

class VectorAccessTest : public OpsTest {
 protected:
  using Work = std::function<void(Operands&)>;

  void expect_same_bits(const std::string& what, const Work& work) const {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const auto run = [&](const Layout& layout, int* count) {
        Operands operands(context(), dtype, layout);
        work(operands);
        if (count != nullptr) *count = operands.count();
        return operands.read();
      };
      int count = 0;
      const std::vector<double> expected = run(kScalar, &count);
      const auto expect_layout = [&](const Layout& layout) {
        const std::vector<double> actual = run(layout, nullptr);
        ASSERT_EQ(actual.size(), expected.size());
        for (std::size_t k = 0; k < actual.size(); ++k) {
          ASSERT_EQ(std::memcmp(&actual[k], &expected[k], sizeof(double)), 0)
              << what << ", " << dtype_name(dtype) << ", offset " << layout.offset << ", padding " << layout.padding
              << ", odd operand " << layout.odd << ": element " << k << " is " << exact_text(actual[k]) << ", expected "
              << exact_text(expected[k]);
        }
      };
      for (std::int64_t offset = 0; offset < 4; ++offset) {
        for (std::int64_t padding = 0; padding < 4; ++padding) expect_layout({offset, padding});
      }
      for (int odd = 0; odd < count; ++odd) {
        for (std::int64_t padding = 0; padding < 4; ++padding) expect_layout({0, padding, odd});
      }
    }
  }
};

std::string shape_text(std::int64_t rows, std::int64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

const std::vector<std::pair<std::int64_t, std::int64_t>> kShapes{{1, 0}, {1, 1}, {1, 3},    {1, 4},    {1, 5},  {2, 7},
                                                                 {3, 8}, {5, 6}, {1, 1023}, {1, 1025}, {2, 513}};

TEST_P(VectorAccessTest, Fill) {
  for (const auto& [rows, cols] : kShapes) {
    expect_same_bits("fill " + shape_text(rows, cols),
                     [r = rows, c = cols](Operands& o) { o.ops().fill(o.matrix(r, c), 0.3); });
  }
}

TEST_P(VectorAccessTest, CopyAndAxpy) {
  for (const auto& [rows, cols] : kShapes) {
    expect_same_bits("copy " + shape_text(rows, cols), [r = rows, c = cols](Operands& o) {
      const Tensor y = o.matrix(r, c), x = o.matrix(r, c);
      o.ops().copy(y, x);
    });
    expect_same_bits("axpy " + shape_text(rows, cols), [r = rows, c = cols](Operands& o) {
      const Tensor y = o.matrix(r, c), x = o.matrix(r, c);
      o.ops().axpy(y, 0.7, x);
      o.ops().axpy(y, -0.3, y);
    });
  }
}

TEST_P(VectorAccessTest, CopyBetweenDtypes) {
  for (const auto& [rows, cols] : kShapes) {
    expect_same_bits("copy " + shape_text(rows, cols), [r = rows, c = cols](Operands& o) {
      const Tensor x = o.matrix(r, c), y = o.matrix(r, c);
      const DeviceTensor other = empty_matrix(o.context(), o.dtype() == DType::f32 ? DType::f64 : DType::f32, r, c, 0);
      o.ops().copy(other, x);
      o.ops().copy(y, other);
    });
  }
}

TEST_P(VectorAccessTest, AffineColumns) {
  for (const std::int64_t cols : {1, 2, 3, 4, 5, 8, 130}) {
    expect_same_bits("affine map of " + shape_text(3, cols), [cols](Operands& o) {
      constexpr Rows kStacked{3, 1, 2, 2};
      const Tensor scale = o.vector(cols), shift = o.vector(cols);
      const Stacked x{o.matrix(3, cols), o.matrix(4, cols)}, y{o.matrix(3, cols), o.matrix(4, cols)};
      const Stacked grad_x{o.matrix(3, cols), o.matrix(4, cols)};
      o.ops().affine_columns_forward(y, x, scale, shift, kStacked);
      o.ops().affine_columns_reverse(grad_x, y, scale, kStacked, Update::accumulate);
    });
  }
}

TEST_P(VectorAccessTest, AdamAndEma) {
  for (const std::int64_t n : {0, 1, 3, 4, 5, 1023, 1025, 4100}) {
    for (const bool moment : {true, false}) {
      expect_same_bits("adam of " + std::to_string(n), [n, moment](Operands& o) {
        StepState start;
        start.learning_rate[0] = 0.01;
        start.clip_scale[0] = 0.75;
        const DeviceArray<StepState> state(o.context(), start);
        const Tensor p = o.vector(n), v = o.vector(n, 0, 1), g = o.vector(n);
        const Tensor m = moment ? o.vector(n) : Tensor();
        o.ops().adam(p, m, v, g, Adam{moment ? 0.9 : 0.0, 0.99, 1e-8, 0.1}, state.address(), Player::energy);
      });
    }
    expect_same_bits("ema of " + std::to_string(n), [n](Operands& o) {
      const DeviceArray<StepState> state(o.context(), StepState{});
      const Tensor a = o.vector(n), p = o.vector(n);
      o.ops().ema(a, p, 0.999, state.address());
    });
  }
}

struct Pixels {
  std::int64_t pixels, channels;
};
const std::vector<Pixels> kPixels{{1, 1}, {1, 3}, {1, 4}, {1, 5}, {1, 8}, {1, 37}, {3, 3}, {5, 4}, {4, 6}, {2, 12}};
constexpr Rows kRows{3, 1, 2, 2};

TEST_P(VectorAccessTest, BiasActivation) {
  for (const Pixels& image : kPixels) {
    const std::int64_t cols = image.pixels * image.channels;
    for (const Activation function : {Activation::relu, Activation::tanh, Activation::silu, Activation::prelu}) {
      for (const bool with_bias : {true, false}) {
        const auto work = [=](Operands& o, bool in_place) {
          const ActivationKind kind{function, 0.2};
          const Tensor bias = with_bias ? o.vector(image.channels) : Tensor();
          const Tensor slope = function == Activation::prelu ? o.vector(image.channels) : Tensor();
          const Stacked x{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
          const Stacked grad_y{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
          if (in_place) {
            o.ops().bias_activation_reverse(grad_y, {}, {}, grad_y, x, bias, slope, kind, kRows, Update::overwrite);
            o.ops().bias_activation_forward(x, x, bias, slope, kind, kRows);
            return;
          }
          const Stacked y{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
          const Stacked grad_x{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
          o.ops().bias_activation_forward(y, x, bias, slope, kind, kRows);
          o.ops().bias_activation_reverse(grad_x, {}, {}, grad_y, x, bias, slope, kind, kRows, Update::overwrite);
        };
        for (const bool in_place : {false, true}) {
          expect_same_bits("activation of " + shape_text(image.pixels, image.channels),
                           [&](Operands& o) { work(o, in_place); });
        }
      }
    }
  }
}

TEST_P(VectorAccessTest, MaskedActivation) {
  for (const Pixels& image : kPixels) {
    const std::int64_t cols = image.pixels * image.channels;
    const std::int64_t mask_cols = image.pixels * ((image.channels + 7) / 8);
    for (const Activation function : {Activation::relu, Activation::leaky_relu}) {
      for (const bool with_bias : {true, false}) {
        const DeviceTensor mask = empty_matrix(context(), DType::u8, kRows.primal, mask_cols, 1);
        const ActivationKind kind{function, 0.2};
        const auto work = [&](Operands& o, bool in_place) {
          const Tensor bias = with_bias ? o.vector(image.channels) : Tensor();
          const Stacked x{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
          const Stacked grad_y{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
          const Stacked y = in_place ? x : Stacked{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
          const Stacked grad_x =
              in_place ? grad_y : Stacked{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
          o.ops().masked_activation_forward(y, mask, x, bias, image.channels, kind, kRows);
          o.add_bits(mask);
          o.ops().masked_activation_reverse(grad_x, {}, grad_y, mask, image.channels, kind, kRows, Update::overwrite);
          // Tangents alone, from the mask.
          const Tensor more = o.matrix(kRows.tangent_rows(), cols);
          o.ops().masked_activation_forward({{}, more}, mask, {{}, x.tangent}, {}, image.channels, kind, kRows);
        };
        for (const bool in_place : {false, true}) {
          expect_same_bits("masked activation of " + shape_text(image.pixels, image.channels),
                           [&](Operands& o) { work(o, in_place); });
        }
      }
    }
  }
}

// From 1,024 rows on the maps are launches of their own.
TEST_P(VectorAccessTest, BatchNorm) {
  for (const auto& [rows, cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {1030, 1}, {1025, 3}, {1026, 4}, {1027, 5}, {9, 8}, {3, 1029}}) {
    const auto work = [r = rows, c = cols](Operands& o, bool in_place) {
      const Tensor gamma = o.vector(c, 0.5, 1.5), beta = o.vector(c), mean = o.vector(c), inv_std = o.vector(c, 0.5, 1);
      const Tensor running_mean = o.vector(c), running_variance = o.vector(c, 0.5, 1);
      const Tensor x = o.matrix(r, c), grad_y = o.matrix(r, c);
      const Tensor y = in_place ? x : o.matrix(r, c), grad_x = in_place ? grad_y : o.matrix(r, c);
      o.ops().batch_norm_train_reverse(grad_x, {}, {}, grad_y, x, gamma, mean, inv_std, Update::overwrite);
      o.ops().batch_norm_train_forward(y, mean, inv_std, running_mean, running_variance, x, gamma, beta, 0.1, 1e-5);
    };
    for (const bool in_place : {false, true}) {
      expect_same_bits("batch norm of " + shape_text(rows, cols), [&](Operands& o) { work(o, in_place); });
    }
  }
}

TEST_P(VectorAccessTest, BatchNormInference) {
  for (const std::int64_t cols : {1, 3, 4, 5, 8, 130}) {
    expect_same_bits("inference of " + shape_text(kRows.primal, cols), [cols](Operands& o) {
      const Tensor gamma = o.vector(cols), beta = o.vector(cols), mean = o.vector(cols),
                   variance = o.vector(cols, 0.5, 1);
      const Stacked x{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
      const Stacked y{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
      const Stacked grad_x{o.matrix(kRows.primal, cols), o.matrix(kRows.tangent_rows(), cols)};
      o.ops().batch_norm_infer_forward(y, x, gamma, beta, mean, variance, 1e-5, kRows);
      o.ops().batch_norm_infer_reverse(grad_x, {}, {}, y, x, gamma, mean, variance, 1e-5, kRows, Update::overwrite);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, VectorAccessTest, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
