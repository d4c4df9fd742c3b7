"""Children from parents: crossover and mutation of points of the cube, for every kind of domain."""

from __future__ import annotations

import numpy as np

from ..space import Space

__all__ = ["Variation"]


class Variation:
    """Of points (dimensions,) whose coordinates are NaN where a parameter is inactive; children have no NaN.

    spread: the distribution index of simulated binary crossover and of polynomial mutation; the larger, the nearer.
    Numbers move along their axis, and whole numbers and ordinals by one value at least; categories have no order.
    """

    def __init__(self, space: Space, rng: np.random.Generator, spread: float = 5.0):
        self.space, self.rng, self.spread = space, rng, spread
        self._domains = list(space.parameters.values())
        self.varied = np.array([axis for axis, domain in enumerate(self._domains) if domain.size != 1], dtype=np.int64)
        self._listed = np.array([domain.kind == "categorical" for domain in self._domains], dtype=bool)

    def whole(self, point: np.ndarray) -> np.ndarray:
        """The point with random coordinates where it has none."""
        return np.where(np.isnan(point), self.rng.random(len(point)), point)

    def uniform(self, a: np.ndarray, b: np.ndarray, swapping: float) -> np.ndarray:
        """Each coordinate from b with probability `swapping`, else from a; from the other one where that has none."""
        child = np.where(self.rng.random(len(a)) < swapping, b, a)
        return self.whole(np.where(np.isnan(child), np.where(np.isnan(a), b, a), child))

    def simulated_binary(self, a: np.ndarray, b: np.ndarray, swapping: float) -> np.ndarray:
        """SBX within bounds (Deb & Agrawal 1995; Deb et al. 2002) of the numbers; categories as `uniform`.

        Half of the coordinates stay one of the parents'.
        """
        child = self.uniform(a, b, swapping)
        low, high = np.fmin(a, b), np.fmax(a, b)
        gap = high - low
        mixed = ~self._listed & (self.rng.random(len(a)) < 0.5) & (gap > 1e-14)
        u, power, upper = self.rng.random(len(a)), self.spread + 1, child == high
        with np.errstate(invalid="ignore", divide="ignore"):
            beta = 1 + 2 * np.where(upper, 1 - high, low) / gap
            alpha = 2 - beta**-power
            stretch = np.where(u <= 1 / alpha, u * alpha, 1 / (2 - u * alpha)) ** (1 / power)
            crossed = 0.5 * (low + high + np.where(upper, 1, -1) * stretch * gap)
        return np.where(mixed, np.clip(crossed, 0.0, 1.0), child)

    def mutate(self, point: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """The point with other values on the chosen axes (indices)."""
        child = point.copy()
        for axis in chosen:
            domain, places = self._domains[axis], self._domains[axis].places
            if self._listed[axis] and places is not None:
                here = np.searchsorted(domain.edges, point[axis], side="right") - 1
                other = self.rng.integers(domain.size - 1)
                child[axis] = places[other + (other >= min(max(here, 0), domain.size - 1))]
            elif self._listed[axis]:
                child[axis] = self.rng.random()
            else:
                child[axis] = self._polynomial(point[axis])
                if places is not None:
                    here, there = np.clip(
                        np.searchsorted(domain.edges, [point[axis], child[axis]], side="right") - 1, 0, domain.size - 1
                    )
                    if here == there:
                        there += self.rng.choice((-1, 1))
                    child[axis] = places[there if 0 <= there < domain.size else 2 * here - there]
        return child

    def _polynomial(self, x: float) -> float:
        """Polynomial mutation within bounds (Deb & Goyal 1996; Deb et al. 2002), from a bound always inwards."""
        u, power = self.rng.random(), self.spread + 1
        if x <= 0 or x >= 1:
            u = max(u, 1 - u) if x <= 0 else min(u, 1 - u)
        if u < 0.5:
            return x + (2 * u + (1 - 2 * u) * (1 - x) ** power) ** (1 / power) - 1
        return x + 1 - (2 * (1 - u) + 2 * (u - 0.5) * x**power) ** (1 / power)
