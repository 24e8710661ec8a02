#include "host/run/run_record.h"

#include <algorithm>
#include <array>
#include <span>
#include <system_error>

#include "bracket/error.h"
#include "host/config/json_reader.h"
#include "host/data/image_files.h"
#include "host/files/atomic_file.h"
#include "host/files/in_quotes.h"
#include "host/files/pixel_file.h"
#include "host/files/sha256.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

Json session_json(const RunSession& session) {
  return {{"version", session.version},
          {"revision", session.revision},
          {"device", session.device},
          {"device_description", session.device_description},
          {"command", session.command}};
}

// Throws InvalidArgument, as JsonReader does for the keys it reads.
std::string text_at(const Json& object, const char* key, const std::string& path) {
  const std::string member = member_path(path, key);
  if (!object.contains(key)) throw InvalidArgument("key " + text_in_quotes(member) + " is missing");
  const Json& value = object[key];
  if (!value.is_string()) throw InvalidArgument(quoted_path(member) + " must be a string, got " + described(value));
  return value.get<std::string>();
}

RunSession session_of(const Json& json) {
  return {text_at(json, "version", ""), text_at(json, "revision", ""), text_at(json, "device", ""),
          json.value("device_description", ""), json.at("command").get<std::vector<std::string>>()};
}

Json images_json(const ImageShape& shape, const DatasetOptions& options) {
  return {{"channels", shape.channels},
          {"height", shape.height},
          {"width", shape.width},
          {"folder", options.data_dir.string()},
          {"split", split_name(options.split)},
          {"seed", options.seed}};
}

void read_images(RunDescription& d, const Json& json) {
  JsonReader reader(json, "data.images");
  constexpr NumberRange kExtent = NumberRange::at_least(1);
  ImageShape& shape = d.image.emplace();
  reader.number("channels", shape.channels, kExtent, Presence::required);
  reader.number("height", shape.height, kExtent, Presence::required);
  reader.number("width", shape.width, kExtent, Presence::required);
  d.data_options.data_dir = text_at(json, "folder", "data.images");
  constexpr std::array kSplits = {"train", "test"};  // in the order of the enumeration
  reader.word("split", d.data_options.split, kSplits, Presence::required);
  reader.number("seed", d.data_options.seed, Presence::required);
  if (d.data_cols % shape.channels != 0 || d.data_cols / shape.channels % shape.height != 0 ||
      d.data_cols / shape.channels / shape.height != shape.width) {
    throw InvalidArgument("'data.images' are " + shape_text(shape) + ", 'data.columns' is " +
                          std::to_string(d.data_cols));
  }
}

std::string rows_text(const RunDescription& d) {
  return d.image ? "images of " + shape_text(*d.image) : "rows of numbers";
}

std::string columns_text(std::int64_t rows, std::int64_t cols) {
  return (rows == 0 ? "a density of " : std::to_string(rows) + " rows of ") + std::to_string(cols) + " columns";
}

}  // namespace

Json run_record(const RunDescription& d) {
  Json record = session_json(d.created);
  record["preset"] = d.preset;
  record["data"] = {{"name", d.data},          {"rows", d.data_rows},       {"columns", d.data_cols},
                    {"sha256", d.data_sha256}, {"minimum", d.data_minimum}, {"maximum", d.data_maximum}};
  if (d.image) record["data"]["images"] = images_json(*d.image, d.data_options);
  record["seed"] = d.settings.trainer.seed;
  record["config"] = parse_json(to_json(d.settings));
  record["resumed"] = Json::array();
  return record;
}

Json read_run_record(const fs::path& folder) {
  const fs::path path = folder / kRunRecordName;
  std::error_code error;
  if (fs::status(folder, error).type() == fs::file_type::not_found) {
    throw DataError("run folder " + path_in_quotes(folder) + " is absent; check the path");
  }
  if (fs::status(path, error).type() == fs::file_type::not_found) {
    throw DataError(path_in_quotes(folder) + " is no run folder: it has no " + std::string(kRunRecordName) +
                    "; check the path, or start a run with 'bracket train --out'");
  }
  const std::vector<std::byte> bytes = read_file(path);
  try {
    return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  } catch (const InvalidArgument& problem) {
    throw DataError(path_in_quotes(path) + " is damaged: " + problem.what() + "; restore it from a copy");
  }
}

