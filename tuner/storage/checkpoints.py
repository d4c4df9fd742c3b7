"""Where the states of resumable trials wait between two segments.

    take(number, step, task) -> state or None    put(number, step, state, task)    copy(number, step, child, task)
    drop(number, keep)    sweep(ended)

A state is filed under (trial number, steps done). One that is missing or damaged is no loss: its trial is run again
from the start up to that step. A worker takes a state out, so a segment that dies leaves nothing half advanced.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Container
from pathlib import Path
from typing import Any

from ..errors import StorageError

__all__ = ["FileCheckpoints", "MemoryCheckpoints"]

LIVE = 32  # states that are kept in memory beside their files
STALE = 3600.0  # seconds after which a file half written is nobody's any more


class MemoryCheckpoints:
    """States kept as they are, in this process."""

    def __init__(self) -> None:
        self._states: dict[tuple[int, int], Any] = {}

    def take(self, number: int, step: int, task: Any) -> Any:
        """The state of trial `number` after `step` steps, which is then no longer here; None if there is none."""
        return self._states.pop((number, step), None)

    def put(self, number: int, step: int, state: Any, task: Any) -> None:
        self._states[number, step] = state

    def copy(self, number: int, step: int, child: int, task: Any) -> None:
        """File a copy of the trial's state as that of `child` after 0 steps; nothing if there is none."""
        state = self._states.get((number, step))
        if state is not None:
            self._states[child, 0] = _copied(state, task)

    def drop(self, number: int, keep: int | None = None) -> None:
        """Forget the trial's states, but for the one after `keep` steps."""
        for key in [key for key in list(self._states) if key[0] == number and key[1] != keep]:
            self._states.pop(key, None)

    def shrink(self, count: int) -> None:
        """Forget the oldest states but for so many."""
        keys = list(self._states)
        for key in keys[: max(len(keys) - count, 0)]:
            self._states.pop(key, None)

    def sweep(self, ended: Container[int]) -> None:
        """Forget the states of trials that ended."""
        for number in {number for number, _ in list(self._states) if number in ended}:
            self.drop(number)


class FileCheckpoints:
    """States written by the task's own `save(state, path)` and read by its `load(path)`, a file each.

    study: begins the names of the study's files, "3_89abcdef": its number, and what tells it from another study of that
    number in an earlier file of the same name.
    home: the study's own file. A worker on a machine that does not see it keeps no states.

    A file appears whole or not at all. The latest states are kept in memory as well, which saves reading them back.
    Tasks without `save` and `load` keep all states in memory.
    """

    def __init__(self, folder: Path, study: str, home: Path):
        self.folder = folder
        self.study = study
        self.home = home
        self._memory = MemoryCheckpoints()

    def __reduce__(self) -> Any:
        return FileCheckpoints, (self.folder, self.study, self.home)

    def take(self, number: int, step: int, task: Any) -> Any:
        """The state of trial `number` after `step` steps; None if there is none that can be read."""
        state = self._memory.take(number, step, task)
        if state is not None or not _saves(task):
            return state
        path = self._path(number, step, task)
        try:
            return task.load(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            warnings.warn(
                f"{path} cannot be used, so trial {number} is run again from its start: {error}", stacklevel=2
            )
            return None

    def put(self, number: int, step: int, state: Any, task: Any) -> None:
        """Write the state's file. StorageError if that fails."""
        self._memory.put(number, step, state, task)
        if not _saves(task) or not self.home.exists():
            return
        self._memory.shrink(LIVE)
        path = self._path(number, step, task)
        partial = path.with_name(f".{uuid.uuid4().hex}{getattr(task, 'suffix', '')}")
        try:
            self.folder.mkdir(exist_ok=True)
            task.save(state, partial)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise StorageError(f"{path}: a checkpoint could not be written: {error}") from error

    def copy(self, number: int, step: int, child: int, task: Any) -> None:
        """File a copy of the trial's state as that of `child` after 0 steps; nothing if there is none."""
        if not _saves(task):
            self._memory.copy(number, step, child, task)
            return
        with contextlib.suppress(OSError):  # without it the parent is run again
            partial = self.folder / f".{uuid.uuid4().hex}"
            shutil.copyfile(self._path(number, step, task), partial)
            os.replace(partial, self._path(child, 0, task))

    def drop(self, number: int, keep: int | None = None) -> None:
        """Remove the trial's files, but for the one after `keep` steps."""
        self._memory.drop(number, keep)
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"{self.study}-{number}-*"):
                if keep is None or path.name.split(".")[0] != f"{self.study}-{number}-{keep}":
                    path.unlink(missing_ok=True)

    def sweep(self, ended: Container[int]) -> None:
        """Remove what processes that were killed left behind: files of ended trials, and files half written."""
        self._memory.sweep(ended)
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"{self.study.split('_')[0]}_*-*-*"):
                study, number, _ = path.name.split("-", 2)
                if study != self.study or int(number) in ended:
                    path.unlink(missing_ok=True)
            for path in self.folder.glob(".*"):
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink(missing_ok=True)

    def _path(self, number: int, step: int, task: Any) -> Path:
        return self.folder / f"{self.study}-{number}-{step}{getattr(task, 'suffix', '')}"


def _saves(task: Any) -> bool:
    return hasattr(task, "save") and hasattr(task, "load")


def _copied(state: Any, task: Any) -> Any:
    """A state that shares nothing with this one: saved and loaded again where the task can, else a deep copy."""
    if not _saves(task):
        return copy.deepcopy(state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"state{getattr(task, 'suffix', '')}"
        task.save(state, path)
        return task.load(path)
