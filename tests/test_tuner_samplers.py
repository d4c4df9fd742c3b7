"""The conformance suite of samplers, and what each of them promises beyond it."""

import itertools
import pickle

import numpy as np
import pytest
from cases import SAMPLERS
from scipy.stats import norm

import tuner
from tuner import Categorical, Float, Int, Ordinal, Space, SpaceError, SpaceExhausted
from tuner.samplers import SAMPLERS as REGISTERED
from tuner.samplers import GridSampler, History, QMCSampler, RandomSampler
from tuner.samplers.base import Sampler, keyed_integer, keyed_uniform
from tuner.samplers.quasirandom import central_point, sobol_point
from tuner.samplers.sobol import AXES, sobol_bits

SPACES = {
    "mixed": Space(
        {
            "lr": Float(1e-4, 1, log=True),
            "n": Int(1, 9, log=True),
            "b": Ordinal([16, 32]),
            "d": Categorical(["relu", None, (8, 8), 3.5]),
        },
        defaults=[{"lr": 0.01}, {"lr": 0.1, "d": None}],
    ),
    "conditional": Space(
        {"depth": Int(1, 3), "w2": Int(4, 6), "w3": Float(0, 1)},
        {"w2": {"parent": "depth", "at_least": 2}, "w3": {"parent": "w2", "equals": 5}},
    ),
    "empty": Space({}),
    "one point": Space({"a": Float(2, 2), "b": Int(3, 3), "c": Categorical(["only"])}),
    "many categories": Space({"c": Categorical(list(range(5000))), "x": Float(-1, 1, step=0.5)}),
}


def nothing():
    return History(list)


def propose(sampler, space, numbers, seed=7):
    return [sampler.propose(space, nothing(), number, seed) for number in numbers]


def within(sampler, space, count):
    limit = sampler.limit(space)
    return range(count if limit is None else min(count, limit))


def test_every_sampler_has_a_row():
    assert {case.name for case in SAMPLERS} == set(REGISTERED)
    assert all(type(case.make(0)).__name__ == case.name for case in SAMPLERS)
    assert all(getattr(tuner.samplers, case.name) for case in SAMPLERS)


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_points_lie_in_the_cube_and_depend_on_the_number_alone(case, space):
    sampler = case.make(3)
    numbers = within(sampler, space, 12)
    points = propose(sampler, space, numbers)
    for point in points:
        assert point.shape == (space.dimensions,)
        assert ((point >= 0) & (point <= 1)).all()
        space.encode(space.decode(point))
    again = propose(case.make(3), space, reversed(numbers))
    np.testing.assert_array_equal(points, again[::-1])


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_another_seed_gives_other_points(case):
    sampler = case.make(1), case.make(2)
    first, second = (propose(s, SPACES["mixed"], range(4, 10), seed=s.seed) for s in sampler)
    assert not np.array_equal(first, second)


def bowl(trial):
    """A value in [0, 1) per parameter, which depends on the settings alone."""
    places = trial.study.space.encode(trial.params) if trial.study.space else []
    return float(np.sum((places - 0.3) ** 2)) + 0.1 * keyed_uniform(repr(sorted(trial.params.items())))


def settings(study):
    return [t.params for t in study.trials]


def trials_for(case, many, few):
    """Samplers that learn are slower, and their learning shows soon."""
    return few if case.make(0).learns else many


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
@pytest.mark.parametrize(
    ("space", "storage"),
    [*((name, "memory") for name in SPACES), ("mixed", "sqlite"), ("conditional", "sqlite")],
)
def test_25_and_25_after_a_restart_propose_what_50_would(case, space, storage, tmp_path):
    def study(name):
        url = f"sqlite:///{tmp_path}/study.db" if storage == "sqlite" else None
        return tuner.create_study(
            storage=url, study_name=name, sampler=case.make(5), space=SPACES[space], load_if_exists=storage == "sqlite"
        )

    half = trials_for(case, 25, 25 if storage == "sqlite" else 13)
    whole = study("whole")
    whole.optimize(bowl, n_trials=2 * half)
    halves = study("halves")
    halves.optimize(bowl, n_trials=half, total=True)
    if storage == "sqlite":
        halves = study("halves")
    else:
        halves.sampler = case.make(5)
    halves.optimize(bowl, n_trials=2 * half, total=True)
    assert settings(whole) == settings(halves)
    assert len(whole.trials) == len(within(whole.sampler, SPACES[space], 2 * half))


