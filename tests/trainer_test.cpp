// The trainer as an embedding program sees it.
#include "bracket/trainer.h"

#include <set>

#include "bracket/error.h"
#include "kernels/plan_ops.h"
#include "tests/trainer_fixture.h"

namespace bracket::test {
namespace {

class TrainerDevices : public OpsTest {
 protected:
  std::unique_ptr<Context> fresh(ContextOptions options = {}) { return GetParam().make_context(options); }
};

TEST_P(TrainerDevices, StepsStayInsideTheirMemory) {
  if (IsSkipped() || HasFailure()) return;
  auto context = fresh();
  Trainer trainer(*context, small_config(), small_table());
  trainer.run(1);
  const std::int64_t before = context->pool().statistics().bytes_in_use;
  trainer.run(3);
  EXPECT_EQ(context->pool().statistics().bytes_in_use, before);
  EXPECT_EQ(trainer.reports().size(), 4U);
  context->pool().check_guards();
}

TEST_P(TrainerDevices, SameSeedSameBits) {
  if (IsSkipped() || HasFailure()) return;
  auto a = fresh(), b = fresh();
  Trainer first(*a, small_config(), small_table()), second(*b, small_config(), small_table());
  first.run(6);
  second.run(6);
  EXPECT_EQ(bytes_of(first.snapshot()), bytes_of(second.snapshot()));
}

TEST_P(TrainerDevices, ARestoredRunGoesOnWithTheSameBits) {
  if (IsSkipped() || HasFailure()) return;
  for (const TrainerConfig& config : {small_config(), normalised_config(), estimated_config()}) {
    auto a = fresh(), b = fresh();
    Trainer straight(*a, config, table_for(config));
    straight.run(3);
    const TrainerSnapshot middle = straight.snapshot();
    straight.run(4);
    Trainer resumed(*b, config, table_for(config));
    resumed.restore(middle);
    EXPECT_EQ(resumed.step(), 3);
    const TrainerSnapshot again = resumed.snapshot();
    EXPECT_EQ(bytes_of(again), bytes_of(middle));
    EXPECT_EQ(again.energy_updates, middle.energy_updates);
    EXPECT_EQ(again.generator_updates, middle.generator_updates);
    EXPECT_EQ(again.penalty_weight, middle.penalty_weight);
    EXPECT_EQ(again.gap_average, middle.gap_average);
    resumed.run(4);
    EXPECT_EQ(bytes_of(straight.snapshot()), bytes_of(resumed.snapshot()));
    const std::vector<StepRecord> want = straight.reports(), got = resumed.reports();
    ASSERT_EQ(got.size(), 4U);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(std::memcmp(&want[want.size() - 4 + i], &got[i], sizeof(StepRecord)), 0);
    }
  }
}

// Each of the four modes of a configuration reaches the products it is for; absent, the context's does.
TEST_P(TrainerDevices, NetworksMultiplyAsTheirConfigurationsSay) {
  if (IsSkipped() || HasFailure()) return;
  const bool tensor_cores = GetParam().name() != "cpu";
  TrainerConfig config = estimated_config();
  config.batch_size = 64;  // products of its 21 rows are too small for tensor cores
  for (PlayerConfig* const player : {&config.energy, &config.generator}) {
    std::vector<LayerSpec>& layers = player->network.layers;
    layers.insert(layers.begin(),
                  {LinearSpec{48}, ActivationSpec{Activation::silu}, LinearSpec{40}, ActivationSpec{Activation::silu}});
  }
  using Mode = std::optional<MathMode>;
  const auto trained = [&](MathMode of_context, Mode energy, Mode energy_jacobian, Mode generator, Mode jacobian,
                           PenaltyConfig::Kind kind = PenaltyConfig::Kind::bidirectional) {
    TrainerConfig c = config;
    c.energy.math = {energy, energy_jacobian};
    c.generator.math = {generator, jacobian};
    c.penalty.kind = kind;
    ContextOptions options;
    options.math = of_context;
    const auto context = fresh(options);
    Trainer trainer(*context, c, table_for(c));
    trainer.run(1);
    return bytes_of(trainer.snapshot());
  };
  constexpr MathMode fp32 = MathMode::fp32, bf16 = MathMode::bf16;
  constexpr auto zero_gp = PenaltyConfig::Kind::zero_gp;
  const std::vector<std::byte> plain = trained(fp32, {}, {}, {}, {});
  EXPECT_EQ(trained(bf16, fp32, fp32, fp32, fp32), plain);
  EXPECT_EQ(trained(fp32, bf16, bf16, bf16, bf16), trained(bf16, {}, {}, {}, {}));
  EXPECT_EQ(trained(fp32, bf16, {}, {}, {}) != plain, tensor_cores);
  EXPECT_EQ(trained(fp32, {}, {}, bf16, {}) != plain, tensor_cores);
  EXPECT_EQ(trained(fp32, {}, {}, {}, bf16) != plain, tensor_cores);
  // The tangent along the data's own gradient is what the energy's Jacobian is asked for.
  EXPECT_EQ(trained(fp32, {}, bf16, {}, {}), plain);
  EXPECT_EQ(trained(fp32, {}, bf16, {}, {}, zero_gp) != trained(fp32, {}, {}, {}, {}, zero_gp), tensor_cores);
}

TEST_P(TrainerDevices, TimedPhasesAreTheSameSteps) {
  if (IsSkipped() || HasFailure()) return;
  for (const TrainerConfig& config : {small_config(), estimated_config()}) {
    auto a = fresh(), b = fresh();
    Trainer timed(*a, config, table_for(config)), plain(*b, config, table_for(config));
    const std::vector<PhaseTime> phases = timed.time_phases(2);
    plain.run(2);
    EXPECT_EQ(bytes_of(timed.snapshot()), bytes_of(plain.snapshot()));
    EXPECT_EQ(timed.step(), 2);
    std::set<std::string> names;
    for (const PhaseTime& phase : phases) {
      EXPECT_TRUE(names.insert(phase.name).second) << phase.name;
      EXPECT_GT(phase.milliseconds, 0) << phase.name;
    }
    for (const char* name : {"log-volume", "energy forward", "energy reverse", "optimizers"})
      EXPECT_EQ(names.count(name), 1U) << name;
    EXPECT_THROW(timed.time_phases(0), InvalidArgument);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, TrainerDevices, ::testing::ValuesIn(test_devices()), device_name);

TEST(Trainer, SteadyStateTakesNoMemoryWithoutGuards) {
  Context context;
  Trainer trainer(context, small_config(), small_table());
  trainer.run(1);
  const MemoryStatistics before = context.pool().statistics();
  trainer.run(20);
  EXPECT_EQ(context.pool().statistics().allocations, before.allocations);
  EXPECT_EQ(context.pool().statistics().bytes_in_use, before.bytes_in_use);
}

TEST(Trainer, ThreadsDoNotChangeBits) {
  std::vector<std::vector<std::byte>> results;
  for (const int threads : {1, 2, 8}) {
    ContextOptions options;
    options.threads = threads;
    Context context(options);
    TrainerConfig config = small_config();
    // Large enough for the GEMMs and the staircases to be shared (kernels/cpu: kSerialCost, kSerialFlops).
    config.batch_size = 1024;
    config.energy.network = {2,
                             {LinearSpec{64}, ActivationSpec{Activation::silu}, LinearSpec{64},
                              ActivationSpec{Activation::silu}, LinearSpec{1}, ConfinementSpec{-1, 1, 0, 0}}};
    Trainer trainer(context, config, small_table());
    trainer.run(5);
    results.push_back(bytes_of(trainer.snapshot()));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

// One power iteration a training pass, in a generator without BatchNorm, too; both players' weights are normalised.
TEST(Trainer, SpectralNormMovesInBothNetworks) {
  TrainerConfig config = normalised_config();
  LinearSpec normalised{7};
  normalised.spectral_norm = true;
  config.generator.network = {2, {normalised, ActivationSpec{Activation::tanh}, LinearSpec{2}}};
  TestDevice device("cpu");
  Trainer trainer(device.context(), config, small_table());
  const TrainerSnapshot before = trainer.snapshot();
  trainer.run(3);
  const TrainerSnapshot after = trainer.snapshot();
  for (const auto member : {&TrainerSnapshot::energy, &TrainerSnapshot::generator}) {
    const std::string name = "layers.0.parametrizations.weight.0._u";
    EXPECT_NE((before.*member).at(name).bytes, (after.*member).at(name).bytes);
  }
}

TEST(Trainer, TwoTrainersInOneProcessDoNotMeet) {
  Context a, b;
  Trainer alone(a, small_config(), small_table());
  alone.run(6);
  TrainerConfig other = small_config();
  other.seed = 99;
  Trainer first(b, small_config(), small_table()), second(b, other, small_table());
  for (int i = 0; i < 6; ++i) {
    first.run(1);
    second.run(1);
  }
  EXPECT_EQ(bytes_of(alone.snapshot()), bytes_of(first.snapshot()));
  EXPECT_NE(bytes_of(first.snapshot()), bytes_of(second.snapshot()));
}

TEST(Trainer, ReportsOutlastTheRing) {
  Context context;
  TrainerConfig config = small_config();
  config.batch_size = 4;
  Trainer trainer(context, config, small_table());
  trainer.run(1500);  // the ring holds 1,024
  const std::vector<StepRecord> reports = trainer.reports();
  ASSERT_EQ(reports.size(), 1500U);
  for (std::size_t i = 0; i < reports.size(); ++i) ASSERT_EQ(reports[i].step, static_cast<std::int64_t>(i) + 1);
  EXPECT_TRUE(trainer.reports().empty());
}

// Steps until the report says what went wrong; the parameters that must not have moved are compared bit by bit.
std::string divergence(const TrainerConfig& config, Player frozen) {
  Context context;
  Trainer trainer(context, config, small_table());
  const auto values = [&] {
    const ParameterSet p =
        frozen == Player::energy ? trainer.energy_parameters(Weights::raw) : trainer.generator_parameters(Weights::raw);
    return to_host(context.ops(), p.values);
  };
  const std::vector<double> before = values();
  trainer.run(3);
  try {
    (void)trainer.reports();
  } catch (const Diverged& error) {
    EXPECT_EQ(error.step(), 1);
    EXPECT_EQ(trainer.step(), 0);
    EXPECT_EQ(error.code(), ExitCode::diverged);
    EXPECT_EQ(values(), before) << "a non-finite update was applied";
    EXPECT_THROW((void)trainer.snapshot(), Diverged);
    return error.tensor();
  }
  ADD_FAILURE() << "divergence went unnoticed";
  return {};
}

TEST(Trainer, EveryKindOfNonFiniteValueIsNamedAndNotApplied) {
  TrainerConfig gradient = small_config();  // the seeds of the penalty overflow, energies do not
  gradient.penalty.rule = PenaltyConfig::Rule::constant;
  gradient.penalty.weight = 1e30;
  std::get<LinearSpec>(gradient.energy.network.layers.front()).weight_gain = 1e12;
  EXPECT_EQ(divergence(gradient, Player::energy).rfind("energy gradient of layers.", 0), 0U);

  TrainerConfig entropy = small_config();  // the generator's entropy cotangent overflows
  entropy.entropy_weight = 1e300;
  EXPECT_EQ(divergence(entropy, Player::generator).rfind("generator gradient of layers.", 0), 0U);

  TrainerConfig step = small_config();  // the energy update itself is finite, but what it leads to is not
  step.energy.optimizer.lr = 1e30;
  step.schedule.warmup_steps = 0;
  EXPECT_EQ(divergence(step, Player::generator).rfind("energies of generated points", 0), 0U);

  TrainerConfig start = small_config();  // energies overflow from the start
  std::get<ConfinementSpec>(start.energy.network.layers.back()).quadratic = 1e30;
  std::get<LinearSpec>(start.generator.network.layers.back()).weight_gain = 1e6;
  EXPECT_EQ(divergence(start, Player::energy).rfind("energies, row", 0), 0U);
}

// PReLU's neighbours in the average: running statistics and power-iteration vectors are copied, not left at their
// start.
TEST(Trainer, AveragesTakeOverTheBuffers) {
  Context context;
  Trainer trainer(context, normalised_config(), small_table());
  trainer.run(3);
  const TrainerSnapshot s = trainer.snapshot();
  for (const char* name : {"layers.2.running_mean", "layers.2.running_var"}) {
    EXPECT_EQ(s.generator.at(name).bytes, s.generator_average.at(name).bytes) << name;
  }
  const char* u = "layers.0.parametrizations.weight.0._u";
  EXPECT_EQ(s.energy.at(u).bytes, s.energy_average.at(u).bytes);
  EXPECT_NE(s.energy.at("layers.0.bias").bytes, s.energy_average.at("layers.0.bias").bytes);
}

TEST(Trainer, ImpossibleCountsAreRefused) {
  Context context;
  Trainer trainer(context, small_config(), small_table());
  const TrainerSnapshot good = trainer.snapshot();
  for (auto member : {&TrainerSnapshot::step, &TrainerSnapshot::energy_updates, &TrainerSnapshot::generator_updates}) {
    TrainerSnapshot bad = good;
    bad.*member = -5;
    EXPECT_THROW(trainer.restore(bad), CheckpointError);
  }
  for (auto member : {&TrainerSnapshot::penalty_weight, &TrainerSnapshot::gap_average}) {
    TrainerSnapshot bad = good;
    bad.*member = std::numeric_limits<double>::quiet_NaN();
    EXPECT_THROW(trainer.restore(bad), CheckpointError);
  }
  EXPECT_THROW(trainer.samples(std::numeric_limits<std::int64_t>::max(), 1), InvalidArgument);
  EXPECT_THROW(trainer.samples(-1, 1), InvalidArgument);
  EXPECT_THROW(trainer.energies({}, -2), InvalidArgument);
  EXPECT_TRUE(trainer.energies({}, 0).empty());
}

// The log-volume of a permutation or rotation is 0 whatever a pass reads.
TEST(Trainer, RestoreRefusesAnotherFixedMap) {
  TrainerConfig config = small_config();
  config.generator.network.layers.insert(config.generator.network.layers.begin() + 1, RotationSpec{3});
  config.entropy.estimator = EntropyEstimator::triangular;
  Context context;
  Trainer trainer(context, config, small_table());
  TrainerSnapshot snapshot = trainer.snapshot();
  trainer.restore(snapshot);
  snapshot.generator.at("layers.1.matrix").bytes[0] ^= std::byte{1};
  EXPECT_THROW(trainer.restore(snapshot), CheckpointError);
}

TEST(Trainer, RestoreChecksEveryTensor) {
  Context context;
  Trainer trainer(context, small_config(), small_table());
  const TrainerSnapshot good = trainer.snapshot();
  TrainerSnapshot missing = good, superfluous = good, wrong = good;
  missing.optimizer.erase(missing.optimizer.begin());
  superfluous.energy["layers.99.weight"] = superfluous.energy.begin()->second;
  wrong.generator.begin()->second.shape = {1, 1, 1};
  EXPECT_THROW(trainer.restore(missing), CheckpointError);
  EXPECT_THROW(trainer.restore(superfluous), CheckpointError);
  EXPECT_THROW(trainer.restore(wrong), CheckpointError);
  EXPECT_NO_THROW(trainer.restore(good));
}

TEST(Trainer, InconsistentConfigurationsAreRefused) {
  Context context;
  const auto refused = [&](auto change) {
    TrainerConfig config = small_config();
    change(config);
    EXPECT_THROW(Trainer(context, config, small_table()), InvalidArgument);
  };
  refused([](TrainerConfig& c) { c.batch_size = 0; });
  refused([](TrainerConfig& c) { c.energy_steps = 0; });
  refused([](TrainerConfig& c) { c.energy.network = {3, {LinearSpec{1}}}; });
  refused([](TrainerConfig& c) { c.energy.network = {2, {LinearSpec{2}}}; });
  refused([](TrainerConfig& c) { c.energy.network = {2, {LinearSpec{1}, BatchNormSpec{}}}; });
  refused([](TrainerConfig& c) { c.generator.network = {3, {LinearSpec{2}}}; });
  refused([](TrainerConfig& c) { c.generator.optimizer.beta2 = 1; });
  refused([](TrainerConfig& c) { c.ema_decay = 1.5; });
  refused([](TrainerConfig& c) { c.dtype = static_cast<DType>(9); });
  refused([](TrainerConfig& c) { c.entropy.estimator = static_cast<EntropyEstimator>(9); });
  refused([](TrainerConfig& c) { c.entropy.iterations = 0; });
  refused([](TrainerConfig& c) { c.entropy.chunk = -1; });
  refused([](TrainerConfig& c) { c.entropy.warm_start = true; });  // of an estimator that starts from nothing
  refused([](TrainerConfig& c) { c.penalty.kind = static_cast<PenaltyConfig::Kind>(9); });
  refused([](TrainerConfig& c) { c.penalty.target = 0; });
  refused([](TrainerConfig& c) { c.total_steps = 0; });
}

// The plan is what the pool then holds, byte for byte.
TEST(TrainerMemory, ThePlanIsWhatATrainerTakes) {
  for (const TrainerConfig& config : {small_config(), normalised_config(), estimated_config()}) {
    Context context;
    const MemoryPlan plan = Trainer::plan_memory(config, table_for(config));
    Trainer trainer(context, config, table_for(config));
    EXPECT_EQ(context.pool().statistics().bytes_in_use, plan.reserved);
    EXPECT_EQ(trainer.memory_plan().reserved, plan.reserved);
    EXPECT_GE(plan.reserved, plan.step + plan.state + plan.data);
    EXPECT_EQ(plan.data, 101 * config.energy.network.input_size * 4);
    trainer.run(3);
    EXPECT_EQ(context.pool().statistics().peak_bytes_in_use, plan.reserved);
  }
}

// What does not fit is refused before anything is allocated, with a batch size that fits: the next one does not.
TEST(TrainerMemory, ALimitNamesTheLargestBatchThatFits) {
  TrainerConfig config = small_config();
  config.batch_size = 4000;
  const std::int64_t needed = Trainer::plan_memory(config, small_table()).reserved;
  ContextOptions options;
  options.memory_limit = needed / 3;
  Context context(options);
  std::int64_t batch = 0;
  try {
    Trainer(context, config, small_table());
    FAIL() << "a trainer of " << needed << " bytes was made under a limit of " << options.memory_limit;
  } catch (const OutOfMemory& error) {
    const std::string text = error.what();
    EXPECT_EQ(error.requested_bytes(), needed);
    for (const std::string& part : {std::string("batch_size 4000"), std::to_string(needed) + " bytes",
                                    std::to_string(options.memory_limit) + " bytes"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
    const std::size_t at = text.find("; batch_size ");
    ASSERT_NE(at, std::string::npos) << text;
    batch = std::stoll(text.substr(at + 13));
  }
  EXPECT_EQ(context.pool().statistics().allocations, 0);
  config.batch_size = batch + 1;
  EXPECT_THROW(Trainer(context, config, small_table()), OutOfMemory);
  config.batch_size = batch;
  Trainer trainer(context, config, small_table());
  trainer.run(2);
  EXPECT_EQ(trainer.reports().size(), 2U);
  EXPECT_LE(context.pool().statistics().bytes_reserved, options.memory_limit);
}

TEST(TrainerMemory, ALimitBelowTheNetworksHasNoBatch) {
  ContextOptions options;
  options.memory_limit = 50'000;
  Context context(options);
  try {
    Trainer(context, small_config(), small_table());
    FAIL();
  } catch (const OutOfMemory& error) {
    EXPECT_NE(std::string(error.what()).find("not even batch_size 1 would fit"), std::string::npos) << error.what();
  }
}

TEST(Trainer, OneDimensionAndMoreEnergySteps) {
  Context context;
  TrainerConfig config = small_config();
  config.energy.network = {
      1, {LinearSpec{8}, ActivationSpec{Activation::silu}, LinearSpec{1}, ConfinementSpec{-1, 1, 0, 0}}};
  config.generator.network = {1, {LinearSpec{1}}};
  config.energy_steps = 3;
  const std::vector<double> rows = {0.5, -0.5, 1.0};
  Trainer trainer(context, config, Dataset::from_rows(rows, 3, 1));
  trainer.run(4);
  const TrainerSnapshot snapshot = trainer.snapshot();
  EXPECT_EQ(snapshot.energy_updates, 12);
  EXPECT_EQ(snapshot.generator_updates, 4);
  EXPECT_EQ(trainer.samples(5, 1).size(), 5U);
  EXPECT_EQ(trainer.energies(rows, 3).size(), 3U);
}

}  // namespace
}  // namespace bracket::test
