"""Elementwise launches of a plan become fewer, with the same bits; and what must stay apart stays apart."""

import interpreter
import numpy as np
import pytest
from conftest import emulated_backend
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import plan
from kernels.cupy_gpu.backend import backend
from kernels.elementwise import BY_NAME
from kernels.formula import Formula
from kernels.reference import functions, reference

SHAPE = (6, 8)
SCALE = Formula.of("3 * x + 1", "x")
MULTIPLY = Formula.of("a * b + 2", "a", "b")
PICK = Formula.of("where(c, a, b)", "c", "a", "b")
LESS = BY_NAME["lt"].forward
REFERENCE = reference(np)


@pytest.fixture
def gpu(monkeypatch):
    """The GPU backend, whose loops NumPy carries out."""
    emulated_backend("Emulator")  # skips where kernels cannot be run
    interpreter.install(monkeypatch)
    return backend(interpreter.Interpreter())


class Step:
    """Calls recorded over arena memory; `check` compares replays with what the recording computed."""

    def __init__(self, gpu, steps, shape=SHAPE, dtype=np.float32):
        self.gpu, self.shape, self.dtype = gpu, shape, dtype
        rng = np.random.default_rng(0)
        self.x, self.y = (rng.uniform(0.1, 2, shape).astype(dtype) for _ in range(2))
        self.out, self.other = (np.zeros(shape, dtype) for _ in range(2))
        before = [x.copy() for x in self.arrays]
        recorder = plan.Recorder()
        with plan.recording(recorder):
            self.kept = steps(self)
        self.plan = recorder.plan()
        self.found = [x.copy() for x in self.changed]
        for _ in range(2):
            for x, values in zip(self.arrays, before, strict=True):
                x[...] = values
            self.plan.run()
            for x, values in zip(self.changed, self.found, strict=True):
                np.testing.assert_array_equal(x, values)

    @property
    def arrays(self):
        return [self.x, self.y, self.out, self.other]

    @property
    def changed(self):
        return [*self.arrays, *([] if self.kept is None else [self.kept])]

    def empty(self, shape=None, dtype=None):
        return plan.empty(np, self.shape if shape is None else shape, dtype or self.dtype)

    def call(self, formula, *inputs, out=None):
        out = self.empty() if out is None else out
        self.gpu.elementwise(formula, *inputs, out=out)
        return out

    @property
    def writes(self):
        return [len(instruction.writes) for instruction in self.plan.instructions]


# --------------------------------------------------------------------------------- what becomes one


def test_a_chain_is_one_launch_that_writes_its_last_result(gpu):
    def steps(s):
        a = s.call(SCALE, s.x)
        b = s.call(MULTIPLY, a, s.y)
        c = s.call(SCALE, b)
        s.call(MULTIPLY, c, s.x, out=s.out)

    step = Step(gpu, steps)
    assert step.plan.names == ["elementwise"] and step.writes == [1]
    (one,) = step.plan.instructions
    assert one.flop == 4 * 2 * step.x.size
    assert one.bytes == 3 * step.x.nbytes
    assert "3 * x + 1; a * b + 2" in one.title


def test_a_result_that_is_used_twice_or_held_is_written_once(gpu):
    def twice(s):
        a = s.call(SCALE, s.x)
        b = s.call(MULTIPLY, a, s.y)
        s.call(MULTIPLY, a, b, out=s.out)

    assert Step(gpu, twice).writes == [1]

    def held(s):
        a = s.call(SCALE, s.x)
        s.call(MULTIPLY, a, s.y, out=s.out)
        return a

    step = Step(gpu, held)
    assert step.writes == [2]
    step.kept[...] = 0
    step.plan.run()
    np.testing.assert_array_equal(step.kept, 3 * step.x + 1)

    def needed(s):
        a = s.call(SCALE, s.x)
        s.call(MULTIPLY, a, s.y, out=s.out)
        s.gpu.softmax(a, s.other)

    assert Step(gpu, needed).writes == [2, 1]


def test_another_dtype_and_broadcast_operands(gpu):
    def steps(s):
        mask = s.call(LESS, s.x, s.y[:1], out=s.empty(dtype=bool))
        a = s.call(MULTIPLY, s.x, s.y[:, :1])
        s.call(PICK, mask, a, s.y, out=s.out)

    assert Step(gpu, steps).writes == [1]


