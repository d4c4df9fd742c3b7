"""compile, fit, evaluate and predict, as in Keras, for any Module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernels.memory import HOST, Memory
from nanonet import optim
from nanonet.autograd import no_grad
from nanonet.callbacks import Callback, CallbackList, History
from nanonet.device import memory_of, moved
from nanonet.errors import DataError, OptionError, ShapeError
from nanonet.loop import CHUNK_ROWS, Evaluation, Training
from nanonet.nn.parameter import Parameter
from nanonet.objectives import Metric, Objective, inputs, objective, targets
from nanonet.optim import Optimizer
from nanonet.random import next_seed
from nanonet.tensor import Tensor


@dataclass
class Compiled:
    """What `compile` was told, and the optimizer once the parameters are there."""

    optimizer: str | Optimizer
    loss: Any
    metrics: Sequence[Any] = ()
    epochs: int = 0
    seed: int = field(default_factory=next_seed)

    def optimizer_for(self, model: Any) -> Optimizer:
        if isinstance(self.optimizer, str):
            self.optimizer = optim.get(self.optimizer)(model.parameters())
        return self.optimizer


def compile(model: Any, optimizer: str | Optimizer = "adam", loss: Any = None, metrics: Any = None) -> None:
    """Settle how `fit` trains the model.

    optimizer: a name or an Optimizer over the model's parameters. loss: a name such as "cross_entropy",
    "sparse_categorical_crossentropy" or "mse", or a function of (outputs, targets). metrics: names or functions of
    (y_true, y_pred). Raises OptionError for names that are unknown.
    """
    if isinstance(optimizer, str):
        optim.get(optimizer)
    elif not isinstance(optimizer, Optimizer):
        raise OptionError(f"optimizer: {optimizer!r}, wanted a name or an Optimizer")
    if loss is None:
        raise OptionError("loss: None, wanted a name or a function of (outputs, targets)")
    metrics = [metrics] if isinstance(metrics, str) or callable(metrics) else list(metrics or ())
    task = objective(model, loss).task
    for metric in metrics:
        Metric(metric, task)
    model._compiled = Compiled(optimizer, loss, metrics)


def fit(
    model: Any,
    x: Any,
    y: Any,
    batch_size: int = 32,
    epochs: int = 1,
    verbose: int = 1,
    callbacks: Sequence[Callback] | None = None,
    validation_split: float = 0.0,
    validation_data: tuple[Any, Any] | None = None,
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
    initial_epoch: int = 0,
) -> History:
    """Train the model on rows x with targets y, and return the History of losses and metrics per epoch.

    x (n, ...), y (n,) labels, (n, c) one-hot or values. batch_size 1 is single-sample, n full-batch descent.
    validation_split takes the last share of the rows, before shuffling, away from training. Ctrl-C raises
    KeyboardInterrupt after the present chunk of steps, and leaves the model as it is then. Rows are copied, once,
    to the device that the model is on (`model.to("cuda")`).
    """
    from nanonet.progress import Progress

    compiled = _compiled(model)
    dtype = dtype_of(model)
    x = inputs(x, dtype=dtype)
    if not 0 <= validation_split < 1:
        raise OptionError(f"validation_split: {validation_split!r}, wanted a share in [0, 1)")
    _positive("batch_size", batch_size)
    _positive("epochs", epochs)
    outputs = _build(model, x)
    probe = objective(model, compiled.loss)
    weight = None if class_weight is None else moved(_weights(class_weight, outputs[-1], dtype), home(model))
    goal = objective(model, compiled.loss, weight)
    y = targets(y, probe.task, len(x), outputs, dtype)
    if validation_data is None and validation_split:
        keep = len(x) - int(len(x) * validation_split)
        if keep == len(x) or keep == 0:
            raise DataError(f"validation_split: {validation_split} of {len(x)} rows leaves an empty part")
        x, y, validation_data = x[:keep], y[:keep], (x[keep:], y[keep:])
    optimizer = model.optimizer = compiled.optimizer_for(model)
    metrics = [Metric(metric, goal.task) for metric in compiled.metrics]
    training = Training(
        goal.forward,
        optimizer,
        goal.loss,
        x,
        y,
        batch_size=batch_size,
        seed=compiled.seed,
        shuffle=shuffle,
        counts={metric.name: metric.count for metric in metrics if metric.count is not None},
    )
    on_training = _Scorer(probe, x, y, [metric for metric in metrics if metric.count is None], with_loss=False)
    on_validation = None
    if validation_data is not None:
        xv = inputs(validation_data[0], "validation_data x", dtype)
        on_validation = _Scorer(probe, xv, targets(validation_data[1], probe.task, len(xv), outputs, dtype), metrics)

    history = History()
    watchers = CallbackList([history, Progress(verbose), *(callbacks or ())])
    watchers.set_model(model)
    watchers.set_params({"epochs": epochs, "steps": training.steps, "batch_size": batch_size, "verbose": verbose})
    model.stop_training = False
    watchers.on_train_begin()
    logs: dict[str, float] = {}
    try:
        for epoch in range(initial_epoch, epochs):
            model.train()
            watchers.on_epoch_begin(epoch)
            number = compiled.epochs
            logs = training.epoch(number, lambda done: watchers.on_batch_end(done - 1, {}))
            compiled.epochs += 1
            if on_training.metrics:
                logs.update(on_training(model))
            if on_validation is not None:
                logs.update({f"val_{name}": value for name, value in on_validation(model).items()})
            logs["lr"] = optimizer.lr
            watchers.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
    finally:
        watchers.on_train_end(logs)
    return history


def evaluate(
    model: Any, x: Any, y: Any, batch_size: int | None = None, verbose: int = 0, return_dict: bool = False
) -> Any:
    """Mean loss and metrics on rows x, y: a list [loss, metric, ...], the loss alone, or a dict.

    batch_size is accepted for Keras's sake: all rows are computed in large chunks.
    """
    compiled = _compiled(model)
    dtype = dtype_of(model)
    x = inputs(x, dtype=dtype)
    goal = objective(model, compiled.loss)
    y = targets(y, goal.task, len(x), _build(model, x), dtype)
    scores = _Scorer(goal, x, y, [Metric(metric, goal.task) for metric in compiled.metrics])(model)
    if verbose:
        print("  ".join(f"{name}: {value:.4f}" for name, value in scores.items()))
    if return_dict:
        return scores
    return list(scores.values()) if len(scores) > 1 else scores["loss"]


def predict(model: Any, x: Any, batch_size: int | None = None, verbose: int = 0) -> np.ndarray:
    """The model's outputs for rows x, in eval mode, as a NumPy array (n, ...)."""
    x = inputs(x, dtype=dtype_of(model))
    before = model.training
    model.eval()
    try:
        with no_grad():
            chunks = (moved(x[i : i + CHUNK_ROWS], home(model)) for i in range(0, len(x), CHUNK_ROWS))
            parts = [model(Tensor(chunk)).numpy() for chunk in chunks]
    finally:
        model.train(before)
    return np.concatenate(parts)


