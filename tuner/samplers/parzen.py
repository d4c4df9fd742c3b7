"""Kernel densities on the unit cube: mixtures of products of one kernel per axis.

    p(x) = w_0 + sum_k w_k prod_d K_d(x_d; m_kd)          w_0 + sum_k w_k = 1

w_0 is the share of the uniform density, which stands for the prior. Where a centre m_k lacks a coordinate (NaN: it was
inactive there), its kernel along that axis is the uniform density too; where x lacks one, the axis does not count. So
one density covers a space whose axes are not always active.

Kernels, all of them densities with respect to the uniform distribution on the axis:

- smooth axes (continuous ranges, and those of very many values): normal, truncated to [0, 1];
- stepped axes (values with an order): the same, integrated over each value's cell;
- labels (values without an order): Aitchison & Aitken's (1976), which stays at the centre's label with probability
  1 - b and draws from the uniform distribution otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from ..space import Space

__all__ = ["Axes", "Parzen", "bandwidths"]

MANY = 64
"""A range of more values than this is smooth."""
LEVELS = 16
"""Bandwidths of stepped axes are rounded to 2 ** (whole number / LEVELS), so that their tables can be kept."""
ROOT_2_PI = math.sqrt(2 * math.pi)

Features = tuple[np.ndarray, np.ndarray, np.ndarray]


class Axes:
    """How the coordinates of a space are to be read. Axes of one value are left out: they tell nothing apart.

    chosen: the axes that count; all of them unless given.
    """

    def __init__(self, space: Space, chosen: Iterable[int] | None = None):
        domains = list(space.parameters.values())
        self.chosen = np.array(range(len(domains)) if chosen is None else list(chosen), dtype=np.intp)
        smooth, stepped, label = [], [], []
        for axis in self.chosen:
            domain = domains[axis]
            if domain.size != 1:
                label_like, few = domain.kind == "categorical", domain.size is not None and domain.size <= MANY
                (label if label_like else stepped if few else smooth).append(int(axis))
        cells = {axis: domains[axis].edges for axis in (*stepped, *label)}
        self.dimensions = len(domains)
        self.smooth, self.stepped, self.label = (np.array(axes, dtype=np.intp) for axes in (smooth, stepped, label))
        self.edges = [cells[axis] for axis in stepped]
        self.label_edges = [
            np.linspace(0, 1, domains[axis].size + 1) if cells[axis] is None else cells[axis] for axis in label
        ]
        sizes = [len(edges) - 1 for edges in self.edges]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        """Where the cells of each stepped axis begin in a row of all of them."""
        self._tables: dict[tuple[int, int], np.ndarray] = {}

    @cached_property
    def ordered(self) -> np.ndarray:
        """The axes that have a bandwidth: smooth ones, then stepped ones."""
        return np.concatenate([self.smooth, self.stepped])

    @cached_property
    def every(self) -> np.ndarray:
        """All axes that count: the ordered ones, then labels."""
        return np.concatenate([self.ordered, self.label])

    def features(self, points: np.ndarray) -> Features:
        """Points (n, dimensions), NaN where inactive, as (smooth (n, s), one-hot cells (n, sizes), labels (n, l)).

        Labels are whole numbers, -1 where inactive; the one-hot cells of an inactive axis are all 0.
        """
        hot = np.zeros((len(points), int(self.offsets[-1])))
        for axis, edges, offset in zip(self.stepped, self.edges, self.offsets, strict=False):
            known = np.flatnonzero(~np.isnan(points[:, axis]))
            hot[known, offset + _cell(edges, points[known, axis])] = 1.0
        labels = np.full((len(points), len(self.label)), -1, dtype=np.intp)
        for column, (axis, edges) in enumerate(zip(self.label, self.label_edges, strict=True)):
            known = np.flatnonzero(~np.isnan(points[:, axis]))
            labels[known, column] = _cell(edges, points[known, axis])
        return points[:, self.smooth], hot, labels

    def table(self, column: int, bandwidth: float) -> tuple[np.ndarray, float]:
        """(log density in each cell (rows) of the kernel at the middle of each cell (columns), the bandwidth used)."""
        level = round(LEVELS * math.log2(bandwidth))
        used = 2.0 ** (level / LEVELS)
        known = self._tables.get((column, level))
        if known is None:
            from scipy.special import ndtr

            edges = self.edges[column]
            centres = (edges[1:] + edges[:-1]) / 2
            masses = np.diff(ndtr((edges[:, None] - centres) / used), axis=0)
            density = masses / (masses.sum(axis=0) * np.diff(edges)[:, None])
            known = self._tables[column, level] = np.log(np.maximum(density, 1e-300))
        return known, used


def _cell(edges: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(edges, places, side="right") - 1, 0, len(edges) - 2)


class Parzen:
    """A density with kernels at `points` (n, dimensions), NaN where inactive.

    weights: of the kernels (n,), and `prior` that of the uniform density; they are divided by their sum.
    bandwidths: standard deviations of the kernels along `axes.ordered`, above 0.
    stray: b of the labels' kernels, in (0, 1].
    """

    def __init__(
        self,
        axes: Axes,
        points: np.ndarray,
        weights: np.ndarray,
        prior: float,
        bandwidths: np.ndarray,
        stray: float | np.ndarray,
    ):
        self.axes, self.points = axes, points
        total = weights.sum() + prior
        self.weights, self.prior = (weights / total, prior / total) if total > 0 else (weights, 1.0)
        self.stray = np.broadcast_to(np.asarray(stray, dtype=np.float64), (len(axes.label),))
        smooth = len(axes.smooth)
        self.bandwidths = np.array(bandwidths, dtype=np.float64)
        tables = []
        for column in range(len(axes.stepped)):
            table, self.bandwidths[smooth + column] = axes.table(column, bandwidths[smooth + column])
            tables.append(table)
        places, hot, self._labels = axes.features(points)
        self._factor = self._quadratic(places, self.bandwidths[:smooth])
        if tables:
            block = np.zeros((hot.shape[1],) * 2)
            for table, begin, end in zip(tables, axes.offsets, axes.offsets[1:], strict=False):
                block[begin:end, begin:end] = table
            self._factor = np.concatenate([self._factor, block @ hot.T])

    def _quadratic(self, places: np.ndarray, bandwidths: np.ndarray) -> np.ndarray:
        """Factors of x^2, x and 1 of each axis in the log density of each kernel, (3 * axes, n)."""
        if not len(bandwidths):
            return np.empty((0, len(places)))
        from scipy.special import ndtr

        known = ~np.isnan(places)
        m = np.where(known, places, 0.5)
        scaled = m / bandwidths
        mass = ndtr((1.0 - m) / bandwidths) - ndtr(-scaled)
        curve = np.broadcast_to(-0.5 / bandwidths**2, m.shape)
        constant = -0.5 * scaled**2 - np.log(ROOT_2_PI * bandwidths * mass)
        return np.concatenate([(part * known).T for part in (curve, scaled / bandwidths, constant)])

    def log_density(self, features: Features) -> np.ndarray:
        """log p at m points, as `Axes.features` gives them: float64 (m,)."""
        places, hot, labels = features
        known = ~np.isnan(places)
        x = np.where(known, places, 0.0)
        logs = np.concatenate([x * x, x, known, hot], axis=1) @ self._factor
        for column, edges in enumerate(self.axes.label_edges):
            stray, mine, theirs = self.stray[column], labels[:, column], self._labels[:, column]
            share = np.diff(edges)[mine]
            same = np.log(stray + (1 - stray) / share)  # broadcast over the kernels
            equal = mine[:, None] == theirs
            logs += np.where(equal, same[:, None], math.log(stray) * (theirs >= 0)) * (mine >= 0)[:, None]
        top = np.maximum(logs.max(axis=1, initial=0.0), 0.0)
        return top + np.log(np.exp(logs - top[:, None]) @ self.weights + self.prior * np.exp(-top))

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draws from p, every coordinate given, (count, dimensions)."""
        from scipy.special import ndtr, ndtri

        axes = self.axes
        points = rng.random((count, axes.dimensions))
        kernel = np.searchsorted(np.cumsum(self.weights), rng.random(count), side="right")
        rows = np.flatnonzero(kernel < len(self.points))
        centres = self.points[kernel[rows]]
        stay = rng.random((len(rows), len(axes.label))) >= self.stray
        if not len(rows):
            return points
        drawn = points[rows]
        m, h = centres[:, axes.ordered], self.bandwidths
        low, high = ndtr(-m / h), ndtr((1.0 - m) / h)
        normal = m + h * ndtri(low + (high - low) * drawn[:, axes.ordered])
        normal = np.clip(normal, 0.0, 1.0)
        drawn[:, axes.ordered] = np.where(np.isnan(m), drawn[:, axes.ordered], normal)
        held = centres[:, axes.label]
        drawn[:, axes.label] = np.where(stay & ~np.isnan(held), held, drawn[:, axes.label])
        points[rows] = drawn
        return points


