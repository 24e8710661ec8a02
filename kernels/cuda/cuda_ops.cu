// What CudaOps needs besides kernels: the stream, memory, copies, errors, and which devices this build can use.
#include <algorithm>
#include <string>

#include "bracket/error.h"
#include "kernels/cuda/common/tensor_plan.h"
#include "kernels/cuda/cuda_calls.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/make_cuda_ops.h"

namespace bracket::BRACKET_TARGET {
namespace {

/// Page-locked slots, so that a copy is queued without a wait, and an event behind the last copy from each.
class PinnedUploadQueue final : public UploadQueue {
 public:
  PinnedUploadQueue(CudaOps& ops, cudaStream_t stream, std::int64_t bytes) : ops_(ops), stream_(stream) {
    const CurrentDevice current(ops_);
    for (Slot& slot : slots_) {
      if (cudaHostAlloc(&slot.memory, static_cast<std::size_t>(bytes), cudaHostAllocDefault) != cudaSuccess) {
        static_cast<void>(cudaGetLastError());
        release();
        throw OutOfMemory("no page-locked host memory for uploads of " + std::to_string(bytes) +
                              " bytes, two at a time; lower batch_size or raise the limit (ulimit -l)",
                          2 * bytes);
      }
      const cudaError_t code = cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming);
      if (code != cudaSuccess) release();
      require(code, "creating an event for uploads");
    }
  }
  ~PinnedUploadQueue() override {
    // Copies that are under way still read the slots.
    for (const Slot& slot : slots_) static_cast<void>(cudaEventSynchronize(slot.done));
    release();
  }

  void* next_slot() override {
    newest_ = 1 - newest_;
    // An event that was never recorded is done.
    require(cudaEventSynchronize(slots_[newest_].done), "waiting for an upload");
    return slots_[newest_].memory;
  }

  void upload(void* device, std::int64_t bytes) override {
    if (bytes == 0) return;
    if (LaunchRecorder* const recorder = LaunchRecorder::of(stream_)) {
      recorder->refuse();
      return;
    }
    const CurrentDevice current(ops_);
    const Slot& slot = slots_[newest_];
    const std::string what = "queueing an upload of " + std::to_string(bytes) + " bytes";
    require(cudaMemcpyAsync(device, slot.memory, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream_),
            what);
    require(cudaEventRecord(slot.done, stream_), what);
  }

 private:
  struct Slot {
    void* memory = nullptr;
    cudaEvent_t done = nullptr;
  };

  void release() noexcept {
    for (const Slot& slot : slots_) {
      if (slot.done != nullptr) static_cast<void>(cudaEventDestroy(slot.done));
      if (slot.memory != nullptr) static_cast<void>(cudaFreeHost(slot.memory));
    }
  }

  CudaOps& ops_;
  cudaStream_t stream_;
  Slot slots_[2];
  int newest_ = 0;
};

constexpr std::int64_t scratch_bytes(std::int64_t elements) {
  return elements * static_cast<std::int64_t>(sizeof(double));
}

}  // namespace

CudaOps::CudaOps(int ordinal, void* stream, const AllocatorCallbacks& allocator)
    : ordinal_(ordinal), stream_(static_cast<cudaStream_t>(stream)), allocator_(allocator) {
  require(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, ordinal_),
          "asking CUDA device " + std::to_string(ordinal_) + " for its multiprocessors");
  if (stream_ != nullptr) return;
  const CurrentDevice current(*this);
  require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
          "creating a stream on CUDA device " + std::to_string(ordinal_));
  owns_stream_ = true;
}

CudaOps::~CudaOps() {
  for (const Scratch& block : scratch_) CudaOps::release_memory(block.data, scratch_bytes(block.elements));
  // At process exit the runtime may be gone already (cudaErrorCudartUnloading), and the stream with it.
  if (owns_stream_) static_cast<void>(cudaStreamDestroy(stream_));
}

int CudaOps::enter_device() {
  int previous = 0;
  require(cudaGetDevice(&previous), "asking for the current CUDA device");
  if (previous != ordinal_) require(cudaSetDevice(ordinal_), "switching to CUDA device " + std::to_string(ordinal_));
  return previous;
}

void CudaOps::leave_device(int previous) noexcept {
  if (previous != ordinal_) static_cast<void>(cudaSetDevice(previous));
}

