// The op list on a CUDA device. Compiled twice: by nvcc (namespace bracket::gpu) and, for tests without a GPU, by the
// host compiler for the SIMT executor (namespace bracket::simt).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bracket/memory.h"
#include "kernels/cuda/common/matrix.cuh"
#include "kernels/cuda/linear_sm80.h"
#include "kernels/ops.h"

namespace bracket::BRACKET_TARGET {

class CudaOps final : public Ops {
 public:
  /// `stream` null: a non-blocking stream of its own on device `ordinal`.
  CudaOps(int ordinal, void* stream, const AllocatorCallbacks& allocator);
  ~CudaOps() override;

  void* allocate_memory(std::int64_t bytes) override;
  void release_memory(void* address, std::int64_t bytes) noexcept override;
  void memory_info(std::int64_t& free_bytes, std::int64_t& total_bytes) override;
  void copy_bytes_to_device(void* device, const void* host, std::int64_t bytes) override;
  void copy_bytes_to_host(void* host, const void* device, std::int64_t bytes) override;
  void fill_bytes(void* device, int value, std::int64_t bytes) override;
  std::unique_ptr<UploadQueue> make_upload_queue(std::int64_t bytes) override;
  void synchronize() override;
  std::unique_ptr<Recording> record(const std::function<void()>& queue, Replay replay = Replay::graph) override;
  int enter_device() override;
  void leave_device(int previous) noexcept override;
  bool fuses_epilogue(DType dtype, const ProductSize& size) const noexcept override {
    return uses_tensor_cores(dtype, size);
  }

 protected:
#define BRACKET_OP(...) void do_##__VA_ARGS__ override;
#include "kernels/ops_list.inc"
#undef BRACKET_OP

 private:
  static constexpr std::int64_t kScratchElements = 1 << 17;  ///< partial sums of 1,024 chunks of 128 columns

  /// Memory for partial sums of one op at a time, so many f64 of it whatever ran before; ops of one stream follow one
  /// another. Taken from the device by the first op that needs as much, or (kScratchElements) before a recording, and
  /// kept: recordings hold its address. Throws OutOfMemory, and InvalidArgument where a stream that captures would
  /// need memory that nothing has needed yet.
  Scratch scratch(std::int64_t elements = kScratchElements);
  /// Whether C[m, n] = sum over p is for the tensor cores, and with what: room for so many partial sums in f32.
  bool uses_tensor_cores(DType dtype, const ProductSize& size) const noexcept;
  TensorDevice tensor_device(std::int64_t partial_sums);
  /// Null: a graph is what can be.
  std::unique_ptr<Recording> record_program(const std::function<void()>& queue);
  /// Throws CudaError where the stream's launches are being recorded.
  void require_no_recorder(const std::string& what) const;
  /// Throws CudaError naming the op and its main operand when `code` is not cudaSuccess.
  static void check(cudaError_t code, const char* op, const Tensor& operand);

  int ordinal_;
  int multiprocessors_ = 1;
  cudaStream_t stream_ = nullptr;
  bool owns_stream_ = false;
  std::vector<Scratch> scratch_;  ///< each larger than the one before
  AllocatorCallbacks allocator_;
};

}  // namespace bracket::BRACKET_TARGET
