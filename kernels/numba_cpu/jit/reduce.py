"""Reductions of the compiled backend: along runs of memory (`rows`) and across them (`columns`).

Both reduce x, seen as (outer, n) or (outer, n, m), in chunks of at most `chunk` along n, to out (outer, chunks) or
(outer, chunks, m), C-contiguous. A lane adds at most 16 terms (rows) or chunk / 8 (columns) one after another.
"""

import operator
from collections.abc import Callable

from numba import njit
from numba.core import types

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.lanes import (
    Vector,
    first,
    highest,
    load,
    load_head,
    lowest,
    maximum,
    minimum,
    peek,
    poke,
    splat,
    store,
    store_head,
    total,
)

#: name -> (combines two vectors, folds a vector into one number, value of an empty reduction)
COMBINE = {
    "sum": (operator.add, total, 0.0),
    "square_sum": (operator.add, total, 0.0),
    "max": (maximum, highest, -float("inf")),
    "min": (minimum, lowest, float("inf")),
}


def make_rows(name: str, dtype: str) -> Callable:
    """args: x, out, outer, n, stride of outer, chunk. Runs of x are contiguous."""
    combine, fold, unit = COMBINE[name]
    scalar = getattr(types, dtype)
    lanes = host().lanes(dtype)
    F, size = Vector(scalar, lanes), scalar.bitwidth // 8
    square = name == "square_sum"
    step = 4 * lanes
    additive = unit == 0

    @njit(error_model="numpy")
    def value(x):
        v = load(F, x)
        return v * v if square else v

    @njit(error_model="numpy")
    def block(x, n):
        """n <= 16 step."""
        a = b = c = d = splat(F, unit)
        i = 0
        while i + step <= n:
            at = x + i * size
            a = combine(a, value(at))
            b = combine(b, value(at + lanes * size))
            c = combine(c, value(at + 2 * lanes * size))
            d = combine(d, value(at + 3 * lanes * size))
            i += step
        while i + lanes <= n:
            a = combine(a, value(x + i * size))
            i += lanes
        if i < n:
            tail = load_head(F, x + i * size, n - i, unit)
            b = combine(b, tail * tail if square else tail)
        return fold(combine(combine(a, b), combine(c, d)))

    @njit(error_model="numpy")
    def run(x, n):
        if n <= 16 * step:
            return block(x, n)
        if additive:
            result = 0.0
            for i in range(0, n, 16 * step):
                result += block(x + i * size, min(16 * step, n - i))
            return scalar(result)
        return block(x, n)

    def kernel(args, part, parts):
        x, out, outer, n, stride, chunk = args[0], args[1], args[2], args[3], args[4], args[5]
        chunks = max(1, (n + chunk - 1) // chunk)
        items = outer * chunks
        for item in range(part * items // parts, (part + 1) * items // parts):
            start = item % chunks * chunk
            poke(out + item * size, run(x + item // chunks * stride + start * size, min(chunk, n - start)))

    return kernel


def make_columns(name: str, dtype: str) -> Callable:
    """args: x, out, outer, n, m, stride of outer, stride of n, chunk, width. m is contiguous in x.

    A part takes `width` columns of a chunk at a time; eight rows are combined as a tree before they join the result.
    """
    combine, _, unit = COMBINE[name]
    scalar = getattr(types, dtype)
    lanes = host().lanes(dtype)
    F, size = Vector(scalar, lanes), scalar.bitwidth // 8
    square = name == "square_sum"

    @njit(error_model="numpy")
    def value(x, count):
        v = load(F, x) if count == lanes else load_head(F, x, count, unit)
        return v * v if square else v

    @njit(error_model="numpy")
    def eight(x, s, count):
        a = combine(value(x, count), value(x + s, count))
        b = combine(value(x + 2 * s, count), value(x + 3 * s, count))
        c = combine(value(x + 4 * s, count), value(x + 5 * s, count))
        d = combine(value(x + 6 * s, count), value(x + 7 * s, count))
        return combine(combine(a, b), combine(c, d))

    @njit(error_model="numpy")
    def write(out, v, count):
        if count == lanes:
            store(out, v)
        else:
            store_head(out, v, count)

    @njit(error_model="numpy")
    def panel(x, out, n, m, s):
        head = n % 8
        for j in range(0, m, lanes):
            count = min(lanes, m - j)
            v = splat(F, unit)
            for i in range(head):
                v = combine(v, value(x + j * size + i * s, count))
            write(out + j * size, v, count)
        full = m - m % lanes
        tail = m - full
        for i in range(head, n, 8):
            row = x + i * s
            for j in range(0, full, lanes):
                at = out + j * size
                store(at, combine(load(F, at), eight(row + j * size, s, lanes)))
        if tail:
            at = out + full * size
            v = load_head(F, at, tail, unit)
            for i in range(head, n, 8):
                v = combine(v, eight(x + i * s + full * size, s, tail))
            store_head(at, v, tail)

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
                out + (piece * m + column) * size,
                min(chunk, n - start),
                min(width, m - column),
                stride,
            )

    return kernel


def make_argmax(dtype: str) -> Callable:
    """args: x, out, n, c, stride. The rows of x are contiguous."""
    scalar = getattr(types, dtype)
    lanes = host().lanes(dtype)
    F, size = Vector(scalar, lanes), scalar.bitwidth // 8
    lowest_value = -float("inf")

    @njit(error_model="numpy")
    def hit(v, best, nan):
        return first(v != v) if nan else first(v == best)

    def kernel(args, part, parts):
        x, out, n, c, stride = args[0], args[1], args[2], args[3], args[4]
        full = c - c % lanes
        for i in range(part * n // parts, (part + 1) * n // parts):
            row = x + i * stride
            v = splat(F, lowest_value)
            for j in range(0, full, lanes):
                v = maximum(v, load(F, row + j * size))
            if full < c:
                v = maximum(v, load_head(F, row + full * size, c - full, lowest_value))
            top = highest(v)
            nan = top != top
            best = splat(F, top)
            index = c
            for j in range(0, full, lanes):
                lane = hit(load(F, row + j * size), best, nan)
                if lane < lanes:
                    index = j + lane
                    break
            if index == c:
                index = full + hit(load_head(F, row + full * size, c - full, lowest_value), best, nan)
            poke(out + i * 8, index)

    return kernel
