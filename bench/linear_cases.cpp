// Dense layers on the shapes of the 2-D presets: rows x inputs x outputs. Checked against a plain triple loop. On GPUs
// also in the other math modes, beside fp32, on the dense layers of image networks and on shapes that fill one.
#include <array>
#include <cstddef>
#include <utility>

#include "bench/libraries/libraries.h"
#include "bench/op_case.h"

namespace bracket::bench {
namespace {

struct Shape {
  std::int64_t rows, in, out;
  bool both_precisions = false;
  bool of_preset = false;
};

/// toy-a: 800 rows of the energy update, 600 of the generator update. calibrated-2d: 384 rows of either network.
constexpr std::array kShapes = {
    Shape{800, 2, 100},   Shape{800, 100, 100, true}, Shape{800, 100, 1}, Shape{600, 2, 100},
    Shape{600, 100, 100}, Shape{600, 100, 2},         Shape{384, 66, 64}, Shape{384, 64, 64, true},
    Shape{384, 64, 1},    Shape{384, 1, 48},          Shape{384, 48, 48}, Shape{384, 48, 38},
};

/// A preset's layer of either kind, the dense layers of DCGAN-32 and ResNet-64, one wave of tiles, and many.
constexpr std::array kTensorShapes = {Shape{800, 100, 100, false, true},
                                      Shape{384, 64, 64, false, true},
                                      Shape{64, 128, 8192},
                                      Shape{64, 128, 16384},
                                      Shape{192, 8192, 1},
                                      Shape{1024, 1024, 1024},
                                      Shape{8192, 1024, 1024},
                                      Shape{4096, 4096, 4096}};

/// The judged rows of c[m, n] = sum over k of a(i, k) b(k, j).
template <class A, class B>
Output product(const Tensor& c, std::int64_t depth, A a, B b) {
  const std::vector<std::int64_t> rows = judged_rows(c.rows(), static_cast<double>(c.cols() * depth));
  const auto expected = [=, n = c.cols()] {
    const auto left = a(), right = b();
    std::vector<double> values;
    values.reserve(rows.size() * static_cast<std::size_t>(n));
    for (const std::int64_t i : rows) {
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::int64_t k = 0; k < depth; ++k) sum += left(i, k) * right(k, j);
        values.push_back(sum);
      }
    }
    return values;
  };
  return {c, expected, rows};
}

/// Once asked for, element (i, j) of a row-major matrix.
auto entries(const Operands& operands, const Tensor& x) {
  return [&operands, x] {
    return [values = operands.values(x), cols = x.cols()](std::int64_t i, std::int64_t j) {
      return values[static_cast<std::size_t>(i * cols + j)];
    };
  };
}

template <class A>
auto transposed(A a) {
  return [a] { return [entry = a()](std::int64_t i, std::int64_t j) { return entry(j, i); }; };
}

LibraryWork in_bf16(Call call) {
  LibraryWork work{std::move(call)};
  work.label = "operands rounded to bf16 before";
  return work;
}

Work forward(Operands& operands, const Shape& s) {
  const Tensor x = operands.normal({s.rows, s.in}), w = operands.normal({s.out, s.in});
  const Tensor y = operands.result({s.rows, s.out});
  return {[=](Ops& ops) { ops.linear_forward(y, x, w); },
          {product(y, s.in, entries(operands, x), transposed(entries(operands, w)))},
          [=, &operands] { return LibraryWork{cublas()->linear_forward(operands, y, x, w)}; },
          [=, &operands] { return in_bf16(cublas()->linear_forward_in_bf16(operands, y, x, w)); }};
}

Work reverse_data(Operands& operands, const Shape& s) {
  const Tensor grad_y = operands.normal({s.rows, s.out}), w = operands.normal({s.out, s.in});
  const Tensor grad_x = operands.result({s.rows, s.in});
  return {[=](Ops& ops) { ops.linear_reverse_data(grad_x, grad_y, w, Update::overwrite); },
          {product(grad_x, s.out, entries(operands, grad_y), entries(operands, w))},
          [=, &operands] { return LibraryWork{cublas()->linear_reverse_data(operands, grad_x, grad_y, w)}; },
          [=, &operands] { return in_bf16(cublas()->linear_reverse_data_in_bf16(operands, grad_x, grad_y, w)); }};
}

Work reverse_weights(Operands& operands, const Shape& s) {
  const Tensor grad_y = operands.normal({s.rows, s.out}), x = operands.normal({s.rows, s.in});
  const Tensor grad_w = operands.result({s.out, s.in});
  return {[=](Ops& ops) { ops.linear_reverse_weights(grad_w, grad_y, x, Update::overwrite); },
          {product(grad_w, s.rows, transposed(entries(operands, grad_y)), entries(operands, x))},
          [=, &operands] { return LibraryWork{cublas()->linear_reverse_weights(operands, grad_w, grad_y, x)}; },
          [=, &operands] { return in_bf16(cublas()->linear_reverse_weights_in_bf16(operands, grad_w, grad_y, x)); }};
}

struct Direction {
  const char* name;
  Work (*make)(Operands&, const Shape&);
  std::int64_t Shape::*depth;
};
constexpr std::array kDirections = {Direction{"linear_forward", forward, &Shape::in},
                                    Direction{"linear_reverse_data", reverse_data, &Shape::out},
                                    Direction{"linear_reverse_weights", reverse_weights, &Shape::rows}};

OpCase make_case(const Direction& direction, const Shape& shape, DType dtype) {
  const std::int64_t rows = shape.rows, in = shape.in, out = shape.out;
  OpCase op;
  op.name =
      std::string(direction.name) + "/" + std::to_string(rows) + "x" + std::to_string(in) + "x" + std::to_string(out);
  op.dtype = dtype;
  op.flops = 2.0 * static_cast<double>(rows * in * out);
  op.bytes = static_cast<double>((rows * (in + out) + in * out) * dtype_bytes(dtype));
  op.make = [make = direction.make, shape](Operands& operands) { return make(operands, shape); };
  op.depth = shape.*direction.depth;
  if (const DenseLibrary* const library = cublas()) {
    op.library = library->name;
    op.library_in_bf16 = library->name_in_bf16;
  }
  return op;
}

}  // namespace

void register_linear_cases(std::vector<BenchDevice>& devices) {
  for (const Direction& direction : kDirections) {
    for (const Shape& shape : kShapes) {
      register_case(make_case(direction, shape, DType::f32), devices);
      if (shape.both_precisions) register_case(make_case(direction, shape, DType::f64), devices);
    }
    for (const Shape& shape : kTensorShapes) {
      for (const MathMode mode : {MathMode::fp32, MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
        // The presets' fp32 cases are there already.
        if (mode == MathMode::fp32 && shape.of_preset) continue;
        OpCase op = make_case(direction, shape, DType::f32);
        op.math = mode;
        op.gpu_only = true;
        register_case(op, devices);
      }
    }
  }
}

}  // namespace bracket::bench
