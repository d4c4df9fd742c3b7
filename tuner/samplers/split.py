"""Which earlier trials are the good ones, and how much each of them counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..pareto import non_dominated_ranks
from .history import Observations

__all__ = ["Split", "hypervolume_order", "split"]

PROBES = 2048
"""Points by which hypervolumes of more than two objectives are measured."""


@dataclass(frozen=True)
class Split:
    """Rows of the observations, int64, and what each of them weighs."""

    good: np.ndarray
    good_weights: np.ndarray
    """of mean 1"""
    bad: np.ndarray
    bad_weights: np.ndarray


def split(seen: Observations, count: int, pending_is_bad: bool) -> Split:
    """The `count` best trials against all others.

    Trials that keep their constraints come first, in order of their loss; then the others, those that break them least
    first. With several objectives the order is that of `hypervolume_order` (Ozaki et al. 2022). Failed trials are bad,
    and so are those without a value yet if `pending_is_bad` (the constant liar), else they are left out.

    A good trial weighs as much as it improves on the best one that is not good (Watanabe 2023, "expected improvement").
    Where there is no such number, with several objectives, broken constraints or infinite losses among the good ones,
    the i-th of k weighs log(k + 1) - log(i), as in CMA-ES (Hansen 2016). Bad trials weigh 1, those without a value yet
    as much as makes up for one good trial in the ratio of the densities.
    """
    done = seen.done
    feasible = np.flatnonzero(done & (seen.violations <= 0))
    broken = np.flatnonzero(done & (seen.violations > 0))
    broken = broken[np.argsort(seen.violations[broken], kind="stable")]
    losses = seen.losses[feasible]
    order = np.argsort(losses[:, 0], kind="stable") if losses.shape[1] == 1 else hypervolume_order(losses, count)
    good = np.concatenate([feasible[order], broken])[:count]
    weights = np.log(len(good) + 1) - np.log(np.arange(1, len(good) + 1))
    if losses.shape[1] == 1 and 0 < len(good) <= len(feasible):
        leading = losses[order[: len(good) + 1], 0]
        if np.isfinite(leading).all() and 0 < leading[-1] - leading[0] < np.inf:
            weights = leading[-1] - leading[: len(good)]
    is_bad = np.ones(len(seen), dtype=bool) if pending_is_bad else done | seen.failed
    is_bad[good] = False
    bad = np.flatnonzero(is_bad)
    pending = seen.pending[bad]
    liar = max(1.0, (len(bad) - pending.sum()) / max(len(good), 1))
    weights = weights / weights.mean() if len(good) else weights
    return Split(good, weights, bad, np.where(pending, liar, 1.0))


def hypervolume_order(losses: np.ndarray, count: int) -> np.ndarray:
    """The `count` best rows of losses (n, objectives), best first.

    Front by front. Within a front, rows are taken one by one, each the one that adds the largest hypervolume to those
    taken before. The volume is that up to a tenth of the range beyond the worst of the fronts in question.
    """
    if not len(losses):
        return np.empty(0, dtype=np.intp)
    ranks = non_dominated_ranks(losses)
    rows = np.argsort(ranks, kind="stable")
    rows = rows[ranks[rows] <= ranks[rows[min(count, len(rows)) - 1]]]
    values = losses[rows].copy()
    for column in values.T:  # infinite losses stand at the end of the finite ones
        finite = column[np.isfinite(column)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        np.clip(column, low, high, out=column)
    low, high = values.min(axis=0), values.max(axis=0)
    unit = (values - low) / np.where(high > low, high - low, 1.0)
    adds = _Plane(unit) if unit.shape[1] == 2 else _Probes(unit)
    order: list[int] = []
    for front in np.unique(ranks[rows]):
        here = np.flatnonzero(ranks[rows] == front)
        while len(here) and len(order) < count:
            best = int(adds.volumes(here).argmax())
            order.append(here[best])
            adds.take(here[best])
            here = np.delete(here, best)
    return rows[order]


REFERENCE = 1.1


class _Plane:
    """Areas that points (n, 2) in [0, 1] add to those taken, up to (REFERENCE, REFERENCE)."""

    def __init__(self, points: np.ndarray):
        self.points = points
        self.steps = np.array([[-np.inf, REFERENCE], [REFERENCE, -np.inf]])  # the staircase of those taken

    def volumes(self, rows: np.ndarray) -> np.ndarray:
        x, y = self.points[rows].T
        total = np.zeros(len(rows))
        # Between step i and i + 1 the staircase stands at the height of step i.
        for (left, height), (right, _) in zip(self.steps[:-1], self.steps[1:], strict=True):
            total += np.maximum(right - np.maximum(x, left), 0) * np.maximum(height - y, 0)
        return total

    def take(self, row: int) -> None:
        x, y = self.points[row]
        if (self.steps[:, 0] <= x)[self.steps[:, 1] <= y].any():
            return
        kept = self.steps[~((self.steps[:, 0] >= x) & (self.steps[:, 1] >= y))]
        self.steps = np.insert(kept, np.searchsorted(kept[:, 0], x), (x, y), axis=0)


class _Probes:
    """The same for any number of objectives, as shares of evenly spread probes (Halton's) that are beaten."""

    def __init__(self, points: np.ndarray):
        objectives = points.shape[1]
        probes = np.stack([_van_der_corput(PROBES, base) for base in _primes(objectives)], axis=1) * REFERENCE
        self.beats = (points[:, None] <= probes[None]).all(axis=2)
        self.free = np.ones(PROBES, dtype=bool)

    def volumes(self, rows: np.ndarray) -> np.ndarray:
        return (self.beats[rows] & self.free).sum(axis=1) / PROBES

    def take(self, row: int) -> None:
        self.free &= ~self.beats[row]


def _van_der_corput(count: int, base: int) -> np.ndarray:
    """The radical inverses of 1 .. count, in (0, 1)."""
    left, result, scale = np.arange(1, count + 1), np.zeros(count), 1.0 / base
    while left.any():
        result += scale * (left % base)
        left //= base
        scale /= base
    return result


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found
