"""Passes over the columns of a matrix, as normalization needs them: inputs by address and stride in bytes.

Rows go by in blocks, and within a block the columns, a vector at a time, so that memory is read as it lies. What a pass
gathers for each column stands in arrays of c elements meanwhile. A column's bits depend on its own elements alone.
"""

from collections.abc import Callable

from numba import types

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.vector import (
    first,
    fma,
    load,
    load_masked,
    pointer,
    prefetch,
    prefetch_write,
    select,
    splat,
    sqrt,
    store,
    store_masked,
)


def access(dtype: str) -> tuple[Callable, Callable]:
    """get(x, j, mask), put(x, j, v, mask): the vector at element j, or where mask is not None its lanes in the mask."""
    L = host().lanes(dtype)

    @helper
    def get(x, j, mask):
        if mask is None:
            return load(x, j, L)
        return load_masked(x, j, mask)

    @helper
    def put(x, j, v, mask):
        if mask is None:
            store(x, j, v)
        else:
            store_masked(x, j, v, mask)

    return get, put


def scaling(dtype: str) -> Callable:
    """scaling(weight, variance, eps, j, mask): weight / sqrt(variance + eps); weight is an address, 0 stands for 1."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    get, _ = access(dtype)

    @helper
    def scaling(weight, variance, eps, j, mask):
        w = splat(F(1), L) if weight == 0 else get(pointer(weight, F), j, mask)
        return w / sqrt(get(variance, j, mask) + eps)

    return scaling


def lookahead(dtype: str) -> Callable:
    """ahead(c): how many rows ahead of c columns of a matrix to ask for memory, as processors foresee no walk over
    several rows at once."""
    size = getattr(types, dtype).bitwidth // 8

    @helper
    def ahead(c):
        return max(8, 4096 // (c * size))

    return ahead


@helper
def ask(at, stride, rows):
    """Ask for the cache lines at these addresses."""
    for i in range(rows):
        prefetch(at + i * stride)


@helper
def ask_to_write(at, stride, rows):
    """As `ask`, for lines that will be written."""
    for i in range(rows):
        prefetch_write(at + i * stride)


def statistics(dtype: str) -> Callable:
    """statistics(x, stride, n, c, state, apart): mean and spread of each of c columns over n > 0 rows.

    state points to three rows, `apart` elements from each other: a number near the mean, the mean less that number,
    and the sum of squared differences from the mean. Each block of eight rows has its own mean and squares taken, and
    joins the rest by the formula of Chan, Golub & LeVeque (1979).
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = access(dtype)
    distance = lookahead(dtype)

    @helper
    def begin(x, stride, n, j, state, apart, mask):
        total = get(pointer(x, F), j, mask)
        for i in range(1, n):
            total = total + get(pointer(x + i * stride, F), j, mask)
        shift = total * (F(1) / F(n))
        total = splat(F(0), L)
        for i in range(n):
            total = total + (get(pointer(x + i * stride, F), j, mask) - shift)
        mean = total * (F(1) / F(n))
        squares = splat(F(0), L)
        for i in range(n):
            d = get(pointer(x + i * stride, F), j, mask) - shift - mean
            squares = fma(d, d, squares)
        put(state, j, shift, mask)
        put(state, j + apart, mean, mask)
        put(state, j + 2 * apart, squares, mask)

    @helper
    def join(x, s, ahead, j, state, apart, share, weight, mask):
        ask(x + ahead * s + j * size, s, 8)
        shift = get(state, j, mask)
        a = get(pointer(x, F), j, mask) - shift
        b = get(pointer(x + s, F), j, mask) - shift
        c = get(pointer(x + 2 * s, F), j, mask) - shift
        d = get(pointer(x + 3 * s, F), j, mask) - shift
        e = get(pointer(x + 4 * s, F), j, mask) - shift
        f = get(pointer(x + 5 * s, F), j, mask) - shift
        g = get(pointer(x + 6 * s, F), j, mask) - shift
        h = get(pointer(x + 7 * s, F), j, mask) - shift
        m = (((a + b) + (c + d)) + ((e + f) + (g + h))) * F(0.125)
        a, b, c, d, e, f, g, h = a - m, b - m, c - m, d - m, e - m, f - m, g - m, h - m
        squares = fma(a, a, b * b) + fma(c, c, d * d) + (fma(e, e, f * f) + fma(g, g, h * h))
        mean = get(state, j + apart, mask)
        apartness = m - mean
        put(state, j + apart, fma(apartness, share, mean), mask)
        before = get(state, j + 2 * apart, mask)
        put(state, j + 2 * apart, fma(apartness * apartness, weight, before + squares), mask)

    @helper
    def statistics(x, stride, n, c, state, apart):
        full = c - c % L
        rest = first(c - full, L)
        head = n % 8 if n % 8 else 8
        ahead = distance(c)
        for j in range(0, full, L):
            begin(x, stride, head, j, state, apart, None)
        if full < c:
            begin(x, stride, head, full, state, apart, rest)
        for i in range(head, n, 8):
            share = F(8.0 / (i + 8))
            weight = F(8.0 * i / (i + 8))
            at = x + i * stride
            for j in range(0, full, L):
                join(at, stride, ahead, j, state, apart, share, weight, None)
            if full < c:
                join(at, stride, ahead, full, state, apart, share, weight, rest)

    return statistics


