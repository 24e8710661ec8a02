// The program from outside: options, messages, exit codes, output files.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "host/picture/image.h"
#include "tests/program_fixture.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class CliTest : public ProgramTest {
 protected:
  std::string path(const std::string& name) const { return at(name).string(); }

  Image picture(const std::string& name) const {
    const std::string bytes = content(at(name));
    return decode_png(bytes_of(bytes));
  }
};

TEST_F(CliTest, HelpIsEverywhereAndListsTheExitCodes) {
  for (const std::string command : {"", "train ", "eval ", "audit ", "classifier ", "density ", "sample ", "energy ",
                                    "jacobian ", "inspect ", "doctor "}) {
    const ProgramResult result = expect_success(command + "--help");
    EXPECT_EQ(result.err, "");
    EXPECT_NE(result.out.find("Usage: bracket " + command), std::string::npos) << result.out;
    for (const char* code : {"    0  ", "    1  ", "    2  ", "    3  ", "    4  ", "    5  ", "    6  ", "    7  ",
                             "    8  ", "   75  ", "  130  ", "  143  "}) {
      EXPECT_NE(result.out.find(code), std::string::npos) << command << code;
    }
  }
  EXPECT_TRUE(expect_success("--version").out.starts_with("bracket "));
}

TEST_F(CliTest, WrongUsageEndsWith2AndNamesTheNearest) {
  const std::string out = " --out " + path("new"), train = "train --data rings --device cpu" + out;
  expect_failure("", 2, {"no command", "--help"});
  expect_failure("trian", 2, {"'trian'", "'train'"});
  expect_failure("--hlep", 2, {"'--hlep'", "'--help'"});
  expect_failure("train", 2, {"--out", "--resume"});
  expect_failure("train" + out, 2, {"--data"});
  expect_failure(train + " --stepz 5", 2, {"'--stepz'", "'--steps'"});
  expect_failure(train + " --stepz=5", 2, {"'--stepz'", "'--steps'"});
  expect_failure(train + " --steps many", 2, {"--steps", "many"});
  expect_failure(train + " --steps -1", 2, {"--steps", "-1"});
  expect_failure(train + " --preset calibrated-3d", 2, {"'calibrated-3d'", "'calibrated-2d'"});
  expect_failure(train + " --set energy.learning=1", 2, {"'energy.learning'", "'energy.l"});
  expect_failure(train + " --set log_evry=1", 2, {"'log_evry'", "'log_every'"});
  expect_failure(train + " --set log_every=0", 2, {"log_every", "at least 1"});
  expect_failure(train + " --set energy.lr=small", 2, {"energy.lr", "number", "small"});
  expect_failure(train + " --set energy.lr", 2, {"energy.lr", "value"});
  expect_failure(train + " --device gpu", 2, {"'gpu'", "cuda:N"});
  expect_failure("train --data 25gausians" + out, 2, {"'25gausians'", "'25gaussians'"});
  expect_failure("train --data two_moons.txt" + out, 2,
                 {"'two_moons.txt'", "did you mean 'two_moons'", ".npy or .csv"});
  expect_failure("train --data moons.txt" + out, 2, {"'moons.txt'", "did you mean '"});
  expect_failure(train + " --resume x", 2, {"--data", "--resume", "new runs"});
  expect_failure("eval", 2, {"run"});
  expect_failure("eval a b", 2, {"'b'", "bracket eval --help"});
  expect_failure("eval a --jsno", 2, {"'--jsno'", "'--json'"});
  expect_failure("audit a --strct", 2, {"'--strct'", "'--strict'"});
  expect_failure("audit a --chains 1", 2, {"--chains", "1"});
  expect_failure("audit a --temperatures some", 2, {"--temperatures", "some"});
  expect_failure("audit a --confidence 1", 2, {"--confidence", "1"});
  expect_failure("eval a --weights old", 2, {"--weights", "old", "raw", "ema"});
  expect_failure("sample a -o s.gif", 2, {"s.gif", ".npy", ".png"});
  expect_failure("density a -o d.npy", 2, {"d.npy", ".png"});
  expect_failure("energy a --points p.npy -o e.txt", 2, {"e.txt", ".npy"});
  expect_failure("sample a -n 0 -o s.npy", 2, {"--count", "0"});
  EXPECT_FALSE(fs::exists(at("new")));
}

