// Runs one block: its threads as fibers, their schedule, barriers, warp collectives and shared memory.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "simt/async_copy.h"
#include "simt/executor.h"
#include "simt/fiber.h"

namespace simt::detail {

constexpr int kWarpThreads = 32;
constexpr int kMaxBlockThreads = 1024;
constexpr int kMaxWarps = kMaxBlockThreads / kWarpThreads;
constexpr int kNumBarriers = 16;
constexpr int kMaxCopies = 1 << 16;  // asynchronous ones of a block that are under way

/// A launch as the workers see it. TSan's order of a launch: host, launch_begin, all blocks, launch_end, host.
struct Launch {
  KernelCall call;
  Options options;
  char launch_begin = 0;
  char launch_end = 0;
};

/// Appends the kernel's name, the block, and what reproduces the run to an error text.
std::string describe_launch(const Launch& launch);

/// splitmix64 (Steele, Lea, Flood 2014).
class RandomBits {
 public:
  explicit RandomBits(std::uint64_t seed) : state_(seed) {}
  std::uint32_t next() {
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<std::uint32_t>((z ^ (z >> 31)) >> 32);
  }
  int below(int bound) { return static_cast<int>(next() % static_cast<std::uint32_t>(bound)); }

 private:
  std::uint64_t state_;
};

/// One per OS thread.
class BlockExecutor {
 public:
  static BlockExecutor& of_this_thread();
  /// The executor whose kernel the caller is part of; null outside kernels.
  static BlockExecutor* running();

  ~BlockExecutor();
  BlockExecutor(const BlockExecutor&) = delete;
  BlockExecutor& operator=(const BlockExecutor&) = delete;

  /// Runs block number `block` of the launch to its end. Throws Error.
  void run(Launch& launch, std::uint64_t block);

  // The rest is called by the threads of the running block.
  int barrier(int index, int num_threads, Reduction reduction, int value, const char* operation, Site site);
  void collective(unsigned mask, const char* operation, CollectiveFunction function, const LaneArguments& arguments,
                  bool orders_memory, Site site);
  void* shared(const SharedVariable& variable);
  void* dynamic_shared();
  void begin_copy(void* destination, const void* source, int bytes, int source_bytes, Site site);
  void commit_copies();
  bool take_due_copy(int pending_groups, AsyncCopy& copy);
  /// Where the running thread last passed a barrier or collective.
  Site last_site() const { return current_->site; }
  /// Ends the kernel with an error of the running thread at `site`.
  [[noreturn]] [[gnu::format(printf, 3, 4)]] void fail(Site site, const char* format, ...);
  /// Handles a fault signal of the running thread: makes `machine_context` (ucontext_t) continue in an error exit.
  void divert_fault(int signal, int code, const void* address, void* machine_context);

 private:
  enum class State : std::uint8_t { ready, running, at_barrier, in_collective, returned };
  struct Thread {
    uint3 index;
    int id;
    State state;
    Fiber* fiber;
    const char* operation;
    Site site;
    int first_copy = -1;  ///< asynchronous copies not yet waited for, a list in copies_
    int last_copy = -1;
    int copy_group = 0;  ///< commits so far
  };
  struct PendingCopy {
    AsyncCopy copy;
    int group;
    int next;  ///< -1: the last of its list
  };
  struct Barrier {
    int arrived;
    int expected;
    Reduction reduction;
    int value;
    int result;
    int first_thread;
    const char* operation;
    Site site;
    unsigned generation;
    std::array<unsigned, kMaxWarps> waiting;
    std::uint64_t sync[2];  ///< two, used in turn: with one, a release of the next round would leak into this round
  };
  /// Lanes in a collective with the same mask. Masks of different groups may overlap: a lane may wait for one that is
  /// still in an earlier collective of its own.
  struct Group {
    unsigned mask;
    unsigned arrived;
  };
  struct Warp {
    unsigned existing;
    unsigned returned;
    unsigned ready;
    std::uint32_t priority;
    std::array<Group, kWarpThreads> groups;  ///< the first num_groups are live
    int num_groups;
    std::array<LaneArguments, kWarpThreads> lanes;
    std::array<unsigned, kWarpThreads> generation;  ///< of the group whose lowest lane this is
    std::uint64_t sync[kWarpThreads][2];
  };
  struct SharedRange {
    const SharedVariable* variable;  ///< null: the dynamic shared memory
    char* begin;
    std::size_t bytes;
  };

  BlockExecutor();
  static void fiber_main();
  static void exit_after_fault();

  void release_arena();
  void prepare(Launch& launch, std::uint64_t block);
  Thread* pick();
  void make_ready(Thread& thread);
  void suspend();
  void finish_current_thread();
  Fiber* take_fiber();
  char* place_shared(const SharedVariable* variable, std::size_t bytes, std::size_t alignment);
  void check_shared_canaries();
  void report_deadlock();
  void record(Site site, const char* message, bool by_thread);
  [[noreturn]] void leave_kernel();
  void abandon_threads();

  Launch* launch_ = nullptr;
  Fiber host_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_fibers_;
  std::size_t stack_bytes_ = 0;
  std::array<Thread, kMaxBlockThreads> threads_ = {};
  std::array<Warp, kMaxWarps> warps_ = {};
  std::array<Barrier, kNumBarriers> barriers_ = {};
  Thread* current_ = nullptr;
  int num_threads_ = 0;
  int num_warps_ = 0;
  int num_returned_ = 0;
  unsigned ready_warps_ = 0;
  RandomBits random_{0};
  bool in_kernel_ = false;
  bool computing_collective_ = false;

  std::unique_ptr<char[]> arena_;  ///< the shared memory
  std::size_t arena_bytes_ = 0;
  std::size_t arena_used_ = 0;
  std::size_t static_shared_bytes_ = 0;
  std::vector<SharedRange> shared_ranges_;

  std::vector<PendingCopy> copies_;
  int free_copy_ = -1;  ///< first of the list of entries that were used and are free
  int num_copies_ = 0;  ///< in use

  // A fixed buffer: the fiber that writes an error never returns, so a string of its own would leak.
  std::array<char, 2048> error_ = {};
  int fault_signal_ = 0;
  int fault_code_ = 0;
  const void* fault_address_ = nullptr;
  /// For TSan: orders each block of a worker after the one before, whose shared memory it reuses. Two objects in turn,
  /// so that a thread does not come after threads of its own block.
  std::uint64_t block_chain_[2] = {};
  unsigned block_turn_ = 0;
};

}  // namespace simt::detail
