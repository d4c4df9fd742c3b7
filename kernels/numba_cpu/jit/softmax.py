"""Softmax and its relatives in the compiled backend: one row of c contiguous elements at a time.

A row is `full` elements in whole vectors, and a rest of fewer in a masked one. `narrow` kernels are for rows of at most
so many registers, 1 or 2: their vectors are as wide, and the rest is all that there is. Lanes beyond the end of a row
hold -infinity (scores) or 0 (all else), so that they add nothing. Strides are bytes.
"""

from collections.abc import Callable

from numba import njit, types

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.lifted import exp, log
from kernels.numba_cpu.jit.vector import (
    first,
    float_bits,
    iota,
    lane,
    lanes_sum,
    load,
    load_masked,
    pointer,
    select,
    shuffle,
    splat,
    store,
    store_masked,
)

NAN = float("nan")
LOW = -float("inf")


def _row(dtype: str, narrow: int) -> tuple:
    """(element type, lanes of a vector, whole(c): elements of a row in whole vectors)."""
    L = host().lanes(dtype) * max(1, narrow)

    @njit(error_model="numpy")
    def whole(c):
        return 0 if narrow else c - c % L

    return getattr(types, dtype), L, whole


def _put(L: int) -> Callable:
    """put(out, i, v, mask, room): the rest of a row, v where mask, to element i of its row.

    room: elements from the row's start to the end of the part's last row. Where there is enough, the whole vector is
    written, as that is fast, and the rows that follow overwrite what is beyond this row.
    """

    @njit(error_model="numpy")
    def put(out, i, v, mask, room):
        if i + L <= room:
            store(out, i, v)
        else:
            store_masked(out, i, v, mask)

    return put


def _spread(L: int, combine: Callable) -> Callable:
    """A function of a vector that combines all its lanes and gives the result in every lane."""
    lines = ["def spread(v):"]
    half = L // 2
    while half:
        lines.append(f"    v = combine(v, shuffle(v, v, {tuple(i ^ half for i in range(L))}))")
        half //= 2
    scope = {"combine": njit(error_model="numpy")(combine), "shuffle": shuffle}
    exec("\n".join([*lines, "    return v"]), scope)
    return njit(error_model="numpy")(scope["spread"])


def _sum(L: int) -> Callable:
    return _spread(L, lambda a, b: a + b)


def _scores(dtype: str, narrow: int) -> tuple[Callable, Callable]:
    """What a row of scores needs: its rest, and its greatest element in every lane.

    The greatest passes over NaN, which makes the sum of exponentials NaN anyway.
    """
    F, L, _ = _row(dtype, narrow)
    greatest = _spread(L, lambda a, b: select(a > b, a, b))

    @njit(error_model="numpy")
    def last(x, full, mask):
        return select(mask, load_masked(x, full, mask), F(LOW))

    @njit(error_model="numpy")
    def top(x, full, mask):
        best = last(x, full, mask)
        for j in range(0, full, L):
            v = load(x, j, L)
            best = select(v > best, v, best)
        return greatest(best)

    return last, top


