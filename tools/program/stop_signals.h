// SIGINT, SIGTERM and SIGUSR1 as a request to finish the step and leave a checkpoint.
#pragma once

namespace bracket {

/// From here on the first signal only sets a flag; a second one ends the process at once with its exit code.
void install_stop_signals();

/// The signal that arrived, or 0.
int stop_signal() noexcept;

/// 130, 143 or 75.
int exit_code_of(int signal) noexcept;

const char* name_of_signal(int signal) noexcept;  ///< "SIGINT", ...

}  // namespace bracket
