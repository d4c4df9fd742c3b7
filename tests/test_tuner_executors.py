"""Who runs the trials: threads, processes and Dask; what the death of a worker costs; and who finds no file."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pytest

import nanonet
import tuner
from tuner import Float, Resumable, Space, StorageError, TrialState
from tuner.executors import Done, ProcessExecutor, WorkersUnavailable, cores, is_loss, make_executor, perform
from tuner.processes import WorkerDied
from tuner.pruners import NopPruner, SuccessiveHalvingPruner
from tuner.samplers import RandomSampler
from tuner.storage.base import MAX_CRASHES

ROOT = Path(__file__).parents[1]
SPACE = Space({"x": Float(0, 1)})
posix = pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX has them")


class Walk(Resumable):
    """A state is [x, steps done, sum so far, number]; every value depends on all steps before.

    deaths: trial number -> how often its worker kills itself in the middle of a segment.
    """

    max_steps = 9
    suffix = ".json"

    def __init__(self, folder, deaths=None, pause=0.0):
        self.folder = folder
        self.deaths = deaths or {}
        self.pause = pause

    def start(self, trial):
        self.note("start", trial.number)
        return [trial.params["x"], 0, 0.0, trial.number]

    def advance(self, state, steps):
        x, done, total, number = state
        self.note("advance", number, done, steps, os.getpid())
        values = []
        for step in range(steps):
            time.sleep(self.pause)
            done += 1
            if step == steps // 2 and self.count("died", number) < self.deaths.get(number, 0):
                self.note("died", number)
                os.kill(os.getpid(), signal.SIGKILL)
            total = 0.9 * total + x / done
            values.append(total)
        return [x, done, total, number], values

    def save(self, state, path):
        path.write_text(json.dumps(state))

    def load(self, path):
        return json.loads(path.read_text())

    def note(self, *words):
        with open(self.folder / "notes", "a") as file:
            file.write(json.dumps(words) + "\n")

    def notes(self):
        path = self.folder / "notes"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def count(self, *words):
        return sum(line[: len(words)] == list(words) for line in self.notes())


def study_of(storage=None, pruner=None):
    return tuner.create_study(
        storage=storage,
        study_name="s",
        load_if_exists=True,
        sampler=RandomSampler(seed=1),
        pruner=pruner or SuccessiveHalvingPruner(1, reduction_factor=3),
        space=SPACE,
    )


def curves(study):
    return [(t.number, t.state, t.steps, t.params, t.intermediate_values, t.values) for t in study.trials]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What nine trials of Walk give when nothing happens."""
    study = study_of()
    study.optimize(Walk(tmp_path_factory.mktemp("whole")), n_trials=9)
    return curves(study)


def pid_of(trial):
    trial.suggest_float("x", 0, 1)
    return os.getpid()


def deadly(trial):
    if trial.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return trial.suggest_float("x", 0, 1)


def rude(trial):
    raise ZeroDivisionError("no such luck")


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def odd(trial):
    raise Odd(1, 2)


def nothing(trial):
    return 0.0


# ------------------------------------------------------------------------------------------- processes


def test_processes_by_name(tmp_path, undisturbed):
    study, work = study_of(tmp_path / "s.db"), Walk(tmp_path, pause=0.01)
    study.optimize(work, n_trials=9, n_jobs=2, executor="processes")
    assert curves(study) == undisturbed
    workers = {line[4] for line in work.notes() if line[0] == "advance"}
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert work.count("start") == 9, "a state goes from one process to another through its checkpoint"
    assert sum(line[3] for line in work.notes() if line[0] == "advance") == sum(t.steps for t in study.trials)
    study.storage.close()


@posix
def test_a_process_that_dies_in_mid_segment_costs_that_segment_only(tmp_path, undisturbed):
    study, work = study_of(tmp_path / "s.db"), Walk(tmp_path, deaths={0: 1, 4: 2, 7: 2})
    study.optimize(work, n_trials=9, n_jobs=2, executor="processes")
    assert curves(study) == undisturbed
    died = work.count("died")
    assert died >= 1
    run = Counter((line[1], line[2]) for line in work.notes() if line[0] == "advance")
    assert sum(run.values()) - len(run) == died, "nothing else is run twice"
    study.storage.close()


