"""Elementwise operations, made from the table in `kernels.elementwise`: forward, derivatives and Tensor methods."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import plan
from kernels.elementwise import BY_NAME, Elementwise
from kernels.formula import Formula
from kernels.registry import backend_of, elsewhere
from nanonet.autograd import Op
from nanonet.device import same_device
from nanonet.errors import DtypeError, ShapeError
from nanonet.tensor import Tensor, as_tensor, constant, fixed, mode

# ------------------------------------------------------------------------------- launching


def launch(formula: Formula, tensors: list[Tensor], name: str, result: str = "same") -> Tensor:
    """The formula's value for each element of the broadcast tensors, by one kernel, without a past."""
    arrays = [t.array for t in tensors]
    beside, shape, dtype, narrow = arrays[0], arrays[0].shape, None, False
    for array in arrays:
        if array.shape != shape:
            shape = _broadcast(name, arrays)
            break
    for array in arrays:
        if type(array) is not type(beside):
            beside = same_device(name, arrays)
        if array.dtype.kind == "f":
            if dtype is None:
                dtype = array.dtype
            elif dtype is not array.dtype and dtype != array.dtype:
                raise DtypeError(f"{name}: got {dtype} and {array.dtype}; convert one of them, as with x.float()")
        elif array.dtype == np.int32:
            narrow = True
    if dtype is None and result != "bool":
        raise DtypeError(f"{name}: got {arrays[0].dtype}, wanted float32 or float64; convert with x.float()")
    if narrow:
        arrays = [_wide(a) if a.dtype == np.int32 else a for a in arrays]
    out = plan.empty(beside, shape, np.bool_ if result == "bool" else dtype)
    backend_of(out).elementwise(formula, *arrays, out=out)
    return Tensor(out)


def _wide(array: np.ndarray) -> np.ndarray:
    """The same integers as int64, which kernels take."""
    out = plan.empty(array, array.shape, np.int64)
    backend_of(out).copy(array, out=out)
    return out


def _broadcast(name: str, arrays: list[np.ndarray]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        shapes = " and ".join(str(a.shape) for a in arrays)
        raise ShapeError(f"{name}: shapes {shapes} do not broadcast together") from None


def operands(*values: Any) -> list[Tensor]:
    """Tensors of one float dtype: numbers and arrays take that of the tensors among them."""
    dtype = beside = None
    for value in values:
        if isinstance(value, Tensor):
            beside = value
            if value.array.dtype.kind == "f":
                dtype = value.array.dtype
                break
    return [value if isinstance(value, Tensor) else _operand(value, dtype, beside) for value in values]


def _operand(value: Any, dtype: np.dtype | None, beside: Tensor | None) -> Tensor:
    if isinstance(value, numbers.Real) and not isinstance(value, np.ndarray):
        if dtype is None:
            dtype = np.dtype(np.int64 if isinstance(value, numbers.Integral) else np.float32)
        return constant(float(value), dtype) if dtype.kind == "f" else Tensor(fixed(value, dtype))
    kind = (value if elsewhere(value) else np.asarray(value)).dtype.kind
    return as_tensor(value, dtype if kind in "fiu" else None, beside)


# ------------------------------------------------------------------------------ derivatives


def differentiate(row: Elementwise, wanted: str, g: Tensor, y: Tensor | None, inputs: dict[str, Tensor]) -> Tensor:
    """The gradient for one input: one kernel, or Tensor operations where it is to be differentiated again."""
    formula = row.backward[wanted]
    if formula.text == "g":
        return g
    scope = {"g": g, "y": y, **inputs}
    values = [scope[name] for name in formula.variables]
    if not mode.grad:
        return launch(formula, values, row.name)
    return formula.evaluate(FUNCTIONS, *values)


def op_of(row: Elementwise) -> Op:
    """The operation that a row of the table describes."""
    forward_formula, names, name, result = row.forward, row.inputs, row.name, row.result
    shared = len(row.derivatives) > len(set(row.derivatives.values())) == 1  # one gradient serves all inputs

    def forward(*tensors: Tensor) -> Tensor:
        return launch(forward_formula, tensors, name, result)

    def rule(g: Tensor, y: Tensor, *tensors: Tensor) -> list[Callable[[], Tensor] | None]:
        inputs, made = dict(zip(names, tensors, strict=True)), {}

        def gradient(wanted: str) -> Tensor:
            if not shared or inputs[wanted].node is None:  # a leaf's gradient is memory of its own
                return differentiate(row, wanted, g, y, inputs)
            if not made:
                made[""] = differentiate(row, wanted, g, y, inputs)
            return made[""]

        return [(lambda n=n: gradient(n)) if n in row.derivatives else None for n in names]

    forward.__name__ = name
    uses_y = any("y" in formula.variables for formula in row.backward.values())
    made = Op(forward, needs_out=uses_y)
    made.rule = rule
    return made


_OPS = {name: op_of(row) for name, row in BY_NAME.items()}


def _function(name: str) -> Callable[..., Tensor]:
    row, op = BY_NAME[name], _OPS[name]

    if row.inputs == ("x",):

        def function(x: Tensor) -> Tensor:
            return op(x if isinstance(x, Tensor) else as_tensor(x))

    else:

        def function(*args: Any) -> Tensor:
            if len(args) != len(row.inputs):
                raise TypeError(f"{name}: takes {len(row.inputs)} arguments ({', '.join(row.inputs)}), got {len(args)}")
            return op(*operands(*args))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{row.formula}, elementwise; {', '.join(row.inputs)} broadcast."
    return function


FUNCTIONS_BY_NAME = {name: _function(name) for name in BY_NAME}

add, sub, mul, div = (FUNCTIONS_BY_NAME[n] for n in ("add", "sub", "mul", "div"))
pow, neg, where, clip = (FUNCTIONS_BY_NAME[n] for n in ("pow", "neg", "where", "clip"))
maximum, minimum = FUNCTIONS_BY_NAME["maximum"], FUNCTIONS_BY_NAME["minimum"]
relu, tanh, sigmoid = (FUNCTIONS_BY_NAME[n] for n in ("relu", "tanh", "sigmoid"))
softplus, silu, gelu = (FUNCTIONS_BY_NAME[n] for n in ("softplus", "silu", "gelu"))
exp, expm1, log, log1p = (FUNCTIONS_BY_NAME[n] for n in ("exp", "expm1", "log", "log1p"))
sqrt, square, reciprocal = (FUNCTIONS_BY_NAME[n] for n in ("sqrt", "square", "reciprocal"))
add_relu = FUNCTIONS_BY_NAME["add_relu"]
abs, sign, floor, sin, cos, erf = (FUNCTIONS_BY_NAME[n] for n in ("abs", "sign", "floor", "sin", "cos", "erf"))
eq, ne, lt, le, gt, ge = (FUNCTIONS_BY_NAME[n] for n in ("eq", "ne", "lt", "le", "gt", "ge"))


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else negative_slope * x (Maas et al. 2013)."""
    return FUNCTIONS_BY_NAME["leaky_relu"](x, negative_slope)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (e^x - 1) (Clevert et al. 2016)."""
    return FUNCTIONS_BY_NAME["elu"](x, alpha)


#: The formula language's functions on Tensors.
FUNCTIONS = {
    **{name: FUNCTIONS_BY_NAME[name] for name in ("exp", "log", "log1p", "expm1", "sqrt", "tanh", "sigmoid", "erf")},
    **{name: FUNCTIONS_BY_NAME[name] for name in ("abs", "sign", "floor", "sin", "cos", "where", "gelu")},
    "max": maximum,
    "min": minimum,
}
