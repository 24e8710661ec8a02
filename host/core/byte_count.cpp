#include "host/core/byte_count.h"

#include <array>

#include "host/core/text.h"

namespace bracket {

std::string byte_count(std::int64_t bytes) {
  constexpr std::array<const char*, 4> kUnits = {"KiB", "MiB", "GiB", "TiB"};
  const std::string exact = std::to_string(bytes) + " bytes";
  if (bytes < 1024) return exact;
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return formatted("%.2f ", value) + kUnits[unit] + " (" + exact + ")";
}

}  // namespace bracket
