"""One training run that can stop, be stored, and go on later bit for bit."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from nanonet import nn
from nanonet.device import memory, moved, write
from nanonet.errors import CheckpointError
from nanonet.loop import Evaluation, Training
from nanonet.nn.module import set_mode
from nanonet.objectives import Metric, inputs, objective, targets, task_and_outputs
from nanonet.ops.random import Stream
from nanonet.optim import Optimizer, get
from nanonet.random import generator
from nanonet.settings import Settings

if TYPE_CHECKING:
    from nanonet.lr_range import RangeTest

ADAPTIVE = ("adam", "adamw")


def build_model(settings: Settings, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """The multi-layer perceptron that the settings describe: inputs of `input_shape` -> `outputs` scores.

    Weights come from the settings' initializer and seed, biases are zero; the last layer's weights are Xavier's, so
    that training starts from nearly equal scores.
    """
    widths = [int(np.prod(input_shape)), *settings.hidden]
    layers: list[nn.Module] = [nn.Flatten()] if len(input_shape) != 1 else []
    for i, (wide, narrow) in enumerate(pairwise(widths)):
        rng = generator(settings.seed, "weights", i)
        normed = settings.batch_norm  # takes the mean away, and with it any bias
        layers.append(nn.Linear(wide, narrow, bias=not normed, weight_init=settings.initializer, rng=rng))
        if normed:
            layers.append(nn.BatchNorm1d(narrow))
        layers.append(nn.activation(settings.activation))
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout, rng=Stream(settings.seed, i)))
    rng = generator(settings.seed, "weights", len(settings.hidden))
    layers.append(nn.Linear(widths[-1], outputs, weight_init="xavier_uniform", rng=rng))
    return nn.Sequential(*layers)


def build_optimizer(settings: Settings, model: nn.Module) -> Optimizer:
    """The optimizer that the settings describe. Weight decay and L1 are for weights, not for biases and norms."""
    options: dict[str, Any] = {"lr": settings.learning_rate}
    if settings.optimizer == "sgd":
        options.update(momentum=settings.momentum, nesterov=settings.nesterov)
    elif settings.optimizer in ADAPTIVE:
        options.update(betas=(settings.beta1, settings.beta2))
    parameters = list(model.parameters())
    groups = [
        {
            "params": [p for p in parameters if p.ndim > 1],
            "weight_decay": settings.weight_decay,
            "l1": settings.l1,
        },
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "l1": 0.0},
    ]
    return get(settings.optimizer)([g for g in groups if g["params"]], **options)


class Run:
    """A training run: model, optimizer, random state, and the place in the data.

    x (n, ...), y (n,) class numbers or values, validation (xv, yv) or None. task is "classification" or "regression",
    by default the former for integers; classes is their number, by default the largest label plus one.
    device: "cpu" or "cuda", where model and rows are kept and trained.
    Everything random depends on settings.seed alone. Raises DataError and ShapeError for data that does not fit,
    BackendUnavailable where there is no GPU.
    """

    def __init__(
        self,
        settings: Settings,
        x: Any,
        y: Any,
        validation: tuple[Any, Any] | None = None,
        *,
        task: str | None = None,
        classes: int | None = None,
        device: str = "cpu",
    ):
        self.settings, self.device = settings, device
        x = inputs(x)
        y = np.asarray(y)
        self.task, outputs = task_and_outputs(y, None if validation is None else validation[1], task, classes)
        loss, metric = ("cross_entropy", "accuracy") if self.task == "classification" else ("mse", "mae")
        self.outputs = outputs
        self.input_shape = x.shape[1:]
        self.model = build_model(settings, x.shape[1:], outputs)
        if next(iter(self.model.parameters())).device != device:
            self.model.to(device)
        self.optimizer = build_optimizer(settings, self.model)
        self._metric = Metric(metric, "classes" if loss == "cross_entropy" else "values")
        plain = objective(self.model, loss)
        smooth = objective(self.model, loss, smoothing=settings.label_smoothing) if loss == "cross_entropy" else plain
        y = targets(y, plain.task, len(x), (outputs,))
        batches = -(-len(x) // min(settings.batch_size, len(x)))
        schedule = settings.learning_rate_schedule(batches)
        constant = settings.schedule == "constant" and not settings.warmup
        self._training = Training(
            plain.forward,
            self.optimizer,
            smooth.loss,
            x,
            y,
            batch_size=settings.batch_size,
            seed=settings.seed,
            schedule=None if constant else schedule,
            clip_norm=settings.clip_norm,
            clip_value=settings.clip_value,
            counts={metric: self._metric.count},
            guarded=True,
        )
        self._validation = None
        if validation is not None:
            xv = inputs(validation[0], "validation x")
            self._yv = targets(validation[1], plain.task, len(xv), (outputs,))
            there = (moved(array, memory(device)) for array in (xv, self._yv))
            self._validation = Evaluation(plain.forward, plain.loss, *there)
        self.history: list[dict[str, float]] = []
        self._best: dict[str, np.ndarray] | None = None
        self._best_epoch = 0

    # ----------------------------------------------------------------------------- what it trains on

    @property
    def rows(self) -> tuple[Any, Any]:
        """The inputs (n, ...) and targets that it trains on, on its device."""
        return self._training.rows_and_targets

    @property
    def validation(self) -> tuple[Any, Any] | None:
        """Those that it is validated on, if there are any."""
        return None if self._validation is None else self._validation.rows_and_targets

    @property
    def limit(self) -> float:
        """The loss of a mini-batch above which it has diverged, which its first step sets (see `nanonet.loop`)."""
        return self._training.limit

    @limit.setter
    def limit(self, value: float) -> None:
        self._training.limit = value

    # ----------------------------------------------------------------------------- going on

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def diverged(self) -> bool:
        """Has a loss become NaN or infinite, or exploded (`nanonet.loop.EXPLOSION`)? Such a run does not go on.

        The step that shows it is the last: its epoch ends there, with NaN for all results.
        """
        last = self.history[-1] if self.history else {}
        return not (isfinite(last.get("loss", 0.0)) and isfinite(last.get("val_loss", 0.0)))

    @property
    def stopped(self) -> bool:
        """Has it diverged, or has early stopping ended it?"""
        patience = self.settings.early_stopping
        return self.diverged or bool(patience and self.epoch - self._best_epoch >= patience)

    @property
    def best_epoch(self) -> int:
        """The number (from 1) of the epoch with the lowest validation loss (training loss without validation)."""
        return self._best_epoch

    def advance(self, epochs: int) -> list[dict[str, float]]:
        """Train for up to `epochs` more epochs, fewer if the run stops; one dict of results for each.

        Keys: epoch, loss, accuracy (or mae), val_loss, val_accuracy (or val_mae), lr.
        """
        start = self.epoch
        modules = list(self.model.modules())
        for _ in range(epochs):
            if self.stopped:
                break
            set_mode(modules, True)
            found = self._training.epoch(self.epoch)
            if self._validation is not None and np.isnan(found["loss"]):
                found["val_loss"] = found[f"val_{self._metric.name}"] = float("nan")
            elif self._validation is not None:
                set_mode(modules, False)
                outputs, loss = self._validation.run()
                found["val_loss"] = loss
                found[f"val_{self._metric.name}"] = self._metric.value(outputs, self._yv)
            self.note({**found, "lr": self.optimizer.lr})
        return self.history[start:]

    def note(self, results: dict[str, float]) -> None:
        """Take down the results of the epoch that model and optimizer have just been through."""
        self.history.append({"epoch": self.epoch + 1, **results})
        key = "val_loss" if self._validation is not None else "loss"
        now = self.history[-1][key]
        best = self.history[self._best_epoch - 1][key] if self._best_epoch else float("inf")
        if now < best:
            self._best_epoch = self.epoch
            if self.settings.early_stopping:
                self._best = {name: array.copy() for name, array in self.model.state_dict().items()}

    def restore_best(self) -> None:
        """Give the model the weights of its best epoch. Only with early stopping, which keeps them."""
        if self._best is not None:
            self.model.load_state_dict(self._best)

    def predict(self, x: Any) -> np.ndarray:
        """Scores (n, outputs) for rows x."""
        from nanonet.fitting import predict

        return predict(self.model, x)

    def lr_range_test(self, low: float = 1e-6, high: float = 10.0, steps: int = 200) -> RangeTest:
        """The losses along a rising learning rate, and a rate to train with (see `nanonet.lr_range_test`).

        From the run's present weights, on a copy: the run itself is left alone.
        """
        from nanonet.lr_range import range_test

        settings = self.settings.replace(schedule="constant", warmup=0.0)
        copy = Run.restore({**self.state(), "settings": settings.to_dict()}, *self.rows)
        return range_test(copy.model, copy.optimizer, copy._training, low=low, high=high, steps=steps)

    # ----------------------------------------------------------------------- stopping and going on

    def state(self) -> dict[str, Any]:
        """All that the run is, as nested dicts of arrays and numbers for `nanonet.checkpoint.save`."""
        return {
            "settings": self.settings.to_dict(),
            "task": self.task,
            "outputs": self.outputs,
            "model": {name: array.copy() for name, array in self.model.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "streams": self.model.random_state(),
            "history": [dict(epoch) for epoch in self.history],
            "limit": self._training.limit,
            "best_epoch": self._best_epoch,
            "best": self._best,
        }

    @classmethod
    def restore(
        cls,
        state: dict[str, Any],
        x: Any,
        y: Any,
        validation: tuple[Any, Any] | None = None,
        device: str = "cpu",
    ) -> Run:
        """The run that `state` was taken of, over the same data. It goes on as if it had never stopped.

        Raises CheckpointError if the state is not a run's.
        """
        try:
            settings = Settings.from_dict(state["settings"])
            run = cls(settings, x, y, validation, task=state["task"], classes=state["outputs"], device=device)
            run.model.load_state_dict(state["model"])
            run.optimizer.load_state_dict(state["optimizer"])
            for name, stream in run.model.named_streams():
                write(stream.state, state["streams"][name])
            run._training.limit = state.get("limit", run._training.limit)
            run.history = [dict(epoch) for epoch in state["history"]]
            run._best_epoch, run._best = state["best_epoch"], state["best"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the state is not that of a training run: {error!r}") from error
        return run
