#!/usr/bin/env python3
"""One training iteration of DCGAN-32 in double precision by PyTorch's autograd: what Bracket's own must equal.

usage: dcgan32_step.py PATH_OF_dcgan32_dump   compares the stored figures and Bracket's own with fresh ones
       dcgan32_step.py --write                stores fresh figures in dcgan32_step.json
Exit status: 0 passed, 1 failed, 77 torch or numpy is missing.

Only the random numbers follow Bracket (philox.py); networks, losses, estimators and updates are PyTorch's modules,
autograd with create_graph, torch.func.jvp and torch.optim.Adam.

Figures of a tensor: its 2-norm and its inner products with three tensors of uniform numbers in (-1, 1). They are given
of a parameter's gradient and change, and of a buffer's value after the iteration.
"""
import json
import os
import subprocess
import sys

try:
    import numpy as np
    import torch
    from torch import nn
    from torch.func import functional_call, jvp, vmap
    from torch.nn.utils.parametrizations import spectral_norm
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

import philox

HERE = os.path.dirname(os.path.abspath(__file__))
STORED = os.path.join(HERE, "dcgan32_step.json")
TOLERANCE = 1e-9

BATCH = 4
ROWS = 11  # rows of the data set: no multiple of the batch, so that the second batch crosses an epoch
LATENTS = 128
PLAYERS = ("energy", "generator")

# width: channels as a fraction of the paper's. drawn: the iteration starts from a state as in the middle of a run
# (update 5; statistics, scales and second moments drawn) instead of the start of one. reuse: the generator's entropy
# term is that of the energy update's latents, taken before the energy moved, instead of its own latents'.
CASES = {
    "cifar10-ii": {"width": 1, "seed": 2026, "estimator": "lobpcg", "weight": 1e-3, "threshold": 1, "drawn": False,
                   "spectral_norm": False, "reuse": True},
    "lobpcg": {"width": 0.125, "seed": 7, "estimator": "lobpcg", "weight": 1e-2, "threshold": 0, "drawn": True,
               "spectral_norm": False, "reuse": True},
    "spectral_norm": {"width": 0.125, "seed": 8, "estimator": "lobpcg", "weight": 1e-2, "threshold": 0, "drawn": True,
                      "spectral_norm": True, "reuse": True},
    "exact": {"width": 0.125, "seed": 2**40 + 9, "estimator": "exact", "weight": 1e-2, "threshold": 0, "drawn": True,
              "spectral_norm": False, "reuse": False},
}
DRAWN_UPDATES = 5
LOBPCG_STEPS = 2
LEARNING_RATE, BETAS, EPSILON = 2e-4, (0.0, 0.9), 1e-6
ENTROPY_WEIGHT = 1.0

torch.set_default_dtype(torch.float64)


class Network(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def energy_network(width, normalised):
    c = [int(width * channels) for channels in (64, 128, 256, 512)]
    shapes = [(3, c[0], 3, 1), (c[0], c[0], 4, 2), (c[0], c[1], 3, 1), (c[1], c[1], 4, 2), (c[1], c[2], 3, 1),
              (c[2], c[2], 4, 2), (c[2], c[3], 3, 1)]
    layers = []
    for inputs, outputs, kernel, stride in shapes:
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding=1), nn.LeakyReLU(0.1)]
    layers += [nn.Flatten(), nn.Linear(16 * c[3], 1)]
    if normalised:
        layers = [spectral_norm(m) if isinstance(m, (nn.Conv2d, nn.Linear)) else m for m in layers]
        layers.append(nn.Linear(1, 1, bias=False))
    return Network(*layers)


def generator_network(width):
    c = [int(width * channels) for channels in (512, 256, 128, 64)]
    layers = [nn.Linear(LATENTS, 16 * c[0]), nn.Unflatten(1, (c[0], 4, 4))]
    for inputs, outputs in zip(c, c[1:]):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return Network(*layers, nn.Conv2d(c[3], 3, 3, padding=1), nn.Tanh())


# ---- starting state --------------------------------------------------------------------------------------------------


def fill(tensor, values):
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(values)).reshape(tensor.shape))


def uniform_fill(tensor, bound, seed, stream, step):
    fill(tensor, bound * (2 * philox.uniforms(seed, stream, step, tensor.numel()) - 1))


