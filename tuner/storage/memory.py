"""Studies in this process's memory: fast, shared by threads, gone at exit. Values need not be JSON-able."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..errors import DuplicatedStudyError, StorageError, TrialLost
from ..space import Domain
from ..trial import FrozenTrial, TrialState
from .base import Claim, Storage, StudyRecord
from .checkpoints import MemoryCheckpoints

__all__ = ["MemoryStorage"]


class MemoryStorage(Storage):
    """Studies as lists of records, each replaced by a new one when it changes."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._studies: list[StudyRecord] = []
        self._attrs: list[dict[str, Any]] = []
        self._trials: list[list[FrozenTrial]] = []
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
            self._trials.append([])
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
            trials = self._trials[study_id]
            if at_most is not None and self._started(study_id) >= at_most:
                return None
            if proposals_at_most is not None and sum(not t.enqueued for t in trials) >= proposals_at_most:
                return None
            self._owners[study_id, len(trials)] = owner
            trials.append(FrozenTrial(len(trials), datetime_start=datetime.now(), attempt=1))
            return Claim(len(trials) - 1, 1)

    def enqueue_trial(self, study_id: int, fixed: Mapping[str, Any], user_attrs: Mapping[str, Any]) -> int:
        with self._lock:
            number = len(self._trials[study_id])
            self._trials[study_id].append(
                FrozenTrial(number, TrialState.WAITING, fixed=dict(fixed), user_attrs=dict(user_attrs), enqueued=True)
            )
            return number

    def claim(
        self, study_id: int, number: int | None = None, owner: str | None = None, at_most: int | None = None
    ) -> Claim | None:
        with self._lock:
            trials = self._trials[study_id]
            if number is None:
                number = next((t.number for t in trials if t.state is TrialState.WAITING), None)
            if number is None or trials[number].state not in (TrialState.WAITING, TrialState.PAUSED):
                return None
            trial = trials[number]
            if trial.state is TrialState.WAITING and at_most is not None and self._started(study_id) >= at_most:
                return None
            self._owners[study_id, number] = owner
            trials[number] = replace(
                trial,
                state=TrialState.RUNNING,
                attempt=trial.attempt + 1,
                datetime_start=trial.datetime_start or datetime.now(),
            )
            return Claim(number, trial.attempt + 1)

    def release_all(self, study_id: int, owner: str) -> None:
        with self._lock:
            for trial in self.trials(study_id):
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
    ) -> None:
        with self._lock:
            trial = self._running(study_id, number, attempt)
            self._put(study_id, trial, params=trial.params | params, distributions=trial.distributions | distributions)

    def set_user_attr(self, study_id: int, number: int, attempt: int, key: str, value: Any) -> None:
        with self._lock:
            trial = self._running(study_id, number, attempt)
            self._put(study_id, trial, user_attrs=trial.user_attrs | {key: value})

    def report(self, study_id: int, number: int, attempt: int, step: int, value: float) -> None:
        with self._lock:
            trial = self._running(study_id, number, attempt)
            self._put(study_id, trial, intermediate_values=trial.intermediate_values | {step: value})

    def add_segment(self, study_id: int, number: int, attempt: int, values: Sequence[float]) -> None:
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
        segment: Sequence[float] = (),
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
        return list(self._trials[study_id])

    def trial(self, study_id: int, number: int) -> FrozenTrial:
        if not 0 <= number < len(self._trials[study_id]):
            raise KeyError(f"the study has no trial {number}")
        return self._trials[study_id][number]

    def checkpoints(self, study_id: int) -> MemoryCheckpoints:
        return self._checkpoints[study_id]

    def _started(self, study_id: int) -> int:
        return sum(t.state is not TrialState.WAITING for t in self._trials[study_id])

    def _running(self, study_id: int, number: int, attempt: int, *also: TrialState) -> FrozenTrial:
        trial = self.trial(study_id, number)
        if trial.state not in (TrialState.RUNNING, *also) or trial.attempt != attempt:
            raise TrialLost(f"trial {number} is {trial.state.name} in attempt {trial.attempt}, not yours ({attempt})")
        return trial

    def _put(self, study_id: int, trial: FrozenTrial, **changes: Any) -> None:
        self._trials[study_id][trial.number] = replace(trial, **changes)


def _longer(trial: FrozenTrial, values: Sequence[float]) -> dict[str, Any]:
    """The changes to a trial whose curve has grown by these values."""
    added = {trial.steps + i: float(value) for i, value in enumerate(values, 1)}
    return {"steps": trial.steps + len(added), "intermediate_values": trial.intermediate_values | added}