def bandwidths(axes: Axes, points: np.ndarray, weights: np.ndarray, least: float) -> np.ndarray:
    """The normal reference rule along `axes.ordered` (Scott 1992): h = sigma n^(-1 / (d + 4)).

    n is the effective number of the weighted points, and one more that stands for the uniform density: sigma^2 is
    their variance about the points' mean. So h is wide while there are few points. d is how many axes the points have
    on average. At least `least`, at most 1.
    """
    places = points[:, axes.ordered]
    known = ~np.isnan(places)
    mass = weights[:, None] * known
    total = np.maximum(mass.sum(axis=0), 1e-300)
    places = np.where(known, places, 0.0)
    mean = np.where(known.any(axis=0), (mass * places).sum(axis=0) / total, 0.5)
    spread = (mass * (places - mean) ** 2).sum(axis=0) / total
    count = known.sum(axis=0)
    variance = (count * spread + 1 / 12 + (mean - 0.5) ** 2) / (count + 1)
    effective = total**2 / np.maximum((mass**2).sum(axis=0), 1e-300)
    dimensions = (~np.isnan(points[:, axes.every])).sum() / max(len(points), 1)
    return np.clip(np.sqrt(variance) * (np.where(count > 0, effective, 0) + 1) ** (-1 / (dimensions + 4)), least, 1.0)