void* CudaOps::allocate_memory(std::int64_t bytes) {
  const CurrentDevice current(*this);
  if (allocator_.allocate) return allocator_.allocate(allocator_.user, bytes, stream_);
  void* address = nullptr;
  const cudaError_t code = cudaMalloc(&address, static_cast<std::size_t>(bytes));
  if (code == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  require(code, "cudaMalloc of " + std::to_string(bytes) + " bytes");
  return address;
}

void CudaOps::release_memory(void* address, std::int64_t bytes) noexcept {
  // cudaFree finds the device of an address by itself, waits for work that uses it, and refuses while unloading.
  if (allocator_.release) {
    allocator_.release(allocator_.user, address, bytes, stream_);
  } else {
    static_cast<void>(cudaFree(address));
  }
}

void CudaOps::memory_info(std::int64_t& free_bytes, std::int64_t& total_bytes) {
  free_bytes = total_bytes = 0;
  if (allocator_.allocate != nullptr) return;
  const CurrentDevice current(*this);
  std::size_t free_now = 0;
  std::size_t total = 0;
  if (cudaMemGetInfo(&free_now, &total) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    free_now = total = 0;
  }
  free_bytes = static_cast<std::int64_t>(free_now);
  total_bytes = static_cast<std::int64_t>(total);
}

void CudaOps::copy_bytes_to_device(void* device, const void* host, std::int64_t bytes) {
  if (bytes == 0) return;
  const CurrentDevice current(*this);
  const std::string what = "copying " + std::to_string(bytes) + " bytes to the device";
  require_no_recorder(what);
  require(cudaMemcpyAsync(device, host, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream_), what);
  // Pinned host memory is read after the call returns; the caller may reuse it only when the copy is done.
  require(cudaStreamSynchronize(stream_), what);
}

void CudaOps::copy_bytes_to_host(void* host, const void* device, std::int64_t bytes) {
  if (bytes == 0) return;
  const CurrentDevice current(*this);
  const std::string what = "copying " + std::to_string(bytes) + " bytes to the host";
  require_no_recorder(what);
  require(cudaMemcpyAsync(host, device, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream_), what);
  require(cudaStreamSynchronize(stream_), what);
}

void CudaOps::fill_bytes(void* device, int value, std::int64_t bytes) {
  if (bytes == 0) return;
  if (LaunchRecorder* const recorder = LaunchRecorder::of(stream_)) {
    recorder->refuse();
    return;
  }
  const CurrentDevice current(*this);
  require(cudaMemsetAsync(device, value, static_cast<std::size_t>(bytes), stream_),
          "filling " + std::to_string(bytes) + " bytes");
}

std::unique_ptr<UploadQueue> CudaOps::make_upload_queue(std::int64_t bytes) {
  return std::make_unique<PinnedUploadQueue>(*this, stream_, bytes);
}

void CudaOps::require_no_recorder(const std::string& what) const {
  if (LaunchRecorder::of(stream_) != nullptr) throw CudaError(what + " is nothing that can be recorded: it waits");
}

void CudaOps::synchronize() {
  require_no_recorder("waiting for the stream");
  const CurrentDevice current(*this);
  require(cudaStreamSynchronize(stream_), "waiting for the stream");
}

Scratch CudaOps::scratch(std::int64_t elements) {
  if (scratch_.empty() || scratch_.back().elements < elements) {
    // Powers of two: however the demand grows, all blocks together are less than twice the last.
    std::int64_t enough = kScratchElements;
    while (enough < elements) enough *= 2;
    const std::int64_t bytes = scratch_bytes(enough);
    if (is_capturing(stream_)) {
      throw InvalidArgument(
          "what is being recorded needs " + std::to_string(bytes) +
          " bytes for partial sums, which no op has needed before; run the work once, then record it");
    }
    void* const memory = allocate_memory(bytes);
    if (memory == nullptr) {
      throw OutOfMemory("the device has no " + std::to_string(bytes) + " bytes left for partial sums", bytes);
    }
    scratch_.push_back({static_cast<double*>(memory), enough});
  }
  return {scratch_.back().data, elements};
}

bool CudaOps::uses_tensor_cores(DType dtype, const ProductSize& size) const noexcept {
  return math_mode() != MathMode::fp32 && dtype == DType::f32 && tensor_cores_pay(size.m, size.n, size.p);
}

TensorDevice CudaOps::tensor_device(std::int64_t partial_sums) {
  const Scratch memory = partial_sums == 0 ? Scratch{} : scratch(ceil_divide(partial_sums, 2));
  return {math_mode(), multiprocessors_, memory, stream_};
}

void CudaOps::check(cudaError_t code, const char* op, const Tensor& operand) {
  if (code != cudaSuccess) require(code, std::string(op) + " on " + operand.describe());
}

#if defined(BRACKET_SIMT)

std::unique_ptr<Ops> make_cuda_ops(int ordinal, void* stream, const AllocatorCallbacks& allocator) {
  return std::make_unique<CudaOps>(ordinal, stream, allocator);
}

#else

namespace {

#define BRACKET_STRING(...) #__VA_ARGS__
#define BRACKET_EXPANDED_STRING(...) BRACKET_STRING(__VA_ARGS__)
/// Architectures this file was compiled for, e.g. "800,900"; all kernels are compiled alike.
constexpr const char* kBuiltArchitectures = BRACKET_EXPANDED_STRING(__CUDA_ARCH_LIST__);
#undef BRACKET_EXPANDED_STRING
#undef BRACKET_STRING

/// Stands for all kernels in the search for an image that the device can run.
__global__ void image_probe_kernel() {}

/// "sm_80, sm_90" of "800,900".
std::string built_architectures() {
  std::string text;
  const std::string list = kBuiltArchitectures;
  for (std::size_t begin = 0; begin < list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    if (!text.empty()) text += ", ";
    text += "sm_" + list.substr(begin, end - begin - 1);
    begin = end + 1;
  }
  return text;
}

std::string device_architecture(int ordinal) {
  int major = 0;
  int minor = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return "an unknown architecture";
  }
  return "sm_" + std::to_string(major) + std::to_string(minor);
}

/// Number of devices the driver shows, and why it is 0.
int visible_device_count(std::string& reason) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaSuccess && count > 0) return count;
  static_cast<void>(cudaGetLastError());
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  if (code == cudaErrorInsufficientDriver && driver != 0) {
    reason = "the NVIDIA driver (CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) +
             ") is too old for this build; update the driver";
  } else if (code == cudaErrorInsufficientDriver || code == cudaErrorNoDevice || code == cudaSuccess) {
    reason = "no NVIDIA GPU or no driver on this machine (see nvidia-smi and CUDA_VISIBLE_DEVICES)";
  } else {
    reason = describe(code);
  }
  return 0;
}

