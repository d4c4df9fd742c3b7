"""The sampler to use when nobody chose one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..space import Domain, Space
from ..trial import FrozenTrial
from .base import History, Sampler
from .cmaes import CmaEsSampler
from .gp import GPSampler
from .quasirandom import sobol_point
from .tpe import TPESampler

__all__ = ["AutoSampler"]

STARTUP = 10
"""So many trials there are before proposals depend on their values."""
FEW = 250
"""For so many trials a Gaussian process is worth its time."""
WIDE = 40
"""Beyond so many parameters it is not."""


class AutoSampler(Sampler):
    """The space's own default settings first, then Sobol points around them, then what fits the space and the budget.

    The first ten are those of `CmaEsSampler`: around the first default, or the middle, for all that has an order.

    One objective: by turns two proposals of `GPSampler` and one of `CmaEsSampler`, which both learn from all trials and
    go wrong in different places; a Gaussian process alone may stay at a local optimum that it is sure of. Two
    objectives: `GPSampler`, by the expected gain in hypervolume. More objectives, more than 250 trials or more than 40
    parameters: `TPESampler`, whose cost per proposal does not grow with the cube of their number.
    """

    learns = True

    def __init__(
        self, seed: int | None = None, constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None
    ):
        super().__init__(seed, constraints_func)
        self._gp, self._cma = GPSampler(seed=seed, n_startup_trials=STARTUP), CmaEsSampler(seed=seed)
        self._tpe = TPESampler(seed=seed, n_startup_trials=STARTUP)

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        if number < len(space.defaults):
            return space.encode(space.decode(np.full(space.dimensions, 0.5), space.defaults[number]))
        if number < STARTUP:
            return self._cma.propose(space, history, number, seed)
        return self._expert(space, history, number).propose(space, history, number, seed)

    def _expert(self, space: Space, history: History, number: int) -> Sampler:
        objectives = len(history.signs)
        if number > FEW or space.dimensions > WIDE or objectives > 2:
            return self._tpe
        alone = objectives > 1 or self.constraints_func is not None
        return self._cma if number % 3 == 0 and not alone else self._gp

    def coordinate(self, name: str, domain: Domain, position: int, history: History, number: int, seed: int) -> float:
        return float(sobol_point(position + 1, number, seed)[position])
