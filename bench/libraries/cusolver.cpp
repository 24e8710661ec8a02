// Cholesky factors and eigenvalues of batches by cuSOLVER. It reads matrices by columns: the lower triangle by rows is
// its upper one.
#include <cusolverDn.h>

#include "bench/libraries/cuda_objects.h"
#include "bench/libraries/libraries.h"

namespace bracket::bench {
namespace {

void require(cusolverStatus_t status, const char* what) {
  if (status != CUSOLVER_STATUS_SUCCESS)
    throw_library_error("cuSOLVER", what, ("status " + std::to_string(static_cast<int>(status))).c_str());
}

class Handle {
 public:
  explicit Handle(void* stream) {
    require(cusolverDnCreate(&handle_), "cusolverDnCreate");
    require(cusolverDnSetStream(handle_, static_cast<cudaStream_t>(stream)), "cusolverDnSetStream");
  }
  ~Handle() { static_cast<void>(cusolverDnDestroy(handle_)); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator cusolverDnHandle_t() const { return handle_; }

 private:
  cusolverDnHandle_t handle_ = nullptr;
};

constexpr std::int64_t kInt = sizeof(int);

Call cholesky(Operands& operands, Tensor g) {
  const auto handle = shared_handle<Handle>(operands.stream());
  const std::int64_t samples = g.extent(0), size = g.extent(1);
  const auto matrices = std::make_shared<PointerArray>(g, samples);
  const auto info = std::make_shared<DeviceMemory>(samples * kInt);
  return [=] {
    require(cusolverDnDpotrfBatched(*handle, CUBLAS_FILL_MODE_UPPER, static_cast<int>(size), matrices->as<double>(),
                                    static_cast<int>(size), static_cast<int*>(info->data()), static_cast<int>(samples)),
            "cusolverDnDpotrfBatched");
  };
}

/// Jacobi's method, as ours is, with the tolerance it has by itself.
struct JacobiParameters {
  JacobiParameters() { require(cusolverDnCreateSyevjInfo(&info), "cusolverDnCreateSyevjInfo"); }
  ~JacobiParameters() { static_cast<void>(cusolverDnDestroySyevjInfo(info)); }
  JacobiParameters(const JacobiParameters&) = delete;
  JacobiParameters& operator=(const JacobiParameters&) = delete;
  syevjInfo_t info = nullptr;
};

Call symmetric_eigen(Operands& operands, Tensor values, Tensor a) {
  const auto handle = shared_handle<Handle>(operands.stream());
  const auto parameters = std::make_shared<JacobiParameters>();
  const auto samples = static_cast<int>(a.extent(0)), size = static_cast<int>(a.extent(1));
  const auto matrix = static_cast<double*>(a.data()), result = static_cast<double*>(values.data());
  int elements = 0;
  require(cusolverDnDsyevjBatched_bufferSize(*handle, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_UPPER, size, matrix,
                                             size, result, &elements, parameters->info, samples),
          "cusolverDnDsyevjBatched_bufferSize");
  const auto workspace = std::make_shared<DeviceMemory>(elements * static_cast<std::int64_t>(sizeof(double)));
  const auto info = std::make_shared<DeviceMemory>(samples * kInt);
  return [=] {
    require(cusolverDnDsyevjBatched(*handle, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_UPPER, size, matrix, size,
                                    result, static_cast<double*>(workspace->data()), elements,
                                    static_cast<int*>(info->data()), parameters->info, samples),
            "cusolverDnDsyevjBatched");
  };
}

}  // namespace

const FactorLibrary* cusolver() {
  static const FactorLibrary library{"cusolver",
                                     std::to_string(CUSOLVER_VER_MAJOR) + "." + std::to_string(CUSOLVER_VER_MINOR),
                                     cholesky, symmetric_eigen};
  return &library;
}

}  // namespace bracket::bench
