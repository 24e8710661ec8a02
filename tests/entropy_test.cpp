// The entropy estimators on networks: chunks, the iteration without a Jacobian, derivatives with its direction held.
#include "bracket/entropy.h"

#include "kernels/plan_ops.h"
#include "tests/network_fixture.h"

namespace bracket::test {
namespace {

constexpr std::int64_t kLatents = 5;
constexpr std::int64_t kOutputs = 9;
constexpr std::int64_t kBatch = 7;

NetworkSpec lifting(bool batch_norm = false) {
  LinearSpec hidden{11};
  hidden.bias_bound = 0.5;
  NetworkSpec spec{kLatents, {hidden, ActivationSpec{Activation::tanh}}};
  if (batch_norm) spec.layers.emplace_back(BatchNormSpec{});
  spec.layers.emplace_back(hidden);
  spec.layers.emplace_back(ActivationSpec{Activation::silu});
  spec.layers.emplace_back(LinearSpec{kOutputs});
  return spec;
}

struct Estimate {
  HostMatrix x, value, score, product, direction;
  std::vector<double> gradient;
};

class EntropyTest : public OpsTest {
 protected:
  /// Everything a step asks of an estimator. The gradient is that of <cotangent, G> - 0.3 sum h.
  Estimate estimate(NetworkOnDevice& n, const HostMatrix& z, const EntropyConfig& config) {
    Ops& o = n.context().ops();
    const DType dtype = n.network().dtype();
    n.arena().rewind(0);
    const std::int64_t rows = z.rows;
    const DeviceTensor latent = upload(n.context(), z, dtype), v = upload(n.context(), start(rows), dtype);
    const DeviceTensor probe = upload(n.context(), random_matrix(rows, kLatents, 3), dtype);
    const DeviceTensor cotangent = upload(n.context(), random_matrix(rows, kOutputs, 4), dtype);
    const DeviceTensor score = empty_matrix(n.context(), dtype, rows, kLatents);
    const DeviceTensor product = empty_matrix(n.context(), dtype, rows, kOutputs);
    EntropyPass pass;
    entropy_forward(o, n.arena(), pass, n.network(), n.parameters(), latent, config, v);
    entropy_score(o, n.arena(), score, pass, n.network());
    jacobian_product(o, n.arena(), product, pass, n.network(), probe);
    ReverseRequest request;
    request.grad_parameters = n.gradient();
    entropy_reverse(o, n.arena(), pass, n.network(), cotangent, -0.3, request);
    return {download(n.context(), pass.primal.output()),
            download(n.context(), pass.value),
            download(n.context(), score),
            download(n.context(), product),
            download(n.context(), v),
            to_host(o, n.gradient())};
  }
  static HostMatrix start(std::int64_t rows) { return random_matrix(rows, kLatents, 2); }
  static double largest(const std::vector<double>& values) {
    double result = 0;
    for (const double value : values) result = std::max(result, std::abs(value));
    return result;
  }
};

// Chunks change only which rows share a matrix product, hence the rounding of a few hundred terms. The Cholesky factor
// of a Gram matrix of condition 1e4 at most amplifies it by that.
TEST_P(EntropyTest, ChunksGiveTheSameEstimate) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const bool batch_norm : {false, true}) {
      NetworkOnDevice n(context(), lifting(batch_norm), dtype);
      n.perturb(0.1);
      const HostMatrix z = random_matrix(kBatch, kLatents, 1, -2, 2);
      for (const EntropyEstimator estimator : {EntropyEstimator::exact, EntropyEstimator::min_singular}) {
        const Estimate whole = estimate(n, z, {estimator});
        for (const std::int64_t chunk : {1, 2, 3, 6, 7, 100}) {
          SCOPED_TRACE("chunk " + std::to_string(chunk));
          const Estimate parts = estimate(n, z, {estimator, 2, false, chunk});
          const double limit = 1e4 * 100 * unit_roundoff(dtype);
          EXPECT_MATRICES_CLOSE(parts.x, whole.x, absolute_limit(100 * unit_roundoff(dtype)));
          EXPECT_MATRICES_CLOSE(parts.value, whole.value, absolute_limit(limit));
          EXPECT_MATRICES_CLOSE(parts.product, whole.product, absolute_limit(100 * unit_roundoff(dtype)));
          EXPECT_MATRICES_CLOSE(parts.score, whole.score, absolute_limit(limit * largest(whole.score.values)));
          EXPECT_MATRICES_CLOSE(host_vector(parts.gradient), host_vector(whole.gradient),
                                absolute_limit(limit * largest(whole.gradient)));
        }
      }
    }
  }
}

