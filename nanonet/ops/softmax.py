"""Softmax and the cross-entropy built on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import plan
from kernels.registry import backend_of
from nanonet.autograd import op
from nanonet.device import host
from nanonet.errors import DtypeError, ShapeError
from nanonet.ops.shape import axis_of, to
from nanonet.tensor import Tensor, arange, as_tensor, mode


def _rows(kernel: str, *inputs: Tensor) -> Tensor:
    out = plan.empty(inputs[0].array, inputs[0].array.shape, inputs[0].array.dtype)
    getattr(backend_of(out), kernel)(*(t.array for t in inputs), out=out)
    return Tensor(out)


@op
def _softmax(x):
    return _rows("softmax", x)


@_softmax.derivative
def _(g, y, x):
    if mode.grad:
        return (lambda: y * (g - (g * y).sum(-1, keepdims=True)),)
    return (lambda: _rows("softmax_backward", g, y),)


@op
def _log_softmax(x):
    return _rows("log_softmax", x)


@_log_softmax.derivative
def _(g, y, x):
    if mode.grad:
        return (lambda: g - y.exp() * g.sum(-1, keepdims=True),)
    return (lambda: _rows("log_softmax_backward", g, y),)


def _along(operation, name: str, x: Tensor, dim: int) -> Tensor:
    if x.dtype.kind != "f":
        raise DtypeError(f"{name}: got {x.dtype}, wanted float32 or float64")
    axis = axis_of(name, dim, x.ndim)
    if not x.shape[axis]:
        raise ShapeError(f"{name}: axis {dim} of {x.shape} is empty")
    last = x.ndim - 1
    return operation(x) if axis == last else operation(x.transpose(axis, last)).transpose(axis, last)


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, without overflow."""
    return _along(_softmax, "softmax", x, dim)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """log(softmax(x)) along `dim`, without overflow or log of zero."""
    return _along(_log_softmax, "log_softmax", x, dim)


@op(saves=True, needs_out=False)
def class_cross_entropy(x, target, weight, smoothing):
    """-sum_j w_j q_ij log softmax(x)_ij for each row i, where q = (1 - s) onehot(target) + s / c.

    x (n, c), target (n,) int64, weight (c,) or None -> (n,). NaN where the target is no class.
    """
    loss = plan.empty(x.array, x.shape[:1], x.dtype)
    probabilities = plan.empty(x.array, x.shape, x.dtype)
    kernel = backend_of(loss).cross_entropy
    kernel(x.array, target.array, None if weight is None else weight.array, smoothing, loss, probabilities)
    return Tensor(loss), probabilities


@class_cross_entropy.derivative
def _(g, out, probabilities, x, target, weight, smoothing):
    def gradient():
        if not mode.grad:
            result = plan.empty(x.array, x.shape, x.dtype)
            w = None if weight is None else weight.array
            kernel = backend_of(result).cross_entropy_backward
            kernel(g.array, probabilities, target.array, w, smoothing, out=result)
            return Tensor(result)
        classes = x.shape[1]
        q = to(target.reshape(-1, 1) == arange(classes, device=target), x.dtype) * (1 - smoothing) + smoothing / classes
        q = q if weight is None else q * weight
        return g.reshape(-1, 1) * (softmax(x) * q.sum(1, keepdims=True) - q)

    return gradient, None, None, None


def one_hot(target: Any, classes: int, dtype: Any = np.float32) -> Tensor:
    """target of shape s, integers in 0..classes-1 -> s + (classes,): 1 at the target, 0 elsewhere.

    Raises DtypeError unless integers, IndexError for one out of range (not looked for within a recorded step).
    """
    target = as_tensor(target)
    if target.dtype.kind != "i":
        raise DtypeError(f"one_hot: target is {target.dtype}, wanted integers")
    if plan.current() is None and target.size:
        values = host(target.array)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= classes:
            raise IndexError(f"one_hot: target holds {low if low < 0 else high}, wanted 0..{classes - 1}")
    return to(target.reshape(*target.shape, 1) == arange(classes, device=target), dtype)
