"""Depthwise convolution: each channel by itself, vectors over channels. kernels.numba_cpu.depthwise has the arguments."""

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.vector import (
    first,
    fma,
    int64,
    load,
    load_masked,
    pointer,
    select,
    splat,
    store,
    store_masked,
)


def _generated(source: list[str], scope: dict):
    """The helper `run` that the lines of source define."""
    exec("\n".join(source), scope)
    return helper(scope["run"])


def _pixels(dtype, count: int):
    """run(...): one vector of channels of `count` pixels, `step` bytes apart in x and `out_step` in out.

    x: where tap (0, 0) meets the first one. y: the row of x for dy = 0; rows outside 0 .. h - 1 are left out. Columns
    lie within x.
    """
    scope = {"dtype": dtype, "L": host().lanes(dtype.name), "fma": fma, "load": load, "pointer": pointer}
    scope |= {"select": select, "splat": splat, "store": store}
    pixels = range(count)
    lines = [
        "def run(x, y, h, row_step, pixel_step, step, taps, count, weights, bias, finish, out, out_step):",
        "    start = splat(dtype(0), L)",
        "    if bias != 0:",
        "        start = load(pointer(bias, dtype), 0, L)",
        *(f"    a{t} = start" for t in pixels),
        "    for k in range(count):",
        "        dy = taps[3 * k]",
        "        if y + dy < 0 or y + dy >= h:",
        "            continue",
        "        at = x + dy * row_step + taps[3 * k + 1] * pixel_step",
        "        weight = load(pointer(weights + taps[3 * k + 2], dtype), 0, L)",
        *(f"        a{t} = fma(load(pointer(at + {t} * step, dtype), 0, L), weight, a{t})" for t in pixels),
        "    if finish:",
        *(f"        a{t} = select(a{t} < dtype(0), splat(dtype(0), L), a{t})" for t in pixels),
        *(f"    store(pointer(out + {t} * out_step, dtype), 0, a{t})" for t in pixels),
    ]
    return _generated(lines, scope)


def _vectors(dtype, count: int):
    """run(...): `count` vectors of channels of one pixel, the last one masked; columns outside 0 .. w - 1 are left out.

    x, y: as above. column: the column of x for dx = 0.
    """
    L = host().lanes(dtype.name)
    scope = {"dtype": dtype, "L": L, "fma": fma, "load_masked": load_masked, "load": load, "pointer": pointer}
    scope |= {"select": select, "splat": splat, "store": store, "store_masked": store_masked}

    def get(place: str, v: int) -> str:
        place = f"pointer({place}, dtype), {v * L}"
        return f"load({place}, L)" if v < count - 1 else f"load_masked({place}, mask)"

    vectors = range(count)
    lines = [
        "def run(x, y, h, row_step, column, w, pixel_step, taps, count, weights, bias, finish, out, mask):",
        *(f"    a{v} = splat(dtype(0), L)" for v in vectors),
        "    if bias != 0:",
        *(f"        a{v} = {get('bias', v)}" for v in vectors),
        "    for k in range(count):",
        "        dy, dx = taps[3 * k], taps[3 * k + 1]",
        "        if y + dy < 0 or y + dy >= h or column + dx < 0 or column + dx >= w:",
        "            continue",
        "        at, weight = x + dy * row_step + dx * pixel_step, weights + taps[3 * k + 2]",
        *(f"        a{v} = fma({get('at', v)}, {get('weight', v)}, a{v})" for v in vectors),
        "    if finish:",
        *(f"        a{v} = select(a{v} < dtype(0), splat(dtype(0), L), a{v})" for v in vectors),
        *(f"    store(pointer(out, dtype), {v * L}, a{v})" for v in vectors[:-1]),
        f"    store_masked(pointer(out, dtype), {(count - 1) * L}, a{count - 1}, mask)",
    ]
    return _generated(lines, scope)


