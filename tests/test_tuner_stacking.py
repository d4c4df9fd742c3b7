"""Trials that are trained as one: how they come to be of one kind, and that each is what it would be alone."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from test_tuner_tune import blobs, line

import tuner
from nanonet import data
from nanonet.errors import OptionError
from nanonet.settings import Settings
from nanonet.stacked import step_flop
from nanonet.training import Run
from tuner import Categorical, Float, Int, Space, TrialState
from tuner.pruners import MedianPruner, NopPruner, PopulationTrainingPruner
from tuner.samplers import GridSampler, QMCSampler, RandomSampler
from tuner.stacking import shared_structure
from tuner.trial import FrozenTrial
from tuner.tune import Parts, TrainingRuns
from tuner.tuning.course import Course
from tuner.tuning.objectives import make

ROOT = Path(__file__).parents[1]


class Sums(tuner.Stackable):
    """A state is [settings, steps done, sum]. Its `calls` are the trials that went on together."""

    def __init__(self, stack=4, max_steps=9, ends=None):
        self.stack, self.max_steps, self.ends, self.calls = stack, max_steps, ends or {}, []

    def kind(self, params):
        return params["shape"], 3 if params["shape"] == "small" else self.stack

    def structure(self, params):
        return {"shape": params["shape"]}

    def start(self, trial):
        if self.ends.get(trial.number) == "start":
            raise ValueError("no start")
        return [dict(trial.params), 0, 0.0, trial.number]

    def advance(self, state, steps):
        (found,) = self.advance_together([state], [steps])
        if isinstance(found, Exception):
            raise found
        return found

    def advance_together(self, states, steps):
        self.calls.append([state[3] for state in states])
        return [self._one(*pair) for pair in zip(states, steps, strict=True)]

    def _one(self, state, steps):
        params, done, total, number = state
        end = self.ends.get(number)
        if isinstance(end, Exception):
            return end
        values = []
        for _ in range(steps):
            done += 1
            total = 0.9 * total + params["x"] / done + (params["shape"] == "large")
            values.append(float("nan") if end == "nan" else total)
        return [params, done, total, number], values


SHAPES = Space({"x": Float(0, 1), "shape": Categorical(["small", "large", "other"])})


def study_of(pruner=None, storage=None, sampler=None, space=SHAPES):
    return tuner.create_study(
        storage=storage, pruner=pruner or NopPruner(), sampler=sampler or RandomSampler(seed=1), space=space
    )


# --------------------------------------------------------------------------------------- any objective


def records(study):
    return [(t.state, t.params, t.steps, t.intermediate_values, t.values, t.user_attrs) for t in study.trials]


@pytest.mark.parametrize(
    "pruner", [NopPruner, lambda: MedianPruner(2, interval_steps=2), tuner.pruners.HyperbandPruner]
)
@pytest.mark.parametrize("executor", [None, "threads"])
def test_trials_of_one_kind_go_on_together_and_end_as_alone(pruner, executor):
    study, objective = study_of(pruner()), Sums()
    study.optimize(objective, n_trials=30, executor=executor, n_jobs=1 if executor is None else 2)
    assert {t.state for t in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    shape = {t.number: t.params["shape"] for t in study.trials}
    for call in objective.calls:
        assert len({shape[number] for number in call}) == 1
        assert len(set(call)) == len(call) <= (3 if shape[call[0]] == "small" else 4)
    assert max(map(len, objective.calls)) >= 3
    for trial in study.trials:
        _, values = Sums()._one([trial.params, 0, 0.0, trial.number], trial.steps)
        assert list(trial.intermediate_values.values()) == values


def test_what_goes_wrong_with_one_leaves_the_others_alone():
    ends = {1: ValueError("no value"), 2: tuner.TrialPruned(), 3: "nan", 4: "start"}
    study, objective = study_of(), Sums(stack=8, ends=ends)
    study.enqueue_trial({"shape": "large"})
    for _ in range(7):
        study.enqueue_trial({"shape": "large"})
    study.optimize(objective, n_trials=8, catch=ValueError)
    states = [t.state.name for t in study.trials]
    assert states == ["COMPLETE", "FAIL", "PRUNED", "FAIL", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert objective.calls == [[0, 1, 2, 3, 5, 6, 7]]
    assert study.trials[1].error == "ValueError: no value" and "NaN" in study.trials[3].error
    assert study.trials[4].error == "ValueError: no start"


@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("pruner", [NopPruner, tuner.pruners.HyperbandPruner])
def test_stacks_that_are_too_large_for_the_memory_are_run_by_halves(room, pruner):
    class Large(Sums):
        def advance_together(self, states, steps):
            found = super().advance_together(states, steps)
            if len(states) > room:
                raise MemoryError("too large")
            return found

    studies = [study_of(pruner()) for _ in range(2)]
    large = Large(stack=8)
    for study, objective in zip(studies, (large, Sums(stack=8)), strict=True):
        study.optimize(objective, n_trials=20)
    assert any(1 < len(call) <= room for call in large.calls) == (room > 1)
    assert records(studies[0]) == records(studies[1])


def test_an_error_that_is_not_caught_ends_the_study_and_keeps_the_others():
    study = study_of()
    for _ in range(4):
        study.enqueue_trial({"shape": "large"})
    with pytest.raises(ValueError, match="on purpose"):
        study.optimize(Sums(ends={1: ValueError("on purpose")}), n_trials=4)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_budgets_hold():
    study, objective = study_of(), Sums()
    study.optimize(objective, n_steps=50)
    assert sum(t.steps for t in study.trials) == 45
    study.optimize(objective, n_trials=9, total=True)
    assert sum(t.state is TrialState.COMPLETE for t in study.trials) == 9
    before = len(objective.calls)
    study.optimize(objective, timeout=0)
    assert len(objective.calls) == before and len(study.trials) == 9


def test_an_executor_of_several_devices_takes_stacks():
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        study = study_of()
        study.optimize(Sums(), n_trials=20, executor=tuner.devices.Devices({"a": (one, 1), "b": (other, 1)}))
    assert all(t.state is TrialState.COMPLETE for t in study.trials)
    assert all(t.user_attrs["device"] in ("a", "b") for t in study.trials)


# -------------------------------------------------------------------------------- the shared structure


@pytest.mark.parametrize(("stack", "structures"), [(1, 256), (8, 43), (16, 31), (10**6, 25)])
def test_structures_are_shared_by_a_quarter_at_most(stack, structures):
    class Objective(Sums):
        def kind(self, params):
            return params["shape"], stack

    trials = []
    for number in range(256):
        shared = shared_structure(Objective(), trials)
        trials.append(FrozenTrial(number, params={"shape": number, "x": 0.1, **shared}))
    seen = [trial.params["shape"] for trial in trials]
    assert len(set(seen)) == structures
    assert seen[:9] == list(range(9))
    assert all(seen.count(shape) <= max(stack, 1) for shape in seen)
    assert all(seen.count(shape) <= max(seen.index(shape) // 4, 1) for shape in seen)


def test_what_was_enqueued_or_goes_on_from_another_trial_shares_nothing():
    free = [FrozenTrial(number, params={"shape": number}) for number in range(12)]
    assert shared_structure(Sums(), free) == {"shape": 11}
    later = FrozenTrial(12, params={"shape": 0}, enqueued=True), FrozenTrial(13)
    assert shared_structure(Sums(), [*free, *later]) == {"shape": 11}
    assert shared_structure(Sums(), []) == {}


@pytest.mark.parametrize("sampler", [RandomSampler, QMCSampler])
def test_the_rest_of_the_settings_is_the_samplers_own(sampler):
    alone, stacked = study_of(sampler=sampler(seed=3)), study_of(sampler=sampler(seed=3))
    alone.optimize(Sums(stack=1), n_trials=40)
    stacked.optimize(Sums(stack=8), n_trials=40)
    pairs = list(zip(alone.trials, stacked.trials, strict=True))
    assert [a.params["x"] for a, _ in pairs] == [b.params["x"] for _, b in pairs]
    changed = [a.params["shape"] != b.params["shape"] for a, b in pairs]
    assert any(changed) and not any(changed[:9])
    assert not any(b.fixed or b.enqueued for _, b in pairs)


def test_a_trial_that_was_there_already_is_not_made_by_sharing():
    space = Space({"x": Int(0, 3), "shape": Categorical(["small", "large", "other"])})
    study = study_of(space=space)
    study.optimize(Sums(stack=4), n_trials=12)
    assert len({(t.params["x"], t.params["shape"]) for t in study.trials}) == 12
    grid = study_of(space=space, sampler=GridSampler())
    grid.optimize(Sums(stack=4))
    assert len({(t.params["x"], t.params["shape"]) for t in grid.trials}) == len(grid.trials) == 12


def test_a_study_goes_on_in_another_space():
    study = study_of()
    study.optimize(Sums(stack=8), n_trials=20)
    parameters = {"x": Float(0, 1), "shape": Categorical(["large", "huge"])}
    other = tuner.study.Study(
        study.storage.study(study.study_name), study.storage, RandomSampler(seed=1), NopPruner(), Space(parameters)
    )
    other.optimize(Sums(stack=8), n_trials=20)
    assert {t.params["shape"] for t in other.trials[20:]} == {"large", "huge"}
    assert all(t.state is TrialState.COMPLETE for t in other.trials)


# ---------------------------------------------------------------------------------------------- tune

NUMBERS = ("learning_rate", "weight_decay", "label_smoothing", "momentum", "optimizer", "schedule", "batch_size")
BASE = Settings(hidden=(12,), batch_size=32, learning_rate=0.01)
SEARCH = {"trials": 24, "max_epochs": 9, "n_jobs": 1, "base": BASE, "space": NUMBERS, "sampler": RandomSampler(seed=2)}


def as_alone(result, x, y, validation, epochs=9, restart=0, tolerance=3e-3):
    """Each trial's curve, against single runs with its settings."""
    parts = Parts.of(data.from_arrays(x, y), validation, 0.2, 0)
    (dataset,) = [data.from_arrays(x, y)]
    objective = make("loss", None, dataset.task, dataset.outputs)
    base = BASE.replace(restart=restart)
    folds = len(parts.folds)
    course = Course(folds, [restart, epochs] if restart else [epochs], bool(restart))
    work = TrainingRuns([parts], [objective], base, course)
    count = 0
    for trial in result.study.trials:
        if trial.steps:
            _, values = work.advance(work.start(trial), trial.steps)
            found = [value[0] if isinstance(value, list) else value for value in trial.intermediate_values.values()]
            np.testing.assert_allclose(found, values, rtol=tolerance, atol=tolerance)
            count += 1
    return count


