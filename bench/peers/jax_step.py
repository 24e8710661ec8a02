"""Peer B4: the iteration in JAX, one jitted function; jvp, linearize and its transpose, grad of a jvp for the energy.

Images are NHWC between layers and NCHW where rows are flat, as PyTorch's are. A transposed convolution is four
convolutions of 2 x 2 taps, one per parity of its output: XLA is slow at dilated ones.
"""
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import problem
import ritz

jax.config.update("jax_enable_x64", True)  # inner products in double; everything else keeps its type
IMAGES = 4096  # in the table that batches of images are gathered from


def convolve(x, weight, stride, padding):
    return lax.conv_general_dilated(x, weight, (stride, stride), padding, dimension_numbers=("NHWC", "OIHW", "NHWC"))


def convolve_transposed(x, weight):
    """Kernel 4, stride 2, padding 1; weight [inputs, outputs, 4, 4]."""
    weight = weight.transpose(1, 0, 2, 3)
    taps, pads = ((3, 1), (2, 0)), ((1, 0), (0, 1))  # output 2 i + parity reads x[i - 1], x[i] or x[i], x[i + 1]
    parts = [[convolve(x, weight[:, :, taps[a], :][:, :, :, taps[b]], 1, (pads[a], pads[b])) for b in (0, 1)]
             for a in (0, 1)]
    rows = jnp.stack([jnp.stack(part, 3) for part in parts], 2)  # n, h, parity, w, parity, c
    n, h, _, w, _, c = rows.shape
    return rows.reshape(n, 2 * h, 2 * w, c)


def batch_norm(p, name, x, training, moved):
    w, b, mean, variance = (p[name + part] for part in ("weight", "bias", "running_mean", "running_var"))
    if training:
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        mean_now, variance_now = x.mean(axes), x.var(axes)
        moved[name + "running_mean"] = 0.9 * mean + 0.1 * mean_now
        moved[name + "running_var"] = 0.9 * variance + 0.1 * variance_now * (count / (count - 1))
        mean, variance = mean_now, variance_now
    return mean, variance, w, b


def coupling(layer, p, x, name):
    """One of two columns through a staircase that the other one chooses."""
    columns = jnp.split(x, 2, 1)
    a, passive = columns[layer.active], columns[1 - layer.active]
    k = problem.KNOTS
    s, t, h, b, c = jnp.split(forward(layer.body, p, passive, prefix=name + "body."),
                              [1, 2, 2 + k, 2 + 2 * k], 1)
    knots = jax.nn.sigmoid(h) * jax.nn.sigmoid(jnp.exp(4 * jnp.tanh(b / 4)) * (a - 8 * jnp.tanh(c / 8)))
    y = (problem.MAX_SLOPE * jax.nn.sigmoid(s) * a + 8 * jnp.tanh(t / 8)
         + problem.MAX_HEIGHT * knots.sum(1, keepdims=True))
    return jnp.concatenate([passive, y] if layer.active else [y, passive], 1)