@posix
def test_a_trial_that_always_kills_its_worker_is_failed_and_no_other(tmp_path):
    study = tuner.create_study(storage=tmp_path / "s.db", sampler=RandomSampler(seed=1))
    study.optimize(deadly, n_trials=5, n_jobs=2, executor="processes")
    states = [t.state for t in study.trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] + [TrialState.COMPLETE] * 2
    assert study.trials[2].attempt == MAX_CRASHES
    assert "died 3 times" in study.trials[2].error
    study.storage.close()


@posix
def test_a_broken_pool_of_the_users_ends_the_study_and_loses_nothing(tmp_path):
    study = tuner.create_study(storage=tmp_path / "s.db", study_name="s", sampler=RandomSampler(seed=1))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(BrokenProcessPool):
        study.optimize(deadly, n_trials=5, executor=pool)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 2 + [TrialState.WAITING]
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5, total=True)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 5
    study.storage.close()


@posix
def test_the_executor_starts_new_processes_and_keeps_living_ones():
    with ProcessExecutor(1) as executor:
        first = executor.submit(os.getpid).result()
        assert executor.submit(os.getpid).result() == first
        with pytest.raises(WorkerDied, match="exit code -9"):
            executor.submit(os.kill, first, signal.SIGKILL).result()
        assert executor.submit(os.getpid).result() != first
        with pytest.raises(ValueError, match="invalid literal") as error:
            executor.submit(int, "x").result()
        assert "Traceback" in str(error.value.__cause__)
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(os.getpid)


class Heavy:
    """Notes how often it was pickled."""

    pickled = 0

    def __init__(self):
        self.calls = 0

    def __reduce__(self):
        Heavy.pickled += 1
        return Heavy, ()

    def call(self, number):
        self.calls += 1
        return self.calls, os.getpid()


def test_what_tasks_share_is_sent_to_each_process_once():
    heavy = Heavy()
    with ProcessExecutor(2) as executor:
        executor.share(heavy)
        results = [f.result() for f in [executor.submit(Heavy.call, heavy, i) for i in range(20)]]
        assert Heavy.pickled == 1
        counts = Counter(pid for _, pid in results)
        assert all(sorted(c for c, p in results if p == pid) == list(range(1, n + 1)) for pid, n in counts.items())
        assert sum(counts.values()) == 20
        assert executor.submit(Heavy.call, Heavy(), 0).result()[0] == 1, "another object is not that one"
        with pytest.raises(TypeError, match="cannot go to another process"):
            executor.share(lambda: 0)


@posix
def test_shutdown_without_waiting_kills():
    executor = ProcessExecutor(2)
    pid = executor.submit(os.getpid).result()
    future = executor.submit(time.sleep, 60)
    time.sleep(0.1)
    start = time.monotonic()
    executor.shutdown(wait=False)
    with pytest.raises(WorkerDied):
        future.result(timeout=10)
    assert time.monotonic() - start < 5
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


def test_errors_come_back_from_processes(tmp_path):
    study = tuner.create_study(storage=tmp_path / "s.db")
    with pytest.raises(ZeroDivisionError, match="no such luck"):
        study.optimize(rude, n_trials=1, executor="processes")
    assert study.trials[0].error == "ZeroDivisionError: no such luck"
    with pytest.raises(RuntimeError, match="Odd: 1 and 2"):
        study.optimize(odd, n_trials=1, executor="processes")
    with pytest.raises(TypeError, match="the objective cannot go to another process: .*define it at the top"):
        study.optimize(lambda trial: 0.0, n_trials=1, executor="processes")
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.FAIL]
    study.storage.close()
    with pytest.raises(StorageError, match="cannot go to another process"):
        tuner.create_study().optimize(nothing, n_trials=1, executor="processes")


def test_names_of_executors():
    with pytest.raises(ValueError, match=r"one of \('threads', 'processes'\), got 'dask'"):
        tuner.create_study().optimize(nothing, n_trials=1, executor="dask")
    with pytest.raises(ValueError, match="workers must be a whole number >= 1, got 0"):
        ProcessExecutor(0)
    assert make_executor(-1)[1] == cores()


SCRIPT = """
import os, sys, time
import tuner

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    with open(sys.argv[2], "a") as file:
        print(os.getpid(), file=file)
    time.sleep(0.05)
    return x

def main():
    study = tuner.create_study(storage=sys.argv[1], study_name="s", load_if_exists=True,
                               sampler=tuner.samplers.RandomSampler(seed=3))
    study.optimize(objective, n_trials=200, total=True, n_jobs=2, executor="processes")

"""


