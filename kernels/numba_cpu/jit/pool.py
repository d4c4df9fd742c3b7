"""Pooling of the compiled backend: NHWC, vectors over channels.

A window stands in two tables of int64 rows (start, stop, divisor), one for each axis. The forward kernels take an
output row at a time. The backward kernels take an input row at a time and gather from the windows over it, found in
`cover`, so that each element is written once and no two parts write the same; where the windows neither overlap nor
leave anything out, they take an output row at a time and write its windows. Strides are bytes; g, index and out are
contiguous.
"""

from collections.abc import Callable

from numba import types

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import columns
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.vector import first, pointer, select, splat


@helper
def _window(table, i):
    return table[3 * i], table[3 * i + 1]


@helper
def _partition(table, count, side):
    """Whether the windows follow one another without gaps from 0 to `side`."""
    at = 0
    for i in range(count):
        if table[3 * i] != at or table[3 * i + 1] <= at:
            return False
        at = table[3 * i + 1]
    return at == side


@helper
def _share(table, i):
    """1 / divisor."""
    return 1.0 / table[3 * i + 2] if table[3 * i + 2] else 0.0


def _span(L: int) -> Callable:
    """span(c, panels, panel): (first channel, channels) of one of `panels` parts of c channels, in whole vectors."""

    @helper
    def span(c, panels, panel):
        vectors = (c + L - 1) // L
        low, high = vectors * panel // panels * L, vectors * (panel + 1) // panels * L
        return low, min(high, c) - low

    return span