RunDescription description_of(const Json& record, const fs::path& folder) {
  try {
    RunDescription d;
    JsonReader(record, "");  // throws unless it is an object
    d.created = session_of(record);
    d.preset = text_at(record, "preset", "");
    const Json& data = record.at("data");
    JsonReader reader(data, "data");
    d.data = text_at(data, "name", "data");
    reader.number("rows", d.data_rows, NumberRange::at_least(0), Presence::required);
    reader.number("columns", d.data_cols, NumberRange::at_least(1), Presence::required);
    d.data_sha256 = text_at(data, "sha256", "data");
    reader.number("minimum", d.data_minimum, NumberRange(), Presence::required);
    reader.number("maximum", d.data_maximum, NumberRange(), Presence::required);
    if (data.contains("images")) read_images(d, data["images"]);
    d.settings = run_settings_from_json(record.at("config").dump());
    if (!record.at("resumed").is_array()) throw InvalidArgument("'resumed' must be an array");
    return d;
  } catch (const Json::exception& problem) {
    const std::string what = problem.what();  // "[json.exception...] reason"
    const std::size_t tag = what.find("] ");
    throw DataError(path_in_quotes(folder / kRunRecordName) + " is not what Bracket writes: " +
                    (tag == std::string::npos ? what : what.substr(tag + 2)) + "; restore it from a copy");
  } catch (const InvalidArgument& problem) {
    throw DataError(path_in_quotes(folder / kRunRecordName) + " is not usable: " + problem.what());
  }
}

void write_run_record(const fs::path& folder, const Json& record) {
  const std::string text = json_text(record) + "\n";
  write_file_atomically(folder / kRunRecordName, std::as_bytes(std::span(text)));
}

void record_session(Json& record, const RunSession& session, std::int64_t first_step, std::int64_t total_steps) {
  Json entry = session_json(session);
  entry["after_step"] = first_step;
  entry["steps"] = total_steps;
  record["resumed"].push_back(entry);
  record["config"]["steps"] = total_steps;
}

void record_rollback(Json& record, const Diverged& problem, const RunSettings& settings) {
  if (!record.contains("rollbacks")) record["rollbacks"] = Json::array();
  record["rollbacks"].push_back({{"step", problem.step()},
                                 {"tensor", problem.tensor()},
                                 {"seed", settings.trainer.seed},
                                 {"energy_lr", settings.trainer.energy.optimizer.lr},
                                 {"generator_lr", settings.trainer.generator.optimizer.lr}});
  record["seed"] = settings.trainer.seed;
  record["config"] = parse_json(to_json(settings));
}

void describe_data(RunDescription& d, const Dataset& data) {
  d.data = data.name();
  d.data_rows = data.is_density() ? 0 : data.rows();
  d.data_cols = data.cols();
  if (data.is_density()) return;
  if (data.is_images()) {
    d.data_options = data.options();
    d.image = data.image();
    d.data_minimum = -1;
    d.data_maximum = 1;
    d.data_sha256 = sha256_hex(std::as_bytes(data.pixels()));
    return;
  }
  const auto [minimum, maximum] = std::minmax_element(data.values().begin(), data.values().end());
  d.data_minimum = *minimum;
  d.data_maximum = *maximum;
  d.data_sha256 = sha256_hex(std::as_bytes(data.values()));
}

RunDescription read_run_description(const fs::path& folder) { return description_of(read_run_record(folder), folder); }

void require_same_data(const RunDescription& d, const Dataset& data) {
  RunDescription present;
  describe_data(present, data);
  if (present.data_rows != d.data_rows || present.data_cols != d.data_cols) {
    throw DataError("data " + text_in_quotes(data.name()) + " holds " +
                    columns_text(present.data_rows, present.data_cols) + ", the run was trained on " +
                    columns_text(d.data_rows, d.data_cols) + "; give the data of the run");
  }
  if (present.image != d.image) {
    throw DataError("data " + text_in_quotes(data.name()) + " holds " + rows_text(present) +
                    ", the run was trained on " + rows_text(d) + "; give the data of the run");
  }
  if (present.data_sha256 != d.data_sha256) {
    throw DataError("data " + text_in_quotes(data.name()) +
                    " holds other values than the run was trained on (SHA-256 " + present.data_sha256.substr(0, 12) +
                    "..., expected " + d.data_sha256.substr(0, 12) + "...); restore the file or start a new run");
  }
}

}  // namespace bracket
