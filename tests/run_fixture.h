// A small training problem for the tests of checkpoints and run folders.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bracket/dataset.h"
#include "bracket/device.h"
#include "bracket/preset.h"
#include "bracket/run.h"
#include "bracket/trainer.h"
#include "tests/files_test_folder.h"

namespace bracket {

/// 40 rows of 3 columns without structure.
inline Dataset small_table(double scale = 1) {
  std::vector<double> values(120);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = scale * static_cast<double>((i * 37 + 11) % 101) / 50 - 1;
  return Dataset::from_rows(values, 40, 3);
}

inline TrainerConfig small_config(const Dataset& data, std::int64_t total_steps = 60) {
  TrainerConfig config = make_preset("vectors", data, 7);
  config.batch_size = 8;
  config.total_steps = total_steps;
  return config;
}

/// A trainer with all it stands on.
struct SmallTraining {
  explicit SmallTraining(std::int64_t total_steps = 60)
      : data(small_table()), config(small_config(data, total_steps)), trainer(context, config, data) {}
  explicit SmallTraining(const TrainerConfig& wanted)
      : data(small_table()), config(wanted), trainer(context, config, data) {}

  static ContextOptions guarded() {
    ContextOptions options;
    options.guard = true;
    options.threads = 1;
    return options;
  }

  Context context{guarded()};
  Dataset data;
  TrainerConfig config;
  Trainer trainer;
};

class RunFolderTest : public FolderTest {
 protected:
  /// Every regular file below `folder` by its relative path.
  static std::map<std::string, std::string> tree(const std::filesystem::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.is_regular_file()) files[entry.path().lexically_relative(folder).string()] = content(entry.path());
    }
    return files;
  }

  /// Changes one bit of a file.
  static void flip(const std::filesystem::path& path, std::size_t at, unsigned bit = 0) {
    std::string text = content(path);
    text.at(at) = static_cast<char>(text[at] ^ (1 << bit));
    put(path, text);
  }
};

}  // namespace bracket
