"""A cheap model of the objective that tells which of many candidates are promising.

A Gaussian process (Rasmussen & Williams 2006, chapters 2, 4 and 5) with the Matern 5/2 kernel on scores that put no
trust in the scale of bad values. Two different categories are one length apart.
"""

from __future__ import annotations

import math

import numpy as np

from .history import Observations
from .ranking import ranks

__all__ = ["Surrogate", "fit", "log_expected_improvement", "scores"]

LENGTH, LENGTH_SPREAD, OWN_SPREAD = 0.35, 1.0, 0.7
"""Prior of the length scales, log-normal: the median in one dimension, and the standard deviations of the logarithm, of
what all have in common and of what each has of its own."""
NOISE, NOISE_SPREAD = 0.02, 2.0
"""Prior of the noise's share of the variance, log-normal."""
JITTER = 1e-8
ITERATIONS = 25


class Surrogate:
    """Of numbers (n, p) in the unit cube, categories int64 (n, q) and scores (n,), the smaller the better.

    theta: the logarithms of the p + q lengths and of the noise, as `fit` finds them.
    """

    def __init__(self, numbers: np.ndarray, categories: np.ndarray, scores: np.ndarray, theta: np.ndarray):
        self._points, self.theta = (numbers, categories), theta
        self.noise = math.exp(theta[-1])
        kernel, _ = _matern(_distances(self._points, self._points), theta)
        self._factor = _factor(kernel, self.noise)
        self._weights = _solve(self._factor, scores)

    def predict(self, numbers: np.ndarray, categories: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the score at each of k points, both (k,)."""
        from scipy.linalg import solve_triangular

        kernel, _ = _matern(_distances((numbers, categories), self._points), self.theta)
        kernel *= 1 - self.noise
        half = solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
        variance = np.maximum(1 - self.noise - (half**2).sum(axis=0), 1e-10)
        return kernel @ self._weights, np.sqrt(variance)


def fit(numbers: np.ndarray, categories: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The most likely theta under the prior, by L-BFGS on the exact gradient."""
    from scipy.optimize import minimize

    squares = _distances((numbers, categories), (numbers, categories))
    count = len(squares)
    middle = np.full(count, math.log(LENGTH) + 0.5 * math.log(count))
    precision = np.linalg.inv(np.full((count, count), LENGTH_SPREAD**2) + OWN_SPREAD**2 * np.eye(count))
    flat = squares.reshape(count, -1)
    eye = np.eye(len(scores))

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the logarithm of the posterior, and its gradient."""
        noise = math.exp(theta[-1])
        kernel, slope = _matern(squares, theta)
        try:
            factor = _factor(kernel, noise)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        weights = _solve(factor, scores)
        outer = np.outer(weights, weights) - _solve(factor, eye)  # equation 5.9
        value = 0.5 * scores @ weights + np.log(np.diag(factor)).sum()
        gradient = np.empty_like(theta)
        gradient[:-1] = -0.5 * (1 - noise) * np.exp(-2 * theta[:-1]) * (flat @ (outer * slope).ravel())
        np.fill_diagonal(kernel, 0.0)
        gradient[-1] = 0.5 * noise * (outer * kernel).sum()
        lengths, noisy = theta[:-1] - middle, (theta[-1] - math.log(NOISE)) / NOISE_SPREAD**2
        value += 0.5 * lengths @ precision @ lengths + 0.5 * noisy * (theta[-1] - math.log(NOISE))
        gradient += np.append(precision @ lengths, noisy)
        return value, gradient

    found = minimize(
        objective,
        np.append(middle, math.log(NOISE)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-3.0, 5.0)] * count + [(math.log(1e-4), math.log(0.7))],
        options={"maxiter": ITERATIONS, "maxls": 10},
    )
    return found.x


def scores(trials: Observations) -> np.ndarray:
    """How bad each of the trials is, all of which are done: float64 (n,) of mean 0 and variance 1.

    The sum of two views: places as quantiles of the normal distribution (Blom 1958), which tell good values apart
    however close they are, and values cut off as far above the median as the best one lies below, which tell a step
    down from noise on a plateau. With several objectives the places alone.
    """
    from scipy.special import ndtri

    places = ranks(trials)
    total = ndtri((places + 0.625) / (len(places) + 0.25))
    if trials.losses.shape[1] == 1:
        good = ~trials.failed & (trials.violations == 0)
        values = np.where(good & np.isfinite(trials.losses[:, 0]), trials.losses[:, 0], np.inf)
        middle, best = np.median(values), values.min()
        if best < middle < math.inf:
            cut = np.minimum((values - middle) / (middle - best), 1.0)
            total += _standard(cut)
    return _standard(total)


def _standard(values: np.ndarray) -> np.ndarray:
    deviation = values.std()
    return (values - values.mean()) / (deviation if deviation > 0 else 1.0)


def log_expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """log E max(best - score, 0), also far out, where the expectation itself is 0 (Ament et al. 2023)."""
    from scipy.special import erfcx, log_ndtr

    z = (best - mean) / deviation
    near = np.maximum(z, -1.0)
    plain = np.log(np.exp(-0.5 * near**2) / math.sqrt(2 * math.pi) + near * np.exp(log_ndtr(near)))
    far = np.minimum(z, -1.0)
    tail = 1 - math.sqrt(math.pi / 2) * -far * erfcx(-far / math.sqrt(2))
    remote = -0.5 * far**2 - 0.5 * math.log(2 * math.pi) + np.log(np.maximum(tail, 1 / (1 + far**2) ** 2))
    return np.where(z > -1, plain, remote) + np.log(deviation)


def _distances(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Squared differences along each axis, (p + q, rows of a, rows of b)."""
    numbers = (a[0].T[:, :, None] - b[0].T[:, None, :]) ** 2
    return np.concatenate([numbers, a[1].T[:, :, None] != b[1].T[:, None, :]])


def _matern(squares: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel, and its derivative by the logarithm of a length but for the factor squares / length^2."""
    r = np.sqrt(5 * np.tensordot(np.exp(-2 * theta[:-1]), squares, 1))
    decay = np.exp(-r)
    return (1 + r + r**2 / 3) * decay, 5 / 3 * (1 + r) * decay


def _factor(kernel: np.ndarray, noise: float) -> np.ndarray:
    total = kernel * (1 - noise)
    np.fill_diagonal(total, 1 + JITTER)
    return np.linalg.cholesky(total)


def _solve(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    from scipy.linalg import cho_solve

    return cho_solve((factor, True), right, check_finite=False)
