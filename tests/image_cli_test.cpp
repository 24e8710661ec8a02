// Runs on images, from outside: data, folders, sample formats.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "bracket/error.h"
#include "host/data/image_files.h"
#include "host/data/pixel_values.h"
#include "host/files/pixel_file.h"
#include "host/picture/image.h"
#include "tests/image_samples.h"
#include "tests/program_fixture.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

class ImageCli : public ProgramTest {
 protected:
  ImageCli() {
    ::unsetenv("BRACKET_DATA_DIR");
    fs::create_directories(at("sets/mnist"));
    put(at("sets/mnist/train-images-idx3-ubyte.gz"), gzipped(idx_file({20, 6, 5}, text_of(random_pixels(20 * 30, 1)))));
    put(at("sets/mnist/train-labels-idx1-ubyte.gz"), gzipped(idx_file({20}, std::string(20, '\x03'))));
    const std::array<std::int64_t, 4> shape = {30, 4, 5, 3};
    put(at("colour.npy"), text_of(serialize_npy(random_pixels(30 * 60, 2), shape)));
  }

  std::string path(const std::string& name) const { return at(name).string(); }

  std::string train(const std::string& data, const std::string& name, const std::string& more = "") const {
    return "train --preset vectors --device cpu --threads 1 --steps 12 --set batch_size=8 --set log_every=4 --data " +
           data + " --out " + path(name) + " " + more;
  }
};

TEST_F(ImageCli, AColourRunAndItsSamples) {
  expect_success(train(path("colour.npy"), "run", "--set data.flip=true --set picture_every=6"));
  for (const std::string name : {"step_00000006", "step_00000012"}) {
    const Image grid = decode_png(bytes_of(content(at("run/samples") / (name + ".png"))));
    EXPECT_EQ(grid.width(), 8 * (5 * 12 + 2) + 2);  // magnified by 64 / 5, rounded down
    EXPECT_EQ(grid.height(), 8 * (4 * 12 + 2) + 2);
    const std::string npy = content(at("run/samples") / (name + ".npy"));
    EXPECT_EQ(parse_npy_bytes(bytes_of(npy), "f").shape, (std::vector<std::int64_t>{64, 4, 5, 3}));
  }
  const auto record = nlohmann::json::parse(content(at("run/config.json")));
  EXPECT_EQ(record["data"]["images"]["channels"], 3);
  EXPECT_EQ(record["config"]["data"]["flip"], true);

  expect_success("sample " + path("run") + " -n 70 -o " + path("s.npy"));
  const std::string npy_text = content(at("s.npy"));
  const NpyBytes npy = parse_npy_bytes(bytes_of(npy_text), "f");
  EXPECT_EQ(npy.shape, (std::vector<std::int64_t>{70, 4, 5, 3}));
  expect_success("sample " + path("run") + " -n 70 -o " + path("s.npz"));
  const ImageSet npz = read_image_file(at("s.npz"), Split::train);
  EXPECT_EQ(npz.shape, (ImageShape{3, 4, 5}));
  EXPECT_TRUE(std::equal(npz.pixels.begin(), npz.pixels.end(), npy.values.begin(), npy.values.end(),
                         [](std::uint8_t a, std::byte b) { return a == std::to_integer<std::uint8_t>(b); }));
  expect_success("sample " + path("run") + " -n 70 --format png-folder -o " + path("s"));
  EXPECT_TRUE(fs::exists(at("s/000000.png")));
  EXPECT_TRUE(fs::exists(at("s/000069.png")));
  EXPECT_EQ(read_image_folder(at("s"), Split::train).pixels, npz.pixels);
  expect_success("sample " + path("run") + " -n 4 --format png -o " + path("s.png"));
  EXPECT_EQ(decode_png(bytes_of(content(at("s.png")))).width(), 2 * (5 * 12 + 2) + 2);
  // The grid of the run shows the first of them.
  const std::string stored = content(at("run/samples/step_00000012.npy"));
  const NpyBytes first = parse_npy_bytes(bytes_of(stored), "f");
  EXPECT_TRUE(std::equal(first.values.begin(), first.values.end(), npy.values.begin()));

  // Energies of images from an array, a folder of pictures, and as numbers.
  const auto energies = [&](const std::string& points) {
    expect_success("energy " + path("run") + " --points " + points + " -o " + path("e.npy"));
    const std::string file = content(at("e.npy"));
    return parse_npy(bytes_of(file), "e.npy").values;
  };
  const std::vector<double> of_array = energies(path("s.npy"));
  EXPECT_EQ(of_array.size(), 70U);
  EXPECT_EQ(energies(path("s/")), of_array);
  const std::array<std::int64_t, 2> flat = {70, 60};
  std::vector<double> numbers;
  for (const std::byte b : npy.values) numbers.push_back(kPixelScale * std::to_integer<int>(b) + kPixelShift);
  put(at("numbers.npy"), text_of(serialize_npy(numbers, flat)));
  EXPECT_EQ(energies(path("numbers.npy")), of_array);
  const std::array<std::int64_t, 4> turned = {2, 5, 4, 3};
  put(at("turned.npy"), text_of(serialize_npy(random_pixels(120, 2), turned)));
  expect_failure("energy " + path("run") + " --points " + path("turned.npy") + " -o " + path("e.npy"), 3,
                 {"turned.npy", "5 x 4 pixels of 3 channels", "4 x 5"});
  expect_failure("sample " + path("run") + " --format png-folder -o " + path("s"), 2, {"no empty folder"});
  expect_failure("sample " + path("run") + " --format npz -o " + path("t.npy"), 2, {"t.npy", ".npz"});
  expect_failure("sample " + path("run") + " -n 99999999999 -o " + path("t.npz"), 2, {"99999999999", "4 GiB", ".npy"});
  expect_failure("sample " + path("run") + " --format gif -o " + path("t.gif"), 2, {"--format", "gif", "png-folder"});
  expect_failure("sample " + path("run") + " -o " + path("t.zip"), 2, {"t.zip", ".npy", ".npz"});
  expect_failure("audit " + path("run"), 2, {"images", "bracket eval"});
  const auto evaluation = nlohmann::json::parse(expect_success("eval " + path("run") + " --json --samples 20").out);
  EXPECT_TRUE(std::isfinite(evaluation["energy_data"].get<double>()));
}

