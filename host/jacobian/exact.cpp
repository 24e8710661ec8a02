#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "bracket/error.h"
#include "bracket/singular_values.h"
#include "host/core/text.h"
#include "host/jacobian/certificate.h"
#include "host/jacobian/gram_factor.h"
#include "host/jacobian/requirements.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// Double copies of J that the QR path holds at a time.
constexpr std::int64_t kFactorBytes = std::int64_t{256} << 20;

double rank_tolerance(const ExactOptions& options, const JacobianOperator& jacobian) {
  if (options.rank_tolerance >= 0) return options.rank_tolerance;
  const double entries = static_cast<double>(jacobian.outputs()) * static_cast<double>(jacobian.inputs());
  return std::min(std::max(4 * storage_roundoff(jacobian), 2 * std::sqrt(entries) * 0x1p-53), 1.0);
}

/// Conditions beyond this go to QR, whatever is asked for: at 2^26 a Gram matrix has lost its smallest eigenvalue, and
/// one beyond 1 / tolerance may count as rank-deficient, which only the QR path decides.
double largest_gram_condition(const ExactOptions& options, const JacobianOperator& jacobian) {
  return std::min({options.qr_condition, 0x1p26, 1 / rank_tolerance(options, jacobian)});
}

void check(const ExactOptions& options, const JacobianOperator& jacobian) {
  check_tall("the exact log-volume", jacobian);
  if (!(options.qr_condition >= 0))
    throw InvalidArgument("qr_condition is " + format_number(options.qr_condition) + ", must not be negative");
  if (!(options.rank_tolerance <= 1))
    throw InvalidArgument("rank_tolerance is " + format_number(options.rank_tolerance) + ", must not exceed 1");
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
    const std::int64_t n = jacobian_.samples(), d = jacobian_.inputs();
    if (!cotangents.absent()) gram_cotangents(ops_, cotangents, lower_, columns);
    const std::int64_t most =
        std::clamp<std::int64_t>(kFactorBytes / (8 * d * jacobian_.outputs()), 1, std::max<std::int64_t>(n, 1));
    if (ops_.planning()) {
      if (n > 0) by_qr(0, std::min(most, n), cotangents);
      return;
    }
    const std::vector<double> conditions = condition_bounds();
    const double largest = largest_gram_condition(options_, jacobian_);
    for (std::int64_t first = 0; first < n;) {
      const auto bad = [&](std::int64_t i) { return !(conditions[static_cast<std::size_t>(i)] <= largest); };
      if (!bad(first)) {
        ++first;
        continue;
      }
      std::int64_t end = first;
      while (end < n && end - first < most && bad(end)) ++end;
      by_qr(first, end - first, cotangents);
      first = end;
    }
  }

  Tensor columns, values, vectors;

 private:
  /// |L|_F |L^-1|_F per sample.
  std::vector<double> condition_bounds() {
    const std::int64_t mark = arena_.mark(), n = jacobian_.samples(), d = jacobian_.inputs();
    const Tensor inverse = arena_.allocate(DType::f64, {n * d, d}), squares = arena_.allocate(DType::f64, {n});
    const Tensor flat = lower_.reshaped({n, d * d}), flat_inverse = inverse.reshaped({n, d * d});
    ops_.tile_identity(inverse, n);
    ops_.triangular_solve(inverse, lower_, inverse, false);
    ops_.row_norm(squares, flat);
    std::vector<double> bounds = read_values(ops_, squares);
    ops_.row_norm(squares, flat_inverse);
    const std::vector<double> inverses = read_values(ops_, squares);
    for (std::size_t i = 0; i < bounds.size(); ++i) bounds[i] *= inverses[i];
    arena_.rewind(mark);
    return bounds;
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
    ops_.log_volume(value, missing, values.slice_rows(first, count), rank_tolerance(options_, jacobian_));
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
