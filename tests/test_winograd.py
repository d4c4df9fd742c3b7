"""Winograd's convolution: its transforms, its error bound, edges, threads, plans, and the switch."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import replayed, unset, views

import nanonet
from kernels.reference import reference

pytest.importorskip("numba")

from kernels.numba_cpu import conv, conv_weight, threads, winograd
from kernels.numba_cpu.jit import lines

REFERENCE = reference(np)
EPS = 2.0**-23
ONE = (1, 1)
AROUND = ((1, 1), (1, 1))
KINDS = ("forward", "transpose", "weight")


@pytest.fixture(autouse=True)
def switch():
    before = winograd.winograd_enabled()
    winograd.set_winograd(True)
    yield
    winograd.set_winograd(before)


def matrix(line, count):
    """The matrix of a linear map of lists."""
    return np.array(line(list(np.eye(count))))


@pytest.mark.parametrize("m", [2, 4])
def test_transforms_convolve_exactly(m):
    transforms, n = lines.LINES[m], m + 2
    a, b, g = matrix(transforms.output, n), matrix(transforms.input, n), matrix(transforms.filter, 3)
    wanted = np.zeros((m, n, 3))
    for i in range(m):
        for tap in range(3):
            wanted[i, i + tap, tap] = 1
    np.testing.assert_allclose(np.einsum("ip,pd,pt->idt", a, b, g), wanted, atol=1e-14)
    np.testing.assert_array_equal(matrix(transforms.gradient, m), a.T)
    np.testing.assert_array_equal(matrix(transforms.weight, n), g.T)
    enlarged = (np.abs(a) @ (np.abs(b).sum(axis=1)[:, None] * np.abs(g))).max() ** 2
    assert 0.99 * winograd.AMPLIFICATION[m] <= enlarged <= winograd.AMPLIFICATION[m]


# -------------------------------------------------------------------------------------- the three kernels


def arguments(kind, n, h, w, c, o, padding):
    """Shapes of the two inputs and of the result."""
    (top, bottom), (left, right) = padding
    x, y, k = (n, h, w, c), (n, h + top + bottom - 2, w + left + right - 2, o), (3, 3, c, o)
    return {"forward": (x, k, y), "transpose": (y, k, x), "weight": (x, y, k)}[kind]


def run(kind, first, second, bias, padding, activation, m, out):
    if kind == "weight":
        winograd.weight_gradient(first, second, padding, out, m)
    else:
        function = winograd.conv2d if kind == "forward" else winograd.conv2d_transpose
        function(first, second, bias, padding, activation, out, m)


def exact(kind, first, second, bias, padding, activation, shape):
    """The reference in float64."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    bias = None if bias is None else bias.astype(np.float64)
    out = np.zeros(shape)
    if kind == "weight":
        REFERENCE.conv2d_weight_gradient(first, second, ONE, padding, ONE, 1, out)
    elif kind == "forward":
        REFERENCE.conv2d(first, second, bias, ONE, padding, ONE, 1, activation, out)
    else:
        REFERENCE.conv2d_transpose(first, second, bias, ONE, padding, ONE, 1, activation, out)
    return out


def tiles(kind, x, padding, m, size):
    """(rows and columns of each tile, the greatest |x| that it meets, (n, c))."""
    (top, _), (left, _) = padding
    if kind == "transpose":
        top, left = 2 - top, 2 - left
    height, width = x.shape[1:3]
    for i in range(0, size[0], m):
        for j in range(0, size[1], m):
            rows = slice(max(0, i - top), min(height, max(0, i - top + m + 2)))
            columns = slice(max(0, j - left), min(width, max(0, j - left + m + 2)))
            most = np.abs(x[:, rows, columns]).astype(np.float64).max(axis=(1, 2), initial=0)
            yield (slice(i, i + m), slice(j, j + m)), most


def bound(kind, first, second, padding, m, shape):
    """What the module promises about the error."""
    size = np.abs(second).astype(np.float64)
    total = np.zeros(shape)
    if kind == "weight":
        terms = 0
        for (rows, columns), most in tiles(kind, first, padding, m, second.shape[1:3]):
            total += most.T @ size[:, rows, columns].sum(axis=(1, 2))
            terms += len(first)
    else:
        taps, terms = size.sum(axis=(0, 1)), first.shape[3]
        for (rows, columns), most in tiles(kind, first, padding, m, shape[1:3]):
            total[:, rows, columns] = (most @ (taps if kind == "forward" else taps.T))[:, None, None]
    return (terms + 32) * winograd.AMPLIFICATION[m] * EPS / 2 * total