def make_softmax(dtype: str, narrow: int) -> Callable:
    """args: x, out, n, c, stride of x."""
    F, L, whole = _row(dtype, narrow)
    size = F.bitwidth // 8
    last, top = _scores(dtype, narrow)
    total, put = _sum(L), _put(L)

    def kernel(args, part, parts):
        n, c, stride = args[2], args[3], args[4]
        full = whole(c)
        mask = first(c - full, L)
        stop = (part + 1) * n // parts
        for i in range(part * n // parts, stop):
            x, out = pointer(args[0] + i * stride, F), pointer(args[1] + i * c * size, F)
            best = top(x, full, mask)
            rest = exp(last(x, full, mask) - best)
            add = rest
            for j in range(0, full, L):
                e = exp(load(x, j, L) - best)
                store(out, j, e)
                add = add + e
            scale = F(1) / total(add)
            for j in range(0, full, L):
                store(out, j, load(out, j, L) * scale)
            if full < c:
                put(out, full, rest * scale, mask, (stop - i) * c)

    return kernel


def make_log_softmax(dtype: str, narrow: int) -> Callable:
    """args: x, out, n, c, stride of x."""
    F, L, whole = _row(dtype, narrow)
    size, R = F.bitwidth // 8, host().lanes(dtype)
    last, top = _scores(dtype, narrow)
    put = _put(L)

    def kernel(args, part, parts):
        n, c, stride = args[2], args[3], args[4]
        full = whole(c)
        mask = first(c - full, L)
        stop = (part + 1) * n // parts
        for i in range(part * n // parts, stop):
            x, out = pointer(args[0] + i * stride, F), pointer(args[1] + i * c * size, F)
            best = top(x, full, mask)
            rest = last(x, full, mask) - best
            add = exp(rest)
            for j in range(0, full, L):
                add = add + exp(load(x, j, L) - best)
            logarithm = lane(log(splat(lanes_sum(add), R)), 0)
            for j in range(0, full, L):
                store(out, j, load(x, j, L) - best - logarithm)
            if full < c:
                put(out, full, rest - logarithm, mask, (stop - i) * c)

    return kernel


def _make_backward(dtype: str, narrow: int, logarithmic: bool) -> Callable:
    F, L, whole = _row(dtype, narrow)
    size = F.bitwidth // 8
    total, put = _sum(L), _put(L)

    @njit(error_model="numpy")
    def term(g, y):
        return g if logarithmic else g * y

    @njit(error_model="numpy")
    def result(g, y, add):
        return g - exp(y) * add if logarithmic else y * (g - add)

    def kernel(args, part, parts):
        n, c, g_stride, y_stride = args[3], args[4], args[5], args[6]
        full = whole(c)
        mask = first(c - full, L)
        stop = (part + 1) * n // parts
        for i in range(part * n // parts, stop):
            g, y = pointer(args[0] + i * g_stride, F), pointer(args[1] + i * y_stride, F)
            out = pointer(args[2] + i * c * size, F)
            g_rest, y_rest = load_masked(g, full, mask), load_masked(y, full, mask)
            terms = term(g_rest, y_rest)
            for j in range(0, full, L):
                terms = terms + term(load(g, j, L), load(y, j, L))
            add = total(terms)
            for j in range(0, full, L):
                store(out, j, result(load(g, j, L), load(y, j, L), add))
            if full < c:
                put(out, full, result(g_rest, y_rest, add), mask, (stop - i) * c)

    return kernel


def make_softmax_backward(dtype: str, narrow: int) -> Callable:
    """args: g, y, out, n, c, stride of g, stride of y."""
    return _make_backward(dtype, narrow, False)


def make_log_softmax_backward(dtype: str, narrow: int) -> Callable:
    """args: g, y, out, n, c, stride of g, stride of y."""
    return _make_backward(dtype, narrow, True)


def make_cross_entropy(dtype: str, narrow: int) -> Callable:
    """args: x, target, weight (0: none), loss, probabilities, n, c, stride of x, stride of target, smoothing.

    With z = x - max, s = sum(exp(z)) and u = weight q, the loss is log(s) sum(u) - sum(u z). The target's part of the
    sums is a scalar; the smoothed part is a pass over the row, left out where smoothing is 0. As many rows as a
    register has lanes take one logarithm together.
    """
    F, L, whole = _row(dtype, narrow)
    R = host().lanes(dtype)
    size = F.bitwidth // 8
    last, top = _scores(dtype, narrow)
    total, put = _sum(L), _put(L)

    @njit(error_model="numpy")
    def weighted(w, z):
        """w z, but 0 where w is 0 and z infinite."""
        return select(w == 0, F(0), w * z)

    def kernel(args, part, parts):
        target, weight, loss = args[1], args[2], pointer(args[3], F)
        n, c, x_stride, target_stride = args[5], args[6], args[7], args[8]
        smoothing = float_bits(args[9])
        sharp, soft = F(1.0 - smoothing), F(smoothing / c)
        w = pointer(weight, F)
        full = whole(c)
        mask = first(c - full, L)
        one = splat(F(1), L)
        rest_weight = select(mask, load_masked(w, full, mask) if weight else one, F(0))
        all_soft = F(0)
        if smoothing != 0:
            weights = rest_weight
            for j in range(0, full, L):
                weights = weights + (load(w, j, L) if weight else one)
            all_soft = soft * lanes_sum(weights)

        stop = (part + 1) * n // parts
        for start in range(part * n // parts, stop, R):
            s, u, uz = splat(F(1), R), splat(F(0), R), splat(F(0), R)
            rows = min(R, stop - start)
            for k in range(rows):
                i = start + k
                here = iota(types.int32, R) == k
                x, p = pointer(args[0] + i * x_stride, F), pointer(args[4] + i * c * size, F)
                best = top(x, full, mask)
                z_rest = last(x, full, mask) - best
                rest = exp(z_rest)
                add = rest
                for j in range(0, full, L):
                    e = exp(load(x, j, L) - best)
                    store(p, j, e)
                    add = add + e
                add = total(add)
                s = select(here, lane(add, 0), s)
                scale = F(1) / add
                for j in range(0, full, L):
                    store(p, j, load(p, j, L) * scale)
                if full < c:
                    put(p, full, rest * scale, mask, (stop - i) * c)

                t = pointer(target + i * target_stride, types.int64)[0]
                value = F(NAN)
                share = F(0)
                if t >= 0 and t < c:
                    share = sharp * (w[t] if weight else F(1))
                    value = share * (x[t] - lane(best, 0)) if share != 0 else F(0)
                    if smoothing != 0:
                        smooth = weighted(rest_weight, z_rest)
                        for j in range(0, full, L):
                            smooth = smooth + weighted(load(w, j, L) if weight else one, load(x, j, L) - best)
                        value = value + soft * lanes_sum(smooth)
                u = select(here, share + all_soft, u)
                uz = select(here, value, uz)
            result = weighted(u, log(s)) - uz
            if rows == R:
                store(loss, start, result)
            else:
                store_masked(loss, start, result, first(rows, R))

    return kernel


def make_cross_entropy_backward(dtype: str, narrow: int) -> Callable:
    """args: g, p, target, weight (0: none), out, n, c, strides of g, p, target, smoothing."""
    F, L, whole = _row(dtype, narrow)
    size = F.bitwidth // 8
    put = _put(L)

    def kernel(args, part, parts):
        weight, n, c = args[3], args[5], args[6]
        g_stride, p_stride, target_stride = args[7], args[8], args[9]
        smoothing = float_bits(args[10])
        sharp, soft = F(1.0 - smoothing), F(smoothing / c)
        w = pointer(weight, F)
        full = whole(c)
        mask = first(c - full, L)
        flat = splat(soft, L)
        rest_soft = soft * load_masked(w, full, mask) if weight else select(mask, flat, F(0))
        smooth = rest_soft
        for j in range(0, full, L):
            smooth = smooth + (soft * load(w, j, L) if weight else flat)
        all_soft = lanes_sum(smooth)
        stop = (part + 1) * n // parts
        for i in range(part * n // parts, stop):
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
                put(out, full, g * (s * load_masked(p, full, mask) - rest_soft), mask, (stop - i) * c)
            if known:
                out[t] = g * (s * p[t] - share - soft * (w[t] if weight else F(1)))

    return kernel