TEST_F(CliTest, BadDataEndsWith3) {
  const auto expect_refused = [&](const std::string& file, const std::vector<std::string>& parts) {
    expect_failure("train --preset vectors --device cpu --data " + path(file) + " --out " + path("new"), 3, parts);
  };
  small_run("unused");
  const std::string good = content(at("rows.npy"));
  expect_refused("absent.npy", {"absent.npy", "No such file"});
  put(at("cut.npy"), good.substr(0, good.size() - 5));
  expect_refused("cut.npy", {"cut.npy", "bytes"});
  std::string integers = good;
  integers.replace(integers.find("<f8"), 3, "<i8");
  put(at("integers.npy"), integers);
  expect_refused("integers.npy", {"integers.npy", "float32", "float64"});
  std::string poisoned = good;
  poisoned.replace(poisoned.size() - 8, 8, std::string("\0\0\0\0\0\0\xf8\x7f", 8));
  put(at("nan.npy"), poisoned);
  expect_refused("nan.npy", {"nan.npy", "row", "column"});
  put(at("ragged.csv"), "1,2\n3\n");
  expect_refused("ragged.csv", {"ragged.csv:2"});
  put(at("empty.csv"), "");
  expect_refused("empty.csv", {"empty.csv"});
  put(at("noise.npy"), "not an array at all");
  expect_refused("noise.npy", {"noise.npy"});
  EXPECT_FALSE(fs::exists(at("new")));

  put(at("three.csv"), "1,2,3\n4,5,7\n");
  expect_failure("train --device cpu --data " + path("three.csv") + " --out " + path("new"), 2, {"vectors"});
}

TEST_F(CliTest, AbsentGpuEndsWith6) {
  // No machine has this many.
  expect_failure("train --data rings --device cuda:4096 --out " + path("new"), 6, {"cuda:4096"});
  EXPECT_FALSE(fs::exists(at("new")));
}

// 4 GiB, whatever the machine has and its kernel promises. A sanitizer needs more address space than that for itself,
// but its allocator has a limit of its own.
void limit_memory() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  for (const char* variable : {"ASAN_OPTIONS", "TSAN_OPTIONS"}) {
    const char* present = std::getenv(variable);
    const std::string options = std::string(present != nullptr ? present : "");
    ::setenv(variable, (options + ":allocator_may_return_null=1:max_allocation_size_mb=4096").c_str(), 1);
  }
#else
  const rlimit limit{rlim_t{4} << 30, rlim_t{4} << 30};
  ::setrlimit(RLIMIT_AS, &limit);
#endif
}

TEST_F(CliTest, ExhaustedMemoryEndsWith5) {
  // One batch of rows alone takes 16 GB.
  expect_failure("train --data rings --device cpu --set batch_size=2000000000 --out " + path("new"), 5, {"bytes"},
                 limit_memory);
  EXPECT_FALSE(fs::exists(at("new")));
}

TEST_F(CliTest, DivergenceEndsWith4AndNamesTensorAndStep) {
  expect_failure(small_run("run", "--set energy.lr=1e30 --set schedule.warmup_steps=0"), 4,
                 {"non-finite", "step", "not applied"});
  EXPECT_TRUE(list_checkpoints(at("run/checkpoints")).empty());
}

TEST_F(CliTest, HeldOutRowsAreEvaluated) {
  const ProgramResult trained = expect_success(small_run("run", "--stop-after 5"));
  EXPECT_NE(trained.out.find("the generator is not certified injective"), std::string::npos) << trained.out;
  const std::string test = " --samples 30 --test " + path("rows.npy");
  const json evaluation = json::parse(expect_success("eval " + path("run") + " --json" + test).out);
  EXPECT_EQ(evaluation["test_data"], path("rows.npy"));
  EXPECT_EQ(evaluation["test_points"], 30);
  EXPECT_FALSE(evaluation["test_points_are_training_rows"]);
  EXPECT_FALSE(evaluation["certified_injective"]);
  EXPECT_EQ(evaluation["injectivity"][0]["type"], "linear");
  const std::string text = expect_success("eval " + path("run") + test).out;
  EXPECT_NE(text.find("30 rows of " + path("rows.npy")), std::string::npos) << text;
  EXPECT_NE(text.find("G is not certified injective"), std::string::npos) << text;
  expect_failure("eval " + path("run") + " --test rings", 2, {"--test", "'rings'"});
  expect_failure("eval " + path("run") + " --test " + path("absent.npy"), 3, {"absent.npy"});
  put(at("two.csv"), "1,2\n3,4\n");
  expect_failure("eval " + path("run") + " --test " + path("two.csv"), 2, {"2 columns", "reads 3"});
}

