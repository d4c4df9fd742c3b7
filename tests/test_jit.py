"""jit: a replay does what the step would do, and what is different is recorded again."""

import math
import threading

import numpy as np
import pytest

import kernels
import nanonet
import nanonet.functional as F
from nanonet import Tensor, nn, optim
from nanonet.errors import RecordingError
from nanonet.quick import MISS

X = np.random.default_rng(0).normal(size=(5, 16, 6)).astype(np.float32)  # five mini-batches
Y = np.random.default_rng(1).integers(0, 3, size=(5, 16))


class Setup:
    """A model with dropout, its optimizer and a training step; two of one seed are alike."""

    def __init__(self, optimizer="sgd", dropout=0.5):
        nanonet.seed(3)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))
        options = {"sgd": {"lr": 0.1, "momentum": 0.9}, "adam": {"lr": 0.01}, "adamw": {"lr": 0.01}}[optimizer]
        self.optimizer = optim.get(optimizer)(self.model.parameters(), **options)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def weights(self):
        return np.concatenate([array.ravel() for array in self.model.state_dict().values()])


def tensors(i):
    return nanonet.tensor(X[i]), nanonet.tensor(Y[i])


# ------------------------------------------------------------------------- replay equals eager


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_replayed_training_equals_eager_training_bit_for_bit(optimizer, backend_in_use):
    """Dropout included: a replay draws new numbers, the ones that the eager step draws."""
    eager, recorded = Setup(optimizer), Setup(optimizer)
    step = nanonet.jit(recorded.step)
    for i in (0, 1, 2, 3, 4, 0, 1):
        expected = eager.step(*tensors(i)).item()
        assert step(*tensors(i)).item() == expected
    assert np.array_equal(recorded.weights(), eager.weights())
    assert len(step.recordings) == 1


def test_fused_formulas_keep_the_bits_of_eager_training():
    nets = []
    for _ in range(2):
        nanonet.seed(5)
        model = nn.Sequential(nn.Linear(20, 128), nn.LeakyReLU(0.1), nn.Dropout(0.2), nn.GELU(), nn.Linear(128, 3))
        nets.append((model, optim.Adam(model.parameters(), lr=0.01, l1=1e-4)))

    def trainer(model, optimizer):
        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

        return step

    eager, recorded = trainer(*nets[0]), nanonet.jit(trainer(*nets[1]))
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = nanonet.tensor(rng.normal(size=(64, 20))), nanonet.tensor(rng.integers(0, 3, 64))
        assert eager(x, y).item() == recorded(x, y).item()
    for p, q in zip(nets[0][0].parameters(), nets[1][0].parameters(), strict=True):
        assert np.array_equal(p.numpy(), q.numpy())
    if kernels.available()["numba_cpu"] is None:
        assert any("where(" in i.title and "* x" in i.title for i in recorded.plan.instructions)


def test_arrays_lists_dicts_and_keywords_are_arguments(backend_in_use):
    calls = []

    @nanonet.jit
    def step(pair, scale=1.0, **named):
        calls.append(scale)
        return {"out": [pair[0] * pair[1] * scale + named["bias"]["b"]]}

    for i in range(3):
        found = step((X[0], nanonet.tensor(X[1] + i)), bias={"b": np.float32([i])}, scale=2.0)
        np.testing.assert_allclose(found["out"][0].numpy(), X[0] * (X[1] + i) * 2 + i, rtol=1e-6)
    assert len(calls) == 1
    step((X[0], X[1]), bias={"b": np.float32([0])}, scale=3.0)
    assert calls == [2.0, 3.0]
    assert step.__name__ == "step"


def test_each_shape_and_dtype_has_its_recording(backend_in_use):
    step = nanonet.jit(lambda x: x.sum())
    for _ in range(3):
        assert step(nanonet.ones(3)).item() == 3
        assert step(nanonet.ones(5)).item() == 5
        assert step(nanonet.ones(3, dtype="float64")).dtype == np.float64
    assert len(step.recordings) == 3


def test_a_jitted_step_within_another_is_part_of_it(backend_in_use):
    inner = nanonet.jit(lambda x: x * 2)
    outer = nanonet.jit(lambda x: inner(x) + 1)
    assert [outer(nanonet.tensor([float(i)])).item() for i in range(3)] == [1, 3, 5]
    assert not inner.recordings


