// Kernel launches as the executor counts them: of the iterations of the Jacobian estimators beside their products with
// J and J^T, and of whole training steps. What is replayed as one graph costs its launches still.
#include "bracket/preset.h"
#include "bracket/singular_values.h"
#include "bracket/trace_estimators.h"
#include "bracket/trainer.h"
#include "simt/executor.h"
#include "tests/jacobian_fixture.h"
#include "tests/network_fixture.h"

namespace bracket::test {
namespace {

constexpr std::int64_t kInputs = 30;
constexpr std::int64_t kOutputs = 40;

class Launches : public ::testing::TestWithParam<DType> {
 protected:
  using Work = std::function<void(Ops&, Arena&, const JacobianOperator&)>;

  Context& context() { return device_.context(); }

  std::int64_t of(const Work& work) {
    auto engine = test_engine(1);
    const CallbackJacobian jacobian = matrix_jacobian(
        {normal_matrix(kOutputs, kInputs, engine), normal_matrix(kOutputs, kInputs, engine)}, GetParam());
    Arena arena(context().pool(), 1 << 22);
    const std::int64_t before = ::simt::launches();
    work(context().ops(), arena, jacobian);
    return ::simt::launches() - before;
  }

  /// Of `columns` per sample through J and back, by callbacks, which copy.
  std::int64_t of_products(std::int64_t columns) {
    return of([&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) {
      const Tensor x = arena.allocate(GetParam(), {2 * columns, kInputs});
      const Tensor y = arena.allocate(GetParam(), {2 * columns, kOutputs});
      jacobian.apply(ops, arena, y, x);
      jacobian.apply_transpose(ops, arena, x, y);
    });
  }

  Tensor start(Ops& ops, Arena& arena, std::int64_t block) {
    const Tensor v = arena.allocate(GetParam(), {2 * block, kInputs});
    ops.random_normal(v, {1, RandomStream::jacobian_probe, 0}, nullptr);
    return v;
  }

  TestDevice device_{"simt"};
};

TEST_P(Launches, OfLobpcgAreTwoPerStep) {
  for (const std::int64_t block : {1, 2, 4}) {
    for (const bool preconditioned : {false, true}) {
      const auto steps = [&](std::int64_t count) {
        return of([&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) {
          LobpcgOptions options{count, 0, block};
          if (preconditioned) options.preconditioner = shared_preconditioner(ops, arena, jacobian, 1);
          lobpcg_smallest(ops, arena, jacobian, start(ops, arena, block), options);
        });
      };
      EXPECT_EQ(steps(4) - steps(3) - of_products(block), preconditioned ? 4 : 2) << "block " << block;
    }
  }
}

TEST_P(Launches, OfGolubKahanAreTwoPerStep) {
  const auto steps = [&](std::int64_t count) {
    return of([&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) {
      golub_kahan_extremes(ops, arena, jacobian, start(ops, arena, 1), {count, 0});
    });
  };
  EXPECT_EQ(steps(6) - steps(5) - of_products(1), 2);
}

TEST_P(Launches, OfStochasticVolumesAreTwoPerStepAndOnePerIteration) {
  constexpr std::int64_t kProbes = 3;
  const auto volume = [&](std::int64_t steps, std::int64_t iterations) {
    return of([&](Ops& ops, Arena& arena, const JacobianOperator& jacobian) {
      StochasticVolumeOptions options;
      options.quadrature.steps = steps;
      options.iterations = iterations;
      options.stop_early = false;
      stochastic_log_volume(ops, arena, jacobian,
                            make_probes(ops, arena, jacobian, {ProbeKind::rademacher, kProbes, 1}), options);
    });
  };
  EXPECT_EQ(volume(6, 4) - volume(5, 4) - of_products(kProbes), 2);
  EXPECT_EQ(volume(5, 5) - volume(5, 4) - of_products(kProbes), 1);
}

INSTANTIATE_TEST_SUITE_P(Precisions, Launches, ::testing::Values(DType::f32, DType::f64),
                         [](const auto& precision) { return std::string("simt_") + dtype_name(precision.param); });

// Biases and non-linearities behind products on tensor cores take no launch; a pass with tangents then takes two
// products per layer, in place of one and an activation.
TEST(ProductLaunches, EpiloguesTakeNone) {
  const TestDevice device("simt");
  Context& context = device.context();
  const NetworkSpec spec{48,
                         {LinearSpec{64}, ActivationSpec{Activation::relu}, LinearSpec{50},
                          ActivationSpec{Activation::silu}, LinearSpec{40}}};
  constexpr std::int64_t kRows = 40;
  constexpr TangentLayout kLayout{0, kRows, 1};
  struct Counts {
    std::int64_t forward, push, both;
    bool operator==(const Counts&) const = default;
  };
  const auto counts = [&](MathMode mode) {
    const MathScope scope(context.ops(), mode);
    NetworkOnDevice n(context, spec, DType::f32);
    const DeviceTensor x = upload(context, random_matrix(kRows, 48, 1), DType::f32);
    const DeviceTensor tangents = upload(context, random_matrix(kRows, 48, 2), DType::f32);
    PrimalPass pass, again;
    TangentPass pushed, with;
    const auto of = [&](const std::function<void()>& work) {
      const std::int64_t before = ::simt::launches();
      work();
      return ::simt::launches() - before;
    };
    const auto mode_of = PassMode::inference;
    return Counts{of([&] { n.network().forward(context.ops(), n.arena(), pass, n.parameters(), x, mode_of); }),
                  of([&] { n.network().push(context.ops(), n.arena(), pushed, pass, tangents, kLayout); }), of([&] {
                    n.network().forward(context.ops(), n.arena(), again, with, n.parameters(), x, tangents, kLayout,
                                        mode_of);
                  })};
  };
  // Of each layer a product, and an op behind it but for the last one's tangents; the first layer's inputs lie apart.
  EXPECT_EQ(counts(MathMode::fp32), (Counts{3 + 3, 3 + 2, 4 + 3}));
  // Tangents of silu take the value before.
  EXPECT_EQ(counts(MathMode::tf32), (Counts{3, 3 + 1, 2 + (1 + 1) + 2}));
}

// Launches of a step are the same for every step, and no step takes memory after the first.
TEST(TrainingLaunches, AreTheSameEveryStep) {
  const TestDevice device("simt");
  for (const auto& [preset, expected] : {std::pair{"toy-a", 220}, std::pair{"calibrated-2d", 295}}) {
    const Dataset data = Dataset::open("25gaussians");
    TrainerConfig config = make_preset(preset, data, 1);
    config.batch_size = 5;
    Trainer trainer(device.context(), config, data);
    trainer.run(1);
    const std::int64_t allocations = device.context().pool().statistics().upstream_allocations;
    const std::int64_t before = ::simt::launches();
    trainer.run(1);
    EXPECT_EQ(::simt::launches() - before, expected) << preset;
    EXPECT_EQ(device.context().pool().statistics().upstream_allocations, allocations);

    Context unguarded({}, simt::make_cuda_ops(0, nullptr, {}));
    Trainer recorded(unguarded, config, data);
    recorded.run(1);
    const std::int64_t first = ::simt::launches();
    recorded.run(2);
    EXPECT_EQ(::simt::launches() - first, 2 * expected) << preset << ", replayed";
  }
}

}  // namespace
}  // namespace bracket::test
