"""No pruning."""

from __future__ import annotations

from collections.abc import Sequence

from ..trial import FrozenTrial
from .base import Pruner

__all__ = ["NopPruner"]


class NopPruner(Pruner):
    """Lets every trial run to its end."""

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        return False

    def next_check(self, step: int) -> int | None:
        return None
