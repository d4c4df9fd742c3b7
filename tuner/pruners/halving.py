"""Successive halving (Jamieson & Talwalkar 2016; asynchronous: Li et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from ..checks import RESOURCES, ladder, whole
from ..trial import FrozenTrial
from .base import Pruner
from .rungs import falls_behind, longest

if TYPE_CHECKING:
    from ..schedulers import Scheduler

__all__ = ["SuccessiveHalvingPruner"]


class SuccessiveHalvingPruner(Pruner):
    """At each rung only the best 1 / reduction_factor of the trials that came so far go on.

    Rungs lie at the steps min_resource * reduction_factor ** (min_early_stopping_rate + k), k = 0, 1, ...
    min_resource: the first rung, or "auto": a hundredth of the longest complete trial.
    bootstrap_count: so many trials must have reached a rung before one may pass it.

    An objective that reports is judged as it passes a rung, against those that passed before. A `Resumable` is paused
    there instead, and promoted once its whole bracket has arrived: see `tuner.schedulers.SuccessiveHalving`.
    """

    def __init__(
        self,
        min_resource: int | str = "auto",
        reduction_factor: int = 4,
        min_early_stopping_rate: int = 0,
        bootstrap_count: int = 0,
    ):
        self.min_resource, self.reduction_factor = ladder(min_resource, reduction_factor, "auto", RESOURCES)
        self.min_early_stopping_rate = whole("min_early_stopping_rate", min_early_stopping_rate, 0)
        self.bootstrap_count = whole("bootstrap_count", bootstrap_count, 0)
        if bootstrap_count > 0 and min_resource == "auto":
            raise ValueError(f"bootstrap_count={bootstrap_count} wants a min_resource other than 'auto'")

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        first = self._first_rung(trials)
        if first is None:
            return False
        rungs = ((first * self.reduction_factor**k, 1 / self.reduction_factor) for k in count())
        return falls_behind(trial, trials, rungs, signs, self.bootstrap_count)

    def _first_rung(self, trials: Sequence[FrozenTrial]) -> int | None:
        first = self.min_resource
        if first == "auto":
            length = longest(trials)
            if length is None:
                return None
            first = max(length // 100, 1)
        return int(first) * self.reduction_factor**self.min_early_stopping_rate

    def scheduler(self) -> Scheduler:
        from ..schedulers import SuccessiveHalving

        first = self.min_resource
        if first != "auto":
            first = int(first) * self.reduction_factor**self.min_early_stopping_rate
        return SuccessiveHalving(first, self.reduction_factor)