TEST_P(EntropyTest, AnEmptyBatchHasNoEstimate) {
  NetworkOnDevice n(context(), lifting(), DType::f64);
  for (const EntropyEstimator estimator :
       {EntropyEstimator::exact, EntropyEstimator::min_singular, EntropyEstimator::lobpcg}) {
    const Estimate none = estimate(n, HostMatrix(0, kLatents), {estimator});
    EXPECT_EQ(none.value.rows, 0);
    for (const double g : none.gradient) EXPECT_EQ(g, 0);
  }
}

// mu >= s_1 whatever the number of steps, smaller with more of them, and s_1 in the end.
TEST_P(EntropyTest, LobpcgComesDownToTheSmallestSingularValue) {
  NetworkOnDevice n(context(), lifting(true), DType::f64);
  n.perturb(0.1);
  const HostMatrix z = random_matrix(kBatch, kLatents, 1, -2, 2);
  const Estimate smallest = estimate(n, z, {EntropyEstimator::min_singular});
  HostMatrix before(kBatch, 1, std::numeric_limits<double>::infinity());
  for (const std::int64_t steps : {1, 2, 3, 30}) {
    const Estimate now = estimate(n, z, {EntropyEstimator::lobpcg, steps});
    for (std::int64_t i = 0; i < kBatch; ++i) {
      // A few hundred roundings of J v, relative to the smallest singular value (condition below 1e2).
      EXPECT_GE(now.value(i, 0), smallest.value(i, 0) - 1e-11) << steps << " steps";
      EXPECT_LE(now.value(i, 0), before(i, 0) + 1e-11) << steps << " steps";
    }
    before = now.value;
    EXPECT_MATRICES_CLOSE(now.product, smallest.product, absolute_limit(1e-13));
    EXPECT_MATRICES_CLOSE(now.x, smallest.x, absolute_limit(1e-13));
    if (steps < 30) continue;
    EXPECT_MATRICES_CLOSE(now.value, smallest.value, absolute_limit(1e-8));
    EXPECT_MATRICES_CLOSE(now.score, smallest.score, absolute_limit(1e-4 * largest(smallest.score.values)));
  }
}

// The steps start where they ended: the value of a second batch of the same latents is below that of the first.
TEST_P(EntropyTest, LobpcgReturnsWhereItEnded) {
  NetworkOnDevice n(context(), lifting(), DType::f64);
  n.perturb(0.1);
  const DeviceTensor z = upload(context(), random_matrix(kBatch, kLatents, 1, -2, 2));
  const DeviceTensor v = upload(context(), start(kBatch));
  const EntropyConfig once{EntropyEstimator::lobpcg, 1};
  EntropyPass first, second;
  entropy_forward(ops(), n.arena(), first, n.network(), n.parameters(), z, once, v);
  const HostMatrix middle = download(context(), v);
  for (std::int64_t i = 0; i < kBatch; ++i) {
    double squares = 0;
    for (std::int64_t j = 0; j < kLatents; ++j) squares += middle(i, j) * middle(i, j);
    EXPECT_NEAR(squares, 1, 1e-14);
  }
  entropy_forward(ops(), n.arena(), second, n.network(), n.parameters(), z, once, v);
  const HostMatrix h = download(context(), first.value), better = download(context(), second.value);
  for (std::int64_t i = 0; i < kBatch; ++i) EXPECT_LT(better(i, 0), h(i, 0)) << i;
}

