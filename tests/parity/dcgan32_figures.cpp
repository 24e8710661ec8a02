#include "tests/parity/dcgan32_figures.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>

#include "bracket/device.h"
#include "bracket/error.h"
#include "bracket/preset.h"
#include "bracket/random.h"
#include "host/training/batch_table.h"
#include "host/training/inference.h"
#include "host/training/training_step.h"
#include "kernels/plan_ops.h"

namespace bracket::test {
namespace {

using nlohmann::json;

constexpr std::int64_t kBatch = 4;
constexpr std::int64_t kRows = 11;
constexpr std::int64_t kPixels = 32 * 32 * 3;
constexpr std::int64_t kDrawnUpdates = 5;
constexpr double kSecondMoment = 1e-6;

struct Case {
  const char* name;
  double width;
  std::uint64_t seed;
  EntropyEstimator estimator;
  double weight, threshold;
  bool drawn;
  bool spectral_norm;
  bool reuse;
};

constexpr Case kCases[] = {
    {"cifar10-ii", 1, 2026, EntropyEstimator::lobpcg, 1e-3, 1, false, false, true},
    {"lobpcg", 0.125, 7, EntropyEstimator::lobpcg, 1e-2, 0, true, false, true},
    {"spectral_norm", 0.125, 8, EntropyEstimator::lobpcg, 1e-2, 0, true, true, true},
    {"exact", 0.125, (std::uint64_t{1} << 40) + 9, EntropyEstimator::exact, 1e-2, 0, true, false, false},
};

// What the script calls draw(): the purposes 0 .. 2 are the projections.
constexpr std::uint64_t kPerturbation = 3, kSecondMomentDraw = 4;

std::vector<double> drawn(Ops& ops, std::uint64_t seed, Player player, std::size_t tensor, std::uint64_t purpose,
                          std::int64_t count) {
  const std::uint64_t step = (1000 * static_cast<std::uint64_t>(player) + tensor) * 8 + purpose;
  std::vector<double> values(static_cast<std::size_t>(count));
  ops.random_uniform(Tensor(values.data(), DType::f64, {count}), {seed, RandomStream::test, step}, -1, 1, nullptr);
  return values;
}

// Every parameter and buffer in the order of their names.
std::vector<ParameterInfo> sorted_tensors(const Network& network) {
  std::vector<ParameterInfo> infos = network.parameters();
  std::sort(infos.begin(), infos.end(), [](const ParameterInfo& a, const ParameterInfo& b) { return a.name < b.name; });
  return infos;
}

// The values of one tensor of a flat block, in the order of files.
std::vector<double> file_values(std::span<const double> block, const ParameterInfo& info) {
  std::vector<double> values;
  for (std::int64_t e = 0; e < info.size(); ++e)
    values.push_back(block[static_cast<std::size_t>(info.offset + info.order.memory_element(e))]);
  return values;
}

// Statistics, scales and second moments as in the middle of a run.
void draw_state(Ops& ops, PlayerBlocks& blocks, std::uint64_t seed) {
  std::vector<double> values = to_host(ops, blocks.raw.values), buffers = to_host(ops, blocks.raw.buffers);
  std::vector<double> moments = to_host(ops, blocks.second_moment);
  const std::vector<ParameterInfo> infos = sorted_tensors(blocks.network);
  for (std::size_t i = 0; i < infos.size(); ++i) {
    const std::string prefix = infos[i].name.substr(0, infos[i].name.rfind('.') + 1);
    const bool normalises = std::any_of(
        infos.begin(), infos.end(), [&](const ParameterInfo& other) { return other.name == prefix + "running_mean"; });
    const std::string leaf = infos[i].name.substr(prefix.size());
    const std::vector<double> perturbation = drawn(ops, seed, blocks.player, i, kPerturbation, infos[i].size());
    const std::vector<double> moment = drawn(ops, seed, blocks.player, i, kSecondMomentDraw, infos[i].size());
    std::vector<double>& block = infos[i].buffer ? buffers : values;
    for (std::int64_t e = 0; e < infos[i].size(); ++e) {
      const auto at = static_cast<std::size_t>(infos[i].offset + infos[i].order.memory_element(e));
      const double u = perturbation[static_cast<std::size_t>(e)];
      if (!infos[i].buffer) moments[at] = kSecondMoment * (2 + moment[static_cast<std::size_t>(e)]);
      if (!normalises) continue;
      if (leaf == "weight" || leaf == "running_var") block[at] = 1 + u / 2;
      if (leaf == "bias") block[at] = u / 3;
      if (leaf == "running_mean") block[at] = u / 5;
    }
  }
  to_device(ops, blocks.raw.values, values);
  to_device(ops, blocks.raw.buffers, buffers);
  to_device(ops, blocks.second_moment, moments);
}

// The norm and three projections.
json tensor_figures(Ops& ops, const std::vector<double>& values, std::uint64_t seed, Player player,
                    std::size_t tensor) {
  const auto product = [&](const std::vector<double>& other) {
    return std::inner_product(values.begin(), values.end(), other.begin(), 0.0);
  };
  json figures = {std::sqrt(product(values))};
  for (std::uint64_t k = 0; k < 3; ++k)
    figures.push_back(product(drawn(ops, seed, player, tensor, k, static_cast<std::int64_t>(values.size()))));
  return figures;
}

json player_figures(Ops& ops, const PlayerBlocks& blocks, const std::vector<double>& values_before,
                    std::uint64_t seed) {
  const std::vector<double> values = to_host(ops, blocks.raw.values), buffers = to_host(ops, blocks.raw.buffers);
  const std::vector<double> gradient = to_host(ops, blocks.gradient);
  std::vector<double> change(values.size());
  std::transform(values.begin(), values.end(), values_before.begin(), change.begin(), std::minus<>());
  json figures;
  const std::vector<ParameterInfo> infos = sorted_tensors(blocks.network);
  for (std::size_t i = 0; i < infos.size(); ++i) {
    const auto of = [&](const std::vector<double>& block) {
      return tensor_figures(ops, file_values(block, infos[i]), seed, blocks.player, i);
    };
    json& entry = figures[infos[i].name];
    if (infos[i].buffer)
      entry["value"] = of(buffers);
    else
      entry = {{"gradient", of(gradient)}, {"change", of(change)}};
  }
  return figures;
}

std::vector<std::uint8_t> random_pixels(std::uint64_t seed) {
  std::vector<std::uint8_t> pixels;
  const RandomKey key{seed, RandomStream::test, std::uint64_t{1} << 40};
  for (std::uint64_t e = 0; e < kRows * kPixels; ++e)
    pixels.push_back(static_cast<std::uint8_t>(random_word(key, e) >> 24));
  return pixels;
}

// The paper's recipe with what the case changes.
TrainerConfig configuration(const Case& item, const Dataset& data) {
  TrainerConfig config =
      make_preset(item.spectral_norm ? "cifar10-i" : "cifar10-ii", data, item.seed, {.width = item.width});
  config.energy.optimizer.epsilon = config.generator.optimizer.epsilon = 1e-6;
  if (item.drawn) config.penalty = {.weight = item.weight, .threshold = item.threshold};
  config.entropy = {.estimator = item.estimator, .iterations = 2};
  config.entropy_reuse = item.reuse;
  config.data.flip = true;
  config.batch_size = kBatch;
  config.dtype = DType::f64;
  return config;
}

}  // namespace

std::vector<std::string> dcgan32_cases() {
  std::vector<std::string> names;
  for (const Case& item : kCases) names.emplace_back(item.name);
  return names;
}

json dcgan32_figures(const std::string& name) {
  const Case* const found =
      std::find_if(std::begin(kCases), std::end(kCases), [&](const Case& item) { return name == item.name; });
  if (found == std::end(kCases)) throw InvalidArgument("dcgan32: unknown case '" + name + "'");
  const Case& item = *found;

  Context context;
  Ops& ops = context.ops();
  const Dataset data = Dataset::from_images(random_pixels(item.seed), {3, 32, 32}, kRows);
  const TrainerConfig config = configuration(item, data);
  PlayerBlocks energy(context, config.energy, config.dtype, Player::energy);
  PlayerBlocks generator(context, config.generator, config.dtype, Player::generator);
  energy.initialize(ops, config.seed);
  generator.initialize(ops, config.seed);
  StepState start;
  start.penalty_weight = config.penalty.weight;
  if (item.drawn) {
    draw_state(ops, energy, item.seed);
    draw_state(ops, generator, item.seed);
    start.step = start.updates[0] = start.updates[1] = kDrawnUpdates;
  }
  const std::vector<double> energy_before = to_host(ops, energy.raw.values);
  const std::vector<double> generator_before = to_host(ops, generator.raw.values);

  const Buffer scalars = context.pool().allocate(sizeof(StepState) + sizeof(StepRecord));
  auto* const state = static_cast<StepState*>(scalars.data());
  auto* const ring = reinterpret_cast<StepRecord*>(state + 1);
  ops.copy_bytes_to_device(state, &start, sizeof start);
  BatchTable table(context, config, data);
  table.restart(start.updates[static_cast<int>(Player::energy)]);
  StepPasses passes;
  TrainingStep step{config, energy, generator, table.source(), state, ring, 1, passes, {}};
  PlanOps plan;
  Arena planner;
  step.run(plan, planner);
  Arena arena(context.pool(), planner.high_water_bytes());
  table.prepare_step();
  step.run(ops, arena);

  StepRecord record;
  ops.copy_bytes_to_host(&record, ring, sizeof record);
  json figures;
  figures["losses"] = {{"energy_data", record.energy_data},
                       {"energy_samples", record.energy_samples},
                       {"log_volume", record.log_volume},
                       {"lower_bound", record.lower_bound},
                       {"penalty", record.penalty},
                       {"loss_energy", record.loss_energy},
                       {"loss_generator", record.loss_generator}};
  figures["energy"] = player_figures(ops, energy, energy_before, item.seed);
  figures["generator"] = player_figures(ops, generator, generator_before, item.seed);
  return figures;
}

}  // namespace bracket::test
