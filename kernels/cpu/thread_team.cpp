#include "kernels/cpu/thread_team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <system_error>
#include <utility>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace bracket {
namespace {

// 100 to 250 us, by the processor's pause: longer than the gaps between the parallel ops of a step. On a virtual
// machine waking a sleeper cost so much that with a tenth of this two threads took as long as one (3.0 ms a
// calibrated-2d step; 2.4 ms with it, 2.0 ms with shares of tasks of their own; EPYC 7003, 2 cores).
constexpr int kSpins = 4000;

void pause_briefly() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#endif
}

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return std::max(1, CPU_COUNT(&set));
}

std::uint32_t job_of(std::uint64_t ticket) { return static_cast<std::uint32_t>(ticket >> 32); }
std::uint32_t end_of(std::uint64_t ticket) { return static_cast<std::uint32_t>(ticket >> 16 & 0xffff); }
std::uint32_t next_of(std::uint64_t ticket) { return static_cast<std::uint32_t>(ticket & 0xffff); }

}  // namespace

ThreadTeam::ThreadTeam(int threads)
    : size_(threads > 0 ? threads : usable_processors()),
      shares_(std::make_unique<Share[]>(static_cast<std::size_t>(size_))) {}

ThreadTeam::~ThreadTeam() {
  stop_.store(true);
  job_.fetch_add(1);
  job_.notify_all();
}

void ThreadTeam::run_shared(std::uint32_t tasks, Call call, void* function) {
  start_workers();
  done_.store(0, std::memory_order_relaxed);
  call_.store(call, std::memory_order_relaxed);
  function_.store(function, std::memory_order_relaxed);
  const std::uint32_t job = job_.load(std::memory_order_relaxed) + 1;
  const auto threads = static_cast<std::uint32_t>(size_);
  for (std::uint32_t t = 0; t < threads; ++t) {
    const std::uint64_t first = std::uint64_t{tasks} * t / threads, end = std::uint64_t{tasks} * (t + 1) / threads;
    shares_[t].ticket.store(std::uint64_t{job} << 32 | end << 16 | first, std::memory_order_release);
  }
  // Sequentially consistent with the sleeper's count and wait: one of the two sees the other.
  job_.store(job);
  if (sleeping_.load() > 0) job_.notify_all();
  work(job, 0);
  for (int spin = 0; done_.load(std::memory_order_acquire) != tasks; ++spin) {
    if (spin < kSpins)
      pause_briefly();
    else
      std::this_thread::yield();  // whoever holds the last task may be waiting for this core
  }
  if (failed_.load(std::memory_order_relaxed)) {
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

// A system that grants fewer threads gets a smaller team.
void ThreadTeam::start_workers() {
  if (static_cast<int>(workers_.size()) + 1 >= size_) return;
  // Workers take no signals: those are for the threads of the embedding program.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    while (static_cast<int>(workers_.size()) + 1 < size_)
      workers_.emplace_back([this, home = static_cast<int>(workers_.size()) + 1] { serve(home); });
  } catch (const std::system_error&) {
    size_ = static_cast<int>(workers_.size()) + 1;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Claims tasks of `job` until none is left. A claim that succeeds keeps the job alive, so what it reads belongs to it.
void ThreadTeam::work(std::uint32_t job, int home) {
  for (int turn = 0; turn < size_; ++turn) {
    std::atomic<std::uint64_t>& share = shares_[static_cast<std::size_t>((home + turn) % size_)].ticket;
    std::uint64_t ticket = share.load(std::memory_order_acquire);
    while (job_of(ticket) == job && next_of(ticket) < end_of(ticket)) {
      if (!share.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire))
        continue;
      const Call call = call_.load(std::memory_order_relaxed);
      try {
        call(function_.load(std::memory_order_relaxed), next_of(ticket));
      } catch (...) {
        if (!failed_.exchange(true)) error_ = std::current_exception();
      }
      done_.fetch_add(1, std::memory_order_acq_rel);
      ticket = share.load(std::memory_order_acquire);
    }
  }
}

void ThreadTeam::serve(int home) {
  std::uint32_t seen = 0;
  while (true) {
    std::uint32_t job = job_.load(std::memory_order_acquire);
    for (int spin = 0; job == seen && spin < kSpins; ++spin) {
      pause_briefly();
      job = job_.load(std::memory_order_acquire);
    }
    if (job == seen) {
      sleeping_.fetch_add(1);
      job_.wait(seen);
      sleeping_.fetch_sub(1);
      continue;
    }
    if (stop_.load()) return;
    seen = job;
    work(job, home);
  }
}

}  // namespace bracket
