#include "bracket/preset.h"
#include "bracket/run.h"
#include "host/config/json_reader.h"
#include "host/config/json_text.h"

namespace bracket {
namespace {

// The keys beside those of TrainerConfig, for reading and for writing.
struct IntervalKey {
  const char* name;
  std::int64_t RunSettings::*value;
  double lowest;
};
constexpr IntervalKey kIntervalKeys[] = {{"log_every", &RunSettings::log_every, 1},
                                         {"checkpoint_every", &RunSettings::checkpoint_every, 0},
                                         {"picture_every", &RunSettings::picture_every, 0},
                                         {"keep_checkpoints", &RunSettings::keep_checkpoints, 1}};

}  // namespace

std::string to_json(const RunSettings& settings) {
  Json json = parse_json(to_json(settings.trainer));
  for (const IntervalKey& key : kIntervalKeys) json[key.name] = settings.*key.value;
  return json_text(json);
}

RunSettings run_settings_from_json(const std::string& text) {
  RunSettings settings;
  Json json = parse_json(text);
  if (!json.is_object()) JsonReader(json, "");
  Json intervals = Json::object();
  for (const IntervalKey& key : kIntervalKeys) {
    if (!json.contains(key.name)) continue;
    intervals[key.name] = json[key.name];
    json.erase(key.name);
  }
  JsonReader reader(intervals, "");
  for (const IntervalKey& key : kIntervalKeys) {
    reader.number(key.name, settings.*key.value, NumberRange::at_least(key.lowest));
  }
  settings.trainer = trainer_config_from_json(json.dump());
  return settings;
}

}  // namespace bracket
