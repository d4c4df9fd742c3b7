"""SIMD vectors in Numba code: a type, its operators, and the functions below.

A vector has a fixed number of lanes of one element type. Write kernels as for scalars:

    L = host().lanes("float32")                         # a closure constant
    def kernel(args, part, parts):
        x, out, n = pointer(args[0], float32), pointer(args[1], float32), args[2]
        for i in range(0, n - L + 1, L):
            v = load(x, i, L)
            store(out, i, select(v > 0, v, 0.5 * v))
        if n % L:                                       # the rest, without touching memory beyond it
            rest = first(n % L, L)
            i = n - n % L
            store_masked(out, i, 2.0 * load_masked(x, i, rest), rest)

Operators: + - * / (floats, integers but for /), % none; unary -; < <= > >= == != give a mask (lanes of bool);
& | ^ ~ on masks and integers; << >> on integers (>> is arithmetic for signed, logical for unsigned lanes).
A scalar beside a vector is converted to its element type and spread over the lanes.
An index counts elements. Loads and stores need no more alignment than one element.
`fma`, `select`, `sqrt`, `absolute`, `floor`, `rint`, `cast`, `bits` take scalars as well.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

# Names for kernels: element types and the common ones from Numba.
boolean, float32, float64 = types.boolean, types.float32, types.float64
int32, int64, uint32, uint64, uint8 = types.int32, types.int64, types.uint32, types.uint64, types.uint8


class Vector(types.Type):
    """`lanes` elements of a scalar Numba type; element boolean makes a mask."""

    def __init__(self, element: types.Type, lanes: int):
        self.element, self.lanes = element, lanes
        super().__init__(name=f"Vector({element}, {lanes})")

    def of(self, element: types.Type) -> "Vector":
        return Vector(element, self.lanes)


def _element_ir(element: types.Type) -> ir.Type:
    if element == types.float32:
        return ir.FloatType()
    if element == types.float64:
        return ir.DoubleType()
    return ir.IntType(1) if element == types.boolean else ir.IntType(element.bitwidth)


def vector_ir(vector: Vector) -> ir.Type:
    return ir.VectorType(_element_ir(vector.element), vector.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector_ir(vector))


def _is_float(element: types.Type) -> bool:
    return isinstance(element, types.Float)


def _element(kind: types.Type) -> types.Type:
    return kind.element if isinstance(kind, Vector) else types.unliteral(kind)


def _literal(kind: types.Type) -> int | None:
    return kind.literal_value if isinstance(kind, types.IntegerLiteral) else None


def _splat(builder, value, lanes: int):
    whole = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(whole, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(
        one, ir.Constant(whole, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    )


def _broaden(context, builder, value, kind, vector: Vector):
    """`value` of Numba type `kind` as a vector like `vector`: unchanged, or a scalar converted and spread."""
    if isinstance(kind, Vector):
        return value
    scalar = context.cast(builder, value, kind, vector.element)
    if vector.element == types.boolean:
        scalar = builder.trunc(scalar, ir.IntType(1)) if scalar.type != ir.IntType(1) else scalar
    return _splat(builder, scalar, vector.lanes)


def _common(a: types.Type, b: types.Type) -> Vector | None:
    """The vector type in which `a` and `b` meet, or None."""
    if isinstance(a, Vector) and isinstance(b, Vector):
        return a if a == b else None
    if isinstance(a, Vector) and isinstance(b, types.Number | types.Boolean):
        return a
    if isinstance(b, Vector) and isinstance(a, types.Number | types.Boolean):
        return b
    return None


# ------------------------------------------------------------------------------------------- operators


def _arithmetic(builder, name: str, a, b, element: types.Type):
    if name in ("and_", "or_", "xor"):
        return getattr(builder, name)(a, b)
    if name == "lshift":
        return builder.shl(a, b)
    if name == "rshift":
        return builder.ashr(a, b) if element.signed else builder.lshr(a, b)
    verb = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div"}[name]
    if _is_float(element):
        return getattr(builder, "f" + verb)(a, b, flags=("contract",))
    return getattr(builder, verb)(a, b)


def _compare(builder, sign: str, a, b, element: types.Type):
    if _is_float(element):
        return builder.fcmp_unordered(sign, a, b) if sign == "!=" else builder.fcmp_ordered(sign, a, b)
    signed = getattr(element, "signed", False)
    return builder.icmp_signed(sign, a, b) if signed else builder.icmp_unsigned(sign, a, b)


def _binary(function, make, comparison: bool, allowed) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args, kws):
            vector = _common(*args) if len(args) == 2 else None
            if vector is None or not allowed(vector.element):
                return None
            return signature(vector.of(types.boolean) if comparison else vector, *args)

    def lowering(context, builder, sig, args):
        vector = _common(*sig.args)
        a, b = (_broaden(context, builder, v, k, vector) for v, k in zip(args, sig.args, strict=True))
        return make(builder, a, b, vector.element)

    for left, right in ((Vector, Vector), (Vector, types.Any), (types.Any, Vector)):
        lower_builtin(function, left, right)(lowering)


def _arithmetic_operator(name: str, allowed) -> None:
    def make(builder, a, b, element):
        return _arithmetic(builder, name, a, b, element)

    _binary(getattr(operator, name), make, False, allowed)
    in_place = getattr(operator, "i" + name.rstrip("_"), None)
    if in_place is not None:
        _binary(in_place, make, False, allowed)


def _comparison_operator(function, sign: str) -> None:
    _binary(function, lambda builder, a, b, element: _compare(builder, sign, a, b, element), True, lambda e: True)


for _name in ("add", "sub", "mul"):
    _arithmetic_operator(_name, lambda e: e != types.boolean)
_arithmetic_operator("truediv", _is_float)
for _name in ("and_", "or_", "xor"):
    _arithmetic_operator(_name, lambda e: not _is_float(e))
for _name in ("lshift", "rshift"):
    _arithmetic_operator(_name, lambda e: isinstance(e, types.Integer))
for _function, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _comparison_operator(_function, _sign)


def _unary(function, make, allowed) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 1 and isinstance(args[0], Vector) and allowed(args[0].element):
                return signature(args[0], *args)
            return None

    lower_builtin(function, Vector)(lambda context, builder, sig, args: make(builder, args[0], sig.args[0].element))


_unary(operator.neg, lambda b, v, e: b.fneg(v) if _is_float(e) else b.neg(v), lambda e: e != types.boolean)
_unary(operator.pos, lambda b, v, e: v, lambda e: True)
_unary(operator.invert, lambda b, v, e: b.not_(v), lambda e: not _is_float(e))


# ---------------------------------------------------------------------------------- memory and pointers


@intrinsic
def pointer(typingctx, address, dtype):
    """pointer(address, dtype): an int64 address as a pointer to `dtype`; p[i] reads and p[i] = v writes element i."""
    kind = types.CPointer(dtype.dtype if isinstance(dtype, types.NumberClass) else dtype.instance_type)

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64, dtype), codegen


@intrinsic
def address(typingctx, p):
    """address(p): the int64 address of a pointer."""
    return types.int64(p), lambda context, builder, sig, args: builder.ptrtoint(args[0], ir.IntType(64))


@intrinsic
def offset(typingctx, p, count):
    """offset(p, count): the pointer `count` elements on."""

    def codegen(context, builder, sig, args):
        index = context.cast(builder, args[1], sig.args[1], types.int64)
        return builder.gep(args[0], [index], source_etype=_memory_ir(context, p.dtype))

    return p(p, count), codegen


def _prefetching(name: str, doc: str, write: int, nearness: int = 3):
    def function(typingctx, address):
        def codegen(context, builder, sig, args):
            byte, small = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, small, small, small])
            ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(ask, [builder.inttoptr(args[0], byte), small(write), small(nearness), small(1)])
            return context.get_dummy_value()

        return types.none(types.int64), codegen

    function.__name__, function.__doc__ = name, doc
    return intrinsic(function)


prefetch = _prefetching(
    "prefetch", "prefetch(address): ask for the cache line at an int64 address, valid or not, to read it soon.", 0
)
prefetch_far = _prefetching("prefetch_far", "prefetch_far(address): as prefetch, but into the second cache.", 0, 2)
prefetch_write = _prefetching("prefetch_write", "prefetch_write(address): as prefetch, to write it soon.", 1)


def _memory_ir(context, element: types.Type):
    return ir.IntType(8) if element == types.boolean else context.get_data_type(element)


def _vector_address(context, builder, p, kind, index, index_kind, lanes: int):
    index = context.cast(builder, index, index_kind, types.int64)
    memory = _memory_ir(context, kind.dtype)
    at = builder.gep(p, [index], source_etype=memory)
    return builder.bitcast(at, ir.VectorType(memory, lanes).as_pointer()), ir.VectorType(memory, lanes)


def _bytes(element: types.Type) -> int:
    return 1 if element == types.boolean else element.bitwidth // 8


def _from_memory(builder, value, element, lanes: int):
    """bool is a byte in memory and a bit in a mask."""
    if element != types.boolean:
        return value
    return builder.icmp_unsigned("!=", value, ir.Constant(value.type, [0] * lanes))


def _to_memory(builder, value, element, lanes: int):
    return builder.zext(value, ir.VectorType(ir.IntType(8), lanes)) if element == types.boolean else value


@intrinsic(prefer_literal=True)
def load(typingctx, p, index, lanes):
    """load(p, index, lanes): the vector of elements index .. index + lanes - 1. `lanes` is a constant."""
    if _literal(lanes) is None:
        return None
    vector = Vector(p.dtype, _literal(lanes))

    def codegen(context, builder, sig, args):
        at, whole = _vector_address(context, builder, args[0], sig.args[0], args[1], sig.args[1], vector.lanes)
        value = builder.load(at, align=_bytes(vector.element), typ=whole)
        return _from_memory(builder, value, vector.element, vector.lanes)

    return vector(p, index, lanes), codegen


@intrinsic
def store(typingctx, p, index, value):
    """store(p, index, vector): write its lanes to elements index, index + 1, ..."""
    if not isinstance(value, Vector) or value.element != p.dtype:
        return None

    def codegen(context, builder, sig, args):
        at, _ = _vector_address(context, builder, args[0], sig.args[0], args[1], sig.args[1], value.lanes)
        builder.store(_to_memory(builder, args[2], value.element, value.lanes), at, align=_bytes(value.element))
        return context.get_dummy_value()

    return types.none(p, index, value), codegen


def masked_load(builder, at, whole: ir.VectorType, mask, align: int):
    """LLVM's masked load: lanes out of the mask are 0 and their memory is not touched."""
    kind = ir.FunctionType(whole, [whole.as_pointer(), ir.IntType(32), mask.type, whole])
    name = f"llvm.masked.load.v{whole.count}{_suffix(whole.element)}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [at, ir.IntType(32)(align), mask, ir.Constant(whole, None)])


