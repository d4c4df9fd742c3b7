"""Worker processes of our own: one that dies takes only its task along, and the next task gets a new one."""

from __future__ import annotations

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

from .errors import StorageError

__all__ = ["ProcessExecutor", "WorkerDied", "WorkersUnavailable"]


class WorkerDied(BrokenExecutor):
    """The process that ran the task is gone."""


class WorkersUnavailable(RuntimeError):
    """Worker processes cannot be started."""


class ProcessExecutor(Executor):
    """`workers` processes, each started (by spawn, which is safe beside threads) when it is first needed.

    A task must be picklable; TypeError from `submit` if it is not. When its process dies the future raises
    `WorkerDied`. The processes ignore Ctrl-C: it is for the parent, whose `shutdown(wait=False)` kills them.
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

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            task = pickle.dumps((fn, args, kwargs))
        except StorageError:
            raise
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"the objective cannot go to another process: {error}; define it at the top of a module"
            ) from error
        return self._threads.submit(self._run, task)

    def _run(self, task: bytes) -> Any:
        worker = self._slots.get()
        try:
            worker = worker or self._start()
            return worker.run(task)
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


class _Worker:
    """The parent's end of one process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="tuner worker")
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        try:
            self._pipe.recv_bytes()
        except (EOFError, OSError):
            self._process.join()
            raise WorkersUnavailable(
                f"a worker process ended at its start with exit code {self._process.exitcode}; a script that uses "
                "executor='processes' must do so under `if __name__ == '__main__':`"
            ) from None

    def run(self, task: bytes) -> Any:
        try:
            self._pipe.send_bytes(task)
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
    """A worker process's life: tasks in, (done, pickled result or error, traceback) out, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):  # the parent is gone
        pipe.send_bytes(b"ready")
        while True:
            pipe.send_bytes(pickle.dumps(_answer(pipe.recv_bytes())))


def _answer(task: bytes) -> tuple[bool, bytes, str]:
    try:
        function, arguments, options = pickle.loads(task)
        return True, pickle.dumps(function(*arguments, **options)), ""
    except Exception as error:
        text = traceback.format_exc()
        try:
            return False, pickle.dumps(error), text
        except Exception:
            return False, pickle.dumps(RuntimeError(text)), text
