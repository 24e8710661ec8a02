// Data sets: names, files, rows of the caller; samples and statistics.
#include "bracket/dataset.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "bracket/device.h"
#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/data/gaussian_mixture.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

class DatasetTest : public FolderTest {};

// Row i holds (i, 1000 + i, ...): every row can be told from every other.
Dataset numbered(std::int64_t rows, std::int64_t cols = 2) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < cols; ++j) values.push_back(static_cast<double>(1000 * j + i));
  return Dataset::from_rows(values, rows, cols);
}

std::vector<std::int64_t> first_column(const std::vector<double>& values, std::size_t cols = 2) {
  std::vector<std::int64_t> column;
  for (std::size_t i = 0; i < values.size(); i += cols) column.push_back(static_cast<std::int64_t>(values[i]));
  return column;
}

TEST(Dataset, EveryNameOpensAndSamplesItsOwnDensity) {
  std::set<std::vector<double>> all;
  for (std::size_t i = 0; i < Dataset::names().size(); ++i) {
    SCOPED_TRACE(Dataset::names()[i]);
    const Dataset data = Dataset::open(Dataset::names()[i]);
    EXPECT_EQ(data.name(), Dataset::names()[i]);
    EXPECT_TRUE(data.is_density());
    EXPECT_EQ(data.density_index(), static_cast<int>(i));
    EXPECT_EQ(data.rows(), 0);
    EXPECT_EQ(data.cols(), 2);
    EXPECT_TRUE(data.values().empty());
    const std::vector<double> sample = data.sample(300, 5);
    ASSERT_EQ(sample.size(), 600U);
    for (const double value : sample) EXPECT_LT(std::abs(value), 10);
    EXPECT_EQ(data.sample(300, 5), sample);
    EXPECT_NE(data.sample(300, 6), sample);
    const std::vector<double> fewer = data.sample(7, 5);  // a sample depends on its number, not on how many there are
    EXPECT_TRUE(std::equal(fewer.begin(), fewer.end(), sample.begin()));
    EXPECT_TRUE(data.sample(0, 5).empty());
    all.insert(sample);
  }
  EXPECT_EQ(all.size(), 10U);
}

TEST(Dataset, MixturesAreTablesWithAKnownDensity) {
  const std::int64_t dims[] = {8, 32, 64};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string& name = Dataset::mixture_names()[i];
    SCOPED_TRACE(name);
    DatasetOptions options;
    options.split = Split::test;
    const Dataset train = Dataset::open(name), test = Dataset::open(name, options);
    EXPECT_FALSE(train.is_density());
    EXPECT_EQ(train.rows(), 50000);
    EXPECT_EQ(test.rows(), 10000);
    EXPECT_EQ(train.cols(), dims[i]);
    EXPECT_TRUE(std::ranges::equal(Dataset::open(name).values(), train.values()));
    EXPECT_FALSE(std::ranges::equal(test.values(), train.values().first(test.values().size())));
    const GaussianMixture mixture = *GaussianMixture::named(name);
    EXPECT_TRUE(std::ranges::equal(mixture.sample(50000, 0), train.values()));
    // Apart modes: the entropy of a mode and of the choice, from which overlap takes at most a little. The nearest
    // centres are 6 deviations apart, where a sample of one mode has a share of exp(-6^2 / 8) in the other at worst.
    const GaussianMixture::Entropy entropy = mixture.entropy(20000, 5);
    const double apart = std::log(16.0) + static_cast<double>(dims[i]) / 2 * std::log(2 * M_PI * M_E * 0.25);
    EXPECT_NEAR(entropy.value, apart, 4 * entropy.standard_error + std::exp(-36.0 / 8) + 1e-9);
    EXPECT_LT(entropy.standard_error, 1e-3) << "of what overlaps alone";
  }
  EXPECT_THROW(Dataset::open("mixture-16"), InvalidArgument);
  EXPECT_THROW(GaussianMixture(0), InvalidArgument);
  EXPECT_THROW(GaussianMixture(2).entropy(1, 0), InvalidArgument);
}

