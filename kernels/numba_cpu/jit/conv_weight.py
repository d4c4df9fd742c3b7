"""The loops of a convolution's weight gradient. kernels.numba_cpu.conv_weight has the argument block and a drawing."""

from kernels.numba_cpu import blocking
from kernels.numba_cpu.conv_weight import TABLE
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import tile as tiles
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.pack import packers
from kernels.numba_cpu.jit.vector import (
    first,
    int64,
    load,
    load_masked,
    pointer,
    splat,
    store,
    store_masked,
)


def image_packer(dtype):
    """pack_image(source, row_step, step, first_row, rows, h, left, columns, w, live, width, target): `live` elements of
    each pixel, and zeros up to `width`, of the rows first_row .. of an image and of the columns -left .. of each; zeros
    outside the image. Up to a vector beyond the end is overwritten."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8

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
        # In the order of the target's addresses, for `pack_pixels` and `clear` write beyond the end.
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

    return pack_image


def sums(dtype):
    """The products of all bands, each chunk of bands into its own result."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    call_tile = tiles.call_tile
    _, pack_columns, _ = packers(dtype, L)
    pack_image = image_packer(dtype)
    ACCUMULATE = blocking.ACCUMULATE

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
        packed_g = scratch + args[39]
        pieces, result_step = args[40], args[41]
        # Panels of a group, and of all groups: of g's columns, or of x's where it is the one that is read in vectors.
        group_panels = count if pieces else (o + panel * L - 1) // (panel * L)
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
                    a = scratch + (group - group0) * subgroups * plane
                    if pieces:
                        t = TABLE * (p - group * group_panels)
                        vectors = (table[t + 1] + L - 1) // L
                        for piece in range(pieces):
                            i, i1 = group * o + o * piece // pieces, group * o + o * (piece + 1) // pieces
                            call_tile(
                                tile,
                                i1 - i,
                                vectors,
                                table[t + 1] - (vectors - 1) * L,
                                pixels + i * size,
                                size,
                                g_step,
                                a + table[t],
                                taps,
                                k,
                                result + i * result_step + table[t + 2],
                                result_step,
                                0,
                                flags,
                            )
                        continue
                    j = (p - group * group_panels) * panel * L
                    live = min(o - j, panel * L)
                    vectors = (live + L - 1) // L
                    b, step = pixels + (group * o + j) * size, g_step
                    if pack_g:
                        pack_columns(b, g_step, size, k, live, vectors * L, packed_g)
                        b, step = packed_g, vectors * L * size
                    c_base = result + (group * o + j) * size
                    last = live - (vectors - 1) * L
                    for t in range(0, TABLE * count, TABLE):
                        call_tile(
                            tile,
                            table[t + 1],
                            vectors,
                            last,
                            a + table[t],
                            size,
                            taps,
                            b,
                            step,
                            k,
                            c_base + table[t + 2],
                            result_step,
                            0,
                            flags,
                        )
                flags = ACCUMULATE

    return kernel


def finish(dtype):
    """out = the sum of the chunks' results, in their order. results, alignment, bytes of one, chunks, elements,
    columns of out if the results are its transposes (else 0), out."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8

    def kernel(args, part, parts):
        results, step, chunks = (args[0] + args[1] - 1) // args[1] * args[1], args[2], args[3]
        count, columns, out = args[4], args[5], pointer(args[6], dtype)
        low, high = count * part // parts, count * (part + 1) // parts
        if columns:
            for i in range(low, high):
                source = results + (i % columns * (count // columns) + i // columns) * size
                total = pointer(source, dtype)[0]
                for chunk in range(1, chunks):
                    total += pointer(source + chunk * step, dtype)[0]
                out[i] = total
            return
        for i in range(low, high, L):
            mask = first(high - i, L)
            total = load_masked(pointer(results, dtype), i, mask)
            for chunk in range(1, chunks):
                total = total + load_masked(pointer(results + chunk * step, dtype), i, mask)
            store_masked(out, i, total, mask)

    return kernel
