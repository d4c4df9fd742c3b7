"""The compiled copy: every layout, every pair of dtypes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import replayed, same_in_parts, shapes, unset, views

pytest.importorskip("numba")
from kernels.numba_cpu import copy as module
from kernels.numba_cpu.copy import copy

DTYPES = [np.bool_, np.int64, np.float32, np.float64]


@pytest.mark.parametrize("target", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("source", DTYPES, ids=lambda d: d.__name__)
@given(data=st.data())
def test_any_view_to_any_view(source, target, data):
    shape = data.draw(shapes(most=40))
    x = data.draw(views(shape, source))
    out = data.draw(views(shape, target)).copy(order="K")
    copy(x, out)
    np.testing.assert_array_equal(out, x.astype(target))


@given(data=st.data())
def test_broadcasts(data):
    shape = data.draw(shapes(least_axes=1))
    given_shape = tuple(data.draw(st.sampled_from([1, side])) for side in shape)[
        data.draw(st.integers(0, len(shape))) :
    ]
    x = data.draw(views(given_shape, np.float32))
    out = unset(shape, np.float32)
    copy(x, out)
    np.testing.assert_array_equal(out, np.broadcast_to(x, shape))


@pytest.mark.parametrize("dtype", [np.bool_, np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("shape", [(300, 200), (33, 70), (64, 64), (5, 300), (300, 5), (3, 40, 50)])
def test_transposes_leave_the_neighbourhood_alone(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    whole = unset((shape[-1] + 2, *shape[:-1]), dtype)
    out = whole[1:-1].transpose(*range(1, len(shape)), 0)
    copy(x, out)
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(whole[[0, -1]], unset((2, *shape[:-1]), dtype))


@pytest.mark.parametrize("size", [1, 7, 31, 32, 33, 511, 513, 16 * 8192 - 1, 16 * 8192 + 5, 1_000_003])
def test_long_runs(size):
    x = np.arange(size, dtype=np.float32)
    whole = unset(size + 2, np.float32)
    copy(x, whole[1:-1])
    np.testing.assert_array_equal(whole[1:-1], x)
    assert np.isnan(whole[[0, -1]]).all()


def test_keeps_every_bit():
    bits = np.random.default_rng(0).integers(0, 2**32, 10_000, np.uint32).view(np.float32).reshape(100, 100)
    for x in (bits, bits.T, bits[:, ::-1]):
        out = np.zeros((100, 100), np.float32)
        copy(x, out)
        np.testing.assert_array_equal(out.view(np.uint32), x.view(np.uint32))


@pytest.mark.parametrize("target", [np.bool_, np.float64], ids=lambda d: d.__name__)
def test_special_values(target):
    x = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e30] * 3, np.float32)
    out = unset(x.shape, target)
    copy(x, out)
    np.testing.assert_array_equal(out, x.astype(target))


@given(data=st.data())
def test_parts_and_replay(data):
    shape = data.draw(shapes(least_axes=1, most=60, most_axes=3, least=1))
    x = data.draw(views(shape, np.float32))
    out = unset(shape, np.float32)
    same_in_parts(module, lambda: copy(x, out), out)
    replayed(lambda: copy(x, out), out)
