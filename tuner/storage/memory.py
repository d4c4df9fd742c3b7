"""Studies in this process's memory: fast, shared by threads, gone at exit. Values need not be JSON-able."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..errors import DuplicatedStudyError, StorageError, TrialLost
from ..space import Domain
from ..trial import FrozenTrial, TrialState
from .base import Claim, Storage, StudyRecord, same_settings
from .checkpoints import MemoryCheckpoints

__all__ = ["MemoryStorage"]


class MemoryStorage(Storage):
    """Studies as lists of records, each replaced by a new one when it changes."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._studies: list[StudyRecord] = []
        self._attrs: list[dict[str, Any]] = []
        self._tables: list[_Table] = []
        self._checkpoints: list[MemoryCheckpoints] = []
        self._owners: dict[tuple[int, int], str | None] = {}

    def __reduce__(self) -> Any:
        raise StorageError("a study in memory cannot go to another process; give it storage='sqlite:///FILE'")

    def create_study(self, name: str, directions: Sequence[str], seed: int, space: str | None) -> StudyRecord:
        with self._lock:
            if self.study(name) is not None:
                raise DuplicatedStudyError(f"memory holds a study named {name!r} already; load_if_exists=True goes on")
            record = StudyRecord(len(self._studies), name, tuple(directions), seed, space)
            self._studies.append(record)
            self._attrs.append({})
            self._tables.append(_Table())
            self._checkpoints.append(MemoryCheckpoints())
            return record

    def study(self, name: str) -> StudyRecord | None:
        return next((record for record in self._studies if record.name == name), None)

    def study_names(self) -> list[str]:
        return [record.name for record in self._studies]

    def study_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._attrs[study_id])

    def set_study_attr(self, study_id: int, key: str, value: Any) -> None:
        self._attrs[study_id][key] = value

    def set_space(self, study_id: int, space: str | None) -> None:
        self._studies[study_id] = replace(self._studies[study_id], space=space)

    def create_trial(
        self,
        study_id: int,
        owner: str | None = None,
        at_most: int | None = None,
        proposals_at_most: int | None = None,
    ) -> Claim | None:
        with self._lock:
            table = self._tables[study_id]
            number = len(table.trials)
            if at_most is not None and table.started >= at_most:
                return None
            if proposals_at_most is not None and number - table.enqueued >= proposals_at_most:
                return None
            self._owners[study_id, number] = owner
            table.put(FrozenTrial(number, datetime_start=datetime.now(), attempt=1))
            return Claim(number, 1)

    def enqueue_trial(self, study_id: int, fixed: Mapping[str, Any], user_attrs: Mapping[str, Any]) -> int:
        with self._lock:
            table = self._tables[study_id]
            number = len(table.trials)
            table.put(
                FrozenTrial(number, TrialState.WAITING, fixed=dict(fixed), user_attrs=dict(user_attrs), enqueued=True)
            )
            return number

    def claim(
        self, study_id: int, number: int | None = None, owner: str | None = None, at_most: int | None = None
    ) -> Claim | None:
        with self._lock:
            table = self._tables[study_id]
            if number is None:
                number = table.first_waiting()
            if number is None or table.trials[number].state not in (TrialState.WAITING, TrialState.PAUSED):
                return None
            trial = table.trials[number]
            if trial.state is TrialState.WAITING and at_most is not None and table.started >= at_most:
                return None
            self._owners[study_id, number] = owner
            start = trial.datetime_start or datetime.now()
            table.put(replace(trial, state=TrialState.RUNNING, attempt=trial.attempt + 1, datetime_start=start))
            return Claim(number, trial.attempt + 1)

    def release_all(self, study_id: int, owner: str) -> None:
        with self._lock:
            for trial in self._tables[study_id].unfinished():
                if trial.state is TrialState.RUNNING and self._owners[study_id, trial.number] == owner:
                    self.release(study_id, trial.number, trial.attempt)

    def adopt_abandoned(self, study_id: int) -> list[int]:
        return []  # a process that dies takes its memory along

    def alive(self) -> AbstractContextManager[None]:
        return nullcontext()

    def set_params(
        self,
        study_id: int,
        number: int,
        attempt: int,
        params: Mapping[str, Any],
        distributions: Mapping[str, Domain],
        distinct: bool = False,
    ) -> bool:
        with self._lock:
            trial = self._running(study_id, number, attempt)
            merged = trial.params | params
            others = (t for t in self._tables[study_id].unfinished() if t.number != number)
            if distinct and merged and any(same_settings(t.params, merged) for t in others):
                return False
            self._put(study_id, trial, params=merged, distributions=trial.distributions | distributions)
            return True

    def set_user_attr(self, study_id: int, number: int, attempt: int, key: str, value: Any) -> None:
        with self._lock:
            trial = self._running(study_id, number, attempt)
            self._put(study_id, trial, user_attrs=trial.user_attrs | {key: value})

    def report(self, study_id: int, number: int, attempt: int, step: int, value: float | list[float]) -> None:
        with self._lock:
            trial = self._running(study_id, number, attempt)
            self._put(study_id, trial, intermediate_values=trial.intermediate_values | {step: value})

    def add_segment(self, study_id: int, number: int, attempt: int, values: Sequence[Any]) -> None:
        with self._lock:
            trial = self._running(study_id, number, attempt)
            self._put(study_id, trial, state=TrialState.PAUSED, **_longer(trial, values))

    def release(self, study_id: int, number: int, attempt: int) -> None:
        with self._lock:
            trial = self._running(study_id, number, attempt)
            if trial.steps:
                self._put(study_id, trial, state=TrialState.PAUSED)
            else:
                self._put(study_id, trial, state=TrialState.WAITING, intermediate_values={})

    def finish(
        self,
        study_id: int,
        number: int,
        attempt: int,
        state: TrialState,
        values: Sequence[float] | None,
        error: str | None = None,
        segment: Sequence[Any] = (),
    ) -> None:
        with self._lock:
            trial = self._running(study_id, number, attempt, TrialState.PAUSED)
            self._put(
                study_id,
                trial,
                state=TrialState(state),
                values=None if values is None else [float(v) for v in values],
                error=error,
                datetime_complete=datetime.now(),
                **_longer(trial, segment),
            )

    def trials(self, study_id: int) -> list[FrozenTrial]:
        return list(self._tables[study_id].trials)

    def trial(self, study_id: int, number: int) -> FrozenTrial:
        trials = self._tables[study_id].trials
        if not 0 <= number < len(trials):
            raise KeyError(f"the study has no trial {number}")
        return trials[number]

    def checkpoints(self, study_id: int) -> MemoryCheckpoints:
        return self._checkpoints[study_id]

    def _running(self, study_id: int, number: int, attempt: int, *also: TrialState) -> FrozenTrial:
        trial = self.trial(study_id, number)
        if trial.state not in (TrialState.RUNNING, *also) or trial.attempt != attempt:
            raise TrialLost(f"trial {number} is {trial.state.name} in attempt {trial.attempt}, not yours ({attempt})")
        return trial

    def _put(self, study_id: int, trial: FrozenTrial, **changes: Any) -> None:
        self._tables[study_id].put(replace(trial, **changes))


