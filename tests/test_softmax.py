"""The compiled softmax family against the reference in float64 and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import replayed, same_in_parts, shapes, unset, views

from kernels.reference import reference

pytest.importorskip("numba")
from kernels.numba_cpu import softmax as module

special = pytest.importorskip("scipy.special")
ORACLE = reference(np)
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
TOLERANCE = {np.float32: 3e-6, np.float64: 1e-14}


def close(found, wanted, dtype, scale=1.0):
    np.testing.assert_allclose(found, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


def rows_of(data, least=1):
    return (*data.draw(shapes(most=9, most_axes=2)), data.draw(st.integers(least, 40)))


@FLOATS
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(data=st.data())
def test_forward(name, dtype, data):
    shape = rows_of(data)
    x = data.draw(views(shape, dtype, -30, 30))
    out = unset(shape, dtype)
    same_in_parts(module, lambda: getattr(module, name)(x, out), out)
    close(out, getattr(special, name)(x.astype(np.float64), axis=-1), dtype, 30 if name == "log_softmax" else 1e-6)
    replayed(lambda: getattr(module, name)(x, out), out)


@FLOATS
@pytest.mark.parametrize("name", ["softmax_backward", "log_softmax_backward"])
@given(data=st.data())
def test_backward(name, dtype, data):
    shape = rows_of(data)
    g, y = data.draw(views(shape, dtype)), data.draw(views(shape, dtype, -3, 0.5))
    out, want = unset(shape, dtype), np.empty(shape)
    same_in_parts(module, lambda: getattr(module, name)(g, y, out), out)
    getattr(ORACLE, name)(g.astype(np.float64), y.astype(np.float64), want)
    close(out, want, dtype, 100)
    replayed(lambda: getattr(module, name)(g, y, out), out)


@FLOATS
@given(data=st.data())
def test_cross_entropy_and_its_backward(dtype, data):
    n, c = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 40))
    x, g = data.draw(views((n, c), dtype, -20, 20)), data.draw(views((n,), dtype))
    target = np.random.default_rng(c).integers(-1, c + 1, 2 * n)[::2]
    weight = data.draw(st.one_of(st.none(), views((c,), dtype, 0, 3)))
    if weight is not None and data.draw(st.booleans()):
        weight = np.where(np.arange(c) % 3 == 0, 0, weight).astype(dtype)
    smoothing = data.draw(st.sampled_from([0.0, 0.1, 0.75]))
    loss, p, out = unset(n, dtype), unset((n, c), dtype), unset((n, c), dtype)

    def call():
        module.cross_entropy(x, target, weight, smoothing, loss, p)
        module.cross_entropy_backward(g, p, target, weight, smoothing, out)

    same_in_parts(module, call, loss, p, out)
    replayed(call, loss, p, out)
    wide = [a if a is None else a.astype(np.float64) for a in (x, weight, g)]
    want_loss, want_p, want_out = np.empty(n), np.empty((n, c)), np.empty((n, c))
    ORACLE.cross_entropy(wide[0], target, wide[1], smoothing, want_loss, want_p)
    close(p, want_p, dtype, 1e-6)
    close(loss, want_loss, dtype, 100)
    ORACLE.cross_entropy_backward(wide[2], p.astype(np.float64), target, wide[1], smoothing, want_out)
    close(out, want_out, dtype, 10)


@FLOATS
@pytest.mark.parametrize("columns", [1, 3, 8, 10, 11, 20])
def test_infinite_and_missing_scores(columns, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, columns)).astype(dtype)
    x[0, -1] = np.nan
    x[1, 0] = np.inf
    x[2, -1] = -np.inf
    x[3] = -np.inf
    x[4] = 3e38
    for name in ("softmax", "log_softmax"):
        out, want = unset(x.shape, dtype), np.empty(x.shape)
        getattr(module, name)(x, out)
        getattr(ORACLE, name)(x.astype(np.float64), want)
        close(out, want, dtype, 10)
    loss, p, want_loss, want_p = unset(6, dtype), unset(x.shape, dtype), np.empty(6), np.empty(x.shape)
    target = np.full(6, columns - 1)
    for weight in (None, np.ones(columns), np.arange(columns) % 2.0):
        for smoothing in (0.0, 0.1):
            narrow = weight if weight is None else weight.astype(dtype)
            module.cross_entropy(x, target, narrow, smoothing, loss, p)
            with np.errstate(invalid="ignore"):  # 0 * infinity
                ORACLE.cross_entropy(x.astype(np.float64), target, weight, smoothing, want_loss, want_p)
            close(loss, want_loss, dtype, 10)
            close(p, want_p, dtype)


@FLOATS
def test_a_target_that_is_no_class(dtype):
    x, g = np.zeros((4, 3), dtype), np.ones(4, dtype)
    target = np.array([-1, 0, 3, 2**40])
    loss, p, out, want = unset(4, dtype), unset((4, 3), dtype), unset((4, 3), dtype), np.empty((4, 3))
    module.cross_entropy(x, target, None, 0.1, loss, p)
    assert np.isnan(loss).tolist() == [True, False, True, True]
    module.cross_entropy_backward(g, p, target, None, 0.1, out)
    ORACLE.cross_entropy_backward(np.ones(4), p.astype(np.float64), target, None, 0.1, want)
    close(out, want, dtype)


def test_probabilities_add_up_and_huge_scores_are_safe():
    x = np.random.default_rng(0).normal(0, 1e4, (50, 1000)).astype(np.float32)
    out = unset(x.shape, np.float32)
    module.softmax(x, out)
    np.testing.assert_allclose(out.sum(1), 1, rtol=1e-5)
