#!/usr/bin/env python3
"""Kernels beside NVIDIA's libraries, from the JSON of bench/bracket_bench on a GPU: a Markdown table.

Usage: bench_table.py FILE.json... [--limits fp32=67,tf32=495,bf16=990,fp64=67,bandwidth=4.8] [--out TABLE.md]

Times are medians of the repetitions, warm and cold (bench/op_case.h); x: the library's time over ours, above 1 where
ours is quicker, with the geometric mean of every op. Per cent are of the machine's limit, which the data sheets of the
GPUs in LIMITS give by exact name and --limits replaces (Tflop/s, TB/s): of the arithmetic of our kernel, which may be
double where operands are not, for a warm row; of arithmetic or memory, whichever is nearer, for a cold one, whose
operands come from memory. "none": a wrong result, or a library that has nothing for the case. A star marks a library
that could not be captured and was launched call by call. Where a library does something else than our kernel, the last
column and the table's head say so.

Exit status: 0; 1 one of our results was wrong; 2 a file cannot be read or holds no rows of a GPU.
"""
import argparse
import json
import math
import pathlib
import re
import statistics
import sys

MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
# Data sheets: dense Tflop/s (fp64 on tensor cores) and TB/s, by the name that the driver gives.
HOPPER = {"fp32": 67, "tf32": 494.7, "bf16": 989.4, "fp64": 67}
AMPERE = {"fp32": 19.5, "tf32": 156, "bf16": 312, "fp64": 19.5}
LIMITS = {
    "NVIDIA H200": {**HOPPER, "bandwidth": 4.8},
    "NVIDIA H100 80GB HBM3": {**HOPPER, "bandwidth": 3.35},
    "NVIDIA H100 PCIe": {"fp32": 51.2, "tf32": 378, "bf16": 756, "fp64": 51.2, "bandwidth": 2.0},
    "NVIDIA A100-SXM4-80GB": {**AMPERE, "bandwidth": 2.039},
    "NVIDIA A100-SXM4-40GB": {**AMPERE, "bandwidth": 1.555},
    "NVIDIA A100 80GB PCIe": {**AMPERE, "bandwidth": 1.935},
    "NVIDIA A100-PCIE-40GB": {**AMPERE, "bandwidth": 1.555},
}
LIMIT_NAMES = (*HOPPER, "bandwidth")
DIFFERENCES = """\
What differs between the sides: the library's operands have the values of ours; where it wants another type or layout
they were converted before, outside the time (cuDNN in NCHW and in bf16, cublas_bf16), and cuDNN's bf16 writes half of
our bytes. Random numbers are judged by their mean and variance, all else by the error gate of ours at the precision of
its results. Ours and what can be captured run as one graph; a star marks calls that the host launched. cuDNN: its
legacy interface (the cudnnFind calls), not its graphs. The last column says what else a row does differently."""
NAME = re.compile(r"^(?P<op>[^/]+)/(?P<shape>.+)/(?P<mode>f32|f64|tf32x3|tf32|bf16)/cuda"
                  r"(?:/(?P<library>cu(?!da)\w+))?(?:/(?P<cold>cold))?(?:/manual_time)?$")
COLUMNS = ("case", "mode", "ours us", "library us", "x", "limit", "cold: ours us", "library us", "x", "limit",
           "library's way")


class BadFile(Exception):
    """A file that is no benchmark result; the text says why."""


class Row:
    """The repetitions of one row: those of one name."""

    def __init__(self):
        self.times, self.flops, self.bytes, self.label, self.wrong, self.launched = [], [], [], "", False, False
        self.f64_arithmetic = False

    def add(self, entry):
        if entry.get("error_occurred"):
            self.wrong = True
            return
        self.times.append(float(entry["real_time"]) * MICROSECONDS[entry["time_unit"]])
        self.flops.append(float(entry.get("GFLOP/s", 0)))
        self.bytes.append(float(entry.get("GB/s", 0)))
        self.label = entry.get("label", "")
        self.launched = self.launched or bool(entry.get("launched"))
        self.f64_arithmetic = self.f64_arithmetic or bool(entry.get("f64_arithmetic"))

    def time(self):
        return None if self.wrong or not self.times else statistics.median(self.times)


def read(paths):
    """(GPU, {(op, shape, mode): {(library or None, cold): Row}}) of files, in the order of the first."""
    gpu, cases = None, {}
    for path in paths:
        try:
            data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            gpu = gpu or data["context"].get("gpu")
            for entry in data["benchmarks"]:
                match = NAME.match(entry.get("run_name", entry["name"]))
                if not match or entry.get("run_type", "iteration") != "iteration":
                    continue
                rows = cases.setdefault(match.group("op", "shape", "mode"), {})
                rows.setdefault((match["library"], match["cold"] is not None), Row()).add(entry)
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadFile(f"{path} is not a benchmark result: {type(error).__name__}: {error}") from error
    if not cases:
        raise BadFile("no rows of a GPU with an op, a shape and a precision; bracket_bench names them .../cuda")
    return gpu or "an unknown GPU", cases


