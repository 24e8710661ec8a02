#!/usr/bin/env python3
"""Tests of tools/sweep.py, with a script in place of the program."""
import argparse
import contextlib
import csv
import importlib.util
import io
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "tools" / "sweep.py"
sys.dont_write_bytecode = True
_spec = importlib.util.spec_from_file_location("sweep", SCRIPT)
sweep = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sweep)

# Trains for no time. NLL: 10 rate + seed. Rate 9 diverges, rate 8 gives something else than JSON, rate 7 waits.
PROGRAM = """#!/usr/bin/env python3
import json, pathlib, signal, sys, time
def stop(number, frame):
    with open(pathlib.Path(sys.argv[0]).parent / "stops", "a") as file:
        print(number, file=file)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
words = sys.argv[1:]
after = lambda name: words[words.index(name) + 1]
if words[0] == "train":
    resumed = "--resume" in words
    folder = pathlib.Path(after("--resume") if resumed else after("--out"))
    folder.mkdir(parents=True, exist_ok=True)
    sets = dict(word.split("=", 1) for before, word in zip(words, words[1:]) if before == "--set")
    if resumed:
        (folder / "resumed").write_text(json.dumps(words))
    else:
        (folder / "config.json").write_text(json.dumps({"sets": sets, "seed": int(after("--seed")), "words": words}))
    rate = json.loads((folder / "config.json").read_text())["sets"].get("rate", "0")
    if rate == "7" and not resumed:
        time.sleep(60)
    sys.exit(4 if rate == "9" else 0)
config = json.loads((pathlib.Path(words[1]) / "config.json").read_text())
rate = config["sets"].get("rate", "0")
if rate == "8":
    print("oops")
else:
    print(json.dumps({"nll_exact": 10 * float(rate) + config["seed"], "seed": 5, "calibrated": True, "data": "d",
                      "warnings": [], "ess": None}))
"""


