#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/core/text.h"
#include "host/jacobian/certificate.h"
#include "host/jacobian/gram_factor.h"
#include "host/jacobian/requirements.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// |J|_F below 2^-450 or above 2^500 goes to QR: elements of the Gram matrix may have lost what is worth a rounding of
/// its smallest eigenvalue to underflow, or overflowed. What is in between has one of condition 2^26 right.
constexpr double kLeastGramLength = 0x1p-450;
constexpr double kMostGramLength = 0x1p500;

double zero_tolerance(const ExactOptions& options, const JacobianOperator& jacobian) {
  return options.rank_tolerance >= 0 ? options.rank_tolerance : rank_tolerance(jacobian);
}

/// Conditions beyond this go to QR, whatever is asked for: at 2^26 a Gram matrix has lost its smallest eigenvalue, and
/// one beyond 1 / tolerance may count as rank-deficient, which only the QR path decides.
double largest_gram_condition(const ExactOptions& options, const JacobianOperator& jacobian) {
  return std::min({options.qr_condition, 0x1p26, 1 / zero_tolerance(options, jacobian)});
}

void check(const ExactOptions& options, const JacobianOperator& jacobian) {
  check_tall("the exact log-volume", jacobian);
  if (!(options.qr_condition >= 0))
    throw InvalidArgument("qr_condition is " + format_number(options.qr_condition) + ", must not be negative");
  if (!(options.rank_tolerance <= 1))
    throw InvalidArgument("rank_tolerance is " + format_number(options.rank_tolerance) + ", must not exceed 1");
  if (options.working_bytes < 0)
    throw InvalidArgument("working_bytes is " + std::to_string(options.working_bytes) + ", must not be negative");
}

/// The factors J^T = L Q of all samples: L from the Gram matrix or from QR.
class Factorization {
 public:
  Factorization(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const ExactOptions& options,
                ExactEstimate& estimate, bool all_values)
      : ops_(ops), arena_(arena), jacobian_(jacobian), options_(options), estimate_(estimate) {
    const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
    columns = arena.allocate(jacobian.dtype(), {n * d, jacobian.outputs()});
    values = arena.allocate(DType::f64, {n, d});
    vectors = arena.allocate(DType::f64, {n, d, d});
    lower_ = arena.allocate(DType::f64, {n, d, d});
    deficiency_ = arena.allocate(DType::f64, {n});
    jacobian_columns(ops, arena, columns, jacobian);
    estimate.passes.apply += d;
    gram_factor(ops, lower_, estimate.value, columns);
    ops.fill(deficiency_, 0);
    if (all_values) singular_values(0, n);
  }

  /// C of all samples, then the QR samples again: L, values, h and, where present, C.
  void complete(Tensor cotangents) {
    const std::int64_t n = jacobian_.samples(), most = samples_at_once();
    if (!cotangents.absent()) gram_cotangents(ops_, cotangents, lower_, columns);
    const std::vector<bool> bad = needing_qr();
    if (ops_.planning()) {
      if (n > 0) by_qr(0, std::min(most, n), cotangents);
      return;
    }
    for (std::int64_t first = 0; first < n;) {
      std::int64_t end = first;
      while (end < n && end - first < most && bad[static_cast<std::size_t>(end)]) ++end;
      if (end > first) by_qr(first, end - first, cotangents);
      first = std::max(end, first + 1);
    }
  }

  Tensor columns, values, vectors;

 private:
  /// Of copies of J in double.
  std::int64_t samples_at_once() const {
    const std::int64_t bytes = 8 * jacobian_.inputs() * jacobian_.outputs();
    return std::max<std::int64_t>(options_.working_bytes / bytes, 1);
  }

  std::vector<bool> needing_qr() {
    const double largest = largest_gram_condition(options_, jacobian_);
    std::vector<bool> result;
    for (std::int64_t first = 0; first < jacobian_.samples(); first += samples_at_once()) {
      const std::int64_t count = std::min(samples_at_once(), jacobian_.samples() - first);
      const auto [lengths, inverses] = factor_lengths(first, count);
      for (std::size_t i = 0; i < lengths.size(); ++i) {
        const bool in_range = lengths[i] >= kLeastGramLength && lengths[i] <= kMostGramLength;
        result.push_back(!in_range || !(lengths[i] * inverses[i] <= largest));
      }
    }
    return result;
  }

  /// |L|_F and |L^-1|_F per sample.
  std::pair<std::vector<double>, std::vector<double>> factor_lengths(std::int64_t first, std::int64_t count) {
    const std::int64_t mark = arena_.mark(), d = jacobian_.inputs();
    const Tensor inverse = arena_.allocate(DType::f64, {count * d, d}), length = arena_.allocate(DType::f64, {count});
    const Tensor lower = lower_.slice_rows(first, count);
    ops_.tile_identity(inverse, count);
    ops_.triangular_solve(inverse, lower, inverse, false);
    ops_.row_norm(length, lower.reshaped({count, d * d}));
    const std::vector<double> lengths = read_values(ops_, length);
    ops_.row_norm(length, inverse.reshaped({count, d * d}));
    std::vector<double> inverses = read_values(ops_, length);
    arena_.rewind(mark);
    return {lengths, std::move(inverses)};
  }

