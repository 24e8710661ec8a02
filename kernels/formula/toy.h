// The toy densities in the plane, as their users know them: FFJORD's toy set (Grathwohl et al., 2019), scikit-learn's
// moons and swiss roll, the grid of 25 Gaussians of the GAN literature. Labels and curve parameters are random, not
// stratified, so that samples are independent and identically distributed.
//
// Notation: u, u' uniform on (0, 1); n, n' standard normal; all independent. One line per density:
//   gaussians25      (centre + 0.05 (n, n')) / 2.828, centre on the 5 x 5 grid {-4, -2, 0, 2, 4}^2
//   gaussians8       (2 (cos, sin)(2 pi k / 8) + 0.02 (n, n')) / 1.414
//   swiss_roll       (t (cos t, sin t) + 1.0 (n, n')) / 5, t = 3 pi / 2 (1 + 2 u)
//   swiss_roll_thin  (t (cos t, sin t) + 0.25 (n, n')) / 7.5
//   two_moons        (cos, sin)(pi u) or (1 - cos, 1/2 - sin)(pi u), + 0.1 (n, n')
//   rings            3 k / 4 (cos, sin)(2 pi u) + 0.08 (n, n'), k in {1, 2, 3, 4}
//   circles          3 (f (cos, sin)(2 pi u) + 0.08 (n, n')), f in {1, 1/2}
//   pinwheel         2 rotate(f, -(2 pi k / 5 + exp(f_1) / 4)), f = (1 + 0.3 n, 0.1 n'), k in {0, .., 4}
//   checkerboard     2 (a, u' - 2 b + (floor(a) mod 2)), a = 4 u - 2, b in {0, 1}: eight squares of side 2
//   two_spirals      +-(-t cos t + u'/2, t sin t + u''/2) / 3 + 0.1 (n, n'), t = 3 pi sqrt(u)
#pragma once

#include <cstdint>

#include "kernels/formula/host_device.h"
#include "kernels/formula/philox.h"
#include "kernels/ops.h"

