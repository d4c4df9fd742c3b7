"""Layers that multiply by a weight."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from kernels import plan
from nanonet import init
from nanonet.errors import OptionError, ShapeError
from nanonet.nn.activation import FUSED, activation
from nanonet.nn.module import Module
from nanonet.nn.parameter import Parameter
from nanonet.ops.linear import linear
from nanonet.random import as_generator
from nanonet.tensor import Tensor

Initializer = str | Callable[..., np.ndarray]

#: PyTorch's scale: uniform in +- 1 / sqrt(in_features).
DEFAULT = init.he_uniform(slope=math.sqrt(5))


class Linear(Module):
    """y = x W + b. x (..., in_features) -> (..., out_features); W is (in_features, out_features).

    weight_init, bias_init: a name or a function, see `nanonet.init`. The weight's default is uniform in
    +- 1 / sqrt(in_features), as in PyTorch; the bias starts at zero. `initializers` keeps the two. Raises OptionError
    for sizes that are no positive integers.
    """

    _fuses = ("relu", "tanh", "sigmoid")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_init: Initializer = DEFAULT,
        bias_init: Initializer = "zeros",
        rng: np.random.Generator | int | None = None,
    ):
        self.in_features = _size("Linear", "in_features", in_features)
        self.out_features = _size("Linear", "out_features", out_features)
        self.initializers = weight_init, bias_init
        rng = as_generator(rng)
        self.weight = Parameter(init.get(weight_init)((self.in_features, self.out_features), rng=rng))
        self.bias = Parameter(init.get(bias_init)((self.out_features,), rng=rng)) if bias else None

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        return linear(x, self.weight, self.bias, activation)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Dense(Module):
    """activation(x W + b), as in Keras. x (..., features) -> (..., units); W is (features, units).

    The weights (`weight` and `bias`) are made at the first input, or at once when input_shape (that of one row) or
    input_dim is given. activation: a name of `nn.activation`, a function or None; kernel_initializer and
    bias_initializer: a name or a function, see `nanonet.init`.
    """

    def __init__(
        self,
        units: int,
        activation: str | Callable[[Tensor], Tensor] | None = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        *,
        input_shape: tuple[int, ...] | None = None,
        input_dim: int | None = None,
        rng: np.random.Generator | int | None = None,
    ):
        self.units = _size("Dense", "units", units)
        self.activation = activation
        self._activate, self._fused = fused_activation(activation)
        self.use_bias = use_bias
        self._initializers = keras_initializer(kernel_initializer), keras_initializer(bias_initializer)
        self._rng = rng
        self._built = False
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        self.input_shape = (input_dim,) if input_shape is None and input_dim is not None else input_shape
        if self.input_shape is not None:
            if not self.input_shape:
                raise OptionError("Dense: input_shape is (), wanted at least one axis")
            self._make(self.input_shape[-1])

    def _make(self, features: int) -> None:
        shape = _size("Dense", "the input's last axis", features), self.units
        with plan.paused():
            rng = as_generator(self._rng)
            kernel, bias = self._initializers
            self.weight = Parameter(kernel(shape, rng=rng))
            self.bias = Parameter(bias(shape[1:], rng=rng)) if self.use_bias else None
        self._built = True

    def forward(self, x: Tensor) -> Tensor:
        self._make_for(x)
        out = linear(x, self.weight, self.bias, self._fused)
        return out if self._activate is None else self._activate(out)

    def scores(self, x: Tensor) -> Tensor:
        """The output before the activation."""
        self._make_for(x)
        return linear(x, self.weight, self.bias)

    def _make_for(self, x: Tensor) -> None:
        if not self._built:
            if not x.ndim:
                raise ShapeError("Dense: x has shape (), wanted at least one axis")
            self._make(x.shape[-1])

    def extra_repr(self) -> str:
        chosen = getattr(self.activation, "__name__", self.activation)
        features = self.weight.shape[0] if self._built else None
        return f"{self.units}, activation={chosen!r}, use_bias={self.use_bias}, features={features}"


def fused_activation(given: str | Callable | None) -> tuple[Callable | None, str | None]:
    """What to call on the layer's result, and the name of what its kernel applies instead."""
    if given is None or given == "linear":
        return None, None
    if callable(given):
        return given, None
    module = activation(given)
    fused = FUSED.get(type(module))
    return (None if fused else module.forward), fused


def keras_initializer(given: Initializer) -> Callable[..., np.ndarray]:
    """As `init.get`; also Keras's "random_normal" and "random_uniform"."""
    return init.get(given.removeprefix("random_") if isinstance(given, str) else given)


def _size(layer: str, argument: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise OptionError(f"{layer}: {argument} is {value!r}, wanted a positive integer")
    return int(value)
