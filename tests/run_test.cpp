#include "bracket/run.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "bracket/error.h"
#include "host/files/npy.h"
#include "tests/run_fixture.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using TrainingRun = Run;  // Run alone would be a member of GoogleTest's base class

RunSession session(const std::string& revision = "abc") {
  return {"1.2.3", revision, "cpu", "a computer", {"embedder", "--x"}};
}

class RunTest : public RunFolderTest {
 protected:
  RunSettings settings_of(const SmallTraining& training) const {
    RunSettings settings;
    settings.trainer = training.config;
    settings.log_every = 10;
    settings.checkpoint_every = 20;
    settings.picture_every = 0;
    settings.keep_checkpoints = 2;
    return settings;
  }

  TrainingRun create(const std::string& name, const SmallTraining& training,
                     TrainingRun::Existing existing = TrainingRun::Existing::refuse) const {
    return TrainingRun::create(at(name), "vectors", settings_of(training), training.data, session(), existing);
  }

  void train_straight(const std::string& name) const {
    SmallTraining training;
    TrainingRun run = create(name, training);
    run.train(training.trainer, training.data, 60);
  }

  // metrics.jsonl without what depends on the clock.
  std::vector<json> metrics(const std::string& name) const {
    std::vector<json> lines;
    std::istringstream stream(content(at(name) / "metrics.jsonl"));
    for (std::string line; std::getline(stream, line);) {
      json object = json::parse(line);
      EXPECT_TRUE(object.contains("time_s") && object.contains("step_ms"));
      object.erase("time_s");
      object.erase("step_ms");
      lines.push_back(object);
    }
    return lines;
  }

  std::vector<std::string> checkpoints(const std::string& name) const {
    std::vector<std::string> result;
    for (const CheckpointEntry& entry : list_checkpoints(at(name) / "checkpoints")) {
      result.push_back(entry.folder.filename().string());
    }
    return result;
  }
};

TEST_F(RunTest, SettingsRoundTripAndRejectUnknownKeys) {
  RunSettings settings;
  settings.trainer = small_config(small_table());
  settings.log_every = 7;
  settings.checkpoint_every = 0;
  settings.picture_every = 11;
  settings.keep_checkpoints = 5;
  const std::string text = to_json(settings);
  const RunSettings back = run_settings_from_json(text);
  EXPECT_EQ(to_json(back), text);
  EXPECT_EQ(back.log_every, 7);
  EXPECT_EQ(back.checkpoint_every, 0);
  EXPECT_EQ(back.picture_every, 11);
  EXPECT_EQ(back.keep_checkpoints, 5);
  const auto with = [&](const char* key, const json& value) {
    json object = json::parse(text);
    object[key] = value;
    return object.dump();
  };
  expect_error<InvalidArgument>([&] { run_settings_from_json(with("log_every", 0)); }, {"log_every", "at least 1"});
  expect_error<InvalidArgument>([&] { run_settings_from_json(with("keep_checkpoints", 0)); }, {"keep_checkpoints"});
  expect_error<InvalidArgument>([&] { run_settings_from_json(with("picture_every", -1)); }, {"picture_every"});
  expect_error<InvalidArgument>([&] { run_settings_from_json(with("log_every", "often")); }, {"log_every", "number"});
  expect_error<InvalidArgument>([&] { run_settings_from_json(with("batch_sise", 3)); }, {"batch_sise", "batch_size"});
  expect_error<InvalidArgument>([&] { run_settings_from_json("[1]"); }, {"object"});
  expect_error<InvalidArgument>([&] { run_settings_from_json("{"); }, {"malformed"});
}

