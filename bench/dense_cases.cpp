// Dense algebra per sample, at 64 samples of 128 latents and 3,072 outputs: what the exact estimators are made of. Ops
// that work in place are timed with the copy that restores their operand, and so are the library's.
#include "bench/judge.h"
#include "bench/libraries/libraries.h"
#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr std::int64_t kSamples = 64, kInputs = 128, kOutputs = 3072;
/// Columns behind the matrices that are factored: four times their size, so that their condition number is
/// ((1 + 1/2) / (1 - 1/2))^2 = 9.
constexpr std::int64_t kFactorColumns = 4 * kInputs;
constexpr double kFactorCondition = 9;
constexpr std::int64_t kEigenSize = 32;

/// Read and written at least: those of the case's dtype, and those that are f64 whatever it is.
struct Elements {
  double own = 0, f64 = 0;
};

/// All of it is computed in double.
OpCase dense(const std::string& name, DType dtype, double flops, const Elements& elements, const char* library) {
  OpCase op;
  op.name = name;
  op.dtype = dtype;
  op.flops = flops;
  op.bytes = static_cast<double>(dtype_bytes(dtype)) * elements.own + 8 * elements.f64;
  op.gpu_only = true;
  op.library = library;
  op.f64_arithmetic = true;
  return op;
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

// In f32 the library's sums are as wide as its operands, and its row says so; in f64 both sides do the same work.
void register_gram(std::vector<BenchDevice>& devices, DType dtype) {
  const double elements = real(kSamples * kInputs * kOutputs);
  // A multiply-add for every element on or below the diagonal and every column.
  OpCase op = dense("gram/64x128x3072", dtype, elements * real(kInputs + 1),
                    {elements, real(kSamples * kInputs * kInputs)}, cublas() ? cublas()->name : nullptr);
  op.depth = kOutputs;
  op.result = DType::f64;
  op.make = [](Operands& operands) -> Work {
    const Tensor t = operands.normal({kSamples * kInputs, kOutputs});
    const Tensor g = operands.result({kSamples, kInputs, kInputs}, DType::f64);
    return {[=](Ops& ops) { ops.gram(g, t); },
            {{g}},
            [=, &operands] {
              const Tensor own = operands.result({kSamples, kInputs, kInputs});
              LibraryWork work{cublas()->gram(operands, own, t)};
              work.values = [=, &operands](std::size_t) { return operands.values(own); };
              work.result = operands.dtype();
              work.label = operands.dtype() == DType::f32 ? "both triangles, f32 sums (ours: one, f64)"
                                                          : "both triangles (ours: one)";
              return work;
            }};
  };
  register_case(op, devices);
}

void register_cholesky(std::vector<BenchDevice>& devices) {
  const double matrix = real(kSamples * kInputs * kInputs);
  OpCase op = dense("cholesky_log_diagonal_and_copy/64x128x128", DType::f32, matrix * real(kInputs) / 3,
                    {0, 3 * matrix}, cusolver() ? cusolver()->name : nullptr);
  op.make = [](Operands& operands) -> Work {
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
  };
  register_case(op, devices);
}

// The library takes one type for factor and sides, and solves in place: it copies b, which is needed afterwards.
void register_triangular_solve(std::vector<BenchDevice>& devices, DType dtype) {
  const double sides = real(kSamples * kInputs * kOutputs);
  OpCase op = dense("triangular_solve/64x128x3072", dtype, sides * real(kInputs),
                    {2 * sides, real(kSamples * kInputs * kInputs)}, cublas() ? cublas()->name : nullptr);
  op.depth = kInputs;
  op.amplification = kFactorCondition;
  op.make = [](Operands& operands) -> Work {
    const Tensor l = gram_matrices(operands, kInputs, kFactorColumns);
    operands.ops().cholesky(l);
    const Tensor b = operands.normal({kSamples * kInputs, kOutputs});
    const Tensor x = operands.result({kSamples * kInputs, kOutputs});
    return {[=](Ops& ops) { ops.triangular_solve(x, l, b, false); },
            {{x}},
            [=, &operands] {
              const Tensor own = operands.result({kSamples, kInputs, kInputs});
              operands.ops().copy(flat(own), flat(l));
              LibraryWork work{[=, &ops = operands.ops(), solve = cublas()->triangular_solve(operands, x, own)] {
                ops.copy(x, b);
                solve();
              }};
              work.label = operands.dtype() == DType::f32 ? "behind a copy of b, f32 factor and sums (ours: f64)"
                                                          : "behind a copy of b";
              return work;
            }};
  };
  register_case(op, devices);
}

void register_eigen(std::vector<BenchDevice>& devices) {
  OpCase op = dense("symmetric_eigen_and_copy/64x32x32", DType::f32, 0,
                    {0, 4 * real(kSamples * kEigenSize * kEigenSize)}, cusolver() ? cusolver()->name : nullptr);
  op.result = DType::f64;
  op.depth = eigen_depth(kEigenSize);
  op.make = [](Operands& operands) -> Work {
    const Tensor before = gram_matrices(operands, kEigenSize, 4 * kEigenSize);
    const Tensor a = operands.result({kSamples, kEigenSize, kEigenSize}, DType::f64);
    const Tensor vectors = operands.result({kSamples, kEigenSize, kEigenSize}, DType::f64);
    const Tensor values = operands.result({kSamples, kEigenSize}, DType::f64);
    // Signs, and the vectors of values that are close, are free: they are judged by what they are to do.
    Output judged_vectors{vectors};
    judged_vectors.error = [=, &operands](const std::vector<double>& actual) {
      return eigen_error(operands.values(before), operands.values(values), actual, kEigenSize);
    };
    return {[=](Ops& ops) {
              ops.copy(flat(a), flat(before));
              ops.symmetric_eigen(values, vectors, a);
            },
            {{values}, judged_vectors},
            [=, &operands] {
              LibraryWork work{[=, &ops = operands.ops(), solve = cusolver()->symmetric_eigen(operands, values, a)] {
                ops.copy(flat(a), flat(before));
                solve();
              }};
              work.values = [=, &operands](std::size_t i) { return operands.values(i == 0 ? values : a); };
              return work;
            }};
  };
  register_case(op, devices);
}

}  // namespace

void register_dense_cases(std::vector<BenchDevice>& devices) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    register_gram(devices, dtype);
    register_triangular_solve(devices, dtype);
  }
  register_cholesky(devices);
  register_eigen(devices);
}

}  // namespace bracket::bench
