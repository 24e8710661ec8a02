// What every network must satisfy in double: its derivatives match central differences, and its passes agree.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "tests/network_fixture.h"

namespace bracket::test {

/// 5 samples; tangents (K = 2) on samples 1..3.
inline StackedFunctional functional(const NetworkSpec& spec, std::int64_t outputs, bool tangents,
                                    std::uint64_t salt = 1) {
  StackedFunctional f;
  if (tangents) f.layout = {1, 3, 2};
  f.x = random_matrix(5, spec.input_size, 100 + salt);
  f.tangents = random_matrix(f.layout.rows(), spec.input_size, 2);
  f.cotangent = random_matrix(5, outputs, 3);
  f.tangent_cotangent = random_matrix(f.layout.rows(), outputs, 4);
  f.volume_cotangent = random_matrix(5, 1, 5);
  f.volume_tangent_cotangent = random_matrix(f.layout.rows(), 1, 6);
  return f;
}

// Fourth-order differences with step 3e-5: truncation h^4/30 ~ 3e-20 times a fifth derivative of at most 1e8 here,
// rounding 1.5 eps |f| / h ~ 1e-11 |f|. Derivatives below 1e-3 of the largest are judged against that floor.
inline constexpr double kDifferenceStep = 3e-5;
inline constexpr double kWorstRelativeError = 1e-6;

/// The coordinates to difference of a tensor of `size` elements: at most about `most`, spread evenly.
inline std::int64_t stride_for(std::int64_t size, std::int64_t most) { return std::max<std::int64_t>(1, size / most); }

/// Differences at one random point; false where a piecewise-linear function bent between the points of a difference
/// (StackedFunctional::pattern changed), which then says nothing.
inline bool differences_match(NetworkOnDevice& n, StackedFunctional f, WorstError& error) {
  const StackedFunctional::Gradients g = f.gradients(n, false);
  double largest = 0;
  for (const auto* part : {&g.parameters, &g.x, &g.tangents})
    for (const double v : *part) largest = std::max(largest, std::abs(v));
  error = WorstError(1e-3 * largest);
  bool same_piece = true;
  f.record_pattern = true;
  f.value(n);
  const std::vector<std::uint8_t> pattern = f.pattern;
  const auto value = [&] {
    const double v = f.value(n);
    same_piece = same_piece && f.pattern == pattern;
    return v;
  };
  const std::vector<double> start = n.values();
  for (const ParameterInfo& info : n.network().parameters()) {
    if (info.buffer) continue;
    const std::int64_t end = info.offset + info.size();
    for (std::int64_t i = info.offset; i < end && same_piece; i += stride_for(info.size(), 7)) {
      const double difference = central_difference(
          [&](double step) {
            std::vector<double> moved = start;
            moved[static_cast<std::size_t>(i)] += step;
            n.set_values(moved);
            return value();
          },
          kDifferenceStep);
      error.add(g.parameters[static_cast<std::size_t>(i)], difference, info.name);
    }
  }
  n.set_values(start);
  for (auto [matrix, gradient, name] : {std::tuple{&f.x, &g.x, "x"}, std::tuple{&f.tangents, &g.tangents, "tangent"}}) {
    const auto stride = static_cast<std::size_t>(stride_for(matrix->size(), 60));
    for (std::size_t i = 0; i < matrix->values.size() && same_piece; i += stride) {
      const double centre = matrix->values[i];
      const double difference = central_difference(
          [&](double step) {
            matrix->values[i] = centre + step;
            return value();
          },
          kDifferenceStep);
      matrix->values[i] = centre;
      error.add((*gradient)[i], difference, name + std::to_string(i));
    }
  }
  return same_piece;
}

inline void expect_gradients_match(NetworkOnDevice& n, bool tangents, PassMode mode) {
  constexpr std::uint64_t kMostPoints = 100;
  for (std::uint64_t salt = 1; salt <= kMostPoints; ++salt) {
    StackedFunctional f = functional(n.network().spec(), n.network().output_size(), tangents, salt);
    f.mode = mode;
    WorstError error(0);
    if (!differences_match(n, f, error)) continue;
    EXPECT_LE(error.worst(), kWorstRelativeError) << error.where() << (tangents ? " (stacked)" : " (primal)");
    return;
  }
  ADD_FAILURE() << "no point away from kinks among " << kMostPoints;
}

/// <J v, u> = <v, J^T u>: both sides are the same sum of products in another order, so they agree to a few hundred
/// rounding errors of their terms; 1e-12 of the terms' size is the limit the project sets.
inline void expect_adjoint_identity(NetworkOnDevice& n) {
  const StackedFunctional f = functional(n.network().spec(), n.network().output_size(), true);
  StackedFunctional only_tangent = f;
  std::fill(only_tangent.cotangent.values.begin(), only_tangent.cotangent.values.end(), 0.0);
  const double forward = only_tangent.value(n);
  const StackedFunctional::Gradients g = only_tangent.gradients(n, false);
  const double reverse = StackedFunctional::dot(g.tangents, f.tangents.values);
  double scale = 0;
  for (std::size_t i = 0; i < g.tangents.size(); ++i) scale += std::abs(g.tangents[i] * f.tangents.values[i]);
  EXPECT_GT(scale, 0) << "a Jacobian of zeros would go untested";
  EXPECT_NEAR(forward, reverse, 1e-12 * scale);
}

inline double largest_of(const std::vector<double>& values) {
  double largest = 0;
  for (const double v : values) largest = std::max(largest, std::abs(v));
  return largest;
}

inline void expect_push_equals_fused(NetworkOnDevice& n) {
  const StackedFunctional f = functional(n.network().spec(), n.network().output_size(), true);
  const StackedFunctional::Gradients fused = f.gradients(n, false), split = f.gradients(n, true);
  // The weight gradient is one contraction over all rows or the sum of two: orders differ, so rounding may.
  for (auto [a, b, limit] :
       {std::tuple{&fused.parameters, &split.parameters, 1e-13 * largest_of(fused.parameters)},
        std::tuple{&fused.x, &split.x, 1e-12}, std::tuple{&fused.tangents, &split.tangents, 1e-12}})
    for (std::size_t i = 0; i < a->size(); ++i) ASSERT_NEAR((*a)[i], (*b)[i], limit) << i;
}

/// What passes that keep nothing put out: the same bits, from no more memory, all of it given back.
inline void expect_outputs_alone_equal_those_of_passes(NetworkOnDevice& n) {
  const StackedFunctional f = functional(n.network().spec(), n.network().output_size(), true);
  const Network& network = n.network();
  Context& context = n.context();
  Ops& ops = context.ops();
  Arena& arena = n.arena();
  const DeviceTensor x = upload(context, f.x), t = upload(context, f.tangents);
  const DeviceTensor y = empty_matrix(context, network.dtype(), f.x.rows, network.output_size());
  const DeviceTensor ty = empty_matrix(context, network.dtype(), f.tangents.rows, network.output_size());
  for (const PassMode mode : {PassMode::training, PassMode::inference}) {
    const std::vector<double> statistics = to_host(ops, n.parameters().buffers);
    arena.rewind(0);
    PrimalPass pass;
    network.forward(ops, arena, pass, n.parameters(), x, mode);
    const std::vector<double> moved = to_host(ops, n.parameters().buffers);
    n.set_buffers(statistics);
    const std::int64_t mark = arena.mark();
    network.evaluate(ops, arena, y, n.parameters(), x, mode);
    EXPECT_EQ(arena.mark(), mark);
    EXPECT_EQ(to_host(ops, Tensor(y)), to_host(ops, pass.output()));
    EXPECT_EQ(to_host(ops, n.parameters().buffers), moved);
    if (mode == PassMode::training && network.has_batch_norm()) {
      EXPECT_THROW(network.push_through(ops, arena, ty, pass, t, f.layout), InvalidArgument);
      continue;
    }
    TangentPass tangent_pass;
    network.push(ops, arena, tangent_pass, pass, t, f.layout);
    const std::int64_t after = arena.mark();
    network.push_through(ops, arena, ty, pass, t, f.layout);
    EXPECT_EQ(arena.mark(), after);
    EXPECT_EQ(to_host(ops, Tensor(ty)), to_host(ops, tangent_pass.output()));
  }
}

/// J^T c, row by row, is what a reverse pass says of the tangents, which enter linearly; `limit` of the largest.
inline void expect_pull_equals_reverse(NetworkOnDevice& n, double limit) {
  for (const std::int64_t columns : {1, 4}) {  // fewer and more than the passive columns of a coupling
    StackedFunctional f = functional(n.network().spec(), n.network().output_size(), true);
    f.layout.tangents = columns;
    f.tangents = random_matrix(f.layout.rows(), n.network().input_size(), 2).rounded(n.network().dtype());
    f.tangent_cotangent = random_matrix(f.layout.rows(), n.network().output_size(), 4).rounded(n.network().dtype());
    f.volume_tangent_cotangent = HostMatrix(f.layout.rows(), 1);  // a pull knows nothing of log-volumes
    const std::vector<double> want = f.gradients(n, false).tangents;
    Context& context = n.context();
    Ops& ops = context.ops();
    Arena& arena = n.arena();
    arena.rewind(0);
    const DType dtype = n.network().dtype();
    const DeviceTensor x = upload(context, f.x, dtype), c = upload(context, f.tangent_cotangent, dtype);
    const DeviceTensor y = empty_matrix(context, dtype, f.layout.rows(), n.network().input_size());
    PrimalPass pass;
    n.network().forward(ops, arena, pass, n.parameters(), x, PassMode::inference);
    const std::int64_t mark = arena.mark();
    n.network().pull_through(ops, arena, y, pass, c, f.layout);
    EXPECT_EQ(arena.mark(), mark);
    const std::vector<double> got = download(context, y).values;
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], limit * largest_of(want)) << i;
    EXPECT_EQ(download(context, c).values, f.tangent_cotangent.values);
    if (!n.network().has_batch_norm()) continue;
    EXPECT_THROW(n.network().slice(pass, 3, 3), InvalidArgument);
    n.network().forward(ops, arena, pass, n.parameters(), x, PassMode::training);
    EXPECT_THROW(n.network().slice(pass, 0, 1), InvalidArgument);
    EXPECT_THROW(n.network().pull_through(ops, arena, y, pass, c, f.layout), InvalidArgument);
  }
}

