"""Normalization: mean 0 and variance 1 over a batch, a row, or groups of channels. Channels are the last axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from kernels import plan
from kernels.elementwise import BY_NAME
from kernels.formula import Formula
from kernels.registry import backend_of
from nanonet.autograd import op
from nanonet.errors import DtypeError, ShapeError
from nanonet.ops.activation import check_activation
from nanonet.ops.elementwise import differentiate, launch, where
from nanonet.options import count, hashable, number, sides
from nanonet.tensor import Tensor, as_tensor, constant, mode

# ------------------------------------------------------------------------- over the batch


@op(needs_out=False)
def _batch_norm(x, weight, bias, eps, activation, mean, variance):
    """x (n, c); the arrays mean and variance (c,) are written. See the slot batch_norm."""
    out = plan.empty(x.array, x.array.shape, x.array.dtype)
    backend_of(out).batch_norm(x.array, _array(weight), _array(bias), eps, activation, out, mean, variance)
    return Tensor(out)


@_batch_norm.derivative
def _(g, out, x, weight, bias, eps, activation, mean, variance):
    if not mode.grad:

        @cache
        def gradients():
            made = [plan.empty(x.array, shape, x.array.dtype) for shape in (x.shape, mean.shape, mean.shape)]
            kernel = backend_of(g.array).batch_norm_backward
            kernel(g.array, x.array, _array(weight), _array(bias), mean, variance, eps, activation, *made)
            return made

        return [lambda i=i: Tensor(gradients()[i]) for i in range(3)]
    deviation = x - x.mean(0)
    scale = 1 / ((deviation * deviation).mean(0) + eps).sqrt()
    z = deviation * scale
    if activation is not None:
        y = z if weight is None else z * weight
        g = where((y if bias is None else y + bias) > 0, g, 0.0)
    weight_gradient, bias_gradient = (g * z).sum(0), g.sum(0)
    factor = scale if weight is None else scale * weight
    return (
        lambda: factor * (g - (bias_gradient + z * weight_gradient) * (1 / x.shape[0])),
        lambda: weight_gradient,
        lambda: bias_gradient,
    )


_AFFINE = {
    None: Formula.of("x * scale + shift", "x", "scale", "shift"),
    "relu": Formula.of("max(x * scale + shift, 0)", "x", "scale", "shift"),
}


@op
def _affine(x, scale, shift, activation):
    """activation(x * scale + shift), in one pass."""
    return launch(_AFFINE[activation], [x, scale, shift], "batch_norm")


@_affine.derivative
def _(g, y, x, scale, shift, activation):
    if activation is not None:
        g = differentiate(BY_NAME[activation], "x", g, y, {})
    return lambda: g * scale, lambda: g * x, lambda: g


#: A running statistic r moves towards k times the batch's, s.
_TOWARDS = Formula.of("r + momentum * (k * s - r)", "r", "s", "k", "momentum")


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Tensor:
    """weight (x - mean) / sqrt(variance + eps) + bias for each channel (Ioffe & Szegedy 2015); x (..., c).

    training: mean and variance are those of x, and the running ones, if given, are moved towards them, in place:

        running <- (1 - momentum) running + momentum now          (for the variance with n - 1 in the denominator)

    else they are the running ones. weight, bias (c,) or None; activation None or "relu". Raises ShapeError, DtypeError
    or OptionError that name the argument.
    """
    x = _floats("batch_norm", x)
    check_activation("batch_norm", activation, ("relu",))
    number("batch_norm: eps", eps, "[0, inf)")
    number("batch_norm: momentum", momentum, "[0, 1]")
    channels = x.shape[-1]
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    _check("batch_norm", x, (channels,), **given)
    if not training:
        if running_mean is None or running_var is None:
            raise ShapeError("batch_norm: running_mean or running_var is None; wanted both unless training")
        scale = 1 / (running_var + eps).sqrt()
        scale = scale if weight is None else scale * weight
        shift = -running_mean * scale
        return _affine(x, scale, shift if bias is None else shift + bias, activation)
    rows = x.size // channels if channels else 0
    if not rows:
        raise ShapeError(f"batch_norm: x is {x.shape}, wanted at least one value of each channel")
    flat = x if x.ndim == 2 else x.reshape(rows, channels)
    mean, variance = (plan.empty(x.array, (channels,), x.dtype) for _ in range(2))
    out = _batch_norm(flat, weight, bias, float(eps), activation, mean, variance)
    for running, now, k in ((running_mean, mean, 1.0), (running_var, variance, rows / max(rows - 1, 1))):
        if running is not None:
            running._forbid_argument()
            constants = constant(k, x.dtype).array, constant(float(momentum), x.dtype).array
            backend_of(mean).elementwise(_TOWARDS, running.array, now, *constants, out=running.array)
    return out if x.ndim == 2 else out.reshape(x.shape)


# --------------------------------------------------------------------- over rows and groups


@op(saves=True, needs_out=False)
def _group_norm(x, weight, bias, groups, eps, centred):
    """x (n, s, c): mean 0 (if `centred`) and variance 1 over s and each of `groups` parts of c. See the slot."""
    out, scale = (
        plan.empty(x.array, x.array.shape, x.array.dtype),
        plan.empty(x.array, (x.shape[0], groups), x.array.dtype),
    )
    mean = plan.empty(x.array, scale.shape, scale.dtype) if centred else None
    backend_of(out).group_norm(x.array, groups, _array(weight), _array(bias), eps, out, mean, scale)
    return Tensor(out), (mean, scale)


@_group_norm.derivative
def _(g, out, saved, x, weight, bias, groups, eps, centred):
    if not mode.grad:

        @cache
        def gradients():
            sums = [
                None if p is None or not p._requires_grad else plan.empty(x.array, p.shape, p.dtype)
                for p in (weight, bias)
            ]
            made = plan.empty(x.array, x.shape, x.dtype)
            kernel = backend_of(made).group_norm_backward
            kernel(g.array, x.array, groups, _array(weight), *saved, made, *sums)
            return made, *sums

        return [lambda i=i: Tensor(gradients()[i]) for i in range(3)]
    split, over = (*x.shape[:2], groups, x.shape[2] // groups), (1, 3)
    deviation = x.reshape(split)
    if centred:
        deviation = deviation - deviation.mean(over, keepdims=True)
    scale = 1 / ((deviation * deviation).mean(over, keepdims=True) + eps).sqrt()
    z = deviation * scale

    def gradient():
        h = (g if weight is None else g * weight).reshape(split)
        d = h - z * (h * z).mean(over, keepdims=True)
        return ((d - h.mean(over, keepdims=True) if centred else d) * scale).reshape(x.shape)

    return gradient, lambda: (g * z.reshape(x.shape)).sum((0, 1)), lambda: g.sum((0, 1))


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Mean 0 and variance 1 over each of `num_groups` parts of an image's channels (Wu & He 2018); x (n, ..., c).

    Then times weight plus bias, (c,) or None. Raises ShapeError unless the groups divide the channels.
    """
    x = _floats("group_norm", x)
    groups, channels = count("group_norm: num_groups", num_groups), x.shape[-1]
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ShapeError(f"group_norm: x is {x.shape}, wanted (n, ..., c) with none empty but n")
    if channels % groups:
        raise ShapeError(f"group_norm: x {x.shape} has {channels} channels, wanted a multiple of num_groups {groups}")
    _check("group_norm", x, (channels,), weight=weight, bias=bias)
    number("group_norm: eps", eps, "[0, inf)")
    places = 1
    for side in x.shape[1:-1]:
        places *= side
    return _group_norm(x.reshape(x.shape[0], places, channels), weight, bias, groups, float(eps), True).reshape(x.shape)


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the last axes, whose shape is normalized_shape (Ba et al. 2016).

    Then times weight plus bias, each of normalized_shape or None.
    """
    return _over_last("layer_norm", x, normalized_shape, weight, bias, eps, True)


def rms_norm(
    x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean square + eps) over the last axes (Zhang & Sennrich 2019), times weight.

    eps: that of the dtype if None.
    """
    eps = float(np.finfo(_floats("rms_norm", x).dtype).eps) if eps is None else eps
    return _over_last("rms_norm", x, normalized_shape, weight, None, eps, False)


