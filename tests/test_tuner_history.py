"""Earlier trials as arrays: what samplers learn from."""

import math

import numpy as np
import pytest

import tuner
from tuner import Categorical, Float, FrozenTrial, Int, Resumable, Space, TrialPruned, TrialState
from tuner.pruners import AsynchronousHalvingPruner, NopPruner
from tuner.samplers import AutoSampler, History, RandomSampler, TPESampler
from tuner.samplers.history import Table

SPACE = Space({"a": Float(0, 1), "b": Int(1, 4), "c": Categorical(["x", "y"])}, {"b": {"parent": "c", "equals": "x"}})


def trial(number, state=TrialState.COMPLETE, values=(1.0,), params=None, curve=(), **more):
    params = {"a": 0.25, "b": 2, "c": "x"} if params is None else params
    kept = list(values) if state is TrialState.COMPLETE else None
    return FrozenTrial(number, state, kept, params, intermediate_values=dict(enumerate(curve, 1)), **more)


def read(*trials, signs=(1,), space=SPACE):
    return History(lambda: list(trials), signs).observations(space)


def test_points_are_where_encode_puts_them_and_inactive_coordinates_are_nan():
    seen = read(trial(0), trial(1, params={"a": 1.0, "c": "y"}))
    np.testing.assert_array_equal(seen.points[0], SPACE.encode({"a": 0.25, "b": 2, "c": "x"}))
    np.testing.assert_array_equal(seen.points[1], [1.0, math.nan, 0.75])
    assert len(seen) == 2


def test_losses_have_the_sign_of_their_direction():
    np.testing.assert_array_equal(read(trial(0, values=[3, 4]), signs=(1, -1)).losses, [[3, -4]])


def test_trials_are_done_failed_or_pending():
    seen = read(
        trial(0), trial(1, TrialState.FAIL), trial(2, TrialState.RUNNING), trial(3, TrialState.WAITING, params={}),
        trial(4, TrialState.RUNNING, params={}), trial(5),
    )  # fmt: skip
    assert seen.numbers.tolist() == [0, 1, 2, 5]  # those without settings are left out
    assert seen.done.tolist() == [True, False, False, True]
    assert seen.failed.tolist() == [False, True, False, False]
    assert seen.pending.tolist() == [False, False, True, False]


def test_trials_outside_the_space_are_left_out():
    seen = read(trial(0, params={"a": 2.0, "b": 2, "c": "x"}), trial(1, params={"a": 0.5, "c": "z"}), trial(2))
    assert seen.numbers.tolist() == [2]


def test_violations_are_the_sum_of_what_exceeds_zero():
    attrs = [{"constraints": c} for c in ([-1.0, 0.0], [0.5, -3.0, 0.25], [math.nan], None)]
    seen = read(*(trial(i, user_attrs=a) for i, a in enumerate(attrs)))
    np.testing.assert_array_equal(seen.violations, [0, 0.75, math.inf, 0])


def descending(number, objectives=1):
    """A complete trial whose loss falls to its number + 3 in three steps."""
    losses = [5.0 + number, 4.0 + number, 3.0 + number]
    curve = losses if objectives == 1 else [[loss, -10 * loss] for loss in losses]
    return trial(number, values=[0.5] * objectives, curve=curve)


