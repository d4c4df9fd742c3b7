"""Programs that never name a device, with the GPU, real or emulated, as the default one; its own rules."""

import copy
import pickle
import threading

import numpy as np
import pytest

import nanonet
import nanonet.functional as F
import tuner
from kernels import registry
from nanonet import callbacks, metrics, nn, optim
from nanonet.device import share_memory
from nanonet.errors import BackendUnavailable, DeviceError
from nanonet.predictor import Predictor
from nanonet.settings import Settings
from nanonet.stacked import StackedRun
from nanonet.training import Run

X = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
Y = (X @ np.random.default_rng(1).standard_normal((5, 3))).argmax(axis=1)


def network():
    return nn.Sequential(
        nn.Linear(5, 8, rng=0), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2, rng=1), nn.Linear(8, 3, rng=2)
    )


# ------------------------------------------------------------------------------------- the rules


def test_what_is_made_without_a_device_is_made_there(gpu_in_use, host_too):
    x, numbers = nanonet.tensor([1.0, 2.0]), [1, 2]
    made = [
        x,
        *(nanonet.as_tensor([1, 2]), nanonet.zeros(2), nanonet.ones(2), nanonet.full((2,), 3), nanonet.arange(3)),
        *(nanonet.eye(2), nanonet.rand(3), nanonet.randn(3), nanonet.ones_like(x), F.one_hot([0, 1], 2)),
        *(F.take(x, [0]), x + numbers, x * np.ones(2), F.dropout(x), nn.Parameter([1.0]), nn.Buffer(np.ones(2))),
    ]
    assert {tensor.device for tensor in made} == {"cuda"}
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    assert {p.device for p in (*module.parameters(), *module.buffers())} == {"cuda"}
    assert all(type(stream.state) is gpu_in_use.memory.kind for _, stream in module.named_streams())
    assert nanonet.from_dlpack(np.ones(2)).device == nanonet.Tensor(np.ones(2)).device == "cpu"
    assert nanonet.zeros(2, device=x).device == "cuda" and x.cpu().device == "cpu"
    assert nanonet.tensor(x.cpu()).device == nanonet.as_tensor(x.cpu()).device == "cpu"


def test_the_default_is_set_asked_for_and_given_back(gpu_in_use, host_too):
    assert nanonet.get_default_device() == "cuda"
    with nanonet.default_device("cpu"):
        assert nanonet.get_default_device() == nanonet.zeros(1).device == "cpu"
        with pytest.raises(KeyError), nanonet.default_device("cuda"):
            assert nanonet.zeros(1).device == "cuda"
            raise KeyError
        assert nanonet.zeros(1).device == "cpu"
        assert nanonet.default_device("cuda")(nanonet.zeros)(1).device == "cuda"
    nanonet.set_default_device("cpu")
    assert nanonet.tensor([1]).device == "cpu"
    nanonet.set_default_device("cuda:0")
    assert nanonet.tensor([1]).device == "cuda"


def test_each_thread_has_its_own(gpu_in_use):
    found = []
    thread = threading.Thread(target=lambda: found.append(nanonet.get_default_device()))
    thread.start()
    thread.join()
    assert found == ["cpu"] and nanonet.get_default_device() == "cuda"


def test_a_device_that_is_unknown_or_missing_changes_nothing():
    with pytest.raises(DeviceError, match="'tpu'; wanted 'cpu' or 'cuda'"):
        nanonet.set_default_device("tpu")
    if registry.reason("cupy_gpu") is not None:
        with pytest.raises(BackendUnavailable, match="'cuda' is not available here"):
            nanonet.set_default_device("cuda")
    assert nanonet.get_default_device() == "cpu"


def test_recorded_steps_know_of_it(gpu_in_use, host_too):
    step = nanonet.jit(lambda x: x * 2 + nanonet.ones(3))
    array, tensor = np.ones(3, np.float32), nanonet.ones(3)
    for device in ("cuda", "cpu", "cuda", "cpu"):
        with nanonet.default_device(device):
            for _ in range(3):
                out = step(array)
                assert out.device == device and out.tolist() == [3, 3, 3]
    product = nanonet.jit(lambda x, y: x * y)
    for _ in range(2):
        assert product(tensor, tensor).device == "cuda"
        assert product(tensor.cpu(), tensor.cpu()).device == "cpu"
        assert product(tensor.array, tensor.array).device == "cuda"


