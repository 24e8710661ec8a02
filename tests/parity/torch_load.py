#!/usr/bin/env python3
"""PyTorch loads Bracket's checkpoints strictly into the obvious modules, and those give the same energies and samples.

usage: torch_load.py PATH_OF_bracket
Exit status: 0 passed, 1 failed, 77 torch, safetensors or numpy is missing.
"""
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    from safetensors.torch import load_file
    from torch import nn
    from torch.nn.utils.parametrizations import spectral_norm
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

import philox

# float32 on both sides: a chain of up to 12 layers with sums of up to 128 terms differs by about
# 12 sqrt(128) 2^-24 = 8e-6 of the values inside; energies cancel part of these, hence ten times as much.
TOLERANCE = 1e-4


def latents(seed, rows, columns):
    """What `bracket sample` draws."""
    return philox.normals(seed, "sampling", 0, rows * columns).reshape(rows, columns)


class Affine(nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.register_buffer("scale", torch.zeros(columns))
        self.register_buffer("shift", torch.zeros(columns))

    def forward(self, x):
        return x * self.scale + self.shift


class FourierFeatures(nn.Module):
    def __init__(self, columns, frequencies):
        super().__init__()
        self.register_buffer("frequencies", torch.zeros(frequencies, columns))

    def forward(self, x):
        phase = x @ self.frequencies.T
        return torch.cat([x, phase.sin(), phase.cos()], dim=1)


class MonotoneCoupling(nn.Module):
    def __init__(self, columns, spec):
        super().__init__()
        self.first, self.count, self.knots = spec["active_first"], spec["active_count"], spec["knots"]
        self.max_slope, self.max_height = spec["max_slope"], spec["max_height"]
        self.passive = [c for c in range(columns) if not self.first <= c < self.first + self.count]
        layers, features = [], len(self.passive)
        for width in spec["hidden"]:
            layers += [nn.Linear(features, width), nn.SiLU()]
            features = width
        layers.append(nn.Linear(features, self.count * (2 + 3 * self.knots)))
        self.conditioner = nn.Sequential(*layers)

    def forward(self, x):
        def bound(value, limit):
            return limit * torch.tanh(value / limit)

        theta = self.conditioner(x[:, self.passive]).reshape(len(x), self.count, -1)
        slope, offset = theta[..., 0], theta[..., 1]
        height, steepness, centre = theta[..., 2:].split(self.knots, dim=-1)
        a = x[:, self.first : self.first + self.count]
        steps = torch.sigmoid(bound(steepness, 4).exp() * (a[..., None] - bound(centre, 8)))
        y = self.max_slope * torch.sigmoid(slope) * a + bound(offset, 8)
        y = y + (self.max_height * torch.sigmoid(height) * steps).sum(-1)
        return torch.cat([x[:, : self.first], y, x[:, self.first + self.count :]], dim=1)


def activation(spec):
    name = spec["function"]
    if name == "leaky_relu":
        return nn.LeakyReLU(spec["negative_slope"])
    plain = {"identity": nn.Identity, "relu": nn.ReLU, "prelu": nn.PReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
             "silu": nn.SiLU, "softplus": nn.Softplus}
    return plain[name]()


class SumPool(nn.Module):
    def __init__(self, window):
        super().__init__()
        self.window = window

    def forward(self, x):
        return nn.functional.avg_pool2d(x, self.window, divisor_override=1)


class Residual(nn.Module):
    def __init__(self, layer, shape):
        super().__init__()
        self.body, self.shape = sequence(layer["body"], shape)
        self.skip, _ = sequence(layer["skip"], shape)

    def forward(self, x):
        return self.body(x) + self.skip(x)


def convolution(layer, shape):
    """shape: (channels,) of rows or (channels, height, width)"""
    transposed = layer["type"] == "conv_transpose2d"
    options = {"stride": layer["stride"], "padding": layer["padding"], "bias": layer["bias"]}
    if transposed:
        options["output_padding"] = layer["output_padding"]
    module = (nn.ConvTranspose2d if transposed else nn.Conv2d)(shape[0], layer["channels"], layer["kernel"], **options)
    return spectral_norm(module) if layer["spectral_norm"] else module


def made(layer, shape):
    """The module of a layer that reads `shape`, and what it makes of it."""
    kind = layer["type"]
    if kind == "linear":
        module = nn.Linear(shape[0], layer["features"], bias=layer["bias"])
        return (spectral_norm(module) if layer["spectral_norm"] else module), (layer["features"],)
    if kind == "activation":
        return activation(layer), shape
    if kind == "batch_norm":
        norm = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
        return norm(shape[0], eps=layer["epsilon"], momentum=layer["momentum"]), shape
    if kind == "affine":
        return Affine(shape[0]), shape
    if kind == "fourier_features":
        return FourierFeatures(shape[0], layer["frequencies"]), (shape[0] + 2 * layer["frequencies"],)
    if kind == "monotone_coupling":
        return MonotoneCoupling(shape[0], layer), shape
    if kind == "confinement":
        return nn.Identity(), shape
    if kind == "residual":
        module = Residual(layer, shape)
        return module, module.shape
    if kind == "unflatten":
        return nn.Unflatten(1, (layer["channels"], layer["height"], layer["width"])), (
            layer["channels"], layer["height"], layer["width"])
    plain = {"conv2d": lambda: convolution(layer, shape), "conv_transpose2d": lambda: convolution(layer, shape),
             "average_pool": lambda: nn.AvgPool2d(layer["window"]), "max_pool": lambda: nn.MaxPool2d(layer["window"]),
             "sum_pool": lambda: SumPool(layer["window"]), "upsample": lambda: nn.Upsample(scale_factor=layer["factor"]),
             "flatten": nn.Flatten}
    module = plain[kind]()
    with torch.no_grad():
        return module, tuple(module.eval()(torch.zeros(1, *shape)).shape[1:])


def sequence(layers, shape):
    modules = []
    for layer in layers:
        module, shape = made(layer, shape)
        modules.append(module)
    return nn.Sequential(*modules), shape


class Network(nn.Module):
    """Rows in and out; images travel as rows in the order (y, x, channel)."""

    def __init__(self, spec):
        super().__init__()
        image = spec.get("image")
        self.image = (image["height"], image["width"], image["channels"]) if image else None
        shape = (image["channels"], image["height"], image["width"]) if image else (spec["input_size"],)
        self.layers, _ = sequence(spec["layers"], shape)
        self.confinements = {i: layer for i, layer in enumerate(spec["layers"]) if layer["type"] == "confinement"}

    def forward(self, x):
        if self.image:
            x = x.reshape(len(x), *self.image).permute(0, 3, 1, 2)
        outputs = {-1: x}
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.confinements:
                spec = self.confinements[index]
                u = outputs[spec["input_layer"]].flatten(1).norm(dim=1, keepdim=True)
                x = x + spec["quadratic"] / 2 * u**2 + spec["wall"] * torch.relu(u - spec["radius"]) ** 2
            outputs[index] = x
        return x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x


def load(checkpoint, config, player, suffix):
    network = Network(config[player]["network"])
    network.load_state_dict(load_file(os.path.join(checkpoint, player + suffix + ".safetensors")), strict=True)
    return network.eval()


def close(name, ours, theirs):
    error = np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max())
    print(f"{name}: largest difference {error:.1e} of the largest value")
    return bool(error <= TOLERANCE)


