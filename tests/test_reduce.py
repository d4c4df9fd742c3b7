"""The compiled reductions and argmax against the reference in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import replayed, same_in_parts, shapes, unset, views

from kernels.reference import reference

pytest.importorskip("numba")
from kernels.numba_cpu import reduce as module
from kernels.numba_cpu.reduce import argmax, reduce

ORACLE = reference(np)
FLOATS = [np.float32, np.float64]
NAMES = ["sum", "square_sum", "max", "min"]


def expected(name, x, axes):
    out = np.empty(tuple(side for i, side in enumerate(x.shape) if i not in axes))
    ORACLE.reduce(name, x.astype(np.float64), axes, out)
    return out


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_any_view_over_any_axes(name, dtype, data):
    shape = data.draw(shapes(most=40, least=1 if name in ("max", "min") else 0))
    axes = tuple(sorted(data.draw(st.sets(st.sampled_from(range(len(shape)))) if shape else st.just([]))))
    x = data.draw(views(shape, dtype))
    want = expected(name, x, axes)
    out = unset(want.shape, dtype)
    reduce(name, x, axes, out)
    size = max(1, x.size // max(1, out.size))
    error = np.finfo(dtype).eps * 20 * (math.sqrt(size) if "sum" in name else 0)
    np.testing.assert_allclose(out, want, rtol=1e-6 if "sum" in name else 0, atol=9 * error)


@pytest.mark.parametrize(
    "shape, axes", [((1_000_003,), (0,)), ((70_001, 3), (0,)), ((5, 40_000), (1,)), ((900, 300), (0, 1))]
)
@pytest.mark.parametrize("name", NAMES)
def test_long_axes_stay_accurate(name, shape, axes):
    x = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    want = expected(name, x, axes)
    out = unset(want.shape, np.float32)
    same_in_parts(module, lambda: reduce(name, x, axes, out), out)
    np.testing.assert_allclose(out, want, rtol=5 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("shape", [(32, 64), (128, 128), (256, 1024), (1000, 10), (7, 3), (2000, 33)])
def test_column_sums(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for view in (x, np.asfortranarray(x)):
        out = unset(shape[1], np.float32)
        reduce("sum", view, (0,), out)
        np.testing.assert_allclose(out, x.astype(np.float64).sum(0), rtol=1e-5, atol=1e-5 * math.sqrt(shape[0]))


@given(data=st.data())
def test_parts_and_replay(data):
    shape = data.draw(shapes(most=50, most_axes=3, least=1))
    axes = tuple(sorted(data.draw(st.sets(st.sampled_from(range(len(shape)))) if shape else st.just([]))))
    x = data.draw(views(shape, np.float32))
    out = unset(tuple(side for i, side in enumerate(shape) if i not in axes), np.float32)
    for name in ("sum", "min"):
        same_in_parts(module, lambda name=name: reduce(name, x, axes, out), out)
        replayed(lambda name=name: reduce(name, x, axes, out), out)


def test_a_replay_reads_the_array_again():
    x = np.random.default_rng(0).normal(size=(30, 40, 20)).astype(np.float32)[:, ::2]
    out = unset((20,), np.float32)
    plan = replayed(lambda: reduce("sum", x, (0, 2), out), out)
    x *= 2
    plan.run()
    np.testing.assert_allclose(out, x.astype(np.float64).sum((0, 2)), rtol=1e-5, atol=1e-4)


def test_empty_sums_are_zero():
    for shape, axes in [((0,), (0,)), ((3, 0), (1,)), ((0, 4), (0,)), ((2, 0, 3), (1, 2)), ((0, 3), (1,))]:
        for name in ("sum", "square_sum"):
            out = unset(tuple(side for i, side in enumerate(shape) if i not in axes), np.float32)
            reduce(name, np.empty(shape, np.float32), axes, out)
            np.testing.assert_array_equal(out, np.zeros(out.shape))


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("axis", [0, 1])
def test_nan_wins_wherever_it_lies(name, axis, dtype):
    for position in range(37):
        x = np.random.default_rng(position).normal(size=(37, 37)).astype(dtype)
        x[position] = np.nan
        x[:, position] = np.nan
        out = unset(37, dtype)
        reduce(name, x, (axis,), out)
        assert np.isnan(out).all()


def test_infinities():
    x = np.array([[np.inf, 1, -np.inf], [-np.inf] * 3, [np.inf] * 3], np.float32)
    for name, want in [("max", [np.inf, -np.inf, np.inf]), ("min", [-np.inf, -np.inf, np.inf])]:
        out = unset(3, np.float32)
        reduce(name, x, (1,), out)
        np.testing.assert_array_equal(out, np.array(want, np.float32))


# -------------------------------------------------------------------------------------- argmax


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@given(data=st.data())
def test_argmax_takes_the_first(dtype, data):
    shape = data.draw(shapes(least_axes=1, most=40, least=1))
    x = np.floor(data.draw(views(shape, dtype)))  # many equals
    if data.draw(st.booleans()):
        x[x == 1] = np.nan
    if data.draw(st.booleans()):
        x[x <= 0] = -np.inf
    out = unset(shape[:-1], np.int64)
    same_in_parts(module, lambda: argmax(x, out), out)
    np.testing.assert_array_equal(out, np.argmax(x, axis=-1))


@given(data=st.data())
def test_argmax_of_any_view(data):
    shape = data.draw(shapes(least_axes=1, most=40, least=1))
    x = data.draw(views(shape, np.float32))
    out = unset(shape[:-1], np.int64)
    argmax(x, out)
    np.testing.assert_array_equal(out, np.argmax(x, axis=-1))
    replayed(lambda: argmax(x, out), out)
