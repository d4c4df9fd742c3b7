"""Compiled pooling: threads, code paths by window and channels, NaN, memory around arrays."""

import numpy as np
import pytest
from views import replayed, same_in_parts, unset

from kernels.reference import reference

pytest.importorskip("numba")
from kernels.numba_cpu import pool as module

ORACLE = reference(np)
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}


def windows(side, size, stride, padding=0):
    """Windows of a common pool along an axis."""
    starts = np.arange(0, side + 2 * padding - size + 1, stride) - padding
    return np.stack([np.maximum(starts, 0), np.minimum(starts + size, side), np.full_like(starts, size)], axis=1)


def adaptive(side, count):
    """`count` windows of nearly the same size that cover an axis."""
    i = np.arange(count)
    starts, stops = i * side // count, -(-(i + 1) * side // count)
    return np.stack([starts, stops, stops - starts], axis=1)


#: (rows, columns) for images of 9 by 12: windows that part the image, leave a rest, overlap, have gaps, are clipped.
POOLS = {
    "3x2": (windows(9, 3, 3), windows(12, 2, 2)),
    "2x2": (windows(9, 2, 2), windows(12, 2, 2)),
    "3x3 stride 2": (windows(9, 3, 2, 1), windows(12, 3, 2, 1)),
    "5x5 stride 1": (windows(9, 5, 1, 2), windows(12, 5, 1, 2)),
    "1x1 stride 3": (windows(9, 1, 3), windows(12, 1, 3)),
    "global": (windows(9, 9, 1), windows(12, 12, 1)),
    "adaptive": (adaptive(9, 4), adaptive(12, 5)),
    "2x2 stride 1, backwards": (windows(9, 2, 1)[::-1], windows(12, 2, 1)),
}
WINDOWS = pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())


def image(seed, *shape, dtype=np.float32):
    """Numbers of which many are equal."""
    return np.round(np.random.default_rng(seed).normal(0, 2, shape)).astype(dtype)


@FLOATS
@WINDOWS
@pytest.mark.parametrize("shape", [(3, 1), (2, 3), (5, 16), (1, 50)], ids=str)
def test_max_pool_and_its_backward(shape, pool, dtype):
    (n, c), (rows, columns) = shape, pool
    x, small = image(0, n, 9, 12, c, dtype=dtype), (n, len(rows), len(columns), c)
    out, index = unset(small, dtype), unset(small, np.int32)
    same_in_parts(module, lambda: module.max_pool2d(x, rows, columns, out, index), out, index)
    replayed(lambda: module.max_pool2d(x, rows, columns, out, index), out, index)
    best, place = unset(small, dtype), unset(small, np.int32)
    ORACLE.max_pool2d(x, rows, columns, best, place)
    np.testing.assert_array_equal(out, best)
    np.testing.assert_array_equal(index, place)

    g, back, expected = image(1, *small, dtype=dtype), unset(x.shape, dtype), unset(x.shape, dtype)
    same_in_parts(module, lambda: module.max_pool2d_backward(g, index, rows, columns, back), back)
    replayed(lambda: module.max_pool2d_backward(g, index, rows, columns, back), back)
    ORACLE.max_pool2d_backward(g, place, rows, columns, expected)
    np.testing.assert_array_equal(back, expected)


