// Dense layers, Gram matrices and triangular solves by cuBLAS. It reads matrices by columns: a row-major [r, c] is its
// [c, r], so that every product is asked for transposed.
#include <cublas_v2.h>

#include <cstring>

#include "bench/libraries/bf16.h"
#include "bench/libraries/cuda_objects.h"
#include "bench/libraries/libraries.h"

namespace bracket::bench {
namespace {

/// cuBLAS asks for 32 MiB on Hopper; without memory of ours it would take some while a graph is captured.
constexpr std::int64_t kWorkspace = std::int64_t{64} << 20;

void require(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw_library_error("cuBLAS", what, cublasGetStatusString(status));
}

class Handle {
 public:
  explicit Handle(void* stream) : workspace_(kWorkspace) {
    require(cublasCreate(&handle_), "cublasCreate");
    require(cublasSetStream(handle_, static_cast<cudaStream_t>(stream)), "cublasSetStream");
    require(cublasSetWorkspace(handle_, workspace_.data(), static_cast<std::size_t>(kWorkspace)), "cublasSetWorkspace");
  }
  ~Handle() { static_cast<void>(cublasDestroy(handle_)); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator cublasHandle_t() const { return handle_; }

 private:
  DeviceMemory workspace_;
  cublasHandle_t handle_ = nullptr;
};

cublasComputeType_t compute_type(DType dtype, MathMode math) {
  if (dtype == DType::f64) return CUBLAS_COMPUTE_64F;
  if (math == MathMode::tf32) return CUBLAS_COMPUTE_32F_FAST_TF32;
  if (math == MathMode::bf16) return CUBLAS_COMPUTE_32F_FAST_16BF;
  return CUBLAS_COMPUTE_32F;
}

/// Elements of a matrix in memory: those of a tensor, or a copy in bf16.
struct Elements {
  const void* data;
  cudaDataType_t type;
};

Elements as_they_are(Operands&, const Tensor& x) {
  return {x.data(), x.dtype() == DType::f64 ? CUDA_R_64F : CUDA_R_32F};
}

Elements in_bf16(Operands& operands, const Tensor& x) {
  const void* const copy = operands.converted(2 * x.size(), [&](std::vector<std::byte>& bytes) {
    std::size_t at = 0;
    for (const double value : operands.values(x)) {
      const std::uint16_t rounded = to_bf16(static_cast<float>(value));
      std::memcpy(&bytes[at], &rounded, sizeof rounded);
      at += sizeof rounded;
    }
  });
  return {copy, CUDA_R_16BF};
}

/// One operand in cuBLAS's eyes: column-major, transposed or not.
struct Operand {
  Elements elements;
  cublasOperation_t operation;
  std::int64_t leading;
};

/// c [n, m] = op(a) op(b) with op(a) [m, k] and op(b) [k, n] by columns, `count` times at the given distances.
Call gemm(Operands& operands, Tensor c, std::int64_t m, std::int64_t n, std::int64_t k, const Operand& a,
          const Operand& b, std::int64_t leading_c, std::int64_t count = 1) {
  const auto handle = shared_handle<Handle>(operands.stream());
  const DType dtype = c.dtype();
  const cudaDataType_t type = dtype == DType::f64 ? CUDA_R_64F : CUDA_R_32F;
  // Products of numbers in bf16 are exact in f32: there is nothing left to round.
  const bool rounded = a.elements.type == CUDA_R_16BF;
  const cublasComputeType_t compute = rounded ? CUBLAS_COMPUTE_32F : compute_type(dtype, operands.math());
  return [=] {
    const double one = 1, zero = 0;
    const float one_f = 1, zero_f = 0;
    const bool wide = dtype == DType::f64;
    const void* const alpha = wide ? static_cast<const void*>(&one) : &one_f;
    const void* const beta = wide ? static_cast<const void*>(&zero) : &zero_f;
    const auto number = [](std::int64_t value) { return static_cast<int>(value); };
    if (count == 1) {
      require(cublasGemmEx(*handle, a.operation, b.operation, number(m), number(n), number(k), alpha, a.elements.data,
                           a.elements.type, number(a.leading), b.elements.data, b.elements.type, number(b.leading),
                           beta, c.data(), type, number(leading_c), compute, CUBLAS_GEMM_DEFAULT),
              "cublasGemmEx");
      return;
    }
    require(cublasGemmStridedBatchedEx(*handle, a.operation, b.operation, number(m), number(n), number(k), alpha,
                                       a.elements.data, a.elements.type, number(a.leading), m * k, b.elements.data,
                                       b.elements.type, number(b.leading), n * k, beta, c.data(), type,
                                       number(leading_c), m * n, number(count), compute, CUBLAS_GEMM_DEFAULT),
            "cublasGemmStridedBatchedEx");
  };
}

using Reader = Elements (*)(Operands&, const Tensor&);

// y = x w^T: by columns y [out, r] = (w [in, out])^T x [in, r].
template <Reader read>
Call linear_forward(Operands& operands, Tensor y, Tensor x, Tensor w) {
  return gemm(operands, y, w.rows(), x.rows(), x.cols(), {read(operands, w), CUBLAS_OP_T, w.cols()},
              {read(operands, x), CUBLAS_OP_N, x.cols()}, y.cols());
}

// grad_x = grad_y w: by columns grad_x [in, r] = w [in, out] grad_y [out, r].
template <Reader read>
Call linear_reverse_data(Operands& operands, Tensor grad_x, Tensor grad_y, Tensor w) {
  return gemm(operands, grad_x, w.cols(), grad_y.rows(), w.rows(), {read(operands, w), CUBLAS_OP_N, w.cols()},
              {read(operands, grad_y), CUBLAS_OP_N, grad_y.cols()}, grad_x.cols());
}

// grad_w = grad_y^T x: by columns grad_w [in, out] = x [in, r] (grad_y [out, r])^T.
template <Reader read>
Call linear_reverse_weights(Operands& operands, Tensor grad_w, Tensor grad_y, Tensor x) {
  return gemm(operands, grad_w, x.cols(), grad_y.cols(), x.rows(), {read(operands, x), CUBLAS_OP_N, x.cols()},
              {read(operands, grad_y), CUBLAS_OP_T, grad_y.cols()}, grad_w.cols());
}

// g = t t^T per sample: by columns g [K, K] = (t [D, K])^T t [D, K].
Call gram(Operands& operands, Tensor g, Tensor t) {
  const std::int64_t samples = g.extent(0), size = g.extent(1);
  const Elements elements = as_they_are(operands, t);
  return gemm(operands, g, size, size, t.cols(), {elements, CUBLAS_OP_T, t.cols()}, {elements, CUBLAS_OP_N, t.cols()},
              size, samples);
}

// L x = b per sample: by columns x [D, K] U = b with U = L^T, which is what L by rows is.
Call triangular_solve(Operands& operands, Tensor x, Tensor l) {
  const auto handle = shared_handle<Handle>(operands.stream());
  const std::int64_t samples = l.extent(0), size = l.extent(1), cols = x.cols();
  const auto lower = std::make_shared<PointerArray>(l, samples), values = std::make_shared<PointerArray>(x, samples);
  return [=, dtype = x.dtype()] {
    const auto n = static_cast<int>(size), m = static_cast<int>(cols), count = static_cast<int>(samples);
    if (dtype == DType::f64) {
      const double one = 1;
      require(cublasDtrsmBatched(*handle, CUBLAS_SIDE_RIGHT, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N, CUBLAS_DIAG_NON_UNIT,
                                 m, n, &one, lower->as<double>(), n, values->as<double>(), m, count),
              "cublasDtrsmBatched");
      return;
    }
    const float one = 1;
    require(cublasStrsmBatched(*handle, CUBLAS_SIDE_RIGHT, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N, CUBLAS_DIAG_NON_UNIT, m,
                               n, &one, lower->as<float>(), n, values->as<float>(), m, count),
            "cublasStrsmBatched");
  };
}

}  // namespace

const DenseLibrary* cublas() {
  static const DenseLibrary library{"cublas",
                                    std::to_string(CUBLAS_VER_MAJOR) + "." + std::to_string(CUBLAS_VER_MINOR),
                                    linear_forward<as_they_are>,
                                    linear_reverse_data<as_they_are>,
                                    linear_reverse_weights<as_they_are>,
                                    "cublas_bf16",
                                    linear_forward<in_bf16>,
                                    linear_reverse_data<in_bf16>,
                                    linear_reverse_weights<in_bf16>,
                                    gram,
                                    triangular_solve};
  return &library;
}

}  // namespace bracket::bench
