"""A study, with Optuna's names and meanings."""

import math
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import STORAGES

import tuner
from tuner import Categorical, Float, Int, Space, SpaceError, StorageError, TrialLost, TrialPruned, TrialState
from tuner.samplers import AutoSampler, QMCSampler, RandomSampler


@pytest.fixture(params=STORAGES, ids=str)
def make_study(request, tmp_path):
    """create_study in each storage."""
    storages = []

    def make(**options):
        options.setdefault("sampler", RandomSampler(seed=0))
        storage = request.param.open(tmp_path)
        storages.append(storage)
        return tuner.create_study(storage=storage, **options)

    yield make
    for storage in storages:
        storage.close()


def parabola(trial):
    return (trial.suggest_float("x", -5, 5) - 1) ** 2


def test_importing_the_tuner_is_light():
    code = (
        "import sys, tuner; heavy = {'scipy', 'rich', 'nanonet', 'kernels', 'numba', 'optuna'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------- optimizing


def test_a_study_finds_and_keeps_the_best(make_study):
    study = make_study()
    study.optimize(parabola, n_trials=30)
    values = [t.value for t in study.trials]
    assert len(values) == 30
    assert study.best_value == min(values)
    assert study.best_trial.number == values.index(min(values))
    assert study.best_params == study.best_trial.params
    assert study.direction == "minimize"
    most = make_study(direction="maximize", study_name="most")
    most.optimize(parabola, n_trials=10)
    assert most.best_value == max(t.value for t in most.trials)


@pytest.mark.parametrize("n_jobs", [1, 3, -1])
def test_the_same_seed_gives_the_same_trials(make_study, n_jobs):
    studies = [make_study(study_name=name, sampler=QMCSampler(seed=4)) for name in "ab"]
    studies[0].optimize(parabola, n_trials=20)
    studies[1].optimize(parabola, n_trials=20, n_jobs=n_jobs)
    assert [t.params for t in studies[0].trials] == [t.params for t in studies[1].trials]


def test_n_trials_counts_this_call_or_the_total(make_study):
    study = make_study()
    study.optimize(parabola, n_trials=3)
    study.optimize(parabola, n_trials=3)
    assert len(study.trials) == 6
    study.optimize(parabola, n_trials=8, total=True)
    assert len(study.trials) == 8
    study.optimize(parabola, n_trials=8, total=True)
    assert len(study.trials) == 8
    study.optimize(parabola, n_trials=0)
    assert len(study.trials) == 8
    with pytest.raises(ValueError, match="total=True wants n_trials"):
        study.optimize(parabola, total=True)


def test_a_study_ends_in_time(make_study):
    study = make_study()
    start = time.monotonic()
    study.optimize(lambda trial: time.sleep(0.02) or 1.0, timeout=0.2)
    assert 0.2 <= time.monotonic() - start < 2
    assert 1 <= len(study.trials) <= 11
    study.optimize(parabola, timeout=0)
    assert len(study.trials) <= 11


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("bad", [math.nan, None, "text", [1.0, 2.0], object()])
def test_what_is_no_number_fails_its_trial_and_is_never_best(make_study, bad, n_jobs):
    study = make_study()
    study.optimize(lambda trial: bad if trial.number % 2 else 5.0, n_trials=6, n_jobs=n_jobs)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.FAIL] * 3
    assert all(t.values is None and "value" in t.error for t in study.trials[1::2])
    assert study.best_value == 5.0
    only = make_study(study_name="only")
    only.optimize(lambda trial: math.nan, n_trials=2)
    with pytest.raises(ValueError, match="no trial is complete yet"):
        only.best_trial  # noqa: B018