TEST_F(CliTest, DivergenceCanRollBack) {
  constexpr double kDivergingRate = 1e4;  // of this pair, which 100 does not make diverge
  const auto record = [&](const char* run) { return json::parse(content(at(run) / "config.json")); };
  // Rates from which no ten halvings lead back end as without it, and say what was tried.
  const ProgramResult given_up =
      run(small_run("lost", "--on-divergence rollback --set energy.lr=1e30 --set schedule.warmup_steps=0"));
  EXPECT_EQ(given_up.code, 4);
  EXPECT_NE(given_up.out.find("rolled back to step 0; seed 4, learning rates 5e+29 (energy)"), std::string::npos)
      << given_up.out;
  EXPECT_NE(given_up.err.find("bracket: error: after 10 rollbacks: non-finite"), std::string::npos) << given_up.err;
  const json lost = record("lost");
  ASSERT_EQ(lost["rollbacks"].size(), 10U);
  for (std::size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(lost["rollbacks"][i]["seed"], i + 4);
    EXPECT_EQ(lost["rollbacks"][i]["energy_lr"], std::ldexp(1e30, -static_cast<int>(i) - 1));
    EXPECT_EQ(lost["rollbacks"][i]["step"], 1);
  }

  // A run with a checkpoint whose rate is raised beyond reason, as an unlucky step might.
  expect_success(small_run("saved", "--stop-after 20 --set checkpoint_every=20"));
  json changed = record("saved");
  changed["config"]["energy"]["lr"] = 1e20;
  put(at("saved/config.json"), changed.dump());
  expect_failure("train --resume " + path("saved"), 4, {"of step 20", "--on-divergence rollback"});
  changed = record("saved");
  changed["config"]["energy"]["lr"] = kDivergingRate;
  put(at("saved/config.json"), changed.dump());
  const ProgramResult result = expect_success("train --resume " + path("saved") + " --on-divergence rollback");
  EXPECT_NE(result.out.find("rolled back to step 20; seed 4"), std::string::npos) << result.out;
  const json saved = record("saved");
  const std::size_t rollbacks = saved["rollbacks"].size();
  ASSERT_GE(rollbacks, 1U);
  EXPECT_EQ(saved["config"]["seed"], 3 + rollbacks);
  EXPECT_EQ(saved["config"]["energy"]["lr"], std::ldexp(kDivergingRate, -static_cast<int>(rollbacks)));
  std::size_t told = 0;
  std::istringstream lines(content(at("saved/metrics.jsonl")));
  for (std::string line; std::getline(lines, line);) {
    const json metrics = json::parse(line);
    if (!metrics.contains("rollback_from_step")) continue;
    ++told;
    EXPECT_EQ(metrics["step"], 20);
    EXPECT_EQ(metrics["seed"], 3 + told);
    EXPECT_GT(metrics["rollback_from_step"], 20);
  }
  EXPECT_EQ(told, rollbacks);
  expect_success("train --resume " + path("saved"));  // what was recorded is what a later session reads
  expect_success("eval " + path("saved") + " --samples 100");
}

