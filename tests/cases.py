"""The tables that the conformance suites run over. A registered thing without a row here fails the suite."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from scipy import special

import nanonet.functional as F
from kernels import SLOTS
from kernels.elementwise import FUSABLE, TABLE
from kernels.formula import Formula
from kernels.reference import reference
from kernels.updates import TABLE as UPDATES
from nanonet import Tensor, nn
from nanonet.device import default_memory, host, moved
from nanonet.ops.random import Stream
from tuner import pruners, samplers, storage

# --------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class KernelCase:
    """One way to call a slot. `arguments(draw, arrays)` gives its positional arguments, with `Out(shape)` for what it
    writes; `exact`: every backend gives the reference's bits."""

    slot: str
    arguments: Callable
    exact: bool = False
    label: str = ""

    def __str__(self) -> str:
        return f"{self.slot}-{self.label}" if self.label else self.slot


@dataclass
class Out:
    """An array that a kernel writes: overwritten, so that it starts as NaN, or accumulated into, from `start`."""

    shape: tuple[int, ...]
    dtype: type | None = None
    start: np.ndarray | None = None


@dataclass
class Wide:
    """An array that is float64 whatever the dtype of the call."""

    array: np.ndarray


SIDES = st.integers(0, 9)
WIDE = st.integers(1, 40)


def _formula_case(text, *variables, low=-3.0):
    formula = Formula.of(text, *variables)

    def arguments(draw, arrays):
        shape = tuple(draw(st.lists(SIDES, max_size=3)))
        views = [arrays(tuple(1 if draw(st.booleans()) else side for side in shape), low=low) for _ in variables]
        return [formula, *views, Out(shape)]

    return KernelCase("elementwise", arguments, label=text.replace(" ", ""))


def _reduce_case(name):
    def arguments(draw, arrays):
        shape = tuple(draw(st.lists(WIDE, min_size=1, max_size=3)))
        axes = tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
        return [name, arrays(shape), axes, Out(tuple(side for i, side in enumerate(shape) if i not in axes))]

    return KernelCase("reduce", arguments, label=name)


def _matmul(draw, arrays):
    m, k, n = draw(WIDE), draw(SIDES), draw(WIDE)
    lead = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    return [arrays((*lead, m, k)), arrays((k, n)), Out((*lead, m, n))]


def _linear(activation):
    def arguments(draw, arrays):
        m, k, n = draw(WIDE), draw(WIDE), draw(WIDE)
        return [arrays((m, k)), arrays((k, n)), arrays((n,)) if draw(st.booleans()) else None, activation, Out((m, n))]

    return KernelCase("linear", arguments, label=str(activation))


def _rows(slot, inputs):
    def arguments(draw, arrays):
        shape = (draw(WIDE), draw(WIDE))
        return [*(arrays(shape) for _ in range(inputs)), Out(shape)]

    return KernelCase(slot, arguments)


def _targets(draw, n, c):
    return np.array(draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n)), np.int64)


def _cross_entropy(draw, arrays):
    n, c = draw(WIDE), draw(st.integers(1, 20))
    weight = arrays((c,), low=0.1) if draw(st.booleans()) else None
    return [arrays((n, c)), _targets(draw, n, c), weight, draw(st.sampled_from([0.0, 0.1])), Out((n,)), Out((n, c))]


def _cross_entropy_backward(draw, arrays):
    n, c = draw(WIDE), draw(st.integers(1, 20))
    weight = arrays((c,), low=0.1) if draw(st.booleans()) else None
    smoothing = draw(st.sampled_from([0.0, 0.1]))
    return [arrays((n,)), arrays((n, c), low=0.0), _targets(draw, n, c), weight, smoothing, Out((n, c))]


def _take(draw, arrays):
    rows, n, width = draw(WIDE), draw(SIDES), draw(SIDES)
    index = np.array(draw(st.lists(st.integers(0, rows - 1), min_size=n, max_size=n)), np.int64)
    return [np.ascontiguousarray(arrays((rows, width))), index, Out((n, width))]


def _take_batch(draw, arrays):
    rows, n, width = draw(WIDE), draw(SIDES), draw(SIDES)
    order = np.random.default_rng(0).permutation(rows)
    cursor = np.array(draw(st.integers(0, rows - 1)), np.int64)
    return [np.ascontiguousarray(arrays((rows, width))), order, cursor, Out((n, width))]


def _scatter_add(draw, arrays):
    rows, n, width = draw(WIDE), draw(SIDES), draw(SIDES)
    index = np.array(draw(st.lists(st.integers(0, rows - 1), min_size=n, max_size=n)), np.int64)
    start = np.ascontiguousarray(arrays((rows, width)))
    return [index, np.ascontiguousarray(arrays((n, width))), Out((rows, width), start=start)]


def _update_case(rule):
    def arguments(draw, arrays):
        shapes = draw(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=3))
        count = draw(st.integers(0, 3))  # of shares with values of their own, if any
        shapes = shapes * max(count, 1)
        numbers = {"t": draw(st.integers(1, 5)), "lr": 0.1, "decay": 0.01, "l1": 0.02, "eps": 1e-3}
        values = np.array([numbers.get(name, 0.9) for name in rule.values])
        if count:
            values = values * np.linspace(1, 0.8, count)[:, None]
            values[:, 0] = numbers["t"]
        parameters = [Out(shape, start=np.ascontiguousarray(arrays(shape))) for shape in shapes]
        gradients = [np.ascontiguousarray(arrays(shape)) for shape in shapes]
        states = [[Out(s, start=np.ascontiguousarray(arrays(s, low=0.1))) for s in shapes] for _ in rule.states]
        return [rule, parameters, gradients, states, Wide(values)]

    return KernelCase("update", arguments, label=rule.name)


def _random(slot, *constants):
    def arguments(draw, arrays):
        state = np.array(draw(st.tuples(*[st.integers(0, 2**62)] * 3)), np.int64)
        return [state, *constants, Out((draw(SIDES), draw(WIDE)))]

    return KernelCase(slot, arguments, exact=slot != "random_normal")


# ------------------------------------------------------------------ convolution and its kin

CHANNELS = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 48])
FEW_IMAGES = st.integers(0, 3)


