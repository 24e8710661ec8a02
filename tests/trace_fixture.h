// What the tests of stochastic estimators share: estimates as host values.
#pragma once

#include "bracket/trace_estimators.h"
#include "tests/jacobian_fixture.h"

namespace bracket::test {

struct Estimate {
  Certificate certificate = Certificate::exact;
  HostMatrix value, error, tangents, cotangents, residual;
  JacobianPasses passes;
  std::int64_t iterations = 0;
};

class TraceTest : public OpsTest {
 protected:
  using Estimator = std::function<JacobianEstimate(Ops&, Arena&, const Probes&)>;

  Estimate with_probes(const CallbackJacobian& jacobian, const ProbeOptions& options, const Estimator& estimator) {
    return planned<Estimate>(context(), [&](Ops& o, Arena& arena) {
      return read(o, estimator(o, arena, make_probes(o, arena, jacobian, options)));
    });
  }
  Estimate trace(const CallbackJacobian& jacobian, const ProbeOptions& options) {
    return with_probes(jacobian, options, [&](Ops& o, Arena& arena, const Probes& probes) {
      return hutchinson_trace(o, arena, jacobian, probes);
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
  Estimate volume(const CallbackJacobian& jacobian, const ProbeOptions& options,
                  const StochasticVolumeOptions& rest = {}) {
    return planned<Estimate>(context(), [&](Ops& o, Arena& arena) {
      const StochasticVolumeEstimate e =
          stochastic_log_volume(o, arena, jacobian, make_probes(o, arena, jacobian, options), rest);
      Estimate result = read(o, e);
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
      return read(o, exchangeable ? exchangeable_trace(o, arena, jacobian, options)
                                  : hutch_plus_plus_trace(o, arena, jacobian, options));
    });
  }

 private:
  Estimate read(Ops& o, const JacobianEstimate& e) {
    const auto down = [&](const Tensor& x) { return download_from(context(), o, x); };
    return {
        e.certificate, down(e.value), down(e.standard_error), down(e.tangents), down(e.cotangents), {}, e.passes, 0};
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
