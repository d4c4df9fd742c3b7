"""The GPU backend: the reference on CuPy, with every slot that has a kernel put in its place."""

from __future__ import annotations

from dataclasses import replace

from kernels.contract import Backend
from kernels.cupy_gpu.convolution import Convolution
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import Elementwise
from kernels.cupy_gpu.gemm import Gemm
from kernels.reference import reference


def backend(device: Device, precision: str = "float32") -> Backend:
    """The contract's slots as kernels on this device; precision: that of products, one of gemm.PRECISIONS."""
    elementwise = Elementwise(device)
    gemm = Gemm(device, precision)
    convolution = Convolution(gemm)
    return replace(
        reference(device.xp),
        name="cupy_gpu",
        elementwise=elementwise.elementwise,
        copy=elementwise.copy,
        matmul=gemm.matmul,
        linear=gemm.linear,
        conv2d=convolution.conv2d,
        conv2d_transpose=convolution.conv2d_transpose,
        conv2d_weight_gradient=convolution.conv2d_weight_gradient,
    )
