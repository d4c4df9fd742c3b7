"""Schedulers: which segment of which trial to run next."""

from .base import Decision, Scheduler, Segment, Situation
from .growing import GrowingBrackets
from .halving import SuccessiveHalving
from .runs import FullRuns, StoppedRuns

__all__ = [
    "Decision",
    "FullRuns",
    "GrowingBrackets",
    "Scheduler",
    "Segment",
    "Situation",
    "StoppedRuns",
    "SuccessiveHalving",
]