def _axis_of_convolution(draw):
    """(inputs, kernel, outputs, stride, padding, dilation) along an axis. Padding may be larger than the kernel."""
    kernel, stride, dilation = draw(st.sampled_from([1, 2, 3, 3, 4, 5, 7])), draw(st.integers(1, 3)), 1
    if kernel < 5:
        dilation = draw(st.sampled_from([1, 1, 2, 3]))
    before, after = (draw(st.sampled_from([0, 0, 1, kernel // 2, kernel + 1])) for _ in range(2))
    span = dilation * (kernel - 1) + 1
    size = max(1, (draw(st.integers(1, 7)) - 1) * stride + span + draw(st.integers(0, stride - 1)) - before - after)
    return size, kernel, (size + before + after - span) // stride + 1, stride, (before, after), dilation


def _convolution(draw):
    """Shapes of x, w and y = conv2d(x, w), and the constants (stride, padding, dilation, groups)."""
    n, groups = draw(FEW_IMAGES), draw(st.sampled_from([1, 1, 1, 2, 3, 16, 17]))
    c, o = (draw(CHANNELS) if groups < 4 else draw(st.integers(1, 2)) for _ in range(2))
    size, kernel, outputs, *constants = zip(_axis_of_convolution(draw), _axis_of_convolution(draw), strict=True)
    return (n, *size, c * groups), (*kernel, c, o * groups), (n, *outputs, o * groups), (*constants, groups)


def _conv2d(activation):
    def arguments(draw, arrays):
        x, w, y, constants = _convolution(draw)
        bias = arrays(y[3:]) if draw(st.booleans()) else None
        return [arrays(x), arrays(w), bias, *constants, activation, Out(y)]

    return KernelCase("conv2d", arguments, label=str(activation))


def _conv2d_transpose(activation):
    def arguments(draw, arrays):
        x, w, y, constants = _convolution(draw)
        bias = arrays(x[3:]) if draw(st.booleans()) else None
        return [arrays(y), arrays(w), bias, *constants, activation, Out(x)]

    return KernelCase("conv2d_transpose", arguments, label=str(activation))


def _conv2d_weight_gradient(draw, arrays):
    x, w, y, constants = _convolution(draw)
    return [arrays(x), arrays(y), *constants, Out(w)]


def _activation_gradient(activation):
    def arguments(draw, arrays):
        shape = draw(st.sampled_from([0, 1, 2, 7, 16, 33, 200])), draw(WIDE)
        sums = Out(shape[1:])
        if activation is None:
            return [arrays(shape), None, None, None, sums]
        y = arrays(shape)
        return [arrays(shape), np.maximum(y, 0) if activation == "relu" else y, activation, Out(shape), sums]

    return KernelCase("activation_gradient", arguments, label=str(activation))


# Pooling: the windows along an axis are rows of (start, stop, divisor).


def _windows(draw, size, empty):
    """Regular windows with padding, adaptive ones, or any ones; `empty`: some may hold nothing."""
    kind = draw(st.sampled_from(["regular", "adaptive", "any"]))
    if kind == "adaptive":
        count = draw(st.integers(1, 8))
        spans = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    elif kind == "regular":
        kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        padding = draw(st.integers(0, kernel // 2))
        spans = [(max(i, 0), min(i + kernel, size)) for i in range(-padding, size, stride)]
    else:
        pairs = st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted)
        spans = draw(st.lists(pairs, max_size=6))
    spans = [(start, stop) for start, stop in spans if start < stop or empty]
    made = [(start, stop, draw(st.integers(1, 9))) for start, stop in spans]
    return np.array(made, np.int64).reshape(-1, 3)


def _pool(draw, empty=False):
    """Shapes of x and of its pools, and the windows along both axes."""
    x = draw(FEW_IMAGES), draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(CHANNELS)
    rows, columns = _windows(draw, x[1], empty), _windows(draw, x[2], empty)
    return x, (x[0], len(rows), len(columns), x[3]), rows, columns


def _max_pool2d(draw, arrays):
    shape, pooled, rows, columns = _pool(draw)
    x = arrays(shape)
    return [np.round(x) if draw(st.booleans()) else x, rows, columns, Out(pooled), Out(pooled, np.int32)]


def _max_pool2d_backward(draw, arrays):
    shape, pooled, rows, columns = _pool(draw)
    index = np.empty(pooled, np.int32)
    reference(np).max_pool2d(np.round(arrays(shape)), rows, columns, np.empty(pooled), index)
    return [arrays(pooled), index, rows, columns, Out(shape)]


def _avg_pool2d(draw, arrays):
    shape, pooled, rows, columns = _pool(draw, empty=True)
    return [arrays(shape), rows, columns, Out(pooled)]


def _avg_pool2d_backward(draw, arrays):
    shape, pooled, rows, columns = _pool(draw, empty=True)
    return [arrays(pooled), rows, columns, Out(shape)]


# Normalization.

ROWS = st.sampled_from([1, 2, 3, 8, 17, 64, 200])
EPS = st.sampled_from([1e-3, 0.1])


def _maybe(draw, arrays, shape):
    return arrays(shape) if draw(st.booleans()) else None


def _batch_norm(activation):
    def arguments(draw, arrays):
        n, c = draw(ROWS), draw(CHANNELS)
        weight, bias = _maybe(draw, arrays, (c,)), _maybe(draw, arrays, (c,))
        return [arrays((n, c)), weight, bias, draw(EPS), activation, Out((n, c)), Out((c,)), Out((c,))]

    return KernelCase("batch_norm", arguments, label=str(activation))


def _batch_norm_backward(activation):
    def arguments(draw, arrays):
        shape = _, c = draw(ROWS), draw(CHANNELS)
        x, weight, bias, eps = arrays(shape), _maybe(draw, arrays, (c,)), _maybe(draw, arrays, (c,)), draw(EPS)
        mean, variance = x.mean(0), x.var(0)
        y = (x - mean) / np.sqrt(variance + eps) * (1 if weight is None else weight) + (0 if bias is None else bias)
        g = arrays(shape)
        g[np.abs(y) < 1e-4] = 0  # there the sign of y is a matter of rounding
        return [g, x, weight, bias, mean, variance, eps, activation, Out(shape), Out((c,)), Out((c,))]

    return KernelCase("batch_norm_backward", arguments, label=str(activation))


def _groups(draw, arrays):
    """x (n, s, c), the number of groups, and a weight or None."""
    groups, c = draw(st.sampled_from([1, 1, 2, 3, 16])), draw(CHANNELS)
    x = arrays((draw(FEW_IMAGES), draw(st.sampled_from([1, 2, 9, 30])), c * groups))
    return x, groups, _maybe(draw, arrays, x.shape[2:])


def _group_norm(centred):
    def arguments(draw, arrays):
        x, groups, weight = _groups(draw, arrays)
        bias, stats = _maybe(draw, arrays, x.shape[2:]), Out((x.shape[0], groups))
        mean = Out((x.shape[0], groups)) if centred else None
        return [x, groups, weight, bias, draw(EPS), Out(x.shape), mean, stats]

    return KernelCase("group_norm", arguments, label="" if centred else "rms")


def _group_norm_backward(centred):
    def arguments(draw, arrays):
        x, groups, weight = _groups(draw, arrays)
        mean, scale = (np.empty((x.shape[0], groups), x.dtype) for _ in range(2))
        mean = mean if centred else None
        reference(np).group_norm(x, groups, None, None, draw(EPS), np.empty(x.shape, x.dtype), mean, scale)
        sums = [Out(x.shape[2:]) if draw(st.booleans()) else None for _ in range(2)]
        return [arrays(x.shape), x, groups, weight, mean, scale, Out(x.shape), *sums]

    return KernelCase("group_norm_backward", arguments, label="" if centred else "rms")


KERNELS = [
    *[
        _formula_case(row.formula, *row.inputs, low=0.1)
        for row in TABLE
        if row.result == "same" and row.name != "where"
    ],
    KernelCase("copy", lambda draw, arrays: [arrays(s := (draw(SIDES), draw(WIDE))), Out(s)], exact=True),
    *[_reduce_case(name) for name in ("sum", "max", "min", "square_sum")],
    KernelCase(
        "argmax", lambda draw, arrays: [arrays((n := draw(SIDES), draw(WIDE))), Out((n,), np.int64)], exact=True
    ),
    KernelCase("matmul", _matmul),
    *[_linear(activation) for activation in (None, *FUSABLE)],
    *[_activation_gradient(activation) for activation in (None, *FUSABLE)],
    *[_conv2d(activation) for activation in (None, *FUSABLE)],
    *[_conv2d_transpose(activation) for activation in (None, *FUSABLE)],
    KernelCase("conv2d_weight_gradient", _conv2d_weight_gradient),
    KernelCase("max_pool2d", _max_pool2d),
    KernelCase("max_pool2d_backward", _max_pool2d_backward),
    KernelCase("avg_pool2d", _avg_pool2d),
    KernelCase("avg_pool2d_backward", _avg_pool2d_backward),
    *[case(activation) for case in (_batch_norm, _batch_norm_backward) for activation in (None, "relu")],
    *[case(centred) for case in (_group_norm, _group_norm_backward) for centred in (True, False)],
    *[_rows(slot, 1) for slot in ("softmax", "log_softmax")],
    *[_rows(slot, 2) for slot in ("softmax_backward", "log_softmax_backward")],
    KernelCase("cross_entropy", _cross_entropy),
    KernelCase("cross_entropy_backward", _cross_entropy_backward),
    KernelCase("take", _take, exact=True),
    KernelCase("take_batch", _take_batch, exact=True),
    KernelCase("scatter_add", _scatter_add),
    *[_update_case(rule) for rule in UPDATES],
    KernelCase("advance", lambda draw, arrays: [Out((), np.int64, np.array(draw(SIDES))), 3], exact=True),
    _random("random_uniform"),
    _random("random_normal"),
    _random("dropout_mask", 0.3),
]

#: Slots that each backend takes from the reference. A slot that falls back without standing here fails the suite.
FROM_REFERENCE = {
    "reference": set(SLOTS),
    "numba_cpu": set(),
    "cupy_gpu": set(),
}


# ------------------------------------------------------------------------------------------- ops


@dataclass(frozen=True)
class OpCase:
    """One way to call an operation. `arguments(draw, arrays)` gives its arguments: `arrays(shape)` is a float array for
    whose tensor gradients are checked, `Fixed` one without gradient; integer and boolean arrays become tensors too.
    oracle: the same in NumPy. derivatives: up to which order they are checked."""

    name: str
    function: Callable
    arguments: Callable
    oracle: Callable
    derivatives: int = 2
    label: str = ""

    def __str__(self):
        return f"{self.name}-{self.label}" if self.label else self.name


@dataclass
class Fixed:
    array: np.ndarray


FEW = st.integers(1, 3)
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
FILLED = st.lists(FEW, min_size=1, max_size=3).map(tuple)

#: name -> (NumPy's function, lowest and highest value of the inputs); the constants that some take stand below.
ELEMENTWISE = {
    "add": (np.add, -2, 2),
    "sub": (np.subtract, -2, 2),
    "mul": (np.multiply, -2, 2),
    "div": (np.divide, 0.3, 2),
    "pow": (np.power, 0.3, 2),
    "maximum": (np.maximum, -2, 2),
    "minimum": (np.minimum, -2, 2),
    "where": (np.where, -2, 2),
    "clip": (np.clip, -2, 2),
    "neg": (np.negative, -2, 2),
    "abs": (np.abs, -2, 2),
    "sign": (np.sign, -2, 2),
    "floor": (np.floor, -2, 2),
    "square": (np.square, -2, 2),
    "reciprocal": (np.reciprocal, 0.3, 2),
    "sqrt": (np.sqrt, 0.2, 3),
    "exp": (np.exp, -2, 2),
    "expm1": (np.expm1, -2, 2),
    "log": (np.log, 0.2, 3),
    "log1p": (np.log1p, -0.7, 3),
    "sin": (np.sin, -2, 2),
    "cos": (np.cos, -2, 2),
    "erf": (special.erf, -2, 2),
    "relu": (lambda x: np.maximum(x, 0), -2, 2),
    "tanh": (np.tanh, -2, 2),
    "sigmoid": (special.expit, -3, 3),
    "softplus": (lambda x: np.logaddexp(0, x), -3, 3),
    "silu": (lambda x: x * special.expit(x), -3, 3),
    "gelu": (lambda x: x * special.ndtr(x), -3, 3),
    "leaky_relu": (lambda x, slope: np.where(x > 0, x, slope * x), -2, 2),
    "elu": (lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)), -2, 2),
    "add_relu": (lambda a, b: np.maximum(a + b, 0), -2, 2),
    "eq": (np.equal, -2, 2),
    "ne": (np.not_equal, -2, 2),
    "lt": (np.less, -2, 2),
    "le": (np.less_equal, -2, 2),
    "gt": (np.greater, -2, 2),
    "ge": (np.greater_equal, -2, 2),
}
CONSTANTS = {"clip": (-0.7, 0.9), "leaky_relu": (0.2,), "elu": (1.3,)}


def _broadcasting(draw, count):
    """Shapes that broadcast together."""
    shape = draw(SHAPES)
    return [tuple(side if draw(st.booleans()) else 1 for side in shape[draw(st.integers(0, len(shape))) :])
            for _ in range(count - 1)] + [shape]  # fmt: skip


def _elementwise_case(row):
    oracle, low, high = ELEMENTWISE[row.name]
    constants = CONSTANTS.get(row.name, ())

    def arguments(draw, arrays):
        shapes = _broadcasting(draw, len(row.inputs) - len(constants))
        step = 0.5 if row.result == "bool" else None
        made = [arrays(shape, low, high, step) for shape in shapes]
        return [made[0] > 0, *made[1:]] if row.name == "where" else [*made, *constants]

    return OpCase(row.name, getattr(F, row.name), arguments, oracle, 2 if row.result == "same" else 0)


def _axis(draw, shape):
    return draw(st.integers(-len(shape), len(shape) - 1))


def _reduction_case(name, oracle, derivatives=2, least=0):
    def arguments(draw, arrays):
        shape = draw(st.lists(st.integers(least, 3), min_size=1, max_size=3).map(tuple))
        axes = draw(st.none() | st.sets(st.integers(0, len(shape) - 1), min_size=1).map(lambda s: tuple(sorted(s))))
        if axes is not None and len(axes) == 1 and draw(st.booleans()):
            axes = axes[0]
        return [arrays(shape), axes, draw(st.booleans())]

    def function(x, axes, keepdims):
        return getattr(F, name)(x, axes, keepdims=keepdims)

    return OpCase(name, function, arguments, lambda x, axes, keep: oracle(x, axis=axes, keepdims=keep), derivatives)


def _along_case(name, oracle, derivatives=2):
    """A function of an array and one axis."""

    def arguments(draw, arrays):
        shape = draw(FILLED)
        return [arrays(shape), _axis(draw, shape)]

    return OpCase(name, getattr(F, name), arguments, oracle, derivatives)


def _argmax(draw, arrays):
    shape = draw(FILLED)
    return [arrays(shape, step=0.5), draw(st.none() | st.integers(-len(shape), len(shape) - 1)), draw(st.booleans())]


def _matmul_shapes(draw, arrays):
    m, k, n = draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.integers(0, 3))
    a = (k,) if draw(st.booleans()) else (*((2,) if draw(st.booleans()) else ()), m, k)
    b = (k,) if draw(st.booleans()) else (*((draw(st.integers(1, 3)), 2) if draw(st.booleans()) else ()), k, n)
    return [arrays(a), arrays(b)]


def _linear_oracle(x, w, b, activation):
    y = x @ w + (0 if b is None else b)
    return y if activation is None else ELEMENTWISE[activation][0](y)


def _linear_shapes(draw, arrays):
    k, n = draw(FEW), draw(FEW)
    x = arrays((*draw(SHAPES), k))
    return [x, arrays((k, n)), arrays((n,)) if draw(st.booleans()) else None, draw(st.sampled_from((None, *FUSABLE)))]


def _reshape(draw, arrays):
    shape = draw(FILLED)
    return [arrays(shape), draw(st.sampled_from([(-1,), shape[::-1], (1, *shape), (*shape[:-1], -1, 1)]))]


def _flatten(draw, arrays):
    shape = draw(FILLED)
    start = draw(st.integers(0, len(shape) - 1))
    return [arrays(shape), start, draw(st.integers(start, len(shape) - 1))]


def _flatten_oracle(x, start, end):
    return x.reshape(*x.shape[:start], -1, *x.shape[end + 1 :])


def _permute(draw, arrays):
    shape = draw(SHAPES)
    return [arrays(shape), tuple(draw(st.permutations(range(len(shape)))))]


def _transpose(draw, arrays):
    shape = draw(FILLED)
    return [arrays(shape), _axis(draw, shape), _axis(draw, shape)]


def _unsqueeze(draw, arrays):
    shape = draw(SHAPES)
    return [arrays(shape), draw(st.integers(-len(shape) - 1, len(shape)))]


def _squeeze(draw, arrays):
    shape = tuple(1 if draw(st.booleans()) else side for side in draw(FILLED))
    return [arrays(shape), draw(st.none() | st.integers(0, len(shape) - 1))]


def _squeeze_oracle(x, axis):
    return np.squeeze(x, axis) if axis is None or x.shape[axis] == 1 else x


def _broadcast_to(draw, arrays):
    small, large = _broadcasting(draw, 2)
    return [arrays(small), np.broadcast_shapes(small, large)]


def _joined(draw, arrays):
    shape = draw(FILLED)
    axis = _axis(draw, shape)
    other = list(shape)
    other[axis] = draw(st.integers(0, 3))
    return [arrays(shape), arrays(tuple(other)), axis]


def _stacked(draw, arrays):
    shape = draw(SHAPES)
    return [arrays(shape), arrays(shape), draw(st.integers(-len(shape) - 1, len(shape)))]


def _take_index(draw, arrays):
    shape = draw(FILLED)
    index = draw(st.lists(st.lists(st.integers(-shape[0], shape[0] - 1), min_size=2, max_size=2), max_size=3))
    return [arrays(shape), np.array(index, np.int64).reshape(-1, 2)]


def _getitem(draw, arrays):
    shape = draw(FILLED)
    keys = [st.integers(-shape[0], shape[0] - 1), st.slices(shape[0]), st.just(...), st.just(None)]
    key = draw(st.one_of(*keys))
    if len(shape) > 1 and draw(st.booleans()):
        key = (key, draw(st.slices(shape[1]))) if isinstance(key, (int, slice)) else (slice(None), None, ..., 0)
    return [arrays(shape), key]


def _getitem_rows(draw, arrays):
    shape = draw(FILLED)
    rows = np.array(draw(st.lists(st.integers(-shape[0], shape[0] - 1), max_size=4)), np.int64)
    return [arrays(shape), draw(st.sampled_from([rows, arrays(shape) > 0]))]


def _random_oracle(kernel):
    """What a stream of this seed draws first, by the reference kernel."""

    def oracle(shape, seed, *constants, dtype=np.float32):
        out = np.empty(shape, dtype)
        getattr(reference(np), kernel)(host(Stream(seed).state), *constants, out=out)
        return out

    return oracle


def _dropout_oracle(x, p, seed):
    return x * _random_oracle("dropout_mask")(x.shape, seed, p, dtype=x.dtype)


def _random_case(name, kernel):
    return OpCase(
        name,
        lambda shape, seed: getattr(F, name)(*shape, rng=Stream(seed)),
        lambda draw, arrays: [draw(SHAPES), draw(st.integers(0, 2**40))],
        _random_oracle(kernel),
        derivatives=0,
    )


# Losses: the reduction is drawn too.


def _reduced(loss, reduction, weights=None):
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / (loss.size if weights is None else weights.sum())


REDUCTIONS = st.sampled_from(["mean", "sum", "none"])


def _pair_case(name, oracle, low=-2, high=2, targets=(-2, 2), options=(), derivatives=2):
    def arguments(draw, arrays):
        shape = draw(FILLED)
        return [arrays(shape, low, high), arrays(shape, *targets), draw(REDUCTIONS), *options]

    def function(x, t, reduction, *options):
        return getattr(F, name)(x, t, reduction=reduction, **dict(options))

    def compare(x, t, reduction, *options):
        return _reduced(oracle(x, t, **dict(options)), reduction)

    return OpCase(name, function, arguments, compare, derivatives, "-".join(name for name, _ in options))


def _huber_oracle(x, t, delta=1.0):
    return special.huber(delta, x - t)


def _bce_oracle(x, t):
    return -(special.xlogy(t, x) + special.xlog1py(1 - t, -x))


def _logits_oracle(x, t, pos_weight=1.0):
    return -(pos_weight * t * special.log_expit(x) + (1 - t) * special.log_expit(-x))


def _rows_and_labels(draw, arrays, low=-3.0, high=3.0):
    n, c = draw(FEW), draw(st.integers(1, 4))
    labels = np.array(draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n)), np.int64)
    return arrays((n, c), low, high), labels