def test_infinite_values_count(make_study):
    study = make_study()
    study.optimize(lambda trial: math.inf if trial.number else 1.0, n_trials=2)
    assert study.trials[1].value == math.inf
    assert study.best_trial.number == 0


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_exception_fails_its_trial_and_is_raised_unless_caught(make_study, n_jobs):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number == 2:
            raise OSError("the disk is gone")
        return x

    study = make_study()
    with pytest.raises(OSError, match="the disk is gone"):
        study.optimize(objective, n_trials=10, n_jobs=n_jobs)
    trial = study.trials[2]
    assert trial.state is TrialState.FAIL
    assert trial.error == "OSError: the disk is gone"
    assert trial.params
    assert all(t.state.is_finished() for t in study.trials)
    with pytest.raises(OSError, match="gone"):
        make_study(study_name="b").optimize(objective, n_trials=5, n_jobs=n_jobs, catch=(ValueError,))
    caught = make_study(study_name="c")
    caught.optimize(objective, n_trials=5, n_jobs=n_jobs, catch=OSError)
    assert [t.state for t in caught.trials].count(TrialState.COMPLETE) == 4


def test_callbacks_see_each_trial_and_may_stop_the_study(make_study):
    seen = []

    def callback(study, trial):
        seen.append((trial.number, trial.state, trial.value))
        if trial.number == 3:
            study.stop()

    study = make_study()
    study.optimize(parabola, n_trials=10, callbacks=[callback])
    assert seen == [(t.number, t.state, t.value) for t in study.trials]
    assert len(seen) == 4
    with pytest.raises(RuntimeError, match="while optimize runs"):
        study.stop()
    study.optimize(lambda trial: study.stop() or 1.0, n_trials=10)
    assert len(study.trials) == 5
    with pytest.raises(ZeroDivisionError):
        study.optimize(parabola, n_trials=2, callbacks=[lambda study, trial: 1 / 0])
    study.optimize(parabola, n_trials=1)


def test_optimize_does_not_nest(make_study):
    study = make_study()
    with pytest.raises(RuntimeError, match="is running already"):
        study.optimize(lambda trial: study.optimize(parabola, n_trials=1), n_trials=1)


def test_trials_run_side_by_side(make_study):
    meeting = threading.Barrier(3, timeout=10)
    study = make_study()
    study.optimize(lambda trial: meeting.wait() * 0.0, n_trials=6, n_jobs=3)
    assert len(study.trials) == 6


def test_any_executor_will_do(make_study):
    with ThreadPoolExecutor(2) as executor:
        study = make_study()
        study.optimize(parabola, n_trials=9, n_jobs=2, executor=executor)
        assert executor.submit(int).result() == 0, "the user's executor is not shut down"
    assert sorted(t.number for t in study.trials) == list(range(9))


def test_a_progress_bar_can_be_shown(capsys):
    study = tuner.create_study(sampler=RandomSampler(seed=0))
    study.optimize(parabola, n_trials=3, show_progress_bar=True, gc_after_trial=True)
    assert "3/3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"objective": 3}, TypeError, "must be a function of a trial or a tuner.Resumable, got 3"),
        ({"n_trials": -1}, ValueError, "n_trials must be a whole number >= 0, got -1"),
        ({"n_trials": 2.5}, ValueError, "n_trials must be a whole number >= 0, got 2.5"),
        ({"timeout": math.nan}, ValueError, "timeout must be a number of seconds or None, got nan"),
        ({"timeout": "9"}, ValueError, "timeout must be a number of seconds or None, got '9'"),
        ({"cost": "9"}, ValueError, "cost must be a number >= 0, got '9'"),
        ({"catch": "x"}, TypeError, "catch must be an exception class or several of them, got 'x'"),
        ({"callbacks": print}, TypeError, "callbacks must be a list of functions"),
        ({"callbacks": [3]}, TypeError, r"callbacks must be a list of functions .*, got \[3\]"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be a whole number >= 1, or -1"),
        ({"total_steps": 5}, ValueError, "total_steps is for a tuner.Resumable"),
    ],
)
def test_arguments_of_optimize_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        tuner.create_study().optimize(**{"objective": parabola, "n_trials": 1} | options)


