"""Depthwise convolution: each channel by itself, vectors over channels. kernels.numba_cpu.depthwise says more."""

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import vector
from kernels.numba_cpu.jit.conv_weight import image_packer
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.vector import first, int64, pointer, prefetch_far, splat, store


@helper
def ask(address, end, lines):
    """Prefetch the next lines of the way to `end`; where to go on."""
    end = min(end, address + 64 * lines)
    while address < end:
        prefetch_far(address)
        address += 64
    return address


def _generated(dtype, lines: list[str]):
    """The helper `run` that the lines define; they use the functions of jit/vector.py, dtype and L, its lanes."""
    scope = {**vars(vector), "dtype": dtype, "L": host().lanes(dtype.name)}
    exec("\n".join(lines), scope)
    return helper(scope["run"])


def _pixels(dtype, count: int, vectors: int):
    """run(...): `vectors` vectors of channels of `count` pixels, `step` bytes apart in x and `out_step` in out.

    x: where a tap at offset 0 meets the first pixel. All taps are read.
    """
    size, lanes = dtype.bitwidth // 8, host().lanes(dtype.name)
    sums = [(t, v) for t in range(count) for v in range(vectors)]
    lines = [
        "def run(x, step, taps, low, high, weights, bias, finish, out, out_step):",
        *(f"    b{v} = splat(dtype(0), L)" for v in range(vectors)),
        "    if bias != 0:",
        *(f"        b{v} = load(pointer(bias, dtype), {v * lanes}, L)" for v in range(vectors)),
        *(f"    a{t}_{v} = b{v}" for t, v in sums),
        "    for k in range(low, high):",
        "        at, weight = x + taps[4 * k], pointer(weights + taps[4 * k + 1], dtype)",
        *(f"        w{v} = load(weight, {v * lanes}, L)" for v in range(vectors)),
        *(
            f"        a{t}_{v} = fma(load(pointer(at + {t} * step + {v * lanes * size}, dtype), 0, L), w{v}, a{t}_{v})"
            for t, v in sums
        ),
        "    if finish:",
        *(f"        a{t}_{v} = select(a{t}_{v} < dtype(0), splat(dtype(0), L), a{t}_{v})" for t, v in sums),
        *(f"    store(pointer(out + {t} * out_step, dtype), {v * lanes}, a{t}_{v})" for t, v in sums),
    ]
    return _generated(dtype, lines)


def _vectors(dtype, count: int):
    """run(...): `count` vectors of channels of one pixel, the last one masked. Taps in columns outside 0 .. w - 1 are
    left out; column: that of x for dx = 0."""
    lanes = host().lanes(dtype.name)

    def get(place: str, v: int) -> str:
        place = f"pointer({place}, dtype), {v * lanes}"
        return f"load({place}, L)" if v < count - 1 else f"load_masked({place}, mask)"

    vectors = range(count)
    lines = [
        "def run(x, column, w, taps, low, high, weights, bias, finish, out, mask):",
        *(f"    a{v} = splat(dtype(0), L)" for v in vectors),
        "    if bias != 0:",
        *(f"        a{v} = {get('bias', v)}" for v in vectors),
        "    for k in range(low, high):",
        "        i = column + taps[4 * k + 3]",
        "        if i < 0 or i >= w:",
        "            continue",
        "        at, weight = x + taps[4 * k], weights + taps[4 * k + 1]",
        *(f"        a{v} = fma({get('at', v)}, {get('weight', v)}, a{v})" for v in vectors),
        "    if finish:",
        *(f"        a{v} = select(a{v} < dtype(0), splat(dtype(0), L), a{v})" for v in vectors),
        *(f"    store(pointer(out, dtype), {v * lanes}, a{v})" for v in vectors[:-1]),
        f"    store_masked(pointer(out, dtype), {(count - 1) * lanes}, a{count - 1}, mask)",
    ]
    return _generated(dtype, lines)


