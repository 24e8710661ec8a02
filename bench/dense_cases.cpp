// Dense algebra per sample, at 64 samples of 128 latents and 3,072 outputs: what the exact estimators are made of. Ops
// that work in place are timed with the copy that restores their operand, and so are the library's.
#include "bench/libraries/libraries.h"
#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kSamples = 64, kInputs = 128, kOutputs = 3072;
/// Columns behind the matrices that are factored: four times their size, so that their condition number is 9.
constexpr std::int64_t kFactorColumns = 4 * kInputs;
constexpr std::int64_t kEigenSize = 32;

struct Bytes {
  double f32 = 0, f64 = 0;  ///< elements of either
};

void add(std::vector<BenchDevice>& devices, const std::string& name, double flops, const Bytes& elements,
         const char* library, std::function<Work(Operands&)> make) {
  OpCase op;
  op.name = name;
  op.flops = flops;
  op.bytes = 4 * elements.f32 + 8 * elements.f64;
  op.make = std::move(make);
  op.gpu_only = true;
  op.library = library;
  register_case(op, devices);
}

constexpr double real(std::int64_t number) { return static_cast<double>(number); }

/// T T^T of `size` rows of normals, per sample.
Tensor gram_matrices(Operands& operands, std::int64_t size, std::int64_t cols) {
  const Tensor t = operands.normal({kSamples * size, cols});
  const Tensor g = operands.result({kSamples, size, size}, DType::f64);
  operands.ops().gram(g, t);
  return g;
}

Tensor flat(const Tensor& matrices) { return matrices.reshaped({matrices.size()}); }

void register_gram(std::vector<BenchDevice>& devices) {
  const double elements = real(kSamples * kInputs * kOutputs);
  add(devices, "gram/64x128x3072", 2 * elements * real(kInputs), {elements, real(kSamples * kInputs * kInputs)},
      cublas() ? cublas()->name : nullptr, [](Operands& operands) -> Work {
        const Tensor t = operands.normal({kSamples * kInputs, kOutputs});
        const Tensor g = operands.result({kSamples, kInputs, kInputs}, DType::f64);
        return {[=](Ops& ops) { ops.gram(g, t); },
                {{g}},
                [=, &operands] {
                  // The library's sums are as wide as its operands: 24 bits, where ours are 53.
                  const Tensor narrow = operands.result({kSamples, kInputs, kInputs});
                  LibraryWork work{cublas()->gram(operands, narrow, t)};
                  work.values = [=, &operands](std::size_t) { return operands.values(narrow); };
                  return work;
                }};
      });
}

void register_factors(std::vector<BenchDevice>& devices) {
  const double matrix = real(kSamples * kInputs * kInputs);
  add(devices, "cholesky_log_diagonal_and_copy/64x128x128", matrix * real(kInputs) / 3, {0, 3 * matrix},
      cusolver() ? cusolver()->name : nullptr, [](Operands& operands) -> Work {
        const Tensor before = gram_matrices(operands, kInputs, kFactorColumns);
        const Tensor g = operands.result({kSamples, kInputs, kInputs}, DType::f64), h = operands.result({kSamples});
        return {[=](Ops& ops) {
                  ops.copy(flat(g), flat(before));
                  ops.cholesky(g);
                  ops.log_diagonal_sum(h, g);
                },
                {{h}},
                [=, &operands] {
                  return LibraryWork{[=, &ops = operands.ops(), factor = cusolver()->cholesky(operands, g)] {
                    ops.copy(flat(g), flat(before));
                    factor();
                    ops.log_diagonal_sum(h, g);
                  }};
                }};
      });
  const double sides = real(kSamples * kInputs * kOutputs);
  add(devices, "triangular_solve/64x128x3072", sides * real(kInputs), {2 * sides, matrix},
      cublas() ? cublas()->name : nullptr, [](Operands& operands) -> Work {
        const Tensor l = gram_matrices(operands, kInputs, kFactorColumns);
        operands.ops().cholesky(l);
        const Tensor b = operands.normal({kSamples * kInputs, kOutputs});
        const Tensor x = operands.result({kSamples * kInputs, kOutputs});
        return {
            [=](Ops& ops) { ops.triangular_solve(x, l, b, false); },
            {{x}},
            [=, &operands] {
              // It takes one type for both, and solves in place: b must be copied, since it is needed afterwards.
              const Tensor narrow = operands.result({kSamples, kInputs, kInputs});
              operands.ops().copy(flat(narrow), flat(l));
              return LibraryWork{[=, &ops = operands.ops(), solve = cublas()->triangular_solve(operands, x, narrow)] {
                ops.copy(x, b);
                solve();
              }};
            }};
      });
}

void register_eigen(std::vector<BenchDevice>& devices) {
  add(devices, "symmetric_eigen_and_copy/64x32x32", 0, {0, 4 * real(kSamples * kEigenSize * kEigenSize)},
      cusolver() ? cusolver()->name : nullptr, [](Operands& operands) -> Work {
        const Tensor before = gram_matrices(operands, kEigenSize, 4 * kEigenSize);
        const Tensor a = operands.result({kSamples, kEigenSize, kEigenSize}, DType::f64);
        const Tensor vectors = operands.result({kSamples, kEigenSize, kEigenSize}, DType::f64);
        const Tensor values = operands.result({kSamples, kEigenSize}, DType::f64);
        return {
            [=](Ops& ops) {
              ops.copy(flat(a), flat(before));
              ops.symmetric_eigen(values, vectors, a);
            },
            {{values}},  // vectors have signs of their own
            [=, &operands] {
              return LibraryWork{[=, &ops = operands.ops(), solve = cusolver()->symmetric_eigen(operands, values, a)] {
                ops.copy(flat(a), flat(before));
                solve();
              }};
            }};
      });
}

}  // namespace

void register_dense_cases(std::vector<BenchDevice>& devices) {
  register_gram(devices);
  register_factors(devices);
  register_eigen(devices);
}

}  // namespace bracket::bench
