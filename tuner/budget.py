"""How much of its limits an optimization has used, and whether another piece of work fits."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from numbers import Real
from typing import TYPE_CHECKING, Any

from .errors import TrialLost

if TYPE_CHECKING:
    from .optimization import Job
    from .study import Study
    from .trial import FrozenTrial

__all__ = ["Budget"]

COST, SECONDS = "cost", "seconds_spent"
NOTED = 2.0  # seconds between two notes of the time that was spent


class Budget:
    """The limits of one call of `Study.optimize` in seconds, steps and cost, which are described there.

    What a trial has cost stands in its `user_attrs["cost"]`. It is, in this order, what `Trial.report_cost` said, what
    the resumable's `cost(params, steps)` says, and the seconds that workers spent on it.
    """

    def __init__(
        self,
        study: Study,
        objective: Any,
        *,
        timeout: float | None,
        n_steps: int | None,
        cost: float | None,
        total: bool,
        total_seconds: float | None,
        total_steps: int | None,
        total_cost: float | None,
    ):
        for name, limit in (
            ("n_steps", n_steps),
            ("cost", cost),
            ("total_seconds", total_seconds),
            ("total_steps", total_steps),
            ("total_cost", total_cost),
        ):
            if limit is not None and (not isinstance(limit, Real) or not limit >= 0):
                raise ValueError(f"{name} must be a number >= 0, got {limit!r}")
        if timeout is not None and (not isinstance(timeout, Real) or math.isnan(timeout)):
            raise ValueError(f"timeout must be a number of seconds or None, got {timeout!r}")
        self.study = study
        self.price = getattr(objective, "cost", None)
        self.own_steps, self.all_steps = _limits(n_steps, total_steps, total)
        self.own_cost, self.all_cost = _limits(cost, total_cost, total)
        self._begin = time.monotonic()
        self._steps, self._cost = 0, 0.0
        self._told = False
        """Whether the objective reports costs."""
        self._counts_time = total_seconds is not None
        self._earlier = float(study.user_attrs.get(SECONDS, 0.0)) if self._counts_time else 0.0
        self._noted = self._begin
        left = (math.inf if timeout is None else timeout, (total_seconds or 0) - self._earlier)
        self.deadline = self._begin + (min(left) if self._counts_time else left[0])

    @property
    def counts_cost(self) -> bool:
        return self.own_cost is not None or self.all_cost is not None

    def fits(self, running: Iterable[Job], params: Any = None, steps: int = 0) -> bool:
        """Whether there is room for a piece of work of so many steps, besides what is running.

        A cost that is known beforehand must fit as well; measured ones end the study once they have reached the limit.
        """
        running = list(running)
        if self.own_steps is not None or self.all_steps is not None:
            more = steps + sum(job.steps for job in running)
            if self.own_steps is not None and self._steps + more > self.own_steps:
                return False
            if self.all_steps is not None and sum(t.steps for t in self._trials()) + more > self.all_steps:
                return False
        if self.counts_cost:
            now = time.monotonic()
            unknown = 0.0 if self._told else 1.0  # in a unit of the objective's own, time says nothing
            out = sum(unknown * (now - job.begun) if job.cost is None else job.cost for job in running)
            price = self.price_of(params, steps) if params is not None else None
            for spent, limit in ((self._cost, self.own_cost), (self._all_cost, self.all_cost)):
                if limit is None:
                    continue
                before = out + (spent() if callable(spent) else spent)
                if before >= limit if price is None else before + price > limit * (1 + 1e-12):
                    return False
        return True

    def price_of(self, params: Any, steps: int) -> float | None:
        """What so many steps with these settings cost, if that is known beforehand."""
        return None if self.price is None or not self.counts_cost else float(self.price(params, steps))

    def charge(self, job: Job, seconds: float) -> None:
        """Note what a job has cost that is over; seconds: that its worker spent. Before the trial's end is recorded."""
        if not self.counts_cost:
            return
        trial = job.trial
        before = job.spent
        known = self.study.storage.trial(self.study.study_id, trial.number).user_attrs.get(COST, 0.0)
        if known != before:  # the objective has told
            self._told = True
            self._cost += known - before
            return
        spent = seconds if job.cost is None else job.cost
        self._cost += spent
        with suppress(TrialLost):
            self.study.storage.set_user_attr(self.study.study_id, trial.number, trial._attempt, COST, before + spent)

    def add_steps(self, count: int) -> None:
        self._steps += count

    def note_time(self, last: bool = False) -> None:
        """Keep with the study how long it was worked on, if a later call shall know."""
        now = time.monotonic()
        if self._counts_time and (last or now - self._noted > NOTED):
            self.study.set_user_attr(SECONDS, self._earlier + now - self._begin)
            self._noted = now

    def _trials(self) -> Sequence[FrozenTrial]:
        return self.study.storage.trials(self.study.study_id)

    def _all_cost(self) -> float:
        return sum(map(self._cost_of, self._trials()))

    def _cost_of(self, trial: FrozenTrial) -> float:
        """A trial that ran while nobody counted costs what it would, or the seconds from its start to its end."""
        if COST in trial.user_attrs:
            return trial.user_attrs[COST]
        if self.price is not None and trial.params:
            return float(self.price(trial.params, trial.steps))
        return 0.0 if trial.duration is None else trial.duration.total_seconds()


def _limits(limit: Any, in_all: Any, total: bool) -> tuple[Any, Any]:
    """(limit of this call, limit of the study)."""
    if not total or limit is None:
        return limit, in_all
    return None, limit if in_all is None else min(limit, in_all)
