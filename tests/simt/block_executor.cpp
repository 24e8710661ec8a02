#include "simt/block_executor.h"

#include <algorithm>
#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>

#include "simt/sanitizers.h"

constinit thread_local uint3 threadIdx{};
constinit thread_local uint3 blockIdx{};
constinit thread_local dim3 blockDim{};
constinit thread_local dim3 gridDim{};

namespace simt::detail {
namespace {

// To TSan a fiber is a thread: two CUDA threads on one fiber cannot race. Nor can a fiber race with what its creator
// did before, so no thread of the block may create it.
#if defined(SIMT_TSAN)
constexpr bool kOneFiberPerThread = true;
#else
constexpr bool kOneFiberPerThread = false;
#endif

thread_local BlockExecutor* executor_of_this_thread = nullptr;

const char* name_of(Order order) {
  return order == Order::forward ? "forward" : order == Order::reverse ? "reverse" : "random";
}

// The kernel between "Kernel = " and the closing bracket of __PRETTY_FUNCTION__.
std::string kernel_name(const char* signature) {
  std::string name = signature;
  const std::string marker = "Kernel = ";
  if (const std::size_t at = name.find(marker); at != std::string::npos) name.erase(0, at + marker.size());
  if (!name.empty() && name.back() == ']') name.pop_back();
  if (!name.empty() && name.front() == '&') name.erase(0, 1);
  return name;
}

}  // namespace

std::string describe_launch(const Launch& launch) {
  return "kernel " + kernel_name(launch.call.kernel) + ", SIMT_ORDER=" + name_of(launch.options.order) +
         " SIMT_SEED=" + std::to_string(launch.options.seed);
}

BlockExecutor& BlockExecutor::of_this_thread() {
  if (executor_of_this_thread == nullptr) {
    // Owned by the OS thread, so that stacks and shared memory go with it.
    static thread_local std::unique_ptr<BlockExecutor> owner;
    owner.reset(new BlockExecutor);
    executor_of_this_thread = owner.get();
  }
  return *executor_of_this_thread;
}

BlockExecutor* BlockExecutor::running() {
  BlockExecutor* const executor = executor_of_this_thread;
  return executor != nullptr && executor->in_kernel_ ? executor : nullptr;
}

// No vector may grow inside a fiber: TSan would see memory change hands between fibers that nothing orders.
BlockExecutor::BlockExecutor() {
  fibers_.reserve(kMaxBlockThreads);
  idle_fibers_.reserve(kMaxBlockThreads);
  shared_ranges_.reserve(256);
  copies_.resize(kMaxCopies);
}

BlockExecutor::~BlockExecutor() {
  release_arena();
  executor_of_this_thread = nullptr;
}

// Only here does the worker come after the threads of its blocks. If it did so after each block, what it shares with
// the other workers would order their blocks too, and hide races between them.
void BlockExecutor::release_arena() {
  for (const std::uint64_t& chain : block_chain_) tsan_acquire(&chain);
  asan_unpoison(arena_.get(), arena_bytes_);
  arena_.reset();
}

void BlockExecutor::run(Launch& launch, std::uint64_t block) {
  prepare(launch, block);
  Thread* const first = pick();
  if (first->fiber == nullptr) first->fiber = take_fiber();
  first->state = State::running;
  current_ = first;
  threadIdx = first->index;
  in_kernel_ = true;
  Fiber::switch_to(host_, *first->fiber);
  in_kernel_ = false;
  if (error_[0] == '\0') check_shared_canaries();
  if (error_[0] == '\0') return;
  abandon_threads();
  throw Error(Error::Kind::execution, error_.data());
}

void BlockExecutor::prepare(Launch& launch, std::uint64_t block) {
  const dim3 grid = launch.call.grid;
  const dim3 size = launch.call.block;
  launch_ = &launch;
  gridDim = grid;
  blockDim = size;
  blockIdx = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
              static_cast<unsigned>(block / grid.x / grid.y)};
  num_threads_ = static_cast<int>(size.x * size.y * size.z);
  num_warps_ = (num_threads_ + kWarpThreads - 1) / kWarpThreads;
  num_returned_ = 0;
  ++block_turn_;
  error_[0] = '\0';
  random_ = RandomBits(launch.options.seed * 0x9E3779B97F4A7C15u + block);

