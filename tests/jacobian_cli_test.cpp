// bracket jacobian from outside: a run, a specification, pictures, errors.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bracket/network.h"
#include "host/picture/image.h"
#include "tests/program_fixture.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class JacobianCli : public ProgramTest {
 protected:
  std::string path(const std::string& name) const { return at(name).string(); }

  void put_specification(const std::string& name, std::int64_t outputs) const {
    put(at(name), to_json(NetworkSpec{4, {LinearSpec{9}, ActivationSpec{Activation::tanh}, LinearSpec{outputs}}}));
  }
};

TEST_F(JacobianCli, ComparesTheEstimatorsOfARun) {
  expect_success(small_run("run"));
  const std::string command = "jacobian " + path("run") + " --device cpu --samples 5";
  const ProgramResult text = expect_success(command);
  EXPECT_NE(text.out.find("at 5 latents"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("Golub-Kahan"), std::string::npos) << text.out;
  const json raw = json::parse(expect_success(command + " --json --weights raw").out);
  const json average = json::parse(expect_success(command + " --json").out);
  EXPECT_EQ(raw["samples"], 5);
  EXPECT_NE(raw["methods"][0]["value"], average["methods"][0]["value"]);
}

TEST_F(JacobianCli, ComparesTheEstimatorsOfASpecification) {
  put_specification("generator.json", 7);
  const std::string command = "jacobian " + path("generator.json") + " --device cpu --samples 20 --json";
  const json one = json::parse(expect_success(command + " --seed 1 --pictures " + path("new/pictures")).out);
  EXPECT_EQ(one["inputs"], 4);
  EXPECT_EQ(one["outputs"], 7);
  EXPECT_EQ(one["product_flops"], 2 * (4 * 9 + 9 * 7));
  EXPECT_NE(one["methods"][0]["value"], json::parse(expect_success(command + " --seed 2").out)["methods"][0]["value"]);
  for (const char* name : {"log_volume.png", "smallest.png", "spectrum.png"}) {
    const std::string bytes = content(at("new/pictures") / name);
    EXPECT_GT(decode_png(bytes_of(bytes)).width(), 0);
  }
}

TEST_F(JacobianCli, ErrorsHaveTheirCodes) {
  put_specification("folding.json", 3);
  put(at("broken.json"), "{");
  expect_failure("jacobian " + path("folding.json"), 2, {"4 inputs", "3 outputs"});
  expect_failure("jacobian " + path("broken.json"), 2, {"JSON"});
  expect_failure("jacobian " + path("absent.json"), 3, {"absent.json", "No such file"});
  expect_failure("jacobian", 2, {"run"});
  expect_failure("jacobian x --samples 0", 2, {"--samples"});
  expect_failure("jacobian x --sample 3", 2, {"'--sample'", "'--samples'"});
}

}  // namespace
}  // namespace bracket
