#!/usr/bin/env python3
"""Tests of tools/bench_peers.py, with a script in place of the participants."""
import argparse
import contextlib
import importlib.util
import io
import json
import math
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
_spec = importlib.util.spec_from_file_location("bench_peers", ROOT / "tools" / "bench_peers.py")
bench_peers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench_peers)

# A participant whose iterations take $1 s; $2: what is odd about it.
PARTICIPANT = """import json, sys
seconds, odd = float(sys.argv[1]), sys.argv[2]
if odd == "missing":
    print("No module named 'jax'", file=sys.stderr)
    sys.exit(77)
if odd == "crash":
    print("Traceback\\nboom in /somewhere/private/file.py", file=sys.stderr)
    sys.exit(1)
loss = 2.0 if odd == "wrong" else 1.0
print(json.dumps({"versions": {"torch": "1"}, "first": {"losses": {"penalty": loss}, "changes": {"w": [1.0, 0.5]}}}))
sys.stdout.flush()
for count, line in enumerate(sys.stdin):
    if odd == "dies" and count == 3:
        sys.exit(1)
    value = float("nan") if odd == "nan" else 1.0
    print(json.dumps({"seconds": seconds * int(line), "losses": {"penalty": value}}))
    sys.stdout.flush()
"""


class Statistics(unittest.TestCase):
    def test_summary(self):
        self.assertEqual(bench_peers.summary([4, 1, 3, 2, 5]), {"median": 3, "quartiles": [2, 4], "least": 1})
        self.assertEqual(bench_peers.summary([7]), {"median": 7, "quartiles": [7, 7], "least": 7})

    def test_ratios_are_of_rounds(self):
        # The second round was twice as slow for both.
        self.assertEqual(bench_peers.ratios([3, 6, 3], [1, 2, 1])["median"], 3)
        self.assertEqual(bench_peers.ratios([3, 6, 3], [1, 2, 1])["quartiles"], [3, 3])

    def test_disagreement(self):
        first = {"losses": {"penalty": 10.0}, "changes": {"w": [1.0, 0.5]}}
        self.assertEqual(bench_peers.disagreement(first, first, "fp32"), "")
        near = {"losses": {"penalty": 10.0 + 1e-5}, "changes": {"w": [1.0005, 0.5]}}
        self.assertEqual(bench_peers.disagreement(near, first, "fp32"), "")
        far = {"losses": {"penalty": 10.01}, "changes": {"w": [1.0, 0.5]}}
        self.assertIn("penalty", bench_peers.disagreement(far, first, "fp32"))
        self.assertEqual(bench_peers.disagreement(far, first, "tf32"), "")
        self.assertIn("w", bench_peers.disagreement({**first, "changes": {"w": [1.0, 0.4]}}, first, "fp32"))
        self.assertIn("w", bench_peers.disagreement({**first, "changes": {}}, first, "fp32"))
        noise = {"losses": {}, "changes": {"b": [0.03, 0.01]}}
        self.assertEqual(bench_peers.disagreement({"losses": {}, "changes": {"b": [0.06, 0.06]}}, noise, "fp32"), "")
        self.assertIn("penalty", bench_peers.disagreement({**first, "losses": {"penalty": math.nan}}, first, "bf16"))

    def test_paths_are_cut(self):
        self.assertEqual(bench_peers.without_paths("in /a/b-1/c.py line 3"), "in c.py line 3")
        self.assertEqual(bench_peers.without_paths("1/2 of it"), "1/2 of it")


