"""What a run, a step or a trial on a device had is free again when it has failed: nothing keeps its arrays."""

import gc
import weakref

import emulator
import numpy as np
import pytest

import nanonet
import nanonet.functional as F
import tuner
from kernels import registry
from kernels.cupy_gpu.uploads import Uploads
from nanonet import nn, optim
from nanonet.errors import DataError, OutOfMemory
from nanonet.settings import Settings
from nanonet.training import Run

pytestmark = pytest.mark.skipif(
    emulator.COMPILER is None, reason="no C++ compiler, which the emulator of the GPU needs"
)


class Limited(emulator.ApartMemory):
    """Counts the bytes of the arrays and blocks that somebody still has; more than `limit` are not to be had."""

    def __init__(self):
        self.live, self.limit, self.released = 0, 2**40, 0

    def _counted(self, array):
        whole = array if array.base is None else array.base
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        if self.live + whole.nbytes > self.limit:
            raise OutOfMemory(f"{whole.nbytes} bytes are wanted, {self.limit - self.live} are free")
        self.live += whole.nbytes
        weakref.finalize(whole, self._freed, whole.nbytes)
        return array

    def _freed(self, size):
        self.live -= size

    def empty(self, shape, dtype):
        return self._counted(super().empty(shape, dtype))

    def from_host(self, array):
        return self._counted(super().from_host(array))

    def block(self, need):
        return self._counted(super().block(need))

    def release(self):
        self.released += 1


class Device(emulator.ApartEmulator):
    def __init__(self):
        super().__init__()
        self.memory = Limited()


@pytest.fixture
def memory(monkeypatch):
    """The memory of "cuda", whose arrays are freed when the last reference to them is gone: no garbage collection."""
    from kernels.cupy_gpu.backend import backend

    monkeypatch.setattr(Uploads.__init__, "__defaults__", (1,))  # of the tables that are kept for their next use
    device = Device()
    monkeypatch.setattr(registry, "others", {})
    registry.register(backend(device))
    gc.collect()
    gc.disable()
    yield device.memory
    gc.enable()


def rows(n=40, features=5):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, features)).astype(np.float32)
    return x, (x @ rng.standard_normal((features, 3))).argmax(axis=1)


def settings(**changes):
    return Settings(hidden=(6,), epochs=4, batch_size=16, dropout=0.1).replace(**changes)


def test_a_run_that_is_dropped_leaves_nothing(memory):
    x, y = rows()
    Run(settings(), x, y, (x, y), device="cuda").advance(2)  # what stays for good: constants
    before = memory.live
    run = Run(settings(), x, y, (x, y), device="cuda")
    run.advance(2)
    assert memory.live > before
    del run
    assert memory.live == before


def test_a_run_that_diverged_leaves_nothing(memory):
    x, y = rows()
    before = None
    for _ in range(2):
        run = Run(settings(learning_rate=1e30, optimizer="sgd"), x, y, (x, y), device="cuda")
        run.advance(4)
        assert run.diverged
        del run
        assert before in (None, memory.live)
        before = memory.live


def test_a_step_that_raises_leaves_nothing(memory):
    x, y = rows()
    a, b = nanonet.tensor(x, device="cuda"), nanonet.tensor(y, device="cuda")
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).to("cuda")
    optimizer = optim.SGD(net.parameters(), lr=0.1)

    def step(a, b, fails):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(a), b)
        loss.backward()
        optimizer.step()
        if fails:
            raise ValueError("the user's")
        return loss

    jitted = nanonet.jit(step)
    jitted(a, b, False)
    before = memory.live
    for call in (step, jitted):
        with pytest.raises(ValueError, match="the user's"):
            call(a, b, True)
    optimizer.zero_grad()
    step(a, b, False)
    optimizer.zero_grad()
    assert memory.live <= before + sum(4 * p.size for p in net.parameters())
    assert jitted(a, b, False).item() > 0


# ---------------------------------------------------------------------------------------------- trials


def tuned(ended, stack, **options):
    """A tuning of three trials on the device, one by one or as one; ended(trial) is called after each."""
    x, y = rows(60)
    return tuner.tune(
        *(x, y),
        space=["learning_rate"],
        base=settings(epochs=2, optimizer="sgd", **options),
        trials=3,
        pruner=tuner.pruners.NopPruner(),
        validation="split",
        max_epochs=2,
        n_jobs=1,
        device="cuda",
        stack=stack,
        callbacks=[lambda study, trial: ended(trial) if trial.state.is_finished() else None],
    )


def test_a_search_goes_on_after_a_trial_without_enough_memory(memory):
    in_use = []

    def ended(trial):
        in_use.append(memory.live)
        memory.limit = 2**40  # for all but the first

    memory.limit = memory.live + 3000
    result = tuned(ended, False)
    first, *others = result.study.trials
    assert first.state is tuner.TrialState.FAIL and "OutOfMemory" in first.error and "bytes are wanted" in first.error
    assert [trial.state for trial in others] == [tuner.TrialState.COMPLETE] * 2
    assert memory.released == 1
    assert max(in_use) < 1000


STACKS = pytest.mark.parametrize("stack", [False, 3], ids=["one by one", "as one"])


@STACKS
def test_a_search_without_enough_memory_for_any_trial_says_so(memory, stack):
    memory.limit = memory.live + 3000
    with pytest.raises(DataError, match="OutOfMemory.*bytes are wanted"):
        tuned(lambda trial: None, stack)
    assert memory.live < 1000


@STACKS
def test_a_trial_that_diverged_leaves_nothing(memory, stack):
    in_use = []
    with pytest.raises(DataError, match="NaN"):
        tuned(lambda trial: in_use.append(memory.live), stack, l1=1e30)
    assert len(in_use) == 3 and max(in_use) < 1000


@pytest.mark.parametrize("error", [ValueError("the user's"), OutOfMemory("too large"), tuner.TrialPruned()])
def test_a_function_of_a_trial_that_raises_leaves_nothing(memory, error):
    x, y = rows()

    def objective(trial):
        run = Run(settings(seed=trial.number), x, y, (x, y), device="cuda")
        run.advance(1)
        if trial.number:
            raise error
        return run.history[-1]["val_loss"]

    in_use = []
    study = tuner.create_study()
    study.optimize(
        objective,
        n_trials=3,
        catch=(ValueError, MemoryError),
        callbacks=[lambda study, trial: in_use.append(memory.live)],
    )
    assert in_use[0] == in_use[1] == in_use[2]
