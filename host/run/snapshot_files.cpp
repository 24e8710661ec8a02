#include "host/run/snapshot_files.h"

#include <array>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "bracket/error.h"
#include "bracket/preset.h"
#include "host/config/json_reader.h"
#include "host/config/json_text.h"
#include "host/files/in_quotes.h"
#include "host/files/safetensors.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRunningMean = ".running_mean";
constexpr std::string_view kBatchCount = ".num_batches_tracked";

// The members of a snapshot and the files they live in.
struct Part {
  const char* file;
  SnapshotTensors TrainerSnapshot::*tensors;
};
constexpr std::array<Part, 5> kParts = {{{kEnergyName, &TrainerSnapshot::energy},
                                         {kGeneratorName, &TrainerSnapshot::generator},
                                         {kEnergyAverageName, &TrainerSnapshot::energy_average},
                                         {kGeneratorAverageName, &TrainerSnapshot::generator_average},
                                         {kOptimizerName, &TrainerSnapshot::optimizer}}};

template <class T>
std::int64_t first_non_finite(const std::vector<std::byte>& bytes) {
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof(T));
    if (!std::isfinite(value)) return static_cast<std::int64_t>(at / sizeof(T));
  }
  return -1;
}

[[noreturn]] void throw_non_finite(const std::string& name, std::int64_t step) {
  throw Diverged("non-finite " + name + " after step " + std::to_string(step) +
                     "; no checkpoint was written. Train anew with a lower learning rate or another seed",
                 name, step);
}

void require_finite(const TrainerSnapshot& snapshot) {
  for (const Part& part : kParts) {
    const std::string stem = fs::path(part.file).stem().string();
    for (const auto& [name, tensor] : snapshot.*part.tensors) {
      const std::int64_t element =
          tensor.dtype == DType::f32 ? first_non_finite<float>(tensor.bytes) : first_non_finite<double>(tensor.bytes);
      if (element >= 0) throw_non_finite(stem + " " + name + "[" + std::to_string(element) + "]", snapshot.step);
    }
  }
  if (!std::isfinite(snapshot.penalty_weight)) throw_non_finite("penalty weight", snapshot.step);
  if (!std::isfinite(snapshot.gap_average)) throw_non_finite("gap average", snapshot.step);
}

StoredTensor batch_count(const std::string& running_mean, std::int64_t batches) {
  StoredTensor stored;
  stored.name = running_mean.substr(0, running_mean.size() - kRunningMean.size()) + std::string(kBatchCount);
  stored.type = StoredType::i64;
  stored.bytes.resize(sizeof batches);
  std::memcpy(stored.bytes.data(), &batches, sizeof batches);
  return stored;
}

std::vector<std::byte> tensor_bytes(const SnapshotTensors& tensors, std::int64_t batches) {
  SafetensorsFile file;
  file.metadata = {{"format", "pt"}};
  for (const auto& [name, tensor] : tensors) {
    const StoredType type = tensor.dtype == DType::f32 ? StoredType::f32 : StoredType::f64;
    file.tensors.push_back({name, type, tensor.shape, tensor.bytes});
    if (name.ends_with(kRunningMean)) file.tensors.push_back(batch_count(name, batches));
  }
  return serialize_safetensors(file);
}

SnapshotTensors tensors_of(const std::vector<std::byte>& bytes, const fs::path& path) {
  SnapshotTensors tensors;
  for (StoredTensor& stored : parse_safetensors(bytes, path.string()).tensors) {
    if (stored.name.ends_with(kBatchCount)) continue;
    if (stored.type != StoredType::f32 && stored.type != StoredType::f64) {
      throw CheckpointError(path_in_quotes(path) + ": tensor " + text_in_quotes(stored.name) + " has type " +
                            std::string(stored_type_name(stored.type)) + ", networks hold F32 or F64");
    }
    const DType dtype = stored.type == StoredType::f32 ? DType::f32 : DType::f64;
    tensors[stored.name] = {dtype, std::move(stored.shape), std::move(stored.bytes)};
  }
  return tensors;
}

std::vector<std::byte> state_bytes(const TrainerSnapshot& snapshot, const TrainerConfig& config) {
  const std::string text = json_text(Json{{"step", snapshot.step},
                                          {"energy_updates", snapshot.energy_updates},
                                          {"generator_updates", snapshot.generator_updates},
                                          {"penalty_weight", snapshot.penalty_weight},
                                          {"gap_average", snapshot.gap_average},
                                          {"config", parse_json(to_json(config))}}) +
                           "\n";
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

void read_state(Checkpoint& checkpoint, const std::vector<std::byte>& bytes) {
  Json state = parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!state.is_object() || !state.contains("config")) throw InvalidArgument("key 'config' is missing");
  const std::string config = state["config"].dump();
  state.erase("config");
  TrainerSnapshot& snapshot = checkpoint.snapshot;
  JsonReader reader(state, "");
  constexpr Presence kRequired = Presence::required;
  reader.number("step", snapshot.step, NumberRange::at_least(0), kRequired);
  reader.number("energy_updates", snapshot.energy_updates, NumberRange::at_least(0), kRequired);
  reader.number("generator_updates", snapshot.generator_updates, NumberRange::at_least(0), kRequired);
  reader.number("penalty_weight", snapshot.penalty_weight, {}, kRequired);
  reader.number("gap_average", snapshot.gap_average, {}, kRequired);
  reader.finish();
  checkpoint.config = trainer_config_from_json(config);
}

}  // namespace

CheckpointBytes checkpoint_bytes(const TrainerSnapshot& snapshot, const TrainerConfig& config) {
  require_finite(snapshot);
  CheckpointBytes files;
  // A training pass of the generator happens once in every update of either network.
  const std::int64_t batches = snapshot.energy_updates + snapshot.generator_updates;
  for (const Part& part : kParts) files[part.file] = tensor_bytes(snapshot.*part.tensors, batches);
  files[kStateName] = state_bytes(snapshot, config);
  return files;
}

Checkpoint checkpoint_from_bytes(const CheckpointBytes& files, const fs::path& folder) {
  Checkpoint checkpoint;
  for (const Part& part : kParts) {
    checkpoint.snapshot.*part.tensors = tensors_of(files.at(part.file), folder / part.file);
  }
  try {
    read_state(checkpoint, files.at(kStateName));
  } catch (const InvalidArgument& error) {
    throw CheckpointError(path_in_quotes(folder / kStateName) + ": " + error.what());
  }
  return checkpoint;
}

}  // namespace bracket
