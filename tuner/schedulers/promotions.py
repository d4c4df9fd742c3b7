"""Trials that wait at rungs and go on one by one, without waiting for each other (Li et al. 2020, algorithm 2)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from ..trial import FrozenTrial, TrialState
from .base import PENDING, Decision, Scheduler, Segment, Situation

__all__ = ["Promotions"]


class Promotions(Scheduler):
    """Whenever a worker is free: from the highest rung down, a trial that is among the best there and has not gone on
    yet goes on to the next rung; if there is none, a new trial is begun. So no worker is ever idle.

    Of trials with the very same curve (of one objective) only the first goes on. Once no more trials may be started,
    the best of each rung goes on even if the rung's share is less than one trial; then all that still wait are ended.
    """

    @abstractmethod
    def ladder(self, situation: Situation) -> tuple[Sequence[int], Sequence[float]]:
        """The rungs in steps, rising; and for each but the last the share of its trials that goes on."""

    def decide(self, situation: Situation) -> Decision:
        rungs, shares = self.ladder(situation)
        for trial in situation.trials:
            if trial.state in PENDING and trial.steps < rungs[0]:
                return Decision(run=Segment(trial.number, rungs[0] - trial.steps))
        for rung, goal, share in reversed(list(zip(rungs, rungs[1:], shares, strict=False))):
            trial = _promoted(situation, rung, goal, share)
            if trial is not None:
                return Decision(run=Segment(trial.number, goal - trial.steps))
        if situation.may_start:
            return Decision(run=Segment(None, rungs[0]))
        if any(trial.state is TrialState.RUNNING for trial in situation.trials):
            return Decision()
        waiting = [trial for trial in situation.trials if trial.state is TrialState.PAUSED]
        if waiting and rungs[-1] < situation.max_steps:  # the ladder ends early: its winner runs to the end
            furthest = max(trial.steps for trial in waiting)
            best = situation.ranked([t for t in waiting if t.steps == furthest], furthest)[0]
            return Decision([t.number for t in waiting if t is not best], Segment(best.number, _rest(best, situation)))
        return Decision([trial.number for trial in waiting])


def _rest(trial: FrozenTrial, situation: Situation) -> int:
    return situation.max_steps - trial.steps


def _promoted(situation: Situation, rung: int, goal: int, share: float) -> FrozenTrial | None:
    """The best trial that may go on from `rung` to `goal`, the next one; None if there is none."""
    if not any(t.state is TrialState.PAUSED and rung <= t.steps < goal for t in situation.trials):
        return None
    there = [t for t in situation.trials if t.steps >= rung or (t.state is TrialState.COMPLETE and t.steps > 0)]
    count = int(len(there) * share + 1e-9)
    if not situation.may_start:
        count = max(count, 1)
    if count == 0:
        return None
    losses = situation.losses(there, rung)
    before, curves = math.nan, []  # the last trial's loss, and the curves of all with that loss
    for place in np.lexsort(([trial.number for trial in there], losses)).tolist():
        trial = there[place]
        if losses[place] != before:
            before, curves = losses[place], [trial]
        elif any(_same(trial, other, rung) for other in curves):
            continue
        else:
            curves.append(trial)
        if trial.state is TrialState.PAUSED and trial.steps < goal:
            return trial
        count -= 1
        if count == 0:
            return None
    return None


def _same(one: FrozenTrial, other: FrozenTrial, steps: int) -> bool:
    """Whether two curves have the same values up to so many steps."""
    a, b = one.intermediate_values, other.intermediate_values
    return all(a.get(step) == b.get(step) for step in range(1, steps + 1))
