#include "bracket/dataset.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "bracket/device.h"
#include "bracket/error.h"
#include "host/core/text.h"
#include "host/data/data_file.h"
#include "host/files/in_quotes.h"
#include "host/files/table.h"
#include "kernels/formula/permutation.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kStatisticsRows = 100000;

std::vector<double> density_samples(ToyData data, std::int64_t count, const RandomKey& key) {
  ContextOptions options;
  options.threads = 1;
  Context context(options);
  const Buffer buffer = context.pool().allocate(2 * count * dtype_bytes(DType::f64), "toy samples");
  const Tensor samples(buffer.data(), DType::f64, {count, 2});
  context.ops().toy_samples(samples, data, key, nullptr);
  std::vector<double> values(static_cast<std::size_t>(2 * count));
  context.ops().download(values.data(), samples);
  return values;
}

// Row i is draw i of shuffled epochs, the order in which `gather_batch` serves a training run.
std::vector<double> shuffled_rows(std::span<const double> table, std::int64_t rows, std::int64_t cols,
                                  std::int64_t count, const RandomKey& key) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(count * cols));
  const auto size = static_cast<std::uint64_t>(rows), width = static_cast<std::uint64_t>(cols);
  formula::Permutation order{};
  for (std::uint64_t draw = 0; draw < static_cast<std::uint64_t>(count); ++draw) {
    if (draw % size == 0) order = formula::permutation(key, draw / size, size);
    const auto row = table.subspan(formula::permute(order, draw % size) * width, width);
    values.insert(values.end(), row.begin(), row.end());
  }
  return values;
}

void require_data(std::int64_t cols) {
  if (cols == 0) throw InvalidArgument("this data set holds nothing; make one with Dataset::open or from_rows");
}

struct Column {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  double offset = 0;   // mean - low
  double squares = 0;  // mean square of deviations in units of `reach`
  bool constant() const { return low == high; }
  double reach() const { return std::max(offset, high - low - offset); }  // largest deviation from the mean
};

// Calls visit(column, value) for every value of a row-major table.
template <class VisitT>
void for_each_value(std::vector<Column>& columns, std::span<const double> values, const VisitT& visit) {
  for (std::size_t first = 0; first < values.size(); first += columns.size())
    for (std::size_t j = 0; j < columns.size(); ++j) visit(columns[j], values[first + j]);
}

// Means first, then deviations in units of the largest one, so that no sum or square over- or underflows. A constant
// column is found by comparison: its computed mean could leave a deviation made of rounding errors.
std::vector<Column> measure_columns(std::span<const double> values, std::size_t cols) {
  std::vector<Column> columns(cols);
  for_each_value(columns, values, [](Column& c, double value) {
    c.low = std::min(c.low, value);
    c.high = std::max(c.high, value);
  });
  for (std::size_t j = 0; j < cols; ++j) {
    if (std::isfinite(columns[j].high - columns[j].low)) continue;
    throw DataError("column " + std::to_string(j) + " of the data spans " + format_number(columns[j].low) + " to " +
                    format_number(columns[j].high) + ", more than double precision can measure; rescale it");
  }
  const auto rows = static_cast<double>(values.size() / cols);
  for_each_value(columns, values, [rows](Column& c, double value) { c.offset += (value - c.low) / rows; });
  for_each_value(columns, values, [rows](Column& c, double value) {
    const double scaled = c.constant() ? 0 : (value - c.low - c.offset) / c.reach();
    c.squares += scaled * scaled / rows;
  });
  return columns;
}

}  // namespace

bool is_data_file(const std::string& name_or_path) {
  if (name_or_path.find('/') != std::string::npos) return true;
  for (const std::string ending : {".npy", ".csv"}) {
    if (name_or_path.size() >= ending.size() &&
        std::equal(ending.rbegin(), ending.rend(), name_or_path.rbegin(), [](char wanted, char c) {
          return c == wanted || (c >= 'A' && c <= 'Z' && c - 'A' + 'a' == wanted);
        }))
      return true;
  }
  return false;
}

const std::vector<std::string>& Dataset::names() {
  static const std::vector<std::string> kNames = {// in the order of ToyData
                                                  "25gaussians", "8gaussians",     "swiss_roll", "two_moons",
                                                  "rings",       "circles",        "pinwheel",   "checkerboard",
                                                  "two_spirals", "swiss_roll_thin"};
  return kNames;
}

