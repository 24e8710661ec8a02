#include "bracket/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "bracket/error.h"
#include "host/files/safetensors.h"
#include "host/run/checkpoint_files.h"
#include "host/run/manifest.h"
#include "tests/run_fixture.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

using CheckpointTest = RunFolderTest;

void expect_equal(const SnapshotTensors& a, const SnapshotTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    const SnapshotTensor& other = b.at(name);
    EXPECT_EQ(tensor.dtype, other.dtype) << name;
    EXPECT_EQ(tensor.shape, other.shape) << name;
    EXPECT_TRUE(tensor.bytes == other.bytes) << name;
  }
}

void expect_equal(const TrainerSnapshot& a, const TrainerSnapshot& b) {
  expect_equal(a.energy, b.energy);
  expect_equal(a.generator, b.generator);
  expect_equal(a.energy_average, b.energy_average);
  expect_equal(a.generator_average, b.generator_average);
  expect_equal(a.optimizer, b.optimizer);
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.energy_updates, b.energy_updates);
  EXPECT_EQ(a.generator_updates, b.generator_updates);
  EXPECT_EQ(a.penalty_weight, b.penalty_weight);
  EXPECT_EQ(a.gap_average, b.gap_average);
}

TEST_F(CheckpointTest, ComesBackBitForBit) {
  SmallTraining training;
  training.trainer.run(5);
  save_checkpoint(at("deep/er/step"), training.trainer);
  const Checkpoint checkpoint = read_checkpoint(at("deep/er/step"));
  expect_equal(training.trainer.snapshot(), checkpoint.snapshot);
  EXPECT_EQ(to_json(checkpoint.config), to_json(training.config));

  SmallTraining other;
  restore_checkpoint(other.trainer, checkpoint);
  EXPECT_EQ(other.trainer.step(), 5);
  training.trainer.run(4);
  other.trainer.run(4);
  expect_equal(training.trainer.snapshot(), other.trainer.snapshot());
}

TEST_F(CheckpointTest, TrailingSlashesDoNotMatter) {
  SmallTraining training;
  training.trainer.run(1);
  for (const char* ending : {"", "/", "//", "/.", "/./"}) {
    const fs::path folder = at("a/b");
    save_checkpoint(folder.string() + ending, training.trainer);  // new
    save_checkpoint(folder.string() + ending, training.trainer);  // replaced
    EXPECT_EQ(read_checkpoint(folder).snapshot.step, 1) << ending;
    EXPECT_EQ(tree(folder).size(), kCheckpointFiles.size() + 1) << ending;
    EXPECT_EQ(tree(folder_).size(), kCheckpointFiles.size() + 1) << ending;  // nothing beside it
    fs::remove_all(at("a"));
  }
}

TEST_F(CheckpointTest, DoublePrecisionComesBackToo) {
  TrainerConfig config = small_config(small_table());
  config.dtype = DType::f64;
  SmallTraining training(config);
  training.trainer.run(2);
  save_checkpoint(at("c"), training.trainer);
  expect_equal(training.trainer.snapshot(), read_checkpoint(at("c")).snapshot);
}

TEST_F(CheckpointTest, EqualStatesGiveEqualBytes) {
  for (const char* name : {"a", "b"}) {
    SmallTraining training;
    training.trainer.run(3);
    save_checkpoint(at(name), training.trainer);
  }
  EXPECT_EQ(tree(at("a")), tree(at("b")));
  EXPECT_EQ(tree(at("a")).size(), kCheckpointFiles.size() + 1);
}

TEST_F(CheckpointTest, BatchNormLayersCountTheirPasses) {
  TrainerConfig config = small_config(small_table());
  config.generator.network.layers = {LinearSpec{.features = 6}, BatchNormSpec{}, ActivationSpec{},
                                     LinearSpec{.features = 3}};
  config.energy_steps = 2;
  SmallTraining training(config);
  training.trainer.run(3);
  save_checkpoint(at("c"), training.trainer);
  for (const char* name : {kGeneratorName, kGeneratorAverageName}) {
    std::int64_t count = -1;
    for (const StoredTensor& tensor : read_safetensors(at("c") / name).tensors) {
      if (tensor.name != "layers.1.num_batches_tracked") continue;
      EXPECT_EQ(tensor.type, StoredType::i64);
      EXPECT_TRUE(tensor.shape.empty());
      std::memcpy(&count, tensor.bytes.data(), sizeof count);
    }
    EXPECT_EQ(count, 3 * 2 + 3) << name;
  }
  SmallTraining other(config);
  restore_checkpoint(other.trainer, read_checkpoint(at("c")));
  expect_equal(training.trainer.snapshot(), other.trainer.snapshot());
}

