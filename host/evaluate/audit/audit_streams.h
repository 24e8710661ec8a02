// The steps of the stream `evaluation` that an audit draws from; evaluations take those below 16.
#pragma once

#include <cstdint>

namespace bracket {

inline constexpr std::uint64_t kBackStartStep = 16;
inline constexpr std::uint64_t kReferenceStep = 17;  // generated points that distances are measured to
inline constexpr std::uint64_t kBroadStep = 18;      // and those behind it
inline constexpr std::uint64_t kPreimageStep = 32;
inline constexpr std::uint64_t kSpectrumStep = 33;

}  // namespace bracket
