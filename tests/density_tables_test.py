#!/usr/bin/env python3
"""Tests of tools/density_tables.py and tools/density_peers.py. Skipped (77) without numpy; the peers' part also without
scikit-learn."""
import contextlib
import gzip
import importlib.util
import io
import json
import math
import pathlib
import struct
import sys
import tempfile
import unittest

TOOLS = pathlib.Path(__file__).resolve().parent.parent / "tools"
sys.dont_write_bytecode = True
try:
    import numpy as np
except ImportError:
    print("numpy is not installed")
    sys.exit(77)


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = load("density_tables")
try:
    peers = load("density_peers")
except SystemExit as problem:
    print(problem)
    peers = None


class Tables(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def make(self, *arguments, out="out"):
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(tables.main([*arguments, "--out", str(self.folder / out)]), 0)
        read = [np.load(self.folder / out / f"{name}.npy") for name in ("train", "validation", "test")]
        return read, json.loads((self.folder / out / "about.json").read_text())

    def put_data(self):
        data = self.folder / "data"
        (data / "digits").mkdir(parents=True)
        (data / "mnist").mkdir()
        numbers = np.random.default_rng(1).integers(0, 17, (100, 65))
        with gzip.open(data / "digits" / "digits.csv.gz", "wt") as file:
            np.savetxt(file, numbers, fmt="%d", delimiter=",")
        for name, count in (("train", 900), ("t10k", 50)):
            pixels = np.random.default_rng(count).integers(0, 256, (count, 784), dtype=np.uint8)
            with gzip.open(data / "mnist" / f"{name}-images-idx3-ubyte.gz", "wb") as file:
                file.write(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        return ["--data-dir", str(data)], numbers[:, :64]

    def test_digits_are_dequantised_and_split(self):
        arguments, numbers = self.put_data()
        (train, validation, test), about = self.make("digits", *arguments)
        self.assertEqual((len(train), len(validation), len(test)), (70, 10, 20))
        self.assertEqual(about["columns"], 64)
        rows = np.concatenate([train, validation, test])
        self.assertTrue(((rows >= 0) & (rows < 1)).all())
        whole = np.floor(rows * 17).astype(int)
        self.assertEqual(sorted(map(tuple, whole)), sorted(map(tuple, numbers)))
        again, _ = self.make("digits", *arguments, out="again")
        other, _ = self.make("digits", *arguments, "--seed", "1", out="other")
        self.assertTrue((again[0] == train).all())
        self.assertFalse((other[0] == train).all())

    def test_pca_keeps_the_axes_of_largest_variance(self):
        arguments, _ = self.put_data()
        (train, validation, test), about = self.make("pca-mnist", *arguments, "--columns", "5")
        self.assertEqual((train.shape, validation.shape, test.shape), ((810, 5), (90, 5), (50, 5)))
        covariance = np.cov(train, rowvar=False)
        self.assertLess(np.abs(covariance - np.diag(np.diag(covariance))).max(), 1e-10)
        self.assertTrue((np.diff(np.diag(covariance)) <= 1e-12).all())
        self.assertTrue(0 < about["share_of_variance"] < 1)

    def test_a_mixture_of_one_mode_has_the_entropy_of_a_gaussian(self):
        for columns in (1, 7):
            (_, _, test), about = self.make("mixture", "--modes", "1", "--columns", str(columns), "--rows", "4000",
                                                "--seed", str(columns), out=str(columns))
            written = tables.Mixture(columns, 1, 4, np.random.Generator(np.random.PCG64(columns)))
            exact = 0.5 * columns * math.log(2 * math.pi * math.e) + written.log_scales[0]
            self.assertLess(abs(about["entropy"] - exact), 5 * about["entropy_standard_error"])
            # -log p of a row has variance D / 2.
            self.assertLess(abs(about["test_nll"] - exact), 5 * math.sqrt(columns / 2 / len(test)))

    def test_mixture_densities_integrate_to_one(self):
        mixture = tables.Mixture(2, 5, 2, np.random.default_rng(3))
        side = np.linspace(-8, 8, 801)
        grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        total = np.exp(mixture.log_density(grid)).sum() * (side[1] - side[0]) ** 2
        self.assertAlmostEqual(total, 1, places=9)

    def test_wrong_arguments_and_absent_files(self):
        for arguments in (["digits"], ["mixture", "--rows", "0"], ["pca-mnist", "--columns", "785", "--data-dir", "."]):
            with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()):
                tables.main([*arguments, "--out", str(self.folder / "x")])
            self.assertEqual(caught.exception.code, 2)
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(tables.main(["digits", "--data-dir", str(self.folder), "--out", str(self.folder / "x")]), 1)
        self.assertIn("digits.csv.gz", err.getvalue())
        self.assertFalse((self.folder / "x").exists())

    @unittest.skipIf(peers is None, "scikit-learn is not installed")
    def test_peers_come_near_the_truth(self):
        _, about = self.make("mixture", "--modes", "3", "--columns", "2", "--rows", "3000", "--seed", "5")
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(peers.main([str(self.folder / "out"), "--json", str(self.folder / "p.json"),
                                         "--components", "1,2,4,4000"]), 0)
        report = json.loads((self.folder / "p.json").read_text())
        mixture, kernel = report["gaussian_mixture"], report["kernel_density"]
        # Four components fit three modes but for their sampling error: some 24 parameters over 3,000 rows, 0.004 nats.
        error = mixture["test_nll_standard_error"]
        self.assertLess(abs(mixture["test_nll"] - about["test_nll"]), 0.02 + 0.2 * error)
        self.assertGreater(kernel["test_nll"], about["test_nll"] - 0.05)
        self.assertLess(kernel["test_nll"], about["test_nll"] + 0.3)
        self.assertEqual(report["columns"], 2)
        self.assertEqual(len(mixture["tried"]), 6)  # 4,000 components are more than the rows

    @unittest.skipIf(peers is None, "scikit-learn is not installed")
    def test_peers_refuse_what_is_no_table(self):
        self.make("mixture", "--rows", "50")
        np.save(self.folder / "out" / "test.npy", np.full((3, 8), np.nan))
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(peers.main([str(self.folder / "out")]), 1)
        self.assertIn("test.npy", err.getvalue())


if __name__ == "__main__":
    unittest.main()
