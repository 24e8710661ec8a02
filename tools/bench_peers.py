#!/usr/bin/env python3
"""Times training iterations of Bracket and of its peers, interleaved, and writes JSON, a table and a chart.

usage: bench_peers.py --build BUILD --out PREFIX [--device cpu|cuda] [--case PRESET:BATCH ...] [--threads 1,2]
                      [--peers ours,B0,...] [--precision fp32|tf32|bf16] [--rounds N] [--seconds S] [--python PYTHON]

Every participant is one process that stays alive: bracket_iteration_worker of a build, and bench/peers/worker.py under
PYTHON (the interpreter that has torch and jax). Before anything is timed a peer's first iteration must equal that of
the others, and Bracket's the one in double precision. After a warm-up of two blocks all take turns in blocks of about S
seconds, in an order that moves by one each round, so that what else the machine does hits all alike.
A peer that cannot run is a row without figures that says why.
Writes PREFIX.json, PREFIX.md and, with matplotlib, PREFIX.png. Exit status: 0, 1 when a participant failed or
disagreed.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import selectors
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = {"ours": "Bracket", "B0": "PyTorch eager, autograd, SVD in every LOBPCG step", "B1": "PyTorch eager, autograd",
         "B2": "PyTorch, hand-derived passes", "B3": "PyTorch, torch.compile of these passes", "B4": "JAX, jit"}
REFERENCES = ("B1", "B0", "B2", "B4", "B3")  # what the others are held against: the first of these that runs
CASES = {"cpu": ["toy-a:200", "calibrated-2d:128", "cifar10-ii:8"],
         "cuda": ["toy-a:200", "calibrated-2d:128", "cifar10-ii:64", "faces-64:64"]}
# Allowed differences of a first iteration: of a loss, relative to 1 + |loss|, and of a change, in steps of Adam. In
# single precision a loss rounds by some 1e-6 (measured 6e-7), and so does a gradient; the first step of Adam has signs
# of elements, and one of some 1e3 to 1e6 that lies near rounding or near its epsilon moves part of a step (measured up
# to 5e-3). tf32 and bf16 round 1e3 and 1e4 times as much.
TOLERANCES = {"fp32": (1e-5, 2e-2), "tf32": (1e-2, 1e-1), "bf16": (1e-1, 3e-1)}
# A tensor that Adam moves by less than this share of a step has a gradient that cancels to rounding (the last bias of
# the energy), divided by Adam's epsilon: noise, and not compared.
LEAST_CHANGE = 0.5
START_SECONDS, BLOCK_SECONDS = 1800, 600  # limits: compiling takes minutes
NOT_INSTALLED = 77


class Failed(Exception):
    """A participant that cannot go on; the text says why."""


def without_paths(text):
    return re.sub(r"(?:/[\w.+-]+)+/", "", text)


class Participant:
    """A process that answers numbers of iterations with seconds."""

    def __init__(self, command, environment=None):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=environment)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def answer(self, limit):
        if not self.selector.select(limit):
            self.close()
            raise Failed(f"no answer within {limit} s")
        line = self.process.stdout.readline()
        if not line:
            said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
            raise Failed(without_paths(said[-1]) if said else f"ended with status {self.process.wait()}")
        return json.loads(line)

    def seconds(self, iterations):
        try:
            self.process.stdin.write(f"{iterations}\n".encode())
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended; what it said follows
        answer = self.answer(BLOCK_SECONDS)
        if not all(abs(loss) < float("inf") for loss in answer["losses"].values()):
            raise Failed("losses are not finite")
        return answer["seconds"]

    def close(self):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except OSError:
                pass


# ---- statistics ------------------------------------------------------------------------------------------------------


def summary(values):
    """Median, quartiles and least of a list of figures."""
    first, _, third = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "quartiles": [first, third], "least": min(values)}


def ratios(values, ours):
    """How many times as long as ours, round by round: what slowed both in a round falls out."""
    return summary([value / own for value, own in zip(values, ours)])


def disagreement(first, reference, precision):
    """Empty, or how two first iterations differ beyond the tolerance."""
    loss_limit, change_limit = TOLERANCES[precision]
    for name, value in reference["losses"].items():
        error = abs(first["losses"].get(name, float("nan")) - value) / (1 + abs(value))
        if not error <= loss_limit:
            return f"{name} of its first iteration is off by {error:.1e}, allowed {loss_limit:.0e}"
    for name, values in reference["changes"].items():
        if values[0] < LEAST_CHANGE:
            continue
        found = first["changes"].get(name, [float("nan")] * len(values))
        error = max(abs(a - b) for a, b in zip(found, values))
        if not error <= change_limit:
            return f"the change of {name} is off by {error:.1e} steps of Adam, allowed {change_limit:.0e}"
    return ""


# ---- measuring -------------------------------------------------------------------------------------------------------


def command_of(row, case, options):
    preset, _, batch = case.partition(":")
    arguments = ["--preset", preset, "--batch", batch or "0", "--device", options.device]
    if options.device == "cpu":
        arguments += ["--threads", str(row["threads"])]
    if row["peer"] == "ours":
        return [str(options.build / "bench" / "bracket_iteration_worker"), "--math", row["precision"], *arguments]
    return [options.python, str(ROOT / "bench" / "peers" / "worker.py"), "--peer", row["peer"], "--precision",
            row["precision"], *arguments]


def open_row(row, case, options):
    """Starts a participant; what it says of itself goes into the row."""
    command = command_of(row, case, options)
    environment = dict(os.environ, OMP_NUM_THREADS=str(row["threads"])) if row["threads"] else None
    try:
        participant = Participant(command, environment)
    except OSError as error:
        row.update(status="not installed", reason=f"cannot start: {error.strerror}")
        return None
    try:
        said = participant.answer(START_SECONDS)
    except Failed as error:
        status = participant.process.wait()
        row.update(status="not installed" if status == NOT_INSTALLED else "failed", reason=str(error))
        participant.close()
        return None
    row.update(status="started", versions=said["versions"])
    if "first_step_error" in said:
        row["first_step_error"] = said["first_step_error"]
    return participant, said.get("first")


def check_first(rows, running):
    """Peers whose first iteration differs from the reference's leave."""
    reference = next((key for name in REFERENCES for key in running if rows[key]["peer"] == name), None)
    for key in list(running):
        participant, first = running[key]
        if reference is None or first is None or key == reference:
            continue
        why = disagreement(first, running[reference][1], rows[key]["precision"])
        if why:
            rows[key].update(status="failed", reason=f"{why} from {rows[reference]['peer']}")
            participant.close()
            del running[key]


