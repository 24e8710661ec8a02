// Which taps of one kernel a tap of the other is the sum of, along one axis: see KernelBox.
#pragma once

#include <cstdint>

#include "kernels/formula/host_device.h"
#include "kernels/ops.h"

namespace bracket::formula {

struct TapRange {
  std::int64_t first, last;  ///< inclusive; never empty
};

/// Of tap t of the wide kernel: taps of the kernel. The wide kernel of a transposed box is reversed.
BRACKET_HOST_DEVICE TapRange kernel_taps(const KernelBox& map, std::int64_t t) {
  const std::int64_t last = map.transposed ? map.kernel + map.window - 2 - t : t;
  const std::int64_t first = last - map.window + 1;
  return {first > 0 ? first : 0, last < map.kernel ? last : map.kernel - 1};
}

/// Of tap k of the kernel: the `window` taps of the wide kernel that it is a term of.
BRACKET_HOST_DEVICE TapRange wide_taps(const KernelBox& map, std::int64_t k) {
  const std::int64_t first = map.transposed ? map.kernel - 1 - k : k;
  return {first, first + map.window - 1};
}

}  // namespace bracket::formula
