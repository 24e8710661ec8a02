#!/usr/bin/env python3
"""The part of tools/gpu_check.sh that counts: runs GPU tests, sanitizers and benchmarks and writes JSON."""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

MINIMUM_GPU_TESTS = 60
# Suites whose kernels use shared memory; small shapes, so that the sanitizers finish in seconds.
SANITIZER_SUITES = ["reduction_test", "dense_test", "linear_test", "normalization_test", "network_test"]


def test_programs(build):
    return sorted(p for p in (build / "tests").glob("*_test") if p.is_file())


def run_tests(program, prefix=(), timeout=300):
    """Runs the cuda tests of one program; returns gtest's JSON summary and the output's tail."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [*prefix, str(program), "--gtest_filter=*/*cuda*", f"--gtest_output=json:{report.name}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return {"tests": 0, "failures": 0, "skipped": 0, "status": "timeout"}, f"no end within {timeout} s"
        text = pathlib.Path(report.name).read_text()
    summary = {"tests": 0, "failures": 0, "skipped": 0, "exit": done.returncode}
    if text:
        data = json.loads(text)
        cases = [c for suite in data.get("testsuites", []) for c in suite.get("testsuite", [])]
        summary["tests"] = len(cases)
        summary["failures"] = sum(1 for c in cases if c.get("failures"))
        summary["skipped"] = sum(1 for c in cases if c.get("result") == "SKIPPED" or c.get("skipped"))
    return summary, (done.stdout + done.stderr)[-2000:]


def tests_section(build):
    section = {"programs": {}, "tests": 0, "failures": 0, "skipped": 0}
    for program in test_programs(build):
        summary, tail = run_tests(program)
        if summary["tests"] == 0 and summary.get("exit") == 0:
            continue  # a program without GPU tests
        section["programs"][program.name] = summary
        for key in ("tests", "failures", "skipped"):
            section[key] += summary[key]
        bad = summary["failures"] or summary["skipped"] or summary.get("exit") != 0
        print(f"{program.name:28s} {summary['tests']:4d} tests {'FAILED' if bad else 'ok'}")
        if bad:
            print(tail)
            section["bad"] = True
    section["passed"] = (not section.get("bad") and section["skipped"] == 0 and section["tests"] >= MINIMUM_GPU_TESTS)
    if section["tests"] < MINIMUM_GPU_TESTS:
        print(f"only {section['tests']} GPU tests ran, {MINIMUM_GPU_TESTS} are required")
    return section


def sanitizer_section(build, tool):
    program = shutil.which("compute-sanitizer")
    if not program:
        return {"status": "unavailable", "reason": "compute-sanitizer is not on PATH"}
    section = {"status": "passed", "programs": {}}
    for name in SANITIZER_SUITES:
        target = build / "tests" / name
        if not target.exists():
            return {"status": "failed", "reason": f"{target} is missing"}
        prefix = [program, "--tool", tool, "--error-exitcode", "9"]
        if tool == "memcheck":
            prefix += ["--leak-check", "full"]
        summary, tail = run_tests(target, prefix, timeout=240)
        section["programs"][name] = summary
        if summary["tests"] == 0:  # the tool itself did not start the program
            return {"status": "unavailable", "reason": tail.strip()[-400:]}
        if summary.get("exit") != 0:
            section["status"] = "failed"
            section.setdefault("output", {})[name] = tail
    return section


def bench_section(build, results):
    program = build / "bench" / "bracket_bench"
    if not program.exists():
        return {"status": "unavailable", "reason": "bench/bracket_bench was not built (BRACKET_BENCH=ON)"}
    output = results / "bench.json"
    done = subprocess.run(
        [str(program), "--benchmark_filter=cuda", f"--benchmark_out={output}", "--benchmark_out_format=json",
         "--benchmark_repetitions=10", "--benchmark_display_aggregates_only=true"], timeout=600)
    return {"status": "passed" if done.returncode == 0 else "failed", "file": output.name}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--revision", required=True)
    options = parser.parse_args()
    doctor = subprocess.run([str(options.build / "tools" / "bracket"), "doctor"], capture_output=True, text=True)
    report = {
        "revision": options.revision,
        "doctor": (doctor.stdout + doctor.stderr).splitlines(),
        "tests": tests_section(options.build),
        "memcheck": sanitizer_section(options.build, "memcheck"),
        "racecheck": sanitizer_section(options.build, "racecheck"),
        "bench": bench_section(options.build, options.results),
    }
    (options.results / "gpu_check.json").write_text(json.dumps(report, indent=2) + "\n")
    failed = [name for name in ("memcheck", "racecheck", "bench") if report[name]["status"] == "failed"]
    for name in ("memcheck", "racecheck", "bench"):
        print(f"{name}: {report[name]['status']} {report[name].get('reason', '')}")
    if not report["tests"]["passed"]:
        failed.append("tests")
    print("failed: " + ", ".join(failed) if failed else f"passed: {report['tests']['tests']} GPU tests")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
