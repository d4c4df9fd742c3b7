"""Copying blocks of matrices into the order in which the micro-kernel reads them. Strides are in bytes."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.numba_cpu.blocking import STRIP, usual_panel
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.vector import Vector, first, load, load_masked, pointer, splat, store


def transpose(builder, rows: list) -> list:
    """`lanes` vectors as the rows of a square; its columns. log2(lanes) rounds of shuffles."""
    lanes = rows[0].type.count
    half = 1
    while half < lanes:
        low = [i if not i & half else lanes + i - half for i in range(lanes)]
        high = [i + half if not i & half else lanes + i for i in range(lanes)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), lanes), picks) for picks in (low, high)]
        for i in range(lanes):
            if not i & half:
                pair = rows[i], rows[i + half]
                rows[i], rows[i + half] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        half *= 2
    return rows


def square(dtype, lanes: int):
    """An intrinsic square(source, step, count, target, stride): transpose `lanes` vectors.

    Vector i < count is read at source + i * step (the others are 0); lane l of all of them is written as one vector at
    target + l * stride, in the order of l.
    """
    vector = Vector(dtype, lanes)
    bytes_each = dtype.bitwidth // 8

    @intrinsic
    def run(typingctx, source, step, count, target, stride):
        def codegen(context, builder, sig, args):
            source, step, count, target, stride = args
            whole = context.get_value_type(vector)
            word = ir.IntType(64)
            rows = []
            for i in range(lanes):
                # Out of range: read the first again, which is harmless, and drop it.
                inside = builder.icmp_signed("<", word(i), count)
                at = builder.add(source, builder.select(inside, builder.mul(step, word(i)), word(0)))
                value = builder.load(builder.inttoptr(at, whole.as_pointer()), align=bytes_each, typ=whole)
                rows.append(builder.select(inside, value, ir.Constant(whole, None)))
            for i, value in enumerate(transpose(builder, rows)):
                at = builder.add(target, builder.mul(stride, word(i)))
                builder.store(value, builder.inttoptr(at, whole.as_pointer()), align=bytes_each)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 5), codegen

    return run


def packers(dtype, lanes: int):
    """(pack_rows, pack_columns, pack_strip) for one element type.

    pack_columns(source, rs, cs, k, count, width, target): a panel of B, k rows of `width` elements side by side, the
        columns from `count` on 0. width is a multiple of `lanes`.
    pack_rows(source, rs, cs, groups, base, more, k, target, stride): groups of A's rows, the first `more` of base + 1,
        the others of base rows; for each k the rows of a group side by side. Group g begins at target + g * stride;
        up to `lanes` elements beyond its end are overwritten.
    pack_strip(source, rs, k, target): STRIP panels of the usual width, whose columns lie side by side (cs = size).
    """
    size = dtype.bitwidth // 8
    L, WIDE = lanes, usual_panel(host())
    square_of = square(dtype, lanes)

    @helper
    def element(address):
        return pointer(address, dtype)[0]

    @helper
    def pack_columns(source, rs, cs, k, count, width, target):
        if cs == size:
            at, to = source, target
            if count == 2 * L:
                for _ in range(k):
                    left, right = load(pointer(at, dtype), 0, L), load(pointer(at, dtype), L, L)
                    store(pointer(to, dtype), 0, left)
                    store(pointer(to, dtype), L, right)
                    at += rs
                    to += 2 * L * size
            else:
                last = first(count - width + L, L)
                for _ in range(k):
                    for v in range(0, width - L, L):
                        store(pointer(to, dtype), v, load(pointer(at, dtype), v, L))
                    store(pointer(to, dtype), width - L, load_masked(pointer(at, dtype), width - L, last))
                    at += rs
                    to += width * size
            return
        whole = k // L * L if rs == size else 0
        for p in range(0, whole, L):
            for v in range(0, width, L):
                at, to = source + p * rs + v * cs, target + (p * width + v) * size
                if count > v:
                    square_of(at, cs, count - v, to, width * size)
                else:
                    for i in range(L):
                        store(pointer(to + i * width * size, dtype), 0, splat(dtype(0), L))
        for p in range(whole, k):
            row = pointer(target + p * width * size, dtype)
            for j in range(width):
                row[j] = element(source + p * rs + j * cs) if j < count else dtype(0)

    @helper
    def pack_rows(source, rs, cs, groups, base, more, k, target, stride):
        if rs == size:
            # The last vectors first: what they leave beyond a group's rows, the earlier ones overwrite.
            for v in range((base + (more > 0) - 1) // L * L, -1, -L):
                longer, usual = first(base + 1 - v, L), first(base - v, L)
                for p in range(k):
                    at, to = source + p * cs + v * size, target + v * size
                    for _ in range(more):
                        store(pointer(to + p * (base + 1) * size, dtype), 0, load_masked(pointer(at, dtype), 0, longer))
                        at += (base + 1) * size
                        to += stride
                    for _ in range(groups - more):
                        store(pointer(to + p * base * size, dtype), 0, load_masked(pointer(at, dtype), 0, usual))
                        at += base * size
                        to += stride
            return
        at, to = source, target
        whole = k // L * L if cs == size else 0
        for g in range(groups):
            group = base + (g < more)
            for p in range(0, whole, L):
                for v in range((group - 1) // L * L, -1, -L):
                    square_of(at + v * rs + p * cs, rs, group - v, to + (p * group + v) * size, group * size)
            for p in range(whole, k):
                row = pointer(to + p * group * size, dtype)
                for i in range(group):
                    row[i] = element(at + i * rs + p * cs)
            at += group * rs
            to += stride

    @helper
    def pack_strip(source, rs, k, target):
        panel = k * WIDE * L * size
        for _ in range(k):
            to = target
            for v in range(0, STRIP * WIDE * L, WIDE * L):
                for u in range(0, WIDE * L, L):
                    store(pointer(to, dtype), u, load(pointer(source, dtype), v + u, L))
                to += panel
            source += rs
            target += WIDE * L * size

    return pack_rows, pack_columns, pack_strip
