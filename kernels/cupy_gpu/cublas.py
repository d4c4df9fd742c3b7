"""Products through cuBLASLt, NVIDIA's library, with a bias added by the same kernel.

CuPy refuses to call its cuBLAS handle while a CUDA graph is captured. Here every product has a workspace of its own,
from the plan, so that it may be. What cuBLASLt computes may depend on the GPU and on how arrays are aligned; it is the
same from run to run. Its relu is not used: nothing says that it keeps NaN. Not measured yet.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.cupy_gpu.choice import Unfit
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.operand import Operand, Product, Target

__all__ = ["Columns", "CublasLt", "columns", "loaded"]

#: The most bytes of workspace, as NVIDIA advises for Hopper.
WORKSPACE = 32 << 20

#: cudaDataType of operands and of results, and cublasComputeType_t. Operands for bf16 are rounded before, into uint16.
TYPES = {"float32": (0, 0, 68), "tf32": (0, 0, 77), "bf16": (14, 0, 68), "float64": (1, 1, 70)}

# Names of cublasLt.h: attributes of a product, of a matrix, of what is preferred, and what a kernel does at its end.
TURN_FIRST, TURN_SECOND, EPILOGUE, BIAS_POINTER = 3, 4, 7, 8
BATCH, STEP = 5, 6
MOST_WORKSPACE, ALIGNMENTS = 1, (5, 6, 7, 8)
NO_EPILOGUE, BIAS = 1, 4


@dataclass(frozen=True)
class Columns:
    """A product as cuBLAS takes it, columns first: out' (m, n) = first (m, k) @ second (k, n), `batch` times.

    Operands have columns `lead` apart, or rows if turned, and follow each other by `step`.
    """

    m: int
    n: int
    k: int
    batch: int
    first: Any
    first_turned: bool
    first_lead: int
    first_step: int
    second: Any
    second_turned: bool
    second_lead: int
    second_step: int
    out: Any
    out_lead: int
    out_step: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """All but where the operands lie."""
        first = (self.first_turned, self.first_lead, self.first_step)
        second = (self.second_turned, self.second_lead, self.second_step)
        return (self.m, self.n, self.k, self.batch, *first, *second, self.out_lead, self.out_step)


def columns(size: Product, a: Operand, b: Operand, out: Target) -> Columns | None:
    """The product out' = b' a' that fills out with a b; None if it is none that cuBLAS can make."""
    if out.steps is not None or 1 not in (size.outer, size.inner) or not size.k:
        return None
    if 1 not in (a.side, a.k) or 1 not in (b.side, b.k):
        return None
    by_outer = size.inner == 1
    steps = [x.outer if by_outer else x.inner for x in (b, a, out)]
    second_turned, first_turned = a.k != 1, b.side != 1
    leads = (b.side if first_turned else b.k), (a.k if second_turned else a.side), out.row
    least = (size.k if first_turned else size.n), (size.m if second_turned else size.k), size.n
    if any(lead < side or lead >= 2**31 for lead, side in zip(leads, least, strict=True)):
        return None
    return Columns(
        *(size.n, size.m, size.k, size.batch),
        *(b.array, first_turned, leads[0], steps[0]),
        *(a.array, second_turned, leads[1], steps[1]),
        *(out.array, leads[2], steps[2]),
    )


