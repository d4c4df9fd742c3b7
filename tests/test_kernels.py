"""Every slot of every backend against the reference in float64, and the reference against naive loops."""

import math

import numpy as np
import pytest
from cases import FROM_REFERENCE, KERNELS, Out
from hypothesis import given
from hypothesis import strategies as st

import kernels
from kernels import SLOTS
from kernels.reference import reference

ORACLE = reference(np)


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
    if isinstance(argument, np.ndarray) and argument.dtype.kind == "f" and argument.dtype != dtype:
        return argument if argument.ndim == 1 and argument.dtype == np.float64 else argument.astype(dtype)
    return argument


def call(backend, slot, arguments):
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
            np.testing.assert_allclose(ours, theirs, rtol=error, atol=error * 10)


@pytest.mark.parametrize("name", FROM_REFERENCE)
def test_no_slot_falls_back_unseen(name):
    if kernels.available()[name] is not None:
        pytest.skip(f"{name}: {kernels.available()[name]}")
    backend = kernels.get(name)
    fallen = {slot for slot in SLOTS if getattr(backend, slot).__module__ == "kernels.reference"}
    assert fallen == FROM_REFERENCE[name]


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
    backend.cross_entropy(x, np.array([0, 4, -1]), None, 0.0, loss, probabilities)
    assert np.isnan(loss).tolist() == [False, True, True]


def test_reference_philox_known_answers():
    """Philox 4x32-10 of Salmon et al. (2011), with their published test vectors."""
    philox = ORACLE.random_uniform.__wrapped__.__self__._philox
    assert [hex(w) for w in philox([0, 0, 0], 1)[0]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


def test_random_numbers_are_uniform_and_normal(backend):
    state, out = np.array([7, 1, 3]), np.empty(100_000, np.float32)
    backend.random_uniform(state, out=out)
    assert 0 <= out.min() and out.max() < 1 and abs(out.mean() - 0.5) < 0.01 and abs(out.var() - 1 / 12) < 0.005
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 0.02
    backend.random_normal(state, out=out)
    assert abs(out.mean()) < 0.02 and abs(out.std() - 1) < 0.02 and abs((out**4).mean() - 3) < 0.2
    backend.dropout_mask(state, 0.25, out=out)
    assert set(np.unique(out)) == {0, np.float32(1 / 0.75)} and abs((out == 0).mean() - 0.25) < 0.01


def test_nan_and_infinity_propagate(backend):
    x = np.array([[1.0, np.nan, np.inf], [np.inf, 1.0, 2.0]], np.float32)
    out = np.empty(2, np.float32)
    for name, expected in [("max", [np.nan, np.inf]), ("min", [np.nan, 1]), ("sum", [np.nan, np.inf])]:
        backend.reduce(name, x, (1,), out=out)
        np.testing.assert_array_equal(out, np.array(expected, np.float32))
    index = np.empty(2, np.int64)
    backend.argmax(x, out=index)
    assert index.tolist() == [1, 0]
    product = np.empty((2, 2), np.float32)
    backend.matmul(x, np.ones((3, 2), np.float32), out=product)
    assert np.isnan(product[0]).all() and np.isposinf(product[1]).all()
