#!/usr/bin/env python3
"""The smallest singular value by Bracket's LOBPCG and Golub-Kahan and by SciPy, at equal numbers of products.

usage: jacobian_scipy.py PATH_OF_jacobian_iterates [--write]   --write stores the figures in jacobian_scipy.json
Exit status: 0 Bracket is no worse, 1 it is, 77 scipy or numpy is missing.

Operators J = U diag(s) V^T [3 d, d] with random orthogonal factors and ratios s_k / s_{k-1} equal, start vectors
normal; seeds are fixed. A pass is one product with J and one with J^T.

scipy.sparse.linalg.lobpcg runs on J^T J without a preconditioner, its iterations limited such that it sees no more
products than Bracket needs, those that certify Bracket's value included; from one direction, and from blocks of 2 and 4
of which the smallest value is compared. scipy.sparse.linalg.svds (ARPACK and PROPACK,
which="SM") runs until it has converged, to a tolerance of 1e-8; Bracket's Golub-Kahan then gets as many passes, d at
most.

Excess = mu / s_1 - 1, mu = |J v| of the vector that a method returns, computed here for SciPy. No worse: an excess of at
most SciPy's, but for a part in 100 of it and for rounding, 1e-12 times the condition.
"""
import json
import os
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
    import scipy
    from scipy.sparse.linalg import LinearOperator, lobpcg, svds
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

STORED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "jacobian_scipy.json")
SIZES = (16, 64, 128)
CONDITIONS = (2.0, 1e2, 1e4)
STEPS = (2, 5, 10, 20, 40)
BLOCKS = (2, 4)


def operator(d, condition, rng):
    """J, s_1 and a start."""
    u = np.linalg.qr(rng.standard_normal((3 * d, d)))[0]
    v = np.linalg.qr(rng.standard_normal((d, d)))[0]
    s = condition ** (np.arange(d) / (d - 1))
    return (u * s) @ v.T, s[0], rng.standard_normal(d)


class Counted:
    """J with its products counted."""

    def __init__(self, j):
        self.j, self.apply, self.transpose = j, 0, 0

    def forward(self, x):
        self.apply += 1
        return self.j @ x.ravel()

    def backward(self, y):
        self.transpose += 1
        return self.j.T @ y.ravel()

    def normal(self):
        d = self.j.shape[1]
        return LinearOperator((d, d), matvec=lambda x: self.backward(self.forward(x)), dtype=float)

    def rectangular(self):
        return LinearOperator(self.j.shape, matvec=self.forward, rmatvec=self.backward, dtype=float)


def quotient(j, v):
    return float(np.linalg.norm(j @ v) / np.linalg.norm(v))


