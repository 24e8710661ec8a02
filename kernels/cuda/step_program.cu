// A whole step of training, many times over, in one kernel of one block: the launches of a recorded step are a list in
// device memory, and the block walks down the list, playing all blocks of each launch one after the other.
//
//   for each iteration
//     for each instruction (body, grid, threads, arguments)
//       for each block of the grid: body(block)
//       barrier
//
// A body is the device function that the ordinary kernel consists of (common/body.cuh), with the same grid and, but for
// bodies whose threads meet, the same number of threads, so the bits are those of ordinary launches, as long as nvcc
// contracts a * b + c alike in both. Bodies that meet are played by all 256 threads; those that are launched with fewer
// give every element to one thread whatever their number. What a step changes lies in device memory, the number of the
// step included, so an iteration is a step.
//
// Cost         sum over instructions of (entry + waves): entry is a barrier and the fetch of arguments and of code (the
//              kernel is larger than the instruction caches), waves the time that one multiprocessor needs for all
//              blocks of the launch. A multiprocessor does 128 multiply-adds per clock, so no step is quicker than its
//              multiply-adds / (128 clock). toy-a has 0.329 million of them per sample in its dense layers and 236
//              instructions: at least 515,000 clocks for a batch of 200 (0.26 ms at 1.98 GHz), 20,600 for one of 8.
// Against      a graph of the same step: some time between kernels for each of the 236, but all multiprocessors. One
//              block pays where that time is most of a step, for narrow layers and small batches. Nothing of this has
//              been measured on a GPU (bench/results/UNVERIFIED.md).
// A cluster    of 8 or 16 blocks on sm_90 would share the waves: blocks of a launch dealt out by rank, between
//              instructions barrier.cluster.arrive.release and wait.acquire, all else as it is, since bodies exchange
//              data through global memory only. It is not here because nothing has executed it.
// Determinism  that of the bodies; one order of all blocks.
// Resources    CUDA 13.0: 246 registers on sm_80, 250 on sm_90 (the reverse staircase alone has 208), no spills; the 72
//              bytes of stack are those of pow, sin and cos. Shared memory: the most that one of the bodies asks for,
//              17 KiB with tiles of linear layers, and 256 bytes.
#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/batch_norm.cuh"
#include "kernels/cuda/common/body.cuh"
#include "kernels/cuda/common/column_sums.cuh"
#include "kernels/cuda/dense.cuh"
#include "kernels/cuda/density.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/losses.cuh"
#include "kernels/cuda/masked_activation.cuh"
#include "kernels/cuda/optimizer.cuh"
#include "kernels/cuda/random.cuh"
#include "kernels/cuda/reduction.cuh"
#include "kernels/cuda/spectral_norm.cuh"
#include "kernels/cuda/step_program.h"
#include "kernels/cuda/toy.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

// ---- policy ---------------------------------------------------------------------------------------------------------

/// Dynamic shared memory that a block may have without an opt-in, less what bodies hold statically.
constexpr std::size_t kMostSharedBytes = 46 * 1024;
/// Blocks of one step. The presets for points have 4,000 to 6,500; some microseconds each, ten times as many keep a
/// multiprocessor busy for a tenth of a second, and beyond that one block is a mistake.
constexpr std::uint64_t kMostBlocks = 65536;

using column_sums_detail::ColumnSumsBody;
using column_sums_detail::PartialTerm;
using column_sums_detail::StorePartial;
template <class Term, class Store>
using FloatSums = ColumnSumsBody<float, Term, Store>;
template <class Term, class Store>
using PairSums = ColumnSumsBody<SumPair, Term, Store>;

constexpr int kWide = kVectorWidth<float>;

