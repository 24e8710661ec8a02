#include "host/training/batch_table.h"

#include <algorithm>
#include <cstring>

#include "host/data/shuffled_draws.h"
#include "host/training/inference.h"

namespace bracket {
namespace {

ImageTransform transform_of(const DataConfig& config, const ImageShape& shape) {
  ImageTransform transform;
  transform.height = shape.height;
  transform.width = shape.width;
  transform.channels = shape.channels;
  transform.flip = config.flip;
  transform.dequantise = config.dequantise;
  transform.scale = kPixelScale;
  // Noise of one level about the value that evaluation gives a pixel.
  transform.shift = kPixelShift - (config.dequantise ? kPixelScale / 2 : 0);
  return transform;
}

}  // namespace

BatchTable::BatchTable(Context& context, const TrainerConfig& config, const Dataset& data)
    : seed_(config.seed), batch_size_(config.batch_size), step_batches_(config.energy_steps) {
  if (data.is_density()) {
    source_.density = static_cast<ToyData>(data.density_index());
    return;
  }
  if (data.is_images()) source_.images = transform_of(config.data, data.image());
  const DType dtype = data.is_images() ? DType::u8 : config.dtype;
  const std::int64_t limit = config.data.device_bytes;
  source_.streamed = limit > 0 && data.rows() > limit / (data.cols() * dtype_bytes(dtype));
  const std::int64_t rows = source_.streamed ? step_batches_ * batch_size_ : data.rows();
  memory_ = context.pool().allocate(rows * data.cols() * dtype_bytes(dtype), "data");
  source_.table = Tensor(memory_.data(), dtype, {rows, data.cols()});
  if (source_.streamed) {
    data_ = data;
    if (!context.ops().planning()) uploads_ = context.ops().make_upload_queue(source_.table.bytes());
  } else if (data.is_images()) {
    context.ops().copy_bytes_to_device(memory_.data(), data.pixels().data(), source_.table.bytes());
  } else {
    to_device(context.ops(), source_.table, data.values());
  }
}

void BatchTable::prepare_step() {
  if (!source_.streamed) return;
  upload_rows(shuffled_draws({seed_, RandomStream::data, 0}, data_.rows(), next_batch_ * batch_size_,
                             step_batches_ * batch_size_));
  next_batch_ += step_batches_;
}

void BatchTable::upload_rows(const std::vector<std::int64_t>& rows) {
  const std::int64_t cols = data_.cols();
  const auto fill = [&]<class T>(T* target, const auto* source) {
    for (const std::int64_t row : rows) {
      std::transform(source + row * cols, source + (row + 1) * cols, target, [](auto v) { return static_cast<T>(v); });
      target += cols;
    }
  };
  void* const slot = uploads_->next_slot();
  switch (source_.table.dtype()) {
    case DType::u8:
      fill(static_cast<std::uint8_t*>(slot), data_.pixels().data());
      break;
    case DType::f32:
      fill(static_cast<float*>(slot), data_.values().data());
      break;
    case DType::f64:
      fill(static_cast<double*>(slot), data_.values().data());
      break;
  }
  uploads_->upload(memory_.data(), source_.table.bytes());
}

}  // namespace bracket
