// An energy-based model of one's own data in 30 lines.
#include <bracket/error.h>
#include <bracket/trainer.h>

#include <cstdio>
#include <vector>

int main() try {
  using namespace bracket;
  std::vector<double> rows;  // 500 points on a parabola
  for (int i = 0; i < 500; ++i) {
    const double x = -1 + i / 250.0;
    rows.insert(rows.end(), {x, x * x});
  }
  TrainerConfig config;
  config.energy.network = network_spec_from_json(R"({"input_size": 2, "layers": [
      {"type": "linear", "features": 64}, {"type": "activation", "function": "silu"},
      {"type": "linear", "features": 1}, {"type": "confinement", "quadratic": 1}]})");
  config.generator.network = network_spec_from_json(R"({"input_size": 2, "layers": [
      {"type": "monotone_coupling", "active_first": 1}, {"type": "monotone_coupling", "active_first": 0},
      {"type": "linear", "features": 2}]})");
  config.total_steps = 100;

  Context context({.device = Device::parse("auto")});
  Trainer trainer(context, config, Dataset::from_rows(rows, 500, 2));
  trainer.run(100);
  std::printf("lower bound after %zu steps: %.3f nats\n", static_cast<std::size_t>(trainer.step()),
              trainer.reports().back().lower_bound);
  const std::vector<double> points = {0.0, 0.0, 3.0, -3.0};
  const std::vector<double> energies = trainer.energies(points, 2);
  std::printf("E(0, 0) = %.3f, E(3, -3) = %.3f\n", energies[0], energies[1]);
  return energies[0] < energies[1] ? 0 : 1;
} catch (const bracket::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return static_cast<int>(error.code());
}
