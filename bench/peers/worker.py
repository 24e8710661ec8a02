#!/usr/bin/env python3
"""One peer of tools/bench_peers.py: builds it, shows what its first iteration gives, and runs iterations on demand.

usage: worker.py --peer B0|B1|B2|B3|B4 --preset NAME [--batch N] [--width F] [--device cpu|cuda] [--threads N]
                 [--precision fp32|tf32|bf16] [--seed N]

B0 PyTorch, autograd, torch.linalg.svd in every LOBPCG step; B1 the same without SVD; B2 PyTorch, hand-derived passes,
one CUDA graph on a GPU; B3 torch.compile of B2; B4 JAX, one jitted function.
Prints one line of JSON: versions, and losses and changes of the first iteration from given values and draws. Then it
reads numbers of iterations, one a line, and answers each with {"seconds": ..., "losses": ...}.
Exit status: 0, or 77 where the framework or the device is missing (the reason on stderr).
"""
import argparse
import json
import os
import platform
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PRESETS = ("toy-a", "calibrated-2d", "cifar10-ii", "faces-64")  # problem.py needs numpy


class Unavailable(Exception):
    """The peer cannot run here; the text says why."""


def figures(peer, values, losses, lr):
    """Losses, and what the iteration changed: root mean square and mean along a fixed direction of each tensor's
    change, in steps of Adam."""
    import numpy as np
    found = {"losses": {name: float(value) for name, value in losses.items()}, "changes": {}}
    for player, (parameters, buffers) in values.items():
        before = {**parameters, **buffers}
        for name, tensor in peer.tensors(player).items():
            after = np.asarray(tensor.cpu() if hasattr(tensor, "cpu") else tensor, np.float64)
            change = (after - before[name]).ravel() / lr
            direction = np.cos(np.arange(change.size) * 1.7 + 0.3)
            found["changes"][f"{player} {name}"] = [float(np.sqrt(np.mean(change**2))),
                                                    float(np.mean(change * direction))]
    return found


class TorchWorker:
    def __init__(self, options, task, values):
        try:
            import torch
        except ImportError as error:
            raise Unavailable(str(error)) from error
        from torch_draws import Draws
        self.torch, self.device, self.task = torch, options.device, task
        if self.device == "cuda" and not torch.cuda.is_available():
            raise Unavailable("torch finds no GPU")
        torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        low = options.precision in ("tf32", "bf16")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = low
        torch.backends.cudnn.benchmark = True
        bf16 = options.precision == "bf16"
        if options.peer in ("B0", "B1"):
            from torch_autograd import AutogradPeer
            self.peer = AutogradPeer(task, values, self.device, torch.float32, options.peer == "B0", bf16)
        elif task.estimator == "exact":
            raise Unavailable("no passes are derived by hand for this preset")
        else:
            torch.set_grad_enabled(False)
            from torch_passes import PassesPeer
            self.peer = PassesPeer(task, values, self.device, torch.float32, torch.bfloat16 if bf16 else None)
        self.draws = Draws(task, options.batch, self.device, torch.float32)
        self.step = self.peer.iterate
        if options.peer == "B3":
            self.step = torch.compile(self.peer.iterate, fullgraph=True)
        self.graph = None
        self.wants_graph = options.peer == "B2" and self.device == "cuda"

    def versions(self):
        found = {"torch": self.torch.__version__, "python": platform.python_version()}
        if self.device == "cuda":
            found |= {"gpu": self.torch.cuda.get_device_name(), "cuda": self.torch.version.cuda,
                      "cudnn": self.torch.backends.cudnn.version()}
        return found

    def first(self, x, noise):
        given = {name: self.torch.from_numpy(value).float().to(self.device) for name, value in noise.items()}
        return self.step(self.torch.from_numpy(x).float().to(self.device), given)

    def drawn(self):
        return self.step(self.draws.data(), self.draws.noise())

    def capture(self):
        """On a stream of its own, after a few iterations there: libraries make their workspaces on first use."""
        torch = self.torch
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.drawn()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.losses = self.drawn()

    def run(self, count):
        if self.wants_graph and self.graph is None:
            self.capture()
        for _ in range(count):
            if self.graph is not None:
                self.graph.replay()
            else:
                self.losses = self.drawn()
        return {name: value.item() for name, value in self.losses.items()}  # waits


class JaxWorker:
    def __init__(self, options, task, values):
        if options.device == "cpu":
            os.environ["JAX_PLATFORMS"] = "cpu"
        if hasattr(os, "sched_setaffinity") and options.device == "cpu":  # XLA takes a thread per processor it may use
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.threads])
        try:
            import jax
            from jax_step import JaxPeer
        except ImportError as error:
            raise Unavailable(str(error)) from error
        if options.device == "cuda" and jax.default_backend() != "gpu":
            raise Unavailable("jax finds no GPU")
        self.jax = jax
        if options.device == "cuda":
            jax.config.update("jax_default_matmul_precision", {"fp32": "float32", "tf32": "tensorfloat32",
                                                               "bf16": "bfloat16"}[options.precision])
        self.peer = JaxPeer(task, values, jax.numpy.float32)
        self.first = self.peer.iterate
        self.run = self.peer.loop(options.batch)

    def versions(self):
        return {"jax": self.jax.__version__, "python": platform.python_version(),
                "gpu": self.jax.devices()[0].device_kind if self.jax.default_backend() == "gpu" else "none"}


def make_worker(options):
    try:
        import problem
    except ImportError as error:
        raise Unavailable(str(error)) from error
    task = problem.problem(options.preset, options.width)
    options.batch = options.batch or task.batch
    values = problem.starting_values(task)
    worker = (JaxWorker if options.peer == "B4" else TorchWorker)(options, task, values)
    first = worker.first(*problem.given_draws(task, options.batch))
    return worker, figures(worker.peer, values, first, task.lr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=["B0", "B1", "B2", "B3", "B4"], required=True)
    parser.add_argument("--preset", choices=PRESETS, required=True)
    parser.add_argument("--batch", type=int, default=0, help="default: the preset's")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels of image networks")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.device == "cpu" and options.precision != "fp32":
        parser.error("tf32 and bf16 are for --device cuda")
    sys.path.insert(0, HERE)
    try:
        worker, first = make_worker(options)
    except Unavailable as error:
        print(f"{options.peer}: {error}", file=sys.stderr)
        return 77
    print(json.dumps({"versions": worker.versions(), "first": first}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        losses = worker.run(int(line))
        print(json.dumps({"seconds": time.perf_counter() - begin, "losses": losses}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
