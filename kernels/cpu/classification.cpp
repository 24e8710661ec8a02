// Softmax cross-entropy in double, row by row.
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"

namespace bracket {
namespace {

/// An exponential is about 10 ns, in the unit of parallel_rows.
constexpr std::int64_t kFlopsPerClass = 160;

}  // namespace

void CpuOps::do_softmax_cross_entropy(Tensor losses, Tensor grad_logits, Tensor logits, Tensor labels) {
  dispatch(logits.dtype(), [&]<class T>() {
    const Matrix<T> in = matrix<T>(logits), grad = matrix<T>(grad_logits);
    T* const loss = losses.as<T>();
    const std::uint8_t* const label = labels.as<std::uint8_t>();
    const double inverse_n = 1 / static_cast<double>(in.rows);
    parallel_rows(in.rows, kFlopsPerClass * in.cols, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const T* const row = in.row(i);
        double largest = static_cast<double>(row[0]);
        for (std::int64_t k = 1; k < in.cols; ++k) {
          const double value = static_cast<double>(row[k]);
          largest = value > largest || value != value ? value : largest;
        }
        double sum = 0;
        for (std::int64_t k = 0; k < in.cols; ++k) sum += std::exp(static_cast<double>(row[k]) - largest);
        const bool known = label[i] < in.cols;
        const double own = known ? static_cast<double>(row[label[i]]) : std::numeric_limits<double>::quiet_NaN();
        loss[i] = static_cast<T>(std::log(sum) + (largest - own));
        if (grad.data == nullptr) continue;
        const double unit = known ? inverse_n : std::numeric_limits<double>::quiet_NaN();
        for (std::int64_t k = 0; k < in.cols; ++k) {
          const double probability = std::exp(static_cast<double>(row[k]) - largest) / sum;
          grad.row(i)[k] = static_cast<T>((probability - (k == label[i] ? 1 : 0)) * unit);
        }
      }
    });
  });
}

}  // namespace bracket
