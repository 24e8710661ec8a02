// From arguments to an exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace bracket {

/// The chosen command with its options; returns the exit code. Throws the library's errors.
using Action = std::function<int()>;

/// Each adds one subcommand with its options; parsing it fills `action`.
void add_train(CLI::App& program, Action& action, const std::vector<std::string>& command);
void add_eval(CLI::App& program, Action& action);
void add_density(CLI::App& program, Action& action);
void add_sample(CLI::App& program, Action& action);
void add_energy(CLI::App& program, Action& action);
void add_inspect(CLI::App& program, Action& action);
void add_doctor(CLI::App& program, Action& action);

/// Everything main does. One line "bracket: error: ..." on standard error and the code of the error's type on failure.
int run_command_line(int argc, char** argv);

}  // namespace bracket
