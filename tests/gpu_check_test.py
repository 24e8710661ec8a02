#!/usr/bin/env python3
"""Tests of tools/gpu_check.py, with scripts in place of test programs and of compute-sanitizer."""
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "tools" / "gpu_check.py"
sys.dont_write_bytecode = True
_spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
gpu_check = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gpu_check)

# A program of $TESTS tests of which all pass, reported as gtest does.
TEST_PROGRAM = """for word in "$@"; do
  case $word in
    --gtest_list_tests) exit 0 ;;
    --gtest_output=json:*) report=${word#*json:} ;;
  esac
done
cases=$(for i in $(seq 1 ${TESTS:-20}); do printf '%s{"name": "t%d", "result": "COMPLETED"}' "${comma:-}" $i; comma=,; done)
echo "{\\"testsuites\\": [{\\"testsuite\\": [$cases]}]}" > "$report"
"""
# Leaves a row of ours, or one of a library's, where it is told to.
BENCH_PROGRAM = """for word in "$@"; do
  case $word in
    --benchmark_out=*) out=${word#*=} ;;
    --benchmark_filter=*cold*) name=copy/8/f32/cuda/cub/manual_time ;;
    --benchmark_filter=*) name=copy/8/f32/cuda/manual_time ;;
  esac
done
echo "{\\"context\\": {\\"gpu\\": \\"A\\"}, \\"benchmarks\\": [{\\"name\\": \\"$name\\", \\"real_time\\": 2, \\"time_unit\\": \\"us\\"}]}" > "$out"
"""
# Runs the program behind its options.
SANITIZER = """[ "$1" = --version ] && exit 0
while [ "${1#-}" != "$1" ] || [ ! -x "$1" ]; do shift; done
exec "$@"
"""


