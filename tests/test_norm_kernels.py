"""Compiled normalization and activation gradients: threads, code paths by shape, accuracy, memory around arrays."""

import numpy as np
import pytest
from views import replayed, same_in_parts, unset

from kernels.reference import reference

pytest.importorskip("numba")
from kernels.numba_cpu import activation as activation_module
from kernels.numba_cpu import group_norm as group_module
from kernels.numba_cpu import norm as norm_module

ORACLE = reference(np)
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
EPS = 1e-5


def drawn(seed, *shape, dtype=np.float32, mean=0.5):
    return np.random.default_rng(seed).normal(mean, 1.5, shape).astype(dtype)


def wide(*arguments):
    """The arguments, with float64 in place of float32."""
    return [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments]


def compare(slot, ours, arguments, outs, dtype, module=None, scale=1.0):
    """`ours(*arguments, *outs)` is what the reference gives in float64, in any number of parts and when replayed.

    outs: shapes of the arrays that are written, or None.
    """
    found = [None if shape is None else unset(shape, dtype) for shape in outs]
    written = [out for out in found if out is not None]

    def call():
        ours(*arguments, *found)

    if module is None:
        call()
    else:
        same_in_parts(module, call, *written)
        replayed(call, *written)
    expected = [None if shape is None else unset(shape, np.float64) for shape in outs]
    getattr(ORACLE, slot)(*wide(*arguments), *expected)
    for a, b in zip(written, [out for out in expected if out is not None], strict=True):
        np.testing.assert_allclose(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)
    return found


def framed(x):
    """A copy of x amid NaN, and the memory in which it lies."""
    memory = np.full(x.size + 128, np.nan, x.dtype)
    view = memory[64 : 64 + x.size].reshape(x.shape)
    view[...] = x
    return view, memory


def untouched(*frames):
    return all(np.isnan(memory[:64]).all() and np.isnan(memory[-64:]).all() for memory in frames)


# ------------------------------------------------------------------------------------- batch norm

#: One chunk, several; whole vectors, a rest, only a rest; several panels of columns; heads of 1 to 8 rows.
MATRICES = [(1, 16), (7, 5), (8, 33), (129, 16), (1030, 10), (700, 64), (300, 530), (5, 1100)]


@FLOATS
@pytest.mark.parametrize("shape", MATRICES, ids=str)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_batch_norm_and_its_backward(shape, activation, dtype):
    n, c = shape
    x, g = drawn(0, n, c, dtype=dtype), drawn(1, n, c, dtype=dtype)
    weight, bias = drawn(2, c, dtype=dtype), drawn(3, c, dtype=dtype)
    for w, b in ((weight, bias), (None, None), (weight, None), (None, bias)):
        arguments, outs = (x, w, b, EPS, activation), [(n, c), c, c]
        _, mean, variance = compare("batch_norm", norm_module.batch_norm, arguments, outs, dtype, norm_module, 30)
        # Seldom does a float32 lie on the other side of zero than its float64.
        z = (x - mean) / np.sqrt(variance + EPS)
        y = (z if w is None else z * w) + (0 if b is None else b)
        arguments = (np.where(abs(y) < 1e-4, 0, g), x, w, b, mean, variance, EPS, activation)
        compare("batch_norm_backward", norm_module.batch_norm_backward, arguments, outs, dtype, norm_module, 30 * n)


@pytest.mark.parametrize("n", [9, 128, 5000])
@pytest.mark.parametrize("offset", [100.0, -10000.0])
def test_variance_beside_a_large_mean(n, offset):
    x = drawn(4, n, 24, mean=offset)
    out, mean, variance = unset((n, 24), np.float32), unset(24, np.float32), unset(24, np.float32)
    norm_module.batch_norm(x, None, None, EPS, None, out, mean, variance)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=2e-7)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(0), rtol=1e-5)


def test_variance_with_an_outlier_first():
    x = drawn(5, 3000, 17)
    x[0] = 1e4
    outs = [unset(x.shape, np.float32), unset(17, np.float32), unset(17, np.float32)]
    norm_module.batch_norm(x, None, None, EPS, None, *outs)
    np.testing.assert_allclose(outs[2], x.astype(np.float64).var(0), rtol=1e-5)


