// What the program refuses before it starts, and what it survives: numbers, devices, damaged records, extreme data.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "host/files/safetensors.h"
#include "host/files/sha256.h"
#include "tests/program_fixture.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class ProgramArguments : public ProgramTest {
 protected:
  std::string path(const std::string& name) const { return at(name).string(); }

  std::string planar_run(const std::string& data) const {
    return "train --data " + data + " --device cpu --threads 1 --steps 4 --set batch_size=16 --out " + path("run");
  }
};

TEST_F(ProgramArguments, WholeNumbersAreDecimalDigitsAlone) {
  const std::string train = "train --data rings --device cpu --out " + path("new");
  for (const std::string bad : {"-1", "", "010", "0x10", "99999999999999999999", "1.5", "2e4", "5x", "+5"}) {
    for (const std::string& option :
         {train + " --seed=", train + " --steps=", train + " --stop-after=", train + " --threads=",
          std::string("sample a -o s.npy --seed="), std::string("sample a -o s.npy --count="),
          std::string("eval a --seed="), std::string("eval a --samples="), std::string("eval a --threads="),
          std::string("density a -o d.png --cells="), std::string("density a -o d.png --points=")}) {
      const std::string flag = option.substr(option.rfind("--"), option.size() - option.rfind("--") - 1);
      expect_failure(option + bad, 2, {flag});
    }
  }
  expect_failure(train + " --seed -1", 2, {"--seed", "'-1'", "0 to 18446744073709551615"});
  expect_failure(train + " --steps 281474976710656", 2, {"--steps", "0 to 281474976710655"});
  EXPECT_FALSE(fs::exists(at("new")));
  expect_success(planar_run("rings") + " --seed 18446744073709551615");
  EXPECT_EQ(json::parse(content(at("run/config.json")))["seed"], 18446744073709551615u);
}

TEST_F(ProgramArguments, AnEmptyDeviceIsNone) {
  expect_failure("train --data rings --out " + path("new") + " --device=", 2, {"--device"});
  expect_failure("sample a -o s.npy --device=", 2, {"--device"});
  EXPECT_FALSE(fs::exists(at("new")));
}

TEST_F(ProgramArguments, ADamagedRecordNamesKeyAndFile) {
  expect_success(planar_run("rings"));
  const json good = json::parse(content(at("run/config.json")));
  const auto expect_refused = [&](const json& record, const std::vector<std::string>& parts) {
    put(at("run/config.json"), record.dump());
    expect_failure("inspect " + path("run"), 3, parts);
  };
  json record = good;
  record["data"] = "nope";
  expect_refused(record, {"config.json", "'data' must be an object", "'nope'"});
  record = good;
  record["data"]["name"] = 7;
  expect_refused(record, {"config.json", "'data.name' must be a string", "7"});
  record = good;
  record["data"].erase("sha256");
  expect_refused(record, {"config.json", "'data.sha256' is missing"});
  record = good;
  record["data"]["rows"] = -3;
  expect_refused(record, {"config.json", "'data.rows'", "at least 0"});
  expect_refused(json::array({1, 2}), {"config.json", "must be an object"});
}

TEST_F(ProgramArguments, AnEmptyFileHoldsNoRun) {
  put(at("empty"), "");
  expect_failure("inspect " + path("empty"), 3, {"empty file", ".safetensors"});
}

TEST_F(ProgramArguments, APictureThatCannotBeDrawnDoesNotEndATraining) {
  std::string rows;
  // 1.7e15 +- 1e5: six digits of spread on sixteen of offset.
  for (int i = 0; i < 500; ++i) {
    rows += std::to_string(1700000000000000LL + (i * 7919) % 200001 - 100000) + "," + std::to_string(i % 17) + "\n";
  }
  put(at("far.csv"), rows);
  const ProgramResult trained = expect_success(planar_run(path("far.csv")) + " --set precision=f64");
  EXPECT_TRUE(trained.err.starts_with("bracket: warning: no density picture of step 4")) << trained.err;
  EXPECT_EQ(trained.err.find('\n') + 1, trained.err.size()) << trained.err;
  EXPECT_EQ(list_checkpoints(at("run/checkpoints")).size(), 1u);
  EXPECT_FALSE(fs::exists(at("run/density/step_00000004.png")));
  expect_failure("density " + path("run") + " -o " + path("d.png"), 2, {"1.7"});
}

TEST_F(ProgramArguments, DataBeyondSinglePrecisionIsRefused) {
  put(at("big.csv"), "1,2\n3,4\n5,1e39\n2,-3\n");
  expect_failure(planar_run(path("big.csv")) + " --set precision=f32", 3,
                 {"row 2, column 1", "1e+39", "f32", "rescale"});
  EXPECT_FALSE(fs::exists(at("run")));
}

TEST_F(ProgramArguments, DivergenceWithoutACheckpointAdvisesANewRun) {
  const ProgramResult result = run(small_run("run", "--set energy.lr=1e30 --set schedule.warmup_steps=0"));
  EXPECT_EQ(result.code, 4);
  EXPECT_NE(result.err.find("no checkpoint yet. Train anew"), std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("Resume"), std::string::npos) << result.err;
}

TEST_F(ProgramArguments, AModelWithoutFiniteEnergiesEndsWith4) {
  expect_success(planar_run("rings"));
  const fs::path folder = at("run/checkpoints/step_00000004");
  const std::string old = content(folder / "energy_ema.safetensors");
  const std::string old_digest = sha256_hex(std::as_bytes(std::span(old)));
  // All bits set: a NaN with a sign.
  SafetensorsFile weights = read_safetensors(folder / "energy_ema.safetensors");
  for (StoredTensor& tensor : weights.tensors) {
    if (tensor.type == StoredType::f32) std::fill(tensor.bytes.begin(), tensor.bytes.end(), std::byte{0xff});
  }
  const std::vector<std::byte> bytes = serialize_safetensors(weights);
  put(folder / "energy_ema.safetensors", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  std::string manifest = content(folder / "manifest.json");
  manifest.replace(manifest.find(old_digest), old_digest.size(), sha256_hex(bytes));
  put(folder / "manifest.json", manifest);
  for (const std::string& command : {"eval " + path("run"), "density " + path("run") + " -o " + path("d.png")}) {
    expect_failure(command, 4, {"is NaN"});
    EXPECT_EQ(content(at("run.err")).find("-nan"), std::string::npos);
  }
}

}  // namespace
}  // namespace bracket
