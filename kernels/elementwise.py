"""The table of elementwise functions: one row is the oracle, the compiled loop, the Tensor method and its gradient."""

from dataclasses import dataclass
from functools import cached_property

from kernels.formula import Formula, names


@dataclass(frozen=True)
class Elementwise:
    """A function of `inputs`, applied to each element.

    `derivatives` maps an input to the formula of its gradient, written with the inputs, y (the result) and g (the
    incoming gradient). An input without one is a constant of the function. `result` is the dtype of the result:
    that of the inputs, or bool.
    """

    name: str
    formula: str
    derivatives: dict[str, str]
    inputs: tuple[str, ...] = ("x",)
    result: str = "same"

    @cached_property
    def forward(self) -> Formula:
        return Formula.of(self.formula, *self.inputs)

    @cached_property
    def backward(self) -> dict[str, Formula]:
        """For each differentiable input its formula, over just the variables that it uses."""
        order = ("g", "y", *self.inputs)
        return {
            key: Formula.of(text, *[v for v in order if v in names(text)]) for key, text in self.derivatives.items()
        }


def _unary(name: str, formula: str, derivative: str) -> Elementwise:
    return Elementwise(name, formula, {"x": derivative})


def _binary(name: str, formula: str, a: str, b: str) -> Elementwise:
    return Elementwise(name, formula, {"a": a, "b": b}, ("a", "b"))


def _compare(name: str, formula: str) -> Elementwise:
    return Elementwise(name, formula, {}, ("a", "b"), "bool")


TABLE = [
    # ------------------------------------------------------------------------ arithmetic
    _binary("add", "a + b", "g", "g"),
    _binary("sub", "a - b", "g", "-g"),
    _binary("mul", "a * b", "g * b", "g * a"),
    _binary("div", "a / b", "g / b", "-g * a / (b * b)"),
    _binary("pow", "a ** b", "g * b * a ** (b - 1)", "where(a > 0, g * y * log(where(a > 0, a, 1)), 0 * g)"),
    _binary(
        "maximum",
        "max(a, b)",
        "where(a > b, g, where(a == b, 0.5 * g, 0))",
        "where(b > a, g, where(a == b, 0.5 * g, 0))",
    ),
    _binary(
        "minimum",
        "min(a, b)",
        "where(a < b, g, where(a == b, 0.5 * g, 0))",
        "where(b < a, g, where(a == b, 0.5 * g, 0))",
    ),
    Elementwise("where", "where(c, a, b)", {"a": "where(c, g, 0)", "b": "where(c, 0, g)"}, ("c", "a", "b")),
    Elementwise(
        "clip",
        "min(max(x, low), high)",
        {"x": "where(x < low, 0, where(x > high, 0, g))"},
        ("x", "low", "high"),
    ),
    _unary("neg", "-x", "-g"),
    _unary("abs", "abs(x)", "g * sign(x)"),
    _unary("sign", "sign(x)", "0 * g"),
    _unary("floor", "floor(x)", "0 * g"),
    _unary("square", "x * x", "2 * g * x"),
    _unary("reciprocal", "1 / x", "-g * y * y"),
    _unary("sqrt", "sqrt(x)", "0.5 * g / y"),
    # ------------------------------------------------------- exponentials and logarithms
    _unary("exp", "exp(x)", "g * y"),
    _unary("expm1", "expm1(x)", "g * (y + 1)"),
    _unary("log", "log(x)", "g / x"),
    _unary("log1p", "log1p(x)", "g / (1 + x)"),
    _unary("sin", "sin(x)", "g * cos(x)"),
    _unary("cos", "cos(x)", "-g * sin(x)"),
    _unary("erf", "erf(x)", "g * 1.1283791670955126 * exp(-x * x)"),
    # ----------------------------------------------------------------------- activations
    _unary("relu", "max(x, 0)", "where(y > 0, g, 0)"),
    _unary("tanh", "tanh(x)", "g * (1 - y * y)"),
    _unary("sigmoid", "sigmoid(x)", "g * y * (1 - y)"),
    _unary("softplus", "max(x, 0) + log1p(exp(-abs(x)))", "g * sigmoid(x)"),
    _unary("silu", "x * sigmoid(x)", "g * sigmoid(x) * (1 + x * (1 - sigmoid(x)))"),
    _unary(
        "gelu",
        "gelu(x)",
        "g * (0.5 * (1 + erf(0.7071067811865476 * x)) + 0.3989422804014327 * x * exp(-0.5 * x * x))",
    ),
    Elementwise("leaky_relu", "where(x > 0, x, slope * x)", {"x": "where(x > 0, g, slope * g)"}, ("x", "slope")),
    Elementwise(
        "elu",
        "where(x > 0, x, alpha * expm1(min(x, 0)))",
        {"x": "where(x > 0, g, g * alpha * exp(min(x, 0)))"},
        ("x", "alpha"),
    ),
    _binary("add_relu", "max(a + b, 0)", "where(y > 0, g, 0)", "where(y > 0, g, 0)"),
    # ----------------------------------------------------------------------- comparisons
    _compare("eq", "a == b"),
    _compare("ne", "a != b"),
    _compare("lt", "a < b"),
    _compare("le", "a <= b"),
    _compare("gt", "a > b"),
    _compare("ge", "a >= b"),
]

#: name -> row
BY_NAME = {row.name: row for row in TABLE}

#: Activations that `linear` may apply: their derivative needs the result alone.
FUSABLE = tuple(row.name for row in TABLE if row.inputs == ("x",) and row.name in ("relu", "tanh", "sigmoid"))
