// What the parts of the shim share: errors, and what other calls ask of streams.
#pragma once

#include "simt/cuda_runtime_shim.h"

namespace simt::detail {

/// record_failure with a text as of printf.
[[gnu::format(printf, 2, 3)]] cudaError_t refuse(cudaError_t code, const char* format, ...);

/// Refuses a stream that does not exist; null is the default stream.
cudaError_t check_stream(const char* call, cudaStream_t stream);
/// As check_stream, of a call that waits for the stream or lets the host touch its order.
cudaError_t check_waitable(const char* call, cudaStream_t stream);
/// Refuses what this thread may not do while it captures a stream.
cudaError_t check_no_capture(const char* call);

}  // namespace simt::detail
