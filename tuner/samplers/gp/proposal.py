"""From earlier trials to the point that promises most."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from ...space import Space
from ..base import keyed_integer
from ..history import Observations
from .acquisition import log_ehvi, log_improvement, log_probability, pareto_front
from .activity import activity
from .embedding import Embedding
from .model import GaussianProcess
from .search import Search
from .warping import warp, warp_constraint

__all__ = ["promising_point", "reference_point"]

MOST = 300
"""A model learns from at most so many trials."""
GOOD = 5
"""Near to how many good points is searched."""

Value = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Term:
    """A function of models' posteriors: means (m, k), deviations (m, k) -> values (m,), its derivatives by both."""

    models: list[GaussianProcess]
    function: Value

    def __call__(self, points: np.ndarray) -> np.ndarray:
        means, deviations = zip(*(model.posterior(points) for model in self.models), strict=True)
        return self.function(np.stack(means, axis=1), np.stack(deviations, axis=1))[0]

    def slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        means, deviations, mean_slopes, deviation_slopes = (
            np.stack(parts, axis=1) for parts in zip(*(model.slopes(points) for model in self.models), strict=True)
        )
        value, by_mean, by_deviation = self.function(means, deviations)
        return value, np.einsum("mk,mkd->md", by_mean, mean_slopes) + np.einsum(
            "mk,mkd->md", by_deviation, deviation_slopes
        )


@dataclass(frozen=True)
class Promise:
    """The sum of its terms: the logarithm of a product of independent things."""

    terms: list[Term]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return sum(term(points) for term in self.terms)

    def slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, gradients = zip(*(term.slopes(points) for term in self.terms), strict=True)
        return sum(values), sum(gradients)


def promising_point(
    space: Space,
    seen: Observations,
    constraints: np.ndarray,
    tried: Container[bytes],
    number: int,
    seed: int,
    deterministic: bool,
) -> np.ndarray | None:
    """The point for trial `number`, shape (dimensions,); None if nothing was found that was not tried.

    constraints: (len(seen), k), at most 0 where feasible, NaN where unknown. tried: points as `History.keys` has them.
    """
    rows = _learnable(seen)
    points, pending = seen.points[rows], seen.points[seen.pending]
    losses = _filled(seen.losses[rows], seen.failed[rows])
    if losses.shape[1] > 2:
        losses = _scalarised(losses, np.random.default_rng(keyed_integer(seed, number, "weights")))
    several = losses.shape[1] > 1
    targets = np.stack([warp(column, tail_only=several) for column in losses.T], axis=1)
    feasible = (seen.violations[rows] <= 0) & ~seen.failed[rows]
    embedding = Embedding(space, seen.points)

    def model(which: np.ndarray, y: np.ndarray) -> GaussianProcess:
        return GaussianProcess.fit(embedding, points[which], y, not deterministic).believing(pending)

    terms = []
    for column in constraints[rows].T:
        known = ~np.isnan(column)
        if known.sum() >= 2:
            terms.append(Term([model(known, warp_constraint(column[known]))], _feasibility))
    if feasible.any() or not terms:
        models = [model(np.ones(len(rows), dtype=bool), y) for y in targets.T]
        rated = np.concatenate([points[feasible] if feasible.any() else points, pending])
        means = np.stack([m.posterior(rated)[0] for m in models], axis=1)
        terms.append(Term(models, _hypervolume(means) if several else _improvement(means.min())))

    good = points[_best_rows(targets, feasible, GOOD)]
    rng = np.random.default_rng(keyed_integer(seed, number, "search"))
    return Search(space, embedding, Promise(terms), activity(space, seen.points), rng).best(good, tried)


def reference_point(front: np.ndarray) -> np.ndarray:
    """A tenth of the front's extent beyond its worst values (as Ishibuchi et al. 2011), for losses of variance 1."""
    extent = np.ptp(front, axis=0)
    return front.max(axis=0) + 0.1 * np.where(extent > 0, extent, 1.0)


def _improvement(best: float) -> Value:
    def function(means, deviations):
        value, by_mean, by_deviation = log_improvement(means[:, 0], deviations[:, 0], best)
        return value, by_mean[:, None], by_deviation[:, None]

    return function


def _hypervolume(means: np.ndarray) -> Value:
    front = pareto_front(means)
    reference = reference_point(front)
    return lambda m, s: log_ehvi(m, s, front, reference)


def _feasibility(means, deviations):
    value, by_mean, by_deviation = log_probability(means[:, 0], deviations[:, 0], 0.0)
    return value, by_mean[:, None], by_deviation[:, None]


def _learnable(seen: Observations) -> np.ndarray:
    """The rows that ended, at most `MOST`: the better half of these, and even steps through the others."""
    rows = np.flatnonzero(seen.done | seen.failed)
    if len(rows) <= MOST:
        return rows
    score = np.where(np.isnan(seen.losses), np.inf, seen.losses)[rows]
    ranks = score.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable").min(axis=1)
    order = np.lexsort((rows, ranks, seen.violations[rows]))
    rest = np.sort(order[MOST // 2 :])
    even = rest[np.linspace(0, len(rest) - 1, MOST - MOST // 2).astype(int)]
    return rows[np.sort(np.concatenate([order[: MOST // 2], even]))]


def _filled(losses: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Finite losses: a failed trial's are the worst ones seen, infinite ones the outermost finite ones."""
    losses = losses.copy()
    losses[failed] = np.inf
    for column in losses.T:
        finite = column[np.isfinite(column)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        np.clip(column, low, high, out=column)
    return losses


def _scalarised(losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One loss (n, 1) of many: the augmented Chebyshev norm with random weights (ParEGO, Knowles 2006)."""
    span = np.ptp(losses, axis=0)
    shares = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
    weighted = shares * rng.dirichlet(np.ones(losses.shape[1]))
    return (weighted.max(axis=1) + 0.05 * weighted.sum(axis=1))[:, None]


def _best_rows(targets: np.ndarray, feasible: np.ndarray, count: int) -> np.ndarray:
    """The best rows of one target; of two, rows evenly along the front. Infeasible ones only if there are no others."""
    rows = np.flatnonzero(feasible) if feasible.any() else np.arange(len(targets))
    if targets.shape[1] == 1:
        return rows[np.argsort(targets[rows, 0], kind="stable")[:count]]
    front = pareto_front(targets[rows])
    chosen = front[np.unique(np.linspace(0, len(front) - 1, 2 * count).astype(int))]
    return np.array([rows[(targets[rows] == row).all(axis=1).argmax()] for row in chosen])
