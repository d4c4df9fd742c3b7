"""Group normalization of the compiled backend.

`rows`: a group is a run of memory (s = 1, as in layer normalization); it stays in the cache for all passes over it.
`images`: column sums of an image (see columns.py) are combined within each group, and spread over its columns again.
Strides are bytes. weight, bias, mean and gradients are addresses, 0 where they are None.
"""

from collections.abc import Callable
from math import sqrt

from numba import types

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import columns
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.vector import (
    cast,
    first,
    float_bits,
    fma,
    lanes_sum,
    load,
    load_masked,
    offset,
    pointer,
    select,
    splat,
    store_masked,
)


def make_rows(dtype: str, centered: bool, weighted: bool, biased: bool) -> Callable:
    """args: x, weight, bias, out, mean, scale, n, groups, width of a group, stride of n, eps."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = columns.access(dtype)

    @helper
    def total(x, c):
        a = b = splat(F(0), L)
        full = c - c % L
        for j in range(0, full - L, 2 * L):
            a = a + load(x, j, L)
            b = b + load(x, j + L, L)
        if full % (2 * L):
            a = a + load(x, full - L, L)
        if full < c:
            b = b + load_masked(x, full, first(c - full, L))
        return lanes_sum(a + b)

    @helper
    def squares(x, c, mean):
        a = b = splat(F(0), L)
        full = c - c % L
        for j in range(0, full - L, 2 * L):
            d, e = load(x, j, L) - mean, load(x, j + L, L) - mean
            a, b = fma(d, d, a), fma(e, e, b)
        if full % (2 * L):
            d = load(x, full - L, L) - mean
            a = fma(d, d, a)
        if full < c:
            rest = first(c - full, L)
            d = select(rest, load_masked(x, full, rest) - mean, F(0))
            b = fma(d, d, b)
        return lanes_sum(a + b)

    @helper
    def write(x, weight, bias, out, j, mean, scale, mask):
        y = (get(x, j, mask) - mean) * scale
        if weighted and biased:
            y = fma(y, get(weight, j, mask), get(bias, j, mask))
        elif weighted:
            y = y * get(weight, j, mask)
        elif biased:
            y = y + get(bias, j, mask)
        put(out, j, y, mask)

    def kernel(args, part, parts):
        n, groups, width, stride, eps = args[6], args[7], args[8], args[9], float_bits(args[10])
        means, scales = pointer(args[4], F), pointer(args[5], F)
        full = width - width % L
        rest = first(width - full, L)
        for i in range(part * n // parts, (part + 1) * n // parts):
            for group in range(groups):
                skip, item = group * width * size, i * groups + group
                x, out = pointer(args[0] + i * stride + skip, F), pointer(args[3] + item * width * size, F)
                weight, bias = pointer(args[1] + skip, F), pointer(args[2] + skip, F)
                mean = total(x, width) / F(width) if centered else F(0)
                scale = F(1 / sqrt(squares(x, width, mean) / width + eps))
                if centered:
                    means[item] = mean
                scales[item] = scale
                for j in range(0, full, L):
                    write(x, weight, bias, out, j, mean, scale, None)
                if full < width:
                    write(x, weight, bias, out, full, mean, scale, rest)

    return kernel


def make_rows_backward(dtype: str, centered: bool, weighted: bool) -> Callable:
    """args: g, x, weight, mean, scale, out, partial (chunks, 2, groups * width), n, groups, width of a group, strides
    of n in g and x, chunk.

    A chunk of partial: the sums of g z and of g over its part of n.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = columns.access(dtype)

    @helper
    def weighed(g, weight, j, mask):
        return get(g, j, mask) * get(weight, j, mask) if weighted else get(g, j, mask)

    @helper
    def sums(g, x, weight, width, mean):
        """The sums of weight * g and of weight * g * (x - mean)."""
        full = width - width % L
        total = product = splat(F(0), L)
        for j in range(0, full, L):
            h = weighed(g, weight, j, None)
            total, product = total + h, fma(h, load(x, j, L) - mean, product)
        if full < width:
            rest = first(width - full, L)
            h = weighed(g, weight, full, rest)
            total, product = total + h, fma(h, load_masked(x, full, rest) - mean, product)
        return lanes_sum(total), lanes_sum(product)

    @helper
    def write(g, x, weight, out, dw, db, j, mean, scale, slope, level, mask):
        v, d = get(g, j, mask), get(x, j, mask) - mean
        h = v * get(weight, j, mask) if weighted else v
        put(out, j, fma(h, scale, -fma(d, slope, level)), mask)
        put(dw, j, fma(v, d * scale, get(dw, j, mask)), mask)
        put(db, j, get(db, j, mask) + v, mask)

    def kernel(args, part, parts):
        means, scales, partial = pointer(args[3], F), pointer(args[4], F), args[6]
        n, groups, width, g_stride, stride, chunk = args[7], args[8], args[9], args[10], args[11], args[12]
        c = groups * width
        full = width - width % L
        rest = first(width - full, L)
        chunks = (n + chunk - 1) // chunk
        for number in range(part * chunks // parts, (part + 1) * chunks // parts):
            sum_of = pointer(partial + 2 * number * c * size, F)
            for j in range(2 * c):
                sum_of[j] = F(0)
            for i in range(number * chunk, min(n, (number + 1) * chunk)):
                for group in range(groups):
                    skip, item = group * width * size, i * groups + group
                    g, x = pointer(args[0] + i * g_stride + skip, F), pointer(args[1] + i * stride + skip, F)
                    weight, out = pointer(args[2] + skip, F), pointer(args[5] + item * width * size, F)
                    dw, db = offset(sum_of, group * width), offset(sum_of, c + group * width)
                    mean, scale = means[item] if centered else F(0), scales[item]
                    total, product = sums(g, x, weight, width, mean)
                    slope = scale * scale * scale * product / F(width)
                    level = scale * total / F(width) if centered else F(0)
                    for j in range(0, full, L):
                        write(g, x, weight, out, dw, db, j, mean, scale, slope, level, None)
                    if full < width:
                        write(g, x, weight, out, dw, db, full, mean, scale, slope, level, rest)

    return kernel


def make_images(dtype: str) -> Callable:
    """args: x, weight, bias, out, mean, scale, scratch (parts, 6, c), n, s, c, groups, groups of a piece of work,
    strides of n and s, eps."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, _ = columns.access(dtype)
    statistics, normalize, filled = columns.statistics(dtype), columns.normalize(dtype), columns.filled(dtype)

    @helper
    def near(state, c, j, mask):
        return cast(get(state, j, mask), types.float64) + cast(get(state, c + j, mask), types.float64)

    @helper
    def moments(state, c, start, stop, s):
        """Mean and variance of columns start .. stop - 1, of which `state` holds the statistics over s rows."""
        total = splat(0.0, L)
        for j in range(start, stop, L):
            total = total + near(state, c, j, first(stop - j, L))
        mean = lanes_sum(total) / (stop - start)
        spread = splat(0.0, L)
        for j in range(start, stop, L):
            mask = first(stop - j, L)
            d = near(state, c, j, mask) - mean
            squares = cast(get(state, 2 * c + j, mask), types.float64)
            spread = spread + select(mask, fma(d * d, float(s), squares), 0.0)
        return mean, lanes_sum(spread) / (float(s) * (stop - start))

    def kernel(args, part, parts):
        weight, bias, scratch = args[1], args[2], args[6]
        n, s, c, groups, together = args[7], args[8], args[9], args[10], args[11]
        outer, stride, eps = args[12], args[13], float_bits(args[14])
        width = c // groups
        means, scales = pointer(args[4], F), pointer(args[5], F)
        state = pointer(scratch + 6 * part * c * size, F)
        mean, scale, shift = offset(state, 3 * c), offset(state, 4 * c), offset(state, 5 * c)
        pieces = (groups + together - 1) // together
        for item in range(part * n * pieces // parts, (part + 1) * n * pieces // parts):
            i, start = item // pieces, item % pieces * together
            skip, cols = start * width * size, min(together, groups - start) * width
            x, out = args[0] + i * outer + skip, args[3] + i * s * c * size + skip
            statistics(x, stride, s, cols, state, c)
            for k in range(cols // width):
                m, variance = moments(state, c, k * width, (k + 1) * width, s)
                place = i * groups + start + k
                if args[4]:
                    means[place] = F(m)
                else:
                    variance += m * m
                    m = 0.0
                factor = F(1 / sqrt(variance + eps))
                scales[place] = factor
                for j in range(k * width, (k + 1) * width, L):
                    mask = first((k + 1) * width - j, L)
                    w = splat(F(1), L) if weight == 0 else load_masked(pointer(weight + skip, F), j, mask)
                    store_masked(mean, j, splat(F(m), L), mask)
                    store_masked(scale, j, w * factor, mask)
            filled(bias + skip if bias else 0, shift, cols)
            normalize(x, stride, s, cols, mean, scale, shift, F(-float("inf")), out, c * size)

    return kernel


def make_images_backward(dtype: str) -> Callable:
    """args: g, x, weight, mean, scale, out, partial (n, 2, c), scratch (parts, 4, c), n, s, c, groups, groups of a
    piece of work, strides of n and s in g, and in x.

    partial holds, for each image, the sums of g z and of g over s.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    gradient_sums, gradient = columns.gradient_sums(dtype, False), columns.gradient(dtype, False)

    @helper
    def weighed(weight, skip, j, mask):
        return splat(F(1), L) if weight == 0 else load_masked(pointer(weight + skip, F), j, mask)

    def kernel(args, part, parts):
        weight, partial, scratch = args[2], args[6], args[7]
        n, s, c, groups, together = args[8], args[9], args[10], args[11], args[12]
        g_outer, g_stride, outer, stride = args[13], args[14], args[15], args[16]
        width = c // groups
        centered = args[3] != 0
        means, scales = pointer(args[3], F), pointer(args[4], F)
        mean = pointer(scratch + 4 * part * c * size, F)
        scale, slope, level = offset(mean, c), offset(mean, 2 * c), offset(mean, 3 * c)
        pieces = (groups + together - 1) // together
        for item in range(part * n * pieces // parts, (part + 1) * n * pieces // parts):
            i, start = item // pieces, item % pieces * together
            skip, cols = start * width * size, min(together, groups - start) * width
            g, x = args[0] + i * g_outer + skip, args[1] + i * outer + skip
            products = pointer(partial + 2 * i * c * size + skip, F)
            sums = offset(products, c)
            for k in range(cols // width):
                m = means[i * groups + start + k] if centered else F(0)
                for j in range(k * width, (k + 1) * width, L):
                    store_masked(mean, j, splat(m, L), first((k + 1) * width - j, L))
            gradient_sums(g, g_stride, x, stride, s, cols, mean, mean, mean, sums, -c)
            for k in range(cols // width):
                factor = scales[i * groups + start + k]
                total = product = splat(F(0), L)
                for j in range(k * width, (k + 1) * width, L):
                    mask = first((k + 1) * width - j, L)
                    w = weighed(weight, skip, j, mask)
                    z = load_masked(products, j, mask) * factor
                    store_masked(products, j, z, mask)
                    total = total + w * load_masked(sums, j, mask)
                    product = fma(w, z, product)
                count = F(s) * F(width)
                q = factor * factor * lanes_sum(product) / count
                r = factor * lanes_sum(total) / count if centered else F(0)
                for j in range(k * width, (k + 1) * width, L):
                    mask = first((k + 1) * width - j, L)
                    store_masked(scale, j, weighed(weight, skip, j, mask) * factor, mask)
                    store_masked(slope, j, splat(q, L), mask)
                    store_masked(level, j, splat(r, L), mask)
            to = args[5] + i * s * c * size + skip
            gradient(g, g_stride, x, stride, s, cols, mean, scale, mean, slope, level, to, c * size)

    return kernel
