#include "bench/operands.h"

#include <limits>

namespace bracket::bench {
namespace {

std::int64_t size_of(std::initializer_list<std::int64_t> shape) {
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  return size;
}

void upload(Ops& ops, const Tensor& y, const std::vector<double>& values) {
  const auto write = [&]<class T>(T) {
    const std::vector<T> elements(values.begin(), values.end());
    ops.upload(y, elements.data());
  };
  if (y.dtype() == DType::f32)
    write(float{});
  else
    write(double{});
}

}  // namespace

std::unique_ptr<Operands> Operands::replica() const {
  auto copies = std::make_unique<Operands>(context_, dtype_, math_, stream_);
  copies->original_ = this;
  return copies;
}

void* Operands::take(std::int64_t bytes) {
  buffers_.push_back(context_.pool().allocate(bytes, "benchmark operand"));
  return buffers_.back().data();
}

Tensor Operands::flat_copy(const Tensor& source) {
  const Tensor copy(take(source.bytes()), source.dtype(), {source.size()});
  ops().copy(copy, source.reshaped({source.size()}));
  return copy;
}

Tensor Operands::normal(std::initializer_list<std::int64_t> shape, double deviation, double mean) {
  if (original_ != nullptr) return flat_copy(original_->made_.at(copied_++)).reshaped(shape);
  const std::int64_t size = size_of(shape);
  const Tensor tensor(take(size * dtype_bytes(dtype_)), dtype_, shape);
  std::normal_distribution<double> distribution(mean, deviation);
  std::vector<double> values(static_cast<std::size_t>(size));
  for (double& value : values) value = static_cast<double>(static_cast<float>(distribution(engine_)));
  upload(ops(), tensor, values);
  made_.push_back(tensor);
  return tensor;
}

Tensor Operands::result(std::initializer_list<std::int64_t> shape, DType dtype) {
  const Tensor tensor(take(size_of(shape) * dtype_bytes(dtype)), dtype, shape);
  if (dtype == DType::u8)
    ops().fill_bytes(tensor.data(), 0xff, tensor.bytes());
  else
    ops().fill(tensor, std::numeric_limits<double>::quiet_NaN());
  return tensor;
}

Stacked Operands::normal_rows(const Rows& rows, std::int64_t cols, double deviation) {
  const Tensor all = normal({rows.primal + rows.tangent_rows(), cols}, deviation);
  return {all.slice_rows(0, rows.primal), all.slice_rows(rows.primal, rows.tangent_rows())};
}

Stacked Operands::result_rows(const Rows& rows, std::int64_t cols) {
  const Tensor all = result({rows.primal + rows.tangent_rows(), cols});
  return {all.slice_rows(0, rows.primal), all.slice_rows(rows.primal, rows.tangent_rows())};
}

StepState* Operands::state(const StepState& start) {
  auto* address = static_cast<StepState*>(take(static_cast<std::int64_t>(sizeof(StepState))));
  ops().copy_bytes_to_device(address, &start, sizeof start);
  return address;
}

void Operands::begin_library(const std::string& way, MathMode math) {
  math_ = math;
  way_ = way + " " + math_mode_name(math);
  converted_[way_].clear();
  converted_copied_ = 0;
}

void* Operands::converted(std::int64_t bytes, const std::function<void(std::vector<std::byte>&)>& write) {
  if (original_ != nullptr) return flat_copy(original_->converted_.at(way_).at(converted_copied_++)).data();
  constexpr std::int64_t kElement = sizeof(float);  // copied like numbers, whatever they are
  const std::int64_t elements = (bytes + kElement - 1) / kElement;
  const Tensor tensor(take(elements * kElement), DType::f32, {elements});
  std::vector<std::byte> host(static_cast<std::size_t>(tensor.bytes()));
  write(host);
  ops().copy_bytes_to_device(tensor.data(), host.data(), tensor.bytes());
  converted_[way_].push_back(tensor);
  return tensor.data();
}

std::vector<double> Operands::values(const Tensor& x) const {
  const auto read = [&]<class T>(T) {
    std::vector<T> elements(static_cast<std::size_t>(x.size()));
    ops().download(elements.data(), x);
    return std::vector<double>(elements.begin(), elements.end());
  };
  return x.dtype() == DType::f32 ? read(float{}) : read(double{});
}

}  // namespace bracket::bench
