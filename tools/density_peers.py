#!/usr/bin/env python3
"""Held-out negative log-likelihood of scikit-learn's kernel density estimate and Gaussian mixtures, in nats per row.

  tools/density_peers.py tables/digits --json peers.json

Reads train.npy, validation.npy and test.npy (tools/density_tables.py writes them). Bandwidth, number of components and
type of covariance are those that the validation rows like best; the winner's figure on the test rows is what `bracket
eval --test tables/digits/test.npy` is compared with. Columns are standardised by the training rows first; the figures
are in the units of the files. Needs numpy and scikit-learn.
"""
import argparse
import json
import math
import pathlib
import sys
import time

try:
    import numpy as np
    import sklearn
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import KernelDensity
except ImportError as error:
    sys.exit(f"density_peers.py: {error.name} is not installed")

BANDWIDTHS = [round(0.05 * 1.25**k, 4) for k in range(16)]  # 0.05 to 1.4 deviations
COMPONENTS = [1, 2, 4, 8, 16, 32, 64]
COVARIANCES = ["full", "diag"]
REGULARISATION = 1e-4  # of covariances, in squared deviations


def read(folder, name):
    rows = np.load(folder / f"{name}.npy")
    if rows.ndim != 2 or len(rows) == 0 or not np.isfinite(rows).all():
        raise ValueError(f"{folder / name}.npy is no table of finite numbers")
    return rows.astype(np.float64)


def kernel_densities(train, bandwidths):
    for bandwidth in bandwidths:
        yield {"bandwidth": bandwidth}, KernelDensity(bandwidth=bandwidth, kernel="gaussian").fit(train)


def mixtures(train, components, seed):
    for count in components:
        if count > len(train):
            continue
        for covariance in COVARIANCES:
            model = GaussianMixture(count, covariance_type=covariance, reg_covar=REGULARISATION, random_state=seed,
                                    max_iter=200)
            yield {"components": count, "covariance": covariance}, model.fit(train)


def best_of(candidates, validation, test, log_scale):
    """The candidate that the validation rows like best, judged by the test rows."""
    best, tried = None, []
    for settings, model in candidates:
        nll = -float(model.score_samples(validation).mean()) + log_scale
        tried.append({**settings, "validation_nll": nll})
        if math.isfinite(nll) and (best is None or nll < best[0]):
            best = (nll, settings, model)
    if best is None:
        return {"status": "no candidate has a finite likelihood", "tried": tried}
    logs = best[2].score_samples(test)
    return {"status": "measured", **best[1], "validation_nll": best[0], "test_nll": -float(logs.mean()) + log_scale,
            "test_nll_standard_error": float(logs.std(ddof=1) / math.sqrt(len(logs))) if len(logs) > 1 else None,
            "tried": tried}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="with train.npy, validation.npy and test.npy")
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--components", type=lambda text: [int(n) for n in text.split(",")], default=COMPONENTS,
                        help="numbers of components to try (default 1,2,4,...,64)")
    parser.add_argument("--seed", type=int, default=0, help="of the mixtures")
    options = parser.parse_args(arguments)
    try:
        train, validation, test = (read(options.folder, name) for name in ("train", "validation", "test"))
        if not train.shape[1] == validation.shape[1] == test.shape[1]:
            raise ValueError("the three tables have different numbers of columns")
    except (OSError, ValueError) as error:
        print(f"density_peers.py: {error}", file=sys.stderr)
        return 1
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1
    log_scale = float(np.log(deviation).sum())
    train, validation, test = ((rows - mean) / deviation for rows in (train, validation, test))
    report = {"folder": options.folder.name, "rows": [len(train), len(validation), len(test)],
              "columns": train.shape[1], "scikit_learn": sklearn.__version__}
    for name, candidates in (("kernel_density", kernel_densities(train, BANDWIDTHS)),
                             ("gaussian_mixture", mixtures(train, options.components, options.seed))):
        start = time.monotonic()
        report[name] = best_of(candidates, validation, test, log_scale)
        report[name]["seconds"] = round(time.monotonic() - start, 1)
        shown = {key: value for key, value in report[name].items() if key != "tried"}
        print(f"{name}: {json.dumps(shown)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
