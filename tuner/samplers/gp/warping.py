"""Losses and constraints as a Gaussian process can learn them: of variance 1, without a heavy tail."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

__all__ = ["standard", "warp", "warp_constraint"]


def warp(losses: np.ndarray) -> np.ndarray:
    """Losses (n,), finite, as targets of mean 0 and variance 1, in the same order.

    Those above the median count by their rank alone: they become the normal quantiles of their ranks, with the spread
    that the better half has about the median (half-rank warping, Song et al. 2024). So neither a diverged run nor a
    wide range of bad values blurs what sets the good ones apart, whose distances are kept.
    """
    median = np.median(losses)
    better = losses < median
    if not better.any():
        better = losses <= median  # more than half share the best value; what is worse is a step away from it
    spread = np.sqrt(((losses[better] - median) ** 2).mean()) or 1.0
    place = (losses[:, None] > losses).sum(axis=1) + 0.5 * (losses[:, None] == losses).sum(axis=1)
    quantiles = np.maximum(ndtri(place / len(losses)), 0.0)
    return standard(np.where(better, losses, median + spread * quantiles))


def warp_constraint(excess: np.ndarray) -> np.ndarray:
    """What a constraint gave, (n,), with its sign and roughly in units of its median size; large values are damped."""
    finite = np.clip(excess, -1e300, 1e300)
    sizes = np.abs(finite[finite != 0])
    return np.arcsinh(finite / np.median(sizes)) if len(sizes) else finite


def standard(y: np.ndarray) -> np.ndarray:
    """Mean 0 and, unless all are as good as equal, variance 1."""
    y = y / (np.abs(y).max() or 1.0)
    centred = y - y.mean()
    deviation = centred.std()
    return centred / deviation if deviation > 1e-12 else np.zeros_like(y)
