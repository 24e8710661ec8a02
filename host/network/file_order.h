// Tensors whose elements a file orders otherwise than memory: memory follows the rows (NHWC), files follow PyTorch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bracket/network.h"

namespace bracket {

/// The order of a file whose axes are the axes `file_axes` of a row-major tensor with extents `memory_extents`.
FileOrder permuted_order(const std::vector<std::int64_t>& memory_extents, const std::vector<std::size_t>& file_axes);

/// Calls visit(file_element, memory_element) for every element, in the file's order.
template <class Visit>
void for_each_element(const FileOrder& order, std::int64_t size, const Visit& visit) {
  if (order.same()) {
    for (std::int64_t i = 0; i < size; ++i) visit(i, i);
    return;
  }
  if (size == 0) return;
  std::vector<std::int64_t> at(order.axes.size(), 0);
  std::int64_t memory = 0;
  for (std::int64_t file = 0; file < size; ++file) {
    visit(file, memory);
    for (std::size_t axis = at.size(); axis-- > 0;) {
      memory += order.axes[axis].stride;
      if (++at[axis] < order.axes[axis].extent) break;
      memory -= order.axes[axis].extent * order.axes[axis].stride;
      at[axis] = 0;
    }
  }
}

/// The same values in the other order.
std::vector<double> in_memory_order(const std::vector<double>& file_values, const FileOrder& order);
std::vector<std::byte> in_memory_order(const std::vector<std::byte>& file_bytes, const FileOrder& order,
                                       std::int64_t element_bytes);
std::vector<std::byte> in_file_order(const std::vector<std::byte>& memory_bytes, const FileOrder& order,
                                     std::int64_t element_bytes);

}  // namespace bracket
