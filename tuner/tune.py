"""`tune`: search over nanonet's own training settings, retrain the best, and look once at data set aside.

The parts are in `tuner.tuning`: what is set aside (parts), how a trial trains (runs, course), what is measured of it
(objectives, limits, normalized), and what follows the search (finalists, result).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nanonet import data, losses, metrics, tensor
from nanonet.data import Dataset
from nanonet.device import memory
from nanonet.errors import DataError, OptionError
from nanonet.settings import Settings
from nanonet.training import Run

from .errors import StorageError, TrialPruned
from .executors import cores
from .pruners import NopPruner, PopulationTrainingPruner, Pruner
from .range_test import settings_by_range_test
from .samplers import AutoSampler, Sampler
from .schedulers import GrowingBrackets, Scheduler
from .space import Space
from .storage import Storage
from .study import Study, create_study
from .trial import FrozenTrial, Trial
from .tuning import warm
from .tuning.course import ETA, Course, rungs
from .tuning.finalists import run_finals
from .tuning.limits import Limits
from .tuning.objectives import FGSM, Latency, Metric, Noise, Objective, Parameters, make
from .tuning.parts import Parts, scaled
from .tuning.refinement import check_refinable, run_refinement
from .tuning.result import Finalist, FrontMember, TuneResult
from .tuning.runs import State, TrainingRuns
from .tuning.space import first_settings, settings_space, tunable
from .tuning.stages import continued, stages_of

__all__ = [
    "FGSM",
    "Finalist",
    "FrontMember",
    "Latency",
    "Noise",
    "Objective",
    "Parameters",
    "TrainingRuns",
    "TuneResult",
    "settings_space",
    "tune",
]

DEFAULT_MINUTES = 1.0
SEARCH_SHARE = 0.9  # of the time; the rest is for the final training
FINALS_SHARE = 0.25  # of the time, if there are finalists
REFINE_SHARE = 0.3  # of the time, if the best is refined
LARGEST = 27  # trials of a bracket


class Brackets(NopPruner):
    """The pruner that `tune` uses unless given another one: trials are compared at the ends of a course."""

    def __init__(self, course: Course):
        largest = min(LARGEST, ETA ** (len(course.ends) - 1))
        folds = course.folds if course.fold_by_fold else 1
        self._scheduler = GrowingBrackets(course.rungs, ETA, folds, largest=largest)

    def scheduler(self) -> Scheduler:
        return self._scheduler


class Bounded(TrainingRuns):
    """Training runs of a search with constraints: settings that break one in any case are not trained."""

    limits: Limits | None = None

    def start(self, trial: Trial) -> State:
        if self.limits is not None and self.limits.hopeless(self, trial.params):
            raise TrialPruned("the settings break a constraint")
        return super().start(trial)


# -------------------------------------------------------------------------------------------- the search


def tune(
    x: Any,
    y: Any = None,
    *,
    minutes: float | None = None,
    trials: int | None = None,
    space: Space | Iterable[str] | None = None,
    base: Settings | None = None,
    sampler: Sampler | None = None,
    pruner: Pruner | None = None,
    validation: Any = "auto",
    groups: Any = None,
    metric: str | Metric | Objective | Sequence[str | Metric | Objective] | None = None,
    direction: str | Sequence[str | None] | None = None,
    constraints: Mapping[str, str] | None = None,
    choose: Callable[[list[FrontMember]], FrontMember] | None = None,
    test: float = 0.2,
    max_epochs: int = 54,
    task: str | None = None,
    seed: int = 0,
    finalists: int = 1,
    repeats: int = 3,
    refine: str | None = None,
    warm_start: Any = (),
    lr_test: bool = False,
    n_jobs: int | None = None,
    device: str = "cpu",
    stack: int | str | bool = "auto",
    executor: Executor | str | None = None,
    out: str | os.PathLike[str] | None = None,
    storage: str | os.PathLike[str] | Storage | None = None,
    callbacks: Iterable[Callable[[Study, FrozenTrial], None]] = (),
    show_progress_bar: bool = False,
) -> TuneResult:
    """The best training settings for these rows, and the network trained with them.

    x (n, ...), y (n,) labels or values, or (n, k) values; or a `nanonet.data.Dataset`, whose own test part then serves;
        or a list of Datasets with one task, for which one setting is sought that is good for all: the score of each is
        taken relative to the best answer that looks at no input (`tuner.tuning.normalized`), and the mean counts.
    minutes: for everything; trials: how many the study shall have in all. One minute if neither is given.
    space: a `Space` over the flat parameters of `Settings.search_space`, or names of settings to search.
    base: the settings that are not searched; tried first. By default `tuner.tuning.space.FIRST`: a small network with a
        cosine schedule, and then a larger one with dropout.
    sampler: AutoSampler unless given. pruner: unless given, successive halving in brackets of 1, 3, 9 and 27 trials
        (`tuner.schedulers.GrowingBrackets`), compared where the schedule of the learning rate has just run out: it
        begins anew after that (`Settings.restart`), unless `base` says otherwise. With PopulationTrainingPruner
        settings change in the course of training, all but the network and the kind of optimizer, which a trial keeps
        from the one whose weights it takes; the model at the end goes through the same stages (`TuneResult.stages`).
    validation: "split" sets a fifth of all rows aside; a whole number k >= 2 makes k folds (of whole `groups`, if
        given); "auto" makes 4 folds of up to 5000 rows, of which a fifth would be too few to tell good settings from
        better ones, and splits more. Or a splitter such as `nanonet.data.TimeSeriesSplit` or scikit-learn's, whose
        split(x, y) or split(x, y, groups) gives pairs of row numbers in the development part; or an iterable of such
        pairs in all rows, what is in none of them being the test part. A trial that does badly on the first fold does
        not go on to the others.
    groups: (n,) what each row belongs to; no group is in two of the training, validation and test part.
    metric: "accuracy" (the default for classes), "loss" (the default for values), "mae", the name of any metric in
        `nanonet.metrics`, "parameters", "latency" (seconds per row), "noise(0.5)", "fgsm(0.1)" (see
        `tuner.tuning.objectives`), or a function of (y_true, y_pred), which wants `direction`. Several in a list make
        several objectives, `direction` then being a list too, or None.
    constraints: such as {"parameters": "<= 50000", "latency": "<= 1e-4", "mae": "<= 0.1", "noise(0.5)": ">= 0.9"}, of
        whatever may be a metric. What the weights decide is measured on the validation rows along with the metric, in
        the data's own unit (of several data sets the mean), and the last of it is kept in `FrozenTrial.user_attrs`.
        Settings that break a constraint are never the result, and samplers keep away from them.
    choose: with several objectives, which of `TuneResult.front` becomes the model; the first by the first objective
        unless given.
    test: share of the rows set aside and looked at once, at the end. Classes come in every part in their proportion.
    max_epochs: of a trial; schedules are laid out over so many.
    seed: of the parts, the proposals and the training.
    finalists: so many of the best settings are trained with `repeats` seeds in all at the end, within the time, and
        chosen by their mean; 1 takes the best trial as it is. For one objective.
    refine: "gradient" refines those of the best settings that are numbers and can be differentiated (learning rate,
        weight decay, L1, momentum, betas) by the gradient of the validation loss (`tuner.gradient_tune`), and runs them
        as a trial more, to its end; it is the result only if it is better. For one objective, and settings that stay as
        they are in the course of training. It takes three tenths of `minutes`; without them the gradient is taken up to
        twenty times, which costs some hundreds of epochs. It wants folds: a single small validation part it learns by
        heart.
    warm_start: earlier studies, or files that hold one, whose best settings in the space are tried first.
    lr_test: try, after the defaults, each optimizer at the learning rate that a range test on the first fold suggests.
    n_jobs: trials side by side, one per processor unless given; on a GPU one.
    device: "cpu" or "cuda", where networks are trained. The model at the end is on the CPU.
    stack: up to how many trials a worker trains as one, those of one network, update rule and batch size
        (`nanonet.stacked`); each has its own learning rate, decay, dropout and so on, its own row in the study and its
        own end. To make them of one kind, a structure (widths, activation, rule, batch size) that the sampler proposed
        is shared by the trials after it, by up to `stack` of them, and by no more than a quarter of those before it
        (`tuner.stacking.shared_structure`); all else they are proposed as ever. False trains one by one. "auto" stacks
        up to 16 on a GPU, fewer the more work an update is, and none on the CPU, where it does not pay. Results are
        those of single runs to rounding, but for dropout's masks, which depend on what is trained together.
    executor: who trains them, as in `Study.optimize`: "threads" (the default), "processes", or any
        `concurrent.futures.Executor`, such as Dask's `client.get_executor()` or `tuner.devices.Devices`. The data are
        sent to each process once. Functions of your own as metrics must be picklable then. Without `out` and `storage`
        a study that leaves this process is kept in a temporary file. Finalists, the refinement and the model at the end
        are trained here.
    out: a folder to hold the study as study.db; storage: where to keep it instead. If it holds this search already, the
        search goes on: trials that are done are not repeated.
    callbacks: called as callback(study, trial) after each segment of a trial.

    Ctrl-C ends the search with the best so far. Raises DataError, OptionError, StorageError; DataError if no trial
    gave a finite value.
    """
    begin = time.monotonic()
    if minutes is None and trials is None:
        minutes = DEFAULT_MINUTES
    if minutes is not None and not minutes > 0:
        raise OptionError(f"minutes is {minutes!r}; wanted a number above 0")
    counts = {"trials": trials, "max_epochs": max_epochs, "finalists": finalists, "repeats": repeats}
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
            raise OptionError(f"{name} is {value!r}; wanted a whole number of at least 1")
    if refine not in (None, "gradient"):
        raise OptionError(f"refine is {refine!r}; wanted 'gradient' or None")
    if refine and isinstance(pruner, PopulationTrainingPruner):
        raise OptionError("refine is 'gradient', and pruner changes settings in mid-run; wanted one of the two")
    memory(device)
    whole = isinstance(stack, (int, np.integer)) and not isinstance(stack, bool) and stack >= 1
    if stack is not False and stack != "auto" and not whole:
        raise OptionError(f"stack is {stack!r}; wanted 'auto', False or a whole number of at least 1")
    datasets = _datasets(x, y, task)
    objectives = _objectives(metric, direction, datasets, seed)
    if finalists > 1 and len(objectives) > 1:
        raise OptionError(f"finalists is {finalists}; with several objectives wanted 1")
    if refine and len(objectives) > 1:
        raise OptionError(f"refine is {refine!r}; with several objectives wanted None")
    parts = [Parts.of(dataset, validation, test, seed, groups) for dataset in datasets]
    names = [objective.name for objective in objectives]
    first = first_settings(datasets[0].task, names) if base is None else [base]
    base = first[0].replace(seed=seed)
    if not isinstance(space, Space):
        searched = tunable(datasets[0].task) if space is None else list(space)
        space = settings_space(searched, base)
        points = [settings.to_search(searched) for settings in first[1:]]
        space.defaults += [point for point in points if point not in space.defaults]
    if refine:
        check_refinable(space)
    course = _course(parts, int(max_epochs), pruner is None, base, space)
    if pruner is None:
        pruner = Brackets(course)
        if not base.restart and course.ends[0] < max_epochs:
            base = base.replace(restart=course.ends[0])
    limits = Limits(constraints, objectives, datasets[0].task, datasets[0].outputs, seed) if constraints else None
    work = Bounded(parts, objectives, base, course, limits.watched if limits else (), device, stack or None)
    work.limits = limits
    excess = limits.excess(work) if limits else None

    temporary = None
    if out is None and storage is None and _elsewhere(executor):
        temporary = Path(tempfile.mkdtemp(prefix="tuner-"))
    study = create_study(
        storage=_storage(out, storage) if temporary is None else temporary / "study.db",
        study_name="tune",
        load_if_exists=True,
        directions=[objective.direction for objective in objectives],
        sampler=AutoSampler(seed, excess) if sampler is None else sampler,
        pruner=pruner,
        space=space,
        constraints_func=excess,
    )
    if temporary is not None:
        weakref.finalize(study, shutil.rmtree, temporary, ignore_errors=True)
    if out is not None or storage is not None:
        _check_same_search(study, datasets, validation, names, test, int(max_epochs), seed, constraints)
    _warm_up(study, warm_start, space)
    if lr_test and not any(trial.steps for trial in study.get_trials(deepcopy=False)):
        for settings in [*space.defaults, *settings_by_range_test(space, base, parts[0])]:
            study.enqueue_trial(settings, skip_if_exists=True)
    workers = n_jobs if n_jobs is not None else cores() if device == "cpu" else 1
    refined_share = SEARCH_SHARE - (FINALS_SHARE if finalists > 1 and repeats > 1 else 0)
    share = refined_share - (REFINE_SHARE if refine else 0)
    interrupted = False
    finals: list[Finalist] = []
    refinement = None
    try:
        study.optimize(
            work,
            n_trials=trials,
            total=trials is not None,
            timeout=None if minutes is None else 60 * minutes * share - (time.monotonic() - begin),
            n_jobs=-1 if executor is not None and n_jobs is None else workers,
            executor=executor,
            callbacks=callbacks,
            show_progress_bar=show_progress_bar,
        )
        if refine and _has_result(study):
            deadline = float("inf") if minutes is None else begin + 60 * minutes * refined_share
            refinement = run_refinement(study, work, space, deadline)
        if finalists > 1 and repeats > 1 and _has_result(study):
            deadline = float("inf") if minutes is None else begin + 60 * minutes * SEARCH_SHARE
            finals = run_finals(study, work, finalists, repeats, deadline, cores() if workers == -1 else workers)
    except KeyboardInterrupt:
        interrupted = True
    front = _front(study, work)
    if not front:
        if interrupted:
            raise KeyboardInterrupt from None
        reasons = {t.error for t in study.get_trials(deepcopy=False) if t.error}
        if constraints:
            reasons.add("or none that keeps the constraints")
        reason = "; ".join(sorted(reasons)) or "there was no time"
        raise DataError(f"no trial gave a finite {names[0]}: {reason}")
    best = (choose or (lambda members: members[0]))(front)
    if not isinstance(best, FrontMember):
        raise OptionError(f"choose gave {best!r}; wanted one of the members of the front")
    score = best.values[names[0]]
    if finals:
        best, score = _member(finals[0].trial, work), finals[0].mean
    found = [_finish(study, work, part, each, best, score) for part, each in zip(parts, datasets, strict=True)]
    result, result.others = found[0], found[1:]
    result.front = front if len(objectives) > 1 else []
    result.finalists, result.refinement, result.interrupted = finals, refinement, interrupted
    result.seconds = time.monotonic() - begin
    return result


def _datasets(x: Any, y: Any, task: str | None) -> list[Dataset]:
    several = isinstance(x, (list, tuple)) and len(x) > 0 and all(isinstance(each, Dataset) for each in x)
    datasets = list(x) if several else [x if isinstance(x, Dataset) else data.from_arrays(x, y, task)]
    for dataset in datasets:
        if dataset.y is None:
            raise DataError("y is missing; wanted labels or values to learn")
        if dataset.task != datasets[0].task:
            raise DataError(f"data sets are for {datasets[0].task} and for {dataset.task}; wanted one task")
    return datasets


def _objectives(metric: Any, direction: Any, datasets: Sequence[Dataset], seed: int) -> list[Objective]:
    dataset = datasets[0]
    if metric is None:
        metric = "accuracy" if dataset.task == "classification" else "loss"
    several = isinstance(metric, (list, tuple))
    wanted = list(metric) if several else [metric]
    if direction is None or isinstance(direction, str):
        directions = [direction] * len(wanted)
    else:
        directions = list(direction)
    if not wanted or len(directions) != len(wanted):
        raise OptionError(f"metric names {len(wanted)} objectives and direction {len(directions)}; wanted one for each")
    outputs = max(each.outputs for each in datasets)
    made = [make(m, d, dataset.task, outputs, seed) for m, d in zip(wanted, directions, strict=True)]
    if len({objective.name for objective in made}) < len(made):
        raise OptionError(f"metric is {[objective.name for objective in made]}; wanted each objective once")
    return made


def _course(parts: Sequence[Parts], max_epochs: int, halving: bool, base: Settings, space: Space) -> Course:
    """Fold after fold where trials are halved; together where the pruner is the user's, or runs stop alone."""
    folds = sum(len(part.folds) for part in parts)
    rows = min(len(fold.y) for part in parts for fold in part.folds)
    ends = rungs(max_epochs, rows) if halving else [max_epochs]
    stops = base.early_stopping or "early_stopping" in space.parameters
    return Course(folds, ends, halving and len(parts) == 1 and len(ends) > 1 and not stops)


