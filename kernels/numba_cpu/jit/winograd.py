"""Kernels of Winograd's convolution F(m x m, 3 x 3): the transforms of tiles, and products at each of their positions.

A tile is m x m places of the output and the (m + 2) x (m + 2) inputs that they meet. The P = (m + 2)^2 transformed
values of a tile and channel stand at P positions; at each position the channels are multiplied as matrices:

    V[position][tile][c]   U[position][panel][c][2 lanes]   M[position][tile][2 lanes]        (lanes of o in panels)

Steps between positions, tiles and panels are in bytes. Vectors are along channels. Where a tile goes beyond the image,
its inputs are read from zeros and its outputs written to a sink, both a row of channels long: a table of addresses, one
for each place of a tile, says where they are.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_cpu.blocking import ACCUMULATE, most_rows
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import lines, pack
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.tile import call_tile
from kernels.numba_cpu.jit.vector import Vector, _splat, masked_load, masked_store, pointer, splat, store, vector_ir

#: Terms of a product that are added at once: so much of a panel stays in the first cache.
KC = 256

_WORD = ir.IntType(64)


class _Value:
    """A vector in the code that is being made, with the operators that transforms use."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def __add__(self, other):
        return _Value(self.builder, self.builder.fadd(self.value, other.value, flags=("contract",)))

    def __sub__(self, other):
        return _Value(self.builder, self.builder.fsub(self.value, other.value, flags=("contract",)))

    def __rmul__(self, factor: float):
        kind = self.value.type
        constant = ir.Constant(kind, [float(factor)] * kind.count)
        return _Value(self.builder, self.builder.fmul(constant, self.value, flags=("contract",)))


def transform(dtype, line, side: int, gather=False, scatter=False, mask="", finish=False):
    """run(source, source_step, target, target_step, shift, live, bias, relu): side x side vectors, transformed.

    Value k = side * i + j is read at source + k * source_step, or, if `gather`, at shift + word k of the table at
    source; results are written alike (`scatter`). With a table the step is the address of the next tile's table, whose
    places are asked for in advance: reading or writing images line by line would wait for each of them.
    mask: "load" or "store": only `live` lanes are in memory there.
    finish: the bias at `bias` is added to the results, and they are made 0 where they are less and relu is not 0.
    """
    lanes, element_bytes = host().lanes(dtype.name), dtype.bitwidth // 8
    vector = Vector(dtype, lanes)

    def variant(masked: bool):
        @intrinsic
        def run(typingctx, source, source_step, target, target_step, shift, live, bias, relu):
            def codegen(context, builder, sig, args):
                source, source_step, target, target_step, shift, live, bias, relu = args
                whole = vector_ir(vector)
                some = None
                byte, small = ir.IntType(8).as_pointer(), ir.IntType(32)
                kind = ir.FunctionType(ir.VoidType(), [byte, small, small, small])
                prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
                if masked:
                    wide = _splat(builder, builder.trunc(live, ir.IntType(32)), lanes)
                    some = builder.icmp_signed(">", wide, ir.Constant(wide.type, list(range(lanes))))

                def ask(ahead, k, write):
                    word = builder.inttoptr(builder.add(ahead, _WORD(8 * k)), _WORD.as_pointer())
                    at = builder.inttoptr(builder.add(builder.load(word, align=8, typ=_WORD), shift), byte)
                    builder.call(prefetch, [at, small(int(write)), small(3), small(1)])

                def place(base, step, k, table):
                    if table:
                        word = builder.inttoptr(builder.add(base, _WORD(8 * k)), _WORD.as_pointer())
                        at = builder.add(builder.load(word, align=8, typ=_WORD), shift)
                    else:
                        at = builder.add(base, builder.mul(step, _WORD(k)))
                    return builder.inttoptr(at, whole.as_pointer())

                def read(at, partly):
                    if partly:
                        return masked_load(builder, at, whole, some, element_bytes)
                    return builder.load(at, align=element_bytes, typ=whole)

                def value(k):
                    at = place(source, source_step, k, gather)
                    return _Value(builder, read(at, masked and mask == "load"))

                if gather:
                    for k in range(side * side):
                        ask(source_step, k, False)
                grid = [[value(side * i + j) for j in range(side)] for i in range(side)]
                results = [result.value for row in lines.square(line, grid) for result in row]
                if finish:
                    at = builder.inttoptr(bias, whole.as_pointer())
                    more = read(at, masked)
                    least = ir.Constant(whole, [float("-inf")] * lanes)
                    wanted = builder.icmp_unsigned("!=", relu, _WORD(0))
                    least = builder.select(wanted, ir.Constant(whole, [0.0] * lanes), least)
                    results = [builder.fadd(result, more) for result in results]
                    results = [builder.select(builder.fcmp_ordered("<", y, least), least, y) for y in results]
                for k, result in enumerate(results):
                    if scatter:
                        ask(target_step, k, True)
                    at = place(target, target_step, k, scatter)
                    if masked and mask == "store":
                        masked_store(builder, result, at, some, element_bytes)
                    else:
                        builder.store(result, at, align=element_bytes)
                return context.get_dummy_value()

            return types.none(*[types.int64] * 8), codegen

        return run

    whole, part = variant(False), variant(True) if mask else None

    if not mask:
        return whole

    @helper
    def run(source, source_step, target, target_step, shift, live, bias, relu):
        if live >= lanes:
            whole(source, source_step, target, target_step, shift, live, bias, relu)
        else:
            part(source, source_step, target, target_step, shift, live, bias, relu)

    return run