// In one dimension the density integrates to 1, and -p log p to what sampling says.
TEST(Dataset, TheDensityOfAMixtureIsOne) {
  const GaussianMixture mixture(1);
  constexpr double kStep = 1e-3;  // deviations are 500 of them: the sum of a smooth function is exact to rounding
  double mass = 0, entropy = 0;
  for (int i = -12000; i <= 12000; ++i) {
    const double x = kStep * i, logarithm = mixture.log_density({&x, 1});
    mass += kStep * std::exp(logarithm);
    entropy -= kStep * std::exp(logarithm) * logarithm;
  }
  EXPECT_NEAR(mass, 1, 1e-10);
  const GaussianMixture::Entropy sampled = mixture.entropy(20000, 3);
  EXPECT_NEAR(sampled.value, entropy, 4 * sampled.standard_error);
}

TEST(Dataset, NamesAreInTheOrderOfTheDensities) {
  const std::vector<std::pair<std::string, ToyData>> expected = {{"25gaussians", ToyData::gaussians25},
                                                                 {"8gaussians", ToyData::gaussians8},
                                                                 {"swiss_roll", ToyData::swiss_roll},
                                                                 {"two_moons", ToyData::two_moons},
                                                                 {"rings", ToyData::rings},
                                                                 {"circles", ToyData::circles},
                                                                 {"pinwheel", ToyData::pinwheel},
                                                                 {"checkerboard", ToyData::checkerboard},
                                                                 {"two_spirals", ToyData::two_spirals},
                                                                 {"swiss_roll_thin", ToyData::swiss_roll_thin}};
  ASSERT_EQ(Dataset::names().size(), expected.size());
  Context context;
  for (const auto& [name, density] : expected) {
    SCOPED_TRACE(name);
    const Dataset data = Dataset::open(name);
    EXPECT_EQ(data.density_index(), static_cast<int>(density));
    const Buffer buffer = context.pool().allocate(64 * 2 * 8);
    const Tensor direct(buffer.data(), DType::f64, {64, 2});
    context.ops().toy_samples(direct, density, {11, RandomStream::evaluation, 0}, nullptr);
    std::vector<double> values(128);
    context.ops().download(values.data(), direct);
    EXPECT_EQ(data.sample(64, 11), values);
  }
}

TEST(Dataset, UnknownNames) {
  const auto refused = [](const std::string& name, const std::string& nearest) {
    expect_error<InvalidArgument>([&] { Dataset::open(name); }, {"unknown data set", "did you mean '" + nearest + "'"});
  };
  refused("25gausians", "25gaussians");
  refused("moons", "two_moons");
  refused("swissroll", "swiss_roll");
  refused("spirals", "two_spirals");
  refused("Rings", "rings");
  refused("", "rings");
  expect_error<InvalidArgument>([] { Dataset::open("points.txt"); }, {"'points.txt'", "slash"});  // not a known ending
  expect_error<InvalidArgument>([] { Dataset::open("a\nb"); }, {"'a\\x0ab'", "slash", ".npy", ".csv"});
}

TEST_F(DatasetTest, Files) {
  put(at("points.csv"), "x,y,z\n1,2,3\n4,5,6.5\n");
  const Dataset csv = Dataset::open(at("points.csv").string());
  EXPECT_EQ(csv.name(), at("points.csv").string());
  EXPECT_FALSE(csv.is_density());
  EXPECT_EQ(csv.rows(), 2);
  EXPECT_EQ(csv.cols(), 3);
  EXPECT_EQ(std::vector<double>(csv.values().begin(), csv.values().end()), (std::vector<double>{1, 2, 3, 4, 5, 6.5}));
  put(at("UPPER.CSV"), "1\n2\n");
  EXPECT_EQ(Dataset::open(at("UPPER.CSV").string()).rows(), 2);
}

