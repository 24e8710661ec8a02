// Philox against published vectors and cuRAND, the shared elementary functions against 80-bit arithmetic, fills on all
// devices bit for bit, distributions, and shuffled batches. Statistical limits are 5 standard errors (probability of a
// false alarm 6e-7 each) unless a test says otherwise.
#include "bracket/random.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <numbers>
#include <set>

#include "kernels/formula/permutation.h"
#include "kernels/formula/philox.h"
#include "ops_fixture.h"

namespace bracket::test {
namespace {

using Words = std::array<std::uint32_t, 4>;

// Random123, file kat_vectors, lines philox4x32 10.
TEST(PhiloxTest, PublishedVectors) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32_10({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, KeyAndCounterLayout) {
  const RandomKey key{0x0123456789abcdefULL, RandomStream::sampling, 0xfedcba987654ULL};
  const std::uint64_t element = (std::uint64_t{5} << 34) + 4 * 7 + 2;
  const Words block = philox4x32_10({7, 5, 0xba987654U, 0x0009fedcU}, {0x89abcdefU, 0x01234567U});
  EXPECT_EQ(random_word(key, element), block[2]);
  EXPECT_EQ(random_uniform(key, element), (static_cast<double>(block[2]) + 0.5) / 4294967296.0);
}

// cuRAND's host generator deals blocks of four words from 65,536 subsequences in turn: output 4 (65536 q + s) + w is
// word w of block q of subsequence s. RandomStream 0 has the plain subsequence number.
TEST(PhiloxTest, EqualsCurand) {
  void* library = nullptr;
  for (const char* name : {"libcurand.so.10", "libcurand.so", "/usr/local/cuda/lib64/libcurand.so.10",
                           "/usr/local/cuda/lib/libcurand.so.10", "/usr/local/cuda-13.0/lib/libcurand.so.10"}) {
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) GTEST_SKIP() << "libcurand is not installed";
  const auto function = [library]<class F>(const char* name, F*) {
    F* const address = reinterpret_cast<F*>(dlsym(library, name));
    EXPECT_NE(address, nullptr) << name;
    return address;
  };
  using Generator = void*;
  const auto create = function("curandCreateGeneratorHost", static_cast<int (*)(Generator*, int)>(nullptr));
  const auto set_seed =
      function("curandSetPseudoRandomGeneratorSeed", static_cast<int (*)(Generator, unsigned long long)>(nullptr));
  const auto generate = function("curandGenerate", static_cast<int (*)(Generator, unsigned*, std::size_t)>(nullptr));
  const auto destroy = function("curandDestroyGenerator", static_cast<int (*)(Generator)>(nullptr));
  constexpr int kPhilox4x32_10 = 161;  // CURAND_RNG_PSEUDO_PHILOX4_32_10
  constexpr std::size_t kSubsequences = 65536;
  constexpr std::uint64_t kSeed = 0x123456789abcdefULL;
  std::vector<unsigned> outputs(4 * kSubsequences * 2 + 4 * 100);
  Generator generator = nullptr;
  ASSERT_EQ(create(&generator, kPhilox4x32_10), 0);
  ASSERT_EQ(set_seed(generator, kSeed), 0);
  ASSERT_EQ(generate(generator, outputs.data(), outputs.size()), 0);
  EXPECT_EQ(destroy(generator), 0);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::size_t block = i / 4;
    const RandomKey key{kSeed, static_cast<RandomStream>(0), block % kSubsequences};
    ASSERT_EQ(random_word(key, 4 * (block / kSubsequences) + i % 4), outputs[i]) << "output " << i;
  }
}

// ---- elementary functions
// ---------------------------------------------------------------------------------------------

double error_in_ulp(double value, long double exact) {
  const double nearest = static_cast<double>(exact);
  const double ulp = std::nextafter(std::abs(nearest), INFINITY) - std::abs(nearest);
  return static_cast<double>(std::abs(value - exact)) / ulp;
}

TEST(ElementaryTest, WithinTheStatedErrors) {
  const RandomKey key{test_seed(), RandomStream::test, 1};
  double log_error = 0, exp_error = 0, sine_error = 0;
  for (std::uint64_t i = 0; i < 200000; ++i) {
    const double u = random_uniform(key, i);
    // Uniform arguments, and small ones over all exponents that occur.
    for (const double x : {u, std::ldexp(u, -static_cast<int>(i % 32)), 1 - std::ldexp(u, -static_cast<int>(i % 33))}) {
      log_error = std::max(log_error, error_in_ulp(formula::logarithm(x), std::log(static_cast<long double>(x))));
    }
    const double x = 1400 * u - 700;
    exp_error = std::max(exp_error, error_in_ulp(formula::exponential(x), std::exp(static_cast<long double>(x))));
    const double turns = i % 2 == 0 ? u : 200 * u - 100;
    const long double angle = 2 * std::numbers::pi_v<long double> * static_cast<long double>(turns - std::rint(turns));
    const formula::SineCosine pair = formula::sine_cosine_of_turns(turns);
    sine_error = std::max({sine_error, static_cast<double>(std::abs(pair.sine - std::sin(angle))),
                           static_cast<double>(std::abs(pair.cosine - std::cos(angle)))});
  }
  EXPECT_LT(log_error, 2);
  EXPECT_LT(exp_error, 2);
  EXPECT_LT(sine_error, 0x1p-52);
  EXPECT_EQ(formula::logarithm(1), 0);
  EXPECT_EQ(formula::exponential(0), 1);
  EXPECT_EQ(formula::sine_cosine_of_turns(0.25).sine, 1);
  EXPECT_EQ(formula::sine_cosine_of_turns(0.5).cosine, -1);
  EXPECT_EQ(formula::sine_cosine_of_turns(-0.25).sine, -1);
}

TEST(ElementaryTest, UniformsStayInsideTheInterval) {
  for (const std::uint32_t word : {0U, 1U, 0x7fffffffU, 0x80000000U, 0xfffffffeU, 0xffffffffU}) {
    EXPECT_EQ(formula::unit_uniform(word), (static_cast<double>(word) + 0.5) / 4294967296.0);
    const auto unit = formula::uniform_in(formula::uniform_range<float>(0, 1), word);
    EXPECT_GT(unit, 0.0F);
    EXPECT_LT(unit, 1.0F);
    const auto shifted = formula::uniform_in(formula::uniform_range<float>(1 << 24, (1 << 24) + 6), word);
    EXPECT_GT(shifted, 16777216.0F);
    EXPECT_LT(shifted, 16777222.0F);
    EXPECT_EQ(formula::uniform_in(formula::uniform_range<float>(2, 2), word), 2.0F);
    EXPECT_EQ(formula::uniform_in(formula::uniform_range<double>(-3, -3), word), -3.0);
  }
}

// ---- fills
// --------------------------------------------------------------------------------------------------------------

constexpr std::array<std::int64_t, 13> kSizes{0, 1, 2, 3, 31, 32, 33, 127, 128, 129, 257, 1009, 70001};

class RandomTest : public OpsTest {};
INSTANTIATE_TEST_SUITE_P(Devices, RandomTest, ::testing::ValuesIn(test_devices()), device_name);

TEST_P(RandomTest, UniformsAreThoseOfTheirWords) {
  const RandomKey key{test_seed(), RandomStream::data, 77};
  for (const std::int64_t n : kSizes) {
    const DeviceTensor single = empty(context(), DType::f32, {n}), wide = empty(context(), DType::f64, {n});
    ops().random_uniform(single, key, -2, 3, nullptr);
    ops().random_uniform(wide, key, -2, 3, nullptr);
    const HostMatrix f32 = download(context(), single), f64 = download(context(), wide);
    for (std::int64_t e = 0; e < n; ++e) {
      const double exact = std::fma(5.0, random_uniform(key, static_cast<std::uint64_t>(e)), -2.0);
      ASSERT_EQ(f64(e, 0), exact);
      ASSERT_EQ(f32(e, 0), static_cast<double>(static_cast<float>(exact)));
    }
  }
}

TEST_P(RandomTest, NormalsAreBoxMullerPairsWithTheSameBitsEverywhere) {
  const RandomKey key{test_seed(), RandomStream::energy_latent, 5};
  for (const std::int64_t n : kSizes) {
    const DeviceTensor single = empty(context(), DType::f32, {n}), wide = empty(context(), DType::f64, {n});
    ops().random_normal(single, key, nullptr);
    ops().random_normal(wide, key, nullptr);
    const HostMatrix f32 = download(context(), single), f64 = download(context(), wide);
    for (std::int64_t e = 0; e < n; ++e) {
      const auto pair_element = static_cast<std::uint64_t>(e - e % 2);
      const formula::NormalPair pair =
          formula::normal_pair(random_word(key, pair_element), random_word(key, pair_element + 1));
      const double exact = e % 2 == 0 ? pair.first : pair.second;
      ASSERT_EQ(f64(e, 0), exact);
      ASSERT_EQ(f32(e, 0), static_cast<double>(static_cast<float>(exact)));
      // And the definition itself: 2 ulp of the logarithm, half of them after the root, and 2^-52 of the direction.
      const double r = std::sqrt(-2 * std::log(random_uniform(key, pair_element)));
      const double a = 2 * std::numbers::pi * random_uniform(key, pair_element + 1);
      ASSERT_NEAR(exact, r * (e % 2 == 0 ? std::sin(a) : std::cos(a)), 8e-15);
    }
  }
}

TEST_P(RandomTest, TheCounterAddsToTheStep) {
  const DeviceArray<std::int64_t> counter(context(), std::int64_t{40});
  const RandomKey early{9, RandomStream::test, 2}, late{9, RandomStream::test, 42};
  const DeviceTensor a = empty(context(), DType::f64, {65}), b = empty(context(), DType::f64, {65});
  ops().random_uniform(a, early, 0, 1, counter.address());
  ops().random_uniform(b, late, 0, 1, nullptr);
  EXPECT_MATRICES_IDENTICAL(download(context(), a), download(context(), b));
  ops().random_normal(a, early, counter.address());
  ops().random_normal(b, late, nullptr);
  EXPECT_MATRICES_IDENTICAL(download(context(), a), download(context(), b));
}

std::vector<double> draw(const RandomKey& key, std::int64_t n, bool normal) {
  Context context;
  const DeviceTensor y = empty(context, DType::f64, {n});
  if (normal) {
    context.ops().random_normal(y, key, nullptr);
  } else {
    context.ops().random_uniform(y, key, 0, 1, nullptr);
  }
  return download(context, y).values;
}

double moment(const std::vector<double>& values, int power) {
  double sum = 0;
  for (const double value : values) sum += std::pow(value, power);
  return sum / static_cast<double>(values.size());
}

double correlation(const std::vector<double>& a, std::size_t first_a, const std::vector<double>& b, std::size_t first_b,
                   std::size_t step, std::size_t count) {
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += a[first_a + i * step] * b[first_b + i * step];
  return sum / static_cast<double>(count);
}

TEST(RandomDistributionTest, Normal) {
  constexpr std::int64_t kCount = 1000000;
  const RandomKey key{test_seed(), RandomStream::test, 3};
  std::vector<double> z = draw(key, kCount, true);
  const double root = std::sqrt(static_cast<double>(kCount));
  // Standard deviations of z, z^2, z^3, z^4: 1, sqrt 2, sqrt 15, sqrt 96.
  EXPECT_NEAR(moment(z, 1), 0, 5 / root);
  EXPECT_NEAR(moment(z, 2), 1, 5 * std::sqrt(2) / root);
  EXPECT_NEAR(moment(z, 3), 0, 5 * std::sqrt(15) / root);
  EXPECT_NEAR(moment(z, 4), 3, 5 * std::sqrt(96) / root);
  // Neighbours, the two of a pair, other steps, streams and seeds.
  const std::size_t half = kCount / 2;
  const double half_root = std::sqrt(static_cast<double>(half));
  EXPECT_NEAR(correlation(z, 0, z, 1, 2, half), 0, 5 / half_root);
  EXPECT_NEAR(correlation(z, 1, z, 2, 2, half - 1), 0, 5 / half_root);
  for (const RandomKey& other :
       {RandomKey{key.seed, key.stream, key.step + 1}, RandomKey{key.seed, RandomStream::evaluation, key.step},
        RandomKey{key.seed + 1, key.stream, key.step}}) {
    EXPECT_NEAR(correlation(z, 0, draw(other, kCount, true), 0, 1, kCount), 0, 5 / root);
  }
  // Beyond four deviations: 63 expected, Poisson.
  std::int64_t tail = 0;
  for (const double value : z) tail += std::abs(value) > 4 ? 1 : 0;
  const double expected_tail = kCount * std::erfc(4 / std::numbers::sqrt2);
  EXPECT_NEAR(static_cast<double>(tail), expected_tail, 5 * std::sqrt(expected_tail) + 1);
  // Kolmogorov-Smirnov: P(sqrt n D > 2.6) = 2 exp(-2 2.6^2) = 2.7e-6.
  std::sort(z.begin(), z.end());
  double distance = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double cdf = std::erfc(-z[i] / std::numbers::sqrt2) / 2;
    distance = std::max({distance, std::abs(cdf - static_cast<double>(i) / kCount),
                         std::abs(static_cast<double>(i + 1) / kCount - cdf)});
  }
  EXPECT_LT(distance * root, 2.6);
}

/// Largest plausible chi-square of `freedom` degrees: mean and 6 standard deviations, plus what the skewness adds for
/// few degrees (P < 1e-6 for freedom >= 1 by Laurent and Massart's bound with t = 14).
double chi_square_limit(double freedom) { return freedom + 2 * std::sqrt(14 * freedom) + 2 * 14; }

double chi_square(const std::vector<std::int64_t>& counts) {
  double total = 0, sum = 0;
  for (const std::int64_t count : counts) total += static_cast<double>(count);
  const double expected = total / static_cast<double>(counts.size());
  for (const std::int64_t count : counts)
    sum += (static_cast<double>(count) - expected) * (static_cast<double>(count) - expected);
  return sum / expected;
}

TEST(RandomDistributionTest, Uniform) {
  const std::vector<double> u = draw({test_seed(), RandomStream::test, 4}, 1000000, false);
  std::vector<std::int64_t> single(256), pairs(256);
  for (std::size_t i = 0; i < u.size(); i += 2) {
    ++single[static_cast<std::size_t>(u[i] * 256)];
    ++pairs[static_cast<std::size_t>(u[i] * 16) * 16 + static_cast<std::size_t>(u[i + 1] * 16)];
  }
  EXPECT_LT(chi_square(single), chi_square_limit(255));
  EXPECT_LT(chi_square(pairs), chi_square_limit(255));
}

// ---- shuffled batches
// -----------------------------------------------------------------------------------------------------

TEST(PermutationTest, IsABijectionOfAnySize) {
  for (const std::uint64_t size : {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 64, 65, 1009, 65536, 65537, 1000003}) {
    const formula::Permutation order = formula::permutation({test_seed(), RandomStream::data, 0}, 3, size);
    std::vector<bool> seen(size);
    for (std::uint64_t i = 0; i < size; ++i) {
      const std::uint64_t image = formula::permute(order, i);
      ASSERT_LT(image, size);
      ASSERT_FALSE(seen[image]) << "size " << size;
      seen[image] = true;
    }
  }
  const std::uint64_t huge = (std::uint64_t{1} << 62) + 12345;
  const formula::Permutation order = formula::permutation({test_seed(), RandomStream::data, 0}, 0, huge);
  std::set<std::uint64_t> images;
  for (std::uint64_t i = 0; i < 1000; ++i) images.insert(formula::permute(order, huge - 1 - i));
  EXPECT_EQ(images.size(), 1000U);
  EXPECT_LT(*images.rbegin(), huge);
}

/// Over many epochs each ordered pair of images of two positions is equally likely.
TEST(PermutationTest, EveryPairOfImagesIsEquallyLikely) {
  constexpr std::uint64_t kEpochs = 20000;
  for (const std::uint64_t size : {2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 23}) {
    for (const std::uint64_t second : {std::uint64_t{1}, size - 1}) {
      std::vector<std::int64_t> counts(size * size);
      for (std::uint64_t epoch = 0; epoch < kEpochs; ++epoch) {
        const auto order = formula::permutation({test_seed(), RandomStream::data, 0}, epoch, size);
        ++counts[formula::permute(order, 0) * size + formula::permute(order, second)];
      }
      std::vector<std::int64_t> possible;
      for (std::uint64_t i = 0; i < size * size; ++i) {
        if (i / size != i % size) {
          possible.push_back(counts[i]);
        } else {
          EXPECT_EQ(counts[i], 0);
        }
      }
      EXPECT_LT(chi_square(possible), chi_square_limit(static_cast<double>(possible.size()) - 1))
          << "size " << size << ", positions 0 and " << second;
    }
  }
}

HostMatrix numbered_table(std::int64_t rows, std::int64_t cols) {
  HostMatrix table(rows, cols);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) table(i, j) = static_cast<double>(i) + static_cast<double>(j) / 64;
  }
  return table;
}

