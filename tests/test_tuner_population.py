"""Population based training inside `tuner.tune`: weights are copied bit by bit, and settings change in mid-run."""

import numpy as np
import pytest

import tuner
from nanonet import data, nn
from nanonet.settings import Settings
from nanonet.training import Run
from tuner import Categorical, Float, Int, Ordinal, Space, TrialState
from tuner.pruners import PopulationTrainingPruner
from tuner.tuning.course import Course
from tuner.tuning.parts import Parts
from tuner.tuning.runs import TrainingRuns
from tuner.tuning.stages import continued

BASE = Settings(hidden=(8,), optimizer="sgd", learning_rate=0.05, momentum=0.9, batch_size=16)
RATES = Space(
    {"learning_rate": Float(1e-3, 0.5, log=True), "weight_decay": Float(1e-6, 1e-2, log=True)},
    defaults=[{"learning_rate": 0.05, "weight_decay": 1e-4}],
)


def blobs(rows=240, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    centres = 1.5 * rng.standard_normal((classes, 5))
    return (centres[y] + rng.standard_normal((rows, 5))).astype(np.float32), y


def one_fold():
    return Parts.of(data.from_arrays(*blobs()), "split", 0.2, 0).folds[0]


def run_of(settings, fold=None):
    fold = fold or one_fold()
    return Run(settings, fold.x, fold.y, (fold.x_validation, fold.y_validation), classes=3)


def goes_on(run, settings, **changes):
    fold = one_fold()
    return continued(run, settings, fold.x, fold.y, (fold.x_validation, fold.y_validation), **changes)


def weights(run):
    return [np.asarray(value) for value in run.model.state_dict().values()]


def same(run, other):
    assert run.history == other.history
    for a, b in zip(weights(run), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------------------- one run goes on


@pytest.mark.parametrize(
    "settings",
    [
        BASE,
        BASE.replace(optimizer="adamw", dropout=0.2, schedule="cosine", epochs=6, learning_rate=0.01),
        BASE.replace(batch_norm=True, schedule="one_cycle", epochs=6, restart=2, warmup=1.0, early_stopping=3),
    ],
)
def test_with_the_same_settings_it_is_as_if_nothing_had_happened(settings):
    whole, part = run_of(settings), run_of(settings)
    whole.advance(5)
    part.advance(2)
    before = weights(part)
    other = goes_on(part, settings)
    for a, b in zip(before, weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    other.advance(3)
    same(other, whole)


def assign(**options):
    def change(run):
        for group in run.optimizer.param_groups:
            for name, value in options.items():
                if name not in ("weight_decay", "l1") or group["params"][0].ndim > 1:
                    group[name] = value

    return change


ADAM = BASE.replace(optimizer="adam", learning_rate=0.01)


@pytest.mark.parametrize(
    ("begin", "changes", "by_hand"),
    [
        (BASE, {"learning_rate": 0.2}, assign(lr=0.2)),
        (BASE, {"momentum": 0.5}, assign(momentum=0.5)),
        (BASE, {"weight_decay": 0.1, "l1": 0.01}, assign(weight_decay=0.1, l1=0.01)),
        (BASE.replace(momentum=0.0), {"momentum": 0.8}, assign(momentum=0.8)),
        (BASE, {"momentum": 0.0}, assign(momentum=0.0)),
        (ADAM, {"beta1": 0.5, "beta2": 0.9, "learning_rate": 0.03}, assign(betas=(0.5, 0.9), lr=0.03)),
    ],
)
def test_changed_settings_are_as_if_changed_by_hand(begin, changes, by_hand):
    hand, part = run_of(begin), run_of(begin)
    hand.advance(2)
    part.advance(2)
    by_hand(hand)
    other = goes_on(part, begin.replace(**changes))
    hand.advance(3)
    other.advance(3)
    same(other, hand)
    part.advance(3)
    assert other.history[-1]["loss"] != part.history[-1]["loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 48},
        {"dropout": 0.3},
        {"clip_norm": 0.05},
        {"clip_value": 0.001},
        {"label_smoothing": 0.2},
        {"schedule": "exponential"},
    ],
)
def test_the_rest_is_as_a_new_run_over_the_same_weights(changes):
    """Plain descent remembers nothing, so new settings over the old weights, and the count of epochs, are all."""
    begin = BASE.replace(momentum=0.0)
    part, hand = run_of(begin), run_of(begin.replace(**changes))
    part.advance(2)
    for ours, theirs in zip(hand.model.parameters(), part.model.parameters(), strict=True):
        ours.array[...] = theirs.array
    hand.history = [dict(epoch) for epoch in part.history]
    hand._best_epoch = part.best_epoch
    other = goes_on(part, begin.replace(**changes))
    for run in (hand, other, part):
        run.advance(2)
    same(other, hand)
    assert not np.array_equal(weights(other)[0], weights(part)[0])


def test_another_share_of_dropout_draws_on_from_where_it_was():
    begin = BASE.replace(momentum=0.0, dropout=0.1)
    part, hand = run_of(begin), run_of(begin.replace(dropout=0.4))
    part.advance(2)
    for ours, theirs in zip(hand.model.parameters(), part.model.parameters(), strict=True):
        ours.array[...] = theirs.array
    for (_, ours), (_, theirs) in zip(hand.model.named_streams(), part.model.named_streams(), strict=True):
        assert theirs.state.any()
        ours.state[...] = theirs.state
    hand.history, hand._best_epoch = [dict(epoch) for epoch in part.history], part.best_epoch
    other = goes_on(part, begin.replace(dropout=0.4))
    hand.advance(2)
    other.advance(2)
    same(other, hand)


def test_dropout_that_goes_leaves_the_weights():
    begin = BASE.replace(dropout=0.3, hidden=(8, 6))
    part = run_of(begin)
    part.advance(1)
    other = goes_on(part, begin.replace(dropout=0.0))
    assert not any(isinstance(module, nn.Dropout) for module in other.model.modules())
    for a, b in zip(weights(part), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_network_and_the_kind_of_optimizer_stay():
    part = run_of(BASE)
    part.advance(1)
    wanted = BASE.replace(hidden=(99,), activation="tanh", optimizer="adam", batch_norm=True, seed=5, learning_rate=0.3)
    assert goes_on(part, wanted).settings == BASE.replace(learning_rate=0.3)
    task = TrainingRuns([], [], BASE, Course(1, [1], False))
    parent = {"layers": 1, "width_1": 8, "optimizer": "sgd", "learning_rate_sgd": 0.1, "dropout": 0.1}
    params = {"layers": 2, "width_1": 9, "optimizer": "adam", "learning_rate_sgd": 0.2, "dropout": 0.3}
    assert task.inherit(params, parent) == {**parent, "learning_rate_sgd": 0.2, "dropout": 0.3}


# ------------------------------------------------------------------------------------ in a search


def by_hand(study, trial, fold):
    """The run that a trial's lineage describes, and the values after each of its own epochs."""
    rates = ("learning_rate", "weight_decay")
    chain = [trial]
    while chain[0].parent is not None:
        chain.insert(0, study.trials[chain[0].parent[0]])
    run = run_of(BASE.replace(**chain[0].params), fold)
    for member, successor in zip(chain, [*chain[1:], None], strict=True):
        assert set(member.params) == set(rates)
        assign(lr=member.params["learning_rate"], weight_decay=member.params["weight_decay"])(run)
        run.advance(successor.parent[1] if successor else member.steps)
    values = [e["val_accuracy"] - 1e-6 * e["val_loss"] for e in run.history[trial.age - trial.steps :]]
    return run, dict(enumerate(values, 1))


OPTIONS = {"space": RATES, "base": BASE, "max_epochs": 6, "validation": "split", "n_jobs": 1}


def population(**options):
    return PopulationTrainingPruner(**{"size": 5, "interval": 2, "quantile": 0.4, "seed": 1} | options)


@pytest.mark.parametrize("kept", ["memory", "files"])
def test_a_population_trains_as_by_hand(kept, tmp_path):
    x, y = blobs()
    where = {"out": tmp_path / "out"} if kept == "files" else {}
    result = tuner.tune(x, y, **OPTIONS, pruner=population(), **where)
    study, fold = result.study, one_fold()
    children = [t for t in study.trials if t.parent is not None]
    assert len(children) == 2 * 2  # two of five, after 2 and after 4 epochs
    for trial in study.trials:
        assert trial.intermediate_values == pytest.approx(by_hand(study, trial, fold)[1], rel=1e-12)
    for child in children:
        parent = study.trials[child.parent[0]]
        assert child.params != parent.params
    best = result.best_trial
    assert best.age == 6 == result.epochs
    assert best.value == max(t.value for t in study.trials if t.state is TrialState.COMPLETE)
    study.storage.close()


def test_the_model_at_the_end_goes_through_the_same_stages():
    x, y = blobs()
    for seed in range(8):  # until the best is one that went on from another
        result = tuner.tune(x, y, **OPTIONS, pruner=population(seed=seed))
        if result.best_trial.parent is not None:
            break
    assert len(result.stages) > 1
    assert [s.epochs for s in result.stages] == sorted(s.epochs for s in result.stages)
    assert result.stages[-1].epochs == 6
    assert result.stages[-1].settings == result.settings
    parts = Parts.of(data.from_arrays(x, y), "split", 0.2, 0)
    x_scaled = result.standardizer.transform(parts.x)
    run = Run(result.stages[0].settings, x_scaled, parts.y, classes=3)
    for stage in result.stages:
        assign(lr=stage.settings.learning_rate, weight_decay=stage.settings.weight_decay)(run)
        run.advance(stage.epochs - run.epoch)
    for a, b in zip(weights(run), weights(result.run), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "after epoch" in result.report() and "learning_rate" in result.report()


def test_networks_are_inherited_and_conditions_hold():
    x, y = blobs()
    space = Space(
        {
            "layers": Int(1, 2),
            "width_1": Int(4, 64, log=True),
            "width_2": Int(4, 64, log=True),
            "optimizer": Categorical(["sgd", "adam"]),
            "learning_rate": Float(1e-3, 0.1, log=True),
            "batch_size": Ordinal([16, 32, 64]),
            "dropout": Float(0.0, 0.5),
            "schedule": Categorical(["constant", "cosine", "exponential"]),
            "schedule_gamma": Float(0.5, 1.0),
        },
        {
            "width_2": {"parent": "layers", "in": [2]},
            "schedule_gamma": {"parent": "schedule", "in": ["exponential"]},
        },
    )
    options = OPTIONS | {"space": space, "validation": 2}
    result = tuner.tune(x, y, **options, pruner=population(resample=1.0, size=6), finalists=2, repeats=2)
    study = result.study
    children = [t for t in study.trials if t.parent is not None]
    assert children
    assert all(t.state is not TrialState.FAIL for t in study.trials)
    for child in children:
        parent = study.trials[child.parent[0]]
        for name in ("layers", "width_1", "width_2", "optimizer"):
            assert child.params.get(name) == parent.params.get(name)
        assert ("schedule_gamma" in child.params) == (child.params["schedule"] == "exponential")
        assert child.params["learning_rate"] != parent.params["learning_rate"]
    assert len(result.finalists) == 2 and all(np.isfinite(f.scores).all() for f in result.finalists)
    again = tuner.tune(x, y, **options | {"n_jobs": 2}, pruner=population(resample=1.0, size=6))
    assert [t.intermediate_values for t in again.study.trials] == [t.intermediate_values for t in study.trials]


def test_what_is_interrupted_goes_on_as_one(tmp_path):
    x, y = blobs()
    whole = tuner.tune(x, y, **OPTIONS, pruner=population())

    def stop(study, trial):
        if len(study.trials) == 7:
            raise KeyboardInterrupt

    part = tuner.tune(x, y, **OPTIONS, pruner=population(), out=tmp_path, callbacks=[stop])
    assert part.interrupted
    assert part.best_trial.age == max(t.age for t in part.study.trials if t.state is TrialState.PAUSED and t.steps)
    part.study.storage.close()
    rest = tuner.tune(x, y, **OPTIONS, pruner=population(), out=tmp_path)
    assert [(t.params, t.intermediate_values) for t in rest.study.trials] == [
        (t.params, t.intermediate_values) for t in whole.study.trials
    ]
    rest.study.storage.close()
