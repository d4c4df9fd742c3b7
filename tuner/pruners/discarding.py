"""Early discarding (Egele et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..trial import FrozenTrial
from .base import Pruner
from .rungs import falls_behind

if TYPE_CHECKING:
    from ..schedulers import Scheduler

__all__ = ["EarlyDiscardingPruner"]


class EarlyDiscardingPruner(Pruner):
    """The plain way: train `candidates` settings for `steps` steps each and finish the best `keep` (arXiv 2404.04111).

    An objective that reports is judged at that step, against those that came before: the best keep / candidates go on.
    """

    def __init__(self, candidates: int = 100, steps: int = 1, keep: int = 3):
        from ..schedulers import EarlyDiscarding

        self._scheduler = EarlyDiscarding(candidates, steps, keep)
        self.candidates, self.steps, self.keep = candidates, steps, keep

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        return falls_behind(trial, trials, [(self.steps, self.keep / self.candidates)], signs)

    def scheduler(self) -> Scheduler:
        return self._scheduler
