// From arguments to an exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace bracket {

/// The chosen command with its options; returns the exit code. Throws the library's errors.
using Action = std::function<int()>;

/// Each adds one subcommand with its options; parsing it fills `action`.
void add_train(CLI::App& program, Action& action, const std::vector<std::string>& command);
void add_eval(CLI::App& program, Action& action);
void add_audit(CLI::App& program, Action& action);
void add_classifier(CLI::App& program, Action& action);
void add_density(CLI::App& program, Action& action);
void add_sample(CLI::App& program, Action& action);
void add_energy(CLI::App& program, Action& action);
void add_jacobian(CLI::App& program, Action& action);
void add_inspect(CLI::App& program, Action& action);
void add_doctor(CLI::App& program, Action& action);

inline constexpr std::uint64_t kLargestSeed = std::numeric_limits<std::uint64_t>::max();
inline constexpr std::uint64_t kMostThreads = std::numeric_limits<int>::max();
/// A step is 48 bits of the counter of the random numbers.
inline constexpr std::uint64_t kMostSteps = (std::uint64_t{1} << 48) - 1;

/// For an option: decimal digits alone, as a person would write the number, from `low` to `high`. What CLI11 converts
/// by itself includes signs that wrap, octal and hexadecimal numbers, and values beyond 64 bits.
CLI::Validator whole_number(std::uint64_t low, std::uint64_t high);

/// For an option whose default stands for "not given": an empty text is none.
CLI::Validator not_empty();

/// Everything main does. One line "bracket: error: ..." on standard error and the code of the error's type on failure.
int run_command_line(int argc, char** argv);

}  // namespace bracket
