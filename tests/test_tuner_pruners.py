"""The conformance suite of pruners, in both forms: an objective that reports, and a `Resumable`."""

import math

import pytest
from cases import PRUNERS

import tuner
from tuner import FrozenTrial, Resumable, TrialPruned, TrialState
from tuner.pruners import PRUNERS as REGISTERED
from tuner.pruners import MedianPruner, NopPruner, PatientPruner, PercentilePruner, SuccessiveHalvingPruner
from tuner.samplers import GridSampler, RandomSampler
from tuner.schedulers import Decision, FullRuns, Scheduler, Segment, Situation, StoppedRuns, SuccessiveHalving

STEPS = 27
QUALITIES = [0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.55, 9.0]  # the last one is bad from its first step to its last


def test_every_pruner_has_a_row():
    assert {case.name for case in PRUNERS} == set(REGISTERED)
    assert all(type(case.make()).__name__ == case.name for case in PRUNERS)
    assert all(getattr(tuner.pruners, case.name) for case in PRUNERS)


def curve(quality, step):
    """Values that fall with the steps, but for the bad one, whose values rise."""
    return quality + (1 / (1 + step) if quality < 5 else step)


class Curves(Resumable):
    max_steps = STEPS

    def __init__(self, sign):
        self.sign = sign
        self.paid = 0

    def start(self, trial):
        return [trial.suggest_categorical("quality", QUALITIES), 0]

    def advance(self, state, steps):
        self.paid += steps
        quality, done = state
        values = [self.sign * curve(quality, step) for step in range(done + 1, done + steps + 1)]
        return [quality, done + steps], values


def reporting(sign):
    def objective(trial):
        quality = trial.suggest_categorical("quality", QUALITIES)
        for step in range(1, STEPS + 1):
            trial.report(sign * curve(quality, step), step)
            if trial.should_prune():
                raise TrialPruned
        return sign * curve(quality, STEPS)

    return objective


def run(case, form, direction):
    sign = 1 if direction == "minimize" else -1
    study = tuner.create_study(direction=direction, pruner=case.make(), sampler=GridSampler({"quality": QUALITIES}))
    study.optimize(reporting(sign) if form == "reports" else Curves(sign))
    return study


FORMS = [(case, form) for case in PRUNERS for form in (["reports", "resumable"] if case.resumable else ["reports"])]


@pytest.mark.parametrize(("case", "form"), FORMS, ids=str)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_bad_trials_end_early_and_the_best_is_kept(case, form, direction):
    study = run(case, form, direction)
    sign = 1 if direction == "minimize" else -1
    assert len(study.trials) == len(QUALITIES)
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in study.trials)
    assert study.best_params == {"quality": 0.3}
    assert study.best_value == sign * curve(0.3, STEPS)
    bad = study.trials[-1]
    assert (bad.state is TrialState.PRUNED) == case.ends_bad
    if case.ends_bad:
        assert bad.last_step < STEPS
        assert bad.value == bad.intermediate_values[bad.last_step]
    complete = [t for t in study.trials if t.state is TrialState.COMPLETE]
    assert all(t.last_step == STEPS for t in complete)


@pytest.mark.parametrize("case", PRUNERS, ids=str)
def test_both_directions_prune_alike(case):
    for form in [form for known, form in FORMS if known is case]:
        small, large = (run(case, form, direction) for direction in ("minimize", "maximize"))
        assert [(t.state, t.last_step) for t in small.trials] == [(t.state, t.last_step) for t in large.trials]


@pytest.mark.parametrize("case", PRUNERS, ids=str)
def test_a_pruner_copes_with_nan_and_with_trials_that_reported_nothing(case):
    pruner = case.make()
    others = [
        FrozenTrial(0, TrialState.COMPLETE, [1.0], intermediate_values=dict.fromkeys(range(30), 1.0)),
        FrozenTrial(1, TrialState.COMPLETE, [1.0], intermediate_values=dict.fromkeys(range(30), math.nan)),
        FrozenTrial(2, TrialState.COMPLETE, [1.0]),
        FrozenTrial(3, TrialState.FAIL, intermediate_values={0: math.nan}),
        FrozenTrial(4, TrialState.WAITING),
    ]
    for values in ([math.nan] * 28, [5.0] * 27 + [math.nan], [math.inf] * 28, [0.5] * 28):
        trial = FrozenTrial(5, intermediate_values=dict(enumerate(values)))
        assert pruner.prune(trial, [*others, trial], 1) in (True, False)
    only = FrozenTrial(0, intermediate_values={0: 1.0})
    assert not pruner.prune(only, [only], 1)


