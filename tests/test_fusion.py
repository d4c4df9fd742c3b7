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
        BACKEND.copy(s.y, out=x)
        BACKEND.reduce("sum", x, (0, 1), out=plan.empty(np, (), s.dtype))
        s.call(MULTIPLY, a, s.y, out=s.out)

    Step(steps).check(5)


def test_memory_that_is_used_again_in_between_keeps_them_apart():
    def steps(s):
        x = plan.empty(np, s.shape, s.dtype)
        BACKEND.copy(s.y, out=x)
        a = s.call(SCALE, x)
        del x
        b = plan.empty(np, s.shape, s.dtype)  # where x was
        BACKEND.copy(s.x, out=b)
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
