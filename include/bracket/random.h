// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011).
//
// A number is a pure function of (seed, stream, step, element): no state to save, no dependence on threads or ranks.
//   key     = (seed low 32 bits, seed high 32 bits)
//   counter = (q low, q high, s low, s high),  q = element / 4,  s = (stream << 48) | step
// so element e of (seed, stream, step) is output e of cuRAND's Philox4_32_10 initialised with
// curand_init(seed, /*subsequence=*/s, /*offset=*/0, ...).
#pragma once

#include <array>
#include <cstdint>

namespace bracket {

/// The named streams of one seed. Values are part of the checkpoint format; never renumber.
enum class RandomStream : std::uint16_t {
  energy_init = 1,
  generator_init = 2,
  data = 3,              ///< which rows, or toy samples, of the energy update
  energy_latent = 4,     ///< z of the energy update
  penalty_probe = 5,     ///< v of the penalty
  generator_latent = 6,  ///< z of the generator update
  fixed_latent = 7,      ///< the noise of sample pictures
  evaluation = 8,        ///< test points of `eval`
  sampling = 9,          ///< `sample`
  statistics = 10,       ///< data used to measure location, scale and radius
  energy_start = 11,     ///< where lobpcg starts in the energy update
  generator_start = 12,  ///< and in the generator update
  fixed_map = 13,        ///< permutations and rotations of layers
  image_triples = 16,    ///< which digits stacked-mnist puts together
  markov_proposal = 20,  ///< noise of Langevin proposals
  markov_acceptance = 21,
  clustering = 22,         ///< first centres of k-means
  classifier_data = 23,    ///< which images train the classifier behind feature figures
  classifier_shift = 24,   ///< and how far they are moved
  probes = 25,             ///< noise, constants and pairs that an energy should tell from data
  jacobian_probe = 30,     ///< of stochastic traces
  jacobian_roulette = 31,  ///< and how many terms of them
  test = 63,
};

/// Where numbers come from: everything but the element index.
struct RandomKey {
  std::uint64_t seed = 0;
  RandomStream stream = RandomStream::test;
  std::uint64_t step = 0;  ///< below 2^48
};

/// One block of four 32-bit words: ten rounds of Philox4x32 on `counter` under `key`.
std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// Word of one element under a key.
std::uint32_t random_word(const RandomKey& key, std::uint64_t element);

/// Uniform in (0, 1): (word + 1/2) 2^-32, exact in double.
double random_uniform(const RandomKey& key, std::uint64_t element);

}  // namespace bracket
