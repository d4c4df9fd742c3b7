"""How arrays of one shape are walked together: axes over which all of them step evenly become one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from kernels.errors import ShapeError

__all__ = ["broadcast_strides", "merged"]


def broadcast_strides(x: Any, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Strides of x in elements, as it is broadcast to `shape`. Raises ShapeError if it does not fit."""
    missing = len(shape) - x.ndim
    if missing < 0 or any(a not in (1, b) for a, b in zip(x.shape, shape[missing:])):
        raise ShapeError(f"{name} has shape {x.shape}, which does not broadcast to {shape}")
    own = [0 if side == 1 else stride // x.itemsize for side, stride in zip(x.shape, x.strides)]
    return (*(0,) * missing, *own)


def merged(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """(shape, strides) with as few axes as possible, at least one: the last one first where that is the order in memory
    of the first operand. The elements stay in the order of the given axes."""
    axes = [(n, *steps) for n, *steps in zip(shape, *strides) if n != 1]
    result: list[tuple[int, ...]] = []
    for axis in axes:
        if result:
            n, *steps = axis
            before, *outer = result[-1]
            if all(o == n * s for o, s in zip(outer, steps)):
                result[-1] = (before * n, *steps)
                continue
        result.append(axis)
    if not result:
        result = [(prod(shape), *(0 for _ in strides))]
    sides, *steps = zip(*result)
    return tuple(sides), tuple(steps)
