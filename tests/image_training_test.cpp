// Training on images, and on data that is uploaded step by step.
#include <cmath>

#include "bracket/error.h"
#include "bracket/trainer.h"
#include "host/training/batch_table.h"
#include "tests/image_samples.h"
#include "tests/network_fixture.h"

namespace bracket::test {
namespace {

constexpr ImageShape kShape{3, 3, 5};
constexpr std::int64_t kImages = 23;

Dataset small_images() {
  const std::vector<std::uint8_t> pixels = random_pixels(kImages * kShape.size(), 4);
  return Dataset::from_images(pixels, kShape, kImages);
}

Dataset small_rows() {
  const HostMatrix rows = random_matrix(kImages, kShape.size(), 8, -1, 1);
  return Dataset::from_rows(rows.values, rows.rows, rows.cols);
}

// A batch of 7 of 23 rows, twice a step: epochs end inside batches.
TrainerConfig small_config() {
  TrainerConfig c;
  c.energy.network = {kShape.size(), {LinearSpec{8}, ActivationSpec{Activation::silu}, LinearSpec{1}}};
  c.generator.network = {3, {LinearSpec{8}, ActivationSpec{Activation::silu}, LinearSpec{kShape.size()}}};
  c.batch_size = 7;
  c.energy_steps = 2;
  c.total_steps = 100;
  c.seed = 3;
  return c;
}

// A convolutional pair with BatchNorm, masks, a residual layer and spectral normalisation.
TrainerConfig convolutional_config() {
  const ActivationSpec leaky{Activation::leaky_relu, 0.1}, relu{Activation::relu};
  const Conv2dSpec conv{.channels = 4, .kernel = 3, .padding = 1};
  Conv2dSpec normalised{.channels = 5, .kernel = 3, .stride = 2, .padding = 1};
  normalised.spectral_norm = true;
  TrainerConfig c = small_config();
  c.energy.network = {kShape.size(),
                      {conv, leaky, ResidualSpec{{conv, leaky}, {}}, normalised, leaky, FlattenSpec{}, LinearSpec{1}},
                      kShape};
  c.generator.network = {
      3,
      {LinearSpec{8 * 2 * 3}, UnflattenSpec{8, 2, 3}, BatchNormSpec{}, relu,
       ConvTranspose2dSpec{.channels = 3, .kernel = 3, .stride = 2, .padding = 1}, ActivationSpec{Activation::tanh}}};
  c.data.flip = true;
  return c;
}

std::vector<std::byte> bytes_of(const TrainerSnapshot& s) {
  std::vector<std::byte> all;
  for (const auto* tensors : {&s.energy, &s.generator, &s.optimizer}) {
    for (const auto& [name, tensor] : *tensors) all.insert(all.end(), tensor.bytes.begin(), tensor.bytes.end());
  }
  return all;
}

class ImageTrainingDevices : public OpsTest {
 protected:
  std::unique_ptr<Context> fresh() { return GetParam().make_context({}); }
};

TEST_P(ImageTrainingDevices, StreamedDataGivesTheSameBits) {
  if (IsSkipped() || HasFailure()) return;
  struct Case {
    Dataset data;
    bool flip, dequantise;
    DType dtype;
  };
  for (const Case& c : {Case{small_rows(), false, false, DType::f32}, Case{small_rows(), false, false, DType::f64},
                        Case{small_images(), false, false, DType::f32}, Case{small_images(), true, true, DType::f32},
                        Case{small_images(), true, false, DType::f64}}) {
    SCOPED_TRACE(c.data.name() + (c.flip ? " flipped" : "") + (c.dequantise ? " with noise" : ""));
    TrainerConfig config = small_config();
    config.dtype = c.dtype;
    config.data = {c.flip, c.dequantise, 0};
    auto a = fresh(), b = fresh();
    Trainer resident(*a, config, c.data);
    const std::int64_t bytes = kImages * kShape.size() * (c.data.is_images() ? 1 : dtype_bytes(c.dtype));
    config.data.device_bytes = bytes - 1;
    Trainer streamed(*b, config, c.data);
    // Two batches of 7 instead of 23 rows.
    EXPECT_EQ(streamed.memory_plan().data, resident.memory_plan().data - bytes / kImages * (kImages - 14));
    resident.run(5);
    const TrainerSnapshot middle = resident.snapshot();
    resident.run(4);
    streamed.run(9);
    const std::vector<std::byte> wanted = bytes_of(resident.snapshot());
    EXPECT_EQ(bytes_of(streamed.snapshot()), wanted);
    streamed.restore(middle);
    streamed.run(4);
    EXPECT_EQ(bytes_of(streamed.snapshot()), wanted);
    b->pool().check_guards();
  }
}

TEST_P(ImageTrainingDevices, FlipsAndNoiseChangeTheTraining) {
  if (IsSkipped() || HasFailure()) return;
  std::vector<std::vector<std::byte>> results;
  for (const DataConfig& data : {DataConfig{}, DataConfig{true, false, 0}, DataConfig{false, true, 0}}) {
    TrainerConfig config = small_config();
    config.data = data;
    auto context = fresh();
    Trainer trainer(*context, config, small_images());
    trainer.run(2);
    results.push_back(bytes_of(trainer.snapshot()));
  }
  EXPECT_NE(results[0], results[1]);
  EXPECT_NE(results[0], results[2]);
  EXPECT_NE(results[1], results[2]);
}

// Noise spreads a pixel evenly over one level about the value that evaluation gives it. The mean of n uniform values of
// width w has the standard deviation w / sqrt(12 n): 6 of them are exceeded once in 10^9 seeds.
TEST_P(ImageTrainingDevices, NoiseIsCentredOnTheValuesOfEvaluation) {
  if (IsSkipped() || HasFailure()) return;
  constexpr std::int64_t kRows = 4096;
  constexpr std::uint8_t kPixel = 200;
  TrainerConfig config = small_config();
  config.dtype = DType::f64;
  config.data.dequantise = true;
  auto context = fresh();
  const std::vector<std::uint8_t> pixels(static_cast<std::size_t>(kImages * kShape.size()), kPixel);
  const Dataset data = Dataset::from_images(pixels, kShape, kImages);
  const BatchTable table(*context, config, data);
  const Buffer memory = context->pool().allocate(kRows * kShape.size() * dtype_bytes(DType::f64));
  const Tensor y(memory.data(), DType::f64, {kRows, kShape.size()});
  context->ops().gather_images(y, table.source().table, {5, RandomStream::data, 0}, nullptr, *table.source().images);
  double sum = 0;
  for (const double value : to_host(context->ops(), y)) {
    const double levels = (value - (kPixelScale * kPixel + kPixelShift)) / kPixelScale;
    ASSERT_LE(std::abs(levels), 0.5 + 1e-12);
    sum += levels;
  }
  const auto count = static_cast<double>(kRows * kShape.size());
  EXPECT_LT(std::abs(sum / count), 6 / std::sqrt(12 * count));
}

TEST_P(ImageTrainingDevices, UploadsArriveInOrder) {
  if (IsSkipped() || HasFailure()) return;
  auto context = fresh();
  Ops& ops = context->ops();
  constexpr std::int64_t kBytes = 1000;
  const std::unique_ptr<UploadQueue> queue = ops.make_upload_queue(kBytes);
  const Buffer device = context->pool().allocate(5 * kBytes);
  for (int i = 0; i < 5; ++i) {
    std::memset(queue->next_slot(), i + 1, kBytes);
    queue->upload(static_cast<std::byte*>(device.data()) + i * kBytes, kBytes);
  }
  queue->upload(device.data(), 0);
  std::vector<std::uint8_t> host(5 * kBytes);
  ops.copy_bytes_to_host(host.data(), device.data(), 5 * kBytes);
  for (std::size_t i = 0; i < host.size(); ++i) ASSERT_EQ(host[i], i / kBytes + 1) << i;
}

// Two steps in single precision on every device against double precision on the CPU. Losses are sums of at most 75
// terms behind 8 contractions, 8 sqrt(75) 2^-24 = 4e-6 of the values inside, times about 20 for what cancels and what
// BatchNorm divides by. The log-volume also loses the condition of J, below 30 here.
TEST_P(ImageTrainingDevices, ConvolutionalStepsFollowTheDoubleReference) {
  if (IsSkipped() || HasFailure()) return;
  TrainerConfig config = convolutional_config();
  auto context = fresh();
  Trainer single(*context, config, small_images());
  config.dtype = DType::f64;
  TestDevice reference("cpu");
  Trainer exact(reference.context(), config, small_images());
  single.run(2);
  exact.run(2);
  const std::vector<StepRecord> got = single.reports(), want = exact.reports();
  ASSERT_EQ(got.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(got[i].energy_data, want[i].energy_data, 1e-4);
    EXPECT_NEAR(got[i].energy_samples, want[i].energy_samples, 1e-4);
    EXPECT_NEAR(got[i].penalty, want[i].penalty, 1e-3 * want[i].penalty);
    EXPECT_NEAR(got[i].log_volume, want[i].log_volume, 3e-3);
    EXPECT_NEAR(got[i].loss_generator, want[i].loss_generator, 3e-3);
  }
  EXPECT_NE(want[0].energy_data, want[1].energy_data);
  context->pool().check_guards();
}

INSTANTIATE_TEST_SUITE_P(Devices, ImageTrainingDevices, ::testing::ValuesIn(test_devices()), device_name);

TEST(ImageTraining, ImagesTrainAsTheSameNumbersDo) {
  const Dataset images = small_images();
  std::vector<double> values;
  for (const std::uint8_t pixel : images.pixels()) values.push_back(kPixelScale * pixel + kPixelShift);
  TrainerConfig config = small_config();
  config.dtype = DType::f64;
  Context a, b;
  Trainer as_images(a, config, images), as_rows(b, config, Dataset::from_rows(values, kImages, kShape.size()));
  as_images.run(3);
  as_rows.run(3);
  EXPECT_EQ(as_images.reports().back().energy_data, as_rows.reports().back().energy_data);
}

TEST(ImageTraining, InconsistentConfigurationsAreRefused) {
  Context context;
  TrainerConfig config = small_config();
  const auto refused = [&](const DataConfig& data, const std::string& part) {
    config.data = data;
    try {
      Trainer(context, config, small_rows());
      ADD_FAILURE() << "accepted";
    } catch (const InvalidArgument& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused({true, false, 0}, "data.flip");
  refused({false, true, 0}, "data.dequantise");
  refused({false, false, -1}, "data.device_bytes is -1");
}

}  // namespace
}  // namespace bracket::test
