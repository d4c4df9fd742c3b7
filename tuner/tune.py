"""`tune`: search over nanonet's own training settings, retrain the best, and look once at data set aside.

    all rows -- test part, looked at once, at the end
            \\-- development part -- training and validation part, or k folds: what the search sees
                                 \\- all of it: what the final model is trained on

A trial is a `nanonet.training.Run` (with k folds, k of them) that goes on epoch by epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nanonet import checkpoint, data, metrics
from nanonet.data import Dataset, Standardizer
from nanonet.errors import DataError, OptionError
from nanonet.settings import Settings
from nanonet.training import Run

from .errors import StorageError
from .executors import cores
from .pruners import Pruner, SuccessiveHalvingPruner
from .resumable import Resumable
from .samplers import AutoSampler, Sampler
from .space import Categorical, Domain, Float, Int, Ordinal, Space
from .storage import Storage
from .study import Study, create_study
from .trial import FrozenTrial, Trial, TrialState

__all__ = ["TrainingRuns", "TuneResult", "settings_space", "tune"]

DEFAULT_MINUTES = 1.0
SEARCH_SHARE = 0.9  # of the time; the rest is for the final training
FOLDS, FEW_ROWS = 4, 5000  # validation="auto": so many folds for at most so many rows
TIE = 1e-6  # what a unit of loss counts when accuracies are compared
MAXIMIZED = ("accuracy", "binary_accuracy", "top_k_accuracy", "precision", "recall", "f1", "r2")
DOMAINS: dict[str, type[Domain]] = {"float": Float, "int": Int, "ordinal": Ordinal, "categorical": Categorical}

Metric = Callable[[np.ndarray, np.ndarray], float]


# ------------------------------------------------------------------------------------------ the space


def settings_space(names: Iterable[str] | None = None, base: Settings | None = None) -> Space:
    """The search space that `nanonet.Settings` declares; the settings in `base` are its default point.

    names: the settings to search, by default those that are tunable. Raises OptionError for an unknown name.
    """
    base = base or Settings()
    rows = Settings.search_space(names, base)
    parameters: dict[str, Domain] = {}
    conditions = {}
    for row in rows:
        kind = DOMAINS[row["kind"]]
        parameters[row["name"]] = (
            kind(row["choices"]) if "choices" in row else kind(row["low"], row["high"], log=row["log"])
        )
        if row["condition"] is not None:
            conditions[row["name"]] = {"parent": row["condition"]["parent"], "in": list(row["condition"]["in"])}
    return Space(parameters, conditions, defaults=[base.to_search(names)])


# ------------------------------------------------------------------------------------------ the trials


@dataclass(frozen=True)
class Fold:
    """Rows to train on and rows to validate on, inputs (and targets of regression) scaled on the former."""

    x: np.ndarray
    y: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    scale: float
    """How much larger errors are in the targets' own unit."""


class TrainingRuns(Resumable):
    """A trial as training runs, one per fold; a step is an epoch, its value the metric's mean over all validation rows.

    A state is the list of runs. metric: the name of a value that `Run.advance` gives ("accuracy", "loss", "mae"), or a
    function of (y_true, y_pred). Of equal accuracies the one with the smaller loss counts more, by a hair.

    A trial counts by its last value: the best of a noisy curve flatters those that swing most, and lies in the middle
    of a learning rate schedule. (On digits, over five seeds: 0.981 test accuracy by the last, 0.978 by the best.)
    """

    suffix = ".safetensors"

    def __init__(
        self,
        folds: Sequence[Fold],
        metric: str | Metric,
        base: Settings,
        task: str,
        classes: int | None,
        max_epochs: int,
    ):
        self.folds = list(folds)
        self.metric = metric
        self.base = base.replace(epochs=max_epochs)
        self.task = task
        self.classes = classes
        self.max_steps = max_epochs

    def settings(self, params: dict[str, Any]) -> Settings:
        """The training settings of a trial."""
        return Settings.from_search(params, self.base)

    def start(self, trial: Trial) -> list[Run]:
        settings = self.settings(trial.params)
        return [
            Run(settings, f.x, f.y, (f.x_validation, f.y_validation), task=self.task, classes=self.classes)
            for f in self.folds
        ]

    def advance(self, state: list[Run], steps: int) -> tuple[list[Run], list[float]]:
        curves = [self._curve(run, fold, steps) for run, fold in zip(state, self.folds, strict=True)]
        rows = np.array([len(fold.y_validation) for fold in self.folds])
        length = min(map(len, curves))
        return state, [float(np.average([curve[step] for curve in curves], weights=rows)) for step in range(length)]

    def save(self, state: list[Run], path: Path) -> None:
        Path(path).write_bytes(checkpoint.dumps([run.state() for run in state]))

    def load(self, path: Path) -> list[Run]:
        states = checkpoint.load(path)
        return [
            Run.restore(state, f.x, f.y, (f.x_validation, f.y_validation))
            for state, f in zip(states, self.folds, strict=True)
        ]

    def _curve(self, run: Run, fold: Fold, epochs: int) -> list[float]:
        """The metric after each of the next epochs; NaN where the run diverged. Fewer if it stopped by itself."""
        if isinstance(self.metric, str):
            found = run.advance(epochs)
            values = [epoch[f"val_{self.metric}"] for epoch in found]
            if self.metric == "accuracy":
                values = [v - TIE * min(epoch["val_loss"], 1e3) for v, epoch in zip(values, found, strict=True)]
        else:
            values = []
            for _ in range(epochs):
                if not run.advance(1):
                    break
                values.append(float(self.metric(fold.y_validation, run.predict(fold.x_validation))))
        if run.diverged:
            values[-1:] = [float("nan")]
        return values


