"""A study: a number of trials of one objective, their sampler, their pruner and where they are kept."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import DuplicatedStudyError, SpaceError, SpaceExhausted, StorageError
from .optimization import Optimization
from .pareto import pareto_front
from .proposals import admissible
from .pruners import MedianPruner, Pruner
from .resumable import Resumable
from .samplers import AutoSampler, History, Sampler
from .samplers.history import Table
from .space import Domain, Space
from .storage import MemoryStorage, Storage, StudyRecord, open_storage
from .trial import FrozenTrial, Trial, TrialState, feasible

__all__ = ["Study", "create_study", "load_study"]

DIRECTIONS = {"minimize": 1, "maximize": -1}

Objective = Callable[[Trial], Any]


class Study:
    """Made by `create_study` and `load_study`."""

    def __init__(
        self,
        record: StudyRecord,
        storage: Storage,
        sampler: Sampler | None = None,
        pruner: Pruner | None = None,
        space: Space | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ):
        self.study_name = record.name
        self.study_id = record.study_id
        self.directions = record.directions
        self.storage = storage
        self.sampler = _instance("sampler", sampler, Sampler, AutoSampler)
        self.pruner = _instance("pruner", pruner, Pruner, MedianPruner)
        self.space = space
        self.signs = tuple(DIRECTIONS[d] for d in record.directions)
        self.seed = record.seed if self.sampler.seed is None else self.sampler.seed
        self.constraints_func = self.sampler.constraints_func if constraints_func is None else constraints_func
        self._running: Optimization | None = None
        self._table = Table()
        self._seen: tuple[int, dict[str, Domain]] = (0, {})
        self._seen_last = Space({})
        storage.adopt_abandoned(self.study_id)

    # ------------------------------------------------------------------------------------------ results

    @property
    def direction(self) -> str:
        if len(self.directions) > 1:
            raise RuntimeError("the study has several objectives; use `directions`")
        return self.directions[0]

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number."""
        return self.get_trials()

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Trials by number, those in `states` only if given. Without deepcopy their dicts must not be changed."""
        chosen = (t for t in self.storage.trials(self.study_id) if states is None or t.state in states)
        return [trial.copy() if deepcopy else trial for trial in chosen]

    @property
    def best_trial(self) -> FrozenTrial:
        """The complete trial with the best value, of those that keep the constraints.

        While no trial of a `Resumable` is complete: of the paused ones that got furthest, the best by its last value.
        ValueError if there is none.
        """
        sign = DIRECTIONS[self.direction]
        trials = self.storage.trials(self.study_id)
        complete = [t for t in trials if t.state is TrialState.COMPLETE and t.value is not None and t.feasible]
        if complete:
            return min(complete, key=lambda t: (sign * t.value, t.number)).copy()
        paused = _furthest(trials)
        if not paused:
            raise ValueError("no trial is complete yet")
        return min(paused, key=lambda t: (sign * t.intermediate_values[t.steps], t.number)).copy()

    @property
    def best_value(self) -> float:
        trial = self.best_trial
        return trial.intermediate_values[trial.steps] if trial.value is None else trial.value

    @property
    def best_params(self) -> dict[str, Any]:
        return self.best_trial.params

    @property
    def best_trials(self) -> list[FrozenTrial]:
        """The Pareto front: complete trials that no other one beats in some objective without losing in another.

        Trials that break a constraint are left out.
        While no trial of a `Resumable` is complete: that of the paused ones that got furthest, by their last values.
        """
        trials = self.storage.trials(self.study_id)
        results = [(t, t.values) for t in trials if t.state is TrialState.COMPLETE and t.values and t.feasible]
        if not results:
            results = [(t, t.intermediate_values[t.steps]) for t in _furthest(trials)]
        if not results:
            return []
        points = np.array([value for _, value in results]).reshape(len(results), -1) * np.array(self.signs)
        return [t.copy() for (t, _), best in zip(results, pareto_front(points), strict=True) if best]

    def trials_dataframe(
        self,
        attrs: Sequence[str] = (
            "number",
            "value",
            "datetime_start",
            "datetime_complete",
            "duration",
            "params",
            "user_attrs",
            "state",
        ),
        multi_index: bool = False,
    ) -> Any:
        """A pandas DataFrame with a row for each trial, its columns named as in Optuna: number, value (or values_0,
        values_1, ...), params_NAME, user_attrs_NAME, state, ...; with multi_index=True, pairs of these parts.

        ImportError if pandas is not installed, ValueError for an unknown name in `attrs`.
        """
        from .reporting.dataframe import trials_dataframe

        return trials_dataframe(self.get_trials(deepcopy=False), len(self.directions), attrs, multi_index)

    @property
    def user_attrs(self) -> dict[str, Any]:
        return self.storage.study_attrs(self.study_id)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep a JSON-able remark with the study."""
        self.storage.set_study_attr(self.study_id, key, value)

    # -------------------------------------------------------------------------------------- ask and tell

    def ask(self, fixed_distributions: Mapping[str, Domain] | None = None) -> Trial:
        """The next trial, to be ended by `tell`. It belongs to no process and waits for `tell` as long as need be.

        fixed_distributions: parameters to set at once. SpaceExhausted if the sampler has nothing left to propose.
        """
        trial = self._next_trial(None)
        if trial is None:
            raise SpaceExhausted(f"{type(self.sampler).__name__} has proposed everything there is")
        for name, domain in (fixed_distributions or {}).items():
            trial._suggest(name, domain)
        return trial

    def tell(
        self,
        trial: Trial | int,
        values: float | Sequence[float] | None = None,
        state: TrialState | None = None,
        skip_if_finished: bool = False,
    ) -> FrozenTrial:
        """End a trial that was asked for: COMPLETE with its value, or another final state without one.

        A value that is no number or NaN ends it as FAIL. A pruned trial takes its last reported value.
        """
        number = trial if isinstance(trial, int) else trial.number
        known = self.storage.trial(self.study_id, number)
        if known.state.is_finished() and skip_if_finished:
            return known.copy()
        if known.state is not TrialState.RUNNING:
            raise ValueError(f"tell: trial {number} is {known.state.name}; only a running trial can be told")
        attempt = known.attempt if isinstance(trial, int) else trial._attempt
        if state is not None and not TrialState(state).is_finished():
            raise ValueError(f"tell: state must be COMPLETE, PRUNED or FAIL, got {TrialState(state).name}")
        if state in (TrialState.PRUNED, TrialState.FAIL):
            if values is not None:
                raise ValueError(f"tell: a trial that ends as {TrialState(state).name} has no values, got {values!r}")
            self._end(number, attempt, state, None, None)
        else:
            numbers, problem = feasible(values, len(self.directions))
            if problem is not None and state is TrialState.COMPLETE:
                raise ValueError(f"tell: trial {number} cannot be COMPLETE: {problem}")
            self._end(number, attempt, TrialState.FAIL if problem else TrialState.COMPLETE, numbers, problem)
        return self.storage.trial(self.study_id, number).copy()

    def enqueue_trial(
        self, params: Mapping[str, Any], user_attrs: Mapping[str, Any] | None = None, skip_if_exists: bool = False
    ) -> None:
        """Have these settings tried next; parameters that are not given are proposed by the sampler.

        SpaceError if the study's fixed space does not hold a value.
        """
        if self.space is not None:
            self.space._check_values(params)
        if skip_if_exists:
            known = self.storage.trials(self.study_id)
            if any(dict(params) in (trial.fixed, trial.params) for trial in known):
                return
        self.storage.enqueue_trial(self.study_id, params, user_attrs or {})

    # ------------------------------------------------------------------------------------------ optimize

    def optimize(
        self,
        objective: Objective | Resumable,
        n_trials: int | None = None,
        timeout: float | None = None,
        n_jobs: int = 1,
        catch: Iterable[type[Exception]] | type[Exception] = (),
        callbacks: Iterable[Callable[[Study, FrozenTrial], None]] | None = None,
        gc_after_trial: bool = False,
        show_progress_bar: bool = False,
        *,
        total: bool = False,
        total_steps: int | None = None,
        executor: Executor | str | None = None,
        n_steps: int | None = None,
        cost: float | None = None,
        total_cost: float | None = None,
        total_seconds: float | None = None,
    ) -> None:
        """Run trials until a limit is reached, the sampler has nothing left, or `stop` is called.

        objective: a function of a `Trial` that returns its value (or raises `TrialPruned`), or a `Resumable`, of which
            a `Stackable` is given several trials at a time.
        n_trials: how many trials to start.
        timeout: seconds after which no trial and no segment is begun.
        n_steps: how many steps of a `Resumable` to add; a segment that does not fit is not begun.
        cost: how much to spend: what trials `report_cost`, what the resumable's `cost(params, steps)` says, or else the
            seconds of workers. What would cost more than is left is not begun, if that is known beforehand.
        total: n_trials, n_steps and cost count what the study has had in all, and not this call alone.
        total_seconds, total_steps, total_cost: such limits whatever `total` is. Seconds are counted in those calls that
            give total_seconds.
        n_jobs: workers; 1 works in this thread, -1 takes one thread per processor.
        catch: exceptions that fail their trial and nothing more; others are raised once running trials have ended.
        callbacks: called as callback(study, trial) after each trial, and after each segment of a `Resumable`.
        executor: whom to give the work: "threads", "processes", or any `concurrent.futures.Executor`; n_jobs is then
            how many tasks to hand out at a time (of `devices.Devices` as many as it has slots). Other processes need a
            study in a SQLite file and a picklable objective; a `Resumable` is sent to each of them once. When a worker
            dies its trial is run again by another one, at most three times in all.

        Several processes may call this on one study; one that finds nothing to do ends. Trials that an interrupted
        process left behind are run again under their numbers. Ctrl-C gives running trials
        back, to be run again by the next `optimize`, and raises KeyboardInterrupt.
        """
        if self._running is not None:
            raise RuntimeError("optimize is running already on this study; use n_jobs for trials side by side")
        self._running = Optimization(
            self,
            objective,
            n_trials=n_trials,
            timeout=timeout,
            n_jobs=n_jobs,
            catch=catch,
            callbacks=callbacks,
            gc_after_trial=gc_after_trial,
            show_progress_bar=show_progress_bar,
            total=total,
            total_steps=total_steps,
            executor=executor,
            n_steps=n_steps,
            cost=cost,
            total_cost=total_cost,
            total_seconds=total_seconds,
        )
        try:
            self._running.run()
        finally:
            self._running = None

    def stop(self) -> None:
        """From an objective or a callback: begin no more trials."""
        if self._running is None:
            raise RuntimeError("stop is for objectives and callbacks while optimize runs")
        self._running.stopping = True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_running": None}  # a worker process gets the study, not the loop that runs it

    def __repr__(self) -> str:
        return f"Study({self.study_name!r}, directions={list(self.directions)})"

    # --------------------------------------------------------------------------- for trials and optimization

    def _next_trial(
        self,
        owner: str | None,
        at_most: int | None = None,
        number: int | None = None,
        suggested: Mapping[str, Any] | None = None,
    ) -> Trial | None:
        """A waiting trial (that one, or the first), else a new one; None if there is none to be had.

        suggested: settings for one that has none yet, taken only if that gives a trial that was not tried.
        """
        claim = self.storage.claim(self.study_id, number, owner, at_most)
        if claim is None and number is None:
            limit = self.sampler.limit(self.space)
            claim = self.storage.create_trial(self.study_id, owner, at_most, limit)
        if claim is None:
            return None
        trial = Trial(self, claim.number, claim.attempt)
        try:
            learned = self._seen_space(claim.number) if self.sampler.learns and self.space is None else None
            trial._begin(self.space, learned, suggested)
        except BaseException as error:
            if isinstance(error, (SpaceError, ValueError)):
                self._end(claim.number, claim.attempt, TrialState.FAIL, None, repr(error))
            else:
                self.storage.release(self.study_id, claim.number, claim.attempt)
            raise
        return trial

    def _end(
        self,
        number: int,
        attempt: int,
        state: TrialState,
        values: Sequence[float] | None,
        error: str | None,
        segment: Sequence[Any] = (),
    ) -> None:
        """End a trial; a pruned one takes its last reported value."""
        if state is TrialState.PRUNED:
            known = self.storage.trial(self.study_id, number)
            if known.last_step is not None:
                values, _ = feasible(known.intermediate_values[known.last_step], len(self.directions))
        if self.constraints_func is not None and values is not None:
            self._judge(number, attempt, values)
        self.storage.finish(self.study_id, number, attempt, state, values, error, segment)

    def _judge(self, number: int, attempt: int, values: Sequence[float]) -> None:
        """Keep by how much a trial that ends with these values breaks its constraints."""
        assert self.constraints_func is not None
        known = replace(self.storage.trial(self.study_id, number).copy(), values=list(values))
        excess = [float(c) for c in self.constraints_func(known)]
        self.storage.set_user_attr(self.study_id, number, attempt, "constraints", excess)

    def _propose(self, space: Space, number: int, refused: Set[bytes] = frozenset()) -> np.ndarray:
        """The sampler's point or one instead of it; not one of `refused`, unless the space is used up."""
        history = self._history(number)
        point = self.sampler.propose(space, history, number, self.seed)
        if self.sampler.repeats:
            return point
        tried = history.keys(space)
        return admissible(space, point, tried | refused if refused else tried, number, self.seed)

    def _was_tried(self, space: Space, params: Mapping[str, Any], number: int) -> bool:
        return space.key(space.encode(params)) in self._history(number).keys(space)

    def _coordinate(self, name: str, domain: Domain, position: int, number: int) -> float:
        return self.sampler.coordinate(name, domain, position, self._history(number), number, self.seed)

    def _should_prune(self, trial: Trial) -> bool:
        trials = self.storage.trials(self.study_id)
        return self.pruner.prune(trials[trial.number], trials, self.signs)

    def _history(self, number: int) -> History:
        return History(lambda: self.storage.trials(self.study_id)[:number], self.signs, self._table)

    def _seen_space(self, number: int) -> Space:
        """The parameters that trials before `number` have asked for, in the order of their first appearance."""
        trials = self.storage.trials(self.study_id)[:number]
        settled, known = self._seen if self._seen[0] <= number else (0, {})
        while settled < len(trials) and trials[settled].state.is_finished():
            known = {**known, **trials[settled].distributions}
            settled += 1
        self._seen = settled, known
        for trial in trials[settled:]:
            known = {**known, **trial.distributions}
        if self._seen_last.parameters != known:
            self._seen_last = Space(known)
        return self._seen_last


