"""The weight gradient of convolutions, and depthwise convolutions, against the reference in float64."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import replayed, unset, views

pytest.importorskip("numba")

from kernels.numba_cpu import conv_weight, depthwise, threads
from kernels.numba_cpu.conv_weight import conv2d_weight_gradient
from kernels.reference import reference

ORACLE = reference(np)
TYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 3e-5, np.float64: 1e-12}

#: n, h, w, c, o, (kh, kw), stride, padding, dilation, groups: at least one for each way through the code.
SHAPES = {
    "one channel, three rows of a tile": (3, 28, 28, 1, 32, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "three channels, bands of rows": (2, 40, 40, 3, 64, (7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1), 1),
    "few outputs: vectors over x": (2, 20, 20, 16, 16, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "three outputs, columns apart": (2, 9, 9, 40, 3, (3, 2), (1, 1), ((1, 2), (0, 1)), (1, 3), 1),
    "small images together": (21, 4, 4, 24, 40, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "panels of g packed": (2, 8, 9, 40, 100, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "channels in parts": (2, 7, 7, 300, 40, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "channels in parts, few outputs": (2, 7, 7, 300, 9, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "1x1": (5, 9, 9, 70, 50, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "1x1, every other pixel": (5, 9, 9, 70, 50, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    "uneven everything": (3, 11, 8, 5, 7, (3, 2), (2, 3), ((1, 0), (2, 4)), (2, 1), 1),
    "groups": (3, 12, 12, 24, 40, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 4),
    "wide groups": (2, 9, 9, 80, 80, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    "groups, dilated": (2, 12, 12, 24, 40, (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), 4),
    "padding beyond the kernel": (2, 5, 3, 6, 20, (3, 3), (1, 1), ((5, 4), (4, 6)), (1, 1), 1),
    "depthwise": (3, 19, 21, 40, 40, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 40),
    "depthwise 7x7": (2, 14, 14, 32, 32, (7, 7), (1, 1), ((3, 3), (3, 3)), (1, 1), 32),
    "depthwise, five channels": (2, 9, 9, 5, 5, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 5),
    "depthwise, stride": (2, 17, 18, 150, 150, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 150),
    "depthwise, uneven everything": (2, 13, 30, 19, 38, (3, 2), (3, 2), ((4, 0), (0, 3)), (1, 2), 19),
}
DEPTHWISE = [name for name in SHAPES if name.startswith("depthwise")]


def size(side, before, after, kernel, stride, dilation):
    return (side + before + after - dilation * (kernel - 1) - 1) // stride + 1


def arrays(name, dtype, seed=0):
    """x, g, w and the arguments after them."""
    n, h, w, c, o, kernel, stride, padding, dilation, groups = SHAPES[name]
    oh, ow = (size(*each) for each in zip((h, w), *zip(*padding), kernel, stride, dilation))
    rng = np.random.default_rng(seed)
    shapes = (n, h, w, c), (n, oh, ow, o), (*kernel, c // groups, o)
    return *(rng.standard_normal(shape).astype(dtype) for shape in shapes), (stride, padding, dilation, groups)


def wide(*values):
    return [v.astype(np.float64) if isinstance(v, np.ndarray) else v for v in values]


def check(slot, call, *arguments, shape, dtype):
    """call(*arguments) gives what the oracle's slot does, to the rounding of dtype."""
    expected, out = np.empty(shape), unset(shape, dtype)
    getattr(ORACLE, slot)(*wide(*arguments), expected)
    call(*arguments, out)
    assert np.abs(out - expected).max(initial=0) <= TOLERANCE[dtype] * max(1, np.abs(expected).max(initial=0))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_each_way_through_the_code(name, dtype):
    x, g, w, rest = arrays(name, dtype)
    check("conv2d_weight_gradient", conv2d_weight_gradient, x, g, *rest, shape=w.shape, dtype=dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_forward_and_transpose(name, dtype):
    x, g, w, rest = arrays(name, dtype)
    assert depthwise.fits(w.shape, rest[-1])
    for slot, y, shape in (("conv2d", x, g.shape), ("conv2d_transpose", g, x.shape)):
        call = getattr(depthwise, slot)
        bias = np.linspace(-1, 1, shape[-1]).astype(dtype)
        for each, activation in ((bias, "relu"), (bias[::-1], None), (None, "tanh")):
            check(slot, call, y, w, each, *rest, activation, shape=shape, dtype=dtype)


@pytest.mark.parametrize("dtype", TYPES)
@given(data=st.data())
def test_any_shape_and_strides(dtype, data):
    def some(low, high):
        return data.draw(st.integers(low, high))

    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    c, o = groups * some(1, 20), groups * some(1, 40)
    kernel, stride, dilation = ((some(1, 4), some(1, 4)) for _ in range(3))
    padding = ((some(0, 3), some(0, 3)), (some(0, 3), some(0, 3)))
    least = [max(1, d * (k - 1) + 1 - sum(p)) for d, k, p in zip(dilation, kernel, padding)]
    n, h, w = some(0, 3), least[0] + some(0, 12), least[1] + some(0, 12)
    oh, ow = (size(*each) for each in zip((h, w), *zip(*padding), kernel, stride, dilation))
    x, g = data.draw(views((n, h, w, c), dtype)), data.draw(views((n, oh, ow, o), dtype))
    shape, rest = (*kernel, c // groups, o), (stride, padding, dilation, groups)
    check("conv2d_weight_gradient", conv2d_weight_gradient, x, g, *rest, shape=shape, dtype=dtype)


@pytest.fixture
def each_number_of_threads(monkeypatch):
    """A function: the different results of a call with 1, 2 and 3 threads, however little work there is."""

    def run(call, out):
        found, before = set(), threads.get_num_threads()
        for module in (conv_weight, depthwise):
            monkeypatch.setattr(module, "LEAST", 1)
        for number in (1, 2, 3):
            threads.set_num_threads(number)
            forget()
            out[...] = unset((), out.dtype)
            call(out)
            found.add(out.tobytes())
        threads.set_num_threads(before)
        return found

    def forget():
        for plans in (conv_weight._plan, depthwise._plan, depthwise._weight_plan):
            plans.cache_clear()

    yield run
    forget()


@pytest.mark.parametrize("name", SHAPES)
def test_bits_do_not_depend_on_the_number_of_threads(name, each_number_of_threads):
    x, g, w, rest = arrays(name, np.float32)
    calls = [(lambda out: conv2d_weight_gradient(x, g, *rest, out), w.shape)]
    if name in DEPTHWISE:
        calls.append((lambda out: depthwise.conv2d(x, w, None, *rest, None, out), g.shape))
        calls.append((lambda out: depthwise.conv2d_transpose(g, w, None, *rest, None, out), x.shape))
    for call, shape in calls:
        assert len(each_number_of_threads(call, np.empty(shape, np.float32))) == 1


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_beyond_the_arrays_is_used_or_written(name):
    """Arrays amid NaN: a read beyond them would spoil the result."""

    def amid(array):
        around = np.full(array.size + 200, np.nan, array.dtype)
        inner = around[77 : 77 + array.size].reshape(array.shape)
        inner[...] = array
        return around, inner

    x, g, w, rest = arrays(name, np.float32)
    (_, near_x), (_, near_g), (around, out) = amid(x), amid(g), amid(w)
    expected = np.empty_like(w)
    conv2d_weight_gradient(x, g, *rest, expected)
    conv2d_weight_gradient(near_x, near_g, *rest, out)
    np.testing.assert_array_equal(out, expected)
    assert np.isnan(around[:77]).all() and np.isnan(around[77 + out.size :]).all()
    if name in DEPTHWISE:
        _, near_w = amid(w)
        for call, y, shape in ((depthwise.conv2d, near_x, g.shape), (depthwise.conv2d_transpose, near_g, x.shape)):
            around, out = amid(np.empty(shape, np.float32))
            call(y, near_w, None, *rest, None, out)
            assert np.isfinite(out).all()
            assert np.isnan(around[:77]).all() and np.isnan(around[77 + out.size :]).all()


@pytest.mark.parametrize("groups", [1, 4])
def test_no_images_give_zeros(groups):
    x, g = np.empty((0, 5, 5, 4), np.float32), np.empty((0, 5, 5, 8), np.float32)
    out = unset((3, 3, 4 // groups, 8), np.float32)
    conv2d_weight_gradient(x, g, (1, 1), ((1, 1), (1, 1)), (1, 1), groups, out)
    assert (out == 0).all()


@pytest.mark.parametrize("name", ["small images together", "few outputs: vectors over x", "depthwise"])
def test_a_nan_reaches_the_sums_it_is_part_of(name):
    x, g, w, rest = arrays(name, np.float32)
    g[0, 1, 1, 2] = np.nan
    out = np.empty_like(w)
    conv2d_weight_gradient(x, g, *rest, out)
    assert np.isnan(out[..., 2]).all() and np.isfinite(np.delete(out, 2, axis=3)).all()


@pytest.mark.parametrize("name", SHAPES)
def test_recorded(name):
    x, g, w, rest = arrays(name, np.float32)
    out = np.empty_like(w)
    replayed(lambda: conv2d_weight_gradient(x[:, ::-1], g, *rest, out), out)


def test_as_pytorch():
    torch = pytest.importorskip("torch")
    x, g, w, rest = arrays("groups", np.float32)
    stride, padding, dilation, groups = rest
    y, z = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (x, g))
    before = [side[0] for side in padding]
    weight = torch.nn.grad.conv2d_weight(y, (40, 6, 3, 3), z, stride, before, dilation, groups)
    out = np.empty_like(w)
    conv2d_weight_gradient(x, g, *rest, out)
    np.testing.assert_allclose(out, weight.permute(2, 3, 1, 0).numpy(), rtol=1e-3, atol=1e-3)


def test_on_a_smaller_processor():
    """This file's main tests, with code for a processor that has fewer lanes."""
    if "x86" not in platform.machine().lower():
        pytest.skip("needs an x86 processor")
    wanted = "(each_way or nothing_beyond or depthwise_forward) and not float64"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", wanted]
    environment = {**os.environ, "NANONET_CPU": "haswell"}
    root = Path(__file__).parent.parent
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root, env=environment)
    assert process.returncode == 0, process.stdout + process.stderr
