#!/usr/bin/env python3
"""Tables for density estimation: what `bracket train` and `bracket eval --test` read.

  tools/density_tables.py digits --data-dir DATA --out tables/digits       8 x 8 digits, dequantised
  tools/density_tables.py pca-mnist --data-dir DATA --out tables/pca       MNIST on its first --columns principal axes
  tools/density_tables.py mixture --columns 8 --modes 16 --out tables/m8   Gaussian mixture of known entropy

Writes OUT/train.npy, OUT/validation.npy, OUT/test.npy (float64, shape (N, D)) and OUT/about.json: how they came about
and, of a mixture, the entropy in nats with its standard error. The same arguments give the same bytes.

digits: pixels 0 to 16 plus uniform noise in [0, 1), over 17: a density on [0, 1]^64 whose negative log-likelihood
bounds that of the whole numbers from above (Theis, van den Oord, Bethge 2016). Corner pixels that are 0 in every image
carry the noise alone. pca-mnist: pixels dequantised in the same way (256 levels), centred, projected on the axes of
largest variance of the training rows. mixture: equal weights, means uniform in [-spread, spread]^D, a full covariance
per mode whose deviations are uniform in [0.3, 1]. Needs numpy.
"""
import argparse
import gzip
import json
import math
import pathlib
import sys

try:
    import numpy as np
except ImportError:
    sys.exit("density_tables.py: numpy is not installed")

ENTROPY_SAMPLES = 200000
VALIDATION, TEST = 0.1, 0.2  # shares of a table that has no split of its own


def split(rows, generator):
    """(train, validation, test) of shuffled rows."""
    order = generator.permutation(len(rows))
    test, validation = round(TEST * len(rows)), round(VALIDATION * len(rows))
    return (rows[order[test + validation:]], rows[order[test:test + validation]], rows[order[:test]])


def dequantised(levels, count, generator):
    """Uniform in [0, 1) for whole numbers 0 .. count - 1."""
    return (levels + generator.random(levels.shape)) / count


def read_idx_images(path):
    with gzip.open(path, "rb") as file:
        data = file.read()
    magic, count, height, width = np.frombuffer(data, ">i4", 4)
    if magic != 2051 or len(data) < 16:
        raise ValueError(f"{path} is no IDX file of images")
    whole = min(int(count), (len(data) - 16) // (height * width))
    return np.frombuffer(data, np.uint8, whole * height * width, 16).reshape(whole, height * width)


def make_digits(options, generator):
    path = options.data_dir / "digits" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        pixels = np.loadtxt(file, delimiter=",")[:, :64]
    tables = split(dequantised(pixels, 17, generator), generator)
    return tables, {"source": "digits of scikit-learn, 8 x 8", "levels": 17}


def make_pca_mnist(options, generator):
    folder = options.data_dir / "mnist"
    pixels = read_idx_images(folder / "train-images-idx3-ubyte.gz")
    test = read_idx_images(folder / "t10k-images-idx3-ubyte.gz")
    train = dequantised(pixels, 256, generator)
    order = generator.permutation(len(train))
    held = round(VALIDATION * len(train))
    validation, train = train[order[:held]], train[order[held:]]
    mean = train.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(train - mean, rowvar=False))
    chosen = axes[:, ::-1][:, :options.columns]
    chosen = chosen * np.where(chosen[np.abs(chosen).argmax(axis=0), np.arange(chosen.shape[1])] < 0, -1, 1)
    tables = tuple((rows - mean) @ chosen for rows in (train, validation, dequantised(test, 256, generator)))
    share = float(variances[::-1][:options.columns].sum() / variances.sum())
    return tables, {"source": "MNIST", "levels": 256, "share_of_variance": share}


class Mixture:
    def __init__(self, columns, modes, spread, generator):
        self.means = generator.uniform(-spread, spread, (modes, columns))
        rotations = [np.linalg.qr(generator.standard_normal((columns, columns)))[0] for _ in range(modes)]
        deviations = generator.uniform(0.3, 1, (modes, columns))
        self.factors = np.array([r * s for r, s in zip(rotations, deviations)])  # x = mean + factor z
        self.inverses = np.array([(r / s).T for r, s in zip(rotations, deviations)])
        self.log_scales = np.log(deviations).sum(axis=1)

    def sample(self, count, generator):
        modes = generator.integers(len(self.means), size=count)
        z = generator.standard_normal((count, self.means.shape[1]))
        return self.means[modes] + np.einsum("nij,nj->ni", self.factors[modes], z)

    def log_density(self, x):
        logs = np.empty((len(x), len(self.means)))
        for k, (mean, inverse, log_scale) in enumerate(zip(self.means, self.inverses, self.log_scales)):
            z = (x - mean) @ inverse.T
            logs[:, k] = -0.5 * (z * z).sum(axis=1) - log_scale
        top = logs.max(axis=1)
        return (top + np.log(np.exp(logs - top[:, None]).sum(axis=1)) - math.log(len(self.means)) -
                0.5 * x.shape[1] * math.log(2 * math.pi))


def make_mixture(options, generator):
    mixture = Mixture(options.columns, options.modes, options.spread, generator)
    sizes = (options.rows, max(options.rows // 10, 1), max(options.rows // 5, 1))
    tables = tuple(mixture.sample(size, generator) for size in sizes)
    logs = np.concatenate([mixture.log_density(mixture.sample(10000, generator))
                           for _ in range(ENTROPY_SAMPLES // 10000)])
    return tables, {"modes": options.modes, "spread": options.spread, "entropy": float(-logs.mean()),
                    "entropy_standard_error": float(logs.std(ddof=1) / math.sqrt(len(logs))),
                    "test_nll": float(-mixture.log_density(tables[2]).mean())}


MAKERS = {"digits": make_digits, "pca-mnist": make_pca_mnist, "mixture": make_mixture}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(MAKERS))
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--data-dir", type=pathlib.Path, help="folder with digits/ and mnist/")
    parser.add_argument("--columns", type=int, default=8, help="of pca-mnist and mixture (default 8)")
    parser.add_argument("--modes", type=int, default=16, help="of a mixture (default 16)")
    parser.add_argument("--spread", type=float, default=4, help="of a mixture's means (default 4)")
    parser.add_argument("--rows", type=int, default=50000, help="of a mixture's training table (default 50000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if min(options.columns, options.modes, options.rows) < 1 or not options.spread >= 0 or options.seed < 0:
        parser.error("--columns, --modes and --rows must be at least 1, --spread and --seed not negative")
    if options.table == "pca-mnist" and options.columns > 784:
        parser.error("MNIST has 784 pixels")
    if options.table != "mixture" and options.data_dir is None:
        parser.error(f"{options.table} needs --data-dir")
    try:
        tables, about = MAKERS[options.table](options, np.random.Generator(np.random.PCG64(options.seed)))
    except (OSError, EOFError, ValueError) as error:
        print(f"density_tables.py: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(("train", "validation", "test"), tables):
        np.save(options.out / f"{name}.npy", np.ascontiguousarray(rows, np.float64))
    about = {"table": options.table, "seed": options.seed, "columns": int(tables[0].shape[1]),
             "rows": {name: len(rows) for name, rows in zip(("train", "validation", "test"), tables)}, **about}
    (options.out / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(about, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
