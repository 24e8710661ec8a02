#include "tools/program/stop_signals.h"

#include <unistd.h>

#include <csignal>

#include "bracket/error.h"

namespace bracket {
namespace {

volatile std::sig_atomic_t requested = 0;

extern "C" void on_stop_signal(int signal) {
  if (requested != 0) ::_exit(exit_code_of(signal));
  requested = signal;
}

}  // namespace

void install_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaction(signal, &action, nullptr);
}

int stop_signal() noexcept { return requested; }

int exit_code_of(int signal) noexcept {
  switch (signal) {
    case SIGINT:
      return static_cast<int>(ExitCode::interrupted);
    case SIGTERM:
      return static_cast<int>(ExitCode::terminated);
    default:
      return static_cast<int>(ExitCode::preempted);
  }
}

const char* name_of_signal(int signal) noexcept {
  return signal == SIGINT ? "SIGINT" : signal == SIGTERM ? "SIGTERM" : "SIGUSR1";
}

}  // namespace bracket
