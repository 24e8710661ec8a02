#include "bracket/device.h"

#include <gtest/gtest.h>

#include <string>

#include "bracket/error.h"
#include "host/core/cpu_features.h"

namespace bracket {
namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(DeviceTest, ParsesCpu) {
  EXPECT_EQ(Device::parse("cpu"), Device());
  EXPECT_EQ(Device::parse("cpu").name(), "cpu");
  EXPECT_EQ((Device{DeviceKind::cuda, 3}.name()), "cuda:3");
}

TEST(DeviceTest, RefusesUnknownText) {
  for (const std::string text : {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda: 1", "cpu:0",
                                 "cuda:99999999999999999999", "auto "}) {
    try {
      Device::parse(text);
      FAIL() << "accepted '" << text << "'";
    } catch (const InvalidArgument& error) {
      EXPECT_EQ(error.what(), "device '" + text + "' is not known; use cpu, cuda, cuda:N (N = 0, 1, ...) or auto");
    }
  }
}

TEST(DeviceTest, CountAndReasonAgree) {
  std::string reason = "untouched";
  const int count = cuda_device_count(&reason);
  EXPECT_EQ(count, cuda_device_count());
  EXPECT_EQ(count == 0, !reason.empty()) << count << " devices, reason '" << reason << "'";
  EXPECT_FALSE(contains(reason, "\n"));
  EXPECT_EQ(Device::parse("auto").kind, count > 0 ? DeviceKind::cuda : DeviceKind::cpu);
#ifndef BRACKET_WITH_CUDA
  EXPECT_TRUE(contains(reason, "no CUDA support")) << reason;
#endif
}

TEST(DeviceTest, DescribesWhatIsThere) {
  EXPECT_FALSE(device_description({}).empty());
  EXPECT_FALSE(contains(device_description({}), "\n"));
  const int count = cuda_device_count();
  for (int i = 0; i < count; ++i) EXPECT_TRUE(contains(device_description({DeviceKind::cuda, i}), "(sm_"));
  EXPECT_THROW(device_description({DeviceKind::cuda, count}), CudaError);
}

TEST(DeviceTest, AbsentGpuIsADeviceErrorWithTheReason) {
  std::string reason;
  const int count = cuda_device_count(&reason);
  const std::string absent = "cuda:" + std::to_string(count);
  try {
    Device::parse(absent);
    FAIL() << "accepted " << absent;
  } catch (const CudaError& error) {
    EXPECT_EQ(error.code(), ExitCode::device);
    EXPECT_TRUE(contains(error.what(), absent)) << error.what();
    EXPECT_TRUE(contains(error.what(), count == 0 ? reason : "this machine has")) << error.what();
  }
  ContextOptions options;
  options.device = {DeviceKind::cuda, count};
  EXPECT_THROW(Context{options}, CudaError);
  options.device = {DeviceKind::cuda, -1};
  EXPECT_THROW(Context{options}, CudaError);
}

TEST(DeviceTest, CpuFeaturesOfThisBuildArePresentAndMissingOnesAreNamed) {
  EXPECT_NO_THROW(require_cpu_features(kCompiledCpuFeatures));
  EXPECT_NO_THROW(require_cpu_features(CpuFeatures{}));
#ifdef __AVX2__
  EXPECT_TRUE(kCompiledCpuFeatures.avx2);
#else
  EXPECT_FALSE(kCompiledCpuFeatures.avx2);
#endif
#if defined(__x86_64__)
  CpuFeatures all;
  all.avx2 = all.fma = all.bmi2 = all.f16c = all.avx512f = all.avx512dq = all.avx512bw = all.avx512vl = true;
  const bool complete = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c") &&
                        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  try {
    require_cpu_features(all);
    EXPECT_TRUE(complete) << "a missing feature was not noticed";
  } catch (const Unsupported& error) {
    EXPECT_FALSE(complete) << error.what();
    EXPECT_TRUE(contains(error.what(), "-DBRACKET_CPU_ARCH=baseline")) << error.what();
    EXPECT_EQ(contains(error.what(), "AVX512F,") || contains(error.what(), "AVX512F;"),
              !__builtin_cpu_supports("avx512f"));
  }
#endif
}

TEST(DeviceTest, ContextOptionsAreChecked) {
  const auto message = [](const ContextOptions& options) {
    try {
      Context context(options);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  ContextOptions options;
  options.threads = -2;
  EXPECT_TRUE(contains(message(options), "threads is -2"));
  options = {};
  options.memory_limit = -5;
  EXPECT_TRUE(contains(message(options), "memory_limit is -5 bytes"));
  options = {};
  options.allocator.allocate = [](void*, std::int64_t, void*) -> void* { return nullptr; };
  EXPECT_TRUE(contains(message(options), "only one of its two functions"));
  options = {};
  options.stream = &options;
  EXPECT_TRUE(contains(message(options), "a stream was given for the CPU"));
  options = {};
  options.device.ordinal = 1;
  EXPECT_TRUE(contains(message(options), "CPU device 1 does not exist"));
}

}  // namespace
}  // namespace bracket
