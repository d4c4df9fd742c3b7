"""The GPU backend: the reference on CuPy, with every slot that has a kernel put in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from kernels.contract import Backend
from kernels.cupy_gpu import cublas, cudnn
from kernels.cupy_gpu.activation import Activation
from kernels.cupy_gpu.batch_norm import BatchNorm
from kernels.cupy_gpu.choice import Choice, kept_file, seconds
from kernels.cupy_gpu.convolution import Convolution
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import Elementwise
from kernels.cupy_gpu.gemm import Gemm
from kernels.cupy_gpu.gpu import Cuda
from kernels.cupy_gpu.group_norm import GroupNorm
from kernels.cupy_gpu.pool import Pool
from kernels.cupy_gpu.random import Random
from kernels.cupy_gpu.reduce import Reduce
from kernels.cupy_gpu.rows import Rows
from kernels.cupy_gpu.softmax import Softmax
from kernels.cupy_gpu.traces import traced
from kernels.cupy_gpu.updates import Updates
from kernels.reference import reference


def cuda() -> Backend:
    """The backend on CuPy's current GPU, with what other libraries offer for large products."""
    device = Cuda()
    found = Choice(device, kept_file, seconds)
    libraries = cache(lambda: cublas.loaded(device)), cache(lambda: cudnn.loaded(device))
    return backend(device, None, found, *libraries)


def backend(
    device: Device,
    precision: str | None = None,
    choice: Choice | None = None,
    products: Callable[[], cublas.CublasLt | None] | None = None,
    convolutions: Callable[[], cudnn.Cudnn | None] | None = None,
) -> Backend:
    """The contract's slots as kernels on this device.

    precision: that of products, one of `kernels.precision.PRODUCTS`; unless given, what is set there.
    choice: among our kernels for large products and convolutions and what the libraries give, `products` and
        `convolutions`; without it ours serve.
    """
    elementwise, reduce, softmax = Elementwise(device), Reduce(device), Softmax(device)
    rows, updates, random, pool = Rows(device), Updates(device), Random(device), Pool(device)
    batches, groups = BatchNorm(device), GroupNorm(device)
    gemm = Gemm(device, precision, choice, products)
    convolution = Convolution(gemm, convolutions, elementwise.copy)
    slots = {
        "elementwise": elementwise.elementwise,
        "copy": elementwise.copy,
        "reduce": reduce.reduce,
        "argmax": reduce.argmax,
        "softmax": softmax.softmax,
        "log_softmax": softmax.log_softmax,
        "softmax_backward": softmax.softmax_backward,
        "log_softmax_backward": softmax.log_softmax_backward,
        "cross_entropy": softmax.cross_entropy,
        "cross_entropy_backward": softmax.cross_entropy_backward,
        "activation_gradient": Activation(device).activation_gradient,
        "max_pool2d": pool.max_pool2d,
        "max_pool2d_backward": pool.max_pool2d_backward,
        "avg_pool2d": pool.avg_pool2d,
        "avg_pool2d_backward": pool.avg_pool2d_backward,
        "batch_norm": batches.batch_norm,
        "batch_norm_backward": batches.batch_norm_backward,
        "group_norm": groups.group_norm,
        "group_norm_backward": groups.group_norm_backward,
        "take": rows.take,
        "take_batch": rows.take_batch,
        "scatter_add": rows.scatter_add,
        "update": updates.update,
        "advance": elementwise.advance,
        "random_uniform": random.random_uniform,
        "random_normal": random.random_normal,
        "dropout_mask": random.dropout_mask,
        "matmul": gemm.matmul,
        "linear": gemm.linear,
        "conv2d": convolution.conv2d,
        "conv2d_transpose": convolution.conv2d_transpose,
        "conv2d_weight_gradient": convolution.conv2d_weight_gradient,
    }
    remembered = {name: traced(device, slot) for name, slot in slots.items()}
    return replace(reference(device.xp), name="cupy_gpu", memory=device.memory, **remembered)
