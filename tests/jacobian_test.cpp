// Jacobian operators: products of a network and of callbacks, portions, checks.
#include "bracket/jacobian.h"

#include <stdexcept>

#include "kernels/plan_ops.h"
#include "tests/jacobian_fixture.h"
#include "tests/network_fixture.h"

namespace bracket::test {
namespace {

constexpr std::int64_t kLatents = 5;
constexpr std::int64_t kOutputs = 9;

NetworkSpec generator() {
  LinearSpec hidden{11};
  hidden.bias_bound = 0.5;
  return {kLatents,
          {hidden, ActivationSpec{Activation::tanh}, BatchNormSpec{}, hidden, ActivationSpec{Activation::silu},
           LinearSpec{kOutputs}}};
}

NetworkSpec image_generator() {
  return {
      3,
      {LinearSpec{2 * 2 * 4}, ActivationSpec{Activation::relu}, UnflattenSpec{4, 2, 2}, ConvTranspose2dSpec{3, 4, 2, 1},
       ActivationSpec{Activation::tanh}, ConvTranspose2dSpec{2, 4, 2, 1}, BatchNormSpec{}}};
}

class JacobianTest : public OpsTest {
 protected:
  struct Products {
    HostMatrix y, x, gram;
  };
  Products products(NetworkOnDevice& n, const HostMatrix& z, const HostMatrix& v, const HostMatrix& c,
                    std::int64_t tangent_bytes) {
    const DType dtype = n.network().dtype();
    n.arena().rewind(0);
    const DeviceTensor latent = upload(context(), z, dtype), direction = upload(context(), v, dtype, 2);
    const DeviceTensor cotangent = upload(context(), c, dtype, 1);
    const NetworkJacobian jacobian(ops(), n.arena(), n.network(), n.parameters(), latent, tangent_bytes);
    const DeviceTensor y = empty_matrix(context(), dtype, v.rows, jacobian.outputs(), 3);
    const DeviceTensor x = empty_matrix(context(), dtype, c.rows, jacobian.inputs(), 1);
    const DeviceTensor gram = empty(context(), DType::f64, {z.rows, jacobian.inputs(), jacobian.inputs()});
    jacobian.apply(ops(), n.arena(), y, direction);
    jacobian.apply_transpose(ops(), n.arena(), x, cotangent);
    jacobian_gram(ops(), n.arena(), gram, jacobian);
    return {download(context(), y), download(context(), x), download(context(), gram)};
  }
};

// Products with rows that lie apart, in any portions; <J v, c> = <v, J^T c>; the Gram matrix is that of J's columns.
// Every one of up to 8 layers rounds what it hands on once: 8 u of |J|_F |x|, on either side of a comparison.
TEST_P(JacobianTest, NetworkProductsAreEachOthersTranspose) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const bool image : {false, true}) {
      NetworkOnDevice n(context(), image ? image_generator() : generator(), dtype);
      n.perturb(0.1);
      const std::int64_t d = n.network().input_size(), D = n.network().output_size();
      const std::int64_t row_bytes = n.network().values_per_row() * dtype_bytes(dtype);
      for (const std::int64_t samples : {0, 1, 3}) {
        for (const std::int64_t columns : {1, 4}) {
          const HostMatrix z = random_matrix(samples, d, 1), v = random_matrix(samples * columns, d, 2);
          const HostMatrix c = random_matrix(samples * columns, D, 3);
          const Products whole = products(n, z, v, c, std::int64_t{1} << 28);
          const double u = 16 * unit_roundoff(dtype);
          for (const std::int64_t bytes : {std::int64_t{1}, 3 * row_bytes, 5 * row_bytes}) {
            const Products parts = products(n, z, v, c, bytes);
            EXPECT_MATRICES_CLOSE(parts.y, whole.y, absolute_limit(u * block_rows(whole.y, 0, whole.y.rows).norm()));
            EXPECT_MATRICES_CLOSE(parts.gram, whole.gram,
                                  absolute_limit(2 * u * block_rows(whole.gram, 0, whole.gram.rows).norm()));
          }
          const HostMatrix identity = [&] {
            HostMatrix m(samples * d, d);
            for (std::int64_t i = 0; i < m.rows; ++i) m(i, i % d) = 1;
            return m;
          }();
          const HostMatrix columns_of_j =
              products(n, z, identity, random_matrix(samples, D, 4), std::int64_t{1} << 28).y;
          for (std::int64_t i = 0; i < samples; ++i) {
            const MatrixXd j = block_rows(columns_of_j, i * d, d).transpose();
            const MatrixXd x = block_rows(v, i * columns, columns), y = block_rows(c, i * columns, columns);
            EXPECT_LE((block_rows(whole.y, i * columns, columns) - x * j.transpose()).norm(), u * x.norm() * j.norm());
            EXPECT_LE((block_rows(whole.x, i * columns, columns) - y * j).norm(), u * y.norm() * j.norm());
            const Eigen::Map<const RowMatrix> gram(whole.gram.values.data() + i * d * d, d, d);
            EXPECT_LE((gram - j.transpose() * j).norm(), 2 * u * j.squaredNorm());
          }
        }
      }
    }
  }
}

