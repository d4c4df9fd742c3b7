"""The slot `update`: one launch for all parameters of a group, from the table of `kernels.updates`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import THREADS, TYPES
from kernels.cupy_gpu.expression import expression
from kernels.cupy_gpu.programs import Program, program
from kernels.cupy_gpu.uploads import Uploads
from kernels.formula import Formula
from kernels.updates import Update

__all__ = ["Updates", "generated"]

#: Elements of a parameter that a block takes at a time (cuda/update.cu).
CHUNK = 1024
#: Scalars are computed by a warp each.
WARP = 32


class Updates:
    """Addresses and sizes of all arrays lie in a table on the device, which is made once for each list of arrays."""

    def __init__(self, device: Device):
        self.device = device
        self.uploads = Uploads(device)
        #: By the rule's identity; the rule is kept, so that no other can have it.
        self._programs: dict[tuple[int, str, bool], tuple[Update, Program]] = {}

    def update(
        self,
        rule: Update,
        parameters: Sequence[Any],
        gradients: Sequence[Any],
        states: Sequence[Sequence[Any]],
        values: Any,
    ) -> None:
        """See `kernels.contract.Backend.update`."""
        address = self.device.address
        rows: list[int] = []
        for w, *others in zip(parameters, gradients, *states, strict=True):
            rows += (w.size, address(w), *map(address, others))
        chunks = _chunks(tuple(w.size for w in parameters))
        count = len(chunks)
        if count == 0:
            return
        table = np.concatenate([np.array(rows, np.uint64).view(np.int64), chunks])
        shared = values.ndim == 1
        key = (id(rule), parameters[0].dtype.name, shared)
        if key not in self._programs:
            self._programs[key] = rule, generated(rule, TYPES[key[1]], shared)
        blocks = min(count, 4 * self.device.multiprocessors)
        each = len(parameters) if shared else len(parameters) // len(values)
        arguments = (self.uploads.copy_of(table), len(parameters), each, count, values)
        changed = [*parameters, *(x for group in states for x in group)]
        made = self._programs[key][1]
        self.device.launch(made, "update", blocks, THREADS, *arguments, reads=gradients, writes=changed)


@lru_cache(256)
def _chunks(sizes: tuple[int, ...]) -> np.ndarray:
    """For each chunk of each parameter: the parameter's number in the upper half, the chunk's in the lower."""
    every = [(i << 32) + np.arange(-(-size // CHUNK)) for i, size in enumerate(sizes)]
    return np.concatenate(every) if every else np.empty(0, np.int64)


def generated(rule: Update, real: str, shared: bool = True) -> Program:
    """The kernel of a rule; `real` is a C++ type. shared: all parameters take the same values."""
    arrays = {name: f"own[{i}].v[j]" for i, name in enumerate(("w", "g", *rule.states))}
    exact = {name: f"values[{i}]" for i, name in enumerate(rule.values)}
    numbers, compute = dict(exact), []
    for i, (name, text) in enumerate(rule.scalars):
        exact[name] = expression(Formula.of(text, *exact).tree, exact, "double")
        compute.append(f"if (threadIdx.x == {WARP * i}) scalars[{i}] = real({exact[name]});")
        numbers[name] = f"scalars[{i}]"
    names = {**{name: f"{name}_" for name in numbers}, **arrays}
    statements = [
        f"{arrays[name]} = {expression(Formula.of(text, *names).tree, names)};" for name, text in rule.statements
    ]
    return program(
        "update.cu",
        f"REAL={real}",
        f"ARRAYS={len(arrays)}",
        f"SCALARS={max(1, len(compute))}",
        f"COMPUTE={' '.join(compute)}",
        f"NUMBERS={' '.join(f'real {names[name]} = {value};' for name, value in numbers.items())}",
        f"STATEMENTS={' '.join(statements)}",
        f"SHARED={int(shared)}",
        f"VALUES={len(rule.values)}",
    )
