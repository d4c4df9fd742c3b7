"""`nanonet doctor --tune`: search for the kernels' settings on this machine with this tuner, and keep what wins.

Knobs and the work they matter for come in groups; each group is a study of its own, with a share of the time. Its
objective is the time that the group's work takes, compared with the usual settings in turn, as the mean of logarithms.
The best few are measured again, and of these the best in a test of its own against the usual settings: a group's
settings are kept only if they are faster by `LEAST_GAIN` for all but a twentieth of the chances, and all groups' only
if they are so together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from .space import Ordinal, Space
from .study import create_study
from .trial import TrialState

__all__ = ["GroupResult", "Measure", "Tuning", "tune_kernels", "tuning"]

ROUNDS = 2  # of a trial
FINALISTS, FINAL_ROUNDS = 4, 6
CONFIRM_ROUNDS = 10, 60  # at least and at most
SEARCH, CONFIRM = 0.7, 0.2  # of a group's time; the rest is for the finalists
LEAST_GAIN = 0.01
DOUBT = 1.7  # standard errors

Measure = Callable[[Sequence[str], Mapping[str, float], int], np.ndarray]
"""measure(groups, values, rounds): log(time with these values / time with the defaults) for each round."""


@dataclass(frozen=True)
class GroupResult:
    """What was found for a group. values: those that differ from the defaults, {} if none was better.

    speed: how many times faster, in the test at the end, and its bounds; None if there was nothing to test.
    """

    group: str
    trials: int
    values: dict[str, float]
    speed: float | None = None
    low: float | None = None
    high: float | None = None
    kept: bool = False


@dataclass(frozen=True)
class Tuning:
    """groups: by name. values: what is kept. speed: of all work together with them. seconds: what it took."""

    groups: list[GroupResult]
    values: dict[str, float]
    speed: float
    seconds: float
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "values": self.values,
            "speed": self.speed,
            "seconds": round(self.seconds, 1),
            "problems": self.problems,
            "groups": [vars(group) for group in self.groups],
        }


def tuning(
    measure: Measure,
    knobs: Mapping[str, Sequence[float]],
    defaults: Mapping[str, float],
    *,
    seconds: float,
    seed: int = 0,
    earlier: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
    note: Callable[[str], None] = lambda text: None,
) -> Tuning:
    """Search the knobs, name ("group.what") -> allowed values, for at most about `seconds`.

    earlier: values that were found before; they are tried, too. An exception from `measure` fails that trial and is
    told in `problems`.
    """
    begin = clock()
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in knobs.items():
        groups.setdefault(name.split(".")[0], {})[name] = values
    problems: list[str] = []
    results: list[GroupResult] = []
    left = sum(map(_weight, groups.values()))
    for group, space in groups.items():
        share = (0.95 * seconds - (clock() - begin)) * _weight(space) / left  # what others left goes to all to come
        left -= _weight(space)
        one = _Group(group, space, defaults, measure, seed, clock, problems)
        found = one.search(max(share, 0.0), {k: v for k, v in (earlier or {}).items() if k in space})
        results.append(found)
        note(_told(found))
    kept = {name: value for found in results if found.kept for name, value in found.values.items()}
    speed = 1.0
    if kept:
        logs = measure(list(groups), kept, CONFIRM_ROUNDS[0])
        speed, _, high = _speeds(logs)
        if high is None or logs.mean() + DOUBT * _error(logs) > 0:
            problems.append("together the settings are no faster than the usual ones; none is kept")
            kept, speed = {}, 1.0
    return Tuning(results, kept, speed, clock() - begin, problems)


class _Group:
    def __init__(
        self,
        name: str,
        space: Mapping[str, Sequence[float]],
        defaults: Mapping[str, float],
        measure: Measure,
        seed: int,
        clock: Callable[[], float],
        problems: list[str],
    ):
        self.name, self.defaults, self.clock, self.problems = name, {k: defaults[k] for k in space}, clock, problems
        self._measure = measure
        self.study = create_study(
            study_name=name, space=Space({k: Ordinal(list(v)) for k, v in space.items()}, defaults=[self.defaults])
        )
        self.study.seed = seed

    def search(self, seconds: float, earlier: Mapping[str, float]) -> GroupResult:
        """The best settings of the group, tested against the defaults."""
        begin = self.clock()
        if earlier:
            self.study.enqueue_trial({**self.defaults, **earlier})
        slowest = 0.0
        for tried in range(self.study.space.size):
            start = self.clock()
            if tried and start - begin + slowest > SEARCH * seconds:
                break
            trial = self.study.ask()
            logs = self.logs(trial.params, ROUNDS)
            if logs is None:
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, float(np.median(logs)))
            slowest = max(slowest, self.clock() - start)
        complete = [t for t in self.study.get_trials(deepcopy=False) if t.state is TrialState.COMPLETE]
        ranked = [t for t in sorted(complete, key=lambda t: t.value) if self.changed(t.params) and t.value < 0]
        finals = []
        for trial in ranked[:FINALISTS]:
            if finals and self.clock() - begin > (1 - CONFIRM) * seconds:
                break
            logs = self.logs(trial.params, FINAL_ROUNDS)
            if logs is not None:
                finals.append((float(np.median(logs)), trial.number, trial.params))
        if not finals or min(finals)[0] >= 0:
            return GroupResult(self.name, len(complete), {})
        values = self.changed(min(finals)[2])
        logs = self.confirm(values, seconds - (self.clock() - begin))
        if logs is None:
            return GroupResult(self.name, len(complete), {})
        speed, low, high = _speeds(logs)
        kept = bool(logs.mean() + DOUBT * _error(logs) < -math.log1p(LEAST_GAIN))
        return GroupResult(self.name, len(complete), values, speed, low, high, kept)

    def confirm(self, values: Mapping[str, float], seconds: float) -> np.ndarray | None:
        """As many rounds as there is time for."""
        least, most = CONFIRM_ROUNDS
        begin, logs = self.clock(), []
        while len(logs) < least or (len(logs) < most and self.clock() - begin < seconds):
            some = self.logs(values, least)
            if some is None:
                return None
            logs += list(some)
        return np.array(logs)

    def logs(self, values: Mapping[str, float], rounds: int) -> np.ndarray | None:
        try:
            return self._measure([self.name], self.changed(values), rounds)
        except Exception as error:
            self.problems.append(f"{self.name}: {error}")
            return None

    def changed(self, values: Mapping[str, float]) -> dict[str, float]:
        return {k: v for k, v in values.items() if v != self.defaults[k]}


def _weight(space: Mapping[str, Sequence[float]]) -> float:
    """A group's share of the time."""
    return math.sqrt(sum(map(len, space.values())))