@pytest.mark.parametrize("validation", ["split", 3])
def test_each_trial_is_what_it_would_be_alone(validation):
    x, y = blobs(200)
    options = SEARCH | {"metric": "loss", "validation": validation, "pruner": NopPruner()}
    result = tuner.tune(x, y, stack=6, **options)
    assert as_alone(result, x, y, validation) == 24
    single = tuner.tune(x, y, stack=False, **options)
    assert sum(a.params == b.params for a, b in zip(result.study.trials, single.study.trials)) >= 9
    for a, b in zip(result.study.trials, single.study.trials, strict=True):
        assert (a.state, a.steps, a.user_attrs, a.fixed, a.enqueued) == (b.state, b.steps, b.user_attrs, {}, False)


def test_brackets_and_values_are_as_alone_too():
    x, y = line(150)
    options = SEARCH | {"trials": 16, "validation": 3, "max_epochs": 6}
    result = tuner.tune(x, y, stack=5, **options)
    states = [trial.state for trial in result.study.trials]
    assert TrialState.PRUNED in states and TrialState.COMPLETE in states
    restart = result.best_trial.steps // 3
    assert restart == 6
    assert as_alone(result, x, y, 3, epochs=6, restart=2) == 16


def test_stacked_and_single_searches_both_find_good_settings_and_a_seed_gives_the_same_again():
    x, y = blobs(300)
    options = {"trials": 20, "max_epochs": 9, "n_jobs": 1, "validation": 3, "seed": 4}
    single = tuner.tune(x, y, stack=False, **options)
    stacked = tuner.tune(x, y, stack=8, **options)
    again = tuner.tune(x, y, stack=8, **options)
    assert min(single.validation_score, stacked.validation_score) > 0.9
    assert stacked.validation_score > single.validation_score - 0.02
    assert records(stacked.study) == records(again.study)
    for name, value in stacked.model.state_dict().items():
        np.testing.assert_array_equal(value, again.model.state_dict()[name])
    assert records(tuner.tune(x, y, **options).study) == records(single.study)  # "auto" stacks nothing here