def test_shapes_that_lie_alike_in_memory(gpu):
    def steps(s):
        a = s.call(SCALE, s.x.reshape(-1), out=s.empty((48,)))
        b = s.call(MULTIPLY, a.reshape(SHAPE), s.y[:1])
        s.call(SCALE, b.reshape(2, 24), out=s.out.reshape(2, 24))

    assert Step(gpu, steps).writes == [1]


def test_what_is_between_is_passed(gpu):
    def steps(s):
        a = s.call(SCALE, s.x)
        s.gpu.softmax(s.y, s.other)
        s.call(MULTIPLY, a, s.y, out=s.out)

    step = Step(gpu, steps)
    assert step.writes == [1, 1] and step.plan.names == ["elementwise", "softmax"]

    def later(s):
        a = s.call(SCALE, s.x)
        s.gpu.softmax(s.y, s.other)
        s.call(MULTIPLY, a, s.other, out=s.out)

    assert Step(gpu, later).plan.names == ["softmax", "elementwise"]


def test_small_launches_are_one_though_they_have_nothing_in_common(gpu):
    counter, total = np.zeros((), np.int64), np.zeros(())

    def steps(s):
        s.gpu.advance(counter, 3)
        s.call(BY_NAME["add"].forward, total, np.ones(()), out=total)

    step = Step(gpu, steps)
    assert len(step.plan.names) == 1 and (counter, total) == (9, 3)

    def large(s):
        s.call(SCALE, s.x, out=s.out)
        s.call(SCALE, s.y, out=s.other)

    assert len(Step(gpu, large, (1 << 14,)).plan.names) == 1
    assert len(Step(gpu, large, ((1 << 14) + 1,)).plan.names) == 2


def test_counters_are_advanced_with_others(gpu):
    first, second = np.zeros((), np.int64), np.zeros(())

    def steps(s):
        s.gpu.advance(first, 1)
        s.gpu.dropout_mask(np.array([0, 0, 0]), 0.5, s.out)
        s.gpu.advance(second, 2)

    assert len(Step(gpu, steps).plan.names) == 2 and (first, second) == (3, 6)


# ------------------------------------------------------------------------------ what must stay apart


@pytest.mark.parametrize("read", ["reversed", "shifted", "transposed", "row", "as another dtype"])
def test_a_result_that_is_read_in_another_way(gpu, read):
    def steps(s):
        a = s.call(SCALE, s.x, out=s.empty((8, 8)))
        b = {
            "reversed": a[::-1],
            "shifted": np.concatenate([a.reshape(-1), a[0]]).reshape(9, 8)[1:],
            "transposed": a.T,
            "row": np.broadcast_to(a[0], (8, 8)),
            "as another dtype": a.view(np.int64)[:, :1],
        }[read]
        if read == "shifted":
            b = a.reshape(-1)[4:].reshape(-1)[:60]
            s.call(SCALE, b, out=s.out.reshape(-1)[:60])
        else:
            s.call(BY_NAME["add"].forward, b, s.y, out=s.out)

    assert len(Step(gpu, steps, (8, 8)).plan.names) == 2


def test_an_input_that_changes_in_between(gpu):
    def steps(s):
        a = s.call(SCALE, s.x)
        s.gpu.softmax(s.y, s.x)
        s.gpu.softmax(s.x, s.other)
        s.call(MULTIPLY, a, s.other, out=s.out)

    assert len(Step(gpu, steps).plan.names) == 4


def test_memory_that_is_used_again_in_between(gpu):
    def steps(s):
        x = s.empty()
        s.gpu.softmax(s.y, x)
        a = s.call(SCALE, x)
        address = x.ctypes.data
        del x
        b = s.empty()
        assert b.ctypes.data == address
        s.gpu.softmax(a, b)
        s.call(MULTIPLY, a, b, out=s.out)

    assert len(Step(gpu, steps).plan.names) == 4


def test_memory_of_a_result_that_is_never_written_is_used_again(gpu):
    def steps(s):
        a = s.call(SCALE, s.x)
        y = s.call(SCALE, a)
        address = a.ctypes.data
        del a
        b = s.empty()
        assert b.ctypes.data == address
        s.gpu.softmax(s.y, b)
        s.call(MULTIPLY, b, y, out=s.out)

    assert Step(gpu, steps).writes == [1, 1]


def test_memory_that_is_used_again_for_another_dtype(gpu):
    def steps(s):
        a = s.empty(dtype=np.float64)
        s.gpu.softmax(np.ones(SHAPE), a)
        s.call(SCALE, a, out=a)
        address = a.ctypes.data
        del a
        b = s.empty()
        assert b.ctypes.data == address
        s.call(SCALE, s.x, out=b)
        return b

    assert len(Step(gpu, steps).plan.names) == 3


