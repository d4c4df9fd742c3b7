"""The slots random_uniform, random_normal and dropout_mask."""

from functools import cache

import numpy as np

from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.threads import parts_for

#: Elements that are worth a thread of their own.
WORTH = 1 << 14


def random_uniform(state: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.random_uniform`."""
    _draw("uniform", state, out)


def random_normal(state: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.random_normal`."""
    _draw("normal", state, out)


def dropout_mask(state: np.ndarray, rate: float, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.dropout_mask`."""
    _draw("dropout_mask", state, out, float(rate), 1.0 / (1.0 - rate))


def _draw(name: str, state: np.ndarray, out: np.ndarray, rate: float = 0.0, scale: float = 0.0) -> None:
    if out.size:
        launch(name, _kernel(name, out.dtype), parts_for(out.size, WORTH), state, out, out.size, rate, scale)


@cache
def _kernel(name: str, dtype: np.dtype) -> int:
    def make():
        from kernels.numba_cpu.jit import random

        return getattr(random, f"make_{name}")(dtype.name)

    return compile_kernel(f"random/{name}/{dtype.name}", make)


SLOTS = {"random_uniform": random_uniform, "random_normal": random_normal, "dropout_mask": dropout_mask}
