"""The slots `update` and `advance`: one launch for all parameters of a group, from the table of `kernels.updates`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels import plan
from kernels.cupy_gpu.device import Device, Program, program
from kernels.cupy_gpu.elementwise import THREADS, TYPES
from kernels.cupy_gpu.expression import expression
from kernels.cupy_gpu.uploads import Uploads
from kernels.formula import Formula
from kernels.updates import Update

__all__ = ["Updates", "generated"]

#: Elements of a parameter that a block takes at a time, and of them each thread side by side.
CHUNK, EACH = 1024, 4


class Updates:
    """Addresses and sizes of all arrays lie in a table on the device, which is made once for each list of arrays."""

    def __init__(self, device: Device):
        self.device = device
        self.uploads = Uploads(device)
        #: By the rule's identity; the rule is kept, so that no other can have it.
        self._programs: dict[tuple[int, str], tuple[Update, Program]] = {}

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
        rows, chunks = [], []
        for i, (w, *others) in enumerate(zip(parameters, gradients, *states, strict=True)):
            rows.append([w.size, address(w), *(address(x) for x in others)])
            chunks.append((i << 32) + np.arange(-(-w.size // CHUNK)))
        count = sum(len(chunk) for chunk in chunks)
        if count == 0:
            return
        table = np.concatenate([np.array(rows, np.uint64).view(np.int64).reshape(-1), *chunks])
        key = (id(rule), parameters[0].dtype.name)
        if key not in self._programs:
            self._programs[key] = rule, generated(rule, TYPES[key[1]])
        blocks = min(count, 8 * self.device.multiprocessors)
        arguments = (self.uploads.copy_of(table), len(parameters), count, values)
        self.device.launch(self._programs[key][1], "update", blocks, THREADS, *arguments)
        recorder = plan.current()
        if recorder is not None:
            arrays = [*parameters, *gradients, *(x for group in states for x in group)]
            recorder.keep += [x for x in arrays if not recorder.arena.owns(x)]

    def advance(self, counter: Any, amount: float) -> None:
        """See `kernels.contract.Backend.advance`."""
        name = counter.dtype.name
        number = int(amount) if name == "int64" else float(amount)
        self.device.launch(program("advance.cu"), f"advance_{name}", 1, 1, counter, number)


def generated(rule: Update, real: str) -> Program:
    """The kernel of a rule. Its arguments: the table, the numbers of parameters and of chunks, the rule's values.

    A row of the table holds a parameter's size and the addresses of it, its gradient and its states; after the rows,
    for each chunk of CHUNK elements, the number of its parameter << 32 plus its own within that.
    """
    arrays = ("w", "g", *rule.states)
    numbers = [*rule.values, *(name for name, _ in rule.scalars)]
    doubles = {name: f"{name}_" for name in numbers}
    names = {**doubles, **{name: f"{name}s.v[j]" for name in arrays}}
    lines = [f"double {name}_ = values[{i}];" for i, name in enumerate(rule.values)]
    for i, (name, text) in enumerate(rule.scalars):
        known = numbers[: len(rule.values) + i]
        lines.append(f"double {name}_ = {expression(Formula.of(text, *known).tree, doubles, 'double')};")
    lines += [f"numbers[{i}] = real({name}_);" for i, name in enumerate(numbers)]
    body = [
        f"{names[name]} = {expression(Formula.of(text, *numbers, *arrays).tree, names)};"
        for name, text in rule.statements
    ]
    fields = len(arrays) + 1
    return Program(
        f"""
struct __align__(16) Pack {{ real v[{EACH}]; }};

extern "C" __global__ void __launch_bounds__({THREADS})
update(const int64* table, int64 parameters, int64 chunks, const double* values) {{
    __shared__ real numbers[{len(numbers)}];
    if (threadIdx.x == 0) {{
        {" ".join(lines)}
    }}
    __syncthreads();
    {" ".join(f"real {name}_ = numbers[{i}];" for i, name in enumerate(numbers))}
    for (int64 k = blockIdx.x; k < chunks; k += gridDim.x) {{
        int64 chunk = table[parameters * {fields} + k];
        const int64* row = table + (chunk >> 32) * {fields};
        int64 at = (chunk & 0xffffffff) * {CHUNK} + threadIdx.x * {EACH}, left = row[0] - at;
        if (left <= 0) continue;
        {" ".join(f"real* {name}_at = reinterpret_cast<real*>(row[{i + 1}]) + at;" for i, name in enumerate(arrays))}
        bool packed = left >= {EACH} && ({" | ".join(f"row[{i + 1}]" for i in range(len(arrays)))}) % 16 == 0;
        Pack {", ".join(f"{name}s" for name in arrays)};
        if (packed) {{
            {" ".join(f"{name}s = *reinterpret_cast<const Pack*>({name}_at);" for name in arrays)}
        }} else {{
#pragma unroll
            for (int j = 0; j < {EACH}; j++) {{
                {" ".join(f"{name}s.v[j] = j < left ? {name}_at[j] : real(0);" for name in arrays)}
            }}
        }}
#pragma unroll
        for (int j = 0; j < {EACH}; j++) {{
            {" ".join(body)}
        }}
        if (packed) {{
            {" ".join(f"*reinterpret_cast<Pack*>({name}_at) = {name}s;" for name in arrays if name != "g")}
        }} else {{
#pragma unroll
            for (int j = 0; j < {EACH}; j++)
                if (j < left) {{
                    {" ".join(f"{name}_at[j] = {name}s.v[j];" for name in arrays if name != "g")}
                }}
        }}
    }}
}}
""",
        (f"REAL={real}",),
    )
