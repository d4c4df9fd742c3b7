"""A Gaussian process: its likelihood, the choice of its hyperparameters, and its posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from .ascent import ascend
from .embedding import Embedding
from .input_warping import InputWarping

__all__ = ["GaussianProcess", "Likelihood", "bounded", "matern"]

SQRT5 = math.sqrt(5.0)
LEAST_NOISE = 1e-6
"""Smallest variance of the noise as a share of the process's; keeps the Cholesky factor accurate."""
SHAPE, RATE = 2.0, 2.0
"""Of the inverse gamma prior of the process's variance; the targets have variance 1."""
LENGTH_PRIOR = (-0.9, 0.7)
"""Mean, in one dimension, and deviation of the logarithm of a lengthscale."""
NOISE_PRIOR = (-7.0, 2.5)
"""Mean and deviation of the logarithm of the noise's share."""
WARPING_PRIOR = 0.5
"""Deviation of log a and log b of the input warping, whose means are 0: no warping."""
LENGTH_RANGE, NOISE_RANGE, WARPING_RANGE = (-6.0, 6.0), (-16.0, 3.0), (-2.0, 2.0)
"""Within which these logarithms are sought."""


def lengthscale_prior(dimensions: int) -> tuple[float, float]:
    """Mean and deviation of the logarithm of a lengthscale, that grows with the diagonal (Hvarfner et al. 2024).

    Both are smaller than there: very long lengthscales see nothing but slopes, and send early trials to the corners.
    """
    return LENGTH_PRIOR[0] + 0.5 * math.log(max(dimensions, 1)), LENGTH_PRIOR[1]


