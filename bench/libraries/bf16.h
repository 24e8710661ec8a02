// Numbers of 8 significant bits, as libraries store them.
#pragma once

#include <bit>
#include <cstdint>

namespace bracket::bench {

/// To nearest, ties to even; finite numbers.
inline std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

inline float from_bf16(std::uint16_t value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16); }

}  // namespace bracket::bench