def test_a_host_call_in_between(gpu):
    def steps(s):
        a = s.call(SCALE, s.x)
        REFERENCE.softmax(s.y, s.other)
        s.call(MULTIPLY, a, s.y, out=s.out)

    assert len(Step(gpu, steps).plan.names) == 3


def test_a_part_that_is_written_in_place(gpu):
    def steps(s):
        a = s.call(SCALE, s.x)
        s.call(SCALE, a[1:5, ::2], out=a[1:5, ::2])
        s.call(MULTIPLY, a, s.y, out=s.out)

    assert len(Step(gpu, steps).plan.names) == 3


# --------------------------------------------------------------------------------------------- copies


def test_a_copy_that_is_only_read_is_left_out(gpu):
    def steps(s):
        a = s.empty()
        s.gpu.copy(s.x, a)
        s.gpu.softmax(a, s.out)

    assert Step(gpu, steps).plan.names == ["softmax"]


@pytest.mark.parametrize("other", ["original changes", "copy changes", "kept", "shifted", "table"])
def test_a_copy_that_differs_later_stays(gpu, other):
    from kernels.updates import BY_NAME as RULES

    def steps(s):
        x, a = s.x, s.empty()
        if other == "shifted":  # the softmax may have been chosen for what is aligned as the copy is
            memory = np.zeros(s.x.size + 1, s.dtype)
            x = memory[1:].reshape(s.shape)
        s.gpu.copy(x, a)
        if other == "original changes":
            s.gpu.softmax(s.y, s.x)
        if other == "copy changes":
            s.gpu.scatter_add(np.zeros(6, np.int64), s.y, a)
        if other == "table":
            s.gpu.update(RULES["sgd"], [s.other], [a], [], np.array([1.0, 0.1, 0, 0]))
        s.gpu.softmax(a, s.out)
        return a if other == "kept" else None

    assert Step(gpu, steps).plan.names[0] == "copy"


# ----------------------------------------------------------------------------------------- reductions


def test_a_reduction_computes_what_it_combines_and_what_is_made_of_its_results(gpu):
    limit = np.float32(3)
    total = np.ones((), np.float32)

    def steps(s):
        a = s.call(SCALE, s.x)
        b = s.call(MULTIPLY, a, s.y)
        norm = s.empty(())
        s.gpu.reduce("square_sum", b, (0, 1), norm)
        s.call(BY_NAME["sqrt"].forward, norm, out=norm)
        less = s.call(LESS, norm, np.asarray(limit), out=s.empty((), bool))
        s.call(PICK, less, norm, total, out=total)

    step = Step(gpu, steps)
    assert step.plan.names == ["reduce"] and step.writes == [1]
    (one,) = step.plan.instructions
    assert [x.size for x in one.reads] == [48, 48, 1, 1]
    total[...] = 2
    step.plan.run()
    assert total == 2

    def columns(s):
        mean = s.empty(SHAPE[1:])
        s.gpu.reduce("sum", s.call(SCALE, s.x), (0,), mean)
        s.call(MULTIPLY, mean, s.y[2], out=mean)
        s.call(MULTIPLY, mean, s.y[3], out=s.out[1])
        return mean

    step = Step(gpu, columns)
    assert step.plan.names == ["reduce"] and step.writes == [2]


@pytest.mark.parametrize("why", ["read twice", "kept", "broadcast", "part", "in place", "result read", "long"])
def test_what_a_reduction_does_not_take_in(gpu, why):
    def steps(s):
        a = s.call(MULTIPLY, s.x, s.y[:1] if why == "broadcast" else s.y)
        whole = s.empty(s.shape)
        sums = s.empty((s.shape[0],))
        s.gpu.reduce("sum", a[:, ::2] if why == "part" else a, (1,), sums)
        if why == "read twice":
            s.gpu.softmax(a, s.out)
        if why == "in place":
            s.call(SCALE, sums, out=s.x[0, : len(sums)])
        if why == "result read":
            s.call(BY_NAME["add"].forward, sums[:, None], s.x, out=whole)
            s.gpu.softmax(whole, s.out)
        s.gpu.softmax(sums, s.other[0, : len(sums)])
        return a if why == "kept" else None

    step = Step(gpu, steps, (4, 9000) if why == "long" else (4, 8))
    taken = {"in place": 1, "result read": 1}.get(why, 0)
    elementwise = {"in place": 1, "result read": 1}.get(why, 1)
    assert step.plan.names.count("elementwise") == elementwise
    first = next(one for one in step.plan.instructions if one.name == "reduce")
    assert ("a * b + 2" in first.title) == bool(taken)


