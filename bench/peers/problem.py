"""What every peer runs: networks, settings, starting values and draws of Bracket's presets, without a framework.

The iteration that all of them compute (one energy and one generator update):
  fake = G(z) with batch statistics; J, h and the score s of the same z with running statistics;
  energy descends     mean E(x) - mean E(fake) + max(0, w P - tau),  P = 1/2 mean (grad E(G(z)) . J v - s . v)^2;
  generator descends  mean E(G(z')) - lambda mean h, z' fresh, h of z (reuse) or of z'.
"""
import dataclasses

import numpy as np

LATENTS = 128


@dataclasses.dataclass(frozen=True)
class Layer:
    kind: str  # linear, conv, conv_transpose, prelu, leaky_relu, relu, tanh, batch_norm, flatten, unflatten, upsample,
    # average_pool, sum_pool, residual, silu, affine, fourier, coupling, confined
    inputs: int = 0
    outputs: int = 0
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    bias: bool = True
    spectral_norm: bool = False
    value: float = 0.0  # slope of leaky_relu, epsilon of batch_norm, scale of affine, radius of confined
    side: int = 0  # of unflatten's image
    active: int = 0  # the column that a coupling maps; its body reads the other one
    gain: float = 1.0  # of a linear layer's start
    identity: bool = False  # a linear layer starts near it
    body: tuple = ()
    skip: tuple = ()


@dataclasses.dataclass(frozen=True)
class Problem:
    name: str
    energy: tuple
    generator: tuple
    shape: tuple  # of one sample
    latents: int
    estimator: str  # exact, min_singular (exact) or lobpcg (two steps)
    reuse: bool
    weight: float  # of the penalty at step 0
    threshold: float
    batch: int
    lr: float = 2e-4
    beta1: float = 0.0
    beta2: float = 0.9
    epsilon: float = 1e-6
    entropy_weight: float = 1.0


    @property
    def split(self):
        """Whether samples of the training pass differ from those that J belongs to."""
        return any(layer.kind == "batch_norm" for layer in every_layer(self.generator))


def every_layer(layers):
    for layer in layers:
        yield layer
        yield from every_layer(layer.body + layer.skip)


LOBPCG_STEPS = 2
KNOTS, MAX_SLOPE, MAX_HEIGHT = 12, 3, 2  # of a coupling's staircase
QUADRATIC, WALL = 1, 25  # of the confinement
PRELU, RELU, TANH, FLATTEN = Layer("prelu"), Layer("relu"), Layer("tanh"), Layer("flatten")
LEAKY = Layer("leaky_relu", value=0.1)


def conv(inputs, outputs, kernel, stride=1, padding=1):
    return Layer("conv", inputs, outputs, kernel, stride, padding)


def norm(channels, epsilon=1e-5):
    return Layer("batch_norm", channels, channels, value=epsilon)


def toy_a():
    energy = (Layer("linear", 2, 100, spectral_norm=True), PRELU, Layer("linear", 100, 100, spectral_norm=True), PRELU,
              Layer("linear", 100, 1, spectral_norm=True), Layer("linear", 1, 1, bias=False))
    generator = (Layer("linear", 2, 100), PRELU, norm(100), Layer("linear", 100, 100), PRELU, norm(100),
                 Layer("linear", 100, 2))
    return Problem("toy-a", energy, generator, (2,), 2, "min_singular", False, 0.7 * 2307**-0.55, 0, 200)


def dcgan_32(width):
    c = [max(1, round(width * channels)) for channels in (64, 128, 256, 512)]
    energy = []
    for layer in (conv(3, c[0], 3), conv(c[0], c[0], 4, 2), conv(c[0], c[1], 3), conv(c[1], c[1], 4, 2),
                  conv(c[1], c[2], 3), conv(c[2], c[2], 4, 2), conv(c[2], c[3], 3)):
        energy += [layer, LEAKY]
    energy += [FLATTEN, Layer("linear", 16 * c[3], 1)]
    generator = [Layer("linear", LATENTS, 16 * c[3]), Layer("unflatten", outputs=c[3], side=4)]
    for inputs, outputs in ((c[3], c[2]), (c[2], c[1]), (c[1], c[0])):
        generator += [Layer("conv_transpose", inputs, outputs, 4, 2, 1), norm(outputs), RELU]
    generator += [conv(c[0], 3, 3), TANH]
    return Problem("cifar10-ii", tuple(energy), tuple(generator), (3, 32, 32), LATENTS, "lobpcg", True, 1e-3, 1, 64)


def resnet_64(width):
    c = [max(1, round(width * channels)) for channels in (64, 128, 256, 512, 1024)]
    energy, inputs = [], 3
    for outputs in c:
        pool = (Layer("average_pool"),) if outputs != c[-1] else ()
        first = () if inputs == 3 else (LEAKY,)
        body = first + (conv(inputs, outputs, 3), LEAKY, conv(outputs, outputs, 3)) + pool
        energy.append(Layer("residual", body=body, skip=pool + (conv(inputs, outputs, 1, padding=0),)))
        inputs = outputs
    energy += [LEAKY, Layer("sum_pool"), FLATTEN, Layer("linear", c[-1], 1)]
    generator = [Layer("linear", LATENTS, 16 * c[-1]), Layer("unflatten", outputs=c[-1], side=4)]
    for inputs, outputs in zip(c[:0:-1], c[-2::-1]):
        body = (norm(inputs, 1e-4), RELU, Layer("upsample"), conv(inputs, outputs, 3), norm(outputs, 1e-4), RELU,
                conv(outputs, outputs, 3))
        generator.append(Layer("residual", body=body,
                               skip=(conv(inputs, outputs, 1, padding=0), Layer("upsample"))))
    generator += [norm(c[0], 1e-4), RELU, conv(c[0], 3, 3), TANH]
    return Problem("faces-64", tuple(energy), tuple(generator), (3, 64, 64), LATENTS, "lobpcg", True, 1e-3, 1, 64)


