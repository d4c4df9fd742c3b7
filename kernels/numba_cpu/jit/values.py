"""Vectors while code is generated: arithmetic on a `Lanes` emits LLVM instructions, so that code reads as formulas.

    y = fma(x, 2.0, 1.0)            # per lane; numbers become constants of x's type
    y = select(x > 0, y, -y)

A Lanes has a fixed number of lanes, possibly one, of float, double, i32, i64, or i1 (a mask). Nothing is reordered
or fused: every lane gets the bits that the written operations give, whatever the number of lanes.
"""

from llvmlite import ir
from numba.core import cgutils

FLOAT, DOUBLE, BIT, I32, I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(1), ir.IntType(32), ir.IntType(64)
#: Element types by the names of NumPy's dtypes.
ELEMENTS = {"float32": FLOAT, "float64": DOUBLE, "int64": I64, "bool": BIT}

#: Numba lets LLVM fuse products and sums that carry no flag. This flag means nothing to them, but is one.
_NOT_FUSED = ("afn",)


class Lanes:
    """A vector value and the builder that emits what is done with it."""

    __hash__ = None  # == compares lane by lane

    def __init__(self, builder: ir.IRBuilder, value: ir.Value):
        self.builder, self.value = builder, value

    @property
    def count(self) -> int:
        return self.value.type.count

    @property
    def element(self) -> ir.Type:
        return self.value.type.element

    @property
    def floating(self) -> bool:
        return not isinstance(self.element, ir.IntType)

    @property
    def width(self) -> int:
        """Bits of an element."""
        return self.element.width if not self.floating else 32 if self.element == FLOAT else 64

    def constant(self, number: float) -> "Lanes":
        """The number in every lane, in this element type."""
        number = float(number) if self.floating else int(number)
        return Lanes(self.builder, ir.Constant(self.value.type, [number] * self.count))

    def _two(self, other, floats: str, ints: str | None, swap: bool = False) -> "Lanes":
        other = other if isinstance(other, Lanes) else self.constant(other)
        a, b = (other, self) if swap else (self, other)
        if self.floating:
            return Lanes(self.builder, getattr(self.builder, floats)(a.value, b.value, flags=_NOT_FUSED))
        return Lanes(self.builder, getattr(self.builder, ints)(a.value, b.value))

    def __add__(self, other):
        return self._two(other, "fadd", "add")

    def __sub__(self, other):
        return self._two(other, "fsub", "sub")

    def __mul__(self, other):
        return self._two(other, "fmul", "mul")

    def __truediv__(self, other):
        return self._two(other, "fdiv", None)

    def __rsub__(self, other):
        return self._two(other, "fsub", "sub", swap=True)

    def __rtruediv__(self, other):
        return self._two(other, "fdiv", None, swap=True)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return Lanes(self.builder, (self.builder.fneg if self.floating else self.builder.neg)(self.value))

    def __and__(self, other):
        return self._two(other, "", "and_")

    def __or__(self, other):
        return self._two(other, "", "or_")

    def __lshift__(self, other):
        return self._two(other, "", "shl")

    def __rshift__(self, other):
        """Keeps the sign."""
        return self._two(other, "", "ashr")

    def _compare(self, sign: str, other) -> "Lanes":
        other = other if isinstance(other, Lanes) else self.constant(other)
        if not self.floating:
            return Lanes(self.builder, self.builder.icmp_signed(sign, self.value, other.value))
        compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        return Lanes(self.builder, compare(sign, self.value, other.value))

    def __lt__(self, other):
        return self._compare("<", other)

    def __le__(self, other):
        return self._compare("<=", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)

    def __eq__(self, other):
        return self._compare("==", other)

    def __ne__(self, other):
        """True where either is NaN."""
        return self._compare("!=", other)

    def isnan(self) -> "Lanes":
        return self != self

    def bits(self) -> "Lanes":
        """The bits of floats as integers."""
        return self._as(ir.IntType(self.width))

    def floats(self) -> "Lanes":
        """The floats that have these bits."""
        return self._as(FLOAT if self.width == 32 else DOUBLE)

    def _as(self, element: ir.Type) -> "Lanes":
        return Lanes(self.builder, self.builder.bitcast(self.value, ir.VectorType(element, self.count)))

    def to(self, element: ir.Type) -> "Lanes":
        """Each lane converted: floats to floats, anything to a mask (true unless 0), a mask to 0 and 1."""
        if element == self.element:
            return self
        if element == BIT:
            return self != 0
        whole = ir.VectorType(element, self.count)
        if isinstance(element, ir.IntType):
            verb = "zext" if self.element == BIT else "trunc" if element.width < self.width else "sext"
        elif self.floating:
            verb = "fpext" if element == DOUBLE else "fptrunc"
        else:
            verb = "uitofp" if self.element == BIT else "sitofp"
        return Lanes(self.builder, getattr(self.builder, verb)(self.value, whole))