def test_second_derivatives_are_recorded_too(backend_in_use):
    def penalty(x):
        x = x.detach().requires_grad_()
        (g,) = nanonet.grad((x * x * x).sum(), x, create_graph=True)
        (h,) = nanonet.grad((g * g).sum(), x)
        return h

    step = nanonet.jit(penalty)
    for value in (1.0, 2.0, 3.0):
        assert step(nanonet.tensor([value])).item() == pytest.approx(36 * value**3)


# --------------------------------------------------------------------- what changes is seen


def test_train_and_eval_are_recorded_apart(backend_in_use):
    setup = Setup()
    step = nanonet.jit(lambda x: setup.model(x))
    x = tensors(0)[0]
    for _ in range(2):
        assert not np.array_equal(step(x).numpy(), step(x).numpy())
        setup.model.eval()
        assert np.array_equal(step(x).numpy(), step(x).numpy())
        assert np.array_equal(step(x).numpy(), setup.model(x).numpy())
        setup.model.train()
    assert len(step.recordings) == 2


def test_a_mode_that_the_step_sets_is_set_by_the_replay(backend_in_use):
    setup = Setup()

    @nanonet.jit
    def both(x):
        setup.model.eval()
        certain = setup.model(x)
        setup.model.train()
        return certain, setup.model(x)

    x = tensors(0)[0]
    first = both(x)
    for _ in range(3):
        certain, drawn = both(x)
        assert np.array_equal(certain.numpy(), first[0].numpy())
        assert not np.array_equal(drawn.numpy(), first[1].numpy())
    assert len(both.recordings) == 1
    setup.model.eval()
    both(x)
    setup.model.eval()
    both(x)
    assert setup.model.training and len(both.recordings) == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_learning_rate_changed_outside_is_seen(optimizer, backend_in_use):
    eager, recorded = Setup(optimizer), Setup(optimizer)
    step = nanonet.jit(recorded.step)
    for i in range(5):
        for setup in (eager, recorded):
            setup.optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
        eager.step(*tensors(i))
        step(*tensors(i))
    assert np.array_equal(recorded.weights(), eager.weights())
    assert len(step.recordings) == 1


def test_a_parameter_changed_outside_is_seen(backend_in_use):
    eager, recorded = Setup(dropout=0.0), Setup(dropout=0.0)
    step = nanonet.jit(recorded.step)
    for i in range(4):
        for setup in (eager, recorded):
            setup.model[0].weight.data = np.full((6, 8), 0.1 * i)
            with nanonet.no_grad():
                setup.model[0].bias += 1
                setup.model[3].weight.copy_(setup.model[3].weight * 0.5)
        assert step(*tensors(i)).item() == eager.step(*tensors(i)).item()
    assert len(step.recordings) == 1


def test_a_parameter_layer_or_dtype_put_in_the_place_of_another_is_seen(backend_in_use):
    model = nn.Sequential(nn.Linear(2, 2, weight_init="ones"), nn.ReLU(), nn.Linear(2, 1, weight_init="ones"))
    step = nanonet.jit(lambda x: model(x))
    x = nanonet.ones(1, 2)
    assert step(x).item() == 4
    model[0].weight = nn.Parameter(np.full((2, 2), 3.0))
    assert step(x).item() == 12
    model[2] = nn.Linear(2, 1, weight_init="zeros")
    assert step(x).item() == 0
    assert step(x).item() == 0 and len(step.recordings) == 3
    model.double()
    model[0].weight.data = np.full((2, 2), 1.0)
    assert step(nanonet.ones(1, 2, dtype="float64")).dtype == np.float64


def test_requires_grad_changed_outside_is_seen(backend_in_use):
    setup = Setup(dropout=0.0)
    step = nanonet.jit(setup.step)
    step(*tensors(0))
    setup.model[0].requires_grad_(False)
    before = setup.model[0].weight.numpy().copy()
    moved = setup.model[3].weight.numpy().copy()
    for i in range(3):
        step(*tensors(i))
    assert np.array_equal(setup.model[0].weight.numpy(), before)
    assert not np.array_equal(setup.model[3].weight.numpy(), moved)


