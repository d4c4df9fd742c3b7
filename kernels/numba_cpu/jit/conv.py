"""The loops of correlations around the micro-kernel. kernels/numba_cpu/correlation.py makes their arguments."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_cpu.correlation import HEAD, PHASE
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.copy import move_run
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.pack import packers
from kernels.numba_cpu.jit.tile import call_tile
from kernels.numba_cpu.jit.vector import pointer

int64, uint8 = types.int64, types.uint8


@helper
def clear(out, size):
    """`size` zero bytes, a multiple of 4."""
    at = pointer(out, types.int32)
    for i in range(size // 4):
        at[i] = 0


@intrinsic
def fetch(typingctx, address):
    """fetch(address): ask for a cache line, to have it in the second cache soon."""

    def codegen(context, builder, sig, args):
        byte, small = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, small, small, small])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [builder.inttoptr(args[0], byte), small(0), small(2), small(1)])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


def correlation(dtype):
    """Arguments: x, out, weights, bias, memory, bytes of packed weights in it, bytes after them for each part,
    description, flags."""
    size = dtype.bitwidth // 8
    lanes = host().lanes(dtype.name) * size  # bytes of a vector

    @helper
    def copy_rows(x, count, stride, to, before, here, whole):
        """`count` rows of `here` bytes, to rows of `whole` bytes: `before` zeros, the row, zeros."""
        for _ in range(count):
            clear(to, before)
            move_run(to + before, x, here)
            clear(to + before + here, whole - before - here)
            x += stride
            to += whole

    def kernel(args, part, parts):
        x, out, weights, bias = args[0], args[1], args[2], args[3]
        memory = (args[4] + 63) // 64 * 64
        scratch = memory + args[5] + part * args[6]
        d = pointer(args[7], int64)
        flags = args[8]
        n, height, image_bytes, row_bytes, out_bytes, step, ars, row = d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]
        padded, skipped, before, here, whole = d[8], d[9], d[10], d[11], d[12]
        images, band, bands, shares, groups, panels = d[13], d[14], d[15], d[16], d[17], d[18]
        group_in, group_out, w_row, in_place, brs_in_place, w_group = d[19], d[20], d[21], d[22], d[23], d[24]
        top, bottom, phases, calls = d[25], d[26], d[27], d[28]
        if not in_place:
            weights = memory
        units = (n + images - 1) // images * bands * shares
        last = units * (part + 1) // parts
        for unit in range(units * part // parts, last):
            share = unit % shares
            q0 = unit // shares % bands * band
            i0 = unit // (shares * bands) * images
            i1 = min(n, i0 + images)
            # Rows r0 to r1 of the images are met.
            r0, r1 = max(0, q0 * step + top), min(height, (q0 + band - 1) * step + bottom + 1)
            if padded:
                for i in range(i0, i1):
                    source = x + i * image_bytes + r0 * row_bytes + skipped
                    copy_rows(source, r1 - r0, row_bytes, scratch + (i - i0) * (r1 - r0) * row, before, here, whole)
                first, between = scratch - r0 * row, (r1 - r0) * row
            else:
                first, between = x + i0 * image_bytes, image_bytes
            # The input of the next unit, of which each tile fetches some lines.
            ahead = end = lines = 0
            if padded and unit + shares < last:
                following = unit // shares + 1
                row0 = max(0, following % bands * band * step + top)
                row1 = min(height, row0 + band * step + bottom - top)
                ahead = x + following // bands * images * image_bytes
                end = ahead + (min(images, n - following // bands * images) - 1) * image_bytes + row1 * row_bytes
                ahead += row0 * row_bytes
                lines = (end - ahead) // 64 // calls + 1
            for phase in range(phases):
                f = HEAD + 4 * panels + PHASE * phase
                place, tall, wide, out_row, crs = d[f], d[f + 1], d[f + 2], d[f + 3], d[f + 4]
                k_rows, k_row, w_phase = d[f + 5], d[f + 6], d[f + 7]
                rows, taps = d[f + 8], args[7] + 8 * d[f + 9]
                k, shared, tile = k_rows * k_row, d[f + 10], d[f + 11]
                for index in range(groups * panels * share // shares, groups * panels * (share + 1) // shares):
                    group = index // panels
                    p = HEAD + 4 * (index % panels)
                    start, vectors, count, most = d[p], d[p + 1], d[p + 2], d[p + 3]
                    column = group * group_out + start * lanes
                    brs = vectors * lanes
                    b = weights + w_phase + group * k * w_row + start * lanes * k
                    if in_place:
                        brs = brs_in_place
                        b = weights + group * w_group + start * lanes
                    # The micro-kernel's view of k: steps for a row of the kernel, bytes of a step in its tables.
                    steps, step_taps, step_b, brs_tile = k_row, 8, brs, brs
                    if shared > 1:
                        steps, step_taps, step_b = k_row // shared, 16, 0
                        brs_tile = steps * brs
                        most = d[f + 12]
                    elif shared == 0:
                        step_taps, step_b, brs_tile = 16, 0, brs_in_place
                    tiles = (wide + most - 1) // most
                    base = wide // tiles
                    more = wide - base * tiles
                    for i in range(i0, i1):
                        a_image = first + (i - i0) * between + group * group_in
                        c_image = out + i * out_bytes + place + column
                        for q in range(q0, min(tall, q0 + band)):
                            # The rows of the kernel that meet the image: from to stop.
                            y, low, stop = q * step, 0, k_rows
                            while low < stop and y + d[rows + low] < 0:
                                low += 1
                            while low < stop and y + d[rows + stop - 1] >= height:
                                stop -= 1
                            k0, k_now = low * steps, (stop - low) * steps
                            a, c = a_image + y * row, c_image + q * out_row
                            for t in range(tiles):
                                now = base + (t < more)
                                call_tile(
                                    tile,
                                    now,
                                    vectors,
                                    count,
                                    a,
                                    ars,
                                    taps + step_taps * k0,
                                    b + step_b * k0,
                                    brs_tile,
                                    k_now,
                                    c,
                                    crs,
                                    bias + column,
                                    flags,
                                )
                                for _ in range(lines):
                                    if ahead < end:
                                        fetch(ahead)
                                        ahead += 64
                                a += now * ars
                                c += now * crs

    return kernel


def packing(dtype):
    """Weights into panels [phase][group][panel][k][columns]. Arguments: w, target, table."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    _, pack_columns, _ = packers(dtype, L)

    def kernel(args, part, parts):
        w, target, d = args[0], (args[1] + 63) // 64 * 64, pointer(args[2], int64)
        taps, groups, panels, w_row, inner, rs, cs, w_group = d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]
        for item in range(taps * groups * part // parts, taps * groups * (part + 1) // parts):
            t, group = 8 + 4 * panels + 4 * (item // groups), item % groups
            source, phase, k, row = w + d[t] + group * w_group, target + d[t + 1], d[t + 2], d[t + 3]
            for p in range(panels):
                start, vectors, count = d[8 + 4 * p], d[9 + 4 * p], d[10 + 4 * p]
                to = phase + group * k * w_row + (start * k + row * vectors) * L * size
                pack_columns(source + start * L * cs, rs, cs, inner, (vectors - 1) * L + count, vectors * L, to)

    return kernel