def define_by_run(trial):
    if trial.suggest_categorical("kind", ["line", "square"]) == "line":
        slope = trial.suggest_float("slope", 0, 1, step=0.25)
        return slope
    return trial.suggest_int("size", 1, 4) + trial.suggest_int("extra", 0, 2)


def branches(case):
    if case.name != "GridSampler":
        return case.make(5)
    return GridSampler({"kind": ["line", "square"], "slope": [0, 0.5], "size": [1, 4], "extra": [0, 2]}, seed=5)


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_define_by_run_proposals_do_not_depend_on_restarts_or_threads(case):
    whole, halves, threads = (tuner.create_study(sampler=branches(case)) for _ in range(3))
    whole.optimize(define_by_run, n_trials=16)
    halves.optimize(define_by_run, n_trials=7)
    halves.optimize(define_by_run, n_trials=9)
    threads.optimize(define_by_run, n_trials=16, n_jobs=4)
    params = [t.params for t in whole.trials]
    assert params == [t.params for t in halves.trials]
    if not whole.sampler.learns:
        assert params == [t.params for t in threads.trials]
    assert {p["kind"] for p in params} == {"line", "square"}


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_nan_objectives_and_exceptions_do_not_disturb_a_sampler(case):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1, step=0.1)
        if trial.number % 3 == 0:
            return float("nan")
        if trial.number % 3 == 1:
            raise OSError("no luck")
        return x

    study = tuner.create_study(sampler=case.make(0), space=Space({"x": Float(0, 1, step=0.1)}))
    study.optimize(objective, n_trials=11, catch=OSError)
    states = [t.state for t in study.trials]
    assert states == [tuner.TrialState.FAIL, tuner.TrialState.FAIL, tuner.TrialState.COMPLETE] * 3 + [
        tuner.TrialState.FAIL,
        tuner.TrialState.FAIL,
    ]
    assert study.best_trial.number % 3 == 2


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_a_sampler_goes_on_while_no_trial_has_a_value(case):
    study = tuner.create_study(sampler=case.make(0), space=SPACES["mixed"])
    study.optimize(lambda trial: float("nan"), n_trials=14)
    assert {t.state for t in study.trials} == {tuner.TrialState.FAIL}
    assert len({repr(t.params) for t in study.trials}) == 14


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_infinite_values_do_not_disturb_a_sampler(case):
    study = tuner.create_study(sampler=case.make(0), space=SPACES["mixed"])
    study.optimize(lambda t: float("inf") if t.number % 2 else bowl(t), n_trials=16)
    assert len(study.trials) == 16
    assert study.best_trial.number % 2 == 0


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_huge_and_tiny_values_do_not_disturb_a_sampler(case, objectives):
    kinds = [lambda u: (u - 0.5) * 2e308, lambda u: u * 5e-324, lambda u: 1e16 + u]
    for kind in kinds:
        study = tuner.create_study(
            sampler=case.make(0), space=SPACES["mixed"], directions=["minimize", "maximize"][:objectives]
        )
        study.optimize(
            lambda t, kind=kind: [kind(bowl(t) / 9), kind(keyed_uniform(t.number))][:objectives], n_trials=16
        )
        assert {t.state for t in study.trials} == {tuner.TrialState.COMPLETE}


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_to_maximize_mirrors_to_minimize_exactly(case):
    down = tuner.create_study(sampler=case.make(3), space=SPACES["mixed"], direction="minimize")
    up = tuner.create_study(sampler=case.make(3), space=SPACES["mixed"], direction="maximize")
    down.optimize(bowl, n_trials=20)
    up.optimize(lambda trial: -bowl(trial), n_trials=20)
    assert settings(down) == settings(up)


