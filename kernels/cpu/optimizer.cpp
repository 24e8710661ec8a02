// Updates of flat parameter blocks, and the rules of a step's scalars (kernels/formula/step_rules.h).
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/formula/step_rules.h"

namespace bracket {
namespace {

/// A division and a square root of eight floats take about 20 cycles: 20 operations an element.
constexpr std::int64_t kFlopsPerAdamElement = 20;
constexpr std::int64_t kFlopsPerAverageElement = 3;

}  // namespace

void CpuOps::do_begin_step(StepState* state, const Schedule& schedule) { formula::begin_step(*state, schedule); }

void CpuOps::do_clip_gradient(StepState* state, Tensor squared_norm, double limit, Player player) {
  formula::clip_gradient(*state, *squared_norm.as<double>(), limit, player);
}

void CpuOps::do_adam(Tensor parameters, Tensor first_moment, Tensor second_moment, Tensor gradient, const Adam& rule,
                     const StepState* state, Player player) {
  dispatch(parameters.dtype(), [&]<class T>() {
    const formula::AdamStep<T> step = formula::adam_step<T>(rule, *state, player);
    if (!step.active) return;
    T* const p = parameters.as<T>();
    T* const m = first_moment.absent() ? nullptr : first_moment.as<T>();
    T* const v = second_moment.as<T>();
    const T* const g = gradient.as<T>();
    parallel_rows(parameters.size(), kFlopsPerAdamElement, team_, [=](std::int64_t first, std::int64_t last) {
      if (m == nullptr) {
#pragma omp simd
        for (std::int64_t i = first; i < last; ++i) {
          T momentum = 0;
          formula::adam_element(step, p[i], momentum, v[i], g[i]);
        }
      } else {
#pragma omp simd
        for (std::int64_t i = first; i < last; ++i) formula::adam_element(step, p[i], m[i], v[i], g[i]);
      }
    });
  });
}

void CpuOps::do_count_update(StepState* state, Player player) { formula::count_update(*state, player); }

void CpuOps::do_ema(Tensor average, Tensor parameters, double decay, const StepState* state) {
  const double gain = formula::ema_gain(decay, *state);
  if (formula::frozen(*state)) return;
  dispatch(average.dtype(), [&]<class T>() {
    T* const a = average.as<T>();
    const T* const p = parameters.as<T>();
    const T step = static_cast<T>(gain);
    parallel_rows(average.size(), kFlopsPerAverageElement, team_, [=](std::int64_t first, std::int64_t last) {
#pragma omp simd
      for (std::int64_t i = first; i < last; ++i) a[i] += step * (p[i] - a[i]);
    });
  });
}

void CpuOps::do_end_step(StepState* state, StepRecord* ring, std::int64_t ring_size) {
  formula::end_step(*state, ring, ring_size);
}

}  // namespace bracket
