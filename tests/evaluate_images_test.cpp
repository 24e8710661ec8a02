// Figures on sets of images: each against a closed form or a count by brute force.
#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <set>
#include <vector>

#include "bracket/error.h"
#include "host/evaluate/generated_points.h"
#include "host/evaluate/images/class_coverage.h"
#include "host/evaluate/images/cluster.h"
#include "host/evaluate/images/detection.h"
#include "host/evaluate/images/feature_frechet.h"
#include "host/evaluate/images/jacobian_spectrum.h"
#include "host/evaluate/images/precision_recall.h"
#include "host/picture/plots.h"
#include "tests/network_fixture.h"

namespace bracket {
namespace {

using test::NetworkOnDevice;

std::vector<double> normal_rows(std::int64_t count, std::uint64_t seed, double deviation = 1) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(0, deviation);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (double& value : values) value = normal(engine);
  return values;
}

// ---- feature_frechet ---------------------------------------------------------------------------------------------

TEST(FeatureFrechet, IsTheClosedFormOfTwoByTwoMatricesThatDoNotCommute) {
  // tr (S1 S2)^(1/2) = sqrt(tr S1 S2 + 2 sqrt(det S1 det S2)) for 2 x 2.
  std::mt19937_64 engine(7);
  std::normal_distribution<double> normal;
  for (int trial = 0; trial < 1000; ++trial) {
    Eigen::Matrix2d s[2];
    FeatureMoments m[2];
    for (int k = 0; k < 2; ++k) {
      Eigen::Matrix2d a;
      for (double& value : a.reshaped()) value = normal(engine);
      s[k] = a * a.transpose() + 0.01 * Eigen::Matrix2d::Identity();
      m[k] = {{normal(engine), normal(engine)}, {s[k](0, 0), s[k](0, 1), s[k](1, 0), s[k](1, 1)}};
    }
    const double root = std::sqrt((s[0] * s[1]).trace() + 2 * std::sqrt(s[0].determinant() * s[1].determinant()));
    const double shift = std::hypot(m[0].mean[0] - m[1].mean[0], m[0].mean[1] - m[1].mean[1]);
    const double scale = s[0].trace() + s[1].trace() + shift * shift;
    // A handful of 2 x 2 operations, each good to some 1e-16 of the scale; eigenvalues of 0.01 and more keep the roots
    // that well conditioned up to a factor of 1 / sqrt(0.01 / scale), below 100 here.
    EXPECT_NEAR(feature_frechet(m[0], m[1]), shift * shift + s[0].trace() + s[1].trace() - 2 * root, 1e-13 * scale);
  }
}

TEST(FeatureFrechet, OfRowsMovedAndScaled) {
  constexpr std::int64_t kRows = 300, kCols = 50;
  const std::vector<double> x = normal_rows(kRows * kCols, 3);
  const FeatureMoments m = feature_moments(x, kRows, kCols);
  double trace = 0;
  for (std::size_t j = 0; j < kCols; ++j) trace += m.covariance[j * kCols + j];
  EXPECT_NEAR(feature_frechet(m, m), 0, 1e-12 * trace);
  std::vector<double> moved = x, scaled = x;
  for (double& value : moved) value += 0.5;
  for (double& value : scaled) value *= 3;
  EXPECT_NEAR(feature_frechet(m, feature_moments(moved, kRows, kCols)), 0.25 * kCols, 1e-12 * trace);
  double mean_square = 0;
  for (const double value : m.mean) mean_square += value * value;
  // (1 - 3)^2 tr S and (1 - 3)^2 |m|^2.
  EXPECT_NEAR(feature_frechet(m, feature_moments(scaled, kRows, kCols)), 4 * (trace + mean_square), 1e-11 * trace);
}

TEST(FeatureFrechet, DeadAndRepeatedFeaturesMakeNoNoise) {
  constexpr std::int64_t kRows = 40, kCols = 60;  // fewer rows than features as well
  std::vector<double> x = normal_rows(kRows * kCols, 5);
  for (std::int64_t i = 0; i < kRows; ++i) {
    x[static_cast<std::size_t>(i * kCols)] = 0;
    x[static_cast<std::size_t>(i * kCols + 1)] = x[static_cast<std::size_t>(i * kCols + 2)];
  }
  const FeatureMoments m = feature_moments(x, kRows, kCols);
  EXPECT_NEAR(feature_frechet(m, m), 0, 1e-11);  // a root of rounded eigenvalues would leave 1e-8
}

TEST(FeatureFrechet, RefusesWhatHasNoCovariance) {
  const std::vector<double> x = {1, 2, 3, 4, std::numeric_limits<double>::quiet_NaN(), 6};
  EXPECT_THROW(feature_moments(std::span(x).first(2), 1, 2), InvalidArgument);
  EXPECT_THROW(feature_moments(std::span(x).first(4), 2, 3), InvalidArgument);
  EXPECT_THROW(feature_moments({}, 0, 0), InvalidArgument);
  EXPECT_THROW(feature_moments(x, 3, 2), InvalidArgument);
  EXPECT_THROW(
      feature_frechet(feature_moments(std::span(x).first(4), 2, 2), feature_moments(std::span(x).first(4), 4, 1)),
      InvalidArgument);
}

// ---- precision_recall --------------------------------------------------------------------------------------------

// Largest F over the curve of a set that covers half of the modes evenly: precision 1 at recall 1/2.
double half_covered(double beta) { return (1 + beta * beta) * 0.5 / (beta * beta + 0.5); }

TEST(PrecisionRecall, CurvesOfEqualDisjointAndHalfCoveredHistograms) {
  const std::vector<double> all(20, 0.05);
  std::vector<double> half(20, 0.0), other(20, 0.0);
  std::fill_n(half.begin(), 10, 0.1);
  std::fill_n(other.rbegin(), 10, 0.1);
  // Slope 1 is one of the 1001 angles, up to rounding.
  EXPECT_NEAR(f_score(precision_recall_curve(all, all, 1001), 8), 1, 1e-9);
  EXPECT_EQ(f_score(precision_recall_curve(half, other, 1001), 8), 0);
  // Angles are pi / 2000 apart, so the slope 2 is missed by at most (1 + 4) pi / 4000 = 0.004, F by half of that.
  for (const double beta : {8.0, 1.0 / 8}) {
    const double f = f_score(precision_recall_curve(all, half, 1001), beta);
    EXPECT_NEAR(f, half_covered(beta), 0.002) << beta;
    EXPECT_LE(f, half_covered(beta) + 1e-12) << beta;
    EXPECT_NEAR(f_score(precision_recall_curve(half, all, 1001), beta), half_covered(1 / beta), 0.002) << beta;
  }
}

// Rows around `clusters` far centres in turn.
std::vector<double> clustered(std::int64_t rows, std::int64_t cols, std::int64_t clusters, std::uint64_t seed) {
  const std::vector<double> centres = normal_rows(20 * cols, 99, 100);
  std::vector<double> x = normal_rows(rows * cols, seed, 0.01);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < cols; ++j)
      x[static_cast<std::size_t>(i * cols + j)] += centres[static_cast<std::size_t>(i % clusters * cols + j)];
  return x;
}

