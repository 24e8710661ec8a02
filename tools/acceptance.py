#!/usr/bin/env python3
"""The part of tools/acceptance.sh that trains, evaluates and compares with limits; see there for the command line."""
import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS = 20000
SMOKE_STEPS = 4000
SEEDS = (0, 1, 2)
DATA = ("25gaussians", "two_moons", "swiss_roll", "swiss_roll_thin")
# A run has the machine's two cores for two minutes. Runs go side by side on one thread each, so one core must do; a step
# is a chain of some 300 ops of a few microseconds, of which a second thread saves less than a second run gains.
SECONDS_PER_RUN = 120
STANDARD_ERRORS = 3

# Limits on the last evaluation of a calibrated-2d run: (key of `bracket eval --json`, "<=" or ">=", limit).
LIMITS = {
    "25gaussians": [("nll_exact", "<=", -1.7), ("modes_found", ">=", 25), ("high_quality_fraction", ">=", 0.85)],
    "two_moons": [("kl_data_to_model", "<=", 0.05)],
    "swiss_roll": [("kl_data_to_model", "<=", 0.05)],
    "swiss_roll_thin": [("kl_data_to_model", "<=", 0.08)],
}
SMOKE_LIMITS = {
    "25gaussians": [("nll_exact", "<=", -1.3)],
    "two_moons": [("kl_data_to_model", "<=", 0.06)],
}
# Tests of tests/interruption_test.cpp at full count: (what, test, environment).
DURABILITY = (
    ("50 kill -9 at random moments", "InterruptionTest.KilledAnywhereItResumesAndEndsTheSame", {"BRACKET_KILLS": "50"}),
    ("200 flips and truncations", "InterruptionTest.DamageOfAnyKindIsRefusedWithFileAndReason",
     {"BRACKET_DAMAGES": "200"}),
)
KEPT_KEYS = (
    "step", "nll_exact", "log_z", "log_z_error", "data_entropy", "kl_data_to_model", "lower_bound",
    "lower_bound_min_singular", "upper_estimate", "gap", "gap_standard_error", "bracket_ok", "nll_importance", "ess",
    "max_abs_phi", "penalty", "mass_outside", "edge_mass", "fold_fraction", "modes_found", "high_quality_fraction",
    "mode_histogram_kl", "warnings", "calibrated",
)


class Failed(Exception):
    """A command that should have succeeded; the text says which and how it ended."""


def run_timed(command, log):
    """Runs a command on one thread; returns (wall seconds, processor seconds). Raises Failed with the last output."""
    with open(log, "wb") as output:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise Failed(f"{' '.join(map(str, command))} ended with {process.returncode}: {' / '.join(tail)}")
    return wall, usage.ru_utime + usage.ru_stime


def evaluate(program, checkpoint):
    command = [program, "eval", checkpoint, "--json", "--device", "cpu", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"bracket eval {checkpoint} ended with {done.returncode}: {done.stderr.strip()}")
    return {key: json.loads(done.stdout)[key] for key in KEPT_KEYS}


def train_and_evaluate(program, folder, run, last_step, marks):
    """Trains `run` (preset, data, seed) in `folder` and evaluates every checkpoint; returns what happened."""
    name = f"{run['preset']}-{run['data']}-{run['seed']}"
    out = folder / name
    command = [program, "train", "--preset", run["preset"], "--data", run["data"], "--seed", str(run["seed"]),
               "--steps", str(STEPS), "--stop-after", str(last_step), "--device", "cpu", "--threads", "1",
               "--out", out, "--set", f"checkpoint_every={last_step // marks}", "--set", f"keep_checkpoints={marks}",
               "--set", "picture_every=0"]
    wall, cpu = run_timed(command, folder / f"{name}.log")
    result = {**run, "steps": last_step, "train_seconds": round(wall, 2), "train_cpu_seconds": round(cpu, 2)}
    checkpoints = sorted((out / "checkpoints").glob("step_*"))
    if len(checkpoints) != marks:
        raise Failed(f"{out} has {len(checkpoints)} checkpoints, expected {marks}")
    result["evaluations"] = [evaluate(program, checkpoint) for checkpoint in checkpoints]
    last = result["evaluations"][-1]
    print(f"{name:34s} {wall:6.1f} s ({cpu:.1f} s cpu)  NLL {shown(last['nll_exact'], 3)}  "
          f"KL {shown(last['kl_data_to_model'], 3)}", flush=True)
    return result