TEST_F(RunTest, LeavesEverythingThatIsPromised) {
  train_straight("run");
  const fs::path run = at("run");
  const json record = json::parse(content(run / "config.json"));
  EXPECT_EQ(record["version"], "1.2.3");
  EXPECT_EQ(record["revision"], "abc");
  EXPECT_EQ(record["device"], "cpu");
  EXPECT_EQ(record["device_description"], "a computer");
  EXPECT_EQ(record["seed"], 7);
  EXPECT_EQ(record["preset"], "vectors");
  EXPECT_EQ(record["command"], (json{"embedder", "--x"}));
  EXPECT_EQ(record["data"]["columns"], 3);
  EXPECT_EQ(record["config"]["batch_size"], 8);
  EXPECT_EQ(record["config"]["log_every"], 10);

  std::vector<std::int64_t> steps;
  for (const json& line : metrics("run")) {
    steps.push_back(line["step"]);
    std::set<std::string> keys;
    for (const auto& [key, value] : line.items()) keys.insert(key);
    EXPECT_EQ(keys, (std::set<std::string>{"step", "energy_data", "energy_samples", "log_volume", "lower_bound",
                                           "penalty", "loss_energy", "loss_generator", "grad_norm_energy",
                                           "grad_norm_generator", "penalty_weight", "half_variance"}));
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{10, 20, 30, 40, 50, 60}));
  EXPECT_EQ(checkpoints("run"), (std::vector<std::string>{"step_00000060", "step_00000040"}));
  const Table samples = read_npy(run / "samples" / "step_00000060.npy");
  EXPECT_EQ(samples.rows, 1000);
  EXPECT_EQ(samples.cols, 3);
  int event_files = 0;
  for (const auto& entry : fs::directory_iterator(run)) {
    event_files += entry.path().filename().string().find("tfevents") != std::string::npos;
  }
  EXPECT_EQ(event_files, 1);
  EXPECT_FALSE(fs::exists(run / "density"));  // three columns
}

TEST_F(RunTest, TwoDimensionalRunsDrawTheirDensity) {
  const Dataset data = Dataset::open("two_moons");
  RunSettings settings;
  settings.trainer = make_preset("calibrated-2d", data, 1);
  settings.trainer.total_steps = 4;
  settings.trainer.batch_size = 16;
  settings.picture_every = 2;
  Context context;
  Trainer trainer(context, settings.trainer, data);
  TrainingRun run =
      TrainingRun::create(at("run"), "calibrated-2d", settings, data, session(), TrainingRun::Existing::refuse);
  run.train(trainer, data, 4);
  for (const char* name : {"density/step_00000002.png", "density/step_00000004.png", "samples/step_00000004.npy"}) {
    EXPECT_GT(fs::file_size(at("run") / name), 1000u) << name;
  }
}

TEST_F(RunTest, RowsThatAreSquareImagesAreDrawn) {
  std::vector<double> values(40 * 16);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i * 7 % 17);
  const Dataset data = Dataset::from_rows(values, 40, 16);
  RunSettings settings;
  settings.trainer = small_config(data, 2);
  Context context;
  Trainer trainer(context, settings.trainer, data);
  TrainingRun run = TrainingRun::create(at("run"), "vectors", settings, data, session(), TrainingRun::Existing::refuse);
  run.train(trainer, data, 2);
  EXPECT_TRUE(fs::exists(at("run/samples/step_00000002.png")));
  const RunDescription description = read_run_description(at("run"));
  EXPECT_EQ(description.data_minimum, 0);
  EXPECT_EQ(description.data_maximum, 16);
}

TEST_F(RunTest, InterruptedAnywhereItEndsTheSame) {
  train_straight("straight");
  for (const std::int64_t stop : {1, 17, 20, 40, 59}) {
    const std::string name = "stopped_" + std::to_string(stop);
    {
      SmallTraining training;
      TrainingRun run = create(name, training);
      run.train(training.trainer, training.data, stop);
      EXPECT_EQ(training.trainer.step(), stop);
    }
    SmallTraining training;
    TrainingRun run = TrainingRun::open(at(name));
    EXPECT_TRUE(run.resume(training.trainer, training.data, session("def")).empty());
    EXPECT_EQ(training.trainer.step(), stop);
    run.train(training.trainer, training.data, 60);
    EXPECT_EQ(tree(at(name) / "checkpoints/step_00000060"), tree(at("straight/checkpoints/step_00000060"))) << stop;
    EXPECT_EQ(metrics(name), metrics("straight")) << stop;
    EXPECT_EQ(content(at(name) / "samples/step_00000060.npy"), content(at("straight/samples/step_00000060.npy")));
    const json record = json::parse(content(at(name) / "config.json"));
    ASSERT_EQ(record["resumed"].size(), 1u);
    EXPECT_EQ(record["resumed"][0]["after_step"], stop);
    EXPECT_EQ(record["resumed"][0]["revision"], "def");
  }
}

