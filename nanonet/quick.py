"""The quick way to replay: all that a call of a jitted step does in Python, as one generated function.

A loop over what is to be compared takes a microsecond or two; the same comparisons in a row take a few nanoseconds
each, because the interpreter specialises each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from kernels import plan
from nanonet.tensor import Tensor, mode

#: What a quick function returns, having done nothing, if the call is none for its recording.
MISS = object()

State = Iterable[tuple[Any, str, Any]]


def quick(
    args: Sequence[Any],
    run: Callable[..., int],
    pool: Callable[[], int] | None,
    same: State,
    names: State,
    after: State,
    outputs: np.ndarray | Callable[[], Any],
) -> Callable[[tuple], Any]:
    """A function of the arguments of a call that checks, replays and returns what the step returns, or MISS.

    args: those of the recorded call. run(pool(), *arrays), or run(0, *arrays), replays, and gives 0 if the arrays do
    not fit. same: (object, attribute, value) that the recording relies on; names: (dictionary, key, value) or
    (cell, "", value) likewise; after: what a replay sets. outputs: the memory of the single tensor that is returned, or
    a function that makes all outputs.
    """
    known: dict[str, Any] = {"MISS": MISS, "Tensor": Tensor, "mode": mode, "recorder": plan.current, "run": run}

    def constant(value: Any) -> str:
        name = f"k{len(known)}"
        known[name] = value
        return name

    checks = [f"len(args) == {len(args)}", "recorder() is None", f"mode.grad is {mode.grad}", "not mode.anomaly"]
    checks += [f"{constant(thing)}.{attribute} is {constant(value)}" for thing, attribute, value in same]
    for scope, name, value in names:
        found = f".get({name!r})" if name else ".cell_contents"
        checks.append(f"{constant(scope)}{found} is {constant(value)}")
    arrays = [f"{constant(pool)}()" if pool else "0"]
    for i, value in enumerate(args):
        if isinstance(value, Tensor) and not value.requires_grad:
            checks.append(f"type(args[{i}]) is {constant(type(value))} and not args[{i}]._requires_grad")
            arrays.append(f"args[{i}].array")
        elif isinstance(value, np.ndarray):
            arrays.append(f"args[{i}]")
        else:
            checks.append(f"args[{i}] is {constant(value)}")
    result = f"Tensor({constant(outputs)}.copy())" if isinstance(outputs, np.ndarray) else f"{constant(outputs)}()"
    lines = [
        "def replay(args):",
        f" if not ({' and '.join(checks)}): return MISS",
        f" if not run({', '.join(arrays)}): return MISS",
        *[f" {constant(thing)}.{attribute} = {constant(value)}" for thing, attribute, value in after],
        f" return {result}",
    ]
    exec("\n".join(lines), known)
    return known["replay"]
