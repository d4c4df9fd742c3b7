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

The log of a kernel's product over smooth and stepped axes is bilinear: (x^2, x, 1, one-hot cells of x) times a matrix
with a column for each kernel. So all of them at once are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..cells import Ruler
from ..space import Domain, Space

__all__ = ["Axes", "Coded", "Kernels", "Parzen", "bandwidths"]

MANY = 64
"""A range of more values than this is smooth."""
LEVELS = 16
"""Bandwidths of stepped axes are rounded to 2 ** (whole number / LEVELS), so that their tables can be kept."""
PSEUDO = 3.0
"""How many points of the uniform density bandwidths are chosen with."""
ROOT_2_PI = math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Coded:
    """n points as some axes read them."""

    points: np.ndarray
    """(n, dimensions), NaN where inactive"""
    row: np.ndarray
    """(n, 3 * smooth axes + cells of all stepped axes): x^2, x and 1, then one-hot cells; 0 where inactive"""
    labels: np.ndarray
    """whole numbers (n, label axes), -1 where inactive"""

    def __getitem__(self, rows: np.ndarray) -> Coded:
        return Coded(self.points[rows], self.row[rows], self.labels[rows])


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
                few = domain.size is not None and domain.size <= MANY
                (label if domain.kind == "categorical" else stepped if few else smooth).append(axis)
        self.dimensions = len(domains)
        self.smooth, self.stepped, self.label = (np.array(axes, dtype=np.intp) for axes in (smooth, stepped, label))
        self.ordered = np.concatenate([self.smooth, self.stepped])
        """The axes that have a bandwidth: smooth ones, then stepped ones."""
        self.every = np.concatenate([self.ordered, self.label])
        self.whole = len(self.chosen) == self.dimensions
        self.edges = [_edges(domains[axis]) for axis in stepped]
        self.shares = [np.diff(_edges(domains[axis])) for axis in label]
        """How much of each label axis its labels take."""
        sizes = [len(edges) - 1 for edges in self.edges]
        self.begins = np.cumsum([0, *sizes])[:-1].astype(np.intp)
        self.cells = sum(sizes)
        """Of all stepped axes, which begin at `begins` in a row of all of them."""
        self._rulers = Ruler(self.edges), Ruler([_edges(domains[axis]) for axis in label])
        self._tables: dict[tuple[int, int], np.ndarray] = {}

    def code(self, points: np.ndarray) -> Coded:
        """Points (n, dimensions), NaN where inactive."""
        count, smooth = len(points), len(self.smooth)
        known = ~np.isnan(points)
        row = np.zeros((count, 3 * smooth + self.cells))
        if smooth:
            active = known[:, self.smooth]
            x = np.where(active, points[:, self.smooth], 0.0)
            row[:, :smooth], row[:, smooth : 2 * smooth], row[:, 2 * smooth : 3 * smooth] = x * x, x, active
        if len(self.stepped):
            columns = self._rulers[0].cells(points[:, self.stepped]) + (3 * smooth + self.begins)
            row[np.arange(count)[:, None], columns] = known[:, self.stepped]
        labels = self._rulers[1].cells(points[:, self.label])
        return Coded(points, row, np.where(known[:, self.label], labels, -1))

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


def _edges(domain: Domain) -> np.ndarray:
    edges = domain.edges
    return np.arange(domain.size + 1) / domain.size if edges is None else edges


class Kernels:
    """A product of kernels around each of n centres.

    bandwidths: standard deviations along `axes.ordered`, above 0. stray: b of the labels' kernels (n,), in (0, 1].
    """

    def __init__(self, axes: Axes, centres: Coded, bandwidths: np.ndarray, stray: np.ndarray):
        self.axes, self.centres, self.stray = axes, centres, stray
        self.bandwidths = np.array(bandwidths, dtype=np.float64)
        smooth = len(axes.smooth)
        matrix = np.empty((centres.row.shape[1], len(centres.points)))
        if len(axes.stepped):
            block = np.zeros((axes.cells, axes.cells))
            for column, begin in enumerate(axes.begins):
                table, self.bandwidths[smooth + column] = axes.table(column, bandwidths[smooth + column])
                block[begin : begin + len(table), begin : begin + len(table)] = table
            np.matmul(block, centres.row[:, 3 * smooth :].T, out=matrix[3 * smooth :])
        if smooth:
            from scipy.special import ndtr

            h = self.bandwidths[:smooth, None]
            _, m, known = centres.row[:, : 3 * smooth].T.reshape(3, smooth, -1)
            scaled = m / h
            mass = ndtr(1.0 / h - scaled) - ndtr(-scaled)
            matrix[:smooth] = known * (-0.5 / h**2)
            matrix[smooth : 2 * smooth] = scaled / h
            matrix[2 * smooth : 3 * smooth] = known * (-0.5 * scaled * scaled - np.log(ROOT_2_PI * h * mass))
        self._matrix = matrix

    def logs(self, at: Coded) -> np.ndarray:
        """The log of each kernel at m points: float64 (m, n)."""
        logs = at.row @ self._matrix
        for column, shares in enumerate(self.axes.shares):
            here, theirs = at.labels[:, column, None], self.centres.labels[:, column]
            kernel = self.stray + (here == theirs) * ((1 - self.stray) / shares[here])
            logs += np.log(np.where((here >= 0) & (theirs >= 0), kernel, 1.0))
        return logs


