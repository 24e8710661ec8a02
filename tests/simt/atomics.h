// Atomic functions under their CUDA names, for the types CUDA offers. Relaxed, as on the GPU.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include "simt/executor.h"

namespace simt::detail {

template <class T, class... Candidates>
concept OneOf = (std::same_as<T, Candidates> || ...);
template <class T>
concept AtomicallyAdded = OneOf<T, int, unsigned, unsigned long long, float, double>;
template <class T>
concept AtomicallyOrdered = OneOf<T, int, unsigned, long long, unsigned long long>;
template <class T>
concept AtomicallyMasked = OneOf<T, int, unsigned, unsigned long long>;
template <class T>
concept AtomicallyExchanged = OneOf<T, int, unsigned, unsigned long long, float>;

template <class T>
std::atomic_ref<T> checked_atomic(T* address, const char* operation, Site site) {
  if (reinterpret_cast<std::uintptr_t>(address) % std::atomic_ref<T>::required_alignment != 0) {
    fail(site, "%s: address %p is not aligned to %zu bytes", operation, static_cast<void*>(address),
         std::atomic_ref<T>::required_alignment);
  }
  return std::atomic_ref<T>(*address);
}

template <class T, class Replaces>
T replace_if(T* address, T value, Replaces replaces, const char* operation, Site site) {
  const std::atomic_ref<T> atomic = checked_atomic(address, operation, site);
  T old = atomic.load(std::memory_order_relaxed);
  while (replaces(value, old) && !atomic.compare_exchange_weak(old, value, std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace simt::detail

template <::simt::detail::AtomicallyAdded T>
T atomicAdd(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return ::simt::detail::checked_atomic(address, "atomicAdd", SIMT_SITE).fetch_add(value, std::memory_order_relaxed);
}
template <::simt::detail::AtomicallyOrdered T>
T atomicMax(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return ::simt::detail::replace_if(
      address, value, [](T a, T b) { return a > b; }, "atomicMax", SIMT_SITE);
}
template <::simt::detail::AtomicallyOrdered T>
T atomicMin(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return ::simt::detail::replace_if(
      address, value, [](T a, T b) { return a < b; }, "atomicMin", SIMT_SITE);
}
template <::simt::detail::AtomicallyMasked T>
T atomicOr(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return ::simt::detail::checked_atomic(address, "atomicOr", SIMT_SITE).fetch_or(value, std::memory_order_relaxed);
}
template <::simt::detail::AtomicallyMasked T>
T atomicAnd(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return ::simt::detail::checked_atomic(address, "atomicAnd", SIMT_SITE).fetch_and(value, std::memory_order_relaxed);
}
template <::simt::detail::AtomicallyExchanged T>
T atomicExch(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return ::simt::detail::checked_atomic(address, "atomicExch", SIMT_SITE).exchange(value, std::memory_order_relaxed);
}
template <::simt::detail::AtomicallyMasked T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  ::simt::detail::checked_atomic(address, "atomicCAS", SIMT_SITE)
      .compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}
