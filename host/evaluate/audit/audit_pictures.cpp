#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <utility>

#include "bracket/error.h"
#include "host/evaluate/audit/audit.h"
#include "host/evaluate/json_value.h"
#include "host/files/posix_file.h"
#include "host/picture/plots.h"
#include "host/run/run_pictures.h"

namespace bracket {

namespace {

constexpr double kIntervalStart = 0.8;  // of the steps: where the lines of the interval begin

// lower_bound + half_variance of every logged step that has both: what the audit's estimate from above was in training.
Series estimates_from_above(const std::filesystem::path& metrics_file) {
  Series series{"estimate from above, batches", {}, {}};
  const std::vector<std::byte> bytes = read_file(metrics_file);
  std::istringstream lines(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  for (std::string line; std::getline(lines, line);) {
    const Json metrics = Json::parse(line, nullptr, false);
    const auto number = [&](const char* name) {
      const auto found = metrics.find(name);
      return found != metrics.end() && found->is_number() ? found->get<double>()
                                                          : std::numeric_limits<double>::quiet_NaN();
    };
    const double step = number("step"), value = number("lower_bound") + number("half_variance");
    if (!std::isfinite(step) || !std::isfinite(value)) continue;
    series.x.push_back(step);
    series.y.push_back(value);
  }
  return series;
}

}  // namespace

Image bounds_picture(const std::filesystem::path& metrics_file, const Audit& a) {
  const Evaluation& e = a.evaluation;
  LineChart chart = lower_bound_chart(metrics_file);
  const std::string uncertified = e.injectivity.certified ? "" : ", G not certified injective";
  chart.title = "Bounds and estimates of the negative log-likelihood" + uncertified;
  chart.series[0].name = "lower bound, batches";
  chart.series.push_back(estimates_from_above(metrics_file));
  Range range = *chart.y_range;
  const auto hold = [&](double value) { range = {std::min(range.low, value), std::max(range.high, value)}; };
  const auto step = static_cast<double>(e.step);
  if (std::isfinite(a.nll_annealed_lower) && std::isfinite(a.nll_annealed_upper)) {
    // Both ends as lines towards the audited step, joined there.
    chart.series.push_back({"interval of L by annealing, if chains reach all mass",
                            {kIntervalStart * step, step, step, kIntervalStart * step},
                            {a.nll_annealed_lower, a.nll_annealed_lower, a.nll_annealed_upper, a.nll_annealed_upper}});
    hold(a.nll_annealed_lower);
    hold(a.nll_annealed_upper);
  }
  const auto mark = [&](const std::string& name, const std::optional<double>& value) {
    if (!value || !std::isfinite(*value)) return;
    Series series{name, {step}, {*value}};
    series.points = true;
    chart.series.push_back(std::move(series));
    hold(*value);
  };
  mark("annealing", a.nll_annealed);
  mark("lower bound, audited" + uncertified, e.lower_bound);
  mark("lower bound on manifold" + uncertified, e.lower_bound_on_manifold);
  mark("exact", e.nll_exact);
  mark("importance sampling", e.nll_importance);
  mark("upper bound", e.upper_bound);
  mark("estimate from above", e.upper_estimate);
  chart.y_range = padded(range, 0.05);
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
