// The threads of the CPU device: every task once, whatever the team, the number of tasks and the load.
#include "kernels/cpu/thread_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <new>
#include <thread>
#include <vector>

namespace bracket {
namespace {

class ThreadTeams : public ::testing::TestWithParam<int> {};

TEST_P(ThreadTeams, DoEveryTaskOnce) {
  ThreadTeam team(GetParam());
  for (const std::int64_t tasks : {0, 1, 2, 3, 31, 64, 1000, 65535, 65536, 70000}) {
    std::vector<int> count(static_cast<std::size_t>(tasks), 0);
    team.run(tasks, [&](std::int64_t task) { ++count[static_cast<std::size_t>(task)]; });
    for (std::size_t i = 0; i < count.size(); ++i) ASSERT_EQ(count[i], 1) << "task " << i << " of " << tasks;
  }
}

// What one job wrote, the next must see: the results of a job are plain memory.
TEST_P(ThreadTeams, JobsFollowOneAnother) {
  ThreadTeam team(GetParam());
  std::vector<std::int64_t> values(7, 0);
  for (int job = 0; job < 5000; ++job) {
    team.run(7, [&](std::int64_t task) {
      const auto i = static_cast<std::size_t>(task);
      values[i] += values[i] == job ? 1 : 1000000;
    });
  }
  for (const std::int64_t value : values) EXPECT_EQ(value, 5000);
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadTeams, ::testing::Values(1, 2, 3, 8, 40));

TEST(ThreadTeam, TeamsOfTwoCallersDoNotMeet) {
  const auto work = [](std::int64_t& sum) {
    ThreadTeam team(3);
    std::vector<std::int64_t> parts(5, 0);
    for (int job = 0; job < 500; ++job) {
      team.run(5, [&](std::int64_t task) { parts[static_cast<std::size_t>(task)] += task; });
    }
    for (const std::int64_t part : parts) sum += part;
  };
  std::int64_t first = 0, second = 0;
  std::thread other(work, std::ref(second));
  work(first);
  other.join();
  EXPECT_EQ(first, 500 * 10);
  EXPECT_EQ(second, 500 * 10);
}

TEST(ThreadTeam, ExceptionsReachTheCaller) {
  ThreadTeam team(3);
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> done{0};
    const auto job = [&](std::int64_t task) {
      ++done;
      if (task % 5 == 2) throw std::bad_alloc();
    };
    EXPECT_THROW(team.run(17, job), std::bad_alloc);
    EXPECT_EQ(done, 17) << "the other tasks are done all the same";
    EXPECT_NO_THROW(team.run(3, [](std::int64_t) {}));
  }
}

TEST(ThreadTeam, SleepersWakeUp) {
  ThreadTeam team(2);
  std::atomic<int> done{0};
  for (int job = 0; job < 5; ++job) {
    team.run(2, [&](std::int64_t) { ++done; });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // long past the spin
  }
  EXPECT_EQ(done, 10);
}

TEST(ThreadTeam, AnIdleTeamEndsAtOnce) {
  for (int i = 0; i < 100; ++i) {
    ThreadTeam team(4);
    if (i % 2 == 0) team.run(4, [](std::int64_t) {});
  }
}

TEST(ThreadTeam, ZeroMeansTheProcessorsOfThisProcess) { EXPECT_GE(ThreadTeam(0).size(), 1); }

}  // namespace
}  // namespace bracket
