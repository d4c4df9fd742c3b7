"""What a plan tells about itself: operands, FLOP in closed form, and that each kernel writes what its row says."""

import ctypes

import numpy as np
import pytest
from cases import KERNELS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernels import Arrays, call, instance

import kernels
import nanonet
import nanonet.functional as F
from kernels import plan
from kernels.formula import Formula
from kernels.updates import BY_NAME
from nanonet import nn, optim

if kernels.available()["numba_cpu"] is not None:
    pytest.skip(f"numba_cpu: {kernels.available()['numba_cpu']}", allow_module_level=True)

from kernels.numba_cpu.compiler import compiled_name
from kernels.numba_cpu.effects import UNKNOWN
from kernels.numba_cpu.executor import execute

BACKEND = kernels.get("numba_cpu")


def recorded(function, *args, **kwargs):
    recorder = plan.Recorder()
    with plan.recording(recorder):
        function(*args, **kwargs)
    return recorder.plan()


def array(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def test_matrix_products():
    found = recorded(BACKEND.matmul, array(5, 7), array(7, 3), out=array(5, 3))
    assert found.flop == 2 * 5 * 7 * 3
    batch = recorded(BACKEND.matmul, array(4, 5, 7), array(7, 3), out=array(4, 5, 3))
    assert batch.flop == 4 * 2 * 5 * 7 * 3
    linear = recorded(BACKEND.linear, array(6, 8), array(8, 2), array(2), "relu", out=array(6, 2))
    assert linear.flop == 2 * 6 * 8 * 2 + 6 * 2
    (one,) = linear.instructions
    assert one.title == "matmul + bias, relu"
    assert [str(x) for x in one.reads] == ["f32[6, 8]", "f32[8, 2]", "f32[2]"]
    assert [str(x) for x in one.writes] == ["f32[6, 2]"]
    assert one.bytes == 4 * (48 + 16 + 2 + 12)


def test_formulas_count_their_operations():
    formula = Formula.of("exp(x) * y - 2", "x", "y")
    (one,) = recorded(BACKEND.elementwise, formula, array(3, 5), array(), out=array(3, 5)).instructions
    assert one.flop == 3 * 15 and one.title == "elementwise exp(x) * y - 2"
    assert one.bytes == 4 * (15 + 1 + 15)


def test_an_update_counts_every_parameter():
    w, g = [array(3, 4), array(5)], [array(3, 4), array(5)]
    (one,) = recorded(BACKEND.update, BY_NAME["sgd"], w, g, [], np.array([1, 0.1, 0, 0])).instructions
    # g + decay * w + l1 * sign(w): 5; w - lr * g: 2
    assert one.flop == 7 * 17
    assert [x.shape for x in one.writes] == [(3, 4), (5,)]
    assert len(one.reads) == 5


def test_a_label_may_know_how_many_operations_there_are():
    code = np.array([0, 3, 1], np.int64).tobytes()
    assert plan.Instruction(plan.Label("special", flop=17), code).flop == 17
    assert plan.Instruction("special", code).flop is None


@pytest.mark.parametrize("case", KERNELS, ids=str)
@settings(max_examples=3)
@given(data=st.data())
def test_an_instruction_changes_only_what_it_is_said_to_write(case, data):
    arguments = [instance(a, np.float32, []) for a in case.arguments(data.draw, Arrays(0, np.float32))]
    found = recorded(call, BACKEND, case.slot, arguments)
    for one in found.instructions:
        if one.call is not None:
            continue
        name = compiled_name(one.kernel)
        assert one.effect is not UNKNOWN, f"{name}: give it a row in kernels/numba_cpu/effects.py"
        before = [ctypes.string_at(x.low, x.high - x.low) for x in one.operands]
        execute(one.code)
        for x, old in zip(one.operands, before, strict=True):
            if not any(x.low < y.high and y.low < x.high for y in one.operands if one.effect.writes(y.place)):
                assert ctypes.string_at(x.low, x.high - x.low) == old, f"{name} writes {x} at place {x.place}"


def test_a_step_as_a_table():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = optim.Adam(model.parameters())

    @nanonet.jit
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step(nanonet.ones(4, 6), nanonet.zeros(4, dtype="int64"))
    text = str(step.plan)
    lines = text.splitlines()
    assert len(lines) == len(step.plan.instructions) + 3
    assert "matmul + bias" in text and "elementwise tanh(x)" in text and "adam" in text
    products = [i for i in step.plan.instructions if i.name == "matmul"]
    assert sum(i.flop for i in products) == 2 * 4 * (2 * 6 * 8 + 3 * 8 * 3) + 4 * (8 + 3)
    assert f"{len(step.plan.instructions)} instructions, 0 of them host calls" in lines[-1]


def test_host_calls_are_shown_as_such():
    reference = kernels.get("reference")
    found = recorded(reference.matmul, array(2, 2), array(2, 2), out=array(2, 2))
    assert "matmul (host call)" in str(found) and "1 of them host calls" in str(found)
    assert found.flop == 0 and found.instructions[0].flop is None


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions(stride):
    x, w = array(2, 9, 8, 6), array(3, 3, 3, 10)
    side = (9 if stride == 1 else 5, 8 if stride == 1 else 4)
    y = array(2, *side, 10)
    options = ((stride, stride), ((1, 1), (1, 1)), (1, 1), 2)
    products = 2 * 2 * side[0] * side[1] * 10 * 3 * 3 * 3
    assert recorded(BACKEND.conv2d, x, w, None, *options, None, y).flop == products
    if stride == 1:  # else some of them meet nothing
        assert recorded(BACKEND.conv2d_transpose, y, w, None, *options, None, x).flop == products
    assert recorded(BACKEND.conv2d_weight_gradient, x, y, *options, w).flop == products
