"""Large products through cuBLAS, with a handle of our own. Not measured yet: no backend uses it unless it is told to.

CuPy refuses to call its handle while a CUDA graph is captured; ours has a workspace from the start, so that it may be.
What cuBLAS computes may depend on the GPU and on how arrays are aligned; it is the same from run to run.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from kernels.cupy_gpu.operand import Operand, Product, Target

__all__ = ["Columns", "Cublas", "columns"]

#: Multiplications from which cuBLAS serves.
LARGE = 2**30
#: Bytes of workspace, as NVIDIA advises for Hopper.
WORKSPACE = 32 << 20

#: cudaDataType of operands and cublasComputeType_t.
TYPES = {"float32": (0, 68), "tf32": (0, 77), "bf16": (0, 75), "float64": (1, 70)}


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


def columns(size: Product, a: Operand, b: Operand, out: Target) -> Columns | None:
    """The product out' = b' a' that fills out with a b; None if it is none that cuBLAS can make, or a small one."""
    if size.batch * size.m * size.n * size.k < LARGE or out.steps is not None or 1 not in (size.outer, size.inner):
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


class Cublas:
    """cuBLAS on CuPy's current device and stream."""

    def __init__(self) -> None:
        import cupy
        import cupy_backends.cuda.libs.cublas  # noqa: F401  (loads the library)

        self._stream = cupy.cuda.get_current_stream
        self._library = ctypes.CDLL(f"libcublas.so.{cupy.cuda.runtime.runtimeGetVersion() // 1000}")
        self._handle = ctypes.c_void_p()
        self._workspace = cupy.empty(WORKSPACE, "u1")
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._numbers = {kind: (_scalar(kind, 1), _scalar(kind, 0)) for kind in TYPES}

    def multiply(self, precision: str, x: Columns) -> None:
        """Carry out a product."""
        data, compute = TYPES[precision]
        one, zero = self._numbers[precision]
        # A handle loses its workspace when its stream is set.
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(self._stream().ptr))
        self._call(
            "cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(self._workspace.data.ptr), ctypes.c_size_t(WORKSPACE)
        )
        self._call(
            "cublasGemmStridedBatchedEx",
            *(self._handle, int(x.first_turned), int(x.second_turned), x.m, x.n, x.k, ctypes.byref(one)),
            *(ctypes.c_void_p(x.first.data.ptr), data, x.first_lead, ctypes.c_longlong(x.first_step)),
            *(ctypes.c_void_p(x.second.data.ptr), data, x.second_lead, ctypes.c_longlong(x.second_step)),
            ctypes.byref(zero),
            *(ctypes.c_void_p(x.out.data.ptr), data, x.out_lead, ctypes.c_longlong(x.out_step)),
            *(x.batch, compute, -1),
        )

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} of cuBLAS failed with status {status}")


def _scalar(precision: str, value: float) -> Any:
    return (ctypes.c_double if precision == "float64" else ctypes.c_float)(value)
