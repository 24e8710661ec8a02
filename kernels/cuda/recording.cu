// Work of a stream that is recorded once and replayed: CudaOps::record.
#include <optional>
#include <string>
#include <utility>

#include "bracket/error.h"
#include "kernels/cuda/cuda_calls.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/step_program.h"

namespace bracket::BRACKET_TARGET {
namespace {

/// A CUDA graph of what a stream captured.
class GraphRecording final : public Recording {
 public:
  GraphRecording(CudaOps& ops, cudaStream_t stream, cudaGraph_t graph) : ops_(ops), stream_(stream) {
    const cudaError_t code = cudaGraphInstantiateWithFlags(&executable_, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    require(code, "instantiating a CUDA graph");
  }
  ~GraphRecording() override {
    const CurrentDevice current(ops_);
    static_cast<void>(cudaGraphExecDestroy(executable_));
  }
  void replay(std::int64_t times) override {
    const CurrentDevice current(ops_);
    for (std::int64_t i = 0; i < times; ++i) require(cudaGraphLaunch(executable_, stream_), "launching a CUDA graph");
  }
  Replay form() const noexcept override { return Replay::graph; }

 private:
  CudaOps& ops_;
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

/// A step program, its image in device memory.
class ProgramRecording final : public Recording {
 public:
  /// Throws OutOfMemory.
  ProgramRecording(CudaOps& ops, cudaStream_t stream, StepProgram program)
      : ops_(ops), stream_(stream), program_(std::move(program)) {
    if (bytes() == 0) return;  // nothing was queued
    image_ = ops_.allocate_memory(bytes());
    if (image_ == nullptr) {
      throw OutOfMemory("the device has no " + std::to_string(bytes()) + " bytes left for a recorded step", bytes());
    }
    try {
      ops_.copy_bytes_to_device(image_, program_.image.data(), bytes());
    } catch (...) {
      ops_.release_memory(image_, bytes());
      throw;
    }
  }
  ~ProgramRecording() override {
    if (image_ != nullptr) ops_.release_memory(image_, bytes());
  }

  void replay(std::int64_t times) override {
    const CurrentDevice current(ops_);
    require(run_step_program(program_, image_, times, stream_), "launching a recorded step");
  }
  Replay form() const noexcept override { return Replay::one_kernel; }

 private:
  std::int64_t bytes() const noexcept { return static_cast<std::int64_t>(program_.image.size()); }

  CudaOps& ops_;
  cudaStream_t stream_;
  StepProgram program_;
  void* image_ = nullptr;
};

/// Whether the stream now captures what is queued on it.
bool begin_capture(cudaStream_t stream) {
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess) return true;
  static_cast<void>(cudaGetLastError());
  return false;
}

}  // namespace

std::unique_ptr<Recording> CudaOps::record(const std::function<void()>& queue, Replay replay) {
  const CurrentDevice current(*this);
  static_cast<void>(scratch());
  if (is_capturing(stream_)) return nullptr;
  if (replay == Replay::one_kernel) {
    try {
      if (std::unique_ptr<Recording> program = record_program(queue)) return program;
    } catch (const OutOfMemory&) {  // of its image: a graph needs none
    }
  }
  if (!begin_capture(stream_)) return nullptr;
  cudaGraph_t graph = nullptr;
  try {
    queue();
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(stream_, &graph));
    if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
    static_cast<void>(cudaGetLastError());
    throw;
  }
  require(cudaStreamEndCapture(stream_, &graph), "recording a CUDA graph");
  return std::make_unique<GraphRecording>(*this, stream_, graph);
}

std::unique_ptr<Recording> CudaOps::record_program(const std::function<void()>& queue) {
  std::optional<StepProgram> program;
  {
    LaunchRecorder recorder(stream_);
    queue();
    program = make_step_program(recorder);
  }
  if (!program) return nullptr;
  return std::make_unique<ProgramRecording>(*this, stream_, *std::move(program));
}

}  // namespace bracket::BRACKET_TARGET