def _error(logs: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(np.std(logs, ddof=1) / math.sqrt(len(logs)))


def _speeds(logs: np.ndarray) -> tuple[float, float, float]:
    """How many times faster, and bounds."""
    mean, doubt = float(logs.mean()), DOUBT * _error(logs)
    return math.exp(-mean), math.exp(-mean - doubt), math.exp(-mean + doubt)


def _told(found: GroupResult) -> str:
    if found.speed is None:
        return f"{found.group}: {found.trials} settings tried, none faster than the usual ones"
    verdict = "kept" if found.kept else "not sure enough to keep"
    bounds = f"{found.low:.3f} to {found.high:.3f}"
    return f"{found.group}: {found.trials} settings tried, {found.speed:.3f} x as fast ({bounds}): {verdict}"


# ------------------------------------------------------------------------------------- on this machine


def tune_kernels(
    minutes: float,
    seed: int = 0,
    note: Callable[[str], None] = lambda text: None,
    names: Collection[str] | None = None,
    measure: Measure | None = None,
) -> Tuning:
    """Search on this machine, keep what wins in the file of `kernels.numba_cpu.knobs`, and use it from now on.

    names: of the knobs to search, all by default. measure: a `Stopwatch` over all workloads unless given.
    A file of an earlier search is replaced if its settings, or better ones, win again, and removed if none does.
    ImportError if the compiled backend is not there, OSError if nothing can be kept.
    """
    from kernels.numba_cpu import knobs, threads

    from .kernel_workloads import Stopwatch

    if knobs.path() is None:
        from kernels.numba_cpu import compiler

        raise OSError(f"the kernel cache cannot be used: {compiler.cache_folder()[1]}")
    try:
        before = knobs.kept()
    except ValueError as error:
        note(str(error))
        before = None
    values = {} if before is None else before["values"]
    alone = threads.get_num_threads() == 1
    chosen = [knob for name, knob in knobs.KNOBS.items() if names is None or name in names]
    table = {knob.name: knob.values for knob in chosen if not (alone and knob.shares_work)}
    try:
        measure = measure or Stopwatch()  # compiles what is not compiled yet, which does not count
        found = tuning(
            measure,
            table,
            knobs.defaults(),
            seconds=60 * minutes,
            seed=seed,
            earlier=values,
            note=note,
        )
        if found.values:
            about = {
                "when": datetime.now().isoformat(timespec="seconds"),
                "threads": threads.get_num_threads(),
                "speed": round(found.speed, 4),
                "groups": {group.group: round(group.speed, 4) for group in found.groups if group.kept},
            }
            knobs.save(found.values, about)
        else:
            knobs.forget()
        values = found.values
    finally:
        knobs.use(values)
    return found