def masked_store(builder, value, at, mask, align: int) -> None:
    kind = ir.FunctionType(ir.VoidType(), [value.type, at.type, ir.IntType(32), mask.type])
    name = f"llvm.masked.store.v{value.type.count}{_suffix(value.type.element)}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(function, [value, at, ir.IntType(32)(align), mask])


def _suffix(element: ir.Type) -> str:
    if isinstance(element, ir.IntType):
        return f"i{element.width}"
    return "f32" if isinstance(element, ir.FloatType) else "f64"


@intrinsic
def load_masked(typingctx, p, index, mask):
    """load_masked(p, index, mask): as load; lanes out of the mask are 0 and their memory is not touched."""
    vector = mask.of(p.dtype)

    def codegen(context, builder, sig, args):
        at, whole = _vector_address(context, builder, args[0], sig.args[0], args[1], sig.args[1], vector.lanes)
        value = masked_load(builder, at, whole, args[2], _bytes(vector.element))
        return _from_memory(builder, value, vector.element, vector.lanes)

    return vector(p, index, mask), codegen


@intrinsic
def store_masked(typingctx, p, index, value, mask):
    """store_masked(p, index, vector, mask): as store, for the lanes in the mask alone."""
    if not isinstance(value, Vector) or value.element != p.dtype:
        return None

    def codegen(context, builder, sig, args):
        at, _ = _vector_address(context, builder, args[0], sig.args[0], args[1], sig.args[1], value.lanes)
        memory = _to_memory(builder, args[2], value.element, value.lanes)
        masked_store(builder, memory, at, args[3], _bytes(value.element))
        return context.get_dummy_value()

    return types.none(p, index, value, mask), codegen


