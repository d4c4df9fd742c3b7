"""Matrix products."""

from __future__ import annotations

import numpy as np

from kernels import plan
from kernels.registry import backend_of
from nanonet.autograd import op
from nanonet.errors import DtypeError, ShapeError
from nanonet.ops.activation import before, check_activation
from nanonet.tensor import Tensor, as_tensor


@op
def _matmul(a, b):
    x, y = a.array, b.array
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"matmul: a {x.shape} has inner size {x.shape[-1]}, b {y.shape} has {y.shape[-2]}")
    _same_float("matmul", a=x, b=y)
    lead = x.shape[:-2]
    if x.ndim > 2 or y.ndim > 2:
        try:
            lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        except ValueError:
            raise ShapeError(f"matmul: leading axes of a {x.shape} and b {y.shape} do not broadcast") from None
    out = plan.empty(x, (*lead, x.shape[-2], y.shape[-1]), x.dtype)
    backend_of(out).matmul(x, y, out=out)
    return Tensor(out)


@_matmul.derivative
def _(g, out, a, b):
    return lambda: _matmul(g, b.mT), lambda: _matmul(a.mT, g)


_matmul.needs_out = False


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product of the last two axes; leading axes broadcast.

    a (..., m, k), b (..., k, n) -> (..., m, n). A vector a counts as (1, k), b as (k, 1), and that axis is dropped from
    the result. Raises ShapeError if the inner sizes differ, DtypeError unless both are floats of one dtype.
    """
    if isinstance(b, Tensor):
        a = as_tensor(a, None if isinstance(a, Tensor) else b.dtype, b)
    else:
        a = as_tensor(a)
        b = as_tensor(b, a.dtype, a)
    if not a.ndim or not b.ndim:
        raise ShapeError(f"matmul: a {a.shape} and b {b.shape}, wanted at least one axis each")
    if a.ndim == 1 and b.ndim == 1:
        return _matmul(a.reshape(1, -1), b.reshape(-1, 1)).reshape(())
    if a.ndim == 1:
        return _matmul(a.reshape(1, -1), b).squeeze(-2)
    if b.ndim == 1:
        return _matmul(a, b.reshape(-1, 1)).squeeze(-1)
    return _matmul(a, b)


@op
def _linear(x, w, bias, activation):
    out = plan.empty(x.array, (x.array.shape[0], w.array.shape[1]), x.array.dtype)
    backend_of(out).linear(x.array, w.array, None if bias is None else bias.array, activation, out=out)
    return Tensor(out)


@_linear.derivative
def _(g, y, x, w, bias, activation):
    g, bias_gradient = before(g, y, activation, bias)
    return lambda: _matmul(g, w.mT), lambda: _matmul(x.mT, g), bias_gradient


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """x W + b, and then the activation, in one kernel.

    x (..., k), weight (k, m), bias (m,) or None, activation None, "relu", "tanh" or "sigmoid" -> (..., m).
    Raises ShapeError, DtypeError or OptionError that name the argument.
    """
    x = as_tensor(x, None if isinstance(x, Tensor) else weight.dtype, weight)
    shape, (k, m) = x.array.shape, weight.array.shape
    if not shape or shape[-1] != k:
        raise ShapeError(
            f"linear: x {shape} has {shape[-1] if shape else 'no'} features, weight {weight.shape} wants {k}"
        )
    if bias is not None and bias.array.shape != (m,):
        raise ShapeError(f"linear: bias {bias.shape}, wanted ({m},) for weight {weight.shape}")
    check_activation("linear", activation)
    _same_float("linear", x=x.array, weight=weight.array)
    if bias is not None and bias.array.dtype != weight.array.dtype:
        raise DtypeError(f"linear: bias is {bias.dtype}, weight {weight.dtype}; wanted the same")
    if len(shape) != 2:
        return _linear(x.reshape(-1, k), weight, bias, activation).reshape(*shape[:-1], m)
    return _linear(x, weight, bias, activation)


def _same_float(name: str, **arrays: np.ndarray) -> None:
    (first, x), (second, y) = arrays.items()
    if x.dtype != y.dtype or x.dtype.kind != "f":
        raise DtypeError(
            f"{name}: {first} is {x.dtype}, {second} is {y.dtype}; wanted both float32 or both float64 "
            f"(convert with .float() or .double())"
        )
