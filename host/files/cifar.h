// The binary version of CIFAR-10 and CIFAR-100: records of one label byte (coarse and fine: two) and 32 x 32 pixels,
// all red values first, then green, then blue.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bracket/image_shape.h"

namespace bracket {

inline constexpr ImageShape kCifarShape{.channels = 3, .height = 32, .width = 32};

enum class CifarKind : std::uint8_t { cifar10, cifar100 };

/// Which of the two a file is, by its size and labels. The number of records follows from the size, too: incomplete
/// copies are as good as whole ones. Throws DataError with `file_name` where neither fits.
CifarKind cifar_kind(std::span<const std::byte> bytes, const std::string& file_name);

/// Appends the images of a file, pixel by pixel (y, x, channel), and their labels: 0 to 9, or the fine ones, 0 to 99.
/// Throws DataError with `file_name` and the reason: cut inside a record, empty, a label that does not exist.
void append_cifar(std::vector<std::uint8_t>& pixels, std::vector<std::int32_t>& labels,
                  std::span<const std::byte> bytes, CifarKind kind, const std::string& file_name);

}  // namespace bracket
