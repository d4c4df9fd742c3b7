"""What a pruner is: whether a trial that is running should end here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..trial import FrozenTrial

if TYPE_CHECKING:
    from ..schedulers import Scheduler

__all__ = ["Pruner"]


class Pruner(ABC):
    """Judges a trial by its reported values against those of the study's other trials. Keeps no record itself."""

    @abstractmethod
    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        """Whether `trial`, which has reported something, should end now.

        trials: all trials of the study, this one among them. signs: +1 if small values are good, -1 if large ones are,
        for each objective. With several objectives trials are compared as in `pareto.order`.
        """

    def next_check(self, step: int) -> int | None:
        """The first step after `step` at which this pruner could end a trial; None if it never does."""
        return step + 1

    def scheduler(self) -> Scheduler:
        """The same policy for a `Resumable`."""
        from ..schedulers import StoppedRuns

        return StoppedRuns(self)
