"""The gradient of an activation in the compiled backend, with its column sums."""

from collections.abc import Callable

from numba import types
from numba.extending import intrinsic

from kernels.elementwise import BY_NAME
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import columns
from kernels.numba_cpu.jit.formula import emit
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.values import ELEMENTS, Lanes
from kernels.numba_cpu.jit.vector import first, load, pointer, store


def _derivative(activation: str, dtype: str) -> Callable:
    """derivative(g, y): the formula of the table for vectors."""
    formula = BY_NAME[activation].backward["x"]

    @intrinsic
    def derivative(typingctx, g, y):
        def codegen(context, builder, sig, args):
            known = {name: Lanes(builder, value) for name, value in zip("gy", args, strict=True)}
            variables = {name: known[name] for name in formula.variables}
            return emit(formula, variables, ELEMENTS[dtype]).value

        return g(g, y), codegen

    return derivative


def make_gradient(dtype: str, activation: str) -> Callable:
    """args: g, y, out, partial (chunks, m), n, m, strides of g and y in bytes, chunk, width.

    partial: sums of out over chunks of rows. Four rows are added before they join the rest.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = columns.access(dtype)
    derivative = _derivative(activation, dtype)

    @helper
    def step(g, y, out, j, mask):
        v = derivative(get(pointer(g, F), j, mask), get(pointer(y, F), j, mask))
        put(pointer(out, F), j, v, mask)
        return v

    @helper
    def four(g, s, y, t, out, u, j, mask):
        a, b = step(g, y, out, j, mask), step(g + s, y + t, out + u, j, mask)
        c = step(g + 2 * s, y + 2 * t, out + 2 * u, j, mask)
        return (a + b) + (c + step(g + 3 * s, y + 3 * t, out + 3 * u, j, mask))

    def kernel(args, part, parts):
        n, m, s, t = args[4], args[5], args[6], args[7]
        chunk, width = args[8], args[9]
        chunks, panels, u = (n + chunk - 1) // chunk, (m + width - 1) // width, m * size
        items = chunks * panels
        for item in range(part * items // parts, (part + 1) * items // parts):
            number, column = item // panels, item % panels * width
            begin, stop = number * chunk, min(n, (number + 1) * chunk)
            cols = min(width, m - column)
            full = cols - cols % L
            rest = first(cols - full, L)
            sums = pointer(args[3] + (number * m + column) * size, F)
            for j in range(cols):
                sums[j] = F(0)
            at = column * size
            g, y, out = args[0] + begin * s + at, args[1] + begin * t + at, args[2] + begin * u + at
            for _ in range((stop - begin) // 4):
                for j in range(0, full, L):
                    store(sums, j, load(sums, j, L) + four(g, s, y, t, out, u, j, None))
                if full < cols:
                    put(sums, full, get(sums, full, rest) + four(g, s, y, t, out, u, full, rest), rest)
                g, y, out = g + 4 * s, y + 4 * t, out + 4 * u
            for _ in range((stop - begin) % 4):
                for j in range(0, full, L):
                    store(sums, j, load(sums, j, L) + step(g, y, out, j, None))
                if full < cols:
                    put(sums, full, get(sums, full, rest) + step(g, y, out, full, rest), rest)
                g, y, out = g + s, y + t, out + u

    return kernel
