"""Differentiable operations, and the Tensor methods made of them."""

import numbers

import numpy as np

from nanonet.ops import elementwise as _e
from nanonet.ops import linear as _l
from nanonet.ops import reduction as _r
from nanonet.ops import shape as _s
from nanonet.ops import softmax as _x
from nanonet.tensor import Tensor, float32, float64, int64, mode


def _reflected(function):
    return lambda self, other: function(other, self)


def _comparison(function):
    def method(self, other):
        if isinstance(other, (Tensor, numbers.Real, np.ndarray, list)):
            return function(self, other)
        return NotImplemented

    return method


def _in_place(function, name):
    """x op= y. Overwrites x where nothing is differentiated; else x becomes a new tensor, and a leaf refuses."""

    def method(self, other):
        if not mode.grad or not (self.requires_grad or getattr(other, "requires_grad", False)):
            result = function(self.detach(), other)
            return self.copy_(result)
        if self.node is None and self.requires_grad:
            raise RuntimeError(f"{name}: a leaf that requires a gradient changes only within nanonet.no_grad()")
        return function(self, other)

    return method


_BINARY = {
    "add": _e.add,
    "sub": _e.sub,
    "mul": _e.mul,
    "truediv": _e.div,
    "pow": _e.pow,
    "matmul": _l.matmul,
}
_COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")

for _name, _function in _BINARY.items():
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function: f(self, other))
    setattr(Tensor, f"__r{_name}__", _reflected(_function))
    if _name not in ("matmul", "pow"):
        setattr(Tensor, f"__i{_name}__", _in_place(_function, _name))
for _name in _COMPARE:
    setattr(Tensor, f"__{_name}__", _comparison(_e.FUNCTIONS_BY_NAME[_name]))
Tensor.__neg__ = _e.neg
Tensor.__abs__ = _e.abs
Tensor.__getitem__ = _s.getitem

_METHODS = {
    **{name: function for name, function in _e.FUNCTIONS_BY_NAME.items() if name != "where"},
    **{name: getattr(_r, name) for name in ("sum", "mean", "var", "std", "max", "min", "argmax", "logsumexp")},
    **{name: getattr(_s, name) for name in ("reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze")},
    **{name: getattr(_s, name) for name in ("broadcast_to", "contiguous", "clone", "to", "take")},
    "view": _s.reshape,
    "expand": _s.broadcast_to,
    "matmul": _l.matmul,
    "softmax": _x.softmax,
    "log_softmax": _x.log_softmax,
    "leaky_relu": _e.leaky_relu,
    "elu": _e.elu,
    "float": lambda self: _s.to(self, float32),
    "double": lambda self: _s.to(self, float64),
    "long": lambda self: _s.to(self, int64),
}
for _name, _function in _METHODS.items():
    setattr(Tensor, _name, _function)
Tensor.mT = property(_s._swap_last, doc="The last two axes exchanged, a view.")
Tensor.T = property(_s.permute, doc="All axes reversed, a view.")