# ------------------------------------------------------------------------------------------ the result


@dataclass
class TuneResult:
    """What `tune` found.

    model: the network with the best settings, trained on the whole development part; takes scaled inputs.
    settings: the best ones. epochs: how many the model was trained for, as many as the best trial.
    standardizer, target_standardizer: fitted on the development part; the latter for regression only.
    study: every trial. best_trial: the one whose settings these are.
    validation_score: of the best trial; with several outputs, losses and errors are in standard deviations.
    test_score: of the model on the untouched test part.
    metric, direction: what the scores measure.
    interrupted: whether Ctrl-C ended the search.
    """

    model: Any
    settings: Settings
    epochs: int
    standardizer: Standardizer
    target_standardizer: Standardizer | None
    study: Study
    best_trial: FrozenTrial
    validation_score: float
    test_score: float
    test_metrics: dict[str, float]
    metric: str
    direction: str
    dataset: Dataset
    run: Run
    rows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False

    def scores(self, x: Any) -> np.ndarray:
        """The network's outputs for rows in the data's own units: class scores (n, classes), or values."""
        outputs = self.run.predict(self.standardizer.transform(np.asarray(x)))
        if self.target_standardizer is None:
            return outputs
        single = self.target_standardizer.mean.ndim == 0
        return self.target_standardizer.inverse(outputs[:, 0] if single else outputs)

    def predict(self, x: Any) -> np.ndarray:
        """Class names (numbers, if the labels were numbers 0 to k - 1) or values for rows x (n, ...)."""
        outputs = self.scores(x)
        if self.dataset.task == "regression":
            return outputs
        numbers = outputs.argmax(axis=1)
        names = self.dataset.class_names
        plain = names is None or list(names) == [str(i) for i in range(len(names))]
        return numbers if plain else np.asarray(names)[numbers]

    def report(self) -> str:
        """The outcome as a table in plain text."""
        states = [t.state for t in self.study.get_trials(deepcopy=False)]
        early = states.count(TrialState.PRUNED) + states.count(TrialState.PAUSED)
        steps = sum(t.steps for t in self.study.get_trials(deepcopy=False))
        lines = [
            ("trials", f"{len(states)} ({states.count(TrialState.COMPLETE)} in full, {early} ended early, "
                       f"{states.count(TrialState.FAIL)} failed; {steps} epochs)"),
            ("best trial", str(self.best_trial.number)),
            (f"validation {self.metric}", f"{self.validation_score:.4f}"),
            *((f"test {name}", f"{value:.4f}") for name, value in self.test_metrics.items()),
            ("epochs", str(self.epochs)),
        ]  # fmt: skip
        shown = self.settings.to_dict()
        lines += [(name, _shown(shown[name])) for name in self.settings.active() if name not in ("epochs", "seed")]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


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
    validation: str | int = "auto",
    metric: str | Metric | None = None,
    direction: str | None = None,
    test: float = 0.2,
    max_epochs: int = 54,
    task: str | None = None,
    seed: int = 0,
    n_jobs: int | None = None,
    out: str | os.PathLike[str] | None = None,
    storage: str | os.PathLike[str] | Storage | None = None,
    callbacks: Iterable[Callable[[Study, FrozenTrial], None]] = (),
    show_progress_bar: bool = False,
) -> TuneResult:
    """The best training settings for these rows, and the network trained with them.

    x (n, ...), y (n,) labels or values, or (n, k) values; or a `nanonet.data.Dataset`, whose own test part then serves.
    minutes: for everything; trials: how many the study shall have in all. One minute if neither is given.
    space: a `Space` over the flat parameters of `Settings.search_space`, or names of settings to search.
    base: the settings that are not searched; tried first. sampler: AutoSampler unless given.
    pruner: successive halving over epochs unless given.
    validation: "split" sets a fifth of all rows aside; a whole number k >= 2 makes k folds; "auto" makes 4 folds of up
        to 5000 rows, of which a fifth would be too few to tell good settings from better ones, and splits more.
    metric: "accuracy" (the default for classes), "loss" (the default for values), "mae", the name of any metric in
        `nanonet.metrics`, or a function of (y_true, y_pred), which wants `direction`.
    test: share of the rows set aside and looked at once, at the end. Classes come in every part in their proportion.
    max_epochs: of a trial; schedules are laid out over so many.
    seed: of the parts, the proposals and the training.
    n_jobs: trials side by side, one per processor unless given.
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
    if trials is not None and (isinstance(trials, bool) or int(trials) != trials or trials < 1):
        raise OptionError(f"trials is {trials!r}; wanted a whole number of at least 1")
    if isinstance(max_epochs, bool) or int(max_epochs) != max_epochs or max_epochs < 1:
        raise OptionError(f"max_epochs is {max_epochs!r}; wanted a whole number of at least 1")
    dataset = x if isinstance(x, Dataset) else data.from_arrays(x, y, task)
    if dataset.y is None:
        raise DataError("y is missing; wanted labels or values to learn")
    name, metric, direction = _metric(metric, direction, dataset)
    base = (base or Settings()).replace(seed=seed)
    if not isinstance(space, Space):
        space = settings_space(None if space is None else list(space), base)
    parts = _Parts.of(dataset, validation, test, seed)
    work = TrainingRuns(parts.folds, metric, base, dataset.task, parts.classes, int(max_epochs))
    if pruner is None:
        pruner = SuccessiveHalvingPruner(min_resource=max(1, int(max_epochs) // 27), reduction_factor=3)

    study = create_study(
        storage=_storage(out, storage),
        study_name="tune",
        load_if_exists=True,
        direction=direction,
        sampler=AutoSampler(seed=seed) if sampler is None else sampler,
        pruner=pruner,
        space=space,
    )
    _check_same_search(study, dataset, validation, name, test, int(max_epochs), seed)
    interrupted = False
    try:
        study.optimize(
            work,
            n_trials=trials,
            total=trials is not None,
            timeout=None if minutes is None else 60 * minutes * SEARCH_SHARE - (time.monotonic() - begin),
            n_jobs=cores() if n_jobs is None else n_jobs,
            callbacks=callbacks,
            show_progress_bar=show_progress_bar,
        )
    except KeyboardInterrupt:
        interrupted = True
    try:
        best = study.best_trial
    except ValueError:
        if interrupted:
            raise KeyboardInterrupt from None
        reasons = {t.error for t in study.get_trials(deepcopy=False) if t.error}
        raise DataError(f"no trial gave a finite {name}: {'; '.join(sorted(reasons)) or 'there was no time'}") from None
    return _finish(study, work, parts, dataset, best, name, metric, direction, interrupted, begin)


def _finish(
    study: Study,
    work: TrainingRuns,
    parts: _Parts,
    dataset: Dataset,
    best: FrozenTrial,
    name: str,
    metric: str | Metric,
    direction: str,
    interrupted: bool,
    begin: float,
) -> TuneResult:
    """Train the best settings on the whole development part and measure the test part."""
    settings = work.settings(best.params)
    epochs = best.steps
    scaled = _scaled(dataset.task, parts.x, parts.y)
    run = Run(settings.replace(early_stopping=0), scaled.x, scaled.y, task=dataset.task, classes=parts.classes)
    run.advance(epochs)
    result = TuneResult(
        model=run.model,
        settings=settings,
        epochs=epochs,
        standardizer=scaled.standardizer,
        target_standardizer=scaled.target_standardizer,
        study=study,
        best_trial=best,
        validation_score=best.intermediate_values[epochs],
        test_score=float("nan"),
        test_metrics={},
        metric=name,
        direction=direction,
        dataset=dataset,
        run=run,
        rows={"training": len(parts.folds[0].y), "development": len(parts.y), "test": len(parts.y_test)},
        interrupted=interrupted,
    )
    result.validation_score *= parts.unit(name)
    outputs = result.scores(parts.x_test)
    result.test_metrics = _test_metrics(dataset.task, name, metric, parts.y_test, outputs)
    result.test_score = result.test_metrics[name]
    result.seconds = time.monotonic() - begin
    return result


# ---------------------------------------------------------------------------------------- data and metric


@dataclass(frozen=True)
class _Scaled:
    x: np.ndarray
    y: np.ndarray
    standardizer: Standardizer
    target_standardizer: Standardizer | None


def _scaled(task: str, x: np.ndarray, y: np.ndarray) -> _Scaled:
    """Inputs, and targets of regression, standardized on these rows."""
    standardizer = Standardizer().fit(x)
    targets = None if task == "classification" else Standardizer().fit(y)
    return _Scaled(standardizer.transform(x), y if targets is None else targets.transform(y), standardizer, targets)


@dataclass(frozen=True)
class _Parts:
    """The development part, its folds, and the test part."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    folds: list[Fold]
    classes: int | None

    @classmethod
    def of(cls, dataset: Dataset, validation: str | int, test: float, seed: int) -> _Parts:
        if validation == "auto":
            validation = FOLDS if len(dataset.y) <= FEW_ROWS else "split"
        folded = validation != "split"
        if folded and (isinstance(validation, (bool, str)) or int(validation) != validation or validation < 2):
            raise OptionError(f"validation is {validation!r}; wanted 'auto', 'split' or a number of folds, at least 2")
        if not 0 < test < 1:
            raise OptionError(f"test is {test!r}; wanted a share of the rows between 0 and 1")
        own_test = dataset.x_test is not None and dataset.y_test is not None
        x, y = dataset.x, dataset.y
        share = 0.0 if folded else 0.2
        train, held, apart = data.split_rows(y, share, 0.0 if own_test else test, seed=seed)
        development = np.sort(np.concatenate([train, held]))
        x_test, y_test = (dataset.x_test, dataset.y_test) if own_test else (x[apart], y[apart])
        if folded:
            kind = data.StratifiedKFold if dataset.task == "classification" else data.KFold
            pairs = [
                (development[a], development[b])
                for a, b in kind(int(validation), seed=seed).split(x[development], y[development])
            ]
        else:
            pairs = [(train, held)]
        folds = [cls._fold(dataset, rows, others) for rows, others in pairs]
        classes = dataset.outputs if dataset.task == "classification" else None
        return cls(x[development], y[development], x_test, y_test, folds, classes)

    @staticmethod
    def _fold(dataset: Dataset, rows: np.ndarray, others: np.ndarray) -> Fold:
        scaled = _scaled(dataset.task, dataset.x[rows], dataset.y[rows])
        targets = scaled.target_standardizer
        y_validation = dataset.y[others] if targets is None else targets.transform(dataset.y[others])
        unit = 1.0 if targets is None or targets.scale.ndim else float(targets.scale)
        return Fold(scaled.x, scaled.y, scaled.standardizer.transform(dataset.x[others]), y_validation, unit)

    def unit(self, metric: str) -> float:
        """What a score on scaled targets is to be multiplied with to be in the targets' own unit."""
        scale = float(np.mean([fold.scale for fold in self.folds]))
        return {"loss": scale**2, "mse": scale**2, "mae": scale}.get(metric, 1.0)