@FLOATS
@WINDOWS
@pytest.mark.parametrize("shape", [(3, 1), (2, 3), (5, 16), (1, 50)], ids=str)
def test_avg_pool_and_its_backward(shape, pool, dtype):
    (n, c), (rows, columns) = shape, pool
    x, small = image(0, n, 9, 12, c, dtype=dtype), (n, len(rows), len(columns), c)
    out, expected = unset(small, dtype), unset(small, np.float64)
    same_in_parts(module, lambda: module.avg_pool2d(x, rows, columns, out), out)
    replayed(lambda: module.avg_pool2d(x, rows, columns, out), out)
    ORACLE.avg_pool2d(x.astype(np.float64), rows, columns, expected)
    np.testing.assert_allclose(out, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])

    g, back, expected = image(1, *small, dtype=dtype), unset(x.shape, dtype), unset(x.shape, np.float64)
    same_in_parts(module, lambda: module.avg_pool2d_backward(g, rows, columns, back), back)
    replayed(lambda: module.avg_pool2d_backward(g, rows, columns, back), back)
    ORACLE.avg_pool2d_backward(g.astype(np.float64), rows, columns, expected)
    np.testing.assert_allclose(back, expected, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_nan_wins_wherever_it_lies(size):
    rows = columns = windows(size, size, size)
    for place in range(size * size):
        x = image(place, 1, size, size, 20)
        x.reshape(-1, 20)[place] = np.nan
        x.reshape(-1, 20)[-1, ::2] = np.nan
        out, index = unset((1, 1, 1, 20), np.float32), unset((1, 1, 1, 20), np.int32)
        module.max_pool2d(x, rows, columns, out, index)
        assert np.isnan(out).all()
        np.testing.assert_array_equal(index, place)


def test_infinities_are_found():
    x = np.full((1, 2, 2, 5), -np.inf, np.float32)
    rows = columns = windows(2, 2, 2)
    out, index = unset((1, 1, 1, 5), np.float32), unset((1, 1, 1, 5), np.int32)
    module.max_pool2d(x, rows, columns, out, index)
    np.testing.assert_array_equal(out, -np.inf)
    np.testing.assert_array_equal(index, 0)


def test_empty_windows_have_mean_zero_and_give_nothing():
    rows = np.array([[0, 0, 2], [0, 2, 2]])
    columns = np.array([[0, 2, 2], [2, 2, 2]])
    x = image(2, 1, 2, 2, 4)
    out = unset((1, 2, 2, 4), np.float32)
    module.avg_pool2d(x, rows, columns, out)
    np.testing.assert_array_equal(out[0, 0], 0)
    np.testing.assert_array_equal(out[0, :, 1], 0)
    np.testing.assert_allclose(out[0, 1, 0], x.mean((0, 1, 2)), rtol=1e-6, atol=1e-6)
    back = unset(x.shape, np.float32)
    module.avg_pool2d_backward(np.ones_like(out), rows, columns, back)
    np.testing.assert_array_equal(back, 0.25)


def test_pools_of_views():
    x = image(3, 20, 12, 9, 4).transpose(3, 2, 1, 0)[:, :, ::-1]
    rows, columns = POOLS["3x3 stride 2"]
    small = (4, len(rows), len(columns), 20)
    out, index, best, place = (unset(small, dtype) for dtype in (np.float32, np.int32) * 2)
    module.max_pool2d(x, rows, columns, out, index)
    ORACLE.max_pool2d(x, rows, columns, best, place)
    np.testing.assert_array_equal(out, best)
    np.testing.assert_array_equal(index, place)
    cut = image(4, 4, 18, 24, 30)[:, ::2, ::2, 5:25]
    module.max_pool2d(cut, rows, columns, out, index)
    ORACLE.max_pool2d(cut, rows, columns, best, place)
    np.testing.assert_array_equal(out, best)
    g = image(5, *small[::-1]).transpose(3, 2, 1, 0)
    back, expected = unset((4, 9, 12, 20), np.float32), unset((4, 9, 12, 20), np.float32)
    module.max_pool2d_backward(g, place, rows, columns, back)
    ORACLE.max_pool2d_backward(g, place, rows, columns, expected)
    np.testing.assert_array_equal(back, expected)


@WINDOWS
def test_pools_keep_to_their_arrays(pool):
    rows, columns = pool
    small, whole = (2, len(rows), len(columns), 7), (2, 9, 12, 7)

    def framed(shape):
        memory = np.full(np.prod(shape) + 128, np.nan, np.float32)
        frames.append(memory)
        return memory[64:-64].reshape(shape)

    frames = []
    x, out, back, mean, spread = (framed(shape) for shape in (whole, small, whole, small, whole))
    x[...] = image(6, *whole)
    memory = np.full(out.size + 128, -5, np.int32)
    index = memory[64:-64].reshape(small)
    module.max_pool2d(x, rows, columns, out, index)
    module.max_pool2d_backward(out, index, rows, columns, back)
    module.avg_pool2d(x, rows, columns, mean)
    module.avg_pool2d_backward(mean, rows, columns, spread)
    for frame in frames:
        assert np.isnan(frame[:64]).all() and np.isnan(frame[-64:]).all() and not np.isnan(frame[64:-64]).any()
    assert (memory[:64] == -5).all() and (memory[-64:] == -5).all()


def test_pools_of_nothing():
    rows = columns = windows(4, 2, 2)
    for n, c in ((0, 3), (2, 0)):
        x, out, index = (np.empty(s, t) for s, t in [((n, 4, 4, c), "f"), ((n, 2, 2, c), "f"), ((n, 2, 2, c), "i4")])
        module.max_pool2d(x, rows, columns, out, index)
        module.max_pool2d_backward(out, index, rows, columns, x)
        module.avg_pool2d(x, rows, columns, out)
        module.avg_pool2d_backward(out, rows, columns, x)
