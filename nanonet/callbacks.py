"""Callbacks: what watches a training and may steer it, as in Keras.

    stop = EarlyStopping("val_loss", patience=5, restore_best_weights=True)
    model.fit(x, y, epochs=100, validation_split=0.2, callbacks=[stop, CSVLogger("curve.csv")])

`logs` holds the epoch's results by name: loss, the metrics, the same with `val_` in front, and lr.
"""

from __future__ import annotations

import csv
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nanonet.errors import DataError, OptionError
from nanonet.options import unknown

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateLogger",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]

Logs = dict[str, float] | None


class Callback:
    """Base of the callbacks: every method may be overridden, and none need be.

    `self.model` is the model in training (`model.optimizer`; `model.stop_training = True` ends training after the
    epoch), `self.params` holds epochs, steps, batch_size and verbose. Epochs and batches count from 0.
    """

    model: Any = None
    params: Mapping[str, Any] = {}

    def set_model(self, model: Any) -> None:
        """Told once, before training."""
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Told once, before training."""
        self.params = params

    def on_train_begin(self, logs: Logs = None) -> None:
        """Training begins."""

    def on_train_end(self, logs: Logs = None) -> None:
        """Training has ended, be it by an error."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """An epoch begins."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """An epoch has ended with these results."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Batch number `batch` of the epoch is done. Told some twenty times a second, not for every batch."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Keras's other name for `on_batch_end`."""
        self.on_batch_end(batch, logs)


class CallbackList:
    """Several callbacks as one, called in their order. Raises OptionError for what is no callback."""

    def __init__(self, callbacks: Iterable[Callback]):
        self.callbacks = list(callbacks)
        for i, callback in enumerate(self.callbacks):
            if not isinstance(callback, Callback):
                raise OptionError(f"callbacks[{i}] is {callback!r}; wanted an instance of nanonet.callbacks.Callback")

    def set_model(self, model: Any) -> None:
        self._tell("set_model", model)

    def set_params(self, params: Mapping[str, Any]) -> None:
        self._tell("set_params", params)

    def on_train_begin(self, logs: Logs = None) -> None:
        self._tell("on_train_begin", logs or {})

    def on_train_end(self, logs: Logs = None) -> None:
        self._tell("on_train_end", logs or {})

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._tell("on_epoch_begin", epoch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._tell("on_epoch_end", epoch, {} if logs is None else logs)

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._tell("on_train_batch_end", batch, logs or {})

    def _tell(self, event: str, *about: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*about)


# ----------------------------------------------------------------------------------- watching


class History(Callback):
    """What came out of each epoch: `history[name]` is a list with one value per epoch in `epoch`."""

    def __init__(self):
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        self.history, self.epoch = {}, []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class LambdaCallback(Callback):
    """Functions as a callback: LambdaCallback(on_epoch_end=lambda epoch, logs: print(logs))."""

    EVENTS = ("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_batch_end")

    def __init__(self, **functions: Callable[..., Any]):
        for event, function in functions.items():
            if event not in self.EVENTS:
                raise unknown("an event of LambdaCallback", event, self.EVENTS)
            if not callable(function):
                raise OptionError(f"LambdaCallback: {event} is {function!r}; wanted a function")
            setattr(self, event, function)


class LearningRateLogger(Callback):
    """Keeps the learning rate of each epoch in `history`."""

    def __init__(self):
        self.history: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.history.append(float((logs or {}).get("lr", self.model.optimizer.lr)))


class CSVLogger(Callback):
    """Writes a row per epoch to a CSV file, each at once, so that it can be read while training goes on.

    append=True adds to a file that is there, in its columns; DataError if they are not those of the results.
    """

    def __init__(self, path: str | os.PathLike, append: bool = False, separator: str = ","):
        self.path, self.append, self.separator = Path(path), append, separator
        self._columns: list[str] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self._columns = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.append and self.path.exists() and self.path.stat().st_size:
            with open(self.path, newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file, delimiter=self.separator))
        else:
            self.path.write_text("", encoding="utf-8")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        row = {"epoch": epoch, **(logs or {})}
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=self.separator)
            if self._columns is None:
                self._columns = list(row)
                writer.writerow(self._columns)
            if set(row) != set(self._columns):
                raise DataError(
                    f"{self.path}: has the columns {', '.join(self._columns)}; the results are {', '.join(row)}"
                )
            writer.writerow([row[name] for name in self._columns])


