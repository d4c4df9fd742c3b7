"""The conformance suite of storages, and what the SQLite file promises beyond it."""

import json
import math
import os
import pickle
import sqlite3
import stat
import threading
import time

import pytest
from cases import STORAGES

import tuner
from tuner import Categorical, DuplicatedStudyError, Float, Int, StorageError, TrialLost, TrialState
from tuner.storage import STORAGES as REGISTERED
from tuner.storage import MemoryStorage, SqliteStorage, open_storage
from tuner.storage.owner import PATIENCE, is_dead, new_owner, process_of, this_process


@pytest.fixture(params=STORAGES, ids=str)
def case(request):
    return request.param


@pytest.fixture
def storage(case, tmp_path):
    storage = case.open(tmp_path)
    yield storage
    storage.close()


def new_study(storage, name="a"):
    return storage.create_study(name, ["minimize"], 7, None).study_id


def test_every_storage_has_a_row():
    assert {case.name for case in STORAGES} == set(REGISTERED)
    assert all(getattr(tuner.storage, case.name) for case in STORAGES)


def test_studies_have_names(storage):
    assert storage.study("a") is None
    record = storage.create_study("a", ["minimize", "maximize"], 2**62, '{"parameters": []}')
    assert storage.study("a") == record
    assert (record.directions, record.seed, record.space) == (("minimize", "maximize"), 2**62, '{"parameters": []}')
    other = storage.create_study("b", ["maximize"], 1, None)
    assert other.study_id != record.study_id
    assert storage.study_names() == ["a", "b"]
    with pytest.raises(DuplicatedStudyError, match="'a' already"):
        storage.create_study("a", ["minimize"], 0, None)
    storage.set_study_attr(record.study_id, "note", {"k": (1, 2)})
    assert storage.study_attrs(record.study_id) == {"note": {"k": (1, 2)}}
    assert storage.study_attrs(other.study_id) == {}


def test_a_trial_keeps_all_that_it_was_told(case, storage, tmp_path):
    study = new_study(storage)
    claim = storage.create_trial(study)
    assert (claim.number, claim.attempt) == (0, 1)
    key = study, *vars(claim).values()
    domains = {"x": Float(1e-5, 1, log=True), "c": Categorical(["a", (1, 2), None]), "n": Int(0, 8, step=2)}
    storage.set_params(*key, {"x": 0.1, "c": (1, 2)}, {name: domains[name] for name in ("x", "c")})
    storage.set_params(*key, {"n": 4}, {"n": domains["n"]})
    storage.set_user_attr(*key, "note", [1, "two"])
    for step, value in enumerate((1.5, math.nan, math.inf, 1e-300)):
        storage.report(*key, step, value)
    before = storage.trial(study, 0)
    assert before.state is TrialState.RUNNING
    storage.finish(*key, TrialState.COMPLETE, [0.1 + 0.2])
    if case.lasts:
        storage = case.open(tmp_path)
    trial = storage.trial(study, 0)
    assert before.values is None, "records do not change under their reader"
    assert trial.state is TrialState.COMPLETE
    assert trial.values == [0.1 + 0.2]
    assert trial.params == {"x": 0.1, "c": (1, 2), "n": 4}
    assert type(trial.params["n"]) is int
    assert trial.distributions == domains
    assert trial.user_attrs == {"note": [1, "two"]}
    assert str(trial.intermediate_values) == str({0: 1.5, 1: math.nan, 2: math.inf, 3: 1e-300})
    assert trial.duration.total_seconds() >= 0
    storage.close()


def test_numbers_are_consecutive_per_study(storage):
    first, second = new_study(storage, "a"), new_study(storage, "b")
    assert [storage.create_trial(s).number for s in (first, first, second, first, second)] == [0, 1, 0, 2, 1]
    with pytest.raises(KeyError, match="no trial 3"):
        storage.trial(first, 3)


def test_limits_hold_in_the_same_breath_as_the_trial_is_made(storage):
    study = new_study(storage)
    storage.enqueue_trial(study, {"x": 1}, {})
    assert storage.create_trial(study, at_most=1).number == 1
    assert storage.create_trial(study, at_most=1) is None
    assert storage.claim(study, at_most=1) is None
    assert storage.create_trial(study, proposals_at_most=2).number == 2
    assert storage.create_trial(study, proposals_at_most=2) is None
    assert storage.claim(study, at_most=3).number == 0


def test_a_waiting_trial_is_handed_out_once(storage):
    study = new_study(storage)
    assert storage.claim(study) is None
    assert storage.enqueue_trial(study, {"x": 0.5}, {"by": "me"}) == 0
    waiting = storage.trial(study, 0)
    assert (waiting.state, waiting.fixed, waiting.user_attrs) == (TrialState.WAITING, {"x": 0.5}, {"by": "me"})
    assert waiting.enqueued
    claim = storage.claim(study)
    assert (claim.number, claim.attempt) == (0, 1)
    assert storage.claim(study) is None
    assert storage.claim(study, 0) is None
    assert storage.claim(study, 5 if isinstance(storage, SqliteStorage) else 0) is None


