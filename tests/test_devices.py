"""Tensors, modules and training on a device that is not the CPU: an emulated one, whose arrays are of another kind."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nanonet
import nanonet.functional as F
import tuner
from kernels import registry
from nanonet import nn, optim
from nanonet.errors import BackendUnavailable, DeviceError, OptionError, RecordingError
from nanonet.settings import Settings
from nanonet.stacked import StackedRun, advance_together
from nanonet.training import Run


@pytest.fixture
def cuda(monkeypatch):
    """The device "cuda", emulated."""
    import emulator

    from kernels.cupy_gpu.backend import backend

    if emulator.COMPILER is None:
        pytest.skip("no C++ compiler, which the emulator of the GPU needs")
    monkeypatch.setattr(registry, "others", {})
    registry.register(backend(emulator.ApartEmulator()))
    return "cuda"


def rows(n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 5)).astype(np.float32)
    return x, (x @ rng.standard_normal((5, 3))).argmax(axis=1)


def test_values_go_there_and_back(cuda):
    x = nanonet.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = x.to(cuda)
    assert (x.device, y.device) == ("cpu", "cuda")
    assert y.to(cuda) is y and x.to("cpu") is x
    np.testing.assert_array_equal((y * 2 + 1).cpu().numpy(), [[3, 5], [7, 9]])
    assert "device='cuda'" in repr(y)
    assert y.sum().item() == 10 and y.tolist() == x.tolist()
    assert nanonet.tensor([1, 2], device=cuda).device == "cuda"
    assert nanonet.zeros(2, 2, device=cuda).device == nanonet.ones_like(y).device == "cuda"
    assert y.to("float64", cuda).dtype == np.float64


def test_gradients_flow_through_a_move(cuda):
    x = nanonet.tensor([1.0, -2.0, 3.0], requires_grad=True)
    (x.to(cuda).square() * 0.5).sum().backward()
    assert x.grad.device == "cpu"
    np.testing.assert_array_equal(x.grad.numpy(), [1, -2, 3])


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("add", lambda a, b: a + b),
        ("matmul", lambda a, b: a @ b),
        ("linear", lambda a, b: F.linear(a, b)),
    ],
)
def test_an_operation_of_two_devices_is_an_error_that_names_both(cuda, name, operation):
    a, b = nanonet.ones(2, 2), nanonet.ones(2, 2, device=cuda)
    for first, second in ((a, b), (b, a)):
        with pytest.raises(DeviceError, match=r"cpu.*cuda|cuda.*cpu") as error:
            operation(first, second)
        assert name in str(error.value)


def test_a_device_that_is_not_known_or_not_there_is_an_error():
    with pytest.raises(DeviceError, match="'tpu'; wanted 'cpu' or 'cuda'"):
        nanonet.zeros(1, device="tpu")
    if registry.available()["cupy_gpu"] is not None:
        with pytest.raises(BackendUnavailable, match="'cuda' is not available here: backend cupy_gpu: "):
            nanonet.zeros(1, device="cuda")


def model():
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Linear(5, 8, rng=rng), nn.ReLU(), nn.Linear(8, 3, rng=rng))


@pytest.mark.parametrize("recorded", [False, True])
def test_training_there_is_training_here(cuda, recorded):
    x, y = rows()
    results = []
    for device in ("cpu", cuda):
        net = model().to(device)
        optimizer = optim.Adam(net.parameters(), lr=0.05)

        def step(a, b, net=net, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(a), b)
            loss.backward()
            optimizer.step()
            return loss

        call = nanonet.jit(step) if recorded else step
        a, b = nanonet.tensor(x, device=device), nanonet.tensor(y, device=device)
        losses = [call(a, b).item() for _ in range(5)]
        results.append((losses, net.state_dict()))
    (losses, state), (found, there) = results
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    for name, value in state.items():
        np.testing.assert_allclose(there[name], value, rtol=1e-4, atol=1e-6)


def test_a_replay_on_the_device_is_one_call_of_a_graph(cuda):
    x = nanonet.tensor(rows()[0], device=cuda)
    step = nanonet.jit(lambda x: ((x * 2).exp() + 1).sum())
    first = step(x)
    (plan,) = (recording.plan for recording in step.recordings)
    assert len(plan.instructions) > 1 and len(plan._segments) == 1
    assert step(x * 0.5).item() != first.item()
    assert first.item() == step(x).item()


def test_an_optimizer_follows_its_parameters(cuda):
    net = model()
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for device in ("cpu", cuda, "cpu"):
        net.to(device)
        optimizer.zero_grad()
        net(nanonet.ones(2, 5, device=device)).sum().backward()
        optimizer.step()
    assert optimizer.state_dict()["groups"][0]["steps"] == 3
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_move_cannot_be_recorded(cuda):
    with pytest.raises(RecordingError, match="to\\('cuda'\\)"):
        nanonet.jit(lambda x: x.to(cuda))(nanonet.ones(2))


def test_dropout_draws_there_what_it_draws_here(cuda):
    masks = [
        F.dropout(nanonet.ones(50, device=device), 0.5, rng=nanonet.ops.random.Stream(3)).cpu().numpy()
        for device in ("cpu", cuda)
    ]
    np.testing.assert_array_equal(*masks)


def test_a_run_there_goes_on_here(cuda):
    x, y = rows(60)
    settings = Settings(hidden=(6,), epochs=4, batch_size=16, dropout=0.2, schedule="cosine", clip_norm=1.0)
    whole = Run(settings, x, y, (x, y))
    whole.advance(4)
    run = Run(settings, x, y, (x, y), device=cuda)
    run.advance(2)
    assert {p.device for p in run.model.parameters()} == {"cuda"}
    rest = Run.restore(run.state(), x, y, (x, y))
    rest.advance(2)
    for ours, theirs in zip(rest.history, whole.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_fit_evaluate_and_predict_there(cuda):
    x, y = rows(48)
    found = []
    for device in ("cpu", cuda):
        net = model().to(device)
        net.compile(optimizer="adam", loss="cross_entropy", metrics=["accuracy"])
        net._compiled.seed = 5
        history = net.fit(x, y, batch_size=16, epochs=3, validation_split=0.25, class_weight={0: 2.0}, verbose=0)
        found.append((history.history["val_loss"], net.evaluate(x, y), net.predict(x)))
        assert isinstance(found[-1][2], np.ndarray) and type(found[-1][2]) is np.ndarray
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)


def test_the_precision_of_products_is_a_switch_of_each_thread(cuda):
    from kernels import precision

    assert nanonet.get_float32_matmul_precision() == "highest"
    nanonet.set_float32_matmul_precision("high")
    try:
        assert precision.products() == "tf32"
        with nanonet.autocast("bf16"):
            assert precision.products() == "bf16"
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(precision.products).result() == "float32"
        assert precision.products() == "tf32"
    finally:
        nanonet.set_float32_matmul_precision("highest")
    for call in (lambda: nanonet.set_float32_matmul_precision("low"), lambda: nanonet.autocast("fp8").__enter__()):
        with pytest.raises(OptionError, match="wanted"):
            call()


def test_values_are_shared_through_dlpack():
    x = nanonet.tensor([[1.0, 2.0], [3.0, 4.0]])
    array = np.from_dlpack(x)
    assert np.shares_memory(array, x.numpy())
    y = nanonet.from_dlpack(array)
    y.fill_(7)
    assert x.tolist() == [[7, 7], [7, 7]]


def test_tune_trains_there_and_gives_a_model_of_the_host(cuda):
    x, y = rows(60)
    options = {"trials": 3, "max_epochs": 3, "validation": 2, "metric": ["accuracy", "fgsm(0.1)", "noise(0.1)"]}
    results = [tuner.tune(x, y, device=device, n_jobs=1, **options) for device in ("cpu", cuda)]
    for here, there in zip(*(result.study.trials for result in results), strict=True):
        assert here.params == there.params
        assert there.values == pytest.approx(here.values, abs=0.05)
    assert {p.device for p in results[1].model.parameters()} == {"cpu"}
    assert {p.device for p in results[1].run.model.parameters()} == {"cuda"}
    assert len(results[1].predict(x)) == len(x)


def test_a_stack_trains_there_as_here(cuda):
    x, y = rows(50)
    settings = [Settings(hidden=(4,), learning_rate=rate, dropout=0.2, clip_norm=1.0) for rate in (0.01, 0.1)]
    stacks = [StackedRun(settings, x, y, (x, y), device=device) for device in ("cpu", cuda)]
    for stack in stacks:
        stack.advance(2)
    for here, there in zip(*(stack.history for stack in stacks), strict=True):
        for ours, theirs in zip(here, there, strict=True):
            assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-5)


def test_runs_of_the_host_are_taken_further_there(cuda):
    parts = [(*rows(n, seed), rows(9, seed + 5)) for n, seed in ((26, 0), (25, 1))]
    base = Settings(hidden=(4,), batch_size=8, learning_rate=0.02)
    changes = ({"clip_value": 0.01}, {"label_smoothing": 0.2}, {"early_stopping": 1, "learning_rate": 1.0})
    together, alone = (
        [Run(base.replace(**change), x, y, v, classes=3) for change in changes for x, y, v in parts] for _ in range(2)
    )
    for device, runs in ((cuda, together), ("cpu", alone)):
        advance_together(runs, [3, 2, 3, 3, 3, 3], device)
    for run, single in zip(together, alone, strict=True):
        assert len(run.history) == len(single.history)
        for there, here in zip(run.history, single.history, strict=True):
            assert there == pytest.approx(here, rel=1e-3, abs=1e-5)
        for name, value in single.model.state_dict().items():
            np.testing.assert_allclose(run.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    assert min(len(run.history) for run in alone) < 3


def test_tune_trains_stacks_there(cuda):
    x, y = rows(60)
    options = {"trials": 12, "max_epochs": 2, "validation": 2, "metric": "loss", "n_jobs": 1}
    options |= {"space": ["learning_rate", "weight_decay", "momentum", "optimizer"]}
    options |= {"sampler": tuner.samplers.RandomSampler(seed=0), "base": Settings(hidden=(4,), batch_size=16)}
    here = tuner.tune(x, y, stack=False, **options)
    there = tuner.tune(x, y, stack=6, device=cuda, **options)
    pairs = [(a, b) for a, b in zip(here.study.trials, there.study.trials, strict=True) if a.params == b.params]
    assert len(pairs) >= 9
    for a, b in pairs:
        for step in range(1, min(a.steps, b.steps) + 1):
            assert b.intermediate_values[step] == pytest.approx(a.intermediate_values[step], rel=1e-2, abs=1e-3)
    assert {p.device for p in there.model.parameters()} == {"cpu"}


def test_autocast_rounds_operands_and_recorded_steps_know_of_it(cuda):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 16, 16)).astype(np.float32)

    def rounded(x):
        """To bfloat16, ties to even."""
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)

    step = nanonet.jit(lambda x, y: x @ y)
    there = nanonet.tensor(a, device=cuda), nanonet.tensor(b, device=cuda)
    exact, coarse = a.astype(np.float64) @ b, rounded(a).astype(np.float64) @ rounded(b)
    assert np.abs(exact - coarse).max() > 1e-3
    for _ in range(2):
        np.testing.assert_allclose(step(*there).numpy(), exact, rtol=1e-4, atol=1e-5)
        with nanonet.autocast("bf16"):
            np.testing.assert_allclose(step(*there).numpy(), coarse, rtol=1e-4, atol=1e-5)