EXTREMES = {
    "minus infinity": lambda number, step: -math.inf,
    "both infinities": lambda number, step: (-math.inf, math.inf, step)[number % 3],
    "huge": lambda number, step: (1 + number / step) * 1e307,
    "both signs": lambda number, step: (-1.0) ** number * 1.7e308,
    "tiny": lambda number, step: number * 5e-324,
}


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize(("case", "form"), FORMS, ids=str)
def test_infinite_and_huge_values_do_not_disturb_a_pruner(case, form, kind):
    class Extreme(Resumable):
        max_steps = 9

        def start(self, trial):
            return trial.number, 0

        def advance(self, state, steps):
            number, done = state
            return (number, done + steps), [EXTREMES[kind](number, s) for s in range(done + 1, done + steps + 1)]

    def report(trial):
        for step in range(1, 10):
            trial.report(EXTREMES[kind](trial.number, step), step)
            if trial.should_prune():
                raise TrialPruned
        return EXTREMES[kind](trial.number, 9)

    study = tuner.create_study(pruner=case.make(), sampler=RandomSampler(seed=0))
    study.optimize(report if form == "reports" else Extreme(), n_trials=14)
    assert all(t.state.is_finished() for t in study.trials)
    assert any(t.state is TrialState.COMPLETE for t in study.trials)


@pytest.mark.parametrize("case", [case for case in PRUNERS if case.resumable], ids=str)
def test_a_study_may_go_on_with_another_pruner_and_other_lengths(case, tmp_path):
    def study(pruner):
        return tuner.create_study(
            storage=tmp_path / "s.db", study_name="s", load_if_exists=True, pruner=pruner, sampler=RandomSampler(seed=0)
        )

    lengths = [(case.make(), STEPS), *((other.make(), n) for other, n in zip(PRUNERS, (40, 5, 1) * 5, strict=False))]
    for pruner, steps in lengths:
        work = Curves(1)
        work.max_steps = steps
        made = study(pruner)
        made.optimize(work, n_trials=3, n_jobs=2, total_steps=60 if pruner is lengths[0][0] else None)
        made.storage.close()
    assert len(made.trials) >= len(lengths)
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in made.trials)


@pytest.mark.parametrize("case", PRUNERS, ids=str)
def test_the_next_check_is_the_next_step_at_which_a_pruner_may_act(case):
    pruner = case.make()
    step, checks = 0, set()
    while step is not None and step < STEPS:
        step = pruner.next_check(step)
        checks.add(step)
    others = [
        FrozenTrial(i, TrialState.COMPLETE, [0.0], intermediate_values=dict.fromkeys(range(1, 28), 0.0))
        for i in range(9)
    ]
    for last in range(1, STEPS):
        trial = FrozenTrial(9, intermediate_values={s: float(s) for s in range(1, last + 1)})
        if pruner.prune(trial, [*others, trial], 1):
            assert last in checks


# ------------------------------------------------------------------------------------------ one by one


def complete(number, values):
    return FrozenTrial(number, TrialState.COMPLETE, [values[-1]], intermediate_values=dict(enumerate(values)))


def test_the_median_compares_a_trials_best_with_the_others_at_its_step():
    trials = [complete(i, [value] * 10) for i, value in enumerate([1.0, 2.0, 3.0, 4.0, 5.0])]
    for value, pruned in ((2.9, False), (3.0, False), (3.1, True)):
        trial = FrozenTrial(5, intermediate_values={0: value, 1: 9.0})
        assert MedianPruner().prune(trial, [*trials, trial], 1) is pruned
        assert MedianPruner(n_startup_trials=6).prune(trial, [*trials, trial], 1) is False
        assert MedianPruner(n_warmup_steps=2).prune(trial, [*trials, trial], 1) is False
        assert MedianPruner(interval_steps=2).prune(trial, [*trials, trial], 1) is False
        assert PercentilePruner(100.0).prune(trial, [*trials, trial], 1) is False


def test_patience_counts_values_without_progress():
    def prune(values, **options):
        trial = FrozenTrial(0, intermediate_values=dict(enumerate(values)))
        return PatientPruner(None, patience=2, **options).prune(trial, [trial], 1)

    assert not prune([3.0, 2.0, 2.5, 2.5])
    assert prune([3.0, 2.0, 2.5, 2.5, 2.5])
    assert not prune([3.0, 2.0, 2.5, 2.5, 1.9])
    assert not prune([3.0, 2.0, 2.5, 2.5, 2.5], min_delta=0.6)
    trial = FrozenTrial(0, intermediate_values=dict(enumerate([1.0] + [2.0] * 9)))
    assert not PatientPruner(NopPruner(), patience=2).prune(trial, [trial], 1)


