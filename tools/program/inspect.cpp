// bracket inspect: what is in a run, a checkpoint or a file of tensors, without building anything from it.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>

#include "bracket/checkpoint.h"
#include "bracket/error.h"
#include "bracket/run.h"
#include "host/core/text.h"
#include "host/files/in_quotes.h"
#include "host/files/safetensors.h"
#include "host/run/manifest.h"
#include "tools/program/command_line.h"
#include "tools/program/math_text.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

struct Extent {
  double low = 0, high = 0;
  std::int64_t non_finite = 0;
};

template <class T>
Extent extent_of(const std::vector<std::byte>& bytes) {
  Extent extent{INFINITY, -INFINITY, 0};
  for (std::size_t at = 0; at + sizeof(T) <= bytes.size(); at += sizeof(T)) {
    T element;
    std::memcpy(&element, bytes.data() + at, sizeof(T));
    const auto value = static_cast<double>(element);
    if (!std::isfinite(value)) {
      ++extent.non_finite;
      continue;
    }
    extent.low = std::min(extent.low, value);
    extent.high = std::max(extent.high, value);
  }
  return extent;
}

Extent extent_of(const StoredTensor& tensor) {
  switch (tensor.type) {
    case StoredType::f32:
      return extent_of<float>(tensor.bytes);
    case StoredType::f64:
      return extent_of<double>(tensor.bytes);
    case StoredType::i64:
      return extent_of<std::int64_t>(tensor.bytes);
    case StoredType::u64:
      return extent_of<std::uint64_t>(tensor.bytes);
    case StoredType::u8:
      return extent_of<std::uint8_t>(tensor.bytes);
  }
  throw Error(ExitCode::internal, "a stored type without a case");
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

void print_tensors(const std::string& title, const SafetensorsFile& file) {
  std::int64_t elements = 0;
  for (const StoredTensor& tensor : file.tensors) {
    elements += static_cast<std::int64_t>(tensor.bytes.size()) / stored_type_bytes(tensor.type);
  }
  print(title + ": " + std::to_string(file.tensors.size()) + " tensors, " + std::to_string(elements) + " values\n");
  for (const StoredTensor& tensor : file.tensors) {
    const Extent extent = extent_of(tensor);
    const std::string name = text_in_quotes(tensor.name, 200);
    std::string line = formatted("  %-58s %-4s %-12s", name.substr(1, name.size() - 2).c_str(),
                                 std::string(stored_type_name(tensor.type)).c_str(), shape_text(tensor.shape).c_str());
    if (extent.low <= extent.high) line += formatted("  %12.6g to %-12.6g", extent.low, extent.high);
    if (extent.non_finite > 0) line += "  " + std::to_string(extent.non_finite) + " NON-FINITE";
    print(line.erase(line.find_last_not_of(' ') + 1) + "\n");
  }
}

void print_checkpoint(const fs::path& folder) {
  const CheckpointBytes files = read_verified_files(folder);
  print("checkpoint " + folder.string() + ": every file agrees with the manifest\n");
  for (const auto& [name, bytes] : files) {
    if (name != kStateName) print_tensors(name, parse_safetensors(bytes, (folder / name).string()));
  }
  const Checkpoint checkpoint = read_checkpoint(folder);
  const TrainerSnapshot& s = checkpoint.snapshot;
  print("state: step " + std::to_string(s.step) + ", updates of the energy " + std::to_string(s.energy_updates) +
        ", of the generator " + std::to_string(s.generator_updates) +
        formatted(", penalty weight %.6g, gap average %.6g nats\n", s.penalty_weight, s.gap_average));
}

void print_run(const fs::path& folder) {
  const RunDescription d = read_run_description(folder);
  const TrainerConfig& config = d.settings.trainer;
  print("run " + folder.string() + "\n  preset " + d.preset + ", data " + d.data + " (" +
        (d.data_rows == 0 ? "a density" : std::to_string(d.data_rows) + " rows") + " of " +
        std::to_string(d.data_cols) + " columns), seed " + std::to_string(config.seed) + ", " +
        std::to_string(config.total_steps) + " steps, device " + d.created.device + ", math " + math_text(config) +
        "\n  made by Bracket " + d.created.version + " (" + d.created.revision + ")\n");
  std::optional<fs::path> newest;
  bool any = false;
  for (const CheckpointEntry& entry : list_checkpoints(folder / "checkpoints")) {
    any = true;
    try {
      read_checkpoint(entry.folder);
      print("  " + entry.folder.filename().string() + ": valid\n");
      if (!newest) newest = entry.folder;
    } catch (const CheckpointError& error) {
      print("  " + entry.folder.filename().string() + ": DAMAGED: " + error.what() + "\n");
    }
  }
  if (newest) return print_checkpoint(*newest);
  if (!any) return print("  no checkpoint yet\n");
  throw CheckpointError("run " + path_in_quotes(folder) + " has no valid checkpoint");
}

int inspect(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::not_found) throw DataError(path_in_quotes(path) + " is absent; check the path");
  if (type == fs::file_type::regular && fs::file_size(path, error) == 0 && !error) {
    throw DataError(path_in_quotes(path) +
                    " is an empty file; give a run folder, a checkpoint folder or a .safetensors file");
  }
  if (type != fs::file_type::directory) {
    print_tensors(path.string(), read_safetensors(path));
  } else if (fs::exists(path / kManifestName, error)) {
    print_checkpoint(path);
  } else {
    print_run(path);
  }
  return 0;
}

}  // namespace

void add_inspect(CLI::App& program, Action& action) {
  auto path = std::make_shared<std::string>();
  CLI::App* command = program.add_subcommand("inspect", "Print the tensors of a run, a checkpoint or a file");
  command->add_option("path", *path, "Run folder, checkpoint folder or .safetensors file")->required();
  command->callback([path, &action] { action = [path] { return inspect(*path); }; });
}

}  // namespace bracket
