// Calls of ops that are checked and never computed: the planner has the same checks, counts the calls that passed, and
// its addresses are never used.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "bracket/error.h"
#include "kernels/plan_ops.h"

namespace bracket {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

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
  const Staircase staircase{1, 2, 5, 2.0, 1.0};                    // 2 columns of 2 + 15 parameters
  const RationalQuadratic spline{1, 2, 5, 3.0, 0.01, 0.01, 0.01};  // 2 columns of 14 parameters
  const Convolution convolution{6, 5, 2, 4, 3, 2, 1};              // 6 x 5 pixels to 3 x 3
  const Window window{4, 4, 3, 2, 0.25};
  const RandomKey key{1, RandomStream::test, 0};
};

}  // namespace bracket