def forward(layers, p, x, training=False, moved=None, prefix=""):
    """y; a training pass leaves new running statistics in `moved`."""
    for i, layer in enumerate(layers):
        name = f"{prefix}{i}."
        kind = layer.kind
        if kind in ("linear", "conv", "conv_transpose"):
            weight = p[name + "weight"]
            if kind == "linear":
                x = x @ weight.T
            elif kind == "conv":
                x = convolve(x, weight, layer.stride, [(layer.padding, layer.padding)] * 2)
            else:
                x = convolve_transposed(x, weight)
            x = x + p[name + "bias"] if layer.bias else x
        elif kind in ("prelu", "leaky_relu", "relu"):
            slope = p[name + "weight"] if kind == "prelu" else layer.value
            x = jnp.where(x > 0, x, slope * x)
        elif kind == "tanh":
            x = jnp.tanh(x)
        elif kind == "batch_norm":
            mean, variance, w, b = batch_norm(p, name, x, training, moved)
            x = (x - mean) * (w / jnp.sqrt(variance + layer.value)) + b
        elif kind == "flatten":
            x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        elif kind == "unflatten":
            x = x.reshape(len(x), layer.outputs, layer.side, layer.side).transpose(0, 2, 3, 1)
        elif kind == "upsample":
            x = x.repeat(2, 1).repeat(2, 2)
        elif kind == "average_pool":
            n, h, w, c = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
        elif kind == "sum_pool":
            x = x.sum((1, 2), keepdims=True)
        elif kind == "silu":
            x = jax.nn.silu(x)
        elif kind == "affine":
            x = layer.value * x
        elif kind == "fourier":
            phase = x @ p[name + "frequencies"].T
            x = jnp.concatenate([x, jnp.sin(phase), jnp.cos(phase)], 1)
        elif kind == "confined":
            square = (x * x).sum(1, keepdims=True)
            beyond = jax.nn.relu(jnp.sqrt(square) - layer.value)
            x = (forward(layer.body, p, x, prefix=name + "body.") + problem.QUADRATIC / 2 * square
                 + problem.WALL * beyond * beyond)
        elif kind == "coupling":
            x = coupling(layer, p, x, name)
        else:
            x = (forward(layer.body, p, x, training, moved, name + "body.")
                 + forward(layer.skip, p, x, training, moved, name + "skip."))
    return x


def inner(a, b):
    return (a.astype(jnp.float64) * b.astype(jnp.float64)).reshape(len(a), -1).sum(1)


def per_sample(factor, rows):
    return factor.astype(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1))


def normalised(parameters, buffers):
    """Weights under spectral normalisation divided by u . W v, with u and v as they are."""
    p = {**parameters, **buffers}
    for name in [name for name in buffers if name.endswith(".u")]:
        stem = name[:-1]
        weight = parameters[stem + "weight"]
        p[stem + "weight"] = weight / (buffers[name] @ weight @ buffers[stem + "v"])
    return p


def power_iteration(parameters, buffers):
    moved = dict(buffers)
    for name in [name for name in buffers if name.endswith(".u")]:
        stem = name[:-1]
        weight = parameters[stem + "weight"]
        u = weight @ buffers[stem + "v"]
        u = u / jnp.linalg.norm(u)
        v = weight.T @ u
        moved[name], moved[stem + "v"] = u, v / jnp.linalg.norm(v)
    return moved


def lobpcg_direction(push, pull, start):
    unit = lambda x: x / per_sample(jnp.sqrt(inner(x, x)), x)
    v, previous, j_previous = unit(start), None, None
    jv = push(v)
    for _ in range(problem.LOBPCG_STEPS):
        square = inner(jv, jv)
        r = unit(pull(jv) - per_sample(square, v) * v)
        jr = push(r)
        a, b, c = square, inner(jv, jr), inner(jr, jr)
        if previous is None:
            x, y = ritz.smallest_of_two(a, b, c, jnp)
            move, j_move = per_sample(y, r) * r, per_sample(y, jr) * jr
        else:  # the previous step, made orthogonal to v and r
            along_v, along_r = inner(previous, v), inner(previous, r)
            w = previous - per_sample(along_v, v) * v - per_sample(along_r, r) * r
            jw = j_previous - per_sample(along_v, jv) * jv - per_sample(along_r, jr) * jr
            norm = jnp.sqrt(inner(w, w))
            w, jw = w / per_sample(norm, w), jw / per_sample(norm, jw)
            x, y, q = ritz.smallest_of_three(a, b, inner(jv, jw), c, inner(jr, jw), inner(jw, jw), jnp)
            move = per_sample(y, r) * r + per_sample(q, w) * w
            j_move = per_sample(y, jr) * jr + per_sample(q, jw) * jw
        v, jv = per_sample(x, v) * v + move, per_sample(x, jv) * jv + j_move
        previous, j_previous = move, j_move
    return v


