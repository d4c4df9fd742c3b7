"""Stretches and squeezes the axes of the cube, so that a function changes about as fast everywhere."""

from __future__ import annotations

import numpy as np

__all__ = ["InputWarping"]

INSET = 1e-3
"""So far from its ends Kumaraswamy's function is used: its slopes there may be infinite."""


class InputWarping:
    """Warps some coordinates of the unit cube, each by a monotone function with two parameters a, b > 0:

        k(t) = 1 - (1 - t^a)^b,    w(x) = (k(h + (1 - 2 h) x) - h) / (1 - 2 h)

    with a small h. k is Kumaraswamy's (1980) distribution function, close to the beta's that Snoek et al. (2014) warp
    with, and in closed form (as HEBO, Cowen-Rivers et al. 2022). With a = b = 1, w(x) = x.

    columns: the coordinates, (k,). logs: log a of each, then log b of each, (2 k,).
    """

    def __init__(self, columns: np.ndarray, logs: np.ndarray):
        self.columns = columns
        self._logs = np.asarray(logs, dtype=np.float64)
        self.a, self.b = np.exp(self._logs).reshape(2, -1)

    @property
    def _straight(self) -> bool:
        return not self._logs.any()

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (m, dimensions) with the coordinates warped; NaN stays."""
        if self._straight:
            return points
        warped = points.copy()
        _, log_rest = self._parts(points)
        warped[:, self.columns] = (-np.expm1(self.b * log_rest) - INSET) / (1 - 2 * INSET)
        return warped

    def slopes(self, points: np.ndarray) -> np.ndarray:
        """w'(x) of each coordinate, (m, k). k' = a b t^(a - 1) (1 - t^a)^(b - 1)"""
        log_t, log_rest = self._parts(points)
        return self.a * self.b * np.exp((self.a - 1) * log_t + (self.b - 1) * log_rest)

    def by_logs(self, points: np.ndarray) -> np.ndarray:
        """The derivatives of w by log a and by log b, (2, m, k).

        dk / d log a = a b log(t) t^a (1 - t^a)^(b - 1),    dk / d log b = -b log(1 - t^a) (1 - t^a)^b
        """
        log_t, log_rest = self._parts(points)
        by_a = self.a * self.b * log_t * np.exp(self.a * log_t + (self.b - 1) * log_rest)
        by_b = -self.b * log_rest * np.exp(self.b * log_rest)
        return np.stack([by_a, by_b]) / (1 - 2 * INSET)

    def _parts(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log t and log(1 - t^a), (m, k) each."""
        log_t = np.log(INSET + (1 - 2 * INSET) * points[:, self.columns])
        return log_t, np.log(-np.expm1(self.a * log_t))
