"""Points of the unit cube as vectors between which the kernel's distances are taken."""

from __future__ import annotations

import math

import numpy as np

from ...space import Space

__all__ = ["Embedding"]


class Embedding:
    """Every coordinate j of a point has a squared distance D_j to that of another one:

        (x - x')^2                 numbers
        [x != x']                  categories (Hamming), being inactive is one more of them
        2 - 2 cos(x - x')          numbers that may be inactive, while both are active (about (x - x')^2);
        1 or 0                     ... if one of them or both are inactive (the arc kernel, Swersky et al. 2014)

    All of them are |a|^2 + |b|^2 - 2 a.b of vectors a and b, so that the distances of many points are one product.
    points: the earlier points, float64 (n, dimensions), snapped, NaN where a coordinate is inactive.
    """

    def __init__(self, space: Space, points: np.ndarray):
        domains = list(space.parameters.values())
        self.axes = np.array([axis for axis, domain in enumerate(domains) if domain.size != 1], dtype=int)
        """The coordinates that vary, (d,); the others are left out."""
        names = space.names
        self._plain, self._arcs, self._categories = [], [], []
        owners: list[int] = []
        for j, axis in enumerate(self.axes):
            column = points[:, axis]
            if domains[axis].kind == "categorical":
                seen = np.unique(_codes(column))
                self._categories.append((j, len(owners), seen))
                owners += [j] * len(seen)
            elif names[axis] in space.conditions or np.isnan(column).any():
                self._arcs.append((j, len(owners)))
                owners += [j, j]
            else:
                self._plain.append((j, len(owners)))
                owners.append(j)
        self.owners = np.array(owners, dtype=int)
        """Which of the d coordinates each entry of a vector belongs to, (p,)."""
        self.sums = (self.owners[:, None] == np.arange(len(self.axes))).astype(np.float64)
        """(p, d): a product with it adds up the entries of each coordinate."""
        numbers = [
            j for j, axis in enumerate(self.axes) if domains[axis].kind != "categorical" and domains[axis].size != 2
        ]
        self.ordered = np.array(numbers, dtype=int)
        """Which of the d coordinates are numbers of more than two values."""

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The vectors (m, p) of points (m, dimensions) and their squared norms by coordinate, (m, d)."""
        vectors = np.zeros((len(points), len(self.owners)))
        squares = np.empty((len(points), len(self.axes)))
        for j, at in self._plain:
            vectors[:, at] = points[:, self.axes[j]] - 0.5
            squares[:, j] = vectors[:, at] ** 2
        for j, at in self._arcs:
            x = points[:, self.axes[j]]
            active = ~np.isnan(x)
            vectors[:, at] = np.where(active, np.cos(x), 0.0)
            vectors[:, at + 1] = np.where(active, np.sin(x), 0.0)
            squares[:, j] = active
        for j, at, seen in self._categories:
            x = _codes(points[:, self.axes[j]])
            vectors[:, at : at + len(seen)] = (x[:, None] == seen) * math.sqrt(0.5)
            squares[:, j] = 0.5
        return vectors, squares

    def slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The derivatives by its own coordinate of each entry of the vectors, (m, p), and of the squares, (m, d)."""
        vectors = np.zeros((len(points), len(self.owners)))
        squares = np.zeros((len(points), len(self.axes)))
        for j, at in self._plain:
            vectors[:, at] = 1.0
            squares[:, j] = 2 * (points[:, self.axes[j]] - 0.5)
        for j, at in self._arcs:
            x = points[:, self.axes[j]]
            active = ~np.isnan(x)
            vectors[:, at] = np.where(active, -np.sin(x), 0.0)
            vectors[:, at + 1] = np.where(active, np.cos(x), 0.0)
        return vectors, squares

    def pull(self, outer: np.ndarray, points: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """sum_n outer_mn d D_j(x_m, x_n) / d x_mj: (m, d), where vectors are those of the points x_n."""
        slopes, squares = self.slopes(points)
        return squares * outer.sum(axis=1)[:, None] - 2.0 * (slopes * (outer @ vectors)) @ self.sums

    def distances(self, points: np.ndarray) -> np.ndarray:
        """The squared distances D_j between all pairs of points in the order of triu_indices(n, 1): (d, pairs)."""
        first, second = np.triu_indices(len(points), 1)
        distances = np.empty((len(self.axes), len(first)))
        for j, _ in self._plain:
            x = points[:, self.axes[j]]
            distances[j] = (x[first] - x[second]) ** 2
        for j, _ in self._arcs:
            x = points[:, self.axes[j]]
            active = ~np.isnan(x)
            both, one = active[first] & active[second], active[first] != active[second]
            x = np.where(active, x, 0.0)
            distances[j] = np.where(both, 2.0 - 2.0 * np.cos(x[first] - x[second]), one)
        for j, _, _ in self._categories:
            x = _codes(points[:, self.axes[j]])
            distances[j] = x[first] != x[second]
        return distances


def _codes(column: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(column), -1.0, column)
