// What a person sees of a training: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "bracket/run.h"

namespace bracket {

class ProgressDisplay {
 public:
  /// `first_step`: the step from which the rate is counted.
  explicit ProgressDisplay(std::int64_t first_step);

  void update(const RunProgress& progress);
  /// Ends the bar's line. To be called before anything else is printed.
  void close();

 private:
  using Clock = std::chrono::steady_clock;

  bool terminal_;
  bool open_line_ = false;
  std::int64_t first_step_;
  Clock::time_point start_;
  Clock::time_point last_shown_;
};

/// "0:07", "12:34", "1:02:03".
std::string duration_text(double seconds);

}  // namespace bracket
