"""Arrays and tensors that the conformance tests of ops and layers draw."""

import numpy as np
from cases import Fixed

from nanonet import Tensor
from nanonet.device import default_memory, moved


class Arrays:
    """Float arrays in [low, high), of multiples of `step` if that is given."""

    def __init__(self, seed, dtype=np.float64):
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype

    def __call__(self, shape, low=-2.0, high=2.0, step=None):
        made = self.rng.uniform(low, high, shape)
        return np.asarray(made if step is None else np.round(made / step) * step, self.dtype)


def plain(argument):
    """The argument as the oracle takes it, floats in float64."""
    argument = argument.array if isinstance(argument, Fixed) else argument
    is_float = isinstance(argument, np.ndarray) and argument.dtype.kind == "f"
    return argument.astype(np.float64) if is_float else argument


def as_argument(argument, requires_grad=False, strided=False):
    """The argument as an operation takes it: arrays as tensors of the default device, which may be strided views of
    larger arrays."""
    if isinstance(argument, Fixed):
        return placed(argument.array)
    if not isinstance(argument, np.ndarray):
        return argument
    requires_grad = requires_grad and argument.dtype.kind == "f"
    if not strided or not argument.ndim:
        return placed(argument, requires_grad)
    wide = np.repeat(argument[..., ::-1], 2, axis=-1)
    base = moved(np.ascontiguousarray(wide.T), default_memory())
    return Tensor(base.transpose()[..., ::-2], requires_grad)


def placed(array, requires_grad=False):
    """A tensor of the default device with the values of an array, whose memory it shares if that is the CPU."""
    return Tensor(moved(array, default_memory()), requires_grad)