@st.composite
def cases(draw):
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    h, w = (draw(st.integers(max(0, 3 - sum(pads)), 11)) for pads in padding)
    n, c, o = draw(st.integers(0, 3)), draw(st.integers(0, 40)), draw(st.integers(1, 70))
    return n, h, w, c, o, padding


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_error_stays_within_its_bound(kind, m, data):
    case = data.draw(cases())
    padding = case[-1]
    first, second, shape = arguments(kind, *case)
    scale = data.draw(st.sampled_from([1e-3, 1.0, 1e3]))
    first = data.draw(views(first, np.float32, -scale, scale))
    second = data.draw(views(second, np.float32))
    bias = None if kind == "weight" else data.draw(st.sampled_from([None, "bias"]))
    bias = bias and data.draw(views(shape[3:], np.float32))
    activation = None if kind == "weight" else data.draw(st.sampled_from([None, "relu", "tanh"]))
    out = unset(shape, np.float32)
    run(kind, first, second, bias, padding, activation, m, out)
    wanted = exact(kind, first, second, bias, padding, activation, shape)
    allowed = bound(kind, first, second, padding, m, shape) + 4 * EPS * (np.abs(wanted) + 4)
    assert out.shape == wanted.shape and (np.abs(out - wanted) <= allowed).all()


@pytest.mark.parametrize("m, most", [(2, 4), (4, 16)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(3, 13, 14, 70, 33), (2, 9, 7, 300, 40), (24, 12, 12, 16, 48), (8, 6, 6, 24, 600)])
def test_error_on_random_normals(kind, m, most, sizes):
    rng = np.random.default_rng(0)
    first, second, shape = arguments(kind, *sizes, AROUND)
    first, second = (rng.standard_normal(side).astype(np.float32) for side in (first, second))
    out = unset(shape, np.float32)
    run(kind, first, second, None, AROUND, None, m, out)
    wanted = exact(kind, first, second, None, AROUND, None, shape)
    scale = exact(kind, np.abs(first), np.abs(second), None, AROUND, None, shape)
    assert (np.abs(out - wanted) <= most * EPS * scale).all()


@pytest.fixture
def small_caches(monkeypatch):
    """Everything is cut into the smallest pieces."""
    for name in ("U_BYTES", "SUM_BYTES", "V_BYTES", "LEAST_TILES", "MOST_TILES", "GROUP"):
        monkeypatch.setattr(winograd, name, 1)
    yield monkeypatch
    winograd._forward.cache_clear()
    winograd._weight.cache_clear()


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_columns_in_chunks_and_tiles_in_blocks(kind, m, small_caches):
    rng = np.random.default_rng(1)
    first, second, shape = arguments(kind, 3, 9, 10, 20, 100, AROUND)
    first, second = (rng.standard_normal(side).astype(np.float32) for side in (first, second))
    wanted = exact(kind, first, second, None, AROUND, None, shape)
    for kept, most in ((1 << 24, 1 << 10), (0, 7)):
        small_caches.setattr(winograd, "KEPT_BYTES", kept)
        small_caches.setattr(winograd, "LEAST_SPREAD", most)
        small_caches.setattr(winograd, "MOST_SPREAD", most)
        winograd._forward.cache_clear()
        winograd._weight.cache_clear()
        out = unset(shape, np.float32)
        run(kind, first, second, None, AROUND, None, m, out)
        np.testing.assert_allclose(out, wanted, atol=5e-4)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_a_bit(kind, m, monkeypatch):
    rng = np.random.default_rng(2)
    first, second, shape = arguments(kind, 5, 17, 18, 40, 72, ((0, 1), (2, 1)))
    first, second = (rng.standard_normal(side).astype(np.float32) for side in (first, second))
    monkeypatch.setattr(winograd, "LEAST", 1)
    before = threads.get_num_threads()
    results = set()
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            out = unset(shape, np.float32)
            run(kind, first, second, None, ((0, 1), (2, 1)), None, m, out)
            results.add(out.tobytes())
    finally:
        threads.set_num_threads(before)
    assert len(results) == 1


def test_nothing_is_written_beyond_the_result():
    rng = np.random.default_rng(3)
    for kind in KINDS:
        first, second, shape = arguments(kind, 2, 7, 7, 19, 21, AROUND)
        first, second = (rng.standard_normal(side).astype(np.float32) for side in (first, second))
        count = int(np.prod(shape))
        memory = np.full(count + 2000, 7, np.float32)
        run(kind, first, second, None, AROUND, None, 4, memory[1000:-1000].reshape(shape))
        assert (memory[:1000] == 7).all() and (memory[-1000:] == 7).all()