// d columns by splines and staircases in turn, with rotations and permutations between them.
NetworkSpec triangular_generator(std::int64_t d) {
  LinearSpec square{d};
  square.identity_start = true;
  NetworkSpec spec{d, {square}};
  const std::int64_t half = d / 2;
  spec.layers.emplace_back(RationalQuadraticCouplingSpec{0, half, 4, {8}, 3, 0.02, 0.02, 0.05});
  spec.layers.emplace_back(RotationSpec{7});
  spec.layers.emplace_back(MonotoneCouplingSpec{half, d - half, 4, {8}, 3, 2});
  spec.layers.emplace_back(PermutationSpec{true, 8});
  spec.layers.emplace_back(RationalQuadraticCouplingSpec{half, d - half, 4, {8}, 3, 0.02, 0.02, 0.05});
  spec.layers.emplace_back(square);
  return spec;
}

// What one knows from the factors of J and the other from J itself. Of six layers h, the score and gradients take a few
// hundred roundings u; `exact` works on a rounded J, whose errors reach log det and J^-1 multiplied by cond(J), below
// 1e3 here, in a sum over d columns.
TEST_P(EntropyTest, TriangularEqualsExact) {
  for (const std::int64_t d : {2, 3, 8, 16}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      SCOPED_TRACE(std::to_string(d) + " columns in " + dtype_name(dtype));
      NetworkOnDevice n(context(), triangular_generator(d), dtype);
      n.perturb(0.2);
      Ops& o = ops();
      const DeviceTensor z = upload(context(), random_matrix(kBatch, d, 1, -2, 2), dtype);
      const DeviceTensor probe = upload(context(), random_matrix(kBatch, d, 3), dtype);
      const DeviceTensor cotangent = upload(context(), random_matrix(kBatch, d, 4), dtype);
      struct Result {
        std::vector<double> value, score, product, score_dot, gradient, grad_z, volume_gradient;
      };
      const auto estimate = [&](EntropyEstimator estimator) {
        n.arena().rewind(0);
        EntropyPass pass;
        entropy_forward(o, n.arena(), pass, n.network(), n.parameters(), z, {estimator});
        const Tensor score = n.arena().allocate(dtype, {kBatch, d}), product = n.arena().allocate(dtype, {kBatch, d});
        const Tensor score_dot = n.arena().allocate(dtype, {kBatch}), grad_z = n.arena().allocate(dtype, {kBatch, d});
        entropy_score(o, n.arena(), score, pass, n.network());
        entropy_probe(o, n.arena(), product, score_dot, pass, n.network(), probe);
        ReverseRequest request;
        request.grad_parameters = n.gradient();
        request.grad_input = grad_z;
        const DeviceTensor seed = upload(context(), download(context(), cotangent), dtype);  // may be overwritten
        entropy_reverse(o, n.arena(), pass, n.network(), seed, -0.3, request);
        const std::vector<double> gradient = to_host(o, n.gradient()), of_latents = to_host(o, grad_z);
        entropy_reverse(o, n.arena(), pass, n.network(), {}, 2, request);  // of the log-volume alone
        return Result{to_host(o, pass.value),  to_host(o, score), to_host(o, product),
                      to_host(o, score_dot),   gradient,          of_latents,
                      to_host(o, n.gradient())};
      };
      const Result exact = estimate(EntropyEstimator::exact), layers = estimate(EntropyEstimator::triangular);
      const double limit = 1e3 * 100 * std::sqrt(static_cast<double>(d)) * unit_roundoff(dtype);
      for (const auto& [want, got, name] :
           {std::tuple{&exact.value, &layers.value, "value"}, std::tuple{&exact.score, &layers.score, "score"},
            std::tuple{&exact.product, &layers.product, "product"},
            std::tuple{&exact.score_dot, &layers.score_dot, "score dot"},
            std::tuple{&exact.gradient, &layers.gradient, "gradient"},
            std::tuple{&exact.grad_z, &layers.grad_z, "gradient in z"},
            std::tuple{&exact.volume_gradient, &layers.volume_gradient, "volume gradient"}}) {
        ASSERT_EQ(want->size(), got->size());
        const double size = 1 + largest(*want);
        for (std::size_t i = 0; i < want->size(); ++i) ASSERT_NEAR((*got)[i], (*want)[i], limit * size) << name << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, EntropyTest, ::testing::ValuesIn(test_devices()), device_name);

// d log(|J v| / |v|) of every sample with v held: what the derivatives of lobpcg mean.
HostMatrix volumes_along(NetworkOnDevice& n, const HostMatrix& z, const HostMatrix& v) {
  n.arena().rewind(0);
  PrimalPass pass;
  TangentPass tangents;
  Ops& ops = n.context().ops();
  n.network().forward(ops, n.arena(), pass, n.parameters(), upload(n.context(), z), PassMode::inference);
  const DeviceTensor directions = upload(n.context(), v);
  n.network().push(ops, n.arena(), tangents, pass, directions, {0, z.rows, 1});
  const HostMatrix image = download(n.context(), tangents.output());
  HostMatrix h(z.rows, 1);
  for (std::int64_t i = 0; i < z.rows; ++i) {
    double length = 0, norm = 0;
    for (std::int64_t j = 0; j < image.cols; ++j) length += image(i, j) * image(i, j);
    for (std::int64_t j = 0; j < v.cols; ++j) norm += v(i, j) * v(i, j);
    h(i, 0) = static_cast<double>(v.cols) / 2 * std::log(length / norm);
  }
  return h;
}

// Fourth-order differences, step 3e-5, as in training_gradient_test.cpp; one step of lobpcg in five dimensions is far
// from converged.
TEST(LobpcgDerivatives, MatchCentralDifferencesWithTheDirectionHeld) {
  constexpr double kStep = 3e-5, kWorst = 1e-6, kFactor = -0.3;
  TestDevice device("cpu");
  Context& context = device.context();
  for (const bool batch_norm : {false, true}) {
    NetworkOnDevice n(context, lifting(batch_norm), DType::f64);
    n.perturb(0.1);
    HostMatrix z = random_matrix(kBatch, kLatents, 1, -1.5, 1.5);
    const DeviceTensor latent = upload(context, z), v = upload(context, random_matrix(kBatch, kLatents, 2));
    const DeviceTensor grad_z = empty_matrix(context, DType::f64, kBatch, kLatents);
    EntropyPass pass;
    entropy_forward(context.ops(), n.arena(), pass, n.network(), n.parameters(), latent, {EntropyEstimator::lobpcg, 1},
                    v);
    const HostMatrix direction = download(context, v), value = download(context, pass.value);
    ReverseRequest request;
    request.grad_parameters = n.gradient();
    request.grad_input = grad_z;
    entropy_reverse(context.ops(), n.arena(), pass, n.network(), {}, kFactor, request);
    const HostMatrix in_latents = download(context, grad_z);
    const std::vector<double> in_parameters = to_host(context.ops(), n.gradient());
    EXPECT_MATRICES_CLOSE(volumes_along(n, z, direction), value, absolute_limit(1e-12));

    double scale = 0;
    for (const double g : in_parameters) scale = std::max(scale, std::abs(g));
    WorstError error(1e-3 * scale);
    const std::vector<double> centre = n.values();
    for (const ParameterInfo& info : n.network().parameters()) {
      if (info.buffer) continue;
      const std::int64_t stride = std::max<std::int64_t>(1, info.size() / 8);
      for (std::int64_t i = info.offset; i < info.offset + info.size(); i += stride) {
        const double difference = central_difference(
            [&](double h) {
              std::vector<double> moved = centre;
              moved[static_cast<std::size_t>(i)] += h;
              n.set_values(moved);
              double sum = 0;
              for (const double volume : volumes_along(n, z, direction).values) sum += kFactor * volume;
              return sum;
            },
            kStep);
        error.add(in_parameters[static_cast<std::size_t>(i)], difference, info.name);
      }
    }
    n.set_values(centre);
    EXPECT_LE(error.worst(), kWorst) << error.where();

    double latent_scale = 0;
    for (const double g : in_latents.values) latent_scale = std::max(latent_scale, std::abs(g));
    WorstError latent_error(1e-3 * latent_scale);
    for (std::int64_t i = 0; i < kBatch; ++i) {
      for (std::int64_t j = 0; j < kLatents; ++j) {
        const double at = z(i, j);
        const double difference = central_difference(
            [&](double h) {
              z(i, j) = at + h;
              return kFactor * volumes_along(n, z, direction)(i, 0);
            },
            kStep);
        z(i, j) = at;
        latent_error.add(in_latents(i, j), difference, "latent " + std::to_string(i));
      }
    }
    EXPECT_LE(latent_error.worst(), kWorst) << latent_error.where();
  }
}

std::int64_t planned_bytes(const Network& network, std::int64_t rows, const EntropyConfig& config) {
  PlanOps plan;
  Arena arena;
  const Tensor values(plan.allocate_memory(1), DType::f32, {network.value_elements()});
  const Tensor buffers(plan.allocate_memory(1), DType::f32, {network.buffer_elements()});
  const Tensor z = arena.allocate(DType::f32, {rows, network.input_size()});
  const Tensor gradient(plan.allocate_memory(1), DType::f32, {network.value_elements()});
  EntropyPass pass;
  entropy_forward(plan, arena, pass, network, {values, buffers}, z, config, z);
  ReverseRequest request;
  request.grad_parameters = gradient;
  entropy_reverse(plan, arena, pass, network, {}, 2, request);
  return arena.high_water_bytes();
}

// 64 latents of a network with 20,000 activations per row: J and its cotangents take 2 x 64 x 64 x 100 values, the
// activations of all tangents 200 times that.
TEST(EntropyMemory, ChunksBoundTheActivationsOfTangents) {
  const Network network({64, {LinearSpec{10000}, ActivationSpec{Activation::tanh}, LinearSpec{100}}}, DType::f32);
  const std::int64_t rows = 64, all = planned_bytes(network, rows, {EntropyEstimator::exact, 2, false, rows});
  const std::int64_t one = planned_bytes(network, rows, {EntropyEstimator::exact, 2, false, 1});
  const std::int64_t automatic = planned_bytes(network, rows, {});
  const std::int64_t activations = 64 * 64 * network.values_per_row() * 4;
  EXPECT_GT(all, activations);
  EXPECT_LT(one, activations / 10);
  EXPECT_GT(automatic, one);
  // 256 MiB of activations, once more for their adjoints, and the rest.
  EXPECT_LT(automatic, (std::int64_t{2} * 256 + 64) << 20);
}

TEST(EntropyConfigs, AreChecked) {
  TestDevice device("cpu");
  NetworkOnDevice n(device.context(), lifting(), DType::f64);
  const DeviceTensor z = upload(device.context(), random_matrix(4, kLatents, 1));
  const DeviceTensor v = upload(device.context(), random_matrix(3, kLatents, 1));
  const auto refused = [&](const EntropyConfig& config, Tensor direction) {
    EntropyPass pass;
    EXPECT_THROW(
        entropy_forward(device.context().ops(), n.arena(), pass, n.network(), n.parameters(), z, config, direction),
        InvalidArgument);
  };
  refused({EntropyEstimator::lobpcg}, {});
  refused({EntropyEstimator::lobpcg}, v);  // 3 directions for 4 latents
  refused({EntropyEstimator::lobpcg, 0}, z);
  refused({EntropyEstimator::exact, 2, false, -1}, {});
  refused({EntropyEstimator::triangular}, {});  // of a generator whose layers do not know their log-volume
  EntropyPass pass;
  entropy_forward(device.context().ops(), n.arena(), pass, n.network(), n.parameters(), z, {});
  ReverseRequest request;
  request.grad_tangent_input = z;
  EXPECT_THROW(entropy_reverse(device.context().ops(), n.arena(), pass, n.network(), {}, 1, request), InvalidArgument);
}

TEST(EntropyNames, ComeBack) {
  for (const EntropyEstimator e : {EntropyEstimator::exact, EntropyEstimator::min_singular, EntropyEstimator::lobpcg,
                                   EntropyEstimator::triangular}) {
    EXPECT_EQ(entropy_estimator_from_name(entropy_estimator_name(e)), e);
  }
  EXPECT_STREQ(entropy_certificate(EntropyEstimator::exact), "exact");
  EXPECT_STREQ(entropy_certificate(EntropyEstimator::min_singular), "certified");
  EXPECT_STREQ(entropy_certificate(EntropyEstimator::lobpcg), "optimistic");
  EXPECT_STREQ(entropy_certificate(EntropyEstimator::triangular), "exact");
  EXPECT_THROW(entropy_estimator_from_name("lobpgc"), InvalidArgument);
}

}  // namespace
}  // namespace bracket::test
