#!/usr/bin/env python3
"""Tests of tools/bench_compare.py."""
import importlib.util
import io
import itertools
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "tools" / "bench_compare.py"
sys.dont_write_bytecode = True
_spec = importlib.util.spec_from_file_location("bench_compare", SCRIPT)
bench_compare = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench_compare)


def enumerated_p(a, b):
    """Two-sided p by trying every way to split the pooled values."""
    def distance(first, second):
        u = sum((x > y) + 0.5 * (x == y) for x in first for y in second)
        return abs(u - len(first) * len(second) / 2)

    pooled = [*a, *b]
    observed = distance(a, b)
    splits = list(itertools.combinations(range(len(pooled)), len(a)))
    extreme = 0
    for chosen in splits:
        first = [pooled[i] for i in chosen]
        second = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        extreme += distance(first, second) >= observed - 1e-12
    return extreme / len(splits)


class MannWhitney(unittest.TestCase):
    def test_counts_are_all_rankings(self):
        for m, n in [(1, 1), (2, 3), (4, 4), (9, 9), (10, 12)]:
            counts = bench_compare.ranking_counts(m, n)
            self.assertEqual(sum(counts), math.comb(m + n, m))
            self.assertEqual(counts, counts[::-1])
            self.assertEqual(counts[0], 1)

    def test_exact_p_is_that_of_enumeration(self):
        samples = [
            ([1, 2, 3, 4], [5, 6, 7, 8, 9]),
            ([1, 4, 6, 8], [2, 3, 5, 7, 9]),
            ([2.5, 9.5, 3.5], [1, 2, 3, 4, 5, 6]),
            ([10], [1, 2, 3]),
        ]
        for a, b in samples:
            self.assertAlmostEqual(bench_compare.mann_whitney(a, b), enumerated_p(a, b), places=12)
            self.assertAlmostEqual(bench_compare.mann_whitney(b, a), enumerated_p(a, b), places=12)

    def test_separated_samples(self):
        a, b = list(range(9)), list(range(10, 19))
        self.assertAlmostEqual(bench_compare.mann_whitney(a, b), 2 / math.comb(18, 9), places=15)

    def test_textbook_critical_value(self):
        # Tables give the critical U of two-sided 1 % for samples of 9 and 9 as 11: U = 11 is significant, 12 is not.
        counts = bench_compare.ranking_counts(9, 9)
        p = [2 * sum(counts[: u + 1]) / math.comb(18, 9) for u in (11, 12)]
        self.assertLess(p[0], 0.01)
        self.assertGreater(p[1], 0.01)

    def test_ties_use_the_corrected_normal_approximation(self):
        a = [1, 2, 2, 3, 3, 3, 4, 4, 5, 6]
        b = [2, 3, 3, 4, 4, 5, 5, 5, 6, 7]
        # By hand: U = 0 + 2 (0.5) + 3 (2) + 2 (4) + 6.5 + 8.5 = 30; tie groups 1 3 5 4 4 2 1 give sum(t^3 - t) = 24 + 120
        # + 60 + 60 + 6 = 270; variance = 100 / 12 (21 - 270 / 380) = 169.079; z = (50 - 30 - 0.5) / 13.0030 = 1.49965;
        # p = erfc(z / sqrt 2) = 0.13371.
        self.assertAlmostEqual(bench_compare.mann_whitney(a, b), 0.13371, places=5)
        # Near the exact permutation distribution of the same tied values.
        self.assertLess(abs(bench_compare.mann_whitney(a, b) - enumerated_p(a, b)), 0.01)

    def test_equal_values_say_nothing(self):
        self.assertEqual(bench_compare.mann_whitney([3.0] * 9, [3.0] * 9), 1.0)

    def test_large_samples_agree_with_the_exact_distribution(self):
        a = [i + 0.25 for i in range(31)]
        b = [1.1 * i + 2.37 for i in range(31)]
        approximate = bench_compare.mann_whitney(a, b)  # 961 pairs
        u = sum(x > y for x in a for y in b)
        counts = bench_compare.ranking_counts(31, 31)
        exact = 2 * sum(counts[: min(u, 961 - u) + 1]) / math.comb(62, 31)
        # The first term the normal approximation leaves out (Edgeworth, two-sided): |g| / 12 |z^3 - 3 z| pdf(z), where
        # the excess kurtosis is g = -6/5 (m^2 + n^2 + m n + m + n) / (m n (m + n + 1)) = -0.058; at most 2.7e-3.
        self.assertLess(abs(approximate - exact), 2.7e-3)

    def test_empty_sample_is_an_error(self):
        with self.assertRaises(ValueError):
            bench_compare.mann_whitney([], [1.0])


def result(cases, unit="us", **context):
    """A result file: {name: times, or None for a case that failed}."""
    benchmarks = []
    for name, times in cases.items():
        if times is None:
            benchmarks.append({"name": name, "run_name": name, "run_type": "iteration", "error_occurred": True,
                               "error_message": "wrong result"})
            continue
        for index, time in enumerate(times):
            benchmarks.append({"name": name, "run_name": name, "run_type": "iteration", "repetition_index": index,
                               "real_time": time, "cpu_time": 1.0 + index * 1e-3, "time_unit": unit})
        benchmarks.append({"name": name + "_median", "run_name": name, "run_type": "aggregate",
                           "aggregate_name": "median", "real_time": 1e9, "cpu_time": 1e9, "time_unit": unit})
    return {"context": {"cpu_model": "test", **context}, "benchmarks": benchmarks}


def spread(median, count=9, width=0.01):
    """`count` different times around a median, 1 % apart from end to end."""
    return [median * (1 + width * (i / (count - 1) - 0.5)) for i in range(count)]


