"""The arithmetic of a stack of training runs: one array for all, one recorded step for all.

    weights (slices, inputs, outputs)   biases (slices, 1, outputs)   scores (slices, rows, outputs)

Slice k is run k: its own rows in its own order, its own settings, and nothing of the others.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.formula import Formula
from kernels.memory import Memory
from kernels.registry import backend_of
from nanonet import losses, nn
from nanonet.autograd import no_grad
from nanonet.device import host, moved, write
from nanonet.loop import CHUNK_ROWS, EXPLOSION, NO_LIMIT, Step
from nanonet.nn.parameter import Parameter
from nanonet.ops.random import Stream
from nanonet.random import generator
from nanonet.tensor import Tensor

if TYPE_CHECKING:
    from nanonet.training import Run

__all__ = ["Slices", "steps_per_epoch"]

_ADD = Formula.of("total + x", "total", "x")
_NEXT = Formula.of("t + 1", "t")
_KEEP = Formula.of("where(u < p, 0, 1 / (1 - p))", "u", "p")
_CUT = Formula.of("min(max(g, -limit), limit)", "g", "limit")
_CLIP = Formula.of("g * min(limit / (sqrt(square) + 1e-06), 1)", "g", "limit", "square")
_EXPLODED = Formula.of("where(loss <= limit, seen, 1)", "loss", "limit", "seen")  # NaN is not below any limit

#: Epochs whose learning rates are computed at a time.
AHEAD = 16

_HALF = 0.5  # a smoothing; the loss is linear in it, so two losses give that of any


@dataclass(frozen=True)
class Part:
    """Rows that neighbouring slices share: where those to train on begin in the stack's array, how many they are, and
    those to validate on."""

    slices: slice
    begin: int
    rows: int
    validation: tuple[Any, Any] | None


def steps_per_epoch(run: Run) -> int:
    """How many updates an epoch of the run makes."""
    rows = len(run.rows[0])
    return -(-rows // min(run.settings.batch_size, rows))


class Slices:
    """Runs that fit together (see `nanonet.stacked.shape`), as slices of one.

    runs: in the order of the slices, those with the same rows side by side. Nothing of a run is changed before `settle`
    but its limit (see `nanonet.loop.Training`).
    """

    def __init__(self, runs: Sequence[Run], memory: Memory):
        self._memory = memory
        self.runs, self._parts = self._arranged(runs)
        first = self.runs[0]
        self._kind = "classes" if first.task == "classification" else "values"
        self._activation = nn.activation(first.settings.activation)
        self._lay_out_parameters()
        self._lay_out_settings()
        self._lay_out_epoch()

    def __len__(self) -> int:
        return len(self.runs)

    def epoch(self) -> list[dict[str, float]]:
        """Train each slice for an epoch, its next one. What `Run.note` takes, for each: NaN where it diverged."""
        self._begin_epoch()
        for step, times in self._steps:
            if times and self._unlimited:
                step.run(1)
                self._limit(host(self._found)[0])
                times -= 1
            step.run(times)
        if self._validated:
            with no_grad():
                self._evaluate.run(1)
        found, rates = host(self._found), host(self._values)[: len(self), 1]
        found = np.where(found[4] > 0, np.nan, found[:4] * self._scales)
        metric = "accuracy" if self._kind == "classes" else "mae"
        names = ("loss", metric, "val_loss", f"val_{metric}", "lr")
        if not self._validated:
            found, names = found[:2], ("loss", metric, "lr")
        return [dict(zip(names, each, strict=True)) for each in np.vstack([found, rates]).T.tolist()]

    def settle(self, runs: Sequence[Run]) -> None:
        """Bring the weights and optimizers of these runs, which are among the slices, to where their slices are."""
        parameters = [host(p.array) for p in self._parameters]
        states = [[host(array) for array in state] for state in self._states]
        values = host(self._values)
        chosen = set(map(id, runs))
        for k, run in enumerate(self.runs):
            if id(run) not in chosen:
                continue
            for p, array in zip(run.model.parameters(), parameters, strict=True):
                write(p.array, array[k].reshape(p.shape))
            for i, group in enumerate(run.optimizer.param_groups):  # of weights, and of biases
                write(group.values, values[i * len(self) + k])
                for own, state in zip(group.states, states, strict=True):
                    for array, source in zip(own, state[i::2], strict=True):
                        write(array, source[k].reshape(array.shape))

    # ----------------------------------------------------------------------------- what there is

    def _arranged(self, runs: Sequence[Run]) -> tuple[list[Run], list[Part]]:
        """The runs, those with the same rows together, and what they share; makes the arrays of rows."""
        sets: list[list[Run]] = []
        for run in runs:
            for known in sets:
                if _same_rows(run, known[0]):
                    known.append(run)
                    break
            else:
                sets.append([run])
        arranged, parts, begin = [], [], 0
        for members in sets:
            here = slice(len(arranged), len(arranged) + len(members))
            arranged += members
            validation = members[0].validation
            if validation is not None:
                xv, yv = validation
                validation = moved(xv.reshape(len(xv), -1), self._memory), moved(yv, self._memory)
            parts.append(Part(here, begin, len(members[0].rows[0]), validation))
            begin += parts[-1].rows
        rows = [members[0].rows for members in sets]
        self._x = moved(_joined([host(x).reshape(len(x), -1) for x, _ in rows]), self._memory)
        self._y = moved(_joined([host(y) for _, y in rows]), self._memory)
        self._counts = np.array([part.rows for part in parts for _ in range(part.slices.start, part.slices.stop)])
        self._scales = np.stack([1 / self._counts, 1 / self._counts, *np.ones((2, len(arranged)))])
        self._validated = parts[0].validation is not None
        return arranged, parts

    def _lay_out_parameters(self) -> None:
        """Parameters, what the optimizer remembers of each, and the rows of values that the slices' weights, and then
        their biases, are updated with."""
        models = [[host(p.array) for p in run.model.parameters()] for run in self.runs]
        self._parameters = [Parameter(Tensor(self._stacked(arrays))) for arrays in zip(*models, strict=True)]
        groups = [run.optimizer.param_groups for run in self.runs]
        self._rule = groups[0][0].rule
        self._values = moved(np.array([host(both[i].values) for i in (0, 1) for both in groups]), self._memory)
        self._states = []
        for s in range(len(self._rule.states)):
            pairs = [[self._stacked(each) for each in zip(*(both[i].states[s] for both in groups))] for i in (0, 1)]
            self._states.append([array for pair in zip(*pairs, strict=True) for array in pair])

    def _stacked(self, arrays: Sequence[Any]) -> Any:
        """Arrays (inputs, outputs) or (outputs,) as one, (slices, inputs or 1, outputs)."""
        return moved(np.stack([np.atleast_2d(host(array)) for array in arrays]), self._memory)

    def _lay_out_settings(self) -> None:
        """What differs from slice to slice, as arrays; None where it is off for all."""
        settings = [run.settings for run in self.runs]
        smoothing = {each.label_smoothing for each in settings}
        self._smoothing: Any = smoothing.pop() if len(smoothing) == 1 else None
        if self._smoothing is None:
            shares = np.array([each.label_smoothing / _HALF for each in settings], np.float32)
            self._shares = Tensor(moved(shares.reshape(-1, 1), self._memory))
        self._dropout = self._each([each.dropout for each in settings], 0.0)
        if self._dropout is not None:
            seeds = [(run.settings.seed, run.epoch) for run in self.runs]
            seed = int(generator(*(number for pair in seeds for number in pair), "stacked").integers(2**62))
            self._streams = [Stream(seed, i).to(self._memory) for i, _ in enumerate(settings[0].hidden)]
        self._most = self._each([each.clip_value for each in settings], np.inf)
        self._norms = self._each([each.clip_norm for each in settings], np.inf)

    def _each(self, values: Sequence[float], off: float) -> Any:
        """The values as an array (slices, 1, 1), with `off` in place of 0; None if all are 0."""
        if not any(values):
            return None
        array = np.array([value or off for value in values], np.float32)
        return moved(array.reshape(-1, 1, 1), self._memory)

    def _lay_out_epoch(self) -> None:
        """Buffers: the order of rows, the learning rate of each update, places in both, results; and the steps."""
        count, here, rows = len(self), self._memory, self._counts
        self._batch = min(self.runs[0].settings.batch_size, int(rows.max()))
        self._updates_per_epoch = steps_per_epoch(self.runs[0])
        self._factors = [run.settings.learning_rate_schedule(self._updates_per_epoch) for run in self.runs]
        full = self._updates_per_epoch - bool((rows < self._updates_per_epoch * self._batch).any())
        last = rows - full * self._batch  # rows of each slice in the last step, if that is not full
        width = int(last.max())
        first = np.array([part.begin for part in self._parts for _ in range(part.slices.start, part.slices.stop)])
        self._laid = np.repeat(first[:, None], full * self._batch + width, axis=1)  # what lies beyond does not count
        self._order = moved(np.zeros(self._laid.size, np.int64), here)
        self._ahead: list[np.ndarray] = []
        self._rates = moved(np.zeros((self._updates_per_epoch, 2 * count)), here)  # of weights, and of biases
        self._updates = moved(np.arange(self._updates_per_epoch), here)
        self._cursor, self._update = (moved(np.zeros((), np.int64), here) for _ in range(2))
        self._found = moved(np.zeros((5, count)), here)  # loss, hits, those of validation, whether it diverged
        self._limits = moved(np.array([run.limit for run in self.runs]), here)
        self._steps = []
        if full:
            self._steps.append((self._step(self._batch, np.full(count, self._batch)), full))
        if width:
            self._steps.append((self._step(width, last), 1))
        this = weakref.proxy(self)
        self._evaluate = Step(lambda: this._validate())

    # ------------------------------------------------------------------------------- an epoch

    def _begin_epoch(self) -> None:
        """Lay out the rows of every step, slice after slice, and the learning rates."""
        alike: dict[tuple[int, int, int, int], list[int]] = {}
        for part in self._parts:
            for k in range(part.slices.start, part.slices.stop):
                key = self.runs[k].settings.seed, self.runs[k].epoch, part.begin, part.rows
                alike.setdefault(key, []).append(k)
        for (seed, epoch, begin, rows), members in alike.items():
            self._laid[members, :rows] = begin + generator(seed, "batches", epoch).permutation(rows)
        full = self._laid.shape[1] // self._batch * self._batch
        steps = self._laid[:, :full].reshape(len(self), -1, self._batch).swapaxes(0, 1)
        write(self._order, np.concatenate([steps.ravel(), self._laid[:, full:].ravel()]))
        write(self._rates, self._next_rates())
        for buffer in (self._cursor, self._update, self._found):
            write(buffer, 0)

    def _next_rates(self) -> np.ndarray:
        """The learning rates of an epoch's updates, (updates, slices) of weights, and again of biases."""
        updates = self._updates_per_epoch
        if not self._ahead:
            rates = [
                run.settings.learning_rate * np.broadcast_to(factor(place), place.shape)
                for run, factor in zip(self.runs, self._factors, strict=True)
                for place in [np.arange(run.epoch * updates, (run.epoch + AHEAD) * updates)]
            ]
            self._ahead = np.split(np.stack([*rates, *rates], axis=1), AHEAD)
        return self._ahead.pop(0)

    @property
    def _unlimited(self) -> bool:
        return any(run.limit == NO_LIMIT for run in self.runs)

    def _limit(self, totals: np.ndarray) -> None:
        """Set the loss above which a slice has diverged, after the first step that it ever made."""
        rows = np.minimum(self._batch, self._counts)
        for run, loss in zip(self.runs, totals / rows, strict=True):
            if run.limit == NO_LIMIT:
                run.limit = EXPLOSION * max(float(loss), 1.0) if np.isfinite(loss) else EXPLOSION
        write(self._limits, [run.limit for run in self.runs])

    def _step(self, rows: int, counted: np.ndarray) -> Step:
        """A step over `rows` rows of each slice, of which the first counted (slices,) count."""
        count, here = len(self), self._memory
        x = here.empty((count * rows, *self._x.shape[1:]), self._x.dtype)
        y = here.empty((count * rows, *self._y.shape[1:]), self._y.dtype)
        numbers, ones = (Tensor(moved(np.array(v, np.float32), here)) for v in (counted, np.ones(count)))
        valid = None
        if (counted < rows).any():
            valid = Tensor(moved((np.arange(rows) < counted[:, None]).astype(np.float32), here))

        this = weakref.proxy(self)  # its steps do not keep it, so its memory comes back with it

        def step() -> None:
            backend = backend_of(x)
            backend.take_batch(this._x, this._order, this._cursor, out=x)
            backend.take_batch(this._y, this._order, this._cursor, out=y)
            backend.advance(this._cursor, count * rows)
            scores = this._forward(Tensor(x.reshape(count, rows, -1)), this._parameters, training=True)
            each, hits = this._losses(scores, Tensor(y.reshape(count, rows, *y.shape[1:])), training=True)
            if valid is not None:
                each, hits = each * valid, hits * valid
            total = each.sum(1)
            loss = total / numbers
            for p in this._parameters:
                p.grad = None
            loss.backward(ones)
            with no_grad():
                this._clip()
                this._apply(backend)
                for sums, value in ((this._found[0], total), (this._found[1], hits.sum(1))):
                    backend.elementwise(_ADD, sums, value.array, out=sums)
                exploded = this._found[4]
                backend.elementwise(_EXPLODED, loss.array, this._limits, exploded, out=exploded)

        return Step(step)

    def _forward(self, x: Tensor, parameters: Sequence[Tensor], training: bool) -> Tensor:
        """Scores (slices, n, outputs) of inputs (slices or 1, n, features)."""
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
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

    def _losses(self, scores: Tensor, y: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        """Loss, and hit or mean absolute error, of each row: (slices, n). scores (slices, n, outputs), y (slices, n)
        labels or (slices, n, outputs)."""
        slices, n, outputs = scores.shape
        if self._kind == "values":
            difference = scores - y
            with no_grad():
                errors = difference.abs().mean(2)
            return difference.square().mean(2), errors
        flat, labels = scores.reshape(slices * n, outputs), y.reshape(slices * n)

        def loss(smoothing: float) -> Tensor:
            each = losses.cross_entropy(flat, labels, label_smoothing=smoothing, reduction="none")
            return each.reshape(slices, n)

        with no_grad():
            hits = (scores.argmax(-1) == y).to(scores.dtype)
        if not training:
            return loss(0.0), hits
        if self._smoothing is not None:
            return loss(self._smoothing), hits
        sharp = loss(0.0)
        return sharp + (loss(_HALF) - sharp) * self._shares, hits

    def _clip(self) -> None:
        """Cut each slice's gradients off at its size, then bring their norm to its limit."""
        gradients = [p.grad for p in self._parameters]
        if self._most is not None:
            for g in gradients:
                backend_of(g.array).elementwise(_CUT, g.array, self._most, out=g.array)
        if self._norms is not None:
            square = sum(g.square().sum((1, 2), keepdims=True) for g in gradients)
            for g in gradients:
                backend_of(g.array).elementwise(_CLIP, g.array, self._norms, square.array, out=g.array)

    def _apply(self, backend: Any) -> None:
        """One update of all slices, each with its own values."""
        count = len(self)
        rates = self._memory.empty((1, 2 * count), np.float64)
        backend.take_batch(self._rates, self._updates, self._update, out=rates)
        backend.advance(self._update, 1)
        backend.copy(rates.reshape(2 * count), out=self._values[:, 1])
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
        for part in self._parts:
            x, y = part.validation
            slices, rows = part.slices.stop - part.slices.start, len(x)
            parameters = [Tensor(p.array[part.slices]) for p in self._parameters]
            sums: list[Any] = [None, None]
            for start in range(0, rows, CHUNK_ROWS):
                some = slice(start, min(start + CHUNK_ROWS, rows))
                scores = self._forward(Tensor(x[None, some]), parameters, training=False)
                goal = Tensor(y[None, some]).broadcast_to((slices, *y[some].shape))
                found = self._losses(scores, goal, training=False)
                sums = [each.sum(1) if total is None else total + each.sum(1) for each, total in zip(found, sums)]
            for place, total in zip((2, 3), sums, strict=True):
                mean = total * (1 / rows)
                backend_of(mean.array).copy(mean.array, out=self._found[place, part.slices])


def _same_rows(one: Run, other: Run) -> bool:
    """Whether two runs train and validate on the same rows."""
    pairs = [(one.rows, other.rows)]
    if one.validation is not None:
        pairs.append((one.validation, other.validation))
    if any(a[0] is not b[0] for a, b in pairs):
        return False
    return all(a[1] is b[1] or np.array_equal(host(a[1]), host(b[1])) for a, b in pairs)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
