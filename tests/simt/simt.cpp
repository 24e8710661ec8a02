// Options, checks of a launch, and the workers that share its blocks.
#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "simt/async_copy.h"
#include "simt/block_executor.h"
#include "simt/cuda_runtime_shim.h"
#include "simt/executor.h"
#include "simt/sanitizers.h"
#include "simt/synchronization.h"

namespace simt {
namespace {

using detail::BlockExecutor;
using detail::Launch;

#if defined(SIMT_TSAN)
constexpr int kMaxDefaultWorkers = 2;  // TSan has room for about 8,000 threads and fibers in all
#else
constexpr int kMaxDefaultWorkers = 8;
#endif
constexpr std::size_t kMinStackBytes = 16 * 1024;

std::uint64_t number_from_environment(const char* name, std::uint64_t absent, std::uint64_t lowest,
                                      std::uint64_t highest) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return absent;
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < lowest || value > highest) {
    throw Error(Error::Kind::configuration, std::string(name) + "=" + text + ": expected a whole number from " +
                                                std::to_string(lowest) + " to " + std::to_string(highest));
  }
  return value;
}

/// OS threads that wait for launches. One launch at a time has them; another one meanwhile runs on its caller alone.
class WorkerPool {
 public:
  static WorkerPool& shared() {
    static WorkerPool pool;
    return pool;
  }

  /// Calls job(0) here and job(1) to job(num_workers - 1) on the workers; returns when all are done.
  void run(int num_workers, const std::function<void(int)>& job) {
    {
      const std::lock_guard lock(mutex_);
      while (static_cast<int>(threads_.size()) < num_workers - 1) {
        threads_.emplace_back([this, worker = static_cast<int>(threads_.size()) + 1] { serve(worker); });
      }
      job_ = &job;
      num_workers_ = num_workers;
      num_busy_ = num_workers - 1;
      ++round_;
    }
    begin_.notify_all();
    job(0);
    std::unique_lock lock(mutex_);
    end_.wait(lock, [this] { return num_busy_ == 0; });
  }

  std::mutex& in_use() { return in_use_; }

 private:
  ~WorkerPool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    begin_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void serve(int worker) {
    std::uint64_t served = 0;
    for (;;) {
      const std::function<void(int)>* job = nullptr;
      {
        std::unique_lock lock(mutex_);
        begin_.wait(lock, [&] { return stop_ || (round_ != served && worker < num_workers_ && num_busy_ > 0); });
        if (stop_) return;
        served = round_;
        job = job_;
      }
      (*job)(worker);
      const std::lock_guard lock(mutex_);
      if (--num_busy_ == 0) end_.notify_one();
    }
  }

  std::mutex in_use_;
  std::mutex mutex_;
  std::condition_variable begin_;
  std::condition_variable end_;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* job_ = nullptr;
  int num_workers_ = 0;
  int num_busy_ = 0;
  std::uint64_t round_ = 0;
  bool stop_ = false;
};

// Faults of a kernel become errors. Sanitizers report faults themselves; elsewhere than on x86-64 they stay fatal.
#if defined(__x86_64__) && !defined(SIMT_ASAN) && !defined(SIMT_TSAN)
struct sigaction previous_segv;
struct sigaction previous_bus;

void on_fault(int signal, siginfo_t* info, void* machine_context) {
  if (BlockExecutor* const executor = BlockExecutor::running()) {
    executor->divert_fault(signal, info->si_code, info->si_addr, machine_context);
  } else {
    sigaction(signal, signal == SIGBUS ? &previous_bus : &previous_segv, nullptr);  // the fault repeats, and ends there
  }
}

void install_fault_handler() {
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &previous_segv);
  sigaction(SIGBUS, &action, &previous_bus);
}

/// A stack for the handler: the kernel's own may be the full one.
class SignalStack {
 public:
  SignalStack() : memory_(new char[kBytes]) {
    stack_t stack = {};
    stack.ss_sp = memory_.get();
    stack.ss_size = kBytes;
    sigaltstack(&stack, nullptr);
  }
  ~SignalStack() {
    stack_t stack = {};
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, nullptr);
  }

 private:
  static constexpr std::size_t kBytes = 64 * 1024;
  std::unique_ptr<char[]> memory_;
};