def test_a_trial_that_diverges_or_is_stopped_does_not_disturb_the_others():
    x, y = blobs(150)
    rates = Categorical([0.001, 0.01, 0.03, 0.1, 1e30])
    space = Space({"learning_rate": rates, "early_stopping": Int(0, 3), "seed": Int(0, 999)})
    options = {"max_epochs": 8, "n_jobs": 1, "base": BASE.replace(optimizer="sgd"), "metric": "loss"}
    options |= {"validation": "split", "pruner": MedianPruner(3, interval_steps=2), "sampler": RandomSampler(seed=5)}
    result = tuner.tune(x, y, stack=8, trials=24, space=space, **options)
    trials = result.study.trials
    failed = [t for t in trials if t.state is TrialState.FAIL]
    assert failed and all("NaN" in t.error and t.params["learning_rate"] > 1 for t in failed)
    assert any(t.state is TrialState.PRUNED for t in trials)
    part = Parts.of(data.from_arrays(x, y), "split", 0.2, 0).folds[0]
    good = [t for t in trials if t.params["learning_rate"] < 0.3]
    assert len({t.steps for t in good}) > 1
    for trial in good:
        settings = options["base"].replace(epochs=8, **trial.params)
        run = Run(settings, part.x, part.y, (part.x_validation, part.y_validation), classes=3)
        losses = [epoch["val_loss"] for epoch in run.advance(trial.steps)]
        np.testing.assert_allclose(list(trial.intermediate_values.values()), losses, rtol=5e-3, atol=1e-4)


