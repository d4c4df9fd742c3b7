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
from kernels.numba_cpu.jit.vector import first, pointer, splat


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

    partial: sums of out over chunks of rows. Eight rows are added before they join the rest.
    """
    F, L = getattr(types, dtype), host().lanes(dtype)
    size = F.bitwidth // 8
    get, put = columns.access(dtype)
    distance, derivative = columns.lookahead(dtype), _derivative(activation, dtype)

    @helper
    def some(g, s, y, t, out, u, ahead, rows, j, sums, begin, mask):
        if rows == 8:
            columns.ask(g + ahead * s + j * size, s, 8)
            columns.ask(y + ahead * t + j * size, t, 8)
            columns.ask_to_write(out + ahead * u + j * size, u, 8)
        total = splat(F(0), L)
        for i in range(rows):
            v = derivative(get(pointer(g + i * s, F), j, mask), get(pointer(y + i * t, F), j, mask))
            put(pointer(out + i * u, F), j, v, mask)
            total = total + v
        put(sums, j, total if begin else get(sums, j, mask) + total, mask)

    def kernel(args, part, parts):
        partial, n, m, s, t = args[3], args[4], args[5], args[6], args[7]
        chunk, width = args[8], args[9]
        chunks, panels, u = (n + chunk - 1) // chunk, (m + width - 1) // width, m * size
        items = chunks * panels
        for item in range(part * items // parts, (part + 1) * items // parts):
            number, column = item // panels, item % panels * width
            begin, stop = number * chunk, min(n, (number + 1) * chunk)
            cols = min(width, m - column)
            full = cols - cols % L
            rest = first(cols - full, L)
            ahead = distance(cols)
            sums = pointer(partial + (number * m + column) * size, F)
            for i in range(begin, stop, 8):
                g, y = args[0] + i * s + column * size, args[1] + i * t + column * size
                out = args[2] + i * u + column * size
                rows = min(8, stop - i)
                for j in range(0, full, L):
                    if rows == 8:
                        some(g, s, y, t, out, u, ahead, 8, j, sums, i == begin, None)
                    else:
                        some(g, s, y, t, out, u, ahead, rows, j, sums, i == begin, None)
                if full < cols:
                    some(g, s, y, t, out, u, ahead, rows, full, sums, i == begin, rest)

    return kernel