@pytest.mark.parametrize("case", [c for c in SAMPLERS if c.make(0).learns], ids=str)
def test_a_sampler_that_learns_gets_better(case):
    def better_half_of_last(sampler):  # some samplers mix random points in
        study = tuner.create_study(sampler=sampler, space=SPACES["mixed"])
        study.optimize(bowl, n_trials=30)
        return np.mean(sorted(t.value for t in study.trials[-10:])[:5])

    learned = [better_half_of_last(case.make(seed)) for seed in range(2)]
    assert np.mean(learned) < 0.62 * np.mean([better_half_of_last(RandomSampler(seed)) for seed in range(12)])


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_hard_constraints_are_kept_by_every_trial(case):
    space = Space({"a": Int(1, 9), "b": Float(0, 1)}, constraints=["a * b <= 2", "a != 5"])
    study = tuner.create_study(sampler=case.make(1), space=space)
    study.optimize(lambda trial: -trial.params["a"] * trial.params["b"], n_trials=20)
    assert all(space.allows(params) for params in settings(study))
    assert len(study.trials) == len(within(study.sampler, space, 20))


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_constraints_that_contradict_each_other_are_an_error_that_names_them(case):
    space = Space({"a": Int(1, 9), "b": Float(0, 1)}, constraints=["a > 5", "a < 4"])
    study = tuner.create_study(sampler=case.make(1), space=space)
    with pytest.raises(SpaceError, match="a > 5.*a < 4"):
        study.optimize(lambda trial: 0.0, n_trials=3)


@pytest.mark.parametrize("case", [c for c in SAMPLERS if c.name != "GridSampler"], ids=str)
def test_soft_constraints_are_broken_by_few_trials_even_if_that_pays(case):
    space = Space({"a": Float(0, 1), "b": Float(0, 1)}, constraints=[tuner.Constraint("a > 0.4", weight=0.2)])
    study = tuner.create_study(sampler=case.make(1), space=space)
    study.optimize(lambda trial: trial.params["a"], n_trials=40)
    broken = sum(params["a"] <= 0.4 for params in settings(study))
    assert 1 <= broken <= 17  # binomial(40, at most 0.2): chance below 2e-4


@pytest.mark.parametrize("case", [c for c in SAMPLERS if c.name != "GridSampler"], ids=str)
def test_a_prior_steers_every_sampler(case):
    weights = tuner.Weights([1, 1, 8, 1, 1], doubt=0.1)
    space = Space({"a": Categorical("uvwxy"[i] for i in range(5)), "b": Ordinal([1, 2, 3, 4, 5]), "c": Float(0, 1)})
    likely = Space({name: type(d)(d.choices, prior=weights) for name, d in space.parameters.items() if name != "c"})
    likely = Space({**likely.parameters, "c": space.parameters["c"]})
    counts = []
    for given in (space, likely):
        study = tuner.create_study(sampler=case.make(2), space=given)
        study.optimize(lambda trial: keyed_uniform(trial.number), n_trials=10)  # later ones learn
        counts.append(sum((p["a"] == "w") + (p["b"] == 3) for p in settings(study)))
    assert counts[1] > max(7, counts[0])  # of 20: 4 and 12 are to be expected of random ones


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_choices_may_be_added_when_a_study_goes_on(case, tmp_path):
    def study(choices):
        space = Space({"a": Categorical(choices), "b": Int(1, 4)})
        return tuner.create_study(
            storage=tmp_path / "s.db", sampler=case.make(4), space=space, load_if_exists=True, study_name="s"
        )

    study(["x", "y"]).optimize(bowl, n_trials=8)
    more = study(["x", "y", "new"])
    more.optimize(lambda trial: bowl(trial) - 2 * (trial.params["a"] == "new"), n_trials=12, total=True)
    assert len(more.trials) == 12
    assert all(params["a"] in ("x", "y", "new") for params in settings(more))
    if case.name != "GridSampler":  # which goes on at the ninth cell of the new grid
        assert "new" in {params["a"] for params in settings(more)}
        assert len({repr(params) for params in settings(more)}) == 12


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_several_objectives_and_restarts(case):
    def objective(trial):
        return bowl(trial), 1 / (1 + bowl(trial)) + keyed_uniform(repr(trial.params))

    def study():
        return tuner.create_study(sampler=case.make(6), space=SPACES["mixed"], directions=["minimize", "maximize"])

    whole, halves = study(), study()
    whole.optimize(objective, n_trials=18)
    halves.optimize(objective, n_trials=9)
    halves.sampler = case.make(6)
    halves.optimize(objective, n_trials=9)
    assert settings(whole) == settings(halves)
    assert whole.best_trials


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_no_two_trials_are_the_same_until_the_space_is_used_up(case):
    space = Space({"a": Int(1, 4), "b": Categorical(["x", "y", "z"])}, {"b": {"parent": "a", "at_least": 2}})
    study = tuner.create_study(sampler=case.make(8), space=space)
    study.optimize(bowl, n_trials=10, n_jobs=4)
    assert len({repr(params) for params in settings(study)}) == 10
    study.optimize(bowl, n_trials=4, n_jobs=4)
    assert len(study.trials) == len(within(study.sampler, space, 14))


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_parallel_trials_of_a_continuous_space_differ(case):
    space = Space({"a": Float(0, 1), "b": Float(1e-3, 1, log=True), "c": Categorical(["x", "y", "z"])})
    study = tuner.create_study(sampler=case.make(8), space=space)
    trials = [study.ask() for _ in range(9)]
    for trial in reversed(trials):  # they end in another order than they began
        study.tell(trial, bowl(trial))
    trials += [study.ask() for _ in range(9)]
    for trial in trials[9:]:
        study.tell(trial, bowl(trial))
    assert len({repr(params) for params in settings(study)}) == 18


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_a_pickled_sampler_proposes_the_same(case):
    study = tuner.create_study(sampler=case.make(9), space=SPACES["mixed"])
    study.optimize(bowl, n_trials=14)
    other = pickle.loads(pickle.dumps(study.sampler))
    history = study._history(14)
    np.testing.assert_array_equal(
        other.propose(study.space, history, 14, 9), study.sampler.propose(study.space, history, 14, 9)
    )


