// The Jacobian of a map at a batch of points, as an operator: products with J and with J^T, never J itself.
//
// n samples, J_i [D, d] each. A product takes K columns per sample at once: row i K + k of a block is column k of
// sample i, as the stacked tangents of a Network. Everything that estimates something of J stands on this interface:
// singular_values.h (deterministic) and trace_estimators.h (stochastic).
//
// Work is queued on the stream of `ops`; nothing here waits but what calls a user's functions on the host. Results live
// in the arena and are valid until it is rewound. `with_planned_arena` sizes an arena.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "bracket/device.h"
#include "bracket/memory.h"
#include "bracket/network.h"
#include "bracket/tensor.h"

namespace bracket {

class JacobianOperator {
 public:
  virtual ~JacobianOperator() = default;

  std::int64_t samples() const noexcept { return samples_; }  ///< n
  std::int64_t inputs() const noexcept { return inputs_; }    ///< d
  std::int64_t outputs() const noexcept { return outputs_; }  ///< D
  DType dtype() const noexcept { return dtype_; }

  /// y_{i K + k} = J_i x_{i K + k}; y [n K, D], x [n K, d], any row stride, of the operator's dtype. Throws
  /// InvalidArgument for other shapes. x and y must not overlap.
  void apply(Ops& ops, Arena& arena, Tensor y, Tensor x) const;
  /// x_{i K + k} = J_i^T y_{i K + k}.
  void apply_transpose(Ops& ops, Arena& arena, Tensor x, Tensor y) const;

 protected:
  /// n >= 0, d >= 1, D >= 1 and f32 or f64, else InvalidArgument.
  JacobianOperator(std::int64_t samples, std::int64_t inputs, std::int64_t outputs, DType dtype);
  JacobianOperator(const JacobianOperator&) = default;
  JacobianOperator& operator=(const JacobianOperator&) = default;

 private:
  /// Shapes have been checked and there is at least one row. What is taken from the arena is given up by the caller. An
  /// operator of an embedding program queues its work on the stream that it gave the context; in a dry run
  /// (arena.planning()) addresses are fictitious, and it may only take from the arena what it will take.
  virtual void do_apply(Ops& ops, Arena& arena, Tensor y, Tensor x) const = 0;
  virtual void do_apply_transpose(Ops& ops, Arena& arena, Tensor x, Tensor y) const = 0;

  std::int64_t samples_, inputs_, outputs_;
  DType dtype_;
};

/// J = dG/dz of a network in inference mode at z [n, d].
class NetworkJacobian final : public JacobianOperator {
 public:
  /// Activations of tangents that one push, or adjoints that one pull, may take.
  static constexpr std::int64_t kTangentBytes = std::int64_t{256} << 20;

  /// Runs the one primal pass; it lives in `arena`. The parameters must not change while the operator is used.
  /// `tangent_bytes` bounds the activations of tangents: samples, or the tangents of one sample, go through the network
  /// in portions of at least one row. `further`: what the operator will be asked for, n K rows for every product with J
  /// or J^T of K columns, as Network::forward reads it. By default no product is counted on, and the pass merges only
  /// what pays for its own n rows; results are the same to rounding.
  NetworkJacobian(Ops& ops, Arena& arena, const Network& network, const ParameterSet& parameters, Tensor z,
                  std::int64_t tangent_bytes = kTangentBytes, const FurtherUse& further = {});
  /// Of a primal pass of that network which has been run, in inference mode where the network has BatchNorm.
  NetworkJacobian(const Network& network, PrimalPass primal, std::int64_t tangent_bytes = kTangentBytes);

  const PrimalPass& primal() const noexcept { return primal_; }  ///< primal().output() = G(z) [n, D]

  /// The derivative of factor sum <C, J V>, V and C held constant, in what `request` names of parameters and z
  /// (grad_tangent_input is refused): with V and C of an estimate, of factor sum_i value_i. V [n K, d], C [n K, D].
  void reverse(Ops& ops, Arena& arena, Tensor tangents, Tensor cotangents, double factor,
               const ReverseRequest& request) const;

 private:
  void do_apply(Ops& ops, Arena& arena, Tensor y, Tensor x) const override;
  void do_apply_transpose(Ops& ops, Arena& arena, Tensor x, Tensor y) const override;

