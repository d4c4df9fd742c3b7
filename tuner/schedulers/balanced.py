"""Promotions that divide the steps evenly between trying new trials and following up the good ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..checks import ladder, number
from .base import Situation
from .brackets import geometric
from .promotions import Promotions

__all__ = ["Balanced", "shares_of"]


class Balanced(Promotions):
    """Asynchronous halving in which new trials get as many steps as all that are promoted, whose rungs share theirs.

    Plain halving gives each rung the same number of steps, so with five rungs new trials get a fifth. But most trials
    can be told to be bad after one rung (Egele et al. 2024): it pays to look at many and to be strict at the first
    one. Rungs lie at min_steps, min_steps * eta, ... and the trials' last step; shares follow from the balance. With
    min_steps = 1, eta = 3 and 50 steps: 1/8, 1/3, 1/3, 0.78 of the trials at 1, 3, 9 and 27 steps go on.

    min_steps: the first rung; "auto" is the first step, or an 81st of a trial's steps if that is more.
    eta: ratio of the rungs, at least 2. explore: the part of all steps that goes to new trials.
    """

    def __init__(self, min_steps: int | str = "auto", eta: int = 3, explore: float = 0.5):
        self.min_steps, self.eta = ladder(min_steps, eta, "auto")
        self.explore = number("explore", explore, "(0, 1)")

    def ladder(self, situation: Situation) -> tuple[Sequence[int], Sequence[float]]:
        return self.rungs(situation.max_steps)

    def rungs(self, max_steps: int) -> tuple[Sequence[int], Sequence[float]]:
        """The rungs of trials that have so many steps, and the shares of trials that go on from them."""
        first = max(max_steps // 81, 1) if self.min_steps == "auto" else int(self.min_steps)
        rungs = geometric(first, self.eta, max_steps)
        return rungs, shares_of(rungs, self.explore)


def shares_of(rungs: Sequence[int], explore: float) -> list[float]:
    """The share of trials that goes on from each rung but the last, for new trials to get `explore` of all steps and
    the other rungs equal parts of the rest; at most 1."""
    added = [later - earlier for earlier, later in pairwise([0, *rungs])]
    parts = [explore, *([(1 - explore) / max(len(rungs) - 1, 1)] * (len(rungs) - 1))]
    counts = [part / steps for part, steps in zip(parts, added, strict=True)]
    return [min(later / earlier, 1.0) for earlier, later in pairwise(counts)]