@helper
def fill_table(table, side, m, tile, down, across, top, left, base, rows, columns, image, row, column, elsewhere):
    """Addresses of the side x side places that a tile meets; those beyond its image are `elsewhere`.

    The tile begins m * (its row) - top, m * (its column) - left from the image's first place; image, row and column are
    steps in memory.
    """
    words = pointer(table, types.int64)
    y0, x0 = tile // across % down * m - top, tile % across * m - left
    corner = base + tile // (down * across) * image + y0 * row + x0 * column
    for i in range(side):
        for j in range(side):
            y, x = y0 + i, x0 + j
            inside = (0 <= y) & (y < rows) & (0 <= x) & (x < columns)
            words[side * i + j] = corner + i * row + j * column if inside else elsewhere


def clear(dtype):
    """clear(address, count): write zeros, whole vectors of them."""
    L, size = host().lanes(dtype.name), dtype.bitwidth // 8

    @helper
    def run(address, count):
        for v in range(0, count, L):
            store(pointer(address + v * size, dtype), 0, splat(dtype(0), L))

    return run


def filters(dtype, m: int):
    """U from w. Arguments:

    0 w  1 U  2 rows (c)  3 columns (o)  4 step of w from tap to tap  5 from row to row  6 from column to column
    7 step of U from position to position  8 from panel to panel  9 scratch  10 bytes of scratch per part

    One of the steps 5 and 6 is an element: w as it is, or transposed; taps are flipped by a negative step 4. A panel
    has room for whole vectors of rows. A part takes some of the rows, or, transposed, of the vectors of columns.
    """
    L, size, P = host().lanes(dtype.name), dtype.bitwidth // 8, (m + 2) ** 2
    run = transform(dtype, lines.LINES[m].filter, 3, mask="load")
    square = pack.square(dtype, L)

    def kernel(args, part, parts):
        w, u, rows, columns = args[0], (args[1] + 63) // 64 * 64, args[2], args[3]
        tap, row, column, position, panel = args[4], args[5], args[6], args[7], args[8]
        if column == size:
            for c in range(rows * part // parts, rows * (part + 1) // parts):
                for v in range(0, columns, L):
                    to = u + v // (2 * L) * panel + (c * 2 * L + v % (2 * L)) * size
                    run(w + c * row + v * size, tap, to, position, 0, columns - v, 0, 0)
            return
        memory = (args[9] + 63) // 64 * 64 + part * args[10]
        vectors = (columns + L - 1) // L
        for v in range(vectors * part // parts * L, vectors * (part + 1) // parts * L, L):
            live = min(L, columns - v)
            to = u + v // (2 * L) * panel + v % (2 * L) * size
            for c in range(0, rows, L):
                for i in range(live):
                    source = w + c * size + (v + i) * column
                    run(source, tap, memory + i * L * size, L * L * size, 0, rows - c, 0, 0)
                for p in range(P):
                    square(
                        memory + p * L * L * size, L * size, live, to + p * position + c * 2 * L * size, 2 * L * size
                    )

    return kernel


def products(dtype):
    """multiply(tile, a, row, element, b, k, c, c_row, rows, vectors, flags): C (+)= A B for one panel B.

    a: `rows` rows, `row` bytes apart, of k elements, `element` bytes apart. b: k rows of 2 vectors.
    """
    L, size = host().lanes(dtype.name), dtype.bitwidth // 8
    most = most_rows(host())[2]

    @helper
    def multiply(tile, a, row, element, b, k, c, c_row, rows, vectors, flags):
        groups = (rows + most - 1) // most
        base = rows // groups
        more = rows - base * groups
        blocks = max(1, (k + KC - 1) // KC)
        step = max(1, (k + blocks - 1) // blocks)
        for p in range(0, max(1, k), step):
            now = flags if p == 0 else ACCUMULATE
            at, to = a + p * element, c
            for g in range(groups):
                group = base + (g < more)
                panel = b + p * 2 * L * size
                call_tile(
                    tile, group, vectors, L, at, row, element, panel, 2 * L * size, min(step, k - p), to, c_row, 0, now
                )
                at += group * row
                to += group * c_row

    return multiply


def convolve(dtype, m: int):
    """out = activation(conv2d(x, w) + bias), from U. Arguments:

    0 x  1 out  2 U  3 bias or 0  4 scratch  5 bytes of scratch per part  6 columns (o)  7 relu
    8 tiles  9 tiles down  10 tiles across an image  11 h  12 w  13 c  14 oh  15 ow  16 padding at the top
    17 at the left  18 step of x from image to image  19 from row to row  20 from column to column  21 ... 23 of out
    24 step of U from position to position  25 from panel to panel  26 blocks of tiles  27 panels of a group
    28 step of V from tile to tile  29 of V from position to position  30 of M from tile to tile
    31 of M from position to position  32 channels of zeros and of the sink  33 address of the micro-kernel
    34 step of V from block to block  35 channels (c) to transform: 0 if V is there from the call before

    A block of tiles is transformed to V, which stays in the second cache while each group of panels turns it into M,
    and that into outputs.
    """
    L, size, S = host().lanes(dtype.name), dtype.bitwidth // 8, m + 2
    to_v = transform(dtype, lines.LINES[m].input, S, gather=True, mask="load")
    from_m = transform(dtype, lines.LINES[m].output, S, scatter=True, mask="store", finish=True)
    multiply, zero = products(dtype), clear(dtype)

    def kernel(args, part, parts):
        x, out, u, bias = args[0], args[1], (args[2] + 63) // 64 * 64, args[3]
        zeros = (args[4] + 63) // 64 * 64 + part * args[5]
        o, relu, tiles, down, across = args[6], args[7], args[8], args[9], args[10]
        h, w, c, oh, ow, top, left = args[11], args[12], args[13], args[14], args[15], args[16], args[17]
        x_image, x_row, x_column, out_image, out_row, out_column = (
            args[18],
            args[19],
            args[20],
            args[21],
            args[22],
            args[23],
        )
        u_position, u_panel, blocks, group = args[24], args[25], args[26], args[27]
        v_tile, v_position, m_tile, m_position = args[28], args[29], args[30], args[31]
        wide, tile, v_block, fresh = args[32], args[33], args[34], args[35]
        sink = zeros + wide * size
        table = sink + wide * size
        m_base = table + (2 * S * S * 8 + 63) // 64 * 64
        v_first = m_base + S * S * m_position
        zero(zeros, wide)
        panels = (o + 2 * L - 1) // (2 * L)
        begin_block = blocks * part // parts
        for block in range(begin_block, blocks * (part + 1) // parts):
            v_base = v_first + (block - begin_block) * v_block
            first, count = tiles * block // blocks, tiles * (block + 1) // blocks - tiles * block // blocks
            now, ahead = table, table + S * S * 8
            fill_table(now, S, m, first, down, across, top, left, x, h, w, x_image, x_row, x_column, zeros)
            for t in range(count if fresh else 0):
                after = first + min(t + 1, count - 1)
                fill_table(ahead, S, m, after, down, across, top, left, x, h, w, x_image, x_row, x_column, zeros)
                for v in range(0, fresh, L):
                    to_v(now, ahead, v_base + t * v_tile + v * size, v_position, v * size, c - v, 0, 0)
                now, ahead = ahead, now
            for panel in range(0, panels, group):
                last = min(panels, panel + group)
                for p in range(S * S):
                    for q in range(panel, last):
                        vectors = 2 if o - q * 2 * L > L else 1
                        multiply(
                            tile,
                            v_base + p * v_position,
                            v_tile,
                            size,
                            u + p * u_position + q * u_panel,
                            c,
                            m_base + p * m_position + (q - panel) * 2 * L * size,
                            m_tile,
                            count,
                            vectors,
                            0,
                        )
                begin, end = panel * 2 * L, min(o, last * 2 * L)
                fill_table(now, m, m, first, down, across, 0, 0, out, oh, ow, out_image, out_row, out_column, sink)
                for t in range(count):
                    after = first + min(t + 1, count - 1)
                    fill_table(
                        ahead, m, m, after, down, across, 0, 0, out, oh, ow, out_image, out_row, out_column, sink
                    )
                    for v in range(begin, end, L):
                        source = m_base + t * m_tile + (v - begin) * size
                        more = bias + v * size if bias else zeros
                        from_m(source, m_position, now, ahead, v * size, o - v, more, relu)
                    now, ahead = ahead, now

    return kernel


def spread(dtype, m: int):
    """V and M = A g A^T for the weight gradient, of some of the tiles. Arguments:

    0 x  1 g, from the first of its columns on  2 V  3 M  4 scratch  5 bytes of scratch per part  6 columns of g
    7 first tile  8 tiles  9 tiles down  10 tiles across an image  11 h  12 w  13 c  14 oh  15 ow
    16 padding at the top  17 at the left  18 step of x from image to image  19 from row to row
    20 from column to column  21 ... 23 of g  24 step of V from tile to tile  25 of V from position to position
    26 step of M from panel to panel  27 of M from position to position  28 channels of zeros
    29 channels (c) to transform: 0 if V is there from the call before

    M is in panels here: M[position][panel][tile][2 lanes].
    """
    L, size, S = host().lanes(dtype.name), dtype.bitwidth // 8, m + 2
    to_v = transform(dtype, lines.LINES[m].input, S, gather=True, mask="load")
    to_m = transform(dtype, lines.LINES[m].gradient, m, gather=True, mask="load")
    zero = clear(dtype)

    def kernel(args, part, parts):
        x, g, v_base, m_base = args[0], args[1], (args[2] + 63) // 64 * 64, (args[3] + 63) // 64 * 64
        zeros = (args[4] + 63) // 64 * 64 + part * args[5]
        o, first, count, down, across = args[6], args[7], args[8], args[9], args[10]
        h, w, oh, ow, top, left = args[11], args[12], args[14], args[15], args[16], args[17]
        x_image, x_row, x_column, g_image, g_row, g_column = args[18], args[19], args[20], args[21], args[22], args[23]
        v_tile, v_position, m_panel, m_position, wide = args[24], args[25], args[26], args[27], args[28]
        fresh = args[29]
        table = zeros + wide * size
        zero(zeros, wide)
        begin, end = count * part // parts, count * (part + 1) // parts
        now, ahead = table, table + S * S * 8
        if begin < end:
            fill_table(now, S, m, first + begin, down, across, top, left, x, h, w, x_image, x_row, x_column, zeros)
        for t in range(begin, end if fresh else begin):
            after = first + min(t + 1, end - 1)
            fill_table(ahead, S, m, after, down, across, top, left, x, h, w, x_image, x_row, x_column, zeros)
            for v in range(0, fresh, L):
                to_v(now, ahead, v_base + t * v_tile + v * size, v_position, v * size, fresh - v, 0, 0)
            now, ahead = ahead, now
        if begin < end:
            fill_table(now, m, m, first + begin, down, across, 0, 0, g, oh, ow, g_image, g_row, g_column, zeros)
        for t in range(begin, end):
            after = first + min(t + 1, end - 1)
            fill_table(ahead, m, m, after, down, across, 0, 0, g, oh, ow, g_image, g_row, g_column, zeros)
            for v in range(0, o, L):
                to = m_base + v // (2 * L) * m_panel + (t * 2 * L + v % (2 * L)) * size
                to_m(now, ahead, to, m_position, v * size, o - v, 0, 0)
            now, ahead = ahead, now

    return kernel


def accumulate(dtype, m: int):
    """U (+)= V^T M at each position. Arguments:

    0 V  1 M  2 U  3 tiles  4 c  5 columns  6 step of V from tile to tile  7 of V from position to position
    8 step of M from panel to panel  9 of M from position to position  10 step of U from panel to panel
    11 of U from position to position  12 flags  13 address of the micro-kernel

    U[position][panel][c][2 lanes]. A part takes some of the panels of all positions.
    """
    L, size, P = host().lanes(dtype.name), dtype.bitwidth // 8, (m + 2) ** 2
    multiply = products(dtype)

    def kernel(args, part, parts):
        v_base, m_base, u = (args[0] + 63) // 64 * 64, (args[1] + 63) // 64 * 64, (args[2] + 63) // 64 * 64
        tiles, c, o, v_tile, v_position = args[3], args[4], args[5], args[6], args[7]
        m_panel, m_position, u_panel, u_position, flags, tile = args[8], args[9], args[10], args[11], args[12], args[13]
        panels = (o + 2 * L - 1) // (2 * L)
        for unit in range(P * panels * part // parts, P * panels * (part + 1) // parts):
            p, q = unit // panels, unit % panels
            vectors = 2 if o - q * 2 * L > L else 1
            multiply(
                tile,
                v_base + p * v_position,
                size,
                v_tile,
                m_base + p * m_position + q * m_panel,
                tiles,
                u + p * u_position + q * u_panel,
                2 * L * size,
                c,
                vectors,
                flags,
            )

    return kernel


def weights(dtype, m: int):
    """out = G^T U G. Arguments:

    0 U  1 out, from the first of its columns on  2 c  3 columns  4 step of U from panel to panel
    5 of U from position to position  6 step of out from tap to tap  7 from row to row
    """
    L, size, S = host().lanes(dtype.name), dtype.bitwidth // 8, m + 2
    run = transform(dtype, lines.LINES[m].weight, S, mask="store")

    def kernel(args, part, parts):
        u, out, rows, columns = (args[0] + 63) // 64 * 64, args[1], args[2], args[3]
        panel, position, tap, row = args[4], args[5], args[6], args[7]
        for c in range(rows * part // parts, rows * (part + 1) // parts):
            for v in range(0, columns, L):
                source = u + v // (2 * L) * panel + (c * 2 * L + v % (2 * L)) * size
                run(source, position, out + c * row + v * size, tap, 0, columns - v, 0, 0)

    return kernel