TEST_F(RunTest, ALogThatRanAheadIsCutBack) {
  train_straight("straight");
  train_straight("torn");
  fs::remove_all(at("torn/checkpoints/step_00000060"));
  std::string log = content(at("torn/metrics.jsonl"));
  put(at("torn/metrics.jsonl"), log.substr(0, log.size() - 9));  // as if cut by a power failure
  SmallTraining training;
  TrainingRun run = TrainingRun::open(at("torn"));
  run.resume(training.trainer, training.data, session());
  EXPECT_EQ(training.trainer.step(), 40);
  EXPECT_EQ(metrics("torn").size(), 4u);
  run.train(training.trainer, training.data, 60);
  EXPECT_EQ(metrics("torn"), metrics("straight"));
}

TEST_F(RunTest, StopsOnRequestWithACheckpoint) {
  SmallTraining training(1000000);
  TrainingRun run = create("run", training);
  std::int64_t seen = 0;
  RunObserver observer;
  observer.progress = [&](const RunProgress& progress) {
    seen = progress.step;
    EXPECT_EQ(progress.record.step, progress.step);
    EXPECT_EQ(progress.last_step, 1000000);
  };
  observer.stop_requested = [&] { return seen >= 3; };
  run.train(training.trainer, training.data, 1000000, observer);
  EXPECT_EQ(training.trainer.step(), seen);
  EXPECT_EQ(read_newest_checkpoint(at("run")).checkpoint->snapshot.step, seen);
}

TEST_F(RunTest, WithoutACheckpointItStartsAnew) {
  {
    SmallTraining training;
    create("run", training);
  }
  put(at("run/metrics.jsonl"), "{\"step\":10}\n");
  SmallTraining training;
  TrainingRun run = TrainingRun::open(at("run"));
  run.resume(training.trainer, training.data, session());
  EXPECT_EQ(training.trainer.step(), 0);
  EXPECT_EQ(content(at("run/metrics.jsonl")), "");
}

TEST_F(RunTest, DamagedCheckpointsArePassedOverAndNamed) {
  train_straight("run");
  flip(at("run/checkpoints/step_00000060/optimizer.safetensors"), 5000);
  NewestCheckpoint newest = read_newest_checkpoint(at("run"));
  EXPECT_EQ(newest.checkpoint->snapshot.step, 40);
  ASSERT_EQ(newest.refused.size(), 1u);
  EXPECT_NE(newest.refused[0].reason.find("optimizer.safetensors"), std::string::npos);
  {
    SmallTraining training;
    TrainingRun run = TrainingRun::open(at("run"));
    EXPECT_EQ(run.resume(training.trainer, training.data, session()).size(), 1u);
    run.train(training.trainer, training.data, 50);
  }
  // The damaged one lay ahead of the course that was taken up again.
  EXPECT_EQ(checkpoints("run"), (std::vector<std::string>{"step_00000050", "step_00000040"}));
  flip(at("run/checkpoints/step_00000050/state.json"), 10);
  flip(at("run/checkpoints/step_00000040/energy.safetensors"), 10);
  SmallTraining training;
  TrainingRun run = TrainingRun::open(at("run"));
  expect_error<CheckpointError>([&] { run.resume(training.trainer, training.data, session()); },
                                {"no valid checkpoint", "state.json", "1 older"});
}

TEST_F(RunTest, ACheckpointUnderAWrongNameIsRefused) {
  train_straight("run");
  fs::rename(at("run/checkpoints/step_00000060"), at("run/checkpoints/step_00000070"));
  const NewestCheckpoint newest = read_newest_checkpoint(at("run"));
  EXPECT_EQ(newest.checkpoint->snapshot.step, 40);
  ASSERT_EQ(newest.refused.size(), 1u);
  EXPECT_NE(newest.refused[0].reason.find("holds step 60"), std::string::npos);
}

TEST_F(RunTest, AnotherTotalOfStepsIsRecorded) {
  train_straight("run");
  SmallTraining longer(80);
  {
    TrainingRun run = TrainingRun::open(at("run"));
    run.resume(longer.trainer, longer.data, session());
    run.train(longer.trainer, longer.data, 80);
  }
  EXPECT_EQ(read_run_description(at("run")).settings.trainer.total_steps, 80);
  SmallTraining shorter(30);
  TrainingRun run = TrainingRun::open(at("run"));
  expect_error<InvalidArgument>([&] { run.resume(shorter.trainer, shorter.data, session()); }, {"80", "30"});
}

