"""jit: a step recorded once for each set of input shapes, then replayed without the interpreter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import plan
from nanonet.errors import RecordingError
from nanonet.tensor import Tensor, as_tensor, mode


class StepRecorder(plan.Recorder):
    """Records kernel calls, and what Python state the recorded step relied on and left behind."""

    def __init__(self):
        super().__init__()
        self.guards: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.read: list[tuple[Tensor, Tensor | None]] = []
        self.touched: dict[int, Tensor] = {}

    def guard(self, thing: Any, attribute: str) -> None:
        """The step depends on this attribute: with another value it is to be recorded again."""
        key = (id(thing), attribute)
        if key not in self.guards:
            self.guards[key] = (thing, attribute, getattr(thing, attribute))

    def touch(self, tensor: Tensor, write: bool) -> None:
        """The step reads or writes `tensor.grad`. What it reads before it has written is what it relies on."""
        if id(tensor) not in self.touched:
            self.touched[id(tensor)] = tensor
            if not write:
                self.read.append((tensor, tensor._grad))


class Recording:
    """One recorded step: its plan, inputs, outputs, and when it may be replayed."""

    def __init__(self, function: Callable, leaves: list[Tensor | np.ndarray], rebuild: Callable[[list[Tensor]], tuple]):
        recorder = StepRecorder()
        self._inputs = [_input(leaf) for leaf in leaves]
        with plan.recording(recorder):
            args, kwargs = rebuild(self._inputs)
            self._outputs = function(*args, **kwargs)
        self._guards = list(recorder.guards.values())
        self._read = recorder.read
        self._grads = [(tensor, tensor._grad) for tensor in recorder.touched.values()]
        self._own = {id(tensor) for tensor in self._inputs}
        self.plan = recorder.plan()
        self._arena = recorder.arena

    def valid(self) -> bool:
        """Is the Python state that the step relied on as it was?"""
        return all(getattr(thing, name) == value for thing, name, value in self._guards) and all(
            tensor._grad is before for tensor, before in self._read
        )

    def replay(self, leaves: list[Tensor | np.ndarray], times: int = 1) -> None:
        for buffer, leaf in zip(self._inputs, leaves, strict=True):
            np.copyto(buffer.array, leaf.array if isinstance(leaf, Tensor) else leaf, casting="same_kind")
        self.plan.run(times)
        for tensor, after in self._grads:
            tensor._grad = after

    def outputs(self) -> Any:
        """What the step returned, in memory that no replay overwrites."""
        return _map(self._outputs, self._fresh)

    def _fresh(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if self._arena.owns(value.array) or id(value) in self._own:
            return Tensor(value.array.copy())
        return value


def _input(leaf: Tensor | np.ndarray) -> Tensor:
    """A buffer of the leaf's shape, holding a copy of it."""
    source = as_tensor(leaf)
    return Tensor(np.array(source.array, order="C"))


def _map(tree: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(tree, (list, tuple)):
        items = [_map(item, function) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return {key: _map(value, function) for key, value in tree.items()}
    return function(tree)


class Jitted:
    """A step under `jit`. Call it as the function itself; `step.recordings` are its plans, newest last."""

    #: Recordings kept for one set of input shapes (they differ in mode, gradients present, and the like).
    KEPT = 8

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self._function = function
        self._recordings: dict[Any, list[Recording]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if plan.current() is not None:
            return self._function(*args, **kwargs)
        leaves, key, rebuild = _flatten(args, kwargs)
        if mode.anomaly:
            args, kwargs = rebuild([as_tensor(leaf) for leaf in leaves])
            return self._function(*args, **kwargs)
        found = self._recordings.setdefault((key, mode.grad), [])
        for recording in found:
            if recording.valid():
                recording.replay(leaves)
                return recording.outputs()
        recording = Recording(self._function, leaves, rebuild)
        found.append(recording)
        del found[: -self.KEPT]
        return recording.outputs()

    @property
    def recordings(self) -> list[Recording]:
        return [recording for found in self._recordings.values() for recording in found]

    @property
    def plan(self) -> plan.Plan | None:
        """The newest plan, or None before the first call."""
        recordings = self.recordings
        return recordings[-1].plan if recordings else None


def jit(function: Callable) -> Jitted:
    """Record `function` at its first call for each set of argument shapes, and replay it at later calls.

    Arrays and tensors among the arguments (also in tuples, lists and dicts) may change from call to call; a tensor that
    requires a gradient is used by reference; everything else must be hashable, and another value makes another
    recording. Tensors that the function reaches otherwise are used by reference: their values are read at each replay.
    Python numbers inside it are constants, and its Python code does not run again. Training mode, `requires_grad` and
    which gradients are present are watched: the step is recorded again when they differ.

    What is returned is fresh memory, without a past. Within `detect_anomaly` the step runs eagerly. Raises RecordingError when the step reads a value on the host.
    """
    return Jitted(function)


def _flatten(args: tuple, kwargs: dict) -> tuple[list, Any, Callable[[list[Tensor]], tuple]]:
    """The array leaves of the arguments, a hashable key of all the rest, and how to put tensors in their place."""
    leaves: list[Tensor | np.ndarray] = []
    key: list[Any] = []

    def visit(value: Any) -> Any:
        if isinstance(value, Tensor) and value._requires_grad:
            key.append(("reference", id(value)))
            return lambda tensors: value
        if isinstance(value, (Tensor, np.ndarray)):
            place = len(leaves)
            leaves.append(value)
            key.append((value.shape, value.dtype))
            return lambda tensors: tensors[place]
        if isinstance(value, (list, tuple)):
            key.append((type(value), len(value)))
            parts = [visit(item) for item in value]
            return lambda tensors: type(value)([part(tensors) for part in parts])
        if isinstance(value, dict):
            key.append((dict, tuple(value)))
            named = {name: visit(item) for name, item in value.items()}
            return lambda tensors: {name: part(tensors) for name, part in named.items()}
        try:
            hash(value)
        except TypeError:
            raise RecordingError(f"jit: an argument of type {type(value).__name__} is neither an array nor hashable") from None
        key.append((type(value), value))
        return lambda tensors: value

    build_args, build_kwargs = visit(args), visit(kwargs)
    return leaves, tuple(key), lambda tensors: (build_args(tensors), build_kwargs(tensors))
