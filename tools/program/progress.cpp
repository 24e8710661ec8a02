#include "tools/program/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "host/core/text.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

constexpr double kBarSeconds = 0.1;
constexpr double kLineSeconds = 2;
constexpr int kBarWidth = 24;
// Beyond this an estimate says only that it will take long.
constexpr double kLongestEta = 1000 * 3600.0;

std::string bar(double share) {
  const int filled = static_cast<int>(share * kBarWidth);
  return "[" + std::string(static_cast<std::size_t>(filled), '#') +
         std::string(static_cast<std::size_t>(kBarWidth - filled), '.') + "] ";
}

}  // namespace

std::string duration_text(double seconds) {
  if (!(seconds < kLongestEta)) return "--:--";
  const auto total = static_cast<long long>(std::llround(std::max(0.0, seconds)));
  const long long hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  return hours > 0 ? formatted("%lld:%02lld:%02lld", hours, minutes, rest) : formatted("%lld:%02lld", minutes, rest);
}

ProgressDisplay::ProgressDisplay(std::int64_t first_step)
    : terminal_(::isatty(STDOUT_FILENO) == 1), first_step_(first_step), start_(Clock::now()), last_shown_(start_) {}

void ProgressDisplay::update(const RunProgress& progress) {
  const Clock::time_point now = Clock::now();
  const double since_shown = std::chrono::duration<double>(now - last_shown_).count();
  const bool finished = progress.step == progress.last_step;
  const bool due = terminal_ ? since_shown >= kBarSeconds : progress.logged && since_shown >= kLineSeconds;
  if (!due && !finished) return;
  last_shown_ = now;

  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(progress.step - first_step_) / std::max(elapsed, 1e-9);
  const double share =
      progress.last_step == 0 ? 1 : static_cast<double>(progress.step) / static_cast<double>(progress.last_step);
  const std::string eta = duration_text(static_cast<double>(progress.last_step - progress.step) / rate);
  const StepRecord& r = progress.record;
  const std::string text = formatted("step %lld/%lld  %3.0f%%  lower bound %8.4f  penalty %9.3g  %7.0f steps/s  ETA ",
                                     static_cast<long long>(progress.step), static_cast<long long>(progress.last_step),
                                     100 * share, r.lower_bound, r.penalty, rate) +
                           eta;
  // Erase to the end of the line: the text before may have been longer.
  announce(terminal_ ? "\r" + bar(share) + text + "\x1b[K" : text + "\n");
  open_line_ = terminal_;
}

void ProgressDisplay::close() {
  if (open_line_) announce("\n");
  open_line_ = false;
}

}  // namespace bracket