def test_elements_that_lie_otherwise_or_are_not_all_that_is_computed(gpu):
    total = np.ones((), np.float32)

    def steps(s):
        s.gpu.reduce("sum", s.call(MULTIPLY, s.x, total), (0, 1), total)

    assert Step(gpu, steps).plan.names == ["elementwise", "reduce"]

    def both(s):
        a = s.call(MULTIPLY, s.x, s.y)
        b = s.call(SCALE, a, out=s.out)
        s.gpu.reduce("sum", b, (0, 1), total)

    assert Step(gpu, both).plan.names == ["elementwise", "reduce"]

    def strided(s):
        a = s.call(SCALE, s.x.reshape(-1), out=s.empty((96,))[::2])
        s.gpu.reduce("sum", a, (0,), total)

    assert Step(gpu, strided).plan.names == ["elementwise", "reduce"]

    def others(s):
        a = s.call(MULTIPLY, s.x, s.y)
        s.gpu.reduce("sum", s.call(SCALE, a), (0, 1), total)
        return a

    assert Step(gpu, others).plan.names == ["elementwise", "reduce"]


def test_results_that_are_read_in_another_order(gpu):
    def steps(s):
        sums = s.empty((6,))
        s.gpu.reduce("max", s.x, (1,), sums)
        s.call(BY_NAME["add"].forward, sums, sums[::-1], out=s.out[0, :6])

    assert Step(gpu, steps).plan.names == ["reduce", "elementwise"]

    def broadcast(s):
        sums = s.empty((6, 8))
        s.gpu.reduce("max", np.stack([s.x, s.y]), (0,), sums)
        s.call(BY_NAME["add"].forward, sums, s.y[0], out=s.out)

    assert Step(gpu, broadcast).plan.names == ["reduce", "elementwise"]


# ------------------------------------------------------------------------------------- any program


FORMULAS = [Formula.of(text, *names) for text, *names in (
    ("x * y + 1", "x", "y"),
    ("max(x, y) - y", "x", "y"),
    ("2 * x", "x"),
    ("where(c, x, y)", "c", "x", "y"),
    ("x < y", "x", "y"),
)]  # fmt: skip
FUNCTIONS = functions(np)


class Drawn:
    """A program that is drawn while it is carried out. Every call is checked on its own, by NumPy."""

    def __init__(self, gpu, data):
        self.gpu, self.data = gpu, data
        self.shape = data.draw(st.sampled_from([(), (5,), (4, 6), (2, 3, 4)]))
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        self.given = [np.asarray(rng.integers(-3, 4, self.shape), np.float32) for _ in range(3)]
        self.given.append(np.asarray(rng.random(self.shape) < 0.5))
        #: Arrays that steps may use.
        self.live = [(x, True) for x in self.given]
        if self.shape:
            self.given += [rng.integers(-3, 4, self.shape[-1:]).astype(np.float32)]
            self.live += [(self.given[-1], False), (self.given[0][..., :1], False), (self.given[1][::-1], False)]
        self.held = []

    def pick(self, kind, whole=False):
        fit = [x for x, is_whole in self.live if x.dtype.kind == kind and (is_whole or not whole)]
        return self.data.draw(st.sampled_from(fit[-5:]))

    def step(self):
        action = self.data.draw(st.sampled_from(["formula"] * 6 + ["copy", "softmax", "host", "drop", "view", "hold"]))
        if action == "drop" and len(self.live) > 8:
            del self.live[self.data.draw(st.integers(7, len(self.live) - 1))]
        elif action == "hold":
            self.held.append(self.pick("f", whole=True))
        elif action == "view" and self.shape:
            self.live.append((self.pick("f", whole=True)[::-1], False))
        elif action == "copy":
            x = self.pick("f")
            self.check(lambda out: self.gpu.copy(x, out), np.broadcast_to(x, self.shape), [x])
        elif action == "softmax" and self.shape:
            x, out = self.pick("f", whole=True), plan.empty(np, self.shape, np.float32)
            self.gpu.softmax(x, out)
            self.live.append((out, True))
        elif action in ("formula", "host"):
            formula = self.data.draw(st.sampled_from(FORMULAS))
            inputs = [self.pick("b" if name == "c" else "f") for name in formula.variables]
            kernel = (self.gpu if action == "formula" else REFERENCE).elementwise
            want = np.broadcast_to(formula.evaluate(FUNCTIONS, *inputs), self.shape)
            self.check(lambda out: kernel(formula, *inputs, out=out), want, inputs)

    def check(self, call, want, inputs):
        """The call into a new array, or one that is there and none of whose views are read."""
        fit = [
            x for x, whole in self.live
            if whole and x.dtype == want.dtype and all(x is y or not np.shares_memory(x, y) for y in inputs)
        ]  # fmt: skip
        out = self.data.draw(st.sampled_from([None, None, *fit]))
        want = want.copy()
        if out is None:
            out = plan.empty(np, self.shape, want.dtype)
            self.live.append((out, True))
        call(out)
        np.testing.assert_array_equal(out, want)


