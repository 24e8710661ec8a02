// Runs the iterations of singular_values.h on a matrix that Python wrote; driven by jacobian_scipy.py.
//
//   jacobian_iterates lobpcg|golub_kahan MATRIX.npy START.npy STEPS...
//
// START holds as many rows as LOBPCG gets directions, one for Golub-Kahan.
// One line per number of steps: steps, mu of the smallest, its distance bound, the largest, products with J, with J^T.
// The last product of each kind only certifies the value.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "bracket/device.h"
#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/files/npy.h"

namespace bracket {
namespace {

CallbackJacobian jacobian_of(const Table& matrix) {
  const std::int64_t rows = matrix.rows, cols = matrix.cols;
  const auto element = [&matrix, cols](std::int64_t i, std::int64_t j) {
    return static_cast<double>(matrix.values[static_cast<std::size_t>(i * cols + j)]);
  };
  JacobianCallbacks callbacks;
  callbacks.apply = [=](std::int64_t columns, std::span<const double> x, std::span<double> y) {
    for (std::int64_t k = 0; k < columns; ++k) {
      for (std::int64_t i = 0; i < rows; ++i) {
        double sum = 0;
        for (std::int64_t j = 0; j < cols; ++j) sum += element(i, j) * x[static_cast<std::size_t>(k * cols + j)];
        y[static_cast<std::size_t>(k * rows + i)] = sum;
      }
    }
  };
  callbacks.apply_transpose = [=](std::int64_t columns, std::span<const double> y, std::span<double> x) {
    for (std::int64_t k = 0; k < columns; ++k) {
      for (std::int64_t j = 0; j < cols; ++j) {
        double sum = 0;
        for (std::int64_t i = 0; i < rows; ++i) sum += element(i, j) * y[static_cast<std::size_t>(k * rows + i)];
        x[static_cast<std::size_t>(k * cols + j)] = sum;
      }
    }
  };
  return {1, cols, rows, DType::f64, std::move(callbacks)};
}

void run(std::string_view method, const Table& matrix, const Table& start, std::int64_t steps) {
  const CallbackJacobian jacobian = jacobian_of(matrix);
  Context context;
  with_planned_arena(context, [&](Ops& ops, Arena& arena) {
    const Tensor v = arena.allocate(DType::f64, {start.rows, matrix.cols});
    write_values(ops, v, std::vector<double>(start.values.begin(), start.values.end()));
    GolubKahanEstimate e;
    double largest = 0;
    if (method == "golub_kahan") {
      e = golub_kahan_extremes(ops, arena, jacobian, v, {steps, 0});
      largest = read_values(ops, e.largest)[0];
    } else {
      static_cast<SingularEstimate&>(e) = lobpcg_smallest(ops, arena, jacobian, v, {steps, 0, start.rows});
    }
    const double mu = read_values(ops, e.singular_value)[0], distance = read_values(ops, e.distance)[0];
    if (largest == 0 && mu == 0) return;  // the dry run
    std::printf("%lld %.17g %.17g %.17g %lld %lld\n", static_cast<long long>(e.steps), mu, distance, largest,
                static_cast<long long>(e.passes.apply), static_cast<long long>(e.passes.transpose));
  });
}

}  // namespace
}  // namespace bracket

int main(int argc, char** argv) {
  const std::string_view method = argc > 4 ? argv[1] : "";
  try {
    if (method != "lobpcg" && method != "golub_kahan")
      throw bracket::InvalidArgument("usage: jacobian_iterates lobpcg|golub_kahan MATRIX.npy START.npy STEPS...");
    const bracket::Table matrix = bracket::read_npy(argv[2]), start = bracket::read_npy(argv[3]);
    for (int i = 4; i < argc; ++i) bracket::run(method, matrix, start, std::stoll(argv[i]));
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