def test_constant_columns_have_no_variance():
    x = np.tile(np.linspace(-7, 1000, 40, dtype=np.float32), (777, 1))
    outs = [unset(x.shape, np.float32), unset(40, np.float32), unset(40, np.float32)]
    norm_module.batch_norm(x, None, None, EPS, None, *outs)
    np.testing.assert_allclose(outs[1], x[0], rtol=1e-6)
    np.testing.assert_allclose(outs[2], 0, atol=1e-6)


def test_nan_stays_in_its_column():
    x = drawn(6, 600, 20)
    x[401, 3] = np.nan
    out, mean, variance = unset(x.shape, np.float32), unset(20, np.float32), unset(20, np.float32)
    norm_module.batch_norm(x, None, None, EPS, "relu", out, mean, variance)
    wrong = np.arange(20) == 3
    np.testing.assert_array_equal(np.isnan(out).all(0), wrong)
    np.testing.assert_array_equal(np.isnan(out).any(0), wrong)
    np.testing.assert_array_equal(np.isnan(mean) & np.isnan(variance), wrong)


def test_batch_norm_of_strided_rows():
    x, g = drawn(7, 200, 60)[::2, 7:40], drawn(8, 33, 100).T
    arguments, outs = (x, None, None, EPS, None), [x.shape, 33, 33]
    _, mean, variance = compare("batch_norm", norm_module.batch_norm, arguments, outs, np.float32, scale=10)
    arguments = (g, x, None, None, mean, variance, EPS, None)
    compare("batch_norm_backward", norm_module.batch_norm_backward, arguments, outs, np.float32, scale=1000)


@pytest.mark.parametrize("shape", [(13, 5), (300, 19)], ids=str)
def test_batch_norm_keeps_to_its_arrays(shape):
    n, c = shape
    x, memory = framed(drawn(9, n, c))
    g, _ = framed(drawn(10, n, c))
    weight, _ = framed(drawn(11, c))
    outs = [framed(unset(s, np.float32)) for s in (shape, c, c, shape, c, c)]
    out, mean, variance, *gradients = (view for view, _ in outs)
    norm_module.batch_norm(x, weight, weight, EPS, "relu", out, mean, variance)
    norm_module.batch_norm_backward(g, x, weight, weight, mean, variance, EPS, "relu", *gradients)
    assert untouched(memory, *(memory for _, memory in outs))
    assert not any(np.isnan(view).any() for view, _ in outs)


# ------------------------------------------------------------------------------------- group norm

#: Runs of memory (s = 1): layer norm narrow and wide, several groups. Images: many, few; groups wider than a vector,
#: narrower, of one column.
GROUPS = [
    *[(70, 1, 5, 1), (3, 1, 48, 1), (300, 1, 130, 1), (2, 1, 1000, 1), (40, 1, 60, 3)],
    *[(18, 9, 64, 8), (2, 30, 80, 2), (3, 5, 12, 12), (1, 100, 33, 1), (17, 2, 40, 20)],
]


@FLOATS
@pytest.mark.parametrize("sizes", GROUPS, ids=str)
def test_group_norm_and_its_backward(sizes, dtype):
    n, s, c, groups = sizes
    x, g = drawn(0, n, s, c, dtype=dtype), drawn(1, n, s, c, dtype=dtype)
    weight, bias = drawn(2, c, dtype=dtype), drawn(3, c, dtype=dtype)
    for w, b, means in ((weight, bias, (n, groups)), (None, None, (n, groups)), (weight, None, None)):
        arguments, outs = (x, groups, w, b, EPS), [x.shape, means, (n, groups)]
        _, mean, scale = compare("group_norm", group_module.group_norm, arguments, outs, dtype, group_module, 10)
        arguments, outs = (g, x, groups, w, mean, scale), [x.shape, c, None if b is None else c]
        compare("group_norm_backward", group_module.group_norm_backward, arguments, outs, dtype, group_module, n * s)


