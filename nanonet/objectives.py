"""What a model is trained on: a loss on the right outputs, targets in the right form, and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nanonet import losses, metrics, nn
from nanonet.errors import DataError, OptionError, ShapeError
from nanonet.ops import elementwise, reduction, shape
from nanonet.tensor import Tensor, as_tensor

CLASSES = ("cross_entropy", "crossentropy", "sparse_categorical_crossentropy", "categorical_crossentropy")
BINARY = ("binary_crossentropy", "binary_cross_entropy", "bce", "binary_cross_entropy_with_logits")


@dataclass(frozen=True)
class Objective:
    """forward: model inputs -> scores; loss(scores, targets) -> 0-d mean; task: "classes", "binary" or "values"."""

    forward: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    task: str


def objective(model: Any, loss: Any, class_weight: np.ndarray | None = None, smoothing: float = 0.0) -> Objective:
    """Pair a model with a loss, given as a name, a function of (outputs, targets) or a loss module.

    For the cross-entropies a final Softmax (or Sigmoid) of the model is left out and the loss computed from the scores
    before it, which is exact where the probabilities would round to 0 or 1; without one, the outputs are scores.
    """
    if isinstance(loss, str):
        name = loss.lower()
        if name in CLASSES:
            weight = None if class_weight is None else as_tensor(class_weight)
            return Objective(
                scores(model, "softmax"),
                lambda x, y: losses.cross_entropy(x, y, weight=weight, label_smoothing=smoothing),
                "classes",
            )
        if class_weight is not None:
            raise OptionError(f"class_weight: loss {loss!r} has no classes, wanted one of {', '.join(CLASSES)}")
        if name in BINARY:
            return Objective(scores(model, "sigmoid"), losses.binary_cross_entropy_with_logits, "binary")
        return Objective(model, losses.get(name), "values")
    if not callable(loss):
        raise OptionError(f"loss: {loss!r} is neither a name nor a function of (outputs, targets)")
    kind = type(loss).__name__ if not hasattr(loss, "__name__") else loss.__name__
    classes = "crossentropy" in kind.lower().replace("_", "") and "binary" not in kind.lower()
    return Objective(model, loss, "classes" if classes else "values")


def scores(model: Any, final: str) -> Callable[[Tensor], Tensor]:
    """The model without its final activation, if it ends in `final` ("softmax" or "sigmoid")."""
    layers = model.layers if isinstance(model, nn.Sequential) else [model]
    last = layers[-1] if layers else None
    head = nn.Sequential(*layers[:-1])
    if isinstance(last, nn.Softmax if final == "softmax" else nn.Sigmoid):
        return head
    if isinstance(last, nn.Dense) and last.activation == final:
        return lambda x: last.scores(head(x))
    return model


def task_and_outputs(
    y: np.ndarray, y_validation: Any = None, task: str | None = None, classes: int | None = None
) -> tuple[str, int]:
    """What targets (n, ...) ask for: ("classification" or "regression", the number of the network's outputs).

    task: by default "classification" for integers. classes: by default the largest label of y and y_validation plus
    one. Raises DataError for another task.
    """
    task = task or ("classification" if y.dtype.kind in "iub" else "regression")
    if task not in ("classification", "regression"):
        raise DataError(f"task: {task!r}, wanted 'classification' or 'regression'")
    if task == "regression":
        return task, 1 if y.ndim == 1 else y.shape[1]
    seen = [y] if y_validation is None else [y, np.asarray(y_validation)]
    return task, classes or int(max(labels.max() for labels in seen if labels.size)) + 1


def targets(y: Any, task: str, rows: int, outputs: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Targets as the loss takes them: int64 labels (n,) or `dtype` of the outputs' shape.

    outputs is the shape of one row's outputs. Raises DataError or ShapeError that name y.
    """
    y = np.asarray(y.numpy() if isinstance(y, Tensor) else y)
    if len(y) != rows:
        raise ShapeError(f"y: has {len(y)} rows, x has {rows}")
    if y.dtype.kind not in "fiub":
        raise DataError(f"y: holds {y.dtype}, wanted numbers; turn names into class numbers first")
    if task == "classes" and not (y.ndim == 2 and y.shape[1] == outputs[-1] and outputs[-1] > 1):
        labels = y.reshape(rows) if y.size == rows else y
        if labels.ndim != 1:
            raise ShapeError(f"y: has shape {y.shape}, wanted ({rows},) labels or ({rows}, {outputs[-1]}) one-hot")
        whole = labels.astype(np.int64)
        if labels.dtype.kind == "f" and not np.array_equal(whole, labels):
            raise DataError("y: holds fractions or NaN, wanted class numbers")
        if whole.size and (whole.min() < 0 or whole.max() >= outputs[-1]):
            bad = whole.min() if whole.min() < 0 else whole.max()
            raise DataError(f"y: holds label {bad}, wanted 0 to {outputs[-1] - 1}, as the model has outputs")
        return np.ascontiguousarray(whole)
    y = np.ascontiguousarray(y, dtype)
    if not np.isfinite(y).all():
        raise DataError("y: holds NaN or infinity")
    if task == "binary" and y.size and not 0 <= y.min() <= y.max() <= 1:
        raise DataError(f"y: holds values from {y.min()} to {y.max()}, wanted 0 to 1 for a binary cross-entropy")
    if y.shape[1:] != outputs and y.size == rows * int(np.prod(outputs)):
        y = y.reshape(rows, *outputs)
    if y.shape[1:] != outputs:
        raise ShapeError(f"y: has shape {y.shape}, wanted {(rows, *outputs)}, as the model's outputs")
    return y


def inputs(x: Any, name: str = "x", dtype: Any = np.float32) -> np.ndarray:
    """Inputs as C-contiguous rows of `dtype`. Raises DataError for text, NaN, infinity or no rows."""
    x = np.asarray(x.numpy() if isinstance(x, Tensor) else x)
    if x.dtype.kind not in "fiub":
        raise DataError(f"{name}: holds {x.dtype}, wanted numbers")
    if not x.ndim or not len(x):
        raise DataError(f"{name}: has shape {x.shape}, wanted at least one row")
    x = np.ascontiguousarray(x, dtype)
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0, 0])
        raise DataError(f"{name}: holds NaN or infinity (first in row {row})")
    return x


