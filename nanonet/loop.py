"""Training and evaluating a model on arrays. A whole step is recorded, from gathering the rows to the update."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kernels.formula import Formula
from kernels.registry import backend_of
from nanonet.autograd import no_grad
from nanonet.device import host, memory_of, moved, write
from nanonet.errors import RecordingError
from nanonet.jit import Recording
from nanonet.optim import Optimizer, clip_grad_norm_, clip_grad_value_
from nanonet.random import generator
from nanonet.tensor import Tensor

#: Seconds of recorded steps between two looks at the callbacks and the keyboard.
CHUNK_SECONDS = 0.05
#: Rows that an evaluation computes at once.
CHUNK_ROWS = 1024

#: A mini-batch whose loss is above so many times that of the run's first one (or 1, if that was less) shows that the
#: run has diverged: scores are then off by hundreds of thousands, from which no useful run comes back.
EXPLOSION = 1e6

#: The limit of a run that has not made a step: but for infinity there is none.
NO_LIMIT = float(np.finfo(np.float64).max)
_ADD = Formula.of("total + x", "total", "x")
_EXPLODED = Formula.of("where(loss <= limit, 0, 1)", "loss", "limit")  # NaN is not below any limit

Loss = Callable[[Tensor, Tensor], Tensor]


class Step:
    """A step without arguments that runs recorded, or eagerly where it cannot be recorded.

    stop: None, or a 0-d float64 array that the step writes; once one leaves it other than 0, no further step is made.
    On a GPU it is looked at after each call of `run` only.
    """

    def __init__(self, function: Callable[[], Any], stop: np.ndarray | None = None):
        self._function = function
        self._stop = stop
        self._recordings: list[Recording] = []
        self._eager = False

    def run(self, times: int) -> int:
        """Run the step up to `times` times; how often it ran."""
        done = 0
        if times <= 0:
            return done
        found = next((r for r in self._recordings if r.valid()), None)
        if found is None and not self._eager:
            try:
                self._recordings = [*self._recordings[-3:], Recording(self._function, calls=False)]
                done = 1
                found = next((r for r in self._recordings if r.valid()), None)
            except RecordingError:
                self._eager = True
        stop = self._stop
        if found is not None and not self._eager and done < times:
            if done and stop is not None and host(stop):
                return done
            return done + found.replay(times=times - done, stop=stop)
        while done < times and (not done or stop is None or not host(stop)):
            self._function()
            done += 1
        return done


class Training:
    """Epochs of mini-batch descent of `loss(forward(x), y)` over rows in an order that each epoch shuffles anew.

    x (n, ...), y (n, ...): C-contiguous arrays; they may change in place. The order of epoch e depends on (seed, e).
    schedule: None, or update number -> factor of the learning rate each group had at the start. counts: functions
    (outputs, targets) -> a 0-d tensor, summed over the rows seen and reported as a mean under their names.
    guarded: end an epoch with the step whose loss is not finite or above `limit`, which is set by the first step that
    is ever made: `EXPLOSION` times its loss.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        optimizer: Optimizer,
        loss: Loss,
        x: np.ndarray,
        y: np.ndarray,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        schedule: Callable[[Any], Any] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        counts: Mapping[str, Loss] | None = None,
        guarded: bool = False,
    ):
        self._forward, self._loss, self._optimizer = forward, loss, optimizer
        self._memory = memory = memory_of(optimizer.param_groups[0].params[0].array)
        self._x, self._y = moved(x, memory), moved(y, memory)
        self.rows = len(x)
        self.batch_size = min(batch_size, self.rows)
        self.steps = -(-self.rows // self.batch_size)
        self._seed, self._shuffle, self._schedule = seed, shuffle, schedule
        self._clip_norm, self._clip_value = clip_norm, clip_value
        self._counts = dict(counts or {})
        self._order = moved(np.arange(self.rows), memory)
        self._cursor = moved(np.zeros((), np.int64), memory)
        self._update = moved(np.zeros((), np.int64), memory)
        self._updates = moved(np.arange(self.steps), memory)
        self._totals = {name: moved(np.zeros(()), memory) for name in ("loss", *self._counts)}
        self._guarded = guarded
        self._limit, self._halt = moved(np.full((), NO_LIMIT), memory), moved(np.zeros(()), memory)
        self._base = [group["lr"] for group in optimizer.param_groups]
        self._rates = [moved(np.zeros((self.steps, 1)), memory) for _ in optimizer.param_groups]
        self._chunk = 1  # steps between two looks at the callbacks
        full, rest = divmod(self.rows, self.batch_size)
        self._parts = [(self._step(self.batch_size), full)]
        if rest:
            self._parts.append((self._step(rest), 1))

    # ------------------------------------------------------------------------------ one epoch

    @property
    def limit(self) -> float:
        """The loss of a mini-batch above which a guarded run has diverged."""
        return float(host(self._limit))

    @limit.setter
    def limit(self, value: float) -> None:
        write(self._limit, value)

    @property
    def rows_and_targets(self) -> tuple[np.ndarray, np.ndarray]:
        """The arrays x and y that it trains on."""
        return self._x, self._y

    def epoch(self, number: int, between: Callable[[int], None] | None = None) -> dict[str, float]:
        """Epoch `number` (from 0): the mean loss and counts over its rows, as they were met. NaN if it diverged.

        between(steps done) is called every CHUNK_SECONDS or so; an exception from it leaves the epoch unfinished.
        """
        if self._shuffle:
            write(self._order, generator(self._seed, "batches", number).permutation(self.rows))
        for counter in (self._cursor, self._update, self._halt, *self._totals.values()):
            write(counter, 0)
        if self._schedule is not None:
            factors = self._schedule(np.arange(number * self.steps, (number + 1) * self.steps))
            for base, rates in zip(self._base, self._rates, strict=True):
                write(rates[:, 0], base * np.asarray(factors))
        done = 0
        unlimited = self._guarded and self.limit == NO_LIMIT
        for step, times in self._parts:
            while times:
                now = 1 if unlimited else min(self._chunk, times)
                start = time.perf_counter()
                now = step.run(now)
                seconds = time.perf_counter() - start
                if host(self._halt):
                    return dict.fromkeys(self._totals, float("nan"))
                if unlimited:
                    self.limit = EXPLOSION * max(float(host(self._totals["loss"])) / self.batch_size, 1.0)
                    unlimited = False
                times -= now
                done += now
                self._chunk = max(1, min(4 * self._chunk, int(CHUNK_SECONDS * now / max(seconds, 1e-9))))
                if between is not None:
                    between(done)
        return {name: float(host(total)) / self.rows for name, total in self._totals.items()}

    def losses_at(self, rates: Sequence[float], enough: Callable[[list[float]], bool]) -> np.ndarray:
        """Train one step at each of these learning rates, on full mini-batches; the loss that each step met.

        Fewer if the run diverges, or once enough(losses so far). Only without a schedule. Rows come in the order of as
        many epochs as it takes.
        """
        losses: list[float] = []
        step, each = self._parts[0]
        write(self._halt, 0)
        for number, rate in enumerate(rates):
            if number % each == 0:
                write(self._order, generator(self._seed, "batches", number // each).permutation(self.rows))
                write(self._cursor, 0)
            for group in self._optimizer.param_groups:
                group["lr"] = float(rate)
            write(self._totals["loss"], 0)
            step.run(1)
            losses.append(float(host(self._totals["loss"])) / self.batch_size)
            if host(self._halt) or not np.isfinite(losses[-1]) or enough(losses):
                break
            if self._guarded and self.limit == NO_LIMIT:
                self.limit = EXPLOSION * max(losses[0], 1.0)
        return np.array(losses)

    def _step(self, rows: int) -> Step:
        x = self._memory.empty((rows, *self._x.shape[1:]), self._x.dtype)
        y = self._memory.empty((rows, *self._y.shape[1:]), self._y.dtype)

        def step() -> None:
            backend = backend_of(x)
            backend.take_batch(self._x, self._order, self._cursor, out=x)
            backend.take_batch(self._y, self._order, self._cursor, out=y)
            if self._schedule is not None:
                for group, rates in zip(self._optimizer.param_groups, self._rates, strict=True):
                    backend.take_batch(rates, self._updates, self._update, out=group.rate)
                backend.advance(self._update, 1)
            self._optimizer.zero_grad()
            outputs, targets = self._forward(Tensor(x)), Tensor(y)
            loss = self._loss(outputs, targets)
            loss.backward()
            if self._clip_value:
                clip_grad_value_(self._parameters(), self._clip_value)
            if self._clip_norm:
                clip_grad_norm_(self._parameters(), self._clip_norm)
            self._optimizer.step()
            with no_grad():
                if self._guarded:
                    backend.elementwise(_EXPLODED, loss.array, self._limit, out=self._halt)
                self._add("loss", loss * rows)
                for name, count in self._counts.items():
                    self._add(name, count(outputs, targets))
            backend.advance(self._cursor, rows)

        return Step(step, self._halt if self._guarded else None)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group.params]

    def _add(self, name: str, value: Tensor) -> None:
        total = self._totals[name]
        backend_of(total).elementwise(_ADD, total, value.array, out=total)


class Evaluation:
    """A model's outputs for fixed rows, and their mean loss, recorded and replayed in eval mode.

    x and y as in `Training`, on the model's device; y may be None, then there are outputs only.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], loss: Loss | None, x: np.ndarray, y: np.ndarray | None):
        self._forward, self._loss, self._x, self._y = forward, loss, x, y
        self._outputs: Any = None
        self._total = moved(np.zeros(()), memory_of(x))
        self._run = Step(self._compute)

    @property
    def rows_and_targets(self) -> tuple[Any, Any]:
        """The arrays x and y that it evaluates on."""
        return self._x, self._y

    def run(self) -> tuple[np.ndarray, float]:
        """(outputs of all rows on the host, mean loss). The array is overwritten by the next run."""
        with no_grad():
            if self._outputs is None:
                first = self._forward(Tensor(self._x[: min(1, len(self._x))]))
                self._outputs = memory_of(self._x).empty((len(self._x), *first.shape[1:]), first.dtype)
            self._run.run(1)
        return host(self._outputs), float(host(self._total))

    def _compute(self) -> None:
        for start in range(0, len(self._x), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            backend_of(self._outputs).copy(self._forward(Tensor(self._x[part])).array, out=self._outputs[part])
        if self._loss is not None and self._y is not None:
            loss = self._loss(Tensor(self._outputs), Tensor(self._y))
            backend_of(self._total).copy(loss.array, out=self._total)