class Sweeps(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.program = self.folder / "bracket"
        self.program.write_text(PROGRAM, encoding="utf-8")
        self.program.chmod(0o755)
        self.out = self.folder / "out"

    def command(self, *arguments):
        return ["--program", str(self.program), "--out", str(self.out), "--data", "points", *arguments]

    def sweep(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = sweep.main(self.command(*arguments))
        return status, out.getvalue(), err.getvalue()

    def rows(self):
        with open(self.out / "sweep.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def test_every_combination_and_seed(self):
        status, _, _ = self.sweep("--set", "rate=1,2", "--set", "width=3,4", "--seeds", "0-2", "--", "--steps", "5")
        self.assertEqual(status, 0)
        rows = self.rows()
        self.assertEqual(len(rows), 12)
        self.assertEqual({(r["rate"], r["width"], r["seed"]) for r in rows},
                         {(a, b, c) for a in "12" for b in "34" for c in "012"})
        for row in rows:
            self.assertEqual(float(row["nll_exact"]), 10 * float(row["rate"]) + int(row["seed"]))
            self.assertEqual((row["status"], row["calibrated"]), ("done", "True"))
            self.assertNotIn("ess", row)
            words = json.loads((self.out / "runs" / row["run"] / "config.json").read_text())["words"]
            self.assertEqual(words[words.index("--steps") + 1], "5")
            self.assertEqual(words[words.index("--threads") + 1], "1")
        table = (self.out / "comparison.md").read_text().splitlines()
        self.assertIn("| rate=1, width=3 | 11 | 0.58 | 3 |", table)  # deviation 1, over sqrt 3
        self.assertIn("rate=1", table[2])
        self.assertIn("rate=2", table[-1])

    def test_failures_are_rows(self):
        status, out, _ = self.sweep("--set", "rate=9,1,8", "--seeds", "0,1")
        self.assertEqual(status, 1)
        rows = self.rows()
        self.assertEqual([r["status"].split(",")[0] for r in rows if r["rate"] == "9"], ["train ended with 4"] * 2)
        self.assertEqual([r["status"] for r in rows if r["rate"] == "1"], ["done"] * 2)
        self.assertNotIn("done", [r["status"] for r in rows if r["rate"] == "8"])
        self.assertIn("| rate=9 | unknown | unknown | 0 of 2 |", out)
        # Again: what is done is kept, what failed is tried again.
        before = [(self.out / "runs" / r["run"] / "eval.json").stat().st_mtime_ns for r in rows if r["rate"] == "1"]
        self.assertEqual(self.sweep("--set", "rate=9,1,8", "--seeds", "0,1")[0], 1)
        self.assertEqual(before, [(self.out / "runs" / r["run"] / "eval.json").stat().st_mtime_ns
                                  for r in self.rows() if r["rate"] == "1"])

    def test_an_interrupted_sweep_goes_on(self):
        arguments = self.command("--set", "rate=7,1", "--jobs", "2")
        process = subprocess.Popen([sys.executable, str(SCRIPT), *arguments], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        deadline = time.monotonic() + 30
        while len(list(self.out.glob("runs/*rate=7*/config.json"))) == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn(b"the same command goes on", err)
        self.assertEqual((self.folder / "stops").read_text(), "15\n")  # once, with SIGTERM
        arguments = ("--set", "rate=7,1", "--jobs", "2")
        self.assertEqual(self.sweep(*arguments)[0], 0)
        self.assertEqual([r["nll_exact"] for r in self.rows()], ["70.0", "10.0"])
        self.assertGreater(float(self.rows()[0]["seconds"]), 0)

    def test_another_sweep_is_refused(self):
        self.assertEqual(self.sweep("--set", "rate=1", "--set", "name=[\"1,2\"]")[0], 0)
        # The second has the same folder names.
        for arguments in (["--set", "rate=2"], ["--set", "rate=1", "--set", "name=[\"1;2\"]"], ["--set", "rate=1"]):
            status, _, err = self.sweep(*arguments)
            self.assertEqual(status, 2)
            self.assertIn("holds another sweep", err)

    def test_resumed_runs_get_what_resume_takes(self):
        self.assertEqual(sweep.resumed_arguments(["--preset", "p", "--steps", "5", "--device=cpu", "--one-kernel",
                                                  "--config", "--steps.json", "--on-divergence", "rollback"]),
                         ["--steps", "5", "--device=cpu", "--one-kernel", "--on-divergence", "rollback"])
        arguments = ("--set", "rate=9", "--", "--preset", "p", "--on-divergence", "rollback")
        for _ in range(2):
            self.assertEqual(self.sweep(*arguments)[0], 1)
        run = next((self.out / "runs").glob("*/resumed"))
        self.assertEqual(json.loads(run.read_text())[3:], ["--threads", "1", "--on-divergence", "rollback"])

    def test_metrics_and_their_direction(self):
        status, out, _ = self.sweep("--set", "rate=1,2", "--largest", "--metric", "nll_exact")
        self.assertEqual(status, 0)
        self.assertLess(out.index("| rate=2 |"), out.index("| rate=1 |"))
        self.assertEqual(self.sweep("--set", "rate=1,2", "--metric", "absent")[0], 0)
        self.assertIn("unknown", (self.out / "comparison.md").read_text())

    def test_wrong_command_lines(self):
        for arguments in (["--set", "rate"], ["--set", "rate="], ["--set", "rate=1,,2"], ["--set", "rate=1,1"],
                          ["--set", "=1"], ["--set", "rate=[1"], ["--set", "a=1", "--set", "a=2"], ["--seeds", "x"],
                          ["--seeds", "3-1"], ["--seeds", "1,0-2"], ["--jobs", "0"], ["--", "--seed", "3"],
                          ["--", "--set=a=1"]):
            with self.assertRaises(SystemExit) as caught:
                self.sweep(*arguments)
            self.assertEqual(caught.exception.code, 2, arguments)
        self.program.unlink()
        with self.assertRaises(SystemExit):
            self.sweep()

    def test_names(self):
        self.assertEqual(sweep.parse_setting("a.b=1e-3,2"), ("a.b", ["1e-3", "2"]))
        self.assertEqual(sweep.parse_setting('a=["x,y", 3]'), ("a", ["x,y", "3"]))
        self.assertEqual(sweep.parse_seeds("4,0-2"), [4, 0, 1, 2])
        name = sweep.run_name(3, [("data", "../x y" + "z" * 300)], 1)
        self.assertNotIn("/", name)
        self.assertLess(len(name), 200)
        with self.assertRaises(argparse.ArgumentTypeError):
            sweep.parse_setting("nothing")

    def test_comparison_of_one_seed_has_no_error(self):
        compared = sweep.compare([{"settings": []}], [{"status": "done", "m": 2}], "m", False)
        self.assertEqual(compared[0]["mean"], 2)
        self.assertTrue(math.isnan(compared[0]["error"]))


if __name__ == "__main__":
    unittest.main()