def test_halving_lets_the_best_share_pass_each_rung():
    pruner = SuccessiveHalvingPruner(min_resource=2, reduction_factor=2)
    others = [complete(i, [value] * 9) for i, value in enumerate([0.1, 0.2, 0.3, 0.4])]

    def prune(steps, value):
        trial = FrozenTrial(4, intermediate_values=dict.fromkeys(range(steps + 1), value))
        return pruner.prune(trial, [*others, trial], 1)

    assert [prune(steps, 0.9) for steps in range(10)] == [s in (2, 4, 8) for s in range(10)]
    assert not prune(2, 0.15)
    assert prune(2, 0.25)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PercentilePruner(101), "percentile must be a number in \\[0, 100\\], got 101"),
        (lambda: PercentilePruner("50"), "percentile must be a number in .*, got '50'"),
        (lambda: MedianPruner(n_startup_trials=-1), "n_startup_trials must be a whole number >= 0, got -1"),
        (lambda: MedianPruner(interval_steps=0), "interval_steps must be a whole number >= 1, got 0"),
        (lambda: PatientPruner(None, patience=-1), "patience must be a whole number >= 0"),
        (lambda: PatientPruner(None, 1, math.nan), "min_delta must be at least 0, got nan"),
        (lambda: PatientPruner(None, patience=1, min_delta=-1), "min_delta must be at least 0"),
        (lambda: SuccessiveHalvingPruner(0), "min_resource must be a whole number >= 1 or 'auto', got 0"),
        (lambda: SuccessiveHalvingPruner(1, 1), "reduction_factor must be a whole number >= 2"),
        (lambda: SuccessiveHalvingPruner(min_early_stopping_rate=-1), "min_early_stopping_rate"),
        (lambda: SuccessiveHalvingPruner(bootstrap_count=1), "wants a min_resource other than 'auto'"),
        (lambda: SuccessiveHalving(0), "min_steps must be"),
        (lambda: SuccessiveHalving(1, 1), "eta must be a whole number >= 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------------------ schedulers


def test_promotions_cost_the_added_steps_only():
    study = tuner.create_study(
        pruner=SuccessiveHalvingPruner(1, reduction_factor=3), sampler=tuner.samplers.RandomSampler(seed=0)
    )
    work = Curves(1)
    study.optimize(work, n_trials=27)
    steps = sorted(t.steps for t in study.trials)
    assert steps == [1] * 18 + [3] * 6 + [9] * 2 + [27]
    assert work.paid == sum(steps) == 18 + 18 + 18 + 27


def test_halving_keeps_the_best_of_each_rung():
    (case,) = (case for case in PRUNERS if case.name == "SuccessiveHalvingPruner")
    study = run(case, "resumable", "minimize")
    assert {t.params["quality"]: t.steps for t in study.trials}[0.3] == STEPS
    ended = {t.params["quality"]: t.steps for t in study.trials}
    assert ended[0.4] >= ended[0.5] >= ended[0.6]


@pytest.mark.parametrize("max_steps", [1, 2, 3, 10, 27, 100])
@pytest.mark.parametrize("eta", [2, 3, 4])
def test_rungs_end_at_the_last_step(max_steps, eta):
    for first in ("auto", 1, 5):
        rungs = SuccessiveHalving(first, eta).rungs(max_steps)
        assert rungs[-1] == max_steps
        assert rungs == sorted(set(rungs))
        assert first != "auto" or len(rungs) <= 6


@pytest.mark.parametrize("n_jobs", [1, 2, 4])
def test_the_outcome_of_halving_does_not_depend_on_how_many_work(n_jobs):
    study = tuner.create_study(
        pruner=SuccessiveHalvingPruner(1, reduction_factor=3), sampler=tuner.samplers.QMCSampler(seed=0)
    )
    study.optimize(Curves(1), n_trials=40, n_jobs=n_jobs)
    steps = [t.steps for t in study.trials]
    assert len(steps) == 40
    one = tuner.create_study(
        pruner=SuccessiveHalvingPruner(1, reduction_factor=3), sampler=tuner.samplers.QMCSampler(seed=0)
    )
    one.optimize(Curves(1), n_trials=40)
    assert steps == [t.steps for t in one.trials]


def situation(trials, may_start=True, max_steps=9):
    return Situation(trials, max_steps, may_start, (1,), False)


def paused(number, steps, value):
    return FrozenTrial(
        number, TrialState.PAUSED, steps=steps, intermediate_values=dict.fromkeys(range(1, steps + 1), value)
    )


def test_a_rung_is_decided_when_all_its_trials_are_there():
    halving = SuccessiveHalving(3, 3)
    assert halving.decide(situation([])) == Decision([], Segment(None, 3))
    two = [paused(0, 3, 0.5), paused(1, 3, 0.4)]
    assert halving.decide(situation(two)) == Decision([], Segment(None, 3))
    busy = [*two, FrozenTrial(2, TrialState.RUNNING)]
    assert halving.decide(situation(busy)) == Decision([], Segment(None, 3))
    assert halving.decide(situation(busy, may_start=False)) == Decision([], None)
    assert halving.decide(situation(two, may_start=False)) == Decision([0], Segment(1, 6))
    assert halving.decide(situation([*two, paused(2, 3, 0.6)])) == Decision([0, 2], Segment(1, 6))
    failed = [*two, FrozenTrial(2, TrialState.FAIL)]
    assert halving.decide(situation(failed)) == Decision([0], Segment(1, 6))


def test_full_and_stopped_runs_finish_what_was_begun_first():
    for scheduler in (FullRuns(), StoppedRuns(NopPruner())):
        assert scheduler.decide(situation([paused(0, 3, 1.0)])) == Decision([], Segment(0, 6))
        assert scheduler.decide(situation([])) == Decision([], Segment(None, 9))
        assert scheduler.decide(situation([], may_start=False)) == Decision([], None)


def test_every_scheduler_is_abstract_or_final():
    with pytest.raises(TypeError, match="abstract"):
        Scheduler()
