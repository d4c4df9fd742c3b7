"""The loop behind `Study.optimize`: hand out work, take in results, stop in good order."""

from __future__ import annotations

import gc
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import pareto
from .budget import Budget
from .checks import whole
from .errors import SpaceExhausted, StorageError, TrialLost, TrialPruned
from .executors import ProcessExecutor, WorkersUnavailable, cores, is_loss, make_executor, perform
from .progress import Progress
from .resumable import Resumable, Stackable, run_segment, run_segments
from .schedulers import Segment, Situation
from .sharing import shared
from .stacking import grouped, parted, shared_structure
from .storage.base import MAX_CRASHES
from .storage.owner import new_owner
from .trial import FrozenTrial, Trial, TrialState, feasible

if TYPE_CHECKING:
    from .study import Study

__all__ = ["Optimization"]


@dataclass(frozen=True)
class Job:
    """A piece of work for one worker: function(*arguments), on behalf of a trial."""

    trial: Trial
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    steps: int = 0
    cost: float | None = None
    """What it will cost, if that is known."""
    spent: float = 0.0
    """What its trial had cost before."""
    begun: float = field(default_factory=time.monotonic)


class Optimization:
    """One call of `Study.optimize`; its arguments are described there."""

    def __init__(
        self,
        study: Study,
        objective: Any,
        *,
        n_trials: int | None,
        timeout: float | None,
        n_jobs: int,
        catch: Iterable[type[Exception]] | type[Exception],
        callbacks: Iterable[Callable[[Study, FrozenTrial], None]] | None,
        gc_after_trial: bool,
        show_progress_bar: bool,
        total: bool,
        total_steps: int | None,
        executor: Executor | str | None,
        n_steps: int | None = None,
        cost: float | None = None,
        total_cost: float | None = None,
        total_seconds: float | None = None,
    ):
        if not isinstance(objective, Resumable) and not callable(objective):
            raise TypeError(f"objective must be a function of a trial or a tuner.Resumable, got {objective!r}")
        if n_trials is not None:
            n_trials = whole("n_trials", n_trials, 0)
        if total and n_trials is None and n_steps is None and cost is None:
            raise ValueError("total=True wants n_trials, n_steps or cost, which the study shall have in all")
        for name, limit in (("n_steps", n_steps), ("total_steps", total_steps)):
            if limit is not None and not isinstance(objective, Resumable):
                raise ValueError(f"{name} is for a tuner.Resumable; a function of a trial has no steps")
        self.study = study
        self.n_trials = n_trials
        self.total = total and n_trials is not None
        """Whether n_trials counts all of the study's."""
        self.budget = Budget(
            study,
            objective,
            timeout=timeout,
            n_steps=n_steps,
            cost=cost,
            total=total,
            total_seconds=total_seconds,
            total_steps=total_steps,
            total_cost=total_cost,
        )
        self.running: dict[Future[Any], list[Job]] = {}
        """The jobs that workers have; those of a list are done as one."""
        self.catch = (catch,) if isinstance(catch, type) else tuple(catch)
        for kind in self.catch:
            if not isinstance(kind, type) or not issubclass(kind, BaseException):
                raise TypeError(f"catch must be an exception class or several of them, got {catch!r}")
        self.callbacks = [] if callbacks is None or callable(callbacks) else list(callbacks)
        if callable(callbacks) or not all(map(callable, self.callbacks)):
            raise TypeError(f"callbacks must be a list of functions of a study and a trial, got {callbacks!r}")
        self.gc_after_trial = gc_after_trial
        self.executor, self.n_jobs = executor, n_jobs
        self.progress = Progress(n_trials) if show_progress_bar else None
        self.work: Work = Segments(self, objective) if isinstance(objective, Resumable) else Calls(self, objective)
        self.started = 0
        self.exhausted = False
        """Whether the sampler has nothing left to propose, or the total is reached."""
        self.stopping = False
        self.owner = new_owner()
        """Whose the trials are that this call runs."""
        self.losses: Counter[int] = Counter()
        """How often a trial's worker died."""

    def run(self) -> None:
        study = self.study
        own = self.executor is None or isinstance(self.executor, str)
        if own:
            executor, workers = make_executor(self.n_jobs, self.executor or "threads")
        else:
            executor, workers = self.executor, cores() if self.n_jobs == -1 else self.n_jobs
            if self.n_jobs in (1, -1):
                workers = getattr(executor, "slots", workers)
        orderly = False
        sharing = executor
        if self.progress is not None:
            self.progress.start()
        try:
            if isinstance(self.work, Segments) or isinstance(executor, ProcessExecutor):
                sharing = shared(executor, self.work.objective)
            with study.storage.alive():
                study.storage.adopt_abandoned(study.study_id)
                self._loop(sharing, workers)
            orderly = True
        finally:
            self._let_go()
            with suppress(StorageError):
                self.budget.note_time(last=True)
            if sharing is not executor:
                sharing.shutdown(wait=False)
            if own:
                executor.shutdown(wait=orderly, cancel_futures=True)
            if self.progress is not None:
                self.progress.stop()

    def _loop(self, executor: Executor, workers: int) -> None:
        running = self.running
        problem: BaseException | None = None
        while True:
            while problem is None and len(running) < workers and not self.is_over:
                jobs = self.work.next()
                if not jobs:
                    break
                try:
                    crowded = 2 * workers > cores()
                    running[executor.submit(perform, crowded, *self.work.task(jobs))] = jobs
                except Exception as error:  # the executor is of no use any more, or the job cannot be sent
                    for job in jobs:
                        self.release(job.trial)
                    problem = error
            if not running:
                if problem is not None:
                    raise problem
                if self.is_over or not self.study.storage.adopt_abandoned(self.study.study_id):
                    return
                continue
            done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                jobs = running.pop(future)
                for job, part in zip(jobs, parted(jobs, future), strict=True):
                    problem = self._take_in(job, part) or problem
            self.budget.note_time()

    @property
    def is_over(self) -> bool:
        """Whether no more work is to be begun."""
        return self.stopping or time.monotonic() >= self.budget.deadline

    def _let_go(self) -> None:
        """Keep what is done and give the rest back, to be run again."""
        for future, jobs in self.running.items():
            if future.done() and not future.cancelled():
                for job, part in zip(jobs, parted(jobs, future), strict=True):
                    with suppress(Exception):
                        self._take_in(job, part, quiet=True)
        self.study.storage.release_all(self.study.study_id, self.owner)

    def _take_in(self, job: Job, future: Future[Any], quiet: bool = False) -> BaseException | None:
        """Record how a job ended; the exception that ends the study, if it raised one."""
        trial = job.trial
        try:
            self._charge(job, future)
            self.work.ended(job, future.result().result)
        except TrialPruned:
            self.end(trial, TrialState.PRUNED)
        except TrialLost as error:
            warnings.warn(f"a result was dropped: {error}", RuntimeWarning, stacklevel=2)
            return None
        except (StorageError, WorkersUnavailable) as error:
            self.release(trial)
            return error
        except Exception as error:
            if is_loss(error):
                if self._run_again(job, error):
                    return None
            else:
                self.end(trial, TrialState.FAIL, error=f"{type(error).__name__}: {error}")
                if not isinstance(error, self.catch):
                    return error
        if not quiet:
            self.tell_callbacks(trial.number)
        if self.gc_after_trial:
            gc.collect()
        return None

    def _charge(self, job: Job, future: Future[Any]) -> None:
        """Count a job's cost; where it raised something, the seconds since it was handed out."""
        failed = future.cancelled() or future.exception() is not None
        self.budget.charge(job, time.monotonic() - job.begun if failed else future.result().seconds)

    def _run_again(self, job: Job, error: Exception) -> bool:
        """Give back the trial of a worker that died, to be run by another; end it as failed if that was too often."""
        trial = job.trial
        self.losses[trial.number] += 1
        if self.losses[trial.number] >= MAX_CRASHES:
            reason = f"the worker that ran this trial died {MAX_CRASHES} times: {type(error).__name__}: {error}"
            self.end(trial, TrialState.FAIL, error=reason)
            return False
        self.put_back(trial)
        self.exhausted = False
        return True

    # ----------------------------------------------------------------------------- for the kinds of work

    @property
    def may_start(self) -> bool:
        """Whether new trials may be begun. (Of a total, the storage keeps count.)"""
        return not self.exhausted and (self.total or self.n_trials is None or self.started < self.n_trials)

    @property
    def handed_out(self) -> list[Job]:
        """The jobs that workers have, and those that wait for one."""
        return [job for jobs in (*self.running.values(), *self.work.waiting) for job in jobs]

    def next_trial(
        self, number: int | None = None, limited: bool = True, suggested: Mapping[str, Any] | None = None
    ) -> Trial | None:
        """That trial, or the next one; None if there is none to be had. Only a limited one counts.

        suggested: settings that a new one takes, unless that would make it a trial there was already.
        """
        at_most = self.n_trials if self.total and limited else None
        try:
            trial = self.study._next_trial(self.owner, at_most, number, suggested)
        except SpaceExhausted:
            self.exhausted = True
            return None
        if trial is None:
            self.exhausted = self.exhausted or number is None
        elif not trial.steps and limited:
            self.started += 1
        return trial

    def end(
        self,
        trial: Trial,
        state: TrialState,
        values: Sequence[float] | None = None,
        error: str | None = None,
        segment: Sequence[Any] = (),
    ) -> None:
        """End a trial for good; its states are no longer needed."""
        self.study._end(trial.number, trial._attempt, state, values, error, segment)
        self.study.storage.checkpoints(self.study.study_id).drop(trial.number)

    def put_back(self, trial: Trial) -> None:
        """Give back a trial that is not run after all."""
        self.release(trial)
        self.started -= not trial.steps

    def release(self, trial: Trial) -> None:
        with suppress(TrialLost):
            self.study.storage.release(self.study.study_id, trial.number, trial._attempt)

    def tell_callbacks(self, number: int) -> None:
        trial = self.study.storage.trial(self.study.study_id, number)
        if self.progress is not None:
            self.progress.show(self.study, trial)
        for callback in self.callbacks:
            callback(self.study, trial.copy())


