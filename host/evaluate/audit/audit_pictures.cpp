#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "bracket/error.h"
#include "host/evaluate/audit/audit.h"
#include "host/picture/plots.h"
#include "host/run/run_pictures.h"

namespace bracket {

Image bounds_picture(const std::filesystem::path& metrics_file, const Audit& a) {
  const Evaluation& e = a.evaluation;
  LineChart chart = lower_bound_chart(metrics_file);
  chart.title = "Bounds and estimates of the negative log-likelihood";
  double low = chart.y_range->low, high = chart.y_range->high;
  const auto step = static_cast<double>(e.step);
  const auto mark = [&](const std::string& name, const std::optional<double>& value) {
    if (!value || !std::isfinite(*value)) return;
    Series series{name, {step}, {*value}};
    series.points = true;
    chart.series.push_back(std::move(series));
    low = std::min(low, *value);
    high = std::max(high, *value);
  };
  Series interval{"annealing, interval", {step, step}, {a.nll_annealed_lower, a.nll_annealed_upper}};
  if (std::isfinite(a.nll_annealed_lower) && std::isfinite(a.nll_annealed_upper)) {
    low = std::min(low, a.nll_annealed_lower);
    high = std::max(high, a.nll_annealed_upper);
    chart.series.push_back(std::move(interval));
  }
  mark("annealing", a.nll_annealed);
  mark("lower bound, audited", e.lower_bound);
  mark("lower bound on manifold", e.lower_bound_on_manifold);
  mark("exact", e.nll_exact);
  mark("importance sampling", e.nll_importance);
  mark("upper bound", e.upper_bound);
  mark("estimate from above", e.upper_estimate);
  chart.y_range = padded({low, high}, 0.05);
  return line_chart(chart);
}

Image spectrum_picture(const Audit& a) {
  if (!a.spectrum) throw InvalidArgument("this audit has no spectrum: the generator has more inputs than outputs");
  const auto logarithms = [](std::vector<double> values) {
    for (double& value : values) value = std::log10(value);
    return values;
  };
  const std::vector<double> all = logarithms(a.spectrum->values), smallest = logarithms(a.spectrum->smallest),
                            largest = logarithms(a.spectrum->largest);
  HistogramChart chart;
  chart.title = "Singular values of the generator's Jacobian, " + std::to_string(smallest.size()) + " samples";
  chart.x_name = "log10 s";
  chart.samples = {{"all", all}, {"smallest", smallest}, {"largest", largest}};
  return histogram_chart(chart);
}

}  // namespace bracket
