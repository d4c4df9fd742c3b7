"""Training, validation and test parts, and folds. Folds are handed out as scikit-learn's splitters do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nanonet.errors import DataError, OptionError, ShapeError
from nanonet.options import count, number
from nanonet.random import generator

__all__ = [
    "GroupKFold",
    "KFold",
    "Part",
    "Parts",
    "StratifiedKFold",
    "TimeSeriesSplit",
    "split",
    "split_groups",
    "split_rows",
    "train_test_split",
]


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

    def split(self, x, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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

    def split(self, x, y, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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


class GroupKFold:
    """k folds of nearly equal size that keep rows of one group together: none is both trained and validated on.

    The largest group left goes to the fold with the fewest rows. With `shuffle`, groups of one size come in random
    order. With `stratify`, it goes to the fold in which labels are then spread most evenly.
    """

    def __init__(self, k: int = 5, shuffle: bool = True, seed: int = 0, stratify: bool = False):
        checked = KFold(k, shuffle, seed)
        self.k, self.shuffle, self.seed, self.stratify = checked.k, checked.shuffle, checked.seed, bool(stratify)

    def split(self, x, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training rows, validation rows) of each fold, int64, sorted. groups (n,): what each row belongs to.

        Raises DataError for fewer groups than k, ShapeError for another number of rows.
        """
        group = _group_numbers(x, groups)
        counts = self._labels(x, y, group)
        if len(counts) < self.k:
            raise DataError(f"groups holds {len(counts)} groups; {self.k} folds want at least {self.k}")
        order = np.arange(len(counts))
        if self.shuffle:
            order = generator(self.seed, "group folds").permutation(order)
        sizes = counts.sum(axis=1)
        order = order[np.argsort(-sizes[order], kind="stable")]
        held = np.zeros((self.k, counts.shape[1]))
        fold_of = np.empty(len(counts), np.int64)
        for one in order:
            fold_of[one] = chosen = self._fold(held, counts[one], counts.sum(axis=0))
            held[chosen] += counts[one]
        return _folds(fold_of[group], self.k)

    def _labels(self, x, y, group: np.ndarray) -> np.ndarray:
        """How many rows of each label each group has, (groups, labels); one label for all without `stratify`."""
        label = np.zeros(len(group), np.int64)
        if self.stratify:
            y = _pair(x, y)[1]
            if not _are_labels(y):
                raise DataError(f"y has dtype {y.dtype} and shape {y.shape}; wanted labels (n,), or stratify=False")
            label = np.unique(y, return_inverse=True)[1].reshape(-1)
        counts = np.zeros((group.max(initial=-1) + 1, label.max(initial=0) + 1))
        np.add.at(counts, (group, label), 1)
        return counts

    def _fold(self, held: np.ndarray, count: np.ndarray, total: np.ndarray) -> int:
        if not self.stratify:
            return int(held.sum(axis=1).argmin())
        spread = []
        for fold in range(self.k):
            after = held.copy()
            after[fold] += count
            spread.append((after / total).std(axis=0).mean())
        best = np.flatnonzero(np.isclose(spread, min(spread), rtol=1e-9, atol=1e-12))
        return int(best[held[best].sum(axis=1).argmin()])


class TimeSeriesSplit:
    """k folds of rows in the order of time: each is validated after training on all that came before it.

    With n rows a fold has n // (k + 1) of them, and the first training part has what is left over.
    gap: so many rows before each fold are left out of training.
    """

    def __init__(self, k: int = 5, gap: int = 0):
        self.k, self.gap = count("k", k, least=2), count("gap", gap, least=0)

    def split(self, x, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training rows, validation rows) of each fold, int64, sorted. Raises DataError for too few rows."""
        n = len(x)
        size = n // (self.k + 1)
        first = n - self.k * size
        if size < 1 or first - self.gap < 1:
            raise DataError(f"x has {n} rows; {self.k} folds with a gap of {self.gap} want more")
        starts = range(first, n, size)
        return ((np.arange(start - self.gap), np.arange(start, start + size)) for start in starts)


def split_groups(groups, test: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (int64, sorted) of whole groups: (the rest, about `test` of all rows). DataError for fewer than 2 groups."""
    group = _group_numbers(groups, groups)
    share = number("test", test, "(0, 1)")
    sizes = np.bincount(group)
    if len(sizes) < 2:
        raise DataError(f"groups holds {len(sizes)} groups; wanted at least 2 to set some aside")
    order = generator(seed, "group split").permutation(len(sizes))
    taken = np.cumsum(sizes[order])
    last = int(np.argmin(np.abs(taken[:-1] - share * len(group)))) + 1
    apart = np.isin(group, order[:last])
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def _group_numbers(x, groups) -> np.ndarray:
    """The number of each row's group, int64 (n,)."""
    if groups is None:
        raise DataError("groups is None; wanted the group that each row belongs to")
    groups = np.asarray(groups)
    if groups.shape != (len(x),):
        raise ShapeError(f"groups has shape {groups.shape} and x {len(x)} rows; wanted ({len(x)},)")
    return np.unique(groups, return_inverse=True)[1].reshape(-1)


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