class CublasLt:
    """cuBLASLt on a device. library: its functions; stream: the address of the stream that is to be used."""

    def __init__(self, device: Device, library: Any, stream: Callable[[], int]):
        self._device, self._library, self._stream = device, library, stream
        self._handle = ctypes.c_void_p()
        self._call("cublasLtCreate", ctypes.byref(self._handle))
        self._plans: dict[tuple, _Plan | None] = {}
        self._lock = threading.Lock()

    def multiply(self, precision: str, x: Columns, bias: Any) -> None:
        """out = first second, plus bias (m,) with its elements side by side. Raises Unfit where cuBLASLt has no way."""
        address = self._device.address
        first, second, out = (address(array) for array in (x.first, x.second, x.out))
        added = 0 if bias is None else address(bias)
        key = (precision, x.sizes, *map(_alignment, (first, second, out)), added and _alignment(added))
        if key not in self._plans:
            self._plans[key] = self._planned(precision, x, (first, second, out), added)
        plan = self._plans[key]
        if plan is None:
            raise Unfit
        workspace = self._device.empty((plan.workspace,), np.uint8) if plan.workspace else None
        there = ctypes.c_void_p(0 if workspace is None else address(workspace))
        operands = [ctypes.c_void_p(at) for at in (first, second, out)]

        def call() -> None:
            with self._lock:  # the bias is part of the plan, which others use too
                if added:
                    self._set("MatmulDesc", plan.product, BIAS_POINTER, ctypes.c_void_p(added))
                self._call(
                    "cublasLtMatmul",
                    *(self._handle, plan.product, ctypes.byref(plan.one)),
                    *(operands[0], plan.first, operands[1], plan.second, ctypes.byref(plan.zero)),
                    *(operands[2], plan.out, operands[2], plan.out, ctypes.byref(plan.found.way)),
                    *(there, ctypes.c_size_t(plan.workspace), ctypes.c_void_p(self._stream())),
                )

        used = (x.first, x.second, x.out, bias, workspace)
        self._device.carry_out(call, "cublas", [array for array in used if array is not None])

    def _planned(self, precision: str, x: Columns, operands: tuple[int, ...], bias: int) -> _Plan | None:
        """What cuBLASLt advises for such a product; None if nothing."""
        operand, result, compute = TYPES[precision]
        product = self._made("MatmulDesc", compute, result)
        self._set("MatmulDesc", product, TURN_FIRST, ctypes.c_int32(x.first_turned))
        self._set("MatmulDesc", product, TURN_SECOND, ctypes.c_int32(x.second_turned))
        self._set("MatmulDesc", product, EPILOGUE, ctypes.c_uint32(BIAS if bias else NO_EPILOGUE))
        if bias:
            self._set("MatmulDesc", product, BIAS_POINTER, ctypes.c_void_p(bias))
        sides = [
            (x.k, x.m) if x.first_turned else (x.m, x.k),
            (x.n, x.k) if x.second_turned else (x.k, x.n),
            (x.m, x.n),
        ]
        steps = [(x.first_lead, x.first_step), (x.second_lead, x.second_step), (x.out_lead, x.out_step)]
        layouts = []
        for kind, (rows, columns), (lead, step) in zip((operand, operand, result), sides, steps, strict=True):
            long = ctypes.c_uint64(rows), ctypes.c_uint64(columns), ctypes.c_int64(lead)
            layout = self._made("MatrixLayout", kind, *long)
            self._set("MatrixLayout", layout, BATCH, ctypes.c_int32(x.batch))
            self._set("MatrixLayout", layout, STEP, ctypes.c_int64(step))
            layouts.append(layout)
        wanted = self._made("MatmulPreference")
        self._set("MatmulPreference", wanted, MOST_WORKSPACE, ctypes.c_uint64(WORKSPACE))
        for which, at in zip(ALIGNMENTS, (*operands, operands[2]), strict=True):
            self._set("MatmulPreference", wanted, which, ctypes.c_uint32(_alignment(at)))
        found, count = _Found(), ctypes.c_int()
        status = self._library.cublasLtMatmulAlgoGetHeuristic(
            *(self._handle, product, *layouts, layouts[2], wanted, 1, ctypes.byref(found), ctypes.byref(count))
        )
        self._call("cublasLtMatmulPreferenceDestroy", wanted)
        if status or not count.value or found.state:
            return None
        number = ctypes.c_double if precision == "float64" else ctypes.c_float
        return _Plan(product, *layouts, found, number(1), number(0))

    def _made(self, kind: str, *arguments: Any) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self._call(f"cublasLt{kind}Create", ctypes.byref(made), *arguments)
        return made

    def _set(self, kind: str, thing: ctypes.c_void_p, attribute: int, value: Any) -> None:
        size = ctypes.c_size_t(ctypes.sizeof(value))
        self._call(f"cublasLt{kind}SetAttribute", thing, attribute, ctypes.byref(value), size)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with status {status}")


class _Found(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("way", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


@dataclass(frozen=True)
class _Plan:
    """Descriptors of a product and of its matrices, and how it is to be carried out."""

    product: ctypes.c_void_p
    first: ctypes.c_void_p
    second: ctypes.c_void_p
    out: ctypes.c_void_p
    found: _Found
    one: Any
    zero: Any

    @property
    def workspace(self) -> int:
        return self.found.workspace


def _alignment(address: int) -> int:
    """The power of two, up to 256, that an address is a multiple of."""
    return min(256, address & -address)


def loaded(device: Device) -> CublasLt | None:
    """cuBLASLt as it comes with CuPy or CUDA, on its current device and stream; None where it is not to be found."""
    import cupy

    with suppress(ImportError, OSError, RuntimeError):
        from cuda.pathfinder import load_nvidia_dynamic_lib

        library = ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
        return CublasLt(device, library, lambda: cupy.cuda.get_current_stream().ptr)
    return None