namespace bracket::formula {

inline constexpr double kGaussians25Spacing = 2, kGaussians25Noise = 0.05, kGaussians25Scale = 2.828;
inline constexpr double kGaussians8Radius = 2, kGaussians8Noise = 0.02, kGaussians8Scale = 1.414;
inline constexpr double kSwissRollNoise = 1, kSwissRollScale = 5;
inline constexpr double kThinRollNoise = 0.25, kThinRollScale = 7.5;
inline constexpr double kRollFirstTurn = 0.75, kRollTurns = 1.5;
inline constexpr double kMoonsNoise = 0.1;
inline constexpr double kRingsRadius = 0.75, kRingsNoise = 0.08;
inline constexpr double kCirclesScale = 3, kCirclesFactor = 0.5, kCirclesNoise = 0.08;
inline constexpr double kPinwheelRadial = 0.3, kPinwheelTangential = 0.1, kPinwheelRate = 0.25, kPinwheelScale = 2;
inline constexpr std::uint32_t kPinwheelArms = 5;
inline constexpr double kCheckerboardScale = 2;
inline constexpr double kSpiralTurns = 1.5, kSpiralJitter = 0.5, kSpiralScale = 3, kSpiralNoise = 0.1;

struct ToyPoint {
  double x;
  double y;
};

/// value / scale + noise / scale in one rounding order for all densities.
BRACKET_HOST_DEVICE ToyPoint noisy(double x, double y, double noise, const NormalPair& normal, double scale) {
  return {quotient(fused(noise, normal.first, x), scale), quotient(fused(noise, normal.second, y), scale)};
}

BRACKET_HOST_DEVICE ToyPoint swiss_roll_point(double u, double noise, const NormalPair& normal, double scale) {
  const double turns = fused(kRollTurns, u, kRollFirstTurn);
  const double t = product(kTwoPi, turns);
  const SineCosine direction = sine_cosine_of_turns(turns);
  return noisy(product(t, direction.cosine), product(t, direction.sine), noise, normal, scale);
}

BRACKET_HOST_DEVICE ToyPoint circle_point(double u, double radius, double noise, const NormalPair& normal,
                                          double scale) {
  const SineCosine direction = sine_cosine_of_turns(u);
  return noisy(product(radius, direction.cosine), product(radius, direction.sine), noise, normal, scale);
}

/// Sample `index`: elements 32 index .. 32 index + 31 of the key, of which the first eight are used: 0 label, 1 curve
/// parameter, 2 and 3 the normal pair, 4 and 5 further uniforms.
BRACKET_HOST_DEVICE ToyPoint toy_point(ToyData data, const PhiloxKey& key, std::uint64_t index) {
  const PhiloxBlock block = philox_block(key, 8 * index);
  const std::uint32_t label = block.word[0];
  const double u = unit_uniform(block.word[1]);
  const NormalPair normal = normal_pair(block.word[2], block.word[3]);
  switch (data) {
    case ToyData::gaussians25: {
      const std::uint32_t mode = choice(label, 25);
      return noisy(kGaussians25Spacing * (static_cast<double>(mode / 5) - 2),
                   kGaussians25Spacing * (static_cast<double>(mode % 5) - 2), kGaussians25Noise, normal,
                   kGaussians25Scale);
    }
    case ToyData::gaussians8:
      return circle_point(static_cast<double>(choice(label, 8)) / 8, kGaussians8Radius, kGaussians8Noise, normal,
                          kGaussians8Scale);
    case ToyData::swiss_roll:
      return swiss_roll_point(u, kSwissRollNoise, normal, kSwissRollScale);
    case ToyData::swiss_roll_thin:
      return swiss_roll_point(u, kThinRollNoise, normal, kThinRollScale);
    case ToyData::two_moons: {
      const SineCosine direction = sine_cosine_of_turns(product(0.5, u));
      const bool outer = choice(label, 2) == 0;
      return noisy(outer ? direction.cosine : sum(1.0, -direction.cosine),
                   outer ? direction.sine : sum(0.5, -direction.sine), kMoonsNoise, normal, 1);
    }
    case ToyData::rings:
      return circle_point(u, kRingsRadius * static_cast<double>(1 + choice(label, 4)), kRingsNoise, normal, 1);
    case ToyData::circles:
      return circle_point(u, kCirclesScale * (choice(label, 2) == 0 ? 1.0 : kCirclesFactor),
                          kCirclesScale * kCirclesNoise, normal, 1);
    case ToyData::pinwheel: {
      const double along = fused(kPinwheelRadial, normal.first, 1.0);
      const double across = product(kPinwheelTangential, normal.second);
      const double arm = static_cast<double>(choice(label, kPinwheelArms)) / kPinwheelArms;
      const double turns = fused(kPinwheelRate / kTwoPi, exponential(along), arm);
      const SineCosine angle = sine_cosine_of_turns(turns);
      return {product(kPinwheelScale, fused(along, angle.cosine, product(across, angle.sine))),
              product(kPinwheelScale, fused(-along, angle.sine, product(across, angle.cosine)))};
    }
    case ToyData::checkerboard: {
      const double a = fused(4.0, u, -2.0);
      const double column = a < -1 || (a >= 0 && a < 1) ? 0.0 : 1.0;  // floor(a) mod 2 on [-2, 2)
      const double base = sum(column, choice(label, 2) == 0 ? 0.0 : -2.0);
      return {product(kCheckerboardScale, a), product(kCheckerboardScale, sum(unit_uniform(block.word[2]), base))};
    }
    case ToyData::two_spirals: {
      const PhiloxBlock more = philox_block(key, 8 * index + 1);
      const double turns = product(kSpiralTurns, square_root(u));
      const double t = product(kTwoPi, turns);
      const SineCosine direction = sine_cosine_of_turns(turns);
      const double x = fused(kSpiralJitter, unit_uniform(more.word[0]), product(-t, direction.cosine));
      const double y = fused(kSpiralJitter, unit_uniform(more.word[1]), product(t, direction.sine));
      const double scale = choice(label, 2) == 0 ? kSpiralScale : -kSpiralScale;
      return {fused(kSpiralNoise, normal.first, quotient(x, scale)),
              fused(kSpiralNoise, normal.second, quotient(y, scale))};
    }
  }
  return {0, 0};
}

}  // namespace bracket::formula
