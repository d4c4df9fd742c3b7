"""Fused formulas: fewer instructions, the same bits; and what must stay apart stays apart."""

import numpy as np
import pytest

import kernels
from kernels import plan
from kernels.elementwise import BY_NAME
from kernels.formula import Formula

if kernels.available()["numba_cpu"] is not None:
    pytest.skip(f"numba_cpu: {kernels.available()['numba_cpu']}", allow_module_level=True)

BACKEND = kernels.get("numba_cpu")
SHAPE = (70, 65)
SCALE = Formula.of("0.3 * x + 0.1", "x")
MULTIPLY = Formula.of("a * b + 0.7", "a", "b")


def formula(text, *variables):
    return Formula.of(text, *variables)


class Step:
    """Calls recorded over arena memory; `run` compares a replay with what the recording computed."""

    def __init__(self, steps, dtype=np.float32, shape=SHAPE):
        self.dtype, self.shape = dtype, shape
        rng = np.random.default_rng(0)
        self.x, self.y = (rng.uniform(0.1, 2, shape).astype(dtype) for _ in range(2))
        self.out = np.empty(shape, dtype)
        recorder = plan.Recorder()
        with plan.recording(recorder):
            self.kept = steps(self)
        self.plan = recorder.plan()
        self.found = self.out.copy()

    def empty(self):
        return plan.empty(np, self.shape, self.dtype)

    def call(self, formula, *inputs, out=None):
        out = self.empty() if out is None else out
        BACKEND.elementwise(formula, *inputs, out=out)
        return out

    def check(self, instructions):
        assert len(self.plan.instructions) == instructions
        for _ in range(2):
            self.out[...] = np.nan
            self.plan.run()
            np.testing.assert_array_equal(self.out, self.found)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("second", ["x * y", "y - x", "where(x > 0.5, y, 0)", "x * x + y", "exp(x) / (1 + y)"])
@pytest.mark.parametrize("first", ["x * y", "x + 0.1", "tanh", "gelu", "-x", "x * x - y * y"])
def test_two_formulas_give_the_bits_of_one_after_the_other(first, second, dtype):
    text = BY_NAME[first].formula if first in BY_NAME else first

    def steps(s):
        variables = [v for v in ("x", "y") if v in text.replace("exp", "")]
        middle = s.call(formula(text, *variables), *[getattr(s, v) for v in variables])
        s.call(formula(second, "x", "y"), middle, s.y, out=s.out)

    Step(steps, dtype).check(1)


def test_a_chain_becomes_one():
    def steps(s):
        a = s.call(SCALE, s.x)
        b = s.call(MULTIPLY, a, s.y)
        c = s.call(SCALE, b)
        s.call(MULTIPLY, c, s.x, out=s.out)

    step = Step(steps)
    step.check(1)
    assert step.plan.instructions[0].flop == 4 * 2 * step.x.size
    assert [x.shape for x in step.plan.instructions[0].reads] == [SHAPE, SHAPE]


def test_a_result_that_is_overwritten_in_place_stays():
    def steps(s):
        a = s.call(SCALE, s.x)
        s.call(MULTIPLY, a, s.y, out=a)
        s.call(SCALE, a, out=s.out)

    Step(steps).check(3)  # it has two writers


def test_broadcast_operands():
    def steps(s):
        a = s.call(MULTIPLY, s.x, s.y[:1])
        s.call(MULTIPLY, a, s.y[:, :1], out=s.out)

    Step(steps).check(1)


def test_a_result_that_others_need_stays():
    def twice(s):
        a = s.call(SCALE, s.x)
        b = s.call(MULTIPLY, a, s.y)
        s.call(MULTIPLY, a, b, out=s.out)

    Step(twice).check(2)  # b goes into the last

    def reduced(s):
        a = s.call(SCALE, s.x)
        s.call(MULTIPLY, a, s.y, out=s.out)
        BACKEND.reduce("sum", a, (0, 1), out=plan.empty(np, (), s.dtype))

    Step(reduced).check(3)

    def held(s):
        a = s.call(SCALE, s.x)
        s.call(MULTIPLY, a, s.y, out=s.out)
        return a

    step = Step(held)
    step.check(2)
    np.testing.assert_allclose(step.kept, 0.3 * step.x + 0.1, rtol=1e-6)


def test_an_input_that_changes_in_between_keeps_them_apart():
    def steps(s):
        x = s.call(SCALE, s.y)
        a = s.call(SCALE, x)
        BACKEND.softmax(s.y, out=x)
        BACKEND.reduce("sum", x, (0, 1), out=plan.empty(np, (), s.dtype))
        s.call(MULTIPLY, a, s.y, out=s.out)

    Step(steps).check(5)


