// What a library is asked to do with every element where it has no call of that name, and the settings under which it
// is what the op does (tests/bench_judge_test.cpp).
#pragma once

#include <cstdint>

#include "kernels/formula/host_device.h"

namespace bracket::bench {

struct Axpy {
  float alpha;
  BRACKET_HOST_DEVICE float operator()(float y, float x) const { return y + alpha * x; }
};

struct MovingAverage {
  float gain;
  BRACKET_HOST_DEVICE float operator()(float average, float x) const { return average + gain * (x - average); }
};

inline constexpr double kEmaDecay = 0.999;
/// The op begins with a larger gain, max(1 - decay, 9 / (step + 10)), which at this step is down to 1 - decay.
inline constexpr std::int64_t kEmaStep = 1'000'000;

}  // namespace bracket::bench