def start_as_bracket(network, seed, stream):
    """PyTorch's default distributions from Bracket's numbers: layer i draws its weight from step 256 i and its bias
    from step 256 i + 1, element by element in PyTorch's order; spectral norm starts u from step 256 i + 2."""
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            continue
        normalised = hasattr(layer, "parametrizations")
        weight = layer.parametrizations.weight.original if normalised else layer.weight
        bound = nn.init._calculate_fan_in_and_fan_out(weight)[0] ** -0.5
        step = 256 * index
        uniform_fill(weight, bound, seed, stream, step)
        if layer.bias is not None:
            uniform_fill(layer.bias, bound, seed, stream, step + 1)
        if normalised:
            matrix = weight.detach().flatten(1)
            u = torch.from_numpy(2 * philox.uniforms(seed, stream, step + 2, len(matrix)) - 1)
            for _ in range(15):
                v = nn.functional.normalize(matrix.T @ u, dim=0)
                u = nn.functional.normalize(matrix @ v, dim=0)
            fill(layer.parametrizations.weight[0]._u, u.numpy())
            fill(layer.parametrizations.weight[0]._v, v.numpy())


def named_tensors(network):
    """Every parameter and buffer in the order of their names, without BatchNorm's counters."""
    return sorted((name, tensor) for name, tensor in network.state_dict(keep_vars=True).items()
                  if not name.endswith("num_batches_tracked"))


def draw(seed, player, index, kind, count):
    """Uniform in (-1, 1), one step of the stream `test` per player, tensor and purpose."""
    step = (1000 * PLAYERS.index(player) + index) * 8 + kind
    return 2 * philox.uniforms(seed, "test", step, count) - 1


DRAW_PERTURBATION, DRAW_SECOND_MOMENT = 3, 4  # 0 .. 2 are the projections


def draw_state(network, optimizer, seed, player):
    normalised = {name[: -len("running_mean")] for name, _ in named_tensors(network) if name.endswith("running_mean")}
    for index, (name, tensor) in enumerate(named_tensors(network)):
        prefix, leaf = name.rpartition(".")[0] + ".", name.rpartition(".")[2]
        if prefix in normalised:
            u = draw(seed, player, index, DRAW_PERTURBATION, tensor.numel())
            fill(tensor, {"weight": 1 + u / 2, "bias": u / 3, "running_mean": u / 5, "running_var": 1 + u / 2}[leaf])
        if isinstance(tensor, nn.Parameter):
            u = draw(seed, player, index, DRAW_SECOND_MOMENT, tensor.numel())
            optimizer.state[tensor] = {"step": torch.tensor(float(DRAWN_UPDATES)), "exp_avg": torch.zeros_like(tensor),
                                       "exp_avg_sq": torch.empty_like(tensor)}
            fill(optimizer.state[tensor]["exp_avg_sq"], 1e-6 * (2 + u))


def data_batch(seed, batch):
    """Batch number `batch` of the uint8 table, shuffled in epochs and mirrored at random, as the networks see it."""
    size = 32 * 32 * 3
    table = (philox.words(seed, "test", 1 << 40, ROWS * size) >> 24).reshape(ROWS, 32, 32, 3)
    images = []
    for i in range(BATCH):
        epoch, place = divmod(batch * BATCH + i, ROWS)
        image = table[philox.permute(place, seed, "data", epoch, ROWS)]
        if philox.words(seed, "data", batch, 1, first=16 + i)[0] < 2**31:
            image = image[:, ::-1]
        images.append(image)
    rows = np.stack(images).astype(np.float64) * (2 / 255) - 1
    return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))


# ---- the entropy term ------------------------------------------------------------------------------------------------


def push(network, z, v):
    """G(z) and J v, differentiable in the parameters and in z."""
    return jvp(network, (z,), (v,))


def pull(network, z, w):
    """J^T w."""
    z = z.detach().requires_grad_()
    return torch.autograd.grad(network(z), z, w)[0]


def lobpcg_direction(network, z, start):
    """Smallest right singular vector per sample: Rayleigh-Ritz on span{v, J^T J v - mu^2 v, previous v}."""
    v = start / start.norm(dim=1, keepdim=True)
    previous = []
    for _ in range(LOBPCG_STEPS):
        tangent = push(network, z, v)[1].detach()
        gram_v = pull(network, z, tangent)
        residual = gram_v - tangent.flatten(1).square().sum(1, keepdim=True) * v
        basis = torch.linalg.qr(torch.stack([v, residual / residual.norm(dim=1, keepdim=True)] + previous, dim=2))[0]
        images = [push(network, z, basis[:, :, k])[1].detach().flatten(1) for k in range(basis.shape[2])]
        images = torch.stack(images, dim=2)
        vectors = torch.linalg.eigh(images.transpose(1, 2) @ images)[1]
        previous, v = [v], (basis @ vectors[:, :, :1]).squeeze(2)
    return v