def _class_case(name, low=-3.0, high=3.0, smoothing=False, weighted=True):
    def arguments(draw, arrays):
        x, labels = _rows_and_labels(draw, arrays, low, high)
        weight = Fixed(arrays((x.shape[1],), 0.2, 2)) if weighted and draw(st.booleans()) else None
        return [x, labels, weight, draw(st.sampled_from([0.0, 0.3])) if smoothing else 0.0, draw(REDUCTIONS)]

    def function(x, target, weight, s, reduction):
        options = {"weight": weight} if weighted else {}
        options |= {"label_smoothing": s} if smoothing else {}
        return getattr(F, name)(x, target, reduction=reduction, **options)

    def oracle(x, target, weight, s, reduction):
        log_p = {"nll_loss": lambda: x, "cross_entropy": lambda: special.log_softmax(x, -1)}.get(
            name, lambda: np.log(x)
        )()
        w = np.ones(x.shape[1]) if weight is None else weight
        q = (1 - s) * np.eye(x.shape[1])[target] + s / x.shape[1]
        return _reduced(-(q * w * log_p).sum(1), reduction, w[target])

    return OpCase(name, function, arguments, oracle)


def _probabilities(draw, arrays, low=-3.0, high=3.0):
    shape = draw(FEW), draw(st.integers(1, 4))
    x, q = arrays(shape, low, high), arrays(shape, 0.1, 1)
    return [x, q / q.sum(1, keepdims=True), draw(REDUCTIONS)]


