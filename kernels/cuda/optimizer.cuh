// Updates of flat parameter blocks, and the rules of a step's scalars; formulas in kernels/formula/step_rules.h.
//   adam   m, v, p of n elements;  ema  a += (1 - d) (p - a)
//
// Bytes         adam reads 4 n and writes 3 n elements, each once (2 n less with beta1 = 0, whose first moment is
//               neither kept nor read); ema reads 2 n, writes n. Flops 14 n (with one square root and one division),
//               3 n. Bound by memory.
// Alignment     any; 16 bytes at a time where all operands start on a multiple of them. No aliasing.
// Determinism   every element is computed by itself.
// The state is read where it lives, in device memory: nothing a step changes is a kernel argument, so that a step can
// be captured once and replayed. Its rules are single-thread kernels.
// adam and ema stay apart. A step updates both players before either average, since a mark set in the generator's
// update freezes the energy's average as well: fused with its adam it would already have moved. For the generator alone
// the order would allow it, and save a launch and one read of its parameters, a tenth of what adam and ema move.
// Nor does adam write weights rounded or transposed for the tensor cores: see Operands in linear_sm80.cu.
//
// | variant     | idea                                                     | time                      |
// | width 1     | grid-stride loop; the factors once per block             | not yet measured on a GPU |
// | width 4, 2  | 16 bytes of each operand a turn                          | not yet measured on a GPU |
// sm_80 and sm_90: at most 64 registers, no spills.
#pragma once

#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/common/vector_access.cuh"
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

template <class T, int kWidth>
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
    const VectorGrid grid(1, size, kWidth);
    for (std::int64_t item = block.first_item(); item < grid.items(); item += block.item_stride()) {
      const VectorPlace at = grid.at(item);
      Vector<T, kWidth> p = load_vector<kWidth>(parameters + at.column, at.count);
      Vector<T, kWidth> m{};
      if (first_moment != nullptr) m = load_vector<kWidth>(first_moment + at.column, at.count);
      Vector<T, kWidth> v = load_vector<kWidth>(second_moment + at.column, at.count);
      const Vector<T, kWidth> g = load_vector<kWidth>(gradient + at.column, at.count);
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) formula::adam_element(step, p[k], m[k], v[k], g[k]);
      store_vector(parameters + at.column, p, at.count);
      if (first_moment != nullptr) store_vector(first_moment + at.column, m, at.count);
      store_vector(second_moment + at.column, v, at.count);
    }
  }
};

template <class T, int kWidth>
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
    const VectorGrid grid(1, size, kWidth);
    for (std::int64_t item = block.first_item(); item < grid.items(); item += block.item_stride()) {
      const VectorPlace at = grid.at(item);
      Vector<T, kWidth> a = load_vector<kWidth>(average + at.column, at.count);
      const Vector<T, kWidth> p = load_vector<kWidth>(parameters + at.column, at.count);
      BRACKET_UNROLL
      for (int k = 0; k < kWidth; ++k) a[k] += gain * (p[k] - a[k]);
      store_vector(average + at.column, a, at.count);
    }
  }
};

}  // namespace bracket::BRACKET_TARGET::optimizer_kernels
