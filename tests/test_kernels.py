"""Every slot of every backend against the reference in float64, and the reference against naive loops."""

import ctypes
import math

import numpy as np
import pytest
from cases import FROM_REFERENCE, KERNELS, Out, Wide
from conftest import BACKENDS, EMULATED, emulated_backend, real_backend
from hypothesis import given
from hypothesis import strategies as st

from kernels import SLOTS
from kernels.reference import reference

ORACLE = reference(np)


@pytest.fixture(scope="session", params=[*BACKENDS, EMULATED])
def backend(request):
    """Each backend in turn; the GPU's a second time on the host, with arrays that are not the host's."""
    return emulated_backend("ApartEmulator") if request.param == EMULATED else real_backend(request.param)


class Arrays:
    """Random float views: plain, transposed, reversed, or every other element of a larger array."""

    def __init__(self, seed, dtype):
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype

    def __call__(self, shape, low=-3.0):
        kind = self.rng.integers(4)
        if kind == 1:
            made = self.rng.uniform(low, 3, shape[::-1]).T
        elif kind == 2:
            made = self.rng.uniform(low, 3, shape)[tuple(slice(None, None, -1) for _ in shape)]
        elif kind == 3 and shape:
            made = self.rng.uniform(low, 3, (*shape[:-1], 2 * shape[-1]))[..., ::2]
        else:
            made = self.rng.uniform(low, 3, shape)
        out = np.empty_like(made, dtype=self.dtype)
        out[...] = made
        return out if kind != 3 or not shape else np.repeat(out, 2, axis=-1)[..., ::2]


def instance(argument, dtype, place):
    """The argument for a call in `dtype`. Arrays that are written are appended to `place`."""
    if isinstance(argument, Out):
        kind = argument.dtype or dtype
        if argument.start is not None:
            out = np.array(argument.start, kind, order="C")
        else:
            out = np.full(argument.shape, np.nan if np.dtype(kind).kind == "f" else -77, kind)
        place.append(out)
        return out
    if isinstance(argument, list):
        return [instance(item, dtype, place) for item in argument]
    if isinstance(argument, Wide):
        return argument.array
    if isinstance(argument, np.ndarray) and argument.dtype.kind == "f" and argument.dtype != dtype:
        return argument.astype(dtype)
    return argument


def placed(memory, slot, argument):
    """The argument on the backend's device, with the strides that it has."""
    if isinstance(argument, list):
        return [placed(memory, slot, item) for item in argument]
    if not isinstance(argument, np.ndarray) or ("pool" in slot and argument.dtype == np.int64 and argument.ndim == 2):
        return argument
    if not argument.size:
        return memory.from_host(argument)
    low, high = np.lib.array_utils.byte_bounds(argument)
    first = argument.__array_interface__["data"][0]
    base = np.array((ctypes.c_char * (high - low)).from_address(low)).view(np.uint8)
    return memory.view(memory.from_host(base), argument.shape, argument.dtype, argument.strides, first - low)


def call(backend, slot, arguments):
    if backend.memory.kind is not np.ndarray:
        there = [placed(backend.memory, slot, argument) for argument in arguments]
        launch(backend, slot, there)
        for here, result in zip(arguments, there, strict=True):
            fetch(backend.memory, here, result)
    else:
        launch(backend, slot, arguments)


def fetch(memory, here, there):
    """Bring back what was written."""
    if isinstance(here, list):
        for a, b in zip(here, there, strict=True):
            fetch(memory, a, b)
    elif isinstance(there, memory.kind):
        here[...] = memory.to_host(there)


def launch(backend, slot, arguments):
    if slot == "elementwise":
        backend.elementwise(*arguments[:-1], out=arguments[-1])
    else:
        getattr(backend, slot)(*arguments)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", KERNELS, ids=str)
@given(data=st.data())
def test_slot_matches_the_reference(case, dtype, backend, data):
    arguments = case.arguments(data.draw, Arrays(data.draw(st.integers(0, 2**32)), dtype))
    found, expected = [], []
    call(backend, case.slot, [instance(a, dtype, found) for a in arguments])
    wide = dtype if case.exact or case.slot.startswith("random") else np.float64
    call(ORACLE, case.slot, [instance(a, wide, expected) for a in arguments])
    error = {np.float32: 2e-5, np.float64: 1e-11}[dtype]
    for ours, theirs in zip(found, expected, strict=True):
        if case.exact:
            np.testing.assert_array_equal(ours, theirs)
        else:
            size = max(1.0, float(np.abs(theirs).max(initial=0)) / 10)  # sums of many terms round by their largest
            np.testing.assert_allclose(ours, theirs, rtol=error, atol=error * 10 * size)


