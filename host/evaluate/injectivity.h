// Whether a generator is injective, shown from its parameters: what makes its lower bound a bound.
//
// A chain of injective layers is injective. What each layer is asked for:
//   linear, batch_norm, affine  full column rank: the smallest singular value is above the roundings of the largest
//   activation                  strictly monotone, with the slope as learnt
//   coupling                    by construction: a staircase's slope is positive everywhere, though no bound away from
//                               0 is known; a rational-quadratic spline's has one
//   residual, y = s(x) + b(x)   |s(x) - s(x')| >= m |x - x'| and |b(x) - b(x')| <= L |x - x'| with L < m: then
//                               |y - y'| >= (m - L) |x - x'| (Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen,
//                               "Invertible residual networks", 2019, for s = identity)
// L is a product over the layers of b: largest singular values (of a convolution the sum of those of its taps, as it is
// a sum of shifts), largest slopes. All in double, from all singular values rather than by power iteration, which comes
// up from below and proves nothing. It is about the map with these parameters in exact arithmetic.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bracket/device.h"
#include "bracket/network.h"

namespace bracket {

struct LayerCertificate {
  std::string layer;  ///< as in files: "layers.2"
  std::string type;   ///< as in the JSON of specifications
  bool injective = false;
  /// linear, batch_norm, affine: smallest over largest singular value; activation, spline: a lower bound of the slope;
  /// residual: m - L. Absent where there is none.
  std::optional<double> margin;
  std::optional<double> lipschitz;  ///< L of a residual layer's body, where there is a bound
  std::string reason;
};

struct InjectivityCertificate {
  bool certified = false;
  std::vector<LayerCertificate> layers;
  /// One clause: what shows it, or the first layer that is in the way.
  std::string summary() const;
};

/// Inference mode. Waits. What has no proof is not certified: a matrix with more than 4,096 rows and columns, say.
InjectivityCertificate certify_injective(Context& context, const Network& generator, const ParameterSet& parameters);

}  // namespace bracket