def direction(task, generate, z, noise):
    """G(z), v -> J v, and the direction whose |J v| stands for the smallest singular value; all constants."""
    y, push = jax.linearize(generate, z)
    if task.estimator == "exact":
        return y, push, None
    if task.estimator == "lobpcg":
        pull = jax.linear_transpose(push, z)
        return y, push, lobpcg_direction(push, lambda w: pull(w)[0], noise["start"])
    first, second = (push(jnp.broadcast_to(jnp.eye(2, dtype=z.dtype)[k], z.shape)) for k in (0, 1))
    x, y_of = ritz.smallest_of_two(inner(first, first), inner(first, second), inner(second, second), jnp)
    return y, push, jnp.stack([x, y_of], 1).astype(z.dtype)


def log_volume(task, generate, z, v):
    """h per sample along given directions; the log-volume itself without any."""
    if v is None:
        units = jnp.eye(2, dtype=z.dtype)
        first, second = (jax.jvp(generate, (z,), (jnp.broadcast_to(unit, z.shape),))[1] for unit in units)
        return jnp.log(jnp.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]))
    jv = jax.jvp(generate, (z,), (v,))[1]
    return task.latents / 2 * jnp.log(inner(jv, jv) / inner(v, v))


def adam(task, state, gradients):
    """With beta1 = 0 the first moment is the gradient."""
    updates = state["updates"] + 1
    correction = jnp.sqrt(1 - task.beta2**updates)
    squares = jax.tree.map(lambda s, g: task.beta2 * s + (1 - task.beta2) * g * g, state["squares"], gradients)
    means, scale = gradients, task.lr
    if task.beta1:
        means = jax.tree.map(lambda m, g: task.beta1 * m + (1 - task.beta1) * g, state["means"], gradients)
        scale = task.lr / (1 - task.beta1**updates)
        state = {**state, "means": means}
    parameters = jax.tree.map(
        lambda p, m, s: p - jnp.asarray(scale, p.dtype) * m / (jnp.sqrt(s) / correction.astype(p.dtype) + task.epsilon),
        state["parameters"], means, squares)
    return {**state, "parameters": parameters, "squares": squares, "updates": updates}


def iterate(task, state, x, noise):
    """(state, losses) after one energy and one generator update; x is NHWC."""
    energy, generator = state["energy"], state["generator"]
    z, probe, n = noise["latent"], noise["probe"], len(x)
    phi, moved = generator["parameters"], dict(generator["buffers"])
    fake = forward(task.generator, {**phi, **moved}, z, True, moved) if task.split else None
    generate_with = lambda p, b: lambda rows: forward(task.generator, {**p, **b}, rows)
    statistics = dict(moved)
    inner_points, push, v = direction(task, generate_with(phi, statistics), z, noise)
    fake = fake if task.split else inner_points
    volume = lambda p, rows: log_volume(task, generate_with(p, statistics), rows, v)
    if task.reuse:
        through_phi, through_z = jax.grad(lambda p, rows: volume(p, rows).sum(), (0, 1))(phi, z)
    else:
        through_z = jax.grad(lambda rows: volume(phi, rows).sum())(z)
    score_dot = ((z + through_z) * probe).sum(1)
    h, tangent = volume(phi, z), push(probe)

    buffers = power_iteration(energy["parameters"], energy["buffers"])

    def energy_loss(theta):
        network = lambda rows: forward(task.energy, normalised(theta, buffers), rows)[:, 0]
        e_data, e_fake = jnp.split(network(jnp.concatenate([x, fake])), 2)
        residual = jax.jvp(network, (inner_points,), (tangent,))[1] - score_dot
        penalty = (residual * residual).mean() / 2
        loss = e_data.mean() - e_fake.mean() + jax.nn.relu(task.weight * penalty - task.threshold)
        return loss, {"energy_data": e_data.mean(), "energy_samples": e_fake.mean(), "penalty": penalty,
                      "loss_energy": loss}

    gradients, losses = jax.grad(energy_loss, has_aux=True)(energy["parameters"])
    energy = adam(task, {**energy, "buffers": buffers}, gradients)

    def fooling(p):
        after = dict(statistics)
        rows = forward(task.generator, {**p, **after}, noise["fresh"], True, after)
        return forward(task.energy, normalised(energy["parameters"], buffers), rows).mean(), after

    (fooling_value, after), gradients = jax.value_and_grad(fooling, has_aux=True)(phi)
    if not task.reuse:
        generate = lambda p: generate_with(p, after)
        v = direction(task, generate(phi), noise["fresh"], noise)[2]
        h, pull = jax.vjp(lambda p: log_volume(task, generate(p), noise["fresh"], v), phi)
        through_phi = pull(jnp.ones_like(h))[0]
    gradients = jax.tree.map(lambda a, b: a - task.entropy_weight / n * b, gradients, through_phi)
    generator = adam(task, {**generator, "buffers": after}, gradients)
    losses["loss_generator"] = fooling_value - task.entropy_weight * h.mean()
    return {"energy": energy, "generator": generator}, losses