def _warm_up(study: Study, warm_start: Any, space: Space) -> None:
    """Have the best settings of earlier studies tried first, and then the usual ones. Once in a study's life."""
    if study.get_trials(deepcopy=False) or (isinstance(warm_start, (list, tuple)) and not warm_start):
        return
    known = warm.earlier_settings(warm_start, space)
    for settings in [*known, *space.defaults] if known else ():
        study.enqueue_trial(settings, skip_if_exists=True)


# --------------------------------------------------------------------------------------------- the best


def _has_result(study: Study) -> bool:
    return len(study.directions) == 1 and bool(study.best_trials)


def _front(study: Study, work: TrainingRuns) -> list[FrontMember]:
    """The settings that none beats, by the first objective, best first; with one objective the best alone."""
    if len(study.directions) == 1:
        try:
            trials = [study.best_trial]
        except ValueError:
            return []
    else:
        trials = study.best_trials
    members = [_member(trial, work) for trial in trials]
    if work.limits is not None:  # where no trial is complete, the best ones may not have been judged yet
        members = [m for m in members if work.limits.kept(work, m.trial)]
    first = work.objectives[0].name
    return sorted(members, key=lambda m: (study.signs[0] * m.values[first], m.trial.number))


def _member(trial: FrozenTrial, work: TrainingRuns) -> FrontMember:
    last = np.atleast_1d(trial.intermediate_values[trial.steps]).tolist()
    names = [objective.name for objective in work.objectives]
    epochs = max(work.course.epochs(trial.age))
    watched = {o.name: trial.user_attrs[o.name] for o in work.watched if o.name in trial.user_attrs}
    return FrontMember(trial, work.settings(trial.params), dict(zip(names, last, strict=True)), epochs, watched)


