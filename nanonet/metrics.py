"""Measures of how well predictions fit the truth, with the names and definitions of scikit-learn.

Each takes (y_true, y_pred), anything that numpy.asarray takes, and gives a float unless it says otherwise.
Labels are integers, booleans or texts of shape (n,) or (n, 1). Where class scores are accepted, they have
shape (n, classes), column c being the score of label c; a truth of that shape is one-hot.

Every one raises ShapeError when the shapes do not fit, DataError for NaN, empty or unusable values, and
OptionError for an unknown option.
"""

from collections.abc import Callable, Sequence

import numpy as np

from nanonet.errors import DataError, OptionError, ShapeError
from nanonet.options import count, unknown

__all__ = [
    "accuracy",
    "binary_accuracy",
    "confusion_matrix",
    "f1",
    "get",
    "mae",
    "mean_absolute_error",
    "mean_squared_error",
    "mse",
    "precision",
    "r2",
    "recall",
    "top_k_accuracy",
]

# ---------------------------------------------------------------------------------- classification


def accuracy(y_true, y_pred) -> float:
    """The share of rows whose predicted label, or class of highest score, is the true one."""
    true, predicted = _label_pair(y_true, y_pred)
    return float(np.mean(true == predicted))


def binary_accuracy(y_true, y_pred, *, threshold: float = 0.5) -> float:
    """The share of right answers when a probability (n,) or (n, 1) above `threshold` means class 1."""
    true = _labels("y_true", y_true)
    scores = _column("y_pred", np.asarray(y_pred))
    _same_length(true, scores)
    _no_nan("y_pred", scores)
    if not np.isin(true, (0, 1)).all():
        raise DataError(f"y_true holds {_first(true, ~np.isin(true, (0, 1)))}; wanted 0 and 1 only")
    return float(np.mean((scores > threshold) == (true == 1)))


def top_k_accuracy(y_true, y_pred, k: int = 5) -> float:
    """The share of rows whose true label is among the `k` highest scores of y_pred (n, classes)."""
    scores = np.asarray(y_pred)
    if scores.ndim != 2:
        raise ShapeError(f"y_pred has shape {scores.shape}; wanted class scores (n, classes)")
    k = count("k", k)
    true = _labels("y_true", y_true)
    _same_length(true, scores)
    _no_nan("y_pred", scores)
    _in_range(true, scores.shape[1])
    own = scores[np.arange(len(true)), true][:, None]
    later = np.arange(scores.shape[1]) > true[:, None]  # among equal scores the later class comes first
    ahead = (scores > own) | ((scores == own) & later)
    return float(np.mean(ahead.sum(axis=1) < k))


def confusion_matrix(y_true, y_pred, *, labels: Sequence | None = None) -> np.ndarray:
    """Counts, int64 (classes, classes): row = true label, column = predicted label.

    Rows and columns follow `labels`, by default every label that occurs, sorted. Rows of data whose true
    or predicted label is not among `labels` are left out.
    """
    true, predicted = _label_pair(y_true, y_pred)
    order = np.unique(np.concatenate([true, predicted])) if labels is None else np.asarray(labels)
    if order.ndim != 1 or len(order) == 0 or len(np.unique(order)) != len(order):
        raise OptionError(f"labels is {labels!r}; wanted one or more different labels")
    rows, row_known = _positions(true, order)
    columns, column_known = _positions(predicted, order)
    both = row_known & column_known
    cells = rows[both] * len(order) + columns[both]
    return np.bincount(cells, minlength=len(order) ** 2).reshape(len(order), len(order)).astype(np.int64)


def precision(y_true, y_pred, *, average: str | None = "binary", positive=1, zero_division: float = 0.0):
    """True positives / predicted positives. See `f1` for the options."""
    hits, predicted, actual = _counts(y_true, y_pred)
    return _average(lambda h, p, a: _ratio(h, p, zero_division), hits, predicted, actual, average, positive)


def recall(y_true, y_pred, *, average: str | None = "binary", positive=1, zero_division: float = 0.0):
    """True positives / actual positives. See `f1` for the options."""
    hits, predicted, actual = _counts(y_true, y_pred)
    return _average(lambda h, p, a: _ratio(h, a, zero_division), hits, predicted, actual, average, positive)


