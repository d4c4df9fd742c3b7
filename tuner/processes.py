"""Worker processes of our own: one that dies takes only its task along, and the next task gets a new one."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

__all__ = ["ProcessExecutor", "WorkerDied", "WorkersUnavailable"]


class WorkerDied(BrokenExecutor):
    """The process that ran the task is gone."""


class WorkersUnavailable(RuntimeError):
    """Worker processes cannot be started."""


class ProcessExecutor(Executor):
    """`workers` processes, each started (by spawn, which is safe beside threads) when it is first needed.

    A task must be picklable; TypeError from `submit` if it is not. What was given to `share` is sent to each process
    once. When a task's process dies its future raises `WorkerDied`. The processes ignore Ctrl-C: it is for the parent,
    whose `shutdown(wait=False)` kills them.
    """

    def __init__(self, workers: int):
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"ProcessExecutor: workers must be a whole number >= 1, got {workers!r}")
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="tuner process")
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._slots.put(None)
        self._lock = threading.Lock()
        self._alive: set[_Worker] = set()
        self._killed = False
        self._shared: dict[int, Any] = {}
        self._parcels: dict[int, bytes] = {}

    def share(self, thing: Any) -> None:
        """Send this object, as it is now, once to each process that gets a task which refers to it."""
        self._parcels[id(thing)], _ = _packed(thing, {})
        self._shared[id(thing)] = thing  # keeps its id its own

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._threads.submit(self._run, *_packed((fn, args, kwargs), self._shared))

    def _run(self, task: bytes, needs: set[int]) -> Any:
        worker = self._slots.get()
        try:
            worker = worker or self._start()
            return worker.run(task, {key: self._parcels[key] for key in needs - worker.has})
        except WorkerDied:
            self._bury(worker)
            worker = None
            raise
        finally:
            self._slots.put(worker)

    def _start(self) -> _Worker:
        with self._lock:
            if self._killed:
                raise WorkerDied("the executor was shut down")
            worker = _Worker()
            self._alive.add(worker)
        try:
            worker.wait_until_ready()
        except WorkersUnavailable:
            self._bury(worker)
            raise
        return worker

    def _bury(self, worker: _Worker | None) -> None:
        if worker is not None:
            worker.kill()
            worker.stop()
            with self._lock:
                self._alive.discard(worker)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: once their tasks are done if `wait`, else at once."""
        if not wait:
            with self._lock:
                self._killed = True
                for worker in self._alive:
                    worker.kill()
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait:
            for worker in self._alive:
                worker.stop()
            self._alive.clear()


class _Pickler(pickle.Pickler):
    """Writes shared objects as references, and notes them in `needs`."""

    def __init__(self, file: io.BytesIO, shared: dict[int, Any]):
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.shared = shared
        self.needs: set[int] = set()

    def persistent_id(self, thing: Any) -> int | None:
        if self.shared.get(id(thing), self) is not thing:
            return None
        self.needs.add(id(thing))
        return id(thing)


class _Unpickler(pickle.Unpickler):
    def __init__(self, task: bytes, shared: dict[int, Any]):
        super().__init__(io.BytesIO(task))
        self.shared = shared

    def persistent_load(self, key: int) -> Any:
        return self.shared[key]


def _packed(thing: Any, shared: dict[int, Any]) -> tuple[bytes, set[int]]:
    """The object as bytes, and the keys of the shared objects that it refers to."""
    file = io.BytesIO()
    pickler = _Pickler(file, shared)
    try:
        pickler.dump(thing)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"the objective cannot go to another process: {error}; define it at the top of a module"
        ) from error
    return file.getvalue(), pickler.needs


class _Worker:
    """The parent's end of one process.

    has: the keys of the shared objects that were sent there.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="tuner worker")
        self._process.start()
        theirs.close()
        self.has: set[int] = set()

    def wait_until_ready(self) -> None:
        try:
            self._pipe.recv_bytes()
        except (EOFError, OSError):
            self._process.join()
            raise WorkersUnavailable(
                f"a worker process ended at its start with exit code {self._process.exitcode}; a script that uses "
                "executor='processes' must do so under `if __name__ == '__main__':`"
            ) from None

    def run(self, task: bytes, parcels: dict[int, bytes]) -> Any:
        self.has |= parcels.keys()
        try:
            self._pipe.send_bytes(pickle.dumps((task, parcels)))
            done, answer, text = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self._process.join()
            raise WorkerDied(f"a worker process died with exit code {self._process.exitcode}") from None
        if done:
            return pickle.loads(answer)
        try:
            error = pickle.loads(answer)
        except Exception:
            error = RuntimeError(text)
        error.__cause__ = _Remote(text)
        raise error

    def kill(self) -> None:
        """End the process at once; a thread that waits for its answer gets WorkerDied."""
        self._process.kill()

    def stop(self) -> None:
        """Have the process end, which has no task, and wait for that."""
        self._pipe.close()
        self._process.join()


class _Remote(Exception):
    """The traceback in the other process, shown as an error's cause."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def _serve(pipe: Any) -> None:
    """A worker process's life: (task, objects to keep) in, (done, pickled result or error, traceback) out, repeated."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shared: dict[int, Any] = {}
    with suppress(EOFError, OSError):  # the parent is gone
        pipe.send_bytes(b"ready")
        while True:
            pipe.send_bytes(pickle.dumps(_answer(*pickle.loads(pipe.recv_bytes()), shared)))


def _answer(task: bytes, parcels: dict[int, bytes], shared: dict[int, Any]) -> tuple[bool, bytes, str]:
    try:
        shared.update({key: pickle.loads(parcel) for key, parcel in parcels.items()})
        function, arguments, options = _Unpickler(task, shared).load()
        return True, pickle.dumps(function(*arguments, **options)), ""
    except Exception as error:
        text = traceback.format_exc()
        try:
            return False, pickle.dumps(error), text
        except Exception:
            return False, pickle.dumps(RuntimeError(text)), text