def _finish(
    study: Study, work: TrainingRuns, parts: Parts, dataset: Dataset, best: FrontMember, score: float
) -> TuneResult:
    """Train the best settings on the whole development part and measure the test part."""
    objective = work.objectives[0]
    part = scaled(dataset.task, parts.x, parts.y)
    stages = stages_of(study, best.trial, work)
    settings = stages[0].settings.replace(early_stopping=0)
    run = Run(settings, part.x, part.y, task=dataset.task, classes=parts.classes, device=work.device)
    run.advance(stages[0].epochs)
    for stage in stages[1:]:
        run = continued(run, stage.settings, part.x, part.y, early_stopping=0)
        run.advance(stage.epochs - run.epoch)
    result = TuneResult(
        model=run.model if work.device == "cpu" else copy.deepcopy(run.model).cpu(),
        settings=best.settings,
        stages=stages,
        watched=best.watched,
        epochs=best.epochs,
        standardizer=part.standardizer,
        target_standardizer=part.target_standardizer,
        study=study,
        best_trial=best.trial,
        validation_score=score if len(work.parts) > 1 else score * parts.unit(objective.name),
        test_score=float("nan"),
        test_metrics={},
        metric=objective.name,
        direction=objective.direction,
        dataset=dataset,
        run=run,
        steps_per_epoch=work.course.folds if work.course.fold_by_fold else 1,
        rows={"training": len(parts.folds[0].y), "development": len(parts.y), "test": len(parts.y_test)},
    )
    result.test_metrics = _test_metrics(dataset.task, objective, parts.y_test, result.scores(parts.x_test))
    result.test_score = result.test_metrics.get(objective.name, float("nan"))
    return result


