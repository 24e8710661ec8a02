// config.json of a run folder: written when a run is created, extended when it is resumed.
#pragma once

#include <cstdint>
#include <filesystem>

#include "bracket/run.h"
#include "host/config/json_text.h"

namespace bracket {

inline constexpr const char* kRunRecordName = "config.json";

Json run_record(const RunDescription& description);

/// Throws DataError when the file is absent or damaged.
Json read_run_record(const std::filesystem::path& folder);
RunDescription description_of(const Json& record, const std::filesystem::path& folder);

/// Replaces the file atomically.
void write_run_record(const std::filesystem::path& folder, const Json& record);

/// Notes that `session` goes on after `first_step` with a schedule of `total_steps`.
void record_session(Json& record, const RunSession& session, std::int64_t first_step, std::int64_t total_steps);

/// Notes that a step diverged and that training goes on from an earlier checkpoint with `settings`.
void record_rollback(Json& record, const Diverged& problem, const RunSettings& settings);

/// The part of a description that the data determines.
void describe_data(RunDescription& description, const Dataset& data);

}  // namespace bracket