def _metric(metric: str | Metric | None, direction: str | None, dataset: Dataset) -> tuple[str, str | Metric, str]:
    """The metric's name, the name or function to compute it with, and its direction."""
    task = dataset.task
    if metric is None:
        metric = "accuracy" if task == "classification" else "loss"
    if callable(metric):
        if direction is None:
            raise OptionError("direction is None; wanted 'minimize' or 'maximize' for a metric of your own")
        return getattr(metric, "__name__", "metric"), metric, direction
    direction = direction or ("maximize" if metric in MAXIMIZED else "minimize")
    if metric == "loss" or metric == {"classification": "accuracy", "regression": "mae"}[task]:
        return metric, metric, direction
    function = metrics.get(metric)
    if metric in ("precision", "recall", "f1") and dataset.outputs > 2:
        function = partial(function, average="macro")
    return metric, function, direction


def _test_metrics(task: str, name: str, metric: str | Metric, y: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """The search's metric first, then the usual ones."""
    if task == "classification":
        usual: dict[str, Metric] = {"accuracy": metrics.accuracy, "loss": _cross_entropy}
    else:
        usual = {"loss": metrics.mse, "mae": metrics.mae, "r2": metrics.r2}
    wanted = {name: metric if callable(metric) else usual[name]} | usual
    return {key: float(function(y, outputs)) for key, function in wanted.items()}


def _cross_entropy(y: np.ndarray, scores: np.ndarray) -> float:
    """Mean negative log-probability of class numbers y (n,) under softmax(scores (n, classes))."""
    scores = scores.astype(np.float64)
    top = scores.max(axis=1)
    total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    return float(np.mean(total - scores[np.arange(len(y)), y]))


# ------------------------------------------------------------------------------------------ the storage


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
    study: Study, dataset: Dataset, validation: str | int, metric: str, test: float, max_epochs: int, seed: int
) -> None:
    """A study goes on only with what it was begun with: otherwise its scores could not be compared."""
    digest = hashlib.sha256()
    for array in (dataset.x, dataset.y, dataset.x_test, dataset.y_test):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    now = {
        "data": digest.hexdigest()[:16],
        "validation": validation,
        "metric": metric,
        "test": test,
        "max_epochs": max_epochs,
        "seed": seed,
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
