// Small sums over the probes of one sample, in double: the same bits on both devices up to contraction.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/formula/elementary.h"
#include "kernels/formula/host_device.h"

namespace bracket::formula {

struct MeanAndError {
  double mean;
  double error;
};

/// Mean of `count` samples and sqrt(correction s^2 / count), s^2 with divisor count - 1.
BRACKET_HOST_DEVICE MeanAndError mean_and_error(const double* samples, std::int64_t count, double correction) {
  double sum = 0;
  for (std::int64_t p = 0; p < count; ++p) sum += samples[p];
  const double mean = sum / static_cast<double>(count);
  if (correction == 0) return {mean, 0};
  double squares = 0;
  for (std::int64_t p = 0; p < count; ++p) squares += (samples[p] - mean) * (samples[p] - mean);
  if (count < 2) return {mean, HUGE_VAL};
  return {mean, square_root(correction * squares / static_cast<double>(count - 1) / static_cast<double>(count))};
}

/// Steps of a smaller probability than this are not drawn.
inline constexpr double kLeastRoulette = 0x1p-60;

/// Uniform in (0, 1), to 53 bits wherever it lies above 2^-64: what decides on probabilities down to kLeastRoulette.
BRACKET_HOST_DEVICE double roulette_uniform(std::uint32_t high, std::uint32_t low) {
  return (static_cast<double>(high) * 0x1p32 + static_cast<double>(low) + 0.5) * 0x1p-64;
}

/// survival^max(j - certain, 0), by products: host and device must agree to the last bit on what is drawn.
BRACKET_HOST_DEVICE double roulette_probability(std::int64_t j, std::int64_t certain, double survival) {
  double power = 1;
  for (std::int64_t n = j - certain; n > 0; n /= 2, survival *= survival)
    if (n % 2 == 1) power *= survival;
  return power;
}

/// c_j of term j of `terms` when the number of terms was drawn by `uniform` in (0, 1): N >= j where uniform < P_j.
BRACKET_HOST_DEVICE double roulette_weight(std::int64_t j, std::int64_t terms, std::int64_t certain, double survival,
                                           double uniform) {
  const double here = roulette_probability(j, certain, survival);
  const double weight = uniform < here ? 1 / here : 0;
  if (j + 1 == terms) return weight;
  const double next = roulette_probability(j + 1, certain, survival);
  return uniform < next ? weight - 1 / next : weight;
}

/// The products that the leave-one-out traces of one sample are made of: see Ops::leave_one_out_trace.
struct LeaveOneOut {
  const double* image;    ///< [X; Q] A [X; Q]^T [2 R, 2 R]
  const double* basis;    ///< [X; Q] [X; Q]^T [2 R, 2 R]
  const double* inverse;  ///< L^-1 [R, R]
  const double* forms;    ///< x_i^T A x_i [R], or null: as in `image`
};

/// The trace that XTrace (Epperly, Tropp and Webber 2024) assigns to probe i of R: with Q_i the span of A x_k, k != i,
/// tr(Q_i^T A Q_i) + m^T A m for m = x_i without its part in Q_i. s, the direction in span Q that is orthogonal to all
/// A x_k but that of i, is column i of L^-1 normalised. A column that is not finite (the A x_k are dependent: Q_i is
/// all of Q) counts as s = 0. A team works on it: member `first` of `count` takes the items first, first + count, ...
/// and sum() adds what all hand in.
template <class Team>
BRACKET_HOST_DEVICE double leave_one_out(const Team& team, const LeaveOneOut& products, std::int64_t r,
                                         std::int64_t i) {
  const std::int64_t two = 2 * r;
  const double* const inverse = products.inverse + i;
  const double* const basis = products.basis + r * two + i;
  double squares = 0, overlap = 0;
  for (std::int64_t j = team.first(); j < r; j += team.count()) {
    squares += inverse[j * r] * inverse[j * r];
    overlap += inverse[j * r] * basis[j * two];
  }
  squares = team.sum(squares);
  overlap = team.sum(overlap);
  const bool usable = squares - squares == 0 && squares > 0;
  const double factor = usable ? 1 / square_root(squares) : 0;
  const double along = usable ? factor * overlap : 0;  // <s, Q x_i>
  const auto s = [&](std::int64_t j) { return usable ? factor * inverse[j * r] : 0; };
  const auto c = [&](std::int64_t j) { return basis[j * two] - along * s(j); };
  double rest = 0;
  for (std::int64_t j = team.first(); j < r; j += team.count()) {
    // Column j of Q A Q^T, which is symmetric: members next to each other read next to each other.
    const double* const column = products.image + r * two + r + j;
    double image_of_s = 0, image_of_c = 0;
    for (std::int64_t l = 0; l < r; ++l) {
      image_of_s += column[l * two] * s(l);
      image_of_c += column[l * two] * c(l);
    }
    rest += column[j * two] - s(j) * image_of_s + c(j) * (image_of_c - 2 * products.image[(r + j) * two + i]);
  }
  return team.sum(rest) + (products.forms == nullptr ? products.image[i * two + i] : products.forms[i]);
}

}  // namespace bracket::formula
