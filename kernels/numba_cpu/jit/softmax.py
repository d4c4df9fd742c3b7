"""Softmax and its relatives in the compiled backend: one row of c contiguous elements at a time.

Strides are bytes. Lanes beyond the end of a row hold -infinity (scores) or 0 (all else), so that they add nothing.
"""

from collections.abc import Callable

from numba import njit, types

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.lifted import exp, log
from kernels.numba_cpu.jit.vector import (
    first,
    float_bits,
    lane,
    lanes_max,
    lanes_sum,
    load,
    load_masked,
    pointer,
    select,
    splat,
    store,
    store_masked,
)

NAN = float("nan")
LOW = -float("inf")


def _scores(dtype: str) -> tuple[Callable, Callable]:
    """What a row of scores needs: its greatest element in every lane, and its last lanes."""
    F, L = getattr(types, dtype), host().lanes(dtype)

    @njit(error_model="numpy")
    def last(x, full, mask):
        return select(mask, load_masked(x, full, mask), F(LOW))

    @njit(error_model="numpy")
    def top(x, full, mask):
        best = last(x, full, mask)
        for j in range(0, full, L):
            v = load(x, j, L)
            best = select(v > best, v, best)  # a NaN is passed over here: it makes the sum of exponentials NaN
        return splat(lanes_max(best), L)

    return last, top


