"""Frozen distributions of scipy.stats as domains: uniform points of the cube become draws from the distribution."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import SpaceError
from .priors import KNOTS, Histogram, Weights
from .space import FEW, Domain, Float, Int

__all__ = ["frozen"]

TAIL = 1e-4  # the mass that is cut off at an infinite end
DOUBT = 1e-6  # of the prior: nearly none, the distribution is meant as it is
DECADES = 2.0  # a positive distribution whose middle 98 percent span so many is laid out in its logarithm


def frozen(distribution: Any) -> Domain:
    """The domain of a frozen distribution of one number, such as scipy.stats.loguniform(1e-4, 1) or poisson(3).

    An infinite range is cut off where 1e-4 of the mass is left. SpaceError for a distribution of several numbers, or of
    more than 65536 whole ones.
    """
    name = distribution.dist.name
    low, high = (float(end) for end in distribution.support())
    if name in ("loguniform", "reciprocal"):
        return Float(low, high, log=True)
    if name == "uniform":
        return Float(low, high)
    if not hasattr(distribution.dist, "pmf"):
        return _continuous(distribution, low, high)
    if name == "randint":
        return Int(int(low), int(high))
    low = low if np.isfinite(low) else float(distribution.ppf(TAIL))
    high = high if np.isfinite(high) else float(distribution.ppf(1 - TAIL))
    if high - low >= FEW:
        raise SpaceError(f"{name}: has {high - low + 1:.0f} values; wanted at most {FEW}")
    values = np.arange(int(low), int(high) + 1)
    return Int(int(low), int(high), prior=Weights(distribution.pmf(values), doubt=DOUBT))


def _continuous(distribution: Any, low: float, high: float) -> Float:
    near, far = float(distribution.ppf(0.01)), float(distribution.ppf(0.99))
    log = low >= 0 and near > 0 and np.log10(far / near) > DECADES
    low = low if np.isfinite(low) and not (log and low == 0) else float(distribution.ppf(TAIL))
    high = high if np.isfinite(high) else float(distribution.ppf(1 - TAIL))
    edges = np.geomspace(low, high, KNOTS) if log else np.linspace(low, high, KNOTS)
    return Float(low, high, log=log, prior=Histogram(np.diff(distribution.cdf(edges)), doubt=DOUBT))
