"""Trials in segments: budgets, checkpoints, what an interruption costs, and what a bad state does."""

import json
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import tuner
from tuner import Float, Resumable, Space, StorageError, TrialPruned, TrialState
from tuner.pruners import (
    AsynchronousHalvingPruner,
    AutoPruner,
    EarlyDiscardingPruner,
    FreezeThawPruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    ProgressiveHalvingPruner,
    SuccessiveHalvingPruner,
)
from tuner.samplers import QMCSampler, RandomSampler


class Walk(Resumable):
    """A state is [settings, steps done, sum so far]; its values depend on every step before."""

    max_steps = 9
    suffix = ".json"

    def __init__(self, max_steps=9, ends=None):
        self.max_steps = max_steps
        self.ends = ends or {}
        self.log = []

    def start(self, trial):
        self.log.append(("start", trial.number))
        return [trial.suggest_float("x", 0, 1), 0, 0.0, trial.number]

    def advance(self, state, steps):
        x, done, total, number = state
        self.log.append(("advance", number, done, steps))
        values = []
        for _ in range(steps):
            end = self.ends.get((number, done))
            if isinstance(end, BaseException):
                raise end
            if end == "over":
                break
            done += 1
            total = 0.9 * total + x / done
            values.append(math.nan if end == "nan" else total)
        return [x, done, total, number], values


class SavedWalk(Walk):
    def save(self, state, path):
        path.write_text(json.dumps(state))

    def load(self, path):
        return json.loads(path.read_text())


def study_of(pruner, storage=None, name="s", **options):
    return tuner.create_study(
        storage=storage, study_name=name, pruner=pruner, sampler=RandomSampler(seed=1), load_if_exists=True, **options
    )


def curves(study):
    return [(t.state, t.steps, t.params, t.intermediate_values, t.values) for t in study.trials]


PRUNERS = {
    "full": NopPruner,
    "median": lambda: MedianPruner(n_startup_trials=2, interval_steps=2),
    "halving": lambda: SuccessiveHalvingPruner(1, reduction_factor=3),
    "hyperband": HyperbandPruner,
    "asynchronous": AsynchronousHalvingPruner,
    "progressive": ProgressiveHalvingPruner,
    "discarding": lambda: EarlyDiscardingPruner(candidates=4, keep=1),
    "auto": AutoPruner,
    "freeze and thaw": FreezeThawPruner,
}


@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS.keys())
@pytest.mark.parametrize("work", [Walk, SavedWalk])
def test_segments_give_what_one_go_would_wherever_states_are_kept(pruner, work, tmp_path):
    whole = study_of(NopPruner())
    whole.optimize(Walk(), n_trials=12)
    for name, storage in (("memory", None), ("disk", tmp_path / "s.db")):
        study = study_of(pruner(), storage, name)
        study.optimize(work(), n_trials=12)
        for one, other in zip(study.trials, whole.trials):
            assert one.params == other.params
            curve = one.intermediate_values
            assert curve == {step: other.intermediate_values[step] for step in range(1, one.steps + 1)}
        assert not [t for t in study.trials if not t.state.is_finished()]
        study.storage.close()
    assert not list(tmp_path.glob("s.checkpoints/*")), "ended trials leave no checkpoint behind"


@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("live", [0, 2, 32])
def test_a_state_is_loaded_not_recomputed(tmp_path, monkeypatch, n_jobs, live):
    monkeypatch.setattr("tuner.storage.checkpoints.LIVE", live)
    for work, storage in ((Walk(), None), (SavedWalk(), tmp_path / "s.db"), (Walk(), tmp_path / "t.db")):
        study = study_of(PRUNERS["halving"](), storage)
        study.optimize(work, n_trials=9, n_jobs=n_jobs)
        assert sorted(entry[1] for entry in work.log if entry[0] == "start") == list(range(9))
        assert sum(entry[3] for entry in work.log if entry[0] == "advance") == sum(t.steps for t in study.trials)
        study.storage.close()


