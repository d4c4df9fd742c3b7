"""Views, copies and picking: operations that move values without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels import plan
from kernels.registry import backend_of
from nanonet.autograd import op
from nanonet.device import host, memory, memory_of, moved
from nanonet.errors import DtypeError, OptionError, ShapeError
from nanonet.options import sides
from nanonet.tensor import Tensor, as_tensor, dtype_of, forbid_recording, full, zeros

# ----------------------------------------------------------------------------------- views


@op(needs_out=False)
def _reshape(x, shape):
    return Tensor(contiguous(x).array.reshape(shape))


@_reshape.derivative
def _(g, out, x, shape):
    return lambda: _reshape(g, x.shape), None


def reshape(x: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """The same values in another shape; one side may be -1. A view where the values lie side by side."""
    shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else tuple(shape)
    known = 1
    for side in shape:
        known *= side if side != -1 else 1
    if -1 in shape:
        if shape.count(-1) > 1 or (x.size % known if known else x.size):
            raise ShapeError(f"reshape: {x.shape} does not fit into {shape}")
        rest = x.size // known if known else 0
        shape = tuple(rest if side == -1 else side for side in shape)
    elif known != x.size:
        raise ShapeError(f"reshape: {x.shape} has {x.size} values, {shape} has {known}")
    return _reshape(x, shape)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim..end_dim as one."""
    if not x.ndim:
        return reshape(x, 1)
    start, end = axis_of("flatten", start_dim, x.ndim), axis_of("flatten", end_dim, x.ndim)
    if x.ndim == 2 and start == end:
        return x
    return reshape(x, *x.shape[:start], -1 if x.size else int(np.prod(x.shape[start : end + 1])), *x.shape[end + 1 :])


@op(needs_out=False)
def _permute(x, axes):
    return Tensor(x.array.transpose(axes))


@_permute.derivative
def _(g, out, x, axes):
    return lambda: _permute(g, tuple(int(i) for i in np.argsort(axes))), None


def permute(x: Tensor, *axes: int | Sequence[int]) -> Tensor:
    """The axes in another order; without axes, reversed. A view."""
    axes = tuple(axes[0]) if len(axes) == 1 and not isinstance(axes[0], int) else axes
    axes = tuple(axis_of("permute", a, x.ndim) for a in axes) if axes else tuple(reversed(range(x.ndim)))
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError(f"permute: axes {axes} are not an order of the {x.ndim} axes of {x.shape}")
    return _permute(x, axes)


def transpose(x: Tensor, first: int | None = None, second: int | None = None) -> Tensor:
    """Two axes exchanged; without arguments all axes reversed. A view."""
    if first is None or second is None:
        return permute(x)
    axes = list(range(x.ndim))
    i, j = axis_of("transpose", first, x.ndim), axis_of("transpose", second, x.ndim)
    axes[i], axes[j] = axes[j], axes[i]
    return _permute(x, tuple(axes))


@op(needs_out=False)
def _swap_last(x):
    return Tensor(x.array.swapaxes(-1, -2))


@_swap_last.derivative
def _(g, out, x):
    return (lambda: _swap_last(g),)


@op(needs_out=False)
def _expand(x, shape):
    try:
        return Tensor(memory_of(x.array).broadcast(x.array, shape))
    except ValueError:
        raise ShapeError(f"broadcast_to: {x.shape} does not broadcast to {shape}") from None


@_expand.derivative
def _(g, out, x, shape):
    return lambda: g, None


def broadcast_to(x: Tensor, *shape: int | Sequence[int]) -> Tensor:
    """x repeated along new axes and axes of length one, as a view. -1 keeps a side."""
    shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    extra = len(shape) - x.ndim
    shape = tuple(x.shape[i - extra] if side == -1 and i >= extra else side for i, side in enumerate(shape))
    return _expand(x, shape)


