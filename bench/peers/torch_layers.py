"""Layers on stacked rows, with every derivative written out: no autograd, hence no double backward.

Rows are n primal rows and then tangents of the first of them (forward of BatchNorm and tanh, which only generators
have, takes primal rows alone). What a layer keeps of a forward pass serves later pushes and reverse passes through it:
  forward(p, rows, n, training)                        -> rows, kept
  push(p, kept, tangents)                              -> tangents, of all primal rows, once or several times over
  reverse(p, kept, inputs, grad, first, primal, grads) -> grad of the inputs
In reverse, `grad` has `primal` rows from primal row `first` on and then tangents of the first primal rows; `inputs` are
the layer's inputs of the same rows, for the gradients of parameters, which go to the dict `grads` (None: not wanted).
"""
import torch
from torch.nn import functional as F

convolution_backward = torch.ops.aten.convolution_backward


def scaled(rows, n, factor, start=0):
    """Rows times a factor per primal row: primal rows use theirs from `start` on, tangents the owners'."""
    out = torch.empty_like(rows)
    if n:
        torch.mul(rows[:n], factor[start:start + n], out=out[:n])
    for first in range(n, len(rows), len(factor)):
        last = min(first + len(factor), len(rows))
        torch.mul(rows[first:last], factor[:last - first], out=out[first:last])
    return out


class Product:
    """Linear layers, convolutions and transposed convolutions: weight times rows, bias on primal rows."""

    reads_inputs = True

    def __init__(self, layer, name):
        self.layer, self.name, self.compute = layer, name, None
        self.reads_data = False  # so that nobody wants the gradient of its inputs beside those of parameters
        self.arguments = ([layer.stride] * 2, [layer.padding] * 2, [1, 1], layer.kind == "conv_transpose", [0, 0], 1)

    def cast(self, *tensors):
        return tensors if self.compute is None else tuple(t.to(self.compute) for t in tensors)

    def apply(self, p, rows, bias=None):
        x, w = self.cast(rows, p[self.name + "weight"])
        bias = bias if bias is None else bias.to(x.dtype)
        y = F.linear(x, w, bias) if self.layer.kind == "linear" else torch.convolution(x, w, bias, *self.arguments)
        return y.to(rows.dtype)

    def forward(self, p, rows, n, training):
        bias = p[self.name + "bias"] if self.layer.bias else None
        if bias is None or n == len(rows):
            return self.apply(p, rows, bias), {"rows": rows}
        y = self.apply(p, rows)
        y[:n] += bias if y.dim() == 2 else bias[:, None, None]
        return y, {"rows": rows}

    def push(self, p, kept, tangents):
        return self.apply(p, tangents)

    def reverse(self, p, kept, inputs, grad, first, primal, grads):
        w = p[self.name + "weight"]
        wanted = grads is not None
        if wanted and self.layer.bias and primal:
            grads[self.name + "bias"] = grad[:primal].sum([0] + list(range(2, grad.dim())))
        shape = kept["rows"] if inputs is None else inputs  # its values are not read without `wanted`
        small_grad, small_w, small_inputs = self.cast(grad, w, shape[:len(grad)])
        if self.layer.kind == "linear":
            if wanted:
                grads[self.name + "weight"] = (small_grad.T @ small_inputs).to(grad.dtype)
            return (small_grad @ small_w).to(grad.dtype)
        through = not (wanted and self.reads_data)
        grad_x, grad_w, _ = convolution_backward(small_grad, small_inputs, small_w, None, *self.arguments,
                                                 [through, wanted, False])
        if wanted:
            grads[self.name + "weight"] = grad_w.to(grad.dtype)
        return grad_x.to(grad.dtype) if through else None