TEST_P(RandomTest, BatchesRunThroughShuffledEpochs) {
  const RandomKey key{test_seed(), RandomStream::data, 0};
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const auto& [rows, cols, batch] :
         {std::array<std::int64_t, 3>{1, 3, 4}, {7, 2, 3}, {10, 33, 10}, {50, 1, 7}, {33, 65, 100}}) {
      const DeviceTensor table = upload(context(), numbered_table(rows, cols), dtype, 2);
      std::vector<std::int64_t> draws;
      for (std::int64_t b = 0; b < 3 * rows / batch + 2; ++b) {
        const DeviceTensor y = empty_matrix(context(), dtype, batch, cols, 1);
        const DeviceArray<std::int64_t> step(context(), b);
        ops().gather_batch(y, table, key, step.address());
        const HostMatrix got = download(context(), y);
        for (std::int64_t i = 0; i < batch; ++i) {
          const auto row = static_cast<std::int64_t>(got(i, 0));
          for (std::int64_t j = 0; j < cols; ++j) {
            ASSERT_EQ(got(i, j), static_cast<double>(row) + static_cast<double>(j) / 64);
          }
          draws.push_back(row);
        }
      }
      const auto size = static_cast<std::uint64_t>(rows);
      for (std::size_t g = 0; g < draws.size(); ++g) {
        const auto order = formula::permutation(key, g / size, size);
        ASSERT_EQ(draws[g], static_cast<std::int64_t>(formula::permute(order, g % size)));
      }
    }
  }
  const DeviceTensor none = empty(context(), DType::f32, {0, 3});
  ops().gather_batch(none, none, key, nullptr);
}

TEST(RandomCpuTest, SameBitsForAnyNumberOfThreads) {
  const TestDevice cpu("cpu");
  std::vector<std::vector<HostMatrix>> results;
  for (const int threads : {1, 2, 8}) {
    ContextOptions options;
    options.threads = threads;
    const std::unique_ptr<Context> context = cpu.make_context(options);
    const RandomKey key{test_seed(), RandomStream::data, 12};
    const DeviceTensor u = empty(*context, DType::f32, {100003}), z = empty(*context, DType::f32, {100003});
    const DeviceTensor y = empty(*context, DType::f32, {20000, 2});
    const DeviceTensor table = upload(*context, numbered_table(777, 2), DType::f32);
    context->ops().random_uniform(u, key, 0, 1, nullptr);
    context->ops().random_normal(z, key, nullptr);
    context->ops().gather_batch(y, table, key, nullptr);
    results.push_back({download(*context, u), download(*context, z), download(*context, y)});
  }
  for (const std::vector<HostMatrix>& result : results) {
    for (std::size_t i = 0; i < result.size(); ++i) EXPECT_MATRICES_IDENTICAL(result[i], results[0][i]);
  }
}

}  // namespace
}  // namespace bracket::test
