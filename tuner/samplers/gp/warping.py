"""Losses as a Gaussian process likes them: of mean 0 and variance 1, without a heavy tail."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

MODE = "half"


def halfrank(y):
    """Losses worse than the median become normal scores by rank, scaled to the better half (Song et al. 2024)."""
    n = len(y)
    med = np.median(y)
    good = y < med
    out = y.copy()
    if not good.any():
        return out
    dev = np.sqrt(((y[good] - med) ** 2).mean())
    u, inv = np.unique(y, return_inverse=True)
    ranks = np.searchsorted(np.sort(y), u, side="left") * 0.5 + np.searchsorted(np.sort(y), u, side="right") * 0.5
    z = ndtri(ranks[inv] / n)
    bad = ~good
    out[bad] = med + dev * np.maximum(z[bad], 0)
    return out


def yeojohnson(y):
    import warnings

    from scipy.stats import yeojohnson as yj

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = (y - np.median(y)) / max(y.std(), 1e-300)
        out, lam = yj(y)
    return out


def loggap(y, s):
    lo, med = y.min(), np.median(y)
    return np.log(s * (y - lo) / (med - lo) + 1) if med > lo else y


def standardise(y):
    s = y.std()
    return (y - y.mean()) / s if s > 1e-12 * max(abs(y).max(), 1e-300) else y - y.mean()


def warp(losses: np.ndarray, mode=None, tail_only=False) -> np.ndarray:
    mode = mode or MODE
    if tail_only:
        mode = "half"
    y = np.clip(losses, -1e300, 1e300)
    if mode == "none":
        return standardise(y)
    if mode == "half":
        return standardise(halfrank(y))
    if mode == "halflog":
        return standardise(loggap(halfrank(y), 2.0))
    if mode == "halflog10":
        return standardise(loggap(halfrank(y), 10.0))
    if mode == "yj":
        return standardise(yeojohnson(halfrank(y)))
    if mode == "rank":
        u, inv = np.unique(y, return_inverse=True)
        srt = np.sort(y)
        r = 0.5 * (np.searchsorted(srt, u, "left") + np.searchsorted(srt, u, "right"))
        return standardise(ndtri(r[inv] / len(y)))
    raise ValueError(mode)


def warp_constraint(excess):
    """Keeps the sign"""
    scale = np.median(np.abs(excess[excess != 0])) if (excess != 0).any() else 1.0
    return np.arcsinh(np.clip(excess, -1e300, 1e300) / scale)
