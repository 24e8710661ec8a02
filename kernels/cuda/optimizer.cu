// Launchers of optimizer.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/optimizer.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace optimizer_kernels;

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t adam(const Tensor& parameters, const Tensor& first_moment, const Tensor& second_moment,
                 const Tensor& gradient, const Adam& rule, const StepState* state, Player player, cudaStream_t stream) {
  const std::int64_t size = parameters.size();
  if (size == 0) return cudaSuccess;
  T* const p = device_vector<T>(parameters);
  T* const m = device_vector<T>(first_moment);
  T* const v = device_vector<T>(second_moment);
  const T* const g = device_vector<T>(gradient);
  const unsigned blocks = blocks_for((size + kElementsPerThread - 1) / kElementsPerThread, kThreads);
  return with_vector_width<T>(RowsAligned().add(p).add(m).add(v).add(g), [&]<int kWidth>() {
    return launch<AdamBody<T, kWidth>>(blocks, kThreads, 0, stream, p, m, v, g, size, rule, state, player);
  });
}

template <class T>
cudaError_t ema(const Tensor& average, const Tensor& parameters, double decay, const StepState* state,
                cudaStream_t stream) {
  const std::int64_t size = average.size();
  if (size == 0) return cudaSuccess;
  T* const a = device_vector<T>(average);
  const T* const p = device_vector<T>(parameters);
  const unsigned blocks = blocks_for((size + kElementsPerThread - 1) / kElementsPerThread, kThreads);
  return with_vector_width<T>(RowsAligned().add(a).add(p), [&]<int kWidth>() {
    return launch<EmaBody<T, kWidth>>(blocks, kThreads, 0, stream, a, p, size, decay, state);
  });
}

}  // namespace

void CudaOps::do_begin_step(StepState* state, const Schedule& schedule) {
  check(launch<BeginStepBody>(1, 1, 0, stream_, state, schedule), "begin_step", Tensor());
}

void CudaOps::do_clip_gradient(StepState* state, Tensor squared_norm, double limit, Player player) {
  const double* const norm = squared_norm.as<double>();
  check(launch<ClipGradientBody>(1, 1, 0, stream_, state, norm, limit, player), "clip_gradient", squared_norm);
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
  check(launch<CountUpdateBody>(1, 1, 0, stream_, state, player), "count_update", Tensor());
}

void CudaOps::do_ema(Tensor average, Tensor parameters, double decay, const StepState* state) {
  check(dispatch(average.dtype(),
                 [&]<class T>() { return BRACKET_TARGET::ema<T>(average, parameters, decay, state, stream_); }),
        "ema", average);
}

void CudaOps::do_end_step(StepState* state, StepRecord* ring, std::int64_t ring_size) {
  check(launch<EndStepBody>(1, 1, 0, stream_, state, ring, ring_size), "end_step", Tensor());
}

}  // namespace bracket::BRACKET_TARGET