@pytest.mark.parametrize("shape", [(5, 1, 700), (3, 50, 24)], ids=str)
def test_group_norm_beside_a_large_mean(shape):
    n, _, c = shape
    x = drawn(4, *shape, mean=100)
    out, mean, scale = unset(shape, np.float32), unset((n, 2), np.float32), unset((n, 2), np.float32)
    group_module.group_norm(x, 2, None, None, EPS, out, mean, scale)
    parts = x.astype(np.float64).reshape(n, -1, 2, c // 2)
    np.testing.assert_allclose(mean, parts.mean((1, 3)), rtol=1e-6)
    np.testing.assert_allclose(scale, (parts.var((1, 3)) + EPS) ** -0.5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 1, 40), (6, 8, 40)], ids=str)
def test_group_norm_of_views(shape):
    n, s, c = shape
    x = drawn(5, n, 2 * s, c + 3)[:, ::2, 3:]
    g = drawn(6, c, s, n).transpose(2, 1, 0)
    weight = drawn(7, 2 * c)[::2]
    arguments, outs = (x, 4, weight, weight, EPS), [shape, (n, 4), (n, 4)]
    _, mean, scale = compare("group_norm", group_module.group_norm, arguments, outs, np.float32, scale=10)
    arguments = (g, x, 4, weight, mean, scale)
    compare("group_norm_backward", group_module.group_norm_backward, arguments, [shape, c, c], np.float32, scale=100)


@pytest.mark.parametrize("sizes", [(5, 1, 21, 3), (3, 7, 21, 3)], ids=str)
def test_group_norm_keeps_to_its_arrays(sizes):
    n, s, c, groups = sizes
    x, memory = framed(drawn(8, n, s, c))
    g, _ = framed(drawn(9, n, s, c))
    weight, _ = framed(drawn(10, c))
    outs = [framed(unset(shape, np.float32)) for shape in (x.shape, (n, groups), (n, groups), x.shape, c, c)]
    out, mean, scale, *gradients = (view for view, _ in outs)
    group_module.group_norm(x, groups, weight, weight, EPS, out, mean, scale)
    group_module.group_norm_backward(g, x, groups, weight, mean, scale, *gradients)
    assert untouched(memory, *(memory for _, memory in outs))
    assert not any(np.isnan(view).any() for view, _ in outs)


# ---------------------------------------------------------------------------- activation gradient


@FLOATS
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", None])
@pytest.mark.parametrize("shape", [(1, 1), (32, 10), (256, 100), (300, 16), (2000, 33), (9, 600)], ids=str)
def test_activation_gradient(shape, name, dtype):
    g, y = drawn(0, *shape, dtype=dtype), np.tanh(drawn(1, *shape, dtype=dtype))
    arguments = (g, y if name else None, name)
    outs = [shape if name else None, shape[1]]
    slot = activation_module.activation_gradient
    compare("activation_gradient", slot, arguments, outs, dtype, activation_module, 100)


def test_activation_gradient_of_views():
    g, y = drawn(2, 40, 80)[::2, 5:50], drawn(3, 45, 20).T
    slot = activation_module.activation_gradient
    compare("activation_gradient", slot, (g, y, "relu"), [(20, 45), 45], np.float32, scale=100)
    spread = np.broadcast_to(np.float32(0.25), (20, 45))
    compare("activation_gradient", slot, (spread, y, "relu"), [(20, 45), 45], np.float32, scale=100)


def test_activation_gradient_of_nothing():
    out, sums = unset((0, 3), np.float32), unset(3, np.float32)
    activation_module.activation_gradient(out, out, "relu", out, sums)
    np.testing.assert_array_equal(sums, 0)


def test_activation_gradient_keeps_to_its_arrays():
    g, _ = framed(drawn(4, 11, 19))
    out, around = framed(unset((11, 19), np.float32))
    sums, beside = framed(unset(19, np.float32))
    activation_module.activation_gradient(g, g, "relu", out, sums)
    assert untouched(around, beside)
    assert not np.isnan(out).any() and not np.isnan(sums).any()
