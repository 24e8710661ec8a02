// The seam between host code, which knows no CUDA types, and the CUDA device layer.
#pragma once

#include <memory>
#include <string>

#include "bracket/memory.h"

namespace bracket {

class Ops;

namespace gpu {
/// Usable devices; `reason` receives one line when there is none (driver absent or too old, no GPU, no kernel image).
int usable_device_count(std::string& reason);
/// Throws CudaError when the device is absent or has no kernel image in this build. `stream`: a cudaStream_t or null.
std::unique_ptr<Ops> make_cuda_ops(int ordinal, void* stream, const AllocatorCallbacks& allocator);
/// "NVIDIA H200 (sm_90), driver 13.0, runtime 13.0"; for `doctor`, run records and benchmarks.
std::string device_description(int ordinal);
}  // namespace gpu

namespace simt {
std::unique_ptr<Ops> make_cuda_ops(int ordinal, void* stream, const AllocatorCallbacks& allocator);
}  // namespace simt

}  // namespace bracket