# Convolution, pooling and normalization. Oracles go through the windows one by one.


def _pairs_of(value, axes=2):
    return value if isinstance(value, tuple) else (value,) * axes


def _pads(padding, size, span, stride):
    """((before, after), ...) for padding as people give it."""
    if padding == "valid":
        return [(0, 0)] * len(size)
    if padding == "same":
        total = [max((math.ceil(n / s) - 1) * s + k - n, 0) for n, k, s in zip(size, span, stride, strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    return [p if isinstance(p, tuple) else (p, p) for p in _pairs_of(padding, len(size))]


def _activated(y, activation):
    return y if activation is None else ELEMENTWISE[activation][0](y)


def _conv2d_oracle(x, w, b, stride, padding, dilation, groups, activation=None):
    stride, dilation = _pairs_of(stride), _pairs_of(dilation)
    span = [d * (k - 1) + 1 for k, d in zip(w.shape, dilation, strict=False)]
    pads = _pads(padding, x.shape[1:3], span, stride)
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    oh, ow = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], span, stride, strict=True))
    out, c, o = np.zeros((len(x), oh, ow, w.shape[3])), w.shape[2], w.shape[3] // groups
    for i, j, k in np.ndindex(oh, ow, groups):
        top, left, ins, outs = i * stride[0], j * stride[1], slice(k * c, k * c + c), slice(k * o, k * o + o)
        patch = x[:, top : top + span[0] : dilation[0], left : left + span[1] : dilation[1], ins]
        out[:, i, j, outs] = np.tensordot(patch, w[..., outs], 3)
    return _activated(out if b is None else out + b, activation)


def _conv_transpose2d_oracle(x, w, b, stride, padding, output_padding, groups, dilation, activation=None):
    stride, dilation, extra = _pairs_of(stride), _pairs_of(dilation), _pairs_of(output_padding)
    span = [d * (k - 1) + 1 for k, d in zip(w.shape, dilation, strict=False)]
    pads = _pads(padding, x.shape[1:3], span, stride)
    full = [(n - 1) * s + k + e for n, s, k, e in zip(x.shape[1:3], stride, span, extra, strict=True)]
    out, c, o = np.zeros((len(x), *full, w.shape[2] * groups)), w.shape[3] // groups, w.shape[2]
    for i, j, k in np.ndindex(*x.shape[1:3], groups):
        top, left, ins, outs = i * stride[0], j * stride[1], slice(k * c, k * c + c), slice(k * o, k * o + o)
        part = np.tensordot(x[:, i, j, ins], w[..., ins], [[1], [3]])
        out[:, top : top + span[0] : dilation[0], left : left + span[1] : dilation[1], outs] += part
    out = out[:, pads[0][0] : full[0] - pads[0][1], pads[1][0] : full[1] - pads[1][1]]
    return _activated(out if b is None else out + b, activation)


def _raised(x):
    """(n, l, c) as (n, 1, l, c)."""
    return x[:, None]


def _conv1d_oracle(x, w, b, stride, padding, dilation, groups, activation):
    padding = (
        padding if isinstance(padding, str) else ((0, 0), padding[0] if isinstance(padding, tuple) else (padding,) * 2)
    )
    return _conv2d_oracle(_raised(x), w[None], b, (1, stride), padding, (1, dilation), groups, activation)[:, 0]


def _conv_channels(draw):
    """Channels in one group, out of it, and groups: few."""
    return draw(st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)]))


def _conv2d_arguments(draw, arrays):
    c, o, groups = _conv_channels(draw)
    dilation, stride = draw(st.sampled_from([1, (2, 1)])), draw(st.sampled_from([1, 2, (1, 3)]))
    padding = draw(st.sampled_from([0, 1, (0, 2), ((1, 0), (2, 3)), "same", "valid"]))
    kernel = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    least = [d * (k - 1) + 1 for k, d in zip(kernel, _pairs_of(dilation), strict=True)]
    x, w = arrays((1, *(draw(st.integers(n, 3)) for n in least), c * groups)), arrays((*kernel, c, o * groups))
    bias = arrays((o * groups,)) if draw(st.booleans()) else None
    return [x, w, bias, stride, padding, dilation, groups, draw(st.sampled_from((None, *FUSABLE)))]


def _conv1d_arguments(draw, arrays):
    c, o, groups = _conv_channels(draw)
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.sampled_from([0, 2, ((1, 0),), "same", "valid"]))
    x = arrays((draw(FEW), draw(st.integers(dilation * (kernel - 1) + 1, 5)), c * groups))
    bias = arrays((o * groups,)) if draw(st.booleans()) else None
    activation = draw(st.sampled_from((None, *FUSABLE)))
    return [x, arrays((kernel, c, o * groups)), bias, draw(FEW), padding, dilation, groups, activation]


def _conv_transpose2d_arguments(draw, arrays):
    c, o, groups = _conv_channels(draw)
    stride, dilation, padding = draw(st.sampled_from([1, 2, (1, 3)])), draw(st.sampled_from([1, (2, 1)])), 0
    kernel = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    if min(kernel) == 2:
        padding = draw(st.sampled_from([0, ((1, 0), (0, 1)), "valid"]))
    extra = tuple(draw(st.integers(0, s - 1)) for s in _pairs_of(stride))
    x, w = arrays((1, draw(st.integers(1, 3)), draw(st.integers(1, 3)), c * groups)), arrays((*kernel, o, c * groups))
    bias = arrays((o * groups,)) if draw(st.booleans()) else None
    activation = draw(st.sampled_from((None, *FUSABLE)))
    return [x, w, bias, stride, padding, extra, groups, dilation, activation]


