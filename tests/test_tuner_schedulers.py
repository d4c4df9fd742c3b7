"""Which segment comes next: against the papers' tables, plain simulations and arithmetic."""

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuner
from tuner import Categorical, Float, FrozenTrial, Int, Ordinal, Resumable, Space, TrialState
from tuner.pruners import (
    AsynchronousHalvingPruner,
    AutoPruner,
    EarlyDiscardingPruner,
    FreezeThawPruner,
    HyperbandPruner,
    PopulationTrainingPruner,
    ProgressiveHalvingPruner,
)
from tuner.samplers import RandomSampler
from tuner.schedulers import (
    AsynchronousHalving,
    Balanced,
    Decision,
    EarlyDiscarding,
    FreezeThaw,
    Hyperband,
    PopulationTraining,
    ProgressiveHalving,
    Segment,
    Situation,
)
from tuner.schedulers.balanced import shares_of
from tuner.schedulers.brackets import geometric
from tuner.schedulers.extrapolation import Extrapolation, expected_improvement
from tuner.schedulers.population import explore


class Noisy(Resumable):
    """Curves that fall at different speeds and cross; `log` is (trial, steps before, steps added)."""

    suffix = ".json"

    def __init__(self, max_steps=27):
        self.max_steps = max_steps
        self.log = []

    def start(self, trial):
        return [trial.number, trial.suggest_float("x", 0, 1), 0]

    def advance(self, state, steps):
        number, x, done = state
        self.log.append((number, done, steps))
        values = [curve(x, step) for step in range(done + 1, done + steps + 1)]
        return [number, x, done + steps], values


def curve(x, step):
    return x + (1 - x) ** 2 * 2 / step + 0.05 * math.sin(40 * x * step)


def study_of(pruner, **options):
    return tuner.create_study(pruner=pruner, sampler=RandomSampler(seed=3), **options)


def situation(trials, may_start=True, max_steps=27):
    return Situation(trials, max_steps, may_start, (1,), False)


def paused(number, values, state=TrialState.PAUSED):
    return FrozenTrial(number, state, steps=len(values), intermediate_values=dict(enumerate(values, 1)))


# -------------------------------------------------------------------------------------------- brackets


def test_hyperbands_brackets_are_those_of_table_1():
    """Li et al. 2018, table 1: R = 81, eta = 3."""
    table = {
        4: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        3: [(34, 3), (11, 9), (3, 27), (1, 81)],
        2: [(15, 9), (5, 27), (1, 81)],
        1: [(8, 27), (2, 81)],
        0: [(5, 81)],
    }
    found = Hyperband().brackets(81)
    assert [list(zip(b.counts, b.steps)) for b in found] == [table[s] for s in (4, 3, 2, 1, 0)]
    assert [b.steps for b in Hyperband(min_steps=9, eta=3).brackets(80)] == [(26, 80), (80,)]


def test_a_round_of_hyperband_runs_what_its_table_says():
    study = study_of(HyperbandPruner())
    work = Noisy(27)
    brackets = Hyperband().brackets(27)
    size = sum(b.size for b in brackets)
    study.optimize(work, n_trials=size)
    begin = 0
    for bracket in brackets:
        steps = sorted(t.steps for t in study.trials[begin : begin + bracket.size])
        expected = [s for s, n, m in zip(bracket.steps, bracket.counts, [*bracket.counts[1:], 0]) for _ in range(n - m)]
        assert steps == expected
        begin += bracket.size
    assert sum(added for _, _, added in work.log) == sum(t.steps for t in study.trials)


def test_hyperband_compares_reports_within_a_bracket():
    pruner = HyperbandPruner(1, 27)
    sizes = [b.size for b in Hyperband().brackets(27)]
    second = sizes[0]
    good = [paused(n, [0.0] * 27, TrialState.COMPLETE) for n in range(second)]
    trial = paused(second, [9.0] * 3, TrialState.RUNNING)
    assert not pruner.prune(trial, [*good, trial], 1), "alone in its bracket"
    rival = paused(second + 1, [8.0] * 27, TrialState.COMPLETE)
    assert pruner.prune(trial, [*good, trial, rival], 1)
    assert not HyperbandPruner().prune(trial, [trial], 1), "the trials' length is not known yet"


