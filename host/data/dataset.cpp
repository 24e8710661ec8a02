#include "bracket/dataset.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <system_error>
#include <utility>

#include "bracket/device.h"
#include "bracket/error.h"
#include "host/core/text.h"
#include "host/data/data_file.h"
#include "host/data/gaussian_mixture.h"
#include "host/data/image_files.h"
#include "host/data/image_statistics.h"
#include "host/data/named_images.h"
#include "host/data/shuffled_draws.h"
#include "host/files/in_quotes.h"
#include "host/files/npy.h"
#include "host/files/posix_file.h"
#include "host/files/table.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kStatisticsRows = 100000;
constexpr std::int64_t kMixtureRows = 50000, kMixtureTestRows = 10000;
constexpr const char* kFileEndings[] = {".npy", ".npz", ".csv", ".bin", ".gz"};

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

std::vector<double> shuffled_rows(std::span<const double> table, std::int64_t rows, std::int64_t cols,
                                  std::int64_t count, const RandomKey& key) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(count * cols));
  for (const std::int64_t row : shuffled_draws(key, rows, 0, count)) {
    const auto source = table.begin() + row * cols;
    values.insert(values.end(), source, source + cols);
  }
  return values;
}

std::vector<double> shuffled_images(const ImageSet& set, std::int64_t count, const RandomKey& key) {
  std::vector<double> values;
  const std::int64_t cols = set.shape.size();
  values.reserve(static_cast<std::size_t>(count * cols));
  for (const std::int64_t row : shuffled_draws(key, set.count(), 0, count)) {
    const auto source = set.pixels.begin() + row * cols;
    std::transform(source, source + cols, std::back_inserter(values),
                   [](std::uint8_t pixel) { return kPixelScale * pixel + kPixelShift; });
  }
  return values;
}

struct Content {
  Table table;
  std::optional<ImageSet> images;
};

Content read_data_file(const std::string& path, Split split) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return {{}, read_image_folder(path, split)};
  if (has_ending(path, ".csv")) return {read_table(path), {}};
  if (!has_ending(path, ".npy")) return {{}, read_image_file(path, split)};
  const std::vector<std::byte> bytes = read_file(path);
  if (is_npy_of_bytes(bytes, path)) return {{}, parse_npy_image_set(bytes, path, split)};
  return {parse_npy(bytes, path), {}};
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

bool has_ending(const std::string& text, const std::string& ending) {
  return text.size() >= ending.size() &&
         std::equal(ending.rbegin(), ending.rend(), text.rbegin(), [](char wanted, char c) {
           return c == wanted || (c >= 'A' && c <= 'Z' && c - 'A' + 'a' == wanted);
         });
}

bool is_data_file(const std::string& name_or_path) {
  if (name_or_path.find('/') != std::string::npos) return true;
  return std::any_of(std::begin(kFileEndings), std::end(kFileEndings),
                     [&](const char* ending) { return has_ending(name_or_path, ending); });
}

const std::vector<std::string>& Dataset::names() {
  static const std::vector<std::string> kNames = {// in the order of ToyData
                                                  "25gaussians", "8gaussians",     "swiss_roll", "two_moons",
                                                  "rings",       "circles",        "pinwheel",   "checkerboard",
                                                  "two_spirals", "swiss_roll_thin"};
  return kNames;
}

const std::vector<std::string>& Dataset::mixture_names() {
  static const std::vector<std::string> kNames = {"mixture-8", "mixture-32", "mixture-64"};
  return kNames;
}

const std::vector<std::string>& Dataset::image_names() { return named_image_sets(); }

