"""How much a trial at a point promises, as logarithms that stay exact where the promise is tiny (Ament et al. 2023)."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

__all__ = ["log_ehvi", "log_improvement", "log_probability", "pareto_front"]

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
FAR = -1e3
"""Below, the series of the Mills ratio is used instead."""


def log_h(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log h, Phi / h and phi / h, where h(z) = phi(z) + z Phi(z) is the expected improvement of a standard normal.

    With Mills' ratio m = Phi / phi, h = phi (1 + z m); far out, 1 + z m = 1 / z^2 - 3 / z^4 + ...
    """
    z = np.asarray(z, dtype=np.float64)
    low = np.minimum(z, 0.0)
    mills = math.sqrt(math.pi / 2) * erfcx(-low / math.sqrt(2.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / (low * low)
        rest = np.where(low < FAR, inverse * (1.0 - 3.0 * inverse), 1.0 + low * mills)
    log_low = -0.5 * low * low - HALF_LOG_2PI + np.log(rest)
    high = np.maximum(z, 0.0)
    phi, cdf = np.exp(-0.5 * high * high - HALF_LOG_2PI), ndtr(high)
    h = phi + high * cdf
    negative = z < 0
    return np.where(negative, log_low, np.log(h)), np.where(negative, mills / rest, cdf / h), np.where(
        negative, 1.0 / rest, phi / h
    )  # fmt: skip


def log_improvement(
    mean: np.ndarray, deviation: np.ndarray, best: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log E[max(best - Y, 0)] of normal Y, and its derivatives by the mean and by the deviation."""
    value, by_mean, by_deviation = log_h((best - mean) / deviation)
    return value + np.log(deviation), -by_mean / deviation, by_deviation / deviation


def log_probability(mean: np.ndarray, deviation: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log P(Y <= bound), and its derivatives by the mean and by the deviation."""
    z = (bound - mean) / deviation
    value = log_ndtr(z)
    ratio = np.exp(-0.5 * z * z - HALF_LOG_2PI - value)  # phi / Phi
    return value, -ratio / deviation, -ratio * z / deviation


def pareto_front(losses: np.ndarray) -> np.ndarray:
    """The rows of losses (n, objectives) that no other row beats, without repetitions, by the first objective."""
    losses = np.unique(losses, axis=0)
    beaten = [(np.all(losses <= row, axis=1) & np.any(losses < row, axis=1)).any() for row in losses]
    return losses[~np.array(beaten, dtype=bool)]


def log_ehvi(
    means: np.ndarray, deviations: np.ndarray, front: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log expected gain in hypervolume of two independent normal losses, and its derivatives (m, 2), (m, 2).

    means, deviations (m, 2); front (n, 2): the losses that are not dominated, by the first one; reference (2,) bounds
    the volume. The gain is cut into strips between neighbouring a_i of the first loss, where the second must
    be below b_i; in each it is the product of a difference of expected improvements and another expected improvement:

        EHVI = sum_i (psi_1(a_i+1) - psi_1(a_i)) psi_2(b_i)      psi(c) = E[max(c - Y, 0)], a_0 = -inf
    """
    inside = front[(front < reference).all(axis=1)]
    right = np.append(inside[:, 0], reference[0])
    below = np.append(reference[1], inside[:, 1])
    (mean1, mean2), (deviation1, deviation2) = means.T[:, :, None], deviations.T[:, :, None]
    z = (right - mean1) / deviation1
    psi, ratio_mean, ratio_deviation = log_h(z)
    # Differences of neighbours, relative to the larger one.
    share = np.zeros(psi.shape)
    share[:, 1:] = np.exp(np.minimum(psi[:, :-1] - psi[:, 1:], 0.0))
    left_mean, left_deviation = np.zeros(psi.shape), np.zeros(psi.shape)
    left_mean[:, 1:], left_deviation[:, 1:] = ratio_mean[:, :-1], ratio_deviation[:, :-1]
    gap = np.maximum(1.0 - share, 1e-300)
    strip = psi + np.log(deviation1) + np.log(gap)
    strip_mean = -(ratio_mean - share * left_mean) / gap / deviation1
    strip_deviation = (ratio_deviation - share * left_deviation) / gap / deviation1
    depth, depth_mean, depth_deviation = log_improvement(mean2, deviation2, below)
    terms = strip + depth
    top = terms.max(axis=1, keepdims=True)
    parts = np.exp(terms - top)
    total = parts.sum(axis=1, keepdims=True)
    parts /= total
    value = (top + np.log(total))[:, 0]
    by_mean = np.stack([(parts * strip_mean).sum(axis=1), (parts * depth_mean).sum(axis=1)], axis=1)
    by_deviation = np.stack([(parts * strip_deviation).sum(axis=1), (parts * depth_deviation).sum(axis=1)], axis=1)
    return value, by_mean, by_deviation
