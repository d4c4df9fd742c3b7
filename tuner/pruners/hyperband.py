"""Hyperband (Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ..checks import RESOURCES, ladder, whole
from ..trial import FrozenTrial
from .base import Pruner
from .rungs import falls_behind, longest

if TYPE_CHECKING:
    from ..schedulers import Scheduler

__all__ = ["HyperbandPruner"]


class HyperbandPruner(Pruner):
    """Brackets of successive halving, from many trials that are compared early to few that are not compared at all.

    min_resource: the earliest rung. max_resource: the last step of a trial, or "auto": that of the longest complete
    trial. reduction_factor: ratio of the rungs, at least 2. bootstrap_count: so many trials of a bracket must have
    reached a rung before one may pass it.

    A trial's number tells its bracket: see `tuner.schedulers.Hyperband`, which a `Resumable` is run by, up to its own
    `max_steps`. An objective that reports is judged as it passes a rung, against its bracket's trials before it.
    """

    def __init__(
        self,
        min_resource: int = 1,
        max_resource: int | str = "auto",
        reduction_factor: int = 3,
        bootstrap_count: int = 0,
    ):
        from ..schedulers import Hyperband

        self.min_resource, self.reduction_factor = ladder(min_resource, reduction_factor, names=RESOURCES)
        self.max_resource = "auto"
        if not isinstance(max_resource, str) or max_resource != "auto":
            self.max_resource = whole("max_resource", max_resource, self.min_resource, "auto")
        self.bootstrap_count = whole("bootstrap_count", bootstrap_count, 0)
        if bootstrap_count > 0 and max_resource == "auto":
            raise ValueError(f"bootstrap_count={bootstrap_count} wants a max_resource other than 'auto'")
        self._hyperband = Hyperband(self.min_resource, self.reduction_factor)

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        last = longest(trials) if self.max_resource == "auto" else int(self.max_resource)
        if last is None or last < 1:
            return False
        own, bracket = self._hyperband.bracket_of(trial.number, last)
        rivals = [t for t in trials if self._hyperband.bracket_of(t.number, last)[0] == own]
        shares = [later / earlier for earlier, later in pairwise(bracket.counts)]
        return falls_behind(trial, rivals, zip(bracket.steps, shares, strict=False), signs, self.bootstrap_count)

    def scheduler(self) -> Scheduler:
        return self._hyperband
