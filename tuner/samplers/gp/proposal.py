"""From earlier trials to the point that promises most."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...space import Space
from ..base import keyed_integer
from ..history import Observations
from .acquisition import log_ehvi, log_improvement, log_probability, pareto_front
from .activity import activity
from .embedding import Embedding
from .model import GaussianProcess, Likelihood, bounded
from .search import Search
from .warping import standard, warp, warp_constraint

__all__ = ["Fits", "promising_point", "reference_point"]

MOST = 300
"""A model learns from at most so many trials."""
STRONG = 3.0
"""Difference of log densities that is strong evidence (Kass & Raftery 1995)."""
GOOD = 5
"""Near to how many good points is searched."""

Transform = Callable[[np.ndarray], np.ndarray]
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


@dataclass(frozen=True)
class Fit:
    """What a model is made with."""

    theta: np.ndarray
    """The likeliest hyperparameters."""
    spread: np.ndarray
    """`Likelihood.spread` there."""
    transform: Transform
    """What makes targets of values."""


class Fits:
    """Remembers what models are made with by the data that it was found from. Only saves time."""

    MOST = 32

    def __init__(self) -> None:
        self._known: dict[bytes, Fit] = {}

    def find(
        self,
        space: Space,
        points: np.ndarray,
        values: np.ndarray,
        transforms: Sequence[Transform],
        noisy: bool,
        warping: bool,
    ) -> Fit:
        """For values (n,) at points (n, dimensions). See `_fit`."""
        about = repr((space.parameters, sorted(space.conditions), [t.__name__ for t in transforms], noisy, warping))
        key = hashlib.blake2b(about.encode() + points.tobytes() + values.tobytes(), digest_size=16).digest()
        found = self._known.get(key)
        if found is None:
            found = _fit(Embedding(space, points), points, values, transforms, noisy, warping)
            while len(known := list(self._known)) >= self.MOST:
                self._known.pop(known[0], None)
            self._known[key] = found
        return found


class Attempt(NamedTuple):
    density: float
    transform: Transform
    theta: np.ndarray
    likelihood: Likelihood


def _fit(
    embedding: Embedding,
    points: np.ndarray,
    values: np.ndarray,
    transforms: Sequence[Transform],
    noisy: bool,
    warping: bool,
) -> Fit:
    """With the first transform and inputs as they are, unless there is `STRONG` evidence for others.

    What counts is the log density that a model gives to the better half of the values, each of them if all others are
    known (Rasmussen & Williams 2006, 5.4.2). Transforms must be linear there, so that they can be compared.
    """
    better = values < np.median(values)
    extent = np.ptp(values[better]) if better.any() else 0.0
    if not extent > 0:  # nothing tells models apart
        transforms, warping = transforms[:1], False

    def attempt(transform: Transform, warping: bool, start: np.ndarray | None = None) -> Attempt:
        y = transform(values)
        likelihood = Likelihood(embedding, points, y, noisy, warping)
        theta = likelihood.maximise(start)
        foretold = GaussianProcess(embedding, theta, points, y, noisy).foretold()[better]
        slope = np.ptp(y[better]) / extent if extent > 0 else 1.0
        return Attempt(foretold.sum() + len(foretold) * math.log(max(slope, 1e-300)), transform, theta, likelihood)

    best = attempt(transforms[0], False)
    for transform in transforms[1:]:
        other = attempt(transform, False)
        best = other if other.density > best.density + STRONG else best
    if warping and len(embedding.ordered):
        other = attempt(best.transform, True, best.theta)
        best = other if other.density > best.density + STRONG else best
    return Fit(best.theta, best.likelihood.spread(best.theta), best.transform)


def promising_point(
    space: Space,
    seen: Observations,
    constraints: np.ndarray,
    tried: Container[bytes],
    number: int,
    seed: int,
    deterministic: bool,
    warping: bool,
    fits: Fits,
) -> np.ndarray | None:
    """The point for trial `number`, shape (dimensions,); None if nothing was found that was not tried.

    constraints: (len(seen), k), at most 0 where feasible, NaN where unknown. tried: points as `History.keys` has them.

    warping: whether inputs may be warped. fits: remembers hyperparameters.

    Hyperparameters are found again at certain numbers of trials only, from what was known then. Two of three
    proposals take the likeliest ones, the third draws them from their posterior: some of the benefit of integrating
    them out (Snoek et al. 2012) at no cost, and a model that is sure of a local optimum has others beside it.
    """
    rng = np.random.default_rng(keyed_integer(seed, number, "hyperparameters"))
    ended = np.flatnonzero(seen.done | seen.failed)
    rows, early = _learnable(seen, ended), _learnable(seen, ended[: _scheduled(len(ended))])
    pending = seen.points[seen.pending]
    embedding = Embedding(space, seen.points)

    def model(values: np.ndarray, *transforms: Transform) -> GaussianProcess:
        """Of values (len(seen),), of which NaN are left out."""
        now, then = (which[~np.isnan(values[which])] for which in (rows, early))
        fit = fits.find(space, seen.points[then], values[then], transforms, not deterministic, warping)
        theta = fit.theta
        if number % 3 == 2:
            theta = bounded(theta + fit.spread @ rng.standard_normal(len(theta)), len(embedding.axes))
        process = GaussianProcess(embedding, theta, seen.points[now], fit.transform(values[now]), not deterministic)
        return process.believing(pending)

    losses = _filled(seen)
    if losses.shape[1] > 2:
        warping = False  # every trial has another scalarisation, whose bends are not those of the objectives
        losses = _scalarised(losses, np.random.default_rng(keyed_integer(seed, number, "weights")))
    several = losses.shape[1] > 1
    feasible = rows[(seen.violations[rows] <= 0) & ~seen.failed[rows]]
    terms = [
        Term([model(column, warp_constraint)], _feasibility)
        for column in constraints.T
        if (~np.isnan(column[early])).sum() >= 2
    ]
    if len(feasible) or not terms:
        models = [model(column, warp, standard) for column in losses.T]
        rated = np.concatenate([seen.points[feasible if len(feasible) else rows], pending])
        means = np.stack([process.posterior(rated)[0] for process in models], axis=1)
        terms.append(Term(models, _hypervolume(means) if several else _improvement(means.min())))
    good = seen.points[_best_rows(losses, feasible if len(feasible) else rows, GOOD)]
    draws = np.random.default_rng(keyed_integer(seed, number, "search"))
    return Search(space, embedding, Promise(terms), activity(space, seen.points), draws).best(good, tried)


def reference_point(losses: np.ndarray) -> np.ndarray:
    """A tenth of their extent beyond the worst losses of all trials (n, objectives), where these have variance 1.

    Not of those on the front: one of few points close together would be made better, but hardly longer.
    """
    extent = np.ptp(losses, axis=0)
    return losses.max(axis=0) + 0.1 * np.where(extent > 0, extent, 1.0)


def _improvement(best: float) -> Value:
    def function(means, deviations):
        value, by_mean, by_deviation = log_improvement(means[:, 0], deviations[:, 0], best)
        return value, by_mean[:, None], by_deviation[:, None]

    return function


def _hypervolume(means: np.ndarray) -> Value:
    front = pareto_front(means)
    reference = reference_point(means)
    return lambda m, s: log_ehvi(m, s, front, reference)


def _feasibility(means, deviations):
    value, by_mean, by_deviation = log_probability(means[:, 0], deviations[:, 0], 0.0)
    return value, by_mean[:, None], by_deviation[:, None]


def _scheduled(count: int) -> int:
    """The last number of trials up to `count` at which hyperparameters are chosen: all up to 20, then 5 % apart."""
    last = min(count, 20)
    while (following := max(last + 1, int(1.05 * last))) <= count:
        last = following
    return last


def _learnable(seen: Observations, rows: np.ndarray) -> np.ndarray:
    """At most `MOST` of the rows: half of these the best ones, and even steps through the others."""
    if len(rows) <= MOST:
        return rows
    score = np.where(np.isnan(seen.losses), np.inf, seen.losses)[rows]
    ranks = score.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable").min(axis=1)
    order = np.lexsort((rows, ranks, seen.violations[rows]))
    rest = np.sort(order[MOST // 2 :])
    even = rest[np.linspace(0, len(rest) - 1, MOST - MOST // 2).astype(int)]
    return rows[np.sort(np.concatenate([order[: MOST // 2], even]))]


def _filled(seen: Observations) -> np.ndarray:
    """Losses (len(seen), objectives), finite but for pending trials.

    A failed trial's are the worst ones seen; infinite ones the outermost finite ones.
    """
    losses = seen.losses.copy()
    losses[seen.failed] = np.inf
    for column in losses.T:
        finite = column[np.isfinite(column)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        np.clip(column, low, high, out=column)
    return losses


def _scalarised(losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One loss (n, 1) of many: the augmented Chebyshev norm with random weights (ParEGO, Knowles 2006)."""
    low, span = np.nanmin(losses, axis=0), np.nanmax(losses, axis=0) - np.nanmin(losses, axis=0)
    shares = (losses - low) / np.where(span > 0, span, 1.0)
    weighted = shares * rng.dirichlet(np.ones(losses.shape[1]))
    return (weighted.max(axis=1) + 0.05 * weighted.sum(axis=1))[:, None]


def _best_rows(losses: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Those of the rows with the least loss; with two objectives, some evenly along the front."""
    if losses.shape[1] == 1:
        return rows[np.argsort(losses[rows, 0], kind="stable")[:count]]
    front = pareto_front(losses[rows])
    chosen = front[np.unique(np.linspace(0, len(front) - 1, 2 * count).astype(int))]
    return np.array([rows[(losses[rows] == row).all(axis=1).argmax()] for row in chosen])
