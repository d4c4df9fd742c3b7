"""Many training runs of one shape as one: what is small for a device on its own is large enough together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nanonet.device import memory
from nanonet.errors import OptionError
from nanonet.objectives import inputs
from nanonet.settings import Settings
from nanonet.slices import Slices, steps_per_epoch
from nanonet.training import Run

__all__ = ["StackedRun", "advance_together", "shape", "stackable", "step_flop"]

#: What the runs of a stack have in common; anything else may differ.
SHARED = ("hidden", "activation", "optimizer", "nesterov", "batch_size")


def shape(settings: Settings) -> Hashable:
    """What settings have in common that can be stacked; None for those that cannot."""
    if settings.batch_norm:
        return None
    return *(getattr(settings, name) for name in SHARED), bool(settings.momentum)


def stackable(settings: Sequence[Settings]) -> str | None:
    """None if runs with these settings can be stacked, else why not."""
    for name in SHARED:
        found = {getattr(each, name) for each in settings}
        if len(found) > 1:
            return f"{name} differs: {', '.join(sorted(map(str, found)))}"
    if any(each.batch_norm for each in settings):
        return "batch_norm is on"
    if len({shape(each) for each in settings}) > 1:
        return "momentum is 0 in some"
    return None


def step_flop(settings: Settings, features: int, outputs: int) -> float:
    """Operations of the products in one update with these settings, forward and backward."""
    widths = [features, *settings.hidden, outputs]
    return 6.0 * settings.batch_size * sum(a * b for a, b in pairwise(widths))


class StackedRun:
    """Training runs that differ in learning rate and schedule, decay, L1, momentum, betas, dropout, label smoothing,
    clipping, initializer, patience and seed, carried out as one: parameters are (runs, ...), products are batched, and
    each run keeps its own order of rows. Each is to rounding what `nanonet.training.Run` makes of its settings, but for
    dropout's masks.

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
        device: str = "cpu",
    ):
        settings = list(settings)
        if not settings:
            raise OptionError("settings is empty; wanted those of at least one run")
        _check(settings)
        memory(device)
        x, y = inputs(x), np.asarray(y)
        if validation is not None:
            validation = inputs(validation[0], "validation x"), validation[1]
        options: dict[str, Any] = {"task": task, "classes": classes, "device": "cpu"}
        self._begin([Run(each, x, y, validation, **options) for each in settings], device)

    @classmethod
    def of(cls, runs: Sequence[Run], device: str = "cpu") -> StackedRun:
        """A stack that takes these runs further, each from where it is and over its own rows, on that device.

        The rows may differ, as those of folds do, but not in what makes an epoch's number of updates. OptionError if
        the runs cannot be stacked.
        """
        runs = list(runs)
        if not runs:
            raise OptionError("runs is empty; wanted at least one run")
        _check([run.settings for run in runs])
        if len({_kind(run) for run in runs}) > 1:
            raise OptionError("runs cannot be stacked: their rows differ in shape, or in the updates that an epoch has")
        stack = cls.__new__(cls)
        stack._begin(runs, device)
        return stack

    def _begin(self, runs: list[Run], device: str) -> None:
        self._runs = runs
        self._memory = memory(device)
        self._slices: Slices | None = None
        self._behind = False

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def history(self) -> list[list[dict[str, float]]]:
        """For each run its results, a dict for each epoch."""
        return [run.history for run in self._runs]

    @property
    def epoch(self) -> int:
        """Epochs done by the run that has done most."""
        return max(run.epoch for run in self._runs)

    def advance(self, epochs: int) -> list[list[dict[str, float]]]:
        """Train for up to so many more epochs; for each run one dict of results per epoch, as `Run.advance` gives.

        A run that diverges or stops early has fewer, and leaves the others alone.
        """
        starts = [len(history) for history in self.history]
        going = [run for run in self._runs if not run.stopped]
        for _ in range(epochs):
            if not going:
                break
            if self._slices is None or 2 * len(going) <= len(self._slices):
                self.settle()
                self._slices = Slices(going, self._memory)
            results = dict(zip(map(id, self._slices.runs), self._slices.epoch(), strict=True))
            keeping = [run for run in going if run.settings.early_stopping]
            if keeping:  # the weights may be the best so far, or the last
                self._slices.settle(keeping)
            for run in going:
                run.note(results[id(run)])
            going = [run for run in going if not run.stopped]
            self._behind = True
        return [history[start:] for history, start in zip(self.history, starts, strict=True)]

    def settle(self) -> None:
        """Bring weights and optimizers of the runs to where the stack is; `advance` leaves that to the end."""
        if self._slices is not None and self._behind:
            self._slices.settle([run for run in self._runs if not run.stopped])
            self._behind = False

    def state_dict(self, run: int) -> dict[str, np.ndarray]:
        """The parameters of one run, by the names that its own model has."""
        self.settle()
        return {name: array.copy() for name, array in self._runs[run].model.state_dict().items()}


def advance_together(
    runs: Sequence[Run], epochs: Sequence[int], device: str = "cpu", after: Callable[[int], None] | None = None
) -> list[list[dict[str, float]]]:
    """Advance each run by up to so many epochs, those that can be stacked together on `device`; their new results.

    after(i) is called after each epoch of run i, whose model is then up to date. A run that is alone, on that device,
    is advanced as it is.
    """
    goals = [run.epoch + more for run, more in zip(runs, epochs, strict=True)]
    starts = [run.epoch for run in runs]
    groups: dict[Hashable, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(i if shape(run.settings) is None else _kind(run), []).append(i)
    for members in groups.values():
        while going := [i for i in members if runs[i].epoch < goals[i] and not runs[i].stopped]:
            lone = runs[going[0]] if len(going) == 1 else None
            alone = lone is not None and (lone.device == device or shape(lone.settings) is None)
            stack = lone if alone else StackedRun.of([runs[i] for i in going], device)
            for _ in range(min(goals[i] - runs[i].epoch for i in going)):
                before = [runs[i].epoch for i in going]
                stack.advance(1)
                if after is not None:
                    _settle(stack)
                    for i, epoch in zip(going, before, strict=True):
                        if runs[i].epoch > epoch:
                            after(i)
            _settle(stack)
    return [run.history[start:] for run, start in zip(runs, starts, strict=True)]


def _settle(stack: StackedRun | Run) -> None:
    if isinstance(stack, StackedRun):
        stack.settle()


def _check(settings: Sequence[Settings]) -> None:
    reason = stackable(settings)
    if reason is not None:
        raise OptionError(f"settings cannot be stacked: {reason}; wanted the same in all runs")


def _kind(run: Run) -> Hashable:
    """What the runs of a stack have in common, their rows included."""
    updates = steps_per_epoch(run)
    return shape(run.settings), run.task, run.outputs, run.input_shape, updates, run.validation is None
