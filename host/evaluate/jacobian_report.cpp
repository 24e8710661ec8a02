// How a comparison of Jacobian estimators is shown.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "host/core/text.h"
#include "host/evaluate/jacobian_comparison.h"
#include "host/evaluate/json_value.h"
#include "host/picture/plots.h"

namespace bracket {
namespace {

constexpr Color kFrontColor{150, 150, 150};

/// Null where JSON has no number.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

std::string padded_left(const std::string& text, std::size_t width) {
  return text.size() >= width ? text : std::string(width - text.size(), ' ') + text;
}
std::string padded_right(const std::string& text, std::size_t width) {
  return text.size() >= width ? text : text + std::string(width - text.size(), ' ');
}

/// Of the products of one latent.
double flops(const JacobianComparison& c, const JacobianMethod& m) {
  return static_cast<double>(m.products()) * static_cast<double>(c.product_flops);
}

}  // namespace

std::string summary(const JacobianComparison& c) {
  std::string text = "J [" + std::to_string(c.outputs) + ", " + std::to_string(c.inputs) + "] at " +
                     std::to_string(c.samples) + " latents, median condition number " +
                     rounded_number(c.median_condition, 3) + "; " + std::to_string(c.by_qr) + " factored by QR\n";
  if (c.deficient + c.not_finite > 0)
    text += "left out: " + std::to_string(c.deficient) + " rank-deficient, " + std::to_string(c.not_finite) +
            " not finite\n";
  const JacobianFronts fronts = jacobian_fronts(c);
  using Row = std::array<std::string, 12>;
  std::vector<Row> rows = {{"estimator", "setting", "of", "value", "bias", "deviation", "reported", "J + J^T", "flops",
                            "ms", "front", "certificate"}};
  for (std::size_t i = 0; i < c.methods.size(); ++i) {
    const JacobianMethod& m = c.methods[i];
    rows.push_back({m.family, m.setting, m.quantity, fixed_number(m.value, 3), rounded_number(m.bias, 3),
                    rounded_number(m.deviation, 3), rounded_number(m.standard_error, 3),
                    std::to_string(m.passes.apply) + " + " + std::to_string(m.passes.transpose),
                    rounded_number(flops(c, m), 3), fixed_number(m.milliseconds, 1), fronts.by_products[i] ? "*" : "",
                    certificate_name(m.certificate)});
  }
  std::array<std::size_t, std::tuple_size_v<Row>> widths{};
  for (const auto& row : rows)
    for (std::size_t k = 0; k < row.size(); ++k) widths[k] = std::max(widths[k], row[k].size());
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t k = 0; k < row.size(); ++k) {
      const bool words = k < 3 || k > 9;
      line += (k > 0 ? "  " : "") + (words ? padded_right(row[k], widths[k]) : padded_left(row[k], widths[k]));
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text +
         "log-volumes in nats; bias and deviation of (value - exact) over the latents; reported: standard error;\n"
         "products with J and with J^T per latent; flops: of these products, without the algebra of vectors between\n"
         "them; ms: of the whole batch; front: nothing for the same quantity needs no more products, has no larger\n"
         "root-mean-square error (what rounding of J explains counts as none: d u cond) and is better in one of them;\n"
         "Gauss-Radau was given 0.99 s_1^2; certificate: lower and upper are bounds of h, optimistic is never below h\n"
         "(of iterations: d log s_1) in expectation, unbiased is right on average, see bracket/jacobian.h\n";
}

std::string to_json(const JacobianComparison& c) {
  const JacobianFronts fronts = jacobian_fronts(c);
  Json methods = Json::array();
  for (std::size_t i = 0; i < c.methods.size(); ++i) {
    const JacobianMethod& m = c.methods[i];
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
                       {"flops", flops(c, m)},
                       {"milliseconds", m.milliseconds},
                       {"processor_milliseconds", m.processor_milliseconds},
                       {"on_front", static_cast<bool>(fronts.by_products[i])},
                       {"on_front_by_time", static_cast<bool>(fronts.by_time[i])}});
  }
  const Json json = {{"inputs", c.inputs},
                     {"outputs", c.outputs},
                     {"samples", c.samples},
                     {"rank_deficient", c.deficient},
                     {"not_finite", c.not_finite},
                     {"by_qr", c.by_qr},
                     {"product_flops", c.product_flops},
                     {"median_condition", number(c.median_condition)},
                     {"methods", methods}};
  return json.dump(2);
}

Image accuracy_picture(const JacobianComparison& c, const std::string& quantity) {
  const JacobianFronts fronts = jacobian_fronts(c);
  std::map<std::string, Series> families;
  std::map<double, double> front;  // error by cost; equal points are one
  for (std::size_t i = 0; i < c.methods.size(); ++i) {
    const JacobianMethod& m = c.methods[i];
    if (m.quantity != quantity) continue;
    const double cost = std::log10(static_cast<double>(m.products()));
    const double error = std::log10(m.resolved_error());
    Series& series = families[m.family];
    series.name = m.family;
    series.points = true;
    series.x.push_back(cost);
    series.y.push_back(error);
    if (fronts.by_products[i]) front[cost] = error;
  }
  LineChart chart;
  chart.title = quantity + ": error against cost";
  chart.x_name = "log10 of products with J and J^T per latent";
  chart.y_name = "log10 of the rms error" + std::string(quantity == kTrace ? "" : " in nats");
  Series steps{"front", {}, {}, false, kFrontColor};  // the least error that a number of products buys
  for (const auto& [cost, error] : front) {
    if (!steps.x.empty()) {
      steps.x.push_back(cost);
      steps.y.push_back(steps.y.back());
    }
    steps.x.push_back(cost);
    steps.y.push_back(error);
  }
  chart.series.push_back(std::move(steps));
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
  chart.left_out = 0;  // the extremes are what matters
  return histogram_chart(chart);
}

}  // namespace bracket