def calibrated_2d():
    """Of data with the mean and deviation that the affine layers take out and put back. The weight of the penalty,
    which the preset's controller moves, stays where it starts; the learning rate is that behind the warm-up."""
    energy = [Layer("fourier", 2, 66)]
    for inputs, outputs, gain in ((66, 64, 2), (64, 64, 1.5), (64, 64, 1.5), (64, 1, 1)):
        energy += [Layer("linear", inputs, outputs, gain=gain), Layer("silu")]
    energy = (Layer("affine", value=1.02), Layer("confined", body=tuple(energy[:-1]), value=2.5))
    conditioner = (Layer("linear", 1, 48), Layer("silu"), Layer("linear", 48, 48), Layer("silu"),
                   Layer("linear", 48, 2 + 3 * KNOTS, gain=0.1))
    couplings = tuple(Layer("coupling", active=1 - number % 2, body=conditioner) for number in range(4))
    square = Layer("linear", 2, 2, gain=0.1, identity=True)
    generator = (square, *couplings, square, Layer("affine", value=1 / 1.02))
    return Problem("calibrated-2d", energy, generator, (2,), 2, "exact", False, 0.1, 0, 128, lr=3e-3, beta1=0.5,
                   beta2=0.99, epsilon=1e-8)


PRESETS = ("toy-a", "calibrated-2d", "cifar10-ii", "faces-64")


def problem(preset, width=1.0):
    makers = {"toy-a": toy_a, "calibrated-2d": calibrated_2d, "cifar10-ii": lambda: dcgan_32(width),
              "faces-64": lambda: resnet_64(width)}
    return makers[preset]()


# ---- values ----------------------------------------------------------------------------------------------------------


def weight_shape(layer):
    if layer.kind == "linear":
        return layer.outputs, layer.inputs
    first, second = (layer.inputs, layer.outputs) if layer.kind == "conv_transpose" else (layer.outputs, layer.inputs)
    return first, second, layer.kernel, layer.kernel


def unit(vector):
    return vector / np.linalg.norm(vector)


def staircase_start():
    """Biases [s, t, h, b, c] with which a staircase follows the identity over [-2, 2] in equal, gentle steps."""
    spacing = 4 / (KNOTS - 1)
    height = 0.45 * spacing
    one = [np.log(0.55 / (MAX_SLOPE - 0.55)), -height * KNOTS / 2]
    return np.concatenate([one, np.full(KNOTS, np.log(height / (MAX_HEIGHT - height))),
                           np.full(KNOTS, np.log(1.2 / spacing)), -2 + spacing * np.arange(KNOTS)])


def start(layers, random, prefix=""):
    """(parameters, buffers) of a network by name, in float64: PyTorch's default distributions, running statistics of a
    network that has run for a while."""
    parameters, buffers = {}, {}
    for index, layer in enumerate(layers):
        name = f"{prefix}{index}."
        if layer.kind in ("linear", "conv", "conv_transpose"):
            shape = weight_shape(layer)
            bound = layer.gain * np.prod(shape[1:]) ** -0.5
            parameters[name + "weight"] = random.uniform(-bound, bound, shape)
            if layer.identity:
                parameters[name + "weight"] += np.eye(*shape)
            if layer.bias:
                parameters[name + "bias"] = random.uniform(-bound, bound, layer.outputs)
            if layer.spectral_norm:
                matrix = parameters[name + "weight"].reshape(shape[0], -1)
                u = unit(random.normal(size=shape[0]))
                for _ in range(15):
                    v = unit(matrix.T @ u)
                    u = unit(matrix @ v)
                buffers[name + "u"], buffers[name + "v"] = u, v
        elif layer.kind == "prelu":
            parameters[name + "weight"] = np.array([0.25])
        elif layer.kind == "batch_norm":
            parameters[name + "weight"] = random.uniform(0.8, 1.2, layer.inputs)
            parameters[name + "bias"] = random.uniform(-0.1, 0.1, layer.inputs)
            buffers[name + "running_mean"] = random.uniform(-0.1, 0.1, layer.inputs)
            buffers[name + "running_var"] = random.uniform(0.1, 0.3, layer.inputs)
        elif layer.kind == "fourier":
            buffers[name + "frequencies"] = random.normal(0, 3, ((layer.outputs - 2) // 2, 2))
        elif layer.body:
            for part in ("body", "skip"):
                for target, values in zip((parameters, buffers), start(getattr(layer, part), random, f"{name}{part}.")):
                    target.update(values)
            if layer.kind == "coupling":
                parameters[f"{name}body.{len(layer.body) - 1}.bias"] += staircase_start()
    return parameters, buffers


def starting_values(task, seed=0):
    random = np.random.default_rng(seed)
    return {"energy": start(task.energy, random), "generator": start(task.generator, random)}


NOISE = ("latent", "probe", "start", "fresh")  # of z, v, where LOBPCG starts, z'


def given_draws(task, batch, seed=1):
    """One batch of data and noise, in float64, for comparing iterations."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (batch, *task.shape))
    return x, {name: random.normal(size=(batch, task.latents)) for name in NOISE}