def make_softmax(dtype: str) -> Callable:
    """args: x, out, n, c, stride of x."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    last, top = _scores(dtype)

    def kernel(args, part, parts):
        n, c, stride = args[2], args[3], args[4]
        full = c - c % L
        mask = first(c - full, L)
        for i in range(part * n // parts, (part + 1) * n // parts):
            x, out = pointer(args[0] + i * stride, F), pointer(args[1] + i * c * size, F)
            best = top(x, full, mask)
            rest = exp(last(x, full, mask) - best)
            add = rest
            for j in range(0, full, L):
                e = exp(load(x, j, L) - best)
                store(out, j, e)
                add = add + e
            scale = F(1) / lanes_sum(add)
            for j in range(0, full, L):
                store(out, j, load(out, j, L) * scale)
            if full < c:
                store_masked(out, full, rest * scale, mask)

    return kernel


def make_log_softmax(dtype: str) -> Callable:
    """args: x, out, n, c, stride of x."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    last, top = _scores(dtype)

    def kernel(args, part, parts):
        n, c, stride = args[2], args[3], args[4]
        full = c - c % L
        mask = first(c - full, L)
        for i in range(part * n // parts, (part + 1) * n // parts):
            x, out = pointer(args[0] + i * stride, F), pointer(args[1] + i * c * size, F)
            best = top(x, full, mask)
            rest = last(x, full, mask) - best
            add = exp(rest)
            for j in range(0, full, L):
                add = add + exp(load(x, j, L) - best)
            logarithm = log(splat(lanes_sum(add), L))
            for j in range(0, full, L):
                store(out, j, load(x, j, L) - best - logarithm)
            if full < c:
                store_masked(out, full, rest - logarithm, mask)

    return kernel


def _make_backward(dtype: str, logarithmic: bool) -> Callable:
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8

    @njit(error_model="numpy")
    def term(g, y):
        return g if logarithmic else g * y

    @njit(error_model="numpy")
    def result(g, y, add):
        return g - exp(y) * add if logarithmic else y * (g - add)

    def kernel(args, part, parts):
        n, c, g_stride, y_stride = args[3], args[4], args[5], args[6]
        full = c - c % L
        mask = first(c - full, L)
        for i in range(part * n // parts, (part + 1) * n // parts):
            g, y = pointer(args[0] + i * g_stride, F), pointer(args[1] + i * y_stride, F)
            out = pointer(args[2] + i * c * size, F)
            g_rest, y_rest = load_masked(g, full, mask), load_masked(y, full, mask)
            terms = term(g_rest, y_rest)
            for j in range(0, full, L):
                terms = terms + term(load(g, j, L), load(y, j, L))
            add = splat(lanes_sum(terms), L)
            for j in range(0, full, L):
                store(out, j, result(load(g, j, L), load(y, j, L), add))
            if full < c:
                store_masked(out, full, result(g_rest, y_rest, add), mask)

    return kernel


def make_softmax_backward(dtype: str) -> Callable:
    """args: g, y, out, n, c, stride of g, stride of y."""
    return _make_backward(dtype, False)


def make_log_softmax_backward(dtype: str) -> Callable:
    """args: g, y, out, n, c, stride of g, stride of y."""
    return _make_backward(dtype, True)


def make_cross_entropy(dtype: str) -> Callable:
    """args: x, target, weight (0: none), loss, probabilities, n, c, stride of x, stride of target, smoothing.

    With z = x - max and s = sum(exp(z)), log p = z - log(s). The target's part of the loss, with 1 - smoothing, is a
    scalar; the smoothed part, with smoothing / c, is a pass over the row that is left out where smoothing is 0.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    last, top = _scores(dtype)

    @njit(error_model="numpy")
    def weighted(w, z, logarithm):
        """w log p, but 0 where w is 0 and log p infinite."""
        return select(w == 0, F(0), w * (z - logarithm))

    def kernel(args, part, parts):
        target, weight, loss = args[1], args[2], pointer(args[3], F)
        n, c, x_stride, target_stride = args[5], args[6], args[7], args[8]
        smoothing = float_bits(args[9])
        sharp, soft = F(1.0 - smoothing), F(smoothing / c)
        w = pointer(weight, F)
        full = c - c % L
        mask = first(c - full, L)
        one = splat(F(1), L)
        rest_weight = select(mask, load_masked(w, full, mask) if weight else one, F(0))
        for i in range(part * n // parts, (part + 1) * n // parts):
            x, p = pointer(args[0] + i * x_stride, F), pointer(args[4] + i * c * size, F)
            best = top(x, full, mask)
            z_rest = last(x, full, mask) - best
            rest = exp(z_rest)
            add = rest
            for j in range(0, full, L):
                e = exp(load(x, j, L) - best)
                store(p, j, e)
                add = add + e
            whole = lanes_sum(add)
            scale = F(1) / whole
            for j in range(0, full, L):
                store(p, j, load(p, j, L) * scale)
            if full < c:
                store_masked(p, full, rest * scale, mask)

            logarithm = log(splat(whole, L))
            t = pointer(target + i * target_stride, types.int64)[0]
            if t < 0 or t >= c:
                loss[i] = F(NAN)
                continue
            share = sharp * (w[t] if weight else F(1))
            value = F(0)
            if share != 0:
                value = share * (x[t] - lane(best, 0) - lane(logarithm, 0))
            if smoothing != 0:
                smooth = weighted(rest_weight, z_rest, logarithm)
                for j in range(0, full, L):
                    smooth = smooth + weighted(load(w, j, L) if weight else one, load(x, j, L) - best, logarithm)
                value = value + soft * lanes_sum(smooth)
            loss[i] = -value

    return kernel


def make_cross_entropy_backward(dtype: str) -> Callable:
    """args: g, p, target, weight (0: none), out, n, c, strides of g, p, target, smoothing."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8

    def kernel(args, part, parts):
        weight, n, c = args[3], args[5], args[6]
        g_stride, p_stride, target_stride = args[7], args[8], args[9]
        smoothing = float_bits(args[10])
        sharp, soft = F(1.0 - smoothing), F(smoothing / c)
        w = pointer(weight, F)
        full = c - c % L
        mask = first(c - full, L)
        flat = splat(soft, L)
        rest_soft = soft * load_masked(w, full, mask) if weight else select(mask, flat, F(0))
        smooth = rest_soft
        for j in range(0, full, L):
            smooth = smooth + (soft * load(w, j, L) if weight else flat)
        all_soft = lanes_sum(smooth)
        for i in range(part * n // parts, (part + 1) * n // parts):
            g = pointer(args[0] + i * g_stride, F)[0]
            p, out = pointer(args[1] + i * p_stride, F), pointer(args[4] + i * c * size, F)
            t = pointer(args[2] + i * target_stride, types.int64)[0]
            known = t >= 0 and t < c
            share = F(0)
            if known:
                share = sharp * (w[t] if weight else F(1))
            s = share + all_soft
            for j in range(0, full, L):
                store(out, j, g * (s * load(p, j, L) - (soft * load(w, j, L) if weight else flat)))
            if full < c:
                store_masked(out, full, g * (s * load_masked(p, full, mask) - rest_soft), mask)
            if known:
                out[t] = g * (s * p[t] - share - soft * (w[t] if weight else F(1)))

    return kernel
