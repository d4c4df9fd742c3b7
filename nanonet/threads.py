"""How many threads one kernel may use. It changes the speed, never a result."""

from contextlib import nullcontext
from typing import Any

from kernels import registry


def _pool() -> Any:
    """The CPU backend's threads, or None where the reference serves, which has none of its own."""
    if registry.reason("numba_cpu") is not None:
        return None
    from kernels.numba_cpu import threads

    return threads


def set_num_threads(threads: int) -> None:
    """Let one kernel use up to `threads` threads (default: the cores that this process may use).

    Steps that are recorded already keep the number they were recorded with. Raises ValueError unless it is at least 1.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads: {threads!r}, wanted an integer of at least 1")
    pool = _pool()
    if pool is not None:
        pool.set_num_threads(threads)


def get_num_threads() -> int:
    """Threads that one kernel may use."""
    pool = _pool()
    return 1 if pool is None else pool.get_num_threads()


def single_thread() -> Any:
    """Within this context the kernels of this Python thread use no other thread: for trainings side by side."""
    pool = _pool()
    return nullcontext() if pool is None else pool.single_thread()
