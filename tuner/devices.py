"""Several kinds of devices at once: each task goes where it is expected to be finished first."""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .cost_model import CostModel, features
from .errors import TrialLost
from .executors import Done
from .resumable import run_segment, run_segments
from .trial import Trial

__all__ = ["Devices", "current_device"]

OPTIMISM = 0.5
"""Estimates are lower by so many of their standard deviations: what is unknown gets tried."""

_here = threading.local()


def current_device() -> str | None:
    """The device that the calling task was given to; None outside of `Devices`."""
    return getattr(_here, "device", None)


@dataclass
class _Task:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    trials: list[Trial]
    steps: int
    at: dict[str, float]
    future: Future[Any] = field(default_factory=Future)


class Devices(Executor):
    """An executor over others: devices maps a name to (its executor, how many tasks it does at a time).

        devices = Devices({"cpu": (ThreadPoolExecutor(2), 2), "gpu": (ThreadPoolExecutor(1), 1)})
        study.optimize(objective, n_trials=100, executor=devices)

    The objective finds its device in `trial.user_attrs["device"]`, or asks `current_device()`. How many seconds a step
    takes is learned from the tasks that ended, for each device by the settings (see `CostModel`). A task waits for a
    device that is busy if it would be finished there sooner than on a free one; while it waits, that may change.
    A queue longer than `slots` (n_jobs, then) leaves no device idle meanwhile.

    The executors remain the caller's to shut down, and must not work inline. One that takes no more tasks (its pool is
    broken) is left out from then on; the last one's error is raised.
    """

    def __init__(self, devices: Mapping[str, tuple[Executor, int]], *, clock: Callable[[], float] = time.monotonic):
        if not devices:
            raise ValueError("Devices: devices is empty; wanted {name: (executor, slots)}")
        for name, entry in devices.items():
            if len(entry) != 2 or not hasattr(entry[0], "submit") or not isinstance(entry[1], int) or entry[1] < 1:
                raise ValueError(f"Devices: {name!r} must be (executor, number of slots >= 1), got {entry!r}")
        self.devices = dict(devices)
        self.model = CostModel()
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[_Task] = []
        self._running: dict[Future[Any], tuple[_Task, str, float]] = {}
        self._closed = False
        self._broken: Exception | None = None

    @property
    def slots(self) -> int:
        """How many tasks run at a time, on all devices together."""
        return sum(slots for _, slots in self.devices.values())

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if kwargs:
            raise TypeError(f"Devices.submit takes no keyword arguments, got {', '.join(kwargs)}")
        trials, steps, task = _described(args)
        queued = _Task(fn, args, trials, steps, features(trials[0], task) if trials else {})
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._broken is not None:
                raise self._broken
            self._waiting.append(queued)
        self._hand_out()
        return queued.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks. The devices' executors go on."""
        with self._lock:
            self._closed = True
            dropped = self._waiting if cancel_futures else []
            self._waiting = [] if cancel_futures else self._waiting
            tasks = [task for task, _, _ in self._running.values()] + self._waiting
        for task in dropped:
            task.future.cancel()
            task.future.set_running_or_notify_cancel()
        if wait:
            wait_for([task.future for task in tasks])

    def expected(self, device: str, at: Mapping[str, float], steps: int = 1) -> float:
        """Seconds that so many steps with these features are hoped to take there."""
        mean, deviation = self.model.predict(device, at)
        return steps * math.exp(min(mean - OPTIMISM * deviation, 700.0))

    # ------------------------------------------------------------------------------------- handing out

    def _hand_out(self) -> None:
        """Start every waiting task whose best device has a slot free."""
        with self._lock:
            chosen = self._choose()
        for task, device in chosen:
            self._begin(task, device)

    def _choose(self) -> list[tuple[_Task, str]]:
        """Give the waiting tasks, in their order, to the devices where each is done first; those that can start now."""
        now = self._clock()
        free_at = {}
        for name, (_, slots) in self.devices.items():
            ends = [max(end, now) for _, device, end in self._running.values() if device == name]
            free_at[name] = [(now, 0)] * (slots - len(ends)) + [(end, 1) for end in ends]
            heapq.heapify(free_at[name])
        chosen, still = [], []
        for task in self._waiting:
            if task.future.cancelled():
                continue
            ends = {name: free_at[name][0][0] + self.expected(name, task.at, task.steps) for name in self.devices}
            device = min(ends, key=ends.__getitem__)
            _, taken = heapq.heapreplace(free_at[device], (ends[device], 1))
            if taken:
                still.append(task)
            elif task.future.running() or task.future.set_running_or_notify_cancel():
                chosen.append((task, device))
                self._running[task.future] = (task, device, ends[device])
        self._waiting = still
        return chosen

    def _begin(self, task: _Task, device: str) -> None:
        for trial in task.trials:
            with suppress(TrialLost):
                trial.set_user_attr("device", device)
        try:
            inner = self.devices[device][0].submit(_on_device, device, task.function, *task.arguments)
        except Exception as error:
            self._leave_out(device, task, error)
            return
        inner.add_done_callback(lambda future: self._take_in(task, device, future))

    def _take_in(self, task: _Task, device: str, inner: Future[Any]) -> None:
        error = CancelledError() if inner.cancelled() else inner.exception()
        if error is not None:
            self._end(task, error=error)
            return
        done: Done = inner.result()
        with self._lock:
            self.model.observe(device, task.at, done.seconds / _steps_done(task, done.result))
        self._end(task, done.result)

    def _leave_out(self, device: str, task: _Task, error: Exception) -> None:
        """Give no more tasks to a device that refused one, and that one to another."""
        with self._lock:
            self.devices.pop(device, None)
            self._running.pop(task.future)
            lost = []
            if self.devices:
                self._waiting.insert(0, task)
            else:
                self._broken = error
                lost, self._waiting = [task, *self._waiting], []
        for other in lost:
            if other.future.running() or other.future.set_running_or_notify_cancel():
                other.future.set_exception(BrokenExecutor(f"no device is left: {error}"))
        if not lost:
            self._hand_out()

    def _end(self, task: _Task, result: Any = None, error: BaseException | None = None) -> None:
        with self._lock:
            self._running.pop(task.future)
        if error is None:
            task.future.set_result(result)
        else:
            task.future.set_exception(error)
        self._hand_out()


def _on_device(device: str, function: Callable[..., Any], *arguments: Any) -> Done:
    """function(*arguments), timed, where `current_device()` is that one."""
    before, _here.device = current_device(), device
    start = time.perf_counter()
    try:
        return Done(function(*arguments), time.perf_counter() - start)
    finally:
        _here.device = before


def _described(arguments: tuple[Any, ...]) -> tuple[list[Trial], int, Any]:
    """The trials that a task is about, how many steps they take, and the `Resumable`, found in its arguments."""
    for at, argument in enumerate(arguments):
        if argument is run_segment:
            task, trial, _, steps = arguments[at + 1 : at + 5]
            return [trial], steps, task
        if argument is run_segments:
            task, trials, _, steps = arguments[at + 1 : at + 5]
            return list(trials), sum(steps), task
        if isinstance(argument, Trial):
            return [argument], 1, None
    return [], 1, None


def _steps_done(task: _Task, result: Any) -> int:
    """A segment may have come to its end before its last step."""
    values = result.result if isinstance(result, Done) else result
    if len(task.trials) > 1:
        return max(sum(len(each) for each in values if isinstance(each, list)), 1)
    return max(len(values), 1) if task.steps > 1 and isinstance(values, list) else task.steps
