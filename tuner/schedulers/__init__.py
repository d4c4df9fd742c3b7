"""Schedulers: which segment of which trial to run next. A pruner brings its own: `Pruner.scheduler`."""

from .asynchronous import AsynchronousHalving
from .balanced import Balanced
from .base import Decision, Scheduler, Segment, Situation
from .discarding import EarlyDiscarding
from .freeze_thaw import FreezeThaw
from .growing import GrowingBrackets
from .halving import SuccessiveHalving
from .hyperband import Hyperband
from .population import PopulationTraining
from .progressive import ProgressiveHalving
from .runs import FullRuns, StoppedRuns

__all__ = [
    "AsynchronousHalving",
    "Balanced",
    "Decision",
    "EarlyDiscarding",
    "FreezeThaw",
    "FullRuns",
    "GrowingBrackets",
    "Hyperband",
    "PopulationTraining",
    "ProgressiveHalving",
    "Scheduler",
    "Segment",
    "Situation",
    "StoppedRuns",
    "SuccessiveHalving",
]
