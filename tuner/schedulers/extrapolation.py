"""Where learning curves are going: a model of how much a run still gains, fitted to the study's own curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["Extrapolation", "expected_improvement"]

PRIOR_MEAN = np.array([0.0, 0.6, 0.0])
PRIOR_PRECISION = np.array([4.0, 4.0, 1.0])
PRIOR_NOISE, PRIOR_WEIGHT = 0.1, 4.0  # standard deviation of a gain, and how many observations that counts for


class Extrapolation:
    """What a curve gains while its steps double, as a Bayesian linear model of what it gained in the doubling before.

        gain(t, 2 t) = a + b gain(t / 2, t) + noise,     gain(1, 2) = a + c + noise,     gain(s, t) = loss(s) - loss(t)

    A curve that follows a power law of the steps down to its limit has a = 0 and b = 2^-exponent. Losses are divided
    by the spread of first losses, and those above their upper quartile count as that, and their gains for nothing: how
    bad the bad ones are tells nothing about good ones.

    curves: losses of each run, one per step, the smaller the better; at least one.
    """

    def __init__(self, curves: Sequence[np.ndarray]):
        first = np.array([curve[0] for curve in curves])
        first = first[np.isfinite(first)]
        self.cap = float(np.quantile(first, 0.75)) if len(first) else 0.0
        self.scale = float(np.minimum(first, self.cap).std()) if len(first) else 0.0
        self.scale = self.scale or 1.0
        rows, gains = [], []
        for curve in curves:
            points = self._points(curve)
            for k in range(1, len(points)):
                if points[max(k - 2, 0)] >= self.cap / self.scale:
                    continue
                rows.append([1.0, points[k - 2] - points[k - 1] if k > 1 else 0.0, float(k == 1)])
                gains.append(points[k - 1] - points[k])
        x, y = np.array(rows).reshape(-1, 3), np.array(gains)
        precision = np.diag(PRIOR_PRECISION) + x.T @ x
        self.weights = np.linalg.solve(precision, PRIOR_PRECISION * PRIOR_MEAN + x.T @ y)
        rest = y - x @ self.weights
        self.noise = math.sqrt((PRIOR_WEIGHT * PRIOR_NOISE**2 + rest @ rest) / (PRIOR_WEIGHT + len(y)))

    def _points(self, curve: np.ndarray) -> np.ndarray:
        """The scaled losses after 1, 2, 4, 8, ... steps."""
        steps = 2 ** np.arange(int(math.log2(len(curve))) + 1)
        losses = np.where(np.isfinite(curve), np.minimum(curve, self.cap), self.cap)
        return losses[steps - 1] / self.scale

    def predict(self, curve: np.ndarray, steps: int) -> tuple[float, float]:
        """Mean and standard deviation of the loss after so many steps, given the losses so far (at least one)."""
        done = len(curve)
        now = min(float(curve[-1]), self.cap) if math.isfinite(curve[-1]) else self.cap
        if steps <= done:
            return now, 0.0
        half = self._at(curve, done / 2) if done > 1 else now / self.scale
        gain = half - now / self.scale
        left, total, start = math.log2(steps / done), 0.0, done == 1
        parts = []  # of whole doublings, the last one perhaps less
        while left > 0:
            parts.append(min(left, 1.0))
            gain = self.weights[0] + self.weights[1] * gain + self.weights[2] * start
            total += gain * parts[-1]
            left, start = left - 1.0, False
        variance = effect = 0.0  # the noise in one gain is passed on to those after it
        for part in reversed(parts):
            effect = part + self.weights[1] * effect
            variance += effect**2
        return now - total * self.scale, self.noise * math.sqrt(variance) * self.scale

    def _at(self, curve: np.ndarray, step: float) -> float:
        loss = float(np.interp(step, np.arange(1, len(curve) + 1), np.where(np.isfinite(curve), curve, self.cap)))
        return min(loss, self.cap) / self.scale


def expected_improvement(mean: float, deviation: float, best: float) -> float:
    """How much a normal loss is expected to be below `best`, where it is."""
    if deviation == 0.0:
        return max(best - mean, 0.0)
    z = (best - mean) / deviation
    return deviation * (z * 0.5 * math.erfc(-z / math.sqrt(2)) + math.exp(-z * z / 2) / math.sqrt(2 * math.pi))
