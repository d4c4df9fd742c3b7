"""No completed trial is ever lost or repeated: killed, interrupted and competing processes on one SQLite file."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tuner
from tuner import TrialState

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX has them")

HEAD = """
import json, os, sys, time
import tuner

def study(sampler=None, pruner=None):
    return tuner.create_study(
        storage=sys.argv[1], study_name="s", load_if_exists=True, pruner=pruner,
        sampler=sampler or tuner.samplers.RandomSampler(seed=3),
    )

def note(*words):
    with open(sys.argv[2], "a") as file:
        file.write(json.dumps(words) + "\\n")
"""

PLAIN = (
    HEAD
    + """
def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    trial.report(x, 0)
    time.sleep(0.01)
    note(trial.number, x)
    return x

try:
    study().optimize(objective, n_trials=60, total=True, n_jobs=int(sys.argv[3]))
except KeyboardInterrupt:
    print("interrupted", len(study().trials))
    sys.exit(130)
"""
)

RESUMABLE = (
    HEAD
    + """
class Walk(tuner.Resumable):
    max_steps = 9
    def start(self, trial):
        return [trial.suggest_float("x", 0, 1), 0, 0.0, trial.number]
    def advance(self, state, steps):
        x, done, total, number = state
        values = []
        for _ in range(steps):
            time.sleep(0.002)
            done += 1
            total = 0.9 * total + x / done
            values.append(total)
            note(number, done)
        return [x, done, total, number], values
    def save(self, state, path):
        path.write_text(json.dumps(state))
    def load(self, path):
        return json.loads(path.read_text())

study(pruner=tuner.pruners.SuccessiveHalvingPruner(1, 3)).optimize(
    Walk(), n_trials=60, total=True, n_jobs=int(sys.argv[3]))
"""
)

EIGHTH = (
    HEAD
    + """
def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    trial.report(x, 0)
    trial.should_prune()
    return x

study, count, asks = study(), int(sys.argv[3]), sys.argv[4] == "asks"
if asks:
    for _ in range(count):
        trial = study.ask()
        study.tell(trial, objective(trial))
else:
    study.optimize(objective, n_trials=count)