# ------------------------------------------------------------------------------- watching one number


class Monitor(Callback):
    """Base of the callbacks that follow one of the results. mode: "min", "max", or "auto" to go by its name."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0):
        kind = type(self).__name__
        if mode not in ("auto", "min", "max"):
            raise unknown(f"mode of {kind}", mode, ("auto", "min", "max"))
        _number(kind, "min_delta", min_delta, -math.inf)
        self.monitor = monitor
        self.mode = _direction(kind, monitor) if mode == "auto" else mode
        self.min_delta = abs(min_delta)

    def current(self, logs: Logs) -> float:
        """The number now. Raises OptionError that lists what there is."""
        if self.monitor not in (logs or {}):
            hint = "; fit was given no validation data" if not any(n.startswith("val_") for n in logs or {}) else ""
            raise OptionError(
                f"{type(self).__name__}: monitor is {self.monitor!r}; wanted one of "
                f"{', '.join(logs or {}) or '(there are no results)'}{hint}"
            )
        return float(logs[self.monitor])  # type: ignore[index]

    def better(self, value: float, best: float | None) -> bool:
        """Is `value` better than `best` by more than min_delta? NaN never is."""
        if best is None or math.isnan(best):
            return not math.isnan(value)
        return value < best - self.min_delta if self.mode == "min" else value > best + self.min_delta


class EarlyStopping(Monitor):
    """Ends training when the monitored result has not improved for `patience` epochs (at least one).

    Better means by more than min_delta, and, until it has been reached, better than `baseline`. The first
    `start_from_epoch` epochs do not count. restore_best_weights gives the model its best epoch's weights at the end.
    After training: `best`, `best_epoch` and `stopped_epoch` (None if it ran to its end), counted from 0.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        restore_best_weights: bool = False,
        baseline: float | None = None,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience = _count("EarlyStopping", "patience", patience)
        self.start_from_epoch = _count("EarlyStopping", "start_from_epoch", start_from_epoch)
        self.restore_best_weights, self.baseline = restore_best_weights, baseline
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self.stopped_epoch: int | None = None
        self._wait = 0
        self._weights: dict[str, np.ndarray] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        value = self.current(logs)
        if epoch < self.start_from_epoch:
            return
        self._wait += 1
        if self.better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self._weights = _weights(self.model)
            if self.baseline is None or self.better(value, self.baseline):
                self._wait = 0
        if self._wait >= max(1, self.patience):
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        if self._weights is not None:
            self.model.load_state_dict(self._weights)
            self._weights = None


class ModelCheckpoint(Monitor):
    """Writes a checkpoint after each epoch, or with save_best_only after each best one.

    path may hold the epoch (from 1) and results: "runs/{epoch:02d}-{val_loss:.3f}.safetensors". The file is a state of
    `nanonet.checkpoint`: {"model", "optimizer", "epoch", "logs"}; model.load(path) takes the weights back.
    `saved` is the path of the newest, `best` the best value so far.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
    ):
        super().__init__(monitor, mode if mode != "auto" or save_best_only else "min")
        self.path, self.save_best_only = os.fspath(path), save_best_only
        self.best: float | None = None
        self.saved: Path | None = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        from nanonet import checkpoint

        if self.save_best_only:
            value = self.current(logs)
            if not self.better(value, self.best):
                return
            self.best = value
        names = {**(logs or {}), "epoch": epoch + 1}
        try:
            path = Path(self.path.format(**names))
        except (KeyError, IndexError, ValueError) as error:
            raise OptionError(
                f"ModelCheckpoint: path is {self.path!r} ({error}); wanted placeholders among {', '.join(names)}"
            ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        optimizer = getattr(self.model, "optimizer", None)
        checkpoint.save(
            path,
            {
                "model": _weights(self.model),
                "optimizer": None if optimizer is None else optimizer.state_dict(),
                "epoch": epoch + 1,
                "logs": {name: float(value) for name, value in (logs or {}).items()},
            },
        )
        self.saved = path


class TerminateOnNaN(Callback):
    """Ends training when the loss is NaN or infinite."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._check(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._check(logs)

    def _check(self, logs: Logs) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True