def test_a_released_trial_waits_again_and_its_first_holder_has_lost_it(storage):
    study = new_study(storage)
    claim = storage.create_trial(study)
    storage.set_params(study, 0, 1, {"x": 0.5}, {"x": Float(0, 1)})
    storage.report(study, 0, 1, 0, 3.0)
    storage.release(study, 0, claim.attempt)
    waiting = storage.trial(study, 0)
    assert (waiting.state, waiting.params, waiting.intermediate_values) == (TrialState.WAITING, {"x": 0.5}, {})
    again = storage.claim(study)
    assert (again.number, again.attempt) == (0, 2)
    for change in (
        lambda: storage.report(study, 0, claim.attempt, 1, 0.0),
        lambda: storage.set_params(study, 0, claim.attempt, {}, {}),
        lambda: storage.set_user_attr(study, 0, claim.attempt, "a", 1),
        lambda: storage.add_segment(study, 0, claim.attempt, [1.0]),
        lambda: storage.release(study, 0, claim.attempt),
        lambda: storage.finish(study, 0, claim.attempt, TrialState.COMPLETE, [0.0]),
    ):
        with pytest.raises(TrialLost, match="trial 0 is RUNNING in attempt 2, not yours"):
            change()
    storage.finish(study, 0, again.attempt, TrialState.FAIL, None, "no luck")
    assert storage.trial(study, 0).error == "no luck"
    with pytest.raises(TrialLost, match="trial 0 is FAIL"):
        storage.finish(study, 0, again.attempt, TrialState.COMPLETE, [0.0])


def test_all_trials_of_an_owner_are_released_and_no_others(storage):
    study = new_study(storage)
    for owner in ("a", "b", None, "a"):
        storage.create_trial(study, owner)
    storage.add_segment(study, 3, 1, [1.0])
    storage.claim(study, 3, "a")
    storage.release_all(study, "a")
    states = [t.state for t in storage.trials(study)]
    assert states == [TrialState.WAITING, TrialState.RUNNING, TrialState.RUNNING, TrialState.PAUSED]


def test_settings_of_an_unfinished_trial_are_refused_to_another(storage):
    study, other = new_study(storage, "a"), new_study(storage, "b")
    domains = {"x": Float(0, 1), "c": Categorical([1, True, 1.0, (1, 2)])}

    def propose(params, study=study, distinct=True):
        number = storage.create_trial(study).number
        new = storage.set_params(study, number, 1, params, {name: domains[name] for name in params}, distinct=distinct)
        assert storage.trial(study, number).params == (params if new else {})
        assert storage.trial(study, number).distributions == ({n: domains[n] for n in params} if new else {})
        return number, new

    first, new = propose({"x": 0.5, "c": 1})
    assert new
    assert not propose({"c": 1, "x": 0.5})[1], "the order of names does not count"
    assert propose({"x": 0.5, "c": True})[1]
    assert propose({"x": 0.5, "c": 1.0})[1]
    assert propose({"x": 0.5, "c": (1, 2)})[1]
    assert propose({"x": 0.25, "c": 1})[1]
    assert propose({"x": 0.5})[1]
    assert propose({"x": 0.5, "c": 1}, other)[1], "another study's trials do not count"
    twin, new = propose({"x": 0.5, "c": 1}, distinct=False)
    assert new, "only who asks for it is refused"
    storage.finish(study, twin, 1, TrialState.COMPLETE, [0.0])
    storage.add_segment(study, first, 1, [1.0])
    assert not propose({"x": 0.5, "c": 1})[1], "a paused trial counts"
    storage.finish(study, first, 1, TrialState.PRUNED, None)
    third, new = propose({"x": 0.5, "c": 1})
    assert new, "finished trials do not count"
    assert storage.set_params(study, third, 1, {"x": 0.5, "c": 1}, domains, distinct=True), "nor does the trial itself"
    storage.release(study, third, 1)
    assert not propose({"x": 0.5, "c": 1})[1], "a trial that waits to be run again counts"
    assert propose({})[1] and propose({})[1]
    number, _ = propose({})
    assert storage.set_params(study, number, 1, {"c": 1}, {"c": domains["c"]}, distinct=True)
    assert not storage.set_params(study, number, 1, {"x": 0.5}, {"x": domains["x"]}, distinct=True)
    assert storage.trial(study, number).params == {"c": 1}