def test_whole_numbers_may_be_numpys():
    study = tuner.create_study(sampler=RandomSampler(seed=0))
    study.optimize(parabola, n_trials=np.int64(3), n_jobs=np.int64(2), timeout=np.float32(60))
    assert len(study.trials) == 3


# ------------------------------------------------------------------------------------------ suggestions


def test_suggestions_have_optunas_meaning(make_study):
    def objective(trial):
        x = trial.suggest_float("x", 0.1, 0.5, step=0.1)
        y = trial.suggest_float("y", 1e-5, 1, log=True)
        n = trial.suggest_int("n", 1, 9, step=4)
        m = trial.suggest_int("m", 1, 100, log=True)
        c = trial.suggest_categorical("c", ("a", None, 2, False))
        assert x in (0.1, 0.2, 0.3, 0.4, 0.5)
        assert 1e-5 <= y <= 1
        assert n in (1, 5, 9)
        assert type(m) is int
        assert c in ("a", None, 2, False)
        assert trial.suggest_float("x", 0.1, 0.5, step=0.1) == x
        assert trial.params == {"x": x, "y": y, "n": n, "m": m, "c": c}
        assert list(trial.distributions) == list("xynmc")
        trial.set_user_attr("seen", [n, c])
        assert trial.user_attrs == {"seen": [n, c]}
        return y

    study = make_study()
    study.optimize(objective, n_trials=20)
    assert len({repr(t.params["c"]) for t in study.trials}) == 4
    assert study.trials[0].user_attrs["seen"][0] == study.trials[0].params["n"]


def test_another_range_for_a_known_parameter_is_reported(make_study):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        with pytest.warns(RuntimeWarning, match="already has x="):
            assert trial.suggest_float("x", 5, 6) == x
        return x

    make_study().optimize(objective, n_trials=1)


def test_bad_ranges_fail_the_trial_with_a_named_error(make_study):
    study = make_study()
    with pytest.raises(SpaceError, match="low must not be above high, got low=2.0, high=1.0"):
        study.optimize(lambda trial: trial.suggest_float("x", 2, 1), n_trials=1)
    assert study.trials[0].state is TrialState.FAIL


def test_reports_are_checked(make_study):
    def objective(trial):
        trial.report(1, 0)
        with pytest.warns(RuntimeWarning, match="step 0 was reported already"):
            trial.report(2, 0)
        with pytest.raises(TypeError, match="value must be a number, got 'high'"):
            trial.report("high", 1)
        for step in (-1, 0.5, True):
            with pytest.raises(ValueError, match="step must be a whole number >= 0"):
                trial.report(1, step)
        assert not trial.should_prune()
        raise TrialPruned

    study = make_study()
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert (trial.state, trial.value, trial.last_step) == (TrialState.PRUNED, 1.0, 0)


# --------------------------------------------------------------------------------------------- the space


def test_a_fixed_space_sets_all_parameters_before_the_objective_starts(make_study):
    space = Space(
        {"n": Int(1, 2), "w": Float(0, 1)}, {"w": {"parent": "n", "at_least": 2}}, defaults=[{"n": 2, "w": 0.25}]
    )
    study = make_study(space=space, sampler=AutoSampler(seed=0))
    seen = []

    def objective(trial):
        seen.append(trial.params)
        assert trial.suggest_int("n", 1, 2) == trial.params["n"]
        return trial.params.get("w", 1.0)

    study.optimize(objective, n_trials=12)
    assert seen == [t.params for t in study.trials]
    assert seen[0] == {"n": 2, "w": 0.25}
    assert {"w" in p for p in seen} == {True, False}
    assert all(("w" in p) == (p["n"] == 2) for p in seen)


def test_a_study_on_disk_remembers_its_space(tmp_path):
    space = Space({"x": Float(0, 1), "c": Categorical([(1, 2), None])}, defaults=[{"x": 0.5, "c": None}])
    url = f"sqlite:///{tmp_path}/s.db"
    tuner.create_study(storage=url, study_name="s", space=space)
    assert tuner.load_study(storage=url).space == space
    with pytest.raises(SpaceError, match="cannot be stored as JSON"):
        tuner.create_study(storage=url, space=Space({"c": Categorical([print])}))