def measure(rows, running, options, loads):
    """Blocks in turn; the first two of each warm up and set the number of iterations of the others."""
    def block(key, iterations):
        try:
            return running[key][0].seconds(iterations) / iterations
        except Failed as error:
            rows[key].update(status="failed", reason=str(error))
            running.pop(key)[0].close()
            return None

    for key in list(running):
        seconds = block(key, options.first)
        iterations = max(1, round(options.seconds / seconds)) if seconds else 1
        seconds = block(key, iterations) if seconds else None
        if seconds:
            rows[key].update(iterations_per_block=max(1, round(options.seconds / seconds)), milliseconds=[])
    for number in range(options.rounds):
        loads.append(round(os.getloadavg()[0], 2))
        order = sorted(running)
        for key in order[number % len(order):] + order[:number % len(order)] if order else []:
            time.sleep(0.2)  # threads that spin for work give up
            seconds = block(key, rows[key]["iterations_per_block"])
            if seconds:
                rows[key]["milliseconds"].append(round(1e3 * seconds, 5))
    for key in running:
        rows[key].update(status="measured", **summary(rows[key]["milliseconds"]))


def rows_of(options):
    """Rows of a case before anything ran. On a GPU `ours` has rows of fp32, of tf32x3, which is as exact, and of the
    precision of the peers."""
    threads = [int(count) for count in options.threads.split(",")] if options.device == "cpu" else [0]
    own = ["fp32"] if options.device == "cpu" else list(dict.fromkeys(["fp32", "tf32x3", options.precision]))
    return [{"peer": peer, "name": NAMES[peer], "threads": count, "precision": precision}
            for peer in options.peers.split(",") for count in threads
            for precision in (own if peer == "ours" else [options.precision])]


def run_case(case, options):
    rows, running, loads = rows_of(options), {}, []
    try:
        for key, row in enumerate(rows):
            started = open_row(row, case, options)
            if started:
                running[key] = started
        check_first(rows, running)
        measure(rows, running, options, loads)
    finally:
        for participant, _ in running.values():
            participant.close()
    own = [row for row in rows if row["peer"] == "ours" and row["status"] == "measured"]
    best = min(own, key=lambda row: row["median"], default=None)
    for row in rows:
        if best and row["status"] == "measured" and row is not best:
            row["times_ours"] = ratios(row["milliseconds"], best["milliseconds"])
    preset, _, batch = case.partition(":")
    return {"preset": preset, "batch": int(batch or 0), "load_average": loads, "rows": rows}


# ---- reports ---------------------------------------------------------------------------------------------------------