TEST_F(CliTest, PlacesThatCannotBeWrittenEndWith3) {
  put(at("file"), "in the way");
  expect_failure(small_run("file/run"), 3, {"file", "folder"});
  expect_success(small_run("run", "--stop-after 5"));
  expect_failure("sample " + path("run") + " -n 3 -o " + path("absent/s.npy"), 3, {"absent", "No such file"});

  // A place that refuses: a folder without permission, for root a read-only mount, without the right to mount sysfs.
  fs::path place = at("locked");
  fs::create_directory(place);
  bool mounted = false;
  if (::geteuid() != 0) {
    ASSERT_EQ(::chmod(place.c_str(), 0555), 0);
  } else {
    mounted = ::mount("none", place.c_str(), "tmpfs", MS_RDONLY, "size=64k") == 0;
    if (!mounted) place = "/sys";
  }
  expect_failure("train --data rings --device cpu --out " + (place / "bracket_run").string(), 3, {"bracket_run"});
  expect_failure("sample " + path("run") + " -n 3 -o " + (place / "s.npy").string(), 3, {"s.npy"});
  if (mounted) {
    EXPECT_EQ(::umount(place.c_str()), 0);
  }
}

TEST_F(CliTest, AFullDiskEndsWith3AndLeavesTheLastCheckpoint) {
  const auto expect_stopped = [&](const fs::path& run_folder, const std::string& arguments,
                                  const std::function<void()>& prepare) {
    const ProgramResult result = run(arguments, prepare);
    EXPECT_EQ(result.code, 3) << result.err;
    EXPECT_TRUE(result.err.starts_with("bracket: error: cannot ")) << result.err;
    for (const CheckpointEntry& entry : list_checkpoints(run_folder / "checkpoints")) read_checkpoint(entry.folder);
    EXPECT_FALSE(list_checkpoints(run_folder / "checkpoints").empty());
  };
  // A limit on the size of files refuses in the middle of a write as a full disk does, and needs no privilege.
  expect_success(small_run("run", "--stop-after 20"));
  const auto size = fs::file_size(at("run/checkpoints/step_00000020/optimizer.safetensors"));
  expect_stopped(at("run"), "train --resume " + path("run"), [size] {
    const rlimit limit{size - 1, size - 1};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  });
  expect_success("train --resume " + path("run"));

  fs::create_directory(at("disk"));
  const std::string space = "size=" + std::to_string(7 * size / 2 / 1024) + "k";
  if (::mount("none", at("disk").c_str(), "tmpfs", 0, space.c_str()) != 0) {
    GTEST_SKIP() << "the part with a full disk needs the right to mount a tmpfs: " << std::strerror(errno);
  }
  expect_stopped(at("disk/run"), small_run("disk/run", "--set checkpoint_every=5"), {});
  EXPECT_EQ(::umount(at("disk").c_str()), 0);
}

TEST_F(CliTest, EntropyEstimatorsAreNamedOrChosen) {
  const auto estimator = [&](const std::string& run) {
    return nlohmann::json::parse(content(at(run) / "config.json"))["config"]["entropy"]["estimator"];
  };
  expect_success(small_run("named", "--stop-after 1 --entropy min_singular"));
  EXPECT_EQ(estimator("named"), "min_singular");
  const ProgramResult chosen = expect_success(small_run("chosen", "--stop-after 1 --entropy auto"));
  EXPECT_NE(chosen.out.find("entropy: exact in f32, the cheapest within the target; J [3, 3]"), std::string::npos)
      << chosen.out;
  EXPECT_EQ(estimator("chosen"), "exact");
  expect_failure(small_run("new", "--entropy exat"), 2, {"exat", "exact"});
  expect_failure(small_run("new", "--entropy-error 0.1"), 2, {"--entropy-error", "auto"});
  expect_failure(small_run("new", "--entropy auto --entropy-error 0"), 2, {"--entropy-error 0", "positive"});
  expect_failure("train --resume " + path("named") + " --entropy auto", 2, {"--entropy", "--resume"});
}

