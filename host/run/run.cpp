#include "bracket/run.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <system_error>
#include <utility>

#include "bracket/error.h"
#include "host/data/pixel_values.h"
#include "host/files/atomic_file.h"
#include "host/files/event_file.h"
#include "host/files/in_quotes.h"
#include "host/files/json_lines.h"
#include "host/files/npy.h"
#include "host/files/run_lock.h"
#include "host/run/checkpoint_files.h"
#include "host/run/run_pictures.h"
#include "host/run/run_record.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kMetricsName = "metrics.jsonl";
constexpr const char* kLockName = ".lock";
constexpr std::array<const char*, 4> kRunFolders = {"bounds", "density", "samples", "checkpoints"};
constexpr std::string_view kEventPrefix = "events.out.tfevents.";
// Long enough that the host's work between slices does not show, short enough to stop at once for a person.
constexpr double kSliceSeconds = 0.05;
constexpr double kRollbackRate = 0.5;  // what a rollback multiplies both learning rates by
constexpr std::int64_t kSampleRows = 1000;
constexpr std::int64_t kSampleImages = 64;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool is_temporary(const std::string& name) { return name.starts_with(".bracket-") && name.ends_with(".tmp"); }

// What is left of a run that ended before its config.json was written; nothing to lose.
bool is_scaffolding(const std::string& name) { return name == kLockName || is_temporary(name); }

bool is_part_of_run(const std::string& name) {
  return is_scaffolding(name) || name == kRunRecordName || name == kMetricsName || name.starts_with(kEventPrefix) ||
         std::find(kRunFolders.begin(), kRunFolders.end(), name) != kRunFolders.end();
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    names.push_back(entries->path().filename().string());
  }
  if (error) throw_file_error("list", folder, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

// A run's own files only: `--force` on the wrong folder must not cost anything else.
void remove_run(const fs::path& folder) {
  // config.json last, so that an interrupted removal is still recognised as a run.
  for (const std::string& name : names_in(folder)) {
    if (!is_part_of_run(name) || name == kLockName || name == kRunRecordName) continue;
    std::error_code error;
    fs::remove_all(folder / name, error);
    if (error) throw_file_error("remove", folder / name, error.value());
  }
  std::error_code error;
  fs::remove(folder / kRunRecordName, error);
  if (error) throw_file_error("remove", folder / kRunRecordName, error.value());
}

// time_s of the last line, so that a resumed run goes on counting.
double last_time(const fs::path& metrics) {
  std::error_code error;
  if (!fs::exists(metrics, error)) return 0;
  const std::vector<std::byte> bytes = read_file(metrics);
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (text.ends_with('\n')) text.remove_suffix(1);
  const std::size_t newline = text.find_last_of('\n');
  if (newline != std::string_view::npos) text.remove_prefix(newline + 1);
  const Json line = Json::parse(text, nullptr, false);
  if (!line.is_object()) return 0;
  const Json time = line.value("time_s", Json());
  return time.is_number() ? time.get<double>() : 0;
}

std::vector<NamedValue> metrics_of(const StepRecord& r, double time_s, double step_ms) {
  return {{"time_s", time_s},
          {"energy_data", r.energy_data},
          {"energy_samples", r.energy_samples},
          {"log_volume", r.log_volume},
          {"lower_bound", r.lower_bound},
          {"penalty", r.penalty},
          {"loss_energy", r.loss_energy},
          {"loss_generator", r.loss_generator},
          {"grad_norm_energy", r.grad_norm_energy},
          {"grad_norm_generator", r.grad_norm_generator},
          {"step_ms", step_ms},
          {"penalty_weight", r.penalty_weight},
          {"half_variance", r.half_variance}};
}

// The first step above `step` that is a multiple of `interval` (0: none), at most `limit`.
std::int64_t next_multiple(std::int64_t step, std::int64_t interval, std::int64_t limit) {
  if (interval == 0) return limit;
  return step + std::min(limit - step, interval - step % interval);
}

bool due(std::int64_t step, std::int64_t interval) { return interval > 0 && step % interval == 0; }

bool is_logged(std::int64_t step, std::int64_t log_every, std::int64_t total_steps) {
  return due(step, log_every) || step == total_steps;
}

}  // namespace

struct Run::Impl {
  // A line of metrics.jsonl about a rollback.
  struct Rollback {
    std::vector<NamedValue> values;
    std::int64_t to_step = -1;  // known once a trainer has been resumed
    bool written = false;
  };

