// Training: alternating updates of an energy network and a generator between the two bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bracket/dataset.h"
#include "bracket/device.h"
#include "bracket/entropy.h"
#include "bracket/metrics.h"
#include "bracket/network.h"

namespace bracket {

/// Adam on one network (Kingma & Ba 2015; decoupled weight decay as in AdamW).
struct OptimizerConfig {
  double lr = 3e-3;
  double beta1 = 0.5;
  double beta2 = 0.99;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double clip_norm = 0;  ///< limit of the gradient's 2-norm; 0: no clipping
};

struct PlayerConfig {
  NetworkSpec network;
  OptimizerConfig optimizer;
  NetworkExecution execution = {};  ///< the calling program's choice; files of configurations do not hold it
  /// How the network multiplies on a GPU, in f32; absent: as the context says. On a CPU and in f64 it has no effect: a
  /// run that asks for less than fp32 is one in the precision of its operands there.
  NetworkMath math = {};
};

/// The penalty term max(0, w P - threshold) of the energy update.
struct PenaltyConfig {
  enum class Kind : std::uint8_t {
    bidirectional,  ///< P = 1/2 mean (grad E . J v - s . v)^2 on generated points, one Gaussian probe v each
    zero_gp,        ///< P = mean |grad E|^2 on data (the EBM-0GP baseline)
  };
  enum class Rule : std::uint8_t {
    constant,    ///< w = weight
    power,       ///< w = weight (offset + t)^exponent, t = 0, 1, ...
    controller,  ///< trust region: w follows 1/2 Var(phi) towards `target`
  };
  Kind kind = Kind::bidirectional;
  Rule rule = Rule::constant;
  double weight = 0.02;  ///< w, or where the controller starts
  double threshold = 0;  ///< tau
  double offset = 0;
  double exponent = 0;
  double target = 0.6;  ///< controller: nats
  double minimum = 0.003;
  double maximum = 2;
  double gain = 0.005;
  double decay = 0.98;
  std::int64_t delay = 50;  ///< controller: steps before w moves
};

struct ScheduleConfig {
  bool cosine = true;
  std::int64_t warmup_steps = 200;
  double final_fraction = 0.02;
};

/// How batches are made of a data set.
struct DataConfig {
  bool flip = false;        ///< images: mirrored left to right with probability 1/2
  bool dequantise = false;  ///< images: pixel p becomes uniform within half a level of 2 p / 255 - 1
  /// A table that takes more than this on the device stays on the host, and the rows of each step are uploaded before
  /// it: the same bits for less memory. 0: no limit.
  std::int64_t device_bytes = 0;
};

struct TrainerConfig {
  PlayerConfig energy;     ///< scalar output
  PlayerConfig generator;  ///< d latent inputs; as many outputs as the energy has inputs
  PenaltyConfig penalty;
  ScheduleConfig schedule;
  DataConfig data;
  EntropyConfig entropy;
  /// lambda, of the generator update alone: it descends mean E - lambda mean h. Bounds and penalty are those of the
  /// density exp(-E) whatever it is; below 1 the generator settles nearer the minima of E than that density does.
  double entropy_weight = 1;
  /// The generator update takes z and log-volume of its entropy term from the last energy update of the step (fakes
  /// still come from a fresh z): one estimate per step less, correlated with what the energy just learnt.
  bool entropy_reuse = false;
  double ema_decay = 0.999;  ///< of the averaged weights
  std::int64_t batch_size = 128;
  std::int64_t energy_steps = 1;     ///< energy updates per generator update
  std::int64_t total_steps = 20000;  ///< the schedule's length
  std::uint64_t seed = 0;
  DType dtype = DType::f32;
};

/// One tensor of a snapshot, host memory, row-major.
struct SnapshotTensor {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;
};
using SnapshotTensors = std::map<std::string, SnapshotTensor>;

/// Everything a run needs to go on with the same bits. Tensor names, shapes and element orders are PyTorch's
/// ("layers.0.weight"); optimizer entries are "energy.<name>.first_moment" and so on.
struct TrainerSnapshot {
  SnapshotTensors energy, generator, energy_average, generator_average, optimizer;
  std::int64_t step = 0;
  std::int64_t energy_updates = 0;
  std::int64_t generator_updates = 0;
  double penalty_weight = 0;
  double gap_average = 0;
};

enum class Weights : std::uint8_t { raw, average };

/// Device memory of a training run, in bytes.
struct MemoryPlan {
  std::int64_t step = 0;      ///< activations and adjoints: the peak of one step
  std::int64_t state = 0;     ///< parameters, averages, gradients, moments, reports
  std::int64_t data = 0;      ///< the table of data
  std::int64_t reserved = 0;  ///< what the pool takes for the three, in whole blocks
};

/// Part of a training step; parts of the same name are added up.
struct PhaseTime {
  std::string name;
  double milliseconds = 0;
};

/// How steps reach a device: kernel by kernel, or as they were recorded (ContextOptions::graphs and one_kernel).
enum class StepForm : std::uint8_t { launches, graph, one_kernel };

class Trainer {
 public:
  /// Plans all memory, builds both networks and uploads the data. The context must outlive the trainer.
  /// Throws InvalidArgument for an inconsistent configuration, and OutOfMemory before anything is allocated when the
  /// plan exceeds the pool's limit or what the device has free: with the numbers, and the largest batch that would fit.
  Trainer(Context& context, const TrainerConfig& config, const Dataset& data);
  ~Trainer();
  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;

  /// Queues `steps` training steps; takes no device memory and does not wait, but for reading the reports when the ring
  /// of 1,024 of them is full. The first non-finite energy or gradient freezes parameters, averages, optimizer state
  /// and the step count of this and all later steps (an energy update that came before it in the same step stands;
  /// running statistics and power iterations go on moving); from then on `reports` and `snapshot` throw Diverged, and
  /// `restore` of an earlier snapshot starts afresh. Steps beyond total_steps keep the schedule's last rates.
  void run(std::int64_t steps);
  /// As run(steps), waiting behind every part of a step: where the time goes, per step, in the order of the step. The
  /// sum exceeds that of run(), which does not wait.
  std::vector<PhaseTime> time_phases(std::int64_t steps);
  /// Waits and returns the reports of the steps since the last call. Throws Diverged naming tensor and step.
  std::vector<StepRecord> reports();
  std::int64_t step() const noexcept;
  /// Of the last step that was queued: the first in a math mode, and all on a CPU, are launches.
  StepForm step_form() const noexcept;

  /// The memory that a trainer of this configuration takes; nothing is allocated. Throws as the constructor does for an
  /// inconsistent configuration.
  static MemoryPlan plan_memory(const TrainerConfig& config, const Dataset& data);
  const MemoryPlan& memory_plan() const noexcept;

  const TrainerConfig& config() const noexcept;
  const Network& energy_network() const noexcept;
  const Network& generator_network() const noexcept;
  Context& context() noexcept;
  /// Parameters on the device; valid while the trainer lives.
  ParameterSet energy_parameters(Weights weights) const;
  ParameterSet generator_parameters(Weights weights) const;

  TrainerSnapshot snapshot();
  /// Throws CheckpointError when a tensor is missing, superfluous or of another shape or type.
  void restore(const TrainerSnapshot& snapshot);

  /// Energies of `rows` points [rows, D], nats, row-major host memory. Waits.
  std::vector<double> energies(std::span<const double> points, std::int64_t rows, Weights weights = Weights::average);
  /// `count` generated points [count, D] from the latents of (seed, stream `sampling`).
  std::vector<double> samples(std::int64_t count, std::uint64_t seed, Weights weights = Weights::average);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bracket
