"""The pruner to use when nobody chose one and trials go step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..checks import RESOURCES, ladder
from ..trial import FrozenTrial
from .base import Pruner
from .rungs import falls_behind, longest

if TYPE_CHECKING:
    from ..schedulers import Scheduler

__all__ = ["AutoPruner"]


class AutoPruner(Pruner):
    """Half of all steps try new trials, the other half follows up the best of them: see `tuner.schedulers.Balanced`.

    min_resource: the first rung; "auto" takes the first step, or an 81st of a trial's steps if that is more.
    reduction_factor: ratio of the rungs.

    An objective that reports is judged as it passes a rung, against those that passed before; its rungs end at the
    longest complete trial, so until there is one no trial is ended.
    """

    def __init__(self, min_resource: int | str = "auto", reduction_factor: int = 3):
        from ..schedulers import Balanced

        self._scheduler = Balanced(*ladder(min_resource, reduction_factor, "auto", RESOURCES))

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        last = longest(trials)
        if last is None or last < 1:
            return False
        rungs, shares = self._scheduler.rungs(last)
        return falls_behind(trial, trials, zip(rungs, shares, strict=False), signs)

    def scheduler(self) -> Scheduler:
        return self._scheduler
