// Real data: the 8 x 8 digits (1,797 x 64) as vectors, an MLP pair with 16 latents. Needs BRACKET_DATA_DIR.
#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "bracket/preset.h"
#include "bracket/trainer.h"
#include "host/files/csv.h"
#include "host/picture/plots.h"

namespace bracket {
namespace {

constexpr std::int64_t kPixels = 64;

// The pixels, 0 to 16, without the label in the last column.
std::vector<double> read_digits(const std::string& path) {
  std::string text;
  gzFile file = gzopen(path.c_str(), "rb");
  if (!file) return {};
  char chunk[1 << 14];
  for (int count = 0; (count = gzread(file, chunk, sizeof chunk)) > 0;)
    text.append(chunk, static_cast<std::size_t>(count));
  gzclose(file);
  const Table table = parse_csv(text, path);
  std::vector<double> pixels;
  for (std::int64_t i = 0; i < table.rows; ++i) {
    const auto row = table.values.begin() + i * table.cols;
    pixels.insert(pixels.end(), row, row + kPixels);
  }
  return pixels;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST(Digits, AnMlpPairLearnsThemAsVectors) {
  const char* folder = std::getenv("BRACKET_DATA_DIR");
  if (!folder) GTEST_SKIP() << "BRACKET_DATA_DIR is not set: the digits are not at hand";
  const std::vector<double> pixels = read_digits(std::string(folder) + "/digits/digits.csv.gz");
  const auto rows = static_cast<std::int64_t>(pixels.size()) / kPixels;
  ASSERT_EQ(rows, 1797);

  const Dataset data = Dataset::from_rows(pixels, rows, kPixels);
  TrainerConfig config = make_preset("vectors", data, 0);
  EXPECT_EQ(config.generator.network.input_size, 16);
  config.total_steps = 400;
  Context context;
  Trainer trainer(context, config, data);
  trainer.run(400);
  const std::vector<StepRecord> reports = trainer.reports();
  ASSERT_EQ(reports.size(), 400U);
  for (const StepRecord& r : reports) ASSERT_TRUE(std::isfinite(r.lower_bound)) << r.step;

  // Shuffling the pixels of each image keeps every grey value and destroys what makes it a digit.
  std::vector<double> shuffled(pixels.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < kPixels; ++j) {
      shuffled[static_cast<std::size_t>(i * kPixels + j)] =
          pixels[static_cast<std::size_t>(i * kPixels + (j * 29 + 11) % kPixels)];
    }
  }
  const std::vector<double> real = trainer.energies(pixels, rows), wrong = trainer.energies(shuffled, rows);
  std::int64_t lower = 0;
  for (std::size_t i = 0; i < real.size(); ++i) lower += real[i] < wrong[i] ? 1 : 0;
  EXPECT_LT(mean(real), mean(wrong));
  EXPECT_GT(static_cast<double>(lower), 0.95 * static_cast<double>(rows))
      << "digits whose shuffled pixels look likelier";

  const std::vector<double> samples = trainer.samples(100, 1);
  ASSERT_EQ(samples.size(), 100U * kPixels);
  std::vector<float> grey;
  for (const double v : samples) grey.push_back(static_cast<float>(v / 16));
  const Image picture = sample_grid({.count = 100, .height = 8, .width = 8, .values = grey});
  EXPECT_EQ(decode_png(encode_png(picture)).width(), picture.width());
  // Samples are not all alike: their pixels vary like those of the data, within a factor of two.
  const auto spread = [](const std::vector<double>& values) {
    const double centre = mean(values);
    double sum = 0;
    for (const double v : values) sum += (v - centre) * (v - centre);
    return std::sqrt(sum / static_cast<double>(values.size()));
  };
  EXPECT_GT(spread(samples), 0.5 * spread(pixels));
  EXPECT_LT(spread(samples), 2.0 * spread(pixels));
}

}  // namespace
}  // namespace bracket
