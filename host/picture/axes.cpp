#include "host/picture/axes.h"

#include <algorithm>
#include <cmath>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/picture/font.h"

namespace bracket {
namespace {

constexpr double kLargestEnd = 1e300;
constexpr double kSmallestWidth = 1e-290;  // powers of ten up to 1/step stay finite
constexpr double kSmallestRelativeWidth = 1e-9;

/// In dots of the typeface: 7 of a capital and as much air.
constexpr std::int64_t kRowsPerVerticalTick = 14;
constexpr std::int64_t kMostTicks = 9;

std::string number_text(double value) { return formatted("%.12g", value); }

int decimal_exponent(double value) { return static_cast<int>(std::floor(std::log10(std::abs(value)))); }

/// 1, 2 or 5 times 10^exponent.
struct Step {
  double mantissa = 1;
  int exponent = 0;
  double size() const { return multiple(1); }
  /// k steps, correctly rounded while powers of ten are exact (up to 1e22): 3 steps of 0.1 are the double 0.3.
  double multiple(double k) const {
    return exponent >= 0 ? k * mantissa * std::pow(10.0, exponent) : k * mantissa / std::pow(10.0, -exponent);
  }
};

/// The whole multiples of a step in a range, as factors; ends within 1e-9 of a step count as inside.
struct Multiples {
  double first = 0;
  double last = -1;
  double count() const { return last - first + 1; }
};

Multiples multiples_inside(const Range& range, const Step& step) {
  constexpr double kRounding = 1e-9;
  return {std::ceil(range.low / step.size() - kRounding), std::floor(range.high / step.size() + kRounding)};
}

/// Plain decimals for everyday sizes, else a shortest mantissa with a short exponent: "2.5e7", "1e-6".
std::string tick_label(double value, const Step& step, double largest) {
  constexpr double kPlainBelow = 1e6;
  constexpr int kMostDecimals = 5;
  if (value == 0)
    return step.exponent < 0 && largest < kPlainBelow && -step.exponent <= kMostDecimals
               ? formatted("%.*f", -step.exponent, 0.0)
               : "0";
  if (largest < kPlainBelow && -step.exponent <= kMostDecimals) {
    return formatted("%.*f", std::max(0, -step.exponent), value);
  }
  const int digits = std::max(0, decimal_exponent(value) - step.exponent);
  const std::string full = formatted("%.*e", digits, value);
  const std::size_t exponent_at = full.find('e');
  std::string mantissa = full.substr(0, exponent_at);
  if (mantissa.find('.') != std::string::npos) {
    mantissa.erase(mantissa.find_last_not_of('0') + 1);
    if (mantissa.back() == '.') mantissa.pop_back();
  }
  return mantissa + "e" + std::to_string(std::stoi(full.substr(exponent_at + 1)));
}

std::int64_t tick_length(std::int64_t scale) { return 3 * scale; }
std::int64_t frame_thickness(std::int64_t scale) { return std::max<std::int64_t>(1, scale / 2); }
std::int64_t label_offset(std::int64_t scale) { return frame_thickness(scale) + tick_length(scale) + 2 * scale; }

/// First pixel of a stroke `thickness` wide centred at a continuous coordinate.
std::int64_t stroke_start(double centre, std::int64_t thickness) {
  return std::llround(centre - static_cast<double>(thickness) / 2);
}

/// Whether labels centred at their ticks keep a gap of two digits.
bool labels_fit(const std::vector<Tick>& ticks, double pixels_per_unit, std::int64_t scale) {
  const double gap = static_cast<double>(12 * scale);
  for (std::size_t i = 1; i < ticks.size(); ++i) {
    const double half_widths =
        static_cast<double>(text_width(ticks[i - 1].label, scale) + text_width(ticks[i].label, scale)) / 2;
    if ((ticks[i].value - ticks[i - 1].value) * pixels_per_unit < half_widths + gap) return false;
  }
  return true;
}

std::vector<Tick> horizontal_ticks(const Range& range, std::int64_t width, std::int64_t scale) {
  const double pixels_per_unit = static_cast<double>(width) / range.width();
  for (std::int64_t count = kMostTicks; count > 2; --count) {
    std::vector<Tick> ticks = nice_ticks(range, count);
    if (labels_fit(ticks, pixels_per_unit, scale)) return ticks;
  }
  std::vector<Tick> ticks = nice_ticks(range, 2);
  if (!labels_fit(ticks, pixels_per_unit, scale)) ticks.resize(1);
  return ticks;
}

}  // namespace

void check_range(const Range& range, std::string_view what) {
  const double largest = std::max(std::abs(range.low), std::abs(range.high));
  const bool usable = std::isfinite(range.low) && std::isfinite(range.high) && largest <= kLargestEnd &&
                      range.width() >= kSmallestWidth && range.width() >= kSmallestRelativeWidth * largest;
  if (!usable) {
    throw InvalidArgument(std::string(what) + " from " + number_text(range.low) + " to " + number_text(range.high) +
                          " cannot be drawn; give finite ends with low < high that differ in the first nine digits");
  }
}

Range padded(const Range& range, double share) {
  const double largest = std::max(std::abs(range.low), std::abs(range.high));
  if (range.width() > 1e-8 * largest) return {range.low - share * range.width(), range.high + share * range.width()};
  const double half = largest > 1e-200 ? largest / 10 : 1.0;
  return {range.low - half, range.high + half};
}

std::vector<Tick> nice_ticks(const Range& range, std::int64_t max_ticks) {
  check_range(range, "axis range");
  if (max_ticks < 2) throw InvalidArgument("an axis needs room for at least 2 ticks, got " + std::to_string(max_ticks));
  // A step of at most width / max_ticks / 2 has at least max_ticks + 1 multiples inside, so no finer power of ten than
  // this one can serve. The search never runs out of ticks: it leaves a step with three or more successive multiples
  // inside, and those contain a multiple of the next step: of three integers one is even (1 -> 2, 5 -> 10), and the
  // five integers that three even ones span include a multiple of five (2 -> 5).
  Step step{1, decimal_exponent(range.width() / static_cast<double>(max_ticks))};
  Multiples inside = multiples_inside(range, step);
  while (inside.count() > static_cast<double>(max_ticks)) {
    if (step.mantissa == 1) {
      step.mantissa = 2;
    } else if (step.mantissa == 2) {
      step.mantissa = 5;
    } else {
      step = {1, step.exponent + 1};
    }
    inside = multiples_inside(range, step);
  }
  const double largest = std::max(std::abs(range.low), std::abs(range.high));
  std::vector<Tick> ticks;
  for (double k = inside.first; k <= inside.last; ++k) {
    const double value = k == 0 ? 0.0 : step.multiple(k);
    ticks.push_back({value, tick_label(value, step, largest)});
  }
  return ticks;
}

std::vector<Tick> vertical_ticks(const Range& range, std::int64_t height, std::int64_t scale) {
  return nice_ticks(range, std::clamp<std::int64_t>(height / (kRowsPerVerticalTick * scale), 2, kMostTicks));
}

std::int64_t label_extent(const std::vector<Tick>& ticks, std::int64_t scale) {
  std::int64_t extent = 0;
  for (const Tick& tick : ticks) extent = std::max(extent, text_width(tick.label, scale));
  return extent;
}

std::int64_t Axes::left_margin(std::int64_t y_label_extent, std::int64_t scale) {
  return y_label_extent + label_offset(scale) + scale;
}

std::int64_t Axes::bottom_margin(std::int64_t scale) { return label_offset(scale) + text_height(scale); }

std::int64_t Axes::title_margin(std::int64_t scale) { return text_height(scale) + 4 * scale; }

std::int64_t color_bar_margin(std::int64_t label_extent, std::int64_t scale) {
  return label_extent + label_offset(scale) + scale;
}

Axes::Axes(const Rect& area, const Range& x, const Range& y, std::int64_t scale)
    : area_(area), x_(x), y_(y), scale_(scale) {
  if (area.width < 1 || area.height < 1 || scale < 1) {
    throw InvalidArgument("a panel of " + std::to_string(area.width) + " x " + std::to_string(area.height) +
                          " pixels at text scale " + std::to_string(scale) + " is too small; enlarge the picture");
  }
  check_range(x, "horizontal range");
  check_range(y, "vertical range");
  x_ticks_ = horizontal_ticks(x, area.width, scale);
  y_ticks_ = vertical_ticks(y, area.height, scale);
}

double Axes::pixel_x(double x) const noexcept {
  return static_cast<double>(area_.left) + (x - x_.low) / x_.width() * static_cast<double>(area_.width);
}

double Axes::pixel_y(double y) const noexcept {
  return static_cast<double>(area_.bottom()) - (y - y_.low) / y_.width() * static_cast<double>(area_.height);
}

void Axes::draw_grid(Image& image) const {
  const std::int64_t thickness = frame_thickness(scale_);
  for (const Tick& tick : x_ticks_) {
    image.fill_rectangle({stroke_start(pixel_x(tick.value), thickness), area_.top, thickness, area_.height},
                         kGridColor);
  }
  for (const Tick& tick : y_ticks_) {
    image.fill_rectangle({area_.left, stroke_start(pixel_y(tick.value), thickness), area_.width, thickness},
                         kGridColor);
  }
}

void Axes::draw_frame(Image& image) const {
  const std::int64_t thickness = frame_thickness(scale_);
  const std::int64_t length = tick_length(scale_);
  const std::int64_t offset = label_offset(scale_);
  image.draw_frame(area_, thickness, kInkColor);
  for (const Tick& tick : x_ticks_) {
    const double x = pixel_x(tick.value);
    image.fill_rectangle({stroke_start(x, thickness), area_.bottom() + thickness, thickness, length}, kInkColor);
    draw_text(image, std::llround(x), area_.bottom() + offset, tick.label, {kInkColor, scale_, Align::centre});
  }
  for (const Tick& tick : y_ticks_) {
    const double y = pixel_y(tick.value);
    image.fill_rectangle({area_.left - thickness - length, stroke_start(y, thickness), length, thickness}, kInkColor);
    draw_text(image, area_.left - offset, stroke_start(y, cap_height(scale_)), tick.label,
              {kInkColor, scale_, Align::end});
  }
}

void Axes::draw_title(Image& image, std::string_view title, std::string_view note) const {
  const std::int64_t gap = 5 * scale_;
  const std::int64_t thickness = frame_thickness(scale_);
  std::int64_t scale = scale_;
  while (scale > 1 && text_width(title, scale) + gap + text_width(note, scale) > area_.width) --scale;
  const std::int64_t baseline = area_.top - thickness - 4 * scale_;
  draw_text(image, area_.left - thickness, baseline - cap_height(scale_), title, {kInkColor, scale_});
  draw_text(image, area_.right() + thickness, baseline - cap_height(scale), note, {kNoteColor, scale, Align::end});
}

void Axes::draw_axis_names(Image& image, std::string_view x_name, std::string_view y_name) const {
  const std::int64_t below = area_.bottom() + label_offset(scale_) + text_height(scale_) + 2 * scale_;
  draw_text(image, area_.left + area_.width / 2, below, x_name, {kInkColor, scale_, Align::centre});
  const std::int64_t left = area_.left - left_margin(label_extent(y_ticks_, scale_), scale_) - text_height(scale_);
  draw_text(image, left, area_.top + area_.height / 2, y_name, {kInkColor, scale_, Align::centre, Direction::upward});
}

void draw_color_bar(Image& image, const Rect& area, const Range& range, const ColorMap& map, std::int64_t scale) {
  const Axes axis(area, {0, 1}, range, scale);
  for (std::int64_t row = 0; row < area.height; ++row) {
    const double from_bottom = static_cast<double>(area.height - 1 - row);
    const double value = area.height > 1 ? from_bottom / static_cast<double>(area.height - 1) : 0.0;
    image.fill_rectangle({area.left, area.top + row, area.width, 1}, map(value));
  }
  const std::int64_t thickness = frame_thickness(scale);
  image.draw_frame(area, thickness, kInkColor);
  for (const Tick& tick : axis.y_ticks()) {
    const double y = axis.pixel_y(tick.value);
    image.fill_rectangle({area.right() + thickness, stroke_start(y, thickness), tick_length(scale), thickness},
                         kInkColor);
    draw_text(image, area.right() + label_offset(scale), stroke_start(y, cap_height(scale)), tick.label,
              {kInkColor, scale});
  }
}

}  // namespace bracket