def squeeze(x: Tensor, dim: int | None = None) -> Tensor:
    """Without the axis `dim`, if it has length one; without any such axis if dim is None."""
    if dim is None:
        return reshape(x, [side for side in x.shape if side != 1])
    dim = axis_of("squeeze", dim, x.ndim)
    return reshape(x, [*x.shape[:dim], *x.shape[dim + 1 :]]) if x.shape[dim] == 1 else x


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a new axis of length one at `dim`."""
    dim = axis_of("unsqueeze", dim, x.ndim + 1)
    return reshape(x, [*x.shape[:dim], 1, *x.shape[dim:]])


# ---------------------------------------------------------------------------------- copies


@op(needs_out=False)
def _copy(x, dtype):
    out = plan.empty(x.array, x.array.shape, dtype)
    backend_of(out).copy(x.array, out=out)
    return Tensor(out)


@_copy.derivative
def _(g, out, x, dtype):
    return lambda: g if g.dtype == x.dtype else _copy(g, x.dtype), None


def contiguous(x: Tensor) -> Tensor:
    """x itself if its values lie side by side in order, else a copy in which they do."""
    return x if x.array.flags.c_contiguous else _copy(x, x.dtype)


def clone(x: Tensor) -> Tensor:
    """A copy, through which gradients flow."""
    return _copy(x, x.dtype)


def to(x: Tensor, *targets: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """x with another dtype, on another device ("cpu", "cuda"), or both; itself where nothing changes.

    Gradients flow through it. Raises DtypeError, DeviceError, and BackendUnavailable where there is no GPU.
    """
    for target in targets:
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            device = target
        else:
            dtype = target
    found = x.dtype if dtype is None else dtype_of(dtype)
    if device is not None and memory(device) is not memory_of(x.array):
        x = _move(x, device)
    return x if found == x.dtype else _copy(x, found)


@op(needs_out=False)
def _move(x, device):
    forbid_recording(f"to({device!r})")
    return Tensor(moved(x.array, memory(device)))


@_move.derivative
def _(g, out, x, device):
    return lambda: _move(g, x.device), None


@op(needs_out=False)
def _concatenate(*tensors, axis):
    arrays = [t.array for t in tensors]
    shape = list(arrays[0].shape)
    shape[axis] = sum(a.shape[axis] for a in arrays)
    out = plan.empty(arrays[0], tuple(shape), arrays[0].dtype)
    start, copy = 0, backend_of(out).copy
    for array in arrays:
        stop = start + array.shape[axis]
        copy(array, out=out[(slice(None),) * axis + (slice(start, stop),)])
        start = stop
    return Tensor(out)


@_concatenate.derivative
def _(g, out, *tensors, axis):
    ends = np.cumsum([t.shape[axis] for t in tensors]).tolist()
    parts = [(slice(None),) * axis + (slice(end - t.shape[axis], end),) for t, end in zip(tensors, ends, strict=True)]
    return [lambda part=part: g[part] for part in parts]


def concatenate(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along an axis; the other sides are equal."""
    beside = next((t for t in tensors if isinstance(t, Tensor)), None)
    tensors = [as_tensor(t, beside=beside) for t in tensors]
    if not tensors:
        raise ShapeError("concatenate: no tensors, wanted at least one")
    first = tensors[0]
    axis = axis_of("concatenate", dim, first.ndim)
    for i, t in enumerate(tensors):
        if t.shape[:axis] + t.shape[axis + 1 :] != first.shape[:axis] + first.shape[axis + 1 :] or t.ndim != first.ndim:
            raise ShapeError(
                f"concatenate: tensor {i} is {t.shape}, tensor 0 is {first.shape}; they may differ in axis {axis}"
            )
        if t.dtype != first.dtype:
            raise DtypeError(f"concatenate: tensor {i} is {t.dtype}, tensor 0 is {first.dtype}")
    return _concatenate(*tensors, axis=axis)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, all of one shape, along a new axis."""
    beside = next((t for t in tensors if isinstance(t, Tensor)), None)
    return concatenate([unsqueeze(as_tensor(t, beside=beside), dim) for t in tensors], dim)


@op(needs_out=False)
def _pad(x, widths, value):
    sizes = zip(x.array.shape, widths, strict=True)
    out = full([before + side + after for side, (before, after) in sizes], value, x.dtype, device=x)
    backend_of(out.array).copy(x.array, out=out.array[_within(x.array.shape, widths)])
    return out


@_pad.derivative
def _(g, out, x, widths, value):
    return (lambda: _slice(g, _within(x.shape, widths)),)


def _within(shape, widths):
    """Where the values lie in their padded array."""
    return tuple(slice(before, before + side) for side, (before, _) in zip(shape, widths, strict=True))


def pad(x: Tensor, pad: Sequence, mode: str = "constant", value: float = 0.0) -> Tensor:
    """x with `value` before and after it along its axes.

    pad: a pair (before, after) for each axis, as in NumPy, or PyTorch's flat form, which begins with the last axis:
    (left, right, top, bottom, ...). Raises OptionError for anything else, negative widths and other modes.
    """
    if mode != "constant":
        raise OptionError(f"pad: mode is {mode!r}; wanted 'constant'")
    try:
        given = [sides("", pair, 2, 0) if isinstance(pair, (tuple, list)) else pair for pair in pad]
        if not any(isinstance(pair, tuple) for pair in given):
            flat = sides("", given, len(given), 0)
            given = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
            given = [(0, 0)] * (x.ndim - len(given)) + given
        if len(given) != x.ndim or not all(isinstance(pair, tuple) for pair in given):
            raise ValueError
    except (ValueError, TypeError):
        raise OptionError(
            f"pad: pad is {pad!r}; wanted {x.ndim} pairs (before, after) of integers of at least 0, or such pairs in "
            f"one row, last axis first (x is {x.shape})"
        ) from None
    return _pad(x, tuple(given), float(value))


# --------------------------------------------------------------------------------- picking


@op(needs_out=False)
def _slice(x, key):
    return Tensor(x.array[key])


@_slice.derivative
def _(g, out, x, key):
    return lambda: _unslice(g, key, x.shape), None


@op(needs_out=False)
def _unslice(g, key, shape):
    """Zeros, but for g at `key`: the transpose of `_slice`."""
    out = zeros(*shape, dtype=g.dtype, device=g)
    backend_of(out.array).copy(g.array, out=out.array[key])
    return out


@_unslice.derivative
def _(h, out, g, key, shape):
    return lambda: _slice(h, key), None, None


@op(needs_out=False)
def _take(x, index):
    x = contiguous(x)
    out = plan.empty(x.array, (index.array.shape[0], *x.shape[1:]), x.dtype)
    backend_of(out).take(x.array, index.array, out=out)
    return Tensor(out)


@_take.derivative
def _(g, out, x, index):
    return lambda: _scatter_add(g, index, x.shape), None


@op(needs_out=False)
def _scatter_add(source, index, shape):
    out = zeros(*shape, dtype=source.dtype, device=source)
    backend_of(out.array).scatter_add(index.array, contiguous(source).array, out=out.array)
    return out


@_scatter_add.derivative
def _(h, out, source, index, shape):
    return lambda: _take(h, index), None, None


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x: x (r, ...), index int64 of any shape s -> s + x.shape[1:]. Negative indices count from the end.

    Raises IndexError if one is out of range (not checked within a recorded step), DtypeError unless integers.
    """
    index = as_tensor(index, beside=x)
    if index.dtype.kind != "i":
        raise DtypeError(f"take: index is {index.dtype}, wanted int64")
    rows = x.shape[0]
    if plan.current() is None and index.size:
        values = host(index.array)
        low, high = int(values.min()), int(values.max())
        if low < -rows or high >= rows:
            raise IndexError(f"take: index {low if low < -rows else high} is out of range for {rows} rows")
        if low < 0:
            index = as_tensor(np.where(values < 0, values + rows, values), beside=x)
    index = to(index, x.device)
    flat = contiguous(to(index, np.int64)).array.reshape(-1)
    out = _take(x, Tensor(flat))
    return out if index.ndim == 1 else reshape(out, *index.shape, *x.shape[1:])


