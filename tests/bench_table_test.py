#!/usr/bin/env python3
"""Tests of tools/bench_table.py, on made-up results."""
import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "tools" / "bench_table.py"
sys.dont_write_bytecode = True
_spec = importlib.util.spec_from_file_location("bench_table", SCRIPT)
bench_table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench_table)

CONV = "conv2d_forward/E3_64x16x16x64_to_128_k3s1"


def entries(name, times, unit="us", **more):
    return [{"name": name, "run_name": name, "run_type": "iteration", "real_time": time, "time_unit": unit, **more}
            for time in times]


class Table(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.files = 0

    def put(self, benchmarks, gpu="NVIDIA H200 (sm_90), driver 13.0"):
        self.files += 1
        path = pathlib.Path(self._folder.name) / f"{self.files}.json"
        path.write_text(json.dumps({"context": {"gpu": gpu}, "benchmarks": benchmarks}))
        return str(path)

    def run_tool(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(err):
            status = bench_table.main(list(arguments), out)
        return status, out.getvalue(), err.getvalue()

    def cells(self, text, start):
        """Cells of the one line of the table that begins with `start`."""
        lines = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
        self.assertEqual(len(lines), 1, text)
        return [cell.strip() for cell in lines[0].strip("|").split("|")]

    def test_medians_ratios_and_limits(self):
        own = self.put(entries(f"{CONV}/tf32/cuda/manual_time", [20, 10, 30], **{"GFLOP/s": 98940.0, "GB/s": 480.0}))
        rest = self.put(
            entries(f"{CONV}/tf32/cuda/cold/manual_time", [40], **{"GFLOP/s": 49470.0, "GB/s": 2400.0}) +
            entries(f"{CONV}/tf32/cuda/cudnn/manual_time", [0.03], "ms", label="NHWC algorithm 1") +
            entries(f"{CONV}/tf32/cuda/cudnn/cold/manual_time", [20000], "ns", label="NHWC algorithm 1"))
        status, text, _ = self.run_tool(own, rest)
        self.assertEqual(status, 0)
        # 98.94 of 494.7 Tflop/s; cold: 10 % of arithmetic, but half of 4.8 TB/s.
        self.assertEqual(self.cells(text, "E3_64x16x16x64_to_128_k3s1"),
                         ["E3_64x16x16x64_to_128_k3s1", "tf32", "20.0", "30.0", "1.50", "20 %", "40.0", "20.0",
                          "0.500", "50 %", "cudnn, NHWC algorithm 1"])
        self.assertIn("### conv2d_forward", text)
        self.assertIn("NVIDIA H200", text)

    def test_geometric_means_are_of_an_op_and_a_mode(self):
        rows = []
        for shape, own, other in (("8x8x8", 10, 20), ("9x9x9", 10, 80)):
            rows += entries(f"linear_forward/{shape}/f32/cuda/manual_time", [own])
            rows += entries(f"linear_forward/{shape}/f32/cuda/cublas/manual_time", [other])
        rows += entries("linear_forward/8x8x8/bf16/cuda/manual_time", [10])
        _, text, _ = self.run_tool(self.put(rows))
        self.assertEqual(self.cells(text, "geometric mean")[1:9], ["f32", "", "", "4.00", "", "", "", "-"])
        bf16 = [line for line in text.splitlines() if "| bf16 |" in line]
        self.assertEqual(len(bf16), 1)
        self.assertIn("| 10.0 | - | - |", bf16[0])

    def test_tf32x3_is_three_products(self):
        rows = entries("linear_forward/8x8x8/tf32x3/cuda/manual_time", [1], **{"GFLOP/s": 164900.0})
        self.assertEqual(self.cells(self.run_tool(self.put(rows))[1], "8x8x8")[5], "100 %")

    def test_memory_is_no_limit_of_warm_rows(self):
        rows = entries("copy/65536/f32/cuda/manual_time", [1], **{"GB/s": 9600.0})
        rows += entries("copy/65536/f32/cuda/cold/manual_time", [4], **{"GB/s": 2400.0})
        cells = self.cells(self.run_tool(self.put(rows))[1], "65536")
        self.assertEqual((cells[5], cells[9], cells[10]), ("-", "50 %", "-"))

    def test_limits_can_be_given(self):
        rows = entries("linear_forward/8x8x8/f32/cuda/manual_time", [1], **{"GFLOP/s": 5000.0})
        unknown = self.put(rows, "some other GPU")
        status, text, _ = self.run_tool(unknown)
        self.assertEqual((status, self.cells(text, "8x8x8")[5]), (0, "-"))
        self.assertIn("--limits", text)
        self.assertEqual(self.cells(self.run_tool(unknown, "--limits", "fp32=10")[1], "8x8x8")[5], "50 %")
        for wrong in ("fp23=1", "fp32=0", "fp32=x"):
            self.assertEqual(self.run_tool(unknown, "--limits", wrong)[0], 2)

    def test_limits_are_those_of_the_exact_device(self):
        rows = entries("linear_forward/8x8x8/f32/cuda/manual_time", [1], **{"GFLOP/s": 6700.0})
        for gpu, share in (("NVIDIA H200", "10 %"), ("NVIDIA H100 80GB HBM3", "10 %"), ("NVIDIA H100 PCIe", "13 %"),
                           ("NVIDIA A100-SXM4-80GB", "34 %"), ("NVIDIA GH200 480GB", "-"), ("NVIDIA H200 NVL", "-"),
                           ("NVIDIA H100 NVL", "-"), ("H200", "-")):
            text = self.run_tool(self.put(rows, f"{gpu} (sm_90), driver 13.0"))[1]
            self.assertEqual(self.cells(text, "8x8x8")[5], share, gpu)

    def test_arithmetic_in_double_has_its_own_limit(self):
        limits = "fp32=10,fp64=5"
        rows = entries("gram/4x4x4/f32/cuda/manual_time", [1], **{"GFLOP/s": 1000.0, "f64_arithmetic": 1.0})
        self.assertEqual(self.cells(self.run_tool(self.put(rows), "--limits", limits)[1], "4x4x4")[5], "20 %")
        rows = entries("gram/4x4x4/f32/cuda/manual_time", [1], **{"GFLOP/s": 1000.0})
        self.assertEqual(self.cells(self.run_tool(self.put(rows), "--limits", limits)[1], "4x4x4")[5], "10 %")

    def test_every_way_of_a_library_has_a_line(self):
        name = "linear_forward/8x8x8/bf16/cuda"
        rows = entries(f"{name}/manual_time", [10], **{"GFLOP/s": 98940.0})
        rows += entries(f"{name}/cublas/manual_time", [20])
        rows += entries(f"{name}/cublas_bf16/manual_time", [5], label="operands rounded to bf16 before")
        rows += entries(f"{name}/cublas_bf16/cold/manual_time", [30], label="operands rounded to bf16 before")
        text = self.run_tool(self.put(rows))[1]
        lines = [[cell.strip() for cell in line.strip("|").split("|")]
                 for line in text.splitlines() if "| bf16 |" in line]
        self.assertEqual([line[2:5] + line[7:8] + line[10:] for line in lines], [
            ["10.0", "20.0", "2.00", "-", "cublas"],
            ["10.0", "5.00", "0.500", "30.0", "cublas_bf16, operands rounded to bf16 before"],
            ["", "", "2.00", "", "cublas"], ["", "", "0.500", "", "cublas_bf16"]])

    def test_the_head_says_what_differs(self):
        text = self.run_tool(self.put(entries("fill/65536/f32/cuda/manual_time", [1])))[1]
        self.assertLess(text.index("What differs between the sides"), text.index("### fill"))

    def test_wrong_results_are_no_times(self):
        rows = entries("linear_forward/8x8x8/f32/cuda/manual_time", [10])
        rows += entries("linear_forward/8x8x8/f32/cuda/cublas/manual_time", [0], error_occurred=True)
        status, text, _ = self.run_tool(self.put(rows))
        self.assertEqual(status, 0)  # the library's own affair
        self.assertEqual(self.cells(text, "8x8x8")[2:5], ["10.0", "none", "-"])
        rows += entries("linear_forward/8x8x8/f32/cuda/cold/manual_time", [0], error_occurred=True)
        status, text, _ = self.run_tool(self.put(rows))
        self.assertEqual(status, 1)
        self.assertEqual(self.cells(text, "8x8x8")[6], "none")

    def test_what_was_not_captured_has_a_star(self):
        rows = entries("random_normal/65536/f32/cuda/manual_time", [10])
        rows += entries("random_normal/65536/f32/cuda/curand/manual_time", [12], launched=1.0)
        self.assertEqual(self.cells(self.run_tool(self.put(rows))[1], "65536")[3], "12.0*")

    def test_other_benchmarks_and_aggregates_are_passed_over(self):
        rows = entries("linear_forward/8x8x8/f32/cuda/manual_time", [10])
        rows += [dict(entries("linear_forward/8x8x8/f32/cuda/manual_time", [99])[0], run_type="aggregate")]
        rows += entries("linear_forward/8x8x8/f32/cpu1/process_time/real_time", [1])
        rows += entries("memory_pool/4KiB/cuda", [1])
        _, text, _ = self.run_tool(self.put(rows))
        self.assertEqual(self.cells(text, "8x8x8")[2], "10.0")
        self.assertNotIn("4KiB", text)
        self.assertNotIn("cpu1", text)

    def test_files_that_are_none(self):
        for text in ("", "{}", '{"context": {}, "benchmarks": [3]}', '{"context": {}, "benchmarks": []}'):
            path = pathlib.Path(self._folder.name) / "bad.json"
            path.write_text(text)
            status, out, err = self.run_tool(str(path))
            self.assertEqual((status, out), (2, ""), text)
            self.assertTrue(err.startswith("bench_table: error: "), err)
        self.assertEqual(self.run_tool(str(pathlib.Path(self._folder.name) / "absent.json"))[0], 2)

    def test_it_can_be_written(self):
        out = pathlib.Path(self._folder.name) / "table.md"
        _, text, _ = self.run_tool(self.put(entries("fill/65536/f32/cuda/manual_time", [1])), "--out", str(out))
        self.assertEqual(out.read_text(), text)


if __name__ == "__main__":
    unittest.main()
