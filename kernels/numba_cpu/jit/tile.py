"""The micro-kernel generator: one tile of a matrix product, kept in registers while k runs.

             VECTORS of B (one row of a panel)
             +--------+--------+
    A[i,k] ->|  acc   |  acc   |   ROWS x VECTORS accumulators stay in registers; A is broadcast from memory
             |  acc   |  acc   |   (any strides), each row of B is loaded once per k.
             +--------+--------+

The order of additions for an element of C is k = 0, 1, 2, ... by fused multiply-add, whatever the tile.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_cpu.blocking import ACCUMULATE, BIAS, FINISH, most_pixels, most_rows
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.vector import _element_ir, _splat, masked_load, masked_store

UNROLL = 4
#: Turns of the unrolled loop that are left when C is asked for: about as long as the last cache takes to answer.
AHEAD = 32

_WORD = ir.IntType(64)


def relu(builder, value):
    """max(value, 0); NaN stays NaN."""
    zero = ir.Constant(value.type, None)
    return builder.select(builder.fcmp_ordered("<", value, zero), zero, value)


#: name -> function of (builder, vector) that gives the activated vector.
ACTIVATIONS = {"relu": relu}


def tile(dtype, activation: str | None, taps: int = 0, row_taps: bool = False):
    """The function tile(rows, vectors, count, a, ars, acs, b, brs, k, c, crs, bias, flags), all int64:

        C[i, j] (+)= sum_k A[i, k] B[k, j] (+ bias[j], activation)      i < rows, j < vectors * lanes

    a, b, c, bias are addresses; ars, acs the strides of A for i and k, brs of B for k, crs of C for i, in bytes. B and
    C have unit stride for j. count: columns in the last vector; the rest of it is neither read nor written.

    taps = 1: acs is instead the address of k int64 words, and A[i, k] lies at a + i * ars + acs[k]: the inputs that a
    convolution's kernel meets are a row of A, wherever they lie in the image.

    taps > 1: acs is the address of k pairs of int64 words, vectors is 1, and an element of A serves `taps` rows of C:

        C[i, j] (+)= sum_k sum_t A[i + t, k] B[k, t, j]

    where A[i, k] lies at a + i * ars + acs[k, 0] and B[k, t, 0] at b + t * brs + acs[k, 1].

    row_taps: brs is the address of k int64 words, and row k of B lies at b + brs[k].
    """
    lanes, element = host().lanes(dtype.name), _element_ir(dtype)
    most = {1: most_pixels(host(), taps)} if taps > 1 else most_rows(host())

    @intrinsic
    def run(typingctx, rows, vectors, count, a, ars, acs, b, brs, k, c, crs, bias, flags):
        def codegen(context, builder, sig, args):
            rows, vectors, count, *rest = args
            masked = builder.icmp_signed("<", count, _WORD(lanes))
            # One number for the variant: 64 * rows + 8 * vectors + masked.
            key = builder.add(builder.shl(rows, _WORD(6)), builder.shl(vectors, _WORD(3)))
            key = builder.or_(key, builder.zext(masked, _WORD))
            done = builder.append_basic_block("done")
            switch = builder.switch(key, done)
            for v, top in most.items():
                for r in range(1, top + 1):
                    for m in (0, 1):
                        block = builder.append_basic_block(f"tile_{r}_{v}_{m}")
                        switch.add_case(_WORD(64 * r + 8 * v + m), block)
                        with builder.goto_block(block):
                            function = _function(
                                builder.module, element, lanes, r, v, bool(m), activation, taps, row_taps
                            )
                            builder.call(function, [*rest, count])
                            builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 13), codegen

    def tile(rows, vectors, count, a, ars, acs, b, brs, k, c, crs, bias, flags):
        run(rows, vectors, count, a, ars, acs, b, brs, k, c, crs, bias, flags)

    return tile


@intrinsic
def call_tile(typingctx, address, rows, vectors, count, a, ars, acs, b, brs, k, c, crs, bias, flags):
    """call_tile(address, ...): call the compiled `tile` at `address`."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.VoidType(), [_WORD] * 13)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.none(*[types.int64] * 14), codegen


