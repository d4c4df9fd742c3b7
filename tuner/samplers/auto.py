"""The sampler to use when nobody chose one."""

from __future__ import annotations

import numpy as np

from ..space import Domain, Space
from .base import History, Sampler
from .quasirandom import sobol_point

__all__ = ["AutoSampler"]


class AutoSampler(Sampler):
    """The space's own default settings first, then scrambled Sobol points."""

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        if number < len(space.defaults):
            middle = np.full(space.dimensions, 0.5)
            return space.encode(space.decode(middle, space.defaults[number]))
        return sobol_point(space.dimensions, number - len(space.defaults), seed)

    def coordinate(self, name: str, domain: Domain, position: int, history: History, number: int, seed: int) -> float:
        return float(sobol_point(position + 1, number, seed)[position])
