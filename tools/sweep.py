#!/usr/bin/env python3
"""Trains and evaluates every combination of settings, several runs at a time, and compares them.

  tools/sweep.py --program build/dev/tools/bracket --out sweeps/rates --data 25gaussians \\
      --set energy.lr=1e-3,3e-3 --set penalty.target=0.3,0.6 --seeds 0,1,2 --jobs 2 \\
      -- --preset calibrated-2d --steps 8000

--set KEY=VALUE,VALUE,... takes the keys of `bracket train --set`; a value with commas in it is written as JSON list of
values: --set 'KEY=["a,b", "c"]'. What follows -- goes to every `bracket train`, on resuming as far as --resume takes
it. Each run gets one thread.

OUT/runs/NAME        the run folders, with eval.json (what `bracket eval --json` printed) in them; NAME.log beside
OUT/sweep.csv        one row per run: settings, seed, seconds, status, then every number and yes-or-no of eval.json
OUT/comparison.md    mean and standard error over seeds of --metric by setting, best first
OUT/comparison.png   the same as a chart (needs matplotlib)

A sweep that was interrupted goes on: finished runs are kept, others are resumed. Exit status: 0, 1 when a run failed
(its row says how; the others are complete), 2 for a wrong command line, 130 after Ctrl-C or SIGTERM.
"""
import argparse
import concurrent.futures
import csv
import itertools
import json
import math
import pathlib
import re
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time

# What `bracket train --resume` takes, and whether a value follows.
RESUMED = {"--steps": True, "--stop-after": True, "--data-dir": True, "--device": True, "--on-divergence": True,
           "--no-graphs": False, "--one-kernel": False}
RESERVED = {"--out", "--data", "--set", "--seed", "--resume", "--force", "--threads"}
LONGEST_NAME = 150  # of a run folder; file systems take 255 bytes


def parse_setting(text):
    """("energy.lr", ["1e-3", "3e-3"]) of "energy.lr=1e-3,3e-3"."""
    key, equals, values = text.partition("=")
    if not equals or not key or not values:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE,VALUE,...")
    if values.startswith("["):
        try:
            parsed = json.loads(values)
        except json.JSONDecodeError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
        chosen = [value if isinstance(value, str) else json.dumps(value) for value in parsed]
    else:
        chosen = values.split(",")
    if not chosen or "" in chosen or len(set(chosen)) != len(chosen):
        raise argparse.ArgumentTypeError(f"{text!r} has no value, an empty one or one twice")
    return key, chosen


def parse_seeds(text):
    """[0, 1, 2] of "0,1,2" or "0-2"."""
    seeds = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise argparse.ArgumentTypeError(f"{part!r} is neither a seed nor a range of seeds")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise argparse.ArgumentTypeError(f"{part!r} is an empty range")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) != len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} names a seed twice")
    return seeds


def run_name(index, settings, seed):
    """A folder name that tells runs apart whatever characters values have."""
    words = [f"{key}={value}" for key, value in settings] + [f"seed={seed}"]
    return f"{index:04d}_" + re.sub(r"[^A-Za-z0-9.=+-]+", "_", "_".join(words))[:LONGEST_NAME]


def plan(options):
    keys = [key for key, _ in options.settings]
    combinations = itertools.product(*[values for _, values in options.settings])
    runs = []
    for values in combinations:
        settings = list(zip(keys, values))
        for seed in options.seeds:
            runs.append({"name": run_name(len(runs), settings, seed), "settings": settings, "seed": seed})
    return runs


def resumed_arguments(arguments):
    """Those of a new run that a resumed one takes, too."""
    kept, words = [], iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        value = [next(words, "")] if RESUMED.get(name, False) and not equals else []
        if name in RESUMED:
            kept += [word, *value]
    return kept


class Interrupted(Exception):
    """The sweep was asked to stop; the run is left as it is."""