/// What the kernel can play: f32, and training passes of BatchNorm below 1,024 rows, beyond which one block is slow.
using Bodies = std::tuple<
    // elementwise
    elementwise_kernels::FillBody<float, 1>, elementwise_kernels::FillBody<float, kWide>,
    elementwise_kernels::CopyBody<float, float, 1>, elementwise_kernels::CopyBody<float, float, kWide>,
    elementwise_kernels::AxpyBody<float, 1>, elementwise_kernels::AxpyBody<float, kWide>,
    // linear
    linear_kernels::LinearForwardBody<float>, linear_kernels::LinearReverseDataBody<float>,
    linear_kernels::LinearReverseWeightsBody<float>, linear_kernels::LinearForwardTiledBody<float>,
    linear_kernels::LinearReverseDataTiledBody<float>, linear_kernels::LinearReverseWeightsTiledBody<float>,
    // activation and its sums
    activation_kernels::BiasActivationForwardBody<float, 1>,
    activation_kernels::BiasActivationForwardBody<float, kWide>,
    activation_kernels::BiasActivationReverseBody<float, 1>,
    activation_kernels::BiasActivationReverseBody<float, kWide>,
    masked_activation_kernels::MaskedActivationForwardBody<float, 1>,
    masked_activation_kernels::MaskedActivationForwardBody<float, kWide>,
    masked_activation_kernels::MaskedActivationReverseBody<float, 1>,
    masked_activation_kernels::MaskedActivationReverseBody<float, kWide>, FloatSums<PixelTerm<float>, StoreSum<float>>,
    FloatSums<PixelTerm<float>, StorePartial<float>>, FloatSums<activation_kernels::SlopeTerm<float>, StoreSum<float>>,
    FloatSums<activation_kernels::SlopeTerm<float>, StorePartial<float>>,
    FloatSums<PartialTerm<float>, StoreSum<float>>,
    // batch_norm
    batch_norm_kernels::BatchNormTrainForwardBody<float>, batch_norm_kernels::BatchNormTrainReverseBody<float>,
    batch_norm_kernels::BatchNormAffineBody<float, 1>, batch_norm_kernels::BatchNormAffineBody<float, kWide>,
    PairSums<batch_norm_kernels::GradientTerm<float>, batch_norm_kernels::InferGradientStore<float>>,
    PairSums<batch_norm_kernels::GradientTerm<float>, StorePartial<SumPair>>,
    PairSums<PartialTerm<SumPair>, batch_norm_kernels::InferGradientStore<float>>,
    // spectral_norm
    spectral_norm_kernels::RowProductsBody<float>, spectral_norm_kernels::ColumnProductsBody<float>,
    spectral_norm_kernels::NormalizeBody<float>, spectral_norm_kernels::SpectralSigmaBody<float>,
    spectral_norm_kernels::SpectralDivideBody<float>, spectral_norm_kernels::SpectralNormReverseBody<float>,
    // dense
    dense_kernels::GramBody<float>, dense_kernels::GramTiledBody<float>, dense_kernels::CholeskyBody,
    dense_kernels::CholeskyBlockBody, dense_kernels::TriangularSolveBody<float>,
    dense_kernels::LogDiagonalSumBody<float>, dense_kernels::SymmetricEigenBody, dense_kernels::MinSingularBody<float>,
    dense_kernels::CombineTangentsBody<float>, dense_kernels::ScaleRowsBody<float>,
    dense_kernels::TileIdentityBody<float>,
    // density
    density_kernels::FourierFeaturesForwardBody<float>, density_kernels::FourierFeaturesReverseBody<float>,
    density_kernels::MonotoneStaircaseForwardBody<float>, density_kernels::MonotoneStaircaseReverseBody<float>,
    density_kernels::ConfinementForwardBody<float>, density_kernels::ConfinementReverseBody<float>,
    density_kernels::AffineColumnsBody<float, 1>, density_kernels::AffineColumnsBody<float, kWide>,
    // reduction
    reduction_kernels::RowDotBody<float>, reduction_kernels::RowNormBody<float>,
    reduction_kernels::SumChunksBody<float, true>, reduction_kernels::SumPartialsBody,
    reduction_kernels::FiniteCheckChunksBody<float>, reduction_kernels::FiniteCheckRecordBody,
    // losses
    losses_kernels::EnergyLossBody<float>, losses_kernels::GeneratorLossBody<float>,
    losses_kernels::BoundRecordBody<float>, losses_kernels::AdaptPenaltyWeightBody,
    // optimizer
    optimizer_kernels::BeginStepBody, optimizer_kernels::ClipGradientBody, optimizer_kernels::AdamBody<float, 1>,
    optimizer_kernels::AdamBody<float, kWide>, optimizer_kernels::CountUpdateBody, optimizer_kernels::EmaBody<float, 1>,
    optimizer_kernels::EmaBody<float, kWide>, optimizer_kernels::EndStepBody,
    // random, toy
    random_kernels::RandomNormalBody<float>, random_kernels::RandomUniformBody<float>,
    random_kernels::GatherBatchBody<float>, toy_kernels::ToySamplesBody<float>>;

constexpr int kNumBodies = static_cast<int>(std::tuple_size_v<Bodies>);

/// One launch.
struct Instruction {
  int body;  ///< index in Bodies
  unsigned grid_x, grid_y, threads;
  std::int64_t arguments;  ///< offset of the Body
};

/// Where arguments begin behind instructions, and how each is aligned.
constexpr std::size_t kArgumentsAlignment = 16;

