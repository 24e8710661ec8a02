// What the tests of stochastic estimators share: estimates as host values.
#pragma once

#include "bracket/trace_estimators.h"
#include "tests/jacobian_fixture.h"

namespace bracket::test {

struct Estimate {
  Certificate certificate = Certificate::exact;
  HostMatrix value, error, tangents, cotangents, residual, deficient;
  JacobianPasses passes;
  std::int64_t iterations = 0;
};

class TraceTest : public OpsTest {
 protected:
  using Estimator = std::function<TraceEstimate(Ops&, Arena&, const Probes&)>;

  Estimate with_probes(const CallbackJacobian& jacobian, const ProbeOptions& options, const Estimator& estimator) {
    return planned<Estimate>(context(), [&](Ops& o, Arena& arena) {
      return read_trace(o, estimator(o, arena, make_probes(o, arena, jacobian, options)));
    });
  }
  Estimate trace(const CallbackJacobian& jacobian, const ProbeOptions& options) {
    return planned<Estimate>(context(), [&](Ops& o, Arena& arena) {
      return read(o, hutchinson_trace(o, arena, jacobian, make_probes(o, arena, jacobian, options)));
    });
  }
  Estimate function(const CallbackJacobian& jacobian, const SpectralFunction& f, const ProbeOptions& options,
                    std::int64_t steps, const std::vector<double>& lower = {}) {
    return with_probes(jacobian, options, [&](Ops& o, Arena& arena, const Probes& probes) {
      QuadratureOptions quadrature{steps, {}};
      if (!lower.empty()) {
        quadrature.lower_end = arena.allocate(DType::f64, {jacobian.samples()});
        write_values(o, quadrature.lower_end, lower);
      }
      return trace_of_function(o, arena, jacobian, f, probes, quadrature);
    });
  }
  Estimate volume(const CallbackJacobian& jacobian, const ProbeOptions& options, StochasticVolumeOptions rest = {},
                  const HostMatrix& preconditioner = {}) {
    return planned<Estimate>(context(), [&](Ops& o, Arena& arena) {
      if (preconditioner.rows > 0) {
        rest.preconditioner = arena.allocate(jacobian.dtype(), {preconditioner.rows, preconditioner.cols});
        write_values(o, rest.preconditioner, preconditioner.values);
      }
      const StochasticVolumeEstimate e =
          stochastic_log_volume(o, arena, jacobian, make_probes(o, arena, jacobian, options), rest);
      Estimate result = read_trace(o, e);
      result.residual = download_from(context(), o, e.residual);
      result.iterations = e.iterations;
      return result;
    });
  }
  Estimate roulette(const CallbackJacobian& jacobian, const ProbeOptions& options, const RouletteOptions& rest) {
    return with_probes(jacobian, options, [&](Ops& o, Arena& arena, const Probes& probes) {
      return roulette_log_volume(o, arena, jacobian, probes, rest);
    });
  }
  Estimate low_rank(const CallbackJacobian& jacobian, const LowRankOptions& options, bool exchangeable) {
    return planned<Estimate>(context(), [&](Ops& o, Arena& arena) {
      return read_trace(o, exchangeable ? exchangeable_trace(o, arena, jacobian, options)
                                        : hutch_plus_plus_trace(o, arena, jacobian, options));
    });
  }

 private:
  Estimate read(Ops& o, const JacobianEstimate& e) {
    const auto down = [&](const Tensor& x) { return download_from(context(), o, x); };
    Estimate result;
    result.certificate = e.certificate;
    result.value = down(e.value);
    result.error = down(e.standard_error);
    result.tangents = down(e.tangents);
    result.cotangents = down(e.cotangents);
    result.passes = e.passes;
    return result;
  }
  Estimate read_trace(Ops& o, const TraceEstimate& e) {
    Estimate result = read(o, e);
    result.deficient = download_from(context(), o, e.deficient);
    return result;
  }
};

inline double trace_of(const MatrixXd& j, const std::function<double(double)>& f) {
  double sum = 0;
  const VectorXd s = singular_values_of(j);
  for (std::int64_t k = 0; k < s.size(); ++k) sum += f(s(k) * s(k));
  return sum;
}

inline std::vector<MatrixXd> matrices_with(std::int64_t n, std::int64_t D, const std::vector<double>& s,
                                           std::uint64_t salt) {
  auto engine = test_engine(salt);
  std::vector<MatrixXd> matrices;
  for (std::int64_t i = 0; i < n; ++i) matrices.push_back(with_singular_values(D, s, engine));
  return matrices;
}

/// n samples that share one matrix and differ in their probes.
inline CallbackJacobian shared_jacobian(const MatrixXd& j, std::int64_t n, DType dtype = DType::f64) {
  JacobianCallbacks callbacks;
  callbacks.apply = [j](std::int64_t rows, std::span<const double> x, std::span<double> y) {
    Eigen::Map<RowMatrix>(y.data(), rows, j.rows()) =
        Eigen::Map<const RowMatrix>(x.data(), rows, j.cols()) * j.transpose();
  };
  callbacks.apply_transpose = [j](std::int64_t rows, std::span<const double> y, std::span<double> x) {
    Eigen::Map<RowMatrix>(x.data(), rows, j.cols()) = Eigen::Map<const RowMatrix>(y.data(), rows, j.rows()) * j;
  };
  return {n, j.cols(), j.rows(), dtype, std::move(callbacks)};
}

inline double half_log(double x) { return 0.5 * std::log(x); }

}  // namespace bracket::test
