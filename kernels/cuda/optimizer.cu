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
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/formula/step_rules.h"

namespace bracket::BRACKET_TARGET {
namespace {

constexpr int kThreads = 256;
// A block spends two f64 powers on its factors; four elements per thread make that cost small against their traffic.
constexpr std::int64_t kElementsPerThread = 4;

// ---- kernels --------------------------------------------------------------------------------------------------------

__global__ void begin_step_kernel(StepState* state, Schedule schedule) { formula::begin_step(*state, schedule); }

__global__ void clip_gradient_kernel(StepState* state, const double* squared_norm, double limit, Player player) {
  formula::clip_gradient(*state, *squared_norm, limit, player);
}

__global__ void count_update_kernel(StepState* state, Player player) { formula::count_update(*state, player); }

__global__ void end_step_kernel(StepState* state, StepRecord* ring, std::int64_t ring_size) {
  formula::end_step(*state, ring, ring_size);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(T* parameters, T* first_moment, T* second_moment, const T* gradient, std::int64_t size, Adam rule,
                const StepState* state, Player player) {
  BRACKET_SHARED(formula::AdamStep<T>, shared_step, [1]);
  if (threadIdx.x == 0) shared_step[0] = formula::adam_step<T>(rule, *state, player);
  __syncthreads();
  const formula::AdamStep<T> step = shared_step[0];
  if (!step.active) return;
  for (std::int64_t i = first_item(); i < size; i += item_stride()) {
    T p = parameters[i];
    T m = first_moment == nullptr ? T{0} : first_moment[i];
    T v = second_moment[i];
    formula::adam_element(step, p, m, v, gradient[i]);
    parameters[i] = p;
    if (first_moment != nullptr) first_moment[i] = m;
    second_moment[i] = v;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    ema_kernel(T* average, const T* parameters, std::int64_t size, double decay, const StepState* state) {
  if (formula::frozen(*state)) return;
  const T gain = static_cast<T>(formula::ema_gain(decay, *state));
  for (std::int64_t i = first_item(); i < size; i += item_stride()) {
    average[i] += gain * (parameters[i] - average[i]);
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t adam(const Tensor& parameters, const Tensor& first_moment, const Tensor& second_moment,
                 const Tensor& gradient, const Adam& rule, const StepState* state, Player player, cudaStream_t stream) {
  const std::int64_t size = parameters.size();
  if (size == 0) return cudaSuccess;
  const T* const g = device_vector<T>(gradient);
  return launch<adam_kernel<T>>(blocks_for((size + kElementsPerThread - 1) / kElementsPerThread, kThreads), kThreads, 0,
                                stream, device_vector<T>(parameters), device_vector<T>(first_moment),
                                device_vector<T>(second_moment), g, size, rule, state, player);
}

template <class T>
cudaError_t ema(const Tensor& average, const Tensor& parameters, double decay, const StepState* state,
                cudaStream_t stream) {
  const std::int64_t size = average.size();
  if (size == 0) return cudaSuccess;
  const T* const p = device_vector<T>(parameters);
  return launch<ema_kernel<T>>(blocks_for((size + kElementsPerThread - 1) / kElementsPerThread, kThreads), kThreads, 0,
                               stream, device_vector<T>(average), p, size, decay, state);
}

}  // namespace

void CudaOps::do_begin_step(StepState* state, const Schedule& schedule) {
  check(launch<begin_step_kernel>(1, 1, 0, stream_, state, schedule), "begin_step", Tensor());
}

void CudaOps::do_clip_gradient(StepState* state, Tensor squared_norm, double limit, Player player) {
  const double* const norm = squared_norm.as<double>();
  check(launch<clip_gradient_kernel>(1, 1, 0, stream_, state, norm, limit, player), "clip_gradient", squared_norm);
}

void CudaOps::do_adam(Tensor parameters, Tensor first_moment, Tensor second_moment, Tensor gradient, const Adam& rule,
                      const StepState* state, Player player) {
  check(dispatch(parameters.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::adam<T>(parameters, first_moment, second_moment, gradient, rule, state,
                                                  player, stream_);
                 }),
        "adam", parameters);
}

void CudaOps::do_count_update(StepState* state, Player player) {
  check(launch<count_update_kernel>(1, 1, 0, stream_, state, player), "count_update", Tensor());
}

void CudaOps::do_ema(Tensor average, Tensor parameters, double decay, const StepState* state) {
  check(dispatch(average.dtype(),
                 [&]<class T>() { return BRACKET_TARGET::ema<T>(average, parameters, decay, state, stream_); }),
        "ema", average);
}

void CudaOps::do_end_step(StepState* state, StepRecord* ring, std::int64_t ring_size) {
  check(launch<end_step_kernel>(1, 1, 0, stream_, state, ring, ring_size), "end_step", Tensor());
}

}  // namespace bracket::BRACKET_TARGET