def test_a_seed_draws_the_same_on_each_device(gpu_in_use, host_too):
    found = []
    for device in ("cuda", "cpu"):
        with nanonet.default_device(device):
            nanonet.seed(5)
            found.append(
                (nanonet.rand(9).numpy(), F.dropout(nanonet.ones(9), 0.5).numpy(), nn.Linear(2, 2).state_dict())
            )
    for here, there in zip(*found, strict=True):
        np.testing.assert_equal(here, there)


def test_a_step_whose_first_draw_is_recorded(gpu_in_use):
    nanonet.seed(6)
    step = nanonet.jit(lambda x: F.dropout(x, 0.5))
    first, second = step(nanonet.ones(50)).numpy(), step(nanonet.ones(50)).numpy()
    assert not np.array_equal(first, second)


# ------------------------------------------------------------ what is of the host beside what is not


def test_lists_and_arrays_go_to_the_tensor_that_they_meet(gpu_in_use, host_too):
    with nanonet.default_device("cpu"):
        x = nanonet.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda", requires_grad=True)
        numbers = [1, 2]
        found = [x + numbers, [[1, 2]] @ x, x @ np.ones(2), F.linear(np.ones((1, 2)), x), x[[0, 0]], x[np.array([-1])]]
        found += [
            x[[True, False]],
            x[[0, 1], [1, 0]],
            F.huber_loss(x, np.zeros((2, 2)), delta=0.5),
            F.concatenate([x, [[0.0, 0.0]]]),
        ]
        found += [F.binary_cross_entropy_with_logits(x, [[0, 1], [1, 0]], pos_weight=[1.0, 2.0])]
        found += [F.cross_entropy(x, [0, 1], weight=[1.0, 2.0]), F.nll_loss(x, np.array([1, 0])), (x**5).sum()]
        assert {tensor.device for tensor in found} == {"cuda"}
        (g,) = nanonet.grad(found[-1], x, create_graph=True)
        g.sum().backward(1.0)
        np.testing.assert_allclose(x.grad.numpy(), 20 * x.numpy() ** 3, rtol=1e-5)
        with nanonet.no_grad():
            x.copy_([5, 6])
        assert x.tolist() == [[5, 6], [5, 6]]
        with pytest.raises(IndexError, match="target holds the label 2"):
            F.cross_entropy(x, [0, 2])


def test_gradients_that_are_views_are_copied(gpu_in_use):
    x, y = (nanonet.ones(4, requires_grad=True) for _ in range(2))
    (x.reshape(2, 2) + y.reshape(2, 2)).sum().backward()
    assert not share_memory(x.grad.array, y.grad.array)
    z, g = nanonet.ones(4, requires_grad=True), nanonet.ones(2, 2)
    z.reshape(2, 2).backward(g)
    assert not share_memory(z.grad.array, g.array) and share_memory(g.array, g[1:].array)


def test_values_are_read_by_name_only(gpu_in_use):
    x = nanonet.tensor([1.5])
    assert repr(x) == "tensor([1.5], device='cuda')" and f"{x:.2f}" == "1.50"
    assert (x.item(), float(x), int(x), bool(x), x.tolist(), np.asarray(x).tolist()) == (
        1.5,
        1.5,
        1,
        True,
        [1.5],
        [1.5],
    )


# --------------------------------------------------------------------------------- whole programs


def test_modules_and_optimizers_are_copied_and_stored(gpu_in_use, tmp_path):
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(model, optimizer):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        return loss.item()

    step(model, optimizer)
    model.save(tmp_path / "model")
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), network().load(tmp_path / "model")]
    others[2].load_random_state(model.random_state())
    state = optimizer.state_dict()
    expected = step(model, optimizer)
    for other in others:
        again = optim.Adam(other.parameters(), lr=0.5)
        again.load_state_dict(state)
        assert {p.device for p in other.parameters()} == {"cuda"}
        assert step(other, again) == expected


