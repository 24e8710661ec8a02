// The threads of one CPU device.
//
// A training step is some 300 ops of a few microseconds, so handing out work must cost no more than one, and a waiting
// thread must not hold a core that another program needs. OpenMP's barriers do not offer both: with active waiting a
// step took 2 ms alone and 200 to 400 ms beside one other busy process on a 2-core machine (each barrier waited for
// a time slice); with passive waiting 4 ms. Here tasks are claimed, not assigned: the caller does every task that no
// worker has taken, so a worker without a core delays nothing, and idle workers sleep after a short spin.
//
// Every thread claims the tasks of its own share first, then those that others have left: ops whose tasks are the row
// panels of one batch find most of their rows in the cache of the core that wrote them.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace bracket {

class ThreadTeam {
 public:
  /// `threads` 0: one per processor this process may use. Threads start with the first work that wants them.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const noexcept { return size_; }

  /// Calls f(task) once for every task in [0, tasks), on any threads in any order; returns when all are done. What f
  /// throws is thrown here after that (the first, if several). Not reentrant, one caller at a time. More than 65,535
  /// tasks run on the caller alone.
  template <class F>
  void run(std::int64_t tasks, F&& f) {
    if (size_ == 1 || tasks < 2 || tasks > kMaxTasks) {
      for (std::int64_t task = 0; task < tasks; ++task) f(task);
      return;
    }
    using Function = std::remove_reference_t<F>;
    run_shared(
        static_cast<std::uint32_t>(tasks),
        [](void* function, std::uint32_t task) {
          (*static_cast<Function*>(function))(static_cast<std::int64_t>(task));
        },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using Call = void (*)(void* function, std::uint32_t task);
  static constexpr std::int64_t kMaxTasks = 0xffff;

  void run_shared(std::uint32_t tasks, Call call, void* function);
  void start_workers();
  void work(std::uint32_t job, int home);
  void serve(int home);

  int size_;
  /// One thread's share of a job: job number (high 32 bits), the end of the share (16) and its next task to claim (16)
  /// in one word, so that a claim for a job that is over cannot succeed.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> ticket{0};
  };
  std::unique_ptr<Share[]> shares_;
  std::atomic<Call> call_{nullptr};
  std::atomic<void*> function_{nullptr};
  alignas(64) std::atomic<std::uint32_t> done_{0};
  alignas(64) std::atomic<std::uint32_t> job_{0};
  std::atomic<std::uint32_t> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;           // written by the one task that set failed_
  std::vector<std::jthread> workers_;  // last: joined before anything they use is gone
};

}  // namespace bracket
