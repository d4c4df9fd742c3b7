"""Optimizer updates and counters: one instruction for all parameters of a group."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from kernels.numba_cpu import threads
from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import LIMIT, address, emit, launch, pack
from kernels.updates import Update, shares

#: Elements that are worth a thread of their own.
LEAST = 1 << 14

_kernels: dict[tuple[int, str], tuple[Update, int]] = {}  # by the rule's identity; it is kept, so no other can have it


def update(
    rule: Update,
    parameters: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
    states: Sequence[Sequence[np.ndarray]],
    values: np.ndarray,
) -> None:
    """One optimizer step, in place, for a list of parameters; see the contract."""
    if values.ndim == 2:
        for share in shares(parameters, gradients, states, values):
            update(rule, *share)
        return
    if not parameters:
        return
    size, arguments = 0, [values, len(parameters)]
    for w, *others in zip(parameters, gradients, *states, strict=True):
        size += w.size
        arguments += (w.size, w, *others)
    kernel = _kernel(rule, parameters[0].dtype.name)
    parts = threads.parts_for(size, LEAST)
    if len(arguments) <= LIMIT:
        launch(rule.name, kernel, parts, *arguments)
    else:
        arrays = tuple(x for x in arguments if isinstance(x, np.ndarray))
        words = pack(*[address(x) if isinstance(x, np.ndarray) else x for x in arguments])
        emit(kernel, parts, words, arrays, rule.name)


def _kernel(rule: Update, dtype: str) -> int:
    key = id(rule), dtype
    found = _kernels.get(key)
    if found is None:

        def make():
            from kernels.numba_cpu.jit import updates

            return updates.update(rule, dtype)

        found = _kernels[key] = rule, compile_kernel(f"update/{rule}/{dtype}", make)
    return found[1]


def advance(counter: np.ndarray, amount: float) -> None:
    """counter += amount, for a 0-d int64 or float64 buffer."""
    dtype = counter.dtype.name
    launch("advance", _advance(dtype), 1, counter, int(amount) if dtype == "int64" else float(amount))


@cache
def _advance(dtype: str) -> int:
    def make():
        from kernels.numba_cpu.jit import updates

        return updates.advance(dtype)

    return compile_kernel(f"advance/{dtype}", make)


SLOTS = {"update": update, "advance": advance}
