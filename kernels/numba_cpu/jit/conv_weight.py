"""The loops of a convolution's weight gradient. kernels.numba_cpu.conv_weight has the argument block and a drawing."""

from kernels.numba_cpu import blocking
from kernels.numba_cpu.conv_weight import COLUMN_TABLE
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import tile as tiles
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.pack import packers
from kernels.numba_cpu.jit.vector import first, int64, load, load_masked, pointer, splat, store, store_masked


def sums(dtype):
    """The products of all bands, each chunk of bands into its own result."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    call_tile = tiles.call_tile
    _, pack_columns, _ = packers(dtype, L)
    ACCUMULATE, TABLE = blocking.ACCUMULATE, COLUMN_TABLE

    @helper
    def clear(target, count):
        """Zeros in `count` elements, and in the rest of the last vector."""
        for i in range(0, count, L):
            store(pointer(target, dtype), i, splat(dtype(0), L))

    @helper
    def pack_pixels(source, step, pixels, live, width, target):
        """`live` elements of each pixel, `step` bytes apart, with zeros up to `width`. What a pixel's last vector
        leaves beyond its width, the next pixel overwrites."""
        if live == width and step == width * size:
            count = pixels * width
            for i in range(0, count - count % L, L):
                store(pointer(target, dtype), i, load(pointer(source, dtype), i, L))
            if count % L:
                rest = first(count % L, L)
                i = count - count % L
                store(pointer(target, dtype), i, load_masked(pointer(source, dtype), i, rest))
            return
        last = first(live - (width - 1) // L * L, L)
        if width <= L:
            for _ in range(pixels):
                store(pointer(target, dtype), 0, load_masked(pointer(source, dtype), 0, last))
                source += step
                target += width * size
            return
        for _ in range(pixels):
            for v in range(0, width, L):
                store(pointer(target, dtype), v, load_masked(pointer(source, dtype), v, first(live - v, L)))
            source += step
            target += width * size

    @helper
    def pack_image(source, row_step, step, first_row, rows, h, left, columns, w, live, width, target):
        """Rows first_row .. of an image and columns -left .. of each, zeros outside the image. In the order of the
        target's addresses, for `pack_pixels` and `clear` write beyond the end."""
        before = min(left, columns)
        inside = max(0, min(columns - before, w))
        after = columns - before - inside
        for row in range(first_row, first_row + rows):
            if row < 0 or row >= h:
                clear(target, columns * width)
            else:
                clear(target, before * width)
                pack_pixels(source + row * row_step, step, inside, live, width, target + before * width * size)
                if after:
                    clear(target + (before + inside) * width * size, after * width)
            target += columns * width * size

    def kernel(args, part, parts):
        x, g, results = args[0], args[1], (args[2] + args[3] - 1) // args[3] * args[3]
        scratch = (args[4] + 63) // 64 * 64 + part * args[5]
        tile, table = args[6], pointer(args[7], int64)
        n, h, w = args[8], args[9], args[10]
        image_step, row_step, pixel_step = args[11], args[12], args[13]
        groups, c, o, g_step = args[14], args[15], args[16], args[17]
        oh, ow, stride, top, left = args[18], args[19], args[20], args[21], args[22]
        reach, columns, width, subgroups = args[23], args[24], args[25], args[26]
        images, bands, blocks, chunks, splits = args[27], args[28], args[29], args[30], args[31]
        result_bytes, panel, pack_g, count = args[32], args[33], args[34], args[35]
        plane_rows, plane, taps = args[36], args[37], args[7] + 8 * args[38]
        # Panels of a group of outputs, and of all groups.
        group_panels = (o + panel * L - 1) // (panel * L)
        packed_g = scratch + args[39]
        units = chunks * splits
        for unit in range(units * part // parts, units * (part + 1) // parts):
            chunk, split = unit // splits, unit % splits
            result = results + chunk * result_bytes
            panel0, panel1 = groups * group_panels * split // splits, groups * group_panels * (split + 1) // splits
            group0, group1 = panel0 // group_panels, (panel1 + group_panels - 1) // group_panels
            flags = 0
            for band in range(bands * blocks * chunk // chunks, bands * blocks * (chunk + 1) // chunks):
                image0 = band // bands * images
                image1 = min(n, image0 + images)
                row0, row1 = oh * (band % bands) // bands, oh * (band % bands + 1) // bands
                k = (image1 - image0) * (row1 - row0) * ow
                target = scratch
                for group in range(group0, group1):
                    for subgroup in range(subgroups):
                        live = min(width, c - subgroup * width)
                        source = x + (group * c + subgroup * width) * size
                        to = target
                        for image in range(image0, image1):
                            pack_image(
                                source + image * image_step,
                                row_step,
                                pixel_step,
                                row0 * stride - top,
                                (row1 - row0 - 1) * stride + reach,
                                h,
                                left,
                                columns,
                                w,
                                live,
                                width,
                                to,
                            )
                            to += plane_rows
                        target += plane
                pixels = g + (image0 * oh + row0) * ow * g_step
                for p in range(panel0, panel1):
                    group = p // group_panels
                    j = (p - group * group_panels) * panel * L
                    live = min(o - j, panel * L)
                    vectors = (live + L - 1) // L
                    b, step = pixels + (group * o + j) * size, g_step
                    if pack_g:
                        pack_columns(b, g_step, size, k, live, vectors * L, packed_g)
                        b, step = packed_g, vectors * L * size
                    a = scratch + (group - group0) * subgroups * plane
                    c_base = result + (group * o + j) * size
                    last = live - (vectors - 1) * L
                    for t in range(count):
                        call_tile(
                            tile,
                            table[TABLE * t + 1],
                            vectors,
                            last,
                            a + table[TABLE * t],
                            size,
                            taps,
                            b,
                            step,
                            k,
                            c_base + table[TABLE * t + 2],
                            groups * o * size,
                            0,
                            flags,
                        )
                flags = ACCUMULATE

    return kernel


def finish(dtype):
    """The sum of all chunks' results, in their order. results, alignment, bytes of one, chunks, table of the byte
    offsets of rows, rows, columns, out."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8

    def kernel(args, part, parts):
        results, step, chunks = (args[0] + args[1] - 1) // args[1] * args[1], args[2], args[3]
        table, rows, columns = pointer(args[4], int64), args[5], args[6]
        whole = columns - columns % L
        rest = first(columns - whole, L)
        for row in range(rows * part // parts, rows * (part + 1) // parts):
            source, out = results + table[row], pointer(args[7] + row * columns * size, dtype)
            for j in range(0, whole, L):
                total = load(pointer(source, dtype), j, L)
                for chunk in range(1, chunks):
                    total = total + load(pointer(source + chunk * step, dtype), j, L)
                store(out, j, total)
            if whole < columns:
                total = load_masked(pointer(source, dtype), whole, rest)
                for chunk in range(1, chunks):
                    total = total + load_masked(pointer(source + chunk * step, dtype), whole, rest)
                store_masked(out, whole, total, rest)

    return kernel
