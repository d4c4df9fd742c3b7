"""Normalization layers. Channels are the last axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels import plan
from nanonet.errors import OptionError, ShapeError
from nanonet.nn.module import Module
from nanonet.nn.parameter import Buffer, Parameter
from nanonet.ops import norm
from nanonet.ops.window import channels_last
from nanonet.options import count, number, sides
from nanonet.tensor import Tensor, as_tensor


class BatchNorm(Module):
    """Each channel with mean 0 and variance 1 over all else, times weight plus bias (Ioffe & Szegedy 2015).

    x (..., num_features). In training, mean and variance are the batch's, and the buffers running_mean and running_var
    move towards them by `momentum`; in evaluation they are those buffers (always the batch's if track_running_stats is
    False). affine=False: no weight and bias.
    """

    _fuses = ("relu",)
    _ndims: tuple[int, ...] | None = None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ):
        self._start(eps, momentum)
        self.affine, self.track_running_stats = affine, track_running_stats
        self._make(count(f"{type(self).__name__}: num_features", num_features), affine, affine)

    def _start(self, eps: float, momentum: float) -> None:
        self.eps = number(f"{type(self).__name__}: eps", eps, "[0, inf)")
        self.momentum = number(f"{type(self).__name__}: momentum", momentum, "[0, 1]")
        self.track_running_stats = True

    def _make(self, features: int, scale: bool, shift: bool) -> None:
        self.num_features = features
        self.weight = Parameter(np.ones(features, np.float32)) if scale else None
        self.bias = Parameter(np.zeros(features, np.float32)) if shift else None
        tracked = self.track_running_stats
        self.running_mean = Buffer(np.zeros(features, np.float32)) if tracked else None
        self.running_var = Buffer(np.ones(features, np.float32)) if tracked else None

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        x = as_tensor(x)
        name = type(self).__name__
        if self._ndims is not None and x.ndim not in self._ndims:
            forms = {2: "(n, c)", 3: "(n, l, c)", 4: "(n, h, w, c)"}
            raise ShapeError(f"{name}: x is {x.shape}, wanted {' or '.join(forms[d] for d in self._ndims)}")
        if not x.ndim or x.shape[-1] != self.num_features:
            hint = channels_last(x.shape, self.num_features)
            raise ShapeError(f"{name}: x is {x.shape}, wanted {self.num_features} channels in the last axis{hint}")
        running = self.running_mean, self.running_var
        training = self.training or not self.track_running_stats
        affine = self.weight, self.bias
        return norm.batch_norm(x, *running, *affine, training, self.momentum, self.eps, activation)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(BatchNorm):
    """`BatchNorm` for rows: x (n, c) or (n, l, c)."""

    _fuses = ("relu",)
    _ndims = (2, 3)


class BatchNorm2d(BatchNorm):
    """`BatchNorm` for images: x (n, h, w, c)."""

    _fuses = ("relu",)
    _ndims = (4,)


class BatchNormalization(BatchNorm):
    """`BatchNorm` as in Keras: made at the first input, or at once when input_shape (that of one row) is given.

    momentum is the share of the running statistics that stays. center, scale: is there a bias, a weight?
    """

    _fuses = ("relu",)

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        *,
        input_shape: tuple[int, ...] | None = None,
    ):
        self._start(epsilon, 1 - number("BatchNormalization: momentum", momentum, "[0, 1]"))
        self.center, self.scale = center, scale
        self.num_features = self.weight = self.bias = self.running_mean = self.running_var = None
        self._built = False
        self.input_shape = input_shape
        if input_shape is not None:
            self._build_for(input_shape)

    def _build_for(self, shape: tuple[int, ...]) -> None:
        if not shape:
            raise OptionError("BatchNormalization: the input has no channels; wanted at least one axis")
        with plan.paused():
            self._make(shape[-1], self.scale, self.center)
        self._built = True

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        if not self._built:
            self._build_for(x.shape[1:])
        return super().forward(x, activation)


class GroupNorm(Module):
    """Mean 0 and variance 1 over each of num_groups parts of an image's channels (Wu & He 2018).

    x (n, ..., num_channels), then times weight plus bias (unless affine=False).
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True):
        self.num_groups = count("GroupNorm: num_groups", num_groups)
        self.num_channels = count("GroupNorm: num_channels", num_channels)
        if self.num_channels % self.num_groups:
            raise OptionError(
                f"GroupNorm: num_channels is {num_channels}; wanted a multiple of num_groups {num_groups}"
            )
        self.eps = number("GroupNorm: eps", eps, "[0, inf)")
        self.weight = Parameter(np.ones(self.num_channels, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(self.num_channels, np.float32)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[-1] != self.num_channels:
            hint = channels_last(x.shape, self.num_channels)
            raise ShapeError(f"GroupNorm: x is {x.shape}, wanted (n, ..., {self.num_channels}){hint}")
        return norm.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axes, of shape normalized_shape (Ba et al. 2016), times weight plus bias."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ):
        self.normalized_shape = _shape("LayerNorm", normalized_shape)
        self.eps = number("LayerNorm: eps", eps, "[0, inf)")
        self.weight = Parameter(np.ones(self.normalized_shape, np.float32)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape, np.float32)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        return norm.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class RMSNorm(Module):
    """x / sqrt(mean square + eps) over the last axes, of shape normalized_shape (Zhang & Sennrich 2019), times weight.

    eps: that of the dtype if None.
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None, elementwise_affine: bool = True
    ):
        self.normalized_shape = _shape("RMSNorm", normalized_shape)
        self.eps = None if eps is None else number("RMSNorm: eps", eps, "[0, inf)")
        self.weight = Parameter(np.ones(self.normalized_shape, np.float32)) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        return norm.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


def _shape(layer: str, given: int | Sequence[int]) -> tuple[int, ...]:
    axes = len(given) if isinstance(given, (tuple, list)) else 1
    return sides(f"{layer}: normalized_shape", given, max(axes, 1))
