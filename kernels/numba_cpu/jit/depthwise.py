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

#: Neighbouring pixels of the output that are summed up at once, to load a weight once for all of them.
PIXELS = 8


def _generated(source: list[str], scope: dict):
    """The helper `run` that the lines of source define."""
    exec("\n".join(source), scope)
    return helper(scope["run"])


def _pixels(dtype, border: bool):
    """run(...): PIXELS pixels, `step` bytes apart, of one row and one vector of channels.

    x: where tap (0, 0) meets pixel 0. y: the row of x that dy = 0 meets. Rows of x outside 0 .. h - 1 are left out.
    border: columns column + t * apart + dx outside 0 .. w - 1 are read at `zeros`; lanes out of the mask are left out;
    `live` pixels are written.
    """
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    scope = {name: value for name, value in globals().items() if not name.startswith("_")}
    scope |= {"dtype": dtype, "L": L, "size": size}
    get, put = (
        ("load_masked({}, 0, mask)", "store_masked({}, 0, {}, mask)")
        if border
        else ("load({}, 0, L)", "store({}, 0, {})")
    )
    lines = [
        "def run(x, y, h, row_step, pixel_step, step, column, apart, w, zeros, taps, count, weights, bias, finish, out, out_step, live, mask):",
        "    start = splat(dtype(0), L)",
        "    if bias != 0:",
        f"        start = {get.format('pointer(bias, dtype)')}",
        *(f"    a{t} = start" for t in range(PIXELS)),
        "    for k in range(count):",
        "        row = y + taps[3 * k]",
        "        if row < 0 or row >= h:",
        "            continue",
        "        dx = taps[3 * k + 1]",
        "        at = x + taps[3 * k] * row_step + dx * pixel_step",
        f"        weight = {get.format('pointer(weights + taps[3 * k + 2], dtype)')}",
    ]
    for t in range(PIXELS):
        place = f"at + {t} * step"
        if border:
            lines.append(f"        i{t} = column + {t} * apart + dx")
            place = f"{place} if i{t} >= 0 and i{t} < w else zeros"
        lines.append(f"        a{t} = fma({get.format(f'pointer({place}, dtype)')}, weight, a{t})")
    lines.append("    if finish:")
    lines += [f"        a{t} = select(a{t} < dtype(0), splat(dtype(0), L), a{t})" for t in range(PIXELS)]
    for t in range(PIXELS):
        write = put.format(f"pointer(out + {t} * out_step, dtype)", f"a{t}")
        lines += [f"    if live > {t}:", f"        {write}"] if border else [f"    {write}"]
    return _generated(lines, scope)


def correlate(dtype):
    """Forward, and its transpose for x."""
    L = host().lanes(dtype.name)
    size = dtype.bitwidth // 8
    inside, at_border = _pixels(dtype, False), _pixels(dtype, True)
    T = PIXELS

    def kernel(args, part, parts):
        x, w, bias, out, zeros, table = args[0], args[1], args[2], args[3], args[4], args[5]
        finish, n, height, width = args[6], args[7], args[8], args[9]
        image_step, row_step, pixel_step = args[10], args[11], args[12]
        c, out_height, out_width = args[13], args[14], args[15]
        every_y, every_x, phases_y, phases_x = args[16], args[17], args[18], args[19]
        phases = pointer(table, int64)
        total = n * out_height
        for unit in range(total * part // parts, total * (part + 1) // parts):
            image, row = unit // out_height, unit % out_height
            y = row // phases_y * every_y
            source = x + image * image_step + y * row_step
            target = out + unit * out_width * c * size
            for phase in range(phases_x):
                p = 4 * (row % phases_y * phases_x + phase)
                taps, count = pointer(table + 8 * phases[p], int64), phases[p + 1]
                low, high = phases[p + 2], phases[p + 3]
                pixels = (out_width - phase + phases_x - 1) // phases_x
                for block in range(0, pixels, T):
                    # The last block begins earlier, and writes some pixels again.
                    b = max(0, min(block, pixels - T))
                    column = b * every_x
                    whole = column + low >= 0 and column + (T - 1) * every_x + high < width and b + T <= pixels
                    at = source + column * pixel_step
                    to = target + (phase + b * phases_x) * c * size
                    for channel in range(0, c, L):
                        ch = max(0, min(channel, c - L)) * size
                        bias_now = bias + ch if bias != 0 else 0
                        if whole and c >= L:
                            inside(
                                at + ch,
                                y,
                                height,
                                row_step,
                                pixel_step,
                                every_x * pixel_step,
                                column,
                                every_x,
                                width,
                                zeros,
                                taps,
                                count,
                                w + ch,
                                bias_now,
                                finish,
                                to + ch,
                                phases_x * c * size,
                                T,
                                first(c, L),
                            )
                        else:
                            at_border(
                                at + ch,
                                y,
                                height,
                                row_step,
                                pixel_step,
                                every_x * pixel_step,
                                column,
                                every_x,
                                width,
                                zeros,
                                taps,
                                count,
                                w + ch,
                                bias_now,
                                finish,
                                to + ch,
                                phases_x * c * size,
                                pixels - b,
                                first(c, L),
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
