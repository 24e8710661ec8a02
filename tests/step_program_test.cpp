// Steps of training replayed by one kernel (kernels/cuda/step_program.cu) against the same steps launch by launch.
#include <cstring>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "bracket/preset.h"
#include "tests/trainer_fixture.h"
#ifdef BRACKET_TEST_SIMT
#include "simt/executor.h"
#include "simt/scoped_options.h"
#include "tests/captured_steps.h"
#endif

namespace bracket::test {
namespace {

enum class Steps { launched, one_kernel };

ContextOptions options_for(Steps steps) {
  ContextOptions options;
  options.graphs = options.one_kernel = steps == Steps::one_kernel;
  return options;
}

std::unique_ptr<Context> context_on(const TestDevice& device, Steps steps) {
  ContextOptions options = options_for(steps);
  const std::string name = (std::ostringstream() << device).str();
#ifdef BRACKET_TEST_SIMT
  if (name == "simt") return std::make_unique<Context>(options, simt::make_cuda_ops(0, nullptr, {}));
#endif
  if (name == "cuda") options.device = {DeviceKind::cuda, 0};
  return std::make_unique<Context>(options);
}

/// What is left of a training: its state, and its records.
struct Outcome {
  std::vector<std::byte> state;
  std::vector<StepRecord> reports;

  friend bool operator==(const Outcome& a, const Outcome& b) {
    return a.state == b.state && a.reports.size() == b.reports.size() &&
           (a.reports.empty() ||
            std::memcmp(a.reports.data(), b.reports.data(), a.reports.size() * sizeof(StepRecord)) == 0);
  }
};

/// Runs `portions` of steps one after the other.
Outcome trained(Context& context, const TrainerConfig& config, const Dataset& data,
                const std::vector<std::int64_t>& portions) {
  Trainer trainer(context, config, data);
  for (const std::int64_t steps : portions) trainer.run(steps);
  return {bytes_of(trainer.snapshot()), trainer.reports()};
}

Dataset table(std::int64_t cols) {
  const HostMatrix rows = random_matrix(101, cols, 8, -2, 2);
  return Dataset::from_rows(rows.values, rows.rows, rows.cols);
}

/// A pair of MLPs of that width, with every activation that has parameters or masks of its own.
TrainerConfig mlp_pair(std::int64_t width, std::int64_t batch_size) {
  LinearSpec hidden{width}, normalised{width};
  normalised.spectral_norm = true;
  TrainerConfig c;
  c.energy.network = {3,
                      {normalised, ActivationSpec{Activation::prelu}, hidden, ActivationSpec{Activation::relu}, hidden,
                       ActivationSpec{Activation::silu}, LinearSpec{1}, ConfinementSpec{-1, 1, 0, 0}}};
  c.generator.network = {width < 2 ? 1 : 2,  // no more than the width: a Jacobian has full rank
                         {hidden, ActivationSpec{Activation::leaky_relu, 0.3}, BatchNormSpec{}, hidden,
                          ActivationSpec{Activation::tanh}, LinearSpec{3}}};
  c.penalty.weight = 0.1;
  c.energy.optimizer.clip_norm = 1;
  c.schedule.cosine = false;
  c.batch_size = batch_size;
  c.total_steps = 100;
  c.seed = 7;
  return c;
}

struct Case {
  std::string name;
  TrainerConfig config;
  Dataset data;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* preset : {"toy-a", "toy-b", "toy-zero-gp", "calibrated-2d"}) {
    const Dataset data = Dataset::open("25gaussians");
    all.push_back({preset, make_preset(preset, data, 1), data});
    all.back().config.batch_size = 37;
  }
  for (const std::int64_t cols : {5, 16, 40}) {  // small factors, large ones, more columns than latents
    all.push_back({"vectors of " + std::to_string(cols), make_preset("vectors", table(cols), 1), table(cols)});
    all.back().config.batch_size = 6;
  }
  for (const std::int64_t width : {1, 3, 100, 256}) {
    for (const std::int64_t batch_size : {1, 5, 37}) {
      if (width == 256 && batch_size == 37) continue;  // 100 x 37 has the same kernels in less time
      all.push_back({"width " + std::to_string(width) + ", batch " + std::to_string(batch_size),
                     mlp_pair(width, batch_size), table(3)});
    }
  }
  all.push_back({"small", small_config(), small_table()});
  all.push_back({"normalised", normalised_config(), small_table()});
  return all;
}

class StepProgramDevices : public OpsTest {
 protected:
  std::unique_ptr<Context> fresh(Steps steps) const { return context_on(GetParam(), steps); }
};

TEST_P(StepProgramDevices, HasTheBitsOfLaunches) {
  if (IsSkipped() || HasFailure()) return;
  for (const Case& c : cases()) {
    const auto one = fresh(Steps::one_kernel), many = fresh(Steps::launched);
    EXPECT_TRUE(one->one_kernel());
    EXPECT_FALSE(many->one_kernel());
    EXPECT_TRUE(trained(*one, c.config, c.data, {3}) == trained(*many, c.config, c.data, {3})) << c.name;
  }
}

// Any number of steps in a launch, across the end of the ring of records and after going back.
TEST_P(StepProgramDevices, CountsItsSteps) {
  if (IsSkipped() || HasFailure()) return;
  TrainerConfig config = mlp_pair(1, 1);  // as small as a step gets
  config.energy.network = {3, {LinearSpec{1}, ActivationSpec{Activation::silu}, LinearSpec{1}}};
  config.generator.network = {1, {LinearSpec{3}}};
  const auto one = fresh(Steps::one_kernel), many = fresh(Steps::launched);
  Trainer replayed(*one, config, table(3)), launched(*many, config, table(3));
  for (const std::int64_t steps : {1, 1, 2, 7, 0, 150, 1}) {
    replayed.run(steps);
    launched.run(steps);
    ASSERT_EQ(bytes_of(replayed.snapshot()), bytes_of(launched.snapshot())) << "after " << launched.step();
  }
  const TrainerSnapshot middle = replayed.snapshot();
  for (Trainer* trainer : {&replayed, &launched}) trainer->run(900);  // 1,062 steps: past the ring's 1,024
  EXPECT_EQ(replayed.step(), 1062);
  const std::vector<StepRecord> got = replayed.reports(), want = launched.reports();
  ASSERT_EQ(got.size(), 1062U);
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(StepRecord)), 0);
  EXPECT_EQ(bytes_of(replayed.snapshot()), bytes_of(launched.snapshot()));
  for (Trainer* trainer : {&replayed, &launched}) {
    trainer->restore(middle);
    trainer->run(9);
  }
  EXPECT_EQ(bytes_of(replayed.snapshot()), bytes_of(launched.snapshot()));
}