TEST_F(CliTest, MathModesAreRecordedAndShown) {
  const auto recorded = [&](const std::string& run) {
    const json config = json::parse(content(at(run) / "config.json"))["config"];
    std::vector<std::string> modes;
    for (const char* const player : {"energy", "generator"})
      for (const char* const key : {"math", "jacobian_math"}) modes.push_back(config[player][key]);
    return modes;
  };
  using Modes = std::vector<std::string>;
  const ProgramResult plain = expect_success(small_run("plain", "--stop-after 20"));
  EXPECT_EQ(recorded("plain"), Modes(4, "fp32"));
  EXPECT_EQ(plain.out.find("math"), std::string::npos) << plain.out;
  const ProgramResult mixed = expect_success(
      small_run("mixed", "--stop-after 20 --math tf32 --set generator.jacobian_math=tf32x3 --no-graphs"));
  EXPECT_EQ(recorded("mixed"), (Modes{"tf32", "tf32", "tf32", "tf32x3"}));
  EXPECT_NE(mixed.out.find("math: energy tf32, generator tf32 and tf32x3 for its Jacobian\n"), std::string::npos)
      << mixed.out;
  EXPECT_NE(mixed.err.find("no effect on a CPU"), std::string::npos) << mixed.err;
  EXPECT_NE(expect_success("inspect " + path("mixed")).out.find("math energy tf32, generator tf32 and tf32x3"),
            std::string::npos);
  EXPECT_NE(expect_success("inspect " + path("plain")).out.find(", math fp32\n"), std::string::npos);
  // A permission for GPUs alone: on this device the same numbers, resumed or not.
  expect_success("train --resume " + path("plain") + " --one-kernel");
  expect_success("train --resume " + path("mixed") + " --no-graphs");
  EXPECT_EQ(recorded("mixed"), (Modes{"tf32", "tf32", "tf32", "tf32x3"}));
  const std::string weights = "checkpoints/step_00000060/generator.safetensors";
  EXPECT_EQ(content(at("mixed") / weights), content(at("plain") / weights));

  put(at("math.json"), R"({"energy": {"math": "bf16"}, "generator": {"math": "bf16"}})");
  expect_success(small_run("file", "--stop-after 1 --config " + path("math.json")));
  EXPECT_EQ(recorded("file"), (Modes{"bf16", "fp32", "bf16", "fp32"}));
  expect_success(small_run("both", "--stop-after 1 --math tf32 --config " + path("math.json")));
  EXPECT_EQ(recorded("both"), Modes(4, "tf32"));
  expect_failure(small_run("new", "--math tf-32"), 2, {"'tf-32'", "did you mean 'tf32'?"});
  expect_failure(small_run("new", "--set energy.maths=tf32"), 2, {"'energy.maths'", "'energy.math'?"});
  expect_failure("train --resume " + path("plain") + " --math tf32", 2, {"--math", "--resume"});
}

TEST_F(CliTest, SettingsArePrintedUnderTheNamesThatSetTakes) {
  const ProgramResult shown = expect_success(small_run("none", "--set energy.lr=0.25 --print-config"));
  EXPECT_EQ(nlohmann::json::parse(shown.out)["energy"]["lr"], 0.25);
  EXPECT_FALSE(fs::exists(at("none")));
}

TEST_F(CliTest, HintsCanBePastedIntoAShell) {
  EXPECT_NE(expect_success(small_run("it's", "--stop-after 1")).out.find("it'\\''s'\n"), std::string::npos);
}

TEST_F(CliTest, ExistingRunsAreKeptWithoutForce) {
  expect_success(small_run("run", "--stop-after 5"));
  const auto before = tree(at("run"));
  expect_failure(small_run("run"), 2, {"exists", "--resume", "--force"});
  EXPECT_EQ(tree(at("run")), before);
  expect_success(small_run("run", "--stop-after 3 --force"));
  EXPECT_EQ(list_checkpoints(at("run/checkpoints")).size(), 1u);
  EXPECT_EQ(list_checkpoints(at("run/checkpoints"))[0].step, 3);
  fs::create_directory(at("home"));
  put(at("home/letter.txt"), "dear");
  expect_failure(small_run("home", "--force"), 2, {"no run folder", "letter.txt"});
}

