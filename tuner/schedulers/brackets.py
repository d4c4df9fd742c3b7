"""Trials in brackets, which are compared when all of them have arrived at a rung (Jamieson & Talwalkar 2016)."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ..trial import FrozenTrial, TrialState
from .base import PENDING, Decision, Scheduler, Segment, Situation

__all__ = ["Bracket", "Brackets", "geometric"]


@dataclass(frozen=True)
class Bracket:
    """counts[k] trials run up to steps[k] steps, k = 0, 1, ...; the last of the steps is the end."""

    counts: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.counts[0]


def geometric(first: int, eta: int, max_steps: int) -> tuple[int, ...]:
    """The rungs first, first * eta, first * eta ** 2, ... below max_steps, and max_steps."""
    steps = []
    while first < max_steps:
        steps.append(first)
        first *= eta
    return (*steps, max_steps)


class Brackets(Scheduler):
    """Trials with consecutive numbers form a bracket: all of them run to its first rung, the best of them go on to the
    next, paying only the added steps, and so on.

    A rung is decided when all of its trials are there, so the outcome does not depend on the order in which workers
    finish; meanwhile they begin the next bracket. The last bracket may be smaller, and keeps the same shares.
    """

    @abstractmethod
    def brackets(self, max_steps: int) -> list[Bracket]:
        """The brackets of one round; the next round has the same."""

    def decide(self, situation: Situation) -> Decision:
        layout = self.brackets(situation.max_steps)
        ends = list(accumulate(bracket.size for bracket in layout))
        groups: dict[tuple[int, int], list[FrozenTrial]] = {}
        for trial in situation.trials:
            groups.setdefault(_place(trial.number, ends), []).append(trial)
        stop: list[int] = []
        for (_, index), members in groups.items():
            if not all(trial.state.is_finished() for trial in members):
                closed = len(members) == layout[index].size or not situation.may_start
                run = _next(members, layout[index], closed, situation, stop)
                if run is not None:
                    return Decision(stop, run)
        if not situation.may_start:
            return Decision(stop)
        _, index = _place(situation.trials[-1].number + 1 if situation.trials else 0, ends)
        return Decision(stop, Segment(None, layout[index].steps[0]))

    def bracket_of(self, number: int, max_steps: int) -> tuple[tuple[int, int], Bracket]:
        """The bracket of a trial, after a key that its members share."""
        layout = self.brackets(max_steps)
        key = _place(number, list(accumulate(bracket.size for bracket in layout)))
        return key, layout[key[1]]


def _place(number: int, ends: Sequence[int]) -> tuple[int, int]:
    """(round, bracket within the round) of a trial. ends: after how many trials of a round each bracket is over."""
    turn, place = divmod(number, ends[-1])
    return turn, bisect_right(ends, place)


def _next(
    members: list[FrozenTrial], bracket: Bracket, closed: bool, situation: Situation, stop: list[int]
) -> Segment | None:
    """The bracket's next segment, if it has one to run now; adds the trials that end here to `stop`."""
    shares = [*(later / count for count, later in pairwise(bracket.counts)), 1.0]
    for rung, share in zip(bracket.steps, shares, strict=True):
        behind = [t for t in members if not t.state.is_finished() and t.steps < rung]
        for trial in behind:
            if trial.state in PENDING:
                return Segment(trial.number, rung - trial.steps)
        if behind or not closed:
            return None
        ranked = situation.ranked([t for t in members if t.steps > 0 and t.state is not TrialState.FAIL], rung)
        count = max(int(len(members) * share + 1e-9), 1)
        if rung < bracket.steps[-1]:
            stop += [t.number for t in ranked[count:] if t.state is TrialState.PAUSED]
        members = ranked[:count]
    return None
