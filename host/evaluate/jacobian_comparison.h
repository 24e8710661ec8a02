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

struct JacobianMethod {
  std::string family;    ///< "LOBPCG", "SLQ Gauss", ...
  std::string setting;   ///< e.g. "10 probes, 20 steps"
  std::string quantity;  ///< "log-volume", "d log s_1" or "trace"
  Certificate certificate = Certificate::exact;
  JacobianPasses passes;
  double value = 0;                 ///< mean over the samples; nats, or the unit of J^T J
  double bias = 0;                  ///< mean of value - exact
  double deviation = 0;             ///< standard deviation of value - exact; NaN for one sample
  double standard_error = 0;        ///< root mean square of what was reported; 0 where nothing is random
  double milliseconds = 0;          ///< of the batch, one run
  double root_mean_square() const;  ///< of value - exact
};

struct JacobianComparison {
  std::int64_t inputs = 0, outputs = 0, samples = 0;
  std::int64_t deficient = 0, not_finite = 0;  ///< samples left out of every figure
  std::int64_t by_qr = 0;
  std::vector<double> singular_values;  ///< of all samples that count, sample by sample, ascending
  double median_condition = 0;
  std::vector<JacobianMethod> methods;
};

/// At least one sample, d <= D (InvalidArgument). Throws Diverged where no sample is left.
JacobianComparison compare_jacobian_estimators(Context& context, const JacobianMaker& make, std::uint64_t seed);

std::string summary(const JacobianComparison& comparison);
std::string to_json(const JacobianComparison& comparison);
/// Root-mean-square error against passes, both as powers of ten: one line per family that estimates the log-volume or
/// its lower bound.
Image accuracy_picture(const JacobianComparison& comparison);
/// Histogram of log10 s_k.
Image spectrum_picture(const JacobianComparison& comparison);

}  // namespace bracket