TEST(PrecisionRecall, OfFeaturesInSeparateClusters) {
  constexpr std::int64_t kRows = 400, kCols = 5;
  const std::vector<double> all = clustered(kRows, kCols, 20, 1), half = clustered(kRows, kCols, 10, 2);
  const PrecisionRecall same = precision_recall(all, clustered(kRows, kCols, 20, 3), kRows, kCols);
  EXPECT_NEAR(same.f_beta, 1, 1e-9);
  EXPECT_NEAR(same.f_inverse_beta, 1, 1e-9);
  const PrecisionRecall low_recall = precision_recall(all, half, kRows, kCols);
  EXPECT_NEAR(low_recall.f_beta, half_covered(8), 0.002);
  EXPECT_NEAR(low_recall.f_inverse_beta, half_covered(1.0 / 8), 0.002);
  const PrecisionRecall low_precision = precision_recall(half, all, kRows, kCols);
  EXPECT_NEAR(low_precision.f_beta, half_covered(1.0 / 8), 0.002);
  EXPECT_NEAR(low_precision.f_inverse_beta, half_covered(8), 0.002);
}

TEST(PrecisionRecall, IsAFunctionOfTheSeed) {
  const std::vector<double> a = normal_rows(600, 1), b = normal_rows(600, 2);
  const PrecisionRecallOptions one{.seed = 1}, two{.seed = 2};
  EXPECT_EQ(precision_recall(a, b, 200, 3, one).f_beta, precision_recall(a, b, 200, 3, one).f_beta);
  EXPECT_NE(precision_recall(a, b, 200, 3, one).f_beta, precision_recall(a, b, 200, 3, two).f_beta);
}

