"""jit: a step recorded once for each set of input shapes, then replayed without the interpreter."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kernels import plan
from kernels.registry import elsewhere
from nanonet.device import assign, copied, default, host, write
from nanonet.errors import RecordingError
from nanonet.quick import MISS, quick
from nanonet.tensor import Tensor, as_tensor, mode


class StepRecorder(plan.Recorder):
    """Records kernel calls, and what Python state the recorded step relied on and left behind."""

    def __init__(self):
        super().__init__()
        self._arguments: dict[int, weakref.ref] = {}
        self.guards: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.read: list[tuple[Tensor, Tensor | None]] = []
        self.touched: dict[int, Tensor] = {}

    def guard(self, thing: Any, attribute: str) -> None:
        """The step depends on this attribute: when it is no longer the same object, it is to be recorded again.

        To be called before the step changes the attribute; a replay leaves it as the step did.
        """
        key = (id(thing), attribute)
        if key not in self.guards:
            self.guards[key] = (thing, attribute, getattr(thing, attribute))

    def argument(self, array: Any) -> tuple[Any, Any]:
        """(a copy of an argument of the step for the recording, its memory as an array for replays)."""
        inside = self.arena.empty(array.shape, array.dtype, plan.memory_of(array))
        assign(inside, array)
        self._arguments[self.arena.lease(inside)] = self.arena.holder(inside)
        return inside, self.arena.plain(inside)

    def is_argument(self, array: Any) -> bool:
        """Is this the memory of an argument of the step?"""
        return self.arena.lease(array) in self._arguments

    def kept_arguments(self) -> bool:
        """Does anything outside the plan still refer to the memory of an argument?"""
        return any(owner() is not None for owner in self._arguments.values())

    def touch(self, tensor: Tensor, write: bool) -> None:
        """The step reads or writes `tensor.grad`. What it reads before it has written is what it relies on."""
        if id(tensor) not in self.touched:
            self.touched[id(tensor)] = tensor
            if not write:
                self.read.append((tensor, tensor._grad))


class Recording:
    """One recorded step: its plan, its inputs and outputs, and when it may be replayed.

    args and kwargs as the step is called; leaves: the arrays and tensors in them that may change from call to call.
    calls: whether `quick` is wanted, for calls with arguments; without it there is `replay` only.
    """

    def __init__(
        self,
        function: Callable,
        args: tuple = (),
        kwargs: dict | None = None,
        leaves: Sequence = (),
        calls: bool = True,
    ):
        recorder = StepRecorder()
        if any(type(leaf) is np.ndarray for leaf in leaves):  # they were put on the default device
            recorder.guard(default, "memory")
        self._names = _names_outside(function)
        pairs = [recorder.argument(as_tensor(leaf).array) for leaf in leaves]
        self._buffers = [buffer for _, buffer in pairs]
        given = _rebuild((args, kwargs or {}), iter([Tensor(array) for array, _ in pairs]))
        with plan.recording(recorder):
            outputs = function(*given[0], **given[1])
        del given, pairs
        self._guards = list(recorder.guards.values())
        self._changed = [(t, name, getattr(t, name)) for t, name, v in self._guards if getattr(t, name) is not v]
        self._read = recorder.read
        self._grads = [(tensor, tensor._grad) for tensor in recorder.touched.values()]

        def overwritten(value: Any) -> Any:
            """A tensor in memory that replays write, as _Overwritten."""
            inside = isinstance(value, Tensor) and recorder.arena.owns(value.array)
            return _Overwritten(value.array) if inside else value

        self._outputs = _map(outputs, overwritten)
        del outputs
        self._constants = _map((args, kwargs), lambda value: None if _dynamic(value) else value)  # their ids are keys
        self.plan = recorder.plan()
        self.quick = _miss if not calls or kwargs or recorder.kept_arguments() else self._compiled(args)

    def _compiled(self, args: tuple) -> Callable[[tuple], Any]:
        """`nanonet.quick` for calls with arguments like these; `_miss` where arguments are nested, or the plan cannot
        read other arrays than its own."""
        run, pool = self.plan.bound(self._buffers)
        if run is None or any(isinstance(value, (list, tuple, dict)) for value in args):
            return _miss
        same = [*self._guards, *((tensor, "_grad", before) for tensor, before in self._read)]
        after = [*self._changed, *((tensor, "_grad", grad) for tensor, grad in self._grads)]
        single = type(self._outputs) is _Overwritten
        return quick(args, run, pool, same, self._names, after, self._outputs.array if single else self.outputs)

    def valid(self) -> bool:
        """Is the Python state that the step relied on as it was?"""
        for thing, name, value in self._guards:
            if getattr(thing, name) is not value:
                return False
        for scope, name, value in self._names:
            if (scope.get(name) if name else scope.cell_contents) is not value:
                return False
        return all(tensor._grad is before for tensor, before in self._read)

    def replay(self, leaves: Sequence[Tensor | np.ndarray] = (), times: int = 1, stop: np.ndarray | None = None) -> int:
        """Carry out the step up to `times` times, as `Plan.run` does; how often it did."""
        for buffer, leaf in zip(self._buffers, leaves, strict=True):
            array = leaf.array if isinstance(leaf, Tensor) else leaf
            if type(array) is type(buffer) or type(buffer) is np.ndarray:
                assign(buffer, array)
            else:
                write(buffer, host(array))
        done = self.plan.run(times, stop)
        for thing, name, after in self._changed:
            setattr(thing, name, after)
        for tensor, after in self._grads:
            tensor._grad = after
        return done

    def outputs(self) -> Any:
        """What the step returned, in memory that no replay overwrites."""
        outputs = self._outputs
        return _fresh(outputs) if type(outputs) is _Overwritten else _map(outputs, _fresh)


def _miss(args: tuple) -> Any:
    """Of a recording that has no quick way to replay."""
    return MISS


def _names_outside(function: Callable) -> list[tuple[Any, str, Any]]:
    """(scope, name, value) of the numbers, texts and tensors that a function's code finds outside itself.

    The scope is the module's dictionary, or with an empty name a closure's cell.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    found = [(function.__globals__, name, function.__globals__.get(name)) for name in code.co_names]
    for cell in function.__closure__ or ():
        try:
            found.append((cell, "", cell.cell_contents))
        except ValueError:  # not set yet
            continue
    return [entry for entry in found if isinstance(entry[2], (bool, int, float, complex, str, Tensor))]