  explicit Impl(const fs::path& path) : folder(path), lock(path) {}

  void log(const StepRecord& step, double step_ms) {
    const std::vector<NamedValue> values = metrics_of(step, time_offset + seconds_since(session_start), step_ms);
    metrics->append(metrics_line(step.step, values));
    events->add_scalars(step.step, values);
  }

  void checkpoint(Trainer& trainer) {
    // Nothing that a checkpoint covers may be missing from the log after a power cut.
    metrics->sync();
    events->sync();
    const fs::path parent = folder / "checkpoints";
    save_checkpoint(checkpoint_folder(parent, trainer.step()), trainer);
    rotate_checkpoints(parent, trainer.step(), description.settings.keep_checkpoints);
    saved_step = trainer.step();
  }

  std::vector<StepRecord> advance(Trainer& trainer, std::int64_t steps) {
    try {
      trainer.run(steps);
      return trainer.reports();
    } catch (const Diverged& problem) {
      const std::string remedy =
          saved_step < 0 ? "the run has no checkpoint yet. Train anew with a lower learning rate or another seed"
                         : "the newest checkpoint is of step " + std::to_string(saved_step) +
                               ". Go on from it with 'bracket train --resume RUN --on-divergence rollback'";
      throw Diverged("non-finite " + problem.tensor() + " in step " + std::to_string(problem.step()) +
                         "; this update was not applied, and " + remedy,
                     problem.tensor(), problem.step());
    }
  }

  void draw(Trainer& trainer, const Dataset& data) {
    const std::int64_t step = trainer.step();
    const std::string stem = checkpoint_folder("", step).filename().string();
    write_samples(trainer, stem);
    write_png("bounds", step, [&] { return lower_bound_picture(folder / kMetricsName, trainer.generator_network()); });
    if (data.cols() == 2) write_png("density", step, [&] { return density_picture(trainer, data); });
  }

  // Of images as many as the picture shows, as pixels; each comes from a large network.
  void write_samples(Trainer& trainer, const std::string& stem) {
    const std::int64_t cols = description.data_cols;
    const std::int64_t count = description.image ? kSampleImages : kSampleRows;
    const std::vector<double> rows = trainer.samples(count, trainer.config().seed);
    if (const auto bytes = sample_file(rows, count, trainer.config().dtype)) {
      create_folders(folder / "samples");
      write_file_atomically(folder / "samples" / (stem + ".npy"), *bytes);
    }
    if (const auto image = drawable_image(description)) {
      write_png("samples", trainer.step(), [&] {
        return sample_picture(std::span(rows).first(static_cast<std::size_t>(kSampleImages * cols)), kSampleImages,
                              *image, description.data_minimum, description.data_maximum);
      });
    }
  }

  std::optional<std::vector<std::byte>> sample_file(const std::vector<double>& rows, std::int64_t count, DType dtype) {
    if (description.image) {
      const ImageShape& image = *description.image;
      const std::array shape = {count, image.height, image.width, image.channels};
      try {
        return serialize_npy(pixels_of_values(rows, image.size()), shape);
      } catch (const Diverged&) {  // NaN has no pixel; the picture shows where it is
        return std::nullopt;
      }
    }
    const std::array shape = {count, description.data_cols};
    if (dtype == DType::f32) return serialize_npy(std::vector<float>(rows.begin(), rows.end()), shape);
    return serialize_npy(rows, shape);
  }

  // A training does not end for a picture that cannot be drawn; a disk that refuses is another matter.
  template <class DrawT>
  void write_png(const char* kind, std::int64_t step, const DrawT& draw_image) {
    std::optional<Image> image;
    try {
      image = draw_image();
    } catch (const InvalidArgument&) {  // data that no axis can show
      return;
    } catch (const Diverged&) {  // a model without a density
      return;
    }
    const std::vector<std::byte> png = encode_png(*image);
    create_folders(folder / kind);
    write_file_atomically(picture_path(folder, kind, step), png);
    events->add_png(step, kind, png);
  }

  fs::path folder;
  RunLock lock;
  Json record;
  RunDescription description;
  std::optional<JsonLinesFile> metrics;
  std::optional<EventFile> events;
  std::int64_t saved_step = -1;     // of the newest checkpoint on disk
  std::vector<Rollback> rollbacks;  // of this session
  double time_offset = 0;
  Clock::time_point session_start;
};

