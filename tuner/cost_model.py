"""How long a step takes on a device with some settings, learned from those that were run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .trial import Trial

__all__ = ["CostModel", "features"]

MOST = 300
"""Only so many observations are kept, the latest."""
LEVEL, OFFSET = 100.0, 1.0
SHARED_SLOPE, OWN_SLOPE, CURVE, LENGTH = 9.0, 4.0, 1.0, 0.3
NOISE = 0.1**2
"""Prior variances of ln(seconds): of its level, of a device's offset, and for each feature of the slope that devices
share, of a device's own slope, of its bends (they are LENGTH of the feature's range wide); and of the noise."""
OUTLIER = 2.5
"""Observations that lie off by more than so many standard deviations count for less: the first run of a kernel, say."""


class CostModel:
    """Bayesian regression of ln(seconds per step): additive in the features, for all devices and for each on its own.

        ln t(device, x) = level + offset_device + sum_j [ f_j(x_j) + g_device,j(x_j) ]

    with f and g lines plus smooth bends, all of them Gaussian a priori. What one device shows is thus expected of
    another until that one shows otherwise, and the prediction says how sure it is.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[str, dict[str, float], float]] = []
        self._fit: tuple[Any, ...] | None = None

    def observe(self, device: str, at: Mapping[str, float], seconds: float) -> None:
        """A step with the features `at` took so many seconds on that device."""
        self._seen = [*self._seen, (device, dict(at), math.log(max(seconds, 1e-9)))][-MOST:]
        self._fit = None

    def predict(self, device: str, at: Mapping[str, float]) -> tuple[float, float]:
        """Mean and standard deviation of ln(seconds per step)."""
        if not self._seen:
            return 0.0, math.sqrt(LEVEL)
        if self._fit is None:
            self._fit = self._solve()
        names, center, places, devices, inverse, weights = self._fit
        place = np.array([[at.get(name, 0.0) for name in names]])
        same = (devices == device)[None]
        cross = _covariance(place, places, same)[0]
        prior = _covariance(place, place, np.ones((1, 1), dtype=bool))[0, 0]
        variance = prior - cross @ inverse @ cross
        return center + float(cross @ weights), math.sqrt(max(float(variance), 1e-12))

    def _solve(self) -> tuple[Any, ...]:
        names = sorted({name for _, at, _ in self._seen for name in at})
        places = np.array([[at.get(name, 0.0) for name in names] for _, at, _ in self._seen])
        places = places.reshape(len(self._seen), len(names))
        devices = np.array([device for device, _, _ in self._seen])
        logs = np.array([log for _, _, log in self._seen])
        center = float(np.median(logs))
        covariance = _covariance(places, places, devices[:, None] == devices)
        noise = np.full(len(logs), NOISE)
        for _ in range(3):
            inverse = np.linalg.inv(covariance + np.diag(noise))
            weights = inverse @ (logs - center)
            # The error of each observation as foretold by all the others, in standard deviations.
            certainty = np.diagonal(inverse)
            off = np.abs(weights / certainty) / np.sqrt(1.0 / certainty - noise + NOISE)
            noise = NOISE * np.maximum(off / OUTLIER, 1.0) ** 2
        return names, center, places, devices, inverse, weights


def _covariance(a: np.ndarray, b: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Prior covariance of observations at a (n, d) and b (m, d); same (n, m): whether they are on one device."""
    products = a @ b.T
    bends = np.exp(-0.5 * ((a[:, None] - b) / LENGTH) ** 2).sum(axis=2)
    shared = LEVEL + SHARED_SLOPE * products + CURVE * bends
    return shared + np.where(same, OFFSET + OWN_SLOPE * products + CURVE * bends, 0.0)


def features(trial: Trial, task: Any = None) -> dict[str, float]:
    """What may tell how long a step takes: each setting's place in its range, from -1/2 to 1/2.

    A category, and whether a setting is there at all, is a feature of its own. If the task has a method
    `size(params) -> number > 0`, how much there is to compute in a step, its logarithm is all there is.
    """
    if hasattr(task, "size") and trial.params:
        return {"size": 0.1 * math.log(task.size(trial.params))}
    found: dict[str, float] = {}
    for name, domain in trial.distributions.items():
        if domain.kind == "categorical":
            found[f"{name} = {trial.params[name]!r}"] = 0.5
        else:
            found[f"{name} is there"] = 0.5
            found[name] = domain.encode(trial.params[name]) - 0.5
    return found
