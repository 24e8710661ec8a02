// Mass of a model where its generator never goes: energies at broad random points, and where chains from there end.
//
// Samples of the generator know nothing of such a place: L_low, importance sampling and its effective share can look
// perfect while a third of exp(-E) lies in a well that no generated point has seen.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bracket/annealed_importance.h"
#include "host/evaluate/generated_points.h"

namespace bracket {

struct FarOptions {
  std::int64_t points = 4096;      ///< of each proposal
  std::int64_t references = 4096;  ///< generated points that tell near from far
  std::int64_t chains = 256;       ///< Langevin chains from broad points
  std::int64_t steps = 200;        ///< of each, the first three quarters adapt the step size
  double confidence = 0.999;       ///< of the masses: an alarm must not be the noise of one audit in twenty
  std::uint64_t seed = 0;
};

/// Energies at points of one broad density q, and the mass that importance sampling with weights exp(-E) / q finds.
struct BroadProposal {
  std::string name;
  std::int64_t points = 0;
  double widening = 0;  ///< in deviations of the data, or of the data's box
  bool covers = false;  ///< the normal ones: density everywhere
  double energy_minimum = 0;
  double energy_median = 0;
  double low_share = 0;                     ///< of the points with an energy below low_energy
  std::optional<LogMeanInterval> log_mass;  ///< of all of them: log Z where q covers the model; absent: no mass seen
  std::optional<LogMeanInterval> log_far_mass;  ///< of those where no generated point is near
  double far_share = 0;                         ///< of the far mass in the model
  double far_share_lower = 0;                   ///< ends at the confidence, the error of log Z included
  /// No less than what n effective points can have missed, -log(1 - confidence) / n: a share s stays unseen by n points
  /// with probability (1 - s)^n. 1 where no mass was seen at all.
  double far_share_upper = 1;

  double effective_points() const { return log_mass ? log_mass->ess * static_cast<double>(points) : 0; }
};

struct FarEnergies {
  double low_energy = 0;     ///< below it lie 99 % of the data
  double data_median = 0;    ///< of the data's energies
  double near_distance = 0;  ///< to the nearest generated point, columns in deviations of the data
  std::vector<BroadProposal> proposals;
  std::int64_t not_finite = 0;  ///< broad points with an energy that is NaN or -infinity
  std::int64_t chains = 0;
  std::int64_t chains_in_far_wells = 0;  ///< ended with an energy below low_energy where no generated point is near
  /// Those of them near which no far point of a proposal that covers the model is as low: its mass is not measured.
  std::int64_t chains_in_unseen_wells = 0;
  std::vector<double> far_well;  ///< [D] the lowest of those ends; empty: none
  double far_well_energy = 0;
};

/// What masses are shares of.
struct KnownPartition {
  double log_z = 0;
  bool complete = false;  ///< holds far mass too, as a quadrature does; else it may lack it: m / (m + Z)
  double error = 0;       ///< of log Z, either way, at the confidence of the masses
};

/// q: N(mean, (k s)^2), s the data's deviations, k = 2 and 4; uniform in the data's box widened k = 2 times, and 16,
/// 128 and 1024 times, which an energy without a wall fills. Near is within a few times the distance that 99 % of the
/// generated points have to their nearest neighbour: 1 + 6 / max(D, 2) times, as a tail has more room than the bulk and
/// the less so the more dimensions share it. Chains start from points that are not near. `data` [rows, D] with
/// `data_energy` [rows]. Waits. Throws InvalidArgument for no data or an option out of range.
FarEnergies energies_far_away(const NetworkPair& pair, std::span<const double> data,
                              std::span<const double> data_energy, const KnownPartition& known,
                              const FarOptions& options = {});

}  // namespace bracket
