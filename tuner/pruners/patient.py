"""Ending trials that no longer get better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..trial import FrozenTrial
from .base import Pruner

__all__ = ["PatientPruner"]


class PatientPruner(Pruner):
    """Ends a trial whose last `patience` + 1 values are no better, by `min_delta`, than the best before them.

    With a `wrapped_pruner`, that one decides, once the patience is used up.
    """

    def __init__(self, wrapped_pruner: Pruner | None, patience: int, min_delta: float = 0.0):
        if patience < 0:
            raise ValueError(f"patience must be at least 0, got {patience}")
        if min_delta < 0:
            raise ValueError(f"min_delta must be at least 0, got {min_delta}")
        self.wrapped_pruner = wrapped_pruner
        self.patience = patience
        self.min_delta = min_delta

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], sign: int) -> bool:
        losses = [math.inf if math.isnan(v) else sign * v for _, v in sorted(trial.intermediate_values.items())]
        recent = self.patience + 1
        if len(losses) <= recent or min(losses[:-recent]) + self.min_delta >= min(losses[-recent:]):
            return False
        return self.wrapped_pruner is None or self.wrapped_pruner.prune(trial, trials, sign)
