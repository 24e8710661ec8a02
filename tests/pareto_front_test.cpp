// The front of cost and error: ties, equal points, what is not a number.
#include "host/evaluate/pareto_front.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

namespace bracket {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

using Points = std::vector<CostAndError>;
using Front = std::vector<bool>;

TEST(ParetoFronts, HoldWhatNothingBeats) {
  EXPECT_EQ(pareto_front(Points{}), Front{});
  EXPECT_EQ(pareto_front(Points{{3, 7}}), Front{true});
  EXPECT_EQ(pareto_front(Points{{1, 9}, {2, 4}, {3, 5}, {4, 1}, {5, 4}}), (Front{true, true, false, true, false}));
}

TEST(ParetoFronts, TiesInOneCoordinateGoToTheOther) {
  EXPECT_EQ(pareto_front(Points{{2, 5}, {2, 4}, {2, 6}}), (Front{false, true, false}));
  EXPECT_EQ(pareto_front(Points{{3, 4}, {2, 4}, {4, 4}}), (Front{false, true, false}));
}

TEST(ParetoFronts, EqualPointsShareTheirPlace) {
  EXPECT_EQ(pareto_front(Points{{2, 4}, {2, 4}, {1, 5}}), (Front{true, true, true}));
  EXPECT_EQ(pareto_front(Points{{2, 4}, {2, 4}, {1, 3}}), (Front{false, false, true}));
  EXPECT_EQ(pareto_front(Points{{0.0, 0}, {-0.0, 0}}), (Front{true, true}));
}

TEST(ParetoFronts, LeaveOutWhatIsNotFinite) {
  EXPECT_EQ(pareto_front(Points{{1, kNaN}, {kNaN, 1}, {1, kInf}, {kInf, 0}, {-kInf, 0}, {1, -kInf}, {9, 9}}),
            (Front{false, false, false, false, false, false, true}));
  EXPECT_EQ(pareto_front(Points{{1, kNaN}, {kInf, kInf}}), (Front{false, false}));
}

// By the sweep: sorted by cost, then error, a point is on the front where its error is below that of all cheaper ones
// and the least among those of its cost. Few different values make many ties.
TEST(ParetoFronts, AreThoseOfASweep) {
  std::mt19937_64 engine(1);
  std::uniform_int_distribution<int> value(0, 9);
  for (int round = 0; round < 100; ++round) {
    Points points(12);
    for (CostAndError& point : points) point = {static_cast<double>(value(engine)), static_cast<double>(value(engine))};
    Front expected;
    for (const CostAndError& point : points) {
      double cheaper = kInf, same = kInf;
      for (const CostAndError& other : points) {
        if (other.cost < point.cost) cheaper = std::min(cheaper, other.error);
        if (other.cost <= point.cost) same = std::min(same, other.error);
      }
      expected.push_back(point.error < cheaper && point.error <= same);
    }
    EXPECT_EQ(pareto_front(points), expected) << round;
  }
}

}  // namespace
}  // namespace bracket
