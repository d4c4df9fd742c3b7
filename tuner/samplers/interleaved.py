"""A sampler that learns, and random points in between."""

from __future__ import annotations

import numpy as np

from ..checks import number
from ..space import Domain, Space
from .base import History, Sampler, keyed_uniform
from .tpe import TPESampler
from .uniform import RandomSampler

__all__ = ["InterleavedSampler"]


class InterleavedSampler(Sampler):
    """Proposals of another sampler, of which a part is random, as in BOHB (Falkner et al. 2018).

    Where trials are many and short, as with early stopping, a sampler that learns from first steps soon crowds around
    what did well in them. Random points keep the search open, and what they cost is bounded by their part.

    sampler: a `TPESampler` unless given. random_fraction: how likely a proposal is random. seed: also the sampler's,
    unless that has one of its own.
    """

    learns = True

    def __init__(self, sampler: Sampler | None = None, random_fraction: float = 0.5, seed: int | None = None):
        if sampler is not None and not isinstance(sampler, Sampler):
            raise TypeError(f"InterleavedSampler: sampler must be a tuner.samplers object or None, got {sampler!r}")
        self.sampler = TPESampler(seed=seed) if sampler is None else sampler
        super().__init__(self.sampler.seed if seed is None else seed, self.sampler.constraints_func)
        self.random_fraction = number("InterleavedSampler: random_fraction", random_fraction, "[0, 1]")
        self._random = RandomSampler(seed=seed)

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        at_random = number >= len(space.defaults) and keyed_uniform(seed, number, "at random") < self.random_fraction
        return (self._random if at_random else self.sampler).propose(space, history, number, seed)

    def coordinate(self, name: str, domain: Domain, position: int, history: History, number: int, seed: int) -> float:
        return self.sampler.coordinate(name, domain, position, history, number, seed)

    def limit(self, space: Space | None) -> int | None:
        return self.sampler.limit(space)
