"""The slot `copy`: one plan of axes for each pair of layouts, then one compiled walk."""

from functools import cache, lru_cache

import numpy as np

from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.layout import merged
from kernels.numba_cpu.threads import parts_for

#: Bytes of `out` that are worth a thread of their own.
WORTH = 1 << 19
#: Bytes that a part takes at a time, roughly.
_GROUP = 1 << 15
#: Rows of x's contiguous axis that a transposing part takes at a time.
_TILE = 64


def copy(x: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.copy`."""
    if out.size:
        kernel, words = _route(x.dtype, x.shape, x.strides, out.dtype, out.shape, out.strides)
        launch("copy", kernel, parts_for(out.nbytes, WORTH), x, out, *words)


@lru_cache(maxsize=4096)
def _route(
    source: np.dtype,
    x_shape: tuple[int, ...],
    x_strides: tuple[int, ...],
    target: np.dtype,
    shape: tuple[int, ...],
    out_strides: tuple[int, ...],
) -> tuple[int, tuple[int, ...]]:
    """The kernel's address, and its arguments after x and out (see jit/copy.py)."""
    size = target.itemsize
    if x_shape != shape:
        steps = [0 if side == 1 else stride for side, stride in zip(x_shape, x_strides, strict=True)]
        x_strides = (*[0] * (len(shape) - len(steps)), *steps)
    axes = sorted(zip(shape, x_strides, out_strides, strict=True), key=lambda axis: (-abs(axis[2]), -abs(axis[1])))
    axes = merged(axes) or [(1, size, size)]
    n, along_x, along_out = axes.pop()
    turned = next((i for i, axis in enumerate(axes) if axis[1] == size), None)

    if source == target and along_x == along_out == size:
        kernel = _kernel("runs", size)
    elif source == target and along_out == size and size in (4, 8) and turned is not None:
        kernel = _kernel("transposed", size)
        m, across_x, across_out = axes.pop(turned)
        return kernel, _words(n, along_x, along_out, m, across_x, across_out, _TILE, n, axes)
    else:
        kernel = _kernel("strided", source.name, target.name)

    if not axes:  # one long run: 16 pieces, the last of them shorter
        piece = max(_GROUP // size, -(-n // 16))
        pieces = -(-n // piece)
        last = n - (pieces - 1) * piece
        return kernel, _words(piece, along_x, along_out, pieces, piece * along_x, piece * along_out, 1, last, [])
    m, across_x, across_out = axes.pop()
    group = max(1, _GROUP // (n * size))
    return kernel, _words(n, along_x, along_out, m, across_x, across_out, group, n, axes)


def _words(*head_and_axes) -> tuple[int, ...]:
    *head, axes = head_and_axes
    return (*head, len(axes), *(number for axis in reversed(axes) for number in axis))


@cache
def _kernel(kind: str, *options) -> int:
    def make():
        from kernels.numba_cpu.jit import copy

        return getattr(copy, f"make_{kind}")(*options)

    return compile_kernel("/".join(("copy", kind, *map(str, options))), make)


SLOTS = {"copy": copy}
