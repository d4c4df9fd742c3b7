"""Progressive asynchronous successive halving, PASHA (Bohdal et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ..checks import ladder
from ..pareto import HUGE
from ..trial import FrozenTrial, TrialState
from .base import Situation
from .brackets import geometric
from .promotions import Promotions

__all__ = ["ProgressiveHalving"]


class ProgressiveHalving(Promotions):
    """PASHA: asynchronous halving over two rungs, and over one more whenever the two highest disagree about the order.

    Trials count as equal whose losses differ by no more than noise does: the 90th percentile of the distances between
    trials whose curves cross twice (section 4.2). Once no more trials may be started, the best of the highest rung
    runs to its end.

    min_steps: the first rung. eta: reduction factor, at least 2.
    """

    def __init__(self, min_steps: int = 1, eta: int = 3):
        self.min_steps, self.eta = ladder(min_steps, eta)

    def ladder(self, situation: Situation) -> tuple[Sequence[int], Sequence[float]]:
        rungs = geometric(self.min_steps, self.eta, situation.max_steps)
        top = min(2, len(rungs))
        while top < len(rungs) and not self._stable(situation, rungs[top - 2], rungs[top - 1]):
            top += 1
        return rungs[:top], [1 / self.eta] * (top - 1)

    def _stable(self, situation: Situation, lower: int, upper: int) -> bool:
        """Whether the trials of the upper rung come in the same order at both, apart from noise."""
        there = [t for t in situation.trials if t.steps >= upper and t.state is not TrialState.FAIL]
        if len(there) < 2:
            return True
        before, after = situation.losses(there, lower), situation.losses(there, upper)
        after = np.clip(after, -HUGE, HUGE)  # infinite ones are equal
        noise = _noise(there, upper) if len(situation.signs) == 1 else 0.0
        expected = after[np.argsort(after, kind="stable")]
        found = after[np.argsort(before, kind="stable")]
        return bool(np.all(np.abs(found - expected) <= noise))


def _noise(trials: Sequence[FrozenTrial], steps: int) -> float:
    """How far apart trials are after so many steps whose curves have crossed at least twice; 0 if none have."""
    curves = np.array([[t.intermediate_values.get(step, np.nan) for step in range(1, steps + 1)] for t in trials])
    curves = np.clip(curves, -HUGE, HUGE)
    apart = []
    for one, other in combinations(curves, 2):
        difference = one - other
        signs = np.sign(difference[np.isfinite(difference) & (difference != 0)])
        if np.count_nonzero(np.diff(signs)) >= 2:
            apart.append(abs(difference[-1]))
    return float(np.percentile(apart, 90)) if apart else 0.0
