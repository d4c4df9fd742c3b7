"""A formula as vector code: `kernels.formula.Formula` on Lanes."""

import ast
import operator
from collections.abc import Mapping

from llvmlite import ir

from kernels.formula import Formula
from kernels.numba_cpu.jit import math
from kernels.numba_cpu.jit.values import BIT, Lanes, absolute, floor, select, sqrt

_OPERATORS = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv},
    **{ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge},
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne},
}
_FUNCTIONS = {
    **{"exp": math.exp, "log": math.log, "log1p": math.log1p, "expm1": math.expm1, "sqrt": sqrt, "tanh": math.tanh},
    **{"sigmoid": math.sigmoid, "erf": math.erf, "abs": absolute, "floor": floor, "sin": math.sin, "cos": math.cos},
    "gelu": math.gelu,
}


def emit(formula: Formula, variables: Mapping[str, Lanes], element: ir.Type) -> Lanes:
    """The formula's value, computed in `element` (float, double or i64), or a mask where it is a comparison.

    variables are of type `element`, or masks. A subexpression that occurs twice is computed once.
    """
    like = next(iter(variables.values()))
    zero = Lanes(like.builder, ir.Constant(ir.VectorType(element, like.count), None))
    result = _Emission(variables, zero).value(formula.tree.body)
    return result if isinstance(result, Lanes) else zero.constant(result)


class _Emission:
    def __init__(self, variables: Mapping[str, Lanes], zero: Lanes):
        self.variables, self.zero = variables, zero
        self.known: dict[str, Lanes | float] = {}

    def value(self, node: ast.expr) -> Lanes | float:
        """The value of an expression: Lanes, or a number where it is a constant."""
        key = ast.dump(node)
        if key not in self.known:
            self.known[key] = getattr(self, type(node).__name__)(node)
        return self.known[key]

    def number(self, node: ast.expr) -> Lanes | float:
        """As `value`; a mask becomes 0 and 1."""
        x = self.value(node)
        return x.to(self.zero.element) if isinstance(x, Lanes) else x

    def lanes(self, node: ast.expr) -> Lanes:
        """As `number`, a constant too."""
        x = self.number(node)
        return x if isinstance(x, Lanes) else self.zero.constant(x)

    def Constant(self, node: ast.Constant) -> float:
        return node.value

    def Name(self, node: ast.Name) -> Lanes:
        return self.variables[node.id]

    def UnaryOp(self, node: ast.UnaryOp) -> Lanes | float:
        return -self.number(node.operand)

    def BinOp(self, node: ast.BinOp) -> Lanes | float:
        if isinstance(node.op, ast.Pow):
            return self.power(node)
        return _OPERATORS[type(node.op)](self.number(node.left), self.number(node.right))

    def Compare(self, node: ast.Compare) -> Lanes | float:
        return _OPERATORS[type(node.ops[0])](self.number(node.left), self.number(node.comparators[0]))

    def power(self, node: ast.BinOp) -> Lanes | float:
        """Small whole powers are products."""
        x, y = self.number(node.left), self.number(node.right)
        if isinstance(y, Lanes):
            return math.power(self.lanes(node.left), y)
        if not isinstance(x, Lanes):
            return x**y
        if y not in (1, 2, 3, 4):
            return math.power(x, x.constant(y))
        square = x * x
        return {1: lambda: x, 2: lambda: square, 3: lambda: square * x, 4: lambda: square * square}[y]()

    def Call(self, node: ast.Call) -> Lanes:
        name, arguments = node.func.id, node.args
        if name == "where":
            condition = self.value(arguments[0])
            mask = condition if isinstance(condition, Lanes) else self.zero.constant(condition)
            return select(mask.to(BIT), self.lanes(arguments[1]), self.lanes(arguments[2]))
        if name in ("max", "min"):
            return _extreme(name, *(self.number(argument) for argument in arguments), self.zero)
        x = self.lanes(arguments[0])
        return _sign(x) if name == "sign" else _FUNCTIONS[name](x)


def _sign(x: Lanes) -> Lanes:
    return select(x > 0, 1, select(x < 0, -1, x))


def _extreme(name: str, a: Lanes | float, b: Lanes | float, zero: Lanes) -> Lanes:
    """max or min. NaN wins."""
    better = operator.gt if name == "max" else operator.lt
    if not isinstance(a, Lanes):
        a, b = b, a
    if not isinstance(a, Lanes):
        a = zero.constant(a)
    if not isinstance(b, Lanes):  # b is not NaN: it is taken only where the comparison holds
        b = zero.constant(b)
        return select(better(b, a), b, a)
    chosen = select(better(a, b), a, b)  # b where either is NaN
    return select(a.isnan(), a, chosen) if a.floating else chosen