/// What the tangents of a piecewise-linear network say of its parameters, to rounding: sums of the same terms in
/// another order; others are refused.
inline void expect_tangents_alone_equal_a_reverse_pass(NetworkOnDevice& n) {
  StackedFunctional f = functional(n.network().spec(), n.network().output_size(), true);
  std::fill(f.cotangent.values.begin(), f.cotangent.values.end(), 0.0);
  const std::vector<double> want = f.gradients(n, false).parameters;
  Context& context = n.context();
  Ops& ops = context.ops();
  const DeviceTensor x = upload(context, f.x), t = upload(context, f.tangents),
                     c = upload(context, f.tangent_cotangent);
  n.arena().rewind(0);
  PrimalPass pass;
  TangentPass tangent_pass;
  n.network().forward(ops, n.arena(), pass, tangent_pass, n.parameters(), x, t, f.layout, PassMode::inference);
  const auto reverse = [&](bool accumulate) {
    n.network().reverse_tangents(ops, n.arena(), pass, tangent_pass, c, n.gradient(), accumulate);
    return to_host(ops, n.gradient());
  };
  if (!n.network().piecewise_linear()) {
    EXPECT_THROW(reverse(false), InvalidArgument);
    return;
  }
  const double limit = 1e-13 * largest_of(want);
  const std::vector<double> once = reverse(false), twice = reverse(true);
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(once[i], want[i], limit) << i;
    ASSERT_NEAR(twice[i], 2 * want[i], 2 * limit) << i;
  }
  // And of some rows of a pass, what they say alone.
  const std::int64_t first = 1, rows = 3;
  PrimalPass part;
  const DeviceTensor seed = upload(context, HostMatrix(rows, n.network().output_size(), 0.7));
  n.network().forward(ops, n.arena(), part, n.parameters(), Tensor(x).slice_rows(first, rows), PassMode::inference);
  ReverseRequest request;
  request.grad_parameters = n.gradient();
  n.network().reverse(ops, n.arena(), part, nullptr, seed, {}, request);
  const std::vector<double> alone = to_host(ops, n.gradient());
  n.network().reverse(ops, n.arena(), n.network().slice(pass, first, rows), nullptr, seed, {}, request);
  const std::vector<double> of_part = to_host(ops, n.gradient());
  for (std::size_t i = 0; i < alone.size(); ++i) ASSERT_NEAR(of_part[i], alone[i], 1e-13 * largest_of(alone)) << i;
}