@pytest.mark.parametrize("harm", ["missing", "cut", "other"])
def test_a_lost_checkpoint_costs_time_and_nothing_else(tmp_path, monkeypatch, harm):
    monkeypatch.setattr("tuner.storage.checkpoints.LIVE", 0)

    class Halfway(SavedWalk):
        def load(self, path):
            if harm == "missing":
                path.unlink()
            else:
                path.write_text({"cut": path.read_text()[:-3], "other": "{"}[harm])
            return super().load(path)

    whole, study = study_of(PRUNERS["halving"]()), study_of(PRUNERS["halving"](), tmp_path / "s.db")
    whole.optimize(Walk(), n_trials=9)
    if harm == "missing":
        study.optimize(Halfway(), n_trials=9)
    else:
        with pytest.warns(UserWarning, match="is run again from its start"):
            study.optimize(Halfway(), n_trials=9)
    assert curves(study) == curves(whole)
    study.storage.close()


@pytest.mark.parametrize("storage", ["memory", "disk"])
@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS.keys())
def test_an_interrupted_study_goes_on_as_if_nothing_had_happened(tmp_path, storage, pruner):
    whole = study_of(pruner())
    whole.optimize(SavedWalk(), n_trials=12)
    study = study_of(pruner(), tmp_path / "s.db" if storage == "disk" else None)
    for number, done in ((0, 0), (4, 0), (4, 1), (0, 3), (11, 0)):
        stumbling = SavedWalk(ends={(number, done): KeyboardInterrupt()})
        try:
            study.optimize(stumbling, n_trials=12, total=True)
        except KeyboardInterrupt:
            assert all(t.state is not TrialState.RUNNING for t in study.trials)
            assert study.trials[number].state is (
                TrialState.PAUSED if done and study.trials[number].steps else TrialState.WAITING
            )
        if storage == "disk":
            study.storage.close()
            study = study_of(pruner(), tmp_path / "s.db")
    study.optimize(SavedWalk(), n_trials=12, total=True)
    assert curves(study) == curves(whole)
    study.storage.close()


def test_the_budget_in_steps_is_kept():
    study = study_of(NopPruner())
    study.optimize(Walk(), total_steps=40)
    assert [t.steps for t in study.trials] == [9] * 4
    study.optimize(Walk(), total_steps=45)
    assert [t.steps for t in study.trials] == [9] * 5
    halving = study_of(PRUNERS["halving"](), name="h")
    halving.optimize(Walk(), total_steps=20, n_jobs=2)
    assert sum(t.steps for t in halving.trials) <= 20
    before = [t.number for t in halving.trials if t.state is TrialState.PAUSED]
    assert before
    halving.optimize(Walk(), total_steps=27)
    assert sum(t.steps for t in halving.trials) == 27
    assert halving.best_trial.state is TrialState.COMPLETE


def test_the_best_so_far_is_known_before_any_trial_is_complete():
    study = study_of(PRUNERS["halving"]())
    with pytest.raises(ValueError, match="no trial is complete"):
        study.best_trial  # noqa: B018
    study.optimize(Walk(), total_steps=12)
    best = study.best_trial
    assert (best.state, best.steps) == (TrialState.PAUSED, 3)
    assert study.best_value == best.intermediate_values[3]
    assert best.params["x"] == min(t.params["x"] for t in study.trials)


@pytest.mark.parametrize("score", ["last", "best"])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_trial_counts_by_its_last_or_its_best_value(score, direction):
    class Bumpy(Walk):
        def advance(self, state, steps):
            state, _ = super().advance(state, steps)
            return state, [[3.0, 1.0, 5.0, 2.0][step] for step in range(steps)]

    work = Bumpy(max_steps=4)
    work.score = score
    study = study_of(NopPruner(), direction=direction)
    study.optimize(work, n_trials=1)
    assert study.best_value == {"last": 2.0, "best": {"minimize": 1.0, "maximize": 5.0}[direction]}[score]


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_how_trials_may_end_before_their_last_step(tmp_path, storage):
    ends = {(0, 4): "over", (1, 2): "nan", (2, 5): TrialPruned(), (3, 1): ValueError("bad luck"), (4, 0): "over"}
    study = study_of(NopPruner(), tmp_path / "s.db" if storage == "disk" else None)
    study.optimize(SavedWalk(ends=ends), n_trials=6, catch=ValueError)
    over, nan, pruned, failed, nothing, whole = study.trials
    assert (over.state, over.steps, over.value) == (TrialState.COMPLETE, 4, over.intermediate_values[4])
    assert nan.state is TrialState.FAIL
    assert "NaN" in nan.error
    assert pruned.state is TrialState.PRUNED
    assert (failed.state, failed.error) == (TrialState.FAIL, "ValueError: bad luck")
    assert (nothing.state, nothing.error) == (TrialState.FAIL, "advance gave no value at all")
    assert (whole.state, whole.steps) == (TrialState.COMPLETE, 9)
    assert study.best_trial.number in (0, 5)
    study.storage.close()