TEST_F(ImageCli, NamedSetsAreFoundByOptionAndEnvironment) {
  expect_failure(train("mnist", "run"), 2, {"'mnist'", "--data-dir", "BRACKET_DATA_DIR"});
  expect_success(train("mnist", "run", "--stop-after 5 --data-dir " + path("sets")));
  const auto record = nlohmann::json::parse(content(at("run/config.json")));
  EXPECT_EQ(record["data"]["name"], "mnist");
  EXPECT_EQ(record["data"]["images"]["folder"], path("sets"));
  expect_success("train --resume " + path("run"));  // it knows the folder
  expect_success(train("mnist", "straight"), [&] { ::setenv("BRACKET_DATA_DIR", path("sets").c_str(), 1); });
  EXPECT_EQ(tree(at("run/checkpoints/step_00000012")), tree(at("straight/checkpoints/step_00000012")));
  fs::rename(at("sets"), at("moved"));
  expect_failure("eval " + path("run") + " --samples 20", 3, {"sets"});
  expect_success("eval " + path("run") + " --samples 20 --data-dir " + path("moved"));
  put(at("moved/mnist/train-images-idx3-ubyte.gz"), gzipped(idx_file({20, 6, 5}, text_of(random_pixels(20 * 30, 9)))));
  expect_failure("eval " + path("run") + " --samples 20 --data-dir " + path("moved"), 3, {"mnist", "SHA-256"});
  put(at("moved/mnist/train-images-idx3-ubyte.gz"), gzipped(idx_file({20, 5, 6}, text_of(random_pixels(20 * 30, 1)))));
  expect_failure("eval " + path("run") + " --samples 20 --data-dir " + path("moved"), 3, {"6 x 5", "5 x 6"});
}

TEST_F(ImageCli, StreamedRunsEndWithTheSameBits) {
  expect_success(train(path("colour.npy"), "resident"));
  expect_success(train(path("colour.npy"), "streamed", "--set data.device_bytes=1000"));
  for (const char* file : {"energy.safetensors", "generator.safetensors", "optimizer.safetensors"}) {
    EXPECT_EQ(content(at("resident/checkpoints/step_00000012") / file),
              content(at("streamed/checkpoints/step_00000012") / file));
  }
}