def test_early_discarding_finishes_the_best_of_each_round():
    study = study_of(EarlyDiscardingPruner(candidates=10, steps=2, keep=3))
    study.optimize(Noisy(9), n_trials=20)
    for begin in (0, 10):
        members = study.trials[begin : begin + 10]
        best = sorted(members, key=lambda t: t.intermediate_values[2])[:3]
        assert {t.number for t in members if t.steps == 9} == {t.number for t in best}
        assert sorted(t.steps for t in members) == [2] * 7 + [9] * 3


# ------------------------------------------------------------------------------------------- promotions


def simulated(shares, rungs, losses, budget):
    """Li et al. 2020, algorithm 2, with one worker: the segments (trial, steps added) in order."""
    at = [[] for _ in rungs]  # numbers that completed each rung
    promoted = [set() for _ in rungs]
    jobs, started = [], 0
    while sum(steps for _, steps in jobs) < budget:
        for k in reversed(range(len(rungs) - 1)):
            top = sorted(at[k], key=lambda n: (losses(n, rungs[k]), n))[: int(len(at[k]) * shares[k] + 1e-9)]
            ready = [n for n in top if n not in promoted[k]]
            if ready:
                promoted[k].add(ready[0])
                jobs.append((ready[0], rungs[k + 1] - rungs[k]))
                at[k + 1].append(ready[0])
                break
        else:
            jobs.append((started, rungs[0]))
            at[0].append(started)
            started += 1
    return jobs


@pytest.mark.parametrize("name", ["asha", "auto"])
def test_promotions_are_those_of_a_plain_simulation(name):
    rungs = [1, 3, 9, 27, 50]
    pruner = {"asha": AsynchronousHalvingPruner(), "auto": AutoPruner()}[name]
    shares = {"asha": [1 / 3] * 4, "auto": [1 / 8, 1 / 3, 1 / 3, 18 / 23]}[name]
    study, work = study_of(pruner), Noisy(50)
    study.optimize(work, total_steps=400)
    x = [t.params["x"] for t in study.trials]
    assert len(x) > 20
    jobs = [(number, added) for number, _, added in work.log]
    expected = simulated(shares, rungs, lambda n, step: curve(x[n], step), 400)
    assert jobs == expected[: len(jobs)]
    assert len(expected) - len(jobs) <= 1, "a segment that does not fit is not begun"


def test_a_worker_is_never_idle_and_promotions_do_not_wait():
    scheduler = AsynchronousHalving(1, 3)
    running = [FrozenTrial(n, TrialState.RUNNING) for n in range(4)]
    assert scheduler.decide(situation(running)) == Decision(run=Segment(None, 1))
    three = [paused(n, [float(n)]) for n in (0, 1, 2)]
    assert scheduler.decide(situation([*three, *running[3:]])) == Decision(run=Segment(0, 2))
    assert scheduler.decide(situation([FrozenTrial(0, TrialState.WAITING), *three[1:]])).run == Segment(0, 1)


def test_once_nothing_may_start_the_best_goes_to_the_end_and_the_rest_ends():
    for pruner in (AsynchronousHalvingPruner(), AutoPruner(), ProgressiveHalvingPruner()):
        study = study_of(pruner)
        study.optimize(Noisy(27), n_trials=20)
        assert all(t.state.is_finished() for t in study.trials)
        assert any(t.steps == 27 for t in study.trials)
        assert study.best_trial.steps == 27


def test_of_trials_with_the_same_curve_one_goes_on():
    same = [paused(n, [0.1]) for n in range(3)] + [paused(3, [0.2]), *(paused(n, [1.0 + n]) for n in range(4, 12))]
    order = []
    for _ in range(4):
        run = AsynchronousHalving(1, 3).decide(situation(same)).run
        order.append(run.number)
        if run.number is None:
            break
        same[run.number] = paused(run.number, [same[run.number].intermediate_values[1], 5.0 + run.number, 5.0])
    assert order == [0, 3, 4, 0], "and then the best of three at the next rung"