Run::Run(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Run::~Run() = default;
Run::Run(Run&&) noexcept = default;
Run& Run::operator=(Run&&) noexcept = default;

const fs::path& Run::folder() const noexcept { return impl_->folder; }
const RunDescription& Run::description() const noexcept { return impl_->description; }

void Run::require_creatable(const fs::path& folder, Existing existing) {
  std::error_code error;
  const fs::file_type type = fs::status(folder, error).type();
  if (type == fs::file_type::not_found) return;
  if (type != fs::file_type::directory) {
    throw DataError("cannot create run folder " + path_in_quotes(folder) +
                    ": a file of this name exists; choose another");
  }
  const std::vector<std::string> names = names_in(folder);
  if (std::all_of(names.begin(), names.end(), is_scaffolding)) return;
  if (!std::binary_search(names.begin(), names.end(), std::string(kRunRecordName))) {
    throw InvalidArgument(path_in_quotes(folder) + " exists and is no run folder (it holds " +
                          text_in_quotes(names.back()) + " and no config.json); choose another folder");
  }
  if (existing == Existing::refuse) {
    throw InvalidArgument("run folder " + path_in_quotes(folder) +
                          " exists; resume it with --resume, replace it with --force, or choose another folder");
  }
}

Run Run::create(const fs::path& folder, const std::string& preset, const RunSettings& settings, const Dataset& data,
                const RunSession& session, Existing existing) {
  require_creatable(folder, existing);
  create_folders(folder);
  auto impl = std::make_unique<Impl>(folder);
  require_creatable(folder, existing);  // now nobody else can create it
  remove_run(folder);
  RunDescription& description = impl->description;
  description.preset = preset;
  describe_data(description, data);
  description.settings = settings;
  description.created = session;
  impl->record = run_record(description);
  write_run_record(folder, impl->record);
  return Run(std::move(impl));
}

Run Run::open(const fs::path& folder) {
  read_run_record(folder);  // before the lock file is made in a folder that is no run
  auto impl = std::make_unique<Impl>(folder);
  impl->record = read_run_record(folder);
  impl->description = description_of(impl->record, folder);
  remove_leftover_temporaries(folder);
  for (const char* name : kRunFolders) {
    std::error_code error;
    if (fs::is_directory(folder / name, error)) remove_leftover_temporaries(folder / name);
  }
  return Run(std::move(impl));
}

NewestCheckpoint read_newest_checkpoint(const fs::path& run_folder) {
  NewestCheckpoint newest;
  for (const CheckpointEntry& entry : list_checkpoints(run_folder / "checkpoints")) {
    try {
      newest.checkpoint = read_checkpoint(entry.folder);
      if (newest.checkpoint->snapshot.step != entry.step) {
        throw CheckpointError(path_in_quotes(entry.folder) + " holds step " +
                              std::to_string(newest.checkpoint->snapshot.step) + ", not that of its name");
      }
      newest.folder = entry.folder;
      return newest;
    } catch (const CheckpointError& error) {
      newest.checkpoint.reset();
      newest.refused.push_back({entry.folder, error.what()});
    }
  }
  if (!newest.refused.empty()) {
    throw CheckpointError(
        "run " + path_in_quotes(run_folder) + " has no valid checkpoint: " + newest.refused.front().reason +
        (newest.refused.size() > 1 ? " (and " + std::to_string(newest.refused.size() - 1) + " older damaged ones)"
                                   : "") +
        "; restore one from a copy, or train anew with --force");
  }
  return newest;
}

std::vector<RefusedCheckpoint> Run::resume(Trainer& trainer, const Dataset& data, const RunSession& session) {
  Impl& run = *impl_;
  require_same_data(run.description, data);
  NewestCheckpoint newest = read_newest_checkpoint(run.folder);
  if (newest.checkpoint) {
    restore_checkpoint(trainer, *newest.checkpoint);
    run.saved_step = trainer.step();
  }
  const std::int64_t total_steps = trainer.config().total_steps;
  if (total_steps < trainer.step()) {
    throw InvalidArgument("the run has done " + std::to_string(trainer.step()) + " steps, more than the " +
                          std::to_string(total_steps) + " wanted in total; give a larger number of steps");
  }
  record_session(run.record, session, trainer.step(), total_steps);
  run.description.settings.trainer.total_steps = total_steps;
  write_run_record(run.folder, run.record);
  // The record first: were the session lost, the line of the last step that it drops would be missing.
  const bool logged = is_logged(trainer.step(), run.description.settings.log_every, total_steps);
  cut_json_lines(run.folder / kMetricsName, logged ? trainer.step() : trainer.step() - 1);
  std::erase_if(run.rollbacks, [&](const auto& r) { return r.to_step > trainer.step(); });
  for (auto& rollback : run.rollbacks) {
    if (rollback.to_step < 0) rollback.to_step = trainer.step();
    if (rollback.to_step == trainer.step() && !logged) rollback.written = false;  // its line has been cut
  }
  run.time_offset = last_time(run.folder / kMetricsName);
  return std::move(newest.refused);
}

void Run::train(Trainer& trainer, const Dataset& data, std::int64_t last_step, const RunObserver& observer) {
  Impl& run = *impl_;
  const RunSettings& settings = run.description.settings;
  const std::int64_t total_steps = trainer.config().total_steps;
  const std::int64_t end = std::min(last_step, total_steps);
  run.metrics.emplace(run.folder / kMetricsName);
  run.events.emplace(run.folder, trainer.step() == 0 ? 0 : trainer.step() + 1);
  run.session_start = Clock::now();
  for (auto& rollback : run.rollbacks) {
    if (rollback.written) continue;
    std::vector<NamedValue> values = {{"time_s", run.time_offset}};
    values.insert(values.end(), rollback.values.begin(), rollback.values.end());
    run.metrics->append(metrics_line(trainer.step(), values));
    run.events->add_scalars(trainer.step(), rollback.values);
    rollback.written = true;
  }

  double busy_seconds = 0;  // training alone, since the last logged step
  std::int64_t busy_steps = 0;
  std::int64_t slice = 1;
  while (trainer.step() < end && !(observer.stop_requested && observer.stop_requested())) {
    // A slice ends wherever something is due, so that what is written depends on the step alone.
    std::int64_t steps = end - trainer.step();
    for (const std::int64_t interval : {settings.log_every, settings.checkpoint_every, settings.picture_every}) {
      steps = std::min(steps, next_multiple(trainer.step(), interval, end) - trainer.step());
    }
    steps = std::min(steps, slice);
    const Clock::time_point start = Clock::now();
    const std::vector<StepRecord> records = run.advance(trainer, steps);
    const double seconds = seconds_since(start);
    busy_seconds += seconds;
    busy_steps += steps;
    slice = std::clamp(static_cast<std::int64_t>(kSliceSeconds / std::max(seconds, 1e-9) * static_cast<double>(steps)),
                       std::int64_t{1}, 2 * slice);

    const std::int64_t step = trainer.step();
    const bool logged = is_logged(step, settings.log_every, total_steps);
    if (logged) {
      run.log(records.back(), 1e3 * std::exchange(busy_seconds, 0.0) / static_cast<double>(busy_steps));
      busy_steps = 0;
    }
    if (due(step, settings.checkpoint_every)) run.checkpoint(trainer);
    if (due(step, settings.picture_every) && step != total_steps) run.draw(trainer, data);
    if (observer.progress) observer.progress({step, end, records.back(), logged});
  }
  if (trainer.step() != run.saved_step) run.checkpoint(trainer);
  if (trainer.step() == total_steps) run.draw(trainer, data);
  run.metrics->sync();
  run.events->sync();
  run.time_offset += seconds_since(run.session_start);
}

TrainerConfig Run::roll_back(const Diverged& problem) {
  Impl& run = *impl_;
  run.metrics.reset();  // resume() cuts the file
  run.events.reset();
  TrainerConfig& config = run.description.settings.trainer;
  ++config.seed;
  config.energy.optimizer.lr *= kRollbackRate;
  config.generator.optimizer.lr *= kRollbackRate;
  record_rollback(run.record, problem, run.description.settings);
  write_run_record(run.folder, run.record);
  run.rollbacks.push_back({{{"rollback_from_step", static_cast<double>(problem.step())},
                            {"seed", static_cast<double>(config.seed)},
                            {"energy_lr", config.energy.optimizer.lr},
                            {"generator_lr", config.generator.optimizer.lr}}});
  return config;
}

}  // namespace bracket
