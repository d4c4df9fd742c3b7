"""What a storage does: keep studies and trials, hand each trial to one worker at a time, and never lose one.

A trial that is handed out carries an attempt number. Every change to it names that attempt and raises `TrialLost`
if the trial has meanwhile been ended, released or handed to somebody else, so a worker that comes back from the
dead cannot spoil its successor's work.

    WAITING --claim--> RUNNING --finish--> COMPLETE | PRUNED | FAIL
                          |  ^
              add_segment |  | claim           release, adopt_abandoned: RUNNING -> WAITING, or PAUSED if it has
                          v  |                 steps that are kept
                         PAUSED --finish--> PRUNED
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..space import Domain
from ..trial import FrozenTrial, TrialState

MAX_CRASHES = 3
"""A trial whose process died this often is failed instead of being run again."""


@dataclass(frozen=True)
class StudyRecord:
    """A study as the storage has it."""

    study_id: int
    name: str
    directions: tuple[str, ...]
    seed: int
    space: str | None
    """JSON of the fixed space; None for define-by-run."""


@dataclass(frozen=True)
class Claim:
    """A trial that was handed to the caller."""

    number: int
    attempt: int


def same_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether names and values are the same, in any order; 1, 1.0 and True differ, NaN equals itself."""
    if one.keys() != other.keys():
        return False
    pairs = ((value, other[name]) for name, value in one.items())
    return all((type(a) is not float or a == b or a != a) and _written(a) == _written(b) for a, b in pairs)


def _written(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


class Storage(ABC):
    """Keeps studies. Safe for several threads; `SqliteStorage` for several processes too."""

    # ----------------------------------------------------------------------------------------- studies

    @abstractmethod
    def create_study(self, name: str, directions: Sequence[str], seed: int, space: str | None) -> StudyRecord:
        """A new study; DuplicatedStudyError if the name is taken."""

    @abstractmethod
    def study(self, name: str) -> StudyRecord | None:
        """The study of that name, if there is one."""

    @abstractmethod
    def study_names(self) -> list[str]: ...

    @abstractmethod
    def study_attrs(self, study_id: int) -> dict[str, Any]:
        """The study's user attributes."""

    @abstractmethod
    def set_study_attr(self, study_id: int, key: str, value: Any) -> None: ...

    @abstractmethod
    def set_space(self, study_id: int, space: str | None) -> None:
        """Give the study another fixed space, as JSON."""

    # ------------------------------------------------------------------------------- handing out trials

    @abstractmethod
    def create_trial(
        self,
        study_id: int,
        owner: str | None = None,
        at_most: int | None = None,
        proposals_at_most: int | None = None,
    ) -> Claim | None:
        """A new running trial under the next number.

        None if `at_most` trials were started already, or `proposals_at_most` trials that were not enqueued exist.
        A trial with an owner (see `owner.py`) is released by `release_all`, or when that process is found dead.
        """

    @abstractmethod
    def enqueue_trial(self, study_id: int, fixed: Mapping[str, Any], user_attrs: Mapping[str, Any]) -> int:
        """A new waiting trial with these settings given; its number."""

    @abstractmethod
    def claim(
        self, study_id: int, number: int | None = None, owner: str | None = None, at_most: int | None = None
    ) -> Claim | None:
        """Take a waiting or paused trial: that one, or the first waiting one.

        None if it is not to be had, or a waiting one would be more than `at_most` started trials.
        """

    @abstractmethod
    def release_all(self, study_id: int, owner: str) -> None:
        """Release every running trial of this owner."""

    @abstractmethod
    def adopt_abandoned(self, study_id: int) -> list[int]:
        """Release running trials whose process is dead; fail those that crashed too often. Their numbers."""

    @abstractmethod
    def alive(self) -> AbstractContextManager[None]:
        """While inside, other processes can tell that this one lives."""

    # ----------------------------------------------------------------------------- changing a running trial

    @abstractmethod
    def set_params(
        self,
        study_id: int,
        number: int,
        attempt: int,
        params: Mapping[str, Any],
        distributions: Mapping[str, Domain],
        distinct: bool = False,
    ) -> bool:
        """Add settings to the trial's. Whether that was done.

        With distinct=True nothing changes and the answer is False if another unfinished trial of the study has just
        the settings that this one would have; of two that ask at the same time, one is refused. A trial without
        settings equals no other.
        """

    @abstractmethod
    def set_user_attr(self, study_id: int, number: int, attempt: int, key: str, value: Any) -> None: ...

    @abstractmethod
    def report(self, study_id: int, number: int, attempt: int, step: int, value: float | list[float]) -> None: ...

    @abstractmethod
    def add_segment(self, study_id: int, number: int, attempt: int, values: Sequence[Any]) -> None:
        """Append values to the trial's curve and pause it: its steps so far are kept from now on.

        With several objectives each value is a list.
        """

    @abstractmethod
    def release(self, study_id: int, number: int, attempt: int) -> None:
        """Give an unfinished trial back: paused if it has kept steps, else waiting, to be run again."""

    @abstractmethod
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
        """End a trial that is running or paused, `segment` being the last values of its curve.

        It is on disk when this returns.
        """

    # ------------------------------------------------------------------------------------------ reading

    @abstractmethod
    def trials(self, study_id: int) -> list[FrozenTrial]:
        """All trials by number. Shared records: do not change their dicts."""

    @abstractmethod
    def trial(self, study_id: int, number: int) -> FrozenTrial:
        """One trial; KeyError if there is none of that number."""

    @abstractmethod
    def checkpoints(self, study_id: int) -> Any:
        """Where states of this study's resumable trials are kept: see `checkpoints.py`."""

    def close(self) -> None:  # noqa: B027 - most storages have nothing to close
        """Let go of files; the storage may not be used afterwards."""