@pytest.mark.parametrize("case", SAMPLERS, ids=str)
def test_the_best_trial_keeps_the_constraints_of_its_values(case):
    study = tuner.create_study(
        sampler=case.make(3), space=SPACES["mixed"], constraints_func=lambda trial: [0.4 - trial.value]
    )
    study.optimize(bowl, n_trials=24)
    assert 0.4 <= study.best_value == min(t.value for t in study.trials if t.value >= 0.4)


@pytest.mark.parametrize("case", [c for c in SAMPLERS if c.even], ids=str)
def test_even_points_fill_each_half_quarter_and_eighth(case):
    space = Space({"a": Float(0, 1), "b": Float(0, 1)})
    points = np.array(propose(case.make(9), space, range(64), seed=9))
    for rows, columns in ((64, 1), (1, 64), (8, 8), (4, 16), (32, 2)):
        cells = (points * (rows, columns)).astype(int)
        assert len(set(map(tuple, cells))) == 64


def test_without_a_seed_studies_differ_but_each_goes_on_as_it_began(tmp_path):
    def study(name):
        return tuner.create_study(
            storage=tmp_path / "s.db", study_name=name, sampler=RandomSampler(), load_if_exists=True
        )

    for name in ("a", "b"):
        for _ in range(2):
            study(name).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    values = [[t.value for t in study(name).trials] for name in ("a", "b")]
    assert len({*values[0], *values[1]}) == 8
    assert study("a").seed == study("a").seed != study("b").seed


# ----------------------------------------------------------------------------------------------- random


def test_keyed_numbers_are_fixed_for_ever_and_look_uniform():
    assert keyed_integer(1, 2, "x") == 18377949248912371960
    values = [keyed_uniform(0, number, "x") for number in range(4000)]
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 45  # 19 degrees of freedom: chance 0.0007
    assert len(set(values)) == 4000


# ------------------------------------------------------------------------------------------------ Sobol


def test_scrambling_makes_each_point_uniform_over_seeds_and_pairs_independent():
    points = np.array([[sobol_point(3, number, seed) for number in (0, 1, 2)] for seed in range(2000)])
    for number, axis in itertools.product(range(3), range(3)):
        counts = np.histogram(points[:, number, axis], bins=16, range=(0, 1))[0]
        assert ((counts - 125) ** 2 / 125).sum() < 45
    cells = np.histogram2d(points[:, 0, 0], points[:, 0, 1], bins=4, range=[(0, 1)] * 2)[0]
    assert ((cells - 125) ** 2 / 125).sum() < 45
    for first, second in ((0, 1), (0, 2)):  # points of one net avoid each other's half, but are else independent
        inside = (points[:, first, 0] * 2 % 1, points[:, second, 0] * 2 % 1)
        assert abs(np.corrcoef(*inside)[0, 1]) < 0.09


