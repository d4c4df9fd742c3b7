"""Losses: how far outputs are from their targets. Lower is better.

Each takes (outputs x, target) and reduction = "mean", "sum" or "none". Targets may be tensors, arrays or lists; within
a step that jit records they are tensors, and labels out of range are no longer looked for: `cross_entropy` gives NaN
for them, others a loss without meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import plan
from kernels.elementwise import Elementwise
from kernels.registry import elsewhere
from nanonet.device import host
from nanonet.errors import DataError, DtypeError, OptionError, ShapeError
from nanonet.ops import reduction as _reduction
from nanonet.ops.elementwise import clip, log, op_of, where
from nanonet.ops.shape import reshape, take, to
from nanonet.ops.softmax import class_cross_entropy, log_softmax
from nanonet.options import unknown
from nanonet.tensor import Tensor, arange, as_tensor, constant

REDUCTIONS = ("mean", "sum", "none")

#: Probabilities are kept this far from 0 and 1, as Keras does.
CLIP = 1e-7

# --------------------------------------------------------------------- losses of each element

#: The loss of one value x for the target t, and its derivatives.
TABLE = [
    Elementwise("squared_error", "(x - t) * (x - t)", {"x": "2 * g * (x - t)", "t": "-2 * g * (x - t)"}, ("x", "t")),
    Elementwise("absolute_error", "abs(x - t)", {"x": "g * sign(x - t)", "t": "-g * sign(x - t)"}, ("x", "t")),
    Elementwise(
        "huber",
        "where(abs(x - t) < delta, 0.5 * (x - t) * (x - t), delta * (abs(x - t) - 0.5 * delta))",
        {"x": "g * max(min(x - t, delta), -delta)", "t": "-g * max(min(x - t, delta), -delta)"},
        ("x", "t", "delta"),
    ),
    Elementwise(
        "binary_cross_entropy",
        "-(t * max(log(x), -100) + (1 - t) * max(log1p(-x), -100))",
        {"x": "g * (x - t) / max(x * (1 - x), 1e-12)", "t": "g * (max(log1p(-x), -100) - max(log(x), -100))"},
        ("x", "t"),
    ),
    Elementwise(
        "binary_cross_entropy_with_logits",
        "(1 - t) * x + (1 + (w - 1) * t) * (max(-x, 0) + log1p(exp(-abs(x))))",
        {
            "x": "g * (1 - t - (1 + (w - 1) * t) * sigmoid(-x))",
            "t": "g * ((w - 1) * (max(-x, 0) + log1p(exp(-abs(x)))) - x)",
        },
        ("x", "t", "w"),
    ),
]

_OPS = {row.name: op_of(row) for row in TABLE}


def mse_loss(x: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """(x - target)^2. target has x's shape; a last axis of length one may be missing on either side.

    Raises ShapeError for other shapes, and for the mean of nothing.
    """
    x, target = _pair("mse_loss", x, target)
    return _reduced("mse_loss", _OPS["squared_error"](x, target), reduction)


def l1_loss(x: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """|x - target|. Shapes as in `mse_loss`."""
    x, target = _pair("l1_loss", x, target)
    return _reduced("l1_loss", _OPS["absolute_error"](x, target), reduction)


def huber_loss(x: Tensor, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """0.5 d^2 where |d| < delta, else delta (|d| - 0.5 delta), with d = x - target (Huber 1964).

    Shapes as in `mse_loss`. Raises OptionError unless delta > 0.
    """
    if not delta > 0:
        raise OptionError(f"huber_loss: delta is {delta!r}, wanted a number > 0")
    x, target = _pair("huber_loss", x, target)
    return _reduced("huber_loss", _OPS["huber"](x, target, constant(float(delta), x.dtype)), reduction)


def binary_cross_entropy(x: Tensor, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """-(t log x + (1 - t) log(1 - x)) for probabilities x in [0, 1]; logarithms are kept above -100, as in PyTorch.

    target t in [0, 1]. weight: multiplies the losses, broadcasts. Shapes as in `mse_loss`.
    """
    x, target = _pair("binary_cross_entropy", x, target)
    _shares("binary_cross_entropy", target)
    return _weighted("binary_cross_entropy", _OPS["binary_cross_entropy"](x, target), weight, reduction)


def binary_cross_entropy_with_logits(
    x: Tensor, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(x), without overflow. pos_weight: multiplies the term of t, broadcasts."""
    x, target = _pair("binary_cross_entropy_with_logits", x, target)
    _shares("binary_cross_entropy_with_logits", target)
    w = constant(1.0, x.dtype) if pos_weight is None else as_tensor(pos_weight, x.dtype, x)
    loss = _OPS["binary_cross_entropy_with_logits"](x, target, w)
    if loss.shape != x.shape:
        raise ShapeError(f"binary_cross_entropy_with_logits: pos_weight {w.shape} does not broadcast to x {x.shape}")
    return _weighted("binary_cross_entropy_with_logits", loss, weight, reduction)