Dataset Dataset::open(const std::string& name_or_path, const DatasetOptions& options) {
  Dataset data;
  data.name_ = name_or_path;
  data.options_ = options;
  const auto has_name = [&](const std::vector<std::string>& names) {
    return std::find(names.begin(), names.end(), name_or_path) != names.end();
  };
  if (has_name(names())) {
    data.toy_ = static_cast<int>(std::find(names().begin(), names().end(), name_or_path) - names().begin());
    data.cols_ = 2;
    return data;
  }
  if (const std::optional<GaussianMixture> mixture = GaussianMixture::named(name_or_path)) {
    const bool test = options.split == Split::test;
    data.rows_ = test ? kMixtureTestRows : kMixtureRows;
    data.cols_ = mixture->dims();
    data.values_ = mixture->sample(data.rows_, test ? 1 : 0);
    return data;
  }
  if (!is_data_file(name_or_path) && !has_name(image_names())) {
    std::vector<std::string> all = names();
    all.insert(all.end(), mixture_names().begin(), mixture_names().end());
    all.insert(all.end(), image_names().begin(), image_names().end());
    throw InvalidArgument("unknown data set " + text_in_quotes(name_or_path) + "; did you mean '" +
                          nearest_name(name_or_path, all) +
                          "'? A file needs a slash or the ending .npy or .csv, .npz, .bin or .gz, a folder a slash");
  }
  Content content = has_name(image_names()) ? Content{{}, read_named_images(name_or_path, options)}
                                            : read_data_file(name_or_path, options.split);
  if (content.images) {
    data.rows_ = content.images->count();
    data.cols_ = content.images->shape.size();
    data.images_ = std::make_shared<const ImageSet>(std::move(*content.images));
  } else {
    data.rows_ = content.table.rows;
    data.cols_ = content.table.cols;
    data.values_ = std::move(content.table.values);
  }
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

Dataset Dataset::from_images(std::span<const std::uint8_t> pixels, const ImageShape& shape, std::int64_t count,
                             std::span<const std::int32_t> labels) {
  const std::string what = std::to_string(count) + " images of " + std::to_string(shape.height) + " x " +
                           std::to_string(shape.width) + " pixels and " + std::to_string(shape.channels) + " channels";
  if (count < 1 || shape.height < 1 || shape.width < 1 || shape.channels < 1)
    throw DataError("a data set of " + what + " is empty; at least one of each is needed");
  std::int64_t size = count;
  bool fits = true;
  for (const std::int64_t extent : {shape.height, shape.width, shape.channels})
    fits = fits && !__builtin_mul_overflow(size, extent, &size);
  if (!fits || std::cmp_not_equal(size, pixels.size())) {
    throw InvalidArgument("a data set of " + what + " cannot hold the " + std::to_string(pixels.size()) +
                          " values given");
  }
  if (!labels.empty() && std::cmp_not_equal(labels.size(), count))
    throw InvalidArgument(what + " need as many labels or none, got " + std::to_string(labels.size()));
  const auto bad = std::find_if(labels.begin(), labels.end(), [](std::int32_t label) { return label < 0; });
  if (bad != labels.end()) {
    throw InvalidArgument("label " + std::to_string(bad - labels.begin()) + " is " + std::to_string(*bad) +
                          "; labels count classes from 0");
  }
  Dataset data;
  data.name_ = "images";
  data.rows_ = count;
  data.cols_ = shape.size();
  data.images_ =
      std::make_shared<const ImageSet>(ImageSet{shape, {pixels.begin(), pixels.end()}, {labels.begin(), labels.end()}});
  return data;
}

std::span<const double> Dataset::values() const {
  if (is_images()) {
    throw InvalidArgument("data set " + text_in_quotes(name_) +
                          " holds images, which are kept as bytes; read pixels() or sample()");
  }
  return values_;
}

const ImageShape& Dataset::image() const {
  if (!is_images()) throw InvalidArgument("data set " + text_in_quotes(name_) + " holds no images; ask is_images()");
  return images_->shape;
}

std::span<const std::uint8_t> Dataset::pixels() const noexcept {
  return images_ ? std::span<const std::uint8_t>(images_->pixels) : std::span<const std::uint8_t>();
}

std::span<const std::int32_t> Dataset::labels() const noexcept {
  return images_ ? std::span<const std::int32_t>(images_->labels) : std::span<const std::int32_t>();
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
  if (images_) return shuffled_images(*images_, count, key);
  return toy_ ? density_samples(static_cast<ToyData>(*toy_), count, key)
              : shuffled_rows(values_, rows_, cols_, count, key);
}

DataStatistics Dataset::statistics(std::uint64_t seed) const {
  require_data(cols_);
  std::vector<double> drawn;
  const RandomKey key{seed, RandomStream::statistics, 0};
  if (images_) {
    if (rows_ <= kStatisticsRows) return image_statistics(*images_, rows_, [](std::int64_t i) { return i; });
    const std::vector<std::int64_t> order = shuffled_draws(key, rows_, 0, kStatisticsRows);
    return image_statistics(*images_, kStatisticsRows,
                            [&](std::int64_t i) { return order[static_cast<std::size_t>(i)]; });
  }
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
