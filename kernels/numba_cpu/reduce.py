"""The slots `reduce` and `argmax`.

A reduction becomes steps. Each takes one axis away, along contiguous runs or across them, and leaves a contiguous
array. A long axis goes in two steps, by way of the results of its chunks, which fixes the order of summation whatever
the number of threads, and keeps float32 sums as good as pairwise ones.
"""

from functools import cache, lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.layout import contiguous, merged, rows
from kernels.numba_cpu.threads import parts_for
from kernels.plan import empty

#: Elements that are worth a thread of their own.
WORTH = 1 << 16
#: Longest sum in one go: elements of a run, rows of columns.
_RUN, _ROWS = 8192, 128
#: Columns that a part takes at a time.
_WIDTH = 1024


def reduce(name: str, x: np.ndarray, axes: tuple[int, ...], out: np.ndarray) -> None:
    """See `kernels.contract.Backend.reduce`."""
    if not out.size:
        return
    steps = _steps(name, x.dtype, x.shape, x.strides, axes)
    if steps is None:
        x = contiguous(x)
        steps = _steps(name, x.dtype, x.shape, x.strides, axes)
    for kernel, work, size, words in steps:
        result = empty(np, (size,), x.dtype) if size else out
        launch("reduce", kernel, parts_for(work, WORTH), x, result, *words)
        x = result


def argmax(x: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.argmax`."""
    if out.size:
        x, n, c, stride = rows(x)
        launch("argmax", _kernel("argmax", x.dtype), parts_for(x.size, WORTH), x, out, n, c, stride)


class _Step(NamedTuple):
    kernel: int
    work: int
    size: int
    """Elements of the intermediate result; 0: it is the result."""
    words: tuple[int, ...]


class _Axis(NamedTuple):
    size: int
    stride: int
    reduced: bool


@lru_cache(maxsize=4096)
def _steps(
    name: str, dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...], reduced: tuple[int, ...]
) -> list[_Step] | None:
    """None if x has to be made contiguous first."""
    if 0 in shape:
        outer = prod(side for i, side in enumerate(shape) if i not in reduced)
        return [_Step(_kernel("rows", name, dtype), outer, 0, (outer, 0, 0, 1))]
    axes = _joined([_Axis(*axis, i in reduced) for i, axis in enumerate(zip(shape, strides, strict=True))])
    if not any(axis.reduced for axis in axes):
        axes = [_Axis(1, 0, True), *axes]
    steps = []
    while any(axis.reduced for axis in axes):
        found = _step(name, dtype, axes)
        if found is None:
            return None
        step, axes = found
        steps.append(step if any(axis.reduced for axis in axes) else step._replace(size=0))
        name = "sum" if name == "square_sum" else name
    return steps


def _joined(axes: list[_Axis]) -> list[_Axis]:
    """Neighbours of one kind are one axis where memory allows."""
    result: list[_Axis] = []
    for axis in axes:
        pair = merged([result[-1][:2], axis[:2]]) if result and result[-1].reduced == axis.reduced else []
        if len(pair) == 1:
            result[-1] = _Axis(*pair[0], axis.reduced)
        elif axis.size > 1:
            result.append(axis)
    return result


def _step(name: str, dtype: np.dtype, axes: list[_Axis]) -> tuple[_Step, list[_Axis]] | None:
    """The step that takes one reduced axis away, and the axes of its result; None if no kernel fits the layout."""
    last = axes[-1]
    work = prod(axis.size for axis in axes)
    for k in reversed(range(len(axes))):
        n, stride, reduced = axes[k]
        if not reduced:
            continue
        if stride == dtype.itemsize or (len(axes) == 1 and n == 1):
            others, tail = axes[:k] + axes[k + 1 :], []
        elif not last.reduced and last.stride == dtype.itemsize:
            others, tail = axes[:k] + axes[k + 1 : -1], [last]
        else:
            continue
        outer = merged([axis[:2] for axis in others])
        if len(outer) > 1:
            continue
        count, outer_stride = outer[0] if outer else (1, 0)
        if tail:
            m = last.size
            chunk = _ROWS if n > 4 * _ROWS or (n > _ROWS and n * m >= 2 * WORTH) else n
            chunks = -(-n // chunk)
            kernel, words = _kernel("columns", name, dtype), (count, n, m, outer_stride, stride, chunk, _WIDTH)
        else:
            m = 1
            chunk = _RUN if n > 2 * _RUN and count < 16 else n
            chunks = -(-n // chunk)
            kernel, words = _kernel("rows", name, dtype), (count, n, outer_stride, chunk)
        left = [*others, _Axis(chunks, 0, True), *tail]
        return _Step(kernel, work, count * chunks * m, words), _contiguous_axes(left, dtype.itemsize)
    return None


def _contiguous_axes(axes: list[_Axis], itemsize: int) -> list[_Axis]:
    result: list[_Axis] = []
    for axis in reversed(axes):
        result.append(axis._replace(stride=itemsize))
        itemsize *= axis.size
    return _joined(result[::-1])


@cache
def _kernel(kind: str, *options) -> int:
    options = tuple(str(option) for option in options)

    def make():
        from kernels.numba_cpu.jit import reduce

        return getattr(reduce, f"make_{kind}")(*options)

    return compile_kernel("/".join(("reduce", kind, *options)), make)


SLOTS = {"reduce": reduce, "argmax": argmax}