@given(st.integers(1, 9), st.integers(2, 5), st.integers(10, 400), st.floats(0.1, 0.9))
def test_new_trials_get_their_part_of_all_steps(first, eta, max_steps, part):
    rungs = geometric(first, eta, max_steps)
    shares = shares_of(rungs, part)
    assert len(shares) == len(rungs) - 1
    counts = np.cumprod([1.0, *shares])
    spent = counts * np.diff([0, *rungs])
    if len(rungs) > 1 and max(shares) < 1:
        assert spent[0] / spent.sum() == pytest.approx(part)
        np.testing.assert_allclose(spent[1:], spent[1])
    assert all(0 < share <= 1 for share in shares)


def test_half_of_the_steps_go_to_new_trials():
    study = study_of(AutoPruner())
    study.optimize(Noisy(50), total_steps=800)
    assert 0.35 < len(study.trials) / 800 < 0.6
    assert AutoPruner().scheduler().rungs(1000)[0][0] == 12


def test_pasha_grows_only_while_the_order_is_not_settled():
    settled = [paused(n, [float(n)] * 3) for n in range(3)]
    scheduler = ProgressiveHalving(1, 3)
    assert scheduler.ladder(situation(settled))[0] == (1, 3)
    swapped = [paused(0, [0.0, 0.0, 1.0]), paused(1, [1.0, 1.0, 0.0])]
    assert scheduler.ladder(situation(swapped))[0] == (1, 3, 9)
    assert scheduler.ladder(situation(swapped, max_steps=3))[0] == (1, 3)
    crossing = [paused(0, [0.0, 1.0, 0.0, 1.0]), paused(1, [0.5, 0.5, 0.5, 0.5])]  # apart by no more than noise
    assert ProgressiveHalving(3, 4).ladder(situation(crossing))[0] == (3, 12)
    study = study_of(ProgressiveHalvingPruner())
    study.optimize(Noisy(81), n_trials=30)
    assert sum(t.steps == 81 for t in study.trials) == 1


# ---------------------------------------------------------------------------------------- extrapolation


def power_laws(count, exponent, steps, seed=0):
    """limit + height * t^-exponent, (count, steps), and the limits."""
    rng = np.random.default_rng(seed)
    limits, heights = rng.uniform(0, 1, (count, 1)), rng.uniform(0.2, 1, (count, 1))
    return limits + heights * np.arange(1, steps + 1.0) ** -exponent


@pytest.mark.parametrize("exponent", [0.3, 0.7, 1.5])
def test_curves_that_follow_a_power_law_are_extrapolated(exponent):
    curves = power_laws(40, exponent, 64)
    partial = [curve[: int(n)] for curve, n in zip(curves, np.random.default_rng(1).choice([4, 8, 16, 64], 40))]
    model = Extrapolation(partial)
    found = np.array([model.predict(curve, 64) for curve in partial])
    truth = curves[:, -1]
    going = np.array([len(curve) < 64 for curve in partial])
    missed = np.abs(found[:, 0] - truth)[going]
    gained = np.array([curve[-1] for curve in partial])[going] - truth[going]
    assert missed.mean() < 0.35 * gained.mean(), "better than to take the last value"
    assert np.mean(missed < 2 * found[going, 1]) > 0.85
    assert (found[~going, 1] == 0).all()
    np.testing.assert_allclose(found[~going, 0], np.minimum(truth[~going], model.cap))


def test_a_model_without_data_is_its_prior():
    model = Extrapolation([np.array([1.0])])
    assert model.predict(np.array([1.0]), 1) == (1.0, 0.0)
    mean, deviation = model.predict(np.array([1.0, 0.5]), 8)
    assert mean == pytest.approx(0.5 - 0.5 * (0.6 + 0.36))
    assert deviation == pytest.approx(0.1 * math.hypot(1.0, 1.6))
    for curve in ([math.inf], [math.inf, 1.0], [1.0, math.inf, 1.0]):
        assert np.isfinite(Extrapolation([np.array(curve)]).predict(np.array(curve), 9)).all()