class Work(ABC):
    """What there is to do for one kind of objective."""

    def __init__(self, optimization: Optimization, objective: Any):
        self.optimization = optimization
        self.study = optimization.study
        self.objective = objective
        self.waiting: list[list[Job]] = []
        """Jobs that no worker has yet."""

    @abstractmethod
    def next(self) -> list[Job]:
        """The next job, or several to be done as one; none if there is nothing to do now."""

    def task(self, jobs: Sequence[Job]) -> tuple[Any, ...]:
        """The function that does these jobs, and its arguments."""
        (job,) = jobs
        return job.function, *job.arguments

    @abstractmethod
    def ended(self, job: Job, result: Any) -> None:
        """Record the result of a job that raised nothing."""


class Calls(Work):
    """An objective that is a function of a trial."""

    def next(self) -> list[Job]:
        optimization = self.optimization
        if not optimization.may_start or not optimization.budget.fits(optimization.handed_out):
            return []
        trial = optimization.next_trial()
        return [Job(trial, self.objective, (trial,), spent=trial.cost)] if trial else []

    def ended(self, job: Job, result: Any) -> None:
        values, problem = feasible(result, len(self.study.directions))
        state = TrialState.COMPLETE if problem is None else TrialState.FAIL
        self.optimization.end(job.trial, state, values, problem)


