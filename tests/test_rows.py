"""Gathering rows and adding into rows, compiled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import replayed, same_in_parts, shapes, unset, views

pytest.importorskip("numba")
from kernels.numba_cpu import rows as module
from kernels.numba_cpu.rows import scatter_add, take, take_batch

DTYPES = [np.bool_, np.uint8, np.int64, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@given(data=st.data())
def test_take(dtype, data):
    tail = data.draw(shapes(most=70, most_axes=2))
    count = data.draw(st.integers(1, 9))
    x = np.ascontiguousarray(data.draw(views((count, *tail), dtype, 0)))
    n = data.draw(st.integers(0, 40))
    index = np.random.default_rng(n).integers(0, count, 2 * n)[::2]
    out = unset((n, *tail), dtype)
    same_in_parts(module, lambda: take(x, index, out), out)
    np.testing.assert_array_equal(out, x[index])
    replayed(lambda: take(x, index, out), out)


@pytest.mark.parametrize("columns", [*range(1, 70), 128, 129, 200, 784, 5000])
def test_rows_of_every_length(columns):
    x = np.random.default_rng(0).integers(0, 255, (11, columns), np.uint8)
    index = np.array([3, 0, 10, 10, 7])
    whole = unset((7, columns), np.uint8)
    take(x, index, whole[1:-1])
    np.testing.assert_array_equal(whole[1:-1], x[index])
    assert (whole[[0, -1]] == 77).all()


@pytest.mark.parametrize("tail", [(), (64,), (3, 5)])
def test_batches_follow_the_cursor_and_stop_at_the_end(tail):
    x = np.random.default_rng(0).normal(size=(50, *tail)).astype(np.float32)
    order, cursor = np.random.default_rng(1).permutation(50), np.zeros((), np.int64)
    out = unset((8, *tail), np.float32)
    plan = replayed(lambda: take_batch(x, order, cursor, out), out)
    for start in (0, 8, 40, 45, 49, 60):
        cursor[...] = start
        plan.run()
        want = order[np.minimum(start + np.arange(8), 49)]
        np.testing.assert_array_equal(out, x[want])
        same_in_parts(module, lambda: take_batch(x, order, cursor, out), out)
        np.testing.assert_array_equal(out, x[want])


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@given(data=st.data())
def test_scatter_add_keeps_the_order(dtype, data):
    tail = data.draw(shapes(most=20, most_axes=2))
    count, n = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 40))
    source = data.draw(views((n, *tail), dtype))
    index = np.random.default_rng(n).integers(0, count, n)
    start = np.random.default_rng(count).normal(size=(count, *tail)).astype(dtype)
    want, out = start.copy(), start.copy()
    np.add.at(want, index, source)
    scatter_add(index, source, out)
    np.testing.assert_array_equal(out, want)


def test_scatter_add_in_parts():
    rng = np.random.default_rng(0)
    source, index = rng.normal(size=(100, 333)).astype(np.float32), rng.integers(0, 7, 100)
    out = unset((7, 333), np.float32)

    def call():
        out[...] = 0
        scatter_add(index, source, out)

    same_in_parts(module, call, out)
    want = np.zeros_like(out)
    np.add.at(want, index, source)
    np.testing.assert_array_equal(out, want)


def test_nothing_to_do():
    take(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
    take(np.zeros((4, 0), np.float32), np.array([1]), np.zeros((1, 0), np.float32))
    out = np.ones((2, 3), np.float32)
    scatter_add(np.zeros(0, np.int64), np.zeros((0, 3), np.float32), out)
    assert (out == 1).all()
