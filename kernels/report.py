"""A plan as a table for people: what runs, on what, and how much of it."""

from collections.abc import Sequence

from kernels.plan import Instruction, Operand, Plan

#: Operands of an instruction that are listed.
MOST = 5


def report(plan: Plan) -> str:
    """One line for each instruction, and their totals. Bytes count each array that an instruction touches once."""
    rows = [("", "instruction", "reads -> writes", "bytes", "FLOP", "parts")]
    rows += [(str(i), *_row(instruction)) for i, instruction in enumerate(plan.instructions)]
    total = sum(instruction.bytes for instruction in plan.instructions)
    rows.append(("", "together", "", amount(total), amount(plan.flop), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(_aligned(column, row[column], widths[column]) for column in range(6)).rstrip() for row in rows]
    hosts = sum(instruction.opaque for instruction in plan.instructions)
    lines.append(
        f"{len(plan.instructions)} instructions, {hosts} of them host calls; {amount(plan.bytes)}B of memory of its own"
    )
    return "\n".join(lines)


def amount(count: int | None) -> str:
    """Three digits and a unit; nothing if unknown."""
    if count is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} "


def _row(instruction: Instruction) -> tuple[str, str, str, str, str]:
    if instruction.opaque:
        return f"{instruction.name} (host call)", "", "", "", ""
    arrays = f"{_list(instruction.reads)} -> {_list(instruction.writes)}"
    numbers = amount(instruction.bytes), amount(instruction.flop), str(instruction.parts)
    return instruction.title, arrays, *numbers


def _list(operands: Sequence[Operand]) -> str:
    """The operands, or of many of them the first and how many there are."""
    shown = operands if len(operands) <= MOST else operands[: MOST - 1]
    rest = [f"{len(operands) - len(shown)} more"] if len(shown) < len(operands) else []
    return ", ".join([*map(str, shown), *rest])


def _aligned(column: int, text: str, width: int) -> str:
    return text.rjust(width) if column in (0, 3, 4, 5) else text.ljust(width)
