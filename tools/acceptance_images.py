#!/usr/bin/env python3
"""Trains the preset mnist at a quarter of its width on the CPU and holds the figures against their limits: 1,000 steps in
ten minutes, digits told from clothes (AUROC of -E at least 0.9), all ten digits among the samples, and 99 % for the
digit classifier. Whether the samples look like digits is for an eye to say.

usage: acceptance_images.py --program BRACKET --data-dir FOLDER [--results FOLDER]
FOLDER holds mnist/ and fashion-mnist/ as bracket finds them. Leaves acceptance-images.json and
pictures/mnist-samples.png in the results folder. Exit status 0 only when every limit is kept.
"""
import argparse
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from acceptance import ROOT, check, cpu_model

STEPS = 1000
WIDTH = 0.25
SECONDS = 600
AUROC = 0.9
MODES = 10  # every digit; detection alone says nothing of samples: a collapsed generator had an AUROC of 0.99
ACCURACY = 99.0


def child_seconds():
    """Processor seconds of all programs run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command):
    """Runs a command; returns its output and the wall seconds. A failure ends this program with its message."""
    start = time.monotonic()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, required=True)
    parser.add_argument("--data-dir", type=pathlib.Path, required=True)
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench" / "results")
    options = parser.parse_args()
    program = options.program.resolve()
    data = ["--data-dir", options.data_dir, "--device", "cpu"]
    version, _ = run([program, "--version"])
    with tempfile.TemporaryDirectory(prefix="bracket-acceptance-") as name:
        folder = pathlib.Path(name)
        classifier = folder / "classifier.safetensors"
        said, classifier_seconds = run([program, "classifier", "--data", "mnist", "--out", classifier, *data])
        accuracy = float(re.search(r"accuracy ([0-9.]+) %", said).group(1))
        out = folder / "mnist"
        processor_start = child_seconds()
        _, train_seconds = run([program, "train", "--preset", "mnist", "--data", "mnist", "--width", WIDTH, "--seed", 0,
                                "--steps", STEPS, "--out", out, "--set", f"picture_every={STEPS}", *data])
        processor_seconds = child_seconds() - processor_start
        judged, _ = run([program, "eval", out, "--json", "--classifier", classifier, "--ood", "fashion-mnist", *data])
        evaluation = json.loads(judged)
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        pictures = options.results / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        shutil.copy(out / "samples" / f"step_{STEPS:08d}.png", pictures / "mnist-samples.png")
    checks = [
        check("seconds of training", train_seconds, "<=", SECONDS),
        check("AUROC against fashion-mnist", evaluation["energies"]["fashion-mnist"]["auroc"], ">=", AUROC),
        check("digits among 10,000 samples", evaluation["modes"], ">=", MODES),
        check("accuracy of the classifier, %", accuracy, ">=", ACCURACY),
    ]
    report = {
        "program": version.strip(), "cpu_model": cpu_model(), "cores": os.cpu_count(),
        "load_average_at_end": os.getloadavg(), "steps": STEPS, "width": WIDTH, "train_seconds": round(train_seconds, 1),
        "train_processor_seconds": round(processor_seconds, 1), "processors_used": len(os.sched_getaffinity(0)),
        "classifier_seconds": round(classifier_seconds, 1), "evaluation": evaluation,
        "loss_curves": [{key: m.get(key) for key in ("step", "energy_data", "energy_samples", "log_volume", "penalty")}
                        for m in metrics[:: max(1, len(metrics) // 40)]],
        "checks": checks, "passed": all(c["passed"] for c in checks),
    }
    (options.results / "acceptance-images.json").write_text(json.dumps(report, indent=1) + "\n")
    for c in checks:
        print(f"{'passed' if c['passed'] else 'FAILED'}: {c['check']} = {c['value']:.4g}, limit {c['relation']} {c['limit']}")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