class Worker:
    """Runs programs and can be told to stop them all."""

    def __init__(self):
        self._lock = threading.Lock()
        self._running = set()
        self._stopped = False

    def __call__(self, command, **streams):
        with self._lock:
            if self._stopped:
                raise Interrupted
            # A group of its own: Ctrl-C reaches this script alone, which then stops each run once.
            process = subprocess.Popen(command, start_new_session=True, **streams)
            self._running.add(process)
        try:
            output = process.communicate()[0]
        finally:
            with self._lock:
                self._running.discard(process)
        if self._stopped:
            raise Interrupted
        return process.returncode, output

    def stop(self):
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()  # bracket leaves a checkpoint


def train_and_evaluate(run, options, worker):
    """Brings one run to its end. Returns its row."""
    folder = options.out / "runs" / run["name"]
    evaluation_file, log = folder / "eval.json", options.out / "runs" / f"{run['name']}.log"
    clock = options.out / "runs" / f"{run['name']}.seconds"  # a line per session
    row = {"run": run["name"], **dict(run["settings"]), "seed": run["seed"]}
    start = time.monotonic()
    try:
        if not evaluation_file.exists():
            common = ["--threads", "1"]
            if (folder / "config.json").exists():
                command = [options.program, "train", "--resume", folder, *common,
                           *resumed_arguments(options.train_arguments)]
            else:
                command = [options.program, "train", "--out", folder, "--data", options.data, "--seed",
                           str(run["seed"]), *common, *options.train_arguments]
                for key, value in run["settings"]:
                    command += ["--set", f"{key}={value}"]
            with open(log, "ab") as output:
                output.write((shlex.join(map(str, command)) + "\n").encode())
                output.flush()
                try:
                    status, _ = worker(command, stdout=output, stderr=subprocess.STDOUT)
                finally:
                    with open(clock, "a", encoding="utf-8") as file:
                        file.write(f"{time.monotonic() - start:.1f}\n")
                if status != 0:
                    return {**row, "status": f"train ended with {status}, see {log}"}
                command = [options.program, "eval", folder, "--json", "--threads", "1"]
                status, text = worker(command, stdout=subprocess.PIPE, stderr=output)
                if status != 0:
                    return {**row, "status": f"eval ended with {status}, see {log}"}
            json.loads(text)
            temporary = evaluation_file.with_suffix(".tmp")
            temporary.write_bytes(text)
            temporary.replace(evaluation_file)
        row["seconds"] = round(sum(map(float, clock.read_text(encoding="utf-8").split())), 1)
        evaluation = json.loads(evaluation_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {**row, "status": str(error)}
    for key, value in evaluation.items():
        if isinstance(value, (bool, int, float)) and key not in row:
            row[key] = value
    return {**row, "status": "done"}


def columns_of(rows):
    columns = []
    for row in rows:
        columns += [key for key in row if key not in columns]
    return columns


def write_csv(rows, path):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns_of(rows), restval="")
        writer.writeheader()
        writer.writerows(rows)