/// Empty when the device runs this build's kernels. Initialises the device for this process.
std::string missing_image_reason(int ordinal) {
  int previous = 0;
  cudaError_t code = cudaGetDevice(&previous);
  if (code == cudaSuccess) code = cudaSetDevice(ordinal);
  cudaFuncAttributes attributes = {};
  if (code == cudaSuccess) code = cudaFuncGetAttributes(&attributes, image_probe_kernel);
  static_cast<void>(cudaSetDevice(previous));
  static_cast<void>(cudaGetLastError());
  const std::string device = "CUDA device " + std::to_string(ordinal) + " (" + device_architecture(ordinal) + ")";
  if (code == cudaSuccess) return {};
  if (code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction ||
      code == cudaErrorUnsupportedPtxVersion) {
    return device + " has no kernel image in this build, which holds " + built_architectures() +
           "; configure with -DCMAKE_CUDA_ARCHITECTURES for this device";
  }
  return device + " does not start: " + describe(code);
}

}  // namespace

int usable_device_count(std::string& reason) {
  reason.clear();
  const int count = visible_device_count(reason);
  // The image is looked up on device 0 only: the look-up takes memory on a device that others may be using, and the
  // GPUs of one machine are nearly always alike. make_cuda_ops looks on the device it is given.
  if (count > 0) reason = missing_image_reason(0);
  return reason.empty() ? count : 0;
}

std::unique_ptr<Ops> make_cuda_ops(int ordinal, void* stream, const AllocatorCallbacks& allocator) {
  std::string reason;
  const int count = visible_device_count(reason);
  if (count > 0 && (ordinal < 0 || ordinal >= count)) {
    reason = "this machine has " + std::to_string(count) + " GPU(s), cuda:0 to cuda:" + std::to_string(count - 1);
  } else if (count > 0) {
    reason = missing_image_reason(ordinal);
  }
  if (!reason.empty()) throw CudaError("device 'cuda:" + std::to_string(ordinal) + "' cannot be used: " + reason);
  return std::make_unique<CudaOps>(ordinal, stream, allocator);
}

std::string device_description(int ordinal) {
  cudaDeviceProp properties = {};
  int driver = 0;
  int runtime = 0;
  require(cudaGetDeviceProperties(&properties, ordinal), "reading CUDA device " + std::to_string(ordinal));
  require(cudaDriverGetVersion(&driver), "reading the driver version");
  require(cudaRuntimeGetVersion(&runtime), "reading the runtime version");
  const auto version = [](int number) {
    return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
  };
  return std::string(properties.name) + " (sm_" + std::to_string(properties.major) + std::to_string(properties.minor) +
         "), driver " + version(driver) + ", runtime " + version(runtime);
}

#endif

}  // namespace bracket::BRACKET_TARGET
