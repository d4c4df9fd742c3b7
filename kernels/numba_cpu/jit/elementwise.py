"""The loops of elementwise formulas.

A layout has one letter per operand, the result first: how it goes along the row, "c" side by side, "s" one element for
the whole row, "x" with a stride. `wide` is how many registers one step of the loop takes at a time.
"""

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.formula import Formula
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import formula as formulas
from kernels.numba_cpu.jit.values import BIT, ELEMENTS, I64, Lanes, splat
from kernels.numba_cpu.jit.vector import masked_load, masked_store

#: Bytes of an element in memory.
BYTES = {"float32": 4, "float64": 8, "int64": 8, "bool": 1}
#: Parts of a row begin at multiples of this many elements: a cache line, for floats.
_GRAIN = 64


def flat(formula: Formula, compute: str, dtypes: Sequence[str], layout: str, wide: int) -> Callable:
    """args: out, inputs..., n. One row of n elements; no operand has a stride."""
    operands = len(dtypes)
    row, nowhere = _row(formula, compute, dtypes, layout, wide), _nowhere(operands)

    def kernel(args, part, parts):
        n = args[operands]
        low, high = n * part // parts, n * (part + 1) // parts
        if part > 0:
            low = low // _GRAIN * _GRAIN
        if part + 1 < parts:
            high = high // _GRAIN * _GRAIN
        row(args, nowhere(args), 0, low, high - low)

    return kernel


def rows(formula: Formula, compute: str, dtypes: Sequence[str], layout: str, wide: int) -> Callable:
    """args: out, inputs..., n, rows, axes, then for each operand its first byte, for each its stride along the row,
    and for each axis, the innermost first, its length and each operand's stride. Strides are in bytes."""
    operands = len(dtypes)
    strides = 2 * operands + 3
    row, start, moved = _row(formula, compute, dtypes, layout, wide), _start(operands), _moved(operands)

    def kernel(args, part, parts):
        n, count, axes = args[operands], args[operands + 1], args[operands + 2]
        low, high, first, last = 0, n, 0, count
        if count >= parts:
            first, last = count * part // parts, count * (part + 1) // parts
        else:
            low, high = n * part // parts, n * (part + 1) // parts
        for r in range(first, last):
            at, rest, axis = start(args), r, strides + operands
            for _ in range(axes - 1):
                at = moved(at, args, axis + 1, rest % args[axis])
                rest //= args[axis]
                axis += operands + 1
            if axes > 0:
                at = moved(at, args, axis + 1, rest)
            row(args, at, strides, low, high - low)

    return kernel


# --------------------------------------------------------------------------- where the operands' rows begin


def _nowhere(operands: int):
    """nowhere(args): (0, 0, ...)"""

    @intrinsic
    def nowhere(typing, args):
        kind = types.UniTuple(types.int64, operands)
        return kind(args), lambda context, builder, sig, values: cgutils.pack_array(builder, [I64(0)] * operands)

    return nowhere


def _start(operands: int):
    """start(args): the operands' first bytes."""

    @intrinsic
    def start(typing, args):
        def codegen(context, builder, sig, values):
            return cgutils.pack_array(
                builder, [_word(builder, values[0], I64(operands + 3 + k)) for k in range(operands)]
            )

        return types.UniTuple(types.int64, operands)(args), codegen

    return start


def _moved(operands: int):
    """moved(at, args, table, steps): each operand `steps` times its stride further; the strides are at args[table]."""

    @intrinsic
    def moved(typing, at, args, table, steps):
        def codegen(context, builder, sig, values):
            before, words, table, steps = values
            after = []
            for k, position in enumerate(cgutils.unpack_tuple(builder, before)):
                stride = _word(builder, words, builder.add(table, I64(k)))
                after.append(builder.add(position, builder.mul(stride, steps)))
            return cgutils.pack_array(builder, after)

        return at(at, args, types.int64, types.int64), codegen

    return moved


def _word(builder: ir.IRBuilder, words: ir.Value, index: ir.Value) -> ir.Value:
    return builder.load(builder.gep(words, [index], source_etype=I64), typ=I64)


# ---------------------------------------------------------------------------------------------- one row


def _row(formula: Formula, compute: str, dtypes: Sequence[str], layout: str, wide: int):
    """row(args, at, strides, low, n): elements low .. low + n - 1 of the row that begins at bytes `at`.

    The strides along it, where there are any, are at args[strides].
    """
    lanes = 8 * host().lanes_f64 // BYTES[compute]

    @intrinsic
    def row(typing, args, at, strides, low, n):
        def codegen(context, builder, sig, values):
            words, at, table, low, n = values
            operands = []
            for k, position in enumerate(cgutils.unpack_tuple(builder, at)):
                stride = {"c": I64(BYTES[dtypes[k]]), "s": I64(0)}.get(layout[k])
                if stride is None:
                    stride = _word(builder, words, builder.add(table, I64(k)))
                first = builder.add(position, builder.mul(stride, low))
                address = builder.add(_word(builder, words, I64(k)), first)
                operands.append(_OPERANDS[layout[k]](builder, dtypes[k], address, stride))
            out, *inputs = operands

            def block(index, lanes, count=None):
                variables = {
                    name: _to_compute(x.read(index, lanes, count), compute)
                    for name, x in zip(formula.variables, inputs, strict=True)
                }
                result = formulas.emit(formula, variables, ELEMENTS[compute])
                out.write(index, result.to(out.element), count)

            for_each_vector(builder, n, lanes, wide, block)
            return context.get_dummy_value()

        return types.none(args, at, types.int64, types.int64, types.int64), codegen

    return row