class Segments(Work):
    """A `Resumable`, whose trials are run in the segments that the pruner's scheduler chooses."""

    objective: Resumable

    def __init__(self, optimization: Optimization, objective: Resumable):
        super().__init__(optimization, objective)
        whole("max_steps", objective.max_steps, 1)
        if objective.score not in ("last", "best"):
            raise ValueError(f"score must be 'last' or 'best', got {objective.score!r}")
        self.scheduler = self.study.pruner.scheduler()
        self.checkpoints = self.study.storage.checkpoints(self.study.study_id)
        ended = {t.number for t in self.study.storage.trials(self.study.study_id) if t.state.is_finished()}
        self.checkpoints.sweep(ended)

    def next(self) -> list[Job]:
        if not self.waiting:
            self._ask()
        return self.waiting.pop(0) if self.waiting else []

    def task(self, jobs: Sequence[Job]) -> tuple[Any, ...]:
        if len(jobs) == 1:
            return super().task(jobs)
        trials = [job.trial for job in jobs]
        done, steps = [trial.steps for trial in trials], [job.steps for job in jobs]
        return run_segments, self.objective, trials, done, steps, self.checkpoints

    def _ask(self) -> None:
        """Have jobs wait: one, or as many as the objective advances together."""
        asked: list[Job] = []
        most = 1
        while len(asked) < most and not (asked and self.optimization.is_over):
            self.waiting = [asked]  # they count as handed out
            job = self._next_job()
            if job is None:
                break
            asked.append(job)
            if isinstance(self.objective, Stackable) and self.objective.stack > 1:
                most = max(most, min(self.objective.stack, self.objective.kind(job.trial.params)[1]))
        self.waiting = grouped(self.objective, asked) if len(asked) > 1 else [asked] if asked else []

    def _next_job(self) -> Job | None:
        optimization = self.optimization
        while True:
            trials = self._table()
            may_start = optimization.may_start
            if optimization.total:
                started = sum(t.state is not TrialState.WAITING for t in trials)
                may_start = may_start and started < optimization.n_trials
            decision = self.scheduler.decide(
                Situation(
                    [t for t in trials if may_start or t.parent or t.state is not TrialState.WAITING],
                    self.objective.max_steps,
                    may_start,
                    self.study.signs,
                    self.objective.score == "best",
                )
            )
            for number in decision.stop:
                self._stop(number)
            segment = decision.run
            budget, running = optimization.budget, optimization.handed_out
            if segment is None or not budget.fits(running, steps=segment.steps):
                return None
            trial = self._trial(segment)
            if trial is not None:
                arguments = (self.objective, trial, trial.steps, segment.steps, self.checkpoints)
                price = budget.price_of(trial.params, segment.steps)
                if price is not None and not budget.fits(running, trial.params, segment.steps):
                    optimization.put_back(trial)
                    return None
                return Job(trial, run_segment, arguments, segment.steps, price, trial.cost)

    def _trial(self, segment: Segment) -> Trial | None:
        number = segment.number if segment.parent is None else self._fork(segment)
        known = None if number is None else self.study.storage.trial(self.study.study_id, number)
        child = known is not None and known.parent is not None
        suggested = {}
        if number is None and isinstance(self.objective, Stackable) and self.objective.stack > 1:
            suggested = shared_structure(self.objective, self.study.storage.trials(self.study.study_id))
        trial = self.optimization.next_trial(number, not child, suggested)
        if child and trial is not None and not trial.params:  # without a fixed space nobody has set them yet
            origin = self.study.storage.trial(self.study.study_id, known.parent[0])
            trial._set(known.fixed, {name: origin.distributions[name] for name in known.fixed})
        return trial

    def _fork(self, segment: Segment) -> int:
        """A waiting trial with a copy of its parent's state; its number."""
        parent = self.study.storage.trial(self.study.study_id, segment.parent)
        origin = {"trial": parent.number, "steps": parent.steps, "age": parent.age}
        params = parent.params if segment.params is None else segment.params
        params = self.objective.inherit(dict(params), dict(parent.params))
        child = self.study.storage.enqueue_trial(self.study.study_id, params, {"parent": origin})
        self.checkpoints.copy(parent.number, parent.steps, child, self.objective)
        return child

    def ended(self, job: Job, result: list[Any]) -> None:
        optimization, trial, done = self.optimization, job.trial, job.trial.steps + len(result)
        optimization.budget.add_steps(len(result))
        for key, value in getattr(result, "remarks", {}).items():
            trial.set_user_attr(key, value)
        if any(map(self._diverged, result)):
            problem = f"a value is NaN or infinitely bad within the steps up to {done}"
            optimization.end(trial, TrialState.FAIL, error=problem, segment=result)
        elif len(result) < job.steps or trial.age + len(result) >= self.objective.max_steps:
            self._complete(trial, self.study.storage.trial(self.study.study_id, trial.number), result)
        else:
            self.study.storage.add_segment(self.study.study_id, trial.number, trial._attempt, result)
            self.checkpoints.drop(trial.number, keep=done)

    def _table(self) -> list[FrozenTrial]:
        """The study's trials, after ending those that had their last step when `max_steps` was larger."""
        trials = self.study.storage.trials(self.study.study_id)
        over = [t for t in trials if t.state is TrialState.PAUSED and t.age >= self.objective.max_steps]
        for frozen in over:
            with suppress(TrialLost):
                self._complete(Trial(self.study, frozen.number, frozen.attempt), frozen)
        return self.study.storage.trials(self.study.study_id) if over else trials

    def _complete(self, trial: Trial, frozen: FrozenTrial, segment: Sequence[Any] = ()) -> None:
        curve = [*frozen.intermediate_values.values(), *segment]
        if not curve:
            self.optimization.end(trial, TrialState.FAIL, error="advance gave no value at all")
            return
        value = curve[pareto.best(curve, self.study.signs) if self.objective.score == "best" else -1]
        self.optimization.end(trial, TrialState.COMPLETE, np.atleast_1d(value).tolist(), segment=segment)

    def _diverged(self, value: float | list[float]) -> bool:
        losses = np.multiply(value, self.study.signs)
        return bool(np.any(np.isnan(losses) | (losses == math.inf)))

    def _stop(self, number: int) -> None:
        frozen = self.study.storage.trial(self.study.study_id, number)
        with suppress(TrialLost):
            self.optimization.end(Trial(self.study, number, frozen.attempt), TrialState.PRUNED)
            self.optimization.tell_callbacks(number)
