"""The slots take, take_batch and scatter_add."""

from functools import cache, lru_cache

import numpy as np

from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.layout import contiguous, merged
from kernels.numba_cpu.threads import parts_for

#: Bytes of `out`, and elements of `source`, that are worth a thread of their own.
WORTH, WORTH_ADDING = 1 << 19, 1 << 16


def take(x: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.take`."""
    if out.size:
        n = len(index)
        parts = parts_for(out.nbytes, WORTH)
        launch("take", _kernel("take"), parts, x, index, out, n, out.nbytes // n, *index.strides)


def take_batch(x: np.ndarray, order: np.ndarray, cursor: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.take_batch`."""
    if out.size:
        n = len(out)
        parts = parts_for(out.nbytes, WORTH)
        words = (n, out.nbytes // n, *order.strides, len(order))
        launch("take_batch", _kernel("take_batch"), parts, x, order, cursor, out, *words)


def scatter_add(index: np.ndarray, source: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.scatter_add`."""
    if not source.size:
        return
    n = len(index)
    columns = source.size // n
    if not _rows_are_runs(source.shape, source.strides, source.itemsize):
        source = contiguous(source)
    parts = parts_for(source.size, WORTH_ADDING) if columns >= 64 else 1
    words = (n, columns, *index.strides, source.strides[0])
    launch("scatter_add", _kernel("scatter_add", source.dtype), parts, index, source, out, *words)


@lru_cache(maxsize=4096)
def _rows_are_runs(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether each x[i] is contiguous."""
    inner = merged(list(zip(shape[1:], strides[1:], strict=True)))
    return not inner or (len(inner) == 1 and inner[0][1] == itemsize)


@cache
def _kernel(name: str, *dtypes: np.dtype) -> int:
    names = tuple(dtype.name for dtype in dtypes)

    def make():
        from kernels.numba_cpu.jit import rows

        return getattr(rows, f"make_{name}")(*names)

    return compile_kernel("/".join((name, *names)), make)


SLOTS = {"take": take, "take_batch": take_batch, "scatter_add": scatter_add}
