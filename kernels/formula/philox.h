// Philox4x32-10 and what is drawn from it, for both devices. Layout of key and counter: include/bracket/random.h.
#pragma once

#include <cstdint>

#include "bracket/random.h"
#include "kernels/formula/elementary.h"
#include "kernels/formula/host_device.h"

namespace bracket::formula {

struct PhiloxBlock {
  std::uint32_t word[4];
};

/// Ten rounds; each multiplies two counter words by constants and crosses the halves, and the key walks by a Weyl
/// sequence.
BRACKET_HOST_DEVICE PhiloxBlock philox4x32_10(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t c3,
                                              std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t even = std::uint64_t{0xD2511F53U} * c0;
    const std::uint64_t odd = std::uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<std::uint32_t>(odd >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(odd);
    c2 = static_cast<std::uint32_t>(even >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(even);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return {{c0, c1, c2, c3}};
}

/// A RandomKey in Philox's terms: 64-bit key and upper half of the counter.
struct PhiloxKey {
  std::uint64_t key;
  std::uint64_t sequence;
};

inline constexpr std::uint64_t kStepMask = (std::uint64_t{1} << 48) - 1;

BRACKET_HOST_DEVICE PhiloxKey philox_key(const RandomKey& key, std::uint64_t step) {
  return {key.seed, (static_cast<std::uint64_t>(key.stream) << 48) | (step & kStepMask)};
}

/// The step of `key` when an op was given the device address of a counter, or null.
BRACKET_HOST_DEVICE std::uint64_t counted_step(const RandomKey& key, const std::int64_t* counter) {
  return key.step + (counter != nullptr ? static_cast<std::uint64_t>(*counter) : 0);
}

/// Elements 4 q .. 4 q + 3.
BRACKET_HOST_DEVICE PhiloxBlock philox_block(const PhiloxKey& key, std::uint64_t q) {
  return philox4x32_10(static_cast<std::uint32_t>(q), static_cast<std::uint32_t>(q >> 32),
                       static_cast<std::uint32_t>(key.sequence), static_cast<std::uint32_t>(key.sequence >> 32),
                       static_cast<std::uint32_t>(key.key), static_cast<std::uint32_t>(key.key >> 32));
}

/// (word + 1/2) 2^-32, exact. The detour through a signed integer is for AVX2, which converts no unsigned ones.
BRACKET_HOST_DEVICE double unit_uniform(std::uint32_t word) {
  const auto centred = static_cast<std::int32_t>(word ^ 0x80000000U);
  return fused(static_cast<double>(centred), 0x1p-32, 0.5 + 0x1p-33);
}

/// floor(count word / 2^32): uniform on 0 .. count - 1 up to count 2^-32.
BRACKET_HOST_DEVICE std::uint32_t choice(std::uint32_t word, std::uint32_t count) {
  return static_cast<std::uint32_t>((std::uint64_t{word} * count) >> 32);
}

struct NormalPair {
  double first;   ///< r sin(a)
  double second;  ///< r cos(a)
};

/// Box and Muller (1958): r = sqrt(-2 log u), a = 2 pi u'. |values| <= sqrt(66 log 2) = 6.77.
BRACKET_HOST_DEVICE NormalPair normal_pair(std::uint32_t radius_word, std::uint32_t angle_word) {
  const double radius = square_root(product(-2.0, logarithm(unit_uniform(radius_word))));
  const SineCosine direction = sine_cosine_of_turns(unit_uniform(angle_word));
  return {product(radius, direction.sine), product(radius, direction.cosine)};
}

/// A uniform on (low, high) in element type T. The exact value low + (high - low) u lies inside, but may round to an
/// end: it is then moved to `smallest` or `largest`, the outermost numbers of T inside.
template <class T>
struct UniformRange {
  double low;
  double width;
  T smallest;
  T largest;
};

template <class T>
BRACKET_HOST_DEVICE T uniform_in(const UniformRange<T>& range, std::uint32_t word) {
  const T value = static_cast<T>(fused(range.width, unit_uniform(word), range.low));
  return value < range.smallest ? range.smallest : (value > range.largest ? range.largest : value);
}

/// Host side of UniformRange. low == high gives that constant.
template <class T>
UniformRange<T> uniform_range(double low, double high) {
  T smallest = static_cast<T>(low);
  T largest = static_cast<T>(high);
  if (low < high) {
    if (static_cast<double>(smallest) <= low) smallest = std::nextafter(smallest, static_cast<T>(INFINITY));
    if (static_cast<double>(largest) >= high) largest = std::nextafter(largest, -static_cast<T>(INFINITY));
    if (smallest > largest) smallest = largest;
  }
  return {low, high - low, smallest, largest};
}

}  // namespace bracket::formula
