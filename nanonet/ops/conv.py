"""Convolution, its transpose, and the gradient for its weight: each is the derivative of the others.

Images are (n, h, w, c), weights (kh, kw, c / groups, o): h and w are height and width, c and o channels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from kernels import plan
from kernels.registry import backend_of
from nanonet.autograd import op
from nanonet.errors import DtypeError, OptionError, ShapeError
from nanonet.ops.activation import before, check_activation
from nanonet.ops.window import Padding, channels_last, outputs, padding_of
from nanonet.options import count, hashable, sides
from nanonet.tensor import Tensor, as_tensor

Sides = int | tuple[int, ...]


class Window(NamedTuple):
    """How the weight moves over the image; the constants of the kernels, in their order."""

    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int

    def outputs(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        return tuple(
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        )


# ------------------------------------------------------------------------------- operations


@op
def _conv2d(x, w, bias, window, activation):
    shape = x.array.shape[0], *window.outputs(x.array.shape[1:3], w.array.shape[:2]), w.array.shape[3]
    return _launch("conv2d", x, w, bias, window, activation, shape)


@_conv2d.derivative
def _(g, y, x, w, bias, window, activation):
    g, bias_gradient = before(g, y, activation, bias)
    return (
        lambda: _conv2d_transpose(g, w, None, window, None, x.shape[1:3]),
        lambda: _weight_gradient(x, g, window, w.shape[:2]),
        bias_gradient,
    )


@op
def _conv2d_transpose(x, w, bias, window, activation, size):
    shape = x.array.shape[0], *size, w.array.shape[2] * window.groups
    return _launch("conv2d_transpose", x, w, bias, window, activation, shape)


@_conv2d_transpose.derivative
def _(g, y, x, w, bias, window, activation, size):
    g, bias_gradient = before(g, y, activation, bias)
    return (
        lambda: _conv2d(g, w, None, window, None),
        lambda: _weight_gradient(g, x, window, w.shape[:2]),
        bias_gradient,
    )


@op(needs_out=False)
def _weight_gradient(x, g, window, kernel):
    """The gradient of sum(g * conv2d(x, w)) for w, whose first two sides are `kernel`."""
    out = plan.empty(x.array, (*kernel, x.array.shape[3] // window.groups, g.array.shape[3]), x.array.dtype)
    backend_of(out).conv2d_weight_gradient(x.array, g.array, *window, out=out)
    return Tensor(out)


@_weight_gradient.derivative
def _(h, out, x, g, window, kernel):
    return (
        lambda: _conv2d_transpose(g, h, None, window, None, x.shape[1:3]),
        lambda: _conv2d(x, h, None, window, None),
    )


def _launch(slot, x, w, bias, window, activation, shape):
    out = plan.empty(x.array, shape, x.array.dtype)
    kernel = getattr(backend_of(out), slot)
    kernel(x.array, w.array, None if bias is None else bias.array, *window, activation, out=out)
    return Tensor(out)


# ---------------------------------------------------------------------------- for users


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: Padding = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Tensor:
    """Cross-correlation: x (n, l, c), weight (k, c / groups, o), bias (o,) or None -> (n, outputs, o).

    As `conv2d`, with one axis.
    """
    x = _image("conv1d", x, weight, 3)
    window = _window("conv1d", x.shape, weight.shape, hashable(stride), hashable(padding), hashable(dilation), groups)
    _check("conv1d", x, weight, bias, weight.shape[2], activation)
    (n, length, c), (k, part, o) = x.shape, weight.shape
    out = _conv2d(x.reshape(n, 1, length, c), weight.reshape(1, k, part, o), bias, window, activation)
    return out.reshape(n, out.shape[2], o)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sides = 1,
    padding: Padding = 0,
    dilation: Sides = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Tensor:
    """Cross-correlation: x (n, h, w, c), weight (kh, kw, c / groups, o), bias (o,) or None -> (n, oh, ow, o).

    padding: an integer, one for each axis, ((top, bottom), (left, right)), "valid" (none), or "same" (oh = h / stride,
    rounded up). groups: the i-th part of c is taken to the i-th part of o. activation None, "relu", "tanh" or
    "sigmoid" is applied in the same kernel. Raises ShapeError, DtypeError or OptionError that name the argument.
    """
    x = _image("conv2d", x, weight, 4)
    window = _window("conv2d", x.shape, weight.shape, hashable(stride), hashable(padding), hashable(dilation), groups)
    _check("conv2d", x, weight, bias, weight.shape[3], activation)
    return _conv2d(x, weight, bias, window, activation)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sides = 1,
    padding: Padding = 0,
    output_padding: Sides = 0,
    groups: int = 1,
    dilation: Sides = 1,
    activation: str | None = None,
) -> Tensor:
    """The transpose of `conv2d`: x (n, h, w, c), weight (kh, kw, o / groups, c), bias (o,) or None -> (n, oh, ow, o).

        oh = (h - 1) * stride - top - bottom + dilation * (kh - 1) + 1 + output_padding

    output_padding, less than stride, picks one of the sizes that `conv2d` takes to h. padding as there, but not "same".
    """
    x = _image("conv_transpose2d", x, weight, 4)
    window, size = _transposed(
        x.shape, weight.shape, *map(hashable, (stride, padding, output_padding, dilation)), groups
    )
    _check("conv_transpose2d", x, weight, bias, weight.shape[2] * groups, activation)
    return _conv2d_transpose(x, weight, bias, window, activation, size)


# --------------------------------------------------------------------------------- checks


def _image(name: str, x: Tensor, weight: Tensor, ndim: int) -> Tensor:
    x = as_tensor(x, None if isinstance(x, Tensor) else weight.dtype, weight)
    axes = {3: "(n, l, c)", 4: "(n, h, w, c)"}[ndim]
    if x.ndim != ndim:
        raise ShapeError(f"{name}: x is {x.shape}, wanted {axes}")
    if weight.ndim != ndim:
        raise ShapeError(f"{name}: weight is {weight.shape}, wanted {ndim} axes for x {x.shape}")
    return x


@lru_cache(maxsize=4096)
def _window(name, x_shape, w_shape, stride, padding, dilation, groups) -> Window:
    """The constants of the kernel, for one or two axes. Raises an error unless everything fits together."""
    axes = len(x_shape) - 2
    size, kernel = x_shape[1:-1], w_shape[:axes]
    stride = sides(f"{name}: stride", stride, axes)
    dilation = sides(f"{name}: dilation", dilation, axes)
    count(f"{name}: groups", groups)
    _, _, part, o = (1,) * (2 - axes) + w_shape
    if x_shape[-1] != part * groups:
        raise ShapeError(
            f"{name}: x {x_shape} has {x_shape[-1]} channels, weight wants {part * groups} "
            f"(weight {w_shape}, groups {groups}){channels_last(x_shape, part * groups)}"
        )
    if o % groups:
        raise ShapeError(f"{name}: weight {w_shape} gives {o} channels, wanted a multiple of groups {groups}")
    span = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    padding = padding_of(name, padding, size, span, stride)
    outputs(name, size, span, stride, padding)
    if axes == 1:
        return Window((1, *stride), ((0, 0), *padding), (1, *dilation), groups)
    return Window(stride, padding, dilation, groups)


@lru_cache(maxsize=4096)
def _transposed(x_shape, w_shape, stride, padding, output_padding, dilation, groups) -> tuple[Window, tuple[int, int]]:
    """As `_window`, and the (height, width) of the result."""
    name = "conv_transpose2d"
    stride = sides(f"{name}: stride", stride, 2)
    dilation = sides(f"{name}: dilation", dilation, 2)
    extra = sides(f"{name}: output_padding", output_padding, 2, 0)
    count(f"{name}: groups", groups)
    if x_shape[3] != w_shape[3]:
        raise ShapeError(
            f"{name}: x {x_shape} has {x_shape[3]} channels, weight {w_shape} wants {w_shape[3]}"
            f"{channels_last(x_shape, w_shape[3])}"
        )
    if x_shape[3] % groups:
        raise ShapeError(f"{name}: x {x_shape} has {x_shape[3]} channels, wanted a multiple of groups {groups}")
    if any(e >= s for e, s in zip(extra, stride, strict=True)):
        raise OptionError(f"{name}: output_padding is {output_padding!r}; wanted less than stride {stride}")
    if padding == "same":
        raise OptionError(f"{name}: padding is 'same'; wanted integers")
    span = tuple(d * (k - 1) + 1 for k, d in zip(w_shape, dilation, strict=False))
    padding = padding_of(name, padding, x_shape[1:3], span, stride)
    size = tuple(
        (n - 1) * s - sum(p) + k + e
        for n, s, p, k, e in zip(x_shape[1:3], stride, padding, span, extra, strict=True)
    )  # fmt: skip
    if min(size) < 1 or min(x_shape[1:3]) < 1:
        raise ShapeError(
            f"{name}: x {x_shape} would give an image of size {size}, wanted at least 1 (padding {padding})"
        )
    return Window(stride, padding, dilation, groups), size


def _check(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, channels: int, activation: str | None) -> None:
    check_activation(name, activation)
    if x.dtype != weight.dtype or x.dtype.kind != "f":
        raise DtypeError(
            f"{name}: x is {x.dtype}, weight is {weight.dtype}; wanted both float32 or both float64 "
            "(convert with .float() or .double())"
        )
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"{name}: bias is {bias.shape}, wanted ({channels},) for weight {weight.shape}")
    if bias is not None and bias.dtype != weight.dtype:
        raise DtypeError(f"{name}: bias is {bias.dtype}, weight {weight.dtype}; wanted the same")
