// The gradients of both updates and of the entropy estimators, in double against central differences of the losses that
// the updates themselves report.
#include <map>

#include "bracket/entropy.h"
#include "host/training/training_step.h"
#include "tests/network_fixture.h"

namespace bracket::test {
namespace {

// Fourth-order differences, step 3e-5: see network_test.cpp for the error budget; log-volumes of nearly singular
// Jacobians have large higher derivatives, hence the smaller step. Where a network bends between the points of a
// difference there is no derivative to compare: differences over two step lengths then disagree, and are left out.
constexpr double kStep = 3e-5;
constexpr double kWorstRelativeError = 1e-6;

NetworkSpec smooth_energy(std::int64_t inputs) {
  LinearSpec hidden{8};
  hidden.bias_bound = 0.5;
  return {inputs,
          {hidden, ActivationSpec{Activation::silu}, hidden, ActivationSpec{Activation::tanh}, LinearSpec{1},
           ConfinementSpec{-1, 1.0, 5.0, 0.8}}};
}

NetworkSpec coupling_generator() {
  return {2,
          {LinearSpec{2}, MonotoneCouplingSpec{1, 1, 4, {6}, 3, 2}, MonotoneCouplingSpec{0, 1, 4, {6}, 3, 2},
           LinearSpec{2}}};
}

// More than one active and one passive column, fewer passive columns than the 5 tangents of the Jacobian.
NetworkSpec wide_coupling_generator() {
  return {5, {LinearSpec{5}, MonotoneCouplingSpec{0, 2, 3, {6}, 3, 2}, MonotoneCouplingSpec{2, 3, 3, {6}, 3, 2}}};
}

NetworkSpec spline_generator() {
  const RationalQuadraticCouplingSpec first{0, 1, 3, {6}, 3, 0.02, 0.02, 0.05};
  RationalQuadraticCouplingSpec second = first;
  second.active_first = 1;
  second.active_count = 2;
  return {3, {first, RotationSpec{1}, second, PermutationSpec{true, 2}, AffineSpec{{2, 0.5, 1.5}, {0.1, 0, 0}}}};
}

NetworkSpec lifting_generator() {  // D = 4 > d = 2
  LinearSpec hidden{7};
  hidden.bias_bound = 0.5;
  return {2, {hidden, ActivationSpec{Activation::tanh}, LinearSpec{4}}};
}

// Momentum 0 keeps the running statistics where they are: they are constants of every derivative.
NetworkSpec batch_norm_generator() {
  const BatchNormSpec still{0, 1e-5};
  return {2,
          {LinearSpec{6}, ActivationSpec{Activation::tanh}, still, LinearSpec{6}, ActivationSpec{Activation::silu},
           still, LinearSpec{2}}};
}

// A convolutional pair, 4 x 4 pixels of 2 channels from 3 latents, with every kind of image layer.
constexpr ImageShape kSmallImage{2, 4, 4};

// Weights wide enough that the penalty is not lost below the threshold.
NetworkSpec image_energy(Activation function) {
  const ActivationSpec activation{function, 0.1};
  const Conv2dSpec conv{.channels = 3, .kernel = 3, .padding = 1, .deviation = 0.3};
  Conv2dSpec down = conv;
  down.kernel = 4;
  down.stride = 2;
  LinearSpec last{1};
  last.weight_gain = 6;
  return {kSmallImage.size(),
          {conv, activation, down, activation,
           ResidualSpec{{conv, activation, conv, AveragePoolSpec{2}}, {AveragePoolSpec{2}, conv}}, activation,
           SumPoolSpec{1}, FlattenSpec{}, last},
          kSmallImage};
}

// Channels enough that a relu leaves the Jacobian its rank.
NetworkSpec image_generator(Activation function) {
  const BatchNormSpec still{0, 1e-5};
  const ActivationSpec activation{function, 0.1};
  return {3,
          {LinearSpec{12}, UnflattenSpec{12, 1, 1}, UpsampleSpec{2}, still, activation,
           ConvTranspose2dSpec{.channels = 6, .kernel = 4, .stride = 2, .padding = 1}, still, activation,
           ResidualSpec{{Conv2dSpec{.channels = 6, .kernel = 3, .padding = 1}}, {}},
           Conv2dSpec{.channels = 2, .kernel = 3, .padding = 1}, ActivationSpec{Activation::tanh}}};
}

struct Case {
  std::string name;
  NetworkSpec energy, generator;
  EntropyConfig entropy = {};
  PenaltyConfig::Kind penalty = PenaltyConfig::Kind::bidirectional;
  bool bends = false;  ///< holds piecewise-linear functions
  bool reuse = false;
  friend std::ostream& operator<<(std::ostream& out, const Case& item) { return out << item.name; }
};

// With d = 2 two steps of lobpcg span the whole space: v is the singular vector, whose motion the value does not feel,
// so that the update matches differences that let it move. (Short of convergence: entropy_test.cpp, v held.)
std::vector<Case> cases() {
  const EntropyConfig triangular{EntropyEstimator::triangular};
  const EntropyConfig exact, min_singular{EntropyEstimator::min_singular}, lobpcg{EntropyEstimator::lobpcg};
  const EntropyConfig chunks_of_2{EntropyEstimator::exact, 2, false, 2}, ragged{EntropyEstimator::exact, 2, false, 4};
  const PenaltyConfig::Kind bidirectional = PenaltyConfig::Kind::bidirectional, zero_gp = PenaltyConfig::Kind::zero_gp;
  return {
      {"coupling_exact", smooth_energy(2), coupling_generator()},
      {"coupling_min_singular", smooth_energy(2), coupling_generator(), min_singular},
      {"wide_coupling_exact", smooth_energy(5), wide_coupling_generator()},
      {"wide_coupling_min_singular", smooth_energy(5), wide_coupling_generator(), min_singular},
      {"lifting_exact", smooth_energy(4), lifting_generator()},
      {"lifting_min_singular", smooth_energy(4), lifting_generator(), min_singular},
      {"batch_norm_exact", smooth_energy(2), batch_norm_generator()},
      {"batch_norm_min_singular", smooth_energy(2), batch_norm_generator(), min_singular},
      {"zero_gp", smooth_energy(2), coupling_generator(), exact, zero_gp},
      {"zero_gp_batch_norm", smooth_energy(2), batch_norm_generator(), exact, zero_gp},
      {"images_exact", image_energy(Activation::silu), image_generator(Activation::tanh)},
      {"images_min_singular", image_energy(Activation::silu), image_generator(Activation::tanh), min_singular},
      {"images_zero_gp", image_energy(Activation::silu), image_generator(Activation::tanh), exact, zero_gp},
      {"images_piecewise_linear", image_energy(Activation::leaky_relu), image_generator(Activation::relu), exact,
       bidirectional, true},
      {"images_linear_pieces_zero_gp", image_energy(Activation::leaky_relu), image_generator(Activation::relu), exact,
       zero_gp, true},
      {"coupling_triangular", smooth_energy(2), coupling_generator(), triangular},
      {"wide_coupling_triangular", smooth_energy(5), wide_coupling_generator(), triangular},
      {"splines_triangular", smooth_energy(3), spline_generator(), triangular},
      {"zero_gp_triangular", smooth_energy(2), coupling_generator(), triangular, zero_gp},
      {"triangular_reuse", smooth_energy(3), spline_generator(), triangular, bidirectional, false, true},
      {"coupling_lobpcg", smooth_energy(2), coupling_generator(), lobpcg},
      {"batch_norm_lobpcg", smooth_energy(2), batch_norm_generator(), lobpcg},
      {"lifting_chunks", smooth_energy(4), lifting_generator(), chunks_of_2},
      {"batch_norm_ragged_chunks", smooth_energy(2), batch_norm_generator(), ragged},
      {"lifting_reuse", smooth_energy(4), lifting_generator(), exact, bidirectional, false, true},
      {"batch_norm_reuse", smooth_energy(2), batch_norm_generator(), min_singular, bidirectional, false, true},
      {"zero_gp_reuse_chunks", smooth_energy(2), batch_norm_generator(), ragged, zero_gp, false, true},
      {"batch_norm_lobpcg_reuse", smooth_energy(2), batch_norm_generator(), lobpcg, bidirectional, false, true},
      {"images_lobpcg_reuse", image_energy(Activation::silu), image_generator(Activation::tanh), lobpcg, bidirectional,
       false, true},
  };
}

// One training step with learning rate 0, so that parameters stay and the gradients of both players can be read.
class StillStep {
 public:
  StillStep(Context& context, const Case& item, std::int64_t energy_steps = 1)
      : context_(context),
        config_(configuration(item, energy_steps)),
        energy_(context, config_.energy, DType::f64, Player::energy),
        generator_(context, config_.generator, DType::f64, Player::generator),
        state_(context, StepState{}),
        ring_(context, StepRecord{}),
        arena_(context.pool(), std::int64_t{16} << 20) {
    energy_.initialize(context.ops(), test_seed());
    generator_.initialize(context.ops(), test_seed());
    const HostMatrix rows = random_matrix(40, energy_.network.input_size(), 5);
    table_ = upload(context, rows);
    source_.table = table_;
  }