class GpuCheck(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.root = pathlib.Path(self._folder.name)
        self.build = self.root / "build"
        for name in gpu_check.SANITIZER_SUITES:
            self.put(f"build/tests/{name}", TEST_PROGRAM)
        self.put("build/tools/bracket", "echo fine")
        path = mock.patch.dict(os.environ, {"PATH": f"{self.root / 'bin'}:/usr/bin:/bin"})
        path.start()
        self.addCleanup(path.stop)

    def put(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/bash\n" + text)
        path.chmod(0o755)

    def memcheck(self):
        return gpu_check.sanitizer_section(self.build, "memcheck")

    def test_all_is_well(self):
        self.put("bin/compute-sanitizer", SANITIZER)
        section = self.memcheck()
        self.assertEqual(section["status"], "passed", section)
        self.assertEqual(list(section["programs"]), gpu_check.SANITIZER_SUITES)
        tests = gpu_check.tests_section(self.build)
        self.assertEqual((tests["status"], tests["tests"]), ("passed", 20 * len(gpu_check.SANITIZER_SUITES)))

    def test_an_absent_or_broken_sanitizer_is_unavailable(self):
        section = self.memcheck()
        self.assertEqual(section["status"], "unavailable")
        self.assertIn("not on PATH", section["reason"])
        self.put("bin/compute-sanitizer", "echo no permission; exit 1")
        section = self.memcheck()
        self.assertEqual(section["status"], "unavailable")
        self.assertIn("no permission", section["reason"])
        self.put("bin/compute-sanitizer", '[ "$1" = --version ] || { echo no counters; exit 1; }')
        section = self.memcheck()
        self.assertEqual(section["status"], "unavailable")
        self.assertIn("no counters", section["reason"])

    def test_crashes_zero_tests_and_errors_are_failures_and_keep_the_other_suites(self):
        self.put("bin/compute-sanitizer", SANITIZER)
        listing = 'case "$*" in *list_tests*) exit 0 ;; esac\n'
        endings = {
            "dense_test": "echo illegal address; kill -SEGV $$",
            "linear_test": TEST_PROGRAM.replace("${TESTS:-20}", "0"),
            "normalization_test": TEST_PROGRAM + "echo invalid read; exit 9",
            "network_test": 'for word in "$@"; do :; done; echo "{" > "${word#*json:}"',
        }
        for name, ending in endings.items():
            self.put(f"build/tests/{name}", listing + ending)
        section = self.memcheck()
        self.assertEqual(section["status"], "failed")
        self.assertEqual(section["programs"]["reduction_test"]["status"], "passed")
        self.assertEqual(section["programs"]["normalization_test"]["tests"], 20)
        self.assertEqual(set(section["output"]), set(endings))
        self.assertIn("illegal address", section["output"]["dense_test"])

    def test_a_timeout_is_a_failure_with_the_output_so_far(self):
        self.put("slow", "echo begun; exec sleep 60")
        summary, tail = gpu_check.run_tests(self.root / "slow", timeout=1)
        self.assertEqual((summary["status"], summary["exit"]), ("failed", None))
        self.assertIn("begun", tail)
        self.assertIn("no end within 1 s", tail)

    def test_a_missing_suite_is_a_failure(self):
        self.put("bin/compute-sanitizer", SANITIZER)
        (self.build / "tests/dense_test").unlink()
        section = self.memcheck()
        self.assertEqual(section["status"], "failed")
        self.assertIn("dense_test", section["reason"])
        self.assertEqual(len(section["programs"]), len(gpu_check.SANITIZER_SUITES) - 1)

    def test_skipped_and_too_few_tests_are_failures(self):
        self.put("build/tests/dense_test", TEST_PROGRAM.replace("COMPLETED", "SKIPPED"))
        tests = gpu_check.tests_section(self.build)
        self.assertEqual((tests["status"], tests["skipped"]), ("failed", 20))
        with mock.patch.dict(os.environ, {"TESTS": "3"}):
            self.put("build/tests/dense_test", TEST_PROGRAM)
            tests = gpu_check.tests_section(self.build)
        self.assertEqual(tests["status"], "failed")
        self.assertIn(f"only {3 * len(gpu_check.SANITIZER_SUITES)} GPU tests", tests["reason"])

    def test_a_benchmark_that_hangs_is_a_failure(self):
        self.put("build/bench/bracket_bench", "echo begun; exec sleep 60")
        original = gpu_check.run
        with mock.patch.object(gpu_check, "run", lambda command, timeout: original(command, 1)):
            section = gpu_check.bench_section(self.build, self.root)
        self.assertEqual(section["status"], "failed")
        self.assertIn("begun", section["output"])

    def test_benchmarks_are_held_against_stored_ones_of_the_same_gpu(self):
        def result(milliseconds, gpu):
            entries = [{"name": "op", "run_name": "op", "run_type": "iteration", "real_time": milliseconds + i / 1000,
                        "cpu_time": 1, "time_unit": "ms"} for i in range(10)]
            return json.dumps({"context": {"gpu": gpu}, "benchmarks": entries})

        def compared(stored):
            section = gpu_check.comparison_section(stored, self.root)
            return section["status"], section.get("reason", "")

        self.assertEqual(compared(None)[0], "unavailable")
        self.assertEqual(compared(result(1, "A"))[0], "failed")  # no JSON of this run
        (self.root / "bench.json").write_text(result(1.2, "A"))
        self.assertEqual(compared(result(1.2, "A"))[0], "passed")
        self.assertEqual(compared(result(1, "A"))[0], "failed")  # 20 % slower
        self.assertEqual(compared(result(1.4, "A"))[0], "passed")
        status, reason = compared(result(1, "B"))
        self.assertEqual(status, "unavailable")
        self.assertIn("of B, this is A", reason)
        self.assertEqual(compared("no JSON")[0], "unavailable")

    def test_rows_are_of_one_file_each(self):
        own, others = re.compile(gpu_check.OWN_ROWS), re.compile(gpu_check.OTHER_ROWS)
        for name in ("copy/8/f32/cuda/manual_time", "memory_pool/4KiB/cuda", "training_iteration/toy-a/tf32/cuda"):
            self.assertTrue(own.search(name) and not others.search(name), name)
        for name in ("copy/8/f32/cuda/cold/manual_time", "copy/8/f32/cuda/cub/manual_time",
                     "copy/8/f32/cuda/cublas/cold/manual_time"):
            self.assertTrue(others.search(name) and not own.search(name), name)
        self.assertIsNone(own.search("copy/8/f32/cpu1/process_time/real_time"))

    def test_the_report_is_always_written(self):
        for program, status in ((BENCH_PROGRAM, 0), ("exit 1", 1), ("exit 0", 1)):
            self.put("build/bench/bracket_bench", program)
            done = subprocess.run([sys.executable, SCRIPT, "--build", self.build, "--results", self.root, "--revision",
                                   "abc"], capture_output=True, text=True)
            self.assertEqual(done.returncode, status, done.stdout + done.stderr)
            report = json.loads((self.root / "gpu_check.json").read_text())
            self.assertEqual(report["bench"]["status"], "failed" if program == "exit 1" else "passed")
            self.assertEqual(report["libraries"]["status"], "failed" if status else "passed")
            self.assertEqual(report["memcheck"]["status"], "unavailable")
            self.assertEqual(report["doctor"], ["fine"])
            table = self.root / "libraries.md"
            self.assertEqual(table.exists(), status == 0)
            if status == 0:
                self.assertIn("| 8 | f32 | 2.00 | 2.00 | 1.00 |", table.read_text())
            for name in ("bench.json", "libraries.json", "libraries.md"):
                (self.root / name).unlink(missing_ok=True)
        (self.build / "tools/bracket").unlink()
        subprocess.run([sys.executable, SCRIPT, "--build", self.build, "--results", self.root, "--revision", "abc"],
                       capture_output=True)
        self.assertIn("No such file", json.loads((self.root / "gpu_check.json").read_text())["doctor"][0])


if __name__ == "__main__":
    unittest.main()