def endure(test_program, what, test, environment):
    """Runs one test of the interruption suite; passed only if exactly that test ran and was not skipped."""
    print(f"{what} ...", flush=True)
    start = time.monotonic()
    try:
        done = subprocess.run([test_program, f"--gtest_filter={test}"], capture_output=True, text=True, check=False,
                              env={**os.environ, **environment})
        passed = done.returncode == 0 and "[  PASSED  ] 1 test." in done.stdout
        output = "" if passed else (done.stdout + done.stderr)[-2000:]
    except OSError as error:
        passed, output = False, str(error)
    if not passed:
        print(output, file=sys.stderr, flush=True)
    return {"what": what, "passed": passed, "seconds": round(time.monotonic() - start, 1), "output": output}


def gap_in_standard_errors(evaluation):
    """(L - L_low) / standard error, or None where either is unknown."""
    if evaluation["nll_exact"] is None or evaluation["lower_bound"] is None or not evaluation["gap_standard_error"]:
        return None
    return (evaluation["nll_exact"] - evaluation["lower_bound"]) / evaluation["gap_standard_error"]


def check(name, value, relation, limit):
    kept = value is not None and (value <= limit if relation == "<=" else value >= limit)
    return {"check": name, "value": value, "relation": relation, "limit": limit, "passed": kept}


def checks_of(run, limits, seconds_key):
    name = f"{run['preset']} {run['data']} seed {run['seed']}"
    checks = [check(f"{name}: {key}", run["evaluations"][-1][key], relation, limit)
              for key, relation, limit in limits[run["data"]]]
    for evaluation in run["evaluations"]:
        checks.append(check(f"{name}: (L - L_low) / standard error at step {evaluation['step']}",
                            gap_in_standard_errors(evaluation), ">=", -STANDARD_ERRORS))
    if run["steps"] == STEPS:
        checks.append(check(f"{name}: {seconds_key}", run[seconds_key], "<=", SECONDS_PER_RUN))
    return checks


