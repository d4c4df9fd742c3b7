"""Earlier trials from the best to the worst."""

from __future__ import annotations

import numpy as np

from ..pareto import order
from .history import Observations

__all__ = ["ranks"]


def ranks(observations: Observations) -> np.ndarray:
    """The place of each trial, float64 (n,): 0 is the best, ties share the mean of their places, NaN is pending.

    Feasible trials stand first, by their loss (with several objectives by non-dominated rank, then crowding); then
    infeasible ones by how much they violate (Deb 2000); failed ones last.
    """
    places = np.full(len(observations), np.nan)
    group = np.where(observations.failed, 2, (observations.violations > 0).astype(int))
    known = ~observations.pending
    before = 0
    for number in range(3):
        rows = np.flatnonzero(known & (group == number))
        if number == 0 and len(rows):
            key = _goodness(observations.losses[rows])
        else:
            key = observations.violations[rows] if number == 1 else np.zeros(len(rows))
        places[rows] = before + _mean_places(key)
        before += len(rows)
    return places


def _goodness(losses: np.ndarray) -> np.ndarray:
    """A number for each row of losses (n, objectives), the smaller the better."""
    if losses.shape[1] == 1:
        return losses[:, 0]
    goodness = np.empty(len(losses))
    goodness[order(losses)] = np.arange(len(losses))
    return goodness


def _mean_places(key: np.ndarray) -> np.ndarray:
    """0-based places in rising order; equal keys share the mean of theirs."""
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    return (first + (counts - 1) / 2)[inverse]
