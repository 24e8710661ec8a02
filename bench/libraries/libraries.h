// Counterparts of ops in NVIDIA's libraries, for the rows of a benchmark beside ours. One file per library; one that
// was not found when this was built is absent here and has no cases.
//
// A call queues its work on the stopwatch's stream, neither takes memory nor waits, and may be captured. Whatever a
// library needs beyond the operands of the op (handles, workspace, pointer arrays, operands in another type or layout)
// is made before, outside the measured time. Errors are thrown as CudaError with the library's own text.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/op_case.h"

namespace bracket::bench {

using Call = std::function<void()>;

/// cuBLAS. f32 in the case's math mode, which bf16 has twice: operands in f32, which the library rounds, and operands
/// in bf16, rounded before (`in_bf16`). tf32x3 has no counterpart there of its own and is compared with fp32, which is
/// as exact.
struct DenseLibrary {
  const char* name;
  std::string version;
  Call (*linear_forward)(Operands&, Tensor y, Tensor x, Tensor w);
  Call (*linear_reverse_data)(Operands&, Tensor grad_x, Tensor grad_y, Tensor w);
  Call (*linear_reverse_weights)(Operands&, Tensor grad_w, Tensor grad_y, Tensor x);
  const char* name_in_bf16;
  Call (*linear_forward_in_bf16)(Operands&, Tensor y, Tensor x, Tensor w);
  Call (*linear_reverse_data_in_bf16)(Operands&, Tensor grad_x, Tensor grad_y, Tensor w);
  Call (*linear_reverse_weights_in_bf16)(Operands&, Tensor grad_w, Tensor grad_y, Tensor x);
  Call (*gram)(Operands&, Tensor g, Tensor t);              ///< of one dtype
  Call (*triangular_solve)(Operands&, Tensor x, Tensor l);  ///< x <- L^-1 x per sample; of one dtype
};
const DenseLibrary* cublas();

/// cuSOLVER.
struct FactorLibrary {
  const char* name;
  std::string version;
  Call (*cholesky)(Operands&, Tensor g);                        ///< in place; what is above the diagonal stays
  Call (*symmetric_eigen)(Operands&, Tensor values, Tensor a);  ///< f64; row k of `a` becomes the vector of value k
};
const FactorLibrary* cusolver();

/// cuDNN, by its legacy interface alone. Convolutions try its algorithms in NHWC, on the operands of the op, and in
/// NCHW, on operands converted before, and take the quickest whose result keeps the gate; bf16 has operands converted
/// before and writes its result in bf16 as well.
struct ImageLibrary {
  const char* name;
  std::string version;
  LibraryWork (*conv2d_forward)(Operands&, Tensor y, Tensor x, Tensor w, const Convolution&);
  LibraryWork (*conv2d_reverse_data)(Operands&, Tensor grad_x, Tensor grad_y, Tensor w, const Convolution&);
  LibraryWork (*conv2d_reverse_weights)(Operands&, Tensor grad_w, Tensor grad_y, Tensor x, const Convolution&);
  /// Rows are pixels of images of side x side.
  Call (*batch_norm_train_forward)(Operands&, Tensor y, Tensor mean, Tensor inv_std, Tensor x, Tensor gamma,
                                   Tensor beta, double epsilon, std::int64_t side);
  Call (*batch_norm_train_reverse)(Operands&, Tensor grad_x, Tensor grad_gamma, Tensor grad_beta, Tensor grad_y,
                                   Tensor x, Tensor gamma, Tensor mean, Tensor inv_std, double epsilon,
                                   std::int64_t side);
  Call (*window_sum)(Operands&, Tensor y, Tensor x, const Window&);
  Call (*window_spread)(Operands&, Tensor y, Tensor x, const Window&);
  Call (*max_pool_forward)(Operands&, Tensor y, Tensor x, const Window&);
  Call (*max_pool_reverse)(Operands&, Tensor grad_x, Tensor grad_y, Tensor y, Tensor x, const Window&);
};
const ImageLibrary* cudnn();

/// CUB; `fill` is Thrust's fill_n and `copy` cudaMemcpyAsync, as labels say. Sums accumulate in double, as ours do.
struct ElementLibrary {
  const char* name;
  std::string version;
  Call (*sum)(Operands&, Tensor sum, Tensor x);
  Call (*squared_norm)(Operands&, Tensor sum, Tensor x);
  Call (*fill)(Operands&, Tensor y, double value);
  Call (*copy)(Operands&, Tensor y, Tensor x);
  Call (*axpy)(Operands&, Tensor y, double alpha, Tensor x);
  Call (*ema)(Operands&, Tensor average, Tensor parameters, double decay);  ///< gain 1 - decay at any step
};
const ElementLibrary* cub_library();

/// cuRAND, Philox4x32-10 in its default ordering, in f32: the same kind of numbers, not the same ones. Ours are
/// computed in double and rounded.
struct RandomLibrary {
  const char* name;
  std::string version;
  Call (*uniform)(Operands&, Tensor y);  ///< an even number of elements, as is `normal`'s
  Call (*normal)(Operands&, Tensor y);
};
const RandomLibrary* curand();

/// "cublas 13.1, cudnn 9.19; without cub": what this was built with.
std::string libraries_text();

}  // namespace bracket::bench
