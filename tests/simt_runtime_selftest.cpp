// The CUDA runtime of the executor, and bracket::simt::launch() of kernels/cuda/common/portable.cuh.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "common/portable.cuh"
#include "simt/scoped_options.h"

namespace bracket::BRACKET_TARGET {
namespace {

__global__ __launch_bounds__(64) void scale_kernel(float* __restrict__ out, const float* __restrict__ in,
                                                   float factor) {
  BRACKET_SHARED(float, tile, [64]);
  tile[threadIdx.x] = __ldg(in + threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = factor * tile[threadIdx.x];
}

constexpr int kBrokenLine = __LINE__ + 3;
__global__ void broken_kernel() {
  if (threadIdx.x == 0) return;
  __syncthreads();
}

std::string text_of(cudaError_t code) { return cudaGetErrorString(code); }

TEST(SimtRuntime, MemoryIsPoisonAndCopiesGoWhereTheySay) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  float* in = nullptr;
  float* out = nullptr;
  ASSERT_EQ(cudaMalloc(&in, 64 * sizeof(float)), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&out, 64 * sizeof(float)), cudaSuccess);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(in) % 256, 0u);
  std::vector<float> host(64);
  ASSERT_EQ(cudaMemcpyAsync(host.data(), in, 64 * sizeof(float), cudaMemcpyDeviceToHost, stream), cudaSuccess);
  for (const float value : host) EXPECT_TRUE(std::isnan(value));
  std::iota(host.begin(), host.end(), 0.0f);
  ASSERT_EQ(cudaMemcpyAsync(in, host.data(), 64 * sizeof(float), cudaMemcpyHostToDevice, stream), cudaSuccess);
  ASSERT_EQ(launch<scale_kernel>(dim3(1), dim3(64), 0, stream, out, in, 3), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(in, out, 32 * sizeof(float), cudaMemcpyDeviceToDevice, stream), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(in + 32, 0, 32 * sizeof(float), stream), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(host.data(), in, 64 * sizeof(float), cudaMemcpyDefault, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(host[i], i < 32 ? 3.0f * static_cast<float>(i) : 0.0f);
  EXPECT_EQ(cudaFree(in), cudaSuccess);
  EXPECT_EQ(cudaFree(out), cudaSuccess);
  EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST(SimtRuntime, RefusesWhatAGpuWouldCrashOn) {
  char* device = nullptr;
  char host[100] = {};
  ASSERT_EQ(cudaMalloc(&device, 100), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(device, host, 101, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_NE(
      text_of(cudaErrorInvalidValue).find("101 bytes at offset 0 of the destination exceed its allocation of 100"),
      std::string::npos);
  EXPECT_EQ(cudaMemcpyAsync(host, device + 60, 41, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(host, device, 10, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_NE(text_of(cudaErrorInvalidValue).find("is host memory, the copy kind says otherwise"), std::string::npos);
  EXPECT_EQ(cudaMemcpyAsync(host, nullptr, 10, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(host, device, 10, static_cast<cudaMemcpyKind>(7)), cudaErrorInvalidMemcpyDirection);
  EXPECT_EQ(cudaMemcpyAsync(nullptr, nullptr, 0, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(cudaMemsetAsync(host, 0, 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(host), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(device + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(device), cudaSuccess);
  EXPECT_EQ(cudaFree(device), cudaErrorInvalidValue);
  EXPECT_NE(text_of(cudaErrorInvalidValue).find("is free already"), std::string::npos);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);

  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(launch<broken_kernel>(dim3(1), dim3(1), 0, stream), cudaErrorInvalidResourceHandle);
}

TEST(SimtRuntime, CopiesOfRows) {
  constexpr std::size_t kWidth = 5, kHeight = 3, kPitch = 8;
  char* device = nullptr;
  ASSERT_EQ(cudaMalloc(&device, (kHeight - 1) * kPitch + kWidth), cudaSuccess);  // no padding behind the last row
  const char rows[] = "abcdefghijklmno";
  ASSERT_EQ(cudaMemcpy2DAsync(device, kPitch, rows, kWidth, kWidth, kHeight, cudaMemcpyHostToDevice), cudaSuccess);
  char back[kWidth * kHeight + 1] = {};
  ASSERT_EQ(cudaMemcpy2DAsync(back, kWidth, device, kPitch, kWidth, kHeight, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_STREQ(back, rows);
  char padding = 0;
  ASSERT_EQ(cudaMemcpyAsync(&padding, device + kWidth, 1, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(padding, '\xff');
  EXPECT_EQ(cudaMemcpy2DAsync(device, kPitch, rows, kWidth, kWidth + 1, kHeight, cudaMemcpyHostToDevice),
            cudaErrorInvalidPitchValue);
  EXPECT_EQ(cudaMemcpy2DAsync(device, kPitch, rows, kWidth, kWidth, kHeight + 1, cudaMemcpyHostToDevice),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy2DAsync(device, kPitch, rows, kWidth, kWidth, 0, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(cudaFree(device), cudaSuccess);
}

TEST(SimtRuntime, MemoryHasALimit) {
  const ::simt::ScopedOptions options;
  std::size_t free_before = 0, free_now = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free_before, &total), cudaSuccess);
  ::simt::options().device_memory_bytes = total - free_before + 1000;
  void* first = nullptr;
  void* second = nullptr;
  ASSERT_EQ(cudaMalloc(&first, 600), cudaSuccess);
  ASSERT_EQ(cudaMemGetInfo(&free_now, &total), cudaSuccess);
  EXPECT_EQ(free_now, 400u);
  EXPECT_EQ(cudaMalloc(&second, 401), cudaErrorMemoryAllocation);
  EXPECT_EQ(second, nullptr);
  EXPECT_NE(text_of(cudaErrorMemoryAllocation).find("401 bytes asked for, 400 of"), std::string::npos);
  EXPECT_EQ(cudaFree(first), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&second, 1000), cudaSuccess);
  EXPECT_EQ(cudaFree(second), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&second, 0), cudaSuccess);
  EXPECT_EQ(second, nullptr);
}

TEST(SimtRuntime, PinnedMemoryEventsAndDevice) {
  float* pinned = nullptr;
  ASSERT_EQ(cudaHostAlloc(&pinned, 4 * sizeof(float), cudaHostAllocDefault), cudaSuccess);
  EXPECT_TRUE(std::isnan(pinned[3]));
  EXPECT_EQ(cudaFree(pinned), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
  EXPECT_EQ(cudaFreeHost(pinned), cudaErrorInvalidValue);

  cudaEvent_t begin = nullptr, end = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&begin, cudaEventDefault), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&end, cudaEventDefault), cudaSuccess);
  float milliseconds = -1.0f;
  ASSERT_EQ(cudaEventRecord(begin), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorInvalidResourceHandle);
  ASSERT_EQ(cudaEventRecord(end), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(nullptr, end), cudaSuccess);
  EXPECT_EQ(cudaEventSynchronize(end), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaSuccess);
  EXPECT_GE(milliseconds, 0.0f);
  EXPECT_EQ(cudaEventDestroy(begin), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(end), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(end), cudaErrorInvalidResourceHandle);

  int count = 0, device = -1;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 1);
  EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
  EXPECT_EQ(device, 0);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  EXPECT_STREQ(properties.name, "SIMT executor");
  EXPECT_GT(properties.multiProcessorCount, 0);
}

TEST(SimtRuntime, ACapturingStreamKeepsItsWork) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  float *in = nullptr, *out = nullptr;
  ASSERT_EQ(cudaMalloc(&in, 64 * sizeof(float)), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&out, 64 * sizeof(float)), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(in, 0, 64 * sizeof(float), stream), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(out, 0, 64 * sizeof(float), stream), cudaSuccess);
  const auto first = [&] {
    float value = 0;
    EXPECT_EQ(cudaMemcpyAsync(&value, out, sizeof value, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    return value;
  };
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal), cudaErrorStreamCaptureUnsupported);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaErrorIllegalState);
  EXPECT_EQ(cudaStreamIsCapturing(stream, &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusActive);
  EXPECT_EQ(launch<scale_kernel>(dim3(1), dim3(64), 0, stream, out, in, 3), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(in, out, 64 * sizeof(float), cudaMemcpyDeviceToDevice, stream), cudaSuccess);
  void* more = nullptr;
  EXPECT_EQ(cudaMalloc(&more, 4), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaFree(in), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
  float host = 0;
  EXPECT_EQ(cudaMemcpyAsync(&host, in, 4, cudaMemcpyDeviceToHost, stream), cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorIllegalState);
  ASSERT_EQ(cudaGraphInstantiateWithFlags(&executable, graph, 0), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(first(), 0);
  const std::vector<float> ones(64, 1.0f);
  ASSERT_EQ(cudaMemcpyAsync(in, ones.data(), 64 * sizeof(float), cudaMemcpyHostToDevice, stream), cudaSuccess);
  for (const float expected : {3.0f, 9.0f}) {
    EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    EXPECT_EQ(first(), expected);
  }
  EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaFree(in), cudaSuccess);
  EXPECT_EQ(cudaFree(out), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST(SimtRuntime, FailedLaunchesLeaveTheirText) {
  cudaGetLastError();
  EXPECT_EQ(launch<broken_kernel>(dim3(1), dim3(32), 0, nullptr), cudaErrorLaunchFailure);
  const std::string text = text_of(cudaErrorLaunchFailure);
  EXPECT_NE(text.find("simt_runtime_selftest.cpp:" + std::to_string(kBrokenLine)), std::string::npos) << text;
  EXPECT_NE(text.find("broken_kernel"), std::string::npos) << text;
  EXPECT_NE(text.find("SIMT_SEED="), std::string::npos) << text;
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(launch<broken_kernel>(dim3(1), dim3(2000), 0, nullptr), cudaErrorInvalidConfiguration);
  EXPECT_EQ(text_of(cudaErrorInvalidDevice), "cudaErrorInvalidDevice");
  EXPECT_EQ(text_of(cudaSuccess), "cudaSuccess");
}

}  // namespace
}  // namespace bracket::BRACKET_TARGET