class _Table:
    """A study's trials by number, and what one wants to know of them without looking at each."""

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []
        self.enqueued = 0
        self._open: set[int] = set()
        self._waiting: set[int] = set()
        self._queue: list[int] = []
        """A heap with every waiting trial; one that waits no more stays in it until it is met."""

    @property
    def started(self) -> int:
        return len(self.trials) - len(self._waiting)

    def put(self, trial: FrozenTrial) -> None:
        """The trial in place of the one with its number, or a new one under the next number."""
        number = trial.number
        if number == len(self.trials):
            self.trials.append(trial)
            self.enqueued += trial.enqueued
        else:
            self.trials[number] = trial
        (self._open.discard if trial.state.is_finished() else self._open.add)(number)
        if trial.state is not TrialState.WAITING:
            self._waiting.discard(number)
        elif number not in self._waiting:
            self._waiting.add(number)
            heapq.heappush(self._queue, number)

    def first_waiting(self) -> int | None:
        while self._queue and self._queue[0] not in self._waiting:
            heapq.heappop(self._queue)
        return self._queue[0] if self._queue else None

    def unfinished(self) -> list[FrozenTrial]:
        return [self.trials[number] for number in self._open]


def _longer(trial: FrozenTrial, values: Sequence[Any]) -> dict[str, Any]:
    """The changes to a trial whose curve has grown by these values."""
    added = {trial.steps + i: value for i, value in enumerate(values, 1)}
    return {"steps": trial.steps + len(added), "intermediate_values": trial.intermediate_values | added}
