// Does a generator fold, that is, do two latents share an image? Then h over-counts entropy and L_low is no bound.
#pragma once

#include <cstdint>

#include "bracket/device.h"
#include "bracket/network.h"

namespace bracket {

struct FoldOptions {
  std::int64_t samples = 2000;
  std::int64_t starts = 64;          ///< one in each cell of a partition of latent space into cells of equal mass
  std::int64_t pool_per_start = 64;  ///< a start is the latent of its cell whose image is nearest, of about this many
  std::int64_t iterations = 30;
  double separation = 0.05;  ///< |z' - z| of two different preimages; a latent coordinate has deviation 1
  /// |G(z') - G(z)| of a preimage, columns in deviations of the generated points; 0: 1e-5 for f32, 1e-10 for f64.
  double tolerance = 0;
  double largest_latent = 6;  ///< |z'| beyond which preimages carry no mass (1.5e-8 for d = 2) and are not sought
};

/// The tolerance in use: the option's, or the default of the dtype.
double fold_tolerance(const FoldOptions& options, DType dtype) noexcept;

/// A lower bound of the probability that G(z), z ~ N(0, I), has a second preimage: the share of `samples` for which
/// Newton's method from one of the starts ends at z' with G(z') = G(z) within the tolerance, z' apart from z by the
/// separation, and G of their midpoint away from G(z) by a hundred tolerances (so that a flat stretch, on which G moves
/// by rounding only, is no fold). d = D in {1, 2} (InvalidArgument). The latents are those of (seed, `evaluation`).
/// Waits.
double fold_fraction(Context& context, const Network& generator, const ParameterSet& parameters, std::uint64_t seed,
                     const FoldOptions& options = {});

}  // namespace bracket