// Networks of 2 x 3 pixels of 2 channels, every tensor of which that can be is in another order in memory.
TrainerConfig image_config() {
  const ImageShape shape{2, 2, 3};
  TrainerConfig config;
  config.energy.network = {
      shape.size(),
      {Conv2dSpec{.channels = 3, .kernel = 2, .spectral_norm = true}, ActivationSpec{Activation::leaky_relu},
       FlattenSpec{}, LinearSpec{.features = 4, .spectral_norm = true}, ActivationSpec{Activation::silu},
       LinearSpec{.features = 1}},
      shape};
  config.generator.network = {
      4,
      {LinearSpec{.features = 12}, UnflattenSpec{2, 2, 3}, BatchNormSpec{}, ActivationSpec{Activation::relu},
       ResidualSpec{{Conv2dSpec{.channels = 2, .kernel = 3, .padding = 1}}, {}},
       ConvTranspose2dSpec{.channels = 2, .kernel = 3, .padding = 1}, ActivationSpec{Activation::tanh}}};
  config.batch_size = 5;
  config.total_steps = 60;
  return config;
}

Dataset image_rows() {
  std::vector<double> values(240);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>((i * 37 + 11) % 101) / 50 - 1;
  return Dataset::from_rows(values, 20, 12);
}

TEST_F(CheckpointTest, ImagesAreStoredInPyTorchsOrder) {
  Context context{SmallTraining::guarded()};
  const Dataset data = image_rows();
  Trainer trainer(context, image_config(), data), other(context, image_config(), data);
  trainer.run(3);
  save_checkpoint(at("c"), trainer);
  const Checkpoint checkpoint = read_checkpoint(at("c"));
  std::int64_t reordered = 0;
  for (const auto& [network, parameters, tensors] :
       {std::tuple{&trainer.energy_network(), trainer.energy_parameters(Weights::raw), &checkpoint.snapshot.energy},
        std::tuple{&trainer.generator_network(), trainer.generator_parameters(Weights::raw),
                   &checkpoint.snapshot.generator}}) {
    for (const ParameterInfo& info : network->parameters()) {
      const auto* memory = (info.buffer ? parameters.buffers : parameters.values).as<float>() + info.offset;
      const SnapshotTensor& stored = tensors->at(info.name);
      EXPECT_EQ(stored.shape, info.shape);
      std::vector<float> file(stored.bytes.size() / sizeof(float));
      std::memcpy(file.data(), stored.bytes.data(), stored.bytes.size());
      for (std::int64_t i = 0; i < info.size(); ++i)
        ASSERT_EQ(file[static_cast<std::size_t>(i)], memory[info.order.memory_element(i)]) << info.name << ' ' << i;
      reordered += info.order.same() ? 0 : 1;
    }
  }
  // Energy: the convolution's weight and v, the first linear layer's weight and v. Generator: the linear layer's weight
  // and bias, two weights of convolutions.
  EXPECT_EQ(reordered, 8);

  restore_checkpoint(other, checkpoint);
  expect_equal(trainer.snapshot(), other.snapshot());
  trainer.run(3);
  other.run(3);
  expect_equal(trainer.snapshot(), other.snapshot());
}

TEST_F(CheckpointTest, NonFiniteValuesAreNeverWritten) {
  SmallTraining training;
  training.trainer.run(2);
  const TrainerSnapshot good = training.trainer.snapshot();
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (SnapshotTensors TrainerSnapshot::*part :
         {&TrainerSnapshot::energy, &TrainerSnapshot::generator, &TrainerSnapshot::energy_average,
          &TrainerSnapshot::generator_average, &TrainerSnapshot::optimizer}) {
      TrainerSnapshot bad = good;
      auto& [name, tensor] = *(bad.*part).begin();
      std::memcpy(tensor.bytes.data() + sizeof poison, &poison, sizeof poison);
      expect_error<Diverged>([&] { write_checkpoint(at("c"), bad, training.config); }, {name + "[1]", "step 2"});
    }
  }
  TrainerSnapshot bad = good;
  bad.penalty_weight = std::nan("");
  expect_error<Diverged>([&] { write_checkpoint(at("c"), bad, training.config); }, {"penalty weight", "step 2"});
  EXPECT_TRUE(names().empty());
}

