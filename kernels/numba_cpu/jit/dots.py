"""The micro-kernel for very few output channels: sums of products along the vectors, added up across them at the end.

                 one vector of weights for each of `outer` channels
                 +-----+-----+-----+
    A[i, k] ->   | acc | acc | acc |   ROWS x outer accumulators; A and B are both loaded in vectors along the inputs.
                 +-----+-----+-----+

The order of additions for an element of C does not depend on the tile.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_cpu.blocking import BIAS, FINISH, most_dots
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.tile import ACTIVATIONS
from kernels.numba_cpu.jit.vector import _element_ir, _splat, masked_load, masked_store

_WORD, _LANE = ir.IntType(64), ir.IntType(32)


def dots(dtype, activation: str | None):
    """The function dots(rows, outer, rest, a, ars, taps, b, whole, k, c, crs, bias, flags), all int64:

        C[i, j] = sum_k sum_l A[i, k, l] B[k, j, l] (+ bias[j], activation)      i < rows, j < outer

    l runs over whole * lanes + rest inputs that lie side by side; rest is 0 where masked loads are slow. A[i, k] lies
    at a + i * ars + taps[k, 0], B[k, j] at b + taps[k, 1] + j * (bytes of all l); taps is the address of k pairs of
    int64 words. The rows of C are crs bytes apart, its elements j side by side.
    """
    element, lanes, most = _element_ir(dtype), host().lanes(dtype.name), most_dots(host())

    @intrinsic
    def run(typingctx, rows, outer, rest, a, ars, taps, b, whole, k, c, crs, bias, flags):
        def codegen(context, builder, sig, args):
            rows, outer, *others = args
            done = builder.append_basic_block("done")
            switch = builder.switch(builder.add(builder.mul(outer, _WORD(32)), rows), done)
            for columns, top in most.items():
                for count in range(1, top + 1):
                    block = builder.append_basic_block(f"dots_{count}_{columns}")
                    switch.add_case(_WORD(32 * columns + count), block)
                    with builder.goto_block(block):
                        function = ir.Function(
                            builder.module, ir.FunctionType(ir.VoidType(), [_WORD] * 11), f"dots_{count}_{columns}_of"
                        )
                        function.linkage = "internal"
                        function.attributes.add("noinline")
                        function.attributes.add("nounwind")
                        _Dots(function, element, lanes, count, columns, activation).build()
                        builder.call(function, others)
                        builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 13), codegen

    def dots(rows, outer, rest, a, ars, taps, b, whole, k, c, crs, bias, flags):
        run(rows, outer, rest, a, ars, taps, b, whole, k, c, crs, bias, flags)

    return dots


class _Dots:
    """Builds the body of one variant."""

    def __init__(self, function, element, lanes, rows, columns, activation):
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.element, self.lanes, self.rows, self.columns = element, lanes, rows, columns
        self.activation = activation
        self.vector = ir.VectorType(element, lanes)
        self.size = 4 if isinstance(element, ir.FloatType) else 8
        self.rest, self.a, self.ars, self.taps, self.b, self.whole = function.args[:6]
        self.k, self.c, self.crs, self.bias, self.flags = function.args[6:]

    def build(self) -> None:
        b = self.builder
        splat = _splat(b, b.trunc(self.rest, _LANE), self.lanes)
        mask = b.icmp_signed(">", splat, ir.Constant(splat.type, list(range(self.lanes))))
        step = _WORD(self.lanes * self.size)
        length = b.add(b.mul(self.whole, step), b.mul(self.rest, _WORD(self.size)))
        self.a_offsets = [b.mul(self.ars, _WORD(i)) for i in range(self.rows)]
        self.b_offsets = [b.mul(length, _WORD(j)) for j in range(self.columns)]
        zeros = [ir.Constant(self.vector, None)] * (self.rows * self.columns)

        def tap(state):
            at, *sums = state
            a = self._place(self.a, at)
            p = self._place(self.b, b.add(at, _WORD(8)))
            a, p, *sums = self._repeat(self.whole, [a, p, *sums], lambda now: self._products(now, step, None))
            if not host().has_masked_load:
                return [b.add(at, _WORD(16)), *sums]
            rest = b.zext(b.icmp_signed(">", self.rest, _WORD(0)), _WORD)
            _, _, *sums = self._repeat(rest, [a, p, *sums], lambda now: self._products(now, step, mask))
            return [b.add(at, _WORD(16)), *sums]

        _, *sums = self._repeat(self.k, [self.taps, *zeros], tap)
        self._finish(sums)
        b.ret_void()

    def _repeat(self, count, state, body):
        """The state after `count` rounds of state = body(state)."""
        b = self.builder
        before = b.block
        inside, after = b.append_basic_block("round"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed(">", count, _WORD(0)), inside, after)
        b.position_at_end(inside)
        left = b.phi(_WORD)
        now = [b.phi(value.type) for value in state]
        new = body(now)
        remaining = b.sub(left, _WORD(1))
        for phi, first, again in [(left, count, remaining), *zip(now, state, new, strict=True)]:
            phi.add_incoming(first, before)
            phi.add_incoming(again, b.block)
        last = b.block
        b.cbranch(b.icmp_signed(">", remaining, _WORD(0)), inside, after)
        b.position_at_end(after)
        result = []
        for first, again in zip(state, new, strict=True):
            phi = b.phi(first.type)
            phi.add_incoming(first, before)
            phi.add_incoming(again, last)
            result.append(phi)
        return result

    def _products(self, state, step, mask):
        b = self.builder
        a, p, *sums = state
        weights = [self._load(b.add(p, offset), mask) for offset in self.b_offsets]
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{self.lanes}{'f32' if self.size == 4 else 'f64'}"
        fma = cgutils.get_or_insert_function(b.module, kind, name)
        for i, offset in enumerate(self.a_offsets):
            x = self._load(b.add(a, offset), mask)
            for j, weight in enumerate(weights):
                at = i * self.columns + j
                sums[at] = b.call(fma, [x, weight, sums[at]])
        return [b.add(a, step), b.add(p, step), *sums]

    def _finish(self, sums) -> None:
        """Add up the lanes of each sum; then bias and activation; elements of C in the order of memory."""
        b = self.builder
        for start in range(0, len(sums), self.lanes):
            count = min(self.lanes, len(sums) - start)
            total = self._across(sums[start : start + count])
            total = self._when(BIAS, total, lambda value, start=start: b.fadd(value, self._biases(start)))
            if self.activation is not None:
                total = self._when(FINISH, total, lambda value: ACTIVATIONS[self.activation](b, value))
            self._store(total, start, count)

    def _across(self, vectors):
        """One vector: lane i is the sum of the lanes of vectors[i], the halves added first, then the quarters, ..."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        vectors = vectors + [None] * (self.lanes - len(vectors))
        half = self.lanes // 2
        while half:
            # Vectors i and i + half become one: in blocks of 2 * half lanes, the first half of i's and of i + half's.
            low = [lane if not lane & half else self.lanes + lane - half for lane in range(self.lanes)]
            high = [lane + half if not lane & half else self.lanes + lane for lane in range(self.lanes)]
            pairs = [(vectors[i], vectors[i + half]) for i in range(half)]
            vectors = [
                None
                if first is None
                else self.builder.fadd(
                    self._pick(first, undefined if second is None else second, low),
                    self._pick(first, undefined if second is None else second, high),
                )
                for first, second in pairs
            ]
            half //= 2
        return vectors[0]

    def _pick(self, a, b, lanes):
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_LANE, self.lanes), lanes))

    def _biases(self, start: int):
        b = self.builder
        value = ir.Constant(self.vector, ir.Undefined)
        for j in range(self.columns):
            at = b.inttoptr(b.add(self.bias, _WORD(j * self.size)), self.element.as_pointer())
            value = b.insert_element(value, b.load(at, align=self.size, typ=self.element), _LANE(j))
        return self._pick(value, value, [(start + lane) % self.columns for lane in range(self.lanes)])

    def _store(self, value, start: int, count: int) -> None:
        b = self.builder
        together, apart, done = (b.append_basic_block(name) for name in ("together", "apart", "stored"))
        b.cbranch(b.icmp_signed("==", self.crs, _WORD(self.columns * self.size)), together, apart)
        b.position_at_end(together)
        at = b.inttoptr(b.add(self.c, _WORD(start * self.size)), self.vector.as_pointer())
        if count == self.lanes:
            b.store(value, at, align=self.size)
        else:
            some = ir.VectorType(ir.IntType(1), self.lanes)
            masked_store(b, value, at, ir.Constant(some, [lane < count for lane in range(self.lanes)]), self.size)
        b.branch(done)
        b.position_at_end(apart)
        for lane in range(count):
            row, column = divmod(start + lane, self.columns)
            at = b.add(b.add(self.c, b.mul(self.crs, _WORD(row))), _WORD(column * self.size))
            b.store(b.extract_element(value, _LANE(lane)), b.inttoptr(at, self.element.as_pointer()), align=self.size)
        b.branch(done)
        b.position_at_end(done)

    def _when(self, bit: int, value, change):
        """`change(value)` if the bit of flags is set, else `value`."""
        b = self.builder
        before = b.block
        yes, after = b.append_basic_block("yes"), b.append_basic_block("after")
        b.cbranch(b.icmp_unsigned("!=", b.and_(self.flags, _WORD(bit)), _WORD(0)), yes, after)
        b.position_at_end(yes)
        changed = change(value)
        b.branch(after)
        b.position_at_end(after)
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(changed, yes)
        return phi

    def _load(self, address, mask):
        b = self.builder
        at = b.inttoptr(address, self.vector.as_pointer())
        if mask is not None:
            return masked_load(b, at, self.vector, mask, self.size)
        return b.load(at, align=self.size, typ=self.vector)

    def _place(self, base, at):
        """base + the word at address `at`."""
        b = self.builder
        place = b.add(base, b.load(b.inttoptr(at, _WORD.as_pointer()), align=8, typ=_WORD))
        return b.asm(ir.FunctionType(_WORD, [_WORD]), "", "=r,0", [place], False)