def _pool_oracle(x, kernel, stride, padding, ceil_mode, value):
    """value(window, how many places of the padded image it covers) for each window of x (n, h, w, c)."""
    kernel = _pairs_of(kernel)
    stride = kernel if stride is None else _pairs_of(stride)
    pads = _pads(padding, x.shape[1:3], kernel, stride)
    counts = []
    for n, k, s, (before, after) in zip(x.shape[1:3], kernel, stride, pads, strict=True):
        count = (math.ceil if ceil_mode else math.floor)((n + before + after - k) / s) + 1
        counts.append(count - (ceil_mode and (count - 1) * s >= n + before))
    out = np.empty((len(x), *counts, x.shape[3]))
    for i, j in np.ndindex(*counts):
        top, left = i * stride[0] - pads[0][0], j * stride[1] - pads[1][0]
        bottom, right = top + kernel[0], left + kernel[1]
        covered = (min(bottom, x.shape[1] + pads[0][1]) - top) * (min(right, x.shape[2] + pads[1][1]) - left)
        out[:, i, j] = value(x[:, max(top, 0) : bottom, max(left, 0) : right], covered)
    return out


def _max_pool2d_oracle(x, kernel, stride, padding, dilation, ceil_mode):
    return _pool_oracle(x, kernel, stride, padding, ceil_mode, lambda window, covered: window.max((1, 2)))


def _avg_pool2d_oracle(x, kernel, stride, padding, ceil_mode, include_pad, divisor):
    def mean(window, covered):
        return window.sum((1, 2)) / (divisor or (covered if include_pad else window.shape[1] * window.shape[2]))

    return _pool_oracle(x, kernel, stride, padding, ceil_mode, mean)


