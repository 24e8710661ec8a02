// Compiled for the baseline of the architecture (host/CMakeLists.txt): this code must run on any CPU.
#include "host/core/cpu_features.h"

#include <string>

#include "bracket/error.h"

#if defined(__AVX__) || defined(__AVX2__)
#error "cpu_features.cpp must be compiled without -march flags: it tells a CPU without AVX2 what is wrong"
#endif

namespace bracket {
namespace {

struct Feature {
  const char* name;
  bool compiled;
  bool present;
};

}  // namespace

void require_cpu_features([[maybe_unused]] const CpuFeatures& compiled) {
#if defined(__x86_64__)
  const Feature features[] = {
      {"AVX2", compiled.avx2, __builtin_cpu_supports("avx2") != 0},
      {"FMA", compiled.fma, __builtin_cpu_supports("fma") != 0},
      {"BMI2", compiled.bmi2, __builtin_cpu_supports("bmi2") != 0},
      {"F16C", compiled.f16c, __builtin_cpu_supports("f16c") != 0},
      {"AVX512F", compiled.avx512f, __builtin_cpu_supports("avx512f") != 0},
      {"AVX512DQ", compiled.avx512dq, __builtin_cpu_supports("avx512dq") != 0},
      {"AVX512BW", compiled.avx512bw, __builtin_cpu_supports("avx512bw") != 0},
      {"AVX512VL", compiled.avx512vl, __builtin_cpu_supports("avx512vl") != 0},
  };
  std::string missing;
  for (const Feature& feature : features) {
    if (feature.compiled && !feature.present) missing += std::string(missing.empty() ? "" : ", ") + feature.name;
  }
  if (!missing.empty()) {
    throw Unsupported("this build of Bracket uses CPU instructions that this CPU lacks: " + missing +
                      "; configure with -DBRACKET_CPU_ARCH=baseline (any x86-64) or =native (this machine)");
  }
#endif
}

}  // namespace bracket
