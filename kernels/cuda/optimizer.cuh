// Updates of flat parameter blocks, and the rules of a step's scalars; formulas in kernels/formula/step_rules.h.
//   adam   m, v, p of n elements;  ema  a += (1 - d) (p - a)
//
// Bytes         adam reads 4 n and writes 3 n elements (2 n less with beta1 = 0 and no first moment); ema reads 2 n,
//               writes n. Flops 14 n (with one square root and one division), 3 n. Bound by memory.
// Alignment     that of the element; neighbouring threads touch neighbouring elements. No aliasing.
// Determinism   every element is computed by itself.
// The state is read where it lives, in device memory: nothing a step changes is a kernel argument, so that a step can
// be captured once and replayed. Its rules are single-thread kernels.
//
// | variant     | idea                                                     | time                      |
// | adam, ema   | grid-stride loop; the factors once per block             | not yet measured on a GPU |
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/formula/step_rules.h"

namespace bracket::BRACKET_TARGET::optimizer_kernels {

constexpr int kThreads = 256;
// A block spends two f64 powers on its factors; four elements per thread make that cost small against their traffic.
constexpr std::int64_t kElementsPerThread = 4;

// ---- kernels --------------------------------------------------------------------------------------------------------

struct BeginStepBody {
  static constexpr int kBlockThreads = 1;

  StepState* state;
  Schedule schedule;

  BRACKET_DEVICE void operator()(const Block&) const { formula::begin_step(*state, schedule); }
};

struct ClipGradientBody {
  static constexpr int kBlockThreads = 1;

  StepState* state;
  const double* squared_norm;
  double limit;
  Player player;

  BRACKET_DEVICE void operator()(const Block&) const { formula::clip_gradient(*state, *squared_norm, limit, player); }
};

struct CountUpdateBody {
  static constexpr int kBlockThreads = 1;

  StepState* state;
  Player player;

  BRACKET_DEVICE void operator()(const Block&) const { formula::count_update(*state, player); }
};

struct EndStepBody {
  static constexpr int kBlockThreads = 1;

  StepState* state;
  StepRecord* ring;
  std::int64_t ring_size;

  BRACKET_DEVICE void operator()(const Block&) const { formula::end_step(*state, ring, ring_size); }
};

template <class T>
struct AdamBody {
  static constexpr int kBlockThreads = kThreads;
  static constexpr bool kMeets = true;

  T* parameters;
  T* first_moment;
  T* second_moment;
  const T* gradient;
  std::int64_t size;
  Adam rule;
  const StepState* state;
  Player player;

  BRACKET_DEVICE void operator()(const Block& block) const {
    BRACKET_SHARED(formula::AdamStep<T>, shared_step, [1]);
    if (threadIdx.x == 0) shared_step[0] = formula::adam_step<T>(rule, *state, player);
    __syncthreads();
    const formula::AdamStep<T> step = shared_step[0];
    if (!step.active) return;
    for (std::int64_t i = block.first_item(); i < size; i += block.item_stride()) {
      T p = parameters[i];
      T m = first_moment == nullptr ? T{0} : first_moment[i];
      T v = second_moment[i];
      formula::adam_element(step, p, m, v, gradient[i]);
      parameters[i] = p;
      if (first_moment != nullptr) first_moment[i] = m;
      second_moment[i] = v;
    }
  }
};

template <class T>
struct EmaBody {
  static constexpr int kBlockThreads = kThreads;

  T* average;
  const T* parameters;
  std::int64_t size;
  double decay;
  const StepState* state;

  BRACKET_DEVICE void operator()(const Block& block) const {
    if (formula::frozen(*state)) return;
    const T gain = static_cast<T>(formula::ema_gain(decay, *state));
    for (std::int64_t i = block.first_item(); i < size; i += block.item_stride()) {
      average[i] += gain * (parameters[i] - average[i]);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::optimizer_kernels