def launch(folder, ending):
    script = folder / "script.py"
    script.write_text(SCRIPT + ending)
    command = [sys.executable, str(script), str(folder / "s.db"), str(folder / "notes")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_script_without_a_guard_is_told_so(tmp_path):
    process = launch(tmp_path, "main()\n")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("tuner.processes.WorkersUnavailable: a worker process ended at its start with exit code 1")
    assert "if __name__ == '__main__':" in last
    assert not is_loss(WorkersUnavailable())


@posix
def test_ctrl_c_ends_the_processes_too(tmp_path):
    process = launch(tmp_path, "if __name__ == '__main__':\n    main()\n")
    deadline = time.monotonic() + 60
    notes = tmp_path / "notes"
    while not notes.exists() or len(notes.read_text().splitlines()) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, err = process.communicate(timeout=60)
    assert err.count("Traceback") == 1, err
    assert err.strip().splitlines()[-1] == "KeyboardInterrupt"
    workers = {int(line) for line in notes.read_text().split()}
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]
    study = tuner.load_study(storage=tmp_path / "s.db")
    states = [t.state for t in study.trials]
    assert set(states) <= {TrialState.COMPLETE, TrialState.WAITING}
    assert 8 <= states.count(TrialState.COMPLETE) < 200
    study.storage.close()


# --------------------------------------------------------------------------------- executors of all kinds


class Unlucky(Executor):
    """Loses every third task in the way that it is told to."""

    def __init__(self, loss):
        self.loss = loss
        self.count = 0

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.count += 1
        if self.count % 3 == 0:
            if self.loss == "cancelled":
                future.cancel()
                future.set_running_or_notify_cancel()
            else:
                future.set_exception(self.loss)
        else:
            future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.parametrize("loss", ["cancelled", CancelledError(), BrokenProcessPool("gone")], ids=repr)
@pytest.mark.parametrize("total", [False, True])
def test_a_lost_task_is_done_again(tmp_path, undisturbed, loss, total):
    study, executor = study_of(), Unlucky(loss)
    study.optimize(Walk(tmp_path), n_trials=9, n_jobs=2, executor=executor, total=total)
    assert curves(study) == undisturbed
    plain = tuner.create_study(sampler=RandomSampler(seed=1))
    plain.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=9, executor=Unlucky(loss), total=total)
    whole = tuner.create_study(sampler=RandomSampler(seed=1))
    whole.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=9)
    assert [(t.state, t.params) for t in plain.trials] == [(t.state, t.params) for t in whole.trials]


def test_what_tells_of_a_lost_worker():
    class KilledWorker(Exception):
        pass

    assert not is_loss(KilledWorker())
    KilledWorker.__module__ = "distributed.scheduler"
    assert is_loss(KilledWorker())
    assert is_loss(CancelledError())
    assert is_loss(WorkerDied())
    assert not is_loss(ValueError())


class Elsewhere(Executor):
    """A worker on a machine where the study's folder does not exist."""

    def __init__(self, folder):
        self.folder = os.fsencode(folder)

    def submit(self, fn, /, *args, **kwargs):
        there = pickle.dumps((fn, args, kwargs)).replace(self.folder, self.folder[:-1] + b"?")
        fn, args, kwargs = pickle.loads(there)
        future = Future()
        future.set_result(pickle.loads(pickle.dumps(fn(*args, **kwargs))))
        return future


class Far(Walk):
    def note(self, *words):
        pass


def test_a_worker_that_does_not_see_the_folder_runs_trials_again_from_their_start(tmp_path, undisturbed):
    home = tmp_path / "home"
    home.mkdir()
    study = study_of(home / "s.db")
    study.optimize(Far(Path("nowhere")), n_trials=9, executor=Elsewhere(home))
    assert curves(study) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    assert not list(home.glob("s.checkpoints/*"))
    study.storage.close()


def test_checkpoints_of_an_earlier_study_in_a_file_of_the_same_name_are_not_taken(tmp_path):
    names = set()
    for _ in range(2):
        study = study_of(tmp_path / "s.db", NopPruner())
        checkpoints, work = study.storage.checkpoints(study.study_id), Far(tmp_path)
        assert pickle.loads(pickle.dumps(checkpoints)).take(0, 3, work) is None
        checkpoints.put(0, 3, [0.5, 3, 1.0, 0], work)
        names |= {path.name for path in (tmp_path / "s.checkpoints").iterdir()}
        study.storage.close()
        for path in tmp_path.glob("s.db*"):
            path.unlink()
    assert len(names) == 2
    study = study_of(tmp_path / "s.db")
    study.optimize(Far(tmp_path), n_trials=1)
    assert not list((tmp_path / "s.checkpoints").iterdir()), "what nobody can use is swept up"
    study.storage.close()