def correlate(dtype):
    """Forward, and its transpose for x.

    Inner pixels go 8 or 4 at a time, to load a weight once for all of them. A pixel near the border goes alone, and
    some vectors of its channels together. table: for each phase the place of its taps, their number, and the inner
    pixels; for each tap its offset in x, its offset in w, dy and dx, in the order of dy.
    """
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    eight_2, eight_1 = _pixels(dtype, 8, 2), _pixels(dtype, 8, 1)
    four_2, four_1 = _pixels(dtype, 4, 2), _pixels(dtype, 4, 1)
    of_8, of_4, of_2, of_1 = (_vectors(dtype, vectors) for vectors in (8, 4, 2, 1))

    @helper
    def inner(x, step, taps, k0, k1, w, bias, finish, out, out_step, pixels, c, next_x, end, lines):
        """At least 4 pixels, none of which meets a column outside x. The last ones may be computed twice, and so may
        channels. c is at least L."""
        b = 0
        while b < pixels:
            many = pixels - b >= 8
            if not many:
                b = min(b, pixels - 4)
            channel = 0
            while channel < c:
                pair = c - channel >= 2 * L
                ch = min(channel, c - L) * size
                at, to, weights, bias_now = x + b * step + ch, out + b * out_step + ch, w + ch, bias
                if bias != 0:
                    bias_now += ch
                if pair and many:
                    eight_2(at, step, taps, k0, k1, weights, bias_now, finish, to, out_step)
                elif many:
                    eight_1(at, step, taps, k0, k1, weights, bias_now, finish, to, out_step)
                elif pair:
                    four_2(at, step, taps, k0, k1, weights, bias_now, finish, to, out_step)
                else:
                    four_1(at, step, taps, k0, k1, weights, bias_now, finish, to, out_step)
                channel += 2 * L if pair else L
            next_x = ask(next_x, end, lines)
            b += 8 if many else 4

    @helper
    def outer(x, column, width, taps, k0, k1, w, bias, finish, out, c):
        """One pixel, wherever it lies."""
        channel = 0
        while channel < c:
            ch = channel * size
            bias_now = bias + ch if bias != 0 else 0
            left, at, weights, to = c - channel, x + ch, w + ch, out + ch
            vectors = 8 if left > 7 * L else 4 if left > 3 * L else 2 if left > L else 1
            mask = first(left - (vectors - 1) * L, L)
            if vectors == 8:
                of_8(at, column, width, taps, k0, k1, weights, bias_now, finish, to, mask)
            elif vectors == 4:
                of_4(at, column, width, taps, k0, k1, weights, bias_now, finish, to, mask)
            elif vectors == 2:
                of_2(at, column, width, taps, k0, k1, weights, bias_now, finish, to, mask)
            else:
                of_1(at, column, width, taps, k0, k1, weights, bias_now, finish, to, mask)
            channel += vectors * L

    def kernel(args, part, parts):
        x, w, bias, out, table = args[0], args[1], args[2], args[3], args[4]
        finish, n, h, width = args[5], args[6], args[7], args[8]
        image_step, row_step, pixel_step = args[9], args[10], args[11]
        c, out_height, out_width = args[12], args[13], args[14]
        every_y, every_x, phases_y, phases_x = args[15], args[16], args[17], args[18]
        phases = pointer(table, int64)
        step, out_step = every_x * pixel_step, phases_x * c * size
        total = n * out_height
        for unit in range(total * part // parts, total * (part + 1) // parts):
            image, row = unit // out_height, unit % out_height
            y = row // phases_y * every_y
            source = x + image * image_step + y * row_step
            for phase in range(phases_x):
                p = 4 * (row % phases_y * phases_x + phase)
                taps, k0, k1 = pointer(table + 8 * phases[p], int64), 0, phases[p + 1]
                low, high = phases[p + 2], phases[p + 3]
                while k0 < k1 and y + taps[4 * k0 + 2] < 0:
                    k0 += 1
                while k0 < k1 and y + taps[4 * k1 - 2] >= h:
                    k1 -= 1
                pixels = (out_width - phase + phases_x - 1) // phases_x
                target = out + (unit * out_width + phase) * c * size
                if high - low < 4 or c < L:
                    low = high = pixels
                for q in range(low):
                    outer(
                        source + q * step, q * every_x, width, taps, k0, k1, w, bias, finish, target + q * out_step, c
                    )
                if low < high:
                    # The next row of pixels reads this many rows of x that this one does not.
                    news = (k1 > k0 and phase == phases_x - 1) * every_y * row_step
                    next_x = source + (taps[4 * k1 - 2] + 1) * row_step
                    lines = news // 64 // ((high - low + 7) // 8) + 1
                    inner(
                        source + low * step,
                        step,
                        taps,
                        k0,
                        k1,
                        w,
                        bias,
                        finish,
                        target + low * out_step,
                        out_step,
                        high - low,
                        c,
                        next_x,
                        next_x + news,
                        lines,
                    )
                for q in range(high, pixels):
                    outer(
                        source + q * step, q * every_x, width, taps, k0, k1, w, bias, finish, target + q * out_step, c
                    )

    return kernel


_SUMS = ("x", "x_row", "step", "below", "apart", "g", "g_row", "g_step", "height", "pixels", "total", "total_step")
_SUMS += ("next_x", "next_g", "mask")


def _weight_sums(dtype, rows: int, columns: int, masked: bool):
    """run(...): one vector of channels of some rows of g, times the `rows` x `columns` places of the kernel.

    x: where place (0, 0) meets the first pixel; place (i, j) is i * below + j * apart bytes on. x_row, g_row: bytes
    from one row of g to the next. next_x, next_g: what to prefetch, a line per pixel. The sums are added to those at
    total + (i * columns + j) * total_step.
    """
    places = [(i, j) for i in range(rows) for j in range(columns)]
    get, put = (
        ("load_masked({}, 0, mask)", "store_masked({}, 0, {}, mask)")
        if masked
        else ("load({}, 0, L)", "store({}, 0, {})")
    )
    where = {(i, j): f"pointer(total + {i * columns + j} * total_step, dtype)" for i, j in places}
    lines = [
        f"def run({', '.join(_SUMS)}):",
        *(f"    a{i}_{j} = {get.format(where[i, j])}" for i, j in places),
        "    for row in range(height):",
        "        x0, p = x + row * x_row, g + row * g_row",
        "        for _ in range(pixels):",
        f"            v = {get.format('pointer(p, dtype)')}",
        *(f"            x{i} = x{i - 1} + below" for i in range(1, rows)),
        *(
            f"            a{i}_{j} = fma(load(pointer(x{i} + {j} * apart, dtype), 0, L), v, a{i}_{j})"
            for i, j in places
        ),
        "            x0 += step",
        "            p += g_step",
        "            prefetch_far(next_x)",
        "            prefetch_far(next_g)",
        "            next_x, next_g = next_x + 64, next_g + 64",
        *(f"    {put.format(where[i, j], f'a{i}_{j}')}" for i, j in places),
    ]
    return _generated(dtype, lines)


def weight_gradient(dtype, rows: int, columns: int):
    """The sums for `rows` x `columns` places of the kernel at once, each chunk of bands into its own result.

    A band, some rows of an image, is copied with its padding for one vector of channels.
    """
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    whole_sums, masked_sums = _weight_sums(dtype, rows, columns, False), _weight_sums(dtype, rows, columns, True)
    pack_image = image_packer(dtype)

    def kernel(args, part, parts):
        x, g, results = args[0], args[1], (args[2] + 63) // 64 * 64
        scratch = results + args[3] + part * args[4]
        h, w, image_step, row_step, pixel_step = args[5], args[6], args[7], args[8], args[9]
        c, oh, ow, g_step = args[10], args[11], args[12], args[13]
        kh, stride_y, stride_x, dilation_y, dilation_x = args[14], args[15], args[16], args[17], args[18]
        top, left, band, units, chunks, result_bytes = args[19], args[20], args[21], args[22], args[23], args[24]
        bands = (oh + band - 1) // band
        groups = (kh + rows - 1) // rows
        wide = (ow - 1) * stride_x + (columns - 1) * dilation_x + 1
        pixel, line = L * size, wide * L * size
        for chunk in range(chunks * part // parts, chunks * (part + 1) // parts):
            result = results + chunk * result_bytes
            for i in range(0, result_bytes // size, L):
                store(pointer(result, dtype), i, splat(dtype(0), L))
            for unit in range(units * chunk // chunks, units * (chunk + 1) // chunks):
                image, row0 = unit // bands, unit % bands * band
                height = min(oh, row0 + band) - row0
                source = x + image * image_step
                for channel in range(0, c, L):
                    live = min(L, c - channel)
                    mask = first(live, L)
                    high = (height - 1) * stride_y + (kh - 1) * dilation_y + 1
                    start = row0 * stride_y - top
                    at = source + channel * size
                    pack_image(at, row_step, pixel_step, start, high, h, left, wide, w, live, L, scratch)
                    p = g + (image * oh + row0) * ow * g_step + channel * size
                    # Between the pixels of this band, what the next one reads is asked for.
                    lines = channel // L * height * ow * 64
                    next_x = source + (start + height * stride_y) * row_step + lines
                    next_g = g + (image * oh + row0 + height) * ow * g_step + lines
                    for group in range(groups):
                        total = result + (group * rows * columns * c + channel) * size
                        at = scratch + group * rows * dilation_y * line
                        x_row, step = stride_y * line, stride_x * pixel
                        below, apart = dilation_y * line, dilation_x * pixel
                        if live == L:
                            whole_sums(
                                at,
                                x_row,
                                step,
                                below,
                                apart,
                                p,
                                ow * g_step,
                                g_step,
                                height,
                                ow,
                                total,
                                c * size,
                                next_x,
                                next_g,
                                mask,
                            )
                        else:
                            masked_sums(
                                at,
                                x_row,
                                step,
                                below,
                                apart,
                                p,
                                ow * g_step,
                                g_step,
                                height,
                                ow,
                                total,
                                c * size,
                                next_x,
                                next_g,
                                mask,
                            )

    return kernel
