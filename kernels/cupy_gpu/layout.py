"""Arrays as kernels take them: matrices with a step along either axis, contiguous ones, pairs of axes."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import Elementwise
from kernels.cupy_gpu.walk import merged

__all__ = ["Layout", "Matrix", "first_step", "is_contiguous", "pair", "steps"]


class Matrix(NamedTuple):
    """An array as rows and columns; steps in elements."""

    array: Any
    rows: int
    columns: int
    row_step: int
    step: int


def steps(x: Any) -> tuple[int, ...]:
    """Strides in elements."""
    return tuple(stride // x.itemsize for stride in x.strides)


def first_step(x: Any | None) -> int:
    """The step of a vector; 0 for None."""
    return 0 if x is None else steps(x)[0]


def is_contiguous(x: Any) -> bool:
    """Whether the elements lie in memory one after another, in their order."""
    return x.size <= 1 or merged(x.shape, [steps(x)])[1] == ((1,),)


def pair(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The arguments side, outer, inner of `place_of` for a walk over these axes; None if they make more than two."""
    sides, (found,) = merged(shape, [strides])
    if len(found) > 2:
        return None
    return (0, 0, found[0]) if len(found) == 1 else (sides[1], *found)


class Layout:
    """Arrays in another layout where they are not as a kernel takes them, by a copy into scratch memory."""

    def __init__(self, device: Device):
        self.device = device
        self._copy = Elementwise(device).copy

    def copied(self, x: Any) -> Any:
        """A C-contiguous copy."""
        out = self.device.empty(x.shape, x.dtype)
        self._copy(x, out)
        return out

    def contiguous(self, x: Any) -> Any:
        return x if is_contiguous(x) else self.copied(x)

    def matrix(self, x: Any) -> Matrix:
        """The rows of the last axis; a copy where the other axes do not step evenly."""
        lead, columns = x.shape[:-1], x.shape[-1]
        _, (found,) = merged(lead, [steps(x)[:-1]])
        if len(found) > 1:
            x, found = self.copied(x), (columns,)
        return Matrix(x, prod(lead), columns, found[0], steps(x)[-1])

    def flat_rows(self, x: Any) -> Matrix:
        """The rows of the first axis, with the other axes as one; a copy where they do not step evenly."""
        _, (found,) = merged(x.shape[1:], [steps(x)[1:]])
        if len(found) > 1:
            x, found = self.copied(x), (1,)
        return Matrix(x, len(x), prod(x.shape[1:]), steps(x)[0], found[0])
