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

/// The trace that XTrace (Epperly, Tropp and Webber 2024) assigns to probe i of R: with Q_i the span of J^T J x_k, k !=
/// i, tr(Q_i^T A Q_i) + m^T A m for m = x_i without its part in Q_i, A = J^T J. s, the direction in span Q that is
/// orthogonal to all J^T J x_k but that of i, is column i of L^-1 normalised. All inner products come from the Gram
/// matrices `image` of J [X; Q] and `basis` of [X; Q], both [2 R, 2 R]. A column that is not finite (the J^T J x_k are
/// dependent: Q_i is all of Q) counts as s = 0.
BRACKET_HOST_DEVICE double leave_one_out(const double* image, const double* basis, const double* inverse,
                                         std::int64_t r, std::int64_t i) {
  const std::int64_t two = 2 * r;
  double squares = 0;
  for (std::int64_t j = 0; j < r; ++j) squares += inverse[j * r + i] * inverse[j * r + i];
  const double factor = squares - squares == 0 && squares > 0 ? 1 / square_root(squares) : 0;
  const auto s = [&](std::int64_t j) { return factor == 0 ? 0 : factor * inverse[j * r + i]; };
  double overlap = 0;  // <s, Q x_i>
  for (std::int64_t j = 0; j < r; ++j) overlap += s(j) * basis[(r + j) * two + i];
  const auto c = [&](std::int64_t j) { return basis[(r + j) * two + i] - overlap * s(j); };
  double trace = 0, removed = 0, square = image[i * two + i];
  for (std::int64_t j = 0; j < r; ++j) {
    const double* const row = image + (r + j) * two + r;
    trace += row[j];
    double image_of_s = 0, image_of_c = 0;
    for (std::int64_t l = 0; l < r; ++l) {
      image_of_s += row[l] * s(l);
      image_of_c += row[l] * c(l);
    }
    removed += s(j) * image_of_s;
    square += c(j) * (image_of_c - 2 * image[(r + j) * two + i]);
  }
  return trace - removed + square;
}

/// Mean of the R leave-one-out traces and their deviation over sqrt(R). The first pass fixes the shift of the second.
BRACKET_HOST_DEVICE MeanAndError leave_one_out_mean(const double* image, const double* basis, const double* inverse,
                                                    std::int64_t r) {
  double sum = 0;
  for (std::int64_t i = 0; i < r; ++i) sum += leave_one_out(image, basis, inverse, r, i);
  const double mean = sum / static_cast<double>(r);
  if (r < 2) return {mean, HUGE_VAL};
  double squares = 0;
  for (std::int64_t i = 0; i < r; ++i) {
    const double difference = leave_one_out(image, basis, inverse, r, i) - mean;
    squares += difference * difference;
  }
  return {mean, square_root(squares / static_cast<double>(r - 1) / static_cast<double>(r))};
}

}  // namespace bracket::formula