  PlayerBlocks& player(Player which) { return which == Player::energy ? energy_ : generator_; }
  double loss(Player which) {
    const StepRecord record = run();
    return which == Player::energy ? record.loss_energy : record.loss_generator;
  }
  StepRecord run() {
    state_.write({StepState{}});
    TrainingStep{config_, energy_, generator_, source_, state_.address(), ring_.address(), 1, passes_, {}}.run(
        context_.ops(), arena_);
    return ring_.read();
  }
  const TrainerConfig& config() const { return config_; }
  /// mean 2 |x|^2 over batch number `batch` of the table.
  double mean_over_batch(std::int64_t batch) {
    const DeviceTensor x = empty_matrix(context_, DType::f64, config_.batch_size, energy_.network.input_size());
    context_.ops().gather_batch(x, table_, {config_.seed, RandomStream::data, static_cast<std::uint64_t>(batch)},
                                nullptr);
    double sum = 0;
    for (const double value : download(context_, x).values) sum += 2 * value * value;
    return sum / static_cast<double>(config_.batch_size);
  }

 private:
  static TrainerConfig configuration(const Case& item, std::int64_t energy_steps) {
    TrainerConfig c;
    c.energy.network = item.energy;
    c.generator.network = item.generator;
    c.energy.optimizer.lr = c.generator.optimizer.lr = 0;
    c.penalty.kind = item.penalty;
    c.penalty.weight = 0.3;
    c.penalty.threshold = 0.001;
    c.entropy = item.entropy;
    c.entropy_weight = 0.7;
    c.entropy_reuse = item.reuse;
    c.batch_size = 6;
    c.energy_steps = energy_steps;
    c.dtype = DType::f64;
    c.seed = test_seed();
    return c;
  }

