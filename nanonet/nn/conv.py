"""Layers that convolve. Images are (n, h, w, c), weights (kh, kw, in_channels / groups, out_channels)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels import plan
from nanonet import init
from nanonet.errors import OptionError, ShapeError
from nanonet.nn.linear import DEFAULT, Initializer, fused_activation, keras_initializer
from nanonet.nn.module import Module
from nanonet.nn.parameter import Parameter
from nanonet.ops.conv import conv1d, conv2d, conv_transpose2d
from nanonet.ops.window import Padding, padding_of
from nanonet.options import count, hashable, sides
from nanonet.random import as_generator
from nanonet.tensor import Tensor

Sides = int | tuple[int, int]


def _padding(name: str, padding: Padding, kernel: tuple[int, ...]) -> Padding:
    """`padding` as a key of caches. Raises OptionError if it is none for any image."""
    padding = hashable(padding)
    padding_of(name, padding, kernel, kernel, (1,) * len(kernel))
    return padding


class _Conv(Module):
    """What the convolutions share: options, and weights with PyTorch's scale, uniform in +- 1 / sqrt(fan_in)."""

    _axes = 2

    def _start(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode):
        name, axes = type(self).__name__, self._axes
        self.in_channels = count(f"{name}: in_channels", in_channels)
        self.out_channels = count(f"{name}: out_channels", out_channels)
        self.kernel_size = sides(f"{name}: kernel_size", kernel_size, axes)
        self.stride = sides(f"{name}: stride", stride, axes)
        self.padding = _padding(name, padding, self.kernel_size)
        self.dilation = sides(f"{name}: dilation", dilation, axes)
        self.groups = count(f"{name}: groups", groups)
        for argument, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise OptionError(f"{name}: {argument} is {channels}; wanted a multiple of groups {self.groups}")
        if padding_mode != "zeros":
            raise OptionError(f"{name}: padding_mode is {padding_mode!r}; wanted 'zeros'")

    def _make(self, shape: tuple[int, ...], bias: bool, weight_init: Initializer, bias_init: Initializer, rng) -> None:
        rng = as_generator(rng)
        self.weight = Parameter(init.get(weight_init)((*self.kernel_size, *shape), rng=rng))
        self.bias = Parameter(init.get(bias_init)((self.out_channels,), rng=rng)) if bias else None

    def extra_repr(self) -> str:
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        usual = {"padding": 0, "dilation": (1,) * self._axes, "groups": 1}
        shown += "".join(f", {name}={getattr(self, name)!r}" for name in usual if getattr(self, name) != usual[name])
        return shown if self.bias is not None else f"{shown}, bias=False"