class PiecewiseLinear:
    """relu, leaky_relu, prelu: f'' = 0, so tangents and adjoints are scaled alike."""

    def __init__(self, layer, name):
        self.layer, self.name = layer, name
        self.reads_inputs = layer.kind == "prelu"

    def forward(self, p, rows, n, training):
        x = rows[:n]
        slope = p[self.name + "weight"] if self.layer.kind == "prelu" else self.layer.value
        factor = torch.where(x > 0, torch.ones((), dtype=x.dtype, device=x.device), slope)
        return scaled(rows, n, factor), {"rows": rows, "factor": factor, "x": x}

    def push(self, p, kept, tangents):
        return scaled(tangents, 0, kept["factor"])

    def reverse(self, p, kept, inputs, grad, first, primal, grads):
        if grads is not None and self.layer.kind == "prelu":
            below = (kept["x"] <= 0).to(grad.dtype)
            grads[self.name + "weight"] = (scaled(grad, primal, below, first) * inputs).sum().reshape(1)
        return scaled(grad, primal, kept["factor"], first)


class Tanh:
    reads_inputs = True

    def __init__(self, layer, name):
        pass

    def forward(self, p, rows, n, training):
        y = torch.tanh(rows[:n])
        factor = 1 - y * y
        return y, {"rows": rows, "factor": factor, "curvature": -2 * y * factor}

    def push(self, p, kept, tangents):
        return scaled(tangents, 0, kept["factor"])

    def reverse(self, p, kept, inputs, grad, first, primal, grads):
        out = scaled(grad, primal, kept["factor"], first)
        if primal < len(grad):  # one tangent to every primal row
            out[:primal] += kept["curvature"] * inputs[primal:] * grad[primal:]
        return out


class BatchNorm:
    reads_inputs = True

    def __init__(self, layer, name):
        self.name, self.epsilon = name, layer.value

    def per_channel(self, vector, rows):
        return vector if rows.dim() == 2 else vector[:, None, None]

    def parts(self, p):
        return (p[self.name + part] for part in ("weight", "bias", "running_mean", "running_var"))

    def forward(self, p, rows, n, training):
        w, b, mean, variance = self.parts(p)
        if training:
            y, *statistics = torch.native_batch_norm(rows, w, b, mean, variance, True, 0.1, self.epsilon)
            return y, {"rows": rows, "statistics": statistics}
        inverse = (variance + self.epsilon).rsqrt()
        y = rows * self.per_channel(w * inverse, rows) + self.per_channel(b - mean * w * inverse, rows)
        return y, {"rows": rows, "inverse": inverse, "mean": mean.clone()}  # the next training pass moves it

    def push(self, p, kept, tangents):
        return tangents * self.per_channel(p[self.name + "weight"] * kept["inverse"], tangents)

    def reverse(self, p, kept, inputs, grad, first, primal, grads):
        w, _, mean, variance = self.parts(p)
        if "statistics" in kept:
            out, grad_w, grad_b = torch.ops.aten.native_batch_norm_backward(
                grad, kept["rows"], w, mean, variance, *kept["statistics"], True, self.epsilon, [True, True, True])
            if grads is not None:
                grads[self.name + "weight"] = grad_w
                grads[self.name + "bias"] = grad_b
            return out
        if grads is not None:
            others = [0] + list(range(2, grad.dim()))
            grad_b = grad[:primal].sum(others)
            grad_w = (grad * inputs).sum(others) - kept["mean"] * grad_b
            grads[self.name + "weight"] = grad_w * kept["inverse"]
            grads[self.name + "bias"] = grad_b
        return grad * self.per_channel(w * kept["inverse"], grad)


class Rearrangement:
    """Linear layers without parameters; `apply` and its transpose act on rows of either kind alike."""

    reads_inputs = False

    def __init__(self, layer, name):
        self.kind, self.channels, self.side = layer.kind, layer.outputs, layer.side

    def apply(self, x):
        if self.kind == "flatten":
            return x.flatten(1)
        if self.kind == "unflatten":
            return x.reshape(len(x), self.channels, self.side, self.side)
        if self.kind == "upsample":
            return F.interpolate(x, scale_factor=2)
        if self.kind == "average_pool":
            return F.avg_pool2d(x, 2)
        return x.sum((2, 3), keepdim=True)

    def transpose(self, g, shape):
        if self.kind in ("flatten", "unflatten"):
            return g.reshape(len(g), *shape[1:])
        if self.kind == "upsample":
            return 4 * F.avg_pool2d(g, 2)
        if self.kind == "average_pool":
            return F.interpolate(g, scale_factor=2) / 4
        return g.expand(len(g), *shape[1:])

    def forward(self, p, rows, n, training):
        return self.apply(rows), {"rows": rows}

    def push(self, p, kept, tangents):
        return self.apply(tangents)

    def reverse(self, p, kept, inputs, grad, first, primal, grads):
        return self.transpose(grad, kept["rows"].shape)