void catch_faults() {
  static std::once_flag once;
  std::call_once(once, install_fault_handler);
  static thread_local SignalStack stack;
  static_cast<void>(stack);
}
#else
void catch_faults() {}
#endif

std::string to_text(dim3 size) {
  return "(" + std::to_string(size.x) + "," + std::to_string(size.y) + "," + std::to_string(size.z) + ")";
}

void validate(const Launch& launch) {
  const dim3 grid = launch.call.grid;
  const dim3 block = launch.call.block;
  const auto refuse = [&launch](const std::string& what) {
    throw Error(Error::Kind::configuration, what + "; " + detail::describe_launch(launch));
  };
  if (block.x == 0 || block.y == 0 || block.z == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
      block.x * block.y * block.z > 1024) {
    refuse("block " + to_text(block) + " must have 1 to 1024 threads, at most 64 in z");
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    refuse("grid " + to_text(grid) + " must have at least 1 block, at most (2147483647,65535,65535)");
  }
  if (launch.call.shared_bytes > launch.options.shared_limit_bytes) {
    refuse("dynamic shared memory of " + std::to_string(launch.call.shared_bytes) + " bytes exceeds the limit of " +
           std::to_string(launch.options.shared_limit_bytes));
  }
  if (launch.options.stack_bytes < kMinStackBytes) {
    refuse("kernel stacks of " + std::to_string(launch.options.stack_bytes) + " bytes are below the least, " +
           std::to_string(kMinStackBytes));
  }
}

/// Block number `turn` of the schedule: in random order an affine permutation, which needs no memory.
std::uint64_t scheduled_block(const Options& options, std::uint64_t num_blocks, std::uint64_t turn) {
  if (options.order == Order::forward) return turn;
  if (options.order == Order::reverse) return num_blocks - 1 - turn;
  std::uint64_t factor = 2 * (options.seed % 1000) + 1;
  while (std::gcd(factor, num_blocks) != 1) ++factor;
  return (turn * factor + options.seed % num_blocks) % num_blocks;
}

}  // namespace

Options options_from_environment() {
  Options result;
  if (const char* const order = std::getenv("SIMT_ORDER")) {
    const std::string name = order;
    if (name == "forward") {
      result.order = Order::forward;
    } else if (name == "reverse") {
      result.order = Order::reverse;
    } else if (name == "random") {
      result.order = Order::random;
    } else {
      throw Error(Error::Kind::configuration, "SIMT_ORDER=" + name + ": expected forward, reverse or random");
    }
  }
  result.seed = number_from_environment("SIMT_SEED", result.seed, 0, std::numeric_limits<std::uint64_t>::max());
  result.workers = static_cast<int>(number_from_environment("SIMT_WORKERS", 0, 0, 256));
  result.stack_bytes =
      number_from_environment("SIMT_STACK_KB", result.stack_bytes / 1024, kMinStackBytes / 1024, 1024 * 1024) * 1024;
  return result;
}

Options& options() {
  static Options current = options_from_environment();
  return current;
}

namespace {
std::atomic<std::int64_t> launch_count = 0;
}  // namespace

std::int64_t launches() noexcept { return launch_count; }

