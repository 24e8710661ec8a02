#include "host/training/memory_check.h"

#include <string>

#include "bracket/error.h"
#include "host/core/byte_count.h"

namespace bracket {
namespace {

/// 0 when not even one sample fits. Memory grows with the batch, so bisection finds the limit.
std::int64_t largest_batch(TrainerConfig config, const Dataset& data, std::int64_t available) {
  std::int64_t fits = 0, too_large = config.batch_size;
  while (too_large - fits > 1) {
    config.batch_size = fits + (too_large - fits) / 2;
    (Trainer::plan_memory(config, data).reserved <= available ? fits : too_large) = config.batch_size;
  }
  return fits;
}

}  // namespace

MemoryPlan require_memory(const MemoryPool& pool, const TrainerConfig& config, const Dataset& data) {
  const MemoryPlan plan = Trainer::plan_memory(config, data);
  const std::int64_t available = pool.available_bytes();
  if (available < 0 || plan.reserved <= available) return plan;
  const std::int64_t batch = largest_batch(config, data, available);
  std::string text = "out of memory: training with batch_size " + std::to_string(config.batch_size) + " needs " +
                     byte_count(plan.reserved) + " (step " + byte_count(plan.step) + ", state " +
                     byte_count(plan.state) + ", data " + byte_count(plan.data) + "), " + byte_count(available) +
                     " are available";
  if (pool.limit() > 0) text += " under the limit of " + byte_count(pool.limit());
  text += batch > 0
              ? "; batch_size " + std::to_string(batch) + " would fit"
              : "; not even batch_size 1 would fit: use smaller networks, or set data.device_bytes to stream the data";
  throw OutOfMemory(text, plan.reserved);
}

}  // namespace bracket
