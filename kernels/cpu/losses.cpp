// Losses, their seeds and the record of a step. Means are sums in double in an order fixed by the batch size; a batch
// is small (hundreds to a few thousand energies), so one thread does it.
#include <cstdint>

#include "kernels/cpu/cpu_common.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/lane_sum.h"
#include "kernels/formula/step_rules.h"

namespace bracket {
namespace {

/// One number per row.
template <class T>
struct Column {
  explicit Column(const Tensor& tensor) : data(tensor.as<T>()), stride(tensor.row_stride()) {}
  double operator[](std::int64_t i) const { return static_cast<double>(data[i * stride]); }
  void set(std::int64_t i, double value) const { data[i * stride] = static_cast<T>(value); }
  T* data;
  std::int64_t stride;
};

template <class Term>
double mean(std::int64_t n, Term&& term) {
  return lane_sum(n, term) / static_cast<double>(n);
}

}  // namespace

void CpuOps::do_energy_loss(Tensor seed_data, Tensor seed_fake, Tensor seed_tangent, StepState* state, Tensor e_data,
                            Tensor e_fake, Tensor e_tangent, Tensor score_dot, const PenaltyRule& rule) {
  const std::int64_t n = e_data.rows();
  const double inverse_n = 1 / static_cast<double>(n);
  dispatch(e_data.dtype(), [&]<class T>() {
    const Column<T> data(e_data), fake(e_fake), tangent(e_tangent), to_data(seed_data), to_fake(seed_fake),
        to_tangent(seed_tangent);
    formula::EnergyMeans means{};
    means.data = mean(n, [&](std::int64_t i) { return data[i]; });
    means.samples = mean(n, [&](std::int64_t i) { return fake[i]; });
    if (rule.data_gradient) {
      means.penalty = mean(n, [&](std::int64_t i) { return tangent[i]; });
      const double w = formula::open_weight(state->penalty_weight, means.penalty, rule);
      for (std::int64_t i = 0; i < n; ++i) to_tangent.set(i, 2 * w * inverse_n);
    } else {
      const Column<T> score(score_dot);
      means.penalty = mean(n,
                           [&](std::int64_t i) {
                             const double residual = tangent[i] - score[i];
                             return residual * residual;
                           }) /
                      2;
      const double w = formula::open_weight(state->penalty_weight, means.penalty, rule);
      for (std::int64_t i = 0; i < n; ++i) to_tangent.set(i, w * (tangent[i] - score[i]) * inverse_n);
    }
    for (std::int64_t i = 0; i < n; ++i) to_data.set(i, inverse_n);
    for (std::int64_t i = 0; i < n; ++i) to_fake.set(i, -inverse_n);
    formula::record_energy_loss(*state, means, rule);
  });
}

void CpuOps::do_generator_loss(StepState* state, Tensor e_fake, Tensor h, double entropy_weight) {
  const std::int64_t n = e_fake.rows();
  dispatch(e_fake.dtype(), [&]<class T>() {
    const Column<T> energy(e_fake), log_volume(h);
    const double mean_e_fake = mean(n, [&](std::int64_t i) { return energy[i]; });
    const double mean_h = mean(n, [&](std::int64_t i) { return log_volume[i]; });
    formula::record_generator_loss(*state, mean_e_fake, mean_h, entropy_weight);
  });
}

void CpuOps::do_bound_record(StepState* state, Tensor e_fake, Tensor h, Tensor latent) {
  const std::int64_t n = e_fake.rows();
  dispatch(e_fake.dtype(), [&]<class T>() {
    const Column<T> energy(e_fake), log_volume(h);
    const Matrix<T> z = matrix<T>(latent);
    // phi = e - |z|^2/2 - h; the constant d/2 log(2 pi) of log p_g does not change a variance.
    const auto phi = [&](std::int64_t i) {
      return energy[i] - inner_product(z.row(i), z.row(i), z.cols) / 2 - log_volume[i];
    };
    const double mean_e_fake = mean(n, [&](std::int64_t i) { return energy[i]; });
    const double mean_h = mean(n, [&](std::int64_t i) { return log_volume[i]; });
    const double mean_phi = mean(n, phi);
    const double variance = mean(n, [&](std::int64_t i) {
      const double deviation = phi(i) - mean_phi;
      return deviation * deviation;
    });
    formula::record_bound(*state, mean_e_fake, mean_h, variance, z.cols);
  });
}

void CpuOps::do_adapt_penalty_weight(StepState* state, const WeightController& rule) {
  formula::adapt_penalty_weight(*state, rule);
}

}  // namespace bracket