class Conv1d(_Conv):
    """Convolution along one axis: x (n, l, in_channels) -> (n, outputs, out_channels). As `Conv2d`."""

    _axes = 1
    _fuses = ("relu", "tanh", "sigmoid")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: Padding = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        weight_init: Initializer = DEFAULT,
        bias_init: Initializer = "zeros",
        rng: np.random.Generator | int | None = None,
    ):
        self._start(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self._make((self.in_channels // self.groups, self.out_channels), bias, weight_init, bias_init, rng)

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        options = self.stride, self.padding, self.dilation, self.groups
        return conv1d(x, self.weight, self.bias, *options, activation)


class Conv2d(_Conv):
    """Convolution of images: x (n, h, w, in_channels) -> (n, oh, ow, out_channels).

    Arguments are PyTorch's; padding may also be ((top, bottom), (left, right)): see `functional.conv2d`. weight (kh,
    kw, in_channels / groups, out_channels); weight_init, bias_init: a name or a function, see `nanonet.init`. The
    weight's default is uniform in +- 1 / sqrt(kh kw in_channels / groups), as in PyTorch; the bias starts at zero.
    """

    _fuses = ("relu", "tanh", "sigmoid")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sides,
        stride: Sides = 1,
        padding: Padding = 0,
        dilation: Sides = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        weight_init: Initializer = DEFAULT,
        bias_init: Initializer = "zeros",
        rng: np.random.Generator | int | None = None,
    ):
        self._start(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self._make((self.in_channels // self.groups, self.out_channels), bias, weight_init, bias_init, rng)

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        options = self.stride, self.padding, self.dilation, self.groups
        return conv2d(x, self.weight, self.bias, *options, activation)


class ConvTranspose2d(_Conv):
    """The transpose of a convolution, which makes images larger: x (n, h, w, in_channels) -> (n, oh, ow, out_channels).

        oh = (h - 1) * stride - 2 padding + dilation * (kh - 1) + 1 + output_padding

    weight (kh, kw, out_channels / groups, in_channels); the rest as in `Conv2d`.
    """

    _fuses = ("relu", "tanh", "sigmoid")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sides,
        stride: Sides = 1,
        padding: Padding = 0,
        output_padding: Sides = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sides = 1,
        padding_mode: str = "zeros",
        *,
        weight_init: Initializer = DEFAULT,
        bias_init: Initializer = "zeros",
        rng: np.random.Generator | int | None = None,
    ):
        self._start(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        if self.padding == "same":
            raise OptionError("ConvTranspose2d: padding is 'same'; wanted integers")
        self.output_padding = sides("ConvTranspose2d: output_padding", output_padding, 2, 0)
        if any(extra >= stride for extra, stride in zip(self.output_padding, self.stride, strict=True)):
            raise OptionError(
                f"ConvTranspose2d: output_padding is {output_padding!r}; wanted less than stride {self.stride}"
            )
        self._make((self.out_channels // self.groups, self.in_channels), bias, weight_init, bias_init, rng)

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        options = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return conv_transpose2d(x, self.weight, self.bias, *options, activation)


class _KerasConv(Module):
    """What Keras's convolutions share: weights that are made at the first input."""

    _axes = 2
    _form = "(n, h, w, c)"
    _convolve = staticmethod(conv2d)

    def __init__(
        self,
        filters: int,
        kernel_size: Sides,
        strides: Sides = 1,
        padding: Padding = "valid",
        *,
        dilation_rate: Sides = 1,
        groups: int = 1,
        activation: str | Callable[[Tensor], Tensor] | None = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        input_shape: tuple[int, ...] | None = None,
        rng: np.random.Generator | int | None = None,
    ):
        name, axes = type(self).__name__, self._axes
        self.filters = count(f"{name}: filters", filters)
        self.kernel_size = sides(f"{name}: kernel_size", kernel_size, axes)
        self.strides = sides(f"{name}: strides", strides, axes)
        self.padding = _padding(name, padding, self.kernel_size)
        self.dilation_rate = sides(f"{name}: dilation_rate", dilation_rate, axes)
        self.groups = count(f"{name}: groups", groups)
        if self.filters % self.groups:
            raise OptionError(f"{name}: filters is {filters}; wanted a multiple of groups {groups}")
        self.activation = activation
        self._activate, self._fused = fused_activation(activation)
        self.use_bias = use_bias
        self._initializers = keras_initializer(kernel_initializer), keras_initializer(bias_initializer)
        self._rng = rng
        self._built = False
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        self.input_shape = input_shape
        if input_shape is not None:
            if len(input_shape) != axes + 1:
                raise OptionError(f"{name}: input_shape is {input_shape!r}; wanted that of one row of {self._form}")
            self._make(input_shape[-1])

    def _make(self, channels: int) -> None:
        name = type(self).__name__
        if count(f"{name}: the input's channels", channels) % self.groups:
            raise OptionError(f"{name}: groups is {self.groups}; wanted a divisor of the input's {channels} channels")
        with plan.paused():
            rng = as_generator(self._rng)
            kernel, bias = self._initializers
            self.weight = Parameter(kernel((*self.kernel_size, channels // self.groups, self.filters), rng=rng))
            self.bias = Parameter(bias((self.filters,), rng=rng)) if self.use_bias else None
        self._built = True

    def forward(self, x: Tensor) -> Tensor:
        if not self._built:
            if x.ndim != self._axes + 2:
                raise ShapeError(f"{type(self).__name__}: x is {x.shape}, wanted {self._form}")
            self._make(x.shape[-1])
        options = self.strides, self.padding, self.dilation_rate, self.groups
        out = self._convolve(x, self.weight, self.bias, *options, self._fused)
        return out if self._activate is None else self._activate(out)

    def extra_repr(self) -> str:
        chosen = getattr(self.activation, "__name__", self.activation)
        return (
            f"{self.filters}, kernel_size={self.kernel_size}, strides={self.strides}, padding={self.padding!r}, "
            f"activation={chosen!r}"
        )


class Conv2D(_KerasConv):
    """activation(convolution of images), as in Keras: x (n, h, w, c) -> (n, oh, ow, filters).

    The weights (`weight` (kh, kw, c / groups, filters) and `bias`) are made at the first input, or at once when
    input_shape, (h, w, c), is given. padding: "valid", "same", or as in `Conv2d`. activation: a name of
    `nn.activation`, a function or None; kernel_initializer and bias_initializer: see `nanonet.init`.
    """


class Conv1D(_KerasConv):
    """activation(convolution along one axis), as in Keras: x (n, l, c) -> (n, outputs, filters). As `Conv2D`, with
    weight (k, c / groups, filters) and input_shape (l, c). Keras's "causal" padding is (((k - 1) * dilation_rate, 0),).
    """

    _axes = 1
    _form = "(n, l, c)"
    _convolve = staticmethod(conv1d)
