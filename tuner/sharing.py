"""An object that many tasks refer to, such as an objective with its data, goes to each worker process once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from .devices import Devices
from .executors import InlineExecutor
from .processes import ProcessExecutor

__all__ = ["Sharing", "shared"]

MOST = 2  # objects that a process keeps

_here: dict[str, Any] = {}
"""The objects that this process has, by key."""


def shared(executor: Executor, thing: Any) -> Executor:
    """An executor that sends `thing` once to each process, whatever the number of its tasks: this one, if it can or
    need not, otherwise a `Sharing` of it."""
    if isinstance(executor, ProcessExecutor):
        executor.share(thing)
    if isinstance(executor, (ProcessExecutor, ThreadPoolExecutor, InlineExecutor, Devices)):
        return executor
    return Sharing(executor, thing)


class Sharing(Executor):
    """Another executor, of any kind, to whose worker processes `thing` is sent once each.

    A task goes out with a key in the place of `thing`. A process that does not have it says so, gets the task again
    together with it, and keeps it. In the same process, as in one that was forked from it since, it is there already.

    `shutdown` leaves the other executor alone.
    """

    def __init__(self, executor: Executor, thing: Any):
        self._executor, self._thing = executor, thing
        self._key = uuid.uuid4().hex
        _here[self._key] = thing
        self._again = ThreadPoolExecutor(1, thread_name_prefix="tuner sharing")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        places = tuple(i for i, argument in enumerate(args) if argument is self._thing)
        args = tuple(None if i in places else argument for i, argument in enumerate(args))
        task = (self._key, places, fn, args, kwargs)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._watch(self._executor.submit(_perform, None, *task), future, task)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        _here.pop(self._key, None)
        self._again.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _watch(self, inner: Future[Any], future: Future[Any], task: tuple[Any, ...]) -> None:
        inner.add_done_callback(lambda done: self._take_in(done, future, task))

    def _take_in(self, inner: Future[Any], future: Future[Any], task: tuple[Any, ...]) -> None:
        error = CancelledError() if inner.cancelled() else inner.exception()
        if error is not None:
            future.set_exception(error)
            return
        result = inner.result()
        if not isinstance(result, _Absent):
            future.set_result(result)
            return
        try:  # from a thread of ours: this one may be the executor's own
            self._again.submit(self._send, future, task)
        except RuntimeError:  # shut down
            future.set_exception(CancelledError())

    def _send(self, future: Future[Any], task: tuple[Any, ...]) -> None:
        try:
            self._watch(self._executor.submit(_perform, (self._thing,), *task), future, task)
        except Exception as error:
            future.set_exception(error)


class _Absent:
    """What a process answers that does not have the object."""


def _perform(
    sent: tuple[Any] | None,
    key: str,
    places: tuple[int, ...],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """function(*arguments, **options) with the object in these places; sent: the object, if it came along."""
    if sent is not None:
        _keep(key, sent[0])
    elif key not in _here:
        return _Absent()
    thing = sent[0] if sent is not None else _here[key]
    return function(*(thing if i in places else argument for i, argument in enumerate(arguments)), **options)


def _keep(key: str, thing: Any) -> None:
    _here[key] = thing
    for old in list(_here)[:-MOST]:
        with suppress(KeyError):  # another thread was faster
            del _here[old]
