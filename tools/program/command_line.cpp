#include "tools/program/command_line.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/files/in_quotes.h"
#include "tools/program/output.h"
#include "tools/program/version.h"

namespace bracket {
namespace {

constexpr const char* kExitCodes =
    "Exit codes:\n"
    "    0  success\n"
    "    1  defect in Bracket itself\n"
    "    2  wrong command line, configuration or argument\n"
    "    3  data file or disk: absent, malformed, unreadable, read-only, full; output that could not be written\n"
    "    4  training diverged: a loss, gradient or weight became non-finite; the bad update was not applied\n"
    "    5  host or device memory exhausted\n"
    "    6  no usable GPU, or a CUDA call failed\n"
    "    7  checkpoint damaged or not matching\n"
    "    8  audit --strict: a check failed\n"
    "   75  SIGUSR1: stopped cleanly after a checkpoint, please requeue\n"
    "  130  SIGINT: stopped cleanly after a checkpoint\n"
    "  143  SIGTERM: stopped cleanly after a checkpoint\n";

// Files opened later must not become standard output or error. Opened the wrong way round, so that using them fails
// as it would have.
void occupy_standard_descriptors() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    if (::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) std::_Exit(1);
  }
}

// Of the options and subcommands of `app`.
std::vector<std::string> names_of(const CLI::App& app, bool flags) {
  std::vector<std::string> names;
  if (flags) {
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
      for (const std::string& name : option->get_snames()) names.push_back("-" + name);
    }
  } else {
    for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  }
  return names;
}

[[noreturn]] void reject_extra(const CLI::App& app, const std::vector<std::string>& extras) {
  const auto flag = std::find_if(extras.begin(), extras.end(),
                                 [](const std::string& text) { return text.size() > 1 && text.starts_with('-'); });
  const bool is_flag = flag != extras.end();
  const std::string text = is_flag ? flag->substr(0, flag->find('=')) : extras.front();
  const std::vector<std::string> names = names_of(app, is_flag);
  const std::string kind = is_flag ? "flag " : names.empty() ? "argument " : "command ";
  std::string hint = "; see 'bracket" + (app.get_parent() != nullptr ? " " + app.get_name() : "") + " --help'";
  if (!names.empty()) hint = "; did you mean '" + nearest_name(text, names) + "'?";
  throw InvalidArgument((names.empty() ? "superfluous " : "unknown ") + kind + text_in_quotes(text) + hint);
}

void require_no_extras(const CLI::App& program) {
  // Subcommands first: what they did not understand is also the program's.
  for (const CLI::App* command : program.get_subcommands()) {
    if (!command->remaining().empty()) reject_extra(*command, command->remaining());
  }
  if (!program.remaining().empty()) reject_extra(program, program.remaining());
}

int report_error(const std::string& text, ExitCode code) {
  std::string line = text;
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::fprintf(stderr, "bracket: error: %s\n", line.c_str());
  return static_cast<int>(code);
}

int parse_and_run(CLI::App& program, Action& action, int argc, char** argv) {
  try {
    program.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(program.help());  // of the command given, if there is one
    return 0;
  } catch (const CLI::CallForVersion&) {
    print("bracket " + std::string(version()) + " (" + revision() + ")\n");
    return 0;
  } catch (const CLI::ParseError& error) {
    require_no_extras(program);
    throw InvalidArgument(error.what());
  }
  require_no_extras(program);
  if (!action) throw InvalidArgument("no command given; see 'bracket --help'");
  return action();
}

}  // namespace

CLI::Validator whole_number(std::uint64_t low, std::uint64_t high) {
  const auto problem = [low, high](std::string& text) -> std::string {
    std::uint64_t value = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    // Leading zeros read back differently; elsewhere they mean octal.
    const bool is_decimal = error == std::errc() && stop == end && std::to_string(value) == text;
    if (is_decimal && value >= low && value <= high) return "";
    return text_in_quotes(text) + " is no whole number from " + std::to_string(low) + " to " + std::to_string(high) +
           " in decimal digits";
  };
  return CLI::Validator(problem, "");
}

CLI::Validator not_empty() {
  return CLI::Validator([](std::string& text) { return std::string(text.empty() ? "an empty text is no value" : ""); },
                        "");
}

int run_command_line(int argc, char** argv) {
  occupy_standard_descriptors();
  // A reader that goes away must not end a training; output is checked where it is the purpose of a command.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of the write that meets it
  try {
    CLI::App program("Bracket: energy-based models trained between two bounds", "bracket");
    Action action;
    program.set_version_flag("--version", version(), "Print version and revision");
    program.allow_extras();
    program.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    program.footer(std::string("'bracket COMMAND --help' explains a command.\n\n") + kExitCodes);
    add_train(program, action, {argv, argv + argc});
    add_eval(program, action);
    add_audit(program, action);
    add_classifier(program, action);
    add_density(program, action);
    add_sample(program, action);
    add_energy(program, action);
    add_jacobian(program, action);
    add_inspect(program, action);
    add_doctor(program, action);
    for (CLI::App* command : program.get_subcommands({})) command->allow_extras()->footer(kExitCodes);
    const int code = parse_and_run(program, action, argc, argv);
    return code == 0 ? finish_output() : code;
  } catch (const Error& error) {
    return report_error(error.what(), error.code());
  } catch (const std::bad_alloc&) {
    return report_error("host memory is exhausted; ask for fewer rows or a smaller batch_size", ExitCode::memory);
  } catch (const std::exception& error) {
    return report_error(std::string("internal error: ") + error.what() + "; please report it with the command line",
                        ExitCode::internal);
  }
}

}  // namespace bracket
