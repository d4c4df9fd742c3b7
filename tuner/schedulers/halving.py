"""Successive halving."""

from __future__ import annotations

from collections.abc import Sequence

from ..trial import FrozenTrial, TrialState
from .base import PENDING, Decision, Scheduler, Segment, Situation

__all__ = ["SuccessiveHalving"]


class SuccessiveHalving(Scheduler):
    """Successive halving in brackets, by true promotions (Jamieson & Talwalkar 2016).

    Rungs lie at min_steps, min_steps * eta, ... and max_steps. With r of them a bracket is eta ** (r - 1) trials with
    consecutive numbers. All of them run to the first rung; the best 1 / eta go on to the next, paying only the added
    steps; and so on. A rung is decided when all of its trials are there, so the outcome does not depend on the order
    in which workers finish; meanwhile they begin the next bracket. The last bracket may be smaller.

    min_steps: the first rung; "auto" puts it so that there are four rungs, if max_steps allows.
    eta: reduction factor, at least 2.
    """

    def __init__(self, min_steps: int | str = "auto", eta: int = 3):
        if min_steps != "auto" and (not isinstance(min_steps, int) or min_steps < 1):
            raise ValueError(f"min_steps must be a whole number >= 1 or 'auto', got {min_steps!r}")
        if eta < 2:
            raise ValueError(f"eta must be at least 2, got {eta}")
        self.min_steps = min_steps
        self.eta = eta

    def rungs(self, max_steps: int) -> list[int]:
        """The steps at which trials are compared, the last being max_steps."""
        first = max(max_steps // self.eta**3, 1) if self.min_steps == "auto" else int(self.min_steps)
        steps = []
        while first < max_steps:
            steps.append(first)
            first *= self.eta
        return [*steps, max_steps]

    def decide(self, situation: Situation) -> Decision:
        rungs = self.rungs(situation.max_steps)
        size = self.eta ** (len(rungs) - 1)
        stop: list[int] = []
        brackets: dict[int, list[FrozenTrial]] = {}
        for trial in situation.trials:
            brackets.setdefault(trial.number // size, []).append(trial)
        for members in brackets.values():
            if all(trial.state.is_finished() for trial in members):
                continue
            closed = len(members) == size or not situation.may_start
            run = self._bracket(members, closed, rungs, situation, stop)
            if run is not None:
                return Decision(stop, run)
        return Decision(stop, Segment(None, rungs[0]) if situation.may_start else None)

    def _bracket(
        self, members: Sequence[FrozenTrial], closed: bool, rungs: list[int], situation: Situation, stop: list[int]
    ) -> Segment | None:
        """The bracket's next segment, if it has one to run now; adds the trials that end here to `stop`."""
        for rung in rungs:
            behind = [t for t in members if not t.state.is_finished() and t.steps < rung]
            for trial in behind:
                if trial.state in PENDING:
                    return Segment(trial.number, rung - trial.steps)
            if behind or not closed:
                return None
            ranked = situation.ranked([t for t in members if t.steps > 0 and t.state is not TrialState.FAIL], rung)
            kept = ranked[: max(len(members) // self.eta, 1)]
            if rung < rungs[-1]:
                stop += [t.number for t in ranked if t not in kept and t.state is TrialState.PAUSED]
            members = kept
        return None
