#include "host/network/file_order.h"

#include <cstring>
#include <utility>

namespace bracket {
namespace {

template <class Pair>
std::vector<std::byte> reordered(const std::vector<std::byte>& bytes, const FileOrder& order,
                                 std::int64_t element_bytes, const Pair& target_and_source) {
  if (order.same()) return bytes;
  std::vector<std::byte> result(bytes.size());
  const auto width = static_cast<std::size_t>(element_bytes);
  for_each_element(order, static_cast<std::int64_t>(bytes.size() / width), [&](std::int64_t file, std::int64_t memory) {
    const auto [target, source] = target_and_source(file, memory);
    std::memcpy(result.data() + static_cast<std::size_t>(target) * width,
                bytes.data() + static_cast<std::size_t>(source) * width, width);
  });
  return result;
}

}  // namespace

std::int64_t FileOrder::memory_element(std::int64_t file_element) const {
  if (same()) return file_element;
  std::int64_t memory = 0;
  for (std::size_t axis = axes.size(); axis-- > 0;) {
    memory += file_element % axes[axis].extent * axes[axis].stride;
    file_element /= axes[axis].extent;
  }
  return memory;
}

std::int64_t FileOrder::file_element(std::int64_t memory_element) const {
  if (same()) return memory_element;
  std::int64_t file = 0;
  for (const FileAxis& axis : axes) {
    file = file * axis.extent + memory_element / axis.stride % axis.extent;
  }
  return file;
}

FileOrder permuted_order(const std::vector<std::int64_t>& memory_extents, const std::vector<std::size_t>& file_axes) {
  std::vector<FileAxis> memory(memory_extents.size());
  std::int64_t stride = 1;
  for (std::size_t axis = memory.size(); axis-- > 0;) {
    memory[axis] = {memory_extents[axis], stride};
    stride *= memory_extents[axis];
  }
  FileOrder order;
  for (const std::size_t axis : file_axes) order.axes.push_back(memory[axis]);
  return order;
}

std::vector<double> in_memory_order(const std::vector<double>& file_values, const FileOrder& order) {
  std::vector<double> memory_values(file_values.size());
  for_each_element(order, static_cast<std::int64_t>(file_values.size()), [&](std::int64_t file, std::int64_t memory) {
    memory_values[static_cast<std::size_t>(memory)] = file_values[static_cast<std::size_t>(file)];
  });
  return memory_values;
}

std::vector<std::byte> in_memory_order(const std::vector<std::byte>& file_bytes, const FileOrder& order,
                                       std::int64_t element_bytes) {
  return reordered(file_bytes, order, element_bytes, [](std::int64_t file, std::int64_t memory) {
    return std::pair{memory, file};
  });
}

std::vector<std::byte> in_file_order(const std::vector<std::byte>& memory_bytes, const FileOrder& order,
                                     std::int64_t element_bytes) {
  return reordered(memory_bytes, order, element_bytes, [](std::int64_t file, std::int64_t memory) {
    return std::pair{file, memory};
  });
}

}  // namespace bracket