class _Overwritten:
    """The place of a tensor among the outputs whose values the next replay overwrites."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray):
        self.array = array


def _fresh(value: Any) -> Any:
    return Tensor(copied(value.array)) if type(value) is _Overwritten else value


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
    #: Sets of input shapes, dtypes and constants whose recordings are kept.
    KEYS = 64

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self._function = function
        self._recordings: dict[Any, list[Recording]] = {}
        self._quick: Callable[[tuple], Any] = _miss  # of the last recording that was used

    def __get__(self, instance: Any, owner: type | None = None) -> Callable:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            outputs = self._quick(args)
            if outputs is not MISS:
                return outputs
        if plan.current() is not None:
            return self._function(*args, **kwargs)
        leaves: list[Tensor | np.ndarray] = []
        key: list[Any] = [mode.grad]
        for value in args:
            _flatten(value, leaves, key)
        if kwargs:
            _flatten(kwargs, leaves, key)
        if mode.anomaly:
            args, kwargs = _rebuild((args, kwargs), iter([as_tensor(leaf) for leaf in leaves]))
            return self._function(*args, **kwargs)
        found = self._recordings.setdefault(tuple(key), [])
        for recording in found:
            if recording.valid():
                self._quick = recording.quick
                recording.replay(leaves)
                return recording.outputs()
        recording = Recording(self._function, args, kwargs, leaves)
        self._quick = recording.quick
        found.append(recording)
        del found[: -self.KEPT]
        if len(self._recordings) > self.KEYS:
            del self._recordings[next(iter(self._recordings))]
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
    Its Python code does not run again, and numbers that it computes or finds in objects are constants. Watched are
    training mode, `requires_grad`, which gradients are present, and the numbers, texts and tensors that its names stand
    for outside it (globals and closure): the step is recorded again when one of them differs.

    `print(step.plan)` shows what the newest recording runs: each kernel, its arrays, bytes and FLOP; the same as data
    are `step.plan.instructions`.

    What is returned is fresh memory, without a past. What the step leaves elsewhere, as in `grad`, is overwritten by
    the next replay; clone it to keep it. Within `detect_anomaly` the step runs eagerly. Raises
    RecordingError when the step reads a value on the host.
    """
    return Jitted(function)


def _dynamic(value: Any) -> bool:
    """Is this argument copied in at each replay?"""
    return isinstance(value, np.ndarray) or (isinstance(value, Tensor) and not value._requires_grad) or elsewhere(value)


def _flatten(value: Any, leaves: list, key: list) -> None:
    """Append the array leaves of the arguments to `leaves`, and all the rest, hashable, to `key`."""
    if isinstance(value, Tensor):
        if value._requires_grad:
            key.append(id(value))
        else:
            leaves.append(value)
            array = value.array
            key.append((Tensor, type(array), array.shape, array.dtype.char))
    elif isinstance(value, np.ndarray):
        leaves.append(value)
        key.append((np.ndarray, value.shape, value.dtype.char))
    elif isinstance(value, (list, tuple)):
        key.append((type(value), len(value)))
        for item in value:
            _flatten(item, leaves, key)
    elif isinstance(value, dict):
        key.append((dict, tuple(value)))
        for item in value.values():
            _flatten(item, leaves, key)
    elif elsewhere(value):
        leaves.append(value)
        key.append((type(value), value.shape, value.dtype.char))
    else:
        try:
            hash(value)
        except TypeError:
            kind = type(value).__name__
            raise RecordingError(f"jit: an argument of type {kind} is neither array nor hashable") from None
        key.append((type(value), value))


def _rebuild(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The arguments with the next of `tensors` in the place of each array leaf."""
    if _dynamic(value):
        return next(tensors)
    if isinstance(value, (list, tuple)):
        items = [_rebuild(item, tensors) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {name: _rebuild(item, tensors) for name, item in value.items()}
    return value