# ------------------------------------------------------------------------------- steering the learning rate


class LearningRateScheduler(Callback):
    """Sets the learning rate at the beginning of each epoch.

    schedule: a `nanonet.optim.schedules` schedule, which multiplies each group's learning rate from before training;
    or a function of (epoch) or (epoch, learning rate) that gives the learning rate of all groups.
    """

    def __init__(self, schedule: Callable[..., Any]):
        from nanonet.optim.schedules import Schedule

        if not callable(schedule):
            raise OptionError(f"LearningRateScheduler: schedule is {schedule!r}; wanted a schedule or a function")
        self.schedule = schedule
        self._relative = isinstance(schedule, Schedule)
        self._both = not self._relative and _positions(schedule) > 1
        self._optimizer: Any = None
        self._base: list[float] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        if self._optimizer is not self.model.optimizer:  # a second fit goes on from the same base
            self._optimizer = self.model.optimizer
            self._base = [group["lr"] for group in self._optimizer.param_groups]

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        optimizer = self.model.optimizer
        if self._relative:
            factor = self.schedule(epoch)
            for group, base in zip(optimizer.param_groups, self._base, strict=True):
                group["lr"] = base * factor
        else:
            optimizer.lr = float(self.schedule(epoch, optimizer.lr) if self._both else self.schedule(epoch))


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when the monitored result has not improved for `patience` epochs.

    Better means by more than min_delta. After that, `cooldown` epochs do not count. No rate falls below min_lr.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        _number("ReduceLROnPlateau", "min_lr", min_lr, 0)
        if not 0 < factor < 1:
            raise OptionError(f"ReduceLROnPlateau: factor is {factor!r}; wanted a number above 0 and below 1")
        self.factor, self.min_lr = factor, min_lr
        self.patience = _count("ReduceLROnPlateau", "patience", patience)
        self.cooldown = _count("ReduceLROnPlateau", "cooldown", cooldown)
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self._wait = self._rest = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        value = self.current(logs)
        resting = self._rest > 0
        self._rest = max(0, self._rest - 1)
        if self.better(value, self.best):
            self.best, self._wait = value, 0
        elif resting:
            self._wait = 0
        else:
            self._wait += 1
        if self._wait and self._wait >= self.patience:
            for group in self.model.optimizer.param_groups:
                group["lr"] = max(min(group["lr"], self.min_lr), group["lr"] * self.factor)
            self._wait, self._rest = 0, self.cooldown


# ------------------------------------------------------------------------------------------- helpers

MORE_IS_BETTER = ("accuracy", "acc", "auc", "precision", "recall", "f1", "r2", "top_k", "top_5")
LESS_IS_BETTER = ("loss", "mae", "mse", "rmse", "error", "lr", "perplexity")


def _direction(kind: str, monitor: str) -> str:
    name = monitor.lower().removeprefix("val_")
    if any(name.startswith(known) or name.endswith(known) for known in MORE_IS_BETTER):
        return "max"
    if any(name.startswith(known) or name.endswith(known) for known in LESS_IS_BETTER):
        return "min"
    raise OptionError(
        f"{kind}: mode is 'auto', which cannot tell whether more of {monitor!r} is better; wanted 'min' or 'max'"
    )


def _weights(model: Any) -> dict[str, np.ndarray]:
    """A copy of the model's state."""
    return {name: np.array(getattr(value, "array", value)) for name, value in model.state_dict().items()}


def _positions(function: Callable[..., Any]) -> int:
    """How many positional arguments a function takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _count(kind: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise OptionError(f"{kind}: {name} is {value!r}; wanted an integer of at least 0")
    return int(value)


def _number(kind: str, name: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value >= least:
        raise OptionError(f"{kind}: {name} is {value!r}; wanted a number{'' if least < 0 else f' of at least {least}'}")
