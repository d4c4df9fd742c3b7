"""Many training runs of one shape as one: what is small for a device on its own is large enough together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from kernels.formula import Formula
from kernels.registry import backend_of
from kernels.updates import BY_NAME
from nanonet import losses, nn
from nanonet.autograd import no_grad
from nanonet.device import get_default_device, host, memory, moved, write
from nanonet.errors import OptionError
from nanonet.loop import CHUNK_ROWS, Step
from nanonet.nn.parameter import Parameter
from nanonet.objectives import inputs, targets, task_and_outputs
from nanonet.ops.random import Stream
from nanonet.random import generator
from nanonet.settings import Settings
from nanonet.tensor import Tensor
from nanonet.training import build_model, build_optimizer

__all__ = ["StackedRun", "stackable"]

#: What the runs of a stack have in common; anything else may differ.
SHARED = ("hidden", "activation", "optimizer", "nesterov", "batch_size", "label_smoothing")

_ADD = Formula.of("total + x", "total", "x")
_NEXT = Formula.of("t + 1", "t")
_KEEP = Formula.of("where(u < p, 0, 1 / (1 - p))", "u", "p")
_CLIP = Formula.of("g * min(limit / (sqrt(square) + 1e-06), 1)", "g", "limit", "square")


def stackable(settings: Sequence[Settings]) -> str | None:
    """None if runs with these settings can be stacked, else why not."""
    for name in SHARED:
        found = {getattr(each, name) for each in settings}
        if len(found) > 1:
            return f"{name} differs: {', '.join(sorted(map(str, found)))}"
    for each in settings:
        if each.batch_norm:
            return "batch_norm is on"
        if each.early_stopping:
            return f"early_stopping is {each.early_stopping}"
        if each.clip_value:
            return f"clip_value is {each.clip_value}"
    if len({bool(each.momentum) for each in settings}) > 1:
        return "momentum is 0 in some"
    return None


class StackedRun:
    """Training runs that differ in learning rate and schedule, decay, L1, momentum, betas, dropout, clipping by norm,
    initializer and seed, carried out as one: parameters are (runs, ...), products are batched, and each run keeps its
    own order of rows. Each is to rounding what `nanonet.training.Run` makes of its settings, but for dropout's masks.

    x (n, ...), y (n,) labels or values, or (n, k) values; validation (xv, yv) or None; task, classes and device as in
    `Run`. Raises OptionError, which says why, if the settings cannot be stacked; DataError, ShapeError,
    BackendUnavailable.
    """

    def __init__(
        self,
        settings: Sequence[Settings],
        x: Any,
        y: Any,
        validation: tuple[Any, Any] | None = None,
        *,
        task: str | None = None,
        classes: int | None = None,
        device: str | None = None,
    ):
        self.settings = list(settings)
        if not self.settings:
            raise OptionError("settings is empty; wanted those of at least one run")
        reason = stackable(self.settings)
        if reason is not None:
            raise OptionError(f"settings cannot be stacked: {reason}; wanted the same in all runs")
        first, self._memory = self.settings[0], memory(get_default_device() if device is None else device)
        x, y = inputs(x), np.asarray(y)
        self.task, outputs = task_and_outputs(y, None if validation is None else validation[1], task, classes)
        kind = "classes" if self.task == "classification" else "values"
        self.history: list[list[dict[str, float]]] = [[] for _ in self.settings]
        self._rows, self._kind, self._smoothing = len(x), kind, first.label_smoothing
        self._x = moved(x.reshape(len(x), -1), self._memory)
        self._y = moved(targets(y, kind, len(x), (outputs,)), self._memory)
        self._batch = min(first.batch_size, len(x))
        self._steps = -(-len(x) // self._batch)
        self._activation = nn.activation(first.activation)
        self._stack([build_model(each, x.shape[1:], outputs) for each in self.settings])
        self._schedule()
        self._validation = None
        if validation is not None:
            xv = inputs(validation[0], "validation x")
            yv = targets(validation[1], kind, len(xv), (outputs,))
            self._validation = moved(xv.reshape(len(xv), -1), self._memory), moved(yv, self._memory)
            self._evaluate = Step(self._validate)
        full, rest = divmod(self._rows, self._batch)
        self._parts = [(self._step(self._batch), full)] + ([(self._step(rest), 1)] if rest else [])

    def __len__(self) -> int:
        return len(self.settings)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history[0])

    def advance(self, epochs: int) -> list[list[dict[str, float]]]:
        """Train for so many more epochs; for each run one dict of results per epoch, as `Run.advance` gives.

        A run that diverges has NaN for results from then on, and leaves the others alone.
        """
        start = self.epoch
        for _ in range(epochs):
            self._shuffle(self.epoch)
            for step, times in self._parts:
                step.run(times)
            found = {name: host(total) / self._rows for name, total in self._totals.items()}
            if self._validation is not None:
                with no_grad():
                    self._evaluate.run(1)
                found |= {f"val_{name}": host(value).astype(float) for name, value in self._scores.items()}
            rates = host(self._values)[: len(self), 1]
            for k, history in enumerate(self.history):
                epoch = {name: float(values[k]) for name, values in found.items()}
                history.append({"epoch": self.epoch + (k == 0), **epoch, "lr": float(rates[k])})
        return [history[start:] for history in self.history]

    def state_dict(self, run: int) -> dict[str, np.ndarray]:
        """The parameters of one run, by the names that its own model has."""
        arrays = [host(p.array)[run] for p in self._parameters]
        return {
            name: array.reshape(array.shape if i % 2 == 0 else array.shape[1:]).copy()
            for i, (name, array) in enumerate(zip(self._names[run], arrays, strict=True))
        }

    # --------------------------------------------------------------------------- the parts of it

    def _stack(self, models: list[nn.Module]) -> None:
        """Parameters (runs, inputs, outputs) and (runs, 1, outputs), and for each run the rows of values that its
        weights and its biases are updated with."""
        states = [model.state_dict() for model in models]
        self._names = [list(state) for state in states]
        self._parameters = []
        for arrays in zip(*(state.values() for state in states), strict=True):
            stacked = np.stack([array if array.ndim == 2 else array[None] for array in arrays])
            self._parameters.append(Parameter(Tensor(moved(stacked, self._memory))))
        groups = [build_optimizer(each, model).param_groups for each, model in zip(self.settings, models, strict=True)]
        self._rule = BY_NAME[groups[0][0].rule.name]
        values = [host(groups[k][g].values) for g in (0, 1) for k in range(len(models))]
        self._values = moved(np.array(values), self._memory)
        self._states = [
            [moved(np.zeros(p.shape, np.float32), self._memory) for p in self._parameters] for _ in self._rule.states
        ]
        self._dropout = None
        if any(each.dropout for each in self.settings):
            rates = np.array([each.dropout for each in self.settings], np.float32).reshape(-1, 1, 1)
            self._dropout = moved(rates, self._memory)
            seed = int(generator(*(each.seed for each in self.settings), "stacked").integers(2**62))
            self._streams = [Stream(seed, i).to(self._memory) for i, _ in enumerate(self.settings[0].hidden)]
        self._limits = None
        if any(each.clip_norm for each in self.settings):
            limits = np.array([each.clip_norm or np.inf for each in self.settings], np.float32)
            self._limits = moved(limits.reshape(-1, 1, 1), self._memory)

    def _schedule(self) -> None:
        """Buffers of an epoch: the order of rows, learning rates of each update, places in both, sums."""
        count, here = len(self), self._memory
        self._order = moved(np.zeros(count * self._rows, np.int64), here)
        self._rates = moved(np.zeros((self._steps, count)), here)
        self._updates = moved(np.arange(self._steps), here)
        self._cursor, self._update = (moved(np.zeros((), np.int64), here) for _ in range(2))
        name = "accuracy" if self._kind == "classes" else "mae"
        self._totals = {key: moved(np.zeros(count), here) for key in ("loss", name)}
        self._scores = {key: moved(np.zeros(count), here) for key in ("loss", name)}
        self._score = name
        self._factors = [each.learning_rate_schedule(self._steps) for each in self.settings]

    def _shuffle(self, epoch: int) -> None:
        """Lay out the epoch: the rows of every step, run after run."""
        orders = np.array([generator(s.seed, "batches", epoch).permutation(self._rows) for s in self.settings])
        cuts = [*range(0, self._rows, self._batch), self._rows]
        write(self._order, np.concatenate([orders[:, a:b].ravel() for a, b in pairwise(cuts)]))
        updates = np.arange(epoch * self._steps, (epoch + 1) * self._steps)
        rates = [s.learning_rate * np.asarray(f(updates)) for s, f in zip(self.settings, self._factors, strict=True)]
        write(self._rates, np.stack(np.broadcast_arrays(*rates), axis=1))
        for buffer in (self._cursor, self._update, *self._totals.values()):
            write(buffer, 0)

    def _forward(self, x: Tensor, training: bool) -> Tensor:
        """Scores (runs, n, outputs) of inputs (runs or 1, n, features)."""
        layers = list(zip(self._parameters[::2], self._parameters[1::2], strict=True))
        for i, (weight, bias) in enumerate(layers):
            x = x @ weight + bias
            if i < len(layers) - 1:
                x = self._activation(x)
                if training and self._dropout is not None:
                    x = x * self._mask(i, x)
        return x

    def _mask(self, layer: int, x: Tensor) -> Tensor:
        mask = self._streams[layer].draw("random_uniform", x.shape, beside=x.array)
        backend_of(mask.array).elementwise(_KEEP, mask.array, self._dropout, out=mask.array)
        return mask

    def _losses(self, scores: Tensor, y: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Mean loss, and sum of hits or absolute errors, of each run: (runs,). scores (runs, n, outputs), y (runs, n)
        labels or (runs, n, outputs)."""
        runs, n, outputs = scores.shape
        if self._kind == "classes":
            each = losses.cross_entropy(
                scores.reshape(runs * n, outputs), y.reshape(runs * n), label_smoothing=smoothing, reduction="none"
            )
            with no_grad():
                counts = (scores.argmax(-1) == y).to(scores.dtype).sum(1)
            return each.reshape(runs, n).mean(1), counts
        difference = scores - y
        with no_grad():
            counts = difference.abs().sum((1, 2)) * (1 / outputs)
        return difference.square().mean((1, 2)), counts

    def _step(self, rows: int) -> Step:
        count, here = len(self), self._memory
        x = here.empty((count * rows, *self._x.shape[1:]), self._x.dtype)
        y = here.empty((count * rows, *self._y.shape[1:]), self._y.dtype)

        def step() -> None:
            backend = backend_of(x)
            backend.take_batch(self._x, self._order, self._cursor, out=x)
            backend.take_batch(self._y, self._order, self._cursor, out=y)
            backend.advance(self._cursor, count * rows)
            scores = self._forward(Tensor(x.reshape(count, rows, -1)), training=True)
            loss, counts = self._losses(scores, Tensor(y.reshape(count, rows, *y.shape[1:])), self._smoothing)
            for p in self._parameters:
                p.grad = None
            loss.sum().backward()
            with no_grad():
                self._clip()
                self._apply(backend)
                for name, value in (("loss", loss * rows), (self._score, counts)):
                    backend.elementwise(_ADD, self._totals[name], value.array, out=self._totals[name])

        return Step(step)

    def _clip(self) -> None:
        """Bring the norm of each run's gradients to its limit."""
        if self._limits is None:
            return
        gradients = [p.grad for p in self._parameters]
        square = sum(g.square().sum((1, 2), keepdims=True) for g in gradients)
        for g in gradients:
            backend_of(g.array).elementwise(_CLIP, g.array, self._limits, square.array, out=g.array)

    def _apply(self, backend: Any) -> None:
        """One update of all runs, each with its own values."""
        count = len(self)
        rates = self._memory.empty((1, count), np.float64)
        backend.take_batch(self._rates, self._updates, self._update, out=rates)
        backend.advance(self._update, 1)
        for part in (self._values[:count], self._values[count:]):
            backend.copy(rates.reshape(count), out=part[:, 1])
        steps = self._values[:, 0]
        backend.elementwise(_NEXT, steps, out=steps)
        weights, biases = range(0, len(self._parameters), 2), range(1, len(self._parameters), 2)
        places = [(i, k) for group in (weights, biases) for k in range(count) for i in group]
        backend.update(
            self._rule,
            [self._parameters[i].array[k] for i, k in places],
            [self._parameters[i].grad.array[k] for i, k in places],
            [[state[i][k] for i, k in places] for state in self._states],
            self._values,
        )

    def _validate(self) -> None:
        x, y = self._validation
        runs, rows = len(self), len(x)
        sums = dict.fromkeys(self._scores)
        for start in range(0, rows, CHUNK_ROWS):
            part = slice(start, min(start + CHUNK_ROWS, rows))
            scores = self._forward(Tensor(x[None, part]), training=False)
            goal = Tensor(y[None, part]).broadcast_to((runs, *y[part].shape))
            loss, counts = self._losses(scores, goal)
            for name, value in (("loss", loss * (part.stop - part.start)), (self._score, counts)):
                sums[name] = value if sums[name] is None else sums[name] + value
        for name, total in sums.items():
            backend_of(self._scores[name]).copy((total * (1 / rows)).array, out=self._scores[name])