class Rows(unittest.TestCase):
    def precisions(self, device, precision):
        options = argparse.Namespace(device=device, precision=precision, threads="1,2", peers="ours,B2", build=ROOT,
                                     python="python3")
        rows = bench_peers.rows_of(options)
        for row in rows:
            command = bench_peers.command_of(row, "toy-a:8", options)
            self.assertEqual(command[command.index("--math" if row["peer"] == "ours" else "--precision") + 1],
                             row["precision"])
        return [(row["peer"], row["precision"]) for row in rows]

    def test_a_gpu_has_rows_of_math_modes(self):
        self.assertEqual(self.precisions("cpu", "fp32"), [("ours", "fp32")] * 2 + [("B2", "fp32")] * 2)
        self.assertEqual(self.precisions("cuda", "fp32"), [("ours", "fp32"), ("ours", "tf32x3"), ("B2", "fp32")])
        self.assertEqual(self.precisions("cuda", "bf16"),
                         [("ours", "fp32"), ("ours", "tf32x3"), ("ours", "bf16"), ("B2", "bf16")])


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "participant.py").write_text(PARTICIPANT)

    def run_peers(self, participants, *arguments):
        """Participants: {peer: (seconds, what is odd)}; returns exit status, report and table."""
        def command(row, case, options):
            seconds, odd = participants[row["peer"]]
            if odd == "no program":
                return [str(self.folder / "none")]
            return [sys.executable, str(self.folder / "participant.py"), str(seconds), odd]

        out = io.StringIO()
        with mock.patch.object(bench_peers, "command_of", command), contextlib.redirect_stdout(out), \
                contextlib.redirect_stderr(out):
            status = bench_peers.main(["--build", ".", "--out", str(self.folder / "r"), "--case", "toy-a:8",
                                       "--threads", "1", "--rounds", "4", "--seconds", "0.1", "--peers",
                                       ",".join(participants), *arguments])
        self.assertEqual(list(self.folder.glob("*.tmp")), [])
        return status, json.loads((self.folder / "r.json").read_text()), (self.folder / "r.md").read_text()

    def test_rows_and_ratios(self):
        status, report, table = self.run_peers({"ours": (0.001, ""), "B1": (0.02, ""), "B4": (0.01, "missing")})
        self.assertEqual(status, 0)
        ours, eager, jax = report["cases"][0]["rows"]
        self.assertEqual((ours["status"], ours["median"], ours["iterations_per_block"]), ("measured", 1.0, 100))
        self.assertEqual((eager["median"], eager["times_ours"]["median"], len(eager["milliseconds"])), (20.0, 20.0, 4))
        self.assertEqual((jax["status"], jax["reason"]), ("not installed", "No module named 'jax'"))
        self.assertNotIn("milliseconds", jax)
        self.assertIn("| PyTorch eager, autograd | fp32 | 1 | 20 | 20 to 20 | 20.00 |", table)
        self.assertIn("| JAX, jit | fp32 | 1 | not installed: No module named 'jax' | | |", table)
        self.assertEqual(len(report["cases"][0]["load_average"]), 4)
        self.assertEqual(set(report["context"]), {"date", "revision", "processor", "device", "rounds",
                                                  "seconds_per_block"})

    def test_a_peer_that_computes_something_else_is_not_timed(self):
        status, report, table = self.run_peers({"ours": (0.001, ""), "B1": (0.02, ""), "B2": (0.01, "wrong")})
        self.assertEqual(status, 1)
        row = report["cases"][0]["rows"][2]
        self.assertEqual(row["status"], "failed")
        self.assertIn("penalty of its first iteration is off", row["reason"])
        self.assertNotIn("median", row)
        self.assertIn("failed: penalty", table)

    def test_failures_leave_the_others(self):
        for odd in ("crash", "dies", "nan"):
            status, report, _ = self.run_peers({"ours": (0.001, ""), "B1": (0.02, odd)})
            self.assertEqual(status, 1, odd)
            ours, eager = report["cases"][0]["rows"]
            self.assertEqual((ours["status"], eager["status"]), ("measured", "failed"), odd)
            self.assertNotIn("/somewhere", eager["reason"])
        status, report, _ = self.run_peers({"ours": (0.001, "no program"), "B1": (0.02, "")})
        self.assertEqual(status, 0)
        self.assertEqual([row["status"] for row in report["cases"][0]["rows"]], ["not installed", "measured"])

    def test_the_order_moves(self):
        class Recorder:
            def __init__(self, key):
                self.key = key

            def seconds(self, iterations):
                order.append(self.key)
                return 0.1 * iterations

        order, rows = [], [{}, {}, {}]
        options = mock.Mock(rounds=3, seconds=0.1, first=1)
        with mock.patch.object(bench_peers.time, "sleep"):
            bench_peers.measure(rows, {key: (Recorder(key), None) for key in range(3)}, options, [])
        self.assertEqual(order[6:], [0, 1, 2, 1, 2, 0, 2, 0, 1])

    def test_no_chart_without_matplotlib(self):
        with mock.patch.dict(sys.modules, {"matplotlib": None}), contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertFalse(bench_peers.chart({"cases": []}, self.folder / "chart.png"))
        self.assertIn("matplotlib is not installed", said.getvalue())
        self.assertFalse((self.folder / "chart.png").exists())

    def test_unknown_peers_are_refused(self):
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            bench_peers.main(["--build", ".", "--out", "x", "--peers", "ours,B9"])


if __name__ == "__main__":
    unittest.main()