def test_no_slot_falls_back_unseen(backend):
    fallen = {slot for slot in SLOTS if getattr(backend, slot).__module__ == "kernels.reference"}
    assert fallen == FROM_REFERENCE[backend.name]


def test_every_slot_has_a_case():
    assert {case.slot for case in KERNELS} == set(SLOTS)


# ------------------------------------------------------------------ the oracle, by naive loops


def run(slot, *arguments, shape, dtype=np.float64):
    out = np.full(shape, np.nan, dtype) if np.dtype(dtype).kind == "f" else np.full(shape, -1, dtype)
    getattr(ORACLE, slot)(*arguments, out=out)
    return out


def test_reference_matmul():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5))
    expected = [[[sum(a[p, i, k] * b[k, j] for k in range(4)) for j in range(5)] for i in range(3)] for p in range(2)]
    np.testing.assert_allclose(run("matmul", a, b, shape=(2, 3, 5)), expected)


def test_reference_linear_and_relu():
    rng = np.random.default_rng(0)
    x, w, bias = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=2)
    expected = [[max(0, sum(x[i, k] * w[k, j] for k in range(4)) + bias[j]) for j in range(2)] for i in range(3)]
    np.testing.assert_allclose(run("linear", x, w, bias, "relu", shape=(3, 2)), expected)


