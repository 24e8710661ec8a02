// Launchers of losses.cuh.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/losses.cuh"

namespace bracket::BRACKET_TARGET {
namespace {

using namespace losses_kernels;

}  // namespace

void CudaOps::do_energy_loss(Tensor seed_data, Tensor seed_fake, Tensor seed_tangent, StepState* state, Tensor e_data,
                             Tensor e_fake, Tensor e_tangent, Tensor score_dot, const PenaltyRule& rule) {
  check(dispatch(e_data.dtype(),
                 [&]<class T>() {
                   const EnergyLossArguments<T> arguments{device_matrix<T>(seed_data),    device_matrix<T>(seed_fake),
                                                          device_matrix<T>(seed_tangent), device_matrix<T>(e_data),
                                                          device_matrix<T>(e_fake),       device_matrix<T>(e_tangent),
                                                          device_matrix<T>(score_dot),    rule};
                   return launch<EnergyLossBody<T>>(1, kThreads, 0, stream_, state, arguments);
                 }),
        "energy_loss", e_data);
}

void CudaOps::do_generator_loss(StepState* state, Tensor e_fake, Tensor h, double entropy_weight) {
  check(dispatch(e_fake.dtype(),
                 [&]<class T>() {
                   return launch<GeneratorLossBody<T>>(1, kThreads, 0, stream_, state, device_matrix<T>(e_fake),
                                                       device_matrix<T>(h), entropy_weight);
                 }),
        "generator_loss", e_fake);
}

void CudaOps::do_bound_record(StepState* state, Tensor e_fake, Tensor h, Tensor latent) {
  check(dispatch(e_fake.dtype(),
                 [&]<class T>() {
                   return launch<BoundRecordBody<T>>(1, kThreads, 0, stream_, state, device_matrix<T>(e_fake),
                                                     device_matrix<T>(h), device_matrix<T>(latent));
                 }),
        "bound_record", e_fake);
}

void CudaOps::do_adapt_penalty_weight(StepState* state, const WeightController& rule) {
  check(launch<AdaptPenaltyWeightBody>(1, 1, 0, stream_, state, rule), "adapt_penalty_weight", Tensor());
}

}  // namespace bracket::BRACKET_TARGET