def draw(task, batch, dtype, table, key):
    keys = jax.random.split(key, 3 + len(problem.NOISE))
    if len(task.shape) == 1:  # 25 Gaussians
        centres = jax.random.randint(keys[0], (batch, 2), -2, 3) * 2.0
        x = ((centres + 0.05 * jax.random.normal(keys[1], (batch, 2))) / 2.828).astype(dtype)
    else:
        images = table[jax.random.randint(keys[0], (batch,), 0, IMAGES)].astype(dtype) * (2 / 255) - 1
        x = jnp.where(jax.random.uniform(keys[1], (batch, 1, 1, 1)) < 0.5, images[:, :, ::-1], images).astype(dtype)
    noise = {name: jax.random.normal(k, (batch, task.latents), dtype) for name, k in zip(problem.NOISE, keys[3:])}
    return x, noise


class JaxPeer:
    def __init__(self, task, values, dtype):
        self.task, self.dtype = task, dtype
        make = lambda tensors: {name: jnp.asarray(np.array(v), dtype) for name, v in tensors.items()}
        self.state = {player: {"parameters": make(values[player][0]), "buffers": make(values[player][1]),
                               "squares": jax.tree.map(jnp.zeros_like, make(values[player][0])),
                               **({"means": jax.tree.map(jnp.zeros_like, make(values[player][0]))}
                                  if task.beta1 else {}),
                               "updates": jnp.zeros((), jnp.float64)} for player in ("energy", "generator")}
        self.step = jax.jit(partial(iterate, task))

    def tensors(self, player):
        return {**self.state[player]["parameters"], **self.state[player]["buffers"]}

    def iterate(self, x, noise):
        x = jnp.asarray(x, self.dtype)
        x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
        self.state, losses = self.step(self.state, x, {k: jnp.asarray(v, self.dtype) for k, v in noise.items()})
        return losses

    def loop(self, batch):
        """A function that runs as many iterations as it is told, drawing in the same compiled step, and waits."""
        task, dtype = self.task, self.dtype
        shape = (IMAGES, *task.shape[1:], task.shape[0]) if len(task.shape) == 3 else (1,)
        table = jax.random.randint(jax.random.key(0), shape, 0, 256, jnp.uint8)

        @partial(jax.jit, donate_argnums=0)
        def drawn_step(state, key):
            key, own = jax.random.split(key)
            return iterate(task, state, *draw(task, batch, dtype, table, own)), key

        key = jax.random.key(1)

        def run(count):
            nonlocal key
            losses = {}
            for _ in range(count):
                (self.state, losses), key = drawn_step(self.state, key)
            return {name: float(value) for name, value in losses.items()}

        return run