def test_an_option_that_changes_the_rule_is_seen(backend_in_use):
    eager, recorded = Setup(dropout=0.0), Setup(dropout=0.0)
    step = nanonet.jit(recorded.step)
    for i in range(4):
        for setup in (eager, recorded):
            setup.optimizer.param_groups[0]["nesterov"] = i % 2 == 1
        assert step(*tensors(i)).item() == eager.step(*tensors(i)).item()
    assert np.array_equal(recorded.weights(), eager.weights())


def test_an_option_of_a_layer_changed_outside_is_seen(backend_in_use):
    layer = nn.Dropout(0.5, rng=0)
    step = nanonet.jit(lambda x: layer(x))
    x = nanonet.ones(200)
    shares = []
    for p in (0.5, 0.5, 0.9, 0.1):
        layer.p = p
        shares.append(float((step(x).numpy() == 0).mean()))
    assert shares == pytest.approx([0.5, 0.5, 0.9, 0.1], abs=0.12)


def test_a_new_seed_of_the_process_is_seen(backend_in_use):
    step = nanonet.jit(lambda x: F.dropout(x, 0.5))
    found = []
    for _ in range(2):
        nanonet.seed(11)
        found.append([step(nanonet.ones(40)).numpy() for _ in range(3)])
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0][1], found[0][2])


def test_no_grad_around_the_step_is_seen(backend_in_use):
    setup = Setup()
    step = nanonet.jit(lambda x: nanonet.tensor(1.0 if setup.model(x).requires_grad else 0.0))
    x = tensors(0)[0]
    assert step(x).item() == 1
    with nanonet.no_grad():
        assert step(x).item() == 0
    assert step(x).item() == 1


# ---------------------------------------------------------------------------------- gradients


def test_gradients_accumulate_without_zero_grad(backend_in_use):
    eager, recorded = Setup(dropout=0.0), Setup(dropout=0.0)

    def accumulate(setup):
        def step(x, y):
            loss = F.cross_entropy(setup.model(x), y) * 0.25
            loss.backward()
            return loss

        return step

    plain, step = accumulate(eager), nanonet.jit(accumulate(recorded))
    for _ in range(3):
        for i in range(4):
            assert step(*tensors(i)).item() == plain(*tensors(i)).item()
        for p, q in zip(recorded.model.parameters(), eager.model.parameters(), strict=True):
            assert np.array_equal(p.grad.numpy(), q.grad.numpy())
        for setup in (eager, recorded):
            setup.optimizer.step()
            setup.optimizer.zero_grad()
    assert np.array_equal(recorded.weights(), eager.weights())
    assert len(step.recordings) == 2  # without gradients before, and with


def test_gradients_are_there_after_a_replay(backend_in_use):
    eager, recorded = Setup(dropout=0.0), Setup(dropout=0.0)
    step = nanonet.jit(recorded.step)
    for i in range(3):
        eager.step(*tensors(i))
        step(*tensors(i))
        for p, q in zip(recorded.model.parameters(), eager.model.parameters(), strict=True):
            assert np.array_equal(p.grad.numpy(), q.grad.numpy())


def test_gradients_of_an_argument_that_requires_them(backend_in_use):
    w = nanonet.tensor([1.0, 2.0], requires_grad=True)

    @nanonet.jit
    def step(w, x):
        (w * x).sum().backward()

    for i in (1.0, 2.0, 3.0):
        step(w, nanonet.tensor([i, 1.0]))
    np.testing.assert_array_equal(w.grad.numpy(), [6, 3])


# ----------------------------------------------------------------------------------- results


def test_what_is_returned_is_never_overwritten(backend_in_use):
    setup = Setup()

    @nanonet.jit
    def step(x, y):
        scores = setup.model(x)
        loss = F.cross_entropy(scores, y)
        return loss, scores, scores[0], x, x[2:], {"mean": scores.mean(0)}, "text"

    kept = []
    for i in range(5):
        x, y = tensors(i)
        out = step(x, y)
        flat = [*out[:5], out[5]["mean"]]
        assert out[6] == "text" and not any(t.requires_grad for t in flat)
        kept.append((flat, [t.numpy().copy() for t in flat]))
    for flat, copies in kept:
        for found, copied in zip(flat, copies, strict=True):
            assert np.array_equal(found.numpy(), copied)
    assert np.array_equal(kept[1][0][3].numpy(), X[1]) and np.array_equal(kept[1][0][4].numpy(), X[1][2:])


