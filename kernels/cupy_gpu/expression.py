"""Formulas as CUDA C++ expressions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

__all__ = ["expression"]

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
#: Functions that have another name in CUDA or in common.cuh.
_NAMES = {"max": "greater_of", "min": "lesser_of", "sign": "sign_of", "sigmoid": "sigmoid_of", "gelu": "gelu_of"}
_NAMES |= {"abs": "fabs"}


def expression(tree: ast.AST, variables: Mapping[str, str], real: str = "real") -> str:
    """C++ for the tree of a formula (see `kernels.formula`), with C++ names for its variables.

    Numbers and arguments of functions are converted to the type `real`.
    """
    emit: Callable[[ast.AST], str] = lambda node: expression(node, variables, real)  # noqa: E731
    match tree:
        case ast.Expression():
            return emit(tree.body)
        case ast.Constant():
            return f"{real}({tree.value!r})"
        case ast.Name():
            return variables[tree.id]
        case ast.UnaryOp():
            return f"(-{emit(tree.operand)})"
        case ast.BinOp(op=ast.Pow()):
            return f"pow({real}({emit(tree.left)}), {real}({emit(tree.right)}))"
        case ast.BinOp():
            return f"({emit(tree.left)} {_OPERATORS[type(tree.op)]} {emit(tree.right)})"
        case ast.Compare():
            return f"({emit(tree.left)} {_COMPARISONS[type(tree.ops[0])]} {emit(tree.comparators[0])})"
        case ast.Call(func=ast.Name(id="where")):
            condition, a, b = map(emit, tree.args)
            return f"(({condition}) ? {real}({a}) : {real}({b}))"
        case ast.Call():
            name = tree.func.id  # type: ignore[attr-defined]
            return f"{_NAMES.get(name, name)}({', '.join(f'{real}({emit(a)})' for a in tree.args)})"
    raise ValueError(f"{ast.dump(tree)} is not part of the language")