TEST_F(DatasetTest, BadFiles) {
  const auto refused = [](const std::string& path, const std::vector<std::string>& parts) {
    SCOPED_TRACE(path);
    expect_error<DataError>([&] { Dataset::open(path); }, parts);
  };
  // A path by its slash or its ending, never a name.
  refused(at("absent.npy").string(), {"absent.npy"});
  refused(at("absent").string(), {"absent"});
  refused("absent_in_this_folder.npy", {"absent_in_this_folder.npy"});
  refused("absent_in_this_folder.CSV", {"absent_in_this_folder.CSV"});
  refused("./25gaussians", {"25gaussians"});
  put(at("nan.csv"), "1,2\n3,nan\n");
  refused(at("nan.csv").string(), {"nan.csv"});
  put(at("short.npy"), "\x93NUMPY");
  refused(at("short.npy").string(), {"short.npy"});
}

TEST(Dataset, RowsOfTheCaller) {
  std::vector<double> values = {1, 2, 3, 4, 5, 6};
  const Dataset data = Dataset::from_rows(values, 3, 2);
  values.assign(6, 0);  // they were copied
  EXPECT_EQ(data.name(), "rows");
  EXPECT_EQ(data.rows(), 3);
  EXPECT_EQ(data.cols(), 2);
  EXPECT_EQ(data.values()[4], 5);
  const Dataset copy = data;
  EXPECT_EQ(copy.values()[4], 5);
  EXPECT_NE(copy.values().data(), data.values().data());
}

TEST(Dataset, BadRows) {
  const std::vector<double> six = {1, 2, 3, 4, 5, 6};
  expect_error<DataError>([&] { Dataset::from_rows({}, 0, 2); }, {"0 rows and 2 columns"});
  expect_error<DataError>([&] { Dataset::from_rows({}, 2, 0); }, {"2 rows and 0 columns"});
  expect_error<DataError>([&] { Dataset::from_rows(six, -3, -2); }, {"-3 rows"});
  expect_error<InvalidArgument>([&] { Dataset::from_rows(six, 2, 2); }, {"2 rows and 2 columns", "6 values"});
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;  // times 4 wraps around to 0
  expect_error<InvalidArgument>([&] { Dataset::from_rows({}, kHuge, 4); }, {"0 values"});
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    std::vector<double> values = six;
    values[3] = bad;
    expect_error<DataError>([&] { Dataset::from_rows(values, 2, 3); }, {"row 1, column 0", "finite"});
    expect_error<DataError>([&] { Dataset::from_rows(values, 3, 2); }, {"row 1, column 1", "finite"});
  }
}

