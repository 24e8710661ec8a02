#include "bracket/device.h"
#include "bracket/error.h"
#include "host/core/cpu_features.h"
#include "kernels/cpu/cpu_ops.h"
#ifdef BRACKET_WITH_CUDA
#include "kernels/cuda/make_cuda_ops.h"
#endif

namespace bracket {

const char* math_mode_name(MathMode mode) noexcept {
  switch (mode) {
    case MathMode::fp32:
      return "fp32";
    case MathMode::tf32x3:
      return "tf32x3";
    case MathMode::tf32:
      return "tf32";
    case MathMode::bf16:
      return "bf16";
  }
  return "unknown";
}

namespace {

std::unique_ptr<Ops> make_ops(const ContextOptions& options) {
  require_cpu_features(kCompiledCpuFeatures);
  if (options.device.kind == DeviceKind::cpu) {
    if (options.stream != nullptr) {
      throw InvalidArgument("a stream was given for the CPU device, which has none; leave ContextOptions::stream null");
    }
    if (options.device.ordinal != 0) {
      throw InvalidArgument("CPU device " + std::to_string(options.device.ordinal) + " does not exist; use ordinal 0");
    }
    return std::make_unique<CpuOps>(options.allocator, options.threads);
  }
#ifdef BRACKET_WITH_CUDA
  return gpu::make_cuda_ops(options.device.ordinal, options.stream, options.allocator);
#else
  std::string reason;
  cuda_device_count(&reason);
  throw CudaError("device '" + options.device.name() + "' cannot be used: " + reason);
#endif
}

const ContextOptions& checked(const ContextOptions& options) {
  if ((options.allocator.allocate == nullptr) != (options.allocator.release == nullptr)) {
    throw InvalidArgument("ContextOptions::allocator has only one of its two functions; set both or neither");
  }
  if (options.threads < 0) {
    throw InvalidArgument("ContextOptions::threads is " + std::to_string(options.threads) +
                          "; use a positive number, or 0 for one per processor");
  }
  if (options.memory_limit < 0) {
    throw InvalidArgument("ContextOptions::memory_limit is " + std::to_string(options.memory_limit) +
                          " bytes; use a positive number, or 0 for none");
  }
  return options;
}

}  // namespace

Context::Context(const ContextOptions& options) : Context(options, make_ops(checked(options))) {}

// A dry run has no memory to put canaries into.
Context::Context(const ContextOptions& options, std::unique_ptr<Ops> ops)
    : device_(checked(options).device),
      ops_(std::move(ops)),
      pool_(std::make_unique<MemoryPool>(*ops_, options.memory_limit, options.guard && !ops_->planning())),
      graphs_(options.graphs && !options.guard),
      one_kernel_(options.one_kernel && graphs_) {
  ops_->set_math_mode(options.math);
}

Context::~Context() = default;
Context::Context(Context&&) noexcept = default;

Context& Context::operator=(Context&& other) noexcept {
  // Before the arithmetic it gives its memory back to.
  pool_ = std::move(other.pool_);
  ops_ = std::move(other.ops_);
  device_ = other.device_;
  graphs_ = other.graphs_;
  one_kernel_ = other.one_kernel_;
  return *this;
}

const Device& Context::device() const noexcept { return device_; }
Ops& Context::ops() noexcept { return *ops_; }
MemoryPool& Context::pool() noexcept { return *pool_; }
bool Context::graphs() const noexcept { return graphs_; }
bool Context::one_kernel() const noexcept { return one_kernel_; }
MathMode Context::math_mode() const noexcept { return ops_->math_mode(); }
void Context::set_math_mode(MathMode mode) noexcept { ops_->set_math_mode(mode); }
void Context::synchronize() { ops_->synchronize(); }

}  // namespace bracket
