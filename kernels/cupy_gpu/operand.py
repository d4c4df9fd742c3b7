"""What a product is made of: its sizes, its operands and where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Operand", "Product", "Target", "strides_of"]


@dataclass(frozen=True)
class Operand:
    """a(m, k) or b(k, n): strides in elements along m or n (`side`), along k, and of the two axes of the batch.

    along_k: what follows along k is close in memory; else what follows along m or n. vector: along that axis, elements
    are side by side, 16 bytes of them aligned, and inside or outside together.
    """

    array: Any
    side: int
    k: int
    outer: int
    inner: int
    along_k: bool
    vector: bool


@dataclass(frozen=True)
class Target:
    """out(m, n) with n side by side; steps: of (image, row, column) of the places that m counts, if they are apart."""

    array: Any
    row: int
    outer: int = 0
    inner: int = 0
    steps: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Product:
    """Sizes of outer * inner products m x n over k."""

    m: int
    n: int
    k: int
    outer: int = 1
    inner: int = 1

    @property
    def batch(self) -> int:
        return self.outer * self.inner

    @property
    def elements(self) -> int:
        return self.batch * self.m * self.n

    @property
    def multiplications(self) -> int:
        return self.elements * self.k


def strides_of(x: Any) -> tuple[int, ...]:
    """In elements; 0 along axes of one element."""
    return tuple(0 if side == 1 else stride // x.itemsize for side, stride in zip(x.shape, x.strides, strict=True))
