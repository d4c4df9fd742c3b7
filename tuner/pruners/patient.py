"""Ending trials that no longer get better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..checks import whole
from ..trial import FrozenTrial
from .base import Pruner

__all__ = ["PatientPruner"]


class PatientPruner(Pruner):
    """Ends a trial whose last `patience` + 1 values are no better, by `min_delta`, than the best before them.

    With several objectives: each of them is worse in all objectives, by more than `min_delta`, than one before.
    With a `wrapped_pruner`, that one decides, once the patience is used up.
    """

    def __init__(self, wrapped_pruner: Pruner | None, patience: int, min_delta: float = 0.0):
        if wrapped_pruner is not None and not isinstance(wrapped_pruner, Pruner):
            raise TypeError(f"wrapped_pruner must be a tuner.pruners object or None, got {wrapped_pruner!r}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta must be at least 0, got {min_delta}")
        self.wrapped_pruner = wrapped_pruner
        self.patience = whole("patience", patience, 0)
        self.min_delta = min_delta

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        recent = self.patience + 1
        curve = [value for _, value in sorted(trial.intermediate_values.items())]
        if len(curve) <= recent:
            return False
        points = np.reshape(curve, (len(curve), -1)) * np.asarray(signs, np.float64)
        points[np.isnan(points).any(axis=1)] = np.inf
        before, after = points[:-recent, None] + self.min_delta, points[-recent:]
        beaten = ((before <= after).all(axis=2) & (before < after).any(axis=2)).any(axis=0)
        return bool(beaten.all()) and (self.wrapped_pruner is None or self.wrapped_pruner.prune(trial, trials, signs))