/// Also: the caller's cotangents survive a reverse pass.
inline void expect_gradients_accumulate(NetworkOnDevice& n) {
  const StackedFunctional f = functional(n.network().spec(), n.network().output_size(), true);
  const std::vector<double> once = f.gradients(n, false).parameters;
  Context& context = n.context();
  Ops& ops = context.ops();
  n.arena().rewind(0);
  PrimalPass pass;
  TangentPass tangent_pass;
  const DeviceTensor x = upload(context, f.x), t = upload(context, f.tangents);
  const DeviceTensor c = upload(context, f.cotangent), ct = upload(context, f.tangent_cotangent);
  n.network().forward(ops, n.arena(), pass, tangent_pass, n.parameters(), x, t, f.layout, PassMode::inference);
  ReverseRequest request;
  request.grad_parameters = n.gradient();
  request.accumulate_parameters = true;
  n.network().reverse(ops, n.arena(), pass, &tangent_pass, c, ct, request);
  const std::vector<double> twice = to_host(ops, n.gradient());
  for (std::size_t i = 0; i < once.size(); ++i) ASSERT_NEAR(twice[i], 2 * once[i], 1e-13 * largest_of(once)) << i;
  EXPECT_EQ(download(context, c).values, f.cotangent.values);
  EXPECT_EQ(download(context, ct).values, f.tangent_cotangent.values);
}

}  // namespace bracket::test