def test_of_threads_with_the_same_settings_one_gets_them(storage):
    study = new_study(storage)
    claims = [storage.create_trial(study) for _ in range(40)]
    got, problems = [], []

    def work(mine):
        try:
            for claim in mine:
                value = claim.number % 10 / 10
                if storage.set_params(study, claim.number, 1, {"x": value}, {"x": Float(0, 1)}, distinct=True):
                    got.append(value)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(claims[10 * i : 10 * i + 10],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert sorted(got) == [i / 10 for i in range(10)]


def test_segments_are_kept(storage):
    study = new_study(storage)
    first = storage.create_trial(study)
    storage.add_segment(study, 0, first.attempt, [3.0, 2.0])
    trial = storage.trial(study, 0)
    assert (trial.state, trial.steps, trial.intermediate_values) == (TrialState.PAUSED, 2, {1: 3.0, 2: 2.0})
    assert storage.claim(study) is None, "a paused trial is handed out by its number only"
    second = storage.claim(study, 0)
    storage.release(study, 0, second.attempt)
    assert storage.trial(study, 0).state is TrialState.PAUSED
    assert storage.trial(study, 0).intermediate_values == {1: 3.0, 2: 2.0}
    third = storage.claim(study, 0)
    storage.add_segment(study, 0, third.attempt, [1.0])
    storage.finish(study, 0, third.attempt, TrialState.COMPLETE, [0.5], segment=[0.7, 0.5])
    trial = storage.trial(study, 0)
    assert (trial.state, trial.steps, trial.value) == (TrialState.COMPLETE, 5, 0.5)
    assert list(trial.intermediate_values.values()) == [3.0, 2.0, 1.0, 0.7, 0.5]


def test_many_threads_get_distinct_trials_and_lose_none(storage):
    study = new_study(storage)
    numbers, problems = [], []

    def work():
        try:
            for _ in range(20):
                claim = storage.create_trial(study)
                storage.set_params(study, claim.number, 1, {"x": 0.5}, {"x": Float(0, 1)})
                storage.report(study, claim.number, 1, 0, 1.0)
                storage.finish(study, claim.number, 1, TrialState.COMPLETE, [float(claim.number)])
                numbers.append(claim.number)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert sorted(numbers) == list(range(80))
    assert [t.value for t in storage.trials(study)] == [float(n) for n in range(80)]


class Numbers:
    """A state is a number in a file."""

    suffix = ".txt"

    def save(self, state, path):
        path.write_text(str(state))

    def load(self, path):
        return int(path.read_text())


class Unsaved:
    """A task that cannot write its states down."""


@pytest.mark.parametrize("task", [Numbers(), Unsaved()], ids=["saves", "does not"])
def test_checkpoints_are_filed_under_trial_and_step(storage, task):
    store = storage.checkpoints(new_study(storage))
    assert store.take(0, 5, task) is None
    store.put(0, 5, 55, task)
    store.put(0, 7, 77, task)
    store.put(1, 5, 15, task)
    assert store.take(0, 6, task) is None
    store.drop(0, keep=7)
    assert store.take(0, 5, task) is None
    assert store.take(0, 7, task) == 77
    assert store.take(1, 5, task) == 15
    store.put(10, 1, 1, task)
    store.put(1, 2, 12, task)
    store.drop(1)
    assert store.take(1, 2, task) is None
    store.put(11, 1, 1, task)
    store.sweep({11, 12})
    assert store.take(11, 1, task) is None
    assert store.take(10, 1, task) == 1


# ------------------------------------------------------------------------------------- opening by name


def test_names_of_storages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (None, ":memory:", "sqlite://", "sqlite:///:memory:"):
        assert isinstance(open_storage(name), MemoryStorage)
    for name in ("sqlite:///a.db", f"sqlite:///{tmp_path}/a.db", "a.db", tmp_path / "a.db"):
        storage = open_storage(name)
        assert storage.path == tmp_path / "a.db"
        assert open_storage(storage) is storage
        storage.close()
    with pytest.raises(StorageError, match="'mysql://x' is not known"):
        open_storage("mysql://x")
    with pytest.raises(TypeError, match="got int"):
        open_storage(3)


def test_a_study_in_memory_does_not_travel():
    with pytest.raises(StorageError, match="cannot go to another process"):
        pickle.dumps(MemoryStorage())


# --------------------------------------------------------------------------------------- the SQLite file


def test_a_storage_travels_to_another_process_by_its_path(tmp_path):
    storage = SqliteStorage(tmp_path / "study.db")
    study = new_study(storage)
    again = pickle.loads(pickle.dumps(storage))
    again.create_trial(study)
    assert len(storage.trials(study)) == 1
    for opened in (storage, again):
        opened.close()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StorageError, match=f"there is no folder {tmp_path}/none"):
        SqliteStorage(tmp_path / "none" / "study.db")
    with pytest.raises(StorageError, match="is a folder"):
        SqliteStorage(tmp_path)
    with pytest.raises(StorageError, match="no such file"):
        tuner.load_study(storage=f"sqlite:///{tmp_path}/none.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the permissions of files do not bind this user")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StorageError, match=f"{tmp_path}/study.db cannot be used"):
        SqliteStorage(tmp_path / "study.db")
    tmp_path.chmod(stat.S_IRWXU)


