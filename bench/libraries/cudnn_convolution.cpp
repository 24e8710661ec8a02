// Convolutions by cuDNN: of its algorithms, in NHWC and in NCHW, the one that it measures to be quickest, or the next
// where that misses the gate.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "bench/libraries/bf16.h"
#include "bench/libraries/cudnn_handle.h"

namespace bracket::bench {
namespace {

enum class Direction { forward, reverse_data, reverse_weights };

/// Images or filters as the op stores them, [count, height, width, channels].
struct Volume {
  Tensor tensor;
  std::int64_t count, height, width, channels;
};

/// One way to compute, and its time as measured by cuDNN.
struct Plan {
  cudnnTensorFormat_t layout = CUDNN_TENSOR_NHWC;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnMathType_t math = CUDNN_FMA_MATH;
  int algorithm = 0;
  float milliseconds = 0;
};

/// Place, in the library's layout, of element `i` of a tensor that lies in NHWC.
std::size_t place(const Volume& volume, cudnnTensorFormat_t layout, std::int64_t i) {
  if (layout == CUDNN_TENSOR_NHWC) return static_cast<std::size_t>(i);
  const std::int64_t pixels = volume.height * volume.width;
  const std::int64_t channel = i % volume.channels, pixel = i / volume.channels % pixels;
  const std::int64_t image = i / (volume.channels * pixels);
  return static_cast<std::size_t>((image * volume.channels + channel) * pixels + pixel);
}

bool as_it_is(const Plan& plan) { return plan.layout == CUDNN_TENSOR_NHWC && plan.type == CUDNN_DATA_FLOAT; }

std::int64_t element_bytes(const Plan& plan) { return plan.type == CUDNN_DATA_FLOAT ? 4 : 2; }

/// The operand in the plan's type and layout: itself where it has them.
void* converted(Operands& operands, const Volume& volume, const Plan& plan) {
  if (as_it_is(plan)) return volume.tensor.data();
  return operands.converted(volume.tensor.size() * element_bytes(plan), [&](std::vector<std::byte>& bytes) {
    const std::vector<double> values = operands.values(volume.tensor);
    for (std::int64_t i = 0; i < volume.tensor.size(); ++i) {
      const auto value = static_cast<float>(values[static_cast<std::size_t>(i)]);
      const std::size_t at = place(volume, plan.layout, i);
      if (plan.type == CUDNN_DATA_FLOAT) {
        std::memcpy(&bytes[4 * at], &value, 4);
      } else {
        const std::uint16_t rounded = to_bf16(value);
        std::memcpy(&bytes[2 * at], &rounded, 2);
      }
    }
  });
}

/// A result in the plan's type and layout, as the op would store it.
std::vector<double> read_back(Operands& operands, const Volume& volume, const Plan& plan, const void* data) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(volume.tensor.size() * element_bytes(plan)));
  operands.ops().copy_bytes_to_host(bytes.data(), data, static_cast<std::int64_t>(bytes.size()));
  std::vector<double> values;
  for (std::int64_t i = 0; i < volume.tensor.size(); ++i) {
    const std::size_t at = place(volume, plan.layout, i);
    float value = 0;
    if (plan.type == CUDNN_DATA_FLOAT) {
      std::memcpy(&value, &bytes[4 * at], 4);
    } else {
      std::uint16_t rounded = 0;
      std::memcpy(&rounded, &bytes[2 * at], 2);
      value = from_bf16(rounded);
    }
    values.push_back(static_cast<double>(value));
  }
  return values;
}

