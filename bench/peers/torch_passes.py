"""The iteration in PyTorch without autograd: stacked rows, J v recombined, closed-form Ritz vectors, flat parameters.

Peer B2: on a GPU the whole iteration, draws included, is one CUDA graph; on the CPU the same passes run eagerly.
Peer B3: the same function through torch.compile.
"""
import numpy as np
import torch

import problem
import ritz
from torch_layers import Chain


def inner(a, b):
    """Inner product per sample, in double."""
    return (a.double() * b.double()).flatten(1).sum(1)


def per_sample(factor, rows):
    return factor.to(rows.dtype).reshape(-1, *[1] * (rows.dim() - 1))


class FlatParameters:
    """Parameters of a network as views of one vector, and Adam with beta1 = 0: its first moment is the gradient."""

    def __init__(self, values, device, dtype, channels_last):
        self.views, self.permuted = {}, channels_last
        self.vector = torch.zeros(sum(v.size for v in values.values()), device=device, dtype=dtype)
        self.squares = torch.zeros_like(self.vector)
        self.updates = torch.zeros((), device=device, dtype=torch.float64)
        first = 0
        for name, value in values.items():
            part = self.vector[first:first + value.size]
            if channels_last and value.ndim == 4:
                part = part.view(*(value.shape[i] for i in (0, 2, 3, 1))).permute(0, 3, 1, 2)
            self.views[name] = part.view(value.shape) if part.dim() == 1 else part
            self.views[name].copy_(torch.from_numpy(value))
            first += value.size

    def update(self, grads, task):
        ordered = (grads.get(name, torch.zeros_like(view)) for name, view in self.views.items())
        gradient = torch.cat([(g.permute(0, 2, 3, 1) if self.permuted and g.dim() == 4 else g).reshape(-1)
                              for g in ordered])
        self.updates += 1
        correction = (1 - task.beta2**self.updates).sqrt().to(gradient.dtype)
        self.squares.mul_(task.beta2).addcmul_(gradient, gradient, value=1 - task.beta2)
        self.vector.addcdiv_(gradient, self.squares.sqrt().div_(correction).add_(task.epsilon), value=-task.lr)


