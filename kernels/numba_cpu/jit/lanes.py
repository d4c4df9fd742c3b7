"""Vectors as values: a Numba type that lives in registers, with operators, loads and stores.

Loops are written in Python and compiled to exactly the vector instructions that they name:

    >>> F = Vector(types.float32, 8)
    >>> def axpy(a, x, y, n):  # addresses x, y, in bytes
    ...     for i in range(0, n - 7, 8):
    ...         store(y + 4 * i, load(F, y + 4 * i) + splat(F, a) * load(F, x + 4 * i))

Addresses are int64. Nothing here needs alignment beyond that of one element.
"""

import operator
from collections.abc import Callable

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

_I32 = ir.IntType(32)
_SCALARS = {
    types.boolean: ir.IntType(1),
    types.uint8: ir.IntType(8),
    types.int32: ir.IntType(32),
    types.int64: ir.IntType(64),
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
}


class Vector(types.Type):
    """`lanes` values of a scalar Numba type: float32, float64, int32, int64, uint8, or boolean (a mask)."""

    def __init__(self, dtype: types.Type, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        self.ir = ir.VectorType(_SCALARS[dtype], lanes)
        self.floating = isinstance(dtype, types.Float)
        super().__init__(f"{lanes} x {dtype}")

    def of(self, dtype: types.Type) -> "Vector":
        return Vector(dtype, self.lanes)


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.ir)


# ----------------------------------------------------------------------------------- operators


def _operator(name: Callable, floats: Callable | None, ints: Callable | None, mask: bool = False) -> None:
    @infer_global(name)
    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0].of(types.boolean) if mask else args[0], *args)

    @lower_builtin(name, Vector, Vector)
    def lower(context, builder, sig, args):
        return (floats if sig.args[0].floating else ints)(builder, *args)


def _compare(name: Callable, symbol: str) -> None:
    def floats(builder, a, b):
        return (builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered)(symbol, a, b)

    _operator(name, floats, lambda builder, a, b: builder.icmp_signed(symbol, a, b), mask=True)


_operator(operator.add, ir.IRBuilder.fadd, ir.IRBuilder.add)
_operator(operator.sub, ir.IRBuilder.fsub, ir.IRBuilder.sub)
_operator(operator.mul, ir.IRBuilder.fmul, ir.IRBuilder.mul)
_operator(operator.truediv, ir.IRBuilder.fdiv, None)
_operator(operator.and_, None, ir.IRBuilder.and_)
_operator(operator.or_, None, ir.IRBuilder.or_)
_operator(operator.xor, None, ir.IRBuilder.xor)
_operator(operator.lshift, None, ir.IRBuilder.shl)
_operator(operator.rshift, None, ir.IRBuilder.lshr)  # fills with zeros
_compare(operator.gt, ">")
_compare(operator.ge, ">=")
_compare(operator.lt, "<")
_compare(operator.eq, "==")
_compare(operator.ne, "!=")  # true where either is NaN


# -------------------------------------------------------------------------------------- making


@intrinsic
def splat(typing, vector, value):
    """The scalar `value` in every lane."""
    v = vector.instance_type

    def codegen(context, builder, sig, args):
        return _splat(builder, v.ir, context.cast(builder, args[1], value, v.dtype))

    return v(vector, value), codegen


@intrinsic
def iota(typing, vector):
    """0, 1, 2, ..."""
    v = vector.instance_type
    return v(vector), lambda context, builder, sig, args: _iota(v)


@intrinsic
def select(typing, mask, a, b):
    """a where mask, else b."""
    return a(mask, a, b), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def maximum(typing, a, b):
    """The larger; NaN where either is NaN."""
    return a(a, b), lambda context, builder, sig, args: _extreme(builder, ">", *args)


@intrinsic
def minimum(typing, a, b):
    """The smaller; NaN where either is NaN."""
    return a(a, b), lambda context, builder, sig, args: _extreme(builder, "<", *args)


