"""Convolution and its transpose on the CPU, beyond the table of kernels: every way that the work is cut up."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from kernels import plan
from kernels.numba_cpu import conv, threads
from kernels.reference import reference

ROOT = Path(__file__).parent.parent
TYPES = [np.float32, np.float64]
NONE, ONE, TWO, THREE = (((p, p), (p, p)) for p in (0, 1, 2, 3))

#: What it is for: x, w (kh, kw, c / groups, o), stride, padding, dilation, groups
LAYERS = {
    "one input channel": ((3, 28, 28, 1), (3, 3, 1, 32), (1, 1), ONE, (1, 1), 1),
    "three input channels": ((2, 20, 37, 3), (3, 3, 3, 16), (1, 1), ONE, (1, 1), 1),
    "one vector, kernel rows of two": ((2, 9, 30, 8), (3, 2, 8, 13), (1, 1), ((0, 2), (1, 0)), (1, 1), 1),
    "one vector, kernel rows of seven": ((2, 12, 40, 5), (2, 7, 5, 16), (1, 1), THREE, (1, 1), 1),
    "one vector, kernel too wide to share": ((1, 12, 60, 4), (1, 17, 4, 7), (1, 1), NONE, (1, 1), 1),
    "in place, no padding": ((2, 14, 30, 6), (3, 3, 6, 32), (1, 1), NONE, (1, 1), 1),
    "panels, odd last vector": ((2, 13, 50, 9), (3, 3, 9, 83), (1, 1), ONE, (1, 1), 1),
    "narrow image": ((5, 7, 7, 20), (3, 3, 20, 112), (1, 1), ONE, (1, 1), 1),
    "images of one pixel": ((70, 1, 1, 20), (3, 3, 20, 40), (1, 1), ONE, (1, 1), 1),
    "bands of one image": ((1, 40, 300, 8), (3, 3, 8, 24), (1, 1), ONE, (1, 1), 1),
    "stride": ((2, 33, 35, 12), (3, 3, 12, 40), (2, 2), ONE, (1, 1), 1),
    "stride, wide kernel": ((1, 40, 41, 3), (7, 7, 3, 64), (2, 2), THREE, (1, 1), 1),
    "stride larger than the kernel": ((2, 17, 20, 10), (1, 2, 10, 33), (3, 4), ((0, 1), (0, 0)), (1, 1), 1),
    "dilation": ((2, 20, 20, 16), (3, 3, 16, 48), (1, 1), TWO, (2, 2), 1),
    "dilation and stride": ((2, 21, 26, 7), (3, 2, 7, 20), (2, 3), ((4, 0), (1, 2)), (2, 3), 1),
    "groups": ((2, 15, 19, 24), (3, 3, 6, 60), (1, 1), ONE, (1, 1), 4),
    "one channel for each group": ((2, 15, 19, 24), (3, 3, 1, 24), (2, 1), ONE, (1, 1), 24),
    "few output channels": ((2, 21, 22, 37), (3, 3, 37, 3), (1, 1), ONE, (1, 1), 1),
    "one output channel": ((2, 21, 22, 64), (5, 5, 64, 1), (2, 1), TWO, (1, 1), 1),
    "four of each": ((2, 9, 9, 4), (3, 3, 4, 4), (1, 1), ONE, (1, 1), 1),
    "pixels as rows": ((2, 9, 11, 30), (1, 1, 30, 70), (1, 1), NONE, (1, 1), 1),
    "one tap with stride": ((2, 9, 11, 30), (1, 1, 30, 50), (2, 2), NONE, (1, 1), 1),
    "one tap, padded": ((2, 5, 6, 10), (1, 1, 10, 20), (1, 1), TWO, (1, 1), 1),
    "padding larger than the kernel": ((2, 3, 4, 5), (2, 2, 5, 9), (1, 1), ((5, 4), (6, 3)), (1, 1), 1),
    "padding alone is met": ((1, 1, 1, 3), (2, 2, 3, 5), (3, 3), ((4, 4), (4, 4)), (3, 3), 1),
}


def result_shape(x, w, stride, padding, dilation):
    sides = [(x[1 + i] + sum(padding[i]) - dilation[i] * (w[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    return (x[0], *sides, w[3])


def guarded(values, beyond):
    """A copy of `values` in the midst of memory filled with `beyond`; the copy and all of the memory."""
    memory = np.full(values.size + 256, beyond, values.dtype)
    inside = memory[128 : 128 + values.size].reshape(values.shape)
    inside[...] = values
    return inside, memory


def problem(layer, transposed, dtype, seed=0):
    """x, w, bias, constants and the shape of out, of a convolution or its transpose."""
    x, w, *constants, groups = LAYERS[layer]
    y = result_shape(x, w, *constants)
    rng = np.random.default_rng(seed)
    source, target = (y, x) if transposed else (x, y)
    arrays = [rng.standard_normal(s).astype(dtype) for s in (source, w, target[3:])]
    return arrays, (*constants, groups), target


def run(transposed, arrays, constants, activation, out):
    (conv.conv2d_transpose if transposed else conv.conv2d)(*arrays, *constants, activation, out)
    return out


def expected(transposed, arrays, constants, activation, shape):
    """The reference in float64, and the scale of its terms."""
    slot = "conv2d_transpose" if transposed else "conv2d"
    kernel = getattr(reference(np), slot)
    wide = [None if a is None else a.astype(np.float64) for a in arrays]
    value, scale = np.empty(shape), np.empty(shape)
    kernel(*wide, *constants, activation, value)
    kernel(*(None if a is None else np.abs(a) for a in wide), *constants, None, scale)
    return value, scale + 1


@pytest.mark.parametrize("transposed", [False, True], ids=["conv2d", "conv2d_transpose"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", TYPES)
def test_against_the_reference_and_nothing_beyond_the_arrays(dtype, layer, transposed):
    arrays, constants, shape = problem(layer, transposed, dtype)
    for bias, activation in ((False, None), (True, "relu"), (True, "tanh")):
        given = [guarded(a, np.nan)[0] for a in arrays]
        if not bias:
            given[2] = None
        out, memory = guarded(np.full(shape, np.nan, dtype), 7)
        run(transposed, given, constants, activation, out)
        value, scale = expected(transposed, given, constants, activation, shape)
        assert (np.abs(out - value) <= (1e-6 if dtype == np.float32 else 1e-14) * 2 * scale).all()
        assert (memory[:128] == 7).all() and (memory[128 + out.size :] == 7).all()


@pytest.mark.parametrize("transposed", [False, True], ids=["conv2d", "conv2d_transpose"])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_bits_do_not_depend_on_threads_or_on_the_batch(layer, transposed, monkeypatch):
    arrays, constants, shape = problem(layer, transposed, np.float32)
    monkeypatch.setattr(conv, "LEAST", 1)
    before = threads.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3, 8):
            conv._plan.cache_clear()
            threads.set_num_threads(count)
            found.append(run(transposed, arrays, constants, None, np.full(shape, np.nan, np.float32)))
    finally:
        threads.set_num_threads(before)
        conv._plan.cache_clear()
    alone = [arrays[0][-1:], *arrays[1:]]
    found.append(run(transposed, alone, constants, None, np.full((1, *shape[1:]), np.nan, np.float32)))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0][-len(other) :])


@pytest.mark.parametrize("transposed", [False, True], ids=["conv2d", "conv2d_transpose"])
@pytest.mark.parametrize("layer", LAYERS)
def test_nan_and_infinity_stay_where_they_belong(layer, transposed):
    arrays, constants, shape = problem(layer, transposed, np.float32)
    source = arrays[0]
    source[0, source.shape[1] // 2, source.shape[2] // 2, source.shape[3] // 2] = np.nan
    source[-1, 0, -1, -1] = np.inf
    out = run(transposed, arrays, constants, None, np.empty(shape, np.float32))
    value, _ = expected(transposed, arrays, constants, None, shape)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(value))
    np.testing.assert_array_equal(np.isinf(out), np.isinf(value))


@pytest.mark.parametrize("transposed", [False, True], ids=["conv2d", "conv2d_transpose"])
@pytest.mark.parametrize("layer", ["panels, odd last vector", "stride", "few output channels", "pixels as rows"])
def test_any_strides(layer, transposed):
    arrays, constants, shape = problem(layer, transposed, np.float32)
    value, scale = expected(transposed, arrays, constants, None, shape)
    x, w, bias = arrays
    spread = np.repeat(np.repeat(x, 2, axis=3), 2, axis=2)[:, :, ::2, ::2]
    tall = np.repeat(x, 2, axis=1)[:, ::2]
    backward = x[:, :, ::-1].copy()[:, :, ::-1]
    kernels = [w, np.asfortranarray(w), np.repeat(w, 2, axis=3)[..., ::2], w[::-1, ::-1].copy()[::-1, ::-1]]
    for image in (spread, tall, backward):
        for kernel in kernels:
            given = [image, kernel, np.repeat(bias, 3)[::3]]
            out = run(transposed, given, constants, None, np.full(shape, np.nan, np.float32))
            assert (np.abs(out - value) <= 2e-6 * scale).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_empty(dtype):
    for n, c, o in ((0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 0, 40), (2, 40, 0)):
        x, y, w = np.ones((n, 5, 6, c), dtype), np.ones((n, 5, 6, o), dtype), np.ones((3, 3, c, o), dtype)
        constants = ((1, 1), ONE, (1, 1), 1, None)
        out = np.full(y.shape, np.nan, dtype)
        conv.conv2d(x, w, np.full(o, 2, dtype), *constants, out)
        assert (out == 2 if c == 0 else out > 2).all()
        out = np.full(x.shape, np.nan, dtype)
        conv.conv2d_transpose(y, w, np.full(c, 2, dtype), *constants, out)
        assert (out == 2 if o == 0 else out > 2).all()


@pytest.mark.parametrize("transposed", [False, True], ids=["conv2d", "conv2d_transpose"])
@pytest.mark.parametrize("layer", ["panels, odd last vector", "stride", "few output channels", "three input channels"])
def test_a_recorded_convolution_is_replayed(layer, transposed):
    arrays, constants, shape = problem(layer, transposed, np.float32)
    out = np.empty(shape, np.float32)
    recorder = plan.Recorder()
    with plan.recording(recorder):
        run(transposed, arrays, constants, "relu", out)
    recorded = recorder.plan()
    for seed in (1, 2):
        for array, fresh in zip(arrays, problem(layer, transposed, np.float32, seed)[0], strict=True):
            array[...] = fresh
        out[:] = np.nan
        recorded.run()
        value, scale = expected(transposed, arrays, constants, "relu", shape)
        assert (np.abs(out - value) <= 2e-6 * scale).all()


@pytest.mark.parametrize("name", ["x86-64", "haswell"])
def test_on_a_smaller_processor(name):
    """This file's main test, with code for a processor that has fewer lanes and registers."""
    if "x86" not in __import__("platform").machine().lower():
        pytest.skip("needs an x86 processor")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__),
            *("-k", "nothing_beyond and float32"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "NANONET_CPU": name},
    )
    assert process.returncode == 0, process.stdout + process.stderr
