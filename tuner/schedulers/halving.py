"""Successive halving (Jamieson & Talwalkar 2016)."""

from __future__ import annotations

from ..checks import ladder
from .brackets import Bracket, Brackets, geometric

__all__ = ["SuccessiveHalving"]


class SuccessiveHalving(Brackets):
    """At each rung the best 1 / eta of a bracket go on.

    Rungs lie at min_steps, min_steps * eta, ... and max_steps. With r of them a bracket is eta ** (r - 1) trials.

    min_steps: the first rung; "auto" puts it so that there are four rungs, if max_steps allows.
    eta: reduction factor, at least 2.
    """

    def __init__(self, min_steps: int | str = "auto", eta: int = 3):
        self.min_steps, self.eta = ladder(min_steps, eta, "auto")

    def rungs(self, max_steps: int) -> list[int]:
        """The steps at which trials are compared, the last being max_steps."""
        first = max(max_steps // self.eta**3, 1) if self.min_steps == "auto" else int(self.min_steps)
        return list(geometric(first, self.eta, max_steps))

    def brackets(self, max_steps: int) -> list[Bracket]:
        steps = self.rungs(max_steps)
        return [Bracket(tuple(self.eta**k for k in reversed(range(len(steps)))), tuple(steps))]