  const Network* network_;
  PrimalPass primal_;
  std::int64_t rows_at_once_;
};

/// Products computed by the embedding program on the host. `rows` = n K; blocks are contiguous, row-major, as above.
/// What they throw passes through. They must be linear, and each other's transpose: nothing here can check that.
struct JacobianCallbacks {
  std::function<void(std::int64_t rows, std::span<const double> x, std::span<double> y)> apply;
  std::function<void(std::int64_t rows, std::span<const double> y, std::span<double> x)> apply_transpose;
};

/// Waits for the device at every product. In f32 the values are rounded to float on their way.
class CallbackJacobian final : public JacobianOperator {
 public:
  /// Throws InvalidArgument where a function is missing.
  CallbackJacobian(std::int64_t samples, std::int64_t inputs, std::int64_t outputs, DType dtype,
                   JacobianCallbacks callbacks);

 private:
  void do_apply(Ops& ops, Arena& arena, Tensor y, Tensor x) const override;
  void do_apply_transpose(Ops& ops, Arena& arena, Tensor x, Tensor y) const override;

  JacobianCallbacks callbacks_;
};

/// Row i d + k of t [n d, D] = column k of J_i: d products per sample.
void jacobian_columns(Ops& ops, Arena& arena, Tensor t, const JacobianOperator& jacobian);
/// gram f64[n, d, d] = J^T J per sample, summed in double; holds the n d D elements of J meanwhile.
void jacobian_gram(Ops& ops, Arena& arena, Tensor gram, const JacobianOperator& jacobian);

/// What an estimate is worth as a statement about its quantity: the trace; h of exact_log_volume, exact_smallest_volume
/// (d log s_1 <= h) and the stochastic volumes; d log s_1 of the iterations, whose d log mu may lie on either side of
/// h. All of them speak of samples whose `deficient` is 0 (what
/// counts as zero is decided by a tolerance, see singular_values.h, and a value of -inf is that decision, no bound),
/// and hold but for the rounding that the estimator documents.
enum class Certificate : std::uint8_t {
  exact,            ///< the quantity itself
  certified_lower,  ///< never above it
  certified_upper,  ///< never below it
  optimistic,       ///< its expectation is not below the quantity; no bound
  pessimistic,      ///< its expectation is not above the quantity; no bound
  unbiased,         ///< its expectation is the quantity: read it with its standard error
  biased,           ///< its expectation is near the quantity, on a side that is not known
};
const char* certificate_name(Certificate certificate) noexcept;  ///< "exact", "certified lower", ...

/// Products per sample: columns sent through J and through J^T.
struct JacobianPasses {
  std::int64_t apply = 0;
  std::int64_t transpose = 0;
};

/// What every estimator returns. Values are in double whatever the precision of the operator.
struct JacobianEstimate {
  Certificate certificate = Certificate::exact;
  Tensor value;  ///< f64[n]; log-volumes in nats
  /// f64[n]; absent where nothing is random. exchangeable_trace's tends to be too small.
  Tensor standard_error;
  /// <C, d(J V)/da> with V and C held constant, for any parameter a of J, is
  ///   exact_log_volume       the derivative of the value
  ///   exact_smallest_volume  that too, where s_1 is simple
  ///   lobpcg_smallest        that of the value with v held, which tends to the derivative of d log s_1; more than half
  ///   golub_kahan_extremes   of the derivative of the value after few steps is not in it, see LobpcgOptions
  ///   stochastic_log_volume  an unbiased estimate of dh where x_p has converged, not the derivative of the value
  /// Absent where not asked for, or where the estimator has none.
  Tensor tangents;    ///< V [n K, d]; the probes' directions of stochastic_log_volume, else memory of its own
  Tensor cotangents;  ///< C [n K, D]; memory of its own
  JacobianPasses passes;
};

/// Calls `work` twice, side effects included: on a dry run that computes nothing, then on the context with an arena of
/// the size that took. Results must be read inside `work`, by read_values, which gives zeros in the dry run: what
/// `work` allocates must not depend on them, or OutOfMemory is thrown. arena.planning() tells the dry run; in it a
/// CallbackJacobian does not call its functions, and `passes` and `steps` are the most that can be. Do not keep
/// operators or tensors made in one run for the other. The arena's memory stays in the pool's cache (MemoryPool::trim).
void with_planned_arena(Context& context, const std::function<void(Ops&, Arena&)>& work);
/// The elements of a contiguous tensor of either dtype. Waits. Zeros in a dry run.
std::vector<double> read_values(Ops& ops, const Tensor& tensor);
/// Copies `values` into a contiguous tensor; InvalidArgument where their number differs.
void write_values(Ops& ops, const Tensor& tensor, std::span<const double> values);

}  // namespace bracket
