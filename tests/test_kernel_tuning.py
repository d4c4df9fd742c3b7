"""The search for the kernels' settings: with made-up times, and once for real."""

import json
import math

import numpy as np
import pytest

from tuner import cli
from tuner.kernel_tuning import GroupResult, Tuning, tuning

KNOBS = {
    "first.a": (1, 2, 4, 8, 16),
    "first.b": (10, 20, 30),
    "second.c": (1, 2, 3, 4),
}
DEFAULTS = {"first.a": 2, "first.b": 10, "second.c": 1}


class Machine:
    """Times as a function of the settings, with noise, and a clock that only measuring moves.

    logs(values): log of the time compared with the defaults'; `values` are all of them.
    """

    def __init__(self, logs, noise=0.02, seconds=0.05, seed=0):
        self.logs, self.noise, self.seconds = logs, noise, seconds
        self.rng, self.now, self.calls = np.random.default_rng(seed), 0.0, []

    def __call__(self, groups, values, rounds):
        self.calls.append((tuple(groups), dict(values), rounds))
        self.now += self.seconds * rounds
        own = {name: value for name, value in values.items() if name.split(".")[0] in groups}
        return self.logs(DEFAULTS | own) + self.rng.normal(0, self.noise, rounds)

    def clock(self):
        return self.now


def search(machine, seconds=60.0, **options):
    return tuning(machine, KNOBS, DEFAULTS, seconds=seconds, clock=machine.clock, **options)


def better(values):
    """a = 8 is best, b hardly matters, c is best as it is."""
    return -0.3 + 0.15 * abs(math.log2(values["first.a"] / 8)) + 0.3 * (values["second.c"] - 1)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_faster_is_found_and_kept(seed):
    machine = Machine(better, seed=seed)
    found = search(machine, seed=seed)
    assert found.values["first.a"] == 8
    assert "second.c" not in found.values
    first, second = found.groups
    assert first.kept and first.low < math.exp(0.3) < first.high + 0.05
    assert not second.kept and second.values == {}
    assert found.speed == pytest.approx(math.exp(0.3), rel=0.05)
    assert found.problems == []


@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_is_not_kept(seed):
    found = search(Machine(lambda values: 0.0, noise=0.2, seed=seed), seed=seed)
    assert found.values == {} and found.speed == 1.0


def test_a_gain_that_is_too_small_is_not_kept():
    found = search(Machine(lambda values: -0.004 * (values["first.a"] == 8), noise=0.001))
    assert found.values == {}


@pytest.mark.parametrize("seconds", [1.0, 20.0, 90.0])
def test_the_time_is_kept(seconds):
    machine = Machine(better)
    found = search(machine, seconds)
    assert machine.now <= seconds + 2 * 10 * machine.seconds + 1e-9  # a group's least test, and the one of all together
    assert found.seconds == pytest.approx(machine.now)


def test_the_time_is_used_for_a_longer_test():
    short, long = Machine(better, seconds=0.5), Machine(better, seconds=0.05)
    for machine in (short, long):
        search(machine, 60)
    tested = [[rounds for _, values, rounds in machine.calls if values and rounds == 10] for machine in (short, long)]
    assert len(tested[1]) > len(tested[0])


def test_settings_that_are_better_alone_but_not_together_are_not_kept():
    def logs(values):
        changed = [name for name in DEFAULTS if values[name] != DEFAULTS[name]]
        groups = {name.split(".")[0] for name in changed}
        return 0.1 if len(groups) == 2 else -0.2 * len(groups)

    found = search(Machine(logs))
    assert [group.kept for group in found.groups] == [True, True]
    assert found.values == {} and found.speed == 1.0
    assert "together" in found.problems[0]


def test_settings_that_fail_are_left_out_and_told():
    def logs(values):
        if values["first.a"] == 8:
            raise RuntimeError("wrong numbers with a = 8")
        return better(values)

    found = search(Machine(logs))
    assert found.values["first.a"] in (4, 16)
    assert "first: wrong numbers with a = 8" in found.problems


def test_earlier_settings_are_tried_first():
    machine = Machine(better)
    search(machine, 1.0, earlier={"first.a": 8})
    assert machine.calls[0] == (("first",), {"first.a": 8}, 2)


def test_a_small_group_is_tried_in_full_and_its_time_goes_to_others():
    machine = Machine(better)
    found = search(machine, 500.0)
    assert found.groups[1].trials <= 4
    assert machine.now < 400


def test_notes_tell_each_group():
    notes = []
    search(Machine(better), note=notes.append)
    assert notes[0].startswith("first: ") and "x as fast" in notes[0] and notes[0].endswith(": kept")
    assert notes[1].startswith("second: ") and notes[1].endswith("none faster than the usual ones")


def test_the_same_seed_asks_for_the_same():
    calls = []
    for _ in range(2):
        machine = Machine(better, noise=0.0)
        search(machine, 30, seed=3)
        calls.append(machine.calls)
    assert calls[0] == calls[1]


