"""Independent uniform draws."""

from __future__ import annotations

import numpy as np

from ..space import Space
from .base import History, Sampler, keyed_uniform

__all__ = ["RandomSampler"]


class RandomSampler(Sampler):
    """Each coordinate uniform in [0, 1), keyed by (seed, trial number, parameter name)."""

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        return np.array([keyed_uniform(seed, number, name) for name in space.parameters], dtype=np.float64)
