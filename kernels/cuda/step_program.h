// A recorded step as a program for one kernel (step_program.cu).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/cuda/common/portable.cuh"

namespace bracket::BRACKET_TARGET {

struct StepProgram {
  std::vector<unsigned char> image;  ///< what the kernel reads: the instructions, then the arguments
  int instructions = 0;
  std::size_t arguments = 0;     ///< where they begin in the image
  std::size_t shared_bytes = 0;  ///< of the block that plays it
};

/// What the recorder kept. Empty where that is not all, or a launch of it has no body in the kernel, or one block cannot
/// or should not play it: too much shared memory, too many blocks.
std::optional<StepProgram> make_step_program(const LaunchRecorder& recorder);

/// Plays the program `times` times. `image` is a copy of program.image in device memory, aligned to kMemoryAlignment.
cudaError_t run_step_program(const StepProgram& program, const void* image, std::int64_t times, cudaStream_t stream);

}  // namespace bracket::BRACKET_TARGET