def limits_of(gpu, text):
    """Limits of a device, described as "NAME (sm_90), ...", with those of `text` in their place; {}: none are known."""
    limits = dict(LIMITS.get(gpu.split(" (sm_")[0], {}))
    for part in filter(None, (text or "").split(",")):
        name, _, value = part.partition("=")
        if name not in LIMIT_NAMES:
            raise ValueError(f"no limit is called '{name}'; there are {', '.join(LIMIT_NAMES)}")
        limits[name] = float(value)
        if not limits[name] > 0:
            raise ValueError(f"the limit {name} must be positive")
    return limits


def share(row, mode, cold, limits):
    """Per cent of what the machine could do, or None where that is not known."""
    if row is None or row.time() is None:
        return None
    arithmetic = {"f32": limits.get("fp32"), "f64": limits.get("fp64"), "tf32": limits.get("tf32"),
                  "tf32x3": limits["tf32"] / 3 if "tf32" in limits else None,
                  "bf16": limits.get("bf16")}["f64" if row.f64_arithmetic else mode]
    shares = []
    if arithmetic and max(row.flops) > 0:
        shares.append(statistics.median(row.flops) / (1e3 * arithmetic))
    if cold and limits.get("bandwidth") and max(row.bytes) > 0:
        shares.append(statistics.median(row.bytes) / (1e3 * limits["bandwidth"]))
    return 100 * max(shares) if shares else None


def figure(value, digits=3):
    """`digits` significant digits, without an exponent."""
    if value is None:
        return "-"
    places = max(0, digits - 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{places}f}"


def time_text(row):
    if row is None:
        return "-"
    if row.wrong:
        return "none"
    return figure(row.time()) + ("*" if row.launched else "")


def ratio(ours, library):
    if ours is None or library is None or not ours.time() or not library.time():
        return None
    return library.time() / ours.time()


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


def line(cells):
    return "| " + " | ".join(cells) + " |"


def case_cells(shape, mode, rows, library, limits):
    """The cells of a case beside one library, and its two ratios."""
    cells, ratios = [shape, mode], []
    for cold in (False, True):
        ours, other = rows.get((None, cold)), rows.get((library, cold)) if library else None
        ratios.append(ratio(ours, other))
        percent = share(ours, mode, cold, limits)
        cells += [time_text(ours), time_text(other), figure(ratios[-1]), "-" if percent is None else
                  figure(percent, 2) + " %"]
    labels = {row.label for (name, _), row in rows.items() if name and name == library and row.label}
    return cells + [", ".join([library or "-", *sorted(labels)])], ratios


def table(gpu, cases, limits):
    """Markdown."""
    lines = [f"Kernels and libraries on {gpu}; microseconds, medians. x: the library's time over ours."]
    if limits:
        lines.append("Limits: " + ", ".join(f"{name} {value:g} " + ("TB/s" if name == "bandwidth" else "Tflop/s")
                                            for name, value in limits.items()) + ".")
    else:
        lines.append("The limits of this GPU are not known here: --limits gives them.")
    lines += ["", *DIFFERENCES.splitlines()]
    for op in dict.fromkeys(op for op, _, _ in cases):
        lines += ["", f"### {op}", "", line(COLUMNS), line(["---"] * len(COLUMNS))]
        ratios = {}
        for (name, shape, mode), rows in cases.items():
            if name != op:
                continue
            for library in dict.fromkeys(name for name, _ in rows if name) or [None]:
                cells, of_case = case_cells(shape, mode, rows, library, limits)
                lines.append(line(cells))
                for cold, value in zip((False, True), of_case):
                    if value is not None:
                        ratios.setdefault((mode, library), ([], []))[cold].append(value)
        for (mode, library), (warm, cold) in ratios.items():
            means = [figure(geometric_mean(values)) if values else "-" for values in (warm, cold)]
            lines.append(line(["geometric mean", mode, "", "", means[0], "", "", "", means[1], "", library]))
    return "\n".join(lines) + "\n"


def main(arguments=None, out=None):
    out = sys.stdout if out is None else out
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("--limits", help="of the machine, in place of its data sheet's")
    parser.add_argument("--out", type=pathlib.Path, help="write the table there, too")
    options = parser.parse_args(arguments)
    try:
        gpu, cases = read(options.files)
        text = table(gpu, cases, limits_of(gpu, options.limits))
    except (BadFile, ValueError) as error:
        print(f"bench_table: error: {error}", file=sys.stderr)
        return 2
    print(text, end="", file=out)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 1 if any(row.wrong for rows in cases.values() for (library, _), row in rows.items() if not library) else 0


if __name__ == "__main__":
    sys.exit(main())
