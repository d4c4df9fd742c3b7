"""What is measured of a network in training: scores on validation rows, robustness, size and speed.

"accuracy"  "loss"  "mae"  and every name in nanonet.metrics        function of (y_true, y_pred), with a direction
"parameters"                   how many numbers are trained
"latency"                      seconds to predict one row
"noise(0.5)"                   accuracy when normal noise of that deviation is added to the standardized inputs
"fgsm(0.1)"                    accuracy when each standardized input is moved by that much, to where the loss rises
"""

from __future__ import annotations

import re
import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

import nanonet
from nanonet import losses, metrics
from nanonet.errors import OptionError
from nanonet.options import number
from nanonet.random import generator
from nanonet.settings import Settings
from nanonet.threads import single_thread
from nanonet.training import Run, build_model

if TYPE_CHECKING:
    from .parts import Fold

__all__ = ["FGSM", "Latency", "Metric", "Noise", "Objective", "Own", "Parameters", "Score", "count_parameters", "make"]

TIE = 1e-6  # what a unit of loss counts when accuracies are compared
MAXIMIZED = ("accuracy", "binary_accuracy", "top_k_accuracy", "precision", "recall", "f1", "r2")
CHUNK = 1024  # rows at a time

Metric = Callable[[np.ndarray, np.ndarray], float]


class Objective(ABC):
    """One number to be made large or small."""

    name: str
    direction: str
    whole_epochs = False
    """Whether `Run.advance` gives it for each epoch; it is measured on the model otherwise."""
    of_settings = False
    """Whether it depends on the settings alone, not on the weights."""

    @abstractmethod
    def measure(self, run: Run, epoch: Mapping[str, float], fold: Fold) -> float:
        """The value for a run that stands at the end of `epoch`, one of the dicts of `Run.advance`."""

    def of(self, settings: Settings, shape: tuple[int, ...], outputs: int) -> float:
        """The value for inputs of this shape, of what depends on the settings alone."""
        raise NotImplementedError(self.name)

    def test(self, y: np.ndarray, outputs: np.ndarray) -> float | None:
        """The value for outputs (n, ...) of test rows y (n, ...); None if it is none of outputs and targets."""
        return None


class Score(Objective):
    """What `Run.advance` tells by itself: the loss, and accuracy or mean absolute error.

    Of equal accuracies the one with the smaller loss counts more, by a hair: `tie` for each unit of loss.
    """

    whole_epochs = True

    def __init__(self, name: str, direction: str, tie: float = TIE):
        self.name, self.direction, self.tie = name, direction, tie

    def measure(self, run: Run, epoch: Mapping[str, float], fold: Fold) -> float:
        value = epoch[f"val_{self.name}"]
        return value - self.tie * min(epoch["val_loss"], 1e3) if self.name == "accuracy" else value


class Own(Objective):
    """A function of (y_true, y_pred): labels (n,) and class scores (n, classes), or values."""

    def __init__(self, name: str, function: Metric, direction: str):
        self.name, self.function, self.direction = name, function, direction

    def measure(self, run: Run, epoch: Mapping[str, float], fold: Fold) -> float:
        return float(self.function(fold.y_validation, run.predict(fold.x_validation)))

    def test(self, y: np.ndarray, outputs: np.ndarray) -> float:
        return float(self.function(y, outputs))


class Parameters(Objective):
    """How many numbers are trained."""

    name, direction, of_settings = "parameters", "minimize", True

    def measure(self, run: Run, epoch: Mapping[str, float], fold: Fold) -> float:
        return float(sum(p.size for p in run.model.parameters()))

    def of(self, settings: Settings, shape: tuple[int, ...], outputs: int) -> float:
        return float(count_parameters(settings, shape, outputs))


def count_parameters(settings: Settings, shape: tuple[int, ...], outputs: int) -> int:
    """How many numbers `nanonet.training.build_model` trains for inputs of this shape."""
    widths = [int(np.prod(shape)), *settings.hidden, outputs]
    norms = sum(settings.hidden) if settings.batch_norm else 0  # scale and shift, in place of a bias
    return sum(a * b + b for a, b in pairwise(widths)) + norms


class Latency(Objective):
    """Seconds to predict one row with the trained network: the median of `repeats` recorded calls, on one thread of the
    CPU, wherever it is trained.

    Measured once for each architecture, so that equal ones get equal values.
    """

    name, direction, of_settings = "latency", "minimize", True

    def __init__(self, repeats: int = 101):
        self.repeats = repeats
        self._known: dict[tuple, float] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"repeats": self.repeats}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def measure(self, run: Run, epoch: Mapping[str, float], fold: Fold) -> float:
        return self.of(run.settings, run.input_shape, run.outputs)

    def of(self, settings: Settings, shape: tuple[int, ...], outputs: int) -> float:
        key = settings.hidden, settings.activation, settings.batch_norm, tuple(shape), outputs
        with self._lock:  # two measurements at a time would be in each other's way
            if key not in self._known:
                self._known[key] = self._seconds(build_model(settings, tuple(shape), outputs).eval(), tuple(shape))
            return self._known[key]

    def _seconds(self, model: Any, shape: tuple[int, ...]) -> float:
        row = nanonet.tensor(np.zeros((1, *shape), np.float32))

        def predict(x: Any) -> Any:
            with nanonet.no_grad():
                return model(x)

        step = nanonet.jit(predict)
        with single_thread():
            for _ in range(5):
                step(row)
            times = []
            for _ in range(self.repeats):
                start = time.perf_counter()
                step(row)
                times.append(time.perf_counter() - start)
        return statistics.median(times)


