"""A small expression language for elementwise functions and optimizer updates.

A formula is a Python expression over named arrays: `+ - * / **`, comparisons, numbers, and the functions in
`FUNCTIONS`. NumPy and CuPy evaluate it, Tensors evaluate it (which differentiates it), and backends compile it.
"""

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

#: name -> number of arguments
FUNCTIONS = {
    "exp": 1,
    "log": 1,
    "log1p": 1,
    "expm1": 1,
    "sqrt": 1,
    "tanh": 1,
    "sigmoid": 1,
    "erf": 1,
    "gelu": 1,
    "abs": 1,
    "sign": 1,
    "floor": 1,
    "sin": 1,
    "cos": 1,
    "max": 2,
    "min": 2,
    "where": 3,
}

_NODES = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Name, ast.Load, ast.Constant),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub),
    *(ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq),
)


class Formula:
    """One expression and the order of its variables. Equal text and variables give the same object.

    >>> Formula.of("g * (1 - y * y)", "g", "y").evaluate({}, 2.0, 0.5)
    1.5
    """

    def __init__(self, text: str, variables: Sequence[str]):
        self.text = text
        self.variables = tuple(variables)
        self.tree = _checked(text, self.variables)
        self._code = compile(self.tree, text, "eval")

    @staticmethod
    @cache
    def of(text: str, *variables: str) -> "Formula":
        return Formula(text, variables)

    def evaluate(self, functions: Mapping[str, Any], *values: Any) -> Any:
        """The expression's value, computed with the given `functions` (see FUNCTIONS) and operators of `values`."""
        return eval(self._code, {"__builtins__": {}, **functions}, dict(zip(self.variables, values, strict=True)))

    def __repr__(self) -> str:
        return f"{self.text!r}({', '.join(self.variables)})"


def _checked(text: str, variables: tuple[str, ...]) -> ast.Expression:
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise ValueError(f"formula {text!r}: {type(node).__name__} is not part of the language")
        if isinstance(node, ast.Call) and (node.func.id not in FUNCTIONS or len(node.args) != FUNCTIONS[node.func.id]):
            raise ValueError(f"formula {text!r}: unknown function or wrong number of arguments in {ast.unparse(node)}")
        if isinstance(node, ast.Compare) and len(node.ops) != 1:
            raise ValueError(f"formula {text!r}: chained comparison {ast.unparse(node)}")
        if isinstance(node, ast.Name) and node.id not in FUNCTIONS and node.id not in variables:
            raise ValueError(f"formula {text!r}: {node.id!r} is not among its variables {variables}")
    return tree


def names(text: str) -> set[str]:
    """The variables that an expression uses."""
    return {node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)} - set(FUNCTIONS)


def operations(formula: Formula) -> int:
    """Operators and functions of a formula."""
    return sum(isinstance(node, ast.BinOp | ast.UnaryOp | ast.Compare | ast.Call) for node in ast.walk(formula.tree))
