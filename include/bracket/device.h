// Devices and contexts: where a computation runs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "bracket/math_mode.h"
#include "bracket/memory.h"

namespace bracket {

class Ops;

enum class DeviceKind : std::uint8_t { cpu, cuda };

/// A place to compute: the host, or one CUDA device.
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int ordinal = 0;

  /// "cpu", "cuda" (device 0), "cuda:N", or "auto" (the first usable GPU, else the CPU).
  /// Throws InvalidArgument for other text and CudaError when a named GPU is not usable.
  static Device parse(const std::string& text);
  std::string name() const;  ///< "cpu" or "cuda:N"
  friend bool operator==(const Device&, const Device&) = default;
};

/// Number of usable CUDA devices: 0 without a driver, without a GPU, or in a build without CUDA. `reason`, when given,
/// receives one line that says why none is usable (empty if one is).
int cuda_device_count(std::string* reason = nullptr);

/// What a device is, for people: the model of the CPU ("unknown CPU" where the system does not tell), or name,
/// architecture, driver and runtime of a GPU. Throws CudaError for a GPU that is not there.
std::string device_description(const Device& device);

struct ContextOptions {
  Device device = {};
  /// A cudaStream_t of the caller on `device`, or null: the context makes a non-blocking stream of its own. Work is
  /// ordered on this stream only; the library never touches the default stream and synchronises the device only where
  /// CUDA itself does (freeing memory: `trim` and destruction).
  void* stream = nullptr;
  /// Where memory comes from; the default takes it from the device itself.
  AllocatorCallbacks allocator = {};
  /// Upper limit for the pool in bytes; 0: none.
  std::int64_t memory_limit = 0;
  /// Surround every buffer with canaries and fill fresh memory with NaN; checked when a buffer is released.
  bool guard = false;
  /// Trainers record their step once as a CUDA graph and replay it: the same kernels and the same bits, from one launch
  /// a step. Without effect on a CPU and with `guard`. False: every kernel is launched by itself, as some tools want
  /// it.
  bool graphs = true;
  /// With `graphs`: a step whose kernels allow it is replayed by one kernel of one block, many steps per launch, with
  /// the same bits again; any other step is a graph. That saves the time between kernels, and leaves all but one
  /// multiprocessor idle: it is for pairs of small dense networks (width up to 256) and small batches in f32. Off by
  /// default: nothing of it has been measured on a GPU yet.
  bool one_kernel = false;
  /// Threads of the CPU device; 0: one per processor this process may use. Results do not depend on it.
  int threads = 0;
  /// How f32 networks multiply on a GPU, until Context::set_math_mode.
  MathMode math = MathMode::fp32;
};

/// One device, one stream, one memory pool and the arithmetic of that device. Everything made from a context must be
/// destroyed before it. A context serves one thread at a time; several contexts may live side by side.
class Context {
 public:
  explicit Context(const ContextOptions& options = {});
  /// For tests and tools that bring their own arithmetic (the SIMT executor, the planner).
  Context(const ContextOptions& options, std::unique_ptr<Ops> ops);
  ~Context();
  Context(Context&&) noexcept;
  Context& operator=(Context&&) noexcept;

  const Device& device() const noexcept;
  Ops& ops() noexcept;
  MemoryPool& pool() noexcept;
  bool graphs() const noexcept;      ///< ContextOptions::graphs, false with `guard`
  bool one_kernel() const noexcept;  ///< ContextOptions::one_kernel, false without graphs()
  /// Of the passes from now on; passes that are done stay as they are.
  MathMode math_mode() const noexcept;
  void set_math_mode(MathMode mode) noexcept;
  /// Waits until all work queued on the stream is done. The only place that waits.
  void synchronize();

 private:
  Device device_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<MemoryPool> pool_;
  bool graphs_;
  bool one_kernel_;
};

}  // namespace bracket