class Residual:
    def __init__(self, layer, name):
        self.parts = [Chain(layer.body, name + "body."), Chain(layer.skip, name + "skip.")]

    def forward(self, p, rows, n, training):
        (body, kept_body), (skip, kept_skip) = (part.forward(p, rows, n, training) for part in self.parts)
        return body + skip, {"rows": rows, "parts": (kept_body, kept_skip)}

    def reverse(self, p, kept, inputs, grad, first, primal, grads):
        inputs = (None, None) if inputs is None else inputs
        body, skip = (part.reverse(p, k, i, grad, first, primal, grads)
                      for part, k, i in zip(self.parts, kept["parts"], inputs))
        return None if body is None else body + skip


CLASSES = {"linear": Product, "conv": Product, "conv_transpose": Product, "prelu": PiecewiseLinear,
           "leaky_relu": PiecewiseLinear, "relu": PiecewiseLinear, "tanh": Tanh, "batch_norm": BatchNorm,
           "residual": Residual}


class Chain:
    """A network. Layers of residual ones are chains of their own, so that kept passes and inputs nest as they do."""

    def __init__(self, layers, name="", reads_data=False, compute=None):
        self.layers = [CLASSES.get(layer.kind, Rearrangement)(layer, f"{name}{i}.") for i, layer in enumerate(layers)]
        for product in self.products():
            product.compute = compute
        for chain in [self, *getattr(self.layers[0], "parts", [])] if reads_data else []:
            chain.layers[0].reads_data = True

    def products(self):
        for layer in self.layers:
            if isinstance(layer, Product):
                yield layer
            elif isinstance(layer, Residual):
                for part in layer.parts:
                    yield from part.products()

    def forward(self, p, rows, n=None, training=False):
        kept = []
        for layer in self.layers:
            rows, of_layer = layer.forward(p, rows, len(rows) if n is None else n, training)
            kept.append(of_layer)
        return rows, kept

    def push(self, p, kept, tangents):
        """The tangents behind the network, and those before each layer."""
        before = []
        for layer, of_layer in zip(self.layers, kept):
            if isinstance(layer, Residual):
                pushed = [part.push(p, k, tangents) for part, k in zip(layer.parts, of_layer["parts"])]
                before.append(tuple(inputs for _, inputs in pushed))
                tangents = pushed[0][0] + pushed[1][0]
            else:
                before.append(tangents)
                tangents = layer.push(p, of_layer, tangents)
        return tangents, before

    def inputs(self, kept, first=0, tangents=None):
        """What reverse reads: inputs of the primal rows from `first` on, then the tangents before each layer."""
        found = []
        for i, (layer, of_layer) in enumerate(zip(self.layers, kept)):
            own = None if tangents is None else tangents[i]
            if isinstance(layer, Residual):
                own = (None, None) if own is None else own
                found.append(tuple(part.inputs(k, first, t) for part, k, t in zip(layer.parts, of_layer["parts"], own)))
            elif not layer.reads_inputs:
                found.append(None)
            else:
                rows = of_layer["rows"][first:]
                found.append(rows if own is None else own if len(rows) == 0 else torch.cat([rows, own]))
        return found

    def reverse(self, p, kept, inputs, grad, first, primal, grads=None):
        inputs = [None] * len(kept) if inputs is None else inputs
        for layer, of_layer, its_inputs in reversed(list(zip(self.layers, kept, inputs))):
            grad = layer.reverse(p, of_layer, its_inputs, grad, first, primal, grads)
        return grad
