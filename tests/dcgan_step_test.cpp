// One training iteration of DCGAN-32 against figures that PyTorch's autograd gave for it (parity/dcgan32_step.py
// --write stores them; where PyTorch is installed that script also compares live).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>

#include "tests/parity/dcgan32_figures.h"

namespace bracket::test {
namespace {

using nlohmann::json;

// Both sides compute in double. A sum of n terms of either sign rounds to about sqrt(n) 2^-53 of its norm; the longest
// chains here are 30 layers of sums of up to 8,192 terms: 30 sqrt(8192) 2^-53 = 3e-13. Dividing by differences of
// nearby singular values (LOBPCG) and by Adam's sqrt(v) + epsilon may cost three more digits.
constexpr double kTolerance = 1e-9;

json stored_figures() {
  std::ifstream file(DCGAN32_FIGURES);
  return json::parse(file).at("cases");
}

/// Relative difference, or infinity where there is none.
double difference(const json& ours, const json& theirs, double scale) {
  const double a = ours.get<double>(), b = theirs.get<double>();
  if (a == b) return 0;
  const double error = std::abs(a - b) / scale;
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

// A gradient may cancel to rounding (the last bias: 1/B from every row of data, -1/B from every fake), so differences
// are judged against no less than 1e-6 of the largest norm of their kind: rounding is 1e-16 of that.
double smallest_scale(const json& player, const std::string& kind) {
  double largest = 0;
  for (const json& tensor : player)
    if (tensor.contains(kind)) largest = std::max(largest, tensor.at(kind).at(0).get<double>());
  return 1e-6 * largest;
}

class DcganStep : public ::testing::TestWithParam<std::string> {};

TEST_P(DcganStep, EqualsPyTorch) {
  const json stored = stored_figures();
  ASSERT_TRUE(stored.contains(GetParam()));
  const json& theirs = stored.at(GetParam());
  const json ours = dcgan32_figures(GetParam());
  double worst = 0;
  const auto judge = [&](const std::string& name, const json& a, const json& b, double scale) {
    const double error = difference(a, b, scale);
    EXPECT_LE(error, kTolerance) << name << ": " << a << " against " << b;
    worst = std::max(worst, error);
  };
  ASSERT_EQ(ours.at("losses").size(), theirs.at("losses").size());
  for (const auto& [name, value] : theirs.at("losses").items())
    judge(name, ours.at("losses").at(name), value, std::abs(value.get<double>()));
  for (const char* player : {"energy", "generator"}) {
    ASSERT_EQ(ours.at(player).size(), theirs.at(player).size());
    for (const auto& [tensor, kinds] : theirs.at(player).items()) {
      ASSERT_TRUE(ours.at(player).contains(tensor)) << player << " has no tensor " << tensor;
      ASSERT_EQ(ours.at(player).at(tensor).size(), kinds.size()) << tensor;
      for (const auto& [kind, values] : kinds.items()) {
        const double scale = std::max(values.at(0).get<double>(), smallest_scale(theirs.at(player), kind));
        for (std::size_t i = 0; i < values.size(); ++i)
          judge(std::string(player) + ' ' + tensor + ' ' + kind + ' ' + std::to_string(i),
                ours.at(player).at(tensor).at(kind).at(i), values[i], scale);
      }
    }
  }
  std::cout << "largest relative difference " << worst << '\n';
}

std::string case_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Cases, DcganStep, ::testing::ValuesIn(dcgan32_cases()), case_name);

TEST(DcganCases, UnknownNameIsRefused) { EXPECT_ANY_THROW(dcgan32_figures("no such case")); }

}  // namespace
}  // namespace bracket::test