# ------------------------------------------------------------------------------------ on this machine


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An own place for the file; compiled kernels stay where they are."""
    pytest.importorskip("llvmlite")
    from kernels.numba_cpu import knobs

    monkeypatch.setattr(knobs, "path", lambda: tmp_path / "tuned.json")
    knobs.use({})
    yield tmp_path
    knobs.use({})


@pytest.fixture
def run(capsys):
    def command(*words):
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return command


def test_a_short_search_for_real(folder):
    from kernels.numba_cpu import knobs, threads
    from tuner.kernel_tuning import tune_kernels
    from tuner.kernel_workloads import Stopwatch, workloads

    few = [work for work in workloads() if work.group in ("elementwise", "rows")][::4]
    before, notes = threads.get_num_threads(), []
    threads.set_num_threads(2)
    try:
        found = tune_kernels(
            0.02, note=notes.append, names=("elementwise.cheap", "rows.softmax"), measure=Stopwatch(few, turn=5e-5)
        )
    finally:
        threads.set_num_threads(before)
    assert [group.group for group in found.groups] == ["elementwise", "rows"]
    assert all(group.trials >= 1 for group in found.groups)
    assert found.problems == [] or "together" in found.problems[0]
    assert len(notes) == 2
    kept = knobs.kept()
    assert (kept is None) == (not found.values)
    assert knobs.in_use() == knobs.defaults() | found.values


def test_the_stopwatch_tells_slow_from_fast_and_right_from_wrong(folder):
    from kernels.numba_cpu import knobs
    from tuner.kernel_workloads import Stopwatch, Workload, WorkloadError

    out = np.zeros(8, np.float32)
    slow = {"loops": 1}

    def run():
        changed = knobs.in_use()["matmul.kc"] == 128
        out[...] = 1.0 if not (changed and slow.get("wrong")) else 2.0
        for _ in range(400 if changed else 100):
            math.sqrt(2.0)

    stopwatch = Stopwatch([Workload("loop", "matmul", run, out)], turn=1e-4)
    logs = stopwatch(["matmul"], {"matmul.kc": 128}, 5)
    assert logs.shape == (5,) and np.median(logs) > 0.3
    assert abs(np.median(stopwatch(["matmul"], {}, 5))) < 0.3
    assert knobs.in_use() == knobs.defaults()
    slow["wrong"] = True
    with pytest.raises(WorkloadError, match=r"loop is wrong with \{'matmul.kc': 128\}"):
        stopwatch(["matmul"], {"matmul.kc": 128}, 1)
    assert knobs.in_use() == knobs.defaults()


# ------------------------------------------------------------------------------------------ the command


def pretend(monkeypatch, values):
    """The search finds these values at once."""
    from kernels.numba_cpu import knobs
    from tuner import kernel_tuning

    def found(measure, table, defaults, **options):
        options["note"]("matmul: 7 settings tried")
        group = GroupResult("matmul", 7, values, 1.2, 1.1, 1.3, True) if values else GroupResult("matmul", 7, {})
        return Tuning([group], values, 1.2 if values else 1.0, 0.5)

    monkeypatch.setattr(kernel_tuning, "tuning", found)
    monkeypatch.setattr("tuner.kernel_workloads.Stopwatch", lambda: None)
    return knobs


def test_doctor_tunes_tells_and_resets(run, folder, monkeypatch):
    knobs = pretend(monkeypatch, {"matmul.kc": 256})
    code, out, err = run("doctor", "--tune", "--minutes", "0.1")
    assert (code, err) == (0, "matmul: 7 settings tried\n")
    assert "1.200 x as fast over all; kept in" in out
    row = next(line for line in out.splitlines() if "matmul.kc" in line)
    assert row.split() == ["matmul.kc", "512", "256", "1.200"]
    assert knobs.kept()["values"] == {"matmul.kc": 256} and knobs.in_use()["matmul.kc"] == 256
    _, out, _ = run("doctor")
    assert f"1 of {len(knobs.KNOBS)} tuned on 20" in out and "1.20 x as fast as the usual ones" in out
    _, out, _ = run("doctor", "--json")
    tuned = json.loads(out)["tuned"]
    assert tuned["values"] == {"matmul.kc": 256} and tuned["in_use"] is True and tuned["about"]["when"].startswith("20")
    code, out, _ = run("doctor", "--tune", "--reset")
    assert (code, out) == (0, "the usual kernel settings are back\n")
    assert knobs.kept() is None
    assert "there were no tuned" in run("doctor", "--tune", "--reset")[1]
    assert "the usual ones" in run("doctor")[1]


def test_doctor_tune_that_finds_nothing_removes_what_was_kept(run, folder, monkeypatch):
    knobs = pretend(monkeypatch, {})
    knobs.save({"matmul.kc": 128}, {})
    code, out, err = run("doctor", "--tune", "--json", "--quiet")
    document = json.loads(out)
    assert (code, err, document["values"], document["file"]) == (0, "", {}, None)
    assert document["groups"][0]["trials"] == 7
    assert knobs.kept() is None


def test_doctor_names_a_damaged_file(run, folder):
    (folder / "tuned.json").write_text("{}")
    code, out, _ = run("doctor")
    assert code == 1 and "kernel settings: " in out and "--tune --reset" in out
    assert run("doctor", "--tune", "--reset")[0] == 0


def test_doctor_tune_says_what_it_wants(run, monkeypatch):
    from kernels import registry

    code, _, err = run("doctor", "--reset")
    assert code == 2 and "--reset is for --tune" in err
    code, _, err = run("doctor", "--tune", "--minutes", "0")
    assert code == 2 and "argument --minutes" in err
    monkeypatch.setattr(registry, "reason", lambda name: "numba is not installed")
    code, _, err = run("doctor", "--tune")
    assert code == 1 and "no compiled kernels to tune: numba is not installed" in err
