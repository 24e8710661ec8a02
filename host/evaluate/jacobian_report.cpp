// How a comparison of Jacobian estimators is shown.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "host/core/text.h"
#include "host/evaluate/jacobian_comparison.h"
#include "host/evaluate/json_value.h"
#include "host/picture/plots.h"

namespace bracket {
namespace {

/// Nats: errors below this are rounding, and would leave the others no room in a picture.
constexpr double kLeastShown = 1e-4;

/// Null where JSON has no number.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

std::string padded_left(const std::string& text, std::size_t width) {
  return text.size() >= width ? text : std::string(width - text.size(), ' ') + text;
}
std::string padded_right(const std::string& text, std::size_t width) {
  return text.size() >= width ? text : text + std::string(width - text.size(), ' ');
}

}  // namespace

std::string summary(const JacobianComparison& c) {
  std::string text = "J [" + std::to_string(c.outputs) + ", " + std::to_string(c.inputs) + "] at " +
                     std::to_string(c.samples) + " latents, median condition number " +
                     rounded_number(c.median_condition, 3) + "; " + std::to_string(c.by_qr) +
                     " factored by QR\n";
  if (c.deficient + c.not_finite > 0)
    text += "left out: " + std::to_string(c.deficient) + " rank-deficient, " + std::to_string(c.not_finite) +
            " not finite\n";
  const std::array<std::string, 10> heads = {"estimator", "setting",  "of",      "value", "bias",
                                             "deviation", "reported", "J + J^T", "ms",    "certificate"};
  std::vector<std::array<std::string, 10>> rows = {heads};
  for (const JacobianMethod& m : c.methods) {
    rows.push_back({m.family, m.setting, m.quantity, fixed_number(m.value, 3), rounded_number(m.bias, 3),
                    rounded_number(m.deviation, 3), rounded_number(m.standard_error, 3),
                    std::to_string(m.passes.apply) + " + " + std::to_string(m.passes.transpose),
                    fixed_number(m.milliseconds, 1), certificate_name(m.certificate)});
  }
  std::array<std::size_t, 10> widths{};
  for (const auto& row : rows)
    for (std::size_t k = 0; k < row.size(); ++k) widths[k] = std::max(widths[k], row[k].size());
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t k = 0; k < row.size(); ++k) {
      const bool words = k < 3 || k == 9;
      line += (k > 0 ? "  " : "") + (words ? padded_right(row[k], widths[k]) : padded_left(row[k], widths[k]));
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text +
         "log-volumes in nats; bias and deviation of (value - exact) over the latents; reported: standard error;\n"
         "products with J and with J^T per latent; ms: one run of the whole batch; Gauss-Radau was given 0.99 s_1^2\n";
}

std::string to_json(const JacobianComparison& c) {
  Json methods = Json::array();
  for (const JacobianMethod& m : c.methods) {
    methods.push_back({{"family", m.family},
                       {"setting", m.setting},
                       {"quantity", m.quantity},
                       {"certificate", certificate_name(m.certificate)},
                       {"value", number(m.value)},
                       {"bias", number(m.bias)},
                       {"deviation", number(m.deviation)},
                       {"standard_error", number(m.standard_error)},
                       {"apply", m.passes.apply},
                       {"transpose", m.passes.transpose},
                       {"milliseconds", m.milliseconds}});
  }
  const Json json = {{"inputs", c.inputs},
                     {"outputs", c.outputs},
                     {"samples", c.samples},
                     {"rank_deficient", c.deficient},
                     {"not_finite", c.not_finite},
                     {"by_qr", c.by_qr},
                     {"median_condition", number(c.median_condition)},
                     {"methods", methods}};
  return json.dump(2);
}

Image accuracy_picture(const JacobianComparison& c) {
  std::map<std::string, Series> families;
  for (const JacobianMethod& m : c.methods) {
    if (m.quantity == "trace") continue;
    Series& series = families[m.family];
    series.name = m.family;
    series.x.push_back(std::log10(static_cast<double>(m.passes.apply + m.passes.transpose)));
    series.y.push_back(std::log10(std::max(m.root_mean_square(), kLeastShown)));
  }
  LineChart chart;
  chart.title = "Error against cost";
  chart.x_name = "log10 of products with J and J^T per latent";
  chart.y_name = "log10 of the rms error in nats, -4 at least";
  for (auto& [name, series] : families) chart.series.push_back(std::move(series));
  return line_chart(chart);
}

Image spectrum_picture(const JacobianComparison& c) {
  std::vector<double> logs;
  for (const double s : c.singular_values) logs.push_back(std::log10(s));
  HistogramChart chart;
  chart.title = "Singular values of J";
  chart.x_name = "log10 s";
  chart.samples = {{"all latents", logs}};
  return histogram_chart(chart);
}

}  // namespace bracket
