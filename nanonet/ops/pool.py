"""Pooling: the greatest or the mean value of each window of an image (n, h, w, c)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kernels import plan
from kernels.formula import Formula
from kernels.registry import backend_of
from nanonet.autograd import op
from nanonet.device import memory_of, moved
from nanonet.errors import DtypeError, OptionError, ShapeError
from nanonet.ops.reduction import mean
from nanonet.ops.shape import contiguous
from nanonet.ops.window import Padding, outputs, padding_of
from nanonet.options import count, hashable, sides
from nanonet.tensor import Tensor, as_tensor, constant

Sides = int | tuple[int, ...]
#: (start, stop, divisor) of each window along an axis, int64.
Windows = np.ndarray

# ------------------------------------------------------------------------------- operations


@op(saves=True, needs_out=False)
def _max_pool2d(x, rows, columns):
    shape = x.array.shape[0], len(rows), len(columns), x.array.shape[3]
    out, index = plan.empty(x.array, shape, x.array.dtype), plan.empty(x.array, shape, np.int32)
    backend_of(out).max_pool2d(x.array, rows, columns, out, index)
    return Tensor(out), index


@_max_pool2d.derivative
def _(g, out, index, x, rows, columns):
    return (lambda: _put(g, index, rows, columns, x.shape),)


@op(needs_out=False)
def _put(g, index, rows, columns, shape):
    """Zeros of that shape, with g added at the places that `index` names: see the slot max_pool2d_backward."""
    out = plan.empty(g.array, shape, g.array.dtype)
    backend_of(out).max_pool2d_backward(g.array, index, rows, columns, out=out)
    return Tensor(out)


@_put.derivative
def _(h, out, g, index, rows, columns, shape):
    return (lambda: _pick(h, index, rows, columns),)


#: The place of an element in the whole array, from its place i within an image.
_PLACE = Formula.of("i * channels + base", "i", "channels", "base")


@op(needs_out=False)
def _pick(x, index, rows, columns):
    """The elements of x at the places that `index` names: the transpose of `_put`."""
    n, h, w, c = x.array.shape
    base = moved(np.arange(n, dtype=np.float64).reshape(n, 1, 1, 1) * (h * w * c) + np.arange(c), memory_of(index))
    wide, place = plan.empty(index, index.shape, np.float64), plan.empty(index, index.shape, np.int64)
    backend = backend_of(x.array)
    backend.copy(index, out=wide)
    backend.elementwise(_PLACE, wide, constant(float(c), wide.dtype).array, base, out=wide)
    backend.copy(wide, out=place)
    out = plan.empty(index, index.shape, x.array.dtype)
    backend.take(contiguous(x).array.reshape(-1), place.reshape(-1), out=out.reshape(-1))
    return Tensor(out)


@_pick.derivative
def _(g, out, x, index, rows, columns):
    return (lambda: _put(g, index, rows, columns, x.shape),)


@op(needs_out=False)
def _avg_pool2d(x, rows, columns):
    out = plan.empty(x.array, (x.array.shape[0], len(rows), len(columns), x.array.shape[3]), x.array.dtype)
    backend_of(out).avg_pool2d(x.array, rows, columns, out=out)
    return Tensor(out)


@_avg_pool2d.derivative
def _(g, out, x, rows, columns):
    return (lambda: _spread(g, rows, columns, x.shape),)


@op(needs_out=False)
def _spread(g, rows, columns, shape):
    """The transpose of `_avg_pool2d`."""
    out = plan.empty(g.array, shape, g.array.dtype)
    backend_of(out).avg_pool2d_backward(g.array, rows, columns, out=out)
    return Tensor(out)


@_spread.derivative
def _(h, out, g, rows, columns, shape):
    return (lambda: _avg_pool2d(h, rows, columns),)


# --------------------------------------------------------------------------------- windows


def check(
    name: str,
    axes: int,
    kernel_size: Sides,
    stride: Sides | None,
    padding: Padding,
    dilation: Sides = 1,
    divisor_override: int | None = None,
    **_: object,
) -> None:
    """Raises OptionError, in the name of a layer, for options that fit no image."""
    kernel = sides(f"{name}: kernel_size", kernel_size, axes)
    _checked(name, kernel, kernel, stride, padding)
    if set(sides(f"{name}: dilation", dilation, axes)) != {1}:
        raise OptionError(f"{name}: dilation is {dilation!r}; wanted 1")
    if divisor_override is not None:
        count(f"{name}: divisor_override", divisor_override)


def _checked(name, size, kernel, stride, padding):
    """(kernel, stride, padding), each with an entry for each axis. Raises OptionError."""
    kernel = sides(f"{name}: kernel_size", kernel, len(size))
    stride = kernel if stride is None else sides(f"{name}: stride", stride, len(size))
    padding = padding_of(name, padding, size, kernel, stride)
    if any(max(p) >= k for p, k in zip(padding, kernel, strict=True)):
        raise OptionError(f"{name}: padding is {padding}; wanted less than kernel_size {kernel}")
    return kernel, stride, padding


@lru_cache(maxsize=1024)
def _regular(
    name, size, kernel, stride, padding, ceil_mode, include_pad=True, divisor=None
) -> tuple[Windows, ...]:  # fmt: skip
    """The windows along each axis, as PyTorch places them: with ceil_mode the last ones may reach over the edge by
    more than the padding, but none starts beyond it."""
    kernel, stride, padding = _checked(name, size, kernel, stride, padding)
    counts = outputs(name, size, kernel, stride, padding)
    found = []
    for axis, (n, k, s, (before, after)) in enumerate(zip(size, kernel, stride, padding, strict=True)):
        starts = [i * s - before for i in range(counts[axis])]
        if ceil_mode and starts[-1] + k < n + after and starts[-1] + s < n:
            starts.append(starts[-1] + s)
        windows = np.empty((len(starts), 3), np.int64)
        for row, start in zip(windows, starts, strict=True):
            inside = max(start, 0), min(start + k, n)
            share = min(start + k, n + after) - start if include_pad else inside[1] - inside[0]
            row[:] = *inside, share if divisor is None else (divisor if axis == 0 else 1)
        found.append(windows)
    return tuple(found)


def check_output_size(name: str, axes: int, output_size: int | tuple[int | None, ...]) -> None:
    """Raises OptionError, which names the option, for sizes that no adaptive pooling gives."""
    given = output_size if isinstance(output_size, tuple) else (output_size,) * axes
    try:
        sides("", tuple(1 if side is None else side for side in given), axes)
    except OptionError:
        wanted = "an integer of at least 1 or None" + (f", or {axes} of them" if axes > 1 else "")
        raise OptionError(f"{name}: output_size is {output_size!r}; wanted {wanted}") from None


@lru_cache(maxsize=1024)
def _adaptive(name, size, output_size) -> tuple[Windows, ...]:
    """Windows that divide each axis as evenly as can be; they overlap where the sizes do not divide."""
    check_output_size(name, len(size), output_size)
    given = output_size if isinstance(output_size, tuple) else (output_size,) * len(size)
    chosen = tuple(n if o is None else o for n, o in zip(size, given, strict=True))
    found = []
    for n, o in zip(size, chosen, strict=True):
        spans = [(i * n // o, -(-(i + 1) * n // o)) for i in range(o)]
        found.append(np.array([(start, stop, stop - start) for start, stop in spans], np.int64))
    return tuple(found)


_WHOLE = np.array([[0, 1, 1]], np.int64)


def _image(name: str, x: Tensor, ndim: int) -> Tensor:
    x = as_tensor(x)
    if x.ndim != ndim:
        raise ShapeError(f"{name}: x is {x.shape}, wanted {'(n, h, w, c)' if ndim == 4 else '(n, l, c)'}")
    if x.dtype.kind != "f":
        raise DtypeError(f"{name}: x is {x.dtype}, wanted float32 or float64")
    if 0 in x.shape[1:-1]:
        raise ShapeError(f"{name}: x is {x.shape}, wanted images that are not empty")
    return x


def _along(operation, x: Tensor, windows: tuple[Windows, ...]) -> Tensor:
    """A pooling operation on (n, h, w, c), or on (n, l, c) as on images of height 1."""
    if len(windows) == 2:
        return operation(x, *windows)
    n, length, c = x.shape
    out = operation(x.reshape(n, 1, length, c), _WHOLE, *windows)
    return out.reshape(n, out.shape[2], c)


# ------------------------------------------------------------------------------- for users


def max_pool1d(
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: Padding = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The greatest value of each window: x (n, l, c) -> (n, outputs, c). As `max_pool2d`, with one axis."""
    return _max_pool("max_pool1d", x, 3, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    x: Tensor,
    kernel_size: Sides,
    stride: Sides | None = None,
    padding: Padding = 0,
    dilation: Sides = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The greatest value of each window: x (n, h, w, c) -> (n, oh, ow, c).

    stride: kernel_size if None. padding, less than kernel_size, as in `conv2d`; it holds no values. ceil_mode: windows
    that reach over the edge count too. Of equal values the first takes the gradient. dilation is 1.
    """
    return _max_pool("max_pool2d", x, 4, kernel_size, stride, padding, dilation, ceil_mode)


def _max_pool(name, x, ndim, kernel_size, stride, padding, dilation, ceil_mode):
    x = _image(name, x, ndim)
    if set(sides(f"{name}: dilation", dilation, ndim - 2)) != {1}:
        raise OptionError(f"{name}: dilation is {dilation!r}; wanted 1")
    options = hashable(kernel_size), hashable(stride), hashable(padding), bool(ceil_mode)
    return _along(_max_pool2d, x, _regular(name, x.shape[1:-1], *options))


def avg_pool1d(
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window: x (n, l, c) -> (n, outputs, c). As `avg_pool2d`, with one axis."""
    return _avg_pool("avg_pool1d", x, 3, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    x: Tensor,
    kernel_size: Sides,
    stride: Sides | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: x (n, h, w, c) -> (n, oh, ow, c).

    stride, padding and ceil_mode as in `max_pool2d`. Padding counts as zeros, or with count_include_pad=False not at
    all. divisor_override: what to divide the sum by instead.
    """
    return _avg_pool(
        "avg_pool2d", x, 4, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )  # fmt: skip


def _avg_pool(name, x, ndim, kernel_size, stride, padding, ceil_mode, include_pad, divisor):
    x = _image(name, x, ndim)
    if divisor is not None:
        divisor = count(f"{name}: divisor_override", divisor)
    options = hashable(kernel_size), hashable(stride), hashable(padding), bool(ceil_mode), bool(include_pad), divisor
    return _along(_avg_pool2d, x, _regular(name, x.shape[1:-1], *options))


def adaptive_avg_pool1d(x: Tensor, output_size: int) -> Tensor:
    """The means of `output_size` windows that cover x (n, l, c) evenly -> (n, output_size, c)."""
    x = _image("adaptive_avg_pool1d", x, 3)
    return _along(_avg_pool2d, x, _adaptive("adaptive_avg_pool1d", x.shape[1:-1], hashable(output_size)))


def adaptive_avg_pool2d(x: Tensor, output_size: int | tuple[int | None, int | None]) -> Tensor:
    """The means of oh x ow windows that cover x (n, h, w, c) evenly -> (n, oh, ow, c). None keeps a side."""
    x = _image("adaptive_avg_pool2d", x, 4)
    return _along(_avg_pool2d, x, _adaptive("adaptive_avg_pool2d", x.shape[1:-1], hashable(output_size)))


def global_avg_pool1d(x: Tensor, keepdims: bool = False) -> Tensor:
    """The mean of each channel: x (n, l, c) -> (n, c), or (n, 1, c) with keepdims."""
    return mean(_image("global_avg_pool1d", x, 3), 1, keepdims)


def global_avg_pool2d(x: Tensor, keepdims: bool = False) -> Tensor:
    """The mean of each channel: x (n, h, w, c) -> (n, c), or (n, 1, 1, c) with keepdims."""
    return mean(_image("global_avg_pool2d", x, 4), (1, 2), keepdims)