@intrinsic
def sqrt(typing, a):
    def codegen(context, builder, sig, args):
        return builder.call(builder.module.declare_intrinsic("llvm.sqrt", [a.ir]), args)

    return a(a), codegen


@intrinsic
def convert(typing, vector, a):
    """The values of `a` in another dtype; a mask gives 0 and 1, and any value but 0 gives true."""
    v = vector.instance_type

    def codegen(context, builder, sig, args):
        return _convert(builder, args[1], a, v)

    return v(vector, a), codegen


@intrinsic
def bits(typing, vector, a):
    """The bits of `a` as another vector of the same size."""
    v = vector.instance_type
    return v(vector, a), lambda context, builder, sig, args: builder.bitcast(args[1], v.ir)


@intrinsic
def zip_low(typing, a, b):
    """a0 b0 a1 b1 ... of the first halves."""
    return a(a, b), lambda context, builder, sig, args: _zip(builder, *args, 0, a.lanes)


@intrinsic
def zip_high(typing, a, b):
    """a b of the second halves, in turn."""
    return a(a, b), lambda context, builder, sig, args: _zip(builder, *args, a.lanes // 2, a.lanes)


# ------------------------------------------------------------------------------- lanes to one


@intrinsic
def total(typing, a):
    """The sum of all lanes, added pairwise."""
    add = ir.IRBuilder.fadd if a.floating else ir.IRBuilder.add
    return a.dtype(a), lambda context, builder, sig, args: _fold(builder, args[0], add)


@intrinsic
def highest(typing, a):
    """The largest lane; NaN if any is NaN."""
    return a.dtype(a), lambda context, builder, sig, args: _fold(
        builder, args[0], lambda builder, x, y: _extreme(builder, ">", x, y)
    )


@intrinsic
def lowest(typing, a):
    """The smallest lane; NaN if any is NaN."""
    return a.dtype(a), lambda context, builder, sig, args: _fold(
        builder, args[0], lambda builder, x, y: _extreme(builder, "<", x, y)
    )


@intrinsic
def first(typing, mask):
    """The index of the first true lane; the number of lanes or more if none is true."""

    def codegen(context, builder, sig, args):
        word = builder.zext(builder.bitcast(args[0], ir.IntType(mask.lanes)), ir.IntType(64))
        return builder.cttz(word, ir.Constant(ir.IntType(1), 0))

    return types.int64(mask), codegen


# -------------------------------------------------------------------------------------- memory


@intrinsic
def load(typing, vector, address):
    v = vector.instance_type

    def codegen(context, builder, sig, args):
        value = builder.load(builder.inttoptr(args[1], v.ir.as_pointer()))
        value.align = _bytes(v)
        return value

    return v(vector, address), codegen


@intrinsic
def store(typing, address, a):
    def codegen(context, builder, sig, args):
        builder.store(args[1], builder.inttoptr(args[0], a.ir.as_pointer()), align=_bytes(a))
        return context.get_dummy_value()

    return types.void(address, a), codegen


@intrinsic
def load_head(typing, vector, address, count, fill):
    """The first `count` lanes from memory, which is not touched beyond them; the scalar `fill` in the others."""
    v = vector.instance_type

    def codegen(context, builder, sig, args):
        _, at, n, other = args
        lanes = ir.VectorType(_I32, v.lanes)
        bound = _splat(builder, lanes, builder.trunc(n, _I32))
        mask = builder.icmp_signed("<", ir.Constant(lanes, list(range(v.lanes))), bound)
        default = _splat(builder, v.ir, context.cast(builder, other, fill, v.dtype))
        pointer = builder.inttoptr(at, v.ir.as_pointer())
        function = builder.module.declare_intrinsic(
            "llvm.masked.load",
            [v.ir, pointer.type],
            ir.FunctionType(v.ir, [pointer.type, _I32, mask.type, v.ir]),
        )
        return builder.call(function, [pointer, ir.Constant(_I32, _bytes(v)), mask, default])

    return v(vector, address, types.int64, fill), codegen


@intrinsic
def store_head(typing, address, a, count):
    """The first `count` lanes, 0 <= count < lanes, to memory: in one piece for each bit of count."""

    def codegen(context, builder, sig, args):
        at, value, n = args
        width = a.lanes // 2
        while width:
            before = builder.basic_block
            with builder.if_then(builder.trunc(builder.lshr(n, n.type(width.bit_length() - 1)), ir.IntType(1))):
                piece = _pick(builder, value, range(width))
                builder.store(piece, builder.inttoptr(at, piece.type.as_pointer()), align=_bytes(a))
                rest = _pick(builder, value, [i % a.lanes for i in range(width, width + a.lanes)])
                further = builder.add(at, at.type(width * _bytes(a)))
                within = builder.basic_block
            value = _merge(builder, (value, before), (rest, within))
            at = _merge(builder, (at, before), (further, within))
            width //= 2
        return context.get_dummy_value()

    return types.void(address, a, types.int64), codegen


@intrinsic
def peek(typing, dtype, address):
    """The scalar at an address."""
    t = dtype.dtype

    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[1], context.get_data_type(t).as_pointer())
        return context.unpack_value(builder, t, pointer)

    return t(dtype, address), codegen