def test_memory_takes_any_choice():
    study = tuner.create_study(space=Space({"f": Categorical([min, max])}))
    study.optimize(lambda trial: trial.params["f"](1, 2), n_trials=4)
    other = tuner.create_study()
    other.optimize(lambda trial: trial.suggest_categorical("f", [min, max])(1, 2), n_trials=4)
    assert study.best_params == other.best_params == {"f": min}


# ------------------------------------------------------------------------------------------ ask and tell


def test_ask_and_tell(make_study):
    study = make_study()
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    told = study.tell(trial, x)
    assert (told.state, told.value, told.params) == (TrialState.COMPLETE, x, {"x": x})
    fixed = study.ask({"n": Int(0, 3)})
    assert fixed.params["n"] in range(4)
    assert study.tell(fixed.number, 2.0).value == 2.0
    assert study.tell(study.ask(), state=TrialState.FAIL).state is TrialState.FAIL
    assert study.tell(study.ask(), math.nan).state is TrialState.FAIL
    pruned = study.ask()
    pruned.report(7.0, 3)
    assert study.tell(pruned, state=TrialState.PRUNED).value == 7.0
    with pytest.raises(ValueError, match="trial 0 is COMPLETE; only a running trial"):
        study.tell(0, 1.0)
    assert study.tell(0, 1.0, skip_if_finished=True).value == x
    with pytest.raises(KeyError, match="no trial 99"):
        study.tell(99, 1.0)
    waiting = study.ask()
    with pytest.raises(ValueError, match="cannot be COMPLETE: the objective's value is NaN"):
        study.tell(waiting, math.nan, TrialState.COMPLETE)
    with pytest.raises(ValueError, match="has no values"):
        study.tell(waiting, 1.0, TrialState.PRUNED)
    with pytest.raises(ValueError, match="state must be COMPLETE, PRUNED or FAIL, got RUNNING"):
        study.tell(waiting, 1.0, TrialState.RUNNING)
    with pytest.raises(TrialLost):
        pruned.report(1.0, 4)


