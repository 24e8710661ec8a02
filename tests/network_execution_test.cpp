// Passes that merge neighbouring layers against passes that carry out one layer after the other: the same outputs,
// tangents, adjoints and parameter gradients to rounding, parameters and files untouched.
#include <algorithm>
#include <cmath>

#include "tests/network_execution_cases.h"

namespace bracket::test {
namespace {

void expect_close(const Outcome& got, const Outcome& want, const Outcome& sizes, double limit) {
  ASSERT_EQ(got.parts.size(), want.parts.size());
  for (std::size_t k = 0; k < want.parts.size(); ++k) {
    const auto& [name, values] = want.parts[k];
    ASSERT_EQ(got.parts[k].first, name);
    ASSERT_EQ(got.parts[k].second.size(), values.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_NEAR(got.parts[k].second[i], values[i], limit * sizes.parts[k].second[i]) << name << ' ' << i;
  }
}

StackedFunctional rounded(StackedFunctional f) {
  for (HostMatrix* m : {&f.x, &f.tangents, &f.cotangent, &f.tangent_cotangent}) *m = m->rounded(DType::f32);
  return f;
}

/// An affine network computes sums of products of parameters, statistics and arguments. With every number replaced by
/// its size, and each running mean, which is subtracted, by minus its size, it computes the sums of the sizes of those
/// products.
Outcome sizes_of(const NetworkOnDevice& n, Context& context, StackedFunctional f) {
  NetworkOnDevice absolute = make(context, n.network().spec(), DType::f64, kPlain);
  std::vector<double> values = n.values(), buffers = n.buffers();
  for (double& v : values) v = std::abs(v);
  for (const ParameterInfo& info : n.network().parameters())
    if (info.name.ends_with("running_mean"))
      for (std::int64_t i = info.offset; i < info.offset + info.size(); ++i)
        buffers[static_cast<std::size_t>(i)] = -std::abs(buffers[static_cast<std::size_t>(i)]);
  absolute.set_values(values);
  absolute.set_buffers(buffers);
  for (HostMatrix* m : {&f.x, &f.tangents, &f.cotangent, &f.tangent_cotangent})
    for (double& v : m->values) v = std::abs(v);
  return outcome_of(absolute, f);
}

/// Roundings on the way to any number: a product with a weight sums as many terms as a row or a column of it has, a
/// weight's gradient one per row and pixel, a box or a window 25 at most; a few more per layer.
double roundings(const NetworkOnDevice& n, const StackedFunctional& f) {
  std::int64_t count = (f.x.rows + f.tangents.rows) * std::max(n.network().input_size(), n.network().values_per_row());
  for (const ParameterInfo& info : n.network().parameters())
    if (info.shape.size() >= 2) count += 2 * (info.size() / info.shape[0] + info.size() / info.shape[1] + 2 * 25 + 16);
  return static_cast<double>(count);
}

class AffineExecution : public ::testing::TestWithParam<Case> {
 protected:
  Context& context() { return device_.context(); }

 private:
  TestDevice device_{"cpu"};
};

TEST_P(AffineExecution, IsAtWork) {
  const Network plain(GetParam().spec, DType::f64, kPlain), merged(GetParam().spec, DType::f64, GetParam().only);
  if (GetParam().only.merge_resampling) {
    EXPECT_LT(merged.flops_per_row(), plain.flops_per_row());
  } else {
    EXPECT_EQ(merged.flops_per_row(), plain.flops_per_row());
  }
  EXPECT_EQ(merged.composition_flops() > 0, GetParam().only.compose_linear);
}

INSTANTIATE_TEST_SUITE_P(Layers, AffineExecution, ::testing::ValuesIn(affine_cases()), case_name);

class Execution : public ::testing::TestWithParam<Case> {
 protected:
  NetworkOnDevice network(const NetworkExecution& execution = {}) {
    NetworkOnDevice n = make(device_.context(), GetParam().spec, DType::f64, execution);
    n.further = kManyRows;
    return n;
  }

 private:
  TestDevice device_{"cpu"};
};

TEST_P(Execution, MatchesCentralDifferences) {
  for (const bool tangents : {false, true}) {
    NetworkOnDevice n = network();
    expect_gradients_match(n, tangents, PassMode::inference);
  }
}

TEST_P(Execution, ItsPassesAgree) {
  NetworkOnDevice n = network();
  expect_adjoint_identity(n);
  expect_outputs_alone_equal_those_of_passes(n);
  expect_pull_equals_reverse(n, 1e-12);
  expect_tangents_alone_equal_a_reverse_pass(n);
  expect_gradients_accumulate(n);
}

// Starting values, names, places and orders are those of the layers.
TEST_P(Execution, LeavesParametersAlone) {
  const NetworkOnDevice merged = network(), plain = network(kPlain);
  EXPECT_EQ(merged.values(), plain.values());
  EXPECT_EQ(merged.buffers(), plain.buffers());
  const Network &a = merged.network(), &b = plain.network();
  EXPECT_EQ(a.value_elements(), b.value_elements());
  EXPECT_EQ(a.buffer_elements(), b.buffer_elements());
  ASSERT_EQ(a.parameters().size(), b.parameters().size());
  for (std::size_t i = 0; i < a.parameters().size(); ++i) {
    EXPECT_EQ(a.parameters()[i].name, b.parameters()[i].name);
    EXPECT_EQ(a.parameters()[i].offset, b.parameters()[i].offset);
  }
  EXPECT_EQ(a.has_batch_norm(), b.has_batch_norm());
  EXPECT_EQ(a.has_training_state(), b.has_training_state());
  EXPECT_EQ(a.piecewise_linear(), b.piecewise_linear());
  EXPECT_EQ(a.injective_by_construction(), b.injective_by_construction());
  EXPECT_EQ(a.output_image(), b.output_image());
}

INSTANTIATE_TEST_SUITE_P(Layers, Execution, ::testing::ValuesIn(all_cases()), case_name);

class ExecutionDevices : public OpsTest {};

// Every number of an affine network: both executions are off by `roundings` times the sum of the sizes of its terms.
TEST_P(ExecutionDevices, AffineNetworksAgreeToRounding) {
  if (IsSkipped() || HasFailure()) return;
  const TestDevice reference("cpu");
  for (const Case& item : affine_cases()) {
    SCOPED_TRACE(item.name);
    for (const DType dtype : {DType::f32, DType::f64}) {
      NetworkOnDevice exact = make(reference.context(), item.spec, DType::f64, kPlain);
      NetworkOnDevice merged = make(context(), item.spec, dtype, item.only);
      NetworkOnDevice plain = make(context(), item.spec, dtype, kPlain);
      exact.set_values(merged.values());
      exact.set_buffers(merged.buffers());
      const StackedFunctional f = rounded(functional(item.spec, exact.network().output_size(), true));
      const Outcome want = outcome_of(exact, f), sizes = sizes_of(exact, reference.context(), f);
      const double limit = 2 * roundings(exact, f) * unit_roundoff(dtype);
      const Outcome got = outcome_of(merged, f);
      EXPECT_EQ(got.form, item.only.compose_linear    ? PassForm::linear_composed
                          : item.only.fold_batch_norm ? PassForm::norm_folded
                                                      : PassForm::layers);
      expect_close(got, want, sizes, limit);
      expect_close(outcome_of(plain, f), want, sizes, limit);
      NetworkOnDevice all = make(context(), item.spec, dtype, {});
      expect_close(outcome_of(all, f), want, sizes, limit);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ExecutionDevices, ::testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace bracket::test