def test_a_returned_parameter_is_the_parameter(backend_in_use):
    layer = nn.Linear(2, 2)
    step = nanonet.jit(lambda: layer.weight)
    assert step() is layer.weight and step() is layer.weight


def test_memory_of_a_recording_is_reused(backend_in_use):
    """100 temporaries of 4000 bytes live in the room of a few."""
    if backend_in_use.name == "reference":
        pytest.skip("reference: the host calls of its plan hold their arrays")

    @nanonet.jit
    def step(x):
        for _ in range(100):
            x = x * 1.01
        return x

    step(nanonet.ones(1000))
    assert step.plan.bytes < 5 * 4096
    assert step(nanonet.ones(1000)).numpy()[0] == pytest.approx(1.01**100, rel=1e-4)


def test_a_changing_number_does_not_fill_the_memory(backend_in_use):
    step = nanonet.jit(lambda x, number: x * number)
    for i in range(300):
        assert step(nanonet.ones(2), float(i)).tolist() == [i, i]
    assert len(step.recordings) <= 64


# --------------------------------------------------------------------- what cannot be recorded

HOST = {
    "item()": lambda x: x.sum().item(),
    "numpy()": lambda x: x.numpy(),
    "tolist()": lambda x: x.tolist(),
    "float()": lambda x: float(x.sum()),
    "int()": lambda x: int(x.sum()),
    "bool()": lambda x: x if x.sum() > 0 else -x,
    "conversion to a NumPy array": lambda x: np.asarray(x),
    "a boolean mask as index": lambda x: x[x > 0],
    "a host array enters": lambda x: x + np.ones(2, np.float32),
    "a host array": lambda x: x * nanonet.tensor([1.0, 2.0]),
}


@pytest.mark.parametrize("what", HOST)
def test_a_value_read_on_the_host_is_an_error_that_names_the_line(what, backend_in_use):
    step = nanonet.jit(HOST[what])
    with pytest.raises(RecordingError) as error:
        step(nanonet.ones(2))
    assert what in str(error.value) and f"test_jit.py:{HOST[what].__code__.co_firstlineno}" in str(error.value)
    assert not step.recordings
    assert nanonet.ones(2).sum().item() == 2


def test_an_error_in_the_step_leaves_no_recording(backend_in_use):
    def step(x):
        if broken:
            raise KeyError("broken")
        return x * 2

    broken = True
    jitted = nanonet.jit(step)
    with pytest.raises(KeyError):
        jitted(nanonet.ones(1))
    broken = False
    assert jitted(nanonet.ones(1)).item() == 2


def test_an_argument_that_is_no_array_is_hashable():
    with pytest.raises(RecordingError, match="argument of type set"):
        nanonet.jit(lambda x: 1)({1, 2})


def test_anomalies_are_found_in_a_jitted_step(backend_in_use):
    step = nanonet.jit(lambda x: x.log().sum())
    assert math.isnan(step(nanonet.tensor([-1.0])).item())
    with (
        nanonet.detect_anomaly(),
        pytest.raises(FloatingPointError, match="NaN arose in the forward computation of log"),
    ):
        step(nanonet.tensor([-1.0]))


# ------------------------------------------------------------------- what lies outside the step


def test_a_number_or_tensor_that_a_name_stands_for_is_watched():
    scale, kept = 1.0, nanonet.zeros(3)

    @nanonet.jit
    def step(x):
        nonlocal kept
        kept = kept * 0.5 + x
        return (kept * scale).sum()

    found = [step(nanonet.ones(3)).item() for _ in range(4)]
    assert found == [3.0, 4.5, 5.25, 5.625]
    scale = 2.0
    assert step(nanonet.ones(3)).item() == 2 * 5.8125


@pytest.mark.parametrize(
    "change", [Tensor.zero_, lambda x: x.copy_(2), lambda x: x[:1].fill_(1), lambda x: x.__iadd__(1)]
)
def test_overwriting_an_argument_is_refused(change):
    @nanonet.jit
    def step(x):
        change(x)
        return x.sum()

    with pytest.raises(RecordingError, match="an argument of the step is overwritten"):
        step(nanonet.ones(3))


def test_a_method_can_be_recorded():
    class Counter:
        calls = 0

        @nanonet.jit
        def double(self, x):
            Counter.calls += 1
            return x * 2

    counter = Counter()
    for value in (1.0, 2.0, 3.0):
        assert counter.double(nanonet.ones(2) * value).tolist() == [2 * value] * 2
    assert Counter.calls == 1


