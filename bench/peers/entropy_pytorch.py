#!/usr/bin/env python3
"""The log-volume of the DCGAN-32 generator and its gradient by PyTorch: what bracket_bench's cases entropy/dcgan32 time.

usage: entropy_pytorch.py [--batch N] [--threads N] [--device cpu|cuda] [--repetitions N] [--json FILE]

lobpcg_2: the reference's estimator, two steps of LOBPCG with torch.func.jvp and autograd. exact: vmap over the 128
coordinate directions, Gram matrix and slogdet. Float32, eager; medians of the repetitions after one warm-up.
Exit status: 0, or 77 where torch is missing.
"""
import argparse
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "parity"))
import dcgan32_step as step  # leaves with 77 where torch is missing
import torch


def once(network, z, start, estimator):
    direction = step.lobpcg_direction(network, z, start) if estimator == "lobpcg" else None
    value = step.log_volume(network, z, estimator, direction)
    return torch.autograd.grad(value.mean(), [z, *network.parameters()], allow_unused=True)


def median_milliseconds(work, device, repetitions):
    times = []
    for _ in range(repetitions + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    network = step.generator_network(1).to(options.device).eval()
    z = torch.randn(options.batch, step.LATENTS, device=options.device, requires_grad=True)
    start = torch.randn(options.batch, step.LATENTS, device=options.device)
    figures = {"torch": torch.__version__, "device": options.device, "threads": options.threads, "batch": options.batch,
               "repetitions": options.repetitions, "milliseconds": {}}
    for name, estimator in (("lobpcg_2", "lobpcg"), ("exact", "exact")):
        figures["milliseconds"][name] = median_milliseconds(lambda: once(network, z, start, estimator), options.device,
                                                            options.repetitions)
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