def test_fit_with_all_that_watches_it(gpu_in_use, tmp_path):
    model = network()
    model.compile("adam", "cross_entropy", ["accuracy"])
    watchers = [callbacks.EarlyStopping(patience=5), callbacks.ModelCheckpoint(tmp_path / "best")]
    watchers.append(callbacks.LearningRateScheduler(lambda epoch: 0.01))
    options = {"validation_data": (X, Y), "callbacks": watchers, "class_weight": {0: 2.0}}
    history = model.fit(X, Y, epochs=4, batch_size=16, verbose=0, **options).history
    assert history["loss"][-1] < history["loss"][0] and "val_accuracy" in history
    model.fit(nanonet.tensor(X), nanonet.tensor(Y), verbose=0)
    loss, accuracy = model.evaluate(X, Y)
    scores = model.eval()(X)
    assert metrics.accuracy(nanonet.tensor(Y), scores) == pytest.approx(accuracy)
    assert F.cross_entropy(scores, Y).item() == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(model.predict(X), scores.numpy(), rtol=1e-5)


def test_a_summary_a_range_test_and_layers_that_wait_for_their_input(gpu_in_use, capsys):
    model = nn.Sequential(nn.Dense(4, activation="relu"), nn.BatchNormalization(), nn.Dense(3))
    model.summary((5,))
    assert "(n, 3)" in capsys.readouterr().out
    assert {p.device for p in model.parameters()} == {"cuda"}
    model = nn.Sequential(nn.Linear(5, 8, rng=0), nn.ReLU(), nn.Linear(8, 3, rng=1))
    found = nanonet.lr_range_test(model, optim.SGD(model.parameters(), lr=0.1), "cross_entropy", X, Y, steps=20)
    assert found.suggestion > 0
    assert {p.dtype.name for p in model.double().parameters()} == {"float64"}


def test_a_run_a_stack_and_a_predictor(gpu_in_use, host_too, tmp_path):
    settings = Settings(hidden=(6,), epochs=2, batch_size=16, dropout=0.2, clip_norm=1.0)
    run = Run(settings, X, Y, (X, Y))
    run.advance(2)
    assert run.device == "cuda" and {p.device for p in run.model.parameters()} == {"cuda"}
    assert Run.restore(run.state(), X, Y, (X, Y)).device == "cuda"
    stack = StackedRun([settings, settings.replace(learning_rate=0.1)], X, Y, (X, Y))
    stack.advance(1)
    schema = {"task": "classification", "shape": [5], "class_names": ["a", "b", "c"], "columns": None, "target": None}
    Predictor(run.model, settings, schema).save(tmp_path / "model")
    assert Predictor.load(tmp_path / "model").evaluate(X, Y)["loss"] == pytest.approx(run.history[-1]["val_loss"])


def test_a_device_that_is_given_counts_for_more(gpu_in_use, host_too):
    run = Run(Settings(hidden=(4,), dropout=0.1), X, Y, device="cpu")
    stack = StackedRun([Settings(hidden=(4,), dropout=0.1)] * 2, X, Y, device="cpu")
    for each in (run, stack):
        each.advance(1)
    assert {p.device for p in run.model.parameters()} == {"cpu"}


def test_tune_trains_there_in_threads_of_its_own(gpu_in_use, host_too):
    result = tuner.tune(X, Y, trials=2, max_epochs=2, validation=2, n_jobs=2)
    assert result.run.device == "cuda"
    assert {p.device for p in result.model.parameters()} == {"cpu"}


def test_arrays_of_the_emulated_device_have_nothing_that_cupys_lack():
    cupy = pytest.importorskip("cupy")
    from apart import ApartArray
    from cupy._core.flags import Flags

    assert {name for name in vars(ApartArray) if not name.startswith("_")} <= set(dir(cupy.ndarray))
    assert set(vars(ApartArray(np.ones(1)).flags)) <= set(dir(Flags))
