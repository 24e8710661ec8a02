// Run folders: what a training leaves on disk, and how it goes on after an interruption.
//
// RUN/config.json                 settings, preset, data, version, revision, seed, device, command, later sessions
//     metrics.jsonl               one line per logged step, and one per rollback ("rollback_from_step")
//     events.out.tfevents.*       the same for TensorBoard, one file per session
//     bounds/step_XXXXXXXX.png    the lower bound over the steps
//     density/step_XXXXXXXX.png   two-dimensional data only
//     samples/step_XXXXXXXX.npy   and .png where a row is an image, or a square gray one of 4 x 4 pixels or more
//     checkpoints/step_XXXXXXXX/  bracket/checkpoint.h
//     .lock                       held while a process trains the run
//
// Nothing here prints, installs signal handlers or reads the environment.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bracket/checkpoint.h"
#include "bracket/dataset.h"
#include "bracket/error.h"
#include "bracket/trainer.h"

namespace bracket {

/// What a configuration file can say about a run. A step is counted when it is done, so an interval of 100 acts after
/// steps 100, 200, ...; the last step of a run is always logged, saved and drawn.
struct RunSettings {
  TrainerConfig trainer;
  std::int64_t log_every = 100;
  std::int64_t checkpoint_every = 1000;  ///< 0: at the end only
  std::int64_t picture_every = 5000;     ///< densities and samples; 0: at the end only
  std::int64_t keep_checkpoints = 3;
};

/// The keys of TrainerConfig's JSON and the four above, side by side in one object.
std::string to_json(const RunSettings& settings);
/// Throws InvalidArgument for malformed JSON, an unknown key (with the nearest) or a bad value. Absent keys keep their
/// defaults.
RunSettings run_settings_from_json(const std::string& text);

/// Who trains: recorded in config.json for every session of a run.
struct RunSession {
  std::string version;
  std::string revision;
  std::string device;              ///< Device::name()
  std::string device_description;  ///< device_description(); empty where a record has none
  std::vector<std::string> command;
};

/// The content of config.json.
struct RunDescription {
  std::string preset;               ///< where the settings started from, for the reader
  std::string data;                 ///< name of a data set or path of a file or folder
  DatasetOptions data_options;      ///< of an image set: how it was found
  std::optional<ImageShape> image;  ///< of an image set
  std::int64_t data_rows = 0;
  std::int64_t data_cols = 0;
  std::string data_sha256;  ///< of a table's values or of pixels; empty for a density
  double data_minimum = 0;  ///< of a table's values, -1 for images: the range of gray in sample pictures
  double data_maximum = 1;
  RunSettings settings;
  RunSession created;
};

/// Throws DataError when `folder` is no run or its config.json is damaged.
RunDescription read_run_description(const std::filesystem::path& folder);

/// Throws DataError when `data` is not what the run was trained on: other columns, rows or values.
void require_same_data(const RunDescription& description, const Dataset& data);

struct RefusedCheckpoint {
  std::filesystem::path folder;
  std::string reason;
};

struct NewestCheckpoint {
  std::optional<Checkpoint> checkpoint;  ///< absent when the run has no checkpoint at all
  std::filesystem::path folder;
  std::vector<RefusedCheckpoint> refused;  ///< newer ones that are damaged
};

/// The newest checkpoint of a run that is valid. Throws CheckpointError when there are some and none is.
NewestCheckpoint read_newest_checkpoint(const std::filesystem::path& run_folder);

/// What `Run::train` tells after every slice of steps.
struct RunProgress {
  std::int64_t step = 0;
  std::int64_t last_step = 0;
  StepRecord record;  ///< of `step`
  bool logged = false;
};

struct RunObserver {
  std::function<bool()> stop_requested;              ///< asked between slices of about 50 ms; may be empty
  std::function<void(const RunProgress&)> progress;  ///< may be empty
};

/// A run folder open for training. One process at a time holds a folder; a second one gets a DataError.
class Run {
 public:
  enum class Existing : std::uint8_t { refuse, replace };

  /// Throws InvalidArgument when `folder` holds a run and `existing` is refuse, or when it holds anything else (which
  /// is never removed); DataError when the disk refuses.
  static Run create(const std::filesystem::path& folder, const std::string& preset, const RunSettings& settings,
                    const Dataset& data, const RunSession& session, Existing existing);
  /// Opens a run to resume it. Throws DataError as read_run_description does.
  static Run open(const std::filesystem::path& folder);
  /// The InvalidArgument that `create` would throw now, before anything costly is done; writes nothing.
  static void require_creatable(const std::filesystem::path& folder, Existing existing);
  ~Run();
  Run(Run&&) noexcept;
  Run& operator=(Run&&) noexcept;

  const std::filesystem::path& folder() const noexcept;
  const RunDescription& description() const noexcept;

  /// Brings a fresh trainer, made from the settings of this run, to where the newest valid checkpoint stands (step 0
  /// when there is none), cuts metrics.jsonl back to there and records the session; a total of steps other than that of
  /// the settings is recorded, too, and the line of a former last step goes where `log_every` does not ask for it, so
  /// that an extended run has the lines of a straight one. Returns the refused checkpoints. Throws CheckpointError and
  /// DataError as above.
  std::vector<RefusedCheckpoint> resume(Trainer& trainer, const Dataset& data, const RunSession& session);

  /// Trains until `last_step` steps or the configured total are done, or a stop is requested, and leaves a checkpoint
  /// of the step that was reached. Log lines, checkpoints and so on depend on the step alone, so interruptions leave no
  /// trace but in time_s and step_ms. Throws Diverged (no checkpoint holds the non-finite value) and DataError (the
  /// last checkpoint stays intact).
  void train(Trainer& trainer, const Dataset& data, std::int64_t last_step, const RunObserver& observer = {});

  /// After `train` threw `problem`: the settings to go on with, those of this run with the next seed and half the
  /// learning rates, recorded in config.json ("config", and the event under "rollbacks"). Make a trainer of them and
  /// `resume` it; `train` then begins with a line of metrics.jsonl that says where it came from and what changed. What
  /// follows is another run than an uninterrupted one. Throws DataError when the disk refuses.
  TrainerConfig roll_back(const Diverged& problem);

 private:
  struct Impl;
  explicit Run(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bracket