class PassesPeer:
    def __init__(self, task, values, device, dtype, compute=None):
        self.task = task
        self.channels_last = device == "cuda" and len(task.shape) == 3
        self.energy = Chain(task.energy, reads_data=True, compute=compute)
        self.generator = Chain(task.generator, compute=compute)
        self.parameters, self.buffers = {}, {}
        for player in ("energy", "generator"):
            self.parameters[player] = FlatParameters(values[player][0], device, dtype, self.channels_last)
            self.buffers[player] = {name: torch.from_numpy(np.array(v)).to(device, dtype)
                                    for name, v in values[player][1].items()}

    def tensors(self, player):
        return {**self.parameters[player].views, **self.buffers[player]}

    def normalised(self, player, training):
        """All tensors of a network, weights under spectral normalisation divided by their largest singular value; a
        training pass moves its estimate first."""
        tensors = self.tensors(player)
        for name in [name for name in self.buffers[player] if name.endswith(".u")]:
            weight, v = tensors[name[:-1] + "weight"], tensors[name[:-1] + "v"]
            u, matrix = tensors[name], weight.flatten(1)
            if training:
                u.copy_(torch.nn.functional.normalize(matrix @ v, dim=0))
                v.copy_(torch.nn.functional.normalize(matrix.T @ u, dim=0))
            tensors[name[:-1] + "sigma"] = u @ matrix @ v
            tensors[name[:-1] + "weight"] = weight / tensors[name[:-1] + "sigma"]
        return tensors

    def through_normalisation(self, grads, tensors):
        for name in [name for name in tensors if name.endswith(".sigma")]:
            stem = name[:-5]
            grad, weight = grads[stem + "weight"], tensors[stem + "weight"]
            outer = torch.outer(tensors[stem + "u"], tensors[stem + "v"]).reshape(grad.shape)
            grads[stem + "weight"] = (grad - (grad * weight).sum() * outer) / tensors[name]

    # ---- the Jacobian ----

    def lobpcg(self, p, kept, start, probe):
        """The last direction of two steps from `start`, and J probe."""
        n = len(start)
        v = start / per_sample(inner(start, start).sqrt(), start)
        jv, j_probe = self.generator.push(p, kept, torch.cat([v, probe]))[0].split(n)
        previous = j_previous = None
        for step in range(problem.LOBPCG_STEPS):
            square = inner(jv, jv)
            r = self.generator.reverse(p, kept, None, jv, 0, n) - per_sample(square, v) * v
            r = r / per_sample(inner(r, r).sqrt(), r)
            jr = self.generator.push(p, kept, r)[0]
            a, b, c = square, inner(jv, jr), inner(jr, jr)
            if previous is None:
                x, y = ritz.smallest_of_two(a, b, c, torch)
            else:  # the previous step, made orthogonal to v and r
                along_v, along_r = per_sample(inner(previous, v), v), per_sample(inner(previous, r), r)
                w = previous - along_v * v - along_r * r
                norm = per_sample(inner(w, w).sqrt(), w)
                w, jw = w / norm, (j_previous - per_sample(along_v, jv) * jv - per_sample(along_r, jr) * jr)
                jw = jw / per_sample(norm, jw)
                x, y, q = ritz.smallest_of_three(a, b, inner(jv, jw), c, inner(jr, jw), inner(jw, jw), torch)
            last = step + 1 == problem.LOBPCG_STEPS
            move = per_sample(y, r) * r if previous is None else per_sample(y, r) * r + per_sample(q, w) * w
            v_next = per_sample(x, v) * v + move
            if not last:
                j_move = per_sample(y, jr) * jr if previous is None else per_sample(y, jr) * jr + per_sample(q, jw) * jw
                jv = per_sample(x, jv) * jv + j_move
                previous, j_previous = move, j_move
            v = v_next
        return v, j_probe

    def smallest_of_columns(self, p, kept, z, probe):
        """Two latents: both columns of J, their smallest right singular vector, and J probe."""
        n = len(z)
        units = torch.eye(2, dtype=z.dtype, device=z.device).repeat_interleave(n, 0)
        first, second = self.generator.push(p, kept, units)[0].split(n)
        x, y = ritz.smallest_of_two(inner(first, first), inner(first, second), inner(second, second), torch)
        j_probe = probe[:, :1] * first + probe[:, 1:] * second
        return torch.stack([x, y], 1).to(z.dtype), j_probe

    def log_volume(self, p, z, start, probe):
        """A pass in inference mode; h, the last tangents and their cotangents; G(z) and J probe."""
        y, kept = self.generator.forward(p, z)
        if self.task.estimator == "lobpcg":
            v, j_probe = self.lobpcg(p, kept, start, probe)
        else:
            v, j_probe = self.smallest_of_columns(p, kept, z, probe)
        jv, before = self.generator.push(p, kept, v)
        square = inner(jv, jv) / inner(v, v)
        h = self.task.latents / 2 * square.log()
        cotangents = per_sample(self.task.latents / square, jv) * jv
        return {"h": h, "y": y, "kept": kept, "before": before, "cotangents": cotangents, "j_probe": j_probe}

    def through_volume(self, p, volume, grads):
        """Gradient of sum h in z; in the parameters, into `grads`."""
        kept, cotangents = volume["kept"], volume["cotangents"]
        n = len(cotangents)
        if "curvature" in kept[-1]:  # tanh: adjoints of the primal rows as well
            inputs = self.generator.inputs(kept, 0, volume["before"])
            seeds = torch.cat([torch.zeros_like(cotangents), cotangents])
            return self.generator.reverse(p, kept, inputs, seeds, 0, n, grads)[:n]
        if grads is not None:
            inputs = self.generator.inputs(kept, n, volume["before"])
            self.generator.reverse(p, kept, inputs, cotangents, 0, 0, grads)
        return 0  # piecewise linear: J does not change with z

    # ---- the iteration ----

    def iterate(self, x, noise):
        task, n = self.task, len(x)
        z, probe = noise["latent"], noise["probe"]
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        p = self.tensors("generator")
        fake = self.generator.forward(p, z, training=True)[0]
        volume = self.log_volume(p, z, noise.get("start"), probe)
        through_h = {} if task.reuse else None
        score_dot = ((z + self.through_volume(p, volume, through_h)) * probe).sum(1)

        e = self.normalised("energy", training=True)
        rows = torch.cat([volume["y"], x, fake, volume["j_probe"]])
        out, kept = self.energy.forward(e, rows, 3 * n)
        _, e_data, e_fake, slope = out.squeeze(1).split(n)
        residual = slope - score_dot
        penalty = residual.square().mean() / 2
        excess = task.weight * penalty - task.threshold
        seeds = torch.cat([torch.full_like(residual, 1 / n), torch.full_like(residual, -1 / n),
                           residual * (excess > 0) * (task.weight / n)])[:, None]
        grads = {}
        self.energy.reverse(e, kept, self.energy.inputs(kept, n), seeds, n, 2 * n, grads)
        self.through_normalisation(grads, e)
        loss = e_data.mean() - e_fake.mean() + torch.relu(excess)
        self.parameters["energy"].update(grads, task)

        e = self.normalised("energy", training=False)
        generated, kept = self.generator.forward(p, noise["fresh"], training=True)
        e_generated, kept_energy = self.energy.forward(e, generated)
        fooling = e_generated.mean()
        cotangent = self.energy.reverse(e, kept_energy, None, torch.full_like(e_generated, 1 / n), 0, n)
        grads = {}
        self.generator.reverse(p, kept, self.generator.inputs(kept), cotangent, 0, n, grads)
        if not task.reuse:
            volume, through_h = self.log_volume(p, noise["fresh"], None, probe), {}
            self.through_volume(p, volume, through_h)
        for name, grad in through_h.items():
            grads[name] = grads[name] - grad * (task.entropy_weight / n)
        self.parameters["generator"].update(grads, task)
        return {"energy_data": e_data.mean(), "energy_samples": e_fake.mean(), "penalty": penalty, "loss_energy": loss,
                "loss_generator": fooling - task.entropy_weight * volume["h"].mean()}
