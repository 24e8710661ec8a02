// The SIMT executor: runs a CUDA kernel, compiled by a C++ compiler, on the CPU.
//
// Every CUDA thread of a block is a fiber; a block runs on one OS thread. A fiber runs until it waits at a barrier or a
// warp collective, so the schedule decides which bugs show: it is chosen by `Options`. Blocks are dealt out to the
// workers in turn. Shared memory starts out as poison and is followed by canaries.
//
// What is an error is thrown by launch() as `Error`, whose text names file and line, kernel, block, thread, order and
// seed: deadlock, a barrier not reached by all threads or reached at different source lines, a warp collective with a
// wrong mask, a write past the end of shared or device memory, a misaligned atomic, a memory fault, a kernel stack
// overflow, too much shared memory, an impossible grid or block. The executor stays usable afterwards.
//
// Kernels may hold only trivially destructible locals: after an error suspended threads are abandoned, not unwound.
// Two barriers on one source line count as the same barrier. A kernel must not wait for another block or spin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>

#include "simt/vector_types.h"

extern constinit thread_local uint3 threadIdx;
extern constinit thread_local uint3 blockIdx;
extern constinit thread_local dim3 blockDim;
extern constinit thread_local dim3 gridDim;
constexpr int warpSize = 32;

namespace simt {

/// Which of the threads that can run goes next.
enum class Order {
  forward,  ///< the lowest: the first warp runs as far ahead of the others as it can
  reverse,  ///< the highest: the last warp runs ahead
  random,   ///< even seeds: random warp priorities with rare changes; odd seeds: any thread with equal chance
};

struct Options {
  Order order = Order::forward;  ///< SIMT_ORDER=forward|reverse|random
  /// SIMT_SEED. Drives the random order; seed % 3 also picks what fresh shared memory holds (0: NaN, 1: 1e30, 2:
  /// -1e30), because fmax(x, 0) and the like swallow a NaN.
  std::uint64_t seed = 0;
  int workers = 0;                             ///< SIMT_WORKERS: OS threads that run blocks; 0: one per core, at most 8
  std::size_t stack_bytes = 256 * 1024;        ///< SIMT_STACK_KB * 1024: stack of one CUDA thread, at least 16 KiB
  std::size_t shared_limit_bytes = 227 << 10;  ///< shared memory of one block; the limit of sm_90
  std::size_t device_memory_bytes = std::size_t{4} << 30;  ///< what cudaMalloc of the shim hands out in total
};

/// The options of the launches to come; they start as options_from_environment(). Not to be changed during a launch.
Options& options();

/// Reads SIMT_ORDER, SIMT_SEED, SIMT_WORKERS, SIMT_STACK_KB. Throws Error on a value that is none.
Options options_from_environment();

class Error : public std::runtime_error {
 public:
  enum class Kind {
    configuration,  ///< nothing ran: grid, block, shared memory or an option is impossible
    execution,      ///< the kernel failed
  };
  Error(Kind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
  Kind kind() const noexcept { return kind_; }

 private:
  Kind kind_;
};

namespace detail {

struct Site {
  const char* file;
  int line;
};

// Two scalar defaults: GCC evaluates __builtin_LINE() inside a braced default argument at the declaration.
#define SIMT_CALL_SITE const char *site_file = __builtin_FILE(), int site_line = __builtin_LINE()
#define SIMT_SITE \
  ::simt::detail::Site { site_file, site_line }

struct SharedVariable {
  const char* name;
  std::size_t bytes;
  std::size_t alignment;
};

/// What one lane brings to a warp collective.
struct LaneArguments {
  const void* in;
  void* out;
  int operand;
  int width;
};
/// Computes the results of all lanes of `mask`; `lanes` has 32 entries.
using CollectiveFunction = void (*)(unsigned mask, const LaneArguments* lanes);

enum class Reduction { none, any, all, count };

int block_barrier(int barrier, int num_threads, Reduction reduction, int value, const char* operation, Site site);
void warp_collective(unsigned mask, const char* operation, CollectiveFunction function, const LaneArguments& arguments,
                     bool orders_memory, Site site);
void* shared_variable(const SharedVariable& variable);
void* dynamic_shared();
void memory_fence();
[[noreturn]] [[gnu::format(printf, 2, 3)]] void fail(Site site, const char* format, ...);

struct KernelCall {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes;
  void (*invoke)(void* arguments);
  void* arguments;
  const char* kernel;  ///< the signature of kernel_signature(), which contains the kernel's name
};
void run(const KernelCall& call);

template <auto Kernel>
constexpr const char* kernel_signature() {
  return __PRETTY_FUNCTION__;
}

template <auto Kernel>
struct Arguments;
template <class... Parameters, void (*Kernel)(Parameters...)>
struct Arguments<Kernel> {
  std::tuple<std::decay_t<Parameters>...> values;
  // Every thread works on its own copy, as on the GPU.
  static void invoke(void* self) {
    std::apply([](auto... copies) { Kernel(copies...); }, static_cast<Arguments*>(self)->values);
  }
};

}  // namespace detail

/// Kernels launched since the program started, by all threads.
std::int64_t launches() noexcept;

/// Runs the kernel to its end on the calling thread and the workers. `shared_bytes` is the dynamic shared memory.
/// Throws Error. Several OS threads may launch at the same time.
template <auto Kernel, class... Args>
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, Args... args) {
  detail::Arguments<Kernel> arguments{{args...}};
  detail::run(
      {grid, block, shared_bytes, detail::Arguments<Kernel>::invoke, &arguments, detail::kernel_signature<Kernel>()});
}

}  // namespace simt
