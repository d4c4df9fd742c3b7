"""Pooling layers. Images are (n, h, w, c), rows (n, l, c)."""

from __future__ import annotations

from nanonet.nn.module import Module
from nanonet.ops import pool
from nanonet.ops.window import Padding
from nanonet.options import hashable
from nanonet.tensor import Tensor

Sides = int | tuple[int, int]


class _Pool(Module):
    """A pooling function of `nanonet.functional` with its options."""

    _function: staticmethod
    _axes = 2

    def _start(self, **options) -> None:
        self._options = {name: hashable(value) for name, value in options.items()}
        if "kernel_size" in options:
            pool.check(type(self).__name__, self._axes, **self._options)
        if "output_size" in options:
            pool.check_output_size(type(self).__name__, self._axes, **self._options)

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x, **self._options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._options.items())


class MaxPool1d(_Pool):
    """The greatest value of each window: x (n, l, c) -> (n, outputs, c). See `functional.max_pool1d`."""

    _function = staticmethod(pool.max_pool1d)
    _axes = 1

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: Padding = 0,
        dilation: int = 1,
        ceil_mode: bool = False,
    ):
        self._start(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)


class MaxPool2d(_Pool):
    """The greatest value of each window: x (n, h, w, c) -> (n, oh, ow, c). See `functional.max_pool2d`."""

    _function = staticmethod(pool.max_pool2d)

    def __init__(
        self,
        kernel_size: Sides,
        stride: Sides | None = None,
        padding: Padding = 0,
        dilation: Sides = 1,
        ceil_mode: bool = False,
    ):
        self._start(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)


class AvgPool1d(_Pool):
    """The mean of each window: x (n, l, c) -> (n, outputs, c). See `functional.avg_pool1d`."""

    _function = staticmethod(pool.avg_pool1d)
    _axes = 1

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        self._start(
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )


class AvgPool2d(_Pool):
    """The mean of each window: x (n, h, w, c) -> (n, oh, ow, c). See `functional.avg_pool2d`."""

    _function = staticmethod(pool.avg_pool2d)

    def __init__(
        self,
        kernel_size: Sides,
        stride: Sides | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        self._start(
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=divisor_override,
        )


class AdaptiveAvgPool1d(_Pool):
    """The means of output_size windows that cover a row evenly: x (n, l, c) -> (n, output_size, c)."""

    _function = staticmethod(pool.adaptive_avg_pool1d)
    _axes = 1

    def __init__(self, output_size: int):
        self._start(output_size=output_size)


class AdaptiveAvgPool2d(_Pool):
    """The means of oh x ow windows that cover an image evenly: x (n, h, w, c) -> (n, oh, ow, c). None keeps a side."""

    _function = staticmethod(pool.adaptive_avg_pool2d)

    def __init__(self, output_size: int | tuple[int | None, int | None]):
        self._start(output_size=output_size)


class GlobalAvgPool1d(_Pool):
    """The mean of each channel: x (n, l, c) -> (n, c)."""

    _function = staticmethod(pool.global_avg_pool1d)

    def __init__(self, keepdims: bool = False):
        self._start(keepdims=keepdims)


class GlobalAvgPool2d(_Pool):
    """The mean of each channel: x (n, h, w, c) -> (n, c)."""

    _function = staticmethod(pool.global_avg_pool2d)

    def __init__(self, keepdims: bool = False):
        self._start(keepdims=keepdims)


# ---------------------------------------------------------------------------- Keras's names


class MaxPooling2D(_Pool):
    """As in Keras: the greatest value of each window of pool_size. padding: "valid" or "same"."""

    _function = staticmethod(pool.max_pool2d)

    def __init__(self, pool_size: Sides = 2, strides: Sides | None = None, padding: Padding = "valid"):
        self._start(kernel_size=pool_size, stride=strides, padding=padding)


class AveragePooling2D(_Pool):
    """As in Keras: the mean of each window of pool_size, padding not counted. padding: "valid" or "same"."""

    _function = staticmethod(pool.avg_pool2d)

    def __init__(self, pool_size: Sides = 2, strides: Sides | None = None, padding: Padding = "valid"):
        self._start(kernel_size=pool_size, stride=strides, padding=padding, count_include_pad=False)


class MaxPooling1D(_Pool):
    """As in Keras: the greatest value of each window of pool_size, x (n, l, c). padding: "valid" or "same"."""

    _function = staticmethod(pool.max_pool1d)
    _axes = 1

    def __init__(self, pool_size: int = 2, strides: int | None = None, padding: Padding = "valid"):
        self._start(kernel_size=pool_size, stride=strides, padding=padding)


class AveragePooling1D(_Pool):
    """As in Keras: the mean of each window of pool_size, x (n, l, c), padding not counted."""

    _function = staticmethod(pool.avg_pool1d)
    _axes = 1

    def __init__(self, pool_size: int = 2, strides: int | None = None, padding: Padding = "valid"):
        self._start(kernel_size=pool_size, stride=strides, padding=padding, count_include_pad=False)


class GlobalAveragePooling1D(_Pool):
    """As in Keras: the mean of each channel, x (n, l, c) -> (n, c)."""

    _function = staticmethod(pool.global_avg_pool1d)

    def __init__(self, keepdims: bool = False):
        self._start(keepdims=keepdims)


class GlobalAveragePooling2D(_Pool):
    """As in Keras: the mean of each channel, x (n, h, w, c) -> (n, c)."""

    _function = staticmethod(pool.global_avg_pool2d)

    def __init__(self, keepdims: bool = False):
        self._start(keepdims=keepdims)
