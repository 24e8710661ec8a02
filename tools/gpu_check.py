#!/usr/bin/env python3
"""The part of tools/gpu_check.sh that counts: runs GPU tests, sanitizers and benchmarks, compares the latter with
stored ones, puts them beside those of libraries, and writes JSON.

Whatever goes wrong is "failed"; "unavailable" is only what cannot be had here: a program that was not built, or a
sanitizer that is not installed or cannot start a program at all.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

MINIMUM_GPU_TESTS = 200
# Suites whose kernels use shared memory; small shapes, so that the sanitizers finish in seconds.
SANITIZER_SUITES = ["reduction_test", "dense_test", "linear_test", "convolution_test", "math_mode_test",
                    "product_epilogue_test", "step_program_test", "convolution_math_mode_test",
                    "quadrature_rules_test", "trace_ops_test", "lobpcg_test", "lobpcg_block_test", "eigen_test",
                    "jacobian_ops_test", "normalization_test", "spectral_norm_test", "network_test",
                    "kernel_box_test", "network_execution_test", "network_execution_exact_test"]
TAIL_CHARACTERS = 2000


def text_of(output):
    """Output as text: that of a command that timed out is bytes, or None."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def run(command, timeout):
    """Runs a command; returns its exit status (None: it could not start or did not end) and its output's tail."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        return None, f"{text_of(error.output)[-TAIL_CHARACTERS:]}\nno end within {timeout} s"
    except OSError as error:
        return None, str(error)
    return done.returncode, text_of(done.stdout)[-TAIL_CHARACTERS:]


def run_tests(program, prefix=(), timeout=300):
    """Runs the cuda tests of one program; returns a summary of gtest's JSON and the output's tail."""
    summary = {"status": "failed", "tests": 0, "failures": 0, "skipped": 0}
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        summary["exit"], tail = run(
            [*prefix, str(program), "--gtest_filter=*/*cuda*", f"--gtest_output=json:{report}"], timeout)
        try:
            data = json.loads(report.read_text())
        except (OSError, ValueError):  # it ended before gtest wrote its report
            return summary, tail
    cases = [c for suite in data.get("testsuites", []) for c in suite.get("testsuite", [])]
    summary["tests"] = len(cases)
    summary["failures"] = sum(1 for c in cases if c.get("failures"))
    summary["skipped"] = sum(1 for c in cases if c.get("result") == "SKIPPED" or c.get("skipped"))
    if summary["exit"] == 0 and not summary["failures"] and not summary["skipped"]:
        summary["status"] = "passed" if cases else "no tests"
    return summary, tail


def tests_section(build):
    section = {"status": "passed", "programs": {}, "tests": 0, "failures": 0, "skipped": 0}
    for program in sorted(p for p in (build / "tests").glob("*_test") if p.is_file()):
        summary, tail = run_tests(program)
        if summary["status"] == "no tests":
            continue  # a program without GPU tests
        section["programs"][program.name] = summary
        for key in ("tests", "failures", "skipped"):
            section[key] += summary[key]
        print(f"{program.name:28s} {summary['tests']:4d} tests {'ok' if summary['status'] == 'passed' else 'FAILED'}")
        if summary["status"] != "passed":
            print(tail)
            section["status"] = "failed"
            section.setdefault("output", {})[program.name] = tail
    if section["tests"] < MINIMUM_GPU_TESTS:
        section["status"] = "failed"
        section["reason"] = f"only {section['tests']} GPU tests ran, {MINIMUM_GPU_TESTS} are required"
    return section


def why_sanitizer_cannot_run(sanitizer, target):
    """Empty when the sanitizer starts a program that does next to nothing; else what it said."""
    if sanitizer is None:
        return "compute-sanitizer is not on PATH"
    # Listing the tests need not touch CUDA, which the tool reports as an error unless told otherwise.
    listing = [sanitizer, "--tool", "memcheck", "--require-cuda-init", "no", str(target), "--gtest_list_tests"]
    for command in ([sanitizer, "--version"], listing):
        status, tail = run(command, timeout=120)
        if status != 0:
            return f"{' '.join(command)}: exit status {status}: {tail.strip()[-400:]}"
    return ""


def sanitizer_section(build, tool):
    section = {"status": "passed", "programs": {}}
    sanitizer = shutil.which("compute-sanitizer")
    targets = [build / "tests" / name for name in SANITIZER_SUITES]
    present = [target for target in targets if target.is_file()]
    if len(present) < len(targets):
        missing = [target.name for target in targets if target not in present]
        section.update(status="failed", reason="not built: " + ", ".join(missing))
    if not present:
        return section
    reason = why_sanitizer_cannot_run(sanitizer, present[0])
    if reason:
        return {"status": "unavailable", "reason": reason}
    prefix = [sanitizer, "--tool", tool, "--error-exitcode", "9"]
    if tool == "memcheck":
        prefix += ["--leak-check", "full"]
    for target in present:
        summary, tail = run_tests(target, prefix, timeout=240)
        section["programs"][target.name] = summary
        if summary["status"] != "passed":  # "no tests" is a failure, too: these suites have some
            section["status"] = "failed"
            section.setdefault("output", {})[target.name] = tail
    return section


# Of one row of a case each: ours, warm; what stands beside it, cold rows and those of libraries.
OWN_ROWS, OTHER_ROWS = "/cuda(/manual_time)?$", "/cuda/(cold|cu[a-z]+)(/|$)"


def bench_section(build, results, name="bench.json", rows=OWN_ROWS, repetitions=10):
    program = build / "bench" / "bracket_bench"
    if not program.exists():
        return {"status": "unavailable", "reason": "bench/bracket_bench was not built (BRACKET_BENCH=ON)"}
    output = results / name
    status, tail = run(
        [str(program), f"--benchmark_filter={rows}", f"--benchmark_out={output}", "--benchmark_out_format=json",
         f"--benchmark_repetitions={repetitions}", "--benchmark_min_time=0.02",
         "--benchmark_display_aggregates_only=true"], timeout=1200)
    print(tail)
    section = {"status": "passed" if status == 0 else "failed", "exit": status, "file": output.name}
    if status != 0:
        section["output"] = tail
    return section


def libraries_section(build, results):
    """The rows of cold caches and of libraries, and a table of them beside the rows that bench_section left."""
    section = bench_section(build, results, "libraries.json", OTHER_ROWS, repetitions=5)
    if section["status"] == "unavailable":
        return section
    table = pathlib.Path(__file__).resolve().parent / "bench_table.py"
    files = [str(path) for path in (results / "bench.json", results / "libraries.json") if path.is_file()]
    status, tail = run([sys.executable, str(table), *files, "--out", str(results / "libraries.md")], timeout=300)
    section.update(table="libraries.md", table_exit=status)
    if status != 0:  # a wrong result, which failed already, or nothing to make a table of
        section.update(status="failed", output=section.get("output", "") + tail)
    return section


def gpu_of(text):
    """The GPU of a benchmark's JSON, or None where it is none."""
    try:
        return json.loads(text)["context"].get("gpu")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def comparison_section(stored, results):
    """The benchmarks just run against stored ones of the same GPU (their JSON, or None), by bench_compare.py."""
    if stored is None:
        return {"status": "unavailable", "reason": "no stored benchmarks to compare with"}
    try:
        gpu = gpu_of((results / "bench.json").read_text())
    except OSError:
        return {"status": "failed", "reason": "the benchmarks left no JSON"}
    if gpu != gpu_of(stored):
        return {"status": "unavailable", "reason": f"the stored benchmarks are of {gpu_of(stored)}, this is {gpu}"}
    with tempfile.TemporaryDirectory() as folder:
        before = pathlib.Path(folder) / "stored.json"
        before.write_text(stored)
        compare = pathlib.Path(__file__).resolve().parent / "bench_compare.py"
        status, tail = run([sys.executable, str(compare), str(before), str(results / "bench.json")], timeout=300)
    print(tail)
    return {"status": "passed" if status == 0 else "failed", "exit": status, "output": tail}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--stored", type=pathlib.Path, help="JSON of earlier benchmarks: what got slower is a failure")
    options = parser.parse_args()
    # Read now: it may lie where the new one goes.
    stored = options.stored.read_text() if options.stored and options.stored.is_file() else None
    doctor_status, doctor = run([str(options.build / "tools" / "bracket"), "doctor"], timeout=300)
    report = {"revision": options.revision, "doctor_exit": doctor_status, "doctor": doctor.splitlines()}
    sections = {
        "tests": lambda: tests_section(options.build),
        "memcheck": lambda: sanitizer_section(options.build, "memcheck"),
        "racecheck": lambda: sanitizer_section(options.build, "racecheck"),
        "bench": lambda: bench_section(options.build, options.results),
        "comparison": lambda: comparison_section(stored, options.results),
        "libraries": lambda: libraries_section(options.build, options.results),
    }
    for name, section in sections.items():
        try:
            report[name] = section()
        except Exception as error:  # the report must say so, and hold the other sections
            report[name] = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        # After every section, so that nothing is lost when this script is killed.
        (options.results / "gpu_check.json").write_text(json.dumps(report, indent=2) + "\n")
    for name in sections:
        print(f"{name}: {report[name]['status']} {report[name].get('reason', '')}".rstrip())
    failed = [name for name in sections if report[name]["status"] == "failed"]
    print("failed: " + ", ".join(failed) if failed else f"passed: {report['tests']['tests']} GPU tests")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
