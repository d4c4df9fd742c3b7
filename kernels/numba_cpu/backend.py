"""The Numba CPU backend: the reference, with every slot that has machine code put in its place."""

from dataclasses import replace

import numpy as np

from kernels.contract import Backend
from kernels.numba_cpu import (
    activation,
    conv,
    conv_weight,
    copy,
    elementwise,
    gemm,
    group_norm,
    knobs,
    norm,
    pool,
    random,
    reduce,
    rows,
    softmax,
    updates,
)
from kernels.reference import reference


def backend() -> Backend:
    """The contract's slots as machine code for this processor, with the settings that were found for it."""
    knobs.load()
    return replace(
        reference(np),
        name="numba_cpu",
        elementwise=elementwise.elementwise,
        copy=copy.copy,
        reduce=reduce.reduce,
        argmax=reduce.argmax,
        matmul=gemm.matmul,
        linear=gemm.linear,
        conv2d=conv.conv2d,
        conv2d_transpose=conv.conv2d_transpose,
        conv2d_weight_gradient=conv_weight.conv2d_weight_gradient,
        activation_gradient=activation.activation_gradient,
        max_pool2d=pool.max_pool2d,
        max_pool2d_backward=pool.max_pool2d_backward,
        avg_pool2d=pool.avg_pool2d,
        avg_pool2d_backward=pool.avg_pool2d_backward,
        batch_norm=norm.batch_norm,
        batch_norm_backward=norm.batch_norm_backward,
        group_norm=group_norm.group_norm,
        group_norm_backward=group_norm.group_norm_backward,
        softmax=softmax.softmax,
        log_softmax=softmax.log_softmax,
        softmax_backward=softmax.softmax_backward,
        log_softmax_backward=softmax.log_softmax_backward,
        cross_entropy=softmax.cross_entropy,
        cross_entropy_backward=softmax.cross_entropy_backward,
        take=rows.take,
        take_batch=rows.take_batch,
        scatter_add=rows.scatter_add,
        update=updates.update,
        advance=updates.advance,
        random_uniform=random.random_uniform,
        random_normal=random.random_normal,
        dropout_mask=random.dropout_mask,
    )
