// What the tests of the ops share: the devices to run on, tensors on them, random matrices and the comparison.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <limits>
#include <memory>
#include <ostream>
#include <random>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bracket/device.h"
#include "bracket/error.h"
#include "bracket/memory.h"
#include "bracket/tensor.h"
#include "kernels/cuda/make_cuda_ops.h"
#include "kernels/ops.h"

namespace bracket::test {

/// Seed of every random test: BRACKET_TEST_SEED, or 1. Failures print it (see OpsTest).
inline std::uint64_t test_seed() {
  const char* text = std::getenv("BRACKET_TEST_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

inline bool gpu_required() {
  const char* text = std::getenv("BRACKET_REQUIRE_GPU");
  return text && std::string(text) == "1";
}

/// One implementation of the op list: "cpu", "simt" (the CUDA kernels on the SIMT executor) or "cuda".
class TestDevice {
 public:
  explicit TestDevice(std::string name) : name_(std::move(name)), shared_(std::make_shared<Shared>()) {}

  const std::string& name() const { return name_; }

  /// Empty when the device can run here.
  std::string unusable_reason() const {
    std::string reason;
    if (name_ == "cuda") cuda_device_count(&reason);
    return reason;
  }

  /// A context in guard mode, made at the first call and shared by the tests that use this device.
  Context& context() const {
    if (!shared_->context) shared_->context = make_context({});
    return *shared_->context;
  }
  bool opened() const { return shared_->context != nullptr; }
  /// Destroys the shared context; what was made from it must be gone.
  void close() const { shared_->context.reset(); }

  /// A context of its own. Guard mode is on; `options.device` is chosen by this device.
  std::unique_ptr<Context> make_context(ContextOptions options) const {
    options.guard = true;
    options.device = name_ == "cpu" ? Device{} : Device{DeviceKind::cuda, 0};
#ifdef BRACKET_TEST_SIMT
    if (name_ == "simt") {
      return std::make_unique<Context>(options, simt::make_cuda_ops(0, options.stream, options.allocator));
    }
#endif
    return std::make_unique<Context>(options);
  }

  friend std::ostream& operator<<(std::ostream& out, const TestDevice& device) { return out << device.name_; }

 private:
  struct Shared {
    std::unique_ptr<Context> context;
  };
  std::string name_;
  std::shared_ptr<Shared> shared_;
};

/// For INSTANTIATE_TEST_SUITE_P(Devices, XTest, ::testing::ValuesIn(test_devices()), device_name).
inline std::vector<TestDevice> test_devices() {
  std::vector<TestDevice> devices;
  devices.emplace_back("cpu");
#ifdef BRACKET_TEST_SIMT
  devices.emplace_back("simt");
#endif
#ifdef BRACKET_WITH_CUDA
  devices.emplace_back("cuda");
#endif
  return devices;
}

inline std::string device_name(const ::testing::TestParamInfo<TestDevice>& info) { return info.param.name(); }

/// A matrix of doubles on the host: what tests compute references with.
struct HostMatrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<double> values;

  HostMatrix() = default;
  HostMatrix(std::int64_t num_rows, std::int64_t num_cols, double value = 0)
      : rows(num_rows), cols(num_cols), values(static_cast<std::size_t>(num_rows * num_cols), value) {}

  double& operator()(std::int64_t i, std::int64_t j) { return values[static_cast<std::size_t>(i * cols + j)]; }
  double operator()(std::int64_t i, std::int64_t j) const { return values[static_cast<std::size_t>(i * cols + j)]; }
  std::int64_t size() const { return rows * cols; }

  /// The values as `dtype` stores them: references are computed from these.
  HostMatrix rounded(DType dtype) const {
    HostMatrix result = *this;
    if (dtype == DType::f32) {
      for (double& value : result.values) value = static_cast<double>(static_cast<float>(value));
    }
    return result;
  }
};

/// A column of n values, for ops that take vectors.
inline HostMatrix host_vector(std::vector<double> values) {
  HostMatrix result;
  result.rows = static_cast<std::int64_t>(values.size());
  result.cols = 1;
  result.values = std::move(values);
  return result;
}

/// Uniform in [low, high), a function of test_seed(), `salt` and the shape.
inline HostMatrix random_matrix(std::int64_t rows, std::int64_t cols, std::uint64_t salt, double low = -1,
                                double high = 1) {
  std::seed_seq sequence{test_seed(), salt, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols)};
  std::mt19937_64 engine(sequence);
  std::uniform_real_distribution<double> uniform(low, high);
  HostMatrix result(rows, cols);
  for (double& value : result.values) value = uniform(engine);
  return result;
}

/// A tensor with memory of its own in the pool of a context.
class DeviceTensor {
 public:
  DeviceTensor() = default;
  DeviceTensor(Buffer buffer, Tensor tensor) : buffer_(std::move(buffer)), tensor_(tensor) {}