TEST_F(CliTest, ConfigFilesAndOverridesAddUp) {
  put(at("c.json"), R"({"energy": {"lr": 0.5}, "generator": {"lr": 0.25}, "log_every": 7})");
  const std::string base = small_run("run", "--stop-after 1 --config " + path("c.json"));
  expect_success(base + " --set generator.lr=0.125 --set ema_decay=0.5");
  const json config = json::parse(content(at("run/config.json")))["config"];
  EXPECT_EQ(config["energy"]["lr"], 0.5);
  EXPECT_EQ(config["generator"]["lr"], 0.125);
  EXPECT_EQ(config["ema_decay"], 0.5);
  EXPECT_EQ(config["log_every"], 10);  // --set of small_run is stronger than the file
  EXPECT_EQ(config["steps"], 60);
  EXPECT_EQ(config["seed"], 3);
  EXPECT_EQ(json::parse(content(at("run/config.json")))["device_description"], device_description({}));

  expect_failure(small_run("new", "--config " + path("absent.json")), 3, {"absent.json"});
  put(at("bad.json"), "{\"energy\": }");
  expect_failure(small_run("new", "--config " + path("bad.json")), 2, {"bad.json", "line 1"});
  put(at("unknown.json"), "{\"enrgy\": {}}");
  expect_failure(small_run("new", "--config " + path("unknown.json")), 2, {"unknown.json", "'enrgy'", "'energy'"});
}

TEST_F(CliTest, DamagedCheckpointsEndWith7OrArePassedOver) {
  expect_success(small_run("run", "--stop-after 40"));
  flip(at("run/checkpoints/step_00000040/energy.safetensors"), 4000);
  const ProgramResult result = expect_success("inspect " + path("run"));
  EXPECT_NE(result.out.find("step_00000040: DAMAGED"), std::string::npos);
  EXPECT_NE(result.out.find("step_00000020: valid"), std::string::npos);
  expect_failure("inspect " + path("run/checkpoints/step_00000040"), 7, {"energy.safetensors", "SHA-256"});
  expect_failure("sample " + path("run/checkpoints/step_00000040") + " -o " + path("s.npy"), 7, {"energy.safetensors"});

  const ProgramResult resumed = expect_success("train --resume " + path("run") + " --stop-after 30");
  EXPECT_TRUE(resumed.err.starts_with("bracket: warning: ")) << resumed.err;
  EXPECT_NE(resumed.err.find("energy.safetensors"), std::string::npos);
  EXPECT_NE(resumed.out.find("after step 20"), std::string::npos) << resumed.out;

  for (const CheckpointEntry& entry : list_checkpoints(at("run/checkpoints"))) flip(entry.folder / "state.json", 20);
  for (const std::string command : {"train --resume ", "eval ", "inspect "}) {
    expect_failure(command + path("run"), 7, {"no valid checkpoint"});
  }
}

TEST_F(CliTest, RunsThatAreNoneEndWith3) {
  for (const std::string command : {"train --resume ", "eval "}) {
    expect_failure(command + path("nowhere"), 3, {"nowhere", "absent"});
    expect_failure(command + folder_.string(), 3, {"no run folder"});
  }
  expect_failure("inspect " + path("nowhere"), 3, {"absent"});
}

TEST_F(CliTest, LooksAtATwoDimensionalRun) {
  const ProgramResult trained = expect_success("train --data two_moons --device cpu --threads 1 --steps 12 --set " +
                                               std::string("batch_size=16 --out ") + path("run"));
  EXPECT_NE(trained.out.find("step 12/12"), std::string::npos) << trained.out;
  EXPECT_EQ(trained.out.find('\r'), std::string::npos);  // no bar outside a terminal
  EXPECT_GT(picture("run/density/step_00000012.png").width(), 1000);

  const json evaluation = json::parse(expect_success("eval " + path("run") + " --json --samples 500").out);
  for (const char* key : {"nll_exact", "log_z", "lower_bound", "lower_bound_min_singular", "penalty", "upper_bound",
                          "upper_estimate", "bracket_ok", "fold_fraction", "gap", "nll_importance", "ess",
                          "kl_data_to_model", "mass_outside", "data_entropy"}) {
    EXPECT_TRUE(evaluation.contains(key)) << key;
  }
  EXPECT_NE(expect_success("eval " + path("run") + " --samples 500 --weights raw").out.find("exact"),
            std::string::npos);

  expect_success("density " + path("run") + " --cells 50 -o " + path("d.png"));
  EXPECT_GT(picture("d.png").width(), 1000);
  expect_success("sample " + path("run") + " -n 50 -o " + path("s.png"));
  EXPECT_GT(picture("s.png").width(), 100);
  expect_success("sample " + path("run") + " -n 50 -o " + path("s.npy"));
  const Table samples = read_npy(at("s.npy"));
  EXPECT_EQ(samples.rows, 50);
  EXPECT_EQ(samples.cols, 2);
  expect_success("sample " + path("run") + " -n 50 --seed 9 -o " + path("t.npy"));
  EXPECT_NE(content(at("s.npy")), content(at("t.npy")));
  expect_success("sample " + path("run/checkpoints/step_00000012") + " -n 50 -o " + path("u.npy"));
  EXPECT_EQ(content(at("s.npy")), content(at("u.npy")));

  expect_success("energy " + path("run") + " --points " + path("s.npy") + " -o " + path("e.npy"));
  const Table energies = read_npy(at("e.npy"));
  EXPECT_EQ(energies.rows, 50);
  EXPECT_EQ(energies.cols, 1);
  put(at("huge.csv"), "0,0\n1e300,0\n");
  expect_failure("energy " + path("run") + " --points " + path("huge.csv") + " -o " + path("e.npy"), 3,
                 {"row 1", "huge.csv", "precision"});
  put(at("wide.csv"), "1,2,3\n");
  expect_failure("energy " + path("run") + " --points " + path("wide.csv") + " -o " + path("e.npy"), 3,
                 {"3 columns", "takes 2"});

  const ProgramResult tensors = expect_success("inspect " + path("run/checkpoints/step_00000012/energy.safetensors"));
  EXPECT_NE(tensors.out.find("layers.0.scale"), std::string::npos) << tensors.out;
}