class Descriptors {
 public:
  Descriptors(const Volume& x, const Volume& y, const Volume& w, const Convolution& m, const Plan& plan)
      : x_(x.count, x.height, x.width, x.channels, plan.layout, plan.type),
        y_(y.count, y.height, y.width, y.channels, plan.layout, plan.type) {
    require(cudnnCreateFilterDescriptor(&w_), "cudnnCreateFilterDescriptor");
    require(cudnnSetFilter4dDescriptor(w_, plan.type, plan.layout, as_int(w.count), as_int(w.channels),
                                       as_int(w.height), as_int(w.width)),
            "cudnnSetFilter4dDescriptor");
    require(cudnnCreateConvolutionDescriptor(&map_), "cudnnCreateConvolutionDescriptor");
    const int padding = as_int(m.padding), stride = as_int(m.stride);
    require(cudnnSetConvolution2dDescriptor(map_, padding, padding, stride, stride, 1, 1, CUDNN_CROSS_CORRELATION,
                                            CUDNN_DATA_FLOAT),
            "cudnnSetConvolution2dDescriptor");
    set_math(plan.math);
  }
  ~Descriptors() {
    static_cast<void>(cudnnDestroyConvolutionDescriptor(map_));
    static_cast<void>(cudnnDestroyFilterDescriptor(w_));
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  void set_math(cudnnMathType_t math) {
    require(cudnnSetConvolutionMathType(map_, math), "cudnnSetConvolutionMathType");
  }
  cudnnTensorDescriptor_t x() const { return x_; }
  cudnnTensorDescriptor_t y() const { return y_; }
  cudnnFilterDescriptor_t w() const { return w_; }
  cudnnConvolutionDescriptor_t map() const { return map_; }

 private:
  ImageDescriptor x_, y_;
  cudnnFilterDescriptor_t w_ = nullptr;
  cudnnConvolutionDescriptor_t map_ = nullptr;
};

/// One convolution: the three tensors, of which the direction says which is the result.
struct Problem {
  Direction direction;
  Volume x, y, w;
  Convolution map;
};

struct Addresses {
  void *x, *y, *w;
};

void run(const CudnnHandle& handle, const Problem& problem, const Plan& plan, const Descriptors& d,
         const Addresses& a) {
  const float one = 1, zero = 0;
  void* const workspace = handle.workspace();
  switch (problem.direction) {
    case Direction::forward:
      return require(cudnnConvolutionForward(handle, &one, d.x(), a.x, d.w(), a.w, d.map(),
                                             static_cast<cudnnConvolutionFwdAlgo_t>(plan.algorithm), workspace,
                                             kCudnnWorkspace, &zero, d.y(), a.y),
                     "cudnnConvolutionForward");
    case Direction::reverse_data:
      return require(cudnnConvolutionBackwardData(handle, &one, d.w(), a.w, d.y(), a.y, d.map(),
                                                  static_cast<cudnnConvolutionBwdDataAlgo_t>(plan.algorithm), workspace,
                                                  kCudnnWorkspace, &zero, d.x(), a.x),
                     "cudnnConvolutionBackwardData");
    case Direction::reverse_weights:
      return require(cudnnConvolutionBackwardFilter(handle, &one, d.x(), a.x, d.y(), a.y, d.map(),
                                                    static_cast<cudnnConvolutionBwdFilterAlgo_t>(plan.algorithm),
                                                    workspace, kCudnnWorkspace, &zero, d.w(), a.w),
                     "cudnnConvolutionBackwardFilter");
  }
}

constexpr int kMostAlgorithms = 16;

/// Of what cuDNN tried, all that works and multiplies as it was told to.
template <class PerformanceT>
std::vector<Plan> usable(const Plan& wanted, const std::array<PerformanceT, kMostAlgorithms>& tried, int count) {
  std::vector<Plan> plans;
  for (int i = 0; i < count; ++i) {
    const PerformanceT& way = tried[static_cast<std::size_t>(i)];
    if (way.status != CUDNN_STATUS_SUCCESS) continue;
    if (wanted.math == CUDNN_FMA_MATH && way.mathType != CUDNN_FMA_MATH) continue;
    plans.push_back({wanted.layout, wanted.type, way.mathType, static_cast<int>(way.algo), way.time});
  }
  return plans;
}

/// None where cuDNN has nothing for this layout and type.
std::vector<Plan> find(const CudnnHandle& handle, const Problem& problem, const Plan& wanted, const Descriptors& d,
                       const Addresses& a) {
  int count = 0;
  const auto search = [&](const auto& call, auto& tried) {
    if (call(tried) != CUDNN_STATUS_SUCCESS) count = 0;
    return usable(wanted, tried, count);
  };
  void* const workspace = handle.workspace();
  switch (problem.direction) {
    case Direction::forward: {
      std::array<cudnnConvolutionFwdAlgoPerf_t, kMostAlgorithms> tried{};
      return search(
          [&](auto& list) {
            return cudnnFindConvolutionForwardAlgorithmEx(handle, d.x(), a.x, d.w(), a.w, d.map(), d.y(), a.y,
                                                          kMostAlgorithms, &count, list.data(), workspace,
                                                          kCudnnWorkspace);
          },
          tried);
    }
    case Direction::reverse_data: {
      std::array<cudnnConvolutionBwdDataAlgoPerf_t, kMostAlgorithms> tried{};
      return search(
          [&](auto& list) {
            return cudnnFindConvolutionBackwardDataAlgorithmEx(handle, d.w(), a.w, d.y(), a.y, d.map(), d.x(), a.x,
                                                               kMostAlgorithms, &count, list.data(), workspace,
                                                               kCudnnWorkspace);
          },
          tried);
    }
    case Direction::reverse_weights: {
      std::array<cudnnConvolutionBwdFilterAlgoPerf_t, kMostAlgorithms> tried{};
      return search(
          [&](auto& list) {
            return cudnnFindConvolutionBackwardFilterAlgorithmEx(handle, d.x(), a.x, d.y(), a.y, d.map(), d.w(), a.w,
                                                                 kMostAlgorithms, &count, list.data(), workspace,
                                                                 kCudnnWorkspace);
          },
          tried);
    }
  }
  return {};
}

/// Ways that are looked at, by math mode: with fused multiply-adds alone, on tensor cores, in bf16.
std::vector<Plan> wanted_plans(MathMode math) {
  std::vector<Plan> plans;
  for (const cudnnTensorFormat_t layout : {CUDNN_TENSOR_NHWC, CUDNN_TENSOR_NCHW}) {
    const bool fused = math == MathMode::fp32 || math == MathMode::tf32x3;
    plans.push_back({layout, math == MathMode::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT,
                     fused ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH});
  }
  return plans;
}

Addresses addresses(Operands& operands, const Problem& problem, const Plan& plan) {
  return {converted(operands, problem.x, plan), converted(operands, problem.y, plan),
          converted(operands, problem.w, plan)};
}

/// cuDNN's ways for one convolution, the quickest first, and the one to take: those before it missed the gate.
struct Ways {
  std::vector<Plan> plans;
  std::size_t taken = 0;
};

std::string name_of(const Plan& plan) {
  return std::string(plan.layout == CUDNN_TENSOR_NHWC ? "NHWC" : "NCHW") +
         (plan.type == CUDNN_DATA_BFLOAT16 ? " bf16" : "") + " algorithm " + std::to_string(plan.algorithm) +
         (plan.math == CUDNN_FMA_MATH ? " fma" : "");
}

Ways& ways_of(const CudnnHandle& handle, Operands& operands, const Problem& problem) {
  const Convolution& m = problem.map;
  std::string key;
  for (const std::int64_t number :
       {static_cast<std::int64_t>(problem.direction), static_cast<std::int64_t>(operands.math()), problem.x.count,
        m.in_height, m.in_width, m.in_channels, m.out_channels, m.kernel, m.stride, m.padding})
    key += std::to_string(number) + " ";
  static std::map<std::string, Ways> found;  // a cold row has hundreds of copies of one convolution
  if (const auto known = found.find(key); known != found.end()) return known->second;
  std::vector<Plan> plans;
  for (const Plan& wanted : wanted_plans(operands.math())) {
    // In memory that goes away: what is tried in vain must not be among the conversions that replicas copy.
    const std::unique_ptr<Operands> scratch = operands.scratch();
    const Descriptors descriptors(problem.x, problem.y, problem.w, m, wanted);
    const std::vector<Plan> of_layout =
        find(handle, problem, wanted, descriptors, addresses(*scratch, problem, wanted));
    plans.insert(plans.end(), of_layout.begin(), of_layout.end());
  }
  if (plans.empty()) throw_library_error("cuDNN", "searching an algorithm", "it has none for this convolution");
  std::stable_sort(plans.begin(), plans.end(),
                   [](const Plan& a, const Plan& b) { return a.milliseconds < b.milliseconds; });
  return found.emplace(key, Ways{plans, 0}).first->second;
}

LibraryWork convolve(Operands& operands, const Problem& problem) {
  const auto handle = shared_handle<CudnnHandle>(operands.stream());
  Ways& ways = ways_of(*handle, operands, problem);
  const Plan plan = ways.plans[ways.taken];
  const auto descriptors = std::make_shared<Descriptors>(problem.x, problem.y, problem.w, problem.map, plan);
  const Addresses a = addresses(operands, problem, plan);
  LibraryWork work;
  work.run = [=] { run(*handle, problem, plan, *descriptors, a); };
  work.label = name_of(plan) + (as_it_is(plan) ? "" : ", converted before");
  for (std::size_t i = 0; i < ways.taken; ++i)
    work.label += (i == 0 ? ", quicker but inexact: " : ", ") + name_of(ways.plans[i]);
  work.next_way = [&ways] { return ways.taken + 1 < ways.plans.size() && ++ways.taken > 0; };
  if (!as_it_is(plan)) {
    work.values = [=, &operands](std::size_t) {
      if (problem.direction == Direction::forward) return read_back(operands, problem.y, plan, a.y);
      if (problem.direction == Direction::reverse_data) return read_back(operands, problem.x, plan, a.x);
      return read_back(operands, problem.w, plan, a.w);
    };
  }
  return work;
}

Problem problem_of(Direction direction, Tensor x, Tensor y, Tensor w, const Convolution& m) {
  return {direction,
          {x, x.rows(), m.in_height, m.in_width, m.in_channels},
          {y, y.rows(), m.out_height(), m.out_width(), m.out_channels},
          {w, m.out_channels, m.kernel, m.kernel, m.in_channels},
          m};
}

}  // namespace

LibraryWork cudnn_conv2d_forward(Operands& operands, Tensor y, Tensor x, Tensor w, const Convolution& m) {
  return convolve(operands, problem_of(Direction::forward, x, y, w, m));
}

LibraryWork cudnn_conv2d_reverse_data(Operands& operands, Tensor grad_x, Tensor grad_y, Tensor w,
                                      const Convolution& m) {
  return convolve(operands, problem_of(Direction::reverse_data, grad_x, grad_y, w, m));
}

LibraryWork cudnn_conv2d_reverse_weights(Operands& operands, Tensor grad_w, Tensor grad_y, Tensor x,
                                         const Convolution& m) {
  return convolve(operands, problem_of(Direction::reverse_weights, x, grad_y, grad_w, m));
}

}  // namespace bracket::bench
