"""A data set ready for training, and how inputs and targets are told and checked."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nanonet.errors import DataError, DtypeError, ShapeError
from nanonet.options import unknown

__all__ = ["Column", "Dataset", "from_arrays"]

TASKS = ("classification", "regression")
FEW_CLASSES = 20  # so many different whole numbers, at most, are taken for classes
MANY_CLASSES = 1000  # ... or so many, if they are exactly 0 to k - 1


class Column(NamedTuple):
    """A column of a table: of numbers, or of text that becomes one 0-or-1 feature per category."""

    name: str
    categories: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and targets as the network takes them, and what is needed to read more of the same kind.

    x             float32 (n, ...)
    y             int64 (n,) for classification, float32 (n,) or (n, outputs) for regression; None if there is none
    class_names   the name of class 0, 1, ...; None for regression
    columns       of the table that x was made from; None if x has no names
    target        the name of the table's target column
    x_test, y_test   the part kept for testing, if the source has one
    """

    x: np.ndarray
    y: np.ndarray | None
    task: str
    class_names: tuple[str, ...] | None = None
    columns: tuple[Column, ...] | None = None
    target: str | None = None
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    name: str = "data"

    @property
    def outputs(self) -> int:
        """How many numbers the network gives per row: the classes, or the targets."""
        if self.class_names is not None:
            return len(self.class_names)
        return 1 if self.y is None or self.y.ndim == 1 else self.y.shape[1]

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The name of each feature of x (n, features); "column=category" for text."""
        if self.columns is None:
            return None
        names = []
        for name, categories in self.columns:
            names += [name] if categories is None else [f"{name}={category}" for category in categories]
        return tuple(names)

    @property
    def schema(self) -> dict:
        """What `load`, `read_csv` and `from_arrays` need to read other rows in the same way; made for JSON."""
        columns = (
            None
            if self.columns is None
            else [[name, categories and [*categories]] for name, categories in self.columns]
        )
        return {
            "task": self.task,
            "shape": list(self.x.shape[1:]),
            "class_names": None if self.class_names is None else list(self.class_names),
            "columns": columns,
            "target": self.target,
        }


def from_arrays(
    x,
    y=None,
    task: str | None = None,
    *,
    schema: Mapping | None = None,
    columns: Sequence[Column] | None = None,
    target: str | None = None,
    x_test=None,
    y_test=None,
    name: str = "data",
) -> Dataset:
    """A Dataset from arrays: x (n, ...) of finite numbers, y (n,) labels or numbers, or (n, k).

    y (n, k) is one-hot if each row is zeros and one 1, else k numbers to predict. Text, booleans and few
    different whole numbers (at most 20, or exactly 0 to k - 1; each twice on average) mean classification,
    anything else regression; `task` says otherwise.

    With `schema` (a `Dataset.schema`), shapes, classes and task must be those, and y may be absent.
    Raises ShapeError, DtypeError, DataError or OptionError.
    """
    if task not in (None, *TASKS):
        raise unknown("task", task, TASKS)
    if schema is None and y is None:
        raise DataError("y is None; wanted targets")
    x = features("x", x, schema and tuple(schema["shape"]))
    class_names = None
    if schema is not None:
        task, class_names = schema["task"], schema["class_names"] and tuple(schema["class_names"])
        columns = schema["columns"] and [Column(name, cats and tuple(cats)) for name, cats in schema["columns"]]
        target = schema["target"]
    if y is not None:
        y, task, class_names = targets("y", y, len(x), task, class_names)
    if (x_test is None) != (y_test is None):
        raise DataError("got one of x_test and y_test; wanted both or neither")
    if x_test is not None:
        x_test = features("x_test", x_test, x.shape[1:])
        y_test, _, _ = targets("y_test", y_test, len(x_test), task, class_names)
    columns = None if columns is None else tuple(columns)
    return Dataset(x, y, task, class_names, columns, target, x_test, y_test, name)


def features(argument: str, x, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """x as float32 (n, ...), rows of `shape` if given. Raises ShapeError, DtypeError or DataError."""
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise DtypeError(f"{argument} has dtype {x.dtype}; wanted real numbers")
    if x.ndim < 2:
        raise ShapeError(f"{argument} has shape {x.shape}; wanted (n, features) or (n, height, width, channels)")
    if x.size == 0:
        raise DataError(f"{argument} has shape {x.shape}; wanted at least one row and one feature")
    if shape is not None and x.shape[1:] != shape:
        if math.prod(x.shape[1:]) != math.prod(shape):
            raise ShapeError(f"{argument} has rows of shape {x.shape[1:]}; wanted {shape}")
        x = x.reshape(len(x), *shape)
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, dtype=np.float32)
    finite = np.isfinite(x)
    if not finite.all():
        place = np.unravel_index(int(np.argmin(finite)), x.shape)
        at = ", ".join(str(int(i)) for i in place[1:])
        raise DataError(
            f"{argument} holds {x[place]} in row {int(place[0])}, feature {at}; wanted finite float32 numbers"
        )
    return x


def targets(argument: str, y, n: int, task: str | None, class_names: tuple[str, ...] | None):
    """(y as trained on, task, class names). Raises ShapeError or DataError."""
    y = np.asarray(y)
    if y.dtype.kind in "OS" and all(isinstance(value, (str, bytes)) for value in y.ravel()):
        y = y.astype(str)
    if y.dtype.kind not in "biufU":
        raise DataError(f"{argument} has dtype {y.dtype}; wanted numbers or text")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2) or len(y) != n:
        raise ShapeError(f"{argument} has shape {y.shape} and its inputs {n} rows; wanted ({n},) or ({n}, outputs)")
    _finite(argument, y)
    if task is None:
        task = _guess_task(y)
    if task == "classification":
        return _classes(argument, y, class_names)
    if y.dtype.kind == "U":
        raise DataError(f"{argument} holds the text {str(y.flat[0])!r}; regression wants numbers")
    with np.errstate(over="ignore"):
        y = y.astype(np.float32)
    _finite(argument, y)
    return y, task, None


def _guess_task(y: np.ndarray) -> str:
    if y.dtype.kind in "bU" or _is_one_hot(y):
        return "classification"
    if y.ndim == 2 or (y.dtype.kind == "f" and (y != np.trunc(y)).any()):
        return "regression"
    values = np.unique(y)
    few = len(values) <= FEW_CLASSES
    counted = y.dtype.kind in "iu" and len(values) <= MANY_CLASSES and values[0] == 0 and values[-1] == len(values) - 1
    return "classification" if (few or counted) and 2 * len(values) <= len(y) else "regression"


def _is_one_hot(y: np.ndarray) -> bool:
    return y.ndim == 2 and y.dtype.kind in "biuf" and bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def _classes(argument: str, y: np.ndarray, class_names: tuple[str, ...] | None):
    """(class of each row, "classification", class names): sorted, or the places in the names given."""
    if y.ndim == 2:
        if not _is_one_hot(y) or (class_names and y.shape[1] != len(class_names)):
            raise ShapeError(
                f"{argument} has shape {y.shape}; wanted labels ({len(y)},) or one-hot rows of the classes"
            )
        names = class_names or tuple(str(i) for i in range(y.shape[1]))
        return y.argmax(axis=1), "classification", names
    values, classes = np.unique(y, return_inverse=True)
    names = [_label(value) for value in values]
    if class_names is None:
        if len(values) < 2:
            raise DataError(f"{argument} holds only the class {names[0]!r}; wanted at least two")
        return classes.astype(np.int64), "classification", tuple(names)
    place = {name: number for number, name in enumerate(class_names)}
    for number, name in enumerate(names):
        if name not in place:
            row = int(np.argmax(classes == number))
            raise DataError(f"{argument} holds {name!r} in row {row}; wanted one of {', '.join(class_names)}")
    return np.array([place[name] for name in names], np.int64)[classes], "classification", class_names


def _label(value) -> str:
    """The name of a label: 3, 3.0 and True are "3", "3" and "True"; text is itself."""
    value = value.item()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _finite(argument: str, y: np.ndarray) -> None:
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        place = np.unravel_index(int(np.argmin(np.isfinite(y))), y.shape)
        raise DataError(f"{argument} holds {y[place]} in row {int(place[0])}; wanted finite numbers")
