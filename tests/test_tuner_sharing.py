"""Objectives go to each worker process once; and `tuner.tune` on processes, pools and Dask."""

import gc
import os
import pickle
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import tuner
from tuner import Float, Resumable, Space, StorageError
from tuner.devices import Devices
from tuner.executors import ProcessExecutor
from tuner.pruners import PopulationTrainingPruner, SuccessiveHalvingPruner
from tuner.samplers import RandomSampler
from tuner.sharing import Sharing, _here, _perform, shared


class Counted(Resumable):
    """Notes in a file in which process it arrives, and what it does."""

    max_steps = 9

    def __init__(self, folder):
        self.folder = folder

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.note("arrived")

    def note(self, word):
        with open(self.folder / "notes", "a") as file:
            file.write(f"{word} {os.getpid()}\n")

    def elsewhere(self, word):
        """How often it was noted in another process than this one, where Dask's scheduler looks at it in passing."""
        lines = (self.folder / "notes").read_text().splitlines()
        return sum(line.startswith(word) and not line.endswith(f" {os.getpid()}") for line in lines)

    def start(self, trial):
        return [trial.params["x"], 0]

    def advance(self, state, steps):
        self.note("advanced")
        return state, [state[0]] * steps

    def save(self, state, path):
        path.write_text(f"{state[0]!r} {state[1]}")

    def load(self, path):
        x, done = path.read_text().split()
        return [float(x), int(done)]


