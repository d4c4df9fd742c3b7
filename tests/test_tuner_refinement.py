"""`tuner.tune(refine="gradient")`: the best settings refined by the gradient, as one trial more."""

import numpy as np
import pytest

import tuner
from nanonet import data
from nanonet.errors import OptionError
from nanonet.settings import Settings
from nanonet.training import Run
from tuner import Categorical, Float, Int, Space, TrialState
from tuner.cli import main
from tuner.hypergradient import Data, gradient_tune_over
from tuner.pruners import NopPruner, PopulationTrainingPruner
from tuner.samplers import RandomSampler
from tuner.tuning import refinement
from tuner.tuning.parts import Parts

BASE = Settings(hidden=(8,), optimizer="sgd", learning_rate=2e-3, momentum=0.0, weight_decay=1e-4)
RATES = Space(
    {"learning_rate": Float(1e-4, 0.4, log=True), "weight_decay": Float(1e-6, 1e-2, log=True)},
    defaults=[{"learning_rate": 2e-3, "weight_decay": 1e-4}],
)
QUICK = {"trials": 1, "max_epochs": 4, "n_jobs": 1, "validation": "split", "base": BASE, "space": RATES}


def blobs(rows=240, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    centres = 1.5 * rng.standard_normal((classes, 5))
    return (centres[y] + rng.standard_normal((rows, 5))).astype(np.float32), y


def folds(validation):
    return Parts.of(data.from_arrays(*blobs()), validation, 0.2, 0).folds


def as_data(fold):
    return Data(fold.x, fold.y, (fold.x_validation, fold.y_validation), "classification", 3)


def test_a_rate_that_is_too_small_is_refined_and_recorded():
    result = tuner.tune(*blobs(), **QUICK, refine="gradient")
    found = result.refinement
    fold = folds("split")[0]
    steps = 4 * (144 // 32)  # a constant rate over all steps of the trial
    validation = fold.x_validation, fold.y_validation
    wanted = tuner.gradient_tune(BASE, fold.x, fold.y, validation, steps=steps, rounds=20).settings
    assert found.source == 0 and found.better
    assert found.before == {"learning_rate": 2e-3, "weight_decay": 1e-4}
    for name, value in found.after.items():
        domain = RATES.parameters[name]
        assert value == pytest.approx(np.clip(getattr(wanted, name), domain.low, domain.high), rel=1e-9)
    assert found.after["learning_rate"] > 0.02
    assert len(result.study.trials) == 2
    trial = result.study.trials[1]
    assert trial.params == found.after and trial.user_attrs["refined"] == 0
    assert trial.state is TrialState.COMPLETE and trial.steps == result.study.trials[0].steps
    assert result.best_trial.number == 1 and result.settings.learning_rate == found.after["learning_rate"]
    assert trial.value > result.study.trials[0].value
    assert "trial 0 as trial 1: learning_rate 0.002 ->" in result.report() and "(better)" in result.report()


def test_folds_count_together():
    two = folds(2)
    options = {"steps": 20, "rounds": 4}
    apart = [gradient_tune_over(BASE, [as_data(fold)], **options) for fold in two]
    twice = gradient_tune_over(BASE, [as_data(two[0])] * 2, **options)
    assert twice.history == apart[0].history and twice.settings == apart[0].settings
    both = gradient_tune_over(BASE, [as_data(fold) for fold in two], **options)
    assert both.history[0]["loss"] == pytest.approx(np.mean([found.history[0]["loss"] for found in apart]))
    assert gradient_tune_over(BASE, [as_data(two[0])], deadline=0.0).settings == BASE


def test_what_is_no_better_is_not_taken(monkeypatch):
    monkeypatch.setattr(refinement, "_refined", lambda *arguments: ({"learning_rate": 1e-9, "weight_decay": 1e-4}, []))
    result = tuner.tune(*blobs(), **QUICK | {"trials": 3}, refine="gradient", finalists=2, repeats=2)
    found = result.refinement
    assert found.trial.number == 3
    assert found.after["learning_rate"] == 1e-4  # as small as the space has it
    assert not found.better
    assert result.best_trial.number != 3
    assert "(no better)" in result.report()


def test_where_there_is_nothing_to_gain_there_is_no_trial(monkeypatch):
    monkeypatch.setattr(refinement, "_refined", lambda *arguments: ({"learning_rate": 2e-3 * (1 + 1e-12)}, []))
    result = tuner.tune(*blobs(), **QUICK, refine="gradient")
    assert result.refinement.trial is None and not result.refinement.better
    assert len(result.study.trials) == 1
    assert "nothing to gain" in result.report()


def test_other_trials_are_left_alone_and_nothing_is_done_twice(tmp_path):
    options = QUICK | {"trials": 7, "max_epochs": 18, "sampler": RandomSampler(seed=0), "refine": "gradient"}
    before = tuner.tune(*blobs(600), **options | {"refine": None})
    first = tuner.tune(*blobs(600), **options, out=tmp_path)
    assert [t.intermediate_values for t in first.study.trials[:7]] == [
        t.intermediate_values for t in before.study.trials
    ]
    assert len(first.study.trials) == 8 and first.refinement.trial.number == 7
    first.study.storage.close()
    again = tuner.tune(*blobs(600), **options, out=tmp_path)
    assert [t.params for t in again.study.trials] == [t.params for t in first.study.trials]
    assert again.refinement.trial.number == 7
    assert again.refinement.better == first.refinement.better
    assert again.refinement.after == first.refinement.after
    again.study.storage.close()


def test_only_what_has_an_effect_is_refined():
    """The rate of sgd has a name of its own in the search, and of what is 0 or of no effect nothing is said."""
    space = Space(
        {
            "optimizer": Categorical(["sgd", "adam"]),
            "learning_rate": Float(1e-4, 0.1, log=True),
            "learning_rate_sgd": Float(1e-4, 0.4, log=True),
            "momentum": Float(0.0, 0.99),
            "beta1": Float(0.5, 0.99),
            "l1": Float(0.0, 1e-3),
            "width_1": Int(8, 8),
        },
        {"learning_rate": {"parent": "optimizer", "in": ["adam"]}},
        defaults=[{"optimizer": "sgd", "learning_rate_sgd": 2e-3, "momentum": 0.5, "beta1": 0.9, "l1": 0.0}],
    )
    result = tuner.tune(*blobs(), **QUICK | {"space": space}, refine="gradient")
    assert set(result.refinement.before) == {"learning_rate_sgd", "momentum"}
    assert result.refinement.after["learning_rate_sgd"] > 2e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refine": "grad"}, "refine is 'grad'; wanted 'gradient' or None"),
        ({"metric": ["accuracy", "parameters"]}, "refine is 'gradient'; with several objectives wanted None"),
        ({"pruner": PopulationTrainingPruner(size=2)}, "pruner changes settings in mid-run"),
        ({"space": ["dropout", "batch_size"]}, "differentiated: dropout, batch_size; wanted one of learning_rate"),
        ({"space": Space({"learning_rate": Categorical([0.1, 0.2])})}, "differentiated: learning_rate; .* range"),
    ],
)
def test_what_cannot_be_refined_is_refused_before_the_search(options, message):
    with pytest.raises(OptionError, match=message):
        tuner.tune(*blobs(), **QUICK | {"refine": "gradient"} | options)