def cpu_model():
    try:
        for line in open("/proc/cpuinfo", encoding="utf-8"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def revision():
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
                              capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def figure(milliseconds):
    return f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}"


def markdown(report):
    context = report["context"]
    lines = [f"Training iterations (one energy and one generator update) on {context['processor']}, revision "
             f"{context['revision']}, {context['date']}. Milliseconds: median and quartiles of {context['rounds']} "
             "blocks, interleaved. The last column is a row's time over that of Bracket's best row, round by round.",
             ""]
    for case in report["cases"]:
        lines += [f"### {case['preset']}, batch {case['batch']}", "",
                  f"Load average of the machine: {min(case['load_average'], default=0)} to "
                  f"{max(case['load_average'], default=0)}.", "",
                  "| implementation | precision | threads | ms | quartiles | times Bracket's |",
                  "|---|---|---|---|---|---|"]
        for row in case["rows"]:
            start = f"| {row['name']} | {row['precision']} | {row['threads'] or '-'} | "
            if row["status"] != "measured":
                lines.append(f"{start}{row['status']}: {row['reason']} | | |")
                continue
            low, high = row["quartiles"]
            times = row.get("times_ours")
            share = "1" if times is None else f"{times['median']:.2f}"
            lines.append(f"{start}{figure(row['median'])} | {figure(low)} to {figure(high)} | {share} |")
        lines.append("")
    return "\n".join(lines)


def chart(report, path):
    """A panel of bars per case. Without matplotlib: says so and draws nothing."""
    try:
        import matplotlib
    except ImportError:
        print("bench_peers: matplotlib is not installed; no chart", file=sys.stderr)
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot
    cases = [(case, [row for row in case["rows"] if row["status"] == "measured"]) for case in report["cases"]]
    cases = [(case, rows) for case, rows in cases if rows]
    if not cases:
        return False
    heights = [len(rows) + 1 for _, rows in cases]
    panels = pyplot.subplots(len(cases), 1, figsize=(9, 0.4 * sum(heights) + 1), squeeze=False,
                             gridspec_kw={"height_ratios": heights})[1]
    for (case, rows), panel in zip(cases, panels[:, 0]):
        labels = [row["name"] + (f", {row['precision']}" if row["precision"] != "fp32" else "") +
                  (f", {row['threads']} threads" if row["threads"] > 1 else "") for row in rows]
        medians = [row["median"] for row in rows]
        errors = [[abs(row["quartiles"][side] - row["median"]) for row in rows] for side in (0, 1)]
        colours = ["tab:blue" if row["peer"] == "ours" else "lightgrey" for row in rows]
        bars = panel.barh(labels, medians, xerr=errors, color=colours)
        panel.bar_label(bars, [figure(value) for value in medians], padding=4)
        panel.set(xscale="log", xlabel="ms per iteration", title=f"{case['preset']}, batch {case['batch']}")
        panel.set_xlim(min(medians) / 2, max(medians) * 3)
        panel.invert_yaxis()
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close()
    return True


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True, help="with bench/bracket_iteration_worker in it")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="PREFIX")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--case", action="append", metavar="PRESET:BATCH", help="default: those of the device")
    parser.add_argument("--threads", default="1,2", help="of the CPU; one row each (default 1,2)")
    parser.add_argument("--peers", default=",".join(NAMES), help=f"default {','.join(NAMES)}")
    parser.add_argument("--precision", choices=list(TOLERANCES), default="fp32", help="of the peers on a GPU")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a block (default 0.5)")
    parser.add_argument("--first", type=int, default=3, help="iterations of the first warm-up block (default 3)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the peers")
    options = parser.parse_args(arguments)
    unknown = [peer for peer in options.peers.split(",") if peer not in NAMES]
    if unknown:
        parser.error(f"unknown peers {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    cases = []
    for case in options.case or CASES[options.device]:
        print(f"{case} ...", flush=True)
        cases.append(run_case(case, options))
    gpus = {row["versions"].get("gpu") or row["versions"].get("device") for case in cases for row in case["rows"]
            if options.device == "cuda" and row["status"] == "measured"}
    report = {"context": {"date": datetime.date.today().isoformat(), "revision": revision(),
                          "processor": f"{cpu_model()}, {os.cpu_count()} cores" if options.device == "cpu"
                          else ", ".join(sorted(gpus)) or "no GPU",
                          "device": options.device, "rounds": options.rounds, "seconds_per_block": options.seconds},
              "cases": cases}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = markdown(report)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    chart(report, options.out.with_suffix(".png"))
    print(text)
    return 1 if any(row["status"] == "failed" for case in cases for row in case["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
