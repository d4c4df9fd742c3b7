"""Ending trials whose curve is not expected to lead to anything."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from .. import pareto
from ..checks import number, whole
from ..trial import FrozenTrial
from .base import Pruner
from .rungs import longest

if TYPE_CHECKING:
    from ..schedulers import Scheduler

__all__ = ["FreezeThawPruner"]


class FreezeThawPruner(Pruner):
    """Curves are extrapolated by a model of this study's own: see `tuner.schedulers.FreezeThaw`, which runs a
    `Resumable` by it.

    An objective that reports ends once the chance that it gets better than the best so far, by the last step of the
    longest complete trial, is below `chance`; with several objectives, once even values that it reaches with that
    chance, each by itself, would be dominated.

    min_resource: steps of a new trial, and the steps before which no trial that reports ends. n_startup_trials: so
    many trials must have reported first.
    """

    def __init__(self, min_resource: int = 1, chance: float = 0.05, n_startup_trials: int = 5):
        from ..schedulers import FreezeThaw

        self.n_startup_trials = whole("n_startup_trials", n_startup_trials, 1)
        self.min_resource, self.chance = whole("min_resource", min_resource, 1), number("chance", chance, "(0, 1)")
        self._scheduler = FreezeThaw(self.min_resource)

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        from ..schedulers.extrapolation import Extrapolation

        last = longest(trials)
        others = [t for t in trials if t.number != trial.number and t.intermediate_values]
        own = _best_so_far(trial, signs)
        if last is None or len(others) < self.n_startup_trials or not max(self.min_resource, 1) <= len(own) < last:
            return False
        curves = [_best_so_far(t, signs) for t in others]
        reached = np.empty(own.shape[1])
        for axis, losses in enumerate(own.T):
            mean, deviation = Extrapolation([*(curve[:, axis] for curve in curves), losses]).predict(losses, last)
            reached[axis] = min(mean, losses[-1]) + NormalDist().inv_cdf(self.chance) * deviation
            if not np.isfinite(losses[-1]):
                reached[axis] = np.inf
        points = np.array([curve[pareto.best(curve.tolist(), [1] * len(reached))] for curve in curves])
        return bool(((points <= reached).all(axis=1) & (points < reached).any(axis=1)).any())

    def scheduler(self) -> Scheduler:
        return self._scheduler


def _best_so_far(trial: FrozenTrial, signs: int | Sequence[int]) -> np.ndarray:
    """The least losses up to each step that was reported, (steps, objectives)."""
    values = [value for _, value in sorted(trial.intermediate_values.items())]
    losses = np.array(values, dtype=np.float64).reshape(len(values), -1) * np.asarray(signs, dtype=np.float64)
    losses = np.where(np.isnan(losses) | (losses == np.inf), np.inf, np.clip(losses, -pareto.HUGE, pareto.HUGE))
    return np.minimum.accumulate(losses, axis=0)