# ---------------------------------------------------------------------------------------- making vectors


@intrinsic(prefer_literal=True)
def splat(typingctx, value, lanes):
    """splat(scalar, lanes): the scalar in every lane."""
    if _literal(lanes) is None:
        return None
    vector = Vector(types.unliteral(value), _literal(lanes))

    def codegen(context, builder, sig, args):
        return _broaden(context, builder, args[0], sig.args[0], vector)

    return vector(value, lanes), codegen


@intrinsic(prefer_literal=True)
def iota(typingctx, dtype, lanes):
    """iota(dtype, lanes): 0, 1, 2, ... of an integer or float type."""
    vector = Vector(dtype.dtype, _literal(lanes))

    def codegen(context, builder, sig, args):
        return ir.Constant(
            vector_ir(vector), [float(i) if _is_float(vector.element) else i for i in range(vector.lanes)]
        )

    return vector(dtype, lanes), codegen


@intrinsic(prefer_literal=True)
def first(typingctx, count, lanes):
    """first(count, lanes): the mask of lanes 0 .. count - 1. count may be 0 or less (none) or more than lanes (all)."""
    vector = Vector(types.boolean, _literal(lanes))

    def codegen(context, builder, sig, args):
        wide = context.cast(builder, args[0], sig.args[0], types.int64)
        top = ir.IntType(64)(vector.lanes)
        zero = ir.IntType(64)(0)
        wide = builder.select(builder.icmp_signed("<", wide, top), wide, top)
        wide = builder.select(builder.icmp_signed(">", wide, zero), wide, zero)
        limit = _splat(builder, builder.trunc(wide, ir.IntType(32)), vector.lanes)
        return builder.icmp_signed(">", limit, ir.Constant(limit.type, list(range(vector.lanes))))

    return vector(count, lanes), codegen


