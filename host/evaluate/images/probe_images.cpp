#include "host/evaluate/images/probe_images.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "bracket/error.h"
#include "bracket/random.h"

namespace bracket {
namespace {

enum Step : std::uint64_t { kNoise, kConstants, kPairs };  // of stream `probes`

// Element `draw` of one kind, uniform in (-1, 1).
double symmetric_uniform(std::uint64_t seed, Step step, std::uint64_t draw) {
  return 2 * random_uniform({seed, RandomStream::probes, step}, draw) - 1;
}

}  // namespace

std::vector<double> noise_images(const ImageShape& image, std::int64_t count, std::uint64_t seed) {
  std::vector<double> values(static_cast<std::size_t>(count * image.size()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = symmetric_uniform(seed, kNoise, i);
  return values;
}

std::vector<double> constant_images(const ImageShape& image, std::int64_t count, std::uint64_t seed) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(count * image.size()));
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t pixel = 0; pixel < image.pixels(); ++pixel)
      for (std::int64_t c = 0; c < image.channels; ++c)
        values.push_back(symmetric_uniform(seed, kConstants, static_cast<std::uint64_t>(i * image.channels + c)));
  return values;
}

std::vector<double> averaged_pairs(std::span<const double> images, std::int64_t rows, std::int64_t cols,
                                   std::uint64_t seed) {
  if (rows < 2 || cols < 1 || static_cast<std::int64_t>(images.size()) != rows * cols)
    throw InvalidArgument("averaged_pairs: needs at least two images, got " + std::to_string(images.size()) +
                          " values for " + std::to_string(rows) + " rows of " + std::to_string(cols));
  const double u = random_uniform({seed, RandomStream::probes, kPairs}, 0);
  const std::int64_t shift = 1 + static_cast<std::int64_t>(u * static_cast<double>(rows - 1));
  std::vector<double> values(images.size());
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < cols; ++j)
      values[static_cast<std::size_t>(i * cols + j)] =
          0.5 * (images[static_cast<std::size_t>(i * cols + j)] +
                 images[static_cast<std::size_t>((i + shift) % rows * cols + j)]);
  return values;
}

std::vector<double> latent_path(std::span<const double> a, std::span<const double> b, std::int64_t steps) {
  if (steps < 2 || a.size() != b.size())
    throw InvalidArgument("latent_path: needs at least 2 steps between latents of one size, got " +
                          std::to_string(steps) + " between " + std::to_string(a.size()) + " and " +
                          std::to_string(b.size()) + " values");
  const double length_a = std::sqrt(std::inner_product(a.begin(), a.end(), a.begin(), 0.0));
  const double length_b = std::sqrt(std::inner_product(b.begin(), b.end(), b.begin(), 0.0));
  const double cosine = std::inner_product(a.begin(), a.end(), b.begin(), 0.0) / (length_a * length_b);
  const double angle = std::acos(std::clamp(cosine, -1.0, 1.0));
  // sin(angle) below 1e-6 has lost half of its digits, and the circle is the line there unless a and b are opposite.
  const bool circle = std::isfinite(cosine) && std::sin(angle) > 1e-6;
  std::vector<double> path;
  for (std::int64_t k = 0; k < steps; ++k) {
    const double t = static_cast<double>(k) / static_cast<double>(steps - 1);
    double weight_a = 1 - t, weight_b = t;
    if (circle && k > 0 && k < steps - 1) {
      const double length = std::pow(length_a, 1 - t) * std::pow(length_b, t);
      weight_a = length / length_a * std::sin((1 - t) * angle) / std::sin(angle);
      weight_b = length / length_b * std::sin(t * angle) / std::sin(angle);
    }
    for (std::size_t j = 0; j < a.size(); ++j) path.push_back(weight_a * a[j] + weight_b * b[j]);
  }
  return path;
}

}  // namespace bracket
