"""Who does the work: anything that speaks `concurrent.futures.Executor`.

One worker works inline, in the caller's thread; several are threads. A process pool or Dask's
`client.get_executor()` is passed in by the user.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

__all__ = ["InlineExecutor", "cores", "make_executor"]


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


def make_executor(n_jobs: int) -> tuple[Executor, int]:
    """An executor with n_jobs workers, -1 for one per processor; and their number. ValueError for 0 or less."""
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or (n_jobs < 1 and n_jobs != -1):
        raise ValueError(f"n_jobs must be a whole number >= 1, or -1 for all processors, got {n_jobs!r}")
    workers = cores() if n_jobs == -1 else n_jobs
    if workers == 1:
        return InlineExecutor(), 1
    return ThreadPoolExecutor(workers, thread_name_prefix="tuner"), workers
