"""What samplers learn from: earlier trials as arrays."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..pareto import bounded
from ..space import Space
from ..trial import FrozenTrial, TrialState

__all__ = ["History", "Observations", "Table"]

ENOUGH = 10
"""Trials are compared at a step that so many have reached, or 2 for each parameter and 2 more: samplers that learn want
as many before they do."""


@dataclass(frozen=True)
class Observations:
    """Earlier trials whose settings lie in the space, by number; one row for each. Do not change the arrays."""

    numbers: np.ndarray
    """int64 (n,)"""
    points: np.ndarray
    """float64 (n, dimensions): where `Space.encode` puts the settings; NaN where a trial lacks a parameter."""
    losses: np.ndarray
    """float64 (n, objectives): values with their sign, the smaller the better; NaN without a value. Finite ones are at
    most 1e150 in size, so that samplers can square them."""
    violations: np.ndarray
    """float64 (n,): the sum of what exceeds 0 among the trial's constraints; 0 is feasible."""
    failed: np.ndarray
    """bool (n,): ended without a value: diverged, raised, or gave NaN."""
    steps: np.ndarray
    """int64 (n,): the step that the loss belongs to; 0 for the final value of a trial without a curve."""

    @cached_property
    def pending(self) -> np.ndarray:
        """bool (n,): without a value and not failed: still running, or waiting to."""
        return ~self.done & ~self.failed

    @cached_property
    def done(self) -> np.ndarray:
        """bool (n,): has a value."""
        return ~np.isnan(self.losses).any(axis=1)

    def __len__(self) -> int:
        return len(self.numbers)


class Table:
    """Keeps what was read from trials that ended, which never change. Only saves time. Threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._space: Space | None = None
        self._clear()

    def __reduce__(self) -> tuple[type[Table], tuple[()]]:
        return Table, ()

    def _clear(self) -> None:
        self._settled = 0  # so many trials from the first on have ended
        self._records: list[FrozenTrial | None] = []  # what was read; a record never changes, another takes its place
        self._row_keys: list[bytes | None] = []
        self._points = np.empty((0, 0))
        self._inside = np.empty(0, dtype=bool)
        self._losses = np.empty((0, 0))
        self._violations = np.empty(0)
        self._failed = np.empty(0, dtype=bool)
        self._curved = False

    def _read(self, space: Space, trials: Sequence[FrozenTrial], signs: Sequence[int]) -> None:
        """Bring the rows of `trials` up to date."""
        if self._space is not space and self._space != space:
            self._clear()
        self._space = space
        self._grow(len(trials), space.dimensions, len(signs))
        for row in range(self._settled, len(trials)):
            trial = trials[row]
            if row >= len(self._records):
                self._records.append(None)
                self._row_keys.append(None)
            before = self._records[row]
            if row == self._settled and trial.state.is_finished():
                self._settled += 1
            if before is trial:
                continue
            self._records[row] = trial
            if before is None or before.params is not trial.params:
                self._inside[row] = self._encode(row, space, trial.params)
                self._row_keys[row] = _key(self._points[row]) if self._inside[row] else None
            values = trial.values if trial.state is TrialState.COMPLETE else None
            self._losses[row] = math.nan if values is None else [s * v for s, v in zip(signs, values, strict=True)]
            self._failed[row] = trial.state is TrialState.FAIL
            excess = trial.user_attrs.get("constraints") or ()
            self._violations[row] = sum(max(c, 0.0) if c == c else math.inf for c in excess)
            self._curved = self._curved or (trial.state is not TrialState.FAIL and bool(trial.intermediate_values))

    def keys(self, space: Space, trials: Sequence[FrozenTrial], signs: Sequence[int]) -> set[bytes]:
        """The points of the trials as bytes, and of others that ended."""
        with self._lock:
            self._read(space, trials, signs)
            return {key for key in self._row_keys[: max(self._settled, len(trials))] if key is not None}

    def observations(self, space: Space, trials: Sequence[FrozenTrial], signs: Sequence[int]) -> Observations:
        """The trials that lie in the space."""
        with self._lock:
            self._read(space, trials, signs)
            return self._observations(trials, signs, space.dimensions)

    def _observations(self, trials: Sequence[FrozenTrial], signs: Sequence[int], dimensions: int) -> Observations:
        count = len(trials)
        losses, failed = bounded(self._losses[:count]), self._failed[:count]
        steps = np.zeros(count, dtype=np.int64)
        if self._curved:
            fill_from_curves(losses, steps, trials, signs, dimensions)
        rows = np.flatnonzero(self._inside[:count])
        return Observations(rows, self._points[rows], losses[rows], self._violations[rows], failed[rows], steps[rows])

    def _grow(self, count: int, dimensions: int, objectives: int) -> None:
        if len(self._points) >= count and self._points.shape[1] == dimensions:
            return
        size = max(64, 2 * count)
        for name, shape in (
            ("_points", (size, dimensions)),
            ("_losses", (size, objectives)),
            ("_inside", (size,)),
            ("_violations", (size,)),
            ("_failed", (size,)),
        ):
            old = getattr(self, name)
            new = np.zeros(shape, dtype=old.dtype)
            if old.shape[1:] == new.shape[1:]:
                new[: len(old)] = old
            setattr(self, name, new)

    def _encode(self, row: int, space: Space, params: dict[str, object]) -> bool:
        """Write a trial's point; whether it has settings, all of them in the space."""
        if not params and space.dimensions:
            return False
        for axis, (name, domain) in enumerate(space.parameters.items()):
            if name not in params:
                self._points[row, axis] = math.nan
            elif params[name] in domain:
                self._points[row, axis] = domain.encode(params[name])
            else:
                return False
        return True