def log_volume(network, z, estimator, direction):
    """h(z) per sample, differentiable; the LOBPCG direction is a constant."""
    if estimator == "lobpcg":
        return LATENTS * push(network, z, direction)[1].flatten(1).norm(dim=1).log()
    identity = torch.eye(LATENTS, device=z.device)
    columns = vmap(lambda e: push(network, z, e.expand_as(z))[1].flatten(1))(identity).transpose(0, 1)
    return torch.linalg.slogdet(columns @ columns.transpose(1, 2))[1] / 2


# ---- one iteration ---------------------------------------------------------------------------------------------------


class Iteration:
    def __init__(self, case):
        self.case, self.seed = case, case["seed"]
        self.networks = {"energy": energy_network(case["width"], case["spectral_norm"]),
                         "generator": generator_network(case["width"])}
        self.optimizers = {}
        for player, network in self.networks.items():
            start_as_bracket(network, self.seed, player + "_init")
            self.optimizers[player] = torch.optim.Adam(network.parameters(), LEARNING_RATE, BETAS, EPSILON)
            if case["drawn"]:
                draw_state(network, self.optimizers[player], self.seed, player)
        self.update = DRAWN_UPDATES if case["drawn"] else 0

    def noise(self, stream):
        return torch.from_numpy(philox.normals(self.seed, stream, self.update, BATCH * LATENTS).reshape(BATCH, LATENTS))

    def prepare(self):
        """What the energy loss holds constant. The generator's training pass moves its running statistics before J is
        taken in inference mode."""
        generator, estimator = self.networks["generator"], self.case["estimator"]
        self.x = data_batch(self.seed, self.update)
        self.z, probe = self.noise("energy_latent"), self.noise("penalty_probe")
        with torch.no_grad():
            self.fake = generator.train()(self.z)
        generator.eval()
        self.direction = None
        if estimator == "lobpcg":
            self.direction = lobpcg_direction(generator, self.z, self.noise("energy_start"))
        z = self.z.clone().requires_grad_()
        potential = z.square().sum() / 2 + log_volume(generator, z, estimator, self.direction).sum()
        score = torch.autograd.grad(potential, z)[0]
        self.score_dot = (score * probe).sum(1)
        self.inner, self.tangent = (t.detach() for t in push(generator, self.z, probe))

    def energy_loss(self):
        energy = self.networks["energy"].train()
        inner = self.inner.clone().requires_grad_()
        e = energy(torch.cat([self.x, self.fake, inner])).squeeze(1)
        e_data, e_fake, e_inner = e.split(BATCH)
        slope = torch.autograd.grad(e_inner.sum(), inner, create_graph=True)[0]
        residual = (slope * self.tangent).flatten(1).sum(1) - self.score_dot
        penalty = residual.square().mean() / 2
        excess = torch.relu(self.case["weight"] * penalty - self.case["threshold"])
        return e_data.mean() - e_fake.mean() + excess, e_data, e_fake, e_inner, penalty

    def volume(self, z):
        return log_volume(self.networks["generator"].eval(), z, self.case["estimator"], self.direction)

    def run(self):
        energy, generator = self.networks["energy"], self.networks["generator"]
        before = {p: [t.detach().clone() for _, t in named_tensors(n)] for p, n in self.networks.items()}
        self.prepare()
        loss, e_data, e_fake, e_inner, penalty = self.energy_loss()
        energy_gradient = torch.autograd.grad(loss, list(energy.parameters()))
        h = self.volume(self.z)
        entropy_term = -ENTROPY_WEIGHT * h.mean()
        entropy_gradient = self.gradient(entropy_term)
        self.apply("energy", energy_gradient)

        # The running statistics move once more, now with the fresh latents, before these are seen in inference mode.
        fresh = self.noise("generator_latent")
        fooling = energy.eval()(generator.train()(fresh)).mean()
        fooling_gradient = self.gradient(fooling)
        if not self.case["reuse"]:
            entropy_term = -ENTROPY_WEIGHT * self.volume(fresh).mean()
            entropy_gradient = self.gradient(entropy_term)
        generator_gradient = [a + b for a, b in zip(entropy_gradient, fooling_gradient)]
        self.apply("generator", generator_gradient)

        bound = e_data.mean() - e_inner.mean() + LATENTS / 2 * np.log(2 * np.pi * np.e) + h.mean()
        figures = {"losses": {"energy_data": e_data.mean(), "energy_samples": e_fake.mean(), "log_volume": h.mean(),
                              "lower_bound": bound, "penalty": penalty, "loss_energy": loss,
                              "loss_generator": fooling + entropy_term}}
        figures["losses"] = {name: value.item() for name, value in figures["losses"].items()}
        gradients = {"energy": energy_gradient, "generator": generator_gradient}
        for player, network in self.networks.items():
            named_gradients = dict(zip((name for name, _ in network.named_parameters()), gradients[player]))
            figures[player] = {}
            for index, (name, tensor) in enumerate(named_tensors(network)):
                found = {"value": tensor}
                if name in named_gradients:
                    found = {"gradient": named_gradients[name], "change": tensor - before[player][index]}
                figures[player][name] = {k: self.figures_of(v, player, index) for k, v in found.items()}
        return figures

    def gradient(self, loss):
        """Absent gradients are zero: the last bias, say, does not move J."""
        parameters = list(self.networks["generator"].parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]

    def apply(self, player, gradients):
        for parameter, gradient in zip(self.networks[player].parameters(), gradients):
            parameter.grad = gradient
        self.optimizers[player].step()

    def figures_of(self, tensor, player, index):
        flat = tensor.detach().reshape(-1).numpy()
        projections = [flat @ draw(self.seed, player, index, k, len(flat)) for k in range(3)]
        return [float(figure) for figure in (np.linalg.norm(flat), *projections)]


