// Merged passes of networks whose parameters and arguments are small integers and halves, sigma and the standard
// deviations of BatchNorm powers of two: every product and partial sum is a multiple of a small power of 1/2 with few
// bits. Nothing is rounded, in whatever order it is computed, and merging may not change a bit.
#include <algorithm>
#include <cmath>

#include "tests/network_execution_cases.h"

namespace bracket::test {
namespace {

constexpr double kEpsilon = 1.0 / 1024;  // of BatchNorm, beside a variance of 1 - kEpsilon

void make_exact(std::vector<LayerSpec>& layers) {
  for (LayerSpec& layer : layers) {
    if (auto* const norm = std::get_if<BatchNormSpec>(&layer)) norm->epsilon = kEpsilon;
    if (auto* const activation = std::get_if<ActivationSpec>(&layer)) activation->negative_slope = 0.5;
    if (const auto* const pool = std::get_if<AveragePoolSpec>(&layer); pool && pool->window == 3)
      layer = SumPoolSpec{3};  // a ninth has many bits
    if (auto* const paths = std::get_if<ResidualSpec>(&layer)) {
      make_exact(paths->body);
      make_exact(paths->skip);
    }
  }
}

NetworkSpec exact(NetworkSpec spec) {
  make_exact(spec.layers);
  return spec;
}

/// -1, 0 or 1.
HostMatrix signs(std::int64_t rows, std::int64_t cols, std::uint64_t salt) {
  HostMatrix m = random_matrix(rows, cols, salt, -1.5, 1.5);
  for (double& x : m.values) x = std::round(x);
  return m;
}

/// Small integers in `values`, BatchNorm's scales and slopes of prelu among +-1/2 and +-1. A spectrally normalised
/// weight is 2 in its first row and column and 0 beside it there: 2 is a singular value, whose vectors, in the buffers,
/// a power iteration leaves as they are.
void set_exact_values(NetworkOnDevice& n) {
  std::vector<double> values = n.values(), buffers = n.buffers();
  const std::vector<ParameterInfo>& infos = n.network().parameters();
  std::uint64_t salt = 1000;
  for (const ParameterInfo& info : infos) {
    const auto ends = [&](const char* end) { return info.name.ends_with(end); };
    const HostMatrix drawn = signs(1, info.size(), ++salt);
    const bool factor = !info.buffer && info.shape.size() == 1 && ends("weight");
    for (std::int64_t i = 0; i < info.size(); ++i) {
      double value = drawn.values[static_cast<std::size_t>(i)];
      if (factor) value = value == 0 ? 0.5 : i % 2 == 0 ? value : value / 2;
      if (ends("running_var")) value = 1 - kEpsilon;
      if (ends("0._u") || ends("0._v")) value = i == 0 ? 1 : 0;
      (info.buffer ? buffers : values)[static_cast<std::size_t>(info.offset + i)] = value;
    }
  }
  for (std::size_t k = 0; k < infos.size(); ++k) {
    if (!infos[k].name.ends_with("original")) continue;
    const auto size_of = [&](const char* end) {
      const std::string name = infos[k].name.substr(0, infos[k].name.size() - 8) + end;
      return std::find_if(infos.begin(), infos.end(), [&](const auto& info) { return info.name == name; })->size();
    };
    // Rows are what PyTorch's u belongs to, or its v where the weight is that of a transposed convolution.
    const std::int64_t u = size_of("0._u"), v = size_of("0._v");
    const std::int64_t cols = infos[k].shape[0] == u ? v : u;
    double* const weight = &values[static_cast<std::size_t>(infos[k].offset)];
    for (std::int64_t i = 0; i < infos[k].size(); ++i)
      if (i < cols || i % cols == 0) weight[i] = i == 0 ? 2 : 0;
  }
  n.set_values(values);
  n.set_buffers(buffers);
}

NetworkOnDevice exact_network(Context& context, const NetworkSpec& spec, DType dtype,
                              const NetworkExecution& execution) {
  NetworkOnDevice n(context, exact(spec), dtype, test_seed(), execution);
  set_exact_values(n);
  return n;
}

StackedFunctional exact_functional(const Network& network, bool tangents) {
  StackedFunctional f = functional(network.spec(), network.output_size(), tangents);
  std::uint64_t salt = 0;
  for (HostMatrix* m : {&f.x, &f.tangents, &f.cotangent, &f.tangent_cotangent}) *m = signs(m->rows, m->cols, ++salt);
  return f;
}

template <class Predicate>
bool any_layer(const std::vector<LayerSpec>& layers, const Predicate& predicate) {
  return std::any_of(layers.begin(), layers.end(), [&](const LayerSpec& layer) {
    if (const auto* paths = std::get_if<ResidualSpec>(&layer))
      return any_layer(paths->body, predicate) || any_layer(paths->skip, predicate);
    return predicate(layer);
  });
}

bool is_smooth(const LayerSpec& layer) {
  const auto* activation = std::get_if<ActivationSpec>(&layer);
  return activation && (activation->function == Activation::silu || activation->function == Activation::tanh);
}
bool is_norm(const LayerSpec& layer) { return std::holds_alternative<BatchNormSpec>(layer); }
bool is_normalised(const LayerSpec& layer) {
  const auto* convolution = std::get_if<Conv2dSpec>(&layer);
  return convolution && convolution->spectral_norm;
}

/// Parts of the forward direction. What a smooth function is of rounds, but of the same bits; what comes back from it
/// rounds in the products in front of it. Those derivatives: Execution.MatchesCentralDifferences.
bool goes_forward(const std::string& part) {
  return part == "output" || part == "output tangents" || part == "pushed tangents" || part == "evaluated" ||
         part == "pushed through";
}

class ExactExecution : public OpsTest {};

TEST_P(ExactExecution, MergingChangesNoBit) {
  if (IsSkipped() || HasFailure()) return;
  const TestDevice reference("cpu");
  for (const Case& item : all_cases()) {
    SCOPED_TRACE(item.name);
    const bool smooth = any_layer(item.spec.layers, is_smooth);
    for (const DType dtype : {DType::f32, DType::f64}) {
      NetworkOnDevice plain = exact_network(context(), item.spec, dtype, kPlain);
      NetworkOnDevice merged = exact_network(context(), item.spec, dtype, {});
      NetworkOnDevice in_double = exact_network(reference.context(), item.spec, DType::f64, kPlain);
      const StackedFunctional f = exact_functional(plain.network(), true);
      const Outcome want = outcome_of(plain, f), got = outcome_of(merged, f), wide = outcome_of(in_double, f);
      ASSERT_EQ(got.parts.size(), want.parts.size());
      for (std::size_t k = 0; k < want.parts.size(); ++k) {
        const auto& [name, values] = want.parts[k];
        if (smooth && !goes_forward(name)) continue;
        EXPECT_EQ(got.parts[k].second, values) << name;
        if (smooth) continue;
        EXPECT_EQ(values, wide.parts[k].second) << name << ": rounded";
        EXPECT_EQ(largest_of(values) == 0, name == "grad x of the tangents") << name;  // second derivatives vanish
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ExactExecution, ::testing::ValuesIn(test_devices()), device_name);

class TrainingExecution : public ::testing::TestWithParam<Case> {
 protected:
  Context& context() { return device_.context(); }

 private:
  TestDevice device_{"cpu"};
};

// A training pass folds and composes nothing. Where it merges no resampling it is the same code; elsewhere outputs and
// buffers come of exact sums, since no case has batch statistics in front of a merged layer, and gradients where there
// are none and no smooth function either. Gradients of the others, which come of rounded adjoints, are held against
// differences of the outputs.
TEST_P(TrainingExecution, Agrees) {
  const NetworkSpec& spec = GetParam().spec;
  NetworkOnDevice merged = exact_network(context(), spec, DType::f64, {});
  NetworkOnDevice plain = exact_network(context(), spec, DType::f64, kPlain);
  StackedFunctional f = exact_functional(plain.network(), false);
  f.mode = PassMode::training;
  const bool same_code = merged.network().flops_per_row() == plain.network().flops_per_row();
  const bool norm = any_layer(spec.layers, is_norm), smooth = any_layer(spec.layers, is_smooth);
  const std::vector<double> statistics = merged.buffers();
  EXPECT_EQ(f.value(merged), f.value(plain));
  EXPECT_EQ(merged.buffers(), plain.buffers());
  EXPECT_EQ(plain.buffers() != statistics, norm);
  if (same_code || (!norm && !smooth)) {
    const StackedFunctional::Gradients got = f.gradients(merged, false), want = f.gradients(plain, false);
    EXPECT_EQ(got.parameters, want.parameters);
    EXPECT_EQ(got.x, want.x);
    EXPECT_GT(largest_of(want.parameters), 0);
    return;
  }
  if (any_layer(spec.layers, is_normalised)) return;  // every pass moves sigma: a difference would be of two functions
  NetworkOnDevice n = make(context(), spec, DType::f64, {});
  expect_gradients_match(n, false, PassMode::training);
}

INSTANTIATE_TEST_SUITE_P(Layers, TrainingExecution, ::testing::ValuesIn(all_cases()), case_name);

}  // namespace
}  // namespace bracket::test
