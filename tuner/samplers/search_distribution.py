"""The distribution that CMA-ES samples from and moves: a Gaussian for numbers, weights for categories.

Names follow Hansen, The CMA Evolution Strategy: A Tutorial (arXiv 1604.00772), appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .learning_rate import COVARIANCE_MEMORY, MEAN_MEMORY, LearningRate

__all__ = ["SearchDistribution"]

LEAST = 1e-14  # eigenvalue of C


class SearchDistribution:
    """N(mean, sigma^2 C) in n dimensions, and for each category of a parameter its probability.

    mean (n,) in the unit cube. shares: of each categorical parameter, its categories' probabilities.
    population: points per update, lambda. adaptive: shorten steps that are mostly noise, see `LearningRate`.
    """

    def __init__(
        self,
        mean: np.ndarray,
        sigma: float,
        shares: Sequence[np.ndarray],
        population: int,
        C: np.ndarray | None = None,
        adaptive: bool = False,
    ):
        self.mean, self.sigma, self.population = np.array(mean, dtype=np.float64), float(sigma), population
        self.C = np.eye(len(mean)) if C is None else np.array(C)
        self.shares = [np.array(share) for share in shares]
        self.p_sigma, self.p_c = np.zeros(len(mean)), np.zeros(len(mean))
        self.generation = 0
        self._rates = (LearningRate(MEAN_MEMORY), LearningRate(COVARIANCE_MEMORY)) if adaptive else None
        self._set_rates()
        self._decompose()

    def _set_rates(self) -> None:
        """Table 1 and equations 49 to 58 of the tutorial, for the present population."""
        n, count = max(len(self.mean), 1), self.population
        raw = math.log((count + 1) / 2) - np.log(np.arange(1, count + 1))
        good, bad = raw[raw >= 0], raw[raw < 0]
        self.parents = len(good)
        self.mu_eff = mu_eff = good.sum() ** 2 / (good**2).sum()
        mu_eff_bad = bad.sum() ** 2 / (bad**2).sum()
        self.c_sigma = (mu_eff + 2) / (n + mu_eff + 5)
        self.damping = 1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + self.c_sigma
        self.c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)
        self.c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)
        self.c_mu = min(1 - self.c_1, 2 * (0.25 + mu_eff - 2 + 1 / mu_eff) / ((n + 2) ** 2 + mu_eff))
        least = min(
            1 + self.c_1 / self.c_mu, 1 + 2 * mu_eff_bad / (mu_eff + 2), (1 - self.c_1 - self.c_mu) / (n * self.c_mu)
        )
        self.weights = np.concatenate([good / good.sum(), least * bad / -bad.sum()])
        self.expected_norm = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))

    def _decompose(self) -> None:
        """C = B D^2 B'."""
        self.C = (self.C + self.C.T) / 2
        values, self.B = np.linalg.eigh(self.C)
        self.D = np.sqrt(np.maximum(values, LEAST))

    @property
    def rate(self) -> float:
        """By which steps of the mean were multiplied the last time."""
        return 1.0 if self._rates is None else self._rates[0].rate

    @property
    def deviations(self) -> np.ndarray:
        """Each axis' standard deviation, (n,)."""
        return self.sigma * np.sqrt(np.diag(self.C))

    # --------------------------------------------------------------------------------------- sampling

    def sample(self, normals: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (k, n), folded back into the unit cube, and categories int64 (k, categorical parameters).

        From standard normal numbers (k, n) and uniform ones in [0, 1) (k, categorical parameters).
        """
        numbers = fold(self.mean + self.sigma * (normals * self.D) @ self.B.T)
        categories = [np.searchsorted(np.cumsum(s[:-1]), u, side="right") for s, u in zip(self.shares, uniforms.T)]
        return numbers, np.array(categories, dtype=np.int64).reshape(len(self.shares), len(uniforms)).T

    # ------------------------------------------------------------------------------------------- moving

    def update(self, numbers: np.ndarray, categories: np.ndarray, places: np.ndarray) -> None:
        """One generation: numbers (population, n), categories (population, categorical parameters), and places of which
        0 is the best, (population,).

        A coordinate that is NaN takes part with the mean, a category of -1 not at all. Where too many points are as
        good as the best one, steps become longer.
        """
        order = np.argsort(places, kind="stable")
        if len(self.mean):
            self._move(numbers[order], self.weights)
        if places[order[0]] == places[order[math.ceil(0.7 * self.parents)]]:
            self.sigma *= math.exp(0.2 + self.c_sigma / self.damping)
        for axis, share in enumerate(self.shares):
            self._shift(axis, share, categories[order, axis], self.weights)

    def _move(self, numbers: np.ndarray, weights: np.ndarray) -> None:
        before = self.mean, self.sigma, self.C
        n, c_s, c_c, c_1, c_mu = len(self.mean), self.c_sigma, self.c_c, self.c_1, self.c_mu
        y = np.nan_to_num((numbers - self.mean) / self.sigma)
        whiten = (self.B / self.D) @ self.B.T  # C^(-1/2)
        # Points that the distribution would hardly draw count as if they were nearer (Hansen 2011, equation 4).
        y *= np.minimum(1.0, (math.sqrt(n) + 2 * n / (n + 2)) / np.maximum(np.linalg.norm(y @ whiten, axis=1), 1e-12))[
            :, None
        ]
        step = np.maximum(weights, 0.0) @ y
        self.mean = np.clip(self.mean + self.sigma * step, 0.0, 1.0)
        self.generation += 1
        self.p_sigma = (1 - c_s) * self.p_sigma + math.sqrt(c_s * (2 - c_s) * self.mu_eff) * whiten @ step
        length = float(np.linalg.norm(self.p_sigma))
        usual = math.sqrt(1 - (1 - c_s) ** (2 * self.generation))
        moves = length / usual < (1.4 + 2 / (n + 1)) * self.expected_norm  # h_sigma
        self.p_c = (1 - c_c) * self.p_c + moves * math.sqrt(c_c * (2 - c_c) * self.mu_eff) * step
        lengths = ((y @ whiten) ** 2).sum(axis=1)
        signed = np.where(weights >= 0, weights, weights * n / np.maximum(lengths, 1e-12))  # equation 46
        kept = 1 + c_1 * (not moves) * c_c * (2 - c_c) - c_1 - c_mu * weights.sum()
        self.C = kept * self.C + c_1 * np.outer(self.p_c, self.p_c) + c_mu * (y.T * signed) @ y
        self.sigma *= math.exp(min(1.0, c_s / self.damping * (length / self.expected_norm - 1)))
        if self._rates is not None:
            self._shorten(*before, whiten)
        self._decompose()

    def _shorten(self, mean: np.ndarray, sigma: float, C: np.ndarray, whiten: np.ndarray) -> None:
        """Go only part of the way from the earlier mean, sigma and C, whose C^(-1/2) is whiten (Nomura et al. 2023).

        The best sigma is in inverse proportion to the rate of the mean.
        """
        whiten, covariance = whiten / sigma, sigma**2 * C
        ahead, change = self.mean - mean, self.sigma**2 * self.C - covariance
        of_mean, of_covariance = self._rates
        earlier = of_mean.rate
        self.mean = mean + of_mean.adapt(whiten @ ahead) * ahead
        covariance = covariance + of_covariance.adapt(whiten @ change @ whiten / math.sqrt(2)) * change
        self.sigma = math.exp(np.linalg.slogdet(covariance)[1] / (2 * len(mean)))
        self.C = covariance / self.sigma**2
        self.sigma *= earlier / of_mean.rate

    def _shift(self, axis: int, share: np.ndarray, categories: np.ndarray, weights: np.ndarray) -> None:
        """Towards the categories of good points: the natural gradient of CatCMA (Hamano et al. 2024)."""
        counted = np.maximum(weights, 0.0) * (categories >= 0)
        if counted.sum() > 0:
            wanted = np.bincount(categories[categories >= 0], counted[categories >= 0], len(share)) / counted.sum()
            rate = self.mu_eff / (self.mu_eff + len(share) + 1)
            self.shares[axis] = share + rate * (wanted - share)

    def keep_margin(self, edges: Sequence[np.ndarray | None]) -> None:
        """Leave each value of a discrete axis, and each category, at least some probability (Hamano et al. 2022).

        edges: of each axis' cells, None if it is continuous. Where the nearest cell beside the mean's would be drawn
        less often than 1 / (n population), the axis is widened until it is drawn that often.
        """
        alpha = 1 / (max(len(self.mean), 1) * self.population)
        stretch = np.ones(len(self.mean))
        quantile = _normal_quantile(1 - min(alpha, 0.4))
        for axis, (cells, deviation) in enumerate(zip(edges, self.deviations, strict=True)):
            if cells is None or len(cells) < 3:
                continue
            away = np.abs(cells[1:-1] - self.mean[axis]).min()
            stretch[axis] = max(1.0, away / (quantile * deviation))
        if (stretch > 1).any():
            self.C = self.C * np.outer(stretch, stretch)
            self._decompose()
        for axis, share in enumerate(self.shares):
            least = 1 / (len(share) * self.population)
            raised = np.maximum(share, least)
            spare = raised - least
            self.shares[axis] = least + spare * (1 - least * len(share)) / spare.sum() if spare.sum() > 0 else raised


def fold(numbers: np.ndarray) -> np.ndarray:
    """Into the unit interval by reflection at its ends."""
    numbers = np.mod(numbers, 2.0)
    return np.where(numbers > 1, 2 - numbers, numbers)


def _normal_quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))
