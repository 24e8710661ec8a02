// Launches that are written down instead of made. Included by portable.cuh, which knows the target.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <vector>

namespace bracket::BRACKET_TARGET {

/// While one lives, the launches that its thread makes on `stream` are kept here and do not run. Their arguments are
/// those of the moment. Recorders of one thread end in the opposite order of their beginnings.
class LaunchRecorder {
 public:
  struct Launch {
    const void* body;  ///< &body_key<Body> (body.cuh)
    dim3 grid;
    unsigned threads;
    std::size_t shared_bytes;
    std::size_t arguments;  ///< where the Body begins in arguments(), aligned as it wants to be
  };

  explicit LaunchRecorder(cudaStream_t stream) noexcept : stream_(stream), previous_(newest()) { newest() = this; }
  ~LaunchRecorder() { newest() = previous_; }
  LaunchRecorder(const LaunchRecorder&) = delete;
  LaunchRecorder& operator=(const LaunchRecorder&) = delete;

  /// The recorder that keeps what the calling thread launches on `stream`; null: it is launched.
  static LaunchRecorder* of(cudaStream_t stream) noexcept {
    LaunchRecorder* recorder = newest();
    while (recorder != nullptr && recorder->stream_ != stream) recorder = recorder->previous_;
    return recorder;
  }

  template <class Body>
  cudaError_t append(const void* key, dim3 grid, unsigned threads, std::size_t shared_bytes,
                     const Body& body) noexcept {
    try {
      const std::size_t begin = (arguments_.size() + alignof(Body) - 1) / alignof(Body) * alignof(Body);
      arguments_.resize(begin + sizeof(Body));
      std::memcpy(arguments_.data() + begin, &body, sizeof(Body));
      launches_.push_back({key, grid, threads, shared_bytes, begin});
    } catch (const std::bad_alloc&) {
      return cudaErrorMemoryAllocation;
    }
    return cudaSuccess;
  }

  /// What was asked of the stream cannot be kept; the record is of no use.
  cudaError_t refuse() noexcept {
    complete_ = false;
    return cudaSuccess;
  }

  bool complete() const noexcept { return complete_; }
  const std::vector<Launch>& launches() const noexcept { return launches_; }
  const std::vector<unsigned char>& arguments() const noexcept { return arguments_; }

 private:
  static LaunchRecorder*& newest() noexcept {
    static thread_local LaunchRecorder* recorder = nullptr;
    return recorder;
  }

  cudaStream_t stream_;
  LaunchRecorder* previous_;
  bool complete_ = true;
  std::vector<Launch> launches_;
  std::vector<unsigned char> arguments_;
};

}  // namespace bracket::BRACKET_TARGET