def whole_file(tmp_path, trials=40):
    path = tmp_path / "study.db"
    study = tuner.create_study(storage=path, study_name="s", sampler=tuner.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    study.storage.close()
    return path


def test_a_file_of_another_kind_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("lr = 0.1\n" * 1000)
    with pytest.raises(StorageError, match=r"notes.txt is not a study: it is no SQLite file"):
        SqliteStorage(path)
    assert path.read_text() == "lr = 0.1\n" * 1000
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE studies (study_id INTEGER)")
    db.close()
    before = foreign.read_bytes()
    with pytest.raises(StorageError, match="of another program"):
        SqliteStorage(foreign)
    assert foreign.read_bytes() == before


def test_a_file_of_a_newer_version_is_left_alone(tmp_path):
    path = whole_file(tmp_path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StorageError, match=r"newer version \(format 99, this one reads 1\)"):
        SqliteStorage(path)


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
def test_a_damaged_file_is_named_and_never_read_as_if_whole(tmp_path, damage):
    path = whole_file(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "zeros":
        content[4096:] = bytes(len(content) - 4096)
    else:
        content[4096:] = bytes((7 * i + 3) % 251 for i in range(len(content) - 4096))
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"study\.db"):
        tuner.load_study(storage=path)


def test_values_in_the_file_are_json(tmp_path):
    with sqlite3.connect(whole_file(tmp_path, 2)) as db:
        rows = db.execute('SELECT "values", params, distributions, user_attrs FROM trials').fetchall()
    db.close()
    assert len(rows) == 2
    for row in rows:
        assert all(json.loads(text) is not None for text in row)


def test_a_reader_fetches_only_what_is_new(tmp_path):
    writer, reader = (SqliteStorage(tmp_path / "study.db") for _ in range(2))
    study = new_study(writer)
    for number in range(3):
        writer.create_trial(study)
        writer.finish(study, number, 1, TrialState.COMPLETE, [0.0])
    first = reader.trials(study)
    writer.create_trial(study)
    second = reader.trials(study)
    assert len(second) == 4
    assert all(a is b for a, b in zip(first, second[:3]))
    writer.close()
    reader.close()


def test_a_locked_file_is_waited_for(tmp_path):
    storage = SqliteStorage(tmp_path / "study.db")
    study = new_study(storage)
    other = sqlite3.connect(tmp_path / "study.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    timer.start()
    start = time.monotonic()
    assert storage.create_trial(study).number == 0
    assert time.monotonic() - start > 0.2
    timer.join()
    other.close()
    storage.close()


# ------------------------------------------------------------------------------------------- the owner


def test_a_process_is_dead_if_its_number_is_free_or_somebody_elses():
    place, pid, start, session = new_owner().rsplit("|", 3)
    assert not is_dead(new_owner(), None)
    assert process_of(new_owner()) == this_process()
    assert is_dead(f"{place}|{pid}|not {start}|{session}", None)
    assert is_dead(f"{place}|{2**22 + 1}|{start}|{session}", time.time())


def test_elsewhere_only_the_heartbeat_tells():
    elsewhere = "some other host|1|2|3"
    assert is_dead(elsewhere, None)
    assert not is_dead(elsewhere, time.time() - PATIENCE / 2)
    assert is_dead(elsewhere, time.time() - PATIENCE * 2)


def test_the_heart_beats_while_alive(tmp_path):
    storage = SqliteStorage(tmp_path / "study.db")
    with storage.alive():
        for _ in range(100):
            with storage._read() as db:
                owners = db.execute("SELECT owner, beat FROM owners").fetchall()
            if owners:
                break
            time.sleep(0.01)
    assert owners[0][0] == this_process()
    assert abs(owners[0][1] - time.time()) < 5
    storage.close()


def test_a_trial_that_kills_its_process_again_and_again_is_failed(tmp_path):
    storage = SqliteStorage(tmp_path / "study.db")
    study = new_study(storage)
    storage.create_trial(study)
    for crash in range(1, 4):
        with storage._write() as db:
            db.execute("UPDATE trials SET owner = 'gone|1|1|1'")
        assert storage.adopt_abandoned(study) == [0]
        assert storage.adopt_abandoned(study) == []
        assert storage.trial(study, 0).state is (TrialState.WAITING if crash < 3 else TrialState.FAIL)
        if crash < 3:
            assert storage.claim(study).attempt == crash + 1
    assert "died 3 times" in storage.trial(study, 0).error
    storage.close()