def getitem(x: Tensor, key: Any) -> Tensor:
    """x[key]: integers, slices, None and ... give a view; one integer tensor or array picks rows; a bool mask too."""
    if isinstance(key, (Tensor, np.ndarray, list)):
        key = as_tensor(key, beside=x)
        if key.dtype == np.bool_:
            if plan.current() is not None:
                forbid_recording("a boolean mask as index")
            if key.shape != x.shape[: key.ndim]:
                raise ShapeError(f"getitem: mask {key.shape} does not fit {x.shape}")
            picked = np.flatnonzero(host(key.array))
            x = reshape(x, -1, *x.shape[key.ndim :]) if x.size else x
            return take(x, as_tensor(picked, beside=x))
        return take(x, key)
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, (Tensor, np.ndarray, list)) for part in parts):
        return _pick(x, parts)
    if not any(part is ... for part in parts):
        parts = (*parts, ...)  # so that NumPy gives a view even of a single value
    try:
        return _slice(x, parts)
    except IndexError as error:
        raise IndexError(f"getitem: {error} (shape {x.shape})") from None


def _pick(x: Tensor, parts: tuple) -> Tensor:
    """x[i, j, ...] with integer arrays or integers for the leading axes, which broadcast together."""
    arrays = []
    for part in parts:
        if isinstance(part, (slice, type(None), type(...))):
            raise TypeError("getitem: integer arrays cannot be mixed with slices; index in two steps")
        arrays.append(np.asarray(host(part.array) if isinstance(part, Tensor) else part))
    for axis, array in enumerate(arrays):
        if array.dtype.kind not in "iu" or (
            array.size and (array.max() >= x.shape[axis] or array.min() < -x.shape[axis])
        ):
            raise IndexError(f"getitem: index {axis} is out of range or not of integers for {x.shape}")
    wrapped = [np.where(a < 0, a + x.shape[i], a) for i, a in enumerate(arrays)]
    flat = np.ravel_multi_index(np.broadcast_arrays(*wrapped), x.shape[: len(wrapped)])
    return take(reshape(x, -1, *x.shape[len(wrapped) :]), as_tensor(np.asarray(flat, np.int64), beside=x))


def axis_of(name: str, axis: int, ndim: int) -> int:
    """A non-negative axis. Raises ShapeError if there is none such."""
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{name}: axis {axis} is out of range for {ndim} axes")
    return axis % ndim