TEST_F(CheckpointTest, EveryFailingCallLeavesTheOldOneOrTheNewOne) {
  SmallTraining training;
  training.trainer.run(1);
  const TrainerSnapshot old_state = training.trainer.snapshot();
  training.trainer.run(1);
  const TrainerSnapshot new_state = training.trainer.snapshot();

  FailingCalls counter(0, 0);
  write_checkpoint(at("count/step_00000002"), new_state, training.config, counter);
  ASSERT_GT(counter.num_calls(), 30);  // seven files at four calls each, and the folders
  for (int fail_at = 1; fail_at <= counter.num_calls(); ++fail_at) {
    const fs::path parent = at("p" + std::to_string(fail_at));
    write_checkpoint(parent / "step_00000001", old_state, training.config);
    FailingCalls calls(fail_at, ENOSPC);
    try {
      write_checkpoint(parent / "step_00000002", new_state, training.config, calls);
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos) << error.what();
    }
    expect_equal(read_checkpoint(parent / "step_00000001").snapshot, old_state);
    if (fs::exists(parent / "step_00000002")) {
      expect_equal(read_checkpoint(parent / "step_00000002").snapshot, new_state);
    }
    for (const auto& entry : fs::directory_iterator(parent)) {
      EXPECT_FALSE(entry.path().filename().string().starts_with(".bracket-")) << "left over after call " << fail_at;
    }
  }
}

TEST_F(CheckpointTest, InterruptedCallsAreRepeated) {
  SmallTraining training;
  const TrainerSnapshot state = training.trainer.snapshot();
  FailingCalls counter(0, 0);
  write_checkpoint(at("count/c"), state, training.config, counter);
  for (int fail_at = 1; fail_at <= counter.num_calls(); ++fail_at) {
    FailingCalls calls(fail_at, EINTR);
    const fs::path folder = at("i" + std::to_string(fail_at)) / "c";
    write_checkpoint(folder, state, training.config, calls);
    expect_equal(read_checkpoint(folder).snapshot, state);
  }
}

TEST_F(CheckpointTest, AnotherCheckpointIsReplacedAndNothingElse) {
  SmallTraining training;
  save_checkpoint(at("c"), training.trainer);
  fs::remove(at("c") / kStateName);  // a damaged one, too
  training.trainer.run(1);
  save_checkpoint(at("c"), training.trainer);
  EXPECT_EQ(read_checkpoint(at("c")).snapshot.step, 1);

  put(at("c") / "thesis.txt", "years of work");
  expect_error<DataError>([&] { save_checkpoint(at("c"), training.trainer); }, {"thesis.txt", "choose another"});
  EXPECT_EQ(content(at("c") / "thesis.txt"), "years of work");
  put(at("file"), "x");
  expect_error<DataError>([&] { save_checkpoint(at("file"), training.trainer); }, {"not a folder"});
  expect_error<DataError>([&] { save_checkpoint(at("file/c"), training.trainer); }, {"file"});
}

TEST_F(CheckpointTest, EveryFlippedBitIsRefused) {
  SmallTraining training;
  training.trainer.run(1);
  save_checkpoint(at("c"), training.trainer);
  int tried = 0;
  for (const auto& [name, text] : tree(at("c"))) {
    const fs::path path = at("c") / name;
    // Small files at every byte of their head, large ones spread over their length.
    const std::size_t stride = std::max<std::size_t>(1, text.size() / 24);
    for (std::size_t i = 0; i < text.size(); i += stride) {
      flip(path, i, static_cast<unsigned>(i % 8));
      expect_error<CheckpointError>([&] { read_checkpoint(at("c")); }, {path.filename().string()});
      put(path, text);
      ++tried;
    }
  }
  EXPECT_GE(tried, 7 * 20);
  EXPECT_EQ(read_checkpoint(at("c")).snapshot.step, 1);
}

