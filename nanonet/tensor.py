"""Tensor: an array, and how it was computed."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from kernels import plan
from kernels.memory import HOST, Memory
from kernels.registry import backend_of, elsewhere
from nanonet.device import copied, default_memory, host, memory, memory_of, moved
from nanonet.errors import DtypeError, RecordingError, ShapeError

#: What a tensor may hold, by the names that people type.
DTYPES = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "bool": np.dtype(np.bool_),
}
float32, float64, int32, int64, bool_ = DTYPES.values()


class Mode(threading.local):
    """Switches of this thread: does the engine follow derivatives, and does it look for NaN and infinity."""

    grad = True
    anomaly = False


mode = Mode()


class Tensor:
    """An n-dimensional array that remembers how it was computed, so that `backward` can differentiate it.

    array: the values (numpy.ndarray). requires_grad: whether gradients are followed through it. grad: the gradient
    that `backward` has summed up for a leaf, or None. Make one with `nanonet.tensor`.
    """

    __slots__ = ("__weakref__", "_grad", "_hooks", "_requires_grad", "array", "node")
    __array_priority__ = 100

    def __init__(self, array: np.ndarray, requires_grad: bool = False):
        self.array = array
        self._requires_grad = requires_grad
        self._grad = None
        self._hooks = None
        self.node = None

    # ------------------------------------------------------------------------ what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def size(self) -> int:
        return self.array.size

    @property
    def device(self) -> str:
        """ "cpu" or "cuda"."""
        return "cpu" if type(self.array) is np.ndarray else memory_of(self.array).device

    @property
    def is_leaf(self) -> bool:
        return self.node is None

    def numel(self) -> int:
        return self.array.size

    def dim(self) -> int:
        return self.array.ndim

    def __len__(self) -> int:
        if not self.array.ndim:
            raise TypeError("len() of a tensor without axes")
        return len(self.array)

    # ------------------------------------------------------------------------- gradients

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.node is not None and not value:
            raise RuntimeError("requires_grad can be switched off for a leaf only; use detach()")
        if value and self.array.dtype.kind != "f":
            raise DtypeError(f"requires_grad: only float tensors have gradients, this one is {self.dtype}")
        self._requires_grad = bool(value)

    def requires_grad_(self, value: bool = True) -> Tensor:
        self.requires_grad = value
        return self

    @property
    def grad(self) -> Tensor | None:
        recorder = plan.current()
        if recorder is not None:
            recorder.touch(self, write=False)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and value.shape != self.shape:
            raise ShapeError(f"grad: has shape {value.shape}, its tensor {self.shape}")
        recorder = plan.current()
        if recorder is not None:
            recorder.touch(self, write=True)
        self._grad = value

    def backward(
        self, gradient: Tensor | np.ndarray | None = None, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add the gradient of this tensor to `grad` of every leaf it depends on. See `nanonet.autograd.backward`."""
        from nanonet.autograd import backward

        backward(self, gradient, retain_graph, create_graph)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(gradient)` when this tensor's gradient is known; what it returns, if not None, takes its place.

        Returns a function that removes the hook.
        """
        if not self._requires_grad:
            raise RuntimeError("register_hook: this tensor does not require a gradient")
        hooks = self._hooks if self._hooks is not None else []
        self._hooks = hooks
        hooks.append(hook)
        if self.node is not None:
            self.node.hooks = hooks
        return lambda: hooks.remove(hook)

    def detach(self) -> Tensor:
        """The same values, without a past. Shares memory."""
        return Tensor(self.array)

    def __deepcopy__(self, memo: dict) -> Tensor:
        """A copy with memory of its own, and of its gradient; without hooks."""
        if self.node is not None:
            raise RuntimeError("deepcopy: only a leaf can be copied with its gradient; use detach() or clone()")
        made = memo[id(self)] = type(self).__new__(type(self))
        Tensor.__init__(made, copied(self.array), self._requires_grad)
        made._grad = None if self._grad is None else Tensor(copied(self._grad.array))
        return made

    # ------------------------------------------------------------------- values, on the host

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array, which on the CPU shares memory."""
        forbid_recording("numpy()")
        return host(self.array)

    def cpu(self) -> Tensor:
        """The tensor on the CPU; itself if it is there."""
        return self.to("cpu")

    def cuda(self) -> Tensor:
        """The tensor on the GPU; itself if it is there. Raises BackendUnavailable with the reason if there is none."""
        return self.to("cuda")

    def item(self) -> float | int | bool:
        """The single value. Raises ValueError if there is not exactly one."""
        forbid_recording("item()")
        return host(self.array).item()

    def tolist(self) -> Any:
        forbid_recording("tolist()")
        return host(self.array).tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        forbid_recording("conversion to a NumPy array")
        array = host(self.array)
        return np.array(array, dtype) if copy else np.asarray(array, dtype)

    def __float__(self) -> float:
        forbid_recording("float()")
        return float(host(self.array).item())

    def __int__(self) -> int:
        forbid_recording("int()")
        return int(host(self.array).item())

    __index__ = __int__

    def __bool__(self) -> bool:
        forbid_recording("bool()")
        if self.array.size != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is ambiguous; use .any() or .all() of .numpy()"
            )
        return bool(host(self.array).item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        if plan.current() is not None:
            return f"tensor(<recorded>, shape={self.shape}, dtype={self.dtype})"
        values = np.array2string(host(self.array), separator=", ", prefix="tensor(", precision=4, floatmode="maxprec")
        extra = "" if self.dtype in (float32, int64, bool_) else f", dtype={self.dtype}"
        extra += "" if self.device == "cpu" else f", device='{self.device}'"
        if self.node is not None:
            extra += f", op={self.node.op.name}"
        elif self._requires_grad:
            extra += ", requires_grad=True"
        return f"tensor({values}{extra})"

    __hash__ = object.__hash__

    # ---------------------------------------------------------------- changing values in place

    @property
    def data(self) -> Tensor:
        """The same values without a past; assigning to it overwrites the values in place."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        self.detach().copy_(value)

    def copy_(self, value: Any) -> Tensor:
        """Overwrite the values, in place. Broadcasts. Raises ShapeError if the shapes do not fit."""
        if isinstance(value, (bool, int, float, np.generic)):
            source = fixed(value, self.dtype)
        else:
            source = as_tensor(value, self.dtype, self).array
            if type(source) is not type(self.array):
                source = _beside(source, self.array)
        try:
            fits = np.broadcast_shapes(source.shape, self.shape) == self.shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"copy_: values of shape {source.shape} do not fit into {self.shape}")
        self._forbid_argument()
        if mode.grad and self._requires_grad:
            raise RuntimeError(
                "copy_: a tensor that requires a gradient is overwritten; do it within nanonet.no_grad()"
            )
        backend_of(self.array).copy(source, out=self.array)
        return self

    def __dlpack__(self, **options: Any) -> Any:
        """The values for another library, without a copy (https://dmlc.github.io/dlpack)."""
        forbid_recording("__dlpack__()")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def _forbid_argument(self) -> None:
        """Raise RecordingError if it, about to be overwritten, is an argument of the step that is recorded."""
        recorder = plan.current()
        if recorder is not None and recorder.is_argument(self.array):
            raise RecordingError(
                f"an argument of the step is overwritten while jit records it ({caller()}): the caller's array would "
                "not see it. Make it a tensor that the step reaches from outside, or return the new values"
            )

    def zero_(self) -> Tensor:
        return self.copy_(0)

    def fill_(self, value: float) -> Tensor:
        return self.copy_(value)


def forbid_recording(what: str) -> None:
    """Raise RecordingError, which names `what` and the line, if a step is being recorded."""
    if plan.current() is not None:
        raise RecordingError(
            f"{what} reads a value on the host while jit records the step ({caller()}): a replay would not read it "
            "again. Return the tensor from the step and read it outside"
        )


def caller() -> str:
    """file:line of the innermost frame outside nanonet and kernels."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] not in ("nanonet", "kernels"):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "unknown line"


# ------------------------------------------------------------------------------ making tensors


def dtype_of(dtype: Any) -> np.dtype:
    """A dtype from its name, NumPy's type or dtype. Raises DtypeError for one that tensors do not hold."""
    try:
        found = None if dtype is None else np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in DTYPES.values():
        raise DtypeError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    return found


def _natural(array: np.ndarray, name: str) -> np.dtype:
    """The dtype that values get when none is asked for."""
    kind = array.dtype.kind
    if kind == "f":
        return float32
    if kind in "iu":
        return int64
    if kind == "b":
        return bool_
    raise DtypeError(f"{name}: holds {array.dtype}, wanted numbers")


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False, device: str | None = None) -> Tensor:
    """A tensor with a copy of `data`: numbers, nested lists, an array or a tensor.

    Without `dtype`, floats of any width become float32, integers int64, booleans bool. Without `device` ("cpu", "cuda")
    a tensor or array stays on its device, and all else goes to the default one (`set_default_device`). Raises
    DtypeError for anything else, ShapeError for ragged lists, DeviceError and BackendUnavailable for a device,
    RecordingError within a step that jit records (the copy would never change).
    """
    if isinstance(data, Tensor):
        source, dtype = data.array, data.dtype if dtype is None else dtype
    else:
        source = data if elsewhere(data) else _host_array(data)
    found = _natural(source, "tensor") if dtype is None else dtype_of(dtype)
    made = isinstance(data, Tensor) or type(source) is not np.ndarray
    target = memory(device) if device is not None else memory_of(source) if made else default_memory()
    if made:
        if type(source) is not target.kind:
            source = _beside(source, target)
        out = plan.empty(source, source.shape, found)
        backend_of(out).copy(source, out=out)
    else:
        out = np.array(source, found, order="C")
        out = out if target is HOST else target.from_host(out)
    return Tensor(out).requires_grad_(requires_grad)


def from_dlpack(data: Any) -> Tensor:
    """A tensor that shares the memory of another library's array or tensor, on the CPU or on the GPU."""
    device, _ = data.__dlpack_device__()
    if device == 1:
        return Tensor(np.from_dlpack(data))
    return Tensor(backend_of(memory("cuda").empty((0,), np.float32)).xp.from_dlpack(data))


def _beside(array: Any, other: Any) -> Any:
    """The array, moved to the device of another one, or to a `Memory`. Raises RecordingError within a recorded step."""
    forbid_recording("a move from one device to another")
    return moved(array, other if isinstance(other, Memory) else memory_of(other))


def _host_array(data: Any) -> np.ndarray:
    if not isinstance(data, (bool, int, float, np.generic)) and plan.current() is not None:
        raise RecordingError(
            f"a host array enters the step while jit records it ({caller()}): a replay would not see it change. Pass "
            "it as an argument of the step, or make it a tensor before"
        )
    try:
        array = np.asarray(data)
    except ValueError:
        raise ShapeError("tensor: nested lists of different lengths, wanted a rectangular array") from None
    if array.dtype.kind not in "fiub":
        raise DtypeError(f"tensor: holds {array.dtype}, wanted numbers")
    if array.dtype == np.uint64 and array.size and array.max() >= 2**63:
        raise DtypeError(f"tensor: holds {array.max()}, wanted integers below 2^63")
    return array


def constant(value: float, dtype: np.dtype) -> Tensor:
    """A shared 0-d tensor of that value, which nobody can change."""
    return _constant(value, math.copysign(1.0, value), dtype)


@lru_cache(maxsize=1024)
def _constant(value: float, sign: float, dtype: np.dtype) -> Tensor:  # the sign tells -0.0 from 0.0
    return Tensor(fixed(value, dtype))


def fixed(value: float, dtype: Any) -> np.ndarray:
    """A 0-d array of the host that nobody can change. Elementwise functions take it beside arrays of any device."""
    array = np.array(value, dtype)
    array.setflags(write=False)
    return array


def as_tensor(data: Any, dtype: np.dtype | None = None, beside: Tensor | None = None) -> Tensor:
    """`data` itself if it is a Tensor of that dtype, else one made of it; a fitting array is shared, not copied.

    What is of the host (no tensor, and no array of a device) goes to the device of the tensor `beside`, or to the
    default one. Raises RecordingError within a step that jit records, unless it is a number.
    """
    if isinstance(data, Tensor):
        return data if dtype is None or data.dtype == dtype else tensor(data, dtype)
    if elsewhere(data):
        return Tensor(data) if dtype is None or data.dtype == dtype else tensor(data, dtype)
    array = _host_array(data)
    array = np.asarray(array, _natural(array, "tensor") if dtype is None else dtype)
    target = _memory(beside)
    return Tensor(array if target is HOST else target.from_host(array))


def zeros(*shape: int | Sequence[int], dtype: Any = float32, requires_grad: bool = False, device: Any = None) -> Tensor:
    """Zeros of that shape, given as one tuple or as its sides."""
    return full(_shape(shape), 0, dtype, requires_grad, device)


def ones(*shape: int | Sequence[int], dtype: Any = float32, requires_grad: bool = False, device: Any = None) -> Tensor:
    """Ones of that shape, given as one tuple or as its sides."""
    return full(_shape(shape), 1, dtype, requires_grad, device)


def full(
    shape: Sequence[int], value: float, dtype: Any = float32, requires_grad: bool = False, device: Any = None
) -> Tensor:
    """A tensor of that shape, each element `value`.

    device: "cpu", "cuda", or a tensor that it is to lie beside; None for the default one.
    """
    out = plan.empty_in(_memory(device), tuple(shape), dtype_of(dtype))
    backend_of(out).copy(fixed(value, out.dtype), out=out)
    return Tensor(out).requires_grad_(requires_grad)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the shape and dtype of x, on its device."""
    return full(x.shape, 0, x.dtype, device=x)


def ones_like(x: Tensor) -> Tensor:
    """Ones of the shape and dtype of x, on its device."""
    return full(x.shape, 1, x.dtype, device=x)


def arange(*args: float, dtype: Any = None, device: Any = None) -> Tensor:
    """As numpy.arange. A constant of a recorded step. device: as in `full`."""
    array = np.arange(*args)
    return _constant_array(array.astype(_natural(array, "arange") if dtype is None else dtype_of(dtype)), device)


def eye(n: int, dtype: Any = float32, device: Any = None) -> Tensor:
    """The identity matrix, (n, n). A constant of a recorded step."""
    return _constant_array(np.eye(n, dtype=dtype_of(dtype)), device)


def _constant_array(array: np.ndarray, device: Any) -> Tensor:
    target = _memory(device)
    return Tensor(array if target is HOST else target.from_host(array))


def _memory(device: Any) -> Memory:
    """That of a device, of a tensor, or for None the default one."""
    if device is None:
        return default_memory()
    if isinstance(device, Tensor):
        return memory_of(device.array)
    return memory(device)


def _shape(shape: tuple) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
