// Streams, events and graphs.
#include <chrono>
#include <mutex>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "simt/cuda_shim.h"
#include "simt/executor.h"

using simt::detail::check_waitable;
using simt::detail::refuse;

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};
struct CUstream_st {
  unsigned flags;
  CUgraph_st* capture = nullptr;  ///< what is being captured
};
struct CUevent_st {
  unsigned flags;
  bool recorded;
  std::chrono::steady_clock::time_point time;
};

namespace {

struct Handles {
  std::mutex mutex;
  std::set<const void*> live;  ///< streams, events and graphs
};

// Never destroyed: destructors that run after main may destroy streams.
Handles& handles() {
  static Handles& immortal = *new Handles;
  return immortal;
}
// Made before any thread: this file is not instrumented, so TSan would not see the order that a first use creates.
[[maybe_unused]] const auto& kHandles = handles();

thread_local int captures = 0;  ///< that this thread has begun

cudaError_t check_handle(const char* call, const char* role, const void* handle, bool may_be_null) {
  if (handle == nullptr && may_be_null) return cudaSuccess;
  const std::lock_guard lock(handles().mutex);
  if (handles().live.count(handle) != 0) return cudaSuccess;
  return refuse(cudaErrorInvalidResourceHandle, "%s: %s %p does not exist or was destroyed", call, role, handle);
}

template <class Handle>
Handle* new_handle(Handle* handle) {
  const std::lock_guard lock(handles().mutex);
  handles().live.insert(handle);
  return handle;
}

cudaError_t run(const std::function<void()>& work) noexcept {
  try {
    work();
    return cudaSuccess;
  } catch (const simt::Error& error) {
    return simt::record_failure(
        error.kind() == simt::Error::Kind::configuration ? cudaErrorInvalidConfiguration : cudaErrorLaunchFailure,
        error.what());
  } catch (const std::bad_alloc& error) {
    return simt::record_failure(cudaErrorMemoryAllocation, error.what());
  } catch (const std::exception& error) {
    return simt::record_failure(cudaErrorUnknown, error.what());
  }
}

template <class Handle>
cudaError_t destroy_handle(const char* call, const char* role, Handle* handle) {
  const cudaError_t status = check_handle(call, role, handle, false);
  if (status != cudaSuccess) return status;
  const std::lock_guard lock(handles().mutex);
  handles().live.erase(handle);
  delete handle;
  return cudaSuccess;
}

}  // namespace

cudaError_t simt::detail::check_stream(const char* call, cudaStream_t stream) {
  return check_handle(call, "stream", stream, true);
}

cudaError_t simt::detail::check_waitable(const char* call, cudaStream_t stream) {
  const cudaError_t status = check_stream(call, stream);
  if (status != cudaSuccess || stream == nullptr || stream->capture == nullptr) return status;
  return refuse(cudaErrorStreamCaptureUnsupported, "%s: the stream is capturing", call);
}

cudaError_t simt::detail::check_no_capture(const char* call) {
  if (captures == 0) return cudaSuccess;
  return refuse(cudaErrorStreamCaptureUnsupported, "%s: this thread is capturing a stream", call);
}

cudaError_t simt::queue(cudaStream_t stream, std::function<void()> work) noexcept {
  const cudaError_t status = check_handle("launch", "stream", stream, true);
  if (status != cudaSuccess) return status;
  if (stream == nullptr || stream->capture == nullptr) return run(work);
  return run([&] { stream->capture->work.push_back(std::move(work)); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (stream == nullptr || flags > cudaStreamNonBlocking) {
    return refuse(cudaErrorInvalidValue, "cudaStreamCreateWithFlags: stream is null or flags %u unknown", flags);
  }
  *stream = new_handle(new CUstream_st{flags});
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) { return destroy_handle("cudaStreamDestroy", "stream", stream); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return check_waitable("cudaStreamSynchronize", stream); }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return check_waitable("cudaStreamQuery", stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const cudaError_t status = check_handle("cudaStreamWaitEvent", "stream", stream, true);
  return status != cudaSuccess ? status : check_handle("cudaStreamWaitEvent", "event", event, false);
}

// The null stream cannot be captured, as the legacy default stream.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr)
    return refuse(cudaErrorStreamCaptureUnsupported, "cudaStreamBeginCapture: the default stream cannot be captured");
  const cudaError_t status = check_handle("cudaStreamBeginCapture", "stream", stream, false);
  if (status != cudaSuccess) return status;
  if (stream->capture != nullptr) return refuse(cudaErrorIllegalState, "cudaStreamBeginCapture: it captures already");
  stream->capture = new_handle(new CUgraph_st);
  ++captures;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const cudaError_t status = check_handle("cudaStreamEndCapture", "stream", stream, false);
  if (status != cudaSuccess) return status;
  if (stream->capture == nullptr) return refuse(cudaErrorIllegalState, "cudaStreamEndCapture: it captures nothing");
  *graph = std::exchange(stream->capture, nullptr);
  --captures;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* capturing) {
  const cudaError_t status = check_handle("cudaStreamIsCapturing", "stream", stream, true);
  if (status != cudaSuccess) return status;
  *capturing =
      stream != nullptr && stream->capture != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const cudaError_t status = check_handle("cudaGraphInstantiateWithFlags", "graph", graph, false);
  if (status == cudaSuccess) *executable = new_handle(new CUgraphExec_st{graph->work});
  return status;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  cudaError_t status = check_handle("cudaGraphLaunch", "graph", executable, false);
  if (status == cudaSuccess) status = check_handle("cudaGraphLaunch", "stream", stream, true);
  for (std::size_t i = 0; status == cudaSuccess && i < executable->work.size(); ++i) status = run(executable->work[i]);
  return status;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return destroy_handle("cudaGraphDestroy", "graph", graph); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return destroy_handle("cudaGraphExecDestroy", "graph", executable);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (event == nullptr) return refuse(cudaErrorInvalidValue, "cudaEventCreateWithFlags: event is null");
  *event = new_handle(new CUevent_st{flags, false, {}});
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy_handle("cudaEventDestroy", "event", event); }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  cudaError_t status = check_handle("cudaEventRecord", "event", event, false);
  if (status == cudaSuccess) status = check_handle("cudaEventRecord", "stream", stream, true);
  if (status != cudaSuccess) return status;
  event->recorded = true;
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return check_handle("cudaEventSynchronize", "event", event, false);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  for (const cudaEvent_t event : {begin, end}) {
    if (const cudaError_t status = check_handle("cudaEventElapsedTime", "event", event, false); status != cudaSuccess) {
      return status;
    }
    if (!event->recorded || (event->flags & cudaEventDisableTiming) != 0) {
      return refuse(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime: an event has no time: %s",
                    event->recorded ? "created with cudaEventDisableTiming" : "never recorded");
    }
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}