def _function(
    module,
    element,
    lanes: int,
    rows: int,
    vectors: int,
    masked: bool,
    activation: str | None,
    taps: int,
    row_taps: bool,
):
    """The LLVM function of one variant: (a, ars, acs, b, brs, k, c, crs, bias, flags, count)."""
    name = f"tile_{rows}_{vectors}_{'masked' if masked else 'whole'}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_WORD] * 11), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    _Tile(function, element, lanes, rows, vectors, masked, activation, taps, row_taps).build()
    return function


class _Tile:
    """Builds the body of one variant."""

    def __init__(self, function, element, lanes, rows, vectors, masked, activation, taps, row_taps):
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.element, self.lanes, self.rows, self.vectors = element, lanes, rows, vectors
        self.activation, self.taps, self.row_taps = activation, taps, row_taps
        self.vector = ir.VectorType(element, lanes)
        self.align = 4 if isinstance(element, ir.FloatType) else 8
        self.a, self.ars, self.acs, self.b, self.brs, self.k = function.args[:6]
        self.c, self.crs, self.bias, self.flags, count = function.args[6:]
        self.count = count
        self.mask = self._mask(count) if masked else None

    def _mask(self, count):
        b = self.builder
        wide = _splat(b, b.trunc(count, ir.IntType(32)), self.lanes)
        return b.icmp_signed(">", wide, ir.Constant(wide.type, list(range(self.lanes))))

    def _load(self, address, vector: int):
        """Vector number `vector` of a row at `address`; the last one may be masked."""
        b = self.builder
        at = b.add(address, _WORD(vector * self.lanes * self.align))
        at = b.inttoptr(at, self.vector.as_pointer())
        if self.mask is not None and vector == self.vectors - 1:
            return masked_load(b, at, self.vector, self.mask, self.align)
        return b.load(at, align=self.align, typ=self.vector)

    def _store(self, value, address, vector: int) -> None:
        b = self.builder
        at = b.add(address, _WORD(vector * self.lanes * self.align))
        at = b.inttoptr(at, self.vector.as_pointer())
        if self.mask is not None and vector == self.vectors - 1:
            masked_store(b, value, at, self.mask, self.align)
        else:
            b.store(value, at, align=self.align)

    def _prefetch(self) -> None:
        """Ask for the tile of C, to have it at hand when the sums are ready."""
        b = self.builder
        byte, small = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, small, small, small])
        prefetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        line = max(1, 64 // (self.lanes * self.align))  # vectors of a cache line
        row = self._opaque(self.c)  # nothing of this is worth a register while the loop runs
        for _ in range(self.rows):
            for v in range(0, self.vectors, line):
                at = b.inttoptr(b.add(row, _WORD(v * self.lanes * self.align)), byte)
                b.call(prefetch, [at, small(1), small(3), small(1)])  # for writing, into the first cache, data
            row = b.add(row, self.crs)

    def _scalar(self, address):
        b = self.builder
        at = b.inttoptr(address, self.element.as_pointer())
        return _splat(b, b.load(at, align=self.align, typ=self.element), self.lanes)

    def build(self) -> None:
        b = self.builder
        totals = self._loop()
        flags = self.flags
        totals = self._when(flags, ACCUMULATE, totals, self._plus_c)
        totals = self._when(flags, BIAS, totals, self._plus_bias)
        if self.activation is not None:
            function = ACTIVATIONS[self.activation]
            totals = self._when(flags, FINISH, totals, lambda values: [function(b, v) for v in values])
        rows = [b.add(self.c, b.mul(self.crs, _WORD(i))) for i in range(self.rows)]
        whole = self.vectors if self.mask is None else self.vectors - 1
        for i, row in enumerate(rows):
            for v in range(whole):
                self._store(totals[i * self.vectors + v], row, v)
        if self.mask is not None:
            last = [totals[i * self.vectors + whole] for i in range(self.rows)]
            if host().has_masked_store:
                for row, value in zip(rows, last, strict=True):
                    self._store(value, row, whole)
            else:
                self._store_pieces(last, [b.add(row, _WORD(whole * self.lanes * self.align)) for row in rows])
        b.ret_void()

    def _store_pieces(self, values, addresses) -> None:
        """The first `count` lanes of each vector, in pieces of lanes / 2, ..., 2, 1 as the bits of count say."""
        b = self.builder
        piece = self.lanes // 2
        while piece:
            before = b.block
            yes, after = b.append_basic_block("piece"), b.append_basic_block("rest")
            b.cbranch(b.icmp_unsigned("!=", b.and_(self.count, _WORD(piece)), _WORD(0)), yes, after)
            b.position_at_end(yes)
            for value, at in zip(values, addresses, strict=True):
                part = self._lanes(value, 0, piece)
                b.store(part, b.inttoptr(at, part.type.as_pointer()), align=self.align)
            moved = [b.add(at, _WORD(piece * self.align)) for at in addresses]
            high = [self._lanes(value, piece, piece) for value in values]
            b.branch(after)
            b.position_at_end(after)
            with b.goto_block(before):
                b.position_before(before.terminator)
                low = [self._lanes(value, 0, piece) for value in values]
            values = [self._either(old, before, new, yes) for old, new in zip(low, high, strict=True)]
            addresses = [self._either(old, before, new, yes) for old, new in zip(addresses, moved, strict=True)]
            piece //= 2

    def _either(self, first, first_block, second, second_block):
        phi = self.builder.phi(first.type)
        phi.add_incoming(first, first_block)
        phi.add_incoming(second, second_block)
        return phi

    def _lanes(self, value, start: int, count: int):
        picks = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(start, start + count)))
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), picks)

    def _plus_c(self, values):
        b = self.builder
        result = []
        for i in range(self.rows):
            row = b.add(self.c, b.mul(self.crs, _WORD(i)))
            for v in range(self.vectors):
                result.append(b.fadd(self._load(row, v), values[i * self.vectors + v]))
        return result

    def _plus_bias(self, values):
        bias = [self._load(self.bias, v) for v in range(self.vectors)]
        return [self.builder.fadd(value, bias[i % self.vectors]) for i, value in enumerate(values)]

    def _when(self, flags, bit: int, values, change):
        """`change(values)` if the bit is set, else `values`."""
        b = self.builder
        before = b.block
        yes, after = b.append_basic_block("yes"), b.append_basic_block("after")
        b.cbranch(b.icmp_unsigned("!=", b.and_(flags, _WORD(bit)), _WORD(0)), yes, after)
        b.position_at_end(yes)
        changed = change(values)
        last = b.block
        b.branch(after)
        b.position_at_end(after)
        return [self._either(old, before, new, last) for old, new in zip(values, changed, strict=True)]

    def _loop(self):
        """The sums over k: UNROLL steps at a time, then one at a time. C is asked for when AHEAD turns are left."""
        b = self.builder
        zero = ir.Constant(self.vector, None)
        values = [zero] * (self.rows * self.vectors)
        self.offsets = [b.mul(self.ars, _WORD(i)) for i in range(self.rows + max(0, self.taps - 1))]
        if self.taps > 1:
            self._prefetch()
            return self._steps(self.acs, self.b, self.k, 1, values)[2]
        whole = b.and_(self.k, _WORD(-UNROLL))
        late = b.select(b.icmp_signed("<", whole, _WORD(AHEAD * UNROLL)), whole, _WORD(AHEAD * UNROLL))
        early = b.sub(whole, late)
        first = self.acs if self.taps else self.a  # what moves along A: the taps, or the place in A
        # The unrolled loop is entered twice: for the early turns, and for the late ones.
        before = b.block
        enter, ask, rest = (b.append_basic_block(name) for name in ("enter", "ask", "rest"))
        b.branch(enter)
        b.position_at_end(enter)
        count, left, a, p = (b.phi(_WORD) for _ in range(4))
        sums = [b.phi(self.vector) for _ in values]
        last_a, last_b, totals = self._steps(a, p, count, UNROLL, sums)
        b.cbranch(b.icmp_signed(">=", left, _WORD(0)), ask, rest)
        b.position_at_end(ask)
        self._prefetch()
        b.branch(enter)
        row = self.brs if self.row_taps else self.b  # what moves along B
        pairs = [(count, early, left), (left, late, _WORD(-1)), (a, first, last_a), (p, row, last_b)]
        for phi, at_first, again in [*pairs, *zip(sums, values, totals, strict=True)]:
            phi.add_incoming(at_first, before)
            phi.add_incoming(again, ask)
        b.position_at_end(rest)
        return self._steps(last_a, last_b, b.sub(self.k, whole), 1, totals)[2]

    def _steps(self, a, p, count, unroll: int, values):
        """count / unroll turns of a loop, from pointers a into A or the taps and p into B; what they and the sums are
        after it."""
        b = self.builder
        before = b.block
        body, after = b.append_basic_block("steps"), b.append_basic_block("stepped")
        b.cbranch(b.icmp_signed(">", count, _WORD(0)), body, after)
        b.position_at_end(body)
        left, pa, pb = b.phi(_WORD), b.phi(_WORD), b.phi(_WORD)
        sums = [b.phi(self.vector) for _ in values]
        next_a, next_b, now = pa, pb, list(sums)
        for _ in range(unroll):
            if self.taps > 1:
                now = self._shared_step(next_a, now)
                next_a = b.add(next_a, _WORD(16))
                continue
            now = self._step(next_a, next_b, now)
            step = _WORD(8) if self.taps else self.acs
            row_step = _WORD(8) if self.row_taps else self.brs
            next_a, next_b = self._opaque(b.add(next_a, step)), self._opaque(b.add(next_b, row_step))
        remaining = b.sub(left, _WORD(unroll))
        pairs = [(left, count, remaining), (pa, a, next_a), (pb, p, next_b), *zip(sums, values, now, strict=True)]
        for phi, first, again in pairs:
            phi.add_incoming(first, before)
            phi.add_incoming(again, b.block)
        last = b.block
        b.cbranch(b.icmp_signed(">", remaining, _WORD(0)), body, after)
        b.position_at_end(after)
        both = ((a, next_a), (p, next_b), *zip(values, now, strict=True))
        results = [self._either(first, before, again, last) for first, again in both]
        return results[0], results[1], results[2:]

    def _opaque(self, word):
        """The word, in a register, without LLVM knowing how it came about: it would find worse ways to compute it."""
        return self.builder.asm(ir.FunctionType(_WORD, [_WORD]), "", "=r,0", [word], False)

    def _step(self, a, p, sums):
        b = self.builder
        if self.row_taps:
            p = self._place(self.b, p)
        row = [self._load(p, v) for v in range(self.vectors)]
        if self.taps:
            a = self._place(self.a, a)
        result = []
        for i in range(self.rows):
            x = self._scalar(b.add(a, self.offsets[i]))
            for v in range(self.vectors):
                result.append(self._fma(x, row[v], sums[i * self.vectors + v]))
        return result

    def _shared_step(self, at, sums):
        """One pair of words at `at`: each element of A is loaded once, for all rows of C that it serves."""
        b = self.builder
        a, p = self._place(self.a, at), self._place(self.b, b.add(at, _WORD(8)))
        weights = [self._load(b.add(p, b.mul(self.brs, _WORD(t))), 0) for t in range(self.taps)]
        sums = list(sums)
        for i, offset in enumerate(self.offsets):
            x = self._scalar(b.add(a, offset))
            for t, weight in enumerate(weights):
                if 0 <= i - t < self.rows:
                    sums[i - t] = self._fma(x, weight, sums[i - t])
        return sums

    def _place(self, base, at):
        """base + the word at address `at`."""
        b = self.builder
        return self._opaque(b.add(base, b.load(b.inttoptr(at, _WORD.as_pointer()), align=8, typ=_WORD)))

    def _fma(self, x, y, z):
        b = self.builder
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{self.lanes}{'f32' if self.align == 4 else 'f64'}"
        return b.call(cgutils.get_or_insert_function(b.module, kind, name), [x, y, z])
