// Square matrices per sample, and Jacobians with given singular values.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/ops_fixture.h"

namespace bracket::test {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kUnit = 0x1p-53;  // unit round-off of f64

/// n square matrices of size k, one after the other, as uploaded to f64[n, k, k].
struct Squares {
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::vector<double> values;

  Squares(std::int64_t count, std::int64_t size)
      : n(count), k(size), values(static_cast<std::size_t>(count * size * size)) {}
  double& operator()(std::int64_t s, std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>((s * k + i) * k + j)];
  }
  double operator()(std::int64_t s, std::int64_t i, std::int64_t j) const {
    return values[static_cast<std::size_t>((s * k + i) * k + j)];
  }
};

/// Well conditioned symmetric positive definite matrices: random Gram matrices plus k on the diagonal.
inline Squares positive_definite(std::int64_t n, std::int64_t k, std::uint64_t salt) {
  Squares a(n, k);
  const HostMatrix t = random_matrix(n * k, k, salt);
  for (std::int64_t s = 0; s < n; ++s) {
    for (std::int64_t i = 0; i < k; ++i) {
      for (std::int64_t j = 0; j <= i; ++j) {
        double sum = i == j ? static_cast<double>(k) : 0;
        for (std::int64_t c = 0; c < k; ++c) sum += t(s * k + i, c) * t(s * k + j, c);
        a(s, i, j) = a(s, j, i) = sum;
      }
    }
  }
  return a;
}

/// J^T for one sample, [k, d]: singular values `singular`, and singular vectors that are products of two Householder
/// reflections, so that no entry is special.
inline HostMatrix with_singular_values(const std::vector<double>& singular, std::int64_t d, std::uint64_t salt) {
  const auto k = static_cast<std::int64_t>(singular.size());
  HostMatrix t(k, d);
  for (std::int64_t i = 0; i < k; ++i) t(i, i) = singular[static_cast<std::size_t>(i)];
  const auto reflect_rows = [](HostMatrix& m, const HostMatrix& v) {
    double squares = 0;
    for (const double value : v.values) squares += value * value;
    for (std::int64_t j = 0; j < m.cols; ++j) {
      double dot = 0;
      for (std::int64_t i = 0; i < m.rows; ++i) dot += v(i, 0) * m(i, j);
      for (std::int64_t i = 0; i < m.rows; ++i) m(i, j) -= 2 * dot / squares * v(i, 0);
    }
  };
  const auto reflect_columns = [](HostMatrix& m, const HostMatrix& v) {
    double squares = 0;
    for (const double value : v.values) squares += value * value;
    for (std::int64_t i = 0; i < m.rows; ++i) {
      double dot = 0;
      for (std::int64_t j = 0; j < m.cols; ++j) dot += v(j, 0) * m(i, j);
      for (std::int64_t j = 0; j < m.cols; ++j) m(i, j) -= 2 * dot / squares * v(j, 0);
    }
  };
  for (std::uint64_t turn = 0; turn < 2; ++turn) {
    reflect_rows(t, random_matrix(k, 1, salt + turn));
    reflect_columns(t, random_matrix(d, 1, salt + 2 + turn));
  }
  return t;
}

inline std::vector<double> geometric(std::int64_t k, double smallest, double largest) {
  std::vector<double> values(static_cast<std::size_t>(k), largest);
  for (std::size_t i = 0; i < values.size() && k > 1; ++i) {
    values[i] = smallest * std::pow(largest / smallest, static_cast<double>(i) / static_cast<double>(k - 1));
  }
  return values;
}

class SquaresTest : public OpsTest {
 protected:
  DeviceTensor device_squares(const Squares& a) {
    DeviceTensor result = empty(context(), DType::f64, {a.n, a.k, a.k});
    HostMatrix flat(a.n, a.k * a.k);
    flat.values = a.values;
    upload_into(context(), result, flat);
    return result;
  }
  Squares host_squares(const Tensor& x) {
    Squares result(x.extent(0), x.extent(1));
    result.values = download(context(), x).values;
    return result;
  }
};

}  // namespace bracket::test