def test_a_trial_that_ended_by_itself_may_win_a_rung():
    study = study_of(PRUNERS["halving"]())
    study.optimize(Walk(ends={(number, 2): "over" for number in range(9)}), n_trials=9)
    assert {t.steps for t in study.trials} == {1, 2}
    assert study.best_trial.state is TrialState.COMPLETE


def test_settings_come_from_a_fixed_space_too(tmp_path):
    study = study_of(PRUNERS["halving"](), tmp_path / "s.db", space=Space({"x": Float(0, 1)}))
    study.enqueue_trial({"x": 0.0})
    study.optimize(SavedWalk(), n_trials=9)
    assert study.best_params == {"x": 0.0}
    assert [len(t.params) for t in study.trials] == [1] * 9
    study.storage.close()


def test_callbacks_see_every_segment():
    seen = []
    study = study_of(PRUNERS["halving"]())
    study.optimize(
        Walk(), n_trials=3, callbacks=[lambda study, trial: seen.append((trial.number, trial.steps, trial.state))]
    )
    assert [entry[:2] for entry in seen[:3]] == [(0, 1), (1, 1), (2, 1)]
    assert {entry[2] for entry in seen[:3]} == {TrialState.PAUSED}
    assert seen[-1][2] is TrialState.COMPLETE


def test_a_checkpoint_that_cannot_be_written_ends_the_study_and_not_the_trial(tmp_path):
    class FullDisk(SavedWalk):
        def save(self, state, path):
            raise OSError(28, "No space left on device")

    study = study_of(NopPruner(), tmp_path / "s.db")
    with pytest.raises(StorageError, match=r"a checkpoint could not be written: .*No space left"):
        study.optimize(FullDisk(), n_trials=2)
    assert study.trials[0].state is TrialState.WAITING
    study.optimize(SavedWalk(), n_trials=1)
    assert study.trials[0].state is TrialState.COMPLETE
    study.storage.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_steps": 0}, "max_steps must be a whole number >= 1, got 0"),
        ({"max_steps": 9.5}, "max_steps must be a whole number >= 1, got 9.5"),
        ({"score": "mean"}, "score must be 'last' or 'best'"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    work = Walk()
    vars(work).update(change)
    with pytest.raises(ValueError, match=message):
        study_of(NopPruner()).optimize(work, n_trials=1)


@pytest.mark.parametrize("given", [[1.0] * 9, (1.0, 2.0), 1.0, None, ("state", [1.0], "more")], ids=str)
def test_what_advance_must_give_is_said(given):
    class Strange(Walk):
        def advance(self, state, steps):
            return given

    study = study_of(NopPruner())
    with pytest.raises(TypeError, match=r"advance must give \(state, values\), one value per step, got"):
        study.optimize(Strange(), n_trials=1)
    assert study.trials[0].state is TrialState.FAIL


def test_too_many_values_fail_the_trial():
    class Eager(Walk):
        def advance(self, state, steps):
            return state, [0.0] * (steps + 1)

    with pytest.raises(ValueError, match="asked for 9 steps and gave 10 values"):
        study_of(NopPruner()).optimize(Eager(), n_trials=1)


# ----------------------------------------------------------------------------------- other executors


def square(trial):
    return trial.suggest_float("x", -1, 1) ** 2


def test_segments_and_functions_run_in_other_processes(tmp_path):
    whole = study_of(PRUNERS["halving"]())
    whole.optimize(Walk(), n_trials=9)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        study = study_of(PRUNERS["halving"](), tmp_path / "s.db")
        study.optimize(SavedWalk(), n_trials=9, n_jobs=2, executor=executor)
        assert curves(study) == curves(whole)
        plain = tuner.create_study(storage=study.storage, study_name="plain", sampler=QMCSampler(seed=0))
        plain.optimize(square, n_trials=6, n_jobs=2, executor=executor)
        assert [t.value for t in plain.trials] == [t.params["x"] ** 2 for t in plain.trials]
        memory = tuner.create_study()
        with pytest.raises(StorageError, match="cannot go to another process"):
            memory.optimize(square, n_trials=1, executor=executor)
    study.storage.close()
