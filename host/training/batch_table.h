// The data of a training on the device: all of it, or, where that is too much, the rows of one step at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bracket/dataset.h"
#include "bracket/device.h"
#include "bracket/trainer.h"
#include "host/training/training_step.h"
#include "kernels/ops.h"

namespace bracket {

/// Rows that do not stay on the device are picked on the host, in the order of `gather_batch`, and uploaded before each
/// step: the batches have the same bits. Two slots of host memory take turns, so that the host fills one while the
/// upload from the other waits its turn on the stream; uploads and steps follow each other on that one stream, which
/// therefore needs the rows of one step only.
class BatchTable {
 public:
  /// Uploads the table where it stays. The context must outlive this.
  BatchTable(Context& context, const TrainerConfig& config, const Dataset& data);

  const BatchSource& source() const noexcept { return source_; }
  /// Before every step: uploads its rows where they are not there yet.
  void prepare_step();
  /// The next step is the one behind this many energy updates.
  void restart(std::int64_t energy_updates) noexcept { next_batch_ = energy_updates; }
  std::int64_t device_bytes() const noexcept { return memory_.bytes(); }

 private:
  void upload_rows(const std::vector<std::int64_t>& rows);

  Dataset data_;  // a density, or what rows are picked from; empty where all is on the device
  std::uint64_t seed_;
  std::int64_t batch_size_, step_batches_;
  std::int64_t next_batch_ = 0;
  BatchSource source_;
  Buffer memory_;
  std::unique_ptr<UploadQueue> uploads_;
};

}  // namespace bracket
