// Random numbers by cuRAND's host interface.
#include <curand.h>

#include "bench/libraries/cuda_objects.h"
#include "bench/libraries/libraries.h"

namespace bracket::bench {
namespace {

void require(curandStatus_t status, const char* what) {
  if (status != CURAND_STATUS_SUCCESS)
    throw_library_error("cuRAND", what, ("status " + std::to_string(static_cast<int>(status))).c_str());
}

class Handle {
 public:
  explicit Handle(void* stream) {
    require(curandCreateGenerator(&generator_, CURAND_RNG_PSEUDO_PHILOX4_32_10), "curandCreateGenerator");
    require(curandSetStream(generator_, static_cast<cudaStream_t>(stream)), "curandSetStream");
    require(curandSetPseudoRandomGeneratorSeed(generator_, 7), "curandSetPseudoRandomGeneratorSeed");
    require(curandGenerateSeeds(generator_), "curandGenerateSeeds");
  }
  ~Handle() { static_cast<void>(curandDestroyGenerator(generator_)); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator curandGenerator_t() const { return generator_; }

 private:
  curandGenerator_t generator_ = nullptr;
};

Call uniform(Operands& operands, Tensor y) {
  const auto handle = shared_handle<Handle>(operands.stream());
  return [=] {
    require(curandGenerateUniform(*handle, static_cast<float*>(y.data()), static_cast<std::size_t>(y.size())),
            "curandGenerateUniform");
  };
}

Call normal(Operands& operands, Tensor y) {
  const auto handle = shared_handle<Handle>(operands.stream());
  return [=] {
    require(curandGenerateNormal(*handle, static_cast<float*>(y.data()), static_cast<std::size_t>(y.size()), 0, 1),
            "curandGenerateNormal");
  };
}

}  // namespace

const RandomLibrary* curand() {
  static const RandomLibrary library{
      "curand", std::to_string(CURAND_VER_MAJOR) + "." + std::to_string(CURAND_VER_MINOR), uniform, normal};
  return &library;
}

}  // namespace bracket::bench
