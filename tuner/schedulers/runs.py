"""Trials that run to their end, unless a pruner ends them."""

from __future__ import annotations

from ..pruners.base import Pruner
from ..trial import TrialState
from .base import PENDING, Decision, Scheduler, Segment, Situation

__all__ = ["FullRuns", "StoppedRuns"]


class StoppedRuns(Scheduler):
    """Trials run to their end one after the other, unless the pruner ends them: median stopping and the like."""

    def __init__(self, pruner: Pruner):
        self.pruner = pruner

    def decide(self, situation: Situation) -> Decision:
        stop: list[int] = []
        for trial in situation.trials:
            if trial.state is TrialState.PAUSED and self.pruner.prune(trial, situation.trials, situation.signs):
                stop.append(trial.number)
            elif trial.state in PENDING:
                return Decision(stop, Segment(trial.number, self._steps(trial.steps, situation.max_steps)))
        return Decision(stop, Segment(None, self._steps(0, situation.max_steps)) if situation.may_start else None)

    def _steps(self, done: int, max_steps: int) -> int:
        check = self.pruner.next_check(done)
        return (max_steps if check is None else min(check, max_steps)) - done


class FullRuns(Scheduler):
    """Every trial runs to its end in one segment."""

    def decide(self, situation: Situation) -> Decision:
        for trial in situation.trials:
            if trial.state in PENDING:
                return Decision(run=Segment(trial.number, situation.max_steps - trial.steps))
        return Decision(run=Segment(None, situation.max_steps) if situation.may_start else None)