TEST(PrecisionRecall, RowsThatAreAllAlike) {
  const std::vector<double> a(60, 0.5);
  EXPECT_NEAR(precision_recall(a, a, 30, 2).f_beta, 1, 1e-9);
}

TEST(PrecisionRecall, RefusesWhatItCannotCluster) {
  const std::vector<double> x = normal_rows(60, 1);
  EXPECT_THROW(precision_recall(x, std::span(x).first(40), 30, 2), InvalidArgument);
  EXPECT_THROW(precision_recall({}, {}, 0, 2), InvalidArgument);
  EXPECT_THROW(precision_recall(x, x, 30, 2, {.clusters = 61}), InvalidArgument);
  EXPECT_THROW(precision_recall(x, x, 30, 2, {.runs = 0}), InvalidArgument);
  EXPECT_THROW(precision_recall(x, x, 30, 2, {.angles = 2}), InvalidArgument);
  EXPECT_THROW(precision_recall(x, x, 30, 2, {.beta = 0}), InvalidArgument);
  std::vector<double> bad = x;
  bad[7] = std::numeric_limits<double>::infinity();
  EXPECT_THROW(precision_recall(x, bad, 30, 2), InvalidArgument);
  EXPECT_THROW(precision_recall_curve(std::span(x).first(2), std::span(x).first(3), 1001), InvalidArgument);
}

TEST(KMeans, EndsWhereEveryRowIsNearestToTheMeanOfItsCluster) {
  constexpr std::int64_t kRows = 1500, kCols = 4, kClusters = 7;  // more than one panel of distances
  const std::vector<double> x = normal_rows(kRows * kCols, 11);
  const std::vector<std::int64_t> labels = k_means(x, kRows, kCols, kClusters, {1, RandomStream::test, 0});
  ASSERT_EQ(labels.size(), static_cast<std::size_t>(kRows));
  ASSERT_EQ(std::set<std::int64_t>(labels.begin(), labels.end()).size(), static_cast<std::size_t>(kClusters));
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix> rows(x.data(), kRows, kCols);
  Matrix means = Matrix::Zero(kClusters, kCols);
  Eigen::VectorXd counts = Eigen::VectorXd::Zero(kClusters);
  for (std::int64_t i = 0; i < kRows; ++i) {
    means.row(labels[static_cast<std::size_t>(i)]) += rows.row(i);
    counts(labels[static_cast<std::size_t>(i)]) += 1;
  }
  means.array().colwise() /= counts.array();
  for (std::int64_t i = 0; i < kRows; ++i) {
    const Eigen::VectorXd distance = (means.rowwise() - rows.row(i)).rowwise().squaredNorm();
    EXPECT_LE(distance(labels[static_cast<std::size_t>(i)]), distance.minCoeff() + 1e-12) << i;
  }
}

TEST(KMeans, AsManyClustersAsRowsAndBadSizes) {
  const std::vector<double> x = normal_rows(33 * 3, 12);
  const std::vector<std::int64_t> labels = k_means(x, 33, 3, 33, {2, RandomStream::test, 0});
  EXPECT_EQ(std::set<std::int64_t>(labels.begin(), labels.end()).size(), 33U);
  EXPECT_THROW(k_means(x, 33, 3, 34, {}), InvalidArgument);
  EXPECT_THROW(k_means(x, 33, 3, 0, {}), InvalidArgument);
  EXPECT_THROW(k_means(x, 34, 3, 2, {}), InvalidArgument);
}

// ---- detection ---------------------------------------------------------------------------------------------------

TEST(Auroc, CountsPairsWithTiesAsHalves) {
  std::mt19937_64 engine(5);
  std::uniform_int_distribution<int> level(0, 6);
  std::vector<double> in(173), out(91);
  for (double& score : in) score = level(engine) + 1;
  for (double& score : out) score = level(engine);
  double wins = 0;
  for (const double a : in)
    for (const double b : out) wins += a > b ? 1 : a == b ? 0.5 : 0;
  EXPECT_NEAR(auroc(in, out), wins / 173 / 91, 1e-14);
  EXPECT_NEAR(auroc(out, in), 1 - wins / 173 / 91, 1e-14);
}

