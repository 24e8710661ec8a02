// References for ops on stacked rows: the primal formula of one row, written once for any number type, gives values,
// tangents, reverse passes and second-order terms by dual numbers, and with each of them a bound on the rounding error
// of an evaluation in a given precision.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace bracket::test {

/// A double with a first-order bound on the rounding error that an evaluation with unit round-off `unit` has
/// accumulated: every operation passes errors on by its derivative and adds its own, of `unit` times the result for
/// arithmetic and four times that for functions (the accuracy the kernels' functions are written to).
struct Rounded {
  double value = 0;
  double error = 0;
  static inline double unit = 0;

  Rounded() = default;
  Rounded(double v) : value(v) {}  // NOLINT(google-explicit-constructor): constants of a formula
  Rounded(double v, double e) : value(v), error(e) {}
};

inline Rounded rounded(double value, double propagated, double operations = 1) {
  return {value, propagated + operations * Rounded::unit * std::abs(value)};
}
inline Rounded operator+(const Rounded& a, const Rounded& b) { return rounded(a.value + b.value, a.error + b.error); }
inline Rounded operator-(const Rounded& a, const Rounded& b) { return rounded(a.value - b.value, a.error + b.error); }
inline Rounded operator-(const Rounded& a) { return {-a.value, a.error}; }
inline Rounded operator*(const Rounded& a, const Rounded& b) {
  return rounded(a.value * b.value, std::abs(a.value) * b.error + std::abs(b.value) * a.error);
}
inline Rounded operator/(const Rounded& a, const Rounded& b) {
  const double value = a.value / b.value;
  return rounded(value, (a.error + std::abs(value) * b.error) / std::abs(b.value));
}
inline Rounded exp(const Rounded& a) { return rounded(std::exp(a.value), std::exp(a.value) * a.error, 4); }
inline Rounded tanh(const Rounded& a) {
  const double value = std::tanh(a.value);
  return rounded(value, (1 - value * value) * a.error, 4);
}
inline Rounded log(const Rounded& a) { return rounded(std::log(a.value), a.error / std::abs(a.value), 4); }
// Sines are computed to an absolute, not a relative, accuracy.
inline Rounded sin(const Rounded& a) {
  return {std::sin(a.value), std::abs(std::cos(a.value)) * a.error + 4 * Rounded::unit};
}
inline Rounded cos(const Rounded& a) {
  return {std::cos(a.value), std::abs(std::sin(a.value)) * a.error + 4 * Rounded::unit};
}
inline Rounded sqrt(const Rounded& a) {
  const double value = std::sqrt(a.value);
  return rounded(value, value == 0 ? 0 : a.error / (2 * value));
}
inline double primal_value(const Rounded& a) { return a.value; }

/// value + tangent epsilon, epsilon^2 = 0.
template <class S>
struct Dual {
  S value{};
  S tangent{};