TEST_F(ImageCli, AFolderOfPicturesIsWrittenWholeOrNotAtAll) {
  const std::array<std::int64_t, 4> shape = {10, 16, 16, 3};  // files larger than an error message
  put(at("large.npy"), text_of(serialize_npy(random_pixels(10 * 768, 2), shape)));
  expect_success(train(path("large.npy"), "run", "--stop-after 1"));
  const std::string write = "sample " + path("run") + " -n 40 --format png-folder -o ";
  expect_success(write + path("whole"));
  std::uintmax_t largest = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(at("whole")))
    largest = std::max(largest, entry.file_size());
  // Refuses the largest picture, and those of its size, as a full disk does.
  const auto too_small = [largest] {
    const rlimit limit{largest - 1, largest - 1};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  };
  expect_failure(write + path("part"), 3, {"cannot write", ".png"}, too_small);
  EXPECT_FALSE(fs::exists(at("part")));
  fs::create_directory(at("mine"));
  expect_failure(write + path("mine"), 3, {"cannot write", ".png"}, too_small);
  EXPECT_TRUE(fs::is_empty(at("mine")));
  expect_success(write + path("mine"));
  EXPECT_EQ(tree(at("mine")), tree(at("whole")));
}

// The pictures of faces-64 are a folder of PNG files of one size, with a class for each of its folders.
TEST_F(ImageCli, Faces64OnAFolderOfPictures) {
  constexpr ImageShape kFace{3, 64, 64};
  const std::vector<std::uint8_t> pixels = random_pixels(6 * kFace.size(), 5);
  for (std::int64_t i = 0; i < 6; ++i) {
    const fs::path folder = at("faces") / (i < 3 ? "left" : "right");
    fs::create_directories(folder);
    const std::span face =
        std::span(pixels).subspan(static_cast<std::size_t>(i * kFace.size()), static_cast<std::size_t>(kFace.size()));
    const std::vector<std::byte> png = serialize_png(face, kFace);
    put(folder / (std::to_string(i) + ".png"), {reinterpret_cast<const char*>(png.data()), png.size()});
  }
  const std::string settings = " --width 0.03125 --device cpu --steps 2 --set batch_size=2 --data ";
  for (const std::string preset : {"faces-64", "faces-64-zero-gp"}) {
    const std::string run = path(preset);
    expect_success("train --preset " + preset + settings + path("faces/") + " --out " + run + " --stop-after 1");
    expect_success("train --resume " + run);
    const auto record = nlohmann::json::parse(content(fs::path(run) / "config.json"));
    EXPECT_EQ(record["data"]["images"]["height"], 64);
    EXPECT_EQ(record["config"]["data"]["flip"], true);
    expect_success("sample " + run + " -n 3 -o " + path("faces.npy"));
    const std::string npy = content(at("faces.npy"));
    EXPECT_EQ(parse_npy_bytes(bytes_of(npy), "f").shape, (std::vector<std::int64_t>{3, 64, 64, 3}));
    const auto evaluation =
        nlohmann::json::parse(expect_success("eval " + run + " --json --samples 4 --jacobians 2").out);
    EXPECT_TRUE(std::isfinite(evaluation["energy_data"].get<double>()));
  }
  expect_failure("train --preset faces-64" + settings + path("colour.npy") + " --out " + path("new"), 2,
                 {"faces-64", "64 x 64"});
}

TEST_F(ImageCli, BadDataEndsWith3InOneLine) {
  const auto refused = [&](const std::string& data, const std::vector<std::string>& parts) {
    expect_failure(train(path(data), "new"), 3, parts);
  };
  fs::create_directories(at("empty"));
  refused("empty", {"empty", "no image set"});
  refused("absent/", {"absent"});
  put(at("cut.npy"), content(at("colour.npy")).substr(0, 200));
  refused("cut.npy", {"cut.npy", "truncated"});
  put(at("sets/mnist/train-labels-idx1-ubyte.gz"), gzipped(idx_file({19}, std::string(19, '\x03'))));
  expect_failure(train("mnist", "new", "--data-dir " + path("sets")), 3, {"19 labels", "20 images"});
  EXPECT_FALSE(fs::exists(at("new")));
  expect_failure(small_run("rows", "--set data.flip=true"), 2, {"data.flip", "images"});
}

TEST(PixelValues, RoundingAndClamping) {
  const double step = 2.0 / 255;
  EXPECT_EQ(
      pixels_of_values(std::vector<double>{-1, 1, -1 + step, -7, 1e300, -1 + 0.49 * step, -1 + 0.51 * step, 0}, 2),
      (std::vector<std::uint8_t>{0, 255, 1, 0, 255, 0, 1, 128}));
  for (int pixel = 0; pixel < 256; ++pixel)
    EXPECT_EQ(pixels_of_values(std::vector<double>{kPixelScale * pixel + kPixelShift}, 1).front(), pixel);
  expect_error<Diverged>(
      [] {
        pixels_of_values(std::vector<double>{0, 0, 0, std::nan("")}, 2, 10);
      },
      {"value 1 of image 11", "NaN"});
}

}  // namespace
}  // namespace bracket
