"""Reductions of the compiled backend: along runs of memory (`rows`) and across them (`columns`).

Both reduce x, seen as (outer, n) or (outer, n, m), in chunks of at most `chunk` along n, to out (outer, chunks) or
(outer, chunks, m), C-contiguous. Strides are bytes. A lane adds at most 16 terms (rows) or chunk / 8 (columns) one
after another.
"""

import operator
from collections.abc import Callable

from numba import njit, types

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.vector import (
    first,
    iota,
    lanes_max,
    lanes_min,
    lanes_sum,
    load,
    load_masked,
    maximum,
    minimum,
    pointer,
    select,
    splat,
    store,
    store_masked,
)

#: name -> (combines two vectors, folds a vector into one number, value of an empty reduction)
COMBINE = {
    "sum": (operator.add, lanes_sum, 0.0),
    "square_sum": (operator.add, lanes_sum, 0.0),
    "max": (maximum, lanes_max, -float("inf")),
    "min": (minimum, lanes_min, float("inf")),
}


def _loads(name: str, dtype: str) -> tuple[Callable, Callable, Callable]:
    """What a reduction takes from memory: whole vectors, the lanes of a mask, and an empty vector."""
    unit, F, L = COMBINE[name][2], getattr(types, dtype), host().lanes(dtype)
    square = name == "square_sum"

    @njit(error_model="numpy")
    def whole(x, i):
        v = load(x, i, L)
        return v * v if square else v

    @njit(error_model="numpy")
    def masked(x, i, mask):
        v = load_masked(x, i, mask)
        return select(mask, v * v if square else v, F(unit))

    @njit(error_model="numpy")
    def empty():
        return splat(F(unit), L)

    return whole, masked, empty


def make_rows(name: str, dtype: str) -> Callable:
    """args: x, out, outer, n, stride of outer, chunk. Runs of x are contiguous."""
    combine, fold, unit = COMBINE[name]
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    whole, masked, empty = _loads(name, dtype)
    additive = unit == 0
    block = 64 * L

    @njit(error_model="numpy")
    def straight(x, n):
        a = b = c = d = empty()
        i = 0
        while i + 4 * L <= n:
            a = combine(a, whole(x, i))
            b = combine(b, whole(x, i + L))
            c = combine(c, whole(x, i + 2 * L))
            d = combine(d, whole(x, i + 3 * L))
            i += 4 * L
        while i + L <= n:
            a = combine(a, whole(x, i))
            i += L
        if i < n:
            b = combine(b, masked(x, i, first(n - i, L)))
        return fold(combine(combine(a, b), combine(c, d)))

    @njit(error_model="numpy")
    def run(at, n):
        if not additive or n <= block:
            return straight(pointer(at, F), n)
        result = 0.0
        for i in range(0, n, block):
            result += straight(pointer(at + i * size, F), min(block, n - i))
        return F(result)

    def kernel(args, part, parts):
        x, out, outer, n, stride, chunk = args[0], pointer(args[1], F), args[2], args[3], args[4], args[5]
        chunks = max(1, (n + chunk - 1) // chunk)
        items = outer * chunks
        for item in range(part * items // parts, (part + 1) * items // parts):
            start = item % chunks * chunk
            out[item] = run(x + item // chunks * stride + start * size, min(chunk, n - start))

    return kernel


def make_columns(name: str, dtype: str) -> Callable:
    """args: x, out, outer, n, m, stride of outer, stride of n, chunk, width. m is contiguous in x.

    A part takes `width` columns of a chunk at a time; eight rows are combined as a tree before they join the result.
    """
    combine = COMBINE[name][0]
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    whole, masked, empty = _loads(name, dtype)

    @njit(error_model="numpy")
    def row(at, stride, i, j):
        return whole(pointer(at + i * stride, F), j)

    @njit(error_model="numpy")
    def eight(at, s, j):
        a = combine(row(at, s, 0, j), row(at, s, 1, j))
        b = combine(row(at, s, 2, j), row(at, s, 3, j))
        c = combine(row(at, s, 4, j), row(at, s, 5, j))
        d = combine(row(at, s, 6, j), row(at, s, 7, j))
        return combine(combine(a, b), combine(c, d))

    @njit(error_model="numpy")
    def panel(at, out, n, m, s):
        head = n % 8
        full = m - m % L
        for j in range(0, full, L):
            v = empty()
            for i in range(head):
                v = combine(v, row(at, s, i, j))
            store(out, j, v)
        for i in range(head, n, 8):
            for j in range(0, full, L):
                store(out, j, combine(load(out, j, L), eight(at + i * s, s, j)))
        if full < m:
            mask = first(m - full, L)
            v = empty()
            for i in range(n):
                v = combine(v, masked(pointer(at + i * s, F), full, mask))
            store_masked(out, full, v, mask)

    def kernel(args, part, parts):
        x, out, outer, n, m = args[0], args[1], args[2], args[3], args[4]
        outer_stride, stride, chunk, width = args[5], args[6], args[7], args[8]
        chunks = max(1, (n + chunk - 1) // chunk)
        panels = (m + width - 1) // width
        items = outer * chunks * panels
        for item in range(part * items // parts, (part + 1) * items // parts):
            column = item % panels * width
            piece = item // panels
            start = piece % chunks * chunk
            panel(
                x + piece // chunks * outer_stride + start * stride + column * size,
                pointer(out + (piece * m + column) * size, F),
                min(chunk, n - start),
                min(width, m - column),
                stride,
            )

    return kernel


def make_argmax(dtype: str) -> Callable:
    """args: x, out, n, c, stride. The rows of x are contiguous."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    unit = -float("inf")

    @njit(error_model="numpy")
    def better(v, best):
        """NaN beats every number, and the earlier of equals stays."""
        return (v > best) | ((v != v) & (best == best))

    def kernel(args, part, parts):
        x, out, n, c, stride = args[0], pointer(args[1], types.int64), args[2], args[3], args[4]
        full = c - c % L
        mask = first(c - full, L)
        for i in range(part * n // parts, (part + 1) * n // parts):
            row = pointer(x + i * stride, F)
            best = splat(F(unit), L)
            index = iota(types.int32, L)
            for j in range(0, full, L):
                v = load(row, j, L)
                wins = better(v, best)
                best = select(wins, v, best)
                index = select(wins, iota(types.int32, L) + j, index)
            if full < c:
                v = load_masked(row, full, mask)
                wins = better(v, best) & mask
                best = select(wins, v, best)
                index = select(wins, iota(types.int32, L) + full, index)
            top = lanes_max(best)
            hits = best != best if top != top else best == top
            out[i] = lanes_min(select(hits, index, 0x7FFFFFFF))

    return kernel
