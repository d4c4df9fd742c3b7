"""The loops around the micro-kernel."""

from kernels.numba_cpu import blocking
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import tile as tiles
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.pack import packers


def gemm(dtype):
    """C (+)= A B (+ bias, activation) for a batch of strided matrices. Arguments: see `kernels.numba_cpu.blocking`."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    M3 = blocking.most_rows(host())[3]
    WIDE = blocking.usual_panel(host())
    call_tile = tiles.call_tile
    pack_rows, pack_columns, pack_strip = packers(dtype, L)
    ACCUMULATE, BIAS, FINISH = blocking.ACCUMULATE, blocking.BIAS, blocking.FINISH
    ARGUMENTS, STRIP, NC = blocking.ARGUMENTS, blocking.STRIP, blocking.NC

    @helper
    def panel_vectors(left, widest):
        """Vectors of the next panel, when `left` columns are left: the last are not one vector wide, if it can be."""
        if left > (widest + 1) * L:
            return widest
        vectors = (left + L - 1) // L
        if vectors <= max(widest, 3):
            return vectors
        return (vectors + 1) >> 1

    @helper
    def group_tiles(tile, a, ars, acs, b, brs, k, c, crs, bias, flags, rows, vectors, count):
        """A group of rows for one panel: one tile, or two where three vectors leave registers for fewer rows."""
        if vectors != 3 or rows <= M3:
            call_tile(tile, rows, vectors, count, a, ars, acs, b, brs, k, c, crs, bias, flags)
        else:
            half = rows >> 1
            call_tile(tile, half, vectors, count, a, ars, acs, b, brs, k, c, crs, bias, flags)
            a, c, rest = a + half * ars, c + half * crs, rows - half
            call_tile(tile, rest, vectors, count, a, ars, acs, b, brs, k, c, crs, bias, flags)

    @helper
    def product(
        tile, a, b, c, bias, scratch, m, n, k, ars, acs, brs, bcs, crs, flags, pack_a, pack_b, widest, most, mc, k_step
    ):
        """One matrix product."""
        k_blocks = max(1, (k + k_step - 1) // k_step)
        # Packed panels of B: all of them if several blocks of rows use them, else one strip of them after the other.
        keep = m > mc
        panels_size = k_step * ((min(n, NC) if keep else 0) + STRIP * WIDE * L) * size
        packed_a = scratch + pack_b * (panels_size // 64 + 1) * 64
        stride_a = (most * k_step * size) // 64 * 64 + 128
        for j_block in range(0, n, NC):
            columns = min(NC, n - j_block)
            for block in range(k_blocks):
                p = block * k_step
                k_now = min(k_step, k - p)
                now = 0
                if block > 0 or flags & ACCUMULATE:
                    now |= ACCUMULATE
                if block == k_blocks - 1:
                    now |= flags & (BIAS | FINISH)
                for i_block in range(0, m, mc):
                    # Groups of at most `most` rows, as even as can be: the first `more` have one row more.
                    rows = min(mc, m - i_block)
                    groups = (rows + most - 1) // most
                    base = rows // groups
                    more = rows - base * groups
                    block_a = a + i_block * ars + p * acs
                    if pack_a:
                        pack_rows(block_a, ars, acs, groups, base, more, k_now, packed_a, stride_a)
                    fresh = i_block == 0
                    j = packed = strip = 0  # columns before `packed` are, from `strip` on
                    while j < columns:
                        vectors = panel_vectors(columns - j, widest)
                        width = vectors * L
                        source = b + p * brs + (j_block + j) * bcs
                        panel, step = source, brs
                        if pack_b:
                            if fresh and j >= packed:
                                strip = 0 if keep else j
                                packed = j
                                last = columns - j - (STRIP - 1) * WIDE * L  # columns from the strip's last panel on
                                if (
                                    widest == WIDE
                                    and bcs == size
                                    and last >= WIDE * L
                                    and panel_vectors(last, WIDE) == WIDE
                                ):
                                    pack_strip(source, brs, k_now, scratch + (j - strip) * k_now * size)
                                    packed += STRIP * WIDE * L
                                else:
                                    live = min(columns - j, width)
                                    pack_columns(
                                        source, brs, bcs, k_now, live, width, scratch + (j - strip) * k_now * size
                                    )
                                    packed += width
                            panel, step = scratch + (j - strip) * k_now * size, width * size
                        count = min(columns - j - width + L, L)
                        to = c + i_block * crs + (j_block + j) * size
                        bias_now = bias + (j_block + j) * size
                        at, rs, cs = block_a, ars, acs
                        if pack_a:
                            at, rs = packed_a, size
                        for g in range(groups):
                            group = base + (g < more)
                            if pack_a:
                                cs = group * size
                            group_tiles(
                                tile, at, rs, cs, panel, step, k_now, to, crs, bias_now, now, group, vectors, count
                            )
                            at += stride_a if pack_a else group * ars
                            to += group * crs
                        j += width

    def kernel(args, part, parts):
        a, b, c, bias = args[0], args[1], args[2], args[3]
        scratch = (args[4] + 63) // 64 * 64 + part * args[5]
        m, n, k = args[6], args[7], args[8]
        ars, acs, brs, bcs, crs = args[9], args[10], args[11], args[12], args[13]
        flags, pack_a, pack_b = args[14], args[15], args[16]
        row_blocks, column_blocks, axes = args[17], args[18], args[19]
        batch = 1
        for axis in range(axes):
            batch *= args[ARGUMENTS + 4 * axis]
        units = batch * row_blocks * column_blocks
        unit, end = units * part // parts, units * (part + 1) // parts
        while unit < end:
            first_column = unit % column_blocks
            last_column = min(column_blocks, first_column + end - unit)
            row = unit // column_blocks % row_blocks
            index = unit // column_blocks // row_blocks
            shift_a, shift_b, shift_c = 0, 0, 0
            for axis in range(axes - 1, -1, -1):
                at = ARGUMENTS + 4 * axis
                here = index % args[at]
                index //= args[at]
                shift_a += here * args[at + 1]
                shift_b += here * args[at + 2]
                shift_c += here * args[at + 3]
            i0, i1 = m * row // row_blocks, m * (row + 1) // row_blocks
            # Columns are shared out in whole panels of two vectors.
            panels = (n + 2 * L - 1) // (2 * L)
            j0 = panels * first_column // column_blocks * 2 * L
            j1 = min(n, panels * last_column // column_blocks * 2 * L)
            product(
                args[20],
                a + shift_a + i0 * ars,
                b + shift_b + j0 * bcs,
                c + shift_c + i0 * crs + j0 * size,
                bias + j0 * size,
                scratch,
                i1 - i0,
                j1 - j0,
                k,
                ars,
                acs,
                brs,
                bcs,
                crs,
                flags,
                pack_a,
                pack_b,
                args[21],
                args[22],
                args[23],
                args[24],
            )
            unit += last_column - first_column
        return

    return kernel