TEST_P(StepProgramDevices, StopsWhereAStepDiverges) {
  if (IsSkipped() || HasFailure()) return;
  TrainerConfig config = mlp_pair(3, 5);
  config.energy.optimizer.lr = 1e5;  // finite for a few steps
  config.schedule.warmup_steps = 0;
  config.energy.optimizer.clip_norm = 0;
  const auto end = [&](Steps steps) {
    const auto context = fresh(steps);
    Trainer trainer(*context, config, table(3));
    std::string text;
    trainer.run(40);
    try {
      (void)trainer.reports();
    } catch (const Diverged& error) {
      text = error.what();
    }
    return std::pair{text, trainer.step()};
  };
  const auto want = end(Steps::launched);
  EXPECT_NE(want.first, "");
  EXPECT_GE(want.second, 1);
  EXPECT_LT(want.second, 40) << "steps behind the mark do not count";
  EXPECT_EQ(end(Steps::one_kernel), want);
}

// What one kernel does not play is replayed as a graph: other precisions, tensor cores, estimators that iterate.
TEST_P(StepProgramDevices, LeavesOtherStepsToGraphs) {
  if (IsSkipped() || HasFailure()) return;
  std::vector<TrainerConfig> configs = {mlp_pair(3, 5), estimated_config()};
  configs.front().dtype = DType::f64;
  for (const TrainerConfig& config : configs) {
    const auto one = fresh(Steps::one_kernel), many = fresh(Steps::launched);
    EXPECT_TRUE(trained(*one, config, table_for(config), {4}) == trained(*many, config, table_for(config), {4}));
  }
  const TrainerConfig wide = mlp_pair(48, 37);
  for (const MathMode mode : {MathMode::bf16, MathMode::tf32x3}) {
    const auto one = fresh(Steps::one_kernel), many = fresh(Steps::launched);
    Trainer replayed(*one, wide, table(3)), launched(*many, wide, table(3));
    for (const MathMode now : {MathMode::fp32, mode, MathMode::fp32}) {
      one->set_math_mode(now);
      many->set_math_mode(now);
      replayed.run(3);
      launched.run(3);
      EXPECT_EQ(bytes_of(replayed.snapshot()), bytes_of(launched.snapshot()));
    }
  }
}