def test_measures_that_want_the_model_and_constraints_are_stacked():
    x, y = blobs(150)
    options = SEARCH | {"trials": 12, "max_epochs": 3, "validation": 2}
    options |= {"metric": ["loss", "noise(0.2)"], "constraints": {"fgsm(0.1)": ">= 0.2", "parameters": "<= 200"}}
    single, stacked = (tuner.tune(x, y, stack=stack, **options) for stack in (1, 6))
    for a, b in zip(single.study.trials[:9], stacked.study.trials[:9], strict=True):
        assert (a.state, a.params, a.user_attrs.keys()) == (b.state, b.params, b.user_attrs.keys())
        np.testing.assert_allclose(a.values or (), b.values or (), atol=0.03)
    assert any(trial.values for trial in stacked.study.trials)


def test_settings_that_change_in_mid_run_are_stacked():
    x, y = blobs(150)
    pruner = PopulationTrainingPruner(size=6, interval=2)
    result = tuner.tune(x, y, stack=6, **SEARCH | {"trials": 6, "max_epochs": 6, "pruner": pruner, "validation": 2})
    assert any(trial.parent for trial in result.study.trials)
    assert result.validation_score > 0.8


def test_what_stacks_and_what_does_not():
    x, y = blobs(60)
    parts = Parts.of(data.from_arrays(x, y), "split", 0.2, 0)
    objective = make("accuracy", None, "classification", 3)
    course = Course(1, [4], False)

    def work(device, stack, base=BASE):
        return TrainingRuns([parts], [objective], base, course, (), device, stack)

    assert work("cpu", "auto").stack == work("cpu", None).stack == 1
    assert work("cpu", 5).kind({})[1] == 5
    assert work("cuda", "auto").kind({})[1] == 16
    wide = Settings(hidden=(2048, 2048), batch_size=128)
    assert work("cuda", "auto", wide).kind({})[1] == 1
    assert work("cuda", 7, wide).kind({})[1] == 7
    assert [work("cuda", "auto", base)._home(base) for base in (BASE, wide)] == ["cpu", "cuda"]
    assert work("cpu", 7, BASE.replace(batch_norm=True)).kind({}) == (None, 1)
    assert step_flop(Settings(hidden=(3,), batch_size=2), 5, 4) == 6 * 2 * (15 + 12)
    impossible = BASE.replace(optimizer="sgd", nesterov=True)
    assert work("cpu", 7, impossible).kind({"momentum": 0.0}) == (None, 1)
    kinds = [work("cpu", 7).kind(params)[0] for params in ({}, {"optimizer": "sgd"}, {"dropout": 0.3})]
    assert kinds[0] == kinds[2] != kinds[1]
    for wrong in (0, True, "many", 2.5):
        with pytest.raises(OptionError, match="stack is .* wanted 'auto', False or a whole number"):
            tuner.tune(x, y, stack=wrong)


