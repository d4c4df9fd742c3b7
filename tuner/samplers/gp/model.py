"""A Gaussian process: its likelihood, the choice of its hyperparameters, and its posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from .ascent import ascend
from .embedding import Embedding

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
LENGTH_RANGE, NOISE_RANGE = (-6.0, 6.0), (-16.0, 3.0)
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
    """Log posterior density of the hyperparameters theta = (log lengthscales (d,), log noise share) up to a constant.

    The covariance of the targets y (n,) is s^2 A, A = Matern + noise I. With an inverse gamma prior,
    s^2 is integrated out:

        log p(y) = -1/2 log|A| - (SHAPE + n/2) log(RATE + 1/2 y' A^-1 y)
    """

    def __init__(self, distances: np.ndarray, y: np.ndarray, noisy: bool = True):
        self.distances, self.y, self.noisy = distances, y, noisy
        first, second = np.triu_indices(len(y), 1)
        self.lower = second * len(y) + first
        """Where the pairs stand below the diagonal of a flat (n, n) matrix."""
        self.prior_mean, self.prior_deviation = lengthscale_prior(len(distances))

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The density's logarithm and its gradient."""
        y, n = self.y, len(self.y)
        weights = np.exp(-2.0 * theta[:-1])
        share = math.exp(theta[-1])
        k, slope = matern(weights @ self.distances)
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
        gradient = np.empty(len(theta))
        gradient[:-1] = -2.0 * weights * (self.distances @ (outer[self.lower] * slope))
        gradient[-1] = 0.5 * share * outer[:: n + 1].sum() if self.noisy else 0.0
        off = (theta[:-1] - self.prior_mean) / self.prior_deviation
        value -= 0.5 * float(off @ off)
        gradient[:-1] -= off / self.prior_deviation
        off = (theta[-1] - NOISE_PRIOR[0]) / NOISE_PRIOR[1]
        value -= 0.5 * off * off
        gradient[-1] -= off / NOISE_PRIOR[1]
        return value, gradient

    def maximise(self, evaluations: int = 40) -> np.ndarray:
        """The theta of largest density that a climb reaches from the best of four starts, rough and smooth."""
        d = len(self.distances)

        def function(points, _):
            pairs = [self(point) for point in points]
            return np.array([value for value, _ in pairs]), np.array([gradient for _, gradient in pairs])

        starts = np.array(
            [[math.log(scale)] * d + [noise] for scale in (0.5 * math.sqrt(d), 0.3) for noise in (-7.0, -3.0)]
        )
        values, _ = function(starts, None)
        bounds = (np.array([length] * d + [noise]) for length, noise in zip(LENGTH_RANGE, NOISE_RANGE, strict=True))
        ends, _ = ascend(function, starts[[np.argmax(values)]], *bounds, evaluations, 0.03, 1.0)
        return ends[0]

    def spread(self, theta: np.ndarray) -> np.ndarray:
        """A matrix (d + 1, d + 1): theta + spread @ z with standard normal z is Laplace's approximation of the density.

        In directions in which the density hardly bends, the deviation is held at 1.
        """
        steps = 1e-3 * np.eye(len(theta))
        bend = np.array([self(theta - step)[1] - self(theta + step)[1] for step in steps]) / 2e-3
        curvatures, directions = np.linalg.eigh((bend + bend.T) / 2)
        return directions / np.sqrt(np.maximum(curvatures, 1.0))


def bounded(theta: np.ndarray) -> np.ndarray:
    """Within LENGTH_RANGE and NOISE_RANGE."""
    return np.append(np.clip(theta[:-1], *LENGTH_RANGE), np.clip(theta[-1], *NOISE_RANGE))


@dataclass
class GaussianProcess:
    """The posterior of a function given targets y (n,) at points (n, dimensions)."""

    embedding: Embedding
    theta: np.ndarray
    """(d + 1,) log lengthscales, log noise share"""
    points: np.ndarray
    y: np.ndarray
    noisy: bool = True

    def __post_init__(self) -> None:
        n = len(self.y)
        self.weights = np.exp(-2.0 * self.theta[:-1])
        self._entry_weights = self.weights[self.embedding.owners]
        vectors, squares = self.embedding(self.points)
        self._scaled = (vectors * self._entry_weights).T
        self._norms = squares @ self.weights
        self._vectors = vectors
        a, _ = matern(self._squared(vectors, squares))
        a.flat[:: n + 1] = 1.0 + LEAST_NOISE + (math.exp(self.theta[-1]) if self.noisy else 0.0)
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

    def _squared(self, vectors: np.ndarray, squares: np.ndarray) -> np.ndarray:
        return np.maximum((squares @ self.weights)[:, None] + self._norms - 2.0 * (vectors @ self._scaled), 0.0)

    def posterior(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the function (without noise) at points (m, dimensions): (m,), (m,)."""
        k = matern(self._squared(*self.embedding(points)))[0]
        half = k @ self._inverse_factor.T
        return k @ self.alpha, self._deviation((half * half).sum(axis=1))

    def slopes(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `posterior`, and the gradients of both by the d coordinates that vary, (m, d); 0 for categories."""
        k, slope = matern(self._squared(*self.embedding(points)))
        half = k @ self._inverse_factor.T
        mean, deviation = k @ self.alpha, self._deviation((half * half).sum(axis=1))
        vectors, squares = self.embedding.slopes(points)
        mean_gradient = self._chain(slope * self.alpha, vectors, squares)
        explained = self._chain(slope * (half @ self._inverse_factor), vectors, squares)
        return mean, deviation, mean_gradient, -self.variance * explained / deviation[:, None]

    def _deviation(self, explained: np.ndarray) -> np.ndarray:
        return np.sqrt(self.variance * np.maximum(1.0 - explained, 1e-12))

    def _chain(self, outer: np.ndarray, vectors: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """sum_n outer_mn d r_mn^2 / d x_mj: (m, d)."""
        by_axis = (vectors * (outer @ self._vectors)) @ self.embedding.sums
        return self.weights * (squares * outer.sum(axis=1)[:, None] - 2.0 * by_axis)
