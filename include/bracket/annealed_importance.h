// Annealed importance sampling: log Z of a density that is known up to a constant, with an interval.
//
// Target f_1 = exp(-U), Z = its integral; base f_0 = N(mean, C C^T), normalised and sampled exactly. Chains go along
//   log f_b = (1 - b) log f_0 + b log f_1,   0 = b_0 < b_1 < ... < b_T = 1,
// each step first weighed, then moved by Hamiltonian Monte Carlo that keeps f_b (Neal, 2001; transitions in the
// coordinates u = C^-1 (x - mean), where the base is N(0, I)):
//   log w = sum_t (b_t - b_{t-1}) (log f_1 - log f_0)(x_{t-1}).
//
// FORWARD, from exact points of the base: E[w] = Z whatever the schedule and however badly chains mix. log mean w is
// therefore a stochastic LOWER bound: by Markov's inequality it exceeds log Z by k nats with probability exp(-k) at
// most. BACK, from exact points of f_1 / Z through the same moves in reverse: E[1 / w] = 1 / Z, and -log mean (1 / w)
// is a stochastic UPPER bound in the same sense (bidirectional Monte Carlo: Grosse, Ghahramani and Adams, 2015). A
// trained energy has no exact points. Back chains then start where long Markov chains ended, and what they give is an
// approximation that misses the same wells as those chains did.
//
// A pilot finds temperatures and step sizes with chains of its own, whose random numbers no measured chain uses; for
// the measured chains both are constants, so nothing above is spoilt by the adaptation. Everything is in nats and a
// function of the seed and the device.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "bracket/device.h"
#include "bracket/sampler.h"

namespace bracket {

/// U [rows] and grad U [rows, D] at points x [rows, D]. +infinity is density zero. What it throws passes through.
using PotentialFunction = std::function<void(std::span<const double> x, std::int64_t rows, std::span<double> potential,
                                             std::span<double> gradient)>;

/// U of networks as in sampler.h: E(x), or E(G(z)) + |z|^2 / 2. Points are rounded to the networks' precision.
/// Everything in `target` must outlive the function.
PotentialFunction network_potential(Context& context, const SamplerTarget& target);

/// N(mean, C C^T). The closer to the target and the more it covers of it, the fewer temperatures.
struct GaussianBase {
  std::vector<double> mean;    ///< [D]
  std::vector<double> factor;  ///< C: lower triangular [D, D], row-major, or the diagonal of one [D]; diagonal > 0
};

struct AnnealingOptions {
  std::int64_t temperatures = 0;  ///< T; 0: as many as `relative_variance` asks for
  /// Of the factor that one step adds to w, which the pilot aims at; that of w is about T times as much.
  double relative_variance = 0.002;
  std::int64_t most_temperatures = 1000;  ///< the pilot starts again with 4 times the variance if these do not suffice
  std::int64_t transitions = 1;           ///< per temperature
  std::int64_t leapfrog_steps = 2;        ///< per transition; 2 of them are about a quarter of a period of the base
  double target_acceptance = 0.8;  ///< of transitions (0.65 to 0.9 are near the optimum: Betancourt et al., 2014)
  std::int64_t pilot_chains = 256;
  std::uint64_t seed = 0;
  /// Number of the first measured chain, a multiple of kChainsPerBlock: chains can run in portions and come out the
  /// same.
  std::int64_t first_chain = 0;
};

/// What a pilot found.
struct AnnealingSchedule {
  std::vector<double> temperature;  ///< b_1 < ... < b_T = 1
  std::vector<double> step_size;    ///< [T] e of the transitions at each, in units of C
  std::int64_t leapfrog_steps = 0;  ///< of the pilot's transitions
  std::int64_t transitions = 0;     ///< per temperature
};

/// The pilot: chains are moved and resampled from temperature to temperature, each the largest at which the relative
/// variance of the weights stays at the set value (conditional effective sample size: Zhou, Johansen and Aston, 2016),
/// step sizes follow the acceptance. A number of temperatures that is asked for takes its places at equal distances
/// along what the pilot found. Waits. Throws InvalidArgument for sizes that disagree or an option out of range,
/// Diverged where U is NaN or -infinity, or +infinity at every point of the base.
AnnealingSchedule plan_annealing(Context& context, const GaussianBase& base, const PotentialFunction& target,
                                 const AnnealingOptions& options = {});

struct AnnealedChains {
  std::vector<double> log_weight;  ///< log w of every chain; back: -log w, whose mean exp is 1 / Z
  std::vector<double> states;      ///< [rows, D] at the other end
  double acceptance = 0;           ///< mean acceptance probability, 1 where there is no transition
};

/// `rows` independent chains from the base. -infinity: the chain started where the target has no mass. Errors as above.
AnnealedChains anneal_forward(Context& context, const GaussianBase& base, const PotentialFunction& target,
                              const AnnealingSchedule& schedule, std::int64_t rows,
                              const AnnealingOptions& options = {});
/// The same way back from points `start` [rows, D] of the target; those must have mass.
AnnealedChains anneal_back(Context& context, const GaussianBase& base, const PotentialFunction& target,
                           const AnnealingSchedule& schedule, std::span<const double> start, std::int64_t rows,
                           const AnnealingOptions& options = {});
/// Chains from `start` [rows, D] that stay with the target for `steps` transitions, of the last step size and, every
/// second one, of a fraction of it, which moves chains out of steep places: what back chains of a trained energy start
/// from. log_weight holds U at the end.
AnnealedChains run_target_chains(Context& context, const GaussianBase& base, const PotentialFunction& target,
                                 const AnnealingSchedule& schedule, std::span<const double> start, std::int64_t rows,
                                 std::int64_t steps, const AnnealingOptions& options = {});

/// log E[w] from independent log weights.
struct LogMeanInterval {
  double estimate = 0;  ///< log mean w
  double lower = 0;     ///< interval of the confidence asked for; -infinity where the weights tell nothing
  double upper = 0;
  double standard_error = 0;  ///< of the estimate, by the delta method: sd(w) / (mean w sqrt n)
  double ess = 0;             ///< (sum w)^2 / (n sum w^2), in (0, 1]
  double skewness = 0;        ///< of w
  /// estimate - log(1 / (1 - confidence)): below log E[w] with that confidence whatever the weights' distribution
  /// (Markov's inequality).
  double markov_lower = 0;
};

/// The interval is the normal theory of a mean, of w, not log w: with s the relative standard error, t Student's
/// quantile and g the skewness, [log(1 - t s), log(1 + s (t + g (1 + 2 t^2) / (6 sqrt n)))] around the estimate, g's term
/// the first-order correction for a skew distribution (Johnson, 1978; Hall, 1992), taken only where it widens. It fails
/// where n ess is below some tens: weights then have a tail that the sample has not seen, the estimate lies below the
/// truth in most samples, and only `markov_lower` still holds. Throws InvalidArgument for fewer than 2 weights, a NaN
/// or +infinity among them, none above -infinity, or a confidence outside (0, 1).
LogMeanInterval log_mean_interval(std::span<const double> log_weights, double confidence);

}  // namespace bracket
