#!/usr/bin/env python3
"""The peers of bench/peers compute the same iteration: two of them from the same values, data and noise, in double.

usage: peers.py
B1 (PyTorch's autograd without SVD) is held against dcgan32_step.py, which Bracket equals, and B0, B2, B3 and B4 against
B1, on toy-a, on calibrated-2d (all but B2 and B3) and on small images that pass through every kind of layer of image
networks. torch.compile (B3) takes long: it only traces, and toy-a alone; the benchmark checks what its compiler makes.
Without JAX, B4 is left out.
Exit status: 0 passed, 1 failed, 77 torch or numpy is missing.
"""
import dataclasses
import os
import sys

try:
    import numpy as np
    import torch
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "peers"))
import dcgan32_step
import problem
from problem import LEAKY, RELU, TANH, FLATTEN, Layer, conv, norm
from torch_autograd import AutogradPeer
from torch_passes import PassesPeer

try:
    import jax.numpy as jnp
    from jax_step import JaxPeer
except ImportError as error:
    JaxPeer = None
    print(f"B4 left out: {error}")

BATCH, ITERATIONS = 5, 2
# A gradient is a sum of up to some 1e4 products, 1e-12 of its tensor's norm; Adam divides elements by their own size,
# and what is small among them loses two or three digits more. That of dcgan32_step.py. Of a gradient that cancels to
# rounding (the last bias of the energy) Adam makes 1e-16 / epsilon of a step: with the 1e-8 of calibrated-2d a hundred
# times as much as with the 1e-6 of the others.
TOLERANCE, TOLERANCE_EPSILON = 1e-9, 1e-6


def small_images():
    energy = (Layer("residual", body=(conv(3, 4, 3), LEAKY, conv(4, 4, 3), Layer("average_pool")),
                    skip=(Layer("average_pool"), conv(3, 4, 1, padding=0))),
              LEAKY, conv(4, 4, 4, 2), LEAKY, conv(4, 5, 3), LEAKY, Layer("sum_pool"), FLATTEN, Layer("linear", 5, 1))
    generator = (Layer("linear", 6, 20), Layer("unflatten", outputs=5, side=2),
                 Layer("conv_transpose", 5, 4, 4, 2, 1), norm(4), RELU,
                 Layer("residual", body=(norm(4), RELU, Layer("upsample"), conv(4, 3, 3)),
                       skip=(conv(4, 3, 1, padding=0), Layer("upsample"))), conv(3, 3, 3), TANH)
    return problem.Problem("small images", energy, generator, (3, 8, 8), 6, "lobpcg", True, 0.01, 0, BATCH)


def compiled(task, values):
    peer = PassesPeer(task, values, "cpu", torch.float64)
    peer.iterate = torch.compile(peer.iterate, backend="eager", fullgraph=True)
    return peer


MAKERS = {"B0": lambda task, values: AutogradPeer(task, values, "cpu", torch.float64, with_svd=True),
          "B1": lambda task, values: AutogradPeer(task, values, "cpu", torch.float64, with_svd=False),
          "B2": lambda task, values: PassesPeer(task, values, "cpu", torch.float64),
          "B3": compiled}
if JaxPeer:
    MAKERS["B4"] = lambda task, values: JaxPeer(task, values, jnp.float64)


def arrays(peer, player):
    return {name: np.array(tensor, np.float64) for name, tensor in peer.tensors(player).items()}


def iterated(name, task, values, x, noise):
    """Losses of every iteration and all tensors after the last."""
    peer = MAKERS[name](task, values)
    losses = []
    with torch.set_grad_enabled(name in ("B0", "B1")):
        for _ in range(ITERATIONS):
            given = (x, noise)
            if name != "B4":
                given = torch.from_numpy(x), {key: torch.from_numpy(value) for key, value in noise.items()}
            found = peer.iterate(*given)
            losses.append({key: float(value) for key, value in found.items()})
    return losses, {player: arrays(peer, player) for player in values}


def worst_change(ours, theirs, before, task):
    """Largest difference of a tensor's change (root mean squares over elements), relative to it or, where it is less,
    to Adam's step: where a gradient cancels to rounding (the last bias of the energy: 1/B from every row of data, -1/B
    from every fake), Adam divides 1e-16 by its epsilon of 1e-6, and the change is noise."""
    worst = 0.0
    for player in before:
        for name, start in {**before[player][0], **before[player][1]}.items():
            difference = np.sqrt(np.mean((ours[player][name] - theirs[player][name]) ** 2))
            change = np.sqrt(np.mean((theirs[player][name] - start) ** 2))
            error = difference / max(change, task.lr)
            worst = max(worst, error if np.isfinite(error) else np.inf)
    return worst


def report(label, error, epsilon=TOLERANCE_EPSILON):
    print(f"{label}: largest relative difference {error:.1e}")
    return error <= TOLERANCE * TOLERANCE_EPSILON / epsilon


def check_peers(task):
    values = problem.starting_values(task)
    x, noise = problem.given_draws(task, BATCH)
    losses, tensors = iterated("B1", task, values, x, noise)
    good = True
    for name in MAKERS:
        if name == "B1" or (name == "B3" and len(task.shape) == 3):
            continue
        if task.estimator == "exact" and name in ("B2", "B3"):
            continue  # no passes are derived by hand for it
        its_losses, its_tensors = iterated(name, task, values, x, noise)
        error = worst_change(its_tensors, tensors, values, task)
        for ours, theirs in zip(its_losses, losses):
            error = max([error] + [abs(ours[key] - theirs[key]) / abs(theirs[key]) for key in theirs])
        good &= report(f"{task.name}: {name} and B1", error, task.epsilon)
    return good


def check_against_parity():
    """One iteration of B1 from the start, data and noise of dcgan32_step.py."""
    case = {"width": 0.125, "seed": 7, "estimator": "lobpcg", "weight": 1e-2, "threshold": 0, "drawn": False,
            "spectral_norm": False, "reuse": True}
    theirs = dcgan32_step.Iteration(case)
    buffers = ("running_mean", "running_var")

    def tensors_of(player):
        return {name.removeprefix("layers."): tensor.detach().numpy().copy()
                for name, tensor in dcgan32_step.named_tensors(theirs.networks[player])}

    values = {}
    for player in dcgan32_step.PLAYERS:
        found = tensors_of(player)
        values[player] = tuple({name: value for name, value in found.items() if name.endswith(buffers) == wanted}
                               for wanted in (False, True))
    task = dataclasses.replace(problem.problem("cifar10-ii", case["width"]), weight=case["weight"],
                               threshold=case["threshold"])
    theirs.run()
    names = {"latent": "energy_latent", "probe": "penalty_probe", "start": "energy_start", "fresh": "generator_latent"}
    ours = MAKERS["B1"](task, values)
    ours.iterate(theirs.x, {name: theirs.noise(stream) for name, stream in names.items()})
    found = {player: arrays(ours, player) for player in values}
    return report("B1 and dcgan32_step.py", worst_change(found, {p: tensors_of(p) for p in values}, values, task))


def main():
    torch.set_num_threads(1)
    results = [check_against_parity(), check_peers(problem.problem("toy-a")),
               check_peers(problem.problem("calibrated-2d")), check_peers(small_images())]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
