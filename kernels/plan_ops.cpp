#include "kernels/plan_ops.h"

#include "bracket/error.h"
#include "bracket/memory.h"

namespace bracket {
namespace {

// Not a canonical address of any 64-bit machine, and apart from those an Arena plans with.
constexpr std::uintptr_t kPlanBase = std::uintptr_t{3} << 61;

}  // namespace

void* PlanOps::allocate_memory(std::int64_t bytes) {
  void* const address = reinterpret_cast<void*>(kPlanBase + static_cast<std::uintptr_t>(allocated_));
  allocated_ += (bytes + kMemoryAlignment - 1) / kMemoryAlignment * kMemoryAlignment;
  return address;
}

void PlanOps::memory_info(std::int64_t& free_bytes, std::int64_t& total_bytes) { free_bytes = total_bytes = 0; }

void PlanOps::copy_bytes_to_host(void* /*host*/, const void* /*device*/, std::int64_t bytes) {
  throw Error(ExitCode::internal,
              "a dry run was asked for " + std::to_string(bytes) + " bytes of results; ask Ops::planning() first");
}

std::unique_ptr<UploadQueue> PlanOps::make_upload_queue(std::int64_t bytes) {
  throw Error(ExitCode::internal,
              "a dry run was asked to upload " + std::to_string(bytes) + " bytes at a time; ask Ops::planning() first");
}

std::int64_t PlanOps::total_calls() const noexcept {
  std::int64_t total = 0;
  for (const auto& [name, calls] : calls_) total += calls;
  return total;
}

void PlanOps::count(std::string_view signature) {
  const std::string_view name = signature.substr(0, signature.find('('));
  const auto entry = calls_.find(name);
  if (entry != calls_.end()) {
    ++entry->second;
  } else {
    calls_.emplace(name, 1);
  }
}

}  // namespace bracket
