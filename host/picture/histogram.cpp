#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <string>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/picture/plots.h"

namespace bracket {
namespace {

std::vector<double> sorted_finite(std::span<const double> values) {
  std::vector<double> sorted;
  std::copy_if(values.begin(), values.end(), std::back_inserter(sorted), [](double v) { return std::isfinite(v); });
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

double quantile(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
}

std::string name_with_outside(const std::string& name, std::int64_t outside, std::size_t total) {
  if (outside == 0) return name;
  return name + formatted(" (%.2g %% outside)", 100 * static_cast<double>(outside) / static_cast<double>(total));
}

}  // namespace

Series density_outline(const Sample& sample, const Range& range, std::int64_t bins) {
  if (bins < 1 || bins > kMostBins)
    throw InvalidArgument("a histogram of " + std::to_string(bins) + " bins; give 1 to " + std::to_string(kMostBins));
  check_range(range, "histogram range");
  const double width = range.width() / static_cast<double>(bins);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(bins));
  const std::size_t total = sample.values.size();
  auto outside = static_cast<std::int64_t>(total);
  for (const double value : sample.values) {
    if (!(value >= range.low && value <= range.high)) continue;
    const auto bin = static_cast<std::int64_t>((value - range.low) / width);
    ++counts[static_cast<std::size_t>(std::min(bin, bins - 1))];
    --outside;
  }
  Series outline{name_with_outside(sample.name, outside, total), {}, {}};
  if (outside == static_cast<std::int64_t>(total)) return outline;
  for (std::size_t b = 0; b < counts.size(); ++b) {
    for (const std::size_t edge : {b, b + 1}) {
      outline.x.push_back(range.low + static_cast<double>(edge) * width);
      outline.y.push_back(static_cast<double>(counts[b]) / (static_cast<double>(total) * width));
    }
  }
  return outline;
}

Image histogram_chart(const HistogramChart& chart) {
  Range range{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  for (const Sample& sample : chart.samples) {
    const std::vector<double> sorted = sorted_finite(sample.values);
    if (sorted.empty()) continue;
    range.low = std::min(range.low, quantile(sorted, chart.left_out));
    range.high = std::max(range.high, quantile(sorted, 1 - chart.left_out));
  }
  range = range.low <= range.high ? padded(range, 0.02) : Range{0, 1};
  LineChart lines{chart.title, chart.x_name, "density", {}, std::nullopt};
  for (const Sample& sample : chart.samples) lines.series.push_back(density_outline(sample, range, chart.bins));
  return line_chart(lines);
}

}  // namespace bracket
