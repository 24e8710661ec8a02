// Launchers of density.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/density.cuh"
#include "kernels/cuda/staircase_slope.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace density_kernels;

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t fourier_features_forward(const Stacked& y, const Stacked& x, const Tensor& frequencies, const Rows& rows,
                                     cudaStream_t stream) {
  const std::int64_t items = rows.primal * (frequencies.cols() + frequencies.rows());
  if (items == 0) return cudaSuccess;
  return launch<FourierFeaturesForwardBody<T>>(blocks_for(items, kThreads), kThreads, 0, stream, stacked<T>(y),
                                               stacked<T>(x), device_matrix<T>(frequencies), rows);
}

template <class T>
cudaError_t fourier_features_reverse(const Stacked& grad_x, const Stacked& grad_y, const Stacked& x,
                                     const Tensor& frequencies, const Rows& rows, Update update, cudaStream_t stream) {
  if (rows.primal == 0) return cudaSuccess;
  return launch<FourierFeaturesReverseBody<T>>(blocks_for(rows.primal, kWarpsPerBlock), kThreads, 0, stream,
                                               stacked<T>(grad_x), stacked<T>(grad_y), stacked<T>(x),
                                               device_matrix<T>(frequencies), rows, update == Update::overwrite);
}

template <class T>
cudaError_t monotone_staircase_forward(const Stacked& y, const Stacked& x, const Stacked& theta, const Staircase& map,
                                       const Rows& rows, cudaStream_t stream) {
  const std::int64_t tasks = rows.primal * (map.active_count + 1);
  if (tasks == 0) return cudaSuccess;
  return launch<MonotoneStaircaseForwardBody<T>>(blocks_for(tasks, kWarpsPerBlock), kThreads, 0, stream, stacked<T>(y),
                                                 stacked<T>(x), stacked<T>(theta), map, rows);
}

template <class T>
cudaError_t monotone_staircase_reverse(const Stacked& grad_x, const Stacked& grad_theta, const Stacked& grad_y,
                                       const Stacked& x, const Stacked& theta, const Staircase& map, const Rows& rows,
                                       cudaStream_t stream) {
  const std::int64_t tasks = rows.primal * (map.active_count + 1);
  if (tasks == 0) return cudaSuccess;
  return launch<MonotoneStaircaseReverseBody<T>>(blocks_for(tasks, kWarpsPerBlock), kThreads, 0, stream,
                                                 stacked<T>(grad_x), stacked<T>(grad_theta), stacked<T>(grad_y),
                                                 stacked<T>(x), stacked<T>(theta), map, rows);
}

template <class T>
cudaError_t staircase_slope_forward(const Stacked& log_slope, const Stacked& x, const Stacked& theta,
                                    const Staircase& map, const Rows& rows, cudaStream_t stream) {
  const std::int64_t tasks = rows.primal * map.active_count;
  if (tasks == 0 || (log_slope.primal.absent() && log_slope.tangent.absent())) return cudaSuccess;
  return launch<StaircaseSlopeForwardBody<T>>(blocks_for(tasks, kWarpsPerBlock), kThreads, 0, stream,
                                              stacked<T>(log_slope), stacked<T>(x), stacked<T>(theta), map, rows);
}

template <class T>
cudaError_t staircase_slope_reverse(const Stacked& grad_x, const Stacked& grad_theta, const Stacked& grad_log_slope,
                                    const Stacked& x, const Stacked& theta, const Staircase& map, const Rows& rows,
                                    cudaStream_t stream) {
  const std::int64_t tasks = rows.primal * map.active_count;
  if (tasks == 0 || (grad_log_slope.primal.absent() && grad_log_slope.tangent.absent())) return cudaSuccess;
  return launch<StaircaseSlopeReverseBody<T>>(blocks_for(tasks, kWarpsPerBlock), kThreads, 0, stream,
                                              stacked<T>(grad_x), stacked<T>(grad_theta), stacked<T>(grad_log_slope),
                                              stacked<T>(x), stacked<T>(theta), map, rows);
}

template <class T>
cudaError_t confinement_forward(const Stacked& y, const Stacked& e, const Stacked& x, const Confinement& map,
                                const Rows& rows, cudaStream_t stream) {
  if (rows.primal == 0) return cudaSuccess;
  return launch<ConfinementForwardBody<T>>(blocks_for(rows.primal, kWarpsPerBlock), kThreads, 0, stream, stacked<T>(y),
                                           stacked<T>(e), stacked<T>(x), map, rows);
}

template <class T>
cudaError_t confinement_reverse(const Stacked& grad_x, const Stacked& grad_y, const Stacked& x, const Confinement& map,
                                const Rows& rows, Update update, cudaStream_t stream) {
  if (rows.primal == 0) return cudaSuccess;
  return launch<ConfinementReverseBody<T>>(blocks_for(rows.primal, kWarpsPerBlock), kThreads, 0, stream,
                                           stacked<T>(grad_x), stacked<T>(grad_y), stacked<T>(x), map, rows,
                                           update == Update::overwrite);
}