  Context& context_;
  TrainerConfig config_;
  PlayerBlocks energy_, generator_;
  DeviceArray<StepState> state_;
  DeviceArray<StepRecord> ring_;
  DeviceTensor table_;
  BatchSource source_;
  StepPasses passes_;
  Arena arena_;
};

// A step on the identity generator and E = 2 |x|^2, where every quantity has a closed form in the random numbers of the
// documented streams: grad E . J v - s . v = 4 z.v - z.v, h = 0.
TEST(UpdateInputs, AreDrawnFromTheirOwnStreams) {
  TestDevice device("cpu");
  LinearSpec zero{1, false}, identity{2, false};
  zero.weight_gain = 0;
  identity.identity_start = true;
  const Case item{"closed_form", {2, {zero, ConfinementSpec{-1, 4, 0, 0}}}, {2, {identity}}};
  for (const std::int64_t energy_steps : {1, 2}) {
    StillStep step(device.context(), item, energy_steps);
    const StepRecord record = step.run();
    const std::int64_t n = step.config().batch_size;
    // Energy update number k draws with step k, the last one is reported; the generator's first draws with step 0.
    const auto last = static_cast<std::uint64_t>(energy_steps - 1);
    const auto draw = [&](RandomStream stream, std::uint64_t at) {
      return normal_values({step.config().seed, stream, at}, 2 * n);
    };
    const std::vector<double> z = draw(RandomStream::energy_latent, last), v = draw(RandomStream::penalty_probe, last);
    const std::vector<double> fresh = draw(RandomStream::generator_latent, 0);
    double energy = 0, penalty = 0, fresh_energy = 0;
    for (std::size_t i = 0; i < z.size(); i += 2) {
      energy += 2 * (z[i] * z[i] + z[i + 1] * z[i + 1]);
      fresh_energy += 2 * (fresh[i] * fresh[i] + fresh[i + 1] * fresh[i + 1]);
      const double residual = 3 * (z[i] * v[i] + z[i + 1] * v[i + 1]);
      penalty += 0.5 * residual * residual;
    }
    const auto count = static_cast<double>(n);
    // A few hundred roundings of terms of the size of the sums.
    EXPECT_NEAR(record.energy_samples, energy / count, 1e-13 * energy);
    EXPECT_NEAR(record.penalty, penalty / count, 1e-13 * penalty);
    EXPECT_NEAR(record.loss_generator, fresh_energy / count, 1e-13 * fresh_energy);
    EXPECT_NEAR(record.log_volume, 0, 1e-15);
    EXPECT_NEAR(record.energy_data, step.mean_over_batch(static_cast<std::int64_t>(last)), 1e-12);
  }
}

// With BatchNorm the energies of fakes are those of the training pass.
TEST(UpdateInputs, FakesComeFromTheTrainingPassOfBatchNorm) {
  TestDevice device("cpu");
  LinearSpec zero{1, false};
  zero.weight_gain = 0;
  const Case item{
      "batch_norm", {2, {zero, ConfinementSpec{-1, 2, 0, 0}}}, {2, {LinearSpec{2}, BatchNormSpec{0, 1e-5}}}};
  StillStep step(device.context(), item, 1);
  const StepRecord record = step.run();
  // Batch statistics give each column mean 0 and variance var / (var + eps): mean |x|^2 is just under 2 whatever z was.
  EXPECT_NEAR(record.energy_samples, 2, 1e-2);
  EXPECT_LT(record.energy_samples, 2);
}

class UpdateGradients : public ::testing::TestWithParam<Case> {};

TEST_P(UpdateGradients, MatchCentralDifferencesOfTheReportedLoss) {
  TestDevice device("cpu");
  for (const Player which : {Player::energy, Player::generator}) {
    StillStep step(device.context(), GetParam());
    const StepRecord record = step.run();
    ASSERT_GT(0.3 * record.penalty, 0.001) << "the hinge is off, so the penalty's gradient would go untested";
    PlayerBlocks& blocks = step.player(which);
    Ops& ops = device.context().ops();
    const std::vector<double> gradient = to_host(ops, blocks.gradient);
    const std::vector<double> start = to_host(ops, blocks.raw.values);
    double largest = 0;
    for (const double v : gradient) largest = std::max(largest, std::abs(v));
    // Differences of a loss of size |f| carry about 10 eps |f| / h of rounding (1.5 by the rule, the rest from the sums
    // in f); smaller derivatives cannot be judged to 1e-6.
    const double magnitude = std::abs(which == Player::energy ? record.loss_energy : record.loss_generator);
    const double rounding = 10 * std::numeric_limits<double>::epsilon() * magnitude / kStep;
    WorstError error(std::max(1e-3 * largest, rounding / kWorstRelativeError));
    std::int64_t compared = 0, bent = 0;
    for (const ParameterInfo& parameter : blocks.network.parameters()) {
      if (parameter.buffer) continue;
      const std::int64_t stride = std::max<std::int64_t>(1, parameter.size() / 6);
      for (std::int64_t i = parameter.offset; i < parameter.offset + parameter.size(); i += stride) {
        const auto moved_loss = [&](double h) {
          std::vector<double> moved = start;
          moved[static_cast<std::size_t>(i)] += h;
          to_device(ops, blocks.raw.values, moved);
          return step.loss(which);
        };
        const double difference = central_difference(moved_loss, kStep);
        if (GetParam().bends) {
          WorstError disagreement(error.floor());
          disagreement.add(central_difference(moved_loss, kStep / 3), difference, "");
          if (disagreement.worst() > kWorstRelativeError) {
            ++bent;
            continue;
          }
        }
        ++compared;
        error.add(gradient[static_cast<std::size_t>(i)], difference, parameter.name);
      }
    }
    EXPECT_LE(bent, compared / 4) << "too few points away from kinks";
    EXPECT_LE(error.worst(), kWorstRelativeError)
        << (which == Player::energy ? "energy " : "generator ") << error.where();
  }
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Recipes, UpdateGradients, ::testing::ValuesIn(cases()), case_name);

class EntropyInLatents : public ::testing::TestWithParam<EntropyEstimator> {};

TEST_P(EntropyInLatents, ScoreMatchesCentralDifferencesOfTheValue) {
  TestDevice device("cpu");
  Context& context = device.context();
  for (const NetworkSpec& spec : {coupling_generator(), lifting_generator()}) {
    if (GetParam() == EntropyEstimator::triangular && spec.layers.size() == 3)
      continue;  // of lifting ones it knows none
    NetworkOnDevice n(context, spec, DType::f64);
    n.perturb(0.1);
    HostMatrix z = random_matrix(5, 2, 9, -1.5, 1.5);
    const auto value = [&](std::int64_t row) {
      n.arena().rewind(0);
      EntropyPass pass;
      entropy_forward(context.ops(), n.arena(), pass, n.network(), n.parameters(), upload(context, z), {GetParam()});
      const double h = to_host(context.ops(), pass.value)[static_cast<std::size_t>(row)];
      return h + 0.5 * (z(row, 0) * z(row, 0) + z(row, 1) * z(row, 1));
    };
    n.arena().rewind(0);
    EntropyPass pass;
    const DeviceTensor device_z = upload(context, z);
    entropy_forward(context.ops(), n.arena(), pass, n.network(), n.parameters(), device_z, {GetParam()});
    const DeviceTensor score = empty_matrix(context, DType::f64, 5, 2);
    entropy_score(context.ops(), n.arena(), score, pass, n.network());
    const HostMatrix s = download(context, score);
    double largest = 0;
    for (const double v : s.values) largest = std::max(largest, std::abs(v));
    WorstError error(1e-3 * largest);
    for (std::int64_t i = 0; i < 5; ++i) {
      for (std::int64_t j = 0; j < 2; ++j) {
        const double centre = z(i, j);
        error.add(s(i, j),
                  central_difference(
                      [&](double h) {
                        z(i, j) = centre + h;
                        return value(i);
                      },
                      kStep),
                  "row " + std::to_string(i));
        z(i, j) = centre;
      }
    }
    EXPECT_LE(error.worst(), kWorstRelativeError) << error.where();
  }
}

std::string estimator_name(const ::testing::TestParamInfo<EntropyEstimator>& info) {
  return entropy_estimator_name(info.param);
}
const auto kEstimators =
    ::testing::Values(EntropyEstimator::exact, EntropyEstimator::min_singular, EntropyEstimator::triangular);
INSTANTIATE_TEST_SUITE_P(Estimators, EntropyInLatents, kEstimators, estimator_name);

TEST(Entropy, MinSingularNeverExceedsTheLogVolume) {
  TestDevice device("cpu");
  NetworkOnDevice n(device.context(), lifting_generator(), DType::f64);
  const DeviceTensor z = upload(device.context(), random_matrix(50, 2, 3, -2, 2));
  EntropyPass exact, smallest;
  entropy_forward(device.context().ops(), n.arena(), exact, n.network(), n.parameters(), z, {});
  entropy_forward(device.context().ops(), n.arena(), smallest, n.network(), n.parameters(), z,
                  {EntropyEstimator::min_singular});
  const HostMatrix h = download(device.context(), exact.value), bound = download(device.context(), smallest.value);
  for (std::int64_t i = 0; i < h.rows; ++i) EXPECT_LE(bound(i, 0), h(i, 0) + 1e-12) << i;
}

TEST(Entropy, LatentLargerThanTheOutputIsRefused) {
  TestDevice device("cpu");
  NetworkOnDevice n(device.context(), {3, {LinearSpec{2}}}, DType::f64);
  EntropyPass pass;
  const DeviceTensor z = upload(device.context(), random_matrix(4, 3, 1));
  EXPECT_THROW(entropy_forward(device.context().ops(), n.arena(), pass, n.network(), n.parameters(), z, {}),
               InvalidArgument);
}

}  // namespace
}  // namespace bracket::test