def _adaptive_oracle(x, output_size):
    size = [n if o is None else o for n, o in zip(x.shape[1:3], _pairs_of(output_size), strict=True)]
    out = np.empty((len(x), *size, x.shape[3]))
    for i, j in np.ndindex(*size):
        (top, bottom), (left, right) = (
            (math.floor(k * n / o), math.ceil((k + 1) * n / o))
            for k, n, o in zip((i, j), x.shape[1:3], size, strict=True)
        )
        out[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    return out


def _pool2d_arguments(draw, arrays):
    """x, kernel_size, stride, padding."""
    kernel = draw(st.sampled_from([1, 2, 3, (1, 2), (3, 2)]))
    sizes = [draw(st.integers(k, 4)) for k in _pairs_of(kernel)]
    paddings = [0, "same", "valid"] + ([1, ((0, 1), (1, 0))] if min(_pairs_of(kernel)) > 1 else [])
    stride = draw(st.sampled_from([None, 1, 2, (2, 1)]))
    return [arrays((1, *sizes, 1)), kernel, stride, draw(st.sampled_from(paddings))]


def _pool1d_arguments(draw, arrays):
    kernel = draw(st.integers(1, 3))
    padding = draw(st.sampled_from([0, "same"] + [1, ((1, 0),)] * (kernel > 1)))
    return [arrays((draw(FEW), draw(st.integers(kernel, 6)), 1)), kernel, draw(st.sampled_from([None, 1, 2])), padding]


def _lowered(oracle):
    """The oracle for images, for one axis."""

    def on_rows(x, kernel, stride, padding, *options):
        if not isinstance(padding, str):
            padding = ((0, 0), padding[0] if isinstance(padding, tuple) else (padding, padding))
        return oracle(_raised(x), (1, kernel), None if stride is None else (1, stride), padding, *options)[:, 0]

    return on_rows


def _batch_norm_oracle(x, running_mean, running_var, weight, bias, training, eps, activation):
    axes = tuple(range(x.ndim - 1))
    mean, variance = (x.mean(axes), x.var(axes)) if training else (running_mean, running_var)
    y = (x - mean) / np.sqrt(variance + eps) * (1 if weight is None else weight) + (0 if bias is None else bias)
    return _activated(y, activation)


def _batch_norm_arguments(draw, arrays):
    c = draw(st.integers(1, 2))
    x = arrays((*draw(st.lists(FEW, min_size=1, max_size=2)), c))
    running = [Fixed(arrays((c,))), Fixed(arrays((c,), 0.5, 2))]
    affine = [arrays((c,)) if draw(st.booleans()) else None for _ in range(2)]
    return [x, *running, *affine, draw(st.booleans()), 0.3, draw(st.sampled_from([None, "relu"]))]


def _standard(x, axes, eps=0.3, centred=True):
    deviation = x - x.mean(axes, keepdims=True) if centred else x
    return deviation / np.sqrt((deviation**2).mean(axes, keepdims=True) + eps)


def _group_norm_oracle(x, groups, weight, bias, eps=0.3):
    parts = [_standard(part, tuple(range(1, x.ndim)), eps) for part in np.split(x, groups, -1)]
    return np.concatenate(parts, -1) * (1 if weight is None else weight) + (0 if bias is None else bias)


def _group_norm_arguments(draw, arrays):
    groups, part = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x = arrays((draw(st.integers(1, 2)), *draw(st.lists(st.integers(1, 2), max_size=2)), groups * part))
    return [x, groups, *(_maybe(draw, arrays, x.shape[-1:]) for _ in range(2))]


def _row_norm_arguments(draw, arrays):
    x = arrays(draw(FILLED))
    shape = x.shape[draw(st.integers(0, x.ndim - 1)) :]
    given = shape[0] if len(shape) == 1 and draw(st.booleans()) else shape
    return [x, given, _maybe(draw, arrays, shape), _maybe(draw, arrays, shape)]


def _row_norm_oracle(x, shape, weight, bias, centred=True):
    axes = tuple(range(x.ndim - len(_pairs_of(shape, 1)), x.ndim))
    return _standard(x, axes, centred=centred) * (1 if weight is None else weight) + (0 if bias is None else bias)


def _pad_arguments(draw, arrays):
    x = arrays(draw(FILLED))
    pairs = tuple(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in range(draw(st.integers(1, x.ndim))))
    flat = draw(st.booleans()) or len(pairs) < x.ndim
    return [x, sum(pairs[::-1], ()) if flat else pairs, draw(st.sampled_from([0.0, 1.5]))]


def _pad_oracle(x, given, value):
    if not isinstance(given[0], tuple):
        pairs = list(zip(given[::2], given[1::2], strict=True))[::-1]
        given = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    return np.pad(x, given, constant_values=value)


OPS = [
    *[_elementwise_case(row) for row in TABLE if row.name in ELEMENTWISE and hasattr(F, row.name)],
    OpCase(
        "pow", F.pow, lambda draw, arrays: [arrays(draw(SHAPES)), draw(st.integers(2, 4))], np.power, label="integer"
    ),
    *[_reduction_case(name, getattr(np, name)) for name in ("sum",)],
    _reduction_case("mean", np.mean, least=1),
    _reduction_case("max", np.max, least=1),
    _reduction_case("min", np.min, least=1),
    _reduction_case("var", lambda x, **kw: np.var(x, ddof=1, **kw), least=2),
    _reduction_case("std", lambda x, **kw: np.std(x, ddof=1, **kw), least=2),
    OpCase("argmax", F.argmax, _argmax, lambda x, axis, keep: np.argmax(x, axis, keepdims=keep), 0),
    _along_case("softmax", special.softmax),
    _along_case("log_softmax", special.log_softmax),
    _along_case("logsumexp", special.logsumexp),
    OpCase("matmul", F.matmul, _matmul_shapes, np.matmul),
    OpCase("linear", F.linear, _linear_shapes, _linear_oracle),
    OpCase("conv1d", F.conv1d, _conv1d_arguments, _conv1d_oracle),
    OpCase("conv2d", F.conv2d, _conv2d_arguments, _conv2d_oracle),
    OpCase("conv_transpose2d", F.conv_transpose2d, _conv_transpose2d_arguments, _conv_transpose2d_oracle),
    OpCase(
        "max_pool1d",
        F.max_pool1d,
        lambda d, a: [*_pool1d_arguments(d, a), 1, d(st.booleans())],
        _lowered(_max_pool2d_oracle),
    ),
    OpCase(
        "max_pool2d", F.max_pool2d, lambda d, a: [*_pool2d_arguments(d, a), 1, d(st.booleans())], _max_pool2d_oracle
    ),
    OpCase(
        "avg_pool1d",
        F.avg_pool1d,
        lambda d, a: [*_pool1d_arguments(d, a), d(st.booleans()), d(st.booleans())],
        lambda *args: _lowered(_avg_pool2d_oracle)(*args, None),
    ),
    OpCase(
        "avg_pool2d",
        F.avg_pool2d,
        lambda d, a: [*_pool2d_arguments(d, a), d(st.booleans()), d(st.booleans()), d(st.sampled_from([None, 3]))],
        _avg_pool2d_oracle,
    ),
    OpCase(
        "adaptive_avg_pool1d",
        F.adaptive_avg_pool1d,
        lambda draw, arrays: [arrays((2, draw(st.integers(1, 6)), 2)), draw(st.integers(1, 4))],
        lambda x, size: _adaptive_oracle(_raised(x), (1, size))[:, 0],
    ),
    OpCase(
        "adaptive_avg_pool2d",
        F.adaptive_avg_pool2d,
        lambda d, arrays: [
            arrays((1, d(st.integers(1, 4)), d(st.integers(1, 5)), 1)),
            d(st.sampled_from([1, 3, (2, None)])),
        ],
        _adaptive_oracle,
    ),
    OpCase(
        "global_avg_pool1d",
        F.global_avg_pool1d,
        lambda draw, arrays: [arrays((draw(FEW), draw(FEW), 2)), draw(st.booleans())],
        lambda x, keep: x.mean(1, keepdims=keep),
    ),
    OpCase(
        "global_avg_pool2d",
        F.global_avg_pool2d,
        lambda draw, arrays: [arrays((draw(FEW), draw(FEW), 2, 1)), draw(st.booleans())],
        lambda x, keep: x.mean((1, 2), keepdims=keep),
    ),
    OpCase(
        "batch_norm",
        lambda x, mean, var, w, b, training, eps, activation: F.batch_norm(
            x, mean, var, w, b, training, 0.1, eps, activation
        ),
        _batch_norm_arguments,
        _batch_norm_oracle,
    ),
    OpCase("group_norm", lambda *args: F.group_norm(*args, eps=0.3), _group_norm_arguments, _group_norm_oracle),
    OpCase("layer_norm", lambda *args: F.layer_norm(*args, eps=0.3), _row_norm_arguments, _row_norm_oracle),
    OpCase(
        "rms_norm",
        lambda x, shape, weight: F.rms_norm(x, shape, weight, eps=0.3),
        lambda draw, arrays: _row_norm_arguments(draw, arrays)[:3],
        lambda x, shape, weight: _row_norm_oracle(x, shape, weight, None, centred=False),
    ),
    OpCase("pad", lambda x, pad, value: F.pad(x, pad, value=value), _pad_arguments, _pad_oracle),
    OpCase("reshape", F.reshape, _reshape, np.reshape),
    OpCase("flatten", F.flatten, _flatten, _flatten_oracle),
    OpCase("permute", F.permute, _permute, np.transpose),
    OpCase("transpose", F.transpose, _transpose, np.swapaxes),
    OpCase("squeeze", F.squeeze, _squeeze, _squeeze_oracle),
    OpCase("unsqueeze", F.unsqueeze, _unsqueeze, np.expand_dims),
    OpCase("broadcast_to", F.broadcast_to, _broadcast_to, np.broadcast_to),
    OpCase("contiguous", F.contiguous, lambda draw, arrays: [arrays(draw(SHAPES))], lambda x: x),
    OpCase("clone", F.clone, lambda draw, arrays: [arrays(draw(SHAPES))], np.array),
    OpCase("concatenate", lambda a, b, d: F.concatenate([a, b], d), _joined, lambda a, b, d: np.concatenate([a, b], d)),
    OpCase("stack", lambda a, b, d: F.stack([a, b], d), _stacked, lambda a, b, d: np.stack([a, b], d)),
    OpCase("take", F.take, _take_index, lambda x, index: x[index]),
    OpCase("getitem", Tensor.__getitem__, _getitem, lambda x, key: x[key]),
    OpCase("getitem", Tensor.__getitem__, _getitem_rows, lambda x, key: x[key], label="rows"),
    OpCase(
        "one_hot",
        F.one_hot,
        lambda draw, arrays: [_rows_and_labels(draw, arrays)[1], 4],
        lambda labels, classes: np.eye(classes)[labels],
        derivatives=0,
    ),
    OpCase(
        "dropout",
        lambda x, p, seed: F.dropout(x, p, rng=Stream(seed)),
        lambda draw, arrays: [arrays(draw(SHAPES)), 0.4, draw(st.integers(0, 2**40))],
        _dropout_oracle,
    ),
    _random_case("rand", "random_uniform"),
    _random_case("randn", "random_normal"),
    _pair_case("mse_loss", lambda x, t: (x - t) ** 2),
    _pair_case("l1_loss", lambda x, t: np.abs(x - t)),
    _pair_case("huber_loss", _huber_oracle),
    _pair_case("huber_loss", _huber_oracle, options=(("delta", 0.4),)),
    _pair_case("binary_cross_entropy", _bce_oracle, 0.05, 0.95, (0, 1)),
    _pair_case("binary_cross_entropy_with_logits", _logits_oracle, -3, 3, (0, 1)),
    _pair_case("binary_cross_entropy_with_logits", _logits_oracle, -3, 3, (0, 1), (("pos_weight", 2.5),)),
    _class_case("cross_entropy", smoothing=True),
    _class_case("nll_loss"),
    _class_case("sparse_categorical_cross_entropy", 0.05, 0.95, weighted=False),
    OpCase(
        "cross_entropy",
        lambda x, q, reduction: F.cross_entropy(x, q, reduction=reduction),
        _probabilities,
        lambda x, q, reduction: _reduced(-(q * special.log_softmax(x, -1)).sum(1), reduction),
        label="probabilities",
    ),
    OpCase(
        "categorical_cross_entropy",
        lambda x, q, reduction: F.categorical_cross_entropy(x, q, reduction=reduction),
        lambda draw, arrays: _probabilities(draw, arrays, 0.05, 0.95),
        lambda x, q, reduction: _reduced(-(q * np.log(x)).sum(1), reduction),
    ),
]


# ---------------------------------------------------------------------------------------- layers


@dataclass(frozen=True)
class LayerCase:
    """A module. make() gives one, in training mode; arguments as in `OpCase`. oracle(module, *arguments): the same in
    NumPy; `module.weights` are its parameters by name, as arrays."""

    name: str
    make: Callable
    arguments: Callable
    oracle: Callable
    label: str = ""

    def __str__(self):
        return f"{self.name}-{self.label}" if self.label else self.name


def _activation_case(kind, *options):
    """An activation whose function stands in the table of elementwise functions."""
    name = {nn.LeakyReLU: "leaky_relu"}.get(kind, kind.__name__.lower())
    function = ELEMENTWISE[name][0]
    return LayerCase(
        kind.__name__,
        lambda: kind(*options),
        lambda draw, arrays: [arrays(draw(SHAPES), -3, 3)],
        lambda module, x: function(x, *options),
    )


def _features(width):
    return lambda draw, arrays: [arrays((*draw(SHAPES), width))]


def _affine(weights, x, name=""):
    return x @ weights[f"{name}weight"] + weights.get(f"{name}bias", 0)


def _softmax_case(kind, oracle):
    return LayerCase(
        kind.__name__,
        lambda: kind(dim=1),
        lambda draw, arrays: [arrays((draw(FEW), draw(FEW)))],
        lambda m, x: oracle(x, 1),
    )


def _loss_case(kind, function, arguments, **options):
    """A loss module gives what its function gives."""
    return LayerCase(
        kind.__name__,
        lambda: kind(**options),
        lambda draw, arrays: arguments(draw, arrays)[:2],
        lambda module, *args: function(*(Tensor(moved(a, default_memory())) for a in args), **options).numpy(),
        "-".join(options),
    )


def _pairs(low=-2, high=2):
    return lambda draw, arrays: [arrays(shape := draw(FILLED), low, high), arrays(shape, 0, 1)]


def _weighted_labels(draw, arrays):
    n = draw(FEW)
    return [arrays((n, 3)), np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), np.int64)]


def _image(channels, least=1):
    """One small image."""
    sides = st.integers(least, 3 if channels == 1 else 2)
    return lambda draw, arrays: [arrays((1, draw(sides), draw(sides), channels))]


def _row(channels, least=1):
    return lambda draw, arrays: [arrays((draw(st.integers(1, 2)), draw(st.integers(least, 3)), channels))]


def _pool_case(kind, options, oracle, arguments, label=""):
    return LayerCase(kind.__name__, lambda: kind(**options), arguments, lambda module, x: oracle(x), label)


def _known(layer):
    """The layer with running statistics, in evaluation mode."""
    layer.running_mean.copy_([0.5, -0.3])
    layer.running_var.copy_([2.0, 0.4])
    layer.weight.data.copy_([1.5, -0.5])
    return layer.eval()