TEST_P(JacobianTest, CallbacksComputeOnTheHost) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    auto engine = test_engine(1);
    const std::int64_t n = 3, d = 4, D = 6, columns = 2;
    std::vector<MatrixXd> matrices;
    for (std::int64_t i = 0; i < n; ++i) matrices.push_back(normal_matrix(D, d, engine));
    const CallbackJacobian jacobian = matrix_jacobian(matrices, dtype);
    const HostMatrix v = random_matrix(n * columns, d, 2).rounded(dtype),
                     c = random_matrix(n * columns, D, 3).rounded(dtype);
    const DeviceTensor y = empty_matrix(context(), dtype, n * columns, D, 1),
                       x = empty_matrix(context(), dtype, n * columns, d, 2);
    const DeviceTensor direction = upload(context(), v, dtype, 1), cotangent = upload(context(), c, dtype, 3);
    with_planned_arena(context(), [&](Ops& o, Arena& arena) {
      jacobian.apply(o, arena, y, direction);
      jacobian.apply_transpose(o, arena, x, cotangent);
    });
    const HostMatrix image = download(context(), y), back = download(context(), x);
    for (std::int64_t i = 0; i < n; ++i) {
      const MatrixXd& j = matrices[static_cast<std::size_t>(i)];
      EXPECT_LE((block_rows(image, i * columns, columns) - block_rows(v, i * columns, columns) * j.transpose()).norm(),
                40 * unit_roundoff(dtype));
      EXPECT_LE((block_rows(back, i * columns, columns) - block_rows(c, i * columns, columns) * j).norm(),
                40 * unit_roundoff(dtype));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, JacobianTest, ::testing::ValuesIn(test_devices()), device_name);