  const Tensor& tensor() const { return tensor_; }
  operator Tensor() const {
    return tensor_;
  }  // NOLINT(google-explicit-constructor): tests pass it where ops take a Tensor

 private:
  Buffer buffer_;
  Tensor tensor_;
};

/// Contiguous tensor of NaN. Extents of 0 are allowed.
inline DeviceTensor empty(Context& context, DType dtype, std::initializer_list<std::int64_t> shape) {
  Tensor tensor(nullptr, dtype, shape);
  Buffer buffer = context.pool().allocate(tensor.bytes());
  tensor = Tensor(buffer.data(), dtype, shape);
  return {std::move(buffer), tensor};
}

/// Matrix of NaN whose rows lie cols + padding elements apart; the last row has no padding behind it, so that one
/// element too many is found by the guards.
inline DeviceTensor empty_matrix(Context& context, DType dtype, std::int64_t rows, std::int64_t cols,
                                 std::int64_t padding = 0) {
  const std::int64_t span = rows == 0 ? 0 : (rows - 1) * (cols + padding) + cols;
  Buffer buffer = context.pool().allocate(span * dtype_bytes(dtype));
  const Tensor tensor = Tensor::matrix(buffer.data(), dtype, rows, cols, cols + padding);
  return {std::move(buffer), tensor};
}

/// What uploads leave between the rows of a matrix: a NaN, for u8 the byte that guarded memory is filled with.
template <class T>
T gap_value() {
  if constexpr (std::is_same_v<T, std::uint8_t>) {
    return 0xff;
  } else {
    return std::numeric_limits<T>::quiet_NaN();
  }
}
template <class T>
bool is_gap_value(T value) {
  if constexpr (std::is_same_v<T, std::uint8_t>) {
    return value == gap_value<T>();
  } else {
    return std::isnan(value);
  }
}

/// f(T{}) with the element type of `dtype`.
template <class F>
void with_element_type(DType dtype, F&& f) {
  if (dtype == DType::f32) {
    f(float{});
  } else if (dtype == DType::f64) {
    f(double{});
  } else {
    f(std::uint8_t{});
  }
}

/// Writes `host` into `y`, a matrix (any row stride) or a contiguous tensor of the same number of elements. Elements
/// between the rows become gap_value().
inline void upload_into(Context& context, const Tensor& y, const HostMatrix& host) {
  ASSERT_EQ(y.size(), host.size());
  if (y.size() == 0) return;
  const std::int64_t cols = y.cols();
  const std::int64_t stride = y.row_stride();
  const auto span = static_cast<std::size_t>((y.rows() - 1) * stride + cols);
  const auto write = [&]<class T>(T) {
    std::vector<T> elements(span, gap_value<T>());
    for (std::int64_t i = 0; i < y.rows(); ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        elements[static_cast<std::size_t>(i * stride + j)] =
            static_cast<T>(host.values[static_cast<std::size_t>(i * cols + j)]);
      }
    }
    context.ops().copy_bytes_to_device(y.data(), elements.data(), static_cast<std::int64_t>(span * sizeof(T)));
  };
  with_element_type(y.dtype(), write);
}