  void singular_values(std::int64_t first, std::int64_t count) {
    const std::int64_t mark = arena_.mark(), d = jacobian_.inputs();
    const Tensor a = arena_.allocate(DType::f64, {count, d, d});
    ops_.copy(a.reshaped({count, d * d}), lower_.slice_rows(first, count).reshaped({count, d * d}));
    ops_.singular_values(values.slice_rows(first, count), vectors.slice_rows(first, count), a);
    arena_.rewind(mark);
  }

  void by_qr(std::int64_t first, std::int64_t count, const Tensor& cotangents) {
    const std::int64_t mark = arena_.mark(), d = jacobian_.inputs();
    const Tensor q = arena_.allocate(DType::f64, {count * d, jacobian_.outputs()});
    const Tensor lower = lower_.slice_rows(first, count), missing = deficiency_.slice_rows(first, count);
    const Tensor value = estimate_.value.slice_rows(first, count);
    ops_.copy(q, columns.slice_rows(first * d, count * d));
    ops_.lq_factor(lower, q);
    singular_values(first, count);
    ops_.log_volume(value, missing, values.slice_rows(first, count), zero_tolerance(options_, jacobian_));
    if (!cotangents.absent()) {
      ops_.triangular_solve(q, lower, q, true);
      ops_.copy(cotangents.slice_rows(first * d, count * d), q);
    }
    if (!ops_.planning()) count_special(first, count, cotangents);
    arena_.rewind(mark);
  }

  void count_special(std::int64_t first, std::int64_t count, const Tensor& cotangents) {
    const std::int64_t d = jacobian_.inputs();
    const std::vector<double> missing = read_values(ops_, deficiency_.slice_rows(first, count));
    const std::vector<double> value = read_values(ops_, estimate_.value.slice_rows(first, count));
    estimate_.by_qr += count;
    for (std::size_t i = 0; i < missing.size(); ++i) {
      if (std::isnan(value[i])) ++estimate_.not_finite;
      if (missing[i] == 0) continue;
      ++estimate_.deficient;
      if (!cotangents.absent()) ops_.fill(cotangents.slice_rows((first + static_cast<std::int64_t>(i)) * d, d), 0);
    }
  }

  Ops& ops_;
  Arena& arena_;
  const JacobianOperator& jacobian_;
  const ExactOptions& options_;
  ExactEstimate& estimate_;
  Tensor lower_, deficiency_;
};

void allocate_results(Arena& arena, ExactEstimate& estimate, std::int64_t n, std::int64_t d, bool spectrum) {
  estimate.value = arena.allocate(DType::f64, {n});
  if (spectrum) estimate.spectrum = arena.allocate(DType::f64, {n, d});
}

}  // namespace

ExactEstimate exact_log_volume(Ops& ops, Arena& arena, const JacobianOperator& jacobian, const ExactOptions& options) {
  check(options, jacobian);
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
  ExactEstimate estimate;
  estimate.certificate = Certificate::exact;
  if (options.derivative) {
    estimate.tangents = arena.allocate(jacobian.dtype(), {n * d, d});
    estimate.cotangents = arena.allocate(jacobian.dtype(), {n * d, jacobian.outputs()});
    ops.tile_identity(estimate.tangents, n);
  }
  allocate_results(arena, estimate, n, d, options.spectrum);
  const std::int64_t mark = arena.mark();
  Factorization factors(ops, arena, jacobian, options, estimate, options.spectrum);
  factors.complete(estimate.cotangents);
  if (options.spectrum) ops.copy(estimate.spectrum, factors.values);
  arena.rewind(mark);
  return estimate;
}

ExactEstimate exact_smallest_volume(Ops& ops, Arena& arena, const JacobianOperator& jacobian,
                                    const ExactOptions& options) {
  check(options, jacobian);
  const std::int64_t n = jacobian.samples(), d = jacobian.inputs();
  ExactEstimate estimate;
  estimate.certificate = Certificate::certified_lower;
  allocate_results(arena, estimate, n, d, options.spectrum);
  const Tensor v = arena.allocate(jacobian.dtype(), {n, d});
  const std::int64_t mark = arena.mark();
  Factorization factors(ops, arena, jacobian, options, estimate, true);
  factors.complete({});
  if (options.spectrum) ops.copy(estimate.spectrum, factors.values);
  ops.copy(v, factors.vectors.reshaped({n, d * d}).slice_cols(0, d));
  arena.rewind(mark);
  const std::vector<double> volumes = read_values(ops, estimate.value);
  const SingularPair pair = certify(ops, arena, estimate.passes, jacobian, v, static_cast<double>(d));
  ops.copy(estimate.value, pair.volume);
  // Rounding leaves a deficient sample a small |J v_1|.
  for (std::int64_t i = 0; i < n && !ops.planning(); ++i) {
    if (volumes[static_cast<std::size_t>(i)] != -std::numeric_limits<double>::infinity()) continue;
    ops.fill(estimate.value.slice_rows(i, 1), -std::numeric_limits<double>::infinity());
    ops.fill(pair.cotangents.slice_rows(i, 1), 0);
  }
  if (options.derivative) {
    estimate.tangents = v;
    estimate.cotangents = pair.cotangents;
  }
  return estimate;
}

}  // namespace bracket
