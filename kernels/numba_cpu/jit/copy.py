"""Strided copies of the compiled backend: runs of memory, transposes in square tiles, and everything else.

The argument block of each kernel, strides in bytes:

    x, out,
    n, stride of x, stride of out        the innermost axis
    m, stride of x, stride of out        the axis around it; a part takes `group` of its rows at a time
    group, last                          the last of the m rows has `last` elements instead of n
    depth, then (size, stride of x, stride of out) for each of the outer axes
"""

from collections.abc import Callable

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.vector import cast, load, pointer, shuffle, splat, store

#: dtype -> Numba type in memory
MEMORY = {
    "int32": types.int32,
    "bool": types.boolean,
    "uint8": types.uint8,
    "int64": types.int64,
    "float32": types.float32,
    "float64": types.float64,
}


@intrinsic
def move(typingctx, out, x, size):
    """move(out, x, size): copy `size` bytes between addresses."""

    def codegen(context, builder, sig, args):
        byte = ir.IntType(8)
        cgutils.raw_memcpy(builder, *(builder.inttoptr(a, byte.as_pointer()) for a in args[:2]), args[2], 1, align=1)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), codegen


@njit(error_model="numpy")
def move_short(out, x, size):
    """As `move`, faster for up to a few hundred bytes: the last piece overlaps the one before."""
    byte = types.uint8
    if size >= 32:
        source, target = pointer(x, byte), pointer(out, byte)
        for i in range(0, size - 32, 32):
            store(target, i, load(source, i, 32))
        store(target, size - 32, load(source, size - 32, 32))
    elif size >= 8:
        for i in range(0, size - 8, 8):
            pointer(out + i, types.int64)[0] = pointer(x + i, types.int64)[0]
        pointer(out + size - 8, types.int64)[0] = pointer(x + size - 8, types.int64)[0]
    elif size >= 4:
        tail = pointer(x + size - 4, types.int32)[0]
        pointer(out, types.int32)[0] = pointer(x, types.int32)[0]
        pointer(out + size - 4, types.int32)[0] = tail
    else:
        for i in range(size):
            pointer(out, byte)[i] = pointer(x, byte)[i]


@njit(error_model="numpy")
def move_run(out, x, size):
    if size <= 512:
        move_short(out, x, size)
    else:
        move(out, x, size)


def _kernel(inner: Callable) -> Callable:
    """The walk over the outer axes; inner(x, out, rows, sx, so, n, last, tx, to) does `rows` rows, strides s*, t*."""

    def kernel(args, part, parts):
        n, tx, to, m, sx, so, group, last, depth = (
            args[2],
            args[3],
            args[4],
            args[5],
            args[6],
            args[7],
            args[8],
            args[9],
            args[10],
        )
        groups = (m + group - 1) // group
        items = groups
        for d in range(depth):
            items *= args[11 + 3 * d]
        for item in range(part * items // parts, (part + 1) * items // parts):
            x, out, rest = args[0], args[1], item // groups
            for d in range(depth):
                size = args[11 + 3 * d]
                i = rest % size
                rest //= size
                x += i * args[12 + 3 * d]
                out += i * args[13 + 3 * d]
            start = item % groups * group
            rows = min(group, m - start)
            inner(x + start * sx, out + start * so, rows, sx, so, n, last if start + rows == m else n, tx, to)

    return kernel


def make_runs(size: int) -> Callable:
    """Both innermost axes are contiguous; elements of `size` bytes keep their bits."""

    @njit(error_model="numpy")
    def inner(x, out, rows, sx, so, n, last, tx, to):
        for i in range(rows - 1):
            move_run(out + i * so, x + i * sx, n * size)
        move_run(out + (rows - 1) * so, x + (rows - 1) * sx, last * size)

    return _kernel(inner)


def make_strided(source: str, target: str) -> Callable:
    """Any strides; converts the dtype. Contiguous runs are converted, and single values spread, by vectors."""
    S, T = MEMORY[source], MEMORY[target]
    S_one, T_one = (types.uint8 if kind == types.boolean else kind for kind in (S, T))  # one bool is a byte
    S_bytes, T_bytes = S_one.bitwidth // 8, T_one.bitwidth // 8
    to_bool = T == types.boolean
    L = host().lanes("float32")

    @njit(error_model="numpy")
    def one(x):
        value = pointer(x, S_one)[0]
        return T_one(value != 0) if to_bool else cast(value, T_one)

    @njit(error_model="numpy")
    def run(x, out, n, tx, to):
        i = 0
        if to == T_bytes and tx == S_bytes:
            while i + L <= n:
                store(pointer(out, T), i, cast(load(pointer(x, S), i, L), T))
                i += L
        elif to == T_bytes and tx == 0:
            value = splat(one(x), L)
            while i + L <= n:
                store(pointer(out, T_one), i, value)
                i += L
        while i < n:
            pointer(out + i * to, T_one)[0] = one(x + i * tx)
            i += 1

    @njit(error_model="numpy")
    def inner(x, out, rows, sx, so, n, last, tx, to):
        for i in range(rows):
            run(x + i * sx, out + i * so, n if i < rows - 1 else last, tx, to)

    return _kernel(inner)


def make_transposed(size: int) -> Callable:
    """x is contiguous along m, out along n; elements of 4 or 8 bytes keep their bits.

    Tiles of L x L elements are turned over in registers, 32 x 32 elements at a time to stay within the cache.
    """
    E = types.uint32 if size == 4 else types.uint64
    L = host().lanes_f32 * 4 // size
    turn = _turn(L)

    @njit(error_model="numpy")
    def scalars(x, out, rows, columns, so, tx):
        for i in range(rows):
            for j in range(columns):
                pointer(out + i * so, E)[j] = pointer(x + j * tx, E)[i]

    @njit(error_model="numpy")
    def inner(x, out, rows, sx, so, n, last, tx, to):
        whole = n - n % L
        full = rows - rows % L
        for k in range(0, whole, 32):
            for i in range(0, full, 32):
                for j in range(k, min(k + 32, whole), L):
                    for r in range(i, min(i + 32, full), L):
                        turn(x + r * size + j * tx, tx, out + j * size + r * so, so, E)
        scalars(x + full * size, out + full * so, rows - full, n, so, tx)
        scalars(x + whole * tx, out + whole * size, full, n - whole, so, tx)

    return _kernel(inner)


def _turn(L: int) -> Callable:
    """turn(x, sx, out, so, E): the L x L tile at x, rows sx bytes apart, transposed to out."""
    lines = ["def turn(x, sx, out, so, E):"]
    rows = [f"v{i}" for i in range(L)]
    lines += [f"    {row} = load(pointer(x + {i} * sx, E), 0, {L})" for i, row in enumerate(rows)]
    half = L // 2
    while half:
        # Rows i and i + half swap their off-diagonal blocks of half x half elements.
        low = tuple(k if k % (2 * half) < half else L + k - half for k in range(L))
        high = tuple(k + half if k % (2 * half) < half else L + k for k in range(L))
        for i in range(L):
            if i % (2 * half) < half:
                a, b = rows[i], rows[i + half]
                lines.append(f"    {a}, {b} = shuffle({a}, {b}, {low}), shuffle({a}, {b}, {high})")
        half //= 2
    lines += [f"    store(pointer(out + {i} * so, E), 0, {row})" for i, row in enumerate(rows)]
    scope = {"load": load, "store": store, "shuffle": shuffle, "pointer": pointer}
    exec("\n".join(lines), scope)
    return njit(error_model="numpy")(scope["turn"])