class _Scorer:
    """Loss and metrics of an objective on fixed rows; keeps the model's mode."""

    def __init__(
        self, goal: Objective, x: np.ndarray, y: np.ndarray, metrics: Sequence[Metric], with_loss: bool = True
    ):
        self.metrics = list(metrics)
        self._with_loss = with_loss
        self._y = y
        self._goal, self._x = goal, x
        self._evaluation: Evaluation | None = None

    def __call__(self, model: Any) -> dict[str, float]:
        if self._evaluation is None:
            there = (moved(array, home(model)) for array in (self._x, self._y))
            self._evaluation = Evaluation(self._goal.forward, self._goal.loss if self._with_loss else None, *there)
        before = model.training
        model.eval()
        try:
            outputs, loss = self._evaluation.run()
        finally:
            model.train(before)
        found = {"loss": loss} if self._with_loss else {}
        return {**found, **{metric.name: metric.value(outputs, self._y) for metric in self.metrics}}


def _compiled(model: Any) -> Compiled:
    compiled = getattr(model, "_compiled", None)
    if compiled is None:
        raise OptionError("the model is not compiled: call model.compile(optimizer=..., loss=...) first")
    return compiled


def _build(model: Any, x: np.ndarray) -> tuple[int, ...]:
    """The shape of the outputs for one row; makes parameters that wait for their first input."""
    before = model.training
    model.eval()
    try:
        with no_grad():
            return model(Tensor(moved(x[:1], home(model)))).shape[1:]
    finally:
        model.train(before)


def dtype_of(model: Any) -> np.dtype:
    """What the model computes in: the dtype of its first parameter, float32 if it has none yet."""
    return next((p.dtype for _, p in model._find(Parameter)), np.dtype(np.float32))


def home(model: Any) -> Memory:
    """The memory of the device that the model is on: that of its first parameter, the host's if it has none yet."""
    return next((memory_of(p.array) for _, p in model._find(Parameter)), HOST)


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise OptionError(f"{name}: {value!r}, wanted an integer of at least 1")


def _weights(class_weight: Mapping[int, float], classes: int, dtype: np.dtype) -> np.ndarray:
    weights = np.ones(classes, dtype)
    for label, weight in class_weight.items():
        if not 0 <= label < classes:
            raise ShapeError(f"class_weight: names class {label}, the model has classes 0 to {classes - 1}")
        weights[label] = weight
    return weights
