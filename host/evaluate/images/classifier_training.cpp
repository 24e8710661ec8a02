#include "host/evaluate/images/classifier_training.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/data/shuffled_draws.h"
#include "host/training/inference.h"
#include "host/training/player.h"
#include "kernels/ops.h"
#include "kernels/plan_ops.h"

namespace bracket {
namespace {

constexpr double kAverageDecay = 0.995;

// Images of a batch in the units of networks, moved at random, and their labels.
struct Batch {
  std::vector<double> images;
  std::vector<std::uint8_t> labels;
};

class Batches {
 public:
  Batches(const Dataset& data, const ClassifierTraining& options) : data_(data), options_(options) {}

  Batch draw(std::int64_t step) const {
    const std::int64_t n = options_.batch_size, first = step * n;
    Batch batch;
    batch.images.reserve(static_cast<std::size_t>(n * data_.cols()));
    const std::vector<std::int64_t> rows =
        shuffled_draws({options_.seed, RandomStream::classifier_data, 0}, data_.rows(), first, n);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t row = rows[static_cast<std::size_t>(i)];
      append_moved(batch.images, row, shift(2 * (first + i)), shift(2 * (first + i) + 1));
      batch.labels.push_back(static_cast<std::uint8_t>(data_.labels()[static_cast<std::size_t>(row)]));
    }
    return batch;
  }

 private:
  std::int64_t shift(std::int64_t draw) const {
    const double choices = static_cast<double>(2 * options_.largest_shift + 1);
    const double u =
        random_uniform({options_.seed, RandomStream::classifier_shift, 0}, static_cast<std::uint64_t>(draw));
    return static_cast<std::int64_t>(u * choices) - options_.largest_shift;
  }

  void append_moved(std::vector<double>& out, std::int64_t row, std::int64_t down, std::int64_t right) const {
    const ImageShape& image = data_.image();
    const auto pixels =
        data_.pixels().subspan(static_cast<std::size_t>(row * image.size()), static_cast<std::size_t>(image.size()));
    for (std::int64_t y = 0; y < image.height; ++y) {
      const std::int64_t from_y = std::clamp<std::int64_t>(y - down, 0, image.height - 1);
      for (std::int64_t x = 0; x < image.width; ++x) {
        const std::int64_t from_x = std::clamp<std::int64_t>(x - right, 0, image.width - 1);
        for (std::int64_t c = 0; c < image.channels; ++c) {
          const auto at = static_cast<std::size_t>((from_y * image.width + from_x) * image.channels + c);
          out.push_back(kPixelScale * pixels[at] + kPixelShift);
        }
      }
    }
  }

  const Dataset& data_;
  const ClassifierTraining& options_;
};

// Adds the mean loss of the batch to `loss`.
void training_step(Ops& ops, Arena& arena, PlayerBlocks& player, StepState* state, StepRecord* record,
                   const Schedule& schedule, const Batch& batch, std::int64_t n, double& loss) {
  const Network& network = player.network;
  ops.begin_step(state, schedule);
  const Tensor x = arena.allocate(network.dtype(), {n, network.input_size()});
  const Tensor labels = arena.allocate(DType::u8, {n});
  if (!ops.planning()) {
    to_device(ops, x, batch.images);
    ops.upload(labels, batch.labels.data());
  }
  PrimalPass pass;
  network.forward(ops, arena, pass, player.raw, x, PassMode::training);
  const Tensor losses = arena.allocate(network.dtype(), {n});
  const Tensor gradient = arena.allocate(network.dtype(), {n, network.output_size()});
  ops.softmax_cross_entropy(losses, gradient, pass.output(), labels);
  ReverseRequest request;
  request.grad_parameters = player.gradient;
  network.reverse(ops, arena, pass, nullptr, gradient, {}, request);
  player.update(ops, arena, state);
  player.average_weights(ops, kAverageDecay, state);
  ops.end_step(state, record, 1);
  if (ops.planning()) return;
  const std::vector<double> values = to_host(ops, losses);
  loss += std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(n);
}

}  // namespace

void train_classifier(Context& context, const NetworkSpec& spec, const Dataset& data, const ClassifierTraining& options,
                      const Tensor& values, const std::function<void(std::int64_t epoch, double loss)>& progress) {
  Ops& ops = context.ops();
  PlayerConfig config{spec, {}};
  config.optimizer.lr = options.lr;
  config.optimizer.beta1 = 0.9;
  config.optimizer.beta2 = 0.999;
  PlayerBlocks player(context, config, DType::f32, Player::energy);
  player.initialize(ops, options.seed);
  const Buffer scalars = context.pool().allocate(static_cast<std::int64_t>(sizeof(StepState) + sizeof(StepRecord)));
  auto* state = static_cast<StepState*>(scalars.data());
  auto* record = reinterpret_cast<StepRecord*>(state + 1);
  StepState start;
  ops.copy_bytes_to_device(state, &start, sizeof start);

  const std::int64_t n = options.batch_size, steps_per_epoch = std::max<std::int64_t>(1, data.rows() / n);
  Schedule schedule;
  schedule.base_rate[static_cast<int>(Player::energy)] = options.lr;
  schedule.total_steps = options.epochs * steps_per_epoch;
  schedule.warmup_steps = 1;
  schedule.cosine = true;
  double loss = 0;
  PlanOps plan;
  Arena planner;
  training_step(plan, planner, player, state, record, schedule, {}, n, loss);
  Arena arena(context.pool(), planner.high_water_bytes());
  const Batches batches(data, options);
  for (std::int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    loss = 0;
    for (std::int64_t k = 0; k < steps_per_epoch; ++k) {
      arena.rewind(0);
      training_step(ops, arena, player, state, record, schedule, batches.draw(epoch * steps_per_epoch + k), n, loss);
    }
    StepState now;
    ops.copy_bytes_to_host(&now, state, sizeof now);
    if (now.nonfinite_tensor != 0)
      throw Diverged("training of the classifier met a non-finite gradient of " +
                         player.parameter_at(now.nonfinite_element) + " in step " + std::to_string(now.step + 1) +
                         "; use a lower learning rate than " + format_number(options.lr),
                     "classifier", now.step + 1);
    if (progress) progress(epoch + 1, loss / static_cast<double>(steps_per_epoch));
  }
  ops.copy(values, player.average.values);
  ops.synchronize();
}

}  // namespace bracket
