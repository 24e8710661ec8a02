// Precision and recall of a generated distribution (Sajjadi, Bachem, Lucic, Bousquet, Gelly, "Assessing generative
// models via precision and recall", NeurIPS 2018).
//
// Features of real and generated images are clustered together; p and q are the shares of the real and of the
// generated rows in each cluster. A slope l gives precision(l) = sum_k min(l p_k, q_k) and recall(l) = precision(l) /
// l. F8 weights recall (variety), F1/8 precision (quality); both lie in [0, 1], 1 is best.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bracket {

struct PrecisionRecallOptions {
  std::int64_t clusters = 20;
  std::int64_t runs = 10;      ///< clusterings whose curves are averaged
  std::int64_t angles = 1001;  ///< slopes tan(a), a evenly over (0, pi / 2)
  double beta = 8;
  std::uint64_t seed = 0;
};

/// Points of a curve, from recall 1 side (small slope) to precision side.
struct PrecisionRecallCurve {
  std::vector<double> precision;
  std::vector<double> recall;
};

/// The curve of two histograms over the same clusters: shares of real and generated rows, each summing to 1. Throws
/// InvalidArgument for no cluster, sizes that differ or fewer than 3 angles.
PrecisionRecallCurve precision_recall_curve(std::span<const double> real, std::span<const double> generated,
                                            std::int64_t angles);

/// max over the curve of (1 + beta^2) P R / (beta^2 P + R).
double f_score(const PrecisionRecallCurve& curve, double beta);

struct PrecisionRecall {
  double f_beta = 0;          ///< F8
  double f_inverse_beta = 0;  ///< F1/8
};

/// Of as many real as generated rows of `cols` features. Deterministic in the seed. Throws InvalidArgument for sizes
/// that disagree, fewer rows than clusters, an option out of range or a value that is not finite.
PrecisionRecall precision_recall(std::span<const double> real, std::span<const double> generated, std::int64_t rows,
                                 std::int64_t cols, const PrecisionRecallOptions& options = {});

}  // namespace bracket