def check(program, folder, preset, data, more=()):
    run = os.path.join(folder, "run_" + preset + "_" + os.path.basename(data))
    subprocess.run([program, "train", "--preset", preset, "--data", data, "--steps", "20", "--device", "cpu", "--out", run,
                    *more], check=True, stdout=subprocess.DEVNULL)
    checkpoint = os.path.join(run, "checkpoints", "step_00000020")
    with open(os.path.join(checkpoint, "state.json"), encoding="utf-8") as stream:
        config = json.load(stream)["config"]
    good = True
    for weights, suffix in (("raw", ""), ("ema", "_ema")):
        samples, energies = os.path.join(folder, "s.npy"), os.path.join(folder, "e.npy")
        subprocess.run([program, "sample", run, "--weights", weights, "-n", "64", "--seed", "3", "-o", samples], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run([program, "energy", run, "--weights", weights, "--points", samples, "-o", energies], check=True,
                       stdout=subprocess.DEVNULL)
        energy = load(checkpoint, config, "energy", suffix)
        generator = load(checkpoint, config, "generator", suffix)
        with torch.no_grad():
            theirs = energy(torch.from_numpy(np.load(samples)).float()).squeeze(1).numpy()
            z = latents(3, 64, config["generator"]["network"]["input_size"])
            points = generator(torch.from_numpy(z).float()).numpy()
        name = f"{preset} on {os.path.basename(data)}, {weights}"
        good &= close(f"{name}: energies", np.load(energies), theirs)
        good &= close(f"{name}: samples", np.load(samples), points)
    return good


def conv(channels, kernel, **more):
    return {"type": "conv2d", "channels": channels, "kernel": kernel, **more}


def transposed(channels, kernel, **more):
    return {"type": "conv_transpose2d", "channels": channels, "kernel": kernel, **more}


def image_networks():
    """Energy and generator for 8 x 12 pixels of 3 channels, with every kind of image layer."""
    leaky = {"type": "activation", "function": "leaky_relu", "negative_slope": 0.1}
    relu = {"type": "activation", "function": "relu"}
    prelu = {"type": "activation", "function": "prelu"}
    norm = {"type": "batch_norm"}
    residual = {"type": "residual",
                "body": [conv(5, 3, padding=1, spectral_norm=True), leaky, conv(5, 3, padding=1),
                         {"type": "average_pool", "window": 2}],
                "skip": [{"type": "average_pool", "window": 2}, conv(5, 1)]}
    energy = {"input_size": 288, "image": {"channels": 3, "height": 8, "width": 12},
              "layers": [conv(4, 3, padding=1), leaky, residual, transposed(3, 4, stride=2, padding=1, spectral_norm=True),
                         prelu, {"type": "max_pool", "window": 2}, {"type": "sum_pool", "window": 2},
                         conv(6, 3, stride=2, padding=1), leaky, {"type": "flatten"},
                         {"type": "linear", "features": 4, "spectral_norm": True}, leaky,
                         {"type": "linear", "features": 1}]}
    up = {"type": "residual",
          "body": [norm, relu, {"type": "upsample", "factor": 2}, conv(4, 3, padding=1), norm, relu,
                   conv(4, 3, padding=1)],
          "skip": [conv(4, 1), {"type": "upsample", "factor": 2}]}
    generator = {"input_size": 5,
                 "layers": [{"type": "linear", "features": 36}, relu,
                            {"type": "unflatten", "channels": 6, "height": 2, "width": 3},
                            transposed(5, 4, stride=2, padding=1), norm, prelu, transposed(4, 3, padding=1), up,
                            conv(3, 3, padding=1), {"type": "activation", "function": "tanh"}]}
    return energy, generator


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        rows, images = os.path.join(folder, "rows.npy"), os.path.join(folder, "images.npy")
        np.save(rows, random.normal(size=(200, 5)))
        np.save(images, random.uniform(-1, 1, size=(130, 288)))
        networks = os.path.join(folder, "networks.json")
        energy, generator = image_networks()
        with open(networks, "w", encoding="utf-8") as stream:
            json.dump({"energy": {"network": energy}, "generator": {"network": generator}, "batch_size": 16}, stream)
        good = all([check(program, folder, "calibrated-2d", "25gaussians"), check(program, folder, "toy-a", "swiss_roll"),
                    check(program, folder, "toy-b", "two_moons"), check(program, folder, "vectors", rows),
                    check(program, folder, "vectors", images, ["--config", networks])])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