def f1(y_true, y_pred, *, average: str | None = "binary", positive=1, zero_division: float = 0.0):
    """The harmonic mean of precision and recall: 2 tp / (2 tp + fp + fn).

    average: "binary" gives that of the label `positive` and wants at most two labels; "macro" the mean over
    labels; "weighted" the mean weighted by how often each label is true; "micro" that of all decisions
    counted together; None an array (classes,), one per label that occurs, sorted.
    zero_division: the result where the denominator is 0.
    """
    hits, predicted, actual = _counts(y_true, y_pred)
    return _average(lambda h, p, a: _ratio(2 * h, p + a, zero_division), hits, predicted, actual, average, positive)


# -------------------------------------------------------------------------------------- regression


def mse(y_true, y_pred) -> float:
    """Mean squared error over all rows and outputs. Shapes must agree, (n,) and (n, 1) being the same."""
    true, predicted = _number_pair(y_true, y_pred)
    return float(np.mean((true - predicted) ** 2))


def mae(y_true, y_pred) -> float:
    """Mean absolute error over all rows and outputs."""
    true, predicted = _number_pair(y_true, y_pred)
    return float(np.mean(np.abs(true - predicted)))


def r2(y_true, y_pred) -> float:
    """Coefficient of determination, 1 - residual / total sum of squares, averaged over outputs.

    A target that is constant gives 1 when predicted exactly and 0 otherwise. Wants at least two rows.
    """
    true, predicted = _number_pair(y_true, y_pred)
    if len(true) < 2:
        raise DataError(f"y_true has {len(true)} row; R2 wants at least 2")
    residual = ((true - predicted) ** 2).reshape(len(true), -1).sum(axis=0)
    total = ((true - true.mean(axis=0)) ** 2).reshape(len(true), -1).sum(axis=0)
    varied = total > 0
    score = np.where(residual == 0, 1.0, 0.0)
    score[varied] = 1 - residual[varied] / total[varied]
    return float(score.mean())


mean_squared_error = mse
mean_absolute_error = mae

_BY_NAME: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "binary_accuracy": binary_accuracy,
    "top_k_accuracy": top_k_accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "mse": mse,
    "mean_squared_error": mse,
    "mae": mae,
    "mean_absolute_error": mae,
    "r2": r2,
}


def get(metric: str | Callable) -> Callable:
    """A metric by name ("accuracy", "mae", ...), or a function of (y_true, y_pred) as it is."""
    if callable(metric):
        return metric
    if metric not in _BY_NAME:
        raise unknown("metric", metric, _BY_NAME)
    return _BY_NAME[metric]


# ------------------------------------------------------------------------------------------ inputs


def _label_pair(y_true, y_pred) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = _labels("y_true", y_true), _labels("y_pred", y_pred)
    _same_length(true, predicted)
    if (true.dtype.kind == "U") != (predicted.dtype.kind == "U"):
        raise DataError(
            f"y_true holds {true.tolist()[0]!r} and y_pred {predicted.tolist()[0]!r}; wanted labels of one kind"
        )
    scores = np.shape(y_pred)
    if len(scores) == 2 and scores[1] > 1:
        _in_range(true, scores[1])
    return true, predicted


