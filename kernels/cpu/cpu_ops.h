// The op list on the host: readable loops in float and double, threads across rows, dense products on register tiles.
// It is what an embedding program gets by default, and the oracle of every CUDA kernel.
#pragma once

#include <memory>

#include "bracket/memory.h"
#include "kernels/cpu/thread_team.h"
#include "kernels/ops.h"

namespace bracket {

class CpuOps final : public Ops {
 public:
  /// `threads` 0: one per usable processor. `allocator` functions null: aligned operator new.
  CpuOps(const AllocatorCallbacks& allocator, int threads);

  void* allocate_memory(std::int64_t bytes) override;
  void release_memory(void* address, std::int64_t bytes) noexcept override;
  void memory_info(std::int64_t& free_bytes, std::int64_t& total_bytes) override;
  void copy_bytes_to_device(void* device, const void* host, std::int64_t bytes) override;
  void copy_bytes_to_host(void* host, const void* device, std::int64_t bytes) override;
  void fill_bytes(void* device, int value, std::int64_t bytes) override;
  std::unique_ptr<UploadQueue> make_upload_queue(std::int64_t bytes) override;
  void synchronize() override {}

 protected:
#define BRACKET_OP(...) void do_##__VA_ARGS__ override;
#include "kernels/ops_list.inc"
#undef BRACKET_OP

 private:
  AllocatorCallbacks allocator_;
  ThreadTeam team_;
};

}  // namespace bracket
