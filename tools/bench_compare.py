#!/usr/bin/env python3
"""Compares two JSON files of bench/bracket_bench: A (before) and B (after).

A case got slower when its median is more than 5 % worse and a two-sided Mann-Whitney test gives p < 0.01; both need at
least 9 repetitions in either file.

Exit status: 0 nothing got slower; 1 something did, or gave a wrong result in B; 2 something could not be judged (too
few repetitions, a case missing in B or wrong in A, an unreadable file). 1 outranks 2.
"""
import argparse
import json
import math
import statistics
import sys

MINIMUM_REPETITIONS = 9
# Up to this many pairs all rankings are counted; beyond, the normal approximation errs by under 7e-4 where p = 0.01.
EXACT_PAIRS = 900
NANOSECONDS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}


class BadFile(Exception):
    """A file that is no benchmark result; the text says why."""


def ranking_counts(m, n):
    """counts[u]: in how many of the C(m + n, m) rankings the first sample beats the second u times."""
    # Ways to choose m of the numbers 0 .. m+n-1 by their excess over the smallest choice: partitions of u into at most
    # m parts of at most n, as the coefficients of a Gaussian binomial.
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for u in range(m * n, n + i - 1, -1):  # times (1 - q^(n + i))
            counts[u] -= counts[u - n - i]
        for u in range(i, m * n + 1):  # divided by (1 - q^i)
            counts[u] += counts[u - i]
    return counts


def mann_whitney(a, b):
    """Two-sided p of the hypothesis that a value of `a` is as likely above as below one of `b`."""
    m, n = len(a), len(b)
    if m == 0 or n == 0:
        raise ValueError("mann_whitney needs two non-empty samples")
    u = sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    groups = {}
    for x in [*a, *b]:
        groups[x] = groups.get(x, 0) + 1
    tied = any(size > 1 for size in groups.values())
    if not tied and m * n <= EXACT_PAIRS:
        counts = ranking_counts(m, n)
        tail = sum(counts[: int(min(u, m * n - u)) + 1])
        return min(1.0, 2 * tail / math.comb(m + n, m))
    total = m + n
    ties = sum(size**3 - size for size in groups.values())
    variance = m * n / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance == 0:
        return 1.0  # all values equal
    distance = max(0.0, abs(u - m * n / 2) - 0.5)  # continuity correction
    return math.erfc(distance / math.sqrt(2 * variance))


def time_of(entry, metric):
    time = entry[metric]
    if isinstance(time, bool) or not isinstance(time, (int, float)) or not math.isfinite(time):
        raise ValueError(f"a time is {time!r}")
    return time


def read_results(path, metric):
    """(context, {case: times in ns, or None where the case failed}) of a file."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        cases = {}
        for entry in data["benchmarks"]:
            if entry.get("run_type", "iteration") != "iteration":
                continue
            name = entry.get("run_name", entry["name"])
            if entry.get("error_occurred"):
                cases[name] = None
            elif cases.setdefault(name, []) is not None:
                cases[name].append(time_of(entry, metric) * NANOSECONDS[entry["time_unit"]])
        context = data["context"]
        if not isinstance(context, dict) or not all(isinstance(name, str) for name in cases):
            raise ValueError("the context is no object, or a name no text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadFile(f"{path} is not a benchmark result: {type(error).__name__}: {error}") from error
    if not cases:
        raise BadFile(f"{path} holds no single repetitions; write it without --benchmark_report_aggregates_only")
    return context, cases


def duration(nanoseconds):
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= scale:
            return f"{nanoseconds / scale:.3f} {unit}"
    return f"{nanoseconds:.1f} ns"


def judge(before, after, threshold, alpha):
    """(verdict, line) of one case; verdict is "slower", "faster", "same", "wrong" or "unjudged"."""
    if after is None:
        return "wrong", "wrong result in B"
    if before is None:
        return "unjudged", "wrong result in A"
    fewest = min(len(before), len(after))
    if fewest < MINIMUM_REPETITIONS:
        return "unjudged", f"{fewest} repetitions, {MINIMUM_REPETITIONS} are needed (--benchmark_repetitions)"
    a, b = statistics.median(before), statistics.median(after)
    if a <= 0 or b <= 0:
        return "unjudged", "a median of no time; use a larger --benchmark_min_time"
    p = mann_whitney(before, after)
    verdict = "same"
    if p < alpha and b > a * (1 + threshold):
        verdict = "slower"
    elif p < alpha and a > b * (1 + threshold):
        verdict = "faster"
    return verdict, f"{duration(a):>11} {duration(b):>11} {100 * (b / a - 1):+7.1f} %  p {p:.2g}  {verdict}"


def compare(before, after, threshold, alpha, out):
    """Prints one line per case and returns the exit status."""
    verdicts = []
    width = max(len(name) for name in [*before, *after])
    for name in before:
        if name not in after:
            verdict, line = "unjudged", "missing in B"
        else:
            verdict, line = judge(before[name], after[name], threshold, alpha)
        verdicts.append(verdict)
        print(f"{name:{width}}  {line}", file=out)
    for name in after:
        if name not in before:
            if after[name] is None:
                verdicts.append("wrong")
            print(f"{name:{width}}  new in B{', wrong result' if after[name] is None else ''}", file=out)
    counts = {verdict: verdicts.count(verdict) for verdict in ("slower", "wrong", "unjudged", "faster", "same")}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), file=out)
    if counts["slower"] or counts["wrong"]:
        return 1
    return 2 if counts["unjudged"] else 0


def main(arguments=None, out=None):
    out = sys.stdout if out is None else out
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="A.json")
    parser.add_argument("after", metavar="B.json")
    parser.add_argument("--threshold", type=float, default=5, help="per cent of the median (default 5)")
    parser.add_argument("--alpha", type=float, default=0.01, help="significance level (default 0.01)")
    parser.add_argument("--metric", choices=["real_time", "cpu_time"], default="real_time",
                        help="cpu_time on a machine that others use (default real_time)")
    options = parser.parse_args(arguments)
    if not (math.isfinite(options.threshold) and options.threshold >= 0 and 0 < options.alpha < 1):
        parser.error("--threshold must not be negative, --alpha must lie between 0 and 1")
    try:
        context_a, before = read_results(options.before, options.metric)
        context_b, after = read_results(options.after, options.metric)
    except BadFile as error:
        print(f"bench_compare: error: {error}", file=sys.stderr)
        return 2
    for key in ("cpu_model", "gpu", "compiler", "flags", "cpu_arch"):
        if context_a.get(key) != context_b.get(key):
            print(f"note: {key} differs: {context_a.get(key)!r} and {context_b.get(key)!r}", file=out)
    revisions = [context.get("bracket_revision", "unknown") for context in (context_a, context_b)]
    print(f"A {revisions[0]}, B {revisions[1]}, medians of {options.metric}", file=out)
    return compare(before, after, options.threshold / 100, options.alpha, out)


if __name__ == "__main__":
    sys.exit(main())
