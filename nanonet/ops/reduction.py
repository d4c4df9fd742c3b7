"""Sums, means and extremes over axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels import plan
from kernels.elementwise import BY_NAME
from kernels.registry import backend_of
from nanonet.autograd import op
from nanonet.device import memory_of
from nanonet.errors import DtypeError, ShapeError
from nanonet.ops.elementwise import eq, where
from nanonet.ops.shape import axis_of, broadcast_to, contiguous, reshape, to
from nanonet.tensor import Tensor, constant, mode

Axes = int | Sequence[int] | None


def _axes(name: str, dim: Axes, ndim: int) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(ndim))
    if isinstance(dim, int):
        return (axis_of(name, dim, ndim),)
    axes = tuple(sorted(axis_of(name, d, ndim) for d in dim))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{name}: axes {tuple(dim)} name one twice")
    return axes


def _reduce(name: str, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    shape = tuple([side for i, side in enumerate(x.array.shape) if i not in axes])
    out = plan.empty(x.array, shape, x.array.dtype)
    backend_of(out).reduce(name, x.array, axes, out=out)
    return Tensor(out)


def _spread(g: Tensor, axes: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """g, which lacks `axes`, as a view of `shape`."""
    if not mode.grad and not g.array.ndim and type(g.array) is np.ndarray:
        return Tensor(np.ndarray(shape, g.array.dtype, g.array, 0, (0,) * len(shape)))
    kept = [1 if i in axes else side for i, side in enumerate(shape)]
    if not mode.grad:
        array = contiguous(g).array.reshape(kept)
        return Tensor(memory_of(array).broadcast(array, shape))
    return broadcast_to(reshape(g, kept), shape)


@op(needs_out=False)
def _sum(x, axes):
    return _reduce("sum", x, axes)


@_sum.derivative
def _(g, out, x, axes):
    return lambda: _spread(g, axes, x.shape), None


@op(needs_out=False)
def _mean(x, axes, share):
    out = _reduce("sum", x, axes)
    kernel = backend_of(out.array).elementwise
    kernel(BY_NAME["mul"].forward, out.array, constant(share, x.array.dtype).array, out=out.array)
    return out


@_mean.derivative
def _(g, out, x, axes, share):
    return lambda: _spread(g * share, axes, x.shape), None, None


@op
def _extreme(x, axes, name):
    return _reduce(name, x, axes)


@_extreme.derivative
def _(g, out, x, axes, name):
    def gradient():
        hit = to(eq(x, _spread(out.detach(), axes, x.shape)), x.dtype)
        return hit * _spread(g / hit.sum(axes), axes, x.shape)

    return gradient, None, None


def _float(name: str, x: Tensor) -> Tensor:
    if x.dtype.kind == "f":
        return x
    if x.dtype.kind in "ib" and name in ("sum", "mean"):
        return to(x, np.float32)
    raise DtypeError(f"{name}: got {x.dtype}, wanted float32 or float64")


def _keep(out: Tensor, x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return reshape(out, [1 if i in axes else side for i, side in enumerate(x.shape)]) if keepdims else out


def sum(x: Tensor, dim: Axes = None, keepdims: bool = False) -> Tensor:
    """The sum over the axes `dim` (all if None), which are dropped, or kept with length one."""
    x = _float("sum", x)
    axes = _axes("sum", dim, x.ndim)
    return _keep(_sum(x, axes), x, axes, keepdims)


def mean(x: Tensor, dim: Axes = None, keepdims: bool = False) -> Tensor:
    """The mean over the axes `dim`; NaN of no values."""
    x = _float("mean", x)
    axes = _axes("mean", dim, x.ndim)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return _keep(_mean(x, axes, 1 / count if count else float("nan")), x, axes, keepdims)


def var(x: Tensor, dim: Axes = None, correction: int = 1, keepdims: bool = False) -> Tensor:
    """Variance: squared deviations from the mean, over (count - correction)."""
    axes = _axes("var", dim, x.ndim)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    deviation = x - mean(x, axes, keepdims=True)
    return sum(deviation * deviation, axes, keepdims) / (count - correction)


def std(x: Tensor, dim: Axes = None, correction: int = 1, keepdims: bool = False) -> Tensor:
    """Standard deviation: the square root of `var`."""
    return var(x, dim, correction, keepdims).sqrt()


def _extreme_over(name: str, x: Tensor, dim: Axes, keepdims: bool) -> Tensor:
    x = _float(name, x)
    axes = _axes(name, dim, x.ndim)
    if any(x.shape[a] == 0 for a in axes):
        raise ShapeError(f"{name}: there is no {name} of no values (shape {x.shape})")
    return _keep(_extreme(x, axes, name), x, axes, keepdims)


def max(x: Tensor, dim: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest value over the axes `dim`. Equal ones share the gradient. For the index see `argmax`."""
    return _extreme_over("max", x, dim, keepdims)


def min(x: Tensor, dim: Axes = None, keepdims: bool = False) -> Tensor:
    """The smallest value over the axes `dim`. Equal ones share the gradient."""
    return _extreme_over("min", x, dim, keepdims)


def argmax(x: Tensor, dim: int | None = None, keepdims: bool = False) -> Tensor:
    """int64 index of the first maximum along `dim`, or in the flattened tensor."""
    x = _float("argmax", x)
    if not x.size:
        raise ShapeError(f"argmax: there is no maximum of no values (shape {x.shape})")
    flat = reshape(x, -1).array if dim is None else x.array.swapaxes(axis_of("argmax", dim, x.ndim), -1)
    out = plan.empty(flat, flat.shape[:-1], np.int64)
    backend_of(out).argmax(flat, out=out)
    if dim is None and keepdims:
        return Tensor(out.reshape((1,) * x.ndim))
    found = out if dim is None else out[..., None].swapaxes(axis_of("argmax", dim, x.ndim), -1)
    if dim is not None and not keepdims:
        found = found.squeeze(axis_of("argmax", dim, x.ndim))
    return Tensor(found)


def logsumexp(x: Tensor, dim: int = -1, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) along an axis, without overflow."""
    top = x.detach().max(dim, keepdims=True)
    top = where(eq(top - top, 0.0), top, 0.0)  # an infinite top would make NaN of x - top
    total = ((x - top).exp().sum(dim, keepdims=True)).log() + top
    return total if keepdims else total.squeeze(dim)