def _test_metrics(task: str, objective: Objective, y: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """The search's metric first, if outputs and targets are all it takes, then the usual ones."""
    if task == "classification":
        usual: dict[str, Metric] = {"accuracy": metrics.accuracy, "loss": _cross_entropy}
    else:
        usual = {"loss": metrics.mse, "mae": metrics.mae, "r2": metrics.r2}
    own = {} if objective.name in usual else {objective.name: objective.test}
    wanted = {name: usual[name] for name in usual if name == objective.name} | own | usual
    found = {name: function(y, outputs) for name, function in wanted.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def _cross_entropy(y: np.ndarray, scores: np.ndarray) -> float:
    """Mean negative log-probability of class numbers y (n,) under softmax(scores (n, classes))."""
    return float(losses.cross_entropy(tensor(scores.astype(np.float64)), tensor(y)).numpy())


# ------------------------------------------------------------------------------------------ the storage


def _elsewhere(executor: Executor | str | None) -> bool:
    """Whether trials may leave this process, and with them their study."""
    return executor not in (None, "threads") and not isinstance(executor, ThreadPoolExecutor)


def _storage(out: Any, storage: Any) -> Any:
    if out is None or storage is not None:
        return storage
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: the folder cannot be made: {error}") from error
    return folder / "study.db"


def _check_same_search(
    study: Study,
    datasets: Sequence[Dataset],
    validation: Any,
    names: Sequence[str],
    test: float,
    max_epochs: int,
    seed: int,
    constraints: Mapping[str, str] | None,
) -> None:
    """A study goes on only with what it was begun with: otherwise its scores could not be compared."""
    digest = hashlib.sha256()
    for array in [a for d in datasets for a in (d.x, d.y, d.x_test, d.y_test)]:
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    now = {
        "data": digest.hexdigest()[:16],
        "validation": validation if isinstance(validation, (str, int)) else type(validation).__name__,
        "metric": names[0] if len(names) == 1 else list(names),
        "test": test,
        "max_epochs": max_epochs,
        "seed": seed,
        "constraints": dict(constraints or {}),
        "space": hashlib.sha256(study.space.to_json().encode()).hexdigest()[:16],
    }
    begun = study.user_attrs.get("search")
    if begun is None:
        study.set_user_attr("search", now)
        return
    changed = [f"{key} was {begun.get(key)!r} and is {now[key]!r}" for key in now if begun.get(key) != now[key]]
    if changed:
        where = getattr(study.storage, "path", "the storage")
        raise StorageError(f"{where} holds another search: {json.dumps(changed)[1:-1]}; give another folder")


class _Callable(ModuleType):
    """`tuner.tune` is this module once it was imported as such, and the function otherwise; both can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> TuneResult:
        return tune(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