TEST_F(CliTest, RowsThatAreImagesAreSampledAsAGrid) {
  std::string rows;
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; j < 64; ++j) rows += std::to_string((i * 7 + j * 3) % 17) + (j < 63 ? "," : "\n");
  }
  put(at("digits.csv"), rows);
  expect_success("train --preset vectors --device cpu --threads 1 --steps 2 --data " + path("digits.csv") + " --out " +
                 path("run"));
  EXPECT_GT(picture("run/samples/step_00000002.png").width(), 8 * 8 * 6);
  expect_success("sample " + path("run") + " -n 9 -o " + path("s.png"));
  EXPECT_LT(picture("s.png").width(), picture("run/samples/step_00000002.png").width());
  expect_failure("density " + path("run") + " -o " + path("d.png"), 2, {"two-dimensional", "64"});
}

TEST_F(CliTest, LostOutputEndsWith3AndClosedStreamsDoNoHarm) {
  expect_success(small_run("run", "--stop-after 2"));
  const auto full = [] { ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO); };
  const auto closed = [] {
    for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(descriptor);
  };
  const auto unread = [] {
    int ends[2];
    if (::pipe(ends) != 0) ::_exit(99);
    ::dup2(ends[1], STDOUT_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
  };
  expect_failure("inspect " + path("run"), 3, {"standard output", "No space left"}, full);
  EXPECT_EQ(run("inspect " + path("run"), closed).code, 3);
  EXPECT_EQ(run("inspect " + path("run"), unread).code, 0);

  // A training is about the run folder, whoever watches.
  EXPECT_EQ(run("train --resume " + path("run") + " --stop-after 10", closed).code, 0);
  EXPECT_EQ(run("train --resume " + path("run") + " --stop-after 20", unread).code, 0);
  EXPECT_EQ(run("train --resume " + path("run") + " --stop-after 30", full).code, 0);
  expect_success(small_run("straight", "--stop-after 30"));
  EXPECT_EQ(tree(at("run/checkpoints/step_00000030")), tree(at("straight/checkpoints/step_00000030")));
}

TEST_F(CliTest, DoctorTriesWhatIsThere) {
  const ProgramResult result = expect_success("doctor");
  for (const std::string part : {"Bracket ", "cpu       works", "cuda"}) {
    EXPECT_NE(result.out.find(part), std::string::npos) << result.out;
  }
  std::vector<Device> devices(1);
  for (int i = 0; i < cuda_device_count(); ++i) devices.push_back({DeviceKind::cuda, i});
  for (const Device& device : devices) {
    EXPECT_NE(result.out.find(device_description(device) + "\n" + device.name()), std::string::npos) << result.out;
  }
}

}  // namespace
}  // namespace bracket