TEST_F(CheckpointTest, EveryByteOfTheManifestCounts) {
  SmallTraining training;
  save_checkpoint(at("c"), training.trainer);
  const fs::path path = at("c") / kManifestName;
  const std::string text = content(path);
  for (std::size_t i = 0; i < text.size(); ++i) {
    flip(path, i, static_cast<unsigned>(i % 7));
    expect_error<CheckpointError>([&] { read_checkpoint(at("c")); }, {});
  }
  put(path, text + " ");
  expect_error<CheckpointError>([&] { read_checkpoint(at("c")); }, {kManifestName, "spelt"});
  put(path, std::string(100000, ' ') + text);
  expect_error<CheckpointError>([&] { read_checkpoint(at("c")); }, {kManifestName, "at most"});
  std::string later = text;
  later.replace(later.find("\"version\": 1"), 12, "\"version\": 2");
  put(path, later);
  expect_error<CheckpointError>([&] { read_checkpoint(at("c")); }, {"format version 2", "reads version 1"});
}

TEST_F(CheckpointTest, TruncatedAbsentAndForeignFilesAreRefused) {
  SmallTraining training;
  save_checkpoint(at("c"), training.trainer);
  for (const auto& [name, text] : tree(at("c"))) {
    const fs::path path = at("c") / name;
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, text.size() / 2, text.size() - 1}) {
      put(path, text.substr(0, size));
      expect_error<CheckpointError>([&] { read_checkpoint(at("c")); }, {name});
    }
    fs::remove(path);
    expect_error<CheckpointError>([&] { read_checkpoint(at("c")); }, {name, "absent"});
    fs::create_directory(path);
    expect_error<CheckpointError>([&] { read_checkpoint(at("c")); }, {name, "not a regular file"});
    fs::remove(path);
    put(path, text);
  }
  expect_error<CheckpointError>([&] { read_checkpoint(at("nowhere")); }, {"nowhere", "absent"});
}

TEST_F(CheckpointTest, OtherNetworksAreNamed) {
  SmallTraining training;
  save_checkpoint(at("c"), training.trainer);
  const Checkpoint checkpoint = read_checkpoint(at("c"));

  TrainerConfig config = training.config;
  config.dtype = DType::f64;
  SmallTraining precise(config);
  expect_error<CheckpointError>([&] { restore_checkpoint(precise.trainer, checkpoint); }, {"precision", "f32", "f64"});

  config = training.config;
  for (LayerSpec& layer : config.energy.network.layers) {
    if (auto* linear = std::get_if<LinearSpec>(&layer); linear != nullptr && linear->features > 1) {
      linear->features += 1;
      break;
    }
  }
  SmallTraining wider(config);
  expect_error<CheckpointError>([&] { restore_checkpoint(wider.trainer, checkpoint); },
                                {"energy.network.layers.", ".features", "saved configuration"});

  config = training.config;
  config.energy.optimizer.lr *= 2;  // not part of the networks
  SmallTraining quicker(config);
  restore_checkpoint(quicker.trainer, checkpoint);
}

TEST_F(CheckpointTest, FoldersAreListedNewestFirst) {
  EXPECT_TRUE(list_checkpoints(at("absent")).empty());
  for (const char* name :
       {"step_00000005", "step_00000040", "step_123456789", "step_7", "step_", "step_0000000x", "a"}) {
    fs::create_directory(at(name));
  }
  std::vector<std::int64_t> steps;
  for (const CheckpointEntry& entry : list_checkpoints(folder_)) {
    steps.push_back(entry.step);
    EXPECT_EQ(entry.folder, checkpoint_folder(folder_, entry.step));
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{123456789, 40, 5}));
}

TEST_F(CheckpointTest, RotationKeepsTheNewestUpToTheStep) {
  const auto make = [&](std::initializer_list<int> steps) {
    for (const int step : steps) fs::create_directory(checkpoint_folder(folder_, step));
  };
  make({1, 2, 3, 4, 9});
  rotate_checkpoints(folder_, 4, 2);
  EXPECT_EQ(names(), (std::vector<std::string>{"step_00000003", "step_00000004"}));
  make({5, 6});
  rotate_checkpoints(folder_, 4, 1);  // gone back to step 4: what came after it is given up
  EXPECT_EQ(names(), (std::vector<std::string>{"step_00000004"}));
  rotate_checkpoints(folder_, 4, 1);
  EXPECT_EQ(names(), (std::vector<std::string>{"step_00000004"}));
}

}  // namespace
}  // namespace bracket