def _furthest(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The paused trials with the most steps behind them, those of their parents included."""
    paused = [t for t in trials if t.state is TrialState.PAUSED and t.steps]
    furthest = max((t.age for t in paused), default=0)
    return [t for t in paused if t.age == furthest]


def create_study(
    *,
    storage: str | os.PathLike[str] | Storage | None = None,
    sampler: Sampler | None = None,
    pruner: Pruner | None = None,
    study_name: str | None = None,
    direction: str | None = None,
    load_if_exists: bool = False,
    directions: Sequence[str] | None = None,
    space: Space | None = None,
    constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
) -> Study:
    """A new study, or with load_if_exists=True the one of that name.

    storage: "sqlite:///FILE" or a file name; None keeps the study in memory.
    sampler: AutoSampler unless given. pruner: MedianPruner unless given.
    study_name: a new name unless given; with load_if_exists=True, "study".
    direction: "minimize" (the default) or "maximize"; `directions` for several objectives.
    space: a fixed search space. Without one, parameters are those that the objective asks for. A study that goes on may
        be given another one, with more choices or other ranges: trials outside it are not learned from.
    constraints_func: FrozenTrial with its values -> numbers, at most 0 where the trial is feasible; the sampler's own
        unless given. Trials that are not feasible are never the best.
    Raises DuplicatedStudyError if the name is taken, StorageError if the file cannot be used.
    """
    if direction is not None and directions is not None:
        raise ValueError("give either direction or directions, not both")
    wanted = tuple(_direction(d) for d in (directions if directions is not None else [direction or "minimize"]))
    if not wanted:
        raise ValueError("directions is empty")
    if space is not None and not isinstance(space, Space):
        raise TypeError(f"space must be a tuner.Space or None, got {type(space).__name__}")
    name = study_name or ("study" if load_if_exists else f"no-name-{uuid.uuid4()}")
    kept = open_storage(storage)
    record = kept.study(name) if load_if_exists else None
    if record is None:
        try:
            record = kept.create_study(name, wanted, secrets.randbits(63), _text(space, kept))
        except DuplicatedStudyError:
            record = kept.study(name) if load_if_exists else None  # another process was faster
            if record is None:
                raise
    if (direction or directions) is not None and record.directions != wanted:
        raise StorageError(f"study {name!r} is to {list(record.directions)}, not to {list(wanted)}; name another study")
    if space is None and record.space:
        space = Space.from_json(record.space)
    elif space is not None and record.space and record.space != _text(space, kept):
        kept.set_space(record.study_id, _text(space, kept))
    return Study(record, kept, sampler, pruner, space, constraints_func)


def load_study(
    *,
    study_name: str | None = None,
    storage: str | os.PathLike[str] | Storage,
    sampler: Sampler | None = None,
    pruner: Pruner | None = None,
) -> Study:
    """The study of that name; None takes the only one there is. KeyError if there is none."""
    if isinstance(storage, (str, os.PathLike)) and not isinstance(storage, Storage):
        _must_exist(storage)
    kept = open_storage(storage)
    names = kept.study_names()
    if study_name is None and len(names) != 1:
        raise ValueError(f"study_name=None wants exactly one study in the storage, it has {names}")
    record = kept.study(study_name or names[0])
    if record is None:
        raise KeyError(f"there is no study {study_name!r} in the storage, it has {names}")
    return Study(record, kept, sampler, pruner, Space.from_json(record.space) if record.space else None)


def _must_exist(storage: str | os.PathLike[str]) -> None:
    """Reading a study must not leave an empty file behind."""
    path = os.fspath(storage).removeprefix("sqlite:///")
    if "://" not in path and path != ":memory:" and not os.path.exists(path):
        raise StorageError(f"{path}: there is no such file")


def _text(space: Space | None, storage: Storage) -> str | None:
    """The space as JSON. Only memory can do with choices that JSON does not know."""
    try:
        return space and space.to_json()
    except SpaceError:
        if isinstance(storage, MemoryStorage):
            return None
        raise


def _direction(direction: Any) -> str:
    name = str(getattr(direction, "name", direction)).lower()
    if name not in DIRECTIONS:
        raise ValueError(f"direction must be 'minimize' or 'maximize', got {direction!r}")
    return name


def _instance(name: str, given: Any, wanted: type, default: Callable[[], Any]) -> Any:
    if given is None:
        return default()
    if not isinstance(given, wanted):
        raise TypeError(f"{name} must be a tuner.{name}s object such as {default.__name__}(), got {given!r}")
    return given
