// Samples of the toy densities (kernels/formula/toy.h): a function of key and sample number alone.
#include "kernels/formula/toy.h"

#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"

namespace bracket {

void CpuOps::do_toy_samples(Tensor y, ToyData data, const RandomKey& key, const std::int64_t* counter) {
  const formula::PhiloxKey philox = formula::philox_key(key, formula::counted_step(key, counter));
  // About 25 ns a sample on one core, in the unit of parallel_rows.
  constexpr std::int64_t kFlopsPerSample = 200;
  dispatch(y.dtype(), [&]<class T>() {
    const Matrix<T> target = matrix<T>(y);
    parallel_rows(target.rows, kFlopsPerSample, team_, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const formula::ToyPoint point = formula::toy_point(data, philox, static_cast<std::uint64_t>(i));
        target.row(i)[0] = static_cast<T>(point.x);
        target.row(i)[1] = static_cast<T>(point.y);
      }
    });
  });
}

}  // namespace bracket
