// Loads and stores of a whole vector, which a GPU refuses at an address that is no multiple of the vector's size.
#pragma once

#include <cstdint>

#include "simt/executor.h"

namespace simt {

/// `address` as that of a V. The processor would forgive a misaligned one where the compiler splits the access.
template <class V, class T>
V* vector_at(T* address, SIMT_CALL_SITE) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignof(V) != 0) {
    detail::fail(SIMT_SITE, "vector access: address %p is not aligned to %zu bytes", static_cast<const void*>(address),
                 alignof(V));
  }
  return reinterpret_cast<V*>(address);
}

}  // namespace simt
