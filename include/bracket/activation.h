// Pointwise non-linearities.
#pragma once

#include <cstdint>

namespace bracket {

/// identity x; relu max(x, 0); leaky_relu x or slope x; prelu the same with a learnt slope; tanh; sigmoid 1/(1+e^-x);
/// silu x sigmoid(x); softplus log(1+e^x).
enum class Activation : std::uint8_t { identity, relu, leaky_relu, prelu, tanh, sigmoid, silu, softplus };

}  // namespace bracket
