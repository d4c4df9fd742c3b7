"""Schedulers: which segment of which trial to run next."""

from .base import Decision, Scheduler, Segment, Situation
from .halving import SuccessiveHalving
from .runs import FullRuns, StoppedRuns

__all__ = ["Decision", "FullRuns", "Scheduler", "Segment", "Situation", "StoppedRuns", "SuccessiveHalving"]
