// Barriers and warp collectives of a block, and what is wrong with them.
#include <array>
#include <bit>
#include <cstring>

#include "simt/block_executor.h"
#include "simt/sanitizers.h"

namespace simt::detail {
namespace {

bool same_site(Site a, Site b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

}  // namespace

int BlockExecutor::barrier(int index, int num_threads, Reduction reduction, int value, const char* operation,
                           Site site) {
  Thread& self = *current_;
  const bool whole_block = num_threads == 0;
  if (index < 0 || index >= kNumBarriers) fail(site, "%s: barrier %d is not one of 0 to 15", operation, index);
  if (!whole_block && (num_threads < 0 || num_threads % kWarpThreads != 0 || num_threads > num_threads_)) {
    fail(site, "%s: %d threads is not a positive multiple of 32 up to the block's %d", operation, num_threads,
         num_threads_);
  }
  if (whole_block && num_returned_ != 0) {
    fail(site, "deadlock: %s waits for all %d threads of the block, but %d already returned", operation, num_threads_,
         num_returned_);
  }
  Barrier& barrier = barriers_[static_cast<std::size_t>(index)];
  const int expected = whole_block ? num_threads_ : num_threads;
  if (barrier.arrived == 0) {
    barrier.expected = expected;
    barrier.reduction = reduction;
    barrier.value = reduction == Reduction::all ? 1 : 0;
    barrier.first_thread = self.id;
    barrier.operation = operation;
    barrier.site = site;
    barrier.waiting.fill(0);
  } else if (barrier.expected != expected || barrier.reduction != reduction ||
             (whole_block && !same_site(barrier.site, site))) {
    fail(site, "divergent barrier: this thread is at %s for %d threads, but thread %d waits at %s:%d in %s for %d",
         operation, expected, barrier.first_thread, barrier.site.file, barrier.site.line, barrier.operation,
         barrier.expected);
  }
  if (reduction == Reduction::any) barrier.value |= value;
  if (reduction == Reduction::all) barrier.value &= value;
  if (reduction == Reduction::count) barrier.value += value;
  self.operation = operation;
  self.site = site;
  self.state = State::at_barrier;
  barrier.waiting[static_cast<std::size_t>(self.id / kWarpThreads)] |= 1u << (self.id % kWarpThreads);
  const std::uint64_t* const sync = &barrier.sync[barrier.generation % 2];
  tsan_release(sync);
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    barrier.result = barrier.value;
    ++barrier.generation;
    for (int w = 0; w < num_warps_; ++w) {
      for (unsigned left = barrier.waiting[static_cast<std::size_t>(w)]; left != 0; left &= left - 1) {
        make_ready(threads_[static_cast<std::size_t>(w * kWarpThreads + std::countr_zero(left))]);
      }
    }
  }
  suspend();
  tsan_acquire(sync);
  return barrier.result;
}

void BlockExecutor::collective(unsigned mask, const char* operation, CollectiveFunction function,
                               const LaneArguments& arguments, bool orders_memory, Site site) {
  Thread& self = *current_;
  const int first_id = self.id / kWarpThreads * kWarpThreads;
  const int lane = self.id % kWarpThreads;
  const unsigned bit = 1u << lane;
  Warp& warp = warps_[static_cast<std::size_t>(first_id / kWarpThreads)];
  mask &= warp.existing;
  if ((mask & bit) == 0) fail(site, "%s: the calling lane %d is not in its mask 0x%08x", operation, lane, mask);
  if ((mask & warp.returned) != 0) {
    fail(site, "deadlock: %s with mask 0x%08x waits for lanes 0x%08x, which already returned", operation, mask,
         mask & warp.returned);
  }
  int mine = warp.num_groups;
  for (int g = 0; g < warp.num_groups; ++g) {
    const Group& group = warp.groups[static_cast<std::size_t>(g)];
    if (group.mask == mask) mine = g;
    const int other = std::countr_zero(group.mask == mask ? group.arrived : group.arrived & mask);
    if (other == 32 || (group.mask & bit) == 0) continue;
    const Thread& waits = threads_[static_cast<std::size_t>(first_id + other)];
    if (group.mask != mask) {
      fail(site,
           "divergent warp: lane %d waits for lane %d in %s with mask 0x%08x, which waits for it at %s:%d in %s "
           "with mask 0x%08x",
           lane, other, operation, mask, waits.site.file, waits.site.line, waits.operation, group.mask);
    }
    if (!same_site(waits.site, site) || std::strcmp(waits.operation, operation) != 0) {
      fail(site, "divergent warp: lane %d is at %s, but lane %d of its mask 0x%08x waits at %s:%d in %s", lane,
           operation, other, mask, waits.site.file, waits.site.line, waits.operation);
    }
  }
  if (mine == warp.num_groups) warp.groups[static_cast<std::size_t>(warp.num_groups++)] = {mask, 0};
  Group& group = warp.groups[static_cast<std::size_t>(mine)];
  self.operation = operation;
  self.site = site;
  self.state = State::in_collective;
  group.arrived |= bit;
  warp.lanes[static_cast<std::size_t>(lane)] = arguments;
  const auto leader = static_cast<std::size_t>(std::countr_zero(mask));
  const std::uint64_t* const sync = &warp.sync[leader][warp.generation[leader] % 2];
  // As in CUDA, only __syncwarp orders memory; shuffles and votes exchange their values and no more.
  if (orders_memory) tsan_release(sync);
  if (group.arrived != mask) {
    suspend();
  } else {
    computing_collective_ = true;
    tsan_ignore_begin();
    function(mask, warp.lanes.data());
    tsan_ignore_end();
    computing_collective_ = false;
    if (orders_memory) ++warp.generation[leader];
    group = warp.groups[static_cast<std::size_t>(--warp.num_groups)];
    for (unsigned left = mask & ~bit; left != 0; left &= left - 1) {
      make_ready(threads_[static_cast<std::size_t>(first_id + std::countr_zero(left))]);
    }
    self.state = State::running;
    if (launch_->options.order == Order::random && random_.below(2) == 0) {
      make_ready(self);
      suspend();
    }
  }
  if (orders_memory) tsan_acquire(sync);
}

}  // namespace simt::detail
