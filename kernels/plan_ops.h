// The op list of a dry run: it checks every call and counts it, computes nothing and has no memory. A context with it
// plans arenas and reports the number of kernel launches of a step.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "kernels/ops.h"

namespace bracket {

class PlanOps final : public Ops {
 public:
  /// Fictitious addresses that no machine has; using one faults at once.
  void* allocate_memory(std::int64_t bytes) override;
  void release_memory(void* /*address*/, std::int64_t /*bytes*/) noexcept override {}
  void memory_info(std::int64_t& free_bytes, std::int64_t& total_bytes) override;
  void copy_bytes_to_device(void* /*device*/, const void* /*host*/, std::int64_t /*bytes*/) override {}
  /// Throws Error (internal): a plan has nothing to read.
  void copy_bytes_to_host(void* host, const void* device, std::int64_t bytes) override;
  void fill_bytes(void* /*device*/, int /*value*/, std::int64_t /*bytes*/) override {}
  /// Throws Error (internal): a plan has nothing to send.
  std::unique_ptr<UploadQueue> make_upload_queue(std::int64_t bytes) override;
  void synchronize() override {}
  bool planning() const noexcept override { return true; }

  /// Calls since construction or reset_calls(), by the name of the op.
  const std::map<std::string, std::int64_t, std::less<>>& calls() const noexcept { return calls_; }
  std::int64_t total_calls() const noexcept;
  void reset_calls() noexcept { calls_.clear(); }

 protected:
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define BRACKET_OP(...) \
  void do_##__VA_ARGS__ override { count(#__VA_ARGS__); }
#include "kernels/ops_list.inc"
#undef BRACKET_OP
#pragma GCC diagnostic pop

 private:
  /// `signature` starts with the name of the op.
  void count(std::string_view signature);

  std::map<std::string, std::int64_t, std::less<>> calls_;
  std::int64_t allocated_ = 0;
};

}  // namespace bracket