# ---- comparison ------------------------------------------------------------------------------------------------------


def largest_difference(ours, theirs):
    """Relative differences: of a loss to itself, of a tensor's norm and projections to its norm, but at least to 1e-6
    of the largest norm of that kind, because a gradient may cancel to rounding (the last bias: 1/B from every row of
    data, -1/B from every fake). Returns the largest and where it is; anything missing or not finite is infinite."""
    found = {}

    def judge(where, a, b, scale):
        error = 0.0 if a == b else abs(a - b) / scale if scale > 0 else np.inf
        found[where] = error if np.isfinite(error) else np.inf

    if set(ours) != set(theirs) or any(set(ours[k]) != set(theirs[k]) for k in theirs):
        return np.inf, "other names"
    for name, value in theirs["losses"].items():
        judge(name, ours["losses"][name], value, abs(value))
    for player in PLAYERS:
        floors = {}
        for kinds in theirs[player].values():
            for kind, values in kinds.items():
                floors[kind] = max(floors.get(kind, 0), 1e-6 * values[0])
        for name, kinds in theirs[player].items():
            if set(kinds) != set(ours[player][name]):
                return np.inf, f"{player} {name}: other kinds of figures"
            for kind, values in kinds.items():
                scale = max(values[0], floors[kind])
                for i, value in enumerate(values):
                    judge(f"{player} {name} {kind}[{i}]", ours[player][name][kind][i], value, scale)
    return max((error, where) for where, error in found.items())


def compare(label, ours, theirs):
    good = True
    for case in CASES:
        error, where = largest_difference(ours.get(case, {}), theirs[case])
        good &= error <= TOLERANCE
        print(f"{label} {case}: largest relative difference {error:.1e} ({where})")
    return good


def main():
    philox.check_known_answers()
    fresh = {name: Iteration(case).run() for name, case in CASES.items()}
    if sys.argv[1:] == ["--write"]:
        with open(STORED, "w", encoding="utf-8") as stream:
            json.dump({"source": f"dcgan32_step.py, torch {torch.__version__}", "cases": fresh}, stream, indent=1)
            stream.write("\n")
        return 0
    with open(STORED, encoding="utf-8") as stream:
        good = compare("stored", json.load(stream)["cases"], fresh)
    dump = subprocess.run([sys.argv[1]], check=True, capture_output=True, text=True)
    good &= compare("Bracket", json.loads(dump.stdout), fresh)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
