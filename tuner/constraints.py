"""Constraints between parameters, as expressions over their names.

    Constraint("width_1 >= width_2")                           hard: never proposed otherwise
    Constraint("batch_size * learning_rate <= 1", weight=0.1)  soft: proposed a tenth as often otherwise

An expression knows numbers, text, True, False, None, + - * / // % **, comparisons, `in` a list, and, or, not, and the
functions abs, min, max, log, sqrt. It is walked node by node and never handed to Python's `eval`, so that a study's
file cannot run code. A constraint that names an inactive parameter holds.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from .errors import SpaceError

__all__ = ["Constraint"]

FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "min": min, "max": max, "log": math.log, "sqrt": math.sqrt}
ARITHMETIC: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,  # of floats: an integer's power could fill the memory
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
"""Of numbers only: text and lists could be multiplied until they fill the memory."""
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
LONGEST, DEEPEST = 10_000, 100
"""An expression has at most so many characters, and so many parts one inside another."""


class Constraint:
    """An expression that settings should fulfil.

    weight: how often settings that break it are proposed, as a share of what it would be without it: 0 (never) to 1.
    Raises SpaceError for an expression that is not understood.
    """

    def __init__(self, expression: str, weight: float = 0.0):
        if not isinstance(expression, str):
            raise SpaceError(f"a constraint must be text such as 'a + b <= 1', got {expression!r}")
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight <= 1:
            raise SpaceError(f"constraint {expression!r}: weight must be a number in [0, 1], got {weight!r}")
        self.expression, self.weight = expression, float(weight)
        if len(expression) > LONGEST:
            raise SpaceError(f"constraint {expression[:40]!r}... has {len(expression)} characters, at most {LONGEST}")
        try:
            self._tree = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise SpaceError(f"constraint {self._shown} is not an expression: {error}") from None
        self.names = frozenset(self._check(self._tree, 0))

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether the settings fulfil it. SpaceError if it cannot be computed for them."""
        if not self.names <= settings.keys():
            return True
        try:
            return bool(self._value(self._tree, settings))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise SpaceError(
                f"constraint {self.expression!r} cannot be computed for {dict(settings)}: {error}"
            ) from None

    def to_json(self) -> dict[str, Any]:
        return {"expression": self.expression, "weight": self.weight}

    def __repr__(self) -> str:
        return f"Constraint({self.expression!r}{f', weight={self.weight:g}' if self.weight else ''})"

    @property
    def _shown(self) -> str:
        return repr(self.expression if len(self.expression) <= 80 else self.expression[:77] + "...")

    def _check(self, node: ast.AST, depth: int) -> set[str]:
        """The names in an expression; SpaceError at the first part that is not known."""
        if depth > DEEPEST:
            raise SpaceError(f"constraint {self._shown}: more than {DEEPEST} parts one inside another")
        if isinstance(node, ast.Name):
            return {node.id}
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (bool, int, float, str))):
            return set()
        if isinstance(node, (ast.List, ast.Tuple)):
            parts = node.elts
        elif isinstance(node, ast.BoolOp):
            parts = node.values
        elif isinstance(node, ast.UnaryOp) and type(node.op) in ARITHMETIC | OPERATORS:
            parts = [node.operand]
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            parts = [node.left, node.right]
        elif isinstance(node, ast.Compare) and all(type(op) in OPERATORS for op in node.ops):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) in FUNCTIONS and not node.keywords:
            parts = node.args
        else:
            part = ast.get_source_segment(self.expression.strip(), node) or type(node).__name__
            raise SpaceError(f"constraint {self._shown}: {part[:40]!r} is not understood")
        return set().union(*(self._check(part, depth + 1) for part in parts))

    def _value(self, node: Any, settings: Mapping[str, Any]) -> Any:
        def value(part: ast.AST) -> Any:
            return self._value(part, settings)

        if isinstance(node, ast.Name):
            return settings[node.id]
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple)):
            return [value(part) for part in node.elts]
        if isinstance(node, ast.BoolOp):
            found = map(value, node.values)
            return all(found) if isinstance(node.op, ast.And) else any(found)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return not value(node.operand)
        if isinstance(node, ast.UnaryOp):
            return ARITHMETIC[type(node.op)](_number(value(node.operand)))
        if isinstance(node, ast.BinOp):
            return ARITHMETIC[type(node.op)](_number(value(node.left)), _number(value(node.right)))
        if isinstance(node, ast.Call):
            return FUNCTIONS[node.func.id](*map(value, node.args))
        left = value(node.left)
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = value(part)
            if not OPERATORS[type(op)](left, right):
                return False
            left = right
        return True


def _number(value: Any) -> Any:
    if not isinstance(value, Real):
        raise TypeError(f"{value!r} is not a number")
    return value