  uint3 index = {0, 0, 0};
  for (int id = 0; id < num_threads_; ++id) {
    threads_[static_cast<std::size_t>(id)] = {index, id, State::ready, nullptr, "the start", {"", 0}};
    if (++index.x == size.x) {
      index.x = 0;
      if (++index.y == size.y) {
        index.y = 0;
        ++index.z;
      }
    }
  }
  ready_warps_ = num_warps_ == kMaxWarps ? ~0u : (1u << num_warps_) - 1;
  for (int w = 0; w < num_warps_; ++w) {
    Warp& warp = warps_[static_cast<std::size_t>(w)];
    const int lanes = std::min(kWarpThreads, num_threads_ - w * kWarpThreads);
    warp.existing = lanes == kWarpThreads ? ~0u : (1u << lanes) - 1;
    warp.returned = 0;
    warp.ready = warp.existing;
    warp.num_groups = 0;
    warp.priority = random_.next();
  }
  for (Barrier& barrier : barriers_) barrier.arrived = 0;

  if (stack_bytes_ != launch.options.stack_bytes) {
    idle_fibers_.clear();
    fibers_.clear();
    stack_bytes_ = launch.options.stack_bytes;
  }
  if (kOneFiberPerThread) {
    const auto num_threads = static_cast<std::size_t>(num_threads_);
    while (fibers_.size() < num_threads) fibers_.push_back(std::make_unique<Fiber>(stack_bytes_, fiber_main));
    for (std::size_t id = 0; id < num_threads; ++id) threads_[id].fiber = fibers_[id].get();
  }

  // Room for the limit itself, and for a canary and alignment after each variable.
  const std::size_t arena_bytes = launch.options.shared_limit_bytes + 64 * 1024;
  if (arena_bytes_ != arena_bytes) {
    release_arena();
    // To TSan an allocation is a write, and nothing orders the threads of the block after this one.
    tsan_ignore_begin();
    arena_.reset(new char[arena_bytes]);
    tsan_ignore_end();
    arena_bytes_ = arena_bytes;
  }
  arena_used_ = 0;
  static_shared_bytes_ = 0;
  shared_ranges_.clear();
  free_copy_ = -1;
  num_copies_ = 0;
  asan_poison(arena_.get(), arena_bytes_);
}

// The threads that can run are bits, so a choice costs the same for 32 threads and for 1,024.
BlockExecutor::Thread* BlockExecutor::pick() {
  if (ready_warps_ == 0) return nullptr;
  int w = 0;
  int lane = 0;
  const auto any_bit = [this](unsigned bits) {
    for (int skip = random_.below(std::popcount(bits)); skip > 0; --skip) bits &= bits - 1;
    return std::countr_zero(bits);
  };
  switch (launch_->options.order) {
    case Order::forward:
      w = std::countr_zero(ready_warps_);
      lane = std::countr_zero(warps_[static_cast<std::size_t>(w)].ready);
      break;
    case Order::reverse:
      w = 31 - std::countl_zero(ready_warps_);
      lane = 31 - std::countl_zero(warps_[static_cast<std::size_t>(w)].ready);
      break;
    case Order::random:
      if (launch_->options.seed % 2 == 0) {
        // Warp priorities that rarely change find missing barriers (after PCT, Burckhardt et al. 2010); an equal chance
        // for all keeps the warps in step, which hides them.
        if (random_.below(256) == 0) {
          warps_[static_cast<std::size_t>(random_.below(num_warps_))].priority = random_.next();
        }
        w = std::countr_zero(ready_warps_);
        for (unsigned left = ready_warps_; left != 0; left &= left - 1) {
          const int candidate = std::countr_zero(left);
          if (warps_[static_cast<std::size_t>(candidate)].priority > warps_[static_cast<std::size_t>(w)].priority) {
            w = candidate;
          }
        }
      } else {
        w = any_bit(ready_warps_);
      }
      lane = any_bit(warps_[static_cast<std::size_t>(w)].ready);
      break;
  }
  Warp& warp = warps_[static_cast<std::size_t>(w)];
  warp.ready &= ~(1u << lane);
  if (warp.ready == 0) ready_warps_ &= ~(1u << w);
  return &threads_[static_cast<std::size_t>(w * kWarpThreads + lane)];
}

void BlockExecutor::make_ready(Thread& thread) {
  thread.state = State::ready;
  const int w = thread.id / kWarpThreads;
  warps_[static_cast<std::size_t>(w)].ready |= 1u << (thread.id % kWarpThreads);
  ready_warps_ |= 1u << w;
}

