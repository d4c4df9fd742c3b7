"""Ending a cross-validation after its first folds when the setting is hardly going to be the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..checks import whole
from ..pareto import HUGE
from ..trial import FrozenTrial, TrialState
from .base import Pruner

__all__ = ["FoldPruner"]


class FoldPruner(Pruner):
    """For trials that report, fold after fold, the mean over the folds so far.

    With S_tk the score of complete trial t on fold k, of K, and S_tk = mean + setting_t + fold_k + E_tk, the mean over
    the first k folds misses that over all of them by about

        s_k = sd(E) sqrt(1 / k - 1 / K)

    once the folds' own difficulty is taken out, which comparing trials on the same folds does. A trial ends when its
    mean is worse than the median of the complete trials over the same folds by more than `margin` s_k, with several
    objectives in each of them.
    (The idea is that of racing: Maron & Moore 1994; the margin spares good settings with one unlucky fold.)

    margin: in standard errors. n_startup_trials: so many trials must be complete first, at least 2.
    """

    def __init__(self, margin: float = 2.0, n_startup_trials: int = 5):
        if not margin >= 0:
            raise ValueError(f"margin must be a number of at least 0, got {margin!r}")
        self.margin = margin
        self.n_startup_trials = whole("n_startup_trials", n_startup_trials, 2)

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        own = _means(trial)
        complete = [_means(t) for t in trials if t.state is TrialState.COMPLETE and t.number != trial.number]
        folds = max(map(len, complete), default=0)
        rows = np.array([m for m in complete if len(m) == folds and np.isfinite(m).all()])
        if len(rows) < self.n_startup_trials or not 0 < len(own) < folds:
            return False
        if not np.isfinite(own[-1]).all():
            return True
        done = len(own)
        count = np.arange(1, folds + 1)[:, None]
        rows, own = np.clip(rows, -HUGE, HUGE), np.clip(own, -HUGE, HUGE)
        scores = np.diff(rows * count, axis=1, prepend=0.0)
        rest = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean(axis=(0, 1))
        deviation = np.sqrt(np.sum(rest**2, axis=(0, 1)) / ((len(rows) - 1) * (folds - 1)))
        allowed = self.margin * deviation * np.sqrt(1 / done - 1 / folds)
        return bool(np.all(np.asarray(signs) * (own[-1] - np.median(rows[:, done - 1], axis=0)) > allowed))


def _means(trial: FrozenTrial) -> np.ndarray:
    """The curve in the order of its steps, float64 (steps, objectives)."""
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    return np.array([np.atleast_1d(value) for value in curve], dtype=np.float64)
