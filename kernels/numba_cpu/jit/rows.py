"""Rows by index in the compiled backend: gathering them, and adding into them."""

from collections.abc import Callable

from numba import types

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.copy import move_run
from kernels.numba_cpu.jit.vector import load, pointer, store


def make_take() -> Callable:
    """args: x, index, out, n, bytes of a row, stride of index in bytes."""

    def kernel(args, part, parts):
        x, out, n, size, stride = args[0], args[2], args[3], args[4], args[5]
        for i in range(part * n // parts, (part + 1) * n // parts):
            row = pointer(args[1] + i * stride, types.int64)[0]
            move_run(out + i * size, x + row * size, size)

    return kernel


def make_take_batch() -> Callable:
    """args: x, order, cursor, out, n, bytes of a row, stride of order in bytes, length of order."""

    def kernel(args, part, parts):
        x, out, n, size, stride, length = args[0], args[3], args[4], args[5], args[6], args[7]
        start = pointer(args[2], types.int64)[0]
        for i in range(part * n // parts, (part + 1) * n // parts):
            row = pointer(args[1] + min(start + i, length - 1) * stride, types.int64)[0]
            move_run(out + i * size, x + row * size, size)

    return kernel


def make_scatter_add(dtype: str) -> Callable:
    """args: index, source, out, n, columns, strides of index and source in bytes. Parts share the columns."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8

    def kernel(args, part, parts):
        n, columns, index_stride, stride = args[3], args[4], args[5], args[6]
        low, high = part * columns // parts, (part + 1) * columns // parts
        for i in range(n):
            row = pointer(args[0] + i * index_stride, types.int64)[0]
            source, out = pointer(args[1] + i * stride, F), pointer(args[2] + row * columns * size, F)
            j = low
            while j + L <= high:
                store(out, j, load(out, j, L) + load(source, j, L))
                j += L
            while j < high:
                out[j] = out[j] + source[j]
                j += 1

    return kernel
