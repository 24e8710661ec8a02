// bracket audit from outside: reports, pictures, exit codes.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "host/picture/image.h"
#include "tests/program_fixture.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class AuditCliTest : public ProgramTest {
 protected:
  std::string path(const std::string& name) const { return at(name).string(); }

  void expect_picture(const std::string& name) const {
    const std::string bytes = content(at(name));
    EXPECT_GT(decode_png(std::as_bytes(std::span(bytes))).width(), 500) << name;
  }
};

TEST_F(AuditCliTest, OfATwoDimensionalRun) {
  expect_success("train --data two_moons --device cpu --threads 1 --steps 200 --set batch_size=64 --set log_every=20" +
                 (" --set schedule.warmup_steps=20 --set ema_decay=0.95 --out " + path("run")));
  const std::string audit = "audit " + path("run") + " --device cpu --samples 1000 --chains 300";
  const ProgramResult text = run(audit + " --strict");
  for (const char* part :
       {"lower bound", "exact", "annealing", "95 % in [", "if chains reach all mass", "fresh test points",
        "upper end approximate", "broad energies", "singular values", "Checks", "Verdict: ", "run/audit"})
    EXPECT_NE(text.out.find(part), std::string::npos) << part << " in\n" << text.out;
  expect_picture("run/audit/bounds.png");
  expect_picture("run/audit/spectrum.png");

  const json report = json::parse(expect_success(audit + " --json --pictures " + path("pictures")).out);
  expect_picture("pictures/bounds.png");
  for (const char* key : {"verdict", "trustworthy", "checks", "confidence", "nll_annealed", "nll_annealed_lower",
                          "nll_annealed_upper_approximate", "annealing", "far", "preimages", "spectrum", "evaluation"})
    EXPECT_TRUE(report.contains(key)) << key;
  EXPECT_EQ(report["annealing"]["chains"], 300);
  EXPECT_EQ(report["annealing"]["space"], "latent");
  EXPECT_EQ(report["confidence"], 0.95);
  EXPECT_NE(text.out.find(report["verdict"].get<std::string>()), std::string::npos);
  EXPECT_EQ(text.code, report["trustworthy"].get<bool>() ? 0 : 8) << text.err;

  const json other =
      json::parse(expect_success(audit + " --json --seed 1 --temperatures 3 --confidence 0.9 --weights raw").out);
  EXPECT_EQ(other["annealing"]["temperatures"], 3);
  EXPECT_EQ(other["confidence"], 0.9);
  EXPECT_EQ(other["evaluation"]["weights"], "raw");
  EXPECT_NE(other["nll_annealed"], report["nll_annealed"]);

  // A checkpoint folder knows its run, and without metrics there is nothing to draw the bounds on.
  fs::remove(at("run/metrics.jsonl"));
  fs::remove_all(at("run/audit"));
  const ProgramResult bare =
      expect_success("audit " + path("run/checkpoints/step_00000200") + " --device cpu --samples 1000 --chains 300");
  EXPECT_NE(bare.err.find("no bounds.png"), std::string::npos) << bare.err;
  EXPECT_FALSE(fs::exists(at("run/audit/bounds.png")));
  expect_picture("run/audit/spectrum.png");
}

// 60 steps on a table without structure: its MLPs are no calibrated model.
TEST_F(AuditCliTest, StrictEndsWith8WhereACheckFails) {
  expect_success(small_run("run"));
  const std::string audit = "audit " + path("run") + " --device cpu --samples 500 --chains 300";
  const json report = json::parse(expect_success(audit + " --json").out);
  ASSERT_FALSE(report["trustworthy"].get<bool>());
  EXPECT_EQ(report["annealing"]["space"], "data");
  EXPECT_TRUE(report["evaluation"]["nll_exact"].is_null());
  const ProgramResult strict = run(audit + " --strict");
  EXPECT_EQ(strict.code, 8) << strict.err;
  EXPECT_NE(strict.out.find("Verdict: not trustworthy: "), std::string::npos) << strict.out;
  EXPECT_EQ(strict.err, "");
  EXPECT_NE(strict.out.find("rows of the training table"), std::string::npos) << strict.out;
  EXPECT_NE(strict.out.find("G not certified injective"), std::string::npos) << strict.out;
  put(at("held_out.csv"), "0.5,0.25,1\n-0.5,1,0\n1,-1,0.25\n");
  const ProgramResult held_out = expect_success(audit + " --test " + path("held_out.csv"));
  EXPECT_NE(held_out.out.find("3 rows of " + path("held_out.csv")), std::string::npos) << held_out.out;
  EXPECT_EQ(held_out.out.find("training table"), std::string::npos) << held_out.out;
  expect_failure(audit + " --test two_moons", 2, {"--test wants a .npy or .csv file"});
  expect_failure("audit " + path("nowhere"), 3, {"nowhere"});
  fs::create_directories(at("locked"));
  put(at("locked/file"), "");
  expect_failure(audit + " --pictures " + path("locked/file"), 3, {"file"});
}

}  // namespace
}  // namespace bracket
