// Every estimator of singular_values.h and trace_estimators.h on one batch, beside the exact values.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bracket/jacobian.h"
#include "host/picture/image.h"

namespace bracket {

/// Makes the operator of the batch; its passes are not counted and not timed.
using JacobianMaker = std::function<std::unique_ptr<JacobianOperator>(Ops&, Arena&)>;

/// What is estimated.
inline constexpr const char* kLogVolume = "log-volume";
inline constexpr const char* kSmallestVolume = "d log s_1";
inline constexpr const char* kTrace = "trace";

struct JacobianMethod {
  std::string family;    ///< "LOBPCG", "SLQ Gauss", ...
  std::string setting;   ///< e.g. "10 probes, 20 steps"
  std::string quantity;  ///< one of the three above
  Certificate certificate = Certificate::exact;
  JacobianPasses passes = {};
  double value = 0;                   ///< mean over the samples; nats, or the unit of J^T J
  double bias = 0;                    ///< mean of value - exact
  double deviation = 0;               ///< standard deviation of value - exact; NaN for one sample
  double root_mean_square = 0;        ///< of value - exact
  double standard_error = 0;          ///< root mean square of what was reported; 0 where nothing is random
  double milliseconds = 0;            ///< of the batch: of one run, or the median of five that are quick
  double processor_milliseconds = 0;  ///< of all threads of the host
  double rounding = 0;                ///< below it an error means nothing: d u cond nats, d u of the exact trace
  std::vector<double> values = {};    ///< of every sample, those that are left out included
  double resolved_error() const;      ///< root_mean_square, `rounding` at least
  std::int64_t products() const { return passes.apply + passes.transpose; }
};

struct JacobianComparison {
  std::int64_t inputs = 0, outputs = 0, samples = 0;
  std::int64_t deficient = 0, not_finite = 0;  ///< samples left out of every figure
  std::int64_t by_qr = 0;
  std::int64_t product_flops = 0;       ///< of one product with J or J^T
  std::vector<double> singular_values;  ///< of all samples that count, sample by sample, ascending
  double median_condition = 0;
  std::vector<JacobianMethod> methods;
};

/// At least one sample, d <= D (InvalidArgument). Throws Diverged where no sample is left. `product_flops`: of one
/// product with J or J^T, for the report.
JacobianComparison compare_jacobian_estimators(Context& context, const JacobianMaker& make, std::int64_t product_flops,
                                               std::uint64_t seed);

/// Which methods are worth their cost: of those with the same quantity no other has a resolved error and a cost that
/// are no larger and one of them smaller.
struct JacobianFronts {
  std::vector<bool> by_products;  ///< cost: products with J and J^T
  std::vector<bool> by_time;      ///< cost: milliseconds
};
JacobianFronts jacobian_fronts(const JacobianComparison& comparison);

std::string summary(const JacobianComparison& comparison);
std::string to_json(const JacobianComparison& comparison);
/// Resolved error of one quantity against products, both as powers of ten: points per family, and the front.
Image accuracy_picture(const JacobianComparison& comparison, const std::string& quantity);
/// Histogram of log10 s_k.
Image spectrum_picture(const JacobianComparison& comparison);

}  // namespace bracket