  Dual() = default;
  Dual(double v) : value(v) {}  // NOLINT(google-explicit-constructor): constants of a formula
  Dual(S v, S t) : value(v), tangent(t) {}
};
template <class S>
double primal_value(const Dual<S>& a) {
  return primal_value(a.value);
}
template <class S>
Dual<S> operator+(const Dual<S>& a, const Dual<S>& b) {
  return {a.value + b.value, a.tangent + b.tangent};
}
template <class S>
Dual<S> operator-(const Dual<S>& a, const Dual<S>& b) {
  return {a.value - b.value, a.tangent - b.tangent};
}
template <class S>
Dual<S> operator-(const Dual<S>& a) {
  return {-a.value, -a.tangent};
}
template <class S>
Dual<S> operator*(const Dual<S>& a, const Dual<S>& b) {
  return {a.value * b.value, a.value * b.tangent + a.tangent * b.value};
}
template <class S>
Dual<S> operator/(const Dual<S>& a, const Dual<S>& b) {
  const S value = a.value / b.value;
  return {value, (a.tangent - value * b.tangent) / b.value};
}
template <class S>
Dual<S> exp(const Dual<S>& a) {
  const S value = exp(a.value);
  return {value, value * a.tangent};
}
template <class S>
Dual<S> tanh(const Dual<S>& a) {
  const S value = tanh(a.value);
  return {value, (S(1.0) - value * value) * a.tangent};
}
template <class S>
Dual<S> log(const Dual<S>& a) {
  return {log(a.value), a.tangent / a.value};
}
template <class S>
Dual<S> sin(const Dual<S>& a) {
  return {sin(a.value), cos(a.value) * a.tangent};
}
template <class S>
Dual<S> cos(const Dual<S>& a) {
  return {cos(a.value), -(sin(a.value) * a.tangent)};
}
template <class S>
Dual<S> sqrt(const Dual<S>& a) {
  const S value = sqrt(a.value);
  return {value, a.tangent / (value + value)};
}
template <class S>
S sigmoid(const S& a) {
  return S(1.0) / (S(1.0) + exp(-a));
}

/// One row and its tangents, and what it is differentiated against.
struct RowProblem {
  std::vector<double> input;                       ///< x
  std::vector<std::vector<Rounded>> tangents;      ///< x'_k
  std::vector<double> grad_output;                 ///< cotangent of y
  std::vector<std::vector<double>> grad_tangents;  ///< cotangents of y'_k
};

struct RowSolution {
  std::vector<Rounded> output;
  std::vector<std::vector<Rounded>> tangents;
  std::vector<Rounded> grad_input;  ///< with the second-order term
  std::vector<std::vector<Rounded>> grad_tangents;
};

/// `formula` maps std::vector<S> to std::vector<S> for S of Rounded and of (nested) Dual. The gradient is that of
/// <grad_output, y> + sum_k <grad_tangents_k, y'_k>.
template <class Formula>
RowSolution solve_row(const Formula& formula, const RowProblem& problem) {
  using First = Dual<Rounded>;
  using Second = Dual<First>;
  const std::size_t inputs = problem.input.size();
  const std::size_t count = problem.tangents.size();
  RowSolution solution;
  solution.output = formula(std::vector<Rounded>(problem.input.begin(), problem.input.end()));
  for (const std::vector<Rounded>& tangent : problem.tangents) {
    std::vector<First> x(inputs);
    for (std::size_t j = 0; j < inputs; ++j) x[j] = First(Rounded(problem.input[j]), tangent[j]);
    std::vector<Rounded> pushed;
    for (const First& y : formula(x)) pushed.push_back(y.tangent);
    solution.tangents.push_back(pushed);
  }
  solution.grad_input.resize(inputs);
  solution.grad_tangents.assign(count, std::vector<Rounded>(inputs));
  for (std::size_t p = 0; p < inputs; ++p) {
    for (std::size_t k = 0; k < (count == 0 ? 1 : count); ++k) {
      std::vector<Second> x(inputs);
      for (std::size_t j = 0; j < inputs; ++j) {
        const Rounded along = count == 0 ? Rounded() : problem.tangents[k][j];
        x[j] = Second(First(Rounded(problem.input[j]), along), First(p == j ? 1.0 : 0.0));
      }
      const std::vector<Second> y = formula(x);
      for (std::size_t o = 0; o < y.size(); ++o) {
        if (k == 0) {
          solution.grad_input[p] = solution.grad_input[p] + Rounded(problem.grad_output[o]) * y[o].tangent.value;
        }
        if (count == 0) continue;
        const Rounded weight(problem.grad_tangents[k][o]);
        solution.grad_input[p] = solution.grad_input[p] + weight * y[o].tangent.tangent;
        solution.grad_tangents[k][p] = solution.grad_tangents[k][p] + weight * y[o].tangent.value;
      }
    }
  }
  return solution;
}

}  // namespace bracket::test