TEST(Auroc, LimitsAndRefusals) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(auroc(std::vector<double>{2, infinity}, std::vector<double>{1, -infinity}), 1);
  EXPECT_EQ(auroc(std::vector<double>{1}, std::vector<double>{2}), 0);
  EXPECT_EQ(auroc(std::vector<double>{3, 3}, std::vector<double>{3}), 0.5);
  EXPECT_THROW(auroc({}, std::vector<double>{1}), InvalidArgument);
  EXPECT_THROW(auroc(std::vector<double>{1}, {}), InvalidArgument);
  EXPECT_THROW(auroc(std::vector<double>{std::nan("")}, std::vector<double>{1}), InvalidArgument);
}

TEST(ClassCoverage, OfEvenHalfAndSingleClasses) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 3000; ++i) labels.push_back(i % 1000);
  EXPECT_EQ(class_coverage(labels, 1000).modes, 1000);
  EXPECT_NEAR(class_coverage(labels, 1000).kl, 0, 1e-12);
  for (std::int64_t& label : labels) label %= 500;
  EXPECT_EQ(class_coverage(labels, 1000).modes, 500);
  EXPECT_NEAR(class_coverage(labels, 1000).kl, std::log(2), 1e-12);
  for (std::int64_t& label : labels) label = 999;
  EXPECT_EQ(class_coverage(labels, 1000).modes, 1);
  EXPECT_NEAR(class_coverage(labels, 1000).kl, std::log(1000), 1e-12);
  EXPECT_THROW(class_coverage(labels, 999), InvalidArgument);
  EXPECT_THROW(class_coverage({}, 10), InvalidArgument);
  EXPECT_THROW(class_coverage(std::vector<std::int64_t>{-1}, 10), InvalidArgument);
}

// ---- histogram ---------------------------------------------------------------------------------------------------

TEST(Histogram, AnOutlineHoldsTheShareInside) {
  std::vector<double> values = normal_rows(1000, 8);
  values.push_back(std::nan(""));
  values.push_back(std::numeric_limits<double>::infinity());
  std::int64_t inside = 0;
  for (const double value : values) inside += value >= -1 && value <= 2 ? 1 : 0;
  const Series outline = density_outline({"x", values}, {-1, 2}, 17);
  ASSERT_EQ(outline.x.size(), 34U);
  double area = 0;
  for (std::size_t i = 0; i < outline.x.size(); i += 2) area += outline.y[i] * (outline.x[i + 1] - outline.x[i]);
  EXPECT_NEAR(area, static_cast<double>(inside) / 1002, 1e-12);
  EXPECT_EQ(outline.x.front(), -1);
  EXPECT_NEAR(outline.x.back(), 2, 1e-15);
  EXPECT_NE(outline.name.find("% outside"), std::string::npos);
  const std::vector<double> edges = {0, 1};  // both ends belong to the range
  EXPECT_EQ(density_outline({"e", edges}, {0, 1}, 2).y, (std::vector<double>{1, 1, 1, 1}));
  EXPECT_EQ(density_outline({"e", edges}, {0, 1}, 2).name, "e");
  EXPECT_TRUE(density_outline({"far", edges}, {5, 6}, 2).x.empty());
}

TEST(Histogram, OutliersDoNotSetTheRange) {
  std::vector<double> near = normal_rows(2000, 9), far = near;
  far[0] = 1e9;
  const HistogramChart a{"energies", "E", {{"data", near}}}, b{"energies", "E", {{"data", far}}};
  const Image picture = histogram_chart(a), other = histogram_chart(b);
  std::int64_t differing = 0;
  for (std::size_t i = 0; i < picture.bytes().size(); ++i) differing += picture.bytes()[i] != other.bytes()[i] ? 1 : 0;
  EXPECT_LT(differing, static_cast<std::int64_t>(picture.bytes().size()) / 10) << "the curve kept its place";
  EXPECT_GT(differing, 0);
}

TEST(Histogram, EmptyAndBadInput) {
  const std::vector<double> nothing(3, std::nan(""));
  EXPECT_GT(histogram_chart({"t", "x", {{"none", nothing}, {"empty", {}}}}).width(), 0);
  EXPECT_GT(histogram_chart({"t", "x", {}}).width(), 0);
  EXPECT_THROW(histogram_chart({"t", "x", {{"none", nothing}}, 0}), InvalidArgument);
  EXPECT_THROW(histogram_chart({"t", "x", {{"none", nothing}}, kMostBins + 1}), InvalidArgument);
}

// ---- jacobian_spectrum -------------------------------------------------------------------------------------------

