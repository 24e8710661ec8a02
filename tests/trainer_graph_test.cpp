// A training step recorded as a CUDA graph and replayed.
#include <memory>
#include <sstream>
#include <string>

#include "tests/trainer_fixture.h"
#ifdef BRACKET_TEST_SIMT
#include "tests/captured_steps.h"
#endif

namespace bracket::test {
namespace {

class TrainerGraphDevices : public OpsTest {};

// A step recorded as a graph and replayed, with the data on the device and streamed to it, against launches one by one.
TEST_P(TrainerGraphDevices, ReplayedStepsHaveTheSameBits) {
  if (IsSkipped() || HasFailure()) return;
  const auto unguarded = [&](bool graphs) {
    ContextOptions options;
    options.graphs = graphs;
    const std::string name = (std::ostringstream() << GetParam()).str();
    if (name == "simt") return std::make_unique<Context>(options, simt::make_cuda_ops(0, nullptr, {}));
    if (name == "cuda") options.device = {DeviceKind::cuda, 0};
    return std::make_unique<Context>(options);
  };
  for (TrainerConfig config : {small_config(), normalised_config(), estimated_config()}) {
    for (const std::int64_t device_bytes : {0, 1}) {
      config.data.device_bytes = device_bytes;
      const auto a = unguarded(true), b = unguarded(false);
      EXPECT_TRUE(a->graphs());
      Trainer replayed(*a, config, table_for(config)), launched(*b, config, table_for(config));
      replayed.run(1);
      EXPECT_EQ(replayed.step_form(), StepForm::launches) << "whatever a capture refuses happens here";
      replayed.run(4);
      launched.run(5);
      EXPECT_EQ(launched.step_form(), StepForm::launches);
      const std::string name = (std::ostringstream() << GetParam()).str();
      EXPECT_EQ(replayed.step_form(), name == "cpu" ? StepForm::launches : StepForm::graph);
      const TrainerSnapshot middle = replayed.snapshot();
      EXPECT_EQ(bytes_of(middle), bytes_of(launched.snapshot()));
      replayed.run(2);
      const std::vector<std::byte> end = bytes_of(replayed.snapshot());
      replayed.restore(middle);  // the recording outlasts what it works on
      replayed.run(2);
      EXPECT_EQ(bytes_of(replayed.snapshot()), end);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, TrainerGraphDevices, ::testing::ValuesIn(test_devices()), device_name);

#ifdef BRACKET_TEST_SIMT
// A recorded step has the math mode that it was recorded in.
TEST(TrainerGraphs, AreRecordedAnewForAnotherMathMode) {
  TrainerConfig config = small_config();
  config.energy.network.layers.insert(config.energy.network.layers.begin() + 2,
                                      {LinearSpec{48}, ActivationSpec{Activation::silu}, LinearSpec{40}});
  const auto trained = [&](bool graphs, MathMode last) {
    ContextOptions options;
    options.graphs = graphs;
    Context context(options, simt::make_cuda_ops(0, nullptr, {}));
    Trainer trainer(context, config, small_table());
    trainer.run(3);
    context.set_math_mode(last);
    trainer.run(1);
    EXPECT_EQ(trainer.step_form(),
              graphs && last == MathMode::fp32 ? StepForm::graph : StepForm::launches);  // the first of its mode
    trainer.run(1);
    return bytes_of(trainer.snapshot());
  };
  EXPECT_EQ(trained(true, MathMode::bf16), trained(false, MathMode::bf16));
  EXPECT_NE(trained(true, MathMode::bf16), trained(true, MathMode::fp32));
}

// An embedding program that captures the stream gets the step into its own graph.
TEST(TrainerGraphs, AreLeftToACallerWhoCaptures) { expect_captured_steps({}, small_config(), small_table(), 1); }
#endif

}  // namespace
}  // namespace bracket::test
