// Operators with known matrices, one per sample, behind the callbacks that an embedding program would use.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "bracket/jacobian.h"
#include "tests/ops_fixture.h"
#include "tests/reference_algebra.h"

namespace bracket::test {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline std::mt19937_64 test_engine(std::uint64_t salt) {
  std::seed_seq sequence{test_seed(), salt};
  return std::mt19937_64(sequence);
}

/// What the headers say counts as zero beside the largest singular value.
inline double documented_tolerance(std::int64_t D, std::int64_t d, DType dtype) {
  const auto inputs = static_cast<double>(d), outputs = static_cast<double>(D);
  return 2 * std::max((4 + std::sqrt(inputs)) * unit_roundoff(dtype), std::sqrt(outputs * inputs) * 0x1p-53);
}

/// Row block [rows, cols] of a downloaded matrix.
inline MatrixXd block_rows(const HostMatrix& m, std::int64_t first, std::int64_t count) {
  return Eigen::Map<const RowMatrix>(m.values.data() + first * m.cols, count, m.cols);
}

inline HostMatrix host_matrix(const MatrixXd& m) {
  HostMatrix result(m.rows(), m.cols());
  Eigen::Map<RowMatrix>(result.values.data(), m.rows(), m.cols()) = m;
  return result;
}

/// What a planned arena's work downloads, from the run that computes.
template <class Result>
Result planned(Context& context, const std::function<Result(Ops&, Arena&)>& work) {
  Result result;
  with_planned_arena(context, [&](Ops& ops, Arena& arena) {
    Result now = work(ops, arena);
    if (!ops.planning()) result = std::move(now);
  });
  return result;
}

/// Nothing to read in a dry run.
inline HostMatrix download_from(Context& context, Ops& ops, const Tensor& x) {
  if (x.absent()) return {};
  if (ops.planning()) return HostMatrix(x.rows(), x.cols());
  return download(context, x);
}

}  // namespace bracket::test