@settings(max_examples=150)
@given(data=st.data())
def test_replays_of_any_program_leave_what_its_calls_leave(data):
    with pytest.MonkeyPatch.context() as patch:
        interpreter.install(patch)
        drawn = Drawn(backend(interpreter.Interpreter()), data)
        before = [x.copy() for x in drawn.given]
        recorder = plan.Recorder()
        with plan.recording(recorder), np.errstate(all="ignore"):
            for _ in range(data.draw(st.integers(1, 14))):
                drawn.step()
        drawn.live.clear()
        held = drawn.held
        made = recorder.plan()
        assert len(made.instructions) <= len(recorder.instructions)
        after = [x.copy() for x in (*drawn.given, *held)]
        for _ in range(2):
            for x in held:
                x[...] = np.nan
            for x, values in zip(drawn.given, before, strict=True):
                x[...] = values
            with np.errstate(all="ignore"):
                made.run()
            for x, values in zip((*drawn.given, *held), after, strict=True):
                np.testing.assert_array_equal(x, values)


# ------------------------------------------------------------------- compiled loops, and training steps


@pytest.mark.parametrize("shape", [(4, 8), (3, 5), (2, 3, 4)])
def test_compiled_loops_of_several_formulas_give_the_bits_of_each(shape):
    """Packed and not, with what is left over, broadcast and mixed operands; launches are those of the GPU."""
    gpu = emulated_backend("Emulator")

    def steps(s):
        mask = s.call(LESS, s.x, s.y, out=s.empty(dtype=bool))
        wide = s.empty(dtype=np.float64)
        gpu.copy(s.x, wide)
        s.call(MULTIPLY, wide, s.y[..., :1].astype(np.float64), out=wide)
        a = s.empty()
        gpu.copy(wide, a)
        b = s.call(PICK, mask, a, s.y[-1:])
        s.call(MULTIPLY, b, a, out=s.out)
        s.call(SCALE, b[..., ::-1], out=s.other)

    step = Step(gpu, steps, shape)
    assert step.writes == [2, 1]
    assert Step(gpu, steps, shape).plan.instructions[0].title.count(";") == 5


def mlp(rng):
    from nanonet import nn

    return nn.Sequential(nn.Linear(64, 128, rng=rng), nn.ReLU(), nn.Linear(128, 10, rng=rng))


def cnn(rng):
    from nanonet import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 8, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32, 10, rng=rng)),
    )


@pytest.mark.parametrize(("make", "shape", "launches"), [(mlp, (32, 64), 12), (cnn, (4, 8, 8, 1), 23)])
def test_a_recorded_training_step_is_the_eager_one_bit_for_bit(monkeypatch, make, shape, launches):
    import apart

    import nanonet
    import nanonet.functional as F
    from kernels import registry
    from nanonet import optim

    emulated_backend("Emulator")
    monkeypatch.setattr(registry, "others", {})
    registry.register(backend(apart.ApartEmulator()))
    rng = np.random.default_rng(1)
    x = nanonet.tensor(rng.normal(size=shape).astype(np.float32), device="cuda")
    y = nanonet.tensor(rng.integers(0, 10, shape[0]), device="cuda")
    found = []
    for wrap in (lambda step: step, nanonet.jit):
        net = make(np.random.default_rng(0)).to("cuda")
        optimizer = optim.Adam(net.parameters(), lr=1e-2)

        def step(x, y, net=net, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss

        call = wrap(step)
        losses = [call(x, y).item() for _ in range(4)]
        found.append((losses, net.state_dict(), call))
    (losses, state, _), (ours, there, recorded) = found
    assert ours == losses and losses[-1] < losses[0]
    for name, value in state.items():
        np.testing.assert_array_equal(there[name], value, err_msg=name)
    assert len(recorded.plan.instructions) <= launches
