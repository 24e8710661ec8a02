#!/usr/bin/env python3
"""Registers, spills and shared memory of every CUDA kernel of a build, as ptxas reported them.

usage: ptxas_table.py BUILD [--json FILE] [--markdown FILE]

The build leaves the reports beside its CUDA objects (tools/cmake/ptxas_log.sh).
Exit status: 0 no kernel spills; 1 one does; 2 the build holds no report.
"""
import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(sm_\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
KERNEL = re.compile(r"(\w+)_kernel(?:<(.*)>)?$")


def read_report(text, source):
    """The kernels of one report. A kernel's spills include those of functions it calls."""
    kernels = []
    for line in text.splitlines():
        if match := ENTRY.search(line):
            kernels.append({"source": source, "symbol": match[1], "architecture": match[2], "registers": 0,
                            "shared_bytes": 0, "stack_bytes": 0, "spill_store_bytes": 0, "spill_load_bytes": 0})
        elif kernels and (match := FRAME.search(line)):
            kernels[-1]["stack_bytes"] = max(kernels[-1]["stack_bytes"], int(match[1]))
            kernels[-1]["spill_store_bytes"] += int(match[2])
            kernels[-1]["spill_load_bytes"] += int(match[3])
        elif kernels and (match := USED.search(line)):
            kernels[-1]["registers"] = int(match[1])  # never 0
            if shared := SHARED.search(line):
                kernels[-1]["shared_bytes"] = int(shared[1])
    return kernels


def short_name(demangled):
    """`adam<float>` of `void bracket::gpu::(anonymous namespace)::adam_kernel<float>(...)`."""
    text = re.sub(r"\((\w+::)*\w+\)(?=\d)", "", demangled.replace("(anonymous namespace)::", ""))  # (MathMode)1
    text = text.partition("(")[0].removeprefix("void ")
    match = KERNEL.search(re.sub(r"\bbracket::(?:gpu::)?", "", text))
    if match is None:
        return demangled
    if match[1] == "body":  # body_kernel<Body>, kernels/cuda/common/body.cuh
        return re.sub(r"\w+_(?:kernels|detail)::", "", match[2]).replace("Body", "", 1).strip()
    return match[1] if match[2] is None else f"{match[1]}<{match[2]}>"


def demangle(symbols):
    """Names of symbols; the symbols themselves where there is no c++filt."""
    if not symbols or shutil.which("c++filt") is None:
        return symbols
    done = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True)
    return [short_name(line) for line in done.stdout.splitlines()]


def collect(build):
    kernels = []
    for report in sorted(pathlib.Path(build).rglob("*.ptxas")):
        source = report.name.removesuffix(".ptxas").removesuffix(".o")
        kernels += read_report(report.read_text(encoding="utf-8", errors="replace"), source)
    for kernel, name in zip(kernels, demangle([kernel["symbol"] for kernel in kernels])):
        kernel["name"] = name
        del kernel["symbol"]
    return sorted(kernels, key=lambda kernel: (kernel["source"], kernel["name"], kernel["architecture"]))


def markdown(kernels):
    lines = ["| source | kernel | architecture | registers | shared, bytes | stack | spill stores | spill loads |",
             "|---|---|---|---|---|---|---|---|"]
    for k in kernels:
        lines.append(f"| {k['source']} | {k['name']} | {k['architecture']} | {k['registers']} | {k['shared_bytes']} | "
                     f"{k['stack_bytes']} | {k['spill_store_bytes']} | {k['spill_load_bytes']} |")
    return "\n".join(lines) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", metavar="BUILD", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--markdown", type=pathlib.Path)
    options = parser.parse_args(arguments)
    kernels = collect(options.build)
    if not kernels:
        print(f"ptxas_table: error: no report of ptxas in {options.build}; build with CUDA first", file=sys.stderr)
        return 2
    cut = [k for k in kernels if k["registers"] == 0]
    if cut:
        print(f"ptxas_table: error: the report of {cut[0]['source']} ends before the registers of {cut[0]['name']}; "
              "build it anew", file=sys.stderr)
        return 2
    try:
        if options.json:
            options.json.write_text(json.dumps({"kernels": kernels}, indent=1) + "\n", encoding="utf-8")
        if options.markdown:
            options.markdown.write_text(markdown(kernels), encoding="utf-8")
    except OSError as error:
        print(f"ptxas_table: error: {error}", file=sys.stderr)
        return 2
    spilling = [k for k in kernels if k["spill_store_bytes"] or k["spill_load_bytes"]]
    for k in spilling:
        print(f"ptxas_table: {k['name']} ({k['source']}) spills on {k['architecture']}: {k['spill_store_bytes']} bytes "
              f"of stores, {k['spill_load_bytes']} of loads at {k['registers']} registers; give it more registers by "
              "__launch_bounds__, or smaller tiles", file=sys.stderr)
    architectures = ", ".join(sorted({k["architecture"] for k in kernels}))
    print(f"{len(kernels)} kernels on {architectures}, {len(spilling)} of them spill")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
