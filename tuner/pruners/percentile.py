"""Ending trials that are worse than most others were at the same step (Golovin et al. 2017, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import pareto
from ..checks import number, whole
from ..trial import FrozenTrial, TrialState
from .base import Pruner

__all__ = ["MedianPruner", "PercentilePruner"]


class PercentilePruner(Pruner):
    """Ends a trial whose best value so far is outside the best `percentile` percent of values at the same step.

    percentile: in [0, 100]; 25 keeps the best quarter.
    n_startup_trials: so many trials must be complete first.
    n_warmup_steps: no trial ends before this step.
    interval_steps: steps between two looks, counted from n_warmup_steps.
    n_min_trials: so many complete trials must have reported the step.
    """

    def __init__(
        self,
        percentile: float,
        n_startup_trials: int = 5,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
        *,
        n_min_trials: int = 1,
    ):
        self.percentile = number("percentile", percentile, "[0, 100]")
        self.n_startup_trials = whole("n_startup_trials", n_startup_trials, 0)
        self.n_warmup_steps = whole("n_warmup_steps", n_warmup_steps, 0)
        self.interval_steps = whole("interval_steps", interval_steps, 1)
        self.n_min_trials = whole("n_min_trials", n_min_trials, 1)

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        step = trial.last_step
        if step is None or step < self.n_warmup_steps or not self._is_due(trial, step):
            return False
        complete = [t for t in trials if t.state is TrialState.COMPLETE and t.number != trial.number]
        if not complete or len(complete) < self.n_startup_trials:
            return False
        own = [value for value in trial.intermediate_values.values() if not np.isnan(value).any()]
        if not own:
            return True
        others = [t.intermediate_values[step] for t in complete if step in t.intermediate_values]
        others = [value for value in others if not np.isnan(value).any()]
        if len(others) < self.n_min_trials:
            return False
        losses = pareto.losses([own[pareto.best(own, signs)], *others], signs)
        loss, *losses = np.clip(losses, -pareto.HUGE, pareto.HUGE)  # between infinities there is no percentile
        return bool(loss > np.percentile(losses, self.percentile))

    def next_check(self, step: int) -> int | None:
        if step < self.n_warmup_steps:
            return self.n_warmup_steps
        return step + self.interval_steps - (step - self.n_warmup_steps) % self.interval_steps

    def _is_due(self, trial: FrozenTrial, step: int) -> bool:
        """Whether `step` is the first that was reported in its interval."""
        begin = step - (step - self.n_warmup_steps) % self.interval_steps
        return not any(begin <= other < step for other in trial.intermediate_values)


class MedianPruner(PercentilePruner):
    """Ends a trial whose best value so far is worse than the median of the others at the same step."""

    def __init__(
        self, n_startup_trials: int = 5, n_warmup_steps: int = 0, interval_steps: int = 1, *, n_min_trials: int = 1
    ):
        super().__init__(50.0, n_startup_trials, n_warmup_steps, interval_steps, n_min_trials=n_min_trials)
