#!/usr/bin/env python3
"""Tests of tools/ptxas_table.py and of tools/cmake/ptxas_log.sh, with a script in place of the compiler."""
import contextlib
import importlib.util
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
_spec = importlib.util.spec_from_file_location("ptxas_table", ROOT / "tools" / "ptxas_table.py")
ptxas_table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ptxas_table)

SPILLING = """ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    64 bytes stack frame, 44 bytes spill stores, 64 bytes spill loads
ptxas info    : Function properties for slow_path
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 64 bytes cumulative stack size, 17408 bytes smem, 672 bytes cmem[0]
ptxas info    : Compile time = 1 ms
"""
CLEAN = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 400 bytes cmem[0]
"""


class PtxasTable(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = pathlib.Path(folder.name)

    def table(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = ptxas_table.main([str(self.build), *arguments])
        return status, out.getvalue(), err.getvalue()

    def test_every_figure_is_read(self):
        (self.build / "a.cu.o.ptxas").write_text(CLEAN + SPILLING)
        kernels = {k["name"]: k for k in ptxas_table.collect(self.build)}
        self.assertEqual(kernels["first"], {"source": "a.cu", "name": "first", "architecture": "sm_80", "registers": 32,
                                            "shared_bytes": 0, "stack_bytes": 0, "spill_store_bytes": 0,
                                            "spill_load_bytes": 0})
        second = kernels["second"]
        self.assertEqual((second["registers"], second["shared_bytes"], second["stack_bytes"]), (40, 17408, 64))
        self.assertEqual((second["spill_store_bytes"], second["spill_load_bytes"]), (52, 68))  # with what it calls

    def test_no_spills_pass(self):
        (self.build / "deep").mkdir()
        (self.build / "deep" / "a.cu.o.ptxas").write_text(CLEAN)
        status, out, err = self.table("--json", str(self.build / "t.json"), "--markdown", str(self.build / "t.md"))
        self.assertEqual((status, err), (0, ""))
        self.assertIn("1 kernels on sm_80, 0 of them spill", out)
        self.assertEqual(json.loads((self.build / "t.json").read_text())["kernels"][0]["registers"], 32)
        self.assertIn("| a.cu | first | sm_80 | 32 | 0 | 0 | 0 | 0 |", (self.build / "t.md").read_text())

    def test_a_spill_fails_and_is_named(self):
        (self.build / "a.cu.o.ptxas").write_text(CLEAN + SPILLING)
        status, _, err = self.table()
        self.assertEqual(status, 1)
        self.assertIn("second (a.cu) spills on sm_90: 52 bytes of stores, 68 of loads at 40 registers", err)
        self.assertNotIn("first", err)

    def test_a_build_without_reports_is_an_error(self):
        status, _, err = self.table()
        self.assertEqual(status, 2)
        self.assertIn("no report of ptxas", err)

    def test_a_report_that_was_cut_off_is_an_error(self):
        (self.build / "a.cu.o.ptxas").write_text(CLEAN[:CLEAN.index("Used")])
        status, _, err = self.table()
        self.assertEqual(status, 2)
        self.assertIn("a.cu", err)

    def test_a_folder_that_cannot_be_written_is_an_error(self):
        (self.build / "a.cu.o.ptxas").write_text(CLEAN)
        status, _, err = self.table("--json", str(self.build / "absent" / "t.json"))
        self.assertEqual(status, 2)
        self.assertIn("absent", err)

    def test_names_lose_what_all_of_them_share(self):
        mode = "void bracket::gpu::linear_tensor_kernel<(bracket::MathMode)1, 128>(int)"
        self.assertEqual(ptxas_table.short_name(mode), "linear_tensor<1, 128>")
        name = "void bracket::gpu::(anonymous namespace)::adam_kernel<float>(bracket::gpu::DeviceMatrix<float>)"
        self.assertEqual(ptxas_table.short_name(name), "adam<float>")
        body = "void bracket::gpu::body_kernel<bracket::gpu::optimizer_kernels::AdamBody<float> >(T1)"
        self.assertEqual(ptxas_table.short_name(body), "Adam<float>")
        self.assertEqual(ptxas_table.short_name("bracket::gpu::begin_step_kernel(bracket::StepState*)"), "begin_step")
        self.assertEqual(ptxas_table.short_name("main"), "main")

    def test_the_launcher_keeps_reports_and_passes_on_everything_else(self):
        compiler = self.build / "compiler"
        compiler.write_text("#!/bin/sh\necho 'a.cu(1): warning: unused' >&2\ncat \"$1\" >&2\nexit $2\n")
        compiler.chmod(0o755)
        (self.build / "said").write_text(CLEAN)
        launcher = ROOT / "tools" / "cmake" / "ptxas_log.sh"
        for status in (0, 3):
            done = subprocess.run([launcher, self.build / "a.cu.o", compiler, self.build / "said", str(status)],
                                  capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (status, "a.cu(1): warning: unused\n"))
        self.assertEqual([k["name"] for k in ptxas_table.collect(self.build)], ["first"])


if __name__ == "__main__":
    unittest.main()