class Noise(Objective):
    """Accuracy on validation rows to which normal noise is added, the same for every trial and epoch.

    std: its deviation, in standard deviations of the inputs (they are standardized). seed: of the noise.
    """

    direction = "maximize"

    def __init__(self, std: float, seed: int = 0):
        self.std = number("noise: std", std, "[0, inf)")
        self.seed = seed
        self.name = f"noise({std:g})"

    def measure(self, run: Run, epoch: Mapping[str, float], fold: Fold) -> float:
        x = fold.x_validation
        noise = generator(self.seed, "noise objective").standard_normal(x.shape, dtype=np.float32)
        return _accuracy(fold.y_validation, run.predict(x + np.float32(self.std) * noise))


class FGSM(Objective):
    """Accuracy on validation rows after one step of the fast gradient sign method (Goodfellow et al. 2015, section 4):

        x + eps sign(dL / dx)

    eps: in standard deviations of the inputs (they are standardized). L is the cross-entropy.
    """

    direction = "maximize"

    def __init__(self, eps: float):
        self.eps = number("fgsm: eps", eps, "[0, inf)")
        self.name = f"fgsm({eps:g})"

    def measure(self, run: Run, epoch: Mapping[str, float], fold: Fold) -> float:
        moved = attacked(run.model, fold.x_validation, fold.y_validation, self.eps)
        return _accuracy(fold.y_validation, run.predict(moved))


def attacked(model: Any, x: np.ndarray, y: np.ndarray, eps: float) -> np.ndarray:
    """x + eps sign(dL / dx) for rows x (n, ...) float32 with labels y (n,); L is the model's cross-entropy in eval
    mode. Leaves the model, its gradients and its mode alone."""
    parts = []
    device = next((p.device for p in model.parameters()), "cpu")
    before = model.training
    model.eval()
    try:
        for at in range(0, len(x), CHUNK):
            rows = nanonet.tensor(np.ascontiguousarray(x[at : at + CHUNK], np.float32), None, True, device)
            loss = losses.cross_entropy(
                model(rows), nanonet.tensor(np.asarray(y[at : at + CHUNK], np.int64), device=device)
            )
            (slope,) = nanonet.grad(loss, [rows])
            parts.append(x[at : at + CHUNK] + np.float32(eps) * np.sign(slope.numpy()))
    finally:
        model.train(before)
    return np.concatenate(parts)


def _accuracy(y: np.ndarray, outputs: np.ndarray) -> float:
    if not np.isfinite(outputs).all():
        return float("nan")
    return float(np.mean(outputs.argmax(axis=1) == y))


# -------------------------------------------------------------------------------------------- by name


def make(metric: Any, direction: str | None, task: str, outputs: int, seed: int = 0) -> Objective:
    """The objective that a name, a function or an Objective stands for, for data with this task.

    direction: None for the usual one. Raises OptionError.
    """
    if isinstance(metric, Objective):
        made = metric
    elif callable(metric):
        if direction is None:
            raise OptionError("direction is None; wanted 'minimize' or 'maximize' for a metric of your own")
        made = Own(getattr(metric, "__name__", "metric"), metric, direction)
    else:
        made = _named(str(metric), direction, task, outputs, seed)
    if isinstance(made, (Noise, FGSM)) and task != "classification":
        raise OptionError(f"metric is {made.name!r}, which is about classes; the data has values to predict")
    if direction is not None and direction not in ("minimize", "maximize"):
        raise OptionError(f"direction is {direction!r}; wanted 'minimize' or 'maximize'")
    if direction is not None and direction != made.direction:
        made.direction = direction
    return made


def _named(name: str, direction: str | None, task: str, outputs: int, seed: int) -> Objective:
    if name == "parameters":
        return Parameters()
    if name == "latency":
        return Latency()
    option = re.fullmatch(r"(noise|fgsm)\((.*)\)", name)
    if option is not None:
        try:
            value = float(option[2])
        except ValueError:
            raise OptionError(f"metric is {name!r}; wanted a number in the brackets") from None
        return Noise(value, seed) if option[1] == "noise" else FGSM(value)
    direction = direction or ("maximize" if name in MAXIMIZED else "minimize")
    if name == "loss" or name == {"classification": "accuracy", "regression": "mae"}[task]:
        return Score(name, direction)
    function = metrics.get(name)
    if name in ("precision", "recall", "f1") and outputs > 2:
        function = partial(function, average="macro")
    return Own(name, function, direction)
