"""How far to follow steps that are partly noise: learning rate adaptation for CMA-ES (Nomura, Akimoto & Ono 2023)."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["COVARIANCE_MEMORY", "MEAN_MEMORY", "LearningRate"]

WANTED = 1.4
"""alpha: the signal-to-noise ratio of steps, in units of the rate, at which the rate stays as it is."""
MEAN_MEMORY, COVARIANCE_MEMORY = 0.1, 0.03
"""beta: how much the newest step of the mean and of the covariance counts in the moving averages."""
CHANGE = 0.1
"""gamma: how fast the rate may change, as a share of it."""


class LearningRate:
    """The rate eta in (0, 1] by which steps are to be multiplied.

    After each step D, in coordinates in which the distribution is standard normal:

        E <- (1 - beta) E + beta D          V <- (1 - beta) V + beta |D|^2
        SNR = (|E|^2 - beta / (2 - beta) V) / (V - |E|^2)
        eta <- min(1, eta exp(min(gamma eta, beta) clip(SNR / (alpha eta) - 1, -1, 1)))
    """

    def __init__(self, memory: float):
        self.memory = memory
        self.rate = 1.0
        self._mean: np.ndarray | float = 0.0
        self._square = 0.0

    def adapt(self, step: np.ndarray) -> float:
        """The rate for this step, an array of any shape, which is always the same."""
        b = self.memory
        self._mean = (1 - b) * self._mean + b * step
        self._square = (1 - b) * self._square + b * float((step**2).sum())
        signal = float((self._mean**2).sum())
        noise = self._square - signal
        ratio = (signal - b / (2 - b) * self._square) / noise if noise > 0 else math.inf
        drift = min(max(ratio / (WANTED * self.rate) - 1, -1.0), 1.0)
        self.rate = min(1.0, self.rate * math.exp(min(CHANGE * self.rate, b) * drift))
        return self.rate