def normalize(dtype: str) -> Callable:
    """normalize(x, stride, n, c, mean, scale, bias, low, out, out_stride): max(scale * (x - mean) + bias, low)."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = access(dtype)
    distance = lookahead(dtype)

    @helper
    def one(x, out, j, mean, scale, bias, low, mask):
        y = fma(get(pointer(x, F), j, mask) - mean, scale, bias)
        put(pointer(out, F), j, select(y < low, low, y), mask)

    @helper
    def four(x, s, ahead, out, t, j, mean, scale, bias, low, mask):
        ask(x + ahead * s + j * size, s, 4)
        ask_to_write(out + ahead * t + j * size, t, 4)
        m, a, b = get(mean, j, mask), get(scale, j, mask), get(bias, j, mask)
        one(x, out, j, m, a, b, low, mask)
        one(x + s, out + t, j, m, a, b, low, mask)
        one(x + 2 * s, out + 2 * t, j, m, a, b, low, mask)
        one(x + 3 * s, out + 3 * t, j, m, a, b, low, mask)

    @helper
    def normalize(x, stride, n, c, mean, scale, bias, low, out, out_stride):
        full = c - c % L
        rest = first(c - full, L)
        low = splat(low, L)
        ahead = distance(c)
        for i in range(0, n - 3, 4):
            at, to = x + i * stride, out + i * out_stride
            for j in range(0, full, L):
                four(at, stride, ahead, to, out_stride, j, mean, scale, bias, low, None)
            if full < c:
                four(at, stride, ahead, to, out_stride, full, mean, scale, bias, low, rest)
        for i in range(n - n % 4, n):
            at, to = x + i * stride, out + i * out_stride
            for j in range(0, full, L):
                one(at, to, j, load(mean, j, L), load(scale, j, L), load(bias, j, L), low, None)
            if full < c:
                m, a, b = get(mean, full, rest), get(scale, full, rest), get(bias, full, rest)
                one(at, to, full, m, a, b, low, rest)

    return normalize


def _passed(dtype: str, relu: bool) -> Callable:
    """passed(g, d, scale, bias): the gradient g that has come through the activation of scale * d + bias."""
    F = getattr(types, dtype)

    @helper
    def passed(g, d, scale, bias):
        if relu:
            return select(fma(d, scale, bias) > F(0), g, F(0))
        return g

    return passed


def gradient_sums(dtype: str, relu: bool) -> Callable:
    """gradient_sums(g, g_stride, x, stride, n, c, mean, scale, bias, sums, apart): the sums over rows of g' and
    of g' (x - mean).

    sums points to two rows, `apart` elements from each other. scale and bias are read with `relu` alone.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = access(dtype)
    distance = lookahead(dtype)
    passed = _passed(dtype, relu)

    @helper
    def some(g, t, x, s, ahead, rows, j, mean, scale, bias, sums, apart, mask):
        if rows == 8:
            ask(x + ahead * s + j * size, s, 8)
            ask(g + ahead * t + j * size, t, 8)
        m = get(mean, j, mask)
        a = get(scale, j, mask) if relu else m
        b = get(bias, j, mask) if relu else m
        total = splat(F(0), L)
        product = splat(F(0), L)
        for i in range(rows):
            d = get(pointer(x + i * s, F), j, mask) - m
            v = passed(get(pointer(g + i * t, F), j, mask), d, a, b)
            total = total + v
            product = fma(v, d, product)
        put(sums, j, get(sums, j, mask) + total, mask)
        put(sums, j + apart, get(sums, j + apart, mask) + product, mask)

    @helper
    def gradient_sums(g, g_stride, x, stride, n, c, mean, scale, bias, sums, apart):
        full = c - c % L
        rest = first(c - full, L)
        ahead = distance(c)
        for j in range(c):
            sums[j] = F(0)
            sums[j + apart] = F(0)
        for i in range(0, n - 7, 8):
            at, by = x + i * stride, g + i * g_stride
            for j in range(0, full, L):
                some(by, g_stride, at, stride, ahead, 8, j, mean, scale, bias, sums, apart, None)
            if full < c:
                some(by, g_stride, at, stride, ahead, 8, full, mean, scale, bias, sums, apart, rest)
        if n % 8:
            at, by = x + (n - n % 8) * stride, g + (n - n % 8) * g_stride
            for j in range(0, full, L):
                some(by, g_stride, at, stride, ahead, n % 8, j, mean, scale, bias, sums, apart, None)
            if full < c:
                some(by, g_stride, at, stride, ahead, n % 8, full, mean, scale, bias, sums, apart, rest)

    return gradient_sums


