"""Batch normalization of the compiled backend: x (n, c) in chunks of rows and panels of columns, fixed by its shape.

A chunk's sums go to `partial`, and one part adds them up, in float64. Strides are bytes; weight and bias may be 0.
"""

from collections.abc import Callable

from numba import types

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import columns
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.vector import cast, first, float_bits, offset, pointer, splat


def _tiles() -> Callable:
    """tile(item, n, c, chunk, width): (first row, rows, first column, columns, number of its chunk)."""

    @helper
    def tile(item, n, c, chunk, width):
        panels = (c + width - 1) // width
        number, j = item // panels, item % panels * width
        return number * chunk, min(chunk, n - number * chunk), j, min(width, c - j), number

    return tile


@helper
def _items(n, c, chunk, width):
    return ((n + chunk - 1) // chunk) * ((c + width - 1) // width)


def make_statistics(dtype: str) -> Callable:
    """args: x, partial (chunks, 3, c), n, c, stride, chunk, width."""
    F = getattr(types, dtype)
    size = F.bitwidth // 8
    tile, statistics = _tiles(), columns.statistics(dtype)

    def kernel(args, part, parts):
        x, partial, n, c, stride, chunk, width = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
        items = _items(n, c, chunk, width)
        for item in range(part * items // parts, (part + 1) * items // parts):
            i, rows, j, cols, number = tile(item, n, c, chunk, width)
            state = pointer(partial + (3 * number * c + j) * size, F)
            statistics(x + i * stride + j * size, stride, rows, cols, state, c)

    return kernel


def make_moments(dtype: str) -> Callable:
    """args: partial (chunks, 3, c), weight, bias, mean, variance, coefficients (2, c), n, c, chunk, eps.

    coefficients: weight / sqrt(variance + eps), and bias.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    get, put = columns.access(dtype)
    scaling, filled = columns.scaling(dtype), columns.filled(dtype)

    @helper
    def near(partial, c, k, j, mask):
        return cast(get(partial, 3 * k * c + j, mask), types.float64) + cast(
            get(partial, 3 * k * c + c + j, mask), types.float64
        )

    @helper
    def column(partial, weight, mean, variance, scale, n, c, chunk, eps, j, mask):
        chunks = (n + chunk - 1) // chunk
        total = splat(0.0, L)
        for k in range(chunks):
            total = total + near(partial, c, k, j, mask) * float(min(chunk, n - k * chunk))
        m = total / float(n)
        spread = splat(0.0, L)
        for k in range(chunks):
            d = near(partial, c, k, j, mask) - m
            squares = cast(get(partial, 3 * k * c + 2 * c + j, mask), types.float64)
            spread = spread + (d * d * float(min(chunk, n - k * chunk)) + squares)
        put(mean, j, cast(m, F), mask)
        put(variance, j, cast(spread / float(n), F), mask)
        put(scale, j, scaling(weight, variance, eps, j, mask), mask)

    def kernel(args, part, parts):
        partial, weight, bias = pointer(args[0], F), args[1], args[2]
        mean, variance, scale = pointer(args[3], F), pointer(args[4], F), pointer(args[5], F)
        n, c, chunk, eps = args[6], args[7], args[8], F(float_bits(args[9]))
        full = c - c % L
        for j in range(0, full, L):
            column(partial, weight, mean, variance, scale, n, c, chunk, eps, j, None)
        if full < c:
            column(partial, weight, mean, variance, scale, n, c, chunk, eps, full, first(c - full, L))
        filled(bias, offset(scale, c), c)

    return kernel


def make_normalize(dtype: str) -> Callable:
    """args: x, mean, coefficients (2, c), out, n, c, stride, chunk, width, low."""
    F = getattr(types, dtype)
    size = F.bitwidth // 8
    tile, normalize = _tiles(), columns.normalize(dtype)

    def kernel(args, part, parts):
        x, mean, scale, out = args[0], pointer(args[1], F), pointer(args[2], F), args[3]
        n, c, stride, chunk, width, low = args[4], args[5], args[6], args[7], args[8], F(float_bits(args[9]))
        items = _items(n, c, chunk, width)
        for item in range(part * items // parts, (part + 1) * items // parts):
            i, rows, j, cols, _ = tile(item, n, c, chunk, width)
            at, to = x + i * stride + j * size, out + (i * c + j) * size
            bias = offset(scale, c + j)
            normalize(at, stride, rows, cols, offset(mean, j), offset(scale, j), bias, low, to, c * size)

    return kernel


def make_sums(dtype: str, relu: bool) -> Callable:
    """args: g, x, weight, bias, mean, variance, partial (chunks, 4, c), n, c, stride of g, of x, chunk, width, eps.

    A chunk of partial: the sums of g' and g' (x - mean), and two rows that the chunk needs for itself.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    tile, gradient_sums = _tiles(), columns.gradient_sums(dtype, relu)
    _, put = columns.access(dtype)
    scaling, filled = columns.scaling(dtype), columns.filled(dtype)

    def kernel(args, part, parts):
        g, x, weight, bias = args[0], args[1], args[2], args[3]
        mean, variance, partial = pointer(args[4], F), pointer(args[5], F), args[6]
        n, c, g_stride, stride, chunk, width = args[7], args[8], args[9], args[10], args[11], args[12]
        eps = F(float_bits(args[13]))
        items = _items(n, c, chunk, width)
        for item in range(part * items // parts, (part + 1) * items // parts):
            i, rows, j, cols, number = tile(item, n, c, chunk, width)
            sums = pointer(partial + (4 * number * c + j) * size, F)
            scale, shift = offset(sums, 2 * c), offset(sums, 3 * c)
            if relu:
                w, v = (weight + j * size if weight else 0), offset(variance, j)
                full = cols - cols % L
                for k in range(0, full, L):
                    put(scale, k, scaling(w, v, eps, k, None), None)
                if full < cols:
                    rest = first(cols - full, L)
                    put(scale, full, scaling(w, v, eps, full, rest), rest)
                filled(bias + j * size if bias else 0, shift, cols)
            at, by = x + i * stride + j * size, g + i * g_stride + j * size
            gradient_sums(by, g_stride, at, stride, rows, cols, offset(mean, j), scale, shift, sums, c)

    return kernel


def make_totals(dtype: str) -> Callable:
    """args: partial (chunks, 4, c), weight, bias, variance, weight_gradient, bias_gradient, coefficients (4, c), n, c,
    chunk, eps.

    coefficients: scale, bias, slope, level, as columns.gradient takes them.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    get, put = columns.access(dtype)
    scaling, filled = columns.scaling(dtype), columns.filled(dtype)

    @helper
    def column(partial, weight, variance, dw, db, out, n, c, chunk, eps, j, mask):
        total, product = splat(0.0, L), splat(0.0, L)
        for k in range((n + chunk - 1) // chunk):
            total = total + cast(get(partial, 4 * k * c + j, mask), types.float64)
            product = product + cast(get(partial, 4 * k * c + c + j, mask), types.float64)
        scale = scaling(weight, variance, eps, j, mask)
        inverse = scaling(0, variance, eps, j, mask)
        slope = cast(product, F) * inverse
        put(db, j, cast(total, F), mask)
        put(dw, j, slope if n > 0 else splat(F(0), L), mask)
        put(out, j, scale, mask)
        put(out, 2 * c + j, scale * inverse * slope / F(n), mask)
        put(out, 3 * c + j, scale * cast(total / float(n), F), mask)

    def kernel(args, part, parts):
        partial, weight, bias, variance = pointer(args[0], F), args[1], args[2], pointer(args[3], F)
        dw, db, out = pointer(args[4], F), pointer(args[5], F), pointer(args[6], F)
        n, c, chunk, eps = args[7], args[8], args[9], F(float_bits(args[10]))
        full = c - c % L
        for j in range(0, full, L):
            column(partial, weight, variance, dw, db, out, n, c, chunk, eps, j, None)
        if full < c:
            column(partial, weight, variance, dw, db, out, n, c, chunk, eps, full, first(c - full, L))
        filled(bias, offset(out, c), c)

    return kernel


def make_gradient(dtype: str, relu: bool) -> Callable:
    """args: g, x, mean, coefficients (4, c), out, n, c, stride of g, of x, chunk, width."""
    F = getattr(types, dtype)
    size = F.bitwidth // 8
    tile, gradient = _tiles(), columns.gradient(dtype, relu)

    def kernel(args, part, parts):
        g, x, mean, scale, out = args[0], args[1], pointer(args[2], F), pointer(args[3], F), args[4]
        n, c, g_stride, stride, chunk, width = args[5], args[6], args[7], args[8], args[9], args[10]
        items = _items(n, c, chunk, width)
        for item in range(part * items // parts, (part + 1) * items // parts):
            i, rows, j, cols, _ = tile(item, n, c, chunk, width)
            at, by, to = x + i * stride + j * size, g + i * g_stride + j * size, out + (i * c + j) * size
            a, b, q, r = offset(scale, j), offset(scale, c + j), offset(scale, 2 * c + j), offset(scale, 3 * c + j)
            gradient(by, g_stride, at, stride, rows, cols, offset(mean, j), a, b, q, r, to, c * size)

    return kernel
