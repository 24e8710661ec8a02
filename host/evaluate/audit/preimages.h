// Second preimages of a generator in any dimensions: two latents, far from each other, with one image.
#pragma once

#include <cstdint>
#include <vector>

#include "bracket/device.h"
#include "bracket/network.h"

namespace bracket {

struct PreimageOptions {
  std::int64_t samples = 1000;
  std::int64_t neighbours = 4;   ///< searches of a sample start at those with the nearest images
  std::int64_t iterations = 20;  ///< of Gauss-Newton with damping
  double separation = 0.25;      ///< |z' - z| of two different preimages, and of the neighbours searches start from
  double tolerance = 0;          ///< |G(z') - G(z)|, columns in deviations; 0: 1e-5 for f32, 1e-10 for f64
  std::uint64_t seed = 0;
};

struct SecondPreimages {
  std::int64_t samples = 0;
  double share = 0;          ///< of the samples for which one was found: a lower bound of the share that has one
  double least_stretch = 0;  ///< least |G(z) - G(z')| / |z - z'| over nearest images apart by the separation; inf: none
  std::vector<double> first, second;  ///< a pair of latents [d] with one image; empty: none was found
};

/// For every sample the latents of the nearest images, those within `separation` of it left out, each a start of
/// Gauss-Newton steps (Levenberg-Marquardt) towards G(z') = G(z). Counted is z' apart from z by the separation, |z'| no
/// larger than that of the largest sample, with G of the midpoint a hundred tolerances away (a flat stretch is no
/// fold). An image in D > d dimensions may cross itself, too. In high dimensions images of random latents are far from
/// each other and a fold is found only where the steps lead to it: none found is no proof. Waits. Throws
/// InvalidArgument for d > D or an option out of range, Diverged for images that are not finite.
SecondPreimages second_preimages(Context& context, const Network& generator, const ParameterSet& parameters,
                                 const PreimageOptions& options = {});

}  // namespace bracket