def make_max_forward(dtype: str) -> Callable:
    """args: x, out, index, rows, columns, n, h, w, c, oh, ow, strides of n, h and w, panels of channels."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = columns.access(dtype)
    span = _span(L)

    @helper
    def better(v, best):
        """NaN beats every number, and the earlier of equals stays."""
        return ~(v <= best) & (best == best)

    @helper
    def reduced(x, s, t, down, across, w, mask):
        """The maximum of a window, and its place relative to the window's first."""
        best = get(pointer(x, F), 0, mask)
        place = splat(types.int32(0), L)
        for a in range(down):
            for b in range(across):
                v = get(pointer(x + a * s + b * t, F), 0, mask)
                wins = better(v, best)
                best = select(wins, v, best)
                place = select(wins, types.int32(a * w + b), place)
        return best, place

    @helper
    def window(x, s, t, down, across, w, origin, out, index, k, mask):
        if down == 2 and across == 2:
            best, place = reduced(x, s, t, 2, 2, w, mask)
        elif down == 3 and across == 3:
            best, place = reduced(x, s, t, 3, 3, w, mask)
        else:
            best, place = reduced(x, s, t, down, across, w, mask)
        put(out, k, best, mask)
        put(index, k, place + types.int32(origin), mask)

    def kernel(args, part, parts):
        rows, cols = pointer(args[3], types.int64), pointer(args[4], types.int64)
        n, w, c, oh, ow = args[5], args[7], args[8], args[9], args[10]
        outer, s, t, panels = args[11], args[12], args[13], args[14]
        items = n * oh * panels
        for item in range(part * items // parts, (part + 1) * items // parts):
            low, channels = span(c, panels, item % panels)
            row = item // panels
            top, bottom = _window(rows, row % oh)
            at = args[0] + row // oh * outer + top * s + low * size
            full = channels - channels % L
            rest = first(channels - full, L)
            for j in range(ow):
                left, right = _window(cols, j)
                origin, place = top * w + left, (row * ow + j) * c + low
                out, index = pointer(args[1] + place * size, F), pointer(args[2] + place * 4, types.int32)
                x, down, across = at + left * t, bottom - top, right - left
                for k in range(0, full, L):
                    window(x + k * size, s, t, down, across, w, origin, out, index, k, None)
                if full < channels:
                    window(x + full * size, s, t, down, across, w, origin, out, index, full, rest)

    return kernel


def make_avg_forward(dtype: str) -> Callable:
    """args: x, out, rows, columns, n, h, w, c, oh, ow, strides of n, h and w, panels of channels."""
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = columns.access(dtype)
    span = _span(L)

    @helper
    def total(x, s, t, down, across, mask):
        """The sum over a window; each of its rows is added up by itself."""
        result = splat(F(0), L)
        for a in range(down):
            line = splat(F(0), L)
            for b in range(across):
                line = line + get(pointer(x + a * s + b * t, F), 0, mask)
            result = result + line
        return result

    @helper
    def window(x, s, t, down, across, factor, out, k, mask):
        if down == 2 and across == 2:
            v = total(x, s, t, 2, 2, mask)
        elif down == 3 and across == 3:
            v = total(x, s, t, 3, 3, mask)
        else:
            v = total(x, s, t, down, across, mask)
        put(out, k, v * factor, mask)

    def kernel(args, part, parts):
        rows, cols = pointer(args[2], types.int64), pointer(args[3], types.int64)
        n, c, oh, ow = args[4], args[7], args[8], args[9]
        outer, s, t, panels = args[10], args[11], args[12], args[13]
        items = n * oh * panels
        for item in range(part * items // parts, (part + 1) * items // parts):
            low, channels = span(c, panels, item % panels)
            row = item // panels
            top, bottom = _window(rows, row % oh)
            high = _share(rows, row % oh)
            at = args[0] + row // oh * outer + top * s + low * size
            full = channels - channels % L
            rest = first(channels - full, L)
            for j in range(ow):
                left, right = _window(cols, j)
                factor = F(high * _share(cols, j))
                out = pointer(args[1] + ((row * ow + j) * c + low) * size, F)
                x, down, across = at + left * t, bottom - top, right - left
                for k in range(0, full, L):
                    window(x + k * size, s, t, down, across, factor, out, k, None)
                if full < channels:
                    window(x + full * size, s, t, down, across, factor, out, full, rest)

    return kernel


def make_cover() -> Callable:
    """args: table, windows, side, cover (side, 2): for each place the first window over it, and one past the last."""

    def kernel(args, part, parts):
        table, count, side, cover = pointer(args[0], types.int64), args[1], args[2], pointer(args[3], types.int64)
        for y in range(side):
            cover[2 * y], cover[2 * y + 1] = 0, 0
        for i in range(count):
            start, stop = _window(table, i)
            for y in range(start, stop):
                if cover[2 * y + 1] == 0:
                    cover[2 * y] = i
                cover[2 * y + 1] = i + 1

    return kernel


def _make_backward(dtype: str, largest: bool) -> Callable:
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = columns.access(dtype)
    span = _span(L)

    @helper
    def share(g, index, place, k, mask):
        """What of g goes to a place of the window: all where its maximum lies there."""
        if largest:
            return select(get(index, k, mask) == types.int32(place), get(g, k, mask), F(0))
        return get(g, k, mask)

    @helper
    def spread(g, index, out, s, t, down, across, origin, w, factor, k, mask):
        v = get(g, k, mask)
        if largest:
            best = get(index, k, mask)
        else:
            v = v * factor
        for a in range(down):
            for b in range(across):
                to = pointer(out + a * s + b * t, F)
                if largest:
                    place = types.int32(origin + a * w + b)
                    put(to, k, select(best == place, v, F(0)), mask)
                else:
                    put(to, k, v, mask)

    @helper
    def scatter_row(args, row, low, channels):
        """Write all windows of an output row."""
        rows, cols = pointer(args[3], types.int64), pointer(args[4], types.int64)
        h, w, c, oh, ow = args[6], args[7], args[8], args[9], args[10]
        top, bottom = _window(rows, row % oh)
        full = channels - channels % L
        rest = first(channels - full, L)
        t = c * size
        s = w * t
        at = args[2] + (row // oh * h + top) * s + low * size
        for j in range(ow):
            left, right = _window(cols, j)
            origin, skip = top * w + left, (row * ow + j) * c + low
            factor = F(_share(rows, row % oh) * _share(cols, j))
            g, index = pointer(args[0] + skip * size, F), pointer(args[1] + skip * 4, types.int32)
            out, down, across = at + left * t, bottom - top, right - left
            for k in range(0, full, L):
                if down == 2 and across == 2:
                    spread(g, index, out, s, t, 2, 2, origin, w, factor, k, None)
                else:
                    spread(g, index, out, s, t, down, across, origin, w, factor, k, None)
            if full < channels:
                spread(g, index, out, s, t, down, across, origin, w, factor, full, rest)

    @helper
    def gather(args, image, y, x, from_row, to_row, from_column, to_column, low, k, mask):
        """The sum of what the windows over place (y, x) give to it."""
        rows, cols = pointer(args[3], types.int64), pointer(args[4], types.int64)
        w, c, oh, ow = args[7], args[8], args[9], args[10]
        result = splat(F(0), L)
        for i in range(from_row, to_row):
            if rows[3 * i] <= y and y < rows[3 * i + 1]:
                for j in range(from_column, to_column):
                    if cols[3 * j] <= x and x < cols[3 * j + 1]:
                        skip = ((image * oh + i) * ow + j) * c + low
                        g, index = pointer(args[0] + skip * size, F), pointer(args[1] + skip * 4, types.int32)
                        v = share(g, index, y * w + x, k, mask)
                        if not largest:
                            v = v * F(_share(rows, i) * _share(cols, j))
                        result = result + v
        return result

    @helper
    def gather_row(args, row, low, channels):
        """Write all places of an input row."""
        above, beside = pointer(args[11], types.int64), pointer(args[12], types.int64)
        h, w, c = args[6], args[7], args[8]
        image, y = row // h, row % h
        full = channels - channels % L
        rest = first(channels - full, L)
        for x in range(w):
            out = pointer(args[2] + ((row * w + x) * c + low) * size, F)
            from_row, to_row, from_column, to_column = above[2 * y], above[2 * y + 1], beside[2 * x], beside[2 * x + 1]
            for k in range(0, full, L):
                v = gather(args, image, y, x, from_row, to_row, from_column, to_column, low, k, None)
                put(out, k, v, None)
            if full < channels:
                v = gather(args, image, y, x, from_row, to_row, from_column, to_column, low, full, rest)
                put(out, full, v, rest)

    def kernel(args, part, parts):
        rows, cols = pointer(args[3], types.int64), pointer(args[4], types.int64)
        n, h, w, c, oh, ow, panels = args[5], args[6], args[7], args[8], args[9], args[10], args[13]
        whole = _partition(rows, oh, h) and _partition(cols, ow, w)
        items = n * (oh if whole else h) * panels
        for item in range(part * items // parts, (part + 1) * items // parts):
            low, channels = span(c, panels, item % panels)
            if whole:
                scatter_row(args, item // panels, low, channels)
            else:
                gather_row(args, item // panels, low, channels)

    return kernel


def make_max_backward(dtype: str) -> Callable:
    """args: g, index, out, rows, columns, n, h, w, c, oh, ow, cover of h and of w, panels of channels."""
    return _make_backward(dtype, True)


def make_avg_backward(dtype: str) -> Callable:
    """args: g, 0, out, rows, columns, n, h, w, c, oh, ow, cover of h and of w, panels of channels."""
    return _make_backward(dtype, False)