def _over_last(name, x, normalized_shape, weight, bias, eps, centred):
    x = _floats(name, x)
    given = hashable(normalized_shape)
    shape = sides(f"{name}: normalized_shape", given, len(given) if isinstance(given, tuple) else 1)
    if x.shape[x.ndim - len(shape) :] != shape or not shape:
        raise ShapeError(f"{name}: x is {x.shape}, wanted (..., {', '.join(map(str, shape))})")
    _check(name, x, shape, weight=weight, bias=bias)
    number(f"{name}: eps", eps, "[0, inf)")
    width = 1
    for side in shape:
        width *= side
    weight, bias = (p if p is None or p.ndim == 1 else p.reshape(width) for p in (weight, bias))
    rows = x.size // width
    return _group_norm(x.reshape(rows, 1, width), weight, bias, 1, float(eps), centred).reshape(x.shape)


# --------------------------------------------------------------------------------- checks


def _array(x: Tensor | None) -> np.ndarray | None:
    return None if x is None else x.array


def _floats(name: str, x: Tensor) -> Tensor:
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise DtypeError(f"{name}: x is {x.dtype}, wanted float32 or float64")
    if not x.ndim:
        raise ShapeError(f"{name}: x has shape (), wanted at least one axis")
    return x


def _check(name: str, x: Tensor, shape: tuple[int, ...], **parameters: Tensor | None) -> None:
    for argument, value in parameters.items():
        if value is not None and value.shape != shape:
            raise ShapeError(f"{name}: {argument} is {value.shape}, wanted {shape} for x {x.shape}")
        if value is not None and value.dtype != x.dtype:
            raise DtypeError(f"{name}: {argument} is {value.dtype}, x is {x.dtype}; wanted the same")