@intrinsic
def lane(typingctx, value, index):
    """lane(vector, index): one element as a scalar. From a mask, a bool."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int32)
        element = builder.extract_element(args[0], at)
        return (
            context.cast(builder, element, types.boolean, types.boolean) if value.element == types.boolean else element
        )

    return value.element(value, index), codegen


@intrinsic(prefer_literal=True)
def shuffle(typingctx, a, b, order):
    """shuffle(a, b, order): lanes picked by a tuple of constants from a's lanes followed by b's."""
    picks = [kind.literal_value for kind in order]
    vector = Vector(a.element, len(picks))

    def codegen(context, builder, sig, args):
        return builder.shuffle_vector(args[0], args[1], ir.Constant(ir.VectorType(ir.IntType(32), len(picks)), picks))

    return vector(a, b, order), codegen


# -------------------------------------------------------------------------------------------- functions


def _call(builder, name: str, result, args):
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _overloaded(name: str, kind: ir.Type) -> str:
    """An LLVM intrinsic's name for a scalar or a vector type."""
    if isinstance(kind, ir.VectorType):
        return f"llvm.{name}.v{kind.count}{_suffix(kind.element)}"
    return f"llvm.{name}.{_suffix(kind)}"


def _same_type(doc: str, name: str):
    """A function of one float scalar or vector that is an LLVM intrinsic."""

    def function(typingctx, x):
        if not _is_float(_element(x)):
            return None
        return x(x), lambda context, builder, sig, args: _call(
            builder, _overloaded(name, args[0].type), args[0].type, args
        )

    function.__doc__ = doc
    function.__name__ = name
    return intrinsic(function)


sqrt = _same_type("sqrt(x): square root, correctly rounded.", "sqrt")
absolute = _same_type("absolute(x): |x|, of NaN too.", "fabs")
floor = _same_type("floor(x): the largest whole number that is not above x.", "floor")
rint = _same_type("rint(x): the nearest whole number, halves to even.", "rint")


@intrinsic
def fma(typingctx, a, b, c):
    """fma(a, b, c): a * b + c, in one rounding where the processor can. Scalars beside vectors are spread."""
    vectors = [k for k in (a, b, c) if isinstance(k, Vector)]
    kind = vectors[0] if vectors else types.unliteral(a)

    def codegen(context, builder, sig, args):
        if vectors:
            args = [_broaden(context, builder, v, k, kind) for v, k in zip(args, sig.args, strict=True)]
        else:
            args = [context.cast(builder, v, k, kind) for v, k in zip(args, sig.args, strict=True)]
        return _call(builder, _overloaded("fmuladd", args[0].type), args[0].type, args)

    return kind(a, b, c), codegen


@intrinsic
def select(typingctx, mask, yes, no):
    """select(mask, yes, no): lane by lane `yes` where the mask is set, else `no`. Both are evaluated."""
    vectors = [k for k in (yes, no) if isinstance(k, Vector)]
    if vectors:
        kind = vectors[0]
    elif isinstance(mask, Vector):
        kind = mask.of(types.unliteral(yes))
    else:
        kind = typingctx.unify_types(types.unliteral(yes), types.unliteral(no))

    def codegen(context, builder, sig, args):
        if isinstance(kind, Vector):
            a, b = (_broaden(context, builder, args[i], sig.args[i], kind) for i in (1, 2))
        else:
            a, b = (context.cast(builder, args[i], sig.args[i], kind) for i in (1, 2))
        return builder.select(args[0], a, b)

    return kind(mask, yes, no), codegen


