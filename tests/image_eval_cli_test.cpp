// Evaluation of runs on images, from outside: eval, classifier, refined samples.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "host/picture/image.h"
#include "tests/image_samples.h"
#include "tests/program_fixture.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kSide = 28;

class ImageEvalCli : public ProgramTest {
 protected:
  ImageEvalCli() {
    ::unsetenv("BRACKET_DATA_DIR");
    put_split("mnist", "train", 40, 1);
    put_split("mnist", "t10k", 30, 2);
    put_split("fashion-mnist", "train", 25, 3);
  }

  void put_split(const std::string& set, const std::string& split, std::uint32_t count, std::uint64_t seed) {
    fs::create_directories(at("sets/" + set));
    std::string labels;
    for (std::uint32_t i = 0; i < count; ++i) labels += static_cast<char>(i % 4);
    put(at("sets/" + set + "/" + split + "-images-idx3-ubyte"),
        idx_file({count, kSide, kSide}, text_of(random_pixels(count * kSide * kSide, seed))));
    put(at("sets/" + set + "/" + split + "-labels-idx1-ubyte"), idx_file({count}, labels));
  }

  std::string path(const std::string& name) const { return at(name).string(); }

  std::string train_run(const std::string& data, const std::string& name) const {
    return "train --preset mnist --width 0.1 --device cpu --threads 1 --steps 5 --set batch_size=2 --data " + data +
           " --data-dir " + path("sets") + " --out " + path(name);
  }

  std::string eval_run(const std::string& name, const std::string& more) const {
    return "eval " + path(name) + " --device cpu --samples 20 --jacobians 2 " + more;
  }
};

TEST_F(ImageEvalCli, EveryFigureOfARun) {
  expect_success(train_run("mnist", "run"));
  const ProgramResult made = expect_success("classifier --device cpu --epochs 2 --seed 5 --data-dir " + path("sets") +
                                            " --batch-size 20 --out " + path("c.safetensors"));
  EXPECT_NE(made.out.find("epoch 2 of 2"), std::string::npos) << made.out;
  EXPECT_NE(made.out.find("4 classes"), std::string::npos) << made.out;
  EXPECT_NE(made.out.find("on 30 test images of 'mnist'"), std::string::npos) << made.out;

  const ProgramResult result = expect_success(
      eval_run("run", "--json --ood fashion-mnist --classifier " + path("c.safetensors") + " --pictures " + path("p")));
  EXPECT_NE(result.err.find("holds the split 'train' only"), std::string::npos) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["data"], "mnist");
  EXPECT_EQ(json["test_images_are_training_rows"], false);
  EXPECT_EQ(json["jacobians"], 2);
  for (const char* name : {"samples", "noise", "constants", "interpolations", "fashion-mnist"}) {
    ASSERT_TRUE(json["energies"].contains(name)) << name;
    EXPECT_GE(json["energies"][name]["auroc"].get<double>(), 0) << name;
    EXPECT_LE(json["energies"][name]["auroc"].get<double>(), 1) << name;
  }
  EXPECT_EQ(json["classes"], 4);
  for (const char* key : {"feature_frechet", "f8", "f1_8", "modes", "kl", "lower_bound_on_manifold"})
    EXPECT_TRUE(json[key].is_number()) << key;
  EXPECT_FALSE(json.contains("lower_bound"));
  for (const char* name : {"energies.png", "neighbours.png", "interpolations.png"})
    EXPECT_GT(decode_png(bytes_of(content(at("p") / name))).width(), 0) << name;

  const std::string text = expect_success(eval_run("run", "")).out;
  EXPECT_NE(text.find("AUROC"), std::string::npos) << text;
  EXPECT_NE(text.find("needs --classifier"), std::string::npos) << text;
}

TEST_F(ImageEvalCli, TrainingImagesStandInWhereThereAreNoOthers) {
  expect_success(train_run("fashion-mnist", "run"));
  const ProgramResult result = expect_success(eval_run("run", "--json"));
  EXPECT_NE(result.err.find("training images stand in"), std::string::npos) << result.err;
  EXPECT_EQ(nlohmann::json::parse(result.out)["test_images_are_training_rows"], true);
  // A file of images is one set, whatever the split asked for.
  const std::string file = path("sets/mnist/train-images-idx3-ubyte");
  expect_success(train_run(file, "of_file"));
  EXPECT_EQ(nlohmann::json::parse(expect_success(eval_run("of_file", "--json")).out)["test_images_are_training_rows"],
            true);
}

// Damaged is not absent: nothing stands in for it.
TEST_F(ImageEvalCli, DamagedTestImagesAreAnError) {
  expect_success(train_run("mnist", "run"));
  put(at("sets/fashion-mnist/t10k-images-idx3-ubyte"), std::string("\0\0\x08\x03\0\0", 6));
  expect_failure(eval_run("run", "--ood fashion-mnist"), 3, {"t10k-images-idx3-ubyte"});
  put(at("sets/mnist/t10k-images-idx3-ubyte"), std::string("\0\0\x08\x03\0\0", 6));
  expect_failure(eval_run("run", ""), 3, {"t10k-images-idx3-ubyte"});
}

TEST_F(ImageEvalCli, RefinedSamples) {
  expect_success(train_run("mnist", "run"));
  const std::string sample = "sample " + path("run") + " --device cpu -n 20 --seed 4 -o ";
  expect_success(sample + path("plain.npy"));
  expect_success(sample + path("zero.npy") + " --refine 0");
  expect_success(sample + path("data.npy") + " --refine 6");
  expect_success(sample + path("again.npy") + " --refine 6 --threads 3");
  expect_success(sample + path("latent.npy") + " --refine 6 --refine-space latent");
  EXPECT_EQ(content(at("plain.npy")), content(at("zero.npy")));
  EXPECT_EQ(content(at("data.npy")), content(at("again.npy")));
  EXPECT_NE(content(at("plain.npy")), content(at("data.npy")));
  EXPECT_NE(content(at("latent.npy")), content(at("data.npy")));
  EXPECT_NE(content(at("latent.npy")), content(at("plain.npy")));
  expect_failure(sample + path("x.npy") + " --refine -1", 2, {"--refine", "-1"});
  expect_failure(sample + path("x.npy") + " --refine 6 --refine-space pixels", 2, {"--refine-space", "pixels"});
  EXPECT_FALSE(fs::exists(at("x.npy")));
}

TEST_F(ImageEvalCli, WrongUseInOneLine) {
  expect_success(train_run("mnist", "run"));
  expect_failure(eval_run("run", "--ood digits"), 2, {"digits"});
  expect_failure(eval_run("run", "--ood rings"), 2, {"rings", "no images"});
  expect_failure(eval_run("run", "--classifier " + path("absent")), 3, {"absent"});
  expect_failure(eval_run("run", "--classifier " + path("run/checkpoints/step_00000005/energy.safetensors")), 7,
                 {"energy.safetensors", "no image classifier", "bracket classifier"});
  expect_failure(eval_run("run", "--jacobians 1"), 2, {"--jacobians", "1"});
  expect_failure("classifier --out " + path("c.npy"), 2, {"c.npy", ".safetensors"});
  expect_failure("classifier --data rings --out " + path("c.safetensors"), 2, {"rings", "no images"});
  expect_failure("classifier --epochs 0 --out " + path("c.safetensors"), 2, {"--epochs", "0"});
  expect_success(small_run("table"));
  expect_failure("eval " + path("table") + " --ood mnist", 2, {"--ood", "images", "rows.npy"});
  EXPECT_FALSE(fs::exists(at("c.safetensors")));
}

}  // namespace
}  // namespace bracket