def scipy_lobpcg(j, starts, passes):
    """The smallest value of the most iterations that need no more than `passes` products with J^T J; starts [b, d]."""
    for iterations in range(passes // len(starts), -1, -1):
        counted = Counted(j)
        try:
            _, x = lobpcg(counted.normal(), starts.T.copy(), largest=False, maxiter=iterations, tol=1e-300)
        except (ValueError, np.linalg.LinAlgError):
            continue
        if counted.apply <= passes:
            return min(quotient(j, column) for column in x.T), counted.apply
    return None, 0


def compare_blocks(program, folder, j, s1, starts, condition, allowed):
    """Rows of figures, and in how many Bracket is worse."""
    rows, worse = [], 0
    np.save(os.path.join(folder, "start.npy"), starts)
    for k, line in zip(STEPS, bracket(program, "lobpcg", folder, STEPS)):
        block = len(starts)
        passes = block * (k + 2)
        assert line[4] == passes and line[5] == passes - block, line
        reference, used = scipy_lobpcg(j, starts, passes)
        if reference is None:
            continue
        excess = [reference / s1 - 1, line[1] / s1 - 1]
        bad = excess[1] > allowed(excess[0])
        worse += bad
        rows.append({"d": j.shape[1], "condition": condition, "block": block, "passes": passes,
                     "scipy_lobpcg": excess[0], "lobpcg": excess[1], "scipy_passes": used})
        if bad:
            print("worse:", rows[-1])
    return rows, worse


def scipy_svds(j, start, solver):
    counted = Counted(j)
    first = start if solver == "arpack" else j @ start
    try:
        *_, vt = svds(counted.rectangular(), k=1, which="SM", solver=solver, v0=first, tol=1e-8, maxiter=20 * j.shape[1])
    except Exception as error:  # the solvers raise types of their own
        return None, f"{type(error).__name__}: {error}"
    if not np.isfinite(vt).all() or not vt.any():
        return None, "returned zeros" if np.isfinite(vt).all() else "returned NaN"
    return quotient(j, vt[0]), max(counted.apply, counted.transpose)


def bracket(program, method, folder, steps):
    output = subprocess.run([program, method, os.path.join(folder, "j.npy"), os.path.join(folder, "start.npy")]
                            + [str(k) for k in steps], check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [[float(x) for x in line.split()] for line in output.splitlines()]
    assert len(lines) == len(steps), output
    return lines


def main():
    warnings.simplefilter("ignore")
    program, rows, worse = sys.argv[1], [], 0
    rng, block_rng = np.random.default_rng(5), np.random.default_rng(6)
    with tempfile.TemporaryDirectory() as folder:
        for d in SIZES:
            for condition in CONDITIONS:
                j, s1, start = operator(d, condition, rng)
                np.save(os.path.join(folder, "j.npy"), j)
                np.save(os.path.join(folder, "start.npy"), start[None])
                rounding = 1e-12 * condition
                allowed = lambda reference: reference + 0.01 * max(reference, 0) + rounding
                ours = bracket(program, "lobpcg", folder, STEPS)
                krylov = bracket(program, "golub_kahan", folder, [k + 1 for k in STEPS])
                for k, line, other in zip(STEPS, ours, krylov):
                    passes = k + 2
                    assert line[4] == passes and line[5] == passes - 1, line
                    reference, used = scipy_lobpcg(j, start[None], passes)
                    if reference is None:
                        continue
                    excess = [x / s1 - 1 for x in (reference, line[1], other[1])]
                    bad = excess[1] > allowed(excess[0]) or excess[2] > allowed(excess[0])
                    worse += bad
                    rows.append({"d": d, "condition": condition, "passes": passes, "scipy_lobpcg": excess[0],
                                 "lobpcg": excess[1], "golub_kahan": excess[2], "scipy_passes": used})
                    if bad:
                        print("worse:", rows[-1])
                for block in BLOCKS:
                    if 5 * block > d:  # there SciPy solves the dense problem
                        continue
                    starts = block_rng.standard_normal((block, d))
                    more, bad = compare_blocks(program, folder, j, s1, starts, condition, allowed)
                    rows += more
                    worse += bad
                np.save(os.path.join(folder, "start.npy"), start[None])
                for solver in ("arpack", "propack"):
                    reference, used = scipy_svds(j, start, solver)
                    row = {"d": d, "condition": condition, "solver": solver}
                    rows.append(row)
                    if reference is None:
                        row["failed"] = used
                        continue
                    ours = bracket(program, "golub_kahan", folder, [min(used, d)])[0]
                    excess = [reference / s1 - 1, ours[1] / s1 - 1]
                    bad = excess[1] > allowed(excess[0])
                    worse += bad
                    row |= {"passes": used, "svds": excess[0], "golub_kahan": excess[1],
                            "golub_kahan_passes": min(used, d)}
                    if bad:
                        print("worse:", row)
    if "--write" in sys.argv:
        with open(STORED, "w", encoding="utf-8") as stream:
            json.dump({"scipy": scipy.__version__, "numpy": np.__version__, "rows": rows}, stream, indent=1,
                      allow_nan=False)
            stream.write("\n")
    compared = sum("failed" not in row for row in rows)
    print(f"{compared} comparisons, Bracket worse in {worse}")
    return 1 if worse or compared < len(SIZES) * len(CONDITIONS) * len(STEPS) // 2 else 0


if __name__ == "__main__":
    sys.exit(main())