// ---- device functions -----------------------------------------------------------------------------------------------

/// All blocks of one launch, by all threads of the block that plays it.
template <class Body>
BRACKET_DEVICE void play(const Instruction& launch, const unsigned char* arguments, void* memory) {
  static_assert(alignof(Body) <= kArgumentsAlignment);
  // Read where it lies, although the compiler reads members anew behind each store: copies of them would spill.
  const Body& body = *reinterpret_cast<const Body*>(arguments + launch.arguments);
  Block block{0, 0, launch.grid_x, launch.grid_y, launch.threads, memory};
  if constexpr (kBodyMeets<Body>) {
    block.threads = kMeetingThreads;
  } else {
    if (threadIdx.x >= launch.threads) return;
  }
  for (block.y = 0; block.y < block.grid_y; ++block.y) {
    for (block.x = 0; block.x < block.grid_x; ++block.x) {
      body(block);
      // The next block has the same shared memory.
      if constexpr (kBodyMeets<Body>) __syncthreads();
    }
  }
}

/// play<Bodies[launch.body]>, found by bisection of [kFirst, kLast).
template <int kFirst, int kLast>
BRACKET_DEVICE void dispatch(const Instruction& launch, const unsigned char* arguments, void* memory) {
  if constexpr (kLast - kFirst == 1) {
    play<std::tuple_element_t<kFirst, Bodies>>(launch, arguments, memory);
  } else {
    constexpr int kMiddle = (kFirst + kLast) / 2;
    if (launch.body < kMiddle) {
      dispatch<kFirst, kMiddle>(launch, arguments, memory);
    } else {
      dispatch<kMiddle, kLast>(launch, arguments, memory);
    }
  }
}

// ---- kernel ---------------------------------------------------------------------------------------------------------

__global__ void __launch_bounds__(kMeetingThreads, 1)
    step_program_kernel(const Instruction* instructions, int count, const unsigned char* arguments,
                        std::int64_t times) {
  BRACKET_DYNAMIC_SHARED(unsigned char, memory);
  for (std::int64_t time = 0; time < times; ++time) {
    for (int i = 0; i < count; ++i) {
      dispatch<0, kNumBodies>(instructions[i], arguments, memory);
      __syncthreads();  // what one launch wrote the next may read
    }
  }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class... Body>
constexpr std::array<const void*, sizeof...(Body)> keys_of(const std::tuple<Body...>*) {
  return {&body_key<Body>...};
}
constexpr std::array<const void*, kNumBodies> kKeys = keys_of(static_cast<const Bodies*>(nullptr));

}  // namespace

std::optional<StepProgram> make_step_program(const LaunchRecorder& recorder) {
  if (!recorder.complete()) return std::nullopt;
  StepProgram program;
  std::vector<Instruction> instructions;
  std::uint64_t blocks = 0;
  for (const LaunchRecorder::Launch& launch : recorder.launches()) {
    const auto key = std::find(kKeys.begin(), kKeys.end(), launch.body);
    blocks += std::uint64_t{launch.grid.x} * launch.grid.y;
    if (key == kKeys.end() || launch.grid.z != 1 || launch.shared_bytes > kMostSharedBytes || blocks > kMostBlocks) {
      return std::nullopt;
    }
    program.shared_bytes = std::max(program.shared_bytes, launch.shared_bytes);
    instructions.push_back({static_cast<int>(key - kKeys.begin()), launch.grid.x, launch.grid.y, launch.threads,
                            static_cast<std::int64_t>(launch.arguments)});
  }
  const std::size_t bytes = instructions.size() * sizeof(Instruction);
  program.instructions = static_cast<int>(instructions.size());
  program.arguments = (bytes + kArgumentsAlignment - 1) / kArgumentsAlignment * kArgumentsAlignment;
  program.image.resize(program.arguments + recorder.arguments().size());
  if (bytes > 0) std::memcpy(program.image.data(), instructions.data(), bytes);
  std::copy(recorder.arguments().begin(), recorder.arguments().end(),
            program.image.begin() + static_cast<std::ptrdiff_t>(program.arguments));
  return program;
}

cudaError_t run_step_program(const StepProgram& program, const void* image, std::int64_t times, cudaStream_t stream) {
  if (times <= 0 || program.instructions == 0) return cudaSuccess;
  const auto* const bytes = static_cast<const unsigned char*>(image);
  return launch<step_program_kernel>(1, kMeetingThreads, program.shared_bytes, stream,
                                     reinterpret_cast<const Instruction*>(bytes), program.instructions,
                                     bytes + program.arguments, times);
}

}  // namespace bracket::BRACKET_TARGET
