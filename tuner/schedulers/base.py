"""What a scheduler is: a function of the study's table of trials that says which segment of which trial to run next.

It keeps no record of its own, so an interrupted study goes on as if nothing had happened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import pareto
from ..trial import FrozenTrial, TrialState

__all__ = ["PENDING", "Decision", "Scheduler", "Segment", "Situation"]

PENDING = (TrialState.WAITING, TrialState.PAUSED)


@dataclass(frozen=True)
class Segment:
    """Run trial `number` (None: a new one) for so many steps more.

    A new trial may go on from the state of a paused one, its `parent`, with the settings `params`.
    """

    number: int | None
    steps: int
    parent: int | None = None
    params: dict[str, Any] | None = None


@dataclass(frozen=True)
class Situation:
    """What a scheduler decides on."""

    trials: Sequence[FrozenTrial]
    """All trials of the study by number."""
    max_steps: int
    may_start: bool
    """Whether new trials may be started."""
    signs: tuple[int, ...]
    """For each objective, +1 if small values are good, -1 if large ones are."""
    best: bool
    """Whether a trial counts by the best value of its curve instead of the last."""

    def losses(self, trials: Sequence[FrozenTrial], steps: int) -> np.ndarray:
        """What each of these trials was worth after so many steps (at most), the smaller the better; shape (n,).

        With several objectives these are places in the order of `pareto.order`. A trial without values counts as
        infinitely bad.
        """
        return pareto.losses([self._value(trial, steps) for trial in trials], self.signs)

    def ranked(self, trials: Sequence[FrozenTrial], steps: int) -> list[FrozenTrial]:
        """These trials from best to worst after so many steps (at most); of equals the one with the smaller number."""
        order = np.lexsort(([trial.number for trial in trials], self.losses(trials, steps)))
        return [trials[i] for i in order]

    def _value(self, trial: FrozenTrial, steps: int) -> float | list[float]:
        curve = trial.intermediate_values
        if steps in curve and (steps == 1 or not self.best):
            return curve[steps]
        values = [curve[step] for step in sorted(curve) if step <= steps]
        if not values:
            return [np.nan] * len(self.signs)
        return values[pareto.best(values, self.signs) if self.best else -1]


@dataclass(frozen=True)
class Decision:
    """What to do: end these paused trials, and run this segment (None: nothing to do before another one ends)."""

    stop: list[int] = field(default_factory=list)
    run: Segment | None = None


class Scheduler(ABC):
    """Decides what a study of a `Resumable` does next."""

    @abstractmethod
    def decide(self, situation: Situation) -> Decision:
        """Called whenever a worker is free. Running trials are left alone."""