TEST_P(StepProgramDevices, TakesStreamedData) {
  if (IsSkipped() || HasFailure()) return;
  TrainerConfig config = mlp_pair(3, 5);
  config.data.device_bytes = 1;
  const auto one = fresh(Steps::one_kernel), many = fresh(Steps::launched);
  EXPECT_TRUE(trained(*one, config, table(3), {1, 9}) == trained(*many, config, table(3), {1, 9}));
}

INSTANTIATE_TEST_SUITE_P(Devices, StepProgramDevices, ::testing::ValuesIn(test_devices()), device_name);

#ifdef BRACKET_TEST_SIMT

class StepProgram : public ::testing::Test {
 protected:
  static std::unique_ptr<Context> fresh(Steps steps) { return context_on(TestDevice("simt"), steps); }

  /// Launches of `steps` steps behind the first.
  static std::int64_t launches(Context& context, const TrainerConfig& config, const Dataset& data, std::int64_t steps) {
    Trainer trainer(context, config, data);
    trainer.run(1);
    EXPECT_EQ(trainer.step_form(), StepForm::launches);
    const std::int64_t before = ::simt::launches();
    trainer.run(steps);
    const std::int64_t made = ::simt::launches() - before;
    const bool one = context.one_kernel() && config.dtype == DType::f32;
    EXPECT_EQ(trainer.step_form(), one ? StepForm::one_kernel : StepForm::graph);
    EXPECT_EQ(trainer.reports().size(), static_cast<std::size_t>(steps) + 1);
    return made;
  }
};

TEST_F(StepProgram, IsOneLaunchForManySteps) {
  for (const Case& c : cases()) {
    const auto context = fresh(Steps::one_kernel);
    EXPECT_EQ(launches(*context, c.config, c.data, 2), 1) << c.name;
  }
  TrainerConfig config = mlp_pair(1, 1);
  EXPECT_EQ(launches(*fresh(Steps::one_kernel), config, table(3), 64), 1);
  EXPECT_EQ(launches(*fresh(Steps::one_kernel), config, table(3), 64 + 3), 2);
  config.data.device_bytes = 1;
  EXPECT_EQ(launches(*fresh(Steps::one_kernel), config, table(3), 4), 4) << "streamed";
  config.dtype = DType::f64;
  EXPECT_GT(launches(*fresh(Steps::one_kernel), config, table(3), 2), 100) << "a graph";
  config.dtype = DType::f32;
  Context graphs(ContextOptions{}, simt::make_cuda_ops(0, nullptr, {}));
  EXPECT_GT(launches(graphs, config, table(3), 2), 100) << "one kernel has not been asked for";
}

TEST_F(StepProgram, DoesNotDependOnTheOrderOfThreads) {
  const Dataset gaussians = Dataset::open("25gaussians");
  TrainerConfig toy = make_preset("toy-a", gaussians, 1);
  toy.batch_size = 37;
  const std::vector<Case> chosen = {{"toy-a", toy, gaussians},
                                    {"MLPs", mlp_pair(33, 37), table(3)},
                                    {"vectors", make_preset("vectors", table(16), 1), table(16)}};
  for (Case c : chosen) {
    if (c.name == "vectors") c.config.batch_size = 6;
    std::optional<Outcome> want;
    {
      const ::simt::ScopedOptions options(::simt::Order::forward);
      want = trained(*fresh(Steps::launched), c.config, c.data, {3});
    }
    for (int seed = -1; seed < 4; ++seed) {
      const ::simt::ScopedOptions options(seed < 0 ? ::simt::Order::reverse : ::simt::Order::random,
                                          static_cast<std::uint64_t>(seed < 0 ? 0 : seed));
      EXPECT_TRUE(trained(*fresh(Steps::one_kernel), c.config, c.data, {3}) == *want) << c.name << ", seed " << seed;
    }
  }
}

// An embedding program that captures the stream gets the kernel into its graph.
TEST_F(StepProgram, IsLeftToACallerWhoCaptures) {
  for (const std::int64_t steps_before : {1, 2})  // without a recording, and with one
    expect_captured_steps(options_for(Steps::one_kernel), mlp_pair(3, 5), table(3), steps_before);
}

