"""Successive halving (Jamieson & Talwalkar 2016; asynchronous: Li et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import pareto
from ..trial import FrozenTrial, TrialState
from .base import Pruner

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
        if min_resource != "auto" and (not isinstance(min_resource, int) or min_resource < 1):
            raise ValueError(f"min_resource must be a whole number >= 1 or 'auto', got {min_resource!r}")
        if reduction_factor < 2:
            raise ValueError(f"reduction_factor must be at least 2, got {reduction_factor}")
        if min_early_stopping_rate < 0:
            raise ValueError(f"min_early_stopping_rate must be at least 0, got {min_early_stopping_rate}")
        if bootstrap_count < 0:
            raise ValueError(f"bootstrap_count must be at least 0, got {bootstrap_count}")
        if bootstrap_count > 0 and min_resource == "auto":
            raise ValueError(f"bootstrap_count={bootstrap_count} wants a min_resource other than 'auto'")
        self.min_resource = min_resource
        self.reduction_factor = reduction_factor
        self.min_early_stopping_rate = min_early_stopping_rate
        self.bootstrap_count = bootstrap_count

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        first = self._first_rung(trials)
        steps = sorted(trial.intermediate_values)
        if first is None or not steps:
            return False
        before, now = (steps[-2] if len(steps) > 1 else -1), steps[-1]
        rung = first
        while rung <= now:
            if rung > before and not self._passes(rung, trial, trials, signs):
                return True
            rung *= self.reduction_factor
        return False

    def _passes(self, rung: int, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        own = _at(trial, rung)
        if own is None or np.isnan(own).any():
            return False
        others = (_at(t, rung) for t in trials if t.number != trial.number)
        rivals = [own, *(value for value in others if value is not None and not np.isnan(value).any())]
        if len(rivals) <= self.bootstrap_count:
            return False
        losses = pareto.losses(rivals, signs)
        return bool(losses[0] <= np.sort(losses)[max(len(rivals) // self.reduction_factor, 1) - 1])

    def _first_rung(self, trials: Sequence[FrozenTrial]) -> int | None:
        first = self.min_resource
        if first == "auto":
            lengths = [t.last_step for t in trials if t.state is TrialState.COMPLETE and t.last_step is not None]
            if not lengths:
                return None
            first = max(max(lengths) // 100, 1)
        return int(first) * self.reduction_factor**self.min_early_stopping_rate

    def scheduler(self) -> Scheduler:
        from ..schedulers import SuccessiveHalving

        first = self.min_resource
        if first != "auto":
            first = int(first) * self.reduction_factor**self.min_early_stopping_rate
        return SuccessiveHalving(first, self.reduction_factor)


def _at(trial: FrozenTrial, rung: int) -> float | list[float] | None:
    """The value with which the trial first reached the rung; None if it did not."""
    step = min((s for s in trial.intermediate_values if s >= rung), default=None)
    return None if step is None else trial.intermediate_values[step]
