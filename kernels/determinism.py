"""Who chooses among the kernels of a GPU that give one result with other last bits: two switches of the process."""

from __future__ import annotations

import os

from kernels import plan

__all__ = ["Mode", "benchmark", "deterministic", "mode"]


class Mode:
    """deterministic: our own kernels alone, cut as shapes tell. benchmark: what is fastest here is found out by trying.

    At first as the environment variables NANONET_DETERMINISTIC and NANONET_BENCHMARK say, which are 1 or 0.
    """

    def __init__(self) -> None:
        self.deterministic = os.environ.get("NANONET_DETERMINISTIC", "0") == "1"
        self.benchmark = os.environ.get("NANONET_BENCHMARK", "0") == "1"


mode = Mode()


def deterministic() -> bool:
    """The switch; a step that is being recorded then depends on it."""
    return _read("deterministic")


def benchmark() -> bool:
    """The switch; a step that is being recorded then depends on it."""
    return _read("benchmark")


def _read(name: str) -> bool:
    recorder = plan.current()
    if recorder is not None:
        recorder.guard(mode, name)
    return getattr(mode, name)
