"""Matrix products against NumPy in float64: shapes, strides, batches, edges, epilogues, threads."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from kernels import plan
from kernels.numba_cpu import gemm, threads
from kernels.numba_cpu.gemm import linear, matmul

ROOT = Path(__file__).parent.parent
TYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}

#: Sides around the widths of registers, tiles and blocks.
SIDES = st.one_of(st.integers(1, 40), st.sampled_from([47, 48, 49, 64, 95, 128, 130, 257]))


def view(rng, shape, dtype, kind, lead=()):
    """A random array of shape (*lead, *shape) with strides of some kind."""
    whole = (*lead, *shape)
    if kind == "transposed":
        return np.swapaxes(rng.standard_normal((*lead, *shape[::-1])).astype(dtype), -1, -2)
    if kind == "reversed":
        return rng.standard_normal(whole).astype(dtype)[..., ::-1, ::-1]
    if kind == "sliced":
        wide = rng.standard_normal((*lead, 2 * shape[0], 3 * shape[1] + 1)).astype(dtype)
        return wide[..., ::2, 1::3]
    if kind == "columns":
        return rng.standard_normal((*lead, shape[0], shape[1] + 5)).astype(dtype)[..., 2 : 2 + shape[1]]
    if kind == "broadcast":
        return np.broadcast_to(rng.standard_normal(shape).astype(dtype), whole)
    if kind == "constant row":
        return np.broadcast_to(rng.standard_normal((1, shape[1])).astype(dtype), whole)
    if kind == "constant column":
        return np.broadcast_to(rng.standard_normal((shape[0], 1)).astype(dtype), whole)
    return rng.standard_normal(whole).astype(dtype)


KINDS = st.sampled_from(
    ["plain", "transposed", "reversed", "sliced", "columns", "broadcast", "constant row", "constant column"]
)


def wide_product(a, b):
    return a.astype(np.float64) @ b.astype(np.float64)


def close(out, a, b, expected=None):
    """Whether out is a @ b to the rounding of its dtype, relative to |a| @ |b|."""
    scale = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)) + 1
    expected = wide_product(a, b) if expected is None else expected
    return bool((np.abs(out - expected) <= TOLERANCE[out.dtype.type] * scale).all())


@pytest.mark.parametrize("dtype", TYPES)
@given(data=st.data())
def test_any_shape_and_strides(dtype, data):
    m, n, k = (data.draw(SIDES) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    a, b = view(rng, (m, k), dtype, data.draw(KINDS)), view(rng, (k, n), dtype, data.draw(KINDS))
    out = np.full((m, n), np.nan, dtype)
    matmul(a, b, out)
    assert close(out, a, b)


@pytest.mark.parametrize("dtype", TYPES)
@given(data=st.data())
def test_batches_broadcast(dtype, data):
    lead = tuple(data.draw(st.lists(st.integers(1, 4), max_size=3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))

    def some(lead):
        """Part of the leading axes, each as it is or 1."""
        return tuple(data.draw(st.sampled_from([1, length])) for length in lead[data.draw(st.integers(0, len(lead))) :])

    m, n, k = (data.draw(st.integers(1, 20)) for _ in range(3))
    a = view(rng, (m, k), dtype, data.draw(KINDS), some(lead))
    b = view(rng, (k, n), dtype, data.draw(KINDS), some(lead))
    out = np.full((*lead, m, n), np.nan, dtype)
    matmul(a, b, out)
    assert close(out, a, b)


@pytest.mark.parametrize("dtype", TYPES)
@given(data=st.data())
def test_out_may_be_a_view_with_contiguous_rows(dtype, data):
    m, n, k = (data.draw(st.integers(1, 40)) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    a, b = view(rng, (m, k), dtype, "plain"), view(rng, (k, n), dtype, "plain")
    around = np.full((2 * m, n + 7), np.nan, dtype)
    out = around[::-2, 3 : 3 + n]
    matmul(a, b, out)
    assert close(out, a, b)
    out[...] = np.nan
    assert np.isnan(around).all()  # nothing beside it was written


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (1, 1, 0)])
def test_empty(dtype, shape):
    m, n, k = shape
    out = np.full((2, m, n), np.nan, dtype)
    matmul(np.ones((2, m, k), dtype), np.ones((k, n), dtype), out)
    assert (out == 0).all()
    matmul(np.ones((0, m, k), dtype), np.ones((k, n), dtype), np.empty((0, m, n), dtype))


@pytest.mark.parametrize("dtype", TYPES)
@given(data=st.data())
def test_accumulate_and_linear(dtype, data):
    m, n, k = (data.draw(st.integers(1, 40)) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    a, b = view(rng, (m, k), dtype, data.draw(KINDS)), view(rng, (k, n), dtype, data.draw(KINDS))
    bias = rng.standard_normal(2 * n).astype(dtype)[:: data.draw(st.sampled_from([1, 2]))][:n]
    start = rng.standard_normal((m, n)).astype(dtype)
    out = start.copy()
    matmul(a, b, out, accumulate=True)
    assert close(out, a, b, wide_product(a, b) + start)
    for activation, function in ((None, lambda v: v), ("relu", lambda v: np.maximum(v, 0)), ("tanh", np.tanh)):
        for given_bias in (None, bias):
            out = np.full((m, n), np.nan, dtype)
            linear(a, b, given_bias, activation, out)
            assert close(out, a, b, function(wide_product(a, b) + (0 if given_bias is None else given_bias)))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("k", [255, 256, 257, 600, 1025])
def test_blocks_of_k(dtype, k):
    rng = np.random.default_rng(k)
    a, b, bias = (rng.standard_normal(s).astype(dtype) for s in ((37, k), (k, 33), (33,)))
    out = np.full((37, 33), np.nan, dtype)
    linear(a, b, bias, "relu", out)
    assert close(out, a, b, np.maximum(wide_product(a, b) + bias, 0))
    out[:] = 1
    matmul(a, b, out, accumulate=True)
    assert close(out, a, b, wide_product(a, b) + 1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 40])
def test_every_number_of_columns(dtype, rows):
    """With rows of B so far apart that it is packed, and side by side."""
    rng = np.random.default_rng(0)
    a, wide = rng.standard_normal((rows, 40)).astype(dtype), rng.standard_normal((40, 1024)).astype(dtype)
    for n in range(1, 100):
        for b in (wide[:, :n], wide[:, :n].copy()):
            out = np.full((rows, n), np.nan, dtype)
            matmul(a, b, out)
            assert close(out, a, b), n


@pytest.mark.parametrize("dtype", TYPES)
def test_blocks_of_n_and_m(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in ((9, 4200, 70), (700, 20, 70), (300, 300, 300)):
        for kind in ("plain", "transposed"):
            a, b = view(rng, (m, k), dtype, kind), view(rng, (k, n), dtype, kind)
            out = np.full((m, n), np.nan, dtype)
            matmul(a, b, out)
            assert close(out, a, b)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 11, 5), (40, 40, 40)])
def test_nan_and_infinity_propagate(value, shape):
    m, n, k = shape
    a, b, bias = np.ones((m, k), np.float32), np.ones((k, n), np.float32), np.zeros(n, np.float32)
    a[m // 2, k // 2] = value
    out = np.empty((m, n), np.float32)
    linear(a, b, bias, "relu", out)
    expected = np.full((m, n), k, np.float32)
    expected[m // 2] = np.maximum(value, 0)
    np.testing.assert_array_equal(out, expected)
    # nothing of the masked lanes of an edge tile leaks
    b[:, -1] = value
    matmul(np.ones((m, k), np.float32), b, out)
    assert (out[:, :-1] == k).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "shape", [(64, 64, 64), (300, 10, 200), (10, 700, 100), (130, 257, 300), (1, 900, 300), (50, 3, 40)]
)
@pytest.mark.parametrize("lead", [(), (3,)])
def test_the_bits_do_not_depend_on_the_number_of_threads(dtype, shape, lead, monkeypatch):
    m, n, k = shape
    rng = np.random.default_rng(0)
    a, b = view(rng, (m, k), dtype, "transposed", lead), view(rng, (k, n), dtype, "plain", lead)
    monkeypatch.setattr(gemm, "LEAST", 1)
    before = threads.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3, 8):
            gemm._calls.clear()
            threads.set_num_threads(count)
            out = np.full((*lead, m, n), np.nan, dtype)
            matmul(a, b, out)
            found.append(out.tobytes())
    finally:
        threads.set_num_threads(before)
        gemm._calls.clear()
    assert len(set(found)) == 1


def test_the_bits_do_not_depend_on_where_the_element_stands():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    whole = np.empty((64, 64), np.float32)
    matmul(a, b, whole)
    for rows, columns in ((slice(0, 7), slice(0, 64)), (slice(13, 64), slice(5, 22)), (slice(63, 64), slice(63, 64))):
        part = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        matmul(a[rows], b[:, columns], part)
        np.testing.assert_array_equal(part, whole[rows, columns])


def test_a_recorded_product_is_replayed():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((100, 300)).astype(np.float32), rng.standard_normal((200, 300)).astype(np.float32)
    bias = rng.standard_normal(400).astype(np.float32)[::2]
    out = np.empty((100, 200), np.float32)
    recorder = plan.Recorder()
    with plan.recording(recorder):
        linear(x, w.T, bias, "relu", out)
    recorded = recorder.plan()
    for _ in range(3):
        x[:] = rng.standard_normal(x.shape)
        w[:] = rng.standard_normal(w.shape)
        bias[:] = rng.standard_normal(bias.shape)
        out[:] = np.nan
        recorded.run()
        assert close(out, x, w.T, np.maximum(wide_product(x, w.T) + bias, 0))


@pytest.mark.parametrize("name", ["x86-64", "haswell"])
def test_on_a_smaller_processor(name):
    """This file's main tests, with code for a processor that has fewer lanes."""
    if "x86" not in __import__("platform").machine().lower():
        pytest.skip("needs an x86 processor")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__),
            *("-k", "any_shape or batches or accumulate or blocks or threads or contiguous_rows"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "NANONET_CPU": name},
    )
    assert process.returncode == 0, process.stdout + process.stderr
