// Launchers of rational_quadratic.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rational_quadratic.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace rational_quadratic_kernels;

template <class T>
cudaError_t rational_quadratic_forward(const Stacked& y, const Stacked& log_slope, const Stacked& x,
                                       const Stacked& theta, const RationalQuadratic& map, const Rows& rows,
                                       cudaStream_t stream) {
  const std::int64_t tasks = rows.primal * (map.active_count + 1);
  if (tasks == 0) return cudaSuccess;
  return launch<RationalQuadraticForwardBody<T>>(blocks_for(tasks, kThreads), kThreads, 0, stream, stacked<T>(y),
                                                 stacked<T>(log_slope), stacked<T>(x), stacked<T>(theta), map, rows);
}

template <class T>
cudaError_t rational_quadratic_reverse(const Stacked& grad_x, const Stacked& grad_theta, const Stacked& grad_y,
                                       const Stacked& grad_log_slope, const Stacked& x, const Stacked& theta,
                                       const RationalQuadratic& map, const Rows& rows, cudaStream_t stream) {
  const std::int64_t tasks = rows.primal * (map.passive_jacobian ? 1 : map.active_count + 1);
  if (tasks == 0) return cudaSuccess;
  return launch<RationalQuadraticReverseBody<T>>(blocks_for(tasks, kThreads), kThreads, 0, stream, stacked<T>(grad_x),
                                                 stacked<T>(grad_theta), stacked<T>(grad_y), stacked<T>(grad_log_slope),
                                                 stacked<T>(x), stacked<T>(theta), map, rows);
}

}  // namespace

void CudaOps::do_rational_quadratic_forward(Stacked y, Stacked log_slope, Stacked x, Stacked theta,
                                            const RationalQuadratic& map, const Rows& rows) {
  check(dispatch(x.primal.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::rational_quadratic_forward<T>(y, log_slope, x, theta, map, rows, stream_);
                 }),
        "rational_quadratic_forward", x.primal);
}

void CudaOps::do_rational_quadratic_reverse(Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked grad_log_slope,
                                            Stacked x, Stacked theta, const RationalQuadratic& map, const Rows& rows) {
  check(dispatch(x.primal.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::rational_quadratic_reverse<T>(grad_x, grad_theta, grad_y, grad_log_slope, x,
                                                                        theta, map, rows, stream_);
                 }),
        "rational_quadratic_reverse", x.primal);
}

}  // namespace bracket::BRACKET_TARGET
