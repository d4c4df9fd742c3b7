"""Activations as modules."""

from __future__ import annotations

from nanonet.nn.module import Module
from nanonet.ops import elementwise, softmax
from nanonet.options import unknown
from nanonet.tensor import Tensor


class Identity(Module):
    """x. Takes and ignores any arguments."""

    def __init__(self, *args, **kwargs):
        pass

    def forward(self, x: Tensor) -> Tensor:
        return x


class ReLU(Module):
    """max(x, 0). inplace is accepted and makes no difference."""

    def __init__(self, inplace: bool = False):
        pass

    def forward(self, x: Tensor) -> Tensor:
        return elementwise.relu(x)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope * x (Maas et al. 2013)."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return elementwise.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where x > 0, else alpha (e^x - 1) (Clevert et al. 2016)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return elementwise.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class GELU(Module):
    """x times the normal distribution function at x (Hendrycks & Gimpel 2016), by erf."""

    def forward(self, x: Tensor) -> Tensor:
        return elementwise.gelu(x)


class SiLU(Module):
    """x sigmoid(x) (Elfwing et al. 2018), also called swish."""

    def __init__(self, inplace: bool = False):
        pass

    def forward(self, x: Tensor) -> Tensor:
        return elementwise.silu(x)


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, x: Tensor) -> Tensor:
        return elementwise.sigmoid(x)


class Tanh(Module):
    """tanh(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return elementwise.tanh(x)


class Softplus(Module):
    """log(1 + e^x), without overflow."""

    def forward(self, x: Tensor) -> Tensor:
        return elementwise.softplus(x)


class Softmax(Module):
    """exp(x) / sum(exp(x)) along `dim`, without overflow."""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return softmax.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """log(softmax(x)) along `dim`, without overflow or log of zero."""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return softmax.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


#: The activations by the names that people type.
ACTIVATIONS = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "gelu": GELU,
    "silu": SiLU,
    "swish": SiLU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softplus": Softplus,
    "softmax": Softmax,
    "log_softmax": LogSoftmax,
    "linear": Identity,
    "identity": Identity,
}

#: Activations that the kernel of a linear layer applies itself, by its names.
FUSED = {ReLU: "relu", Sigmoid: "sigmoid", Tanh: "tanh"}


def activation(name: str) -> Module:
    """A new activation module by name: "relu", "tanh", ... Raises OptionError that lists the names."""
    found = ACTIVATIONS.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        raise unknown("activation", name, ACTIVATIONS)
    return found()