/// [rows, cols] on the device; rows lie cols + padding elements apart.
inline DeviceTensor upload(Context& context, const HostMatrix& host, DType dtype = DType::f64,
                           std::int64_t padding = 0) {
  DeviceTensor result = empty_matrix(context, dtype, host.rows, host.cols, padding);
  upload_into(context, result, host);
  return result;
}

/// [n] on the device.
inline DeviceTensor upload_vector(Context& context, const HostMatrix& host, DType dtype = DType::f64) {
  DeviceTensor result = empty(context, dtype, {host.size()});
  upload_into(context, result, host);
  return result;
}

/// The elements as rows() x cols(). Fails the test when something was written between the rows, which upload and
/// empty_matrix left gap_value().
inline HostMatrix download(Context& context, const Tensor& x) {
  HostMatrix host(x.rows(), x.cols());
  if (x.size() == 0) return host;
  const std::int64_t stride = x.row_stride();
  const auto span = static_cast<std::size_t>((x.rows() - 1) * stride + x.cols());
  const auto read = [&]<class T>(T) {
    std::vector<T> elements(span);
    context.ops().copy_bytes_to_host(elements.data(), x.data(), static_cast<std::int64_t>(span * sizeof(T)));
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      for (std::int64_t j = 0; j < x.cols(); ++j) {
        host(i, j) = static_cast<double>(elements[static_cast<std::size_t>(i * stride + j)]);
      }
      for (std::int64_t j = x.cols(); j < stride && i + 1 < x.rows(); ++j) {
        EXPECT_TRUE(is_gap_value(elements[static_cast<std::size_t>(i * stride + j)]))
            << "written between the rows: row " << i << ", " << j - x.cols() << " elements past its end";
      }
    }
  };
  with_element_type(x.dtype(), read);
  return host;
}

/// Trivially copyable values on the device: a StepState, a ring of records, a counter.
template <class T>
class DeviceArray {
 public:
  DeviceArray(Context& context, const std::vector<T>& values)
      : context_(&context),
        count_(values.size()),
        buffer_(context.pool().allocate(static_cast<std::int64_t>(values.size() * sizeof(T)))) {
    write(values);
  }
  DeviceArray(Context& context, const T& value) : DeviceArray(context, std::vector<T>{value}) {}

  T* address() const { return static_cast<T*>(buffer_.data()); }
  std::vector<T> read_all() const {
    std::vector<T> values(count_);
    context_->ops().copy_bytes_to_host(values.data(), buffer_.data(), buffer_.bytes());
    return values;
  }
  T read() const { return read_all().front(); }
  void write(const std::vector<T>& values) {
    ASSERT_EQ(values.size(), count_);
    context_->ops().copy_bytes_to_device(buffer_.data(), values.data(), buffer_.bytes());
  }

 private:
  Context* context_;
  std::size_t count_;
  Buffer buffer_;
};

/// Largest |actual - expected| allowed for one expected element.
using Limit = std::function<double(double expected)>;

inline Limit absolute_limit(double absolute) {
  return [absolute](double) { return absolute; };
}
/// absolute + relative |expected|.
inline Limit mixed_limit(double absolute, double relative) {
  return [absolute, relative](double expected) { return absolute + relative * std::abs(expected); };
}

/// Enough digits to tell any two doubles apart.
inline std::string exact_text(double value) {
  std::ostringstream text;
  text.precision(17);
  text << value;
  return text.str();
}

