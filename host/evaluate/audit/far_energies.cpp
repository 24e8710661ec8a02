#include "host/evaluate/audit/far_energies.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "bracket/error.h"
#include "bracket/sampler.h"
#include "host/evaluate/audit/audit_streams.h"
#include "host/training/inference.h"

namespace bracket {
namespace {

constexpr double kLowShare = 0.99;        // of the data below low_energy
constexpr double kNeighbourShare = 0.99;  // of the generated points within the distance that counts as typical
constexpr double kNormalWidenings[] = {2, 4}, kBoxWidenings[] = {2, 16, 128, 1024};
constexpr double kWidestOfChains = 4;  // of the proposals that chains start from: from further out few arrive
constexpr double kAsLow = 1;           // nats above the end of a chain: such a point has seen the well
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double quantile(std::vector<double> values, double share) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// Mean, deviation and range of the data per column.
struct Columns {
  std::vector<double> mean, deviation, low, high;

  Columns(std::span<const double> data, std::size_t cols)
      : mean(cols), deviation(cols), low(cols, kInfinity), high(cols, -kInfinity) {
    const auto n = static_cast<double>(data.size() / cols);
    for (std::size_t i = 0; i < data.size(); ++i) {
      mean[i % cols] += data[i] / n;
      low[i % cols] = std::min(low[i % cols], data[i]);
      high[i % cols] = std::max(high[i % cols], data[i]);
    }
    for (std::size_t i = 0; i < data.size(); ++i)
      deviation[i % cols] += (data[i] - mean[i % cols]) * (data[i] - mean[i % cols]) / n;
    for (double& d : deviation) d = d > 0 ? std::sqrt(d) : 1;
  }
};

// Distances to the nearest of a set of points, columns in deviations of the data.
class Neighbours {
 public:
  Neighbours(std::vector<double> points, const Columns& columns) : columns_(columns), points_(scaled(points)) {}

  /// `self`: index of x among the points, which does not count; negative: none is.
  double distance(std::span<const double> x, std::int64_t self) const {
    const std::size_t cols = columns_.mean.size();
    const std::vector<double> at = scaled(x);
    double best = kInfinity;
    for (std::size_t i = 0; i < points_.size() / cols; ++i) {
      if (static_cast<std::int64_t>(i) == self) continue;
      double sum = 0;
      for (std::size_t j = 0; j < cols && sum < best; ++j) {
        const double difference = points_[i * cols + j] - at[j];
        sum += difference * difference;
      }
      best = std::min(best, sum);
    }
    return std::sqrt(best);
  }

 private:
  std::vector<double> scaled(std::span<const double> x) const {
    std::vector<double> result(x.begin(), x.end());
    const std::size_t cols = columns_.mean.size();
    for (std::size_t i = 0; i < result.size(); ++i) result[i] /= columns_.deviation[i % cols];
    return result;
  }