def _batch_normed(module, x):
    return _batch_norm_oracle(x, None, None, module.weights.get("weight"), module.weights.get("bias"), True, 0.3, None)


def _known_oracle(eps):
    def oracle(module, x):
        w = module.weights
        return _batch_norm_oracle(x, w["running_mean"], w["running_var"], w["weight"], w["bias"], False, eps, None)

    return oracle


LAYERS = [
    LayerCase(
        "Conv1d",
        lambda: nn.Conv1d(1, 2, 2, stride=2, padding=1, rng=0),
        _row(1),
        lambda m, x: _conv1d_oracle(x, m.weights["weight"], m.weights["bias"], 2, 1, 1, 1, None),
    ),
    LayerCase(
        "Conv2d",
        lambda: nn.Conv2d(1, 2, (2, 1), padding=((1, 0), (0, 2)), rng=0),
        _image(1),
        lambda m, x: _conv2d_oracle(x, m.weights["weight"], m.weights["bias"], 1, ((1, 0), (0, 2)), 1, 1),
    ),
    LayerCase(
        "Conv2d",
        lambda: nn.Conv2d(2, 4, 2, stride=2, padding="same", groups=2, bias=False, rng=0),
        _image(2),
        lambda m, x: _conv2d_oracle(x, m.weights["weight"], None, 2, "same", 1, 2),
        "groups",
    ),
    LayerCase(
        "Conv2D",
        lambda: nn.Conv2D(2, 2, padding="same", activation="tanh", input_shape=(3, 3, 1), rng=0),
        _image(1),
        lambda m, x: _conv2d_oracle(x, m.weights["weight"], m.weights["bias"], 1, "same", 1, 1, "tanh"),
        "tanh",
    ),
    LayerCase(
        "Conv2D",
        lambda: nn.Conv2D(1, (2, 1), 2, activation="gelu", use_bias=False, input_shape=(3, 3, 2), rng=0),
        _image(2, least=2),
        lambda m, x: _conv2d_oracle(x, m.weights["weight"], None, 2, "valid", 1, 1, "gelu"),
        "gelu",
    ),
    LayerCase(
        "Conv1D",
        lambda: nn.Conv1D(2, 2, padding=((1, 0),), activation="sigmoid", input_shape=(3, 1), rng=0),
        _row(1),
        lambda m, x: _conv1d_oracle(x, m.weights["weight"], m.weights["bias"], 1, ((1, 0),), 1, 1, "sigmoid"),
    ),
    LayerCase(
        "ConvTranspose2d",
        lambda: nn.ConvTranspose2d(2, 2, (3, 2), stride=2, padding=(1, 0), output_padding=1, groups=2, rng=0),
        _image(2),
        lambda m, x: _conv_transpose2d_oracle(x, m.weights["weight"], m.weights["bias"], 2, (1, 0), 1, 2, 1),
    ),
    _pool_case(
        nn.MaxPool1d,
        {"kernel_size": 2, "padding": 1},
        lambda x: _max_pool2d_oracle(_raised(x), (1, 2), None, ((0, 0), (1, 1)), 1, False)[:, 0],
        _row(1),
    ),
    _pool_case(
        nn.MaxPool2d,
        {"kernel_size": 2, "stride": 1, "padding": 1, "ceil_mode": True},
        lambda x: _max_pool2d_oracle(x, 2, 1, 1, 1, True),
        _image(2),
    ),
    _pool_case(
        nn.AvgPool1d,
        {"kernel_size": 2, "ceil_mode": True},
        lambda x: _avg_pool2d_oracle(_raised(x), (1, 2), None, 0, True, True, None)[:, 0],
        _row(2, least=2),
    ),
    _pool_case(
        nn.AvgPool2d,
        {"kernel_size": (2, 1), "padding": (1, 0), "count_include_pad": False},
        lambda x: _avg_pool2d_oracle(x, (2, 1), None, (1, 0), False, False, None),
        _image(1),
    ),
    _pool_case(nn.AdaptiveAvgPool1d, {"output_size": 2}, lambda x: _adaptive_oracle(_raised(x), (1, 2))[:, 0], _row(2)),
    _pool_case(nn.AdaptiveAvgPool2d, {"output_size": (2, None)}, lambda x: _adaptive_oracle(x, (2, None)), _image(1)),
    _pool_case(nn.GlobalAvgPool1d, {}, lambda x: x.mean(1), _row(2)),
    _pool_case(nn.GlobalAvgPool2d, {"keepdims": True}, lambda x: x.mean((1, 2), keepdims=True), _image(2)),
    _pool_case(
        nn.MaxPooling2D,
        {"padding": "same"},
        lambda x: _max_pool2d_oracle(x, 2, None, "same", 1, False),
        _image(1),
    ),
    _pool_case(
        nn.AveragePooling2D,
        {"pool_size": 2, "strides": 1, "padding": "same"},
        lambda x: _avg_pool2d_oracle(x, 2, 1, "same", False, False, None),
        _image(1),
    ),
    _pool_case(
        nn.MaxPooling1D,
        {"padding": "same"},
        lambda x: _max_pool2d_oracle(_raised(x), (1, 2), None, "same", 1, False)[:, 0],
        _row(2),
    ),
    _pool_case(
        nn.AveragePooling1D,
        {"strides": 1, "padding": "same"},
        lambda x: _avg_pool2d_oracle(_raised(x), (1, 2), 1, "same", False, False, None)[:, 0],
        _row(2),
    ),
    _pool_case(nn.GlobalAveragePooling1D, {}, lambda x: x.mean(1), _row(2)),
    _pool_case(nn.GlobalAveragePooling2D, {}, lambda x: x.mean((1, 2)), _image(2)),
    LayerCase("BatchNorm", lambda: nn.BatchNorm(2, eps=0.3), lambda d, a: _image(2)(d, a), _batch_normed),
    LayerCase("BatchNorm", lambda: nn.BatchNorm(2, eps=0.3, affine=False), _row(2), _batch_normed, "plain"),
    LayerCase("BatchNorm1d", lambda: nn.BatchNorm1d(2, eps=0.3), _row(2), _batch_normed),
    LayerCase("BatchNorm1d", lambda: _known(nn.BatchNorm1d(2)), _row(2), _known_oracle(1e-5), "evaluation"),
    LayerCase("BatchNorm2d", lambda: nn.BatchNorm2d(2, eps=0.3), _image(2), _batch_normed),
    LayerCase("BatchNorm2d", lambda: _known(nn.BatchNorm2d(2)), _image(2), _known_oracle(1e-5), "evaluation"),
    LayerCase(
        "BatchNormalization",
        lambda: nn.BatchNormalization(epsilon=0.3, scale=False, input_shape=(3, 2)),
        _row(2),
        _batch_normed,
    ),
    LayerCase(
        "BatchNormalization",
        lambda: _known(nn.BatchNormalization(input_shape=(2, 2, 2))),
        _image(2),
        _known_oracle(1e-3),
        "evaluation",
    ),
    LayerCase(
        "GroupNorm",
        lambda: nn.GroupNorm(2, 2, eps=0.3),
        _image(2),
        lambda m, x: _group_norm_oracle(x, 2, m.weights["weight"], m.weights["bias"]),
    ),
    LayerCase(
        "LayerNorm",
        lambda: nn.LayerNorm(3, eps=0.3),
        _features(3),
        lambda m, x: _row_norm_oracle(x, 3, m.weights["weight"], m.weights["bias"]),
    ),
    LayerCase(
        "LayerNorm",
        lambda: nn.LayerNorm((2, 2), eps=0.3, elementwise_affine=False),
        lambda draw, arrays: [arrays((*draw(SHAPES), 2, 2))],
        lambda m, x: _row_norm_oracle(x, (2, 2), None, None),
        "plain",
    ),
    LayerCase(
        "RMSNorm",
        lambda: nn.RMSNorm(3, eps=0.3),
        _features(3),
        lambda m, x: _row_norm_oracle(x, 3, m.weights["weight"], None, centred=False),
    ),
    LayerCase(
        "Residual",
        lambda: nn.Residual(nn.Linear(3, 3, rng=0)),
        _features(3),
        lambda m, x: x + _affine(m.weights, x, "body."),
    ),
    LayerCase(
        "Residual",
        lambda: nn.Residual(nn.Linear(3, 2, rng=0), nn.Linear(3, 2, rng=1), activation="relu"),
        _features(3),
        lambda m, x: np.maximum(_affine(m.weights, x, "body.") + _affine(m.weights, x, "shortcut."), 0),
        "shortcut",
    ),
    *[_activation_case(kind) for kind in (nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus)],
    _activation_case(nn.LeakyReLU, 0.2),
    _activation_case(nn.ELU, 1.3),
    _softmax_case(nn.Softmax, special.softmax),
    _softmax_case(nn.LogSoftmax, special.log_softmax),
    LayerCase("Identity", nn.Identity, lambda draw, arrays: [arrays(draw(SHAPES))], lambda module, x: x),
    LayerCase(
        "Flatten",
        nn.Flatten,
        lambda draw, arrays: [arrays((2, *draw(FILLED)))],
        lambda module, x: x.reshape(2, -1),
    ),
    LayerCase(
        "Dropout",
        lambda: nn.Dropout(0.4, rng=Stream(3)),
        lambda draw, arrays: [arrays(draw(SHAPES))],
        lambda module, x: _dropout_oracle(x, 0.4, 3),
    ),
    LayerCase("Linear", lambda: nn.Linear(3, 2, rng=0), _features(3), lambda m, x: _affine(m.weights, x)),
    LayerCase(
        "Linear", lambda: nn.Linear(3, 2, bias=False), _features(3), lambda m, x: _affine(m.weights, x), "no bias"
    ),
    LayerCase(
        "Dense",
        lambda: nn.Dense(2, activation="tanh", input_shape=(3,), rng=0),
        _features(3),
        lambda m, x: np.tanh(_affine(m.weights, x)),
        "tanh",
    ),
    LayerCase(
        "Dense",
        lambda: nn.Dense(2, activation="softmax", use_bias=False, input_dim=3),
        _features(3),
        lambda m, x: special.softmax(_affine(m.weights, x), -1),
        "softmax",
    ),
    LayerCase(
        "Sequential",
        lambda: nn.Sequential(nn.Linear(3, 4, rng=0), nn.Sigmoid(), nn.Linear(4, 2, rng=1)),
        _features(3),
        lambda m, x: _affine(m.weights, special.expit(_affine(m.weights, x, "0.")), "2."),
    ),
    _loss_case(nn.MSELoss, F.mse_loss, _pairs()),
    _loss_case(nn.MSELoss, F.mse_loss, _pairs(), reduction="none"),
    _loss_case(nn.L1Loss, F.l1_loss, _pairs()),
    _loss_case(nn.HuberLoss, F.huber_loss, _pairs(), delta=0.4),
    _loss_case(nn.BCELoss, F.binary_cross_entropy, _pairs(0.05, 0.95), reduction="sum"),
    _loss_case(nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits, _pairs(), pos_weight=2.5),
    _loss_case(nn.NLLLoss, F.nll_loss, _weighted_labels, weight=[0.5, 1.0, 2.0]),
    _loss_case(nn.CrossEntropyLoss, F.cross_entropy, _weighted_labels, weight=[0.5, 1.0, 2.0], label_smoothing=0.1),
    _loss_case(nn.CrossEntropyLoss, F.cross_entropy, lambda d, a: _probabilities(d, a), reduction="sum"),
]