# --------------------------------------------------------------------------------- metrics


def _sum_of_row_means(x: Tensor) -> Tensor:
    return reduction.sum(x) * (1 / max(1, int(np.prod(x.shape[1:]))))


def _hits(x: Tensor, y: Tensor) -> Tensor:
    return _sum_of_row_means(elementwise.eq(x.argmax(-1), y if y.dtype.kind == "i" else y.argmax(-1)))


def _binary_hits(x: Tensor, y: Tensor) -> Tensor:
    return _sum_of_row_means(elementwise.eq(shape.to(x > 0, y.dtype), y))


def _absolute(x: Tensor, y: Tensor) -> Tensor:
    return _sum_of_row_means((x - y).abs())


def _squares(x: Tensor, y: Tensor) -> Tensor:
    return _sum_of_row_means((x - y).square())


#: (metric, task) -> what to sum over the rows of a mini-batch while training.
COUNTS = {
    ("accuracy", "classes"): _hits,
    ("accuracy", "binary"): _binary_hits,
    ("mae", "values"): _absolute,
    ("mse", "values"): _squares,
}
_ALIASES = {"acc": "accuracy", "mean_absolute_error": "mae", "mean_squared_error": "mse"}


class Metric:
    """A metric of a fit: `count`, if there is one, is summed in training; `value` compares whole outputs to targets."""

    def __init__(self, metric: Any, task: str):
        self.name = metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
        known = _ALIASES.get(self.name, self.name)
        self.count = COUNTS.get((known, task)) if isinstance(metric, str) else None
        self._function = metrics.get(known) if isinstance(metric, str) else metric
        self._binary = task == "binary"

    def value(self, outputs: np.ndarray, y: np.ndarray) -> float:
        """The metric of scores (as the objective's forward gives them); NaN where the outputs are not finite."""
        if not np.isfinite(outputs).all():
            return float("nan")
        if self._binary:
            outputs = (outputs > 0).astype(np.int64)
            if self.name in ("accuracy", "acc"):
                return float(np.mean(outputs == y))
            y = y.astype(np.int64)
        return float(self._function(y, outputs))