template <class T>
cudaError_t affine_columns(const Tensor& to, const Tensor& from, const Tensor& scale, const Tensor& shift,
                           Update update, cudaStream_t stream) {
  if (to.size() == 0) return cudaSuccess;
  const DeviceMatrix<T> y = device_matrix<T>(to), x = device_matrix<T>(from);
  const T* const s = device_vector<T>(scale);
  const T* const b = device_vector<T>(shift);
  return with_vector_width<T>(RowsAligned().add(y).add(x).add(s).add(b), [&]<int kWidth>() {
    const unsigned blocks = blocks_for(VectorGrid(y.rows, y.cols, kWidth).items(), kThreads);
    return launch<AffineColumnsBody<T, kWidth>>(blocks, kThreads, 0, stream, y, x, s, b, update == Update::overwrite);
  });
}

}  // namespace

void CudaOps::do_fourier_features_forward(Stacked y, Stacked x, Tensor frequencies, const Rows& rows) {
  check(dispatch(
            frequencies.dtype(),
            [&]<class T>() { return BRACKET_TARGET::fourier_features_forward<T>(y, x, frequencies, rows, stream_); }),
        "fourier_features_forward", x.primal);
}

void CudaOps::do_fourier_features_reverse(Stacked grad_x, Stacked grad_y, Stacked x, Tensor frequencies,
                                          const Rows& rows, Update update) {
  check(dispatch(frequencies.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::fourier_features_reverse<T>(grad_x, grad_y, x, frequencies, rows, update,
                                                                      stream_);
                 }),
        "fourier_features_reverse", x.primal);
}

void CudaOps::do_monotone_staircase_forward(Stacked y, Stacked log_slope, Stacked x, Stacked theta,
                                            const Staircase& map, const Rows& rows) {
  dispatch(x.primal.dtype(), [&]<class T>() {
    check(BRACKET_TARGET::monotone_staircase_forward<T>(y, x, theta, map, rows, stream_), "monotone_staircase_forward",
          x.primal);
    check(BRACKET_TARGET::staircase_slope_forward<T>(log_slope, x, theta, map, rows, stream_),
          "monotone_staircase_forward", x.primal);
    return cudaSuccess;
  });
}

void CudaOps::do_monotone_staircase_reverse(Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked grad_log_slope,
                                            Stacked x, Stacked theta, const Staircase& map, const Rows& rows) {
  dispatch(x.primal.dtype(), [&]<class T>() {
    check(BRACKET_TARGET::monotone_staircase_reverse<T>(grad_x, grad_theta, grad_y, x, theta, map, rows, stream_),
          "monotone_staircase_reverse", x.primal);
    check(BRACKET_TARGET::staircase_slope_reverse<T>(grad_x, grad_theta, grad_log_slope, x, theta, map, rows, stream_),
          "monotone_staircase_reverse", x.primal);
    return cudaSuccess;
  });
}

void CudaOps::do_confinement_forward(Stacked y, Stacked e, Stacked x, const Confinement& map, const Rows& rows) {
  check(dispatch(x.primal.dtype(),
                 [&]<class T>() { return BRACKET_TARGET::confinement_forward<T>(y, e, x, map, rows, stream_); }),
        "confinement_forward", x.primal);
}

void CudaOps::do_confinement_reverse(Stacked grad_x, Stacked grad_y, Stacked x, const Confinement& map,
                                     const Rows& rows, Update update) {
  check(dispatch(x.primal.dtype(),
                 [&]<class T>() {
                   return BRACKET_TARGET::confinement_reverse<T>(grad_x, grad_y, x, map, rows, update, stream_);
                 }),
        "confinement_reverse", x.primal);
}

void CudaOps::do_affine_columns_forward(Stacked y, Stacked x, Tensor scale, Tensor shift, const Rows&) {
  dispatch(scale.dtype(), [&]<class T>() {
    check(affine_columns<T>(y.primal, x.primal, scale, shift, Update::overwrite, stream_), "affine_columns_forward",
          x.primal);
    check(affine_columns<T>(y.tangent, x.tangent, scale, Tensor(), Update::overwrite, stream_),
          "affine_columns_forward", x.tangent);
    return cudaSuccess;
  });
}

void CudaOps::do_affine_columns_reverse(Stacked grad_x, Stacked grad_y, Tensor scale, const Rows&, Update update) {
  dispatch(scale.dtype(), [&]<class T>() {
    check(affine_columns<T>(grad_x.primal, grad_y.primal, scale, Tensor(), update, stream_), "affine_columns_reverse",
          grad_y.primal);
    check(affine_columns<T>(grad_x.tangent, grad_y.tangent, scale, Tensor(), update, stream_), "affine_columns_reverse",
          grad_y.tangent);
    return cudaSuccess;
  });
}

}  // namespace bracket::BRACKET_TARGET