class Compare(unittest.TestCase):
    def run_compare(self, before, after, *flags):
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for name, data in (("a.json", before), ("b.json", after)):
                path = pathlib.Path(folder) / name
                path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
                paths.append(str(path))
            out = io.StringIO()
            status = bench_compare.main([*paths, *flags], out)
        return status, out.getvalue()

    def test_same_file(self):
        status, text = self.run_compare(result({"op": spread(100)}), result({"op": spread(100)}))
        self.assertEqual(status, 0)
        self.assertIn("+0.0 %", text)

    def test_slower_by_six_per_cent(self):
        status, text = self.run_compare(result({"op": spread(100)}), result({"op": spread(106)}))
        self.assertEqual(status, 1)
        self.assertIn("+6.0 %", text)
        self.assertIn("slower", text)

    def test_four_per_cent_is_within_the_threshold(self):
        status, _ = self.run_compare(result({"op": spread(100)}), result({"op": spread(104)}))
        self.assertEqual(status, 0)
        status, _ = self.run_compare(result({"op": spread(100)}), result({"op": spread(104)}), "--threshold", "3")
        self.assertEqual(status, 1)

    def test_noise_is_no_regression(self):
        # Medians 100 and 110, but the samples overlap widely.
        before = [80, 85, 90, 95, 100, 115, 120, 125, 130]
        after = [81, 86, 91, 96, 110, 116, 121, 126, 131]
        status, text = self.run_compare(result({"op": before}), result({"op": after}))
        self.assertEqual(status, 0)
        self.assertIn("+10.0 %", text)

    def test_faster(self):
        status, text = self.run_compare(result({"op": spread(100)}), result({"op": spread(50)}))
        self.assertEqual(status, 0)
        self.assertIn("faster", text)

    def test_eight_repetitions_are_too_few(self):
        status, text = self.run_compare(result({"op": spread(100, 8)}), result({"op": spread(200)}))
        self.assertEqual(status, 2)
        self.assertIn("8 repetitions, 9 are needed", text)

    def test_a_regression_outranks_an_unjudged_case(self):
        before = result({"few": spread(100, 5), "op": spread(100)})
        after = result({"few": spread(100, 5), "op": spread(150)})
        self.assertEqual(self.run_compare(before, after)[0], 1)

    def test_missing_and_new_cases(self):
        before, after = result({"op": spread(1), "gone": spread(1)}), result({"op": spread(1), "new": spread(1)})
        status, text = self.run_compare(before, after)
        self.assertEqual(status, 2)
        self.assertIn("missing in B", text)
        self.assertIn("new in B", text)
        status, _ = self.run_compare(result({"op": spread(1)}), after)
        self.assertEqual(status, 0)

    def test_wrong_results(self):
        self.assertEqual(self.run_compare(result({"op": spread(1)}), result({"op": None}))[0], 1)
        self.assertEqual(self.run_compare(result({"op": None}), result({"op": spread(1)}))[0], 2)
        self.assertEqual(self.run_compare(result({"op": spread(1)}), result({"op": spread(1), "new": None}))[0], 1)

    def test_units(self):
        self.assertEqual(self.run_compare(result({"op": spread(100)}), result({"op": spread(0.1)}, unit="ms"))[0], 0)
        self.assertEqual(self.run_compare(result({"op": spread(100)}), result({"op": spread(100)}, unit="ms"))[0], 1)

    def test_cpu_time(self):
        before, after = result({"op": spread(100)}), result({"op": spread(200)})
        self.assertEqual(self.run_compare(before, after, "--metric", "cpu_time")[0], 0)

    def test_another_machine_is_pointed_out(self):
        before, after = result({"op": spread(1)}), result({"op": spread(1)}, cpu_model="other")
        self.assertIn("cpu_model differs", self.run_compare(before, after)[1])

    def test_thresholds_that_hide_everything_are_refused(self):
        for arguments in (("--threshold", "nan"), ("--threshold", "-1"), ("--alpha", "nan"), ("--alpha", "0")):
            done = subprocess.run([sys.executable, str(SCRIPT), "a.json", "b.json", *arguments], capture_output=True,
                                  check=False)
            self.assertEqual(done.returncode, 2, arguments)

    def test_bad_files_in_a_process_of_their_own(self):
        good = json.dumps(result({"op": spread(1)}))
        aggregates = result({"op": spread(1)})
        aggregates["benchmarks"] = [b for b in aggregates["benchmarks"] if b["run_type"] == "aggregate"]
        strange = []
        for change in ({"real_time": float("nan")}, {"real_time": "1"}, {"real_time": True}, {"run_name": 5}):
            data = result({"op": spread(1)})
            data["benchmarks"][0].update(change)
            strange.append(json.dumps(data))
        for context in (None, [], "x"):
            strange.append(json.dumps({**result({"op": spread(1)}), "context": context}))
        for bad in ("", "[]", "{}", good[: len(good) // 2], json.dumps(aggregates), "[" * 100000, *strange):
            with tempfile.TemporaryDirectory() as folder:
                a, b = pathlib.Path(folder) / "a.json", pathlib.Path(folder) / "b.json"
                a.write_text(good, encoding="utf-8")
                b.write_text(bad, encoding="utf-8")
                done = subprocess.run([sys.executable, str(SCRIPT), str(a), str(b)], capture_output=True, text=True,
                                      check=False)
            self.assertEqual(done.returncode, 2, bad[:40])
            self.assertTrue(done.stderr.startswith("bench_compare: error: "), done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        done = subprocess.run([sys.executable, str(SCRIPT), "/nonexistent/a.json", "/nonexistent/b.json"],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("/nonexistent/a.json", done.stderr)


if __name__ == "__main__":
    unittest.main()
