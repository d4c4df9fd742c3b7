"""Successive halving with results from the start, and a look at each trial before it runs on all folds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..pareto import HUGE
from ..trial import FrozenTrial, TrialState
from .base import PENDING, Decision, Scheduler, Segment, Situation

__all__ = ["GrowingBrackets"]

LEAST = 3  # trials that must have run on all folds before the spread between folds is known


class GrowingBrackets(Scheduler):
    """Successive halving (Jamieson & Talwalkar 2016) in brackets of 1, eta, eta^2, ... trials, up to eta^(rungs - 1).

    The first trial runs to its end, then the best of eta trials does, and so on: there is a result of full length
    before many trials have begun, whatever the budget. Each rung of a bracket is decided when all of its trials are
    there, so that the outcome does not depend on the order in which workers finish.

    rungs: the steps at which trials are compared, rising; the last one is where they end. eta: at a rung the best
    1 / eta of a bracket go on, at least one. largest: the number of trials at which brackets stop growing, in place of
    eta^(rungs - 1).
    folds: if above 1, the steps to the first rung are as many equal parts, one for each fold of a cross-validation,
    and the value at the end of a part is the mean over the folds so far. After its first fold a trial ends if it is
    worse than the last one to be promoted, on the same fold, by more than

        margin sd(E) sqrt(1 - 1 / folds),      S_tk = mean + trial_t + fold_k + E_tk

    which is what a trial's mean over all folds may differ from its first, the fold's own difficulty aside. sd(E) is
    that of the trials of earlier brackets. (A race as in Maron & Moore 1994. With several objectives all trials run on
    all folds.)
    """

    def __init__(
        self, rungs: Sequence[int], eta: int = 3, folds: int = 1, margin: float = 2.0, largest: int | None = None
    ):
        self.rungs = [int(rung) for rung in rungs]
        if not self.rungs or self.rungs[0] < 1 or any(b <= a for a, b in zip(self.rungs, self.rungs[1:], strict=False)):
            raise ValueError(f"rungs must be whole numbers of at least 1, each above the one before, got {rungs!r}")
        if eta < 2:
            raise ValueError(f"eta must be at least 2, got {eta}")
        if folds < 1 or self.rungs[0] % folds:
            raise ValueError(f"folds must divide the first rung, {self.rungs[0]}, got {folds}")
        if not margin >= 0:
            raise ValueError(f"margin must be a number of at least 0, got {margin!r}")
        if largest is not None and largest < 1:
            raise ValueError(f"largest must be at least 1, got {largest}")
        self.eta, self.folds, self.margin = eta, folds, margin
        self.largest = largest or eta ** (len(self.rungs) - 1)

    def bracket(self, number: int) -> tuple[int, int]:
        """(number of the first trial, number of trials) of the bracket that a trial belongs to."""
        begin, size = 0, 1
        while number >= begin + size:
            begin, size = begin + size, min(size * self.eta, self.largest)
        return begin, size

    def decide(self, situation: Situation) -> Decision:
        if situation.max_steps != self.rungs[-1]:
            raise ValueError(f"the last rung is {self.rungs[-1]}, max_steps is {situation.max_steps}")
        stop: list[int] = []
        begin = 0
        while begin < len(situation.trials):
            _, size = self.bracket(begin)
            members = situation.trials[begin : begin + size]
            closed = len(members) == size or not situation.may_start
            if not all(trial.state.is_finished() for trial in members):
                run = self._next(members, closed, situation, situation.trials[:begin], stop)
                if run is not None:
                    return Decision(stop, run)
            begin += size
        first = self.rungs[0] // self.folds
        return Decision(stop, Segment(None, first) if situation.may_start else None)

    def _next(
        self,
        members: Sequence[FrozenTrial],
        closed: bool,
        situation: Situation,
        earlier: Sequence[FrozenTrial],
        stop: list[int],
    ) -> Segment | None:
        """The bracket's next segment, if it has one to run now; adds the trials that end here to `stop`."""
        looks = [self.rungs[0] // self.folds, *self.rungs] if self.folds > 1 else self.rungs
        for step in looks:
            behind = [t for t in members if not t.state.is_finished() and t.steps < step]
            for trial in behind:
                if trial.state in PENDING:
                    return Segment(trial.number, step - trial.steps)
            if behind or not closed:
                return None
            ranked = situation.ranked([t for t in members if t.steps > 0 and t.state is not TrialState.FAIL], step)
            promoted = max(len(members) // self.eta, 1)
            if step < self.rungs[0]:
                allowed = self._allowed(earlier, situation)
                if allowed is None:
                    return None
                losses = situation.losses(ranked, step)
                promoted = int(np.sum(losses <= losses[promoted - 1 : promoted].max(initial=-math.inf) + allowed))
            kept = ranked[:promoted]
            if step < self.rungs[-1]:
                stop += [t.number for t in ranked[promoted:] if t.state is TrialState.PAUSED]
            members = kept
        return None

    def _allowed(self, earlier: Sequence[FrozenTrial], situation: Situation) -> float | None:
        """By how much a trial may be behind after its first fold; None while earlier trials are on their way."""
        if any(not t.state.is_finished() and t.steps < self.rungs[0] for t in earlier):
            return None
        if len(situation.signs) > 1:
            return math.inf
        each = self.rungs[0] // self.folds
        curves = (t.intermediate_values for t in earlier if t.steps >= self.rungs[0] and t.state is not TrialState.FAIL)
        means = np.array([[curve[each * (k + 1)] for k in range(self.folds)] for curve in curves])
        means = np.clip(means.reshape(-1, self.folds), -HUGE, HUGE)
        if len(means) < LEAST:
            return math.inf
        scores = np.diff(means * np.arange(1, self.folds + 1), axis=1, prepend=0.0)
        rest = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
        deviation = math.sqrt(np.sum(rest**2) / ((len(means) - 1) * (self.folds - 1)))
        return self.margin * deviation * math.sqrt(1 - 1 / self.folds)