def test_a_storage_that_travels_is_opened_once_and_only_when_used(tmp_path):
    study = study_of(tmp_path / "s.db")
    one, other = pickle.loads(pickle.dumps(study)), pickle.loads(pickle.dumps(study))
    assert one.storage is other.storage
    assert one.storage._open is None
    one.enqueue_trial({"x": 0.5})
    assert len(study.trials) == 1
    study.storage.close()
    one.storage.close()
    for path in tmp_path.glob("s.db*"):
        path.rename(tmp_path / f"old {path.name}")
    new = study_of(tmp_path / "s.db")
    assert pickle.loads(pickle.dumps(new)).trials == []
    new.storage.close()


# ----------------------------------------------------------------------------------------- side by side


def test_trials_side_by_side_use_one_thread_each(monkeypatch):
    monkeypatch.setattr("tuner.optimization.cores", lambda: 2)
    seen = []

    def objective(trial):
        seen.append(nanonet.get_num_threads())
        return 0.0

    before = nanonet.get_num_threads()
    nanonet.set_num_threads(3)
    try:
        for n_jobs, threads in ((1, 3), (2, 1)):
            seen.clear()
            tuner.create_study().optimize(objective, n_trials=4, n_jobs=n_jobs)
            assert seen == [threads] * 4
    finally:
        nanonet.set_num_threads(before)


def test_a_task_is_timed_where_it_is_done():
    done = perform(False, time.sleep, 0.05)
    assert done == Done(None, done.seconds)
    assert 0.05 <= done.seconds < 5


# ------------------------------------------------------------------------------------------------- Dask


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    client = distributed.Client(cluster)
    yield client
    client.close()
    cluster.close()


@posix
@pytest.mark.filterwarnings("default")
def test_a_dask_worker_killed_in_mid_segment_loses_nothing(tmp_path, undisturbed, dask):
    study, work = study_of(tmp_path / "s.db"), Walk(tmp_path, deaths={0: 1, 4: 1}, pause=0.01)
    study.optimize(work, n_trials=9, n_jobs=2, executor=dask.get_executor())
    died = work.count("died")
    assert died >= 1
    assert curves(study) == undisturbed
    assert len({line[4] for line in work.notes() if line[0] == "advance"}) >= 2 + died - 1
    study.storage.close()


class Reporting:
    """A function of a trial that kills its worker in the middle of some trials, once each."""

    def __init__(self, folder, deaths):
        self.folder, self.deaths = folder, deaths

    def __call__(self, trial):
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, 0)
        killed = self.folder / f"killed {trial.number}"
        if trial.number in self.deaths and not killed.exists():
            trial.report(-1.0, 1)
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        trial.report(x / 2, 1)
        return x / 2 + trial.suggest_int("n", 1, 5)


@posix
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["dask", "processes"])
def test_a_function_whose_worker_is_killed_is_called_again(tmp_path, request, kind):
    executor = request.getfixturevalue("dask").get_executor() if kind == "dask" else kind
    study = tuner.create_study(storage=tmp_path / "s.db", sampler=RandomSampler(seed=1))
    study.optimize(Reporting(tmp_path, {1}), n_trials=4, n_jobs=2, executor=executor)
    assert [path.name for path in tmp_path.glob("killed *")] == ["killed 1"]
    whole = tuner.create_study(sampler=RandomSampler(seed=1))
    whole.optimize(Reporting(tmp_path, ()), n_trials=4)
    assert curves(study) == curves(whole)
    study.storage.close()


@posix
@pytest.mark.filterwarnings("default")
def test_a_trial_that_dask_gives_up_is_failed_and_no_other(tmp_path, dask, monkeypatch):
    monkeypatch.setattr(dask.cluster.scheduler, "allowed_failures", 0)
    study, work = study_of(tmp_path / "s.db", NopPruner()), Walk(tmp_path, deaths={1: 99})
    study.optimize(work, n_trials=3, n_jobs=1, executor=dask.get_executor(retries=0))
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert "died 3 times: KilledWorker" in study.trials[1].error
    assert work.count("died", 1) == MAX_CRASHES
    study.storage.close()
