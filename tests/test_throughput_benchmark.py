"""The benchmark of trials side by side measures what it says."""

import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # last, so that what is installed is what is tested

import nanonet  # noqa: E402
from benchmarks import throughput  # noqa: E402
from tuner import TrialState  # noqa: E402
from tuner.executors import cores  # noqa: E402


def test_a_wait_for_a_lock_is_busy_and_a_trial_is_counted_once(monkeypatch):
    monkeypatch.setattr(throughput, "EPOCHS", 1)
    work = throughput.training_runs("split")
    alone, together = (throughput.measure(work, 4, workers) for workers in (1, 2))
    assert (alone.trials, together.trials) == (4, 4)
    assert 0 < alone.seconds and 0 < together.seconds
    if alone.busy is not None:
        assert 0 < alone.busy <= alone.seconds * 1.05 + 0.05


def test_both_numbers_of_workers_run_the_same_trials(monkeypatch):
    monkeypatch.setattr(throughput, "EPOCHS", 1)
    work, curves = throughput.training_runs("split"), []
    create = throughput.tuner.create_study

    def keep(**options):
        curves.append(create(**options))
        return curves[-1]

    monkeypatch.setattr(throughput.tuner, "create_study", keep)
    for workers in (1, 2):
        throughput.measure(work, 3, workers)
    one, two = ([(t.params, t.intermediate_values) for t in study.trials] for study in curves)
    assert one == two
    assert {t.state for t in curves[0].trials} <= {TrialState.COMPLETE, TrialState.FAIL}


@pytest.mark.skipif(throughput.waited() is None, reason="the system does not tell how long a thread waits for a core")
def test_sleep_is_no_wait_for_a_core():
    before = throughput.waited()
    threading.Event().wait(0.2)
    assert 0 <= throughput.waited() - before < 0.15


@pytest.mark.skipif(cores() < 2, reason="two workers want two cores")
def test_the_table_is_printed_and_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(throughput, "EPOCHS", 1)
    monkeypatch.setattr(throughput, "CASES", {"hold-out": "split"})
    monkeypatch.setattr(throughput, "machine_ratio", lambda: 1.5)
    before, start = nanonet.get_num_threads(), time.perf_counter()
    try:
        assert throughput.main(["--rounds", "1", "--trials", "2", "--results", str(tmp_path / "table.md")]) == 0
    finally:
        nanonet.set_num_threads(before)
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("| hold-out"))
    rates = [float(cell.split()[0]) for cell in row.split("|")[2:4]]
    assert all(2 / (time.perf_counter() - start) < rate < 1e4 for rate in rates)
    assert "1.50 x" in row