def test_trials_that_stopped_early_get_a_loss_that_can_be_compared():
    done = [descending(number) for number in range(10)]
    early = [
        trial(10, TrialState.PRUNED, curve=[9.0]),  # as bad as the worst
        trial(11, TrialState.PRUNED, curve=[20.0]),  # as bad as it was
        trial(12, TrialState.PAUSED, curve=[1.0]),  # was passed over, by the next one
        trial(13, TrialState.RUNNING, curve=[7.0, 6.0]),  # is on its way
        trial(14, TrialState.PAUSED, curve=[math.inf]),  # may yet go on
        trial(15, TrialState.FAIL, curve=[0.1, 0.1, 0.1]),
        trial(16, TrialState.PAUSED, curve=[math.nan]),
        trial(17, TrialState.RUNNING),
    ]
    seen = read(*done, *early)
    assert seen.losses[:10, 0].tolist() == list(range(3, 13))
    np.testing.assert_array_equal(seen.losses[10:, 0], [12, 20, 12, *[math.nan] * 5])
    assert seen.steps.tolist() == [3] * 10 + [1, 1, 1, 0, 0, 0, 0, 0]
    assert seen.pending.tolist() == [False] * 13 + [True, True, False, True, True]
    # With only nine there, ten have one step: all are compared at the first.
    seen = read(*done[:9], trial(9, TrialState.PAUSED, curve=[9.0]), trial(10, TrialState.RUNNING, curve=[8.0]))
    np.testing.assert_array_equal(seen.losses[:, 0], [*range(5, 14), 9, 8])
    assert seen.steps.tolist() == [1] * 11


def test_the_wider_the_space_the_more_trials_must_have_come_to_where_all_are_compared():
    wide = Space({f"x{i}": Float(0, 1) for i in range(6)})
    params = dict.fromkeys(wide.names, 0.5)
    for count, step in ((13, 1), (14, 3)):  # 2 * dimensions + 2
        done = [trial(n, curve=[5.0, 4.0, 3.0], params=params) for n in range(count)]
        seen = read(*done, trial(count, TrialState.PRUNED, curve=[6.0], params=params), space=wide)
        assert seen.steps.tolist() == [step] * count + [1]


def test_several_objectives_are_compared_one_by_one():
    done = [descending(number, 2) for number in range(10)]
    early = [
        trial(10, TrialState.PRUNED, curve=[[9.0, -300.0]]),  # in the first as bad as the worst, 12 and -120
        trial(11, TrialState.PRUNED, curve=[[20.0, 0.0]]),
        trial(12, TrialState.PAUSED, curve=[[7.0, 0.0]]),
        trial(13, TrialState.RUNNING, curve=[[7.0, 0.0], [6.0, 1.0]]),
        trial(14, TrialState.PRUNED, curve=[[7.0, math.nan]]),
        trial(15, TrialState.FAIL, curve=[[0.1, 0.1]] * 3),
    ]
    seen = read(*done, *early, signs=(1, -1))
    np.testing.assert_array_equal(seen.losses[:10], [[3 + n, 10 * (3 + n)] for n in range(10)])
    nothing = [math.nan] * 2
    np.testing.assert_array_equal(seen.losses[10:], [[12, 300], [20, 120], [12, 120], nothing, [12, 120], nothing])
    assert seen.pending.tolist() == [False] * 13 + [True, False, False]
    broken = trial(0, values=[0.5] * 2, curve=[[1.0, 1.0], [1.0, 1.0], [math.inf, 1.0]])
    seen = read(broken, *done[1:], *early[:1], signs=(1, -1))
    assert seen.losses[0].tolist() == [math.inf, -1]
    assert seen.losses[10].tolist() == [12, 300]  # infinite losses are nobody's measure


@pytest.mark.parametrize("make", [TPESampler, AutoSampler])
@pytest.mark.parametrize("objectives", [1, 2])
def test_samplers_learn_from_first_steps(make, objectives):
    class Curves(Resumable):
        max_steps = 27

        def start(self, trial):
            return trial.params["a"], trial.params["b"], 0

        def advance(self, state, steps):
            a, b, done = state
            rest = [(0.2 + b) * (1 + 1 / step) for step in range(done + 1, done + steps + 1)]
            values = [abs(a - 0.3) + r for r in rest] if objectives == 1 else [[a + r, 1 - a + r] for r in rest]
            return (a, b, done + steps), values

    def off_the_best(sampler):  # which is where b = 0
        space = Space({"a": Float(0, 1), "b": Float(0, 1)})
        directions = ["minimize"] * objectives
        study = tuner.create_study(
            space=space, sampler=sampler, pruner=AsynchronousHalvingPruner(), directions=directions
        )
        study.optimize(Curves(), n_trials=36)
        assert sum(t.state is TrialState.COMPLETE for t in study.trials) < 18
        return np.mean([t.params["b"] for t in study.trials[-12:]])

    assert np.mean([off_the_best(make(seed=seed)) for seed in range(2)]) < 0.25


