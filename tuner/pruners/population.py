"""Population based training (Jaderberg et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..trial import FrozenTrial
from .base import Pruner

if TYPE_CHECKING:
    from ..schedulers import Scheduler

__all__ = ["PopulationTrainingPruner"]


class PopulationTrainingPruner(Pruner):
    """A `Resumable` that defines `adapt` is trained as a population: see `tuner.schedulers.PopulationTraining`.

    An objective that reports cannot go on from another trial's state, so none of its trials is ended.
    """

    def __init__(
        self, size: int = 20, interval: int = 5, quantile: float = 0.25, resample: float = 0.25, seed: int = 0
    ):
        from ..schedulers import PopulationTraining

        self._scheduler = PopulationTraining(size, interval, quantile, resample, seed)

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        return False

    def scheduler(self) -> Scheduler:
        return self._scheduler