def study_of(storage=None):
    return tuner.create_study(
        storage=storage, space=Space({"x": Float(0, 1)}), sampler=RandomSampler(seed=0),
        pruner=SuccessiveHalvingPruner(1, reduction_factor=3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    client = distributed.Client(cluster)
    yield client.get_executor()
    client.close()
    cluster.close()


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["pool", "dask", "processes"])
def test_an_objective_goes_to_each_process_once(kind, tmp_path, request):
    study, work = study_of(tmp_path / "s.db"), Counted(tmp_path)
    executor = kind if kind == "processes" else request.getfixturevalue(kind)
    study.optimize(work, n_trials=27, n_jobs=2, executor=executor)
    assert work.elsewhere("advanced") >= 30
    assert 1 <= work.elsewhere("arrived") <= 4  # a process that is asked twice before it has it gets it twice
    whole = study_of()
    whole.optimize(Counted(tmp_path), n_trials=27)
    assert [t.intermediate_values for t in study.trials] == [t.intermediate_values for t in whole.trials]
    study.storage.close()


class Local(ThreadPoolExecutor):
    """Not known to be one of threads."""

    def submit(self, fn, /, *args, **kwargs):
        assert not any(isinstance(argument, Counted) for argument in args)
        return super().submit(fn, *args, **kwargs)


def test_in_the_same_process_nothing_is_sent(tmp_path):
    work = Counted(tmp_path)
    with Local(2) as executor:
        sharing = Sharing(executor, work)
        assert sharing.submit(lambda *arguments: arguments, 1, work, 2).result() == (1, work, 2)
        assert sharing.submit(divmod, 7, 2).result() == (3, 1)
        with pytest.raises(ZeroDivisionError):
            sharing.submit(divmod, 7, 0).result()
        sharing.shutdown()
        assert work not in _here.values()


class Elsewhere(ThreadPoolExecutor):
    """Threads that see nothing of the caller's process, and count what is sent."""

    sent = 0

    def submit(self, fn, /, *args, **kwargs):
        fn, args = pickle.loads(pickle.dumps((fn, args)))
        self.sent += args[0] is not None
        return super().submit(fn, *args, **kwargs)


def test_what_a_process_lacks_is_sent_and_the_oldest_is_forgotten():
    with Elsewhere(1) as executor:
        for thing in ([1, 2], [3, 4], [5, 6]):
            sharing = Sharing(executor, thing)
            key = sharing._key
            _here.pop(key)
            executor.sent = 0
            assert sharing.submit(sum, thing).result() == sum(thing)
            assert executor.sent == 1
            assert sharing.submit(sum, thing).result() == sum(thing)
            assert executor.sent == 1
            assert len(_here) <= 2 and _here[key] == thing
            if thing != [5, 6]:
                sharing._again.shutdown()
        _here.clear()
        sharing.shutdown()
        with pytest.raises(CancelledError):
            sharing.submit(sum, thing).result()


def test_who_needs_it():
    thing = [1]
    with ThreadPoolExecutor(1) as threads:
        assert shared(threads, thing) is threads
        devices = Devices({"cpu": (threads, 1)})
        assert shared(devices, thing) is devices
    processes = ProcessExecutor(1)
    assert shared(processes, thing) is processes
    processes.shutdown()
    assert _perform(None, "no such key", (0,), sum, (None,), {}).__class__.__name__ == "_Absent"


class Cancelling(ThreadPoolExecutor):
    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_a_task_that_is_cancelled_is_lost():
    with Cancelling(1) as executor, pytest.raises(CancelledError):
        Sharing(executor, [1]).submit(sum, [1]).result(timeout=5)
    _here.clear()


# ---------------------------------------------------------------------------------------- in `tuner.tune`


def blobs(rows=240, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    centres = 1.5 * rng.standard_normal((classes, 5))
    return (centres[y] + rng.standard_normal((rows, 5))).astype(np.float32), y


OPTIONS = {
    "trials": 9,
    "max_epochs": 6,
    "space": ["learning_rate", "dropout"],
    "sampler": RandomSampler(seed=0),
    "constraints": {"noise(0.5)": ">= 0.1", "parameters": "<= 1e6"},
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["threads", "processes", "pool", "dask", "devices"])
def test_whoever_trains_the_result_is_the_same(kind, request, tmp_path):
    x, y = blobs()
    here = tuner.tune(x, y, **OPTIONS, n_jobs=1)
    if kind in ("threads", "processes"):
        executor = kind
    elif kind == "devices":
        executor = Devices({"one": (request.getfixturevalue("pool"), 1), "two": (ThreadPoolExecutor(1), 1)})
    else:
        executor = request.getfixturevalue(kind)
    where = {"out": tmp_path} if kind == "pool" else {}
    there = tuner.tune(x, y, **OPTIONS, n_jobs=None if kind == "devices" else 2, executor=executor, **where)
    assert [t.params for t in there.study.trials] == [t.params for t in here.study.trials]
    for a, b in zip(there.study.trials, here.study.trials, strict=True):
        assert a.intermediate_values == b.intermediate_values
        assert a.user_attrs["noise(0.5)"] == b.user_attrs["noise(0.5)"]
    assert there.settings == here.settings
    for a, b in zip(there.model.state_dict().values(), here.model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    if kind == "processes":
        folder = there.study.storage.path.parent
        assert folder.name.startswith("tuner-")
        there.study.storage.close()
        del there, a, b
        gc.collect()
        assert not folder.exists()
    else:
        there.study.storage.close()


@pytest.mark.filterwarnings("default")
def test_a_population_trains_in_other_processes(pool):
    x, y = blobs()
    options = {"max_epochs": 6, "space": ["learning_rate"], "validation": "split"}
    options["pruner"] = PopulationTrainingPruner(size=4, interval=2, seed=0)
    here, there = (tuner.tune(x, y, **options, executor=executor, n_jobs=2) for executor in (None, pool))
    assert [t.intermediate_values for t in there.study.trials] == [t.intermediate_values for t in here.study.trials]
    assert any(t.parent for t in there.study.trials)


def test_a_study_in_memory_cannot_leave(pool):
    with pytest.raises(StorageError, match="cannot go to another process"):
        tuner.tune(*blobs(), **OPTIONS, executor=pool, storage=tuner.storage.MemoryStorage())