def test_stacks_go_to_other_processes(tmp_path):
    x, y = blobs(150)
    options = SEARCH | {"trials": 12, "max_epochs": 3, "metric": "loss", "pruner": NopPruner(), "validation": 2}
    here = tuner.tune(x, y, stack=4, **options)
    there = tuner.tune(x, y, stack=4, executor="processes", out=tmp_path, **options)
    assert [t.params for t in there.study.trials] == [t.params for t in here.study.trials]
    for a, b in zip(here.study.trials, there.study.trials, strict=True):
        np.testing.assert_allclose(a.values, b.values, rtol=1e-3)


def test_finalists_are_trained_as_ever():
    x, y = blobs(150)
    result = tuner.tune(x, y, stack=6, finalists=2, repeats=2, **SEARCH | {"trials": 9, "max_epochs": 3})
    assert [len(finalist.scores) for finalist in result.finalists] == [2, 2]


def test_batch_norm_is_trained_one_by_one():
    x, y = blobs(150)
    result = tuner.tune(x, y, stack=4, **SEARCH | {"trials": 6, "space": [*NUMBERS, "hidden"], "max_epochs": 3})
    assert len(result.study.trials) == 6
    base = BASE.replace(batch_norm=True)
    results = [tuner.tune(x, y, stack=k, **SEARCH | {"trials": 6, "base": base, "max_epochs": 3}) for k in (False, 4)]
    assert records(results[0].study) == records(results[1].study)


# ------------------------------------------------------------------------------------------- killed

SCRIPT = """
import sys
from test_tuner_stacking import SEARCH, blobs, tuner
x, y = blobs(240)
options = SEARCH | {"trials": 40, "max_epochs": 9, "validation": 3}
result = tuner.tune(x, y, stack=6, out=sys.argv[1], **options)
print(len(result.study.trials))
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_a_killed_search_goes_on_with_its_stacks(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}

    def start(folder):
        command = [sys.executable, "-c", SCRIPT, str(folder)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def trials(folder):
        study = tuner.load_study(storage=folder / "study.db")
        try:
            return study.trials
        finally:
            study.storage.close()

    process, deadline = start(tmp_path / "killed"), time.monotonic() + 120
    finished = []
    while len(finished) < 12 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        if (tmp_path / "killed" / "study.db").exists():
            try:
                finished = [trial for trial in trials(tmp_path / "killed") if trial.state.is_finished()]
            except (KeyError, ValueError, tuner.StorageError):  # being made
                finished = []
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    before = trials(tmp_path / "killed")
    assert len(before) < 40
    for folder in ("killed", "whole"):
        process = start(tmp_path / folder)
        out, err = process.communicate(timeout=300)
        assert json.loads(out) == 40, err
    after, whole = trials(tmp_path / "killed"), trials(tmp_path / "whole")
    for trial in finished:
        assert after[trial.number] == trial
    for trial in before:  # the last one may have been killed before its settings were known
        assert after[trial.number].params.items() >= trial.params.items()
    for one, other in zip(after, whole, strict=True):
        assert one.params == other.params
        if one.steps == other.steps:
            np.testing.assert_allclose(
                list(one.intermediate_values.values()), list(other.intermediate_values.values()), atol=0.02
            )
