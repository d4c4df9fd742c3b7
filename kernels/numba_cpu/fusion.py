"""Passes over recorded machine code (see `kernels.fusion`).

`finished`: a relu that alone reads the result of a product or a convolution is applied there, before that is stored.
`fused`: a formula whose result only the next formula reads moves into that one, so that the result is never stored.
Formulas round after each operation, alone and together, so that no bit changes.
"""

import ast
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from kernels.elementwise import BY_NAME
from kernels.formula import Formula, operations
from kernels.fusion import users_of, written
from kernels.numba_cpu import elementwise
from kernels.numba_cpu.blocking import FINISH
from kernels.numba_cpu.compiler import compiled_name
from kernels.numba_cpu.executor import pack
from kernels.plan import HEAD, Instruction, Operand

#: Bytes of a result that are worth a kernel of its own, which may have to be compiled.
LEAST = 1 << 14
#: Operands, and operations, of a formula at most: they shall stay in registers.
OPERANDS, OPERATIONS = 8, 48


#: Kernels that can apply relu to their result: the places of the result and of the word that asks for it, and its bit.
FINISHERS = {
    **{f"gemm/{dtype}": (2, 14, FINISH) for dtype in ("float32", "float64")},
    **{f"conv/{dtype}": (1, 8, FINISH) for dtype in ("float32", "float64")},
    **{f"winograd/convolve/{tile}": (1, 7, 1) for tile in (2, 4)},
}


def finished(instructions: Sequence[Instruction], held: set[int]) -> list[Instruction]:
    """The instructions with relu in the kernels before it. held: leases of arrays that are looked at outside."""
    result: list[Instruction | None] = list(instructions)
    users = users_of(instructions)
    for i, relu in enumerate(instructions):
        if not _is_formula(relu) or relu.name.formula.text != BY_NAME["relu"].forward.text:
            continue
        out, inner = relu.operands
        before = [j for j in users[inner.lease] if j != i]
        if not inner.lease or inner.lease in held or len(before) != 1 or users[inner.lease] != [before[0], i]:
            continue
        one = _finished(instructions[before[0]], inner, out, instructions[before[0] + 1 : i])
        if one is not None:
            result[before[0]], result[i] = one, None
    return [instruction for instruction in result if instruction is not None]


def _finished(first: Instruction, inner: Operand, out: Operand, between: Sequence[Instruction]) -> Instruction | None:
    """The instruction that makes `inner`, with relu, and `out` in the place of that; None where it cannot be."""
    name = compiled_name(first.kernel).partition(":")[0] if first.code else ""  # after it: blocking.variant
    place, flags, bit = FINISHERS.get(name, (0, 0, 0))
    target = first.operand(place)
    if not bit or first.word(flags) & bit or first.effect.updates(place) or not target.same(inner):
        return None
    if (inner.shape, inner.strides, inner.dtype) != (out.shape, out.strides, out.dtype):
        return None
    if any(instruction.opaque for instruction in between):
        return None
    if any(x.overlaps(out) for instruction in (first, *between) for x in instruction.operands):
        return None
    moved = first.elsewhere({target: out._replace(place=place)})
    at = 8 * (HEAD + flags)
    return replace(moved, code=moved.code[:at] + pack(first.word(flags) | bit) + moved.code[at + 8 :])


def fused(instructions: Sequence[Instruction], held: set[int]) -> list[Instruction]:
    """The instructions with chains of formulas as one. held: leases of arrays that are looked at outside."""
    result: list[Instruction | None] = list(instructions)
    users = users_of(instructions)
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
    if any(instruction.opaque for instruction in between):
        return None
    if any(x.overlaps(y) for x in inputs for y in written(between)):
        return None
    if any(x.overlaps(out) and not x.same(out) for x in inputs):
        return None
    operands: list[Operand] = []
    inside = tuple(_place(x, operands) for x in inputs)
    outside = tuple(-1 if x.same(inner) else _place(x, operands) for x in others)
    formula, count = _composed(first.name.formula, inside, second.name.formula, outside, len(operands))
    if len(operands) > OPERANDS or count > OPERATIONS:
        return None
    leases = [x.lease for x in (out, *operands)]
    return elementwise.instruction(formula, [x.array() for x in operands], out.array(), leases)


def _place(x: Operand, operands: list[Operand]) -> int:
    """The place of x among the operands, to which it is appended if it is not there."""
    found = next((i for i, y in enumerate(operands) if y.same(x)), len(operands))
    if found == len(operands):
        operands.append(x)
    return found


@lru_cache(maxsize=4096)
def _composed(
    first: Formula, inside: tuple[int, ...], second: Formula, outside: tuple[int, ...], count: int
) -> tuple[Formula, int]:
    """(the second formula with the first in the place of its result, how many operations that is).

    Its variables are x0, x1, ... for `count` operands; inside and outside say which of them each variable of the two
    formulas is, -1 being the first one's result.
    """

    def name(place: int) -> ast.Name:
        return ast.Name(f"x{place}", ast.Load())

    nodes: dict[str, ast.expr] = {v: name(place) for v, place in zip(first.variables, inside, strict=True)}
    whole = _Put(nodes).visit(_copy(first))
    nodes = {v: whole if place < 0 else name(place) for v, place in zip(second.variables, outside, strict=True)}
    text = ast.unparse(_Put(nodes).visit(_copy(second)))
    formula = Formula.of(text, *(f"x{i}" for i in range(count)))
    return formula, operations(formula)


def _copy(formula: Formula) -> ast.expr:
    return ast.parse(formula.text, mode="eval").body


class _Put(ast.NodeTransformer):
    """Puts expressions in the place of variables."""

    def __init__(self, nodes: dict[str, ast.expr]):
        self.nodes = nodes

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.nodes.get(node.id, node)
