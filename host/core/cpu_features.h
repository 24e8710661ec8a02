// Which instruction set extensions the CPU code of this build may use, for the check at start-up.
#pragma once

namespace bracket {

struct CpuFeatures {
  bool avx2 = false;
  bool fma = false;
  bool bmi2 = false;
  bool f16c = false;
  bool avx512f = false;
  bool avx512dq = false;
  bool avx512bw = false;
  bool avx512vl = false;
};

/// What the compiler was told to use (BRACKET_CPU_ARCH).
extern const CpuFeatures kCompiledCpuFeatures;

/// Throws Unsupported when this CPU lacks one of `compiled`. Itself compiled for the baseline of the architecture.
void require_cpu_features(const CpuFeatures& compiled);

}  // namespace bracket
