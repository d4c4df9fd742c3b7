"""Finds the point of a mixed space where an acquisition function is largest."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import numpy as np

from ...space import Space
from .ascent import ascend
from .embedding import Embedding

__all__ = ["Search"]

ANYWHERE, NEAR, STARTS = 512, 384, 6
"""How many points are drawn from the whole cube and near to good ones; from how many of them climbs begin."""
FEW = 24
"""A number with more values than this is climbed as if it were continuous, and then by steps of 1, 2, 4, ... values."""
EVALUATIONS = 30
"""Of each climb."""


class Search:
    """acquisition(points) -> values (m,); acquisition.slopes(points) -> values, gradients by the coordinates that vary.

    active: points (m, dimensions) -> bool of that shape, which coordinates count.
    """

    def __init__(
        self,
        space: Space,
        embedding: Embedding,
        acquisition: Any,
        active: Callable[[np.ndarray], np.ndarray],
        rng: np.random.Generator,
    ):
        self.space, self.embedding, self.acquisition, self.active, self.rng = space, embedding, acquisition, active, rng
        self.conditional = bool(space.conditions) or active != space.active
        domains = list(space.parameters.values())
        self.axes = embedding.axes
        self.places = {axis: domains[axis].places for axis in self.axes}
        self.unordered = {axis for axis in self.axes if domains[axis].kind == "categorical"}
        self.smooth = np.array(
            [a not in self.unordered and (self.places[a] is None or len(self.places[a]) > FEW) for a in self.axes],
            dtype=bool,
        )
        self.stepped = [axis for axis in self.axes if self.places[axis] is not None]

    def settle(self, points: np.ndarray) -> np.ndarray:
        """The points where their settings are encoded; NaN where inactive."""
        points = self.space.snap(points)
        return np.where(self.active(points), points, np.nan)

    def best(self, good: np.ndarray, tried: Container[bytes]) -> np.ndarray | None:
        """The point found, shape (dimensions,), NaN where inactive. It is not among `tried` and keeps hard constraints.

        good: points (k, dimensions) near to which is searched as well. None if every point found was turned away.
        """
        points = self.settle(np.concatenate([self._anywhere(), self._near(good)]))
        values = self.acquisition(points)
        self.pool = [(points, values)]
        order = np.argsort(-values, kind="stable")
        starts = self._allowed(points[order], STARTS)
        values = self.acquisition(starts)
        for _ in range(2):
            before = values
            if self.smooth.any():
                starts, values = self._climb(starts, values)
            if self.stepped:
                starts, values = self._exchange(starts, values)
            if not (values > before + 1e-3).any() or not (self.stepped and self.smooth.any()):
                break
        points = np.concatenate([p for p, _ in self.pool])
        values = np.concatenate([v for _, v in self.pool])
        for row in np.argsort(-values, kind="stable"):
            if self._allows(points[row]) and self.space.key(points[row]) not in tried:
                return points[row]
        return None

    def _allows(self, point: np.ndarray) -> bool:
        return not self.space.constraints or self.space.allows(self.space.decode(np.nan_to_num(point, nan=0.5)))

    def _allowed(self, points: np.ndarray, count: int) -> np.ndarray:
        """The first few different ones that keep the hard constraints."""
        chosen: dict[bytes, int] = {}
        for row, point in enumerate(points[:200]):
            if point.tobytes() not in chosen and self._allows(point):
                chosen[point.tobytes()] = row
                if len(chosen) == count:
                    break
        return points[list(chosen.values()) or [0]]

    def _anywhere(self) -> np.ndarray:
        return self.rng.random((ANYWHERE, self.space.dimensions))

    def _near(self, good: np.ndarray) -> np.ndarray:
        """Good points with some coordinates changed: by little or much, few or many of them."""
        rng, dimensions = self.rng, self.space.dimensions
        filled = np.where(np.isnan(good), rng.random(good.shape), good)
        points = filled[np.arange(NEAR) % len(good)]
        width = 10.0 ** rng.uniform(-2.5, -0.5, (NEAR, 1))
        share = np.maximum(rng.random((NEAR, 1)) ** 2, 1.0 / max(len(self.axes), 1))
        changed = rng.random((NEAR, dimensions)) < share
        moved = points + width * rng.standard_normal((NEAR, dimensions))
        drawn = rng.random((NEAR, dimensions))
        for axis in self.unordered:
            moved[:, axis] = drawn[:, axis]
        return np.clip(np.where(changed, moved, points), 0.0, 1.0)

    def _climb(self, starts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Move the smooth coordinates to a local maximum."""
        axes = self.axes[self.smooth]
        inactive = np.isnan(starts[:, axes])

        def function(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            points = starts[rows].copy()
            points[:, axes] = np.where(inactive[rows], np.nan, x)
            value, gradient = self.acquisition.slopes(points)
            return value, gradient[:, self.smooth]

        x, _ = ascend(function, np.nan_to_num(starts[:, axes], nan=0.5), 0.0, 1.0, EVALUATIONS, 1e-2, 0.05)
        ends = starts.copy()
        ends[:, axes] = np.where(inactive, np.nan, x)
        ends = self.settle(np.nan_to_num(ends, nan=0.5))
        reached = self.acquisition(ends)
        self.pool.append((ends, reached))
        better = reached > values
        return np.where(better[:, None], ends, starts), np.where(better, reached, values)

    def _exchange(self, starts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Change one stepped coordinate at a time to its best value, until that gains nothing."""
        starts, values = starts.copy(), values.copy()
        going = np.arange(len(starts))
        for _ in range(2 * len(self.stepped) + 2):
            moves, owners = self._moves(starts[going])
            if not len(moves):
                break
            reached = self.acquisition(moves)
            self.pool.append((moves, reached))
            order = np.lexsort((-reached, owners))
            first = order[np.unique(owners[order], return_index=True)[1]]
            rows = going[owners[first]]
            better = reached[first] > values[rows] + 1e-9
            starts[rows[better]], values[rows[better]] = moves[first[better]], reached[first[better]]
            going = rows[better]
            if not len(going):
                break
        return starts, values

    def _moves(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All points that differ in one stepped, active coordinate, and the rows that they came from."""
        moves, owners = [], []
        for axis in self.stepped:
            places = self.places[axis]
            size = len(places)
            at = np.searchsorted(places, points[:, axis] - 1e-12)
            if size <= FEW:
                steps = np.broadcast_to(np.arange(size), (len(points), size))
            elif axis in self.unordered:
                steps = np.broadcast_to(self.rng.choice(size, FEW, replace=False), (len(points), FEW))
            else:
                jumps = 2 ** np.arange(size.bit_length() - 1)
                steps = at[:, None] + np.concatenate([-jumps[::-1], jumps])
            use = (steps >= 0) & (steps < size) & (steps != at[:, None]) & ~np.isnan(points[:, axis])[:, None]
            rows, columns = np.nonzero(use)
            moved = points[rows].copy()
            moved[:, axis] = places[steps[rows, columns]]
            moves.append(moved)
            owners.append(rows)
        moved = np.concatenate(moves)
        if self.conditional:
            moved = self.settle(np.nan_to_num(moved, nan=0.5))
        return moved, np.concatenate(owners)
