"""What only a GPU that CuPy knows shows: memory, streams, threads, graphs, sharing with CuPy. Skipped without one; the
fake CUDA runs it (test_fake_cuda.py)."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from conftest import real_backend

import nanonet
import nanonet.functional as F
from kernels import plan
from kernels.elementwise import BY_NAME
from kernels.errors import DeviceError, OutOfMemory
from nanonet import nn, optim


@pytest.fixture(scope="module")
def gpu():
    return real_backend("cupy_gpu")


@pytest.fixture(scope="module")
def cupy(gpu):
    return gpu.xp


def train(seed, steps, jit=True):
    """Losses and weights of a small network, trained for so many steps."""
    rng = np.random.default_rng(seed)
    net = nn.Sequential(nn.Linear(5, 8, rng=rng), nn.ReLU(), nn.Dropout(0.2, rng=rng), nn.Linear(8, 3, rng=rng))
    optimizer = optim.Adam(net.to("cuda").parameters(), lr=0.01)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    call = nanonet.jit(step) if jit else step
    x = rng.standard_normal((16, 5)).astype(np.float32)
    x, y = nanonet.tensor(x, device="cuda"), nanonet.tensor(x[:, :3].argmax(axis=1), device="cuda")
    losses = [call(x, y) for _ in range(steps)]  # nobody waits for the device in between
    return [loss.item() for loss in losses], net.state_dict()


def same(found, expected):
    assert found[0] == expected[0]
    for name, value in expected[1].items():
        np.testing.assert_array_equal(found[1][name], value)


def test_replays_of_a_captured_step_give_the_bits_of_eager_steps(gpu):
    eager = train(0, 200, jit=False)
    assert eager[0][-1] < eager[0][0]
    same(train(0, 200), eager)


@pytest.mark.parametrize("kind", ["null", "blocking", "non_blocking"])
@pytest.mark.parametrize("jit", [True, False], ids=["recorded", "eager"])
def test_runs_in_threads_are_runs_alone(cupy, kind, jit):
    alone = [train(seed, 10) for seed in range(3)]

    def run(seed):
        stream = cupy.cuda.Stream(null=kind == "null", non_blocking=kind == "non_blocking")
        with stream:
            return train(seed, 10, jit)

    with ThreadPoolExecutor(3) as pool:
        for found, expected in zip(pool.map(run, range(3)), alone, strict=True):
            same(found, expected)


def test_a_plan_is_captured_once_and_replayed_on_any_stream(gpu, cupy):
    x, out = gpu.memory.from_host(np.arange(6.0)), gpu.memory.empty((6,), np.float64)
    with plan.recording(plan.Recorder()) as recorder:
        gpu.elementwise(BY_NAME["exp"].forward, x, out=out)
        gpu.elementwise(BY_NAME["add"].forward, out, x, out=out)
    recorded = recorder.plan()
    (graph,) = recorded._segments
    graphs, wait = set(), cupy.cuda.Device().synchronize
    for k, stream in enumerate([cupy.cuda.Stream.null, cupy.cuda.Stream(), cupy.cuda.Stream(non_blocking=True)]):
        gpu.memory.write(x, np.arange(6.0) + k)
        wait()
        with stream:
            recorded.run(3)
        wait()
        np.testing.assert_allclose(gpu.memory.to_host(out), np.exp(np.arange(6.0) + k) + np.arange(6.0) + k)
        graphs.add(graph._graph)
    assert [type(each) for each in graphs] == [cupy.cuda.Graph]


def test_a_thread_may_begin_with_a_launch(gpu):
    x, out = gpu.memory.from_host(np.ones(4, np.float32)), gpu.memory.empty((4,), np.float32)
    add = partial(gpu.elementwise, BY_NAME["add"].forward, x, x, out=out)
    add()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(add).result()
    assert gpu.memory.to_host(out).tolist() == [2] * 4


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "bool", "uint8"])
def test_strided_arrays_are_read_and_written(gpu, dtype):
    memory, base = gpu.memory, (np.arange(60) % 7).astype(dtype)
    there = memory.from_host(base)
    for cut in (np.s_[::2], np.s_[::-1], np.s_[5:50:3]):
        np.testing.assert_array_equal(memory.to_host(there[cut]), base[cut])
    turned = there.reshape(5, 12).T
    np.testing.assert_array_equal(memory.to_host(turned), base.reshape(5, 12).T)
    wide = memory.broadcast(turned[:, :1], (12, 4))
    np.testing.assert_array_equal(memory.to_host(wide), np.broadcast_to(base[:12, None], (12, 4)))
    memory.write(turned[::3], 1)
    memory.write(turned[1:2], np.arange(5) % 2)
    wanted = base.reshape(5, 12).T
    wanted[::3], wanted[1] = 1, np.arange(5) % 2
    np.testing.assert_array_equal(memory.to_host(there), base)


def test_gradients_that_are_views_are_not_written_to(gpu):
    """A leaf keeps its gradient; one that shares memory with another's, or with what is still to come, is copied."""
    found = []
    for device in ("cpu", "cuda"):
        a = nanonet.tensor(np.arange(6.0), device=device, requires_grad=True)
        b = nanonet.tensor(np.ones((2, 3)), device=device, requires_grad=True)
        y = a.reshape(2, 3) + b
        (y * y).sum().backward()
        (a.reshape(3, 2).sum() * 5).backward()
        found.append((a.grad.tolist(), b.grad.tolist()))
    assert found[0] == found[1]