NetworkSpec linear_map(std::int64_t latent, std::int64_t dimension) {
  NetworkSpec spec;
  spec.input_size = latent;
  spec.layers = {LinearSpec{.features = dimension}};
  return spec;
}

TEST(JacobianSpectrum, OfALinearMapIsThatOfItsMatrix) {
  for (const auto& [d, cols, rows] : {std::tuple{1, 1, 3},
                                      {1, 5, 1},
                                      {3, 3, 300},
                                      {17, 33, 5},
                                      {128, 200, 5},
                                      {64, 4096, 70}}) {  // the last: a second chunk, smaller than the first
    Context context;
    NetworkOnDevice generator(context, linear_map(d, cols), DType::f64);
    const std::vector<double> values = generator.values_of("layers.0.weight");
    using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const Matrix> w(values.data(), cols, d);
    const Eigen::VectorXd s = Eigen::JacobiSVD<Eigen::MatrixXd>(w).singularValues();
    const JacobianSpectrum spectrum =
        jacobian_spectrum(context, generator.network(), generator.parameters(), normal_rows(rows * d, 4), rows);
    ASSERT_EQ(spectrum.smallest.size(), static_cast<std::size_t>(rows));
    // The Gram matrix is off by about d D roundings of s_d^2, so s_1^2 by as much and s_1 by that over 2 s_1.
    const double rounding = d * cols * 0x1p-53 * s(0) * s(0);
    for (std::size_t i = 0; i < spectrum.smallest.size(); ++i) {
      EXPECT_NEAR(spectrum.smallest[i], s(d - 1), rounding / s(d - 1)) << d;
      EXPECT_NEAR(spectrum.largest[i], s(0), rounding / s(0)) << d;
      EXPECT_NEAR(spectrum.log_volume[i], s.array().log().sum(), d * rounding / (s(d - 1) * s(d - 1))) << d;
    }
  }
}

TEST(JacobianSpectrum, OfANonLinearMapAgreesWithTheLogVolumeOfTheBounds) {
  Context context;
  NetworkSpec energy_spec = linear_map(6, 1), spec = linear_map(3, 9);
  spec.layers.push_back(ActivationSpec{Activation::silu});
  spec.layers.push_back(LinearSpec{.features = 6});
  NetworkOnDevice generator(context, spec, DType::f64), energy(context, energy_spec, DType::f64);
  const std::vector<double> z = normal_rows(33 * 3, 6);
  const GeneratedPoints points = generated_points(
      {context, energy.network(), energy.parameters(), generator.network(), generator.parameters()}, z, 33);
  const JacobianSpectrum spectrum = jacobian_spectrum(context, generator.network(), generator.parameters(), z, 33);
  ASSERT_EQ(spectrum.log_volume.size(), 33U);
  for (std::size_t i = 0; i < 33; ++i) {
    // Two factorisations of one Gram matrix: each good to 1e-15 cond^2, and cond is below 1e3 here.
    EXPECT_LT(spectrum.largest[i] / spectrum.smallest[i], 1e3);
    EXPECT_NEAR(spectrum.log_volume[i], points.log_volume[i], 1e-9);
  }
  EXPECT_NE(spectrum.smallest[0], spectrum.smallest[1]);
}

TEST(JacobianSpectrum, EmptySingularAndBadInput) {
  Context context;
  NetworkOnDevice generator(context, linear_map(2, 3), DType::f64);
  const auto spectrum_of = [&](const std::vector<double>& z, std::int64_t rows) {
    return jacobian_spectrum(context, generator.network(), generator.parameters(), z, rows);
  };
  EXPECT_TRUE(spectrum_of({}, 0).smallest.empty());
  EXPECT_THROW(spectrum_of({1, 2, 3}, 2), InvalidArgument);
  std::vector<double> values = generator.values();
  for (double& value : values) value = 0;
  generator.set_values(values);
  EXPECT_EQ(spectrum_of({1, 2}, 1).smallest[0], 0);
  EXPECT_EQ(spectrum_of({1, 2}, 1).log_volume[0], -std::numeric_limits<double>::infinity());
  for (double& value : values) value = std::nan("");
  generator.set_values(values);
  EXPECT_THROW(spectrum_of({1, 2}, 1), Diverged);
  NetworkOnDevice wide(context, linear_map(3, 2), DType::f64);
  EXPECT_THROW(jacobian_spectrum(context, wide.network(), wide.parameters(), std::vector<double>(3), 1),
               InvalidArgument);
}

}  // namespace
}  // namespace bracket