  const Columns& columns_;
  std::vector<double> points_;
};

// Points of a broad density with their log density.
struct Draw {
  std::string name;
  double widening = 0;
  bool covers = false;
  std::vector<double> x, log_density;
};

Draw normal_draw(const Columns& columns, double widening, const RandomKey& key, std::int64_t count) {
  const std::size_t cols = columns.mean.size();
  Draw draw{"normal, " + std::to_string(static_cast<int>(widening)) + " deviations", widening, true,
            normal_values(key, count * static_cast<std::int64_t>(cols)),
            std::vector<double>(static_cast<std::size_t>(count))};
  for (std::size_t i = 0; i < draw.x.size(); ++i) {
    const double u = draw.x[i], scale = widening * columns.deviation[i % cols];
    draw.x[i] = columns.mean[i % cols] + scale * u;
    draw.log_density[i / cols] -= 0.5 * u * u + std::log(scale) + 0.5 * std::log(2 * std::numbers::pi);
  }
  return draw;
}

Draw uniform_draw(const Columns& columns, double widening, const RandomKey& key, std::int64_t count) {
  const std::size_t cols = columns.mean.size();
  Draw draw{"uniform, box of the data times " + std::to_string(static_cast<int>(widening)),
            widening,
            false,
            {},
            std::vector<double>(static_cast<std::size_t>(count))};
  for (std::size_t i = 0; i < static_cast<std::size_t>(count) * cols; ++i) {
    const std::size_t j = i % cols;
    const double extent = columns.high[j] > columns.low[j] ? columns.high[j] - columns.low[j] : columns.deviation[j];
    draw.x.push_back(0.5 * (columns.low[j] + columns.high[j]) + widening * extent * (random_uniform(key, i) - 0.5));
    draw.log_density[i / cols] -= std::log(widening * extent);
  }
  return draw;
}

bool has_density(double energy) { return !std::isnan(energy) && energy > -kInfinity; }

std::optional<LogMeanInterval> interval_of(const std::vector<double>& log_weight, double confidence) {
  if (std::none_of(log_weight.begin(), log_weight.end(), [](double w) { return std::isfinite(w); }))
    return std::nullopt;
  return log_mean_interval(log_weight, confidence);
}

double share_of(double log_mass, const KnownPartition& known, double error = 0) {
  const double log_z = known.log_z + error;
  return known.complete ? std::min(1.0, std::exp(log_mass - log_z)) : 1 / (1 + std::exp(log_z - log_mass));
}

struct BroadPoint {
  double energy = 0;
  const double* x = nullptr;
};

// Chains from broad points that are not near a generated one: half of them from the lowest, the rest spread over all. A
// well is found by the former where a point fell into it, by the latter where the way down leads there.
std::vector<double> chain_starts(const std::vector<Draw>& draws, const std::vector<std::vector<double>>& energies,
                                 const Neighbours& neighbours, double near, std::size_t cols, std::int64_t chains) {
  std::vector<BroadPoint> points;
  for (std::size_t k = 0; k < draws.size(); ++k)
    for (std::size_t i = 0; i < energies[k].size(); ++i)
      if (draws[k].widening <= kWidestOfChains && std::isfinite(energies[k][i]))
        points.push_back({energies[k][i], draws[k].x.data() + i * cols});
  std::vector<double> start;
  // From `points`, `stride` apart and again from the next, until `count` chains have a start.
  const auto take = [&](std::size_t stride, std::int64_t count) {
    for (std::size_t first = 0; first < stride; ++first)
      for (std::size_t i = first; i < points.size(); i += stride) {
        if (start.size() >= static_cast<std::size_t>(count) * cols) return;
        const std::span<const double> x(points[i].x, cols);
        if (neighbours.distance(x, -1) > near) start.insert(start.end(), x.begin(), x.end());
      }
  };
  take(std::max<std::size_t>(1, 2 * points.size() / static_cast<std::size_t>(std::max<std::int64_t>(chains, 1))),
       chains / 2);
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.energy < b.energy; });
  take(1, chains);
  return start;
}

// Points of the proposals that cover the model, not near a generated one and as low as any end of a chain that counts.
std::vector<BroadPoint> low_points(const std::vector<Draw>& draws, const std::vector<std::vector<double>>& energies,
                                   const Neighbours& neighbours, const FarEnergies& far, std::size_t cols) {
  std::vector<BroadPoint> points;
  for (std::size_t k = 0; k < draws.size(); ++k)
    for (std::size_t i = 0; draws[k].covers && i < energies[k].size(); ++i) {
      const double* const x = draws[k].x.data() + i * cols;
      if (energies[k][i] <= far.low_energy + kAsLow && neighbours.distance({x, cols}, -1) > far.near_distance)
        points.push_back({energies[k][i], x});
    }
  return points;
}

void run_chains(FarEnergies& result, const NetworkPair& pair, const Neighbours& neighbours, const Columns& columns,
                const std::vector<double>& start, const std::vector<BroadPoint>& low, const FarOptions& options) {
  const std::size_t cols = columns.mean.size();
  result.chains = static_cast<std::int64_t>(start.size() / cols);
  MalaOptions mala;
  mala.steps = options.steps;
  mala.adaptation_steps = options.steps * 3 / 4;
  mala.step_size = 0.1 * *std::min_element(columns.deviation.begin(), columns.deviation.end());
  mala.seed = options.seed;
  const MalaResult end = sample_mala(pair.context, {pair.energy, pair.energy_parameters}, start, result.chains, mala);
  for (std::size_t i = 0; i < end.potential.size(); ++i) {
    const std::span<const double> x(end.states.data() + i * cols, cols);
    if (end.potential[i] > result.low_energy || neighbours.distance(x, -1) <= result.near_distance) continue;
    if (result.far_well.empty() || end.potential[i] < result.far_well_energy) {
      result.far_well.assign(x.begin(), x.end());
      result.far_well_energy = end.potential[i];
    }
    ++result.chains_in_far_wells;
    const auto sees = [&](const BroadPoint& point) {
      if (point.energy > end.potential[i] + kAsLow) return false;
      double sum = 0;
      for (std::size_t j = 0; j < cols; ++j) {
        const double difference = (point.x[j] - x[j]) / columns.deviation[j];
        sum += difference * difference;
      }
      return sum <= result.near_distance * result.near_distance;
    };
    if (std::none_of(low.begin(), low.end(), sees)) ++result.chains_in_unseen_wells;
  }
}

}  // namespace