TEST(Dataset, TableSamplesAreShuffledEpochs) {
  for (const std::int64_t rows : {1, 2, 31, 32, 33, 127}) {
    SCOPED_TRACE(rows);
    const Dataset data = numbered(rows);
    const std::vector<std::int64_t> drawn = first_column(data.sample(3 * rows, 9));
    ASSERT_EQ(drawn.size(), static_cast<std::size_t>(3 * rows));
    std::set<std::vector<std::int64_t>> orders;
    for (auto epoch = drawn.begin(); epoch != drawn.end(); epoch += rows) {
      std::vector<std::int64_t> order(epoch, epoch + rows);
      orders.insert(order);
      std::sort(order.begin(), order.end());
      for (std::int64_t i = 0; i < rows; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
    }
    if (rows > 30) {  // equal orders: chance 1 / 31!
      EXPECT_EQ(orders.size(), 3U);
      EXPECT_NE(first_column(data.sample(rows, 10)), first_column(data.sample(rows, 9)));
    }
  }
}

TEST(Dataset, TableSamplesKeepRowsWhole) {
  const Dataset data = numbered(50, 3);
  const std::vector<double> drawn = data.sample(70, 1);
  for (std::size_t i = 0; i < 70; ++i) {
    EXPECT_EQ(drawn[3 * i + 1], drawn[3 * i] + 1000);
    EXPECT_EQ(drawn[3 * i + 2], drawn[3 * i] + 2000);
  }
  const std::vector<double> fewer = data.sample(5, 1);
  EXPECT_TRUE(std::equal(fewer.begin(), fewer.end(), drawn.begin()));
}

TEST(Dataset, TableSamplesFollowTheOrderOfTraining) {
  Context context;
  const Dataset data = numbered(41);
  const Buffer table_buffer = context.pool().allocate(41 * 2 * 8), batch_buffer = context.pool().allocate(100 * 2 * 8);
  const Tensor table(table_buffer.data(), DType::f64, {41, 2}), batch(batch_buffer.data(), DType::f64, {100, 2});
  context.ops().upload(table, data.values().data());
  context.ops().gather_batch(batch, table, {4, RandomStream::evaluation, 0}, nullptr);
  std::vector<double> values(200);
  context.ops().download(values.data(), batch);
  EXPECT_EQ(data.sample(100, 4), values);
}

TEST(Dataset, BadSampleCounts) {
  for (const Dataset& data : {Dataset::open("rings"), numbered(3)}) {
    expect_error<InvalidArgument>([&] { data.sample(-1, 0); }, {"-1 rows"});
    expect_error<InvalidArgument>([&] { data.sample(std::int64_t{1} << 62, 0); }, {"4611686018427387904", "2^63"});
  }
  expect_error<InvalidArgument>([] { Dataset().sample(1, 0); }, {"holds nothing"});
  expect_error<InvalidArgument>([] { Dataset().statistics(0); }, {"holds nothing"});
}

TEST(DatasetStatistics, ByHand) {
  const DataStatistics s = Dataset::from_rows(std::vector<double>{1, 10, 3, 10, 5, 40}, 3, 2).statistics(0);
  // Columns (1, 3, 5) and (10, 10, 40): means 3 and 20, mean squares 8/3 and 200. The last row is the outermost:
  // (2^2 / (8/3) + 20^2 / 200)^(1/2). A dozen roundings of 2^-53 each.
  constexpr double kLimit = 12 * 0x1p-53;
  EXPECT_NEAR(s.mean[0], 3, 3 * kLimit);
  EXPECT_NEAR(s.mean[1], 20, 20 * kLimit);
  EXPECT_NEAR(s.deviation[0], std::sqrt(8.0 / 3), 2 * kLimit);
  EXPECT_NEAR(s.deviation[1], std::sqrt(200.0), 15 * kLimit);
  EXPECT_NEAR(s.standardised_radius, std::sqrt(3.5), 2 * kLimit);
}

TEST(DatasetStatistics, ConstantColumnsHaveDeviationOne) {
  std::vector<double> values;
  for (int i = 0; i < 1000; ++i) values.insert(values.end(), {0.1, static_cast<double>(i % 2), -1e300});
  const DataStatistics s = Dataset::from_rows(values, 1000, 3).statistics(0);
  EXPECT_EQ(s.mean[0], 0.1);  // exactly: the sum of 1000 tenths is not 100
  EXPECT_EQ(s.deviation[0], 1);
  EXPECT_EQ(s.mean[2], -1e300);
  EXPECT_EQ(s.deviation[2], 1);
  constexpr double kLimit = 2 * 1000 * 0x1p-53;  // two sums of 1000 terms
  EXPECT_NEAR(s.deviation[1], 0.5, 0.5 * kLimit);
  EXPECT_NEAR(s.standardised_radius, 1, 2 * kLimit);
  const DataStatistics one = numbered(1).statistics(0);
  EXPECT_EQ(one.mean, (std::vector<double>{0, 1000}));
  EXPECT_EQ(one.deviation, (std::vector<double>{1, 1}));
  EXPECT_EQ(one.standardised_radius, 0);
}

TEST(DatasetStatistics, ExtremeMagnitudes) {
  // Neither squares nor sums may over- or underflow: the same two-valued column at every scale.
  for (const double scale : {1e-300, 1e-200, 1.0, 1e200, 8e307}) {
    SCOPED_TRACE(scale);
    const DataStatistics s = Dataset::from_rows(std::vector<double>{-scale, scale, scale, -scale}, 4, 1).statistics(0);
    constexpr double kLimit = 8 * 0x1p-53;  // two sums of four terms
    EXPECT_NEAR(s.mean[0] / scale, 0, kLimit);
    EXPECT_NEAR(s.deviation[0] / scale, 1, kLimit);
    EXPECT_NEAR(s.standardised_radius, 1, 2 * kLimit);
  }
  // 1 / deviation is not finite: treated as constant.
  const DataStatistics tiny = Dataset::from_rows(std::vector<double>{0, 5e-324}, 2, 1).statistics(0);
  EXPECT_EQ(tiny.deviation[0], 1);
  expect_error<DataError>(
      [] {
        Dataset::from_rows(std::vector<double>{0, -1e308, 0, 1e308}, 2, 2).statistics(0);
      },
      {"column 1", "-1e+308 to 1e+308", "rescale"});
}

TEST(DatasetStatistics, FarFromTheOrigin) {
  std::vector<double> values;
  for (int i = 0; i < 1000; ++i) values.push_back(1e9 + i % 2);
  const DataStatistics s = Dataset::from_rows(values, 1000, 1).statistics(0);
  EXPECT_EQ(s.mean[0], 1e9 + 0.5);
  EXPECT_NEAR(s.deviation[0], 0.5, 0.5 * 2 * 1000 * 0x1p-53);  // as near as without the offset: two sums of 1000 terms
}

TEST(DatasetStatistics, Densities) {
  // 25 Gaussians: per column mean 0 and variance (8 + 0.05^2) / 2.828^2. Over n = 100,000 samples the mean has standard
  // error s / sqrt(n); the variance sqrt((m4 - s^4) / n) with fourth moment m4 = 108.8 / 2.828^4 < 1.75 s^4. Limits: 5.
  const DataStatistics s = Dataset::open("25gaussians").statistics(1);
  const double variance = (8 + 0.0025) / (2.828 * 2.828), root = std::sqrt(1e5);
  for (std::size_t j = 0; j < 2; ++j) {
    EXPECT_NEAR(s.mean[j], 0, 5 * std::sqrt(variance) / root);
    EXPECT_NEAR(s.deviation[j] * s.deviation[j], variance, 5 * variance * std::sqrt(0.75) / root);
  }
  // The outermost of 100,000 lies between the corner mode and 7 deviations beyond it (chance 1e-6).
  const double corner = 4 * std::sqrt(2.0) / 2.828, width = 0.05 / 2.828;
  EXPECT_GT(s.standardised_radius, corner / std::max(s.deviation[0], s.deviation[1]));
  EXPECT_LT(s.standardised_radius, (corner + 7 * width) / std::min(s.deviation[0], s.deviation[1]));
  EXPECT_EQ(Dataset::open("25gaussians").statistics(1).mean, s.mean);
  EXPECT_NE(Dataset::open("25gaussians").statistics(2).mean, s.mean);
}

TEST(DatasetStatistics, LargeTablesAreMeasuredOnShuffledRows) {
  // 0, 1, .., 249,999: the first 100,000 rows alone would give a mean of 50,000. A mean of n of N rows drawn without
  // replacement has standard error s sqrt((1/n - 1/N)), s = N / sqrt(12). Limit: 5.
  constexpr std::int64_t kRows = 250000, kMeasured = 100000;
  const DataStatistics s = numbered(kRows, 1).statistics(3);
  const double spread = static_cast<double>(kRows) / std::sqrt(12.0);
  const double error = spread * std::sqrt(1.0 / kMeasured - 1.0 / kRows);
  EXPECT_NEAR(s.mean[0], (kRows - 1) / 2.0, 5 * error);
  EXPECT_NEAR(s.deviation[0], spread, 5 * error);
  EXPECT_NE(numbered(kRows, 1).statistics(4).mean, s.mean);
  // Up to 100,000 rows every one counts, whatever the seed.
  EXPECT_EQ(numbered(kMeasured, 1).statistics(3).mean, numbered(kMeasured, 1).statistics(4).mean);
}

}  // namespace
}  // namespace bracket