def test_more_dimensions_do_not_change_the_first_ones():
    np.testing.assert_array_equal(sobol_point(3, 77, 5), sobol_point(40, 77, 5)[:3])


def test_sobol_integrates_better_than_random_points():
    def error(points):
        return abs(np.prod(1 + 0.5 * (points - 0.5), axis=1).mean() - 1)

    space = Space({f"x{i}": Float(0, 1) for i in range(6)})
    errors = {
        sampler: np.mean([error(np.array(propose(sampler(), space, range(128), seed))) for seed in range(5)])
        for sampler in (QMCSampler, RandomSampler)
    }
    assert errors[QMCSampler] < errors[RandomSampler] / 4


def test_sobol_says_how_many_dimensions_it_has():
    with pytest.raises(SpaceError, match="at most 21201 dimensions"):
        sobol_point(30_000, 0, 0)


@pytest.mark.parametrize("dimensions", [1, 2, 8, AXES])
def test_the_sobol_sequence_is_that_of_scipy(dimensions):
    from scipy.stats import qmc

    oracle = qmc.Sobol(dimensions, scramble=False, bits=32).random_base2(10)
    np.testing.assert_array_equal(sobol_bits(dimensions, 10) * 2.0**-32, oracle)


# ------------------------------------------------------------------------------------------------- auto


def test_auto_tries_the_spaces_defaults_first():
    space = SPACES["mixed"]
    study = tuner.create_study(space=space, sampler=tuner.samplers.AutoSampler(seed=0))
    study.optimize(lambda trial: trial.params["lr"], n_trials=4)
    assert [t.params["lr"] for t in study.trials[:2]] == [0.01, 0.1]
    assert study.trials[1].params["d"] is None


# ------------------------------------------------------------------------------------------------- grid


def test_grid_walks_every_cell_once_and_ends_the_study():
    space = Space({"a": Int(0, 4, step=2), "b": Categorical(["x", "y"]), "c": Float(0, 1)})
    study = tuner.create_study(space=space, sampler=GridSampler(points=3))
    study.optimize(lambda trial: 0.0, n_jobs=3)
    cells = [tuple(t.params.values()) for t in study.trials]
    assert cells == list(itertools.product([0, 2, 4], ["x", "y"], [0, 0.5, 1]))
    with pytest.raises(SpaceExhausted, match="has proposed everything"):
        study.ask()


def test_grid_counts_the_cells_of_a_conditional_space_once():
    study = tuner.create_study(space=SPACES["conditional"], sampler=GridSampler(points=2))
    study.optimize(lambda trial: 0.0)
    cells = [tuple(t.params.items()) for t in study.trials]
    assert len(cells) == len(set(cells)) == 1 + 2 * (2 + 2)


def test_grid_takes_optunas_search_space_in_define_by_run_and_keeps_its_values_exactly():
    values = {"lr": [0.01, 0.003], "act": ["relu", None]}

    def objective(trial):
        return trial.suggest_float("lr", 1e-5, 1, log=True) + (trial.suggest_categorical("act", ["relu", None]) is None)

    study = tuner.create_study(sampler=GridSampler(values, seed=1))
    study.optimize(objective, n_trials=100)
    assert sorted(map(repr, (tuple(t.params.values()) for t in study.trials))) == sorted(
        map(repr, itertools.product(*values.values()))
    )