@intrinsic
def poke(typing, address, value):
    """Writes the scalar to an address."""

    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], context.get_data_type(value).as_pointer())
        context.pack_value(builder, value, args[1], pointer)
        return context.get_dummy_value()

    return types.void(address, value), codegen


# ------------------------------------------------------------------------------ building blocks


def _bytes(v: Vector) -> int:
    return max(1, v.dtype.bitwidth // 8)


def _iota(v: Vector) -> ir.Constant:
    return ir.Constant(v.ir, [float(i) if v.floating else i for i in range(v.lanes)])


def _splat(builder, kind: ir.VectorType, value):
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return _pick(builder, one, [0] * kind.count)


def _pick(builder, value, lanes):
    lanes = list(lanes)
    mask = ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def _zip(builder, a, b, start: int, lanes: int):
    order = [i for k in range(start, start + lanes // 2) for i in (k, lanes + k)]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, lanes), order))


def _fold(builder, value, combine: Callable):
    """Halves are combined until one lane is left."""
    while value.type.count > 1:
        half = value.type.count // 2
        value = combine(builder, _pick(builder, value, range(half)), _pick(builder, value, range(half, 2 * half)))
    return builder.extract_element(value, _I32(0))


def _extreme(builder, symbol: str, a, b):
    better = builder.select(builder.fcmp_ordered(symbol, a, b), a, b)  # b where b is NaN
    return builder.select(builder.fcmp_unordered("uno", a, a), a, better)


def _convert(builder, value, source: Vector, target: Vector):
    if source == target:
        return value
    if source.floating and target.floating:
        return (builder.fpext if target.dtype.bitwidth > source.dtype.bitwidth else builder.fptrunc)(value, target.ir)
    if target.dtype == types.boolean:
        zero = ir.Constant(source.ir, [0] * source.lanes)
        return builder.fcmp_unordered("!=", value, zero) if source.floating else builder.icmp_signed("!=", value, zero)
    if source.floating:
        return builder.fptosi(value, target.ir)
    unsigned = source.dtype in (types.boolean, types.uint8)
    if target.floating:
        return (builder.uitofp if unsigned else builder.sitofp)(value, target.ir)
    if target.dtype.bitwidth < source.dtype.bitwidth:
        return builder.trunc(value, target.ir)
    return (builder.zext if unsigned else builder.sext)(value, target.ir)


def _merge(builder, *branches):
    phi = builder.phi(branches[0][0].type)
    for value, block in branches:
        phi.add_incoming(value, block)
    return phi