def compare(runs, rows, metric, largest):
    """[(settings, values over seeds)], best mean first; combinations with a failed or missing value last."""
    groups = {}
    for run, row in zip(runs, rows):
        label = ", ".join(f"{key}={value}" for key, value in run["settings"]) or "as given"
        groups.setdefault(label, []).append(row.get(metric) if row["status"] == "done" else None)
    compared = []
    for label, values in groups.items():
        known = [float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
        mean = statistics.fmean(known) if known else math.nan
        error = statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else math.nan
        compared.append({"label": label, "mean": mean, "error": error, "known": len(known), "of": len(values)})
    sign = -1 if largest else 1
    return sorted(compared, key=lambda c: (math.isnan(c["mean"]), c["known"] < c["of"], sign * c["mean"]))


def markdown(compared, metric):
    lines = [f"| settings | {metric}, mean over seeds | standard error | seeds |", "|---|---|---|---|"]
    for c in compared:
        mean = "unknown" if math.isnan(c["mean"]) else f"{c['mean']:.6g}"
        error = "unknown" if math.isnan(c["error"]) else f"{c['error']:.2g}"
        seeds = str(c["of"]) if c["known"] == c["of"] else f"{c['known']} of {c['of']}"
        lines.append(f"| {c['label'].replace('|', chr(92) + '|')} | {mean} | {error} | {seeds} |")
    return "\n".join(lines) + "\n"


def chart(compared, metric, path):
    """Without matplotlib: says so and draws nothing."""
    try:
        import matplotlib
    except ImportError:
        print("sweep: matplotlib is not installed; no chart", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot
    shown = [c for c in compared if not math.isnan(c["mean"])]
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.35 * max(len(shown), 1)))
    axes.errorbar([c["mean"] for c in shown], range(len(shown)), fmt="o", capsize=3,
                  xerr=[0 if math.isnan(c["error"]) else c["error"] for c in shown])
    axes.set_yticks(range(len(shown)), [c["label"] for c in shown])
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric}: mean over seeds and its standard error")
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def parse(arguments):
    own, separator, rest = list(arguments), "--", []
    if separator in own:
        at = own.index(separator)
        own, rest = own[:at], own[at + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, required=True, help="the bracket program")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the sweep; may be there already")
    parser.add_argument("--data", required=True, help="as of `bracket train`")
    parser.add_argument("--set", dest="settings", action="append", type=parse_setting, default=[],
                        metavar="KEY=VALUE,...", help="values to try; repeated: every combination")
    parser.add_argument("--seeds", type=parse_seeds, default=[0], help="0,1,2 or 0-2 (default 0)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (default 2)")
    parser.add_argument("--metric", help="what is compared (default: nll_exact, or where it is unknown nll_importance, "
                        "lower_bound)")
    parser.add_argument("--largest", action="store_true", help="large values of the metric are good")
    options = parser.parse_args(own)
    options.train_arguments = rest
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    keys = [key for key, _ in options.settings]
    if len(set(keys)) != len(keys):
        parser.error("--set names a key twice; give all its values at once")
    taken = [word for word in rest if word.split("=")[0] in RESERVED]
    if taken:
        parser.error(f"{taken[0]} behind -- is the sweep's own")
    if not options.program.is_file():
        parser.error(f"{options.program} is not there; build it, or name another with --program")
    return options


def chosen_metric(options, rows):
    if options.metric:
        return options.metric
    for metric in ("nll_exact", "nll_importance", "lower_bound", "lower_bound_on_manifold"):
        if any(metric in row for row in rows):
            return metric
    return "nll_exact"


def keep_plan(options, runs):
    """Refuses to continue another sweep in the same folder."""
    wanted = {"data": options.data, "train_arguments": options.train_arguments,
              "runs": [{**run, "settings": dict(run["settings"])} for run in runs]}
    path = options.out / "sweep.json"
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != wanted:
            print(f"sweep.py: {options.out} holds another sweep (see sweep.json in it); choose another folder",
                  file=sys.stderr)
            return False
        return True
    (options.out / "runs").mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    return True


def main(arguments=None):
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    runs = plan(options)
    if not keep_plan(options, runs):
        return 2
    worker, rows = Worker(), [None] * len(runs)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        tasks = {pool.submit(train_and_evaluate, run, options, worker): i for i, run in enumerate(runs)}
        try:
            for done, task in enumerate(concurrent.futures.as_completed(tasks), 1):
                row = rows[tasks[task]] = task.result()
                print(f"[{done}/{len(runs)}] {row['run']}: {row['status']}", flush=True)
        except KeyboardInterrupt:
            worker.stop()
            pool.shutdown(cancel_futures=True)
            print("sweep.py: stopped; the same command goes on", file=sys.stderr)
            return 130
    write_csv(rows, options.out / "sweep.csv")
    metric = chosen_metric(options, rows)
    compared = compare(runs, rows, metric, options.largest)
    text = markdown(compared, metric)
    (options.out / "comparison.md").write_text(text, encoding="utf-8")
    chart(compared, metric, options.out / "comparison.png")
    print(text)
    return 1 if any(row["status"] != "done" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