def test_nan_spreads_over_its_tile_only():
    x, w = np.ones((1, 12, 12, 16), np.float32), np.ones((3, 3, 16, 16), np.float32)
    x[0, 1, 1, 3] = np.nan
    out = unset((1, 12, 12, 16), np.float32)
    winograd.conv2d(x, w, None, AROUND, "relu", out, 4)
    assert np.isnan(out[0, :3, :3]).all() and not np.isnan(out[0, 4:]).any() and not np.isnan(out[0, :, 4:]).any()


# --------------------------------------------------------------------------------- choice, switch, plans


def wide(kind):
    """Arrays for which it is chosen, and a call of the slot on them."""
    rng = np.random.default_rng(4)
    first, second, shape = arguments(kind, 4, 12, 12, 64, 64, AROUND)
    first, second = (rng.standard_normal(side).astype(np.float32) for side in (first, second))
    out = unset(shape, np.float32)
    if kind == "weight":
        return lambda: conv_weight.conv2d_weight_gradient(first, second, ONE, AROUND, ONE, 1, out), out
    slot = conv.conv2d if kind == "forward" else conv.conv2d_transpose
    return lambda: slot(first, second, None, ONE, AROUND, ONE, 1, None, out), out


def test_choice_by_shape():
    def chosen(n, side, c, o, itemsize=4, kernel=(3, 3), stride=ONE, dilation=ONE, groups=1):
        return winograd.wanted(itemsize, kernel, stride, dilation, groups, (n, side, side, o), c)

    assert chosen(32, 28, 128, 128) == 4 and chosen(32, 28, 32, 32) == 4
    assert chosen(32, 2, 256, 256) == 2
    assert chosen(32, 28, 3, 64) == 0 and chosen(32, 28, 8, 8) == 0 and chosen(1, 4, 256, 256) == 0
    assert chosen(32, 28, 128, 128, itemsize=8) == 0 and chosen(32, 28, 128, 128, kernel=(3, 1)) == 0
    assert chosen(32, 28, 128, 128, stride=(2, 1)) == 0 and chosen(32, 28, 128, 128, dilation=(1, 2)) == 0
    assert chosen(32, 28, 128, 128, groups=2) == 0 and chosen(0, 28, 128, 128) == 0 and chosen(1, 28, 0, 128) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_switch(kind):
    call, out = wide(kind)
    results = []
    for enabled in (True, False, True):
        nanonet.set_winograd(enabled)
        assert nanonet.winograd_enabled() is enabled
        out[...] = np.nan
        call()
        results.append(out.copy())
    assert (results[0] != results[1]).any() and (results[0] == results[2]).all()
    np.testing.assert_allclose(results[0], results[1], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_plans_keep_the_choice(kind):
    call, out = wide(kind)
    plan = replayed(call, out)
    kept = out.copy()
    assert any("winograd" in name for name in plan.names)
    nanonet.set_winograd(False)
    out[...] = np.nan
    plan.run()
    np.testing.assert_array_equal(out, kept)


def test_switch_wants_a_bool():
    for function in (nanonet.set_winograd, winograd.set_winograd):
        with pytest.raises(ValueError, match="enabled: got 0, want True or False"):
            function(0)


def test_environment_turns_it_off():
    code = "import nanonet; print(nanonet.winograd_enabled())"
    for value, answer in (("0", "False"), ("1", "True")):
        environment = {**os.environ, "NANONET_WINOGRAD": value}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == answer


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_pytorch(kind):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    x, w, g = (rng.standard_normal(s).astype(np.float32) for s in ((2, 10, 9, 48), (3, 3, 48, 64), (2, 10, 9, 64)))
    tx, tg = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (x, g))
    tw = torch.from_numpy(w).permute(3, 2, 0, 1)
    tx.requires_grad_(), tw.requires_grad_()
    y = torch.nn.functional.conv2d(tx, tw, padding=1)
    dx, dw = torch.autograd.grad(y, (tx, tw), tg)
    wanted = {
        "forward": y.detach().permute(0, 2, 3, 1),
        "transpose": dx.permute(0, 2, 3, 1),
        "weight": dw.permute(2, 3, 1, 0),
    }[kind].numpy()
    out = unset(wanted.shape, np.float32)
    first, second = {"forward": (x, w), "transpose": (g, w), "weight": (x, g)}[kind]
    run(kind, first, second, None, AROUND, None, 4, out)
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-3)