def matern(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matern 5/2 of squared scaled distances r^2 and its derivative by r^2.

    k = (1 + sqrt5 r + 5/3 r^2) exp(-sqrt5 r)        dk / dr^2 = -5/6 (1 + sqrt5 r) exp(-sqrt5 r)
    """
    t = SQRT5 * np.sqrt(squared)
    decay = np.exp(-t)
    slope = (1.0 + t) * decay
    return slope + (5.0 / 3.0) * squared * decay, (-5.0 / 6.0) * slope


class Likelihood:
    """Log posterior density of the hyperparameters theta up to a constant.

    theta = (log lengthscales (d,), log noise share, and with warping log a (k,), log b (k,) of `InputWarping` for the
    embedding's ordered coordinates). The covariance of the targets y (n,) at points (n, dimensions) is s^2 A,
    A = Matern + noise I. With an inverse gamma prior, s^2 is integrated out:

        log p(y) = -1/2 log|A| - (SHAPE + n/2) log(RATE + 1/2 y' A^-1 y)
    """

    def __init__(
        self, embedding: Embedding, points: np.ndarray, y: np.ndarray, noisy: bool = True, warping: bool = True
    ):
        self.embedding, self.points, self.y, self.noisy = embedding, points, y, noisy
        self.dimensions = len(embedding.axes)
        self.warped = len(embedding.ordered) if warping else 0
        self._distances = embedding.distances(points)
        first, second = np.triu_indices(len(y), 1)
        self.lower = second * len(y) + first
        """Where the pairs stand below the diagonal of a flat (n, n) matrix."""
        d, k = self.dimensions, self.warped
        length, spread = lengthscale_prior(d)
        self.prior_mean = np.array([length] * d + [NOISE_PRIOR[0]] + [0.0] * 2 * k)
        self.prior_deviation = np.array([spread] * d + [NOISE_PRIOR[1]] + [WARPING_PRIOR] * 2 * k)

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The density's logarithm and its gradient."""
        y, n, d = self.y, len(self.y), self.dimensions
        weights = np.exp(-2.0 * theta[:d])
        share = math.exp(theta[d])
        points, distances = self.points, self._distances
        if self.warped:
            warping = warping_of(self.embedding, theta)
            points = warping(self.points)
            distances = self.embedding.distances(points)
        k, slope = matern(weights @ distances)
        a = np.zeros(n * n)
        a[self.lower] = k
        a[:: n + 1] = 1.0 + LEAST_NOISE + (share if self.noisy else 0.0)
        # LAPACK counts along columns: what is below the diagonal to NumPy is above it there.
        factor, failed = lapack.dpotrf(a.reshape(n, n).T, lower=0, clean=0, overwrite_a=1)
        if failed:
            return -math.inf, np.zeros(len(theta))
        alpha, _ = lapack.dpotrs(factor, y, lower=0)
        fit = RATE + 0.5 * float(y @ alpha)
        value = -np.log(factor.diagonal()).sum() - (SHAPE + n / 2) * math.log(fit)
        inverse, _ = lapack.dpotri(factor, lower=0, overwrite_c=1)
        precision = (SHAPE + n / 2) / fit  # 1 / s^2
        outer = (precision * alpha[:, None] * alpha - inverse.T).ravel()  # d value / d A, below and on the diagonal
        by_distance = outer[self.lower] * slope
        off = (theta - self.prior_mean) / self.prior_deviation
        gradient = -off / self.prior_deviation
        gradient[:d] -= 2.0 * weights * (distances @ by_distance)
        if self.noisy:
            gradient[d] += 0.5 * share * outer[:: n + 1].sum()
        if self.warped:
            pairs = np.zeros(n * n)
            pairs[self.lower] = by_distance
            pairs = pairs.reshape(n, n)
            by_warped = weights * self.embedding.pull(pairs + pairs.T, points, self.embedding(points)[0])
            by_logs = np.nan_to_num(warping.by_logs(self.points))
            gradient[d + 1 :] += (by_logs * by_warped[:, self.embedding.ordered]).sum(axis=1).ravel()
        return value - 0.5 * float(off @ off), gradient

    def maximise(self, start: np.ndarray | None = None, evaluations: int = 40) -> np.ndarray:
        """The theta of largest density that a climb reaches from `start`; if it says nothing of warping, from none.

        Unless given, start is the best of four, rough and smooth, clear and noisy.
        """
        d = self.dimensions

        def function(points, _):
            pairs = [self(point) for point in points]
            return np.array([value for value, _ in pairs]), np.array([gradient for _, gradient in pairs])

        if start is None:
            starts = [[math.log(scale)] * d + [noise] for scale in (0.5 * math.sqrt(d), 0.3) for noise in (-7.0, -3.0)]
        else:
            starts = [start]
        starts = np.array(starts, dtype=np.float64)
        starts = np.pad(starts, ((0, 0), (0, len(self.prior_mean) - starts.shape[1])))
        best = starts if len(starts) == 1 else starts[[np.argmax(function(starts, None)[0])]]
        ends, _ = ascend(function, best, *bounds(d, self.warped), evaluations, 0.03, 1.0)
        return ends[0]

    def spread(self, theta: np.ndarray) -> np.ndarray:
        """A matrix (d + 1, d + 1): theta + spread @ z with standard normal z is Laplace's approximation of the density.

        In directions in which the density hardly bends, the deviation is held at 1.
        """
        steps = 1e-3 * np.eye(len(theta))
        bend = np.array([self(theta - step)[1] - self(theta + step)[1] for step in steps]) / 2e-3
        curvatures, directions = np.linalg.eigh((bend + bend.T) / 2)
        return directions / np.sqrt(np.maximum(curvatures, 1.0))


def bounds(dimensions: int, warped: int) -> tuple[np.ndarray, np.ndarray]:
    """Within which theta is sought."""
    ranges = [LENGTH_RANGE] * dimensions + [NOISE_RANGE] + [WARPING_RANGE] * 2 * warped
    low, high = np.array(ranges).T
    return low, high


def bounded(theta: np.ndarray, dimensions: int) -> np.ndarray:
    """Within `bounds`."""
    return np.clip(theta, *bounds(dimensions, (len(theta) - dimensions - 1) // 2))


def warping_of(embedding: Embedding, theta: np.ndarray) -> InputWarping:
    """What theta says about warping; if nothing, there is none."""
    logs = theta[len(embedding.axes) + 1 :]
    return InputWarping(embedding.axes[embedding.ordered[: len(logs) // 2]], logs)


@dataclass
class GaussianProcess:
    """The posterior of a function given targets y (n,) at points (n, dimensions)."""

    embedding: Embedding
    theta: np.ndarray
    """As `Likelihood` has it."""
    points: np.ndarray
    y: np.ndarray
    noisy: bool = True

    def __post_init__(self) -> None:
        n, d = len(self.y), len(self.embedding.axes)
        self.weights = np.exp(-2.0 * self.theta[:d])
        self._warping = warping_of(self.embedding, self.theta)
        self._entry_weights = self.weights[self.embedding.owners]
        vectors, squares = self._embed(self.points)
        self._scaled = (vectors * self._entry_weights).T
        self._norms = squares @ self.weights
        self._vectors = vectors
        a, _ = matern(self._squared(vectors, squares))
        a.flat[:: n + 1] = 1.0 + LEAST_NOISE + (math.exp(self.theta[d]) if self.noisy else 0.0)
        factor, failed = lapack.dpotrf(a, lower=1, clean=1)
        if failed:
            raise np.linalg.LinAlgError("the covariance of the observations is not positive definite")
        self._inverse_factor, _ = lapack.dtrtri(factor, lower=1)
        self._inverse = self._inverse_factor.T @ self._inverse_factor
        self.alpha = self._inverse @ self.y
        fit = RATE + 0.5 * float(self.y @ self.alpha)
        self.variance = fit / (SHAPE + n / 2)
        """s^2"""

    def believing(self, points: np.ndarray) -> GaussianProcess:
        """This one after it saw its own mean at further points (k, dimensions), without noise or new hyperparameters.

        The kriging believer (Ginsbourger et al. 2010): the mean stays, the deviation near the points shrinks.
        """
        if not len(points):
            return self
        y = np.append(self.y, self.posterior(points)[0])
        return GaussianProcess(self.embedding, self.theta, np.concatenate([self.points, points]), y, self.noisy)

    def foretold(self) -> np.ndarray:
        """Log density of each target given all others, (n,) (Rasmussen & Williams 2006, 5.10 to 5.12)."""
        off = self.alpha / self._inverse.diagonal()
        precision = self._inverse.diagonal() / self.variance
        return 0.5 * (np.log(precision / (2 * math.pi)) - precision * off**2)

    def _embed(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.embedding(self._warping(points))

    def _squared(self, vectors: np.ndarray, squares: np.ndarray) -> np.ndarray:
        return np.maximum((squares @ self.weights)[:, None] + self._norms - 2.0 * (vectors @ self._scaled), 0.0)

    def posterior(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the function (without noise) at points (m, dimensions): (m,), (m,)."""
        k = matern(self._squared(*self._embed(points)))[0]
        half = k @ self._inverse_factor.T
        return k @ self.alpha, self._deviation((half * half).sum(axis=1))

    def slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `posterior`, and the gradients of both by the d coordinates that vary, (m, d); 0 for categories."""
        k, slope = matern(self._squared(*self._embed(points)))
        half = k @ self._inverse_factor.T
        mean, deviation = k @ self.alpha, self._deviation((half * half).sum(axis=1))
        mean_gradient = self._chain(slope * self.alpha, points)
        explained = self._chain(slope * (half @ self._inverse_factor), points)
        return mean, deviation, mean_gradient, -self.variance * explained / deviation[:, None]

    def _deviation(self, explained: np.ndarray) -> np.ndarray:
        return np.sqrt(self.variance * np.maximum(1.0 - explained, 1e-12))

    def _chain(self, outer: np.ndarray, points: np.ndarray) -> np.ndarray:
        """sum_n outer_mn d r_mn^2 / d x_mj: (m, d)."""
        gradient = self.weights * self.embedding.pull(outer, self._warping(points), self._vectors)
        warped = self.embedding.ordered[: len(self._warping.columns)]
        gradient[:, warped] *= np.nan_to_num(self._warping.slopes(points))
        return gradient