def test_an_asked_trial_waits_for_tell_however_often_the_study_is_opened(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    number = tuner.create_study(storage=url, study_name="s").ask().number
    study = tuner.load_study(storage=url)
    study.optimize(parabola, n_trials=2)
    assert study.trials[number].state is TrialState.RUNNING
    assert tuner.load_study(storage=url).tell(number, 0.5).value == 0.5


# ------------------------------------------------------------------------------------------------ queue


def test_enqueued_settings_go_first(make_study):
    study = make_study()
    study.enqueue_trial({"x": 1.0}, user_attrs={"who": "me"})
    study.enqueue_trial({"x": 1.0}, skip_if_exists=True)
    study.enqueue_trial({"x": 2.0})
    assert [t.state for t in study.trials] == [TrialState.WAITING] * 2
    study.optimize(parabola, n_trials=3)
    assert [t.params["x"] for t in study.trials][:2] == [1.0, 2.0]
    assert study.trials[0].user_attrs == {"who": "me"}
    assert study.best_trial.number == 0
    study.enqueue_trial({"x": 1.0}, skip_if_exists=True)
    assert len(study.trials) == 3
    study.enqueue_trial({"x": 99.0})
    with pytest.raises(SpaceError, match=r"trial 3 was given x=99.0, which is not in Float"):
        study.optimize(parabola, n_trials=1)


def test_enqueued_settings_may_leave_parameters_open(make_study):
    space = Space({"x": Float(0, 1), "n": Int(0, 3)})
    study = make_study(space=space)
    study.enqueue_trial({"n": 3})
    with pytest.raises(SpaceError, match="n=4 is not in Int"):
        study.enqueue_trial({"n": 4})
    study.optimize(lambda trial: trial.params["x"], n_trials=1)
    assert study.trials[0].params["n"] == 3
    assert "x" in study.trials[0].params


# --------------------------------------------------------------------------------- several objectives


def test_the_pareto_front_of_two_objectives(make_study):
    study = make_study(directions=["minimize", "maximize"])
    values = [(1, 1), (2, 2), (2, 1), (0, 0), (3, 2)]
    study.optimize(lambda trial: values[trial.number], n_trials=5)
    assert [t.number for t in study.best_trials] == [0, 1, 3]
    with pytest.raises(RuntimeError, match="several objectives"):
        study.direction  # noqa: B018
    study.optimize(lambda trial: 1.0, n_trials=1)
    assert study.trials[-1].state is TrialState.FAIL
    assert "gave 1 values, the study has 2 directions" in study.trials[-1].error
    with pytest.raises(TypeError, match="value must be a sequence of 2 numbers, one per objective, got 1.0"):
        study.ask().report(1.0, 0)
    with pytest.raises(ValueError, match="one per objective, got 3"):
        study.ask().report([1.0, 2.0, 3.0], 0)


# ----------------------------------------------------------------------------------- making and loading


def test_studies_are_found_by_name(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    first = tuner.create_study(storage=url, study_name="first", direction="maximize")
    assert tuner.load_study(storage=url).study_name == "first"
    assert tuner.load_study(storage=url).direction == "maximize"
    with pytest.raises(tuner.DuplicatedStudyError, match="load_if_exists=True"):
        tuner.create_study(storage=url, study_name="first")
    assert tuner.create_study(storage=url, study_name="first", load_if_exists=True).study_id == first.study_id
    with pytest.raises(StorageError, match=r"is to \['maximize'\], not to \['minimize'\]"):
        tuner.create_study(storage=url, study_name="first", load_if_exists=True, direction="minimize")
    tuner.create_study(storage=url)
    with pytest.raises(ValueError, match="exactly one study"):
        tuner.load_study(storage=url)
    with pytest.raises(KeyError, match="no study 'third'"):
        tuner.load_study(storage=url, study_name="third")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"direction": "up"}, ValueError, "direction must be 'minimize' or 'maximize', got 'up'"),
        ({"direction": "minimize", "directions": ["minimize"]}, ValueError, "not both"),
        ({"directions": []}, ValueError, "directions is empty"),
        ({"sampler": "tpe"}, TypeError, "sampler must be a tuner.samplers object such as AutoSampler"),
        ({"pruner": 3}, TypeError, "pruner must be a tuner.pruners object"),
        ({"space": {"x": 1}}, TypeError, "space must be a tuner.Space or None, got dict"),
        ({"storage": "redis://x"}, StorageError, "'redis://x' is not known"),
    ],
)
def test_arguments_of_create_study_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        tuner.create_study(**options)


def test_records_that_users_get_are_their_own(make_study):
    study = make_study()
    study.optimize(parabola, n_trials=1)
    study.trials[0].params["x"] = "spoiled"
    assert study.trials[0].params["x"] != "spoiled"
    study.set_user_attr("who", ["me"])
    assert study.user_attrs == {"who": ["me"]}


def test_optuna_programs_run_with_the_import_changed():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial):
        x = trial.suggest_float("x", -10, 10)
        if trial.suggest_categorical("kind", ["a", "b"]) == "b":
            x += trial.suggest_int("n", 1, 3)
        for step in range(3):
            trial.report(x**2 + step, step)
            if trial.should_prune():
                raise library.TrialPruned()
        return x**2

    for library in (optuna, tuner):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = library.create_study(
                direction="minimize",
                sampler=library.samplers.RandomSampler(seed=0),
                pruner=library.pruners.MedianPruner(n_startup_trials=3),
            )
        study.optimize(objective, n_trials=20)
        assert len(study.trials) == 20
        assert study.best_value == study.best_trial.value
        assert set(study.best_params) >= {"x", "kind"}
        assert study.best_trial.duration is not None
        assert {t.state.name for t in study.get_trials(states=(type(study.trials[0].state).PRUNED,))} <= {"PRUNED"}
