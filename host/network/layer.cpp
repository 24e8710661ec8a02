#include "host/network/layer.h"

#include <cmath>
#include <numbers>
#include <utility>

namespace bracket {
namespace {

// Parameters start at multiples of 128 bytes in f32 (256 in f64), so that vector loads of any width are aligned.
constexpr std::int64_t kParameterAlignment = 32;

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

std::string described(const ImageShape& image) {
  return std::to_string(image.height) + " x " + std::to_string(image.width) + " pixels of " +
         std::to_string(image.channels) + " channels";
}

std::string described(const Features& features) {
  if (features.image && !features.flattened) return "images of " + described(*features.image);
  return "rows of " + std::to_string(features.size) + " columns";
}

Tensor BlockView::of(const Tensor& block) const {
  if (block.absent()) return {};
  auto* start = static_cast<std::byte*>(block.data()) + offset * dtype_bytes(block.dtype());
  return cols == 0 ? Tensor(start, block.dtype(), {rows}) : Tensor(start, block.dtype(), {rows, cols});
}

BlockView BlockLayout::add(const std::string& name, std::int64_t rows, std::int64_t cols, bool buffer) {
  std::vector<std::int64_t> shape = {rows};
  if (cols > 0) shape.push_back(cols);
  return add(name, rows, cols, buffer, std::move(shape), {});
}

BlockView BlockLayout::add(const std::string& name, std::int64_t rows, std::int64_t cols, bool buffer,
                           std::vector<std::int64_t> shape, FileOrder order) {
  std::int64_t& next = next_[buffer ? 1 : 0];
  const BlockView view{next, rows, cols};
  ParameterInfo info{name, std::move(shape), next, buffer, std::move(order)};
  next = round_up(next + info.size(), kParameterAlignment);
  infos_.push_back(std::move(info));
  return view;
}

Stacked allocate_stacked(Arena& arena, DType dtype, const Rows& rows, std::int64_t cols, bool primal, bool tangent) {
  const std::int64_t n = primal ? rows.primal : 0;
  const std::int64_t m = tangent ? rows.tangent_rows() : 0;
  const Tensor block = arena.allocate(dtype, {n + m, cols});
  return {primal ? block.slice_rows(0, n) : Tensor(), tangent ? block.slice_rows(n, m) : Tensor()};
}

Tensor joined(const Stacked& value) {
  const Tensor& p = value.primal;
  const Tensor& t = value.tangent;
  if (p.absent() || t.absent() || p.row_stride() != t.row_stride()) return {};
  const auto* end = static_cast<const std::byte*>(p.data()) + p.rows() * p.row_stride() * dtype_bytes(p.dtype());
  if (end != t.data()) return {};
  return Tensor::matrix(p.data(), p.dtype(), p.rows() + t.rows(), p.cols(), p.row_stride());
}

Stacked with_primal(const Frame& frame, const Stacked& value, std::int64_t cols) {
  if (!frame.primal || !value.primal.absent()) return value;
  const Tensor zeros = frame.arena.allocate(frame.dtype, {frame.rows.primal, cols});
  frame.ops.fill(zeros, 0);
  return {zeros, value.tangent};
}

namespace {

// Products that are sums in truth: never in a mode that rounds their factors.
Tensor ones(const Frame& frame, std::int64_t cols) {
  const Tensor row = frame.arena.allocate(frame.dtype, {1, cols});
  frame.ops.fill(row, 1);
  return row;
}

}  // namespace

void add_row_sums(const Frame& frame, const Stacked& total, const Stacked& shares) {
  const std::int64_t mark = frame.arena.mark();
  const MathScope math(frame.ops, MathMode::fp32);
  for (const auto& [to, from] : {std::pair{total.primal, shares.primal}, std::pair{total.tangent, shares.tangent}}) {
    if (to.absent() || from.absent()) continue;
    const Tensor sums = frame.arena.allocate(frame.dtype, {from.rows(), 1});
    frame.ops.linear_forward(sums, from, ones(frame, from.cols()));
    frame.ops.axpy(to, 1, sums);
  }
  frame.arena.rewind(mark);
}

Stacked spread_over_row(const Frame& frame, const Stacked& total, std::int64_t cols) {
  const MathScope math(frame.ops, MathMode::fp32);
  const auto spread = [&](const Tensor& from) -> Tensor {
    if (from.absent()) return {};
    const Tensor shares = frame.arena.allocate(frame.dtype, {from.rows(), cols});
    frame.ops.linear_reverse_data(shares, from, ones(frame, cols), Update::overwrite);
    return shares;
  };
  return {spread(total.primal), spread(total.tangent)};
}

bool injective_function(Activation function, double negative_slope) noexcept {
  switch (function) {
    case Activation::identity:
    case Activation::tanh:
    case Activation::sigmoid:
    case Activation::softplus:
      return true;
    case Activation::leaky_relu:
      return negative_slope > 0;
    case Activation::relu:
    case Activation::prelu:
    case Activation::silu:
      return false;
  }
  return false;
}

std::vector<double> uniform_values(const RandomKey& key, std::int64_t count, double bound) {
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    values[static_cast<std::size_t>(i)] = bound * (2 * random_uniform(key, static_cast<std::uint64_t>(i)) - 1);
  return values;
}

std::vector<double> gaussian_values(const RandomKey& key, std::int64_t count, double mean, double deviation) {
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double radius = std::sqrt(-2 * std::log(random_uniform(key, i / 2 * 2)));
    const double angle = 2 * std::numbers::pi * random_uniform(key, i / 2 * 2 + 1);
    values[i] = mean + deviation * radius * (i % 2 == 0 ? std::sin(angle) : std::cos(angle));
  }
  return values;
}

}  // namespace bracket
