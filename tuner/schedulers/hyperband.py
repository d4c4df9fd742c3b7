"""Hyperband (Li et al. 2018)."""

from __future__ import annotations

import math

from ..checks import ladder
from .brackets import Bracket, Brackets

__all__ = ["Hyperband"]


class Hyperband(Brackets):
    """Rounds of successive halving, from many trials that are compared early to few that all run to their end.

    With R = max_steps / min_steps and s_max = floor(log(R) / log(eta)), the bracket s = s_max, ..., 0 has
    ceil((s_max + 1) / (s + 1) * eta ** s) trials, which are compared at max_steps / eta ** s, times eta, and so on
    (Li et al. 2018, algorithm 1 and table 1). Each bracket costs about the same.

    min_steps: the earliest rung. eta: reduction factor, at least 2.
    """

    def __init__(self, min_steps: int = 1, eta: int = 3):
        self.min_steps, self.eta = ladder(min_steps, eta)

    def brackets(self, max_steps: int) -> list[Bracket]:
        s_max = 0
        while self.min_steps * self.eta ** (s_max + 1) <= max_steps:
            s_max += 1
        layout = []
        for s in reversed(range(s_max + 1)):
            size = math.ceil((s_max + 1) * self.eta**s / (s + 1))
            counts = tuple(size // self.eta**k for k in range(s + 1))
            layout.append(Bracket(counts, tuple(max_steps // self.eta ** (s - k) for k in range(s + 1))))
        return layout
