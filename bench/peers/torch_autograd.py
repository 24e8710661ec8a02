"""The reference's way in PyTorch: modules, autograd with create_graph, J v by differentiating J^T u in u.

with_svd (peer B0): small problems by torch.linalg.svd, two tall ones per LOBPCG step, as the reference has them.
Without (peer B1): QR and a symmetric eigenproblem of the 3 x 3 Gram matrix; in two dimensions a closed form.
Passes whose results the reference throws away are left out of both.
"""
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import problem


class SumPool(nn.Module):
    def forward(self, x):
        return x.sum((2, 3), keepdim=True)


class BatchNorm(nn.BatchNorm2d):
    """Of images or of plain rows."""

    def _check_input_dim(self, x):
        pass


class Residual(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.body, self.skip = network(layer.body), network(layer.skip)

    def forward(self, x):
        return self.body(x) + self.skip(x)


class Affine(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.scale = layer.value

    def forward(self, x):
        return self.scale * x


class Fourier(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.register_buffer("frequencies", torch.zeros((layer.outputs - 2) // 2, 2))

    def forward(self, u):
        phase = u @ self.frequencies.T
        return torch.cat([u, phase.sin(), phase.cos()], 1)


class Confined(nn.Module):
    """An energy and what keeps its samples near."""

    def __init__(self, layer):
        super().__init__()
        self.body, self.radius = network(layer.body), layer.value

    def forward(self, u):
        square = u.square().sum(1, keepdim=True)
        beyond = torch.relu(square.sqrt() - self.radius)
        return self.body(u) + problem.QUADRATIC / 2 * square + problem.WALL * beyond.square()


class Coupling(nn.Module):
    """One of two columns through a staircase that the other one chooses."""

    def __init__(self, layer):
        super().__init__()
        self.body, self.active = network(layer.body), layer.active

    def forward(self, x):
        a, passive = x[:, self.active:self.active + 1], x[:, 1 - self.active:2 - self.active]
        s, t, h, b, c = self.body(passive).split([1, 1, *[problem.KNOTS] * 3], 1)
        knots = torch.sigmoid(h) * torch.sigmoid((4 * torch.tanh(b / 4)).exp() * (a - 8 * torch.tanh(c / 8)))
        y = (problem.MAX_SLOPE * torch.sigmoid(s) * a + 8 * torch.tanh(t / 8)
             + problem.MAX_HEIGHT * knots.sum(1, keepdim=True))
        return torch.cat([passive, y] if self.active else [y, passive], 1)


MODULES = {
    "linear": lambda l: nn.Linear(l.inputs, l.outputs, l.bias),
    "conv": lambda l: nn.Conv2d(l.inputs, l.outputs, l.kernel, l.stride, l.padding),
    "conv_transpose": lambda l: nn.ConvTranspose2d(l.inputs, l.outputs, l.kernel, l.stride, l.padding),
    "prelu": lambda l: nn.PReLU(),
    "leaky_relu": lambda l: nn.LeakyReLU(l.value),
    "relu": lambda l: nn.ReLU(),
    "tanh": lambda l: nn.Tanh(),
    "flatten": lambda l: nn.Flatten(),
    "unflatten": lambda l: nn.Unflatten(1, (l.outputs, l.side, l.side)),
    "upsample": lambda l: nn.Upsample(scale_factor=2),
    "average_pool": lambda l: nn.AvgPool2d(2),
    "sum_pool": lambda l: SumPool(),
    "batch_norm": lambda l: BatchNorm(l.inputs, eps=l.value),
    "residual": Residual,
    "silu": lambda l: nn.SiLU(),
    "affine": Affine,
    "fourier": Fourier,
    "confined": Confined,
    "coupling": Coupling,
}


def module(layer):
    return spectral_norm(MODULES[layer.kind](layer)) if layer.spectral_norm else MODULES[layer.kind](layer)


def network(layers):
    return nn.Sequential(*(module(layer) for layer in layers))


def plain_name(name):
    """Our name of a parameter or buffer of a module under spectral normalisation."""
    for theirs, ours in (("parametrizations.weight.original", "weight"), ("parametrizations.weight.0._u", "u"),
                         ("parametrizations.weight.0._v", "v")):
        name = name.replace(theirs, ours)
    return name


class AutogradPeer:
    def __init__(self, task, values, device, dtype, with_svd, autocast=False):
        self.task, self.with_svd, self.device, self.autocast = task, with_svd, device, autocast
        self.networks, self.optimizers = {}, {}
        for player in ("energy", "generator"):
            net = network(getattr(task, player)).to(device, dtype)
            given = {**values[player][0], **values[player][1]}
            with torch.no_grad():
                for name, tensor in net.state_dict(keep_vars=True).items():
                    if not name.endswith("num_batches_tracked"):
                        tensor.copy_(torch.from_numpy(given[plain_name(name)]))
            self.networks[player] = net
            self.optimizers[player] = torch.optim.Adam(net.parameters(), task.lr, (task.beta1, task.beta2),
                                                       task.epsilon)

    def tensors(self, player):
        return {plain_name(name): tensor.detach() for name, tensor in self.networks[player].state_dict().items()
                if not name.endswith("num_batches_tracked")}

    def forward(self, player, x):
        with torch.autocast(self.device, torch.bfloat16, self.autocast):
            return self.networks[player](x).to(x.dtype)

    # ---- the Jacobian ----

    def linearise(self, z):
        """G(z) in inference mode, v -> J v and w -> J^T w; J v can be differentiated."""
        self.networks["generator"].eval()
        y = self.forward("generator", z)
        u = torch.zeros_like(y, requires_grad=True)
        pulled = torch.autograd.grad(y, z, u, create_graph=True)[0]

        def push(v, differentiable=False):
            return torch.autograd.grad(pulled, u, v, create_graph=differentiable, retain_graph=True)[0]

        def pull(w):
            return torch.autograd.grad(y, z, w, retain_graph=True)[0]

        return y, push, pull

    def smallest_direction(self, columns):
        """Right singular vector of the smallest singular value of each [D, k]."""
        if self.with_svd:
            return torch.linalg.svd(columns, full_matrices=False)[2][:, -1, :, None]
        return torch.linalg.eigh(columns.transpose(1, 2) @ columns)[1][:, :, :1]

    def lobpcg_direction(self, start, push, pull):
        v = start / start.norm(dim=1, keepdim=True)
        previous = []
        for _ in range(problem.LOBPCG_STEPS):
            tangent = push(v)
            residual = pull(tangent) - tangent.flatten(1).square().sum(1, keepdim=True) * v
            span = torch.stack([v, residual / residual.norm(dim=1, keepdim=True)] + previous, dim=2)
            basis = torch.linalg.svd(span, full_matrices=False)[0] if self.with_svd else torch.linalg.qr(span)[0]
            images = torch.stack([push(basis[:, :, k]).flatten(1) for k in range(basis.shape[2])], dim=2)
            previous, v = [v], (basis @ self.smallest_direction(images)).squeeze(2)
        return v

    def log_volume(self, z, noise, push, pull):
        """d log of the smallest singular value of J, per sample, or the log-volume itself where the task wants that;
        differentiable, with LOBPCG's direction constant."""
        if self.task.estimator == "lobpcg":
            v = self.lobpcg_direction(noise["start"], push, pull)
            return self.task.latents * push(v, True).flatten(1).norm(dim=1).log()
        first, second = (push(e.expand_as(z), True) for e in torch.eye(2, dtype=z.dtype, device=z.device))
        if self.task.estimator == "exact":
            if self.with_svd:
                return torch.linalg.svdvals(torch.stack([first, second], dim=2)).log().sum(1)
            return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs().log()
        if self.with_svd:
            return 2 * torch.linalg.svdvals(torch.stack([first, second], dim=2))[:, -1].log()
        # s_1 = |det J| / s_2: the smaller eigenvalue of J^T J itself would cancel.
        a, b, c = first.square().sum(1), (first * second).sum(1), second.square().sum(1)
        largest = (a + c + ((a - c).square() + 4 * b.square()).sqrt()) / 2
        return 2 * (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs().log() - largest.log()

    # ---- the iteration ----

    def iterate(self, x, noise):
        energy, generator, task = self.networks["energy"], self.networks["generator"], self.task
        z, probe, n = noise["latent"].clone().requires_grad_(), noise["probe"], len(x)
        if task.split:
            with torch.no_grad():
                fake = self.generate(z)
        inner, push, pull = self.linearise(z)
        h = self.log_volume(z, noise, push, pull)
        parameters = list(generator.parameters())
        through_h = torch.autograd.grad(h.sum(), [z, *parameters] if task.reuse else [z], retain_graph=True,
                                        allow_unused=True, materialize_grads=True)
        score_dot = ((z + through_h[0]).detach() * probe).sum(1)
        tangent = push(probe)

        inner = inner.detach().requires_grad_()
        energy.train()
        rows = self.forward("energy", torch.cat([x, fake, inner] if task.split else [x, inner])).squeeze(1).split(n)
        e_data, e_fake, e_inner = rows[0], rows[1], rows[-1]
        slope = torch.autograd.grad(e_inner.sum(), inner, create_graph=True)[0]
        penalty = ((slope * tangent).flatten(1).sum(1) - score_dot).square().mean() / 2
        loss = e_data.mean() - e_fake.mean() + torch.relu(task.weight * penalty - task.threshold)
        self.update("energy", torch.autograd.grad(loss, list(energy.parameters()), allow_unused=True,
                                                  materialize_grads=True))

        energy.eval()
        fresh = noise["fresh"].clone().requires_grad_()
        generated, push, pull = (self.generate(fresh), None, None) if task.split else self.linearise(fresh)
        fooling = self.forward("energy", generated).mean()
        gradients = torch.autograd.grad(fooling, parameters, retain_graph=not task.split)
        if not task.reuse:
            h = self.log_volume(fresh, noise, *((push, pull) if push else self.linearise(fresh)[1:]))
            through_h = [None, *torch.autograd.grad(h.sum(), parameters, allow_unused=True, materialize_grads=True)]
        factor = task.entropy_weight / n
        self.update("generator", [a - factor * b for a, b in zip(gradients, through_h[1:])])
        losses = {"energy_data": e_data.mean(), "energy_samples": e_fake.mean(), "penalty": penalty,
                  "loss_energy": loss, "loss_generator": fooling - task.entropy_weight * h.mean()}
        return {name: value.detach() for name, value in losses.items()}

    def generate(self, z):
        self.networks["generator"].train()
        return self.forward("generator", z)

    def update(self, player, gradients):
        for parameter, gradient in zip(self.networks[player].parameters(), gradients):
            parameter.grad = gradient
        self.optimizers[player].step()