def gradient(dtype: str, relu: bool) -> Callable:
    """gradient(g, t, x, s, n, c, mean, scale, bias, slope, level, out, u), with t, s, u the strides of g, x, out:

        scale * g' - (slope * (x - mean) + level)

    bias is read with `relu` alone.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = access(dtype)
    distance = lookahead(dtype)
    passed = _passed(dtype, relu)

    @helper
    def some(g, t, x, s, ahead, rows, j, mean, scale, bias, slope, level, out, u, mask):
        m, a, q, r = get(mean, j, mask), get(scale, j, mask), get(slope, j, mask), get(level, j, mask)
        b = get(bias, j, mask) if relu else m
        if rows == 4:
            ask(x + ahead * s + j * size, s, 4)
            ask(g + ahead * t + j * size, t, 4)
            ask_to_write(out + ahead * u + j * size, u, 4)
        for i in range(rows):
            d = get(pointer(x + i * s, F), j, mask) - m
            v = passed(get(pointer(g + i * t, F), j, mask), d, a, b)
            put(pointer(out + i * u, F), j, fma(v, a, -fma(d, q, r)), mask)

    @helper
    def gradient(g, t, x, s, n, c, mean, scale, bias, slope, level, out, u):
        full = c - c % L
        rest = first(c - full, L)
        ahead = distance(c)
        for i in range(0, n, 4):
            at, by, to = x + i * s, g + i * t, out + i * u
            rows = min(4, n - i)
            for j in range(0, full, L):
                if rows == 4:
                    some(by, t, at, s, ahead, 4, j, mean, scale, bias, slope, level, to, u, None)
                else:
                    some(by, t, at, s, ahead, rows, j, mean, scale, bias, slope, level, to, u, None)
            if full < c:
                some(by, t, at, s, ahead, rows, full, mean, scale, bias, slope, level, to, u, rest)

    return gradient


def filled(dtype: str) -> Callable:
    """filled(source, out, c): out = source, c elements; source is an address, 0 stands for zeros."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    _, put = access(dtype)

    @helper
    def filled(source, out, c):
        full = c - c % L
        rest = first(c - full, L)
        for j in range(0, full, L):
            put(out, j, splat(F(0), L) if source == 0 else load(pointer(source, F), j, L), None)
        if full < c:
            put(out, full, splat(F(0), L) if source == 0 else load_masked(pointer(source, F), full, rest), rest)

    return filled