def test_time_is_kept():
    x, y = blobs()
    tuner.tune(x, y, **QUICK, refine="gradient")  # compile first
    options = QUICK | {"trials": None, "max_epochs": 6}
    result = tuner.tune(x, y, **options, minutes=1 / 30, refine="gradient", pruner=NopPruner())
    assert result.seconds < 5
    assert result.refinement is not None


def test_the_command_refines(tmp_path, capsys):
    x, y = blobs(120)
    table = tmp_path / "blobs.csv"
    lines = [",".join(map(str, [*row, label])) for row, label in zip(x, y, strict=True)]
    table.write_text("\n".join(["a,b,c,d,e,kind", *lines]))
    arguments = ["tune", str(table), "--target", "kind", "--trials", "1", "--epochs", "2", "--jobs", "1", "--json"]
    assert main([*arguments, "--out", str(tmp_path / "a"), "--refine", "gradient"]) == 0
    assert '"trials": 2' in capsys.readouterr().out


def test_kept_states_and_a_schedule_change_the_gradient_as_they_should(monkeypatch):
    """Fewer states that are kept change no bit; a course of the rate is that of training step by step."""
    from tuner import hypergradient

    fold = folds("split")[0]
    settings = BASE.replace(schedule="cosine", dropout=0.2, learning_rate=0.05, epochs=3)
    options = {"steps": 11, "rounds": 2, "scheduled": True}
    whole = gradient_tune_over(settings, [as_data(fold)], **options)
    monkeypatch.setattr(hypergradient, "MOST_BYTES", 0)
    sparse = gradient_tune_over(settings, [as_data(fold)], **options)
    assert sparse.history == whole.history and len(whole.history) == 2
    constant = gradient_tune_over(settings, [as_data(fold)], **options | {"scheduled": False})
    assert constant.history[0]["loss"] != whole.history[0]["loss"]


def test_along_the_schedule_the_loss_is_that_of_the_run():
    """Where mini-batches come out even, the loss of the first round is that of a run to its end."""
    fold = folds("split")[0]
    x, y = fold.x[:128], fold.y[:128]
    validation = fold.x_validation, fold.y_validation
    for schedule, restart in (("constant", 0), ("cosine", 0), ("cosine", 1)):
        settings = BASE.replace(schedule=schedule, restart=restart, optimizer="adam", epochs=6, learning_rate=0.01)
        run = Run(settings, x, y, validation, classes=3)
        loss = run.advance(6)[-1]["val_loss"]
        part = Data(x, y, validation, "classification", 3)
        found = gradient_tune_over(settings, [part], names=["weight_decay"], steps=6 * 4, rounds=1, scheduled=True)
        assert found.history[0]["loss"] == pytest.approx(loss, rel=1e-4)
