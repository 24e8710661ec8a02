// Unsigned integers of either byte order at a place in a file's bytes.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

namespace bracket {

/// The caller has checked that the bytes are there.
template <std::unsigned_integral T>
T little_endian_at(std::span<const std::byte> bytes, std::size_t at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(value | std::to_integer<T>(bytes[at + i]) << (8 * i));
  return value;
}

template <std::unsigned_integral T>
T big_endian_at(std::span<const std::byte> bytes, std::size_t at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(value | std::to_integer<T>(bytes[at + i]) << (8 * (sizeof(T) - 1 - i)));
  return value;
}

template <std::unsigned_integral T>
void append_little_endian(std::vector<std::byte>& bytes, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
}

}  // namespace bracket