TEST(JacobianErrors, AreTyped) {
  const TestDevice device("cpu");
  Context& context = device.context();
  const auto none = [](std::int64_t, std::span<const double>, std::span<double>) {};
  EXPECT_THROW(CallbackJacobian(1, 2, 3, DType::f64, {none, nullptr}), InvalidArgument);
  EXPECT_THROW(CallbackJacobian(1, 0, 3, DType::f64, {none, none}), InvalidArgument);
  EXPECT_THROW(CallbackJacobian(-1, 2, 3, DType::f64, {none, none}), InvalidArgument);
  EXPECT_THROW(CallbackJacobian(1, 2, 3, DType::u8, {none, none}), InvalidArgument);
  const auto thrower = [](std::int64_t, std::span<const double>, std::span<double>) {
    throw std::domain_error("user");
  };
  const CallbackJacobian jacobian(2, 3, 4, DType::f64, {thrower, none});
  Arena arena(context.pool(), 1 << 16);
  const auto tensor = [&](std::int64_t rows, std::int64_t cols) { return arena.allocate(DType::f64, {rows, cols}); };
  EXPECT_THROW(jacobian.apply(context.ops(), arena, tensor(2, 4), tensor(4, 3)), InvalidArgument);
  EXPECT_THROW(jacobian.apply(context.ops(), arena, tensor(3, 4), tensor(3, 3)), InvalidArgument);
  EXPECT_THROW(jacobian.apply(context.ops(), arena, tensor(2, 3), tensor(2, 3)), InvalidArgument);
  EXPECT_THROW(jacobian.apply(context.ops(), arena, {}, tensor(2, 3)), InvalidArgument);
  EXPECT_THROW(jacobian.apply_transpose(context.ops(), arena, arena.allocate(DType::f32, {2, 3}), tensor(2, 4)),
               InvalidArgument);
  EXPECT_THROW(jacobian.apply(context.ops(), arena, tensor(2, 4), tensor(2, 3)), std::domain_error);
  EXPECT_NO_THROW(jacobian.apply(context.ops(), arena, tensor(0, 4), tensor(0, 3)));
  EXPECT_THROW(write_values(context.ops(), tensor(2, 2), std::vector<double>(3)), InvalidArgument);

  NetworkOnDevice n(context, generator(), DType::f64);
  EXPECT_THROW(NetworkJacobian(context.ops(), n.arena(), n.network(), n.parameters(), tensor(2, 4)), InvalidArgument);
  EXPECT_THROW(NetworkJacobian(context.ops(), n.arena(), n.network(), n.parameters(), tensor(2, 5), 0),
               InvalidArgument);
  context.ops().fill(tensor(2, 5), 0);
  const Tensor z = tensor(2, 5);
  context.ops().fill(z, 0);
  const NetworkJacobian network(context.ops(), n.arena(), n.network(), n.parameters(), z);
  ReverseRequest request;
  request.grad_tangent_input = z;
  EXPECT_THROW(network.reverse(context.ops(), n.arena(), tensor(2, 5), tensor(2, 9), 1, request), InvalidArgument);
  EXPECT_THROW(network.reverse(context.ops(), n.arena(), tensor(4, 5), tensor(2, 9), 1, {}), InvalidArgument);
}

// 40 tangents of 20,000 activations in portions of ten rows.
TEST(JacobianMemory, PortionsBoundTheActivations) {
  const Network network({8, {LinearSpec{10000}, ActivationSpec{Activation::tanh}, LinearSpec{100}}}, DType::f32);
  const auto planned_bytes = [&](std::int64_t bytes) {
    PlanOps plan;
    Arena arena;
    const Tensor values(plan.allocate_memory(1), DType::f32, {network.value_elements()});
    const Tensor buffers(plan.allocate_memory(1), DType::f32, {network.buffer_elements()});
    const Tensor z = arena.allocate(DType::f32, {5, 8});
    const NetworkJacobian jacobian(plan, arena, network, {values, buffers}, z, bytes);
    jacobian_columns(plan, arena, arena.allocate(DType::f32, {40, 100}), jacobian);
    return arena.high_water_bytes();
  };
  const std::int64_t row = network.values_per_row() * 4, primal = 5 * row;
  EXPECT_GT(planned_bytes(100 * row), primal + 40 * row);
  EXPECT_LT(planned_bytes(10 * row), primal + 11 * row);
}

TEST(Certificates, HaveNames) {
  EXPECT_STREQ(certificate_name(Certificate::exact), "exact");
  EXPECT_STREQ(certificate_name(Certificate::certified_lower), "certified lower");
  EXPECT_STREQ(certificate_name(Certificate::unbiased), "unbiased");
}

}  // namespace
}  // namespace bracket::test