namespace detail {

void run(const KernelCall& call) {
  if (BlockExecutor* const executor = BlockExecutor::running()) {
    executor->fail(executor->last_site(), "a kernel cannot launch a kernel on this executor");
  }
  Launch launch{call, options()};
  validate(launch);
  ++launch_count;
  const std::uint64_t num_blocks = std::uint64_t{call.grid.x} * call.grid.y * call.grid.z;
  std::uint64_t num_workers = static_cast<std::uint64_t>(launch.options.workers);
  if (num_workers == 0) num_workers = std::min(std::thread::hardware_concurrency(), unsigned{kMaxDefaultWorkers});
  num_workers = std::clamp<std::uint64_t>(num_workers, 1, num_blocks);
  std::unique_lock<std::mutex> pool_in_use;
  if (num_workers > 1) {
    pool_in_use = std::unique_lock(WorkerPool::shared().in_use(), std::try_to_lock);
    if (!pool_in_use.owns_lock()) num_workers = 1;
  }

  std::mutex failure_mutex;
  std::exception_ptr failure;
  std::uint64_t failed_turn = 0;
  std::atomic<bool> failed = false;
  // Dealt out in turn rather than fetched: each worker's blocks are the same in every run, and TSan, which sees only
  // races between workers, is sure to see both.
  const auto run_blocks = [&](int worker) {
    std::uint64_t turn = static_cast<std::uint64_t>(worker);
    try {
      catch_faults();
      BlockExecutor& executor = BlockExecutor::of_this_thread();
      for (; turn < num_blocks && !failed; turn += num_workers) {
        executor.run(launch, scheduled_block(launch.options, num_blocks, turn));
      }
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      if (!failure || turn < failed_turn) {
        failure = std::current_exception();
        failed_turn = turn;
      }
      failed = true;
    }
  };
  tsan_release(&launch.launch_begin);
  if (num_workers == 1) {
    run_blocks(0);
  } else {
    WorkerPool::shared().run(static_cast<int>(num_workers), run_blocks);
  }
  tsan_acquire(&launch.launch_end);
  const std::string overrun = device_memory_overrun();
  if (failure) std::rethrow_exception(failure);
  if (!overrun.empty()) throw Error(Error::Kind::execution, overrun + "; " + describe_launch(launch));
}

void fail(Site site, const char* format, ...) {
  std::array<char, 512> message;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message.data(), message.size(), format, arguments);
  va_end(arguments);
  if (BlockExecutor* const executor = BlockExecutor::running()) executor->fail(site, "%s", message.data());
  throw Error(Error::Kind::execution, std::string(site.file) + ":" + std::to_string(site.line) + ": " + message.data());
}

namespace {
BlockExecutor& executor_for(const char* operation, Site site) {
  BlockExecutor* const executor = BlockExecutor::running();
  if (executor == nullptr) fail(site, "%s outside a kernel", operation);
  return *executor;
}
}  // namespace

int block_barrier(int barrier, int num_threads, Reduction reduction, int value, const char* operation, Site site) {
  return executor_for(operation, site).barrier(barrier, num_threads, reduction, value, operation, site);
}

void warp_collective(unsigned mask, const char* operation, CollectiveFunction function, const LaneArguments& arguments,
                     bool orders_memory, Site site) {
  executor_for(operation, site).collective(mask, operation, function, arguments, orders_memory, site);
}

void* shared_variable(const SharedVariable& variable) {
  return executor_for("shared memory", {variable.name, 0}).shared(variable);
}

void* dynamic_shared() { return executor_for("shared memory", {"dynamic", 0}).dynamic_shared(); }

void begin_copy(void* destination, const void* source, int bytes, int source_bytes, Site site) {
  executor_for("cp.async", site).begin_copy(destination, source, bytes, source_bytes, site);
}

void commit_copies() { executor_for("cp.async.commit_group", {"", 0}).commit_copies(); }

bool take_due_copy(int pending_groups, AsyncCopy& copy) {
  return executor_for("cp.async.wait_group", {"", 0}).take_due_copy(pending_groups, copy);
}

void fail_shuffle(int lane, int source, unsigned mask) {
  BlockExecutor& executor = executor_for("shuffle", {"", 0});
  executor.fail(executor.last_site(), "shuffle: lane %d reads lane %d, which is not in mask 0x%08x", lane, source,
                mask);
}

// Stronger than the fences of CUDA: all that any thread did before its fence is seen after any later fence.
void memory_fence() {
  static char fence;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  tsan_release(&fence);
  tsan_acquire(&fence);
}

}  // namespace detail
}  // namespace simt