// Ops recorded by themselves.
class RecordedOps : public StepProgram {
 protected:
  Context context_{ContextOptions{}, simt::make_cuda_ops(0, nullptr, {})};
  DeviceTensor y_ = empty(context_, DType::f32, {300, 7}), z_ = empty(context_, DType::f64, {5});

  std::int64_t launches_of_three(const std::unique_ptr<Recording>& recording) {
    const std::int64_t before = ::simt::launches();
    recording->replay(3);
    return ::simt::launches() - before;
  }
};

TEST_F(RecordedOps, AreOneLaunchWhereTheyCanBe) {
  Ops& ops = context_.ops();
  const auto one = [&](const std::function<void()>& queue) { return ops.record(queue, Replay::one_kernel); };
  const auto fill = [&] { ops.fill(y_, 1); };
  const auto count = [&] { ops.axpy(y_, 1, y_); };  // y <- 2 y
  fill();
  const std::unique_ptr<Recording> program = one([&] {
    count();
    count();
  });
  EXPECT_EQ(download(context_, y_)(299, 6), 1) << "recording runs nothing";
  EXPECT_EQ(launches_of_three(program), 1);
  EXPECT_EQ(download(context_, y_)(0, 0), 64);
  EXPECT_EQ(download(context_, y_)(299, 6), 64);
  program->replay();
  EXPECT_EQ(download(context_, y_)(299, 6), 256);
  program->replay(0);
  EXPECT_EQ(download(context_, y_)(299, 6), 256);

  EXPECT_EQ(launches_of_three(ops.record(fill)), 3) << "a graph was asked for";
  EXPECT_EQ(launches_of_three(one([] {})), 0);
  EXPECT_EQ(launches_of_three(one([&] { ops.fill(z_, 1); })), 3) << "f64";
  EXPECT_EQ(launches_of_three(one([&] {
              ops.fill_bytes(y_.tensor().data(), 0, 4);
              fill();
            })),
            3)
      << "what is no launch";
  // As many blocks as one should play, and one more.
  const DeviceArray<StepState> state(context_, StepState{});
  for (const std::int64_t blocks : {65536, 65537}) {
    const std::unique_ptr<Recording> recording = one([&] {
      for (std::int64_t i = 0; i < blocks; ++i) ops.count_update(state.address(), Player::energy);
    });
    const std::int64_t before = ::simt::launches();
    recording->replay();
    EXPECT_EQ(::simt::launches() - before, blocks == 65536 ? 1 : blocks);
  }
  EXPECT_EQ(state.read().updates[0], 65536 + 65537);
}

// Column sums need memory for partial sums, which cannot be taken while a stream captures.
TEST_F(RecordedOps, MayBeTheFirstWork) {
  for (const Replay replay : {Replay::graph, Replay::one_kernel}) {
    Context fresh(ContextOptions{}, simt::make_cuda_ops(0, nullptr, {}));
    Ops& ops = fresh.ops();
    const DeviceTensor y = empty(fresh, DType::f32, {300, 7}), sums = empty(fresh, DType::f32, {7});
    ops.fill(y, 2);
    const Tensor grad = y;
    const std::unique_ptr<Recording> recording = ops.record(
        [&] {
          ops.bias_activation_reverse({grad, {}}, sums, {}, {grad, {}}, {grad, {}}, {}, {}, {}, {300, 0, 0, 0},
                                      Update::overwrite);
        },
        replay);
    ASSERT_NE(recording, nullptr);
    recording->replay();
    EXPECT_EQ(download(fresh, sums)(0, 6), 600);
  }
}

TEST_F(RecordedOps, RefuseToWait) {
  Ops& ops = context_.ops();
  float value = 0;
  const auto address = y_.tensor().data();
  for (const std::function<void()>& waits : std::vector<std::function<void()>>{
           [&] { ops.copy_bytes_to_host(&value, address, 4); }, [&] { ops.copy_bytes_to_device(address, &value, 4); },
           [&] { ops.synchronize(); }, [] { throw InvalidArgument("of the queue itself"); }}) {
    for (const Replay replay : {Replay::one_kernel, Replay::graph}) {
      EXPECT_THROW(ops.record(waits, replay), Error);
      ops.fill(y_, 3);  // nothing is recorded any more
      EXPECT_EQ(download(context_, y_)(0, 0), 3);
      ops.fill(y_, 0);
    }
  }
}

#endif

}  // namespace
}  // namespace bracket::test