# ------------------------------------------------------------------------- losses of classes


def cross_entropy(
    x: Tensor, target: Any, weight: Any = None, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """-sum_j weight_j q_j log softmax(x)_j for each row, where q is the target, smoothed: (1 - s) q + s / classes.

    x (n, c): scores. target: labels (n,), integers in 0..c-1; or (n, c), one-hot or probabilities. weight (c,) or
    None. The mean over labels is divided by the sum of the labels' weights, that over probabilities by n.
    Raises ShapeError, DtypeError, OptionError, and IndexError for a label out of range.
    """
    name = "cross_entropy"
    _scores(name, x)
    check_smoothing(label_smoothing, name)
    weight = _class_weight(name, weight, x)
    target = _target(target, x)
    if target.ndim == 1:
        target = _labels(name, target, x)
        loss = class_cross_entropy(x, target, weight, label_smoothing)
        return _class_mean(name, loss, target, weight, reduction)
    q = _distribution(name, target, x)
    if label_smoothing:
        q = q * (1 - label_smoothing) + label_smoothing / x.shape[1]
    q = q if weight is None else q * weight
    return _reduced(name, -(q * log_softmax(x)).sum(-1), reduction)


def nll_loss(x: Tensor, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """-weight_t x_t for each row of log-probabilities x (n, c) and its label t. Errors as in `cross_entropy`."""
    _scores("nll_loss", x)
    weight = _class_weight("nll_loss", weight, x)
    target = _labels("nll_loss", _target(target, x), x)
    loss = -_picked(x, target)
    loss = loss if weight is None else loss * take(weight, target)
    return _class_mean("nll_loss", loss, target, weight, reduction)


def categorical_cross_entropy(x: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """-sum_j t_j log x_j for each row, Keras's. x (n, c): probabilities, clipped at 1e-7; target t (n, c).

    Prefer `cross_entropy` of scores: it needs no clipping.
    """
    name = "categorical_cross_entropy"
    _scores(name, x)
    t = _distribution(name, _target(target, x), x)
    return _reduced(name, -(t * log(clip(x, CLIP, 1 - CLIP))).sum(-1), reduction)


def sparse_categorical_cross_entropy(x: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """-log x_t for each row and label t, Keras's. x (n, c): probabilities, clipped at 1e-7; target (n,) or (n, 1).

    Prefer `cross_entropy` of scores: it needs no clipping.
    """
    name = "sparse_categorical_cross_entropy"
    _scores(name, x)
    target = _target(target, x)
    target = _labels(name, reshape(target, -1) if target.shape[1:] == (1,) else target, x)
    return _reduced(name, -log(clip(_picked(x, target), CLIP, 1 - CLIP)), reduction)


def _picked(x: Tensor, target: Tensor) -> Tensor:
    """x_t of each row, (n,). Other values of the row, even infinite ones, play no part."""
    return where(reshape(target, -1, 1) == arange(x.shape[1], device=x), x, 0.0).sum(-1)


# ------------------------------------------------------------------------------ what they share


def check_reduction(reduction: str) -> str:
    """The reduction as it is. Raises OptionError unless it is "mean", "sum" or "none"."""
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    return reduction


def check_smoothing(smoothing: float, name: str = "cross_entropy") -> float:
    """The label smoothing as it is. Raises OptionError unless it is in [0, 1)."""
    if not 0 <= smoothing < 1:
        raise OptionError(f"{name}: label_smoothing is {smoothing!r}, wanted a number in [0, 1)")
    return smoothing


def _reduced(name: str, loss: Tensor, reduction: str) -> Tensor:
    if check_reduction(reduction) == "none":
        return loss
    if reduction == "sum":
        return _reduction.sum(loss)
    if not loss.size:
        raise ShapeError(f"{name}: there is no mean of no values (shape {loss.shape}); the data is empty")
    return _reduction.mean(loss)


def _weighted(name: str, loss: Tensor, weight: Any, reduction: str) -> Tensor:
    if weight is None:
        return _reduced(name, loss, reduction)
    weighted = loss * as_tensor(weight, loss.dtype, loss)
    if weighted.shape != loss.shape:
        raise ShapeError(f"{name}: weight {np.shape(weight)} does not broadcast to x {loss.shape}")
    return _reduced(name, weighted, reduction)


def _class_mean(name: str, loss: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is None or reduction != "mean" or not loss.size:
        return _reduced(name, loss, reduction)
    return _reduction.sum(loss) / _reduction.sum(take(weight, target))


def _pair(name: str, x: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise DtypeError(f"{name}: x is {x.dtype}, wanted float32 or float64")
    if not isinstance(target, Tensor) or target.dtype.kind != "f":
        target = as_tensor(target, x.dtype, x)
    if target.shape != x.shape:
        if target.shape not in (x.shape[:-1] if x.shape[-1:] == (1,) else None, (*x.shape, 1)):
            raise ShapeError(f"{name}: target has shape {target.shape}, x {x.shape}; wanted the same")
        target = reshape(target, x.shape)
    return x, target


def _shares(name: str, target: Tensor) -> None:
    if plan.current() is not None or not target.size:
        return
    values = host(target.array)
    if not (values.min() >= 0 and values.max() <= 1):
        raise DataError(f"{name}: target holds values from {values.min()} to {values.max()}, wanted 0 to 1")


def _scores(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dtype.kind != "f":
        raise DtypeError(f"{name}: x is {getattr(x, 'dtype', type(x).__name__)}, wanted a float32 or float64 tensor")
    if x.ndim != 2 or not x.shape[1]:
        raise ShapeError(f"{name}: x has shape {x.shape}, wanted (rows, classes)")


def _target(target: Any, x: Tensor) -> Tensor:
    """Labels or probabilities as a tensor; an array of floats takes the dtype of x."""
    if isinstance(target, Tensor) or plan.current() is not None:
        return as_tensor(target, beside=x)
    if elsewhere(target):
        return as_tensor(target)
    array = np.asarray(target)
    return as_tensor(array, x.dtype if array.dtype.kind == "f" else None, x)


def _labels(name: str, target: Tensor, x: Tensor) -> Tensor:
    rows, classes = x.shape
    if target.dtype.kind != "i":
        raise DtypeError(f"{name}: target of shape {target.shape} is {target.dtype}, wanted integer labels")
    if target.shape != (rows,):
        raise ShapeError(f"{name}: target has shape {target.shape}, wanted ({rows},) labels for x {x.shape}")
    if target.dtype != np.int64:
        target = to(target, np.int64)
    if plan.current() is not None or not rows:
        return target
    values = host(target.array)
    # As unsigned numbers negative labels are large, so that one look is enough.
    if values.view(np.uint64).max() >= classes:
        wrong = values[(values < 0) | (values >= classes)][0]
        raise IndexError(f"{name}: target holds the label {wrong}, wanted 0..{classes - 1} for {classes} classes")
    return target


def _distribution(name: str, target: Tensor, x: Tensor) -> Tensor:
    if target.shape != x.shape:
        raise ShapeError(
            f"{name}: target has shape {target.shape}, wanted labels ({x.shape[0]},) or probabilities {x.shape}"
            if name == "cross_entropy"
            else f"{name}: target has shape {target.shape}, wanted probabilities {x.shape}"
        )
    return to(target, x.dtype)


def _class_weight(name: str, weight: Any, x: Tensor) -> Tensor | None:
    if weight is None:
        return None
    weight = to(weight, x.dtype) if isinstance(weight, Tensor) else as_tensor(weight, x.dtype, x)
    if weight.shape != x.shape[1:]:
        raise ShapeError(f"{name}: weight has shape {weight.shape}, wanted {x.shape[1:]}, one weight per class")
    return weight


# ------------------------------------------------------------------------------- losses by name

#: The losses by the names that people type, PyTorch's and Keras's.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "nll_loss": nll_loss,
    "mse_loss": mse_loss,
    "l1_loss": l1_loss,
    "huber_loss": huber_loss,
    "binary_cross_entropy": binary_cross_entropy,
    "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
    "categorical_cross_entropy": categorical_cross_entropy,
    "sparse_categorical_cross_entropy": sparse_categorical_cross_entropy,
    "categorical_crossentropy": categorical_cross_entropy,
    "sparse_categorical_crossentropy": sparse_categorical_cross_entropy,
    "binary_crossentropy": binary_cross_entropy,
    "mean_squared_error": mse_loss,
    "mse": mse_loss,
    "mean_absolute_error": l1_loss,
    "mae": l1_loss,
    "huber": huber_loss,
}


def get(loss: str | Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss from its name, or a function of (outputs, target) as it is. Raises OptionError that lists the names."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return LOSSES[loss]
