"""From a sampler's point to one that may be tried: within the constraints, and not tried before.

A point that may be tried stays as it is. Else other points are drawn, near to it first, then anywhere: soft
constraints hold for as many trials as they say, hard ones for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np

from .errors import SpaceError
from .samplers.base import keyed_integer, keyed_uniform
from .space import Space

__all__ = ["admissible"]

NEAR, FAR = 200, 2000
"""How many points are tried near to the sampler's, and anywhere."""
ALL = 20_000
"""In a space of at most so many combinations all are looked at instead, the nearest first."""
BISECTIONS = 12


def admissible(space: Space, point: np.ndarray, tried: Set[bytes], number: int, seed: int) -> np.ndarray:
    """`point` or one instead of it, shape (dimensions,).

    tried: the points not to be given again, each as `Space.key` has it. A space that is used up repeats itself.
    Raises SpaceError if no settings keep the hard constraints.
    """
    if not space.dimensions or (not space.constraints and not tried):
        return point
    search = _Search(space, tried, number, seed)
    if search.accepts(point):
        return point
    rng = np.random.default_rng(keyed_integer(seed, number, "admissible"))
    for candidate in search.candidates(point, rng):
        if search.accepts(candidate):
            return candidate
    if search.fallback is None:
        raise SpaceError(
            f"no settings were found that keep {', '.join(map(repr, space.constraints))}, in {FAR} points and between"
        )
    return search.fallback


class _Search:
    """fallback: a point that keeps the hard constraints, though it was tried or turned away."""

    def __init__(self, space: Space, tried: Set[bytes], number: int, seed: int):
        self.space, self.tried = space, tried
        self.fallback: np.ndarray | None = None
        drawn = enumerate(space.constraints)
        self._strict = [c for i, c in drawn if c.weight and keyed_uniform(seed, number, "soft", i) >= c.weight]
        """The soft constraints that this trial has to keep."""

    def accepts(self, point: np.ndarray) -> bool:
        if self.space.constraints:
            settings = self.space.decode(point)
            if not self.space.allows(settings):
                return False
        self.fallback = point if self.fallback is None else self.fallback
        if any(not c.holds(settings) for c in self._strict):
            return False
        return not self.tried or self.space.key(point) not in self.tried

    def candidates(self, point: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
        if self.space.size is not None and self.space.size <= ALL:
            yield from self._every(point, rng)
            return
        dimensions, discrete = len(point), self._discrete()
        for attempt in range(NEAR):  # one coordinate and more of them, by ever wider steps
            other = point.copy()
            count = 1 + attempt * dimensions // NEAR
            axes = rng.choice(discrete if len(discrete) and not self.space.constraints else dimensions, count)
            width = 0.02 + 0.5 * attempt / NEAR
            for axis in axes:
                domain = self._domains[axis]
                if domain.kind == "categorical":
                    other[axis] = rng.random()
                else:
                    least = 0.0 if domain.size is None else 1.0 / domain.size
                    other[axis] += rng.choice((-1, 1)) * max(width * rng.random(), least)
            yield np.clip(other, 0.0, 1.0)
        allowed = None
        for _ in range(FAR):
            other = rng.random(dimensions)
            if self.space.allows(self.space.decode(other)):
                allowed = other
                yield other
        if allowed is not None and self.space.constraints:
            good, bad = allowed, point  # what is near to the point and still allowed
            for _ in range(BISECTIONS):
                middle = (good + bad) / 2
                good, bad = (middle, bad) if self.space.allows(self.space.decode(middle)) else (good, middle)
            yield good

    def _every(self, point: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """All combinations of a small space that were not tried, the nearest first; else one that was."""
        places = [domain.places for domain in self._domains]
        cells = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, len(places))
        apart = np.abs(cells - self.space.snap(point))
        listed = [domain.kind == "categorical" for domain in self._domains]
        apart[:, listed] = apart[:, listed] > 0
        order = np.argsort(apart.sum(axis=1) + 1e-6 * rng.random(len(cells)))
        keys = self.space.keys(cells)
        yield from (cells[i] for i in order if keys[i] not in self.tried)
        if self.fallback is None:
            yield from cells[order]

    @property
    def _domains(self):
        return list(self.space.parameters.values())

    def _discrete(self) -> np.ndarray:
        return np.array([axis for axis, domain in enumerate(self._domains) if domain.size != 1], dtype=int)
