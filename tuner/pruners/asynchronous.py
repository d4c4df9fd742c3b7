"""Asynchronous successive halving (Li et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from ..checks import RESOURCES, ladder
from ..trial import FrozenTrial
from .base import Pruner
from .rungs import falls_behind

if TYPE_CHECKING:
    from ..schedulers import Scheduler

__all__ = ["AsynchronousHalvingPruner", "ProgressiveHalvingPruner"]


class AsynchronousHalvingPruner(Pruner):
    """ASHA: of the trials that came to a rung so far, the best 1 / reduction_factor go on.

    Rungs lie at min_resource * reduction_factor ** k, k = 0, 1, ... A `Resumable` is paused at each, and promoted as
    soon as it is among the best: see `tuner.schedulers.AsynchronousHalving`. An objective that reports is judged once,
    as it passes the rung.
    """

    def __init__(self, min_resource: int = 1, reduction_factor: int = 3):
        from ..schedulers import AsynchronousHalving

        self.min_resource, self.reduction_factor = ladder(min_resource, reduction_factor, names=RESOURCES)
        self._scheduler = AsynchronousHalving(self.min_resource, self.reduction_factor)

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        return falls_behind(trial, trials, _rungs(self.min_resource, self.reduction_factor), signs)

    def scheduler(self) -> Scheduler:
        return self._scheduler


class ProgressiveHalvingPruner(Pruner):
    """PASHA: a `Resumable` is run by `tuner.schedulers.ProgressiveHalving`, which makes trials longer only while the
    order of the best is not settled. An objective that reports is judged as by `AsynchronousHalvingPruner`.
    """

    def __init__(self, min_resource: int = 1, reduction_factor: int = 3):
        from ..schedulers import ProgressiveHalving

        self.min_resource, self.reduction_factor = ladder(min_resource, reduction_factor, names=RESOURCES)
        self._scheduler = ProgressiveHalving(self.min_resource, self.reduction_factor)

    def prune(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], signs: int | Sequence[int]) -> bool:
        return falls_behind(trial, trials, _rungs(self.min_resource, self.reduction_factor), signs)

    def scheduler(self) -> Scheduler:
        return self._scheduler


def _rungs(first: int, factor: int):
    return ((first * factor**k, 1 / factor) for k in count())
