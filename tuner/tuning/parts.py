"""What a search sees of a data set: a development part, cut into folds, and a test part that is looked at once.

all rows -- test part
        \\-- development part -- training and validation part, or k folds
                             \\- all of it: what the final model is trained on
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nanonet import data
from nanonet.data import Dataset, Standardizer
from nanonet.errors import DataError, OptionError

__all__ = ["Fold", "Parts", "Scaled", "scaled"]

FOLDS, FEW_ROWS = 4, 5000  # validation="auto": so many folds for at most so many rows

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Fold:
    """Rows to train on and rows to validate on, inputs (and targets of regression) scaled on the former."""

    x: np.ndarray
    y: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    scale: float
    """How much larger errors are in the targets' own unit."""


@dataclass(frozen=True)
class Scaled:
    """Rows with inputs, and targets of regression, standardized on these rows."""

    x: np.ndarray
    y: np.ndarray
    standardizer: Standardizer
    target_standardizer: Standardizer | None


def scaled(task: str, x: np.ndarray, y: np.ndarray, own: bool = False) -> Scaled:
    """Rows x (n, ...), and y of regression, with mean 0 and variance 1 in every column. own: x may be overwritten."""
    standardizer = Standardizer().fit(x)
    targets = None if task == "classification" else Standardizer().fit(y)
    x = standardizer.transform(x, out=x if own else None)
    return Scaled(x, y if targets is None else targets.transform(y), standardizer, targets)


@dataclass(frozen=True)
class Parts:
    """The development part, its folds, and the test part."""

    task: str
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    folds: list[Fold]
    classes: int | None

    @classmethod
    def of(cls, dataset: Dataset, validation: Any, test: float, seed: int, groups: Any = None) -> Parts:
        """The parts of a data set; the arguments are those of `tuner.tune`."""
        if not 0 < test < 1:
            raise OptionError(f"test is {test!r}; wanted a share of the rows between 0 and 1")
        splitter = _splitter(validation, dataset, seed, groups)
        own_test = dataset.x_test is not None and dataset.y_test is not None
        development, apart, pairs = _rows(dataset, splitter, 0.0 if own_test else test, seed, groups)
        x, y = dataset.x, dataset.y
        x_test, y_test = (dataset.x_test, dataset.y_test) if own_test else (x[apart], y[apart])
        folds = [cls._fold(dataset, development[rows], development[others]) for rows, others in pairs]
        classes = dataset.outputs if dataset.task == "classification" else None
        if len(development) < len(y):
            x, y = x[development], y[development]
        return cls(dataset.task, x, y, x_test, y_test, folds, classes)

    @staticmethod
    def _fold(dataset: Dataset, rows: np.ndarray, others: np.ndarray) -> Fold:
        part = scaled(dataset.task, dataset.x[rows], dataset.y[rows], own=True)
        targets = part.target_standardizer
        y_validation = dataset.y[others] if targets is None else targets.transform(dataset.y[others])
        unit = 1.0 if targets is None or targets.scale.ndim else float(targets.scale)
        x_validation = dataset.x[others]
        return Fold(part.x, part.y, part.standardizer.transform(x_validation, out=x_validation), y_validation, unit)

    def unit(self, metric: str) -> float:
        """What a score on scaled targets is to be multiplied with to be in the targets' own unit."""
        scale = float(np.mean([fold.scale for fold in self.folds]))
        if metric in ("loss", "mse", "mean_squared_error"):
            return scale**2
        return scale if metric in ("mae", "mean_absolute_error") else 1.0