Dataset Dataset::open(const std::string& name_or_path) {
  Dataset data;
  data.name_ = name_or_path;
  if (is_data_file(name_or_path)) {
    Table table = read_table(name_or_path);
    data.rows_ = table.rows;
    data.cols_ = table.cols;
    data.values_ = std::move(table.values);
    return data;
  }
  const auto found = std::find(names().begin(), names().end(), name_or_path);
  if (found == names().end()) {
    throw InvalidArgument("unknown data set " + text_in_quotes(name_or_path) + "; did you mean '" +
                          nearest_name(name_or_path, names()) + "'? A file needs a slash or the ending .npy or .csv");
  }
  data.toy_ = static_cast<int>(found - names().begin());
  data.cols_ = 2;
  return data;
}

Dataset Dataset::from_rows(std::span<const double> values, std::int64_t rows, std::int64_t cols) {
  if (rows < 1 || cols < 1) {
    throw DataError("a data set of " + std::to_string(rows) + " rows and " + std::to_string(cols) +
                    " columns is empty; at least one of each is needed");
  }
  const auto size = static_cast<std::int64_t>(values.size());
  if (size % cols != 0 || size / cols != rows) {
    throw InvalidArgument("a data set of " + std::to_string(rows) + " rows and " + std::to_string(cols) +
                          " columns cannot hold the " + std::to_string(size) + " values given");
  }
  const auto bad = std::find_if(values.begin(), values.end(), [](double value) { return !std::isfinite(value); });
  if (bad != values.end()) {
    const std::int64_t index = bad - values.begin();
    throw DataError("row " + std::to_string(index / cols) + ", column " + std::to_string(index % cols) +
                    " of the data is " + format_number(*bad) + "; every value must be finite");
  }
  Dataset data;
  data.name_ = "rows";
  data.rows_ = rows;
  data.cols_ = cols;
  data.values_.assign(values.begin(), values.end());
  return data;
}

std::vector<double> Dataset::sample(std::int64_t count, std::uint64_t seed) const {
  if (count < 0) throw InvalidArgument("cannot sample " + std::to_string(count) + " rows; give 0 or more");
  require_data(cols_);
  if (count > std::numeric_limits<std::int64_t>::max() / (cols_ * dtype_bytes(DType::f64))) {
    throw InvalidArgument("cannot sample " + std::to_string(count) + " rows of " + std::to_string(cols_) +
                          " columns: they exceed 2^63 bytes");
  }
  if (count == 0) return {};
  const RandomKey key{seed, RandomStream::evaluation, 0};
  return toy_ ? density_samples(static_cast<ToyData>(*toy_), count, key)
              : shuffled_rows(values_, rows_, cols_, count, key);
}

DataStatistics Dataset::statistics(std::uint64_t seed) const {
  require_data(cols_);
  std::vector<double> drawn;
  const RandomKey key{seed, RandomStream::statistics, 0};
  if (toy_) {
    drawn = density_samples(static_cast<ToyData>(*toy_), kStatisticsRows, key);
  } else if (rows_ > kStatisticsRows) {
    drawn = shuffled_rows(values_, rows_, cols_, kStatisticsRows, key);
  }
  const std::span<const double> values = drawn.empty() ? std::span(values_) : std::span<const double>(drawn);
  const auto cols = static_cast<std::size_t>(cols_);
  DataStatistics result;
  for (const Column& column : measure_columns(values, cols)) {
    const double deviation = column.reach() * std::sqrt(column.squares);
    const bool usable = !column.constant() && std::isfinite(1 / deviation);  // networks scale by 1 / deviation
    result.mean.push_back(column.low + column.offset);
    result.deviation.push_back(usable ? deviation : 1);
  }
  for (std::size_t first = 0; first < values.size(); first += cols) {
    double squares = 0;
    for (std::size_t j = 0; j < cols; ++j) {
      const double u = (values[first + j] - result.mean[j]) / result.deviation[j];
      squares += u * u;
    }
    result.standardised_radius = std::max(result.standardised_radius, std::sqrt(squares));
  }
  return result;
}

}  // namespace bracket
