#include "host/evaluate/images/precision_recall.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/evaluate/images/cluster.h"

namespace bracket {
namespace {

constexpr double kSmallestAngle = 1e-10;  // keeps the slopes 0 and infinity out, as in the published code

void require(bool holds, const std::string& what) {
  if (!holds) throw InvalidArgument("precision_recall: " + what);
}

void check(std::span<const double> real, std::span<const double> generated, std::int64_t rows, std::int64_t cols,
           const PrecisionRecallOptions& options) {
  for (const auto& [values, name] : {std::pair{real, "real"}, std::pair{generated, "generated"}}) {
    const auto size = static_cast<std::int64_t>(values.size());
    require(rows > 0 && cols > 0 && size % cols == 0 && size / cols == rows,
            std::to_string(size) + " " + name + " values are not " + std::to_string(rows) + " rows of " +
                std::to_string(cols) + "; give as many real as generated rows, and at least one");
    const auto bad = std::find_if(values.begin(), values.end(), [](double v) { return !std::isfinite(v); });
    require(bad == values.end(), "a feature of " + std::string(name) + " row " +
                                     std::to_string((bad - values.begin()) / cols) + " is " +
                                     (bad == values.end() ? "" : format_number(*bad)) + "; all must be finite");
  }
  require(options.clusters >= 1 && options.clusters <= 2 * rows,
          std::to_string(options.clusters) + " clusters of " + std::to_string(2 * rows) + " rows");
  require(options.runs >= 1, std::to_string(options.runs) + " runs; give at least 1");
  require(options.beta > 0, "beta is " + format_number(options.beta) + ", must be positive");
}

}  // namespace

PrecisionRecallCurve precision_recall_curve(std::span<const double> real, std::span<const double> generated,
                                            std::int64_t angles) {
  require(!real.empty() && real.size() == generated.size(), "histograms of " + std::to_string(real.size()) + " and " +
                                                                std::to_string(generated.size()) +
                                                                " clusters; both need the same, at least one");
  require(angles >= 3, std::to_string(angles) + " angles; give at least 3");
  PrecisionRecallCurve curve;
  for (std::int64_t i = 0; i < angles; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(angles - 1);
    const double slope = std::tan(kSmallestAngle + share * (std::numbers::pi / 2 - 2 * kSmallestAngle));
    double precision = 0;
    for (std::size_t k = 0; k < real.size(); ++k) precision += std::min(slope * real[k], generated[k]);
    curve.precision.push_back(std::clamp(precision, 0.0, 1.0));
    curve.recall.push_back(std::clamp(precision / slope, 0.0, 1.0));
  }
  return curve;
}

double f_score(const PrecisionRecallCurve& curve, double beta) {
  double best = 0;
  const double weight = beta * beta;
  for (std::size_t i = 0; i < curve.precision.size(); ++i) {
    const double p = curve.precision[i], r = curve.recall[i];
    if (p > 0 && r > 0) best = std::max(best, (1 + weight) * p * r / (weight * p + r));
  }
  return best;
}

PrecisionRecall precision_recall(std::span<const double> real, std::span<const double> generated, std::int64_t rows,
                                 std::int64_t cols, const PrecisionRecallOptions& options) {
  check(real, generated, rows, cols, options);
  std::vector<double> all(real.begin(), real.end());
  all.insert(all.end(), generated.begin(), generated.end());
  PrecisionRecallCurve mean;
  mean.precision.resize(static_cast<std::size_t>(std::max<std::int64_t>(options.angles, 0)));
  mean.recall = mean.precision;
  for (std::int64_t run = 0; run < options.runs; ++run) {
    const RandomKey key{options.seed, RandomStream::clustering, static_cast<std::uint64_t>(run)};
    const std::vector<std::int64_t> labels = k_means(all, 2 * rows, cols, options.clusters, key);
    std::vector<double> p(static_cast<std::size_t>(options.clusters)), q = p;
    for (std::size_t i = 0; i < labels.size(); ++i)
      (i < static_cast<std::size_t>(rows) ? p : q)[static_cast<std::size_t>(labels[i])] +=
          1 / static_cast<double>(rows);
    const PrecisionRecallCurve curve = precision_recall_curve(p, q, options.angles);
    for (std::size_t i = 0; i < mean.precision.size(); ++i) {
      mean.precision[i] += curve.precision[i] / static_cast<double>(options.runs);
      mean.recall[i] += curve.recall[i] / static_cast<double>(options.runs);
    }
  }
  return {f_score(mean, options.beta), f_score(mean, 1 / options.beta)};
}

}  // namespace bracket