def _convert(context, builder, value, source: types.Type, target: types.Type, lanes: int | None):
    """Elementwise conversion between element types, for a vector of `lanes`."""
    whole = ir.VectorType(_element_ir(target), lanes)
    if source == target:
        return value
    if target == types.boolean:
        zero = ir.Constant(value.type, [0.0 if _is_float(source) else 0] * lanes)
        return (
            builder.fcmp_unordered("!=", value, zero) if _is_float(source) else builder.icmp_signed("!=", value, zero)
        )
    if _is_float(source) and _is_float(target):
        return builder.fpext(value, whole) if target.bitwidth > source.bitwidth else builder.fptrunc(value, whole)
    if _is_float(source):
        return builder.fptosi(value, whole) if target.signed else builder.fptoui(value, whole)
    signed = source != types.boolean and source.signed
    if _is_float(target):
        return builder.sitofp(value, whole) if signed else builder.uitofp(value, whole)
    wide_from = 1 if source == types.boolean else source.bitwidth
    if target.bitwidth == wide_from:
        return value
    if target.bitwidth < wide_from:
        return builder.trunc(value, whole)
    return builder.sext(value, whole) if signed else builder.zext(value, whole)


@intrinsic
def cast(typingctx, value, dtype):
    """cast(value, dtype): each lane converted (float to integer truncates; nonzero is True)."""
    target = dtype.dtype if isinstance(dtype, types.NumberClass) else dtype.instance_type
    kind = value.of(target) if isinstance(value, Vector) else target

    def codegen(context, builder, sig, args):
        if isinstance(value, Vector):
            return _convert(context, builder, args[0], value.element, target, value.lanes)
        return context.cast(builder, args[0], sig.args[0], target)

    return kind(value, dtype), codegen


@intrinsic
def bits(typingctx, value, dtype):
    """bits(value, dtype): the same bits as another element type of the same size."""
    kind = value.of(dtype.dtype) if isinstance(value, Vector) else dtype.dtype

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], vector_ir(kind) if isinstance(kind, Vector) else _element_ir(kind))

    return kind(types.unliteral(value), dtype), codegen


def _halving(name: str, doc: str, combine):
    """A reduction over the lanes: lane i with lane i + half, until one is left. Lanes must be a power of two."""

    def function(typingctx, value):
        if not isinstance(value, Vector):
            return None

        def codegen(context, builder, sig, args):
            whole, lanes = args[0], value.lanes
            while lanes > 1:
                lanes //= 2
                halves = [
                    builder.shuffle_vector(
                        whole,
                        ir.Constant(whole.type, ir.Undefined),
                        ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(start, start + lanes))),
                    )
                    for start in (0, lanes)
                ]
                whole = combine(builder, *halves, value.element)
            return builder.extract_element(whole, ir.IntType(32)(0))

        return value.element(value), codegen

    function.__name__, function.__doc__ = name, doc
    return intrinsic(function)


def _plain_add(builder, a, b, element):
    return builder.fadd(a, b) if _is_float(element) else builder.add(a, b)


def _largest(builder, a, b, element):
    """The larger lane; NaN wins."""
    keep = _compare(builder, ">", a, b, element)
    if _is_float(element):
        keep = builder.or_(keep, builder.fcmp_unordered("uno", a, a))
    return builder.select(keep, a, b)


def _smallest(builder, a, b, element):
    keep = _compare(builder, "<", a, b, element)
    if _is_float(element):
        keep = builder.or_(keep, builder.fcmp_unordered("uno", a, a))
    return builder.select(keep, a, b)


lanes_sum = _halving("lanes_sum", "lanes_sum(v): sum of the lanes, pairwise.", _plain_add)
lanes_max = _halving("lanes_max", "lanes_max(v): largest lane; NaN wins.", _largest)
lanes_min = _halving("lanes_min", "lanes_min(v): smallest lane; NaN wins.", _smallest)
any_lane = _halving("any_lane", "any_lane(mask): whether any lane is set.", lambda b, x, y, e: b.or_(x, y))


@intrinsic
def maximum(typingctx, a, b):
    """maximum(a, b): lane by lane the larger; NaN wins."""
    vector = _common(a, b)
    if vector is None:
        return None

    def codegen(context, builder, sig, args):
        x, y = (_broaden(context, builder, v, k, vector) for v, k in zip(args, sig.args, strict=True))
        return _largest(builder, x, y, vector.element)

    return vector(a, b), codegen


@intrinsic
def minimum(typingctx, a, b):
    """minimum(a, b): lane by lane the smaller; NaN wins."""
    vector = _common(a, b)
    if vector is None:
        return None

    def codegen(context, builder, sig, args):
        x, y = (_broaden(context, builder, v, k, vector) for v, k in zip(args, sig.args, strict=True))
        return _smallest(builder, x, y, vector.element)

    return vector(a, b), codegen


@intrinsic
def float_bits(typingctx, word):
    """float_bits(word): an int64 argument word as the float64 whose bits it holds."""
    return types.float64(types.int64), lambda c, builder, sig, args: builder.bitcast(args[0], ir.DoubleType())