def _labels(argument: str, values) -> np.ndarray:
    """Labels (n,), int64 or text, from labels or from scores (n, classes)."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] > 1:
        if array.dtype.kind not in "biuf":
            raise DataError(f"{argument} has dtype {array.dtype}; wanted numbers as class scores")
        _no_nan(argument, array)
        _not_empty(argument, array)
        return array.argmax(axis=1)
    array = _column(argument, array)
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array):
        array = array.astype(str)
    if array.dtype.kind in "biuU":
        return array if array.dtype.kind == "U" else array.astype(np.int64)
    if array.dtype.kind != "f":
        raise DataError(f"{argument} has dtype {array.dtype}; wanted integer or text labels")
    _no_nan(argument, array)
    whole = np.isfinite(array) & (array == np.trunc(array))
    if not whole.all():
        raise DataError(
            f"{argument} holds {_first(array, ~whole)}; wanted whole numbers as labels, or (n, classes) scores"
        )
    return array.astype(np.int64)


def _number_pair(y_true, y_pred) -> tuple[np.ndarray, np.ndarray]:
    pair = []
    for argument, values in (("y_true", y_true), ("y_pred", y_pred)):
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise DataError(f"{argument} has dtype {array.dtype}; wanted real numbers")
        array = array.astype(np.float64)
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if array.ndim == 0:
            raise ShapeError(f"{argument} is a single number; wanted an array (n,) or (n, outputs)")
        _not_empty(argument, array)
        finite = np.isfinite(array)
        if not finite.all():
            raise DataError(f"{argument} holds {_first(array, ~finite)}; wanted finite numbers")
        pair.append(array)
    true, predicted = pair
    if true.shape != predicted.shape:
        raise ShapeError(f"y_true has shape {np.shape(y_true)} and y_pred {np.shape(y_pred)}; wanted the same")
    return true, predicted


def _column(argument: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ShapeError(f"{argument} has shape {array.shape}; wanted (n,) or (n, 1)")
    _not_empty(argument, array)
    return array


def _not_empty(argument: str, array: np.ndarray) -> None:
    if array.size == 0:
        raise DataError(f"{argument} has shape {array.shape}; wanted at least one row")


def _same_length(true: np.ndarray, predicted: np.ndarray) -> None:
    if len(true) != len(predicted):
        raise ShapeError(f"y_true has {len(true)} rows and y_pred {len(predicted)}; wanted the same number")


def _no_nan(argument: str, array: np.ndarray) -> None:
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise DataError(f"{argument} holds {_first(array, np.isnan(array))}; wanted numbers")


def _in_range(true: np.ndarray, classes: int) -> None:
    if true.dtype.kind == "U":
        raise DataError(f"y_true holds {str(true[0])!r}; with class scores wanted integer labels below {classes}")
    wrong = (true < 0) | (true >= classes)
    if wrong.any():
        raise DataError(f"y_true holds {_first(true, wrong)}; y_pred scores the labels 0 to {classes - 1}")


def _first(array: np.ndarray, wrong: np.ndarray) -> str:
    """The first wrong value and its row, for an error's text."""
    place = np.unravel_index(int(np.argmax(wrong)), array.shape)
    return f"{array[place]} in row {place[0]}"


# ------------------------------------------------------------------------------------------ counts


def _positions(values: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each value's place in `order`, and whether it has one."""
    if (values.dtype.kind == "U") != (order.dtype.kind == "U"):
        raise DataError(
            f"labels are {order.tolist()!r} but the data holds {values.tolist()[0]!r}; wanted labels of one kind"
        )
    by_value = np.argsort(order, kind="stable")
    place = by_value[np.minimum(np.searchsorted(order, values, sorter=by_value), len(order) - 1)]
    return place, order[place] == values


def _counts(y_true, y_pred) -> tuple[np.ndarray, np.ndarray, dict]:
    """Hits and predictions per label, and {label: times true}, labels sorted."""
    true, predicted = _label_pair(y_true, y_pred)
    labels = np.unique(np.concatenate([true, predicted]))
    table = confusion_matrix(true, predicted, labels=labels)
    return np.diagonal(table), table.sum(axis=0), dict(zip(labels.tolist(), table.sum(axis=1).tolist(), strict=True))


def _average(score, hits, predicted, actual: dict, average: str | None, positive):
    labels, actual = list(actual), np.array(list(actual.values()))
    if average == "binary":
        if len(labels) > 2:
            raise OptionError(
                f"average is 'binary' but there are {len(labels)} labels; wanted 'macro', 'micro' or 'weighted'"
            )
        if positive not in labels:
            if len(labels) == 2:
                raise OptionError(f"positive is {positive!r}; wanted one of the labels {labels}")
            return float(score(*np.zeros((3, 1)))[0])
        return float(score(hits, predicted, actual)[labels.index(positive)])
    if average == "micro":
        return float(score(*(counts.sum(keepdims=True) for counts in (hits, predicted, actual)))[0])
    each = score(hits, predicted, actual)
    if average is None:
        return each
    if average == "macro":
        return float(each.mean())
    if average == "weighted":
        return float(each @ actual / actual.sum())
    raise unknown("average", average, ("binary", "macro", "micro", "weighted", None))


def _ratio(part: np.ndarray, whole: np.ndarray, zero_division: float) -> np.ndarray:
    out = np.full(len(part), float(zero_division))
    return np.divide(part, whole, out=out, where=whole > 0)