CONVOLUTIONS = {
    "plain": ((2, 5, 4, 3), (3, 2, 3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    "padded, strided, dilated": ((1, 5, 6, 2), (2, 3, 2, 3), (2, 3), ((1, 2), (4, 0)), (2, 1), 1),
    "grouped": ((1, 4, 4, 4), (3, 3, 2, 6), (1, 2), ((1, 1), (1, 1)), (1, 1), 2),
    "depthwise": ((1, 4, 3, 3), (2, 2, 1, 6), (2, 1), ((0, 1), (1, 0)), (1, 2), 3),
}


def convolution(name):
    """x, w, the constants, every (place in y, place in x, place in w) that a convolution multiplies, and y's shape."""
    x_shape, w_shape, stride, padding, dilation, groups = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    (n, h, width, _), (kh, kw, cg, o) = x_shape, w_shape
    oh = (h + sum(padding[0]) - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + sum(padding[1]) - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    triples = []
    for b, i, j, p, q, k, f in np.ndindex(n, oh, ow, kh, kw, cg, o):
        y = i * stride[0] + p * dilation[0] - padding[0][0]
        z = j * stride[1] + q * dilation[1] - padding[1][0]
        if 0 <= y < h and 0 <= z < width:
            triples.append(((b, i, j, f), (b, y, z, f // (o // groups) * cg + k), (p, q, k, f)))
    return (
        rng.normal(size=x_shape),
        rng.normal(size=w_shape),
        (stride, padding, dilation, groups),
        triples,
        (
            n,
            oh,
            ow,
            o,
        ),
    )


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_reference_convolution_its_transpose_and_its_weight_gradient(name):
    x, w, constants, triples, shape = convolution(name)
    rng = np.random.default_rng(1)
    g, bias, back_bias = rng.normal(size=shape), rng.normal(size=shape[3]), rng.normal(size=x.shape[3])
    y = np.zeros(shape) + bias
    back, dw = np.zeros(x.shape) + back_bias, np.zeros(w.shape)
    for at_y, at_x, at_w in triples:
        y[at_y] += x[at_x] * w[at_w]
        back[at_x] += g[at_y] * w[at_w]
        dw[at_w] += x[at_x] * g[at_y]
    close = {"atol": 1e-12}
    np.testing.assert_allclose(run("conv2d", x, w, bias, *constants, None, shape=shape), y, **close)
    np.testing.assert_allclose(run("conv2d", x, w, bias, *constants, "relu", shape=shape), np.maximum(y, 0), **close)
    found = run("conv2d_transpose", g, w, back_bias, *constants, None, shape=x.shape)
    np.testing.assert_allclose(found, back, **close)
    found = run("conv2d_transpose", g, w, back_bias, *constants, "tanh", shape=x.shape)
    np.testing.assert_allclose(found, np.tanh(back), **close)
    found = run("conv2d_weight_gradient", x, g, *constants, shape=w.shape)
    np.testing.assert_allclose(found, dw, **close)


WINDOWS = np.array([[0, 2, 2], [1, 4, 3], [4, 5, 2]]), np.array([[0, 3, 3], [2, 4, 1]])


def test_reference_pools():
    rng = np.random.default_rng(0)
    x, g = rng.integers(-2, 3, (2, 5, 4, 3)).astype(float), rng.normal(size=(2, 3, 2, 3))
    rows, columns = WINDOWS
    found, index, mean = np.empty(g.shape), np.empty(g.shape, np.int32), run("avg_pool2d", x, *WINDOWS, shape=g.shape)
    ORACLE.max_pool2d(x, *WINDOWS, found, index)
    back, spread = np.zeros(x.shape), np.zeros(x.shape)
    for b, i, j, c in np.ndindex(g.shape):
        (top, bottom, tall), (left, right, wide) = rows[i], columns[j]
        places = [(y, z) for y in range(top, bottom) for z in range(left, right)]
        values = [x[b, y, z, c] for y, z in places]
        y, z = places[values.index(max(values))]
        assert found[b, i, j, c] == max(values) and index[b, i, j, c] == y * x.shape[2] + z
        assert mean[b, i, j, c] == pytest.approx(sum(values) / (tall * wide))
        back[b, y, z, c] += g[b, i, j, c]
        for y, z in places:
            spread[b, y, z, c] += g[b, i, j, c] / (tall * wide)
    np.testing.assert_allclose(run("max_pool2d_backward", g, index, *WINDOWS, shape=x.shape), back)
    np.testing.assert_allclose(run("avg_pool2d_backward", g, *WINDOWS, shape=x.shape), spread)


def differences(function, x, eps=1e-6):
    """The gradient of a number by differences."""
    found = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        sides = []
        for sign in (1, -1):
            moved = x.copy()
            moved[place] += sign * eps
            sides.append(function(moved))
        found[place] = (sides[0] - sides[1]) / (2 * eps)
    return found


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("affine", [True, False])
def test_reference_batch_norm(activation, affine):
    rng = np.random.default_rng(0)
    x, g, eps = rng.normal(1, 2, (6, 3)), rng.normal(size=(6, 3)), 0.01
    w, b = (rng.normal(size=3), rng.normal(size=3)) if affine else (None, None)

    def norm(x, w, b):
        out = np.empty(x.shape)
        for j in range(3):
            mean = sum(x[:, j]) / 6
            variance = sum((v - mean) ** 2 for v in x[:, j]) / 6
            z = [(v - mean) / math.sqrt(variance + eps) for v in x[:, j]]
            y = [v * (w[j] if affine else 1) + (b[j] if affine else 0) for v in z]
            out[:, j] = [max(v, 0) if activation else v for v in y]
        return out

    mean, variance = np.empty(3), np.empty(3)
    out = np.empty(x.shape)
    ORACLE.batch_norm(x, w, b, eps, activation, out, mean, variance)
    np.testing.assert_allclose(out, norm(x, w, b))
    np.testing.assert_allclose([mean, variance], [x.mean(0), x.var(0)])
    dx, dw, db = np.empty(x.shape), np.empty(3), np.empty(3)
    ORACLE.batch_norm_backward(g, x, w, b, mean, variance, eps, activation, dx, dw, db)
    np.testing.assert_allclose(dx, differences(lambda x: (g * norm(x, w, b)).sum(), x), atol=1e-7)
    if affine:
        np.testing.assert_allclose(dw, differences(lambda w: (g * norm(x, w, b)).sum(), w), atol=1e-7)
        np.testing.assert_allclose(db, differences(lambda b: (g * norm(x, w, b)).sum(), b), atol=1e-7)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_reference_group_norm(centred, affine):
    rng = np.random.default_rng(0)
    x, g, eps, groups = rng.normal(1, 2, (2, 3, 4)), rng.normal(size=(2, 3, 4)), 0.01, 2
    w, b = (rng.normal(size=4), rng.normal(size=4)) if affine else (None, None)

    def norm(x, w, b):
        out = np.empty(x.shape)
        for i, k in np.ndindex(2, groups):
            part = slice(2 * k, 2 * k + 2)
            values = x[i, :, part].ravel().tolist()
            middle = sum(values) / 6 if centred else 0
            scale = 1 / math.sqrt(sum((v - middle) ** 2 for v in values) / 6 + eps)
            out[i, :, part] = (x[i, :, part] - middle) * scale * (w[part] if affine else 1) + (b[part] if affine else 0)
        return out

    mean, scale, out = np.empty((2, groups)) if centred else None, np.empty((2, groups)), np.empty(x.shape)
    ORACLE.group_norm(x, groups, w, b, eps, out, mean, scale)
    np.testing.assert_allclose(out, norm(x, w, b))
    dx, dw, db = np.empty(x.shape), np.empty(4), np.empty(4)
    ORACLE.group_norm_backward(g, x, groups, w, mean, scale, dx, dw, db)
    np.testing.assert_allclose(dx, differences(lambda x: (g * norm(x, w, b)).sum(), x), atol=1e-7)
    if affine:
        np.testing.assert_allclose(dw, differences(lambda w: (g * norm(x, w, b)).sum(), w), atol=1e-7)
        np.testing.assert_allclose(db, differences(lambda b: (g * norm(x, w, b)).sum(), b), atol=1e-7)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_reference_activation_gradient(activation):
    rng = np.random.default_rng(0)
    z, g = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    curve = {"relu": lambda z: max(z, 0), "tanh": math.tanh, "sigmoid": lambda z: 1 / (1 + math.exp(-z))}[activation]
    y = np.vectorize(curve, otypes=[float])(z)
    slope = np.vectorize(lambda z: (curve(z + 1e-6) - curve(z - 1e-6)) / 2e-6)(z)
    out, sums = np.empty(z.shape), np.empty(3)
    ORACLE.activation_gradient(g, y, activation, out, sums)
    np.testing.assert_allclose(out, g * slope, atol=1e-8)
    np.testing.assert_allclose(sums, out.sum(0))
    ORACLE.activation_gradient(g, None, None, None, sums)
    np.testing.assert_allclose(sums, g.sum(0))


def test_reference_softmax_and_cross_entropy():
    x = np.array([[1.0, 2.0, -1.0], [1000.0, 0.0, 5.0]])
    weight, target, smoothing = np.array([1.0, 2.0, 0.5]), np.array([1, 0]), 0.1
    loss, probabilities = np.empty(2), np.empty((2, 3))
    ORACLE.cross_entropy(x, target, weight, smoothing, loss, probabilities)
    for i in range(2):
        top = max(x[i])
        total = sum(math.exp(v - top) for v in x[i])
        logp = [v - top - math.log(total) for v in x[i]]
        np.testing.assert_allclose(probabilities[i], [math.exp(v) for v in logp], atol=1e-300)
        q = [(1 - smoothing) * (j == target[i]) + smoothing / 3 for j in range(3)]
        assert loss[i] == pytest.approx(-sum(weight[j] * q[j] * logp[j] for j in range(3)))
    g, eps = np.array([0.7, -1.3]), 1e-6
    gradient = run("cross_entropy_backward", g, probabilities, target, weight, smoothing, shape=(2, 3))
    for i in range(2):
        for j in range(3):
            sides = []
            for sign in (1, -1):
                moved = x.copy()
                moved[i, j] += sign * eps
                ORACLE.cross_entropy(moved, target, weight, smoothing, loss, np.empty((2, 3)))
                sides.append(g @ loss)
            assert gradient[i, j] == pytest.approx((sides[0] - sides[1]) / (2 * eps), abs=1e-6)


def test_labels_that_are_no_class_give_nan(backend):
    x = np.zeros((3, 4), np.float32)
    loss, probabilities = np.zeros(3, np.float32), np.zeros((3, 4), np.float32)
    call(backend, "cross_entropy", [x, np.array([0, 4, -1]), None, 0.0, loss, probabilities])
    assert np.isnan(loss).tolist() == [False, True, True]


def test_reference_philox_known_answers():
    """Philox 4x32-10 of Salmon et al. (2011), with their published test vectors."""
    philox = ORACLE.random_uniform.__wrapped__.__self__._philox
    assert [hex(w) for w in philox([0, 0, 0], 1)[0]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


def test_random_numbers_are_uniform_and_normal(backend):
    state, out = np.array([7, 1, 3]), np.empty(100_000, np.float32)
    call(backend, "random_uniform", [state, out])
    assert 0 <= out.min() and out.max() < 1 and abs(out.mean() - 0.5) < 0.01 and abs(out.var() - 1 / 12) < 0.005
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 0.02
    call(backend, "random_normal", [state, out])
    assert abs(out.mean()) < 0.02 and abs(out.std() - 1) < 0.02 and abs((out**4).mean() - 3) < 0.2
    call(backend, "dropout_mask", [state, 0.25, out])
    assert set(np.unique(out)) == {0, np.float32(1 / 0.75)} and abs((out == 0).mean() - 0.25) < 0.01


def test_nan_and_infinity_propagate(backend):
    x = np.array([[1.0, np.nan, np.inf], [np.inf, 1.0, 2.0]], np.float32)
    out = np.empty(2, np.float32)
    for name, expected in [("max", [np.nan, np.inf]), ("min", [np.nan, 1]), ("sum", [np.nan, np.inf])]:
        call(backend, "reduce", [name, x, (1,), out])
        np.testing.assert_array_equal(out, np.array(expected, np.float32))
    index = np.empty(2, np.int64)
    call(backend, "argmax", [x, index])
    assert index.tolist() == [1, 0]
    product = np.empty((2, 2), np.float32)
    call(backend, "matmul", [x, np.ones((3, 2), np.float32), product])
    assert np.isnan(product[0]).all() and np.isposinf(product[1]).all()


def test_nan_wins_in_max_pooling(backend):
    x = np.zeros((1, 4, 4, 18), np.float32)
    x[0, 1, 0] = x[0, 3, 3] = np.nan
    x[0, 0, 2, ::2] = np.nan
    halves = np.array([[0, 2, 2], [2, 4, 2]])
    out, index = np.empty((1, 2, 2, 18), np.float32), np.empty((1, 2, 2, 18), np.int32)
    call(backend, "max_pool2d", [x, halves, halves, out, index])
    assert np.isnan(out[0, 0, 0]).all() and np.isnan(out[0, 1, 1]).all() and (out[0, 1, 0] == 0).all()
    assert np.isnan(out[0, 0, 1]).tolist() == [True, False] * 9
    assert (index[0, 0, 0] == 4).all() and (index[0, 1, 1] == 15).all() and (index[0, 0, 1] == 2).all()


def test_nan_goes_through_convolution_and_normalization(backend):
    x = np.ones((1, 6, 6, 3), np.float32)
    x[0, 0, 0, 1] = np.nan
    w, out = np.ones((3, 3, 3, 17), np.float32), np.empty((1, 4, 4, 17), np.float32)
    for activation in (None, "relu", "tanh", "sigmoid"):
        call(backend, "conv2d", [x, w, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, activation, out])
        assert np.isnan(out[0, 0, 0]).all() and not np.isnan(out[0, 1:, 1:]).any()
    out, mean, variance = np.empty((36, 3), np.float32), np.empty(3, np.float32), np.empty(3, np.float32)
    for activation in (None, "relu"):
        call(backend, "batch_norm", [x.reshape(36, 3), None, None, 1e-5, activation, out, mean, variance])
        assert np.isnan(out).all(axis=0).tolist() == np.isnan(mean).tolist() == [False, True, False]
    out, mean, scale = np.empty((1, 36, 3), np.float32), np.empty((1, 3), np.float32), np.empty((1, 3), np.float32)
    call(backend, "group_norm", [x.reshape(1, 36, 3), 3, None, None, 1e-5, out, mean, scale])
    assert np.isnan(out).all(axis=1).tolist() == [[False, True, False]]


def test_the_variance_of_values_far_from_zero_is_not_lost(backend):
    """A difference of large squares would leave nothing of it in float32."""
    x = (1000 + np.random.default_rng(0).normal(size=(400, 20))).astype(np.float32)
    exact = x.astype(np.float64)
    out, mean, variance = np.empty_like(x), np.empty(20, np.float32), np.empty(20, np.float32)
    call(backend, "batch_norm", [x, None, None, 0.0, None, out, mean, variance])
    np.testing.assert_allclose(variance, exact.var(0), rtol=1e-3)
    np.testing.assert_allclose(out, (exact - exact.mean(0)) / exact.std(0), atol=1e-3)
    out, mean, scale = np.empty((20, 20, 20), np.float32), np.empty((20, 1), np.float32), np.empty((20, 1), np.float32)
    call(backend, "group_norm", [x.reshape(20, 20, 20), 1, None, None, 0.0, out, mean, scale])
    np.testing.assert_allclose(scale[:, 0], 1 / exact.reshape(20, -1).std(1), rtol=1e-3)
