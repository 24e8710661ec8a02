#include "tools/program/data_options.h"

#include <cstdlib>
#include <system_error>

namespace bracket {

namespace fs = std::filesystem;

CLI::Option* add_data_dir(CLI::App& command, std::string& data_dir) {
  return command.add_option("--data-dir", data_dir,
                            "Folder of the named image sets; default: the environment's BRACKET_DATA_DIR");
}

fs::path data_folder(const std::string& data_dir) {
  const char* variable = std::getenv("BRACKET_DATA_DIR");
  const std::string folder = !data_dir.empty() ? data_dir : variable != nullptr ? variable : "";
  std::error_code error;
  return folder.empty() ? fs::path() : fs::absolute(folder, error).lexically_normal();
}

Dataset open_run_data(const RunDescription& run, const std::string& data, const std::string& data_dir) {
  DatasetOptions options = run.data_options;
  if (!data_dir.empty() || options.data_dir.empty()) options.data_dir = data_folder(data_dir);
  return Dataset::open(data.empty() ? run.data : data, options);
}

}  // namespace bracket