TEST_F(RunTest, AnExtendedRunHasTheLinesOfAStraightOne) {
  const auto train = [&](const std::string& name, std::int64_t total_steps) {
    TrainerConfig config = small_config(small_table(), total_steps);
    config.schedule = {.cosine = false, .warmup_steps = 0, .final_fraction = 1};  // the total changes no step
    SmallTraining training(config);
    const bool begun = fs::exists(at(name));
    TrainingRun run = begun ? TrainingRun::open(at(name)) : create(name, training);
    if (begun) run.resume(training.trainer, training.data, session());
    run.train(training.trainer, training.data, total_steps);
  };
  train("straight", 60);
  for (const std::int64_t total_steps : {25, 37, 40, 60}) {
    train("extended", total_steps);
    const json last = metrics("extended").back();
    EXPECT_EQ(last["step"], total_steps);
    train("extended", total_steps);  // complete: its last line stays
    EXPECT_EQ(metrics("extended").back(), last);
  }
  EXPECT_EQ(metrics("extended"), metrics("straight"));
  EXPECT_EQ(tree(at("extended/checkpoints/step_00000060")), tree(at("straight/checkpoints/step_00000060")));
}

TEST_F(RunTest, RecordsWithoutADeviceDescriptionAreRead) {
  train_straight("run");
  json record = json::parse(content(at("run/config.json")));
  record.erase("device_description");
  put(at("run/config.json"), record.dump());
  EXPECT_EQ(read_run_description(at("run")).created.device_description, "");
  EXPECT_EQ(read_run_description(at("run")).created.device, "cpu");
}

TEST_F(RunTest, OtherDataIsRefused) {
  train_straight("run");
  const RunDescription description = read_run_description(at("run"));
  require_same_data(description, small_table());
  expect_error<DataError>([&] { require_same_data(description, small_table(2)); }, {"other values"});
  expect_error<DataError>([&] { require_same_data(description, Dataset::open("rings")); }, {"2 columns", "40 rows"});
}

TEST_F(RunTest, NothingIsOverwrittenUnasked) {
  train_straight("run");
  const auto before = tree(at("run"));
  SmallTraining training;
  expect_error<InvalidArgument>([&] { create("run", training); }, {"exists", "--resume", "--force"});
  EXPECT_EQ(tree(at("run")), before);

  put(at("run/notes.txt"), "mine");
  { TrainingRun run = create("run", training, TrainingRun::Existing::replace); }
  EXPECT_EQ(content(at("run/notes.txt")), "mine");
  EXPECT_FALSE(fs::exists(at("run/metrics.jsonl")));
  EXPECT_FALSE(fs::exists(at("run/checkpoints")));

  fs::create_directory(at("other"));
  put(at("other/samples"), "of blood");
  for (const TrainingRun::Existing existing : {TrainingRun::Existing::refuse, TrainingRun::Existing::replace}) {
    expect_error<InvalidArgument>([&] { create("other", training, existing); }, {"no run folder", "samples"});
  }
  fs::create_directory(at("empty"));
  create("empty", training);
  put(at("file"), "x");
  expect_error<DataError>([&] { create("file", training); }, {"a file of this name exists"});
}

TEST_F(RunTest, OneHolderAtATime) {
  SmallTraining training;
  TrainingRun run = create("run", training);
  expect_error<DataError>([&] { TrainingRun::open(at("run")); }, {"in use"});
  expect_error<DataError>([&] { create("run", training, TrainingRun::Existing::replace); }, {"in use"});
}

TEST_F(RunTest, FoldersThatAreNoRunsAreNamed) {
  expect_error<DataError>([&] { TrainingRun::open(at("nowhere")); }, {"nowhere", "absent"});
  expect_error<DataError>([&] { TrainingRun::open(folder_); }, {"no run folder"});
  EXPECT_TRUE(names().empty());  // not even a lock file
  train_straight("run");
  const std::string record = content(at("run/config.json"));
  for (const std::string& text :
       {std::string("{"), std::string("[]"), std::string("{\"version\": 3}"), record.substr(0, record.size() / 2)}) {
    put(at("run/config.json"), text);
    expect_error<DataError>([&] { read_run_description(at("run")); }, {"config.json"});
  }
}

TEST_F(RunTest, ADivergedRunLeavesNoCheckpointBehind) {
  TrainerConfig config = small_config(small_table());
  config.energy.optimizer.lr = 1e30;
  SmallTraining training(config);
  TrainingRun run = create("run", training);
  expect_error<Diverged>([&] { run.train(training.trainer, training.data, 60); }, {"step", "non-finite"});
  EXPECT_TRUE(checkpoints("run").empty());
}

}  // namespace
}  // namespace bracket
