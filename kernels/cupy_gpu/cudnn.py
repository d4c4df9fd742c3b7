"""Convolutions through cuDNN, by the graph interface of the package nvidia-cudnn-frontend, where that is installed.

One of the ways that `choice` tries when it searches; nothing imports the package before. Images and results are NHWC,
filters are copied to cuDNN's order for it. Precisions are float32, without tensor cores and Winograd's algorithm, and
tf32. Kernels that cuDNN calls not deterministic are left out. Not measured yet, and not run: no GPU was at hand.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from kernels.cupy_gpu.choice import Unfit
from kernels.cupy_gpu.device import Device

__all__ = ["FORWARD", "INPUT_GRADIENT", "WEIGHT_GRADIENT", "Cudnn", "Kind", "loaded"]


@dataclass(frozen=True)
class Kind:
    """What a convolution computes: cuDNN's operation, the names of its operands, and which of image, filters and result
    it gives."""

    operation: str
    operands: tuple[str, str]
    given: int


FORWARD = Kind("conv_fprop", ("image", "weight"), 2)
INPUT_GRADIENT = Kind("conv_dgrad", ("loss", "filter"), 0)
WEIGHT_GRADIENT = Kind("conv_wgrad", ("image", "loss"), 1)

#: The most bytes of workspace.
WORKSPACE = 256 << 20
#: Notes on kernels that do not compute what a precision says.
TENSOR_CORES = ("TENSOR_CORE", "DOWN_CONVERT_INPUTS")
OTHER_SUMS = ("FFT", "WINOGRAD", "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13")
UNWANTED = {"float32": (*TENSOR_CORES, *OTHER_SUMS, "NONDETERMINISTIC"), "tf32": (*OTHER_SUMS, "NONDETERMINISTIC")}


@dataclass(frozen=True)
class _Plan:
    graph: Any
    tensors: tuple[Any, ...]
    workspace: int


class Cudnn:
    """cuDNN on a device. module: `cudnn`; stream: the address of the stream that is to be used."""

    def __init__(self, device: Device, module: Any, stream: Callable[[], int]):
        self._device, self._module, self._stream = device, module, stream
        self._handle = module.create_handle()
        self._plans: dict[tuple, _Plan | None] = {}
        self._lock = threading.Lock()

    def convolve(
        self,
        kind: Kind,
        precision: str,
        image: Any,
        filters: Any,
        result: Any,
        stride: Sequence[int],
        padding: Sequence[Sequence[int]],
        dilation: Sequence[int],
    ) -> None:
        """The result of a convolution, its image's or its filters' gradient, from the other two.

        image (n, h, w, c), filters (o, kh, kw, c / groups), result (n, oh, ow, o), C-contiguous and of float32. Raises
        Unfit where cuDNN has no way.
        """
        arrays = image, filters, result
        addresses = [self._device.address(array) for array in arrays]
        whole = all(array.flags.c_contiguous and array.dtype.name == "float32" for array in arrays)
        if precision not in UNWANTED or not whole or any(address % 16 for address in addresses):
            raise Unfit
        constants = tuple(stride), tuple(map(tuple, padding)), tuple(dilation)
        key = (kind, precision, *[array.shape for array in arrays], *constants)
        if key not in self._plans:
            self._plans[key] = self._planned(kind, precision, arrays, *constants)
        found = self._plans[key]
        if found is None:
            raise Unfit
        workspace = self._device.empty((found.workspace,), np.uint8) if found.workspace else None
        places = dict(zip(found.tensors, addresses, strict=True))
        there = 0 if workspace is None else self._device.address(workspace)

        def call() -> None:
            with self._lock:
                self._module.set_stream(handle=self._handle, stream=self._stream())
                found.graph.execute(places, there, handle=self._handle)

        self._device.carry_out(call, "cudnn", arrays if workspace is None else (*arrays, workspace))

    def _planned(
        self,
        kind: Kind,
        precision: str,
        arrays: Sequence[Any],
        stride: tuple[int, ...],
        padding: tuple[tuple[int, ...], ...],
        dilation: tuple[int, ...],
    ) -> _Plan | None:
        """What cuDNN advises; None if nothing."""
        module, given = self._module, kind.given
        real = module.data_type.FLOAT
        shapes = [tuple(array.shape[axis] for axis in (0, 3, 1, 2)) for array in arrays]  # channels second
        steps = [tuple(_whole(array.shape)[axis] for axis in (0, 3, 1, 2)) for array in arrays]
        try:
            graph = module.pygraph(
                io_data_type=real, intermediate_data_type=real, compute_data_type=real, handle=self._handle
            )
            tensors: list[Any] = [None] * 3
            for i in {0, 1, 2} - {given}:
                tensors[i] = graph.tensor(
                    name=f"operand {i}", dim=list(shapes[i]), stride=list(steps[i]), data_type=real
                )
            operands = {"image": tensors[0], "weight": tensors[1], "filter": tensors[1], "loss": tensors[2]}
            tensors[given] = getattr(graph, kind.operation)(
                **{name: operands[name] for name in kind.operands},
                pre_padding=[before for before, _ in padding],
                post_padding=[after for _, after in padding],
                stride=list(stride),
                dilation=list(dilation),
                compute_data_type=real,
            )
            out = tensors[given].set_output(True).set_data_type(real)
            out.set_dim(list(shapes[given])).set_stride(list(steps[given]))
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([module.heur_mode.A, module.heur_mode.FALLBACK])
            notes = module.numerical_note
            graph.deselect_numeric_notes([getattr(notes, name) for name in UNWANTED[precision] if hasattr(notes, name)])
            graph.deselect_workspace_greater_than(WORKSPACE)
            graph.check_support()
            graph.build_plans()
        except (module.cudnnGraphNotSupportedError, RuntimeError):
            return None
        return _Plan(graph, tuple(tensors), graph.get_workspace_size())


def _whole(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a C-contiguous array, in elements."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def loaded(device: Device) -> Cudnn | None:
    """cuDNN on CuPy's current device and stream; None where it is not installed."""
    if importlib.util.find_spec("cudnn") is None:
        return None
    import cupy

    try:
        import cudnn

        return Cudnn(device, cudnn, lambda: cupy.cuda.get_current_stream().ptr)
    except (
        ImportError,
        AttributeError,
        OSError,
        RuntimeError,
    ):  # the interface without the library, or another package
        return None