# ------------------------------------------------------------------------------------ optimizers


@dataclass(frozen=True)
class OptimizerCase:
    """An optimizer with some options. peer: the class of torch.optim that takes the same options, if one does."""

    name: str
    options: dict
    peer: str | None = None

    def __str__(self):
        return "-".join([self.name, *(f"{name}={value}" for name, value in self.options.items())])


OPTIMIZERS = [
    OptimizerCase("sgd", {"lr": 0.1}, "SGD"),
    OptimizerCase("sgd", {"lr": 0.05, "weight_decay": 0.1}, "SGD"),
    OptimizerCase("sgd", {"lr": 0.05, "l1": 0.1}),
    OptimizerCase("sgd", {"lr": 0.05, "momentum": 0.9}, "SGD"),
    OptimizerCase("sgd", {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01}, "SGD"),
    OptimizerCase("sgd", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, "SGD"),
    OptimizerCase("adam", {"lr": 0.05}, "Adam"),
    OptimizerCase("adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}, "Adam"),
    OptimizerCase("adam", {"lr": 0.05, "l1": 0.1}),
    OptimizerCase("adamw", {"lr": 0.05}, "AdamW"),
    OptimizerCase("adamw", {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.2}, "AdamW"),
    OptimizerCase("adamw", {"lr": 0.05, "l1": 0.1, "weight_decay": 0.1}),
    OptimizerCase("rmsprop", {"lr": 0.02}, "RMSprop"),
    OptimizerCase("rmsprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.5}, "RMSprop"),
    OptimizerCase("rmsprop", {"lr": 0.01, "weight_decay": 0.1, "l1": 0.05, "momentum": 0.5}),
    OptimizerCase("adagrad", {"lr": 0.5}, "Adagrad"),
    OptimizerCase("adagrad", {"lr": 0.5, "lr_decay": 0.05, "weight_decay": 0.1, "eps": 1e-3}, "Adagrad"),
    OptimizerCase("adagrad", {"lr": 0.5, "l1": 0.1}),
]


# ----------------------------------------------------------- samplers, pruners, storages (tuner)


@dataclass(frozen=True)
class SamplerCase:
    """make(seed) -> a sampler for any space. even: do its points fill the cube more evenly than random ones?"""

    name: str
    make: Callable[[int], samplers.Sampler]
    even: bool = False

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class PrunerCase:
    """make() -> a pruner. ends_bad: does it end a trial that is worse than all others at each of 27 steps? resumable:
    can it run any `Resumable`?"""

    name: str
    make: Callable[[], pruners.Pruner]
    ends_bad: bool = True
    resumable: bool = True

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class StorageCase:
    """open(folder) -> a storage; a second call opens the same one again if it `lasts`."""

    name: str
    open: Callable[[Path], storage.Storage]
    lasts: bool = False

    def __str__(self):
        return self.name


SAMPLERS = [
    SamplerCase("GridSampler", lambda seed: samplers.GridSampler(seed=seed, points=3)),
    SamplerCase("RandomSampler", lambda seed: samplers.RandomSampler(seed=seed)),
    SamplerCase("QMCSampler", lambda seed: samplers.QMCSampler(seed=seed), even=True),
    SamplerCase("GPSampler", lambda seed: samplers.GPSampler(seed=seed)),
    SamplerCase("TPESampler", lambda seed: samplers.TPESampler(seed=seed)),
    SamplerCase("CmaEsSampler", lambda seed: samplers.CmaEsSampler(seed=seed)),
    SamplerCase("RegularizedEvolutionSampler", lambda seed: samplers.RegularizedEvolutionSampler(8, 3, seed=seed)),
    SamplerCase("NSGAIISampler", lambda seed: samplers.NSGAIISampler(seed=seed, population_size=8)),
    SamplerCase("InterleavedSampler", lambda seed: samplers.InterleavedSampler(seed=seed)),
    SamplerCase("AutoSampler", lambda seed: samplers.AutoSampler(seed=seed)),
]

PRUNERS = [
    PrunerCase("NopPruner", lambda: pruners.NopPruner(), ends_bad=False),
    PrunerCase("MedianPruner", lambda: pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=3, interval_steps=4)),
    PrunerCase("PercentilePruner", lambda: pruners.PercentilePruner(25.0, n_startup_trials=2)),
    PrunerCase("PatientPruner", lambda: pruners.PatientPruner(None, patience=3)),
    PrunerCase("SuccessiveHalvingPruner", lambda: pruners.SuccessiveHalvingPruner(1, reduction_factor=3)),
    PrunerCase("EarlyDiscardingPruner", lambda: pruners.EarlyDiscardingPruner(candidates=8, steps=2, keep=2)),
    PrunerCase("HyperbandPruner", lambda: pruners.HyperbandPruner(1, 27, reduction_factor=3)),
    PrunerCase("AsynchronousHalvingPruner", lambda: pruners.AsynchronousHalvingPruner()),
    PrunerCase("ProgressiveHalvingPruner", lambda: pruners.ProgressiveHalvingPruner()),
    PrunerCase("FreezeThawPruner", lambda: pruners.FreezeThawPruner(n_startup_trials=2)),
    PrunerCase("AutoPruner", lambda: pruners.AutoPruner()),
    PrunerCase("PopulationTrainingPruner", lambda: pruners.PopulationTrainingPruner(), ends_bad=False, resumable=False),
    PrunerCase("FoldPruner", lambda: pruners.FoldPruner(margin=2.0, n_startup_trials=2)),
]

STORAGES = [
    StorageCase("MemoryStorage", lambda folder: storage.MemoryStorage()),
    StorageCase("SqliteStorage", lambda folder: storage.SqliteStorage(folder / "study.db"), lasts=True),
]
