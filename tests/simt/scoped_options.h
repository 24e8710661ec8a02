// Changes the executor's options for one scope of a test.
#pragma once

#include "simt/executor.h"

namespace simt {

class ScopedOptions {
 public:
  ScopedOptions() : saved_(options()) {}
  explicit ScopedOptions(Order order, std::uint64_t seed = 0, int workers = 1) : ScopedOptions() {
    options().order = order;
    options().seed = seed;
    options().workers = workers;
  }
  ~ScopedOptions() { options() = saved_; }
  ScopedOptions(const ScopedOptions&) = delete;
  ScopedOptions& operator=(const ScopedOptions&) = delete;

 private:
  Options saved_;
};

}  // namespace simt
