"""Asynchronous successive halving (Li et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from ..checks import ladder
from .base import Situation
from .brackets import geometric
from .promotions import Promotions

__all__ = ["AsynchronousHalving"]


class AsynchronousHalving(Promotions):
    """ASHA: of the trials that have come to a rung so far, the best 1 / eta go on to the next.

    Rungs lie at min_steps, min_steps * eta, ... and the trials' last step. eta: at least 2.
    """

    def __init__(self, min_steps: int = 1, eta: int = 3):
        self.min_steps, self.eta = ladder(min_steps, eta)

    def ladder(self, situation: Situation) -> tuple[Sequence[int], Sequence[float]]:
        rungs = geometric(self.min_steps, self.eta, situation.max_steps)
        return rungs, [1 / self.eta] * (len(rungs) - 1)