def test_models_are_copied_and_pickled_there(gpu):
    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).to("cuda")
    x = nanonet.ones(4, 3, device="cuda")
    net(x)  # the stream of dropout moves there
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert {p.device for p in made.parameters()} == {"cuda"}
        assert made[0].weight.array.data.ptr != net[0].weight.array.data.ptr
        np.testing.assert_array_equal(made.eval()(x).numpy(), net.eval()(x).numpy())
    net.to("float64")
    assert net[0].weight.dtype == np.float64 and net[0].weight.device == "cuda"


def test_memory_is_shared_with_cupy_through_dlpack(gpu, cupy):
    x = nanonet.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda")
    array = cupy.from_dlpack(x)
    assert array.data.ptr == x.array.data.ptr and array.shape == (2, 2)
    back = nanonet.from_dlpack(array.T)
    assert back.device == "cuda" and back.tolist() == [[1, 3], [2, 4]]
    x.fill_(7)
    assert back.tolist() == [[7, 7], [7, 7]]
    assert nanonet.tensor(array).device == "cuda" and nanonet.tensor(array).array.data.ptr != array.data.ptr


def test_what_does_not_fit_says_how_much_is_free(gpu, cupy):
    _, total = cupy.cuda.runtime.memGetInfo()
    with pytest.raises(OutOfMemory, match=rf"{8 * total:,} bytes are wanted on the GPU; [\d,]+ of {total:,} are free"):
        nanonet.zeros(2 * total, device="cuda")
    assert nanonet.ones(3, device="cuda").tolist() == [1, 1, 1]


def test_a_slot_refuses_arrays_of_the_host(gpu):
    there, here = gpu.memory.from_host(np.ones(4, np.float32)), np.ones(4, np.float32)
    for arrays in ((there, here, there), (there, there, here)):
        with pytest.raises(DeviceError, match=r"got an array on cpu, wanted all on cuda; move it with .to\('cuda'\)"):
            gpu.elementwise(BY_NAME["add"].forward, *arrays[:2], out=arrays[2])


def test_doctor_finds_that_the_gpu_works(gpu):
    from nanonet.doctor import examine, text

    report = examine()
    assert report["backends"]["cupy_gpu"]["test"]["error"] is None
    assert report["gpu"]["name"] in text(report) and report["gpu"]["bytes"] > 0