def for_each_vector(builder: ir.IRBuilder, n: ir.Value, lanes: int, wide: int, block: Callable) -> None:
    """block(index, lanes) for consecutive vectors of `wide` registers, then of one register, and last
    block(index, lanes, count) where fewer than `lanes` of n elements are left. An operation on a wide vector
    is one on each of its registers, which the processor carries out side by side."""
    done = I64(0)
    for step in sorted({lanes * wide, lanes}, reverse=True):
        turns = builder.sdiv(builder.sub(n, done), I64(step))
        with cgutils.for_range(builder, turns) as loop:
            block(builder.add(done, builder.mul(loop.index, I64(step))), step)
        done = builder.add(done, builder.mul(turns, I64(step)))
    left = builder.sub(n, done)
    with builder.if_then(builder.icmp_signed(">", left, I64(0))):
        block(done, lanes, left)


def _to_compute(x: Lanes, compute: str) -> Lanes:
    return x if x.element == BIT else x.to(ELEMENTS[compute])


class SideBySide:
    """An operand of the row whose elements lie side by side."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, address: ir.Value, stride: ir.Value | None = None):
        self.builder, self.bytes, self.element = builder, BYTES[dtype], ELEMENTS[dtype]
        #: bool is a byte in memory.
        self.memory = ir.IntType(8) if self.element == BIT else self.element
        self.address, self.stride = address, I64(self.bytes) if stride is None else stride

    def read(self, index: ir.Value, lanes: int, count: ir.Value | None = None) -> Lanes:
        """Elements index, index + 1, ...: a vector, or its first `count` lanes, with memory beyond left alone."""
        whole = ir.VectorType(self.memory, lanes)
        pointer = self._pointer(index, whole)
        if count is None:
            value = self.builder.load(pointer, align=self.bytes, typ=whole)
        else:
            value = masked_load(self.builder, pointer, whole, _first(self.builder, count, lanes), self.bytes)
        return self._known(value)

    def write(self, index: ir.Value, x: Lanes, count: ir.Value | None = None) -> None:
        value = x.to(self.memory).value
        pointer = self._pointer(index, value.type)
        if count is None:
            self.builder.store(value, pointer, align=self.bytes)
        else:
            masked_store(self.builder, value, pointer, _first(self.builder, count, x.count), self.bytes)

    def _pointer(self, index, kind: ir.Type):
        address = self.builder.add(self.address, self.builder.mul(index, self.stride))
        return self.builder.inttoptr(address, kind.as_pointer())

    def _known(self, value) -> Lanes:
        x = Lanes(self.builder, value)
        return x.to(BIT) if self.element == BIT else x


def _first(builder, count, lanes: int) -> ir.Value:
    """The mask of the first `count` lanes."""
    numbers = Lanes(builder, ir.Constant(ir.VectorType(I64, lanes), list(range(lanes))))
    return (numbers < splat(builder, count, lanes)).value


class _Same(SideBySide):
    """One element for the whole row, read before the row is written."""

    def __init__(self, *args):
        super().__init__(*args)
        self.one = self.builder.load(self._pointer(I64(0), self.memory), align=self.bytes, typ=self.memory)

    def read(self, index, lanes, count=None) -> Lanes:
        return self._known(splat(self.builder, self.one, lanes).value)


class _Strided(SideBySide):
    """Elements at a distance from each other, taken one by one. In place of lanes beyond `count` the last one is
    read and written once more."""

    def read(self, index, lanes, count=None) -> Lanes:
        value = ir.Constant(ir.VectorType(self.memory, lanes), ir.Undefined)
        for lane in range(lanes):
            pointer = self._pointer(self.builder.add(index, self._within(lane, count)), self.memory)
            one = self.builder.load(pointer, align=self.bytes, typ=self.memory)
            value = self.builder.insert_element(value, one, I64(lane))
        return self._known(value)

    def write(self, index, x: Lanes, count=None) -> None:
        value = x.to(self.memory).value
        for lane in range(x.count):
            source = self._within(lane, count)
            pointer = self._pointer(self.builder.add(index, source), self.memory)
            self.builder.store(self.builder.extract_element(value, source), pointer, align=self.bytes)

    def _within(self, lane: int, count):
        if count is None:
            return I64(lane)
        last = self.builder.sub(count, I64(1))
        return self.builder.select(self.builder.icmp_signed("<", I64(lane), last), I64(lane), last)


_OPERANDS = {"c": SideBySide, "s": _Same, "x": _Strided}
