"""Training, validation and test parts, and folds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nanonet.errors import DataError, OptionError, ShapeError
from nanonet.options import count, number
from nanonet.random import generator

__all__ = ["KFold", "Part", "Parts", "StratifiedKFold", "split", "split_rows", "train_test_split"]


class Part(NamedTuple):
    """Some rows of the data."""

    x: np.ndarray
    y: np.ndarray


class Parts(NamedTuple):
    """The data, cut in three. No row is in two parts, and none is missing."""

    train: Part
    validation: Part
    test: Part


def split(x, y, validation: float = 0.2, test: float = 0.2, stratify: bool = True, seed: int = 0) -> Parts:
    """Cut the data in three at random; `validation` and `test` are shares of all rows, 0 for none.

    With `stratify`, labels (integers, booleans or text) come in every part in their proportion, to within one
    row, and each keeps at least one row in training; real-valued targets are cut without regard to their value.
    Raises ShapeError, OptionError, and DataError when there are too few rows for a part.
    """
    x, y = _pair(x, y)
    rows = split_rows(y, validation, test, stratify, seed)
    return Parts(*(Part(x[part], y[part]) for part in rows))


def split_rows(y, validation: float = 0.2, test: float = 0.2, stratify: bool = True, seed: int = 0):
    """The rows of the three parts of `split`, int64 arrays (train, validation, test), each in random order."""
    y = np.asarray(y)
    n = len(y)
    validation, test = number("validation", validation, "[0, 1)"), number("test", test, "[0, 1)")
    if validation + test >= 1:
        raise OptionError(f"validation is {validation} and test {test}; together wanted less than 1")
    rng = generator(seed, "split")
    groups = _groups(y, rng) if stratify and _are_labels(y) else [rng.permutation(n)]
    sizes = np.array([len(group) for group in groups])
    tests = np.minimum(_deal(sizes, round(n * test)), sizes - 1)
    validations = np.minimum(_deal(sizes, round(n * validation)), sizes - 1 - tests)
    cuts = [(a, a + b) for a, b in zip(tests, validations, strict=True)]
    parts = {
        "train": [group[b:] for group, (a, b) in zip(groups, cuts, strict=True)],
        "validation": [group[a:b] for group, (a, b) in zip(groups, cuts, strict=True)],
        "test": [group[:a] for group, (a, b) in zip(groups, cuts, strict=True)],
    }
    rows = {name: rng.permutation(np.concatenate(part)) for name, part in parts.items()}
    for name, share in (("train", 1), ("validation", validation), ("test", test)):
        if share > 0 and len(rows[name]) == 0:
            raise DataError(f"y has {n} rows: too few for a {name} part of {share}")
    return rows["train"], rows["validation"], rows["test"]


def train_test_split(x, y, test_size: float = 0.25, *, stratify: bool = True, seed: int = 0):
    """x_train, x_test, y_train, y_test, in scikit-learn's order. The rest is as in `split`."""
    parts = split(x, y, validation=0.0, test=test_size, stratify=stratify, seed=seed)
    return parts.train.x, parts.test.x, parts.train.y, parts.test.y


class KFold:
    """k folds of equal size, to within one row; each is the validation part once."""

    def __init__(self, k: int = 5, shuffle: bool = True, seed: int = 0):
        self.k, self.shuffle, self.seed = count("k", k, least=2), bool(shuffle), seed

    def split(self, x, y=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training rows, validation rows) of each fold, int64, sorted. Raises DataError for fewer rows than k."""
        n = len(x)
        rows = generator(self.seed, "folds").permutation(n) if self.shuffle else np.arange(n)
        _enough(n, self.k)
        fold = np.empty(n, np.int64)
        fold[rows] = np.arange(n) * self.k // n
        return _folds(fold, self.k)


class StratifiedKFold:
    """k folds in each of which every label has its share, to within one row."""

    def __init__(self, k: int = 5, shuffle: bool = True, seed: int = 0):
        checked = KFold(k, shuffle, seed)
        self.k, self.shuffle, self.seed = checked.k, checked.shuffle, checked.seed

    def split(self, x, y) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training rows, validation rows) of each fold, int64, sorted. y holds labels, as in `split`.

        Raises DataError for fewer rows than k or for real-valued targets.
        """
        x, y = _pair(x, y)
        if not _are_labels(y):
            raise DataError(f"y has dtype {y.dtype} and shape {y.shape}; wanted labels (n,), or use KFold")
        _enough(len(y), self.k)
        groups = _groups(y, generator(self.seed, "folds") if self.shuffle else None)
        fold = np.empty(len(y), np.int64)
        fold[np.concatenate(groups)] = np.arange(len(y)) % self.k  # dealt out like cards, label after label
        return _folds(fold, self.k)


def _folds(fold: np.ndarray, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return ((np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(k))


def _groups(y: np.ndarray, rng: np.random.Generator | None) -> list[np.ndarray]:
    """The rows of each label, shuffled unless rng is None."""
    _, label = np.unique(y, return_inverse=True)
    rows = np.arange(len(y)) if rng is None else rng.permutation(len(y))
    rows = rows[np.argsort(label[rows], kind="stable")]
    return np.split(rows, np.cumsum(np.bincount(label))[:-1]) if len(y) else [rows]


def _deal(sizes: np.ndarray, total: int) -> np.ndarray:
    """Share `total` rows out among groups in proportion to their sizes; the largest remainders are rounded up."""
    exact = sizes * (total / max(sizes.sum(), 1))
    shares = np.floor(exact + 1e-9).astype(np.int64)
    short = total - shares.sum()
    shares[np.argsort(shares - exact, kind="stable")[:short]] += 1
    return shares


def _are_labels(y: np.ndarray) -> bool:
    return y.ndim == 1 and y.dtype.kind in "biuUSO"


def _enough(n: int, k: int) -> None:
    if n < k:
        raise DataError(f"x has {n} rows; {k} folds want at least {k}")


def _pair(x, y) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ShapeError(f"x has shape {x.shape} and y {y.shape}; wanted the same number of rows")
    return x, y