def test_memory_that_is_used_again_in_between_keeps_them_apart():
    def steps(s):
        x = plan.empty(np, s.shape, s.dtype)
        BACKEND.softmax(s.y, out=x)
        a = s.call(SCALE, x)
        del x
        b = plan.empty(np, s.shape, s.dtype)  # where x was
        BACKEND.softmax(s.x, out=b)
        s.call(MULTIPLY, a, b, out=s.out)

    Step(steps).check(4)


def test_another_shape_or_dtype_stays_apart():
    def broadcast(s):
        row = plan.empty(np, (1, SHAPE[1] * 80), s.dtype)
        s.call(Formula.of("x + x", "x"), np.ones((1, SHAPE[1] * 80), s.dtype), out=row)
        s.call(MULTIPLY, row[:, : SHAPE[1]], s.y, out=s.out)

    Step(broadcast).check(2)

    def converted(s):
        a = plan.empty(np, s.shape, np.float64)
        s.call(SCALE, s.x, out=a)
        s.call(MULTIPLY, a, s.y, out=s.out)

    Step(converted).check(2)


def test_small_results_are_left_alone():
    def steps(s):
        s.call(MULTIPLY, s.call(SCALE, s.x), s.y, out=s.out)

    Step(steps, shape=(8, 8)).check(2)


# ---------------------------------------------------------------------- relu in the kernel before it, and copies


def relu(s, x, out=None):
    return s.call(BY_NAME["relu"].forward, x, out=out)


def product(s, x, bias):
    out = s.empty()
    BACKEND.linear(x, np.asarray(s.y[: s.shape[1]] if s.shape[1] <= s.shape[0] else s.y.T), bias, None, out=out)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("with_bias", [False, True])
def test_relu_is_applied_by_the_product_before_it(dtype, with_bias):
    bias = np.linspace(-30, 30, 40).astype(dtype) if with_bias else None

    def steps(s):
        s.x[0], s.x[1, 0] = np.nan, -np.inf
        relu(s, product(s, s.x, bias), out=s.out)

    step = Step(steps, dtype, (40, 40))
    step.check(1)
    assert "relu" in step.plan.instructions[0].title


@pytest.mark.parametrize("channels", [(3, 8), (32, 64)], ids=["direct", "winograd"])
def test_relu_is_applied_by_the_convolution_before_it(channels):
    c, o = channels
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 12, 12, c)).astype("f"), rng.normal(size=(3, 3, c, o)).astype("f")

    def steps(s):
        z = s.empty()
        BACKEND.conv2d(x, w, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1, None, out=z)
        relu(s, z, out=s.out)

    step = Step(steps, np.float32, (4, 12, 12, o))
    assert "elementwise" not in step.plan.names
    step.check(len(step.plan.names))


@pytest.mark.parametrize("other", ["read", "kept", "between"])
def test_relu_stays_apart_from_a_product_that_others_need(other):
    def steps(s):
        z = product(s, s.x, None)
        if other == "between":  # what the product may not overwrite yet
            s.call(SCALE, s.out, out=s.y)
        relu(s, z, out=s.out)
        if other == "read":
            s.call(SCALE, z, out=s.x)
        return z if other == "kept" else None

    step = Step(steps, np.float32, (40, 40))
    assert sum(name == "elementwise" for name in step.plan.names) == (1 if other == "kept" else 2)


def test_a_copy_that_is_only_read_is_left_out():
    def steps(s):
        z = s.empty()
        BACKEND.copy(s.x, out=z)
        s.call(MULTIPLY, z, s.y, out=s.out)

    Step(steps).check(1)


@pytest.mark.parametrize("other", ["original changes", "copy changes", "kept"])
def test_a_copy_that_differs_later_stays(other):
    def steps(s):
        z = s.empty()
        BACKEND.copy(s.x, out=z)
        if other == "original changes":
            s.call(SCALE, s.y, out=s.x)
        if other == "copy changes":
            s.call(SCALE, z, out=z)
        s.call(MULTIPLY, z, s.y, out=s.out)
        return z if other == "kept" else None

    assert Step(steps).plan.names[0] == "copy"


def test_a_copy_that_nobody_reads_does_no_harm():
    def steps(s):
        z = s.empty()
        BACKEND.copy(s.x, out=z)
        del z
        s.call(MULTIPLY, s.x, s.y, out=s.out)

    Step(steps).check(2)