class Parzen:
    """The density of `kernels` with these weights (n,), and of weight `prior` the uniform one.

    Weights are divided by their sum; if it is 0, all is uniform.
    """

    def __init__(self, kernels: Kernels, weights: np.ndarray, prior: float):
        self.kernels = kernels
        total = weights.sum() + prior
        self.weights, self.prior = (weights / total, prior / total) if total > 0 else (weights, 1.0)

    def log_density(self, logs: np.ndarray) -> np.ndarray:
        """log p at m points, from `Kernels.logs` of them: float64 (m,)."""
        if not self.prior:  # then a kernel that weighs nothing must not set the scale
            counts = self.weights > 0
            logs = logs[:, counts]
            top = logs.max(axis=1)
            return top + np.log(np.exp(logs - top[:, None]) @ self.weights[counts])
        top = logs.max(axis=1, initial=0.0)
        return top + np.log(np.exp(logs - top[:, None]) @ self.weights + self.prior * np.exp(-top))

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draws from p, every coordinate given, (count, dimensions)."""
        from scipy.special import ndtr, ndtri

        axes, kernels = self.kernels.axes, self.kernels
        uniform = rng.random((count, axes.dimensions + 1 + len(axes.label)))
        points = uniform[:, : axes.dimensions]
        chosen = np.searchsorted(np.cumsum(self.weights), uniform[:, axes.dimensions], side="right")
        rows = np.flatnonzero(chosen < len(self.weights))  # the others are draws from the uniform density
        centres = kernels.centres.points[chosen[rows]]
        if len(axes.ordered):
            at = (rows[:, None], axes.ordered)
            m, h, u = centres[:, axes.ordered], kernels.bandwidths, points[at]
            low, high = ndtr(-m / h), ndtr((1.0 - m) / h)
            normal = m + h * ndtri(low + (high - low) * u)
            points[at] = np.where(np.isnan(m), u, np.minimum(np.maximum(normal, 0.0), 1.0))
        if len(axes.label):
            at = (rows[:, None], axes.label)
            held, stay = (
                centres[:, axes.label],
                uniform[rows, axes.dimensions + 1 :] >= kernels.stray[chosen[rows], None],
            )
            points[at] = np.where(stay & ~np.isnan(held), held, points[at])
        return points


def bandwidths(axes: Axes, points: np.ndarray, weights: np.ndarray, least: float) -> np.ndarray:
    """The normal reference rule along `axes.ordered`: sigma n^(-1 / 5) (Scott 1992).

    n is the effective number of the weighted points, and of `PSEUDO` points of the uniform density, which count in
    their variance sigma^2 as well: so kernels are wide while there are few points. At least `least`, at most 1.
    """
    places = points[:, axes.ordered]
    known = ~np.isnan(places)
    places = np.where(known, places - 0.5, 0.0)
    count, share = known.sum(axis=0), np.maximum(weights @ known, 1e-300)
    mean = (weights @ places) / share
    spread = np.maximum((weights @ (places * places)) / share - mean * mean, 0.0)
    effective = np.where(count > 0, share**2 / np.maximum((weights * weights) @ known, 1e-300), 0.0)
    variance = (count * spread + PSEUDO * (1 / 12 + mean * mean)) / (count + PSEUDO)
    return np.minimum(np.maximum(np.sqrt(variance) * (effective + PSEUDO) ** -0.2, least), 1.0)
