"""Passes over what was recorded, before it becomes a plan. A replay gives the bits of the calls as they were.

`fused`: a formula whose result only the next formula reads moves into that one, so that the result is never stored.
Formulas round after each operation, alone and together, so that no bit changes.
"""

import ast
from collections import defaultdict
from collections.abc import Sequence

from kernels.formula import Formula
from kernels.numba_cpu import elementwise
from kernels.numba_cpu.effects import operations
from kernels.plan import Instruction, Operand

#: Bytes of a result that are worth a kernel of its own, which may have to be compiled.
LEAST = 1 << 14
#: Operands, and operations, of a formula at most: they shall stay in registers.
OPERANDS, OPERATIONS = 8, 48


def fused(instructions: Sequence[Instruction], held: set[int]) -> list[Instruction]:
    """The instructions with chains of formulas as one. held: leases of arrays that are looked at outside."""
    result: list[Instruction | None] = list(instructions)
    users: dict[int, list[int]] = defaultdict(list)
    for i, instruction in enumerate(result):
        for x in instruction.operands:
            users[x.lease].append(i)
    for i, first in enumerate(result):
        out = first.operand(0) if _is_formula(first) else None
        if out is None or not out.lease or out.lease in held or out.bytes < LEAST:
            continue
        after = [j for j in users[out.lease] if j != i]
        if len(after) != len(users[out.lease]) - 1 or len(set(after)) != 1 or after[0] < i:
            continue
        one = _together(first, result[after[0]], [x for x in result[i + 1 : after[0]] if x is not None])
        if one is not None:
            result[i], result[after[0]] = None, one
            for x in one.operands:
                users[x.lease] = [after[0] if j == i else j for j in users[x.lease]]
    return [instruction for instruction in result if instruction is not None]


def _is_formula(instruction: Instruction) -> bool:
    return bool(instruction.code) and getattr(instruction.name, "formula", None) is not None


def _together(first: Instruction, second: Instruction, between: Sequence[Instruction]) -> Instruction | None:
    """The second formula with the first in the place of its result, or None where they have to stay apart."""
    if not _is_formula(second):
        return None
    inner, *inputs = first.operands
    out, *others = second.operands
    if inner.dtype != out.dtype or inner.dtype.kind != "f" or inner.shape != out.shape or not inputs:
        return None
    if any(x.lease == inner.lease and not x.same(inner) for x in others):
        return None
    if any(instruction.call for instruction in between):
        return None
    changed = [x for instruction in between for x in instruction.operands if instruction.effect.writes(x.place)]
    if any(x.overlaps(y) for x in inputs for y in changed):
        return None
    if any(x.overlaps(out) and not x.same(out) for x in inputs):
        return None
    operands: list[Operand] = []
    nodes = {name: _name(x, operands) for name, x in zip(first.name.formula.variables, inputs, strict=True)}
    whole = _Put(nodes).visit(_copy(first.name.formula))
    nodes = {
        name: whole if x.same(inner) else _name(x, operands)
        for name, x in zip(second.name.formula.variables, others, strict=True)
    }
    text = ast.unparse(_Put(nodes).visit(_copy(second.name.formula)))
    formula = Formula.of(text, *(f"x{i}" for i in range(len(operands))))
    if len(operands) > OPERANDS or operations(formula) > OPERATIONS:
        return None
    leases = [x.lease for x in (out, *operands)]
    return elementwise.instruction(formula, [x.array() for x in operands], out.array(), leases)


def _name(x: Operand, operands: list[Operand]) -> ast.Name:
    """The variable that stands for x, which is appended to the operands if it is not among them."""
    found = next((i for i, y in enumerate(operands) if y.same(x)), len(operands))
    if found == len(operands):
        operands.append(x)
    return ast.Name(f"x{found}", ast.Load())


def _copy(formula: Formula) -> ast.expr:
    return ast.parse(formula.text, mode="eval").body


class _Put(ast.NodeTransformer):
    """Puts expressions in the place of variables."""

    def __init__(self, nodes: dict[str, ast.expr]):
        self.nodes = nodes

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.nodes.get(node.id, node)