def shown(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(report):
    judged = "wall-clock" if report["time_judged_by"] == "train_seconds" else "processor"
    lines = [
        "# Acceptance", "",
        f"{report['program']}, {report['cpu_model']}, {report['cores']} cores, {report['date']}. "
        f"{report['parallel']} runs side by side, one thread each; {judged} time is held against "
        f"{SECONDS_PER_RUN} s. All figures in nats, by `bracket eval` on the averaged weights. "
        f"{'All checks passed' if report['passed'] else 'CHECKS FAILED, see below'}: "
        f"{sum(c['passed'] for c in report['checks'])} of {len(report['checks'])}.", "",
        "| preset | data | seed | NLL exact | data entropy | KL | L_low | gap +- se | ESS | P | modes | <= 4 std "
        "| mass outside | s | s cpu |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in report["runs"]:
        e = run["evaluations"][-1]
        quality = "-" if e["high_quality_fraction"] is None else f"{100 * e['high_quality_fraction']:.1f} %"
        outside = "-" if e["mass_outside"] is None else f"{e['mass_outside']:.0e}"
        lines.append(
            f"| {run['preset']} | {run['data']} | {run['seed']} | {shown(e['nll_exact'], 3)} "
            f"| {shown(e['data_entropy'], 3)} | {shown(e['kl_data_to_model'], 3)} | {shown(e['lower_bound'], 3)} "
            f"| {shown(e['gap'], 4)} +- {shown(e['gap_standard_error'], 4)} | {shown(e['ess'], 2)} "
            f"| {shown(e['penalty'], 2)} | {'-' if e['modes_found'] is None else e['modes_found']} | {quality} "
            f"| {outside} | {run['train_seconds']:.0f} | {run['train_cpu_seconds']:.0f} |")
    steps = [e["step"] for e in report["runs"][0]["evaluations"]] if report["runs"] else []
    lines += ["", "Exact NLL after so many steps (gap in standard errors):", "",
              "| preset | data | seed | " + " | ".join(str(step) for step in steps) + " |", "|---" * (3 + len(steps)) + "|"]
    for run in report["runs"]:
        cells = [f"{shown(e['nll_exact'], 3)} ({shown(gap_in_standard_errors(e), 1)})" for e in run["evaluations"]]
        lines.append(f"| {run['preset']} | {run['data']} | {run['seed']} | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {d['what']}: {'passed' if d['passed'] else 'FAILED'}, {d['seconds']:.0f} s"
                    for d in report["durability"])]
    lines += [f"- FAILED: {c['check']} = {c['value']}, limit {c['relation']} {c['limit']}"
              for c in report["checks"] if not c["passed"]]
    lines += [f"- FAILED: {error}" for error in report["errors"]]
    lines += [f"- no figures: {note}" for note in report["notes"]]
    return "\n".join(lines) + "\n"


def cpu_model():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--parallel", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--time", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    program = options.program.resolve()
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    results = options.results or ROOT / ("build/acceptance" if options.smoke else "bench/results")
    results.mkdir(parents=True, exist_ok=True)
    seconds_key = "train_seconds" if options.time == "wall" else "train_cpu_seconds"

    limits, last_step, marks = (SMOKE_LIMITS, SMOKE_STEPS, 2) if options.smoke else (LIMITS, STEPS, 5)
    seeds = SEEDS[:1] if options.smoke else SEEDS
    runs = [{"preset": "calibrated-2d", "data": data, "seed": seed} for data in limits for seed in seeds]
    if not options.smoke:  # the paper's recipe beside it: figures without limits
        runs += [{"preset": "toy-a", "data": data, "seed": 0} for data in DATA]
    report = {
        "program": version, "revision": version.rpartition("(")[2].rstrip(")"), "cpu_model": cpu_model(), "cores": os.cpu_count(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "load_average_at_start": os.getloadavg(), "smoke": options.smoke, "parallel": options.parallel,
        "time_judged_by": seconds_key, "runs": [], "checks": [], "durability": [], "errors": [], "notes": [],
    }
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bracket-acceptance-"))
    try:
        with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
            started = [pool.submit(train_and_evaluate, program, folder, run, last_step, marks) for run in runs]
            for run, future in zip(runs, started):
                try:
                    report["runs"].append(future.result())
                except Failed as error:
                    report["errors" if run["preset"] == "calibrated-2d" else "notes"].append(str(error))
                    print(error, file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not options.smoke:
        test_program = program.parent.parent / "tests" / "interruption_test"
        report["durability"] = [endure(test_program, *case) for case in DURABILITY]
    for run in report["runs"]:
        if run["preset"] == "calibrated-2d":
            report["checks"] += checks_of(run, limits, seconds_key)
    report["passed"] = (not report["errors"] and all(c["passed"] for c in report["checks"])
                        and all(d["passed"] for d in report["durability"]))

    stem = "acceptance-smoke" if options.smoke else "acceptance"
    (results / f"{stem}.json").write_text(json.dumps(report, indent=2) + "\n")
    (results / f"{stem}.md").write_text(markdown(report))
    for failed in (c for c in report["checks"] if not c["passed"]):
        print(f"FAILED: {failed['check']} = {failed['value']}, limit {failed['relation']} {failed['limit']}")
    print(f"{sum(c['passed'] for c in report['checks'])} of {len(report['checks'])} checks passed; {results / stem}.md")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
