"""Several objectives: curves of lists, what completes a trial, and pruning by non-dominated sorting."""

import json
import math

import pytest
from cases import PRUNERS, STORAGES

import tuner
from tuner import Resumable, TrialPruned, TrialState
from tuner.pruners import NopPruner, SuccessiveHalvingPruner
from tuner.samplers import GridSampler

STEPS = 27
CHOICES = [0.3, 0.7, 0.5, 0.1, 0.9, 0.2, 0.8, 9.0]  # a trade-off, but for the last one, which is bad at everything
DIRECTIONS = ["minimize", "maximize"]


def values(choice, step):
    """(error, accuracy): both get better with the steps, but for the bad one, for which both get worse."""
    if choice > 1:
        return (5.0 + step, -5.0 - step)
    return (choice + 1 / (1 + step), 1 - (1 - choice) ** 2 - 1 / (1 + step))


class TradeOff(Resumable):
    max_steps = STEPS
    suffix = ".json"

    def __init__(self, ends=None):
        self.ends = ends or {}

    def start(self, trial):
        return [trial.suggest_categorical("choice", CHOICES), 0]

    def advance(self, state, steps):
        choice, done = state
        curve = [values(choice, step) for step in range(done + 1, done + steps + 1)]
        if choice in self.ends:
            curve = self.ends[choice](curve)
        return [choice, done + steps], curve

    def save(self, state, path):
        path.write_text(json.dumps(state))

    def load(self, path):
        return json.loads(path.read_text())


def reporting(trial):
    choice = trial.suggest_categorical("choice", CHOICES)
    for step in range(1, STEPS + 1):
        trial.report(values(choice, step), step)
        if trial.should_prune():
            raise TrialPruned
    return values(choice, STEPS)


def run(pruner, objective, storage=None, **options):
    sampler = GridSampler({"choice": CHOICES})
    study = tuner.create_study(directions=DIRECTIONS, pruner=pruner, sampler=sampler, storage=storage)
    study.optimize(objective, **options)
    return study


@pytest.mark.parametrize("form", ["reports", "resumable"])
@pytest.mark.parametrize("case", PRUNERS, ids=str)
def test_pruners_end_what_is_bad_at_everything(case, form):
    if form == "resumable" and not case.resumable:
        pytest.skip("wants a Resumable of its own")
    study = run(case.make(), reporting if form == "reports" else TradeOff())
    assert len(study.trials) == len(CHOICES)
    bad = next(t for t in study.trials if t.params["choice"] == 9.0)
    assert (bad.state is TrialState.PRUNED) == case.ends_bad
    if case.ends_bad:
        assert bad.last_step < STEPS
        assert bad.values == list(values(9.0, bad.last_step))
    complete = [t for t in study.trials if t.state is TrialState.COMPLETE]
    assert complete
    for trial in complete:
        assert trial.values == list(values(trial.params["choice"], STEPS))
        assert trial.params["choice"] == 9.0 or trial in study.best_trials


@pytest.mark.parametrize("case", STORAGES, ids=str)
def test_storages_keep_a_list_for_each_step(case, tmp_path):
    storage = case.open(tmp_path)
    study = run(SuccessiveHalvingPruner(1, reduction_factor=3), TradeOff(), storage)
    again = tuner.load_study(storage=case.open(tmp_path)) if case.lasts else study
    assert [t.intermediate_values for t in again.trials] == [t.intermediate_values for t in study.trials]
    for trial in again.trials:
        curve = trial.intermediate_values
        assert curve == {step: list(values(trial.params["choice"], step)) for step in range(1, trial.steps + 1)}
    trial = study.trials[0]
    trial.intermediate_values[1][0] = -1.0
    assert study.trials[0].intermediate_values[1][0] != -1.0, "a copy may be changed"
    storage.close()


def test_a_rung_keeps_the_least_crowded_of_its_front():
    """Of eight at the first rung two go on: by hand, the two ends of the front."""
    study = run(SuccessiveHalvingPruner(1, reduction_factor=3), TradeOff(), n_trials=8, total_steps=8 + 2 * 2)
    assert {t.params["choice"] for t in study.trials if t.steps == 3} == {0.1, 0.9}


@pytest.mark.parametrize("score", ["last", "best"])
def test_a_trial_counts_by_its_last_or_its_last_best_step(score):
    work = TradeOff({c: lambda curve: [(3.0, 0.0), (1.0, 2.0), (2.0, 2.0)] for c in CHOICES})
    work.max_steps, work.score = 3, score
    study = run(NopPruner(), work, n_trials=1)
    assert study.trials[0].values == {"last": [2.0, 2.0], "best": [1.0, 2.0]}[score]


def test_divergence_ends_a_trial_and_costs_the_steps_done():
    ends = {
        0.3: lambda curve: [*curve[:2], (math.nan, 0.5)],
        0.7: lambda curve: [*curve[:1], (0.5, -math.inf)],
        0.5: lambda curve: curve[:4],
    }
    study = run(NopPruner(), TradeOff(ends), n_trials=8, total_steps=3 + 2 + 4 + 2 * STEPS)
    by_choice = {t.params["choice"]: t for t in study.trials}
    assert [by_choice[c].steps for c in (0.3, 0.7, 0.5)] == [3, 2, 4]
    assert [by_choice[c].state for c in (0.3, 0.7, 0.5)] == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
    assert "infinitely bad" in by_choice[0.7].error
    assert sum(t.steps for t in study.trials) == 3 + 2 + 4 + 2 * STEPS
    assert len(study.trials) == 5


@pytest.mark.parametrize(("curve", "error"), [([(1.0,)], ValueError), ([1.0], TypeError), (["ab"], TypeError)])
def test_a_step_wants_one_value_per_objective(curve, error):
    with pytest.raises(error, match="advance: value must be a sequence of 2 numbers, one per objective"):
        run(NopPruner(), TradeOff({c: lambda _: curve for c in CHOICES}), n_trials=1)