# ------------------------------------------------------------------------ inputs read where they lie


def test_inputs_of_every_layout_give_the_same():
    step = nanonet.jit(lambda x, y: (x @ y).sum(0))
    rng = np.random.default_rng(0)
    for _ in range(3):
        x, y = rng.normal(size=(2, 6, 6)).astype(np.float32)
        wide = np.repeat(x, 2, axis=1)[:, ::2]
        for a in (x, x.T.copy().T, wide, x[::-1][::-1], Tensor(x), Tensor(wide), x.astype(np.float64), x.tolist()):
            a = a if not isinstance(a, list) else np.array(a, np.float32)
            np.testing.assert_allclose(step(a, y).numpy(), (x @ y).sum(0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(step(a, Tensor(y)).numpy(), (x @ y).sum(0), rtol=1e-5, atol=1e-6)


def test_a_call_with_other_shapes_counts_or_kinds_of_arguments():
    step = nanonet.jit(lambda x, factor=2.0: x * factor)
    one, two = nanonet.ones(3), nanonet.ones(4)
    for _ in range(2):
        assert step(one).tolist() == [2] * 3
        assert step(two).tolist() == [2] * 4
        assert step(one, 3.0).tolist() == [3] * 3
        assert step(one, factor=4.0).tolist() == [4] * 3
        assert step(one, one).tolist() == [1] * 3
        assert step(one.numpy()).tolist() == [2] * 3
        assert step(one.detach().requires_grad_()).tolist() == [2] * 3
    with nanonet.no_grad():
        assert step(one).tolist() == [2] * 3
    with pytest.raises(TypeError):
        step(one, one, one)


def test_an_input_that_the_step_overwrites_by_another_name():
    """What the step writes must not change what it reads as its argument."""
    w = nn.Parameter(np.arange(4, dtype=np.float32))

    @nanonet.jit
    def step(x):
        with nanonet.no_grad():
            w.copy_(w * 2)
        return x + w

    other = Tensor(np.full(4, 10, np.float32))
    before = w.numpy().copy()
    np.testing.assert_array_equal(step(other).numpy(), 10 + 2 * before)
    np.testing.assert_array_equal(step(other).numpy(), 10 + 4 * before)
    for x in (w.detach(), Tensor(w.array[:])):
        before = w.numpy().copy()
        np.testing.assert_array_equal(step(x).numpy(), before + 2 * before)


def test_a_gradient_of_the_last_call_as_input():
    w = nn.Parameter(np.ones(4, np.float32))

    @nanonet.jit
    def step(x):
        w.grad = None
        (w * x * x).sum().backward()
        return x * 1

    x = Tensor(np.float32([1, 2, 3, 4]))
    step(x)
    step(x)
    for _ in range(3):
        given = w.grad.numpy().copy()
        np.testing.assert_array_equal(step(w.grad).numpy(), given)
        np.testing.assert_array_equal(w.grad.numpy(), given * given)
        w.grad = Tensor(np.sqrt(w.grad.numpy()))
        step(x)


def test_what_the_step_keeps_of_its_input_is_that_of_the_last_call():
    kept = []

    @nanonet.jit
    def step(x):
        kept[:] = [x, x[1:]]
        return x.sum()

    for value in (1.0, 2.0, 3.0):
        assert step(nanonet.ones(3) * value).item() == 3 * value
        assert kept[0].tolist() == [value] * 3 and kept[1].tolist() == [value] * 2


def test_inputs_are_not_copied_and_may_go_after_the_call(backend_in_use):
    step = nanonet.jit(lambda x: x * 2)
    step(nanonet.ones(5))
    for value in range(5):
        assert step(nanonet.ones(5) * value).tolist() == [2 * value] * 5
    assert (step._quick((nanonet.ones(5),)) is not MISS) == (backend_in_use.name == "numba_cpu")


def test_threads_may_call_one_step():
    setup = Setup(dropout=0.0)
    setup.model.eval()
    step = nanonet.jit(lambda x: setup.model(x))
    inputs = [np.random.default_rng(i).normal(size=(512, 6)).astype(np.float32) for i in range(4)]
    step(inputs[0])
    failures = []

    def work(i):
        for _ in range(200):
            if step(inputs[i].copy()).shape != (512, 3):
                failures.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
