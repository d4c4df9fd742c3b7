"""A forest fitted to a study's trials, and the integrals over it: shares of the variance, partial dependence.

What is decomposed is the objective as a function on the whole unit cube under the uniform measure (Hutter, Hoos &
Leyton-Brown 2014), however unevenly a sampler has looked at it. A parameter that was inactive in a trial has no effect
there: the trial stands for every value of it alike, and each tree is given another one, drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from ..checks import number
from .forest import ROWS, Forest, grow
from .table import Table

__all__ = ["Surrogate"]

CHECKS = 4096  # points at which the forest's variance is measured


class Surrogate:
    """Two forests fitted to a table of trials, the second one to what the first leaves unexplained in trials that a
    tree has not seen, if that helps (Ghosal & Hooker 2018): one forest alone flattens what matters less.

    trees: in both together. quantile: losses worse than this quantile count as if they were at it, so that the
    differences among bad settings do not hide those among good ones; infinite losses count as the worst finite one.
    seed: None takes a new one each time. Raises ValueError for fewer than 2 trials.
    """

    def __init__(
        self,
        table: Table,
        *,
        trees: int = 64,
        max_depth: int = 64,
        min_leaf: int = 2,
        quantile: float = 1.0,
        seed: int | None = 0,
    ):
        if len(table.losses) < 2:
            raise ValueError(f"at least 2 trials with a value are wanted, there are {len(table.losses)}")
        number("quantile", quantile, "(0, 1]")
        self.table = table
        self.losses = _bounded(table.losses, quantile)
        self.weights = _padded([axis.widths for axis in table.axes])  # (d, cells): the measure of each cell
        self.trees = max(1, trees // 2)  # of each forest
        self._rng = np.random.default_rng(seed)
        self._cells = _filled(table.cells, self.weights, self.trees, self._rng)  # (trees, n, d)
        self._options = {"max_depth": max_depth, "min_leaf": min_leaf}
        variance = float(np.var(self.losses))
        forest, said = self._grow(self.losses)
        self.forests = [forest]
        rest = self.losses - said
        self.r2 = 1 - float(np.mean(rest**2)) / variance if variance else 0.0
        """How much of the losses' variance is explained in trials that a tree has not seen; at most 1, and below 0
        if it is worse than no explanation."""
        forest, said = self._grow(rest)
        r2 = 1 - float(np.mean((rest - said) ** 2)) / variance if variance else 0.0
        if r2 > self.r2:
            self.forests.append(forest)
            self.r2 = r2

    def _grow(self, y: np.ndarray) -> tuple[Forest, np.ndarray]:
        """A forest for targets y (n,), and what its trees say in the mean about rows that they have not seen."""
        table, n = self.table, len(y)
        rows = np.sort(self._rng.integers(0, n, (self.trees, min(n, ROWS))), axis=1)
        forest = grow(
            np.take_along_axis(self._cells, rows[:, :, None], axis=1),
            y[rows],
            np.array([axis.cells for axis in table.axes]),
            np.array([axis.categorical for axis in table.axes]),
            trees=self.trees,
            rng=self._rng,
            **self._options,
        )
        unseen = np.ones((self.trees, n), bool)
        np.put_along_axis(unseen, rows, False, axis=1)
        votes = unseen.sum(axis=0)
        said = np.where(unseen, forest.predict(self._cells), 0.0).sum(axis=0) / np.maximum(votes, 1)
        return forest, np.where(votes > 0, said, y.mean())

    def _leaves(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each tree: (its number in its forest, value (leaves,), cells (leaves, d, cells))."""
        for forest in self.forests:
            order = np.argsort(forest.leaf_tree, kind="stable")
            ends = np.searchsorted(forest.leaf_tree[order], np.arange(self.trees + 1))
            for tree in range(self.trees):
                leaves = order[ends[tree] : ends[tree + 1]]
                yield tree, forest.leaf_value[leaves], forest.leaf_cells[leaves]

    def predict(self, cells: np.ndarray) -> np.ndarray:
        """What is expected at points, given by their cells (n, d): (n,)."""
        return sum(forest.predict(cells).mean(axis=0) for forest in self.forests)

    # ------------------------------------------------------------------------------- shares of the variance

    @cached_property
    def variance(self) -> float:
        """Of the forests' sum over the unit cube, measured at random points."""
        points = _filled(np.full((CHECKS, len(self.table.axes)), -1), self.weights, 1, self._rng)[0]
        return float(np.var(self.predict(points)))

    @cached_property
    def _moments(self) -> tuple[float, np.ndarray, np.ndarray]:
        """(mean, marginals (d, cells), pair marginals (d, cells, d, cells)), each less the losses' mean."""
        d, most = self.weights.shape
        mean, single, pairs = 0.0, np.zeros(d * most), np.zeros((d * most, d * most), np.float32)
        for _, value, cells in self._leaves():
            measure = np.einsum("ldc,dc->ld", cells, self.weights)
            scale = value * measure.prod(axis=1)
            mean += scale.sum()
            density = (cells / measure[:, :, None]).reshape(len(value), d * most)
            single += scale @ density
            density = density.astype(np.float32)
            pairs += (density * scale[:, None].astype(np.float32)).T @ density
        return mean / self.trees, single.reshape(d, most) / self.trees, pairs.reshape(d, most, d, most) / self.trees

    @cached_property
    def main(self) -> np.ndarray:
        """The share of the variance that each parameter explains alone, (d,)."""
        mean, single, _ = self._moments
        return np.einsum("dc,dc->d", (single - mean) ** 2, self.weights) / (self.variance or 1.0)

    @cached_property
    def pairs(self) -> np.ndarray:
        """The share that two parameters explain together and neither does alone, (d, d), 0 on the diagonal."""
        mean, single, pairs = self._moments
        both = np.where(self.weights > 0, single - mean, 0.0)
        rest = pairs - mean - both[:, :, None, None] - both[None, None]
        share = np.einsum("icjk,ic,jk->ij", rest**2, self.weights, self.weights) / (self.variance or 1.0)
        np.fill_diagonal(share, 0.0)
        return share

    # ---------------------------------------------------------------------------------- partial dependence

    def regions(self) -> list[dict[int, np.ndarray]]:
        """For each parameter where it is active: other parameters' numbers and which of their cells (cells,) bool.

        Found from the trials: {} for one that is always active, and for one whose activity no other single one decides.
        """
        table = self.table
        active = table.cells >= 0
        found: list[dict[int, np.ndarray]] = []
        for j in range(len(table.axes)):
            region: dict[int, np.ndarray] = {}
            here = active[:, j]
            if not here.all() and here.any():
                for p in range(len(table.axes)):
                    if p == j or (here & ~active[:, p]).any():
                        continue
                    with_it = _occurring(table.cells[here, p], self.weights.shape[1])
                    without = _occurring(table.cells[~here & active[:, p], p], self.weights.shape[1])
                    if not (with_it & without).any():
                        region[p] = _spread(with_it, without, table.axes[p].categorical, table.axes[p].cells)
                        break
            found.append(region)
        for region in found:  # a parent may have a parent of its own
            for p in list(region):
                region.update({q: cells for q, cells in found[p].items() if q not in region})
        return found

    def marginal(self, parameters: Sequence[int]) -> np.ndarray:
        """Each tree's mean over all other parameters: (trees, cells) of one parameter, (trees, cells, cells) of two.

        Where a parameter is inactive does not count in its mean.
        """
        regions = self.regions()
        weights = self.weights.copy()
        for j in parameters:
            for p, cells in regions[j].items():
                inside = np.where(cells, weights[p], 0.0)
                if inside.any():
                    weights[p] = inside / inside.sum()
        result = [0.0] * self.trees
        for tree, value, cells in self._leaves():
            measure = np.einsum("ldc,dc->ld", cells, weights)
            measure[:, list(parameters)] = 1.0
            scale = value * measure.prod(axis=1)
            first = cells[:, parameters[0]].astype(np.float64)
            over = scale @ first if len(parameters) == 1 else (first * scale[:, None]).T @ cells[:, parameters[1]]
            result[tree] = result[tree] + over
        return np.array(result)


