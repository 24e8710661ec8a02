// Typed errors. Every message carries the values involved and the remedy; the program maps each type to an exit code.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace bracket {

/// Process exit codes of the `bracket` program, also listed by `bracket --help`.
enum class ExitCode : int {
  ok = 0,
  internal = 1,       ///< a defect in Bracket itself
  usage = 2,          ///< bad command line, configuration or argument
  data = 3,           ///< data file or disk: absent, malformed, unreadable, read-only, full
  diverged = 4,       ///< a loss, gradient or parameter became non-finite; the bad update was not applied
  memory = 5,         ///< host or device memory exhausted
  device = 6,         ///< no usable GPU, or a CUDA call failed
  checkpoint = 7,     ///< a checkpoint is damaged or does not match
  preempted = 75,     ///< SIGUSR1: stopped cleanly after a checkpoint, please requeue
  interrupted = 130,  ///< SIGINT: stopped cleanly after a checkpoint
  terminated = 143,   ///< SIGTERM: stopped cleanly after a checkpoint
};

/// Base of everything the library throws on purpose.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& what) : std::runtime_error(what), code_(code) {}
  /// The exit code a program should end with when nothing handles the error.
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

/// An argument, option or configuration value is wrong.
class InvalidArgument : public Error {
 public:
  explicit InvalidArgument(const std::string& what) : Error(ExitCode::usage, what) {}
};

/// The request is well-formed but this build or device cannot serve it; the message says what is supported.
class Unsupported : public Error {
 public:
  explicit Unsupported(const std::string& what) : Error(ExitCode::usage, what) {}
};

/// A CUDA call failed, or no usable GPU is present.
class CudaError : public Error {
 public:
  explicit CudaError(const std::string& what) : Error(ExitCode::device, what) {}
};

/// Memory is exhausted or the pool's limit is reached.
class OutOfMemory : public Error {
 public:
  OutOfMemory(const std::string& what, std::int64_t requested_bytes)
      : Error(ExitCode::memory, what), requested_bytes_(requested_bytes) {}
  std::int64_t requested_bytes() const noexcept { return requested_bytes_; }

 private:
  std::int64_t requested_bytes_;
};

/// A data file, or the disk it lives on, is unusable.
class DataError : public Error {
 public:
  explicit DataError(const std::string& what) : Error(ExitCode::data, what) {}
};

/// Sound data that lacks the split asked for.
class AbsentSplit : public DataError {
 public:
  using DataError::DataError;
};

/// A checkpoint file is damaged, incomplete or does not match the network.
class CheckpointError : public Error {
 public:
  explicit CheckpointError(const std::string& what) : Error(ExitCode::checkpoint, what) {}
};

/// Training met a non-finite value. The update that produced it was not applied.
class Diverged : public Error {
 public:
  Diverged(const std::string& what, std::string tensor, std::int64_t step)
      : Error(ExitCode::diverged, what), tensor_(std::move(tensor)), step_(step) {}
  const std::string& tensor() const noexcept { return tensor_; }
  std::int64_t step() const noexcept { return step_; }

 private:
  std::string tensor_;
  std::int64_t step_;
};

}  // namespace bracket
