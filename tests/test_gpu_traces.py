"""Slots of the GPU that repeat what they launched before, on other arrays of the same kind."""

import emulator
import numpy as np
import pytest
from apart import ApartEmulator
from cases import KERNELS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernels import ORACLE, Arrays, call, instance

from kernels import plan
from kernels.cupy_gpu.backend import backend as gpu_backend
from kernels.errors import ShapeError
from kernels.formula import Formula
from kernels.precision import mode

pytestmark = pytest.mark.skipif(emulator.COMPILER is None, reason="the emulator of the GPU needs a C++ compiler")

SUM = Formula.of("x + y", "x", "y")


class Counting(ApartEmulator):
    """Counts the kernels that Python has chosen."""

    chosen = 0

    def function(self, *arguments):
        self.chosen += 1
        return super().function(*arguments)


@pytest.fixture(scope="module")
def device():
    return Counting()


@pytest.fixture(scope="module")
def backend(device):
    return gpu_backend(device)


host = ApartEmulator.memory.to_host


def on(device, *arrays):
    return [device.memory.from_host(np.asarray(a, np.float32)) for a in arrays]


def scaled(argument):
    """Other numbers with the same strides."""
    if isinstance(argument, np.ndarray) and argument.dtype.kind == "f" and argument.flags.writeable:
        other = np.empty_like(argument)
        other[...] = argument * 0.75
        if other.strides != argument.strides:
            argument *= 0.75
            return argument
        return other
    return argument


@pytest.mark.parametrize("case", [c for c in KERNELS if c.slot != "update"], ids=str)
@settings(max_examples=4)
@given(data=st.data())
def test_a_second_call_of_a_kind_computes_with_its_own_arrays(case, device, backend, data):
    arguments = case.arguments(data.draw, Arrays(data.draw(st.integers(0, 2**32)), np.float32))
    call(backend, case.slot, [instance(a, np.float32, []) for a in arguments])
    others = [scaled(a) for a in arguments]
    before = device.chosen
    found, expected = [], []
    call(backend, case.slot, [instance(a, np.float32, found) for a in others])
    assert device.chosen == before
    wide = np.float32 if case.exact or case.slot.startswith("random") else np.float64
    call(ORACLE, case.slot, [instance(a, wide, expected) for a in others])
    for ours, theirs in zip(found, expected, strict=True):
        size = max(1.0, float(np.abs(theirs).max(initial=0)) / 10)
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-4 * size)


def test_in_place_and_apart_are_two_kinds(device, backend):
    x, y, out = on(device, [1, 2, 3], [10, 20, 30], [0, 0, 0])
    backend.elementwise(SUM, x, y, out=x)
    backend.elementwise(SUM, x, y, out=out)
    backend.elementwise(SUM, x, x, out=y)
    assert (host(x).tolist(), host(out).tolist(), host(y).tolist()) == ([11, 22, 33], [21, 42, 63], [22, 44, 66])
    x, y, out = on(device, [1, 2, 3], [10, 20, 30], [0, 0, 0])
    backend.elementwise(SUM, x, y, out=out)
    assert (host(x).tolist(), host(out).tolist()) == ([1, 2, 3], [11, 22, 33])


def test_a_batch_of_three_axes_is_launched_at_its_own_places(device, backend):
    """Its products are launches on views, which lie somewhere in the arguments."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        a, b = rng.normal(size=(2, 3, 2, 4, 5)), rng.normal(size=(2, 1, 2, 5, 3))
        out = device.memory.from_host(np.zeros((2, 3, 2, 4, 3), np.float32))
        backend.matmul(*on(device, a, b), out)
        np.testing.assert_allclose(host(out), a @ b, rtol=1e-5, atol=1e-5)


def test_arguments_that_overlap_are_not_remembered_by_their_places(device, backend):
    """A view that a slot makes of one of them may lie in the other, too."""
    rng = np.random.default_rng(1)
    whole, other = rng.normal(size=(2, 3, 2, 4, 4)), rng.normal(size=(2, 1, 2, 4, 4))
    out = device.memory.from_host(np.zeros(whole.shape, np.float32))
    a, apart = on(device, whole, other)
    inside = a[1].reshape(-1)[:64].reshape(other.shape)
    for b, wanted in ((inside, whole @ host(inside)), (apart, whole @ other)):
        backend.matmul(a, b, out)
        np.testing.assert_allclose(host(out), wanted, rtol=1e-4, atol=1e-5)


def test_precision_is_part_of_the_kind(device, backend):
    rng = np.random.default_rng(2)
    a, b = on(device, rng.normal(size=(64, 64)), rng.normal(size=(64, 64)))
    exact, coarse, again = (device.memory.from_host(np.zeros((64, 64), np.float32)) for _ in range(3))
    backend.matmul(a, b, exact)
    try:
        mode.products = "bf16"
        backend.matmul(a, b, coarse)
    finally:
        mode.products = "float32"
    backend.matmul(a, b, again)
    assert np.array_equal(host(exact), host(again)) and not np.array_equal(host(exact), host(coarse))


def test_scratch_memory_is_new_for_every_call(device, backend):
    x = device.memory.from_host(np.ones((20_000, 3), np.float32))
    out = device.memory.from_host(np.zeros(3, np.float32))
    for _ in range(2):
        made = []
        empty = type(device).empty
        type(device).empty = lambda *a, empty=empty, made=made: made.append(empty(*a)) or made[-1]
        try:
            backend.reduce("sum", x, (0,), out)
        finally:
            type(device).empty = empty
        assert len(made) == 1
        assert host(out).tolist() == [20_000] * 3


def test_a_call_that_fails_is_not_remembered(device, backend):
    x, y, out = on(device, [1, 2, 3], [1, 2], [0, 0, 0])
    for _ in range(2):
        with pytest.raises(ShapeError, match="y has shape"):
            backend.elementwise(SUM, x, y, out=out)
    assert device.tracing.trace is None


def test_recorded_calls_keep_their_own_addresses(device, backend):
    x, y, out = on(device, [1, 2, 3], [1, 1, 1], [0, 0, 0])
    backend.elementwise(SUM, x, y, out=out)
    recorder = plan.Recorder()
    with plan.recording(recorder):
        backend.elementwise(SUM, x, y, out=out)
    backend.elementwise(SUM, *on(device, [5, 5, 5], [5, 5, 5]), out=on(device, [0, 0, 0])[0])
    device.memory.write(x, np.float32(7))
    recorder.plan().run()
    assert host(out).tolist() == [8, 8, 8]