"""
)


class Nothing(tuner.Resumable):
    """Opening a study with it sweeps up what was left behind."""

    def start(self, trial):
        raise AssertionError("all trials have ended")

    advance = start


def launch(code, folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code, str(folder / "s.db"), str(folder / "notes"), *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def succeed(*processes):
    for code, _, err in [finish(process) for process in processes]:
        assert code == 0, err


def notes(folder):
    path = folder / "notes"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(folder, count):
    deadline = time.monotonic() + 30
    while len(notes(folder)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def states_on_disk(folder):
    with sqlite3.connect(f"file:{folder}/s.db?mode=ro", uri=True) as db:
        rows = db.execute('SELECT number, state, "values", params, completed FROM trials ORDER BY number').fetchall()
    db.close()
    return rows


def finished(rows):
    return {row[0]: row for row in rows if TrialState(row[1]).is_finished()}


@pytest.mark.parametrize("n_jobs", ["1", "3"])
def test_kill_9_loses_no_completed_trial_and_repeats_none(tmp_path, n_jobs):
    kept = {}
    for count in (7, 20, 33):
        process = launch(PLAIN, tmp_path, n_jobs)
        wait_for(tmp_path, count)
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
        now = finished(states_on_disk(tmp_path))
        assert kept.items() <= now.items()
        kept = now
    succeed(launch(PLAIN, tmp_path, n_jobs))
    rows = states_on_disk(tmp_path)
    assert kept.items() <= finished(rows).items(), "what was complete stays as it was"
    assert [(row[0], row[1]) for row in rows] == [(n, TrialState.COMPLETE) for n in range(60)]
    runs = [number for number, _ in notes(tmp_path)]
    assert all(runs.count(number) == 1 for number in kept if number < 5)
    assert len(runs) <= 60 + 3 * int(n_jobs), "only trials that were running are run again"
    whole = tuner.create_study(sampler=tuner.samplers.RandomSampler(seed=3))
    whole.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=60)
    study = tuner.load_study(storage=tmp_path / "s.db")
    assert [(t.params, t.value) for t in study.trials] == [(t.params, t.value) for t in whole.trials]
    study.storage.close()


@pytest.mark.parametrize("n_jobs", ["1", "2"])
def test_kill_9_costs_a_resumable_at_most_the_segments_that_ran(tmp_path, n_jobs):
    for count in (10, 60, 120):
        process = launch(RESUMABLE, tmp_path, n_jobs)
        wait_for(tmp_path, count)
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
    succeed(launch(RESUMABLE, tmp_path, n_jobs))
    (tmp_path / "whole").mkdir()
    succeed(launch(RESUMABLE, tmp_path / "whole", "1"))
    one, other = (tuner.load_study(storage=folder / "s.db") for folder in (tmp_path, tmp_path / "whole"))
    assert [(t.state, t.steps, t.intermediate_values) for t in one.trials] == [
        (t.state, t.steps, t.intermediate_values) for t in other.trials
    ]
    again = len(notes(tmp_path)) - len(notes(tmp_path / "whole"))
    assert 0 <= again <= 3 * int(n_jobs) * 6
    one.pruner = tuner.pruners.NopPruner()
    one.optimize(Nothing(), n_trials=60, total=True)
    assert not list((tmp_path / "s.checkpoints").glob("[0-9]*"))
    for study in (one, other):
        study.storage.close()


@pytest.mark.parametrize("n_jobs", ["1", "3"])
def test_ctrl_c_ends_cleanly_and_the_study_goes_on(tmp_path, n_jobs):
    process = launch(PLAIN, tmp_path, n_jobs)
    wait_for(tmp_path, 15)
    os.kill(process.pid, signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130, err
    assert "Traceback" not in err
    assert out.startswith("interrupted")
    rows = states_on_disk(tmp_path)
    assert {TrialState(row[1]) for row in rows} <= {TrialState.COMPLETE, TrialState.WAITING}
    assert len(finished(rows)) >= 12
    study = tuner.load_study(storage=tmp_path / "s.db")
    assert study.best_value >= 0
    study.storage.close()
    succeed(launch(PLAIN, tmp_path, n_jobs))
    after = states_on_disk(tmp_path)
    assert finished(rows).items() <= finished(after).items()
    assert [row[1] for row in after] == [TrialState.COMPLETE] * 60


@pytest.mark.parametrize("way", ["asks", "optimizes"])
def test_eight_processes_with_a_hundred_trials_each_share_a_file(tmp_path, way):
    succeed(*[launch(EIGHTH, tmp_path, "100", way) for _ in range(8)])
    study = tuner.load_study(storage=tmp_path / "s.db")
    assert [t.number for t in study.trials] == list(range(800))
    assert {(t.state, t.attempt) for t in study.trials} == {(TrialState.COMPLETE, 1)}
    whole = tuner.create_study(sampler=tuner.samplers.RandomSampler(seed=3))
    whole.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=800)
    assert [(t.params, t.values) for t in study.trials] == [(t.params, t.values) for t in whole.trials]
    study.storage.close()


SAME = (
    HEAD
    + """
class Constant(tuner.samplers.RandomSampler):
    def propose(self, space, history, number, seed):
        return super().propose(space, history, 0, seed)

made = tuner.create_study(storage=sys.argv[1], study_name="s", load_if_exists=True, sampler=Constant(seed=3),
                          space=tuner.Space({"n": tuner.Int(1, 40)}))
note("ready")
while not os.path.exists(sys.argv[3]):
    time.sleep(0.001)
for _ in range(10):
    note(made.ask().params["n"])
"""
)


def test_processes_that_want_the_same_settings_get_different_ones(tmp_path):
    processes = [launch(SAME, tmp_path, str(tmp_path / "go")) for _ in range(4)]
    wait_for(tmp_path, 4)
    (tmp_path / "go").touch()
    succeed(*processes)
    assert sorted(line[0] for line in notes(tmp_path) if line != ["ready"]) == list(range(1, 41))


def test_processes_share_a_total_and_the_segments_of_a_resumable(tmp_path):
    processes = [launch(PLAIN, tmp_path, "1") for _ in range(3)]
    succeed(*processes)
    assert [row[1] for row in states_on_disk(tmp_path)] == [TrialState.COMPLETE] * 60
    assert sorted(number for number, _ in notes(tmp_path)) == list(range(60))
    other = tmp_path / "other"
    other.mkdir()
    processes = [launch(RESUMABLE, other, "1") for _ in range(2)]
    succeed(*processes)
    study = tuner.load_study(storage=other / "s.db")
    assert len(study.trials) == 60
    assert all(t.state.is_finished() for t in study.trials)
    assert sum(t.steps for t in study.trials) == len(notes(other))
    study.storage.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_a_forked_child_opens_its_own_connection(tmp_path):
    study = tuner.create_study(storage=tmp_path / "s.db", study_name="s", sampler=tuner.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: 1.0, n_trials=2)
    child = os.fork()
    if child == 0:
        try:
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
            os._exit(0)
        except BaseException:
            os._exit(1)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 12
    study.storage.close()