FarEnergies energies_far_away(const NetworkPair& pair, std::span<const double> data,
                              std::span<const double> data_energy, const KnownPartition& known,
                              const FarOptions& options) {
  const auto cols = static_cast<std::size_t>(pair.energy.input_size());
  if (data_energy.empty() || data.size() != data_energy.size() * cols || options.points < 2 || options.references < 2 ||
      options.chains < 0 || options.steps < 1)
    throw InvalidArgument("energies_far_away: " + std::to_string(data.size()) + " values with " +
                          std::to_string(data_energy.size()) + " energies, " + std::to_string(options.points) +
                          " points, " + std::to_string(options.references) + " references, " +
                          std::to_string(options.chains) + " chains of " + std::to_string(options.steps) + " steps");
  const Columns columns(data, cols);
  const std::vector<double> z = normal_values({options.seed, RandomStream::evaluation, kReferenceStep},
                                              options.references * pair.generator.input_size());
  const std::vector<double> generated =
      network_outputs(pair.context, pair.generator, pair.generator_parameters, z, options.references);
  const Neighbours neighbours(generated, columns);
  FarEnergies result;
  const std::vector<double> energies_of_data(data_energy.begin(), data_energy.end());
  result.low_energy = quantile(energies_of_data, kLowShare);
  result.data_median = quantile(energies_of_data, 0.5);
  std::vector<double> gaps;
  for (std::int64_t i = 0; i < options.references; ++i)
    gaps.push_back(neighbours.distance(std::span(generated).subspan(static_cast<std::size_t>(i) * cols, cols), i));
  result.near_distance = (1 + 6 / std::max(static_cast<double>(cols), 2.0)) * quantile(gaps, kNeighbourShare);

  std::vector<Draw> draws;
  const auto key = [&](std::uint64_t i) { return RandomKey{options.seed, RandomStream::evaluation, kBroadStep + i}; };
  for (const double widening : kNormalWidenings)
    draws.push_back(normal_draw(columns, widening, key(draws.size()), options.points));
  for (const double widening : kBoxWidenings)
    draws.push_back(uniform_draw(columns, widening, key(draws.size()), options.points));
  std::vector<std::vector<double>> energies;
  for (const Draw& draw : draws) {
    energies.push_back(network_outputs(pair.context, pair.energy, pair.energy_parameters, draw.x, options.points));
    std::vector<double>& energy = energies.back();
    BroadProposal proposal;
    proposal.name = draw.name;
    proposal.widening = draw.widening;
    proposal.covers = draw.covers;
    proposal.points = options.points;
    std::vector<double> all(energy.size(), -kInfinity), far(energy.size(), -kInfinity);
    for (std::size_t i = 0; i < energy.size(); ++i) {
      if (!has_density(energy[i])) {
        ++result.not_finite;
        energy[i] = kInfinity;
      }
      proposal.low_share += energy[i] <= result.low_energy ? 1 / static_cast<double>(energy.size()) : 0;
      all[i] = -energy[i] - draw.log_density[i];
    }
    // Only weights that matter are looked up: the others could not move a share by a millionth together.
    const double floor = *std::max_element(all.begin(), all.end()) - std::log(1e6 * static_cast<double>(all.size()));
    for (std::size_t i = 0; i < all.size(); ++i)
      if (all[i] > floor && neighbours.distance(std::span(draw.x).subspan(i * cols, cols), -1) > result.near_distance)
        far[i] = all[i];
    proposal.energy_minimum = *std::min_element(energy.begin(), energy.end());
    proposal.energy_median = quantile(energy, 0.5);
    proposal.log_mass = interval_of(all, options.confidence);
    proposal.log_far_mass = interval_of(far, options.confidence);
    if (proposal.log_far_mass) {
      proposal.far_share = share_of(proposal.log_far_mass->estimate, known);
      proposal.far_share_lower = share_of(proposal.log_far_mass->lower, known, known.error);
    }
    if (proposal.log_mass)
      proposal.far_share_upper = std::min(
          1.0, std::max(proposal.log_far_mass ? share_of(proposal.log_far_mass->upper, known, -known.error) : 0,
                        -std::log1p(-options.confidence) / proposal.effective_points()));
    result.proposals.push_back(std::move(proposal));
  }
  run_chains(result, pair, neighbours, columns,
             chain_starts(draws, energies, neighbours, result.near_distance, cols, options.chains),
             low_points(draws, energies, neighbours, result, cols), options);
  return result;
}

}  // namespace bracket