/// Element by element; NaN matches only NaN and an infinity only itself. The message names the worst element.
inline ::testing::AssertionResult matrices_close(const HostMatrix& actual, const HostMatrix& expected,
                                                 const Limit& limit) {
  if (actual.rows != expected.rows || actual.cols != expected.cols) {
    return ::testing::AssertionFailure() << "shape [" << actual.rows << ", " << actual.cols << "], expected ["
                                         << expected.rows << ", " << expected.cols << "]";
  }
  double worst_excess = 0;
  std::int64_t worst = -1;
  std::int64_t wrong = 0;
  for (std::size_t k = 0; k < expected.values.size(); ++k) {
    const double a = actual.values[k];
    const double e = expected.values[k];
    if (std::isnan(a) && std::isnan(e)) continue;
    if (a == e) continue;
    const double excess = std::abs(a - e) / limit(e);
    if (excess <= 1) continue;  // false for NaN, so a NaN on one side is wrong
    ++wrong;
    const double ranked = std::isnan(excess) ? std::numeric_limits<double>::infinity() : excess;
    if (worst < 0 || ranked > worst_excess) {
      worst_excess = ranked;
      worst = static_cast<std::int64_t>(k);
    }
  }
  if (wrong == 0) return ::testing::AssertionSuccess();
  const double a = actual.values[static_cast<std::size_t>(worst)];
  const double e = expected.values[static_cast<std::size_t>(worst)];
  return ::testing::AssertionFailure() << wrong << " of " << expected.size() << " elements are wrong, worst at ["
                                       << worst / expected.cols << ", " << worst % expected.cols
                                       << "]: " << exact_text(a) << ", expected " << exact_text(e) << " within "
                                       << limit(e);
}
#define EXPECT_MATRICES_CLOSE(actual, expected, limit) \
  EXPECT_TRUE(::bracket::test::matrices_close((actual), (expected), (limit)))

/// Same bits; +0 and -0 differ, NaNs of the same payload are equal.
inline ::testing::AssertionResult matrices_identical(const HostMatrix& actual, const HostMatrix& expected) {
  if (actual.rows != expected.rows || actual.cols != expected.cols) {
    return ::testing::AssertionFailure() << "shape [" << actual.rows << ", " << actual.cols << "], expected ["
                                         << expected.rows << ", " << expected.cols << "]";
  }
  for (std::size_t k = 0; k < expected.values.size(); ++k) {
    if (std::memcmp(&actual.values[k], &expected.values[k], sizeof(double)) != 0) {
      return ::testing::AssertionFailure() << "element " << k << ": " << exact_text(actual.values[k])
                                           << ", expected exactly " << exact_text(expected.values[k]);
    }
  }
  return ::testing::AssertionSuccess();
}
#define EXPECT_MATRICES_IDENTICAL(actual, expected) \
  EXPECT_TRUE(::bracket::test::matrices_identical((actual), (expected)))

/// Unit round-off 2^-24 or 2^-53: the eps of the tolerance formulas.
inline double unit_roundoff(DType dtype) { return dtype == DType::f32 ? 0x1p-24 : 0x1p-53; }

/// Base of every op test. Skips a GPU that is not there, unless BRACKET_REQUIRE_GPU=1 makes that a failure; checks the
/// guards of all buffers still alive after each test.
class OpsTest : public ::testing::TestWithParam<TestDevice> {
 protected:
  void SetUp() override {
    RecordProperty("seed", std::to_string(test_seed()));
    const std::string reason = GetParam().unusable_reason();
    if (reason.empty()) return;
    if (gpu_required()) {
      FAIL() << "BRACKET_REQUIRE_GPU=1 but no GPU is usable: " << reason;
    }
    GTEST_SKIP() << "no usable GPU: " << reason;
  }
  void TearDown() override {
    if (HasFailure()) std::cerr << "reproduce with BRACKET_TEST_SEED=" << test_seed() << "\n";
    if (!GetParam().opened()) return;
    EXPECT_NO_THROW(context().pool().check_guards());
    // Buffers of the fixture itself are still alive here; then the context waits for the next test.
    if (context().pool().statistics().bytes_in_use == 0) GetParam().close();
  }

  Context& context() const { return GetParam().context(); }
  Ops& ops() const { return context().ops(); }
};

}  // namespace bracket::test