def splat(builder: ir.IRBuilder, scalar: ir.Value, count: int) -> Lanes:
    """The scalar in every lane."""
    whole = ir.VectorType(scalar.type, count)
    one = builder.insert_element(ir.Constant(whole, ir.Undefined), scalar, I32(0))
    order = ir.Constant(ir.VectorType(I32, count), [0] * count)
    return Lanes(builder, builder.shuffle_vector(one, ir.Constant(whole, ir.Undefined), order))


def select(mask: Lanes, yes: Lanes | float, no: Lanes | float) -> Lanes:
    """`yes` where the mask is set, else `no`; at least one of them is a Lanes."""
    like = yes if isinstance(yes, Lanes) else no
    yes, no = (x if isinstance(x, Lanes) else like.constant(x) for x in (yes, no))
    return Lanes(mask.builder, mask.builder.select(mask.value, yes.value, no.value))


def any_lane(mask: Lanes) -> ir.Value:
    """Whether any lane of the mask is set, as an i1."""
    word = ir.IntType(mask.count)
    return mask.builder.icmp_unsigned("!=", mask.builder.bitcast(mask.value, word), word(0))


def _intrinsic(name: str, *values: Lanes) -> Lanes:
    kind, builder = values[0].value.type, values[0].builder
    suffix = f"v{kind.count}f{values[0].width}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(values)), f"llvm.{name}.{suffix}"
    )
    return Lanes(builder, builder.call(function, [value.value for value in values]))


def fma(a: Lanes, b: Lanes | float, c: Lanes | float) -> Lanes:
    """a * b + c, in one rounding where the processor can do that, else in two."""
    return _intrinsic("fmuladd", a, *(x if isinstance(x, Lanes) else a.constant(x) for x in (b, c)))


def exact_fma(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """a * b + c in one rounding on every processor."""
    return _intrinsic("fma", a, b, c)


def horner(x: Lanes, coefficients: tuple[float, ...]) -> Lanes:
    """c[0] + c[1] x + c[2] x^2 + ..."""
    total = x.constant(coefficients[-1])
    for c in coefficients[-2::-1]:
        total = fma(total, x, c)
    return total


def sqrt(x: Lanes) -> Lanes:
    return _intrinsic("sqrt", x)


def absolute(x: Lanes) -> Lanes:
    return _intrinsic("fabs", x) if x.floating else select(x < 0, -x, x)


def floor(x: Lanes) -> Lanes:
    return _intrinsic("floor", x)


def libm(name: str, x: Lanes, mask: Lanes, otherwise: Lanes) -> Lanes:
    """The C library's function of one double in the lanes of the mask, and `otherwise` in the others."""
    builder = x.builder
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(DOUBLE, [DOUBLE]), name)
    before = builder.basic_block
    with builder.if_then(any_lane(mask), likely=False):
        wide, result = x.to(DOUBLE), ir.Constant(ir.VectorType(DOUBLE, x.count), ir.Undefined)
        for lane in range(x.count):
            one = builder.call(function, [builder.extract_element(wide.value, I32(lane))])
            result = builder.insert_element(result, one, I32(lane))
        slow = select(mask, Lanes(builder, result).to(x.element), otherwise)
        within = builder.basic_block
    merged = builder.phi(x.value.type)
    merged.add_incoming(otherwise.value, before)
    merged.add_incoming(slow.value, within)
    return Lanes(builder, merged)
