// Dense layers on the shapes of the 2-D presets: rows x inputs x outputs. Checked against a plain triple loop. On GPUs
// also in the other math modes, beside fp32, and on shapes that fill one, for which the CPU in f64 is quicker to ask.
#include <array>
#include <cstddef>
#include <utility>

#include "bench/op_case.h"

namespace bracket::bench {
namespace {

struct Shape {
  std::int64_t rows, in, out;
  bool both_precisions = false;
};

/// toy-a: 800 rows of the energy update, 600 of the generator update. calibrated-2d: 384 rows of either network.
constexpr std::array kShapes = {
    Shape{800, 2, 100},   Shape{800, 100, 100, true}, Shape{800, 100, 1}, Shape{600, 2, 100},
    Shape{600, 100, 100}, Shape{600, 100, 2},         Shape{384, 66, 64}, Shape{384, 64, 64, true},
    Shape{384, 64, 1},    Shape{384, 1, 48},          Shape{384, 48, 48}, Shape{384, 48, 38},
};

/// A preset's layer of either kind, one wave of tiles, and many.
constexpr std::array kTensorShapes = {Shape{800, 100, 100}, Shape{384, 64, 64}, Shape{1024, 1024, 1024},
                                      Shape{8192, 1024, 1024}};
constexpr double kMostLooped = 1e8;  // multiply-adds: about a second

/// c[m, n] = sum over k of a(i, k) b(k, j); empty where that takes too long.
template <class A, class B>
std::vector<double> product(std::int64_t m, std::int64_t n, std::int64_t depth, const A& a, const B& b) {
  std::vector<double> c;
  if (static_cast<double>(m * n * depth) > kMostLooped) return c;
  c.reserve(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < depth; ++k) sum += a(i, k) * b(k, j);
      c.push_back(sum);
    }
  }
  return c;
}

/// Element (i, j) of a row-major matrix with `cols` columns.
auto entries(std::vector<double> values, std::int64_t cols) {
  return [values = std::move(values), cols](std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>(i * cols + j)];
  };
}

template <class A>
auto transposed(A a) {
  return [a = std::move(a)](std::int64_t i, std::int64_t j) { return a(j, i); };
}

Work forward(Operands& operands, const Shape& s) {
  const Tensor x = operands.normal({s.rows, s.in}), w = operands.normal({s.out, s.in});
  const Tensor y = operands.result({s.rows, s.out});
  return {[=](Ops& ops) { ops.linear_forward(y, x, w); },
          {{y, product(s.rows, s.out, s.in, entries(operands.values(x), s.in),
                       transposed(entries(operands.values(w), s.in)))}}};
}

Work reverse_data(Operands& operands, const Shape& s) {
  const Tensor grad_y = operands.normal({s.rows, s.out}), w = operands.normal({s.out, s.in});
  const Tensor grad_x = operands.result({s.rows, s.in});
  return {[=](Ops& ops) { ops.linear_reverse_data(grad_x, grad_y, w, Update::overwrite); },
          {{grad_x,
            product(s.rows, s.in, s.out, entries(operands.values(grad_y), s.out), entries(operands.values(w), s.in))}}};
}

Work reverse_weights(Operands& operands, const Shape& s) {
  const Tensor grad_y = operands.normal({s.rows, s.out}), x = operands.normal({s.rows, s.in});
  const Tensor grad_w = operands.result({s.out, s.in});
  return {[=](Ops& ops) { ops.linear_reverse_weights(grad_w, grad_y, x, Update::overwrite); },
          {{grad_w, product(s.out, s.in, s.rows, transposed(entries(operands.values(grad_y), s.out)),
                            entries(operands.values(x), s.in))}}};
}

struct Direction {
  const char* name;
  Work (*make)(Operands&, const Shape&);
};
constexpr std::array kDirections = {Direction{"linear_forward", forward},
                                    Direction{"linear_reverse_data", reverse_data},
                                    Direction{"linear_reverse_weights", reverse_weights}};

OpCase make_case(const Direction& direction, const Shape& shape, DType dtype) {
  const auto [rows, in, out, both] = shape;
  OpCase op;
  op.name =
      std::string(direction.name) + "/" + std::to_string(rows) + "x" + std::to_string(in) + "x" + std::to_string(out);
  op.dtype = dtype;
  op.flops = 2.0 * static_cast<double>(rows * in * out);
  op.bytes = static_cast<double>((rows * (in + out) + in * out) * dtype_bytes(dtype));
  op.make = [make = direction.make, shape](Operands& operands) { return make(operands, shape); };
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
        if (mode == MathMode::fp32 && shape.rows < 1024) continue;
        OpCase op = make_case(direction, shape, DType::f32);
        op.math = mode;
        op.gpu_only = true;
        register_case(op, devices);
      }
    }
  }
}

}  // namespace bracket::bench