def _key(point: np.ndarray) -> bytes:
    """As `Space.key`, of a point that `Space.encode` gave, with NaN for inactive coordinates."""
    return (np.round(point, 9) + 0.0).tobytes()


def fill_from_curves(
    losses: np.ndarray, steps: np.ndarray, trials: Sequence[FrozenTrial], signs: Sequence[int], dimensions: int
) -> None:
    """Give trials that stopped early losses that can be compared (in the spirit of BOHB, Falkner et al. 2018).

    All trials are compared at one step, the largest that enough of them have reached. Of the others those that were
    given up take their last value or that of the worst trial there (of those with finite values), if that is worse:
    with several objectives in each of them. They are the pruned ones and, since a trial that waits to be promoted may
    wait for ever, paused ones that a later trial has left behind. The rest keep NaN.
    """
    lengths = np.array(
        [max(t.intermediate_values, default=0) if t.state is not TrialState.FAIL else 0 for t in trials], dtype=np.int64
    )
    early = np.isnan(losses).any(axis=1) & (lengths > 0)
    if not early.any():
        return
    reached = np.sort(lengths[lengths > 0])[::-1]
    enough = min(max(2 * dimensions + 2, ENOUGH), len(reached))
    level = int(reached[enough - 1])
    there = np.flatnonzero(lengths >= level)
    at = [_reached(trials[row].intermediate_values, level) for row in there]
    found = _values(trials, there, at, signs)
    known = ~np.isnan(found).any(axis=1)
    losses[there[known]], steps[there[known]] = found[known], np.array(at)[known]
    there = there[np.isfinite(found).all(axis=1)]
    worst = losses[there].max(axis=0) if len(there) else math.nan

    state = np.array([trial.state for trial in trials])
    left_behind = np.maximum.accumulate(lengths[::-1])[::-1] > lengths
    given_up = (state == TrialState.PRUNED) | ((state == TrialState.PAUSED) & left_behind)
    behind = np.flatnonzero(early & given_up & (lengths < level))
    expected = np.fmax(_values(trials, behind, lengths[behind], signs), worst)
    known = ~np.isnan(expected).any(axis=1)
    behind = behind[known]
    losses[behind], steps[behind] = expected[known], lengths[behind]


def _reached(curve: dict[int, object], level: int) -> int:
    """The first step of a curve that is not before `level`."""
    return level if level in curve else min(step for step in curve if step >= level)


def _values(trials: Sequence[FrozenTrial], rows: Sequence[int], at: Sequence[int], signs: Sequence[int]) -> np.ndarray:
    """Losses of the rows, each at its step, float64 (rows, objectives)."""
    values = [trials[row].intermediate_values[step] for row, step in zip(rows, at, strict=True)]
    return bounded(np.array(values, dtype=np.float64).reshape(len(values), len(signs)) * signs)


class History:
    """The trials that came before: those with a lower number, finished or not. Read only when asked for.

    sign: +1 if small values are good, -1 if large ones are; one per objective.
    """

    def __init__(
        self, load: Callable[[], Sequence[FrozenTrial]], signs: Sequence[int] = (1,), table: Table | None = None
    ):
        self._load = load
        self.signs = tuple(signs)
        self._table = Table() if table is None else table
        self._trials: Sequence[FrozenTrial] | None = None
        self._keys: tuple[Space, set[bytes]] | None = None

    @property
    def trials(self) -> list[FrozenTrial]:
        return list(self._read())

    def observations(self, space: Space) -> Observations:
        """The trials that lie in `space`, as arrays."""
        return self._table.observations(space, self._read(), self.signs)

    def keys(self, space: Space) -> set[bytes]:
        """The points that were tried, each as `Space.key` has it. Do not change it."""
        if self._keys is None or self._keys[0] is not space:
            self._keys = space, self._table.keys(space, self._read(), self.signs)
        return self._keys[1]

    def _read(self) -> Sequence[FrozenTrial]:
        if self._trials is None:
            self._trials = self._load()
        return self._trials