def _bounded(losses: np.ndarray, quantile: float) -> np.ndarray:
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        raise ValueError("no trial has a finite value")
    losses = np.clip(losses, finite.min(), finite.max())
    return np.minimum(losses, np.quantile(losses, quantile, method="higher"))


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    padded = np.zeros((len(rows), max(map(len, rows))))
    for row, values in zip(padded, rows):
        row[: len(values)] = values
    return padded


def _filled(cells: np.ndarray, weights: np.ndarray, trees: int, rng: np.random.Generator) -> np.ndarray:
    """The cells (n, d) for each tree, (trees, n, d); a missing one, -1, is drawn by the cells' measure."""
    filled = np.repeat(cells[None], trees, axis=0)
    for j in range(cells.shape[1]):
        rows = np.flatnonzero(cells[:, j] < 0)
        if len(rows):
            ends = np.cumsum(weights[j])
            last = np.flatnonzero(weights[j])[-1]
            drawn = np.searchsorted(ends, rng.random((trees, len(rows))), "right")
            filled[:, rows, j] = np.minimum(drawn, last)
    return filled


def _occurring(cells: np.ndarray, most: int) -> np.ndarray:
    return np.bincount(cells, minlength=most) > 0


def _spread(inside: np.ndarray, outside: np.ndarray, categorical: bool, cells: int) -> np.ndarray:
    """`inside`, and of ordered cells also those that no trial was in and that lie nearest to one inside."""
    if categorical:
        return inside
    known = np.flatnonzero(inside | outside)
    nearest = known[np.abs(np.arange(len(inside))[:, None] - known).argmin(axis=1)]
    return inside[nearest] & (np.arange(len(inside)) < cells)
