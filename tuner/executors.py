"""Who does the work: anything that speaks `concurrent.futures.Executor`.

One worker works inline, in the caller's thread; several are threads, or processes if asked for by name. A process pool
of the user's own, Dask's `client.get_executor()` or `devices.Devices` are passed in.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from .processes import ProcessExecutor, WorkersUnavailable

__all__ = [
    "Done",
    "InlineExecutor",
    "ProcessExecutor",
    "WorkersUnavailable",
    "cores",
    "is_loss",
    "make_executor",
    "perform",
]

KINDS = ("threads", "processes")


class InlineExecutor(Executor):
    """Does each task at once, where it is submitted. KeyboardInterrupt passes through `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_executor(n_jobs: int, kind: str = "threads") -> tuple[Executor, int]:
    """An executor with n_jobs workers, -1 for one per processor; and their number. ValueError for 0 or less.

    kind: "threads", of which a single one works inline, or "processes".
    """
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, Integral) or (n_jobs < 1 and n_jobs != -1):
        raise ValueError(f"n_jobs must be a whole number >= 1, or -1 for all processors, got {n_jobs!r}")
    if kind not in KINDS:
        raise ValueError(f"executor must be a concurrent.futures.Executor or one of {KINDS}, got {kind!r}")
    workers = cores() if n_jobs == -1 else n_jobs
    if kind == "processes":
        return ProcessExecutor(workers), workers
    if workers == 1:
        return InlineExecutor(), 1
    return ThreadPoolExecutor(workers, thread_name_prefix="tuner"), workers


# ------------------------------------------------------------------------------------------- in a worker


@dataclass(frozen=True)
class Done:
    """What a task gave, and the seconds that its worker spent on it."""

    result: Any
    seconds: float


def perform(crowded: bool, function: Callable[..., Any], *arguments: Any) -> Done:
    """function(*arguments), timed. In a crowd, where tasks share the processors, each uses one thread."""
    start = time.perf_counter()
    with _one_thread() if crowded else nullcontext():
        result = function(*arguments)
    return Done(result, time.perf_counter() - start)


def _one_thread() -> AbstractContextManager[Any]:
    """Keep nanonet's kernels, if it is them that the objective uses, to the calling thread."""
    engine = sys.modules.get("nanonet")
    return getattr(engine, "single_thread", nullcontext)()


# --------------------------------------------------------------------------------------------- its death


def is_loss(error: BaseException) -> bool:
    """Whether the error tells that a worker died, was cancelled or cannot be reached, and nothing about its task.

    Dask's errors (KilledWorker, CommClosedError) are known by the package they come from.
    """
    if isinstance(error, (BrokenExecutor, CancelledError)):
        return True
    return any(cls.__module__.split(".")[0] == "distributed" for cls in type(error).__mro__)