def test_without_early_ends_final_values_count():
    seen = read(trial(0, values=[0.5], curve=[5.0, 4.0]), trial(1, values=[0.6], curve=[6.0]))
    np.testing.assert_array_equal(seen.losses[:, 0], [0.5, 0.6])
    np.testing.assert_array_equal(seen.steps, [0, 0])


def test_keys_are_those_of_the_space_for_all_trials_with_settings():
    history = History(
        lambda: [trial(0), trial(1, TrialState.RUNNING, params={"a": 1.0, "c": "y"}), trial(2, TrialState.FAIL)]
    )
    keys = history.keys(SPACE)
    assert keys == {SPACE.key(SPACE.encode(p)) for p in ({"a": 0.25, "b": 2, "c": "x"}, {"a": 1.0, "c": "y"})}
    assert SPACE.key(np.array([1.0, 0.9, 0.6])) in keys
    assert SPACE.key(np.array([1.0, 0.9, 0.4])) not in keys


def test_a_table_that_is_kept_reads_what_a_new_one_reads():
    rng = np.random.default_rng(0)
    table = Table()
    trials: list[FrozenTrial] = []
    other = Space({**SPACE.parameters, "a": Float(0, 0.5)}, SPACE.conditions)
    for step in range(150):
        trials.append(trial(len(trials), TrialState.RUNNING, params={"a": float(rng.random()), "c": "y"}))
        for i in rng.permutation(len(trials))[:3]:  # some end, in any order; a few get a curve first
            if trials[i].state is TrialState.RUNNING and rng.random() < 0.7:
                state = TrialState(rng.choice([TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED]))
                curve = rng.random(rng.integers(1, 4)) if step > 80 else ()
                trials[i] = trial(int(i), state, [float(rng.random())], trials[i].params, curve)
        count = int(rng.integers(1, len(trials) + 1))
        space = other if step % 50 == 49 else SPACE
        kept = History(lambda n=count: trials[:n], (-1,), table)
        fresh = History(lambda n=count: trials[:n], (-1,))
        for a, b in zip(vars(kept.observations(space)).values(), vars(fresh.observations(space)).values(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert kept.keys(space) >= fresh.keys(space)


def test_a_study_shows_its_sampler_pruned_and_paused_trials():
    class Curves(Resumable):
        max_steps = 3

        def start(self, trial):
            return trial.params["a"]

        def advance(self, state, steps):
            return state, [state] * steps

    seen = []

    class Watcher(RandomSampler):
        learns = True

        def propose(self, space, history, number, seed):
            seen.append(history.observations(space))
            return super().propose(space, history, number, seed)

    space = Space({"a": Float(0, 1)})
    study = tuner.create_study(space=space, sampler=Watcher(seed=0), pruner=NopPruner())
    study.optimize(Curves(), n_trials=4)
    assert [len(s) for s in seen] == [0, 1, 2, 3]
    np.testing.assert_allclose(seen[-1].losses[:, 0], [t.params["a"] for t in study.trials[:3]])

    def pruned(trial):
        trial.report(trial.params["a"], 1)
        raise TrialPruned

    study = tuner.create_study(space=space, sampler=Watcher(seed=0), pruner=NopPruner(), direction="maximize")
    study.optimize(pruned, n_trials=3)
    np.testing.assert_allclose(seen[-1].losses[:, 0], [-t.params["a"] for t in study.trials[:2]])
    assert not seen[-1].pending.any()


def test_the_history_is_read_once_and_only_when_asked_for():
    calls = []
    history = History(lambda: calls.append(1) or [trial(0)])
    assert not calls
    assert len(history.trials) == len(history.observations(SPACE)) == 1
    assert calls == [1]
    with pytest.raises(ValueError, match="read-only|assignment"):
        frozen = history.observations(SPACE).losses
        frozen.flags.writeable = False
        frozen[0] = 1
