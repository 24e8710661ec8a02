// How a result is judged, and how many copies of operands a cache does not hold: what of it takes no device.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "bracket/math_mode.h"
#include "bracket/tensor.h"

namespace bracket::bench {

/// Largest |actual - expected| as a share of max |expected|; infinite for a NaN, for another number of values, and for
/// an expectation that is zero throughout, which would let an op that writes zeros pass.
double worst_error(const std::vector<double>& actual, const std::vector<double>& expected);

/// Allowed share for sums of `depth` products of random numbers that are added and stored in `type`.
///
/// fp32, tf32x3, double: an addition to a partial sum changes it by 0.42 u (root mean square over numbers; u = 2^-24 or
/// 2^-53). Were all partial sums as large as the largest result, their errors would add like a random walk to
/// 0.42 sqrt(depth) u of it: 2 sqrt(depth) u is 4.8 deviations of that, and more of sums that grow. 16 u: what a single
/// product may be off, 12 u in tf32x3, and the rounding of the result. In f32 never more than 1e-5, which sums of over
/// 5,700 products keep because every op and library splits them.
///
/// tf32, bf16: operands rounded to b bits change a product by at most 2 2^-b of it, and by twice that where hardware
/// cuts them off: 4 2^-b, for any one product. In a sum the errors are random, 0.6 2^-b of a product (1.2 2^-b where
/// cut off) root mean square, and add like the products themselves. Of a sum that is as large as its own deviation
/// 4 2^-b is 6.7 deviations of the error (3.3 where cut off); the largest of a hundred sums is twice as large or more.
double product_gate(DType type, MathMode math, std::int64_t depth);

/// How many standard errors mean and variance of independent numbers are off, the larger of the two. `fourth`: the
/// fourth central moment, which the variance of a variance takes.
double deviation(const std::vector<double>& values, double mean, double variance, double fourth);

/// Of eigenvectors, rows of `vectors` [n, K, K], with `values` [n, K], of symmetric `matrices` [n, K, K]: the largest
/// element of |A v - l v| as a share of max |l| of its sample, or of |V V^T - 1|, whichever is larger. Infinite for a
/// NaN, and for a sample whose values are all zero.
double eigen_error(const std::vector<double>& matrices, const std::vector<double>& values,
                   const std::vector<double>& vectors, std::int64_t size);

/// Roundings behind an element of V: 2 (K - 1) rotations turn it in each of some ten sweeps, and A v adds K of them,
/// whose errors are random.
constexpr std::int64_t eigen_depth(std::int64_t size) { return size * 2 * (size - 1) * 10; }

/// Copies of operands of `bytes` that take three times a cache together, at least two; none where that would take more
/// than a thousand or so: each is memory and calls of a graph.
std::optional<std::int64_t> cold_copies(double bytes, std::int64_t cache_bytes);

}  // namespace bracket::bench