def test_enqueued_trials_take_no_cell_away():
    study = tuner.create_study(space=Space({"a": Int(0, 3)}), sampler=GridSampler())
    study.enqueue_trial({"a": 3})
    study.optimize(lambda trial: 0.0, n_trials=2)
    study.enqueue_trial({"a": 0})
    study.optimize(lambda trial: 0.0)
    assert [t.params["a"] for t in study.trials] == [3, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("make", "space", "message"),
    [
        (lambda: GridSampler(), None, "needs search_space"),
        (lambda: GridSampler({"a": []}), None, "no values for 'a'"),
        (lambda: GridSampler({"a": [1]}), Space({"b": Int(0, 1)}), "lacks 'b'"),
        (lambda: GridSampler({"a": [9]}), Space({"a": Int(0, 1)}), "a=9 is not in Int"),
        (lambda: GridSampler(), Space({"a": Int(0, 10**9)}), "at most 1000000 can be walked"),
        (lambda: GridSampler({"b": [1]}), "run", "lacks 'a'"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(make, space, message):
    with pytest.raises(SpaceError, match=message):
        study = tuner.create_study(space=None if space == "run" else space, sampler=make())
        study.optimize(lambda trial: trial.suggest_int("a", 0, 1), n_trials=1)


@pytest.mark.parametrize("pruner", [tuner.pruners.NopPruner(), tuner.pruners.SuccessiveHalvingPruner(1, 3)])
@pytest.mark.parametrize("form", ["function", "resumable"])
def test_a_sampler_may_say_itself_that_it_has_nothing_left(form, pruner):
    class Three(RandomSampler):
        def propose(self, space, history, number, seed):
            if number == 3:
                raise SpaceExhausted("that was all")
            return super().propose(space, history, number, seed)

    class Flat(tuner.Resumable):
        def start(self, trial):
            return trial.params["x"]

        def advance(self, state, steps):
            return state, [state] * steps

    study = tuner.create_study(sampler=Three(seed=0), space=Space({"x": Float(0, 1)}), pruner=pruner)
    for _ in range(2):
        study.optimize(Flat() if form == "resumable" else lambda trial: trial.params["x"], n_trials=9)
    assert [t.state.is_finished() for t in study.trials] == [True, True, True, False]


# ---------------------------------------------------------------------------------- samplers that learn


class Follower(Sampler):
    """Stays near the best trial so far: what a sampler that learns gets to see."""

    learns = True

    def propose(self, space, history, number, seed):
        done = [t for t in history.trials if t.value is not None]
        self.seen = (space.names, len(history.trials))
        assert all(t.number < number for t in history.trials)
        if not done or not space.dimensions:
            return np.full(space.dimensions, 0.75)
        best = min(done, key=lambda t: history.signs[0] * t.value)
        return space.encode(best.params) * 0.5


@pytest.mark.parametrize("space", [None, Space({"x": Float(0, 1)})], ids=["define by run", "fixed"])
def test_a_learning_sampler_sees_the_space_so_far_and_earlier_trials_only(space):
    study = tuner.create_study(sampler=Follower(seed=0), space=space)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=6)
    assert study.sampler.seen == (["x"], 5)
    values = [t.value for t in study.trials]
    assert values[1:] == pytest.approx([values[0] / 2**k for k in range(1, 6)])


# ---------------------------------------------------------------------------------------------- the start


def test_central_points_begin_at_the_default_and_are_normal_around_it():
    space = Space(
        {"x": Float(0, 1), "n": Int(0, 99), "kind": Categorical(["a", "b", "c", "d"]), "y": Float(-1, 1)},
        defaults=[{"x": 0.4, "kind": "c"}],
    )
    assert space.decode(central_point(space, 0, 5)) == {"x": 0.4, "n": 50, "kind": "c", "y": 0.0}
    points = np.array([central_point(space, number, 5) for number in range(1, 1025)])
    assert ((points >= 0) & (points <= 1)).all()
    assert points[:, 0].mean() == pytest.approx(0.4, abs=0.01)
    assert points[:, 0].std() == pytest.approx(1 / 6, abs=0.01)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(points[:, 1], share) == pytest.approx(norm.ppf(share, 0.505, 1 / 6), abs=0.01)
    counts = np.bincount((points[:, 2] * 4).astype(int))
    assert abs(counts - 256).max() <= 2  # categories come evenly


def test_in_few_dimensions_they_lie_anywhere():
    space = Space({"x": Float(0, 1), "y": Float(0, 1)})
    np.testing.assert_array_equal(central_point(space, 0, 5), [0.5, 0.5])
    for number in range(1, 9):
        np.testing.assert_array_equal(central_point(space, number, 5), sobol_point(2, number, 5))