Fiber* BlockExecutor::take_fiber() {
  if (!idle_fibers_.empty()) {
    Fiber* const fiber = idle_fibers_.back();
    idle_fibers_.pop_back();
    return fiber;
  }
  std::array<char, 256> reason;
  try {
    fibers_.push_back(std::make_unique<Fiber>(launch_->options.stack_bytes, fiber_main));
    return fibers_.back().get();
  } catch (const std::exception& error) {
    if (!in_kernel_) throw;
    std::snprintf(reason.data(), reason.size(), "%s", error.what());
  }
  fail(last_site(), "%s", reason.data());  // outside the handler: it never returns
}

// The running thread cannot go on for now: straight on to the next one, without a detour over a scheduler.
void BlockExecutor::suspend() {
  Thread& self = *current_;
  Thread* const next = pick();
  if (next == nullptr) report_deadlock();
  next->state = State::running;
  if (next == &self) return;
  if (next->fiber == nullptr) next->fiber = take_fiber();
  current_ = next;
  threadIdx = next->index;
  Fiber::switch_to(*self.fiber, *next->fiber);
}

// A thread that returns hands its stack to the next thread that has not started; a kernel without barriers runs all its
// threads on one stack without a single switch.
void BlockExecutor::fiber_main() {
  Fiber::complete_first_switch();
  BlockExecutor& executor = *executor_of_this_thread;
  for (;;) {
    tsan_acquire(&executor.launch_->launch_begin);
    tsan_acquire(&executor.block_chain_[(executor.block_turn_ + 1) % 2]);
    const KernelCall& call = executor.launch_->call;
    call.invoke(call.arguments);
    tsan_release(&executor.block_chain_[executor.block_turn_ % 2]);
    tsan_release(&executor.launch_->launch_end);
    executor.finish_current_thread();
  }
}

// Returns when this stack has another thread to run.
void BlockExecutor::finish_current_thread() {
  Thread& self = *current_;
  Fiber* const fiber = self.fiber;
  Warp& warp = warps_[static_cast<std::size_t>(self.id / kWarpThreads)];
  const unsigned bit = 1u << (self.id % kWarpThreads);
  if (const Barrier& full = barriers_[0]; full.arrived != 0 && full.expected == num_threads_) {
    fail(full.site, "deadlock: this thread returned, but %d thread(s) wait for it at %s", full.arrived, full.operation);
  }
  for (int g = 0; g < warp.num_groups; ++g) {
    const Group& group = warp.groups[static_cast<std::size_t>(g)];
    if ((group.mask & bit) == 0) continue;
    const int lane = std::countr_zero(group.arrived);
    const Thread& waits = threads_[static_cast<std::size_t>(self.id / kWarpThreads * kWarpThreads + lane)];
    fail(waits.site, "deadlock: this thread returned, but lane %d waits for it in %s with mask 0x%08x", lane,
         waits.operation, group.mask);
  }
  if (self.first_copy >= 0) fail(self.site, "this thread returned without waiting for its asynchronous copies");
  self.state = State::returned;
  warp.returned |= bit;
  ++num_returned_;
  Thread* const next = pick();
  if (next == nullptr && num_returned_ < num_threads_) report_deadlock();
  self.fiber = nullptr;
  Fiber* target = fiber;
  if (next == nullptr) {
    target = &host_;
  } else {
    next->state = State::running;
    if (next->fiber == nullptr) next->fiber = fiber;
    target = next->fiber;
    current_ = next;
    threadIdx = next->index;
  }
  if (target == fiber) return;
  if (!kOneFiberPerThread) idle_fibers_.push_back(fiber);
  Fiber::switch_to(*fiber, *target);
}

void BlockExecutor::abandon_threads() {
  idle_fibers_.clear();
  for (const std::unique_ptr<Fiber>& fiber : fibers_) {
    fiber->reset();
    idle_fibers_.push_back(fiber.get());
  }
  tsan_release(&block_chain_[block_turn_ % 2]);
  tsan_release(&launch_->launch_end);
}

void BlockExecutor::leave_kernel() {
  if (computing_collective_) {
    computing_collective_ = false;
    tsan_ignore_end();
  }
  Fiber::switch_to(*current_->fiber, host_);
  __builtin_unreachable();
}

void BlockExecutor::fail(Site site, const char* format, ...) {
  std::array<char, 1024> message;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message.data(), message.size(), format, arguments);
  va_end(arguments);
  record(site, message.data(), true);
  leave_kernel();
}

}  // namespace simt::detail