def _splitter(validation: Any, dataset: Dataset, seed: int, groups: Any) -> Any:
    """An object with `split`, a list of pairs, or "split"."""
    if isinstance(validation, str) and validation == "auto":
        validation = FOLDS if len(dataset.y) <= FEW_ROWS else "split"
    if isinstance(validation, str):
        if validation != "split":
            raise OptionError(f"validation is {validation!r}; wanted 'auto', 'split', a number of folds or a splitter")
        return validation
    if hasattr(validation, "split"):
        return validation
    if isinstance(validation, Iterable) and not isinstance(validation, bytes):
        return [tuple(pair) for pair in validation]
    if isinstance(validation, bool) or not _whole(validation) or validation < 2:
        raise OptionError(
            f"validation is {validation!r}; wanted 'auto', 'split' or a number of folds, at least 2, a splitter or "
            "pairs of row numbers"
        )
    if groups is not None:
        return data.GroupKFold(int(validation), seed=seed, stratify=dataset.task == "classification")
    kind = data.StratifiedKFold if dataset.task == "classification" else data.KFold
    return kind(int(validation), seed=seed)


def _whole(value: Any) -> bool:
    try:
        return int(value) == value
    except (TypeError, ValueError):
        return False


def _rows(
    dataset: Dataset, splitter: Any, test: float, seed: int, groups: Any
) -> tuple[np.ndarray, np.ndarray, list[Pair]]:
    """(development rows, test rows, pairs of places among the former to train and validate on)."""
    n = len(dataset.y)
    everything, nothing = np.arange(n), np.arange(0)
    if isinstance(splitter, list):  # pairs of row numbers: what is in none of them is the test part
        pairs = [_pair(pair, n) for pair in splitter]
        if not pairs:
            raise OptionError("validation is empty; wanted at least one pair of row numbers")
        used = np.unique(np.concatenate([rows for pair in pairs for rows in pair]))
        apart = np.setdiff1d(everything, used)
        if test and not len(apart):
            raise DataError("validation uses every row; leave some out, or give the data set a test part of its own")
        place = np.full(n, -1)
        place[used] = np.arange(len(used))
        return used, apart, [(place[a], place[b]) for a, b in pairs]
    if groups is not None:
        groups = np.asarray(groups)
        if len(groups) != n:
            raise DataError(f"groups has {len(groups)} entries and the data {n} rows; wanted one for each row")
        development, apart = data.split_groups(groups, test, seed) if test else (everything, nothing)
        if isinstance(splitter, str):
            splitter = [data.split_groups(groups[development], 0.2 / (1 - test), seed + 1)]
            return development, apart, splitter
        groups = groups[development]
    elif isinstance(splitter, str):
        train, held, apart = data.split_rows(dataset.y, 0.2, test, seed=seed)
        development = np.sort(np.concatenate([train, held]))
        return development, apart, [(np.searchsorted(development, train), np.searchsorted(development, held))]
    elif isinstance(splitter, data.TimeSeriesSplit):  # the test part is the latest
        last = n - round(n * test)
        development, apart = everything[:last], everything[last:]
    elif test:
        train, _, apart = data.split_rows(dataset.y, 0.0, test, seed=seed)
        development = np.sort(train)
    else:
        development, apart = everything, nothing
    x, y = dataset.x[development], dataset.y[development]
    pairs = splitter.split(x, y, groups) if groups is not None else splitter.split(x, y)
    return development, apart, [_pair(pair, len(development)) for pair in pairs]


def _pair(pair: Any, rows: int) -> Pair:
    """Two arrays of row numbers, neither empty and without a row in common. DataError otherwise."""
    if len(pair) != 2:
        raise DataError(f"validation gives {len(pair)} arrays at a time; wanted training rows and validation rows")
    train, held = (np.asarray(part) for part in pair)
    for part in (train, held):
        if part.ndim != 1 or part.dtype.kind not in "iu" or not len(part) or part.min() < 0 or part.max() >= rows:
            raise DataError(f"validation gives rows {part!r}; wanted numbers from 0 to {rows - 1}, at least one")
    if len(np.intersect1d(train, held)):
        raise DataError("validation gives rows that are both trained and validated on")
    return train.astype(np.int64), held.astype(np.int64)
