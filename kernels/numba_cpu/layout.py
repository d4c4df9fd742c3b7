"""How arrays lie in memory, as far as kernels ask: which axes can be walked as one."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np

from kernels.plan import empty


def merged(axes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The same walk over fewer axes.

    An axis is (size, stride, ...), with one stride for each array that is walked. Axes of size 1 go, and two
    neighbours become one where all arrays allow it.
    """
    result: list[tuple[int, ...]] = []
    for axis in axes:
        if axis[0] == 1:
            continue
        size, *strides = axis
        if result and all(outer == size * inner for outer, inner in zip(result[-1][1:], strides, strict=True)):
            result[-1] = (result[-1][0] * size, *strides)
        else:
            result.append(axis)
    return result


@lru_cache(maxsize=4096)
def row_layout(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int, int] | None:
    """(rows, columns, bytes from row to row) where the rows along the last axis are contiguous, else None."""
    columns = shape[-1]
    if columns != 1 and strides[-1] != itemsize:
        return None
    outer = merged(list(zip(shape[:-1], strides[:-1], strict=True)))
    if len(outer) > 1:
        return None
    return prod(shape[:-1]), columns, outer[0][1] if outer else columns * itemsize


def rows(x: np.ndarray) -> tuple[np.ndarray, int, int, int]:
    """x, or a contiguous copy if need be, with its `row_layout`."""
    layout = row_layout(x.shape, x.strides, x.itemsize)
    if layout is None:
        x = contiguous(x)
        layout = row_layout(x.shape, x.strides, x.itemsize)
    return x, *layout


def contiguous(x: np.ndarray) -> np.ndarray:
    """x, or a C-contiguous copy of it, made by a recordable kernel."""
    if x.flags.c_contiguous:
        return x
    from kernels.numba_cpu.copy import copy

    packed = empty(np, x.shape, x.dtype)
    copy(x, packed)
    return packed