@given(st.floats(-3, 3), st.floats(0.01, 3), st.floats(-3, 3))
def test_expected_improvement_is_its_integral(mean, deviation, best):
    y = np.linspace(mean - 9 * deviation, mean + 9 * deviation, 20_001)
    density = np.exp(-(((y - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
    expected = np.trapezoid(np.maximum(best - y, 0) * density, y)
    assert expected_improvement(mean, deviation, best) == pytest.approx(expected, abs=1e-4)
    assert expected_improvement(mean, 0.0, best) == max(best - mean, 0.0)


def test_the_run_that_promises_most_is_thawed():
    steep = [paused(n, (1 + n / 10 + 2.0 ** -np.arange(16.0)).tolist()) for n in range(6)]  # gains halve with each step
    flat, falling = paused(6, [0.6, 0.6, 0.6, 0.6]), paused(7, [1.4, 1.2, 1.0, 0.8])
    many = [*steep, flat, falling, *(paused(n, [3.0]) for n in range(8, 80))]
    assert FreezeThaw(explore=0.1).decide(situation(many, max_steps=64)) == Decision(run=Segment(7, 4))
    assert FreezeThaw(explore=0.5).decide(situation(many[:10], may_start=False, max_steps=64)).run == Segment(7, 4)
    assert FreezeThaw(explore=0.9).decide(situation(many, max_steps=64)) == Decision(run=Segment(None, 1))
    twin = [*many, paused(80, [1.4, 1.2, 1.0, 0.8])]
    assert FreezeThaw(explore=0.1).decide(situation(twin, max_steps=64)).run.number == 7


def test_once_nothing_may_start_runs_are_thawed_until_the_most_promising_is_complete():
    study = study_of(FreezeThawPruner())
    study.optimize(Noisy(27), n_trials=20)
    assert all(t.state.is_finished() for t in study.trials)
    assert study.best_trial.steps == 27
    complete = FrozenTrial(0, TrialState.COMPLETE, [0.1], steps=2, intermediate_values={1: 0.2, 2: 0.1})
    left = [complete, paused(1, [5.0])]
    assert FreezeThaw().decide(situation(left, may_start=False, max_steps=2)) == Decision([1])


def test_reports_end_once_there_is_no_chance_left():
    curves = power_laws(20, 0.7, 32)
    done = [paused(n, curve.tolist(), TrialState.COMPLETE) for n, curve in enumerate(curves)]
    hopeless = FrozenTrial(20, intermediate_values={s: 2.0 + 0.5 / s for s in range(1, 9)})
    hopeful = FrozenTrial(20, intermediate_values={s: 0.01 + 1.0 * s**-0.7 for s in range(1, 9)})
    assert FreezeThawPruner().prune(hopeless, [*done, hopeless], 1)
    assert not FreezeThawPruner().prune(hopeful, [*done, hopeful], 1)
    assert not FreezeThawPruner(n_startup_trials=21).prune(hopeless, [*done, hopeless], 1)
    assert not FreezeThawPruner(min_resource=9).prune(hopeless, [*done, hopeless], 1)


def test_part_of_the_proposals_of_an_interleaved_sampler_is_random():
    def points(sampler, count=200):
        study = tuner.create_study(space=SPACE, sampler=sampler)
        study.optimize(lambda trial: trial.params["rate"], n_trials=count)
        return [t.params["rate"] for t in study.trials]

    grid = tuner.samplers.GridSampler({"rate": [0.5]}, seed=3)
    half = points(tuner.samplers.InterleavedSampler(tuner.samplers.QMCSampler(seed=3), 0.3, seed=3))
    sobol, uniform = points(tuner.samplers.QMCSampler(seed=3)), points(RandomSampler(seed=3))
    assert all(x in (s, u) for x, s, u in zip(half, sobol, uniform))
    assert 0.2 < np.mean([x == u for x, u in zip(half, uniform)]) < 0.4
    assert points(tuner.samplers.InterleavedSampler(tuner.samplers.QMCSampler(seed=3), 0.0)) == sobol
    assert tuner.samplers.InterleavedSampler(grid).seed == 3
    with pytest.raises(ValueError, match="random_fraction must be a number in \\[0, 1\\], got 2"):
        tuner.samplers.InterleavedSampler(random_fraction=2)
    with pytest.raises(TypeError, match="sampler must be a tuner.samplers object or None, got 'tpe'"):
        tuner.samplers.InterleavedSampler("tpe")


# -------------------------------------------------------------------------------- population based training


class Population(Resumable):
    """The state is the settings of every step done; a step's value tells how far the setting is from 0.5."""

    suffix = ".json"

    def __init__(self, max_steps=12, ends=None):
        self.max_steps = max_steps
        self.ends = ends or {}
        self.advanced = 0

    def start(self, trial):
        return {"rate": trial.params["rate"], "past": [], "number": trial.number}

    def adapt(self, state, trial):
        return {"rate": trial.params["rate"], "past": state["past"], "number": trial.number}

    def advance(self, state, steps):
        self.advanced += steps
        end = self.ends.pop((state["number"], len(state["past"])), None)
        if end is not None:
            raise end
        past = state["past"]
        values = []
        for _ in range(steps):
            past.append(state["rate"])
            values.append(float(np.mean(np.abs(np.array(past) - 0.5))))
        return {**state, "past": past}, values


class SavedPopulation(Population):
    def save(self, state, path):
        path.write_text(json.dumps(state))

    def load(self, path):
        return json.loads(path.read_text())


SPACE = Space({"rate": Float(0.01, 1.0, log=True)})


def population(storage=None):
    pruner, sampler = PopulationTrainingPruner(size=8, interval=3), RandomSampler(seed=5)
    return tuner.create_study(
        storage=storage, study_name="p", space=SPACE, sampler=sampler, pruner=pruner, load_if_exists=True
    )


def populated(storage=None, work=None, **options):
    study = population(storage)
    study.optimize(work or Population(), **{"n_trials": 8, **options})
    return study


def outcome(study):
    return [(t.state, t.params, t.parent, t.age, t.intermediate_values) for t in study.trials]


def test_a_population_replaces_its_worst_by_perturbed_copies_of_its_best():
    study = populated()
    trials = study.trials
    children = [t for t in trials if t.parent]
    assert len(trials) == 8 + 2 * 3, "a quarter at 3, 6 and 9 steps"
    assert sum(t.state is TrialState.COMPLETE for t in trials) == 8
    assert all(t.age == 12 for t in trials if t.state is TrialState.COMPLETE)
    for child in children:
        number, _ = child.parent
        parent = trials[number]
        born = child.age - child.steps
        assert born in (3, 6, 9)
        rivals = [t for t in trials if t.age - t.steps < born <= t.age]
        last = {t.number: t.intermediate_values[born - (t.age - t.steps)] for t in rivals}
        assert number in sorted(last, key=last.get)[:2]
        ratio = child.params["rate"] / parent.params["rate"]
        assert (
            ratio == pytest.approx(1.2)
            or ratio == pytest.approx(0.8)
            or child.params["rate"] in SPACE.parameters["rate"]
        )
        assert len(child.intermediate_values) == child.steps
    first = [t for t in trials if t.state is TrialState.PRUNED and t.age == 3]
    worst = sorted(trials[:8], key=lambda t: -t.intermediate_values[3])[:2]
    assert {t.number for t in first} == {t.number for t in worst}


def test_a_child_goes_on_from_its_parents_state():
    """Its values are the mean over the parent's steps and its own, whose settings differ."""
    study = populated()
    for child in (t for t in study.trials if t.parent):
        rates, trial = [], child
        steps = child.steps
        while trial is not None:
            rates = [trial.params["rate"]] * steps + rates
            steps = trial.parent and trial.parent[1]
            trial = study.trials[trial.parent[0]] if trial.parent else None
        assert len(rates) == child.age
        expected = [
            np.mean(np.abs(np.array(rates[: child.age - child.steps + i]) - 0.5)) for i in range(1, child.steps + 1)
        ]
        assert list(child.intermediate_values.values()) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["memory", "saved in memory", "files", "one live"])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_where_states_are_kept_and_how_many_work_changes_nothing(tmp_path, monkeypatch, kind, n_jobs):
    if kind == "one live":
        monkeypatch.setattr("tuner.storage.checkpoints.LIVE", 1)
    work = Population() if kind == "memory" else SavedPopulation()
    study = populated(None if "memory" in kind else tmp_path / "s.db", work, n_jobs=n_jobs)
    assert outcome(study) == outcome(populated())
    assert work.advanced == sum(t.steps for t in study.trials), "no step was run twice"
    study.storage.close()


def test_an_interrupted_population_goes_on(tmp_path):
    """Ctrl-C in a founder, in a child's first segment, whose copied state is lost with it, and in a later one."""
    whole = outcome(populated())
    ends = {(2, 0): KeyboardInterrupt(), (8, 3): KeyboardInterrupt(), (8, 6): KeyboardInterrupt()}
    for storage in (None, tmp_path / "s.db"):
        work = SavedPopulation(ends=copy.copy(ends))
        study = None
        for _ in range(4):
            try:
                if study is None or storage is not None:
                    study = population(storage)
                study.optimize(work, n_trials=8, total=True)
            except KeyboardInterrupt:
                pass
        assert not work.ends
        assert outcome(study) == whole
        study.storage.close()


def test_a_member_that_failed_is_replaced():
    good = next(t.number for t in populated().trials if t.state is TrialState.COMPLETE)
    study = populated(work=Population(ends={(good, 3): ValueError("bad")}), catch=ValueError)
    assert study.trials[good].state is TrialState.FAIL
    assert sum(t.state is TrialState.COMPLETE for t in study.trials) == 8


def test_a_task_that_cannot_change_settings_says_so():
    class Rigid(Population):
        adapt = Resumable.adapt

    with pytest.raises(NotImplementedError, match=r"Rigid must define adapt\(state, trial\)"):
        populated(work=Rigid())


def test_settings_of_a_child_without_a_fixed_space():
    class Asking(Population):
        def start(self, trial):
            trial.suggest_float("rate", 0.01, 1.0, log=True)
            return super().start(trial)

    study = tuner.create_study(sampler=RandomSampler(seed=5), pruner=PopulationTrainingPruner(size=4, interval=3))
    study.optimize(Asking(), n_trials=4)
    assert all(set(t.params) == {"rate"} for t in study.trials)
    assert any(t.parent for t in study.trials)


@given(st.integers(0, 10_000), st.floats(0, 1), st.data())
def test_perturbed_settings_stay_in_their_domains(key, resample, data):
    domains = {
        "f": Float(1e-4, 1.0, log=True),
        "s": Float(0.0, 1.0, step=0.25),
        "i": Int(1, 9),
        "l": Int(1, 300, log=True),
        "e": Int(2, 20, step=3),
        "o": Ordinal([1, 2, 4, 8]),
        "c": Categorical(["a", "b"]),
    }
    params = {name: domain.decode(data.draw(st.floats(0, 1))) for name, domain in domains.items()}
    changed = explore(params, domains, (key,), resample)
    for name, domain in domains.items():
        assert changed[name] in domain
    near = explore(params, domains, (key,), 0.0)
    assert near["c"] == params["c"]
    assert (
        near["f"] / params["f"] == pytest.approx(1.2)
        or near["f"] / params["f"] == pytest.approx(0.8)
        or near["f"] in (1e-4, 1.0)
    )
    assert near["i"] != params["i"] or params["i"] in (1, 9)


# ---------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("make", [
    AutoPruner, AsynchronousHalvingPruner, ProgressiveHalvingPruner, HyperbandPruner, FreezeThawPruner,
    lambda: EarlyDiscardingPruner(candidates=6, keep=2),
])  # fmt: skip
def test_budgets_are_kept_and_can_be_raised(make):
    whole, parts = study_of(make()), study_of(make())
    whole.optimize(Noisy(27), total_steps=200)
    for budget in (50, 51, 120, 200):
        parts.optimize(Noisy(27), total_steps=budget)
        assert budget - 27 < sum(t.steps for t in parts.trials) <= budget
    assert [(t.steps, t.params) for t in parts.trials] == [(t.steps, t.params) for t in whole.trials]
    many = study_of(make())
    many.optimize(Noisy(27), total_steps=200, n_jobs=4)
    assert sum(t.steps for t in many.trials) <= 200


@pytest.mark.parametrize("make", [
    AutoPruner, AsynchronousHalvingPruner, ProgressiveHalvingPruner, HyperbandPruner, FreezeThawPruner,
    lambda: EarlyDiscardingPruner(candidates=6, keep=2),
])  # fmt: skip
def test_trials_that_diverge_or_stop_by_themselves_hold_nobody_up(make):
    class Wild(Noisy):
        def advance(self, state, steps):
            state, values = super().advance(state, steps)
            if state[0] % 3 == 0:
                return state, [*values[:-1], math.nan]
            return state, values[:2] if state[0] % 3 == 1 else values

    study = study_of(make())
    study.optimize(Wild(27), n_trials=18)
    assert all(t.state.is_finished() for t in study.trials)
    assert {t.state for t in study.trials[::3]} <= {TrialState.FAIL, TrialState.PRUNED}
    assert study.best_trial.number % 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hyperband(0), "min_steps must be a whole number >= 1, got 0"),
        (lambda: Hyperband(1, 1), "eta must be a whole number >= 2, got 1"),
        (lambda: HyperbandPruner(5, 4), "max_resource must be a whole number >= 5 or 'auto', got 4"),
        (lambda: HyperbandPruner(1, True), "max_resource must be a whole number >= 1 or 'auto', got True"),
        (lambda: HyperbandPruner(0), "min_resource must be a whole number >= 1, got 0"),
        (lambda: HyperbandPruner(1, 9, 1), "reduction_factor must be a whole number >= 2, got 1"),
        (lambda: HyperbandPruner(1, 9, 3, -1), "bootstrap_count must be a whole number >= 0, got -1"),
        (lambda: HyperbandPruner(bootstrap_count=1), "wants a max_resource other than 'auto'"),
        (lambda: AsynchronousHalving(True), "min_steps must be a whole number >= 1, got True"),
        (lambda: AsynchronousHalving(1, 1), "eta must be a whole number >= 2"),
        (lambda: AsynchronousHalvingPruner(0), "min_resource must be a whole number >= 1, got 0"),
        (lambda: ProgressiveHalvingPruner(1, 2.5), "reduction_factor must be a whole number >= 2, got 2.5"),
        (lambda: AutoPruner("first"), "min_resource must be a whole number >= 1 or 'auto', got 'first'"),
        (lambda: FreezeThawPruner(1.5), "min_resource must be a whole number >= 1, got 1.5"),
        (lambda: ProgressiveHalving(0), "min_steps"),
        (lambda: ProgressiveHalving(1, 0), "eta"),
        (lambda: Balanced("first"), "min_steps must be a whole number >= 1 or 'auto', got 'first'"),
        (lambda: Balanced(1, 1), "eta"),
        (lambda: Balanced(explore=1.0), "explore must be a number in \\(0, 1\\), got 1.0"),
        (lambda: EarlyDiscarding(0), "candidates must be a whole number >= 1, got 0"),
        (lambda: EarlyDiscarding(2, 1, 3), "keep must be at most candidates=2, got 3"),
        (lambda: FreezeThaw(0), "min_steps must be a whole number >= 1, got 0"),
        (lambda: FreezeThaw(explore=0), "explore must be a number in \\(0, 1\\), got 0"),
        (lambda: FreezeThawPruner(chance="0.5"), "chance must be a number in .*, got '0.5'"),
        (lambda: FreezeThawPruner(chance=1), "chance must be a number in \\(0, 1\\), got 1"),
        (lambda: FreezeThawPruner(n_startup_trials=0), "n_startup_trials must be a whole number >= 1, got 0"),
        (lambda: PopulationTraining(1), "size must be a whole number >= 2, got 1"),
        (lambda: PopulationTraining(4, 0), "interval"),
        (lambda: PopulationTraining(4, 1, "0.5"), "quantile must be a number in .*, got '0.5'"),
        (lambda: PopulationTraining(4, 1, 0.6), "quantile must be a number in \\(0, 0.5\\], got 0.6"),
        (lambda: PopulationTraining(4, 1, 0.5, 2), "resample must be a number in \\[0, 1\\], got 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