def correlate(dtype):
    """Forward, and its transpose for x. Inner pixels go 8 or 4 at a time, to load a weight once for all of them; for a
    pixel at the border a weight is loaded once, too, but several vectors of channels go together."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    eight, four = _pixels(dtype, 8), _pixels(dtype, 4)
    wide, narrow = _vectors(dtype, 4), _vectors(dtype, 1)

    @helper
    def inner(x, y, h, row_step, pixel_step, step, taps, count, w, bias, finish, out, out_step, pixels, c):
        """At least 4 pixels, none of which meets a column outside x. The last ones may be computed twice, and so may
        channels. c is at least L."""
        b = 0
        while b < pixels:
            many = pixels - b >= 8
            if not many:
                b = min(b, pixels - 4)
            for channel in range(0, c, L):
                ch = min(channel, c - L) * size
                at, to, bias_now = x + b * step + ch, out + b * out_step + ch, bias + ch if bias != 0 else 0
                if many:
                    eight(at, y, h, row_step, pixel_step, step, taps, count, w + ch, bias_now, finish, to, out_step)
                else:
                    four(at, y, h, row_step, pixel_step, step, taps, count, w + ch, bias_now, finish, to, out_step)
            b += 8 if many else 4

    @helper
    def outer(x, y, h, row_step, column, width, pixel_step, taps, count, w, bias, finish, out, c):
        """One pixel, wherever it lies."""
        channel = 0
        while channel < c:
            ch = channel * size
            bias_now = bias + ch if bias != 0 else 0
            if channel + 3 * L < c:
                mask = first(c - channel - 3 * L, L)
                wide(
                    x + ch,
                    y,
                    h,
                    row_step,
                    column,
                    width,
                    pixel_step,
                    taps,
                    count,
                    w + ch,
                    bias_now,
                    finish,
                    out + ch,
                    mask,
                )
                channel += 4 * L
            else:
                mask = first(c - channel, L)
                narrow(
                    x + ch,
                    y,
                    h,
                    row_step,
                    column,
                    width,
                    pixel_step,
                    taps,
                    count,
                    w + ch,
                    bias_now,
                    finish,
                    out + ch,
                    mask,
                )
                channel += L

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
                taps, count = pointer(table + 8 * phases[p], int64), phases[p + 1]
                low, high = phases[p + 2], phases[p + 3]
                pixels = (out_width - phase + phases_x - 1) // phases_x
                target = out + (unit * out_width + phase) * c * size
                if high - low < 4 or c < L:
                    low = high = pixels
                for q in range(low):
                    outer(
                        source + q * step,
                        y,
                        h,
                        row_step,
                        q * every_x,
                        width,
                        pixel_step,
                        taps,
                        count,
                        w,
                        bias,
                        finish,
                        target + q * out_step,
                        c,
                    )
                if low < high:
                    inner(
                        source + low * step,
                        y,
                        h,
                        row_step,
                        pixel_step,
                        step,
                        taps,
                        count,
                        w,
                        bias,
                        finish,
                        target + low * out_step,
                        out_step,
                        high - low,
                        c,
                    )
                for q in range(high, pixels):
                    outer(
                        source + q * step,
                        y,
                        h,
                        row_step,
                        q * every_x,
                        width,
                        pixel_step,
                        taps,
                        count,
                        w,
                        bias,
                        finish,
                        target + q * out_step,
                        c,
                    )

    return kernel


def weight_gradient(dtype, rows: int, columns: int):
    """The sums for `rows` x `columns` places of the kernel at once, each chunk of images into its own result."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    places = [(i, j) for i in range(rows) for j in range(columns)]
    scope = {name: value for name, value in globals().items() if not name.startswith("_")} | {"dtype": dtype, "L": L}
    rows_x = ", ".join(f"x{i}, s{i}" for i in range(rows))

    def loop(border: bool, masked: bool) -> list[str]:
        get = "load_masked(pointer({}, dtype), 0, mask)" if masked else "load(pointer({}, dtype), 0, L)"
        lines = [f"    for q in range({'{}'}):", f"        v = {get.format('g')}", "        g += g_step"]
        for i, j in places:
            place = f"x{i} + {j} * apart" if j else f"x{i}"
            if border:
                place = f"({place}) if q * stride + {j} * dilation - left >= 0 and q * stride + {j} * dilation - left < w else zeros"
            lines.append(f"        a{i}_{j} = fma({get.format(place)}, v, a{i}_{j})")
        lines += [f"        x{i} += s{i}" for i in range(rows)]
        return lines

    def accumulate(masked: bool):
        """run(...): one row of g. x0, x1, ... are where column 0 of the kernel's rows meets its first pixel."""
        get = "load_masked(pointer({}, dtype), 0, mask)" if masked else "load(pointer({}, dtype), 0, L)"
        put = "store_masked(pointer({}, dtype), 0, {}, mask)" if masked else "store(pointer({}, dtype), 0, {})"
        lines = [
            f"def run({rows_x}, g, g_step, apart, total, total_step, low, high, pixels, stride, dilation, left, w, zeros, mask):"
        ]
        for i, j in places:
            where = f"total + {i * columns + j} * total_step"
            lines.append(f"    a{i}_{j} = {get.format(where)}")
        for border, limits in ((True, "0, low"), (False, "low, high"), (True, "high, pixels")):
            head, *body = loop(border, masked)
            lines += [head.format(limits), *body]
        for i, j in places:
            where = f"total + {i * columns + j} * total_step"
            lines.append(f"    {put.format(where, f'a{i}_{j}')}")
        return _generated(lines, dict(scope))

    whole, masked = accumulate(False), accumulate(True)
    calls = [
        "def run(whole, address, h, row, dilation_y, row_step, step, zeros, g, g_step, apart, total, total_step, low, high, pixels, stride, dilation, left, w, mask, use):"
    ]
    for i in range(rows):
        calls += [
            f"    y = row + {i} * dilation_y",
            f"    inside = y >= 0 and y < h and {i} < use",
            f"    x{i} = address + y * row_step if inside else zeros",
            f"    s{i} = step if inside else 0",
        ]
    given = f"{rows_x}, g, g_step, apart, total, total_step, low, high, pixels, stride, dilation, left, w, zeros, mask"
    calls += ["    if whole:", f"        whole_row({given})", "    else:", f"        masked_row({given})"]
    one_row = _generated(calls, {"whole_row": whole, "masked_row": masked})

    def kernel(args, part, parts):
        x, g, results, zeros = args[0], args[1], (args[2] + args[3] - 1) // args[3] * args[3], args[4]
        h, w, image_step, row_step, pixel_step = args[5], args[6], args[7], args[8], args[9]
        c, oh, ow, g_step = args[10], args[11], args[12], args[13]
        kh, stride_y, stride_x, dilation_y, dilation_x = args[14], args[15], args[16], args[17], args[18]
        top, left, low, high = args[19], args[20], args[21], args[22]
        band, units, chunks, result_bytes = args[23], args[24], args[25], args[26]
        bands = (oh + band - 1) // band
        groups = (kh + rows - 1) // rows
        for chunk in range(chunks * part // parts, chunks * (part + 1) // parts):
            result = results + chunk * result_bytes
            for i in range(0, groups * rows * columns * c, L):
                mask = first(groups * rows * columns * c - i, L)
                store_masked(pointer(result, dtype), i, splat(dtype(0), L), mask)
            for unit in range(units * chunk // chunks, units * (chunk + 1) // chunks):
                image, row0 = unit // bands, unit % bands * band
                row1 = min(oh, row0 + band)
                for channel in range(0, c, L):
                    mask = first(c - channel, L)
                    for group in range(groups):
                        total = result + (group * rows * columns * c + channel) * size
                        for row in range(row0, row1):
                            one_row(
                                channel + L <= c,
                                x + image * image_step + channel * size - left * pixel_step,
                                h,
                                row * stride_y - top + group * rows * dilation_y,
                                dilation_y,
                                row_step,
                                stride_x * pixel_step,
                                zeros,
                                g + ((image * oh + row) * ow) * g_step + channel * size,
                                g_step,
                                dilation_x * pixel_step,
                                total,
                                c * size,
                                low,
                                high,
                                ow,
                                stride_x,
                                dilation_x,
                                left,
                                w,
                                mask,
                                kh - group * rows,
                            )

    return kernel
