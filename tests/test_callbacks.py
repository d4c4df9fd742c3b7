"""Callbacks on a scripted training, where each epoch's results are given, and on a real one."""

import csv
import io
import math

import numpy as np
import pytest

from nanonet import checkpoint
from nanonet.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateLogger,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from nanonet.errors import CheckpointError, DataError, OptionError
from nanonet.optim import SGD, schedules
from nanonet.progress import Progress
from nanonet.tensor import Tensor


class Model:
    """One weight, which each epoch of the scripted training sets to the epoch's number."""

    def __init__(self, lr=1.0):
        self.weight = Tensor(np.zeros(1), requires_grad=True)
        self.optimizer = SGD([self.weight], lr=lr)
        self.stop_training = False

    def parameters(self):
        return [self.weight]

    def state_dict(self):
        return {"weight": self.weight.array}

    def load_state_dict(self, state):
        self.weight.array[...] = state["weight"]

    @property
    def value(self):
        return float(self.weight.array[0])


def train(callbacks, script, model=None, steps=3, error_at=None):
    """As `fit` calls its callbacks, with the epochs' results from `script`. Returns the model."""
    model = model or Model()
    watchers = CallbackList(callbacks)
    watchers.set_model(model)
    watchers.set_params({"epochs": len(script), "steps": steps, "batch_size": 4, "verbose": 1})
    model.stop_training = False
    watchers.on_train_begin()
    logs = {}
    try:
        for epoch, results in enumerate(script):
            watchers.on_epoch_begin(epoch)
            model.weight.array[...] = epoch
            if epoch == error_at:
                raise KeyboardInterrupt
            for step in range(steps):
                watchers.on_batch_end(step, {})
            logs = {**results, "lr": model.optimizer.lr}
            watchers.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
    finally:
        watchers.on_train_end(logs)
    return model


def losses(*values):
    return [{"loss": 1.0, "val_loss": value} for value in values]


# ------------------------------------------------------------------------------------------- protocol


class Recorder(Callback):
    def __init__(self):
        self.told = []

    def on_train_begin(self, logs=None):
        self.told.append("train begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(f"epoch {epoch} begin")

    def on_batch_end(self, batch, logs=None):
        self.told.append(f"batch {batch}")

    def on_epoch_end(self, epoch, logs=None):
        self.told.append(f"epoch {epoch} end {logs['loss']}")

    def on_train_end(self, logs=None):
        self.told.append(f"train end {logs['loss']}")


def test_the_order_of_calls():
    recorder = Recorder()
    model = train([recorder], [{"loss": 2.0}, {"loss": 1.0}], steps=2)
    assert recorder.told == [
        "train begin",
        *("epoch 0 begin", "batch 0", "batch 1", "epoch 0 end 2.0"),
        *("epoch 1 begin", "batch 0", "batch 1", "epoch 1 end 1.0"),
        "train end 1.0",
    ]
    assert recorder.model is model
    assert recorder.params == {"epochs": 2, "steps": 2, "batch_size": 4, "verbose": 1}


def test_keras_name_for_the_end_of_a_batch():
    class Mine(Callback):
        seen = 0

        def on_train_batch_end(self, batch, logs=None):
            self.seen += 1

    mine = Mine()
    train([mine], [{"loss": 1.0}], steps=3)
    assert mine.seen == 3


@pytest.mark.parametrize("thing", [print, EarlyStopping, "csv"])
def test_what_is_no_callback_is_named(thing):
    with pytest.raises(OptionError, match=r"callbacks\[1\] is .*wanted an instance"):
        CallbackList([History(), thing])


def test_history_begins_anew_with_each_training():
    history = History()
    train([history], losses(5, 6))
    train([history], losses(3, 2, 1))
    assert history.epoch == [0, 1, 2]
    assert history.history == {"loss": [1.0] * 3, "val_loss": [3, 2, 1], "lr": [1.0] * 3}


def test_lambda_callback():
    seen = []
    train([LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, logs["val_loss"])))], losses(3, 2))
    assert seen == [(0, 3), (1, 2)]
    with pytest.raises(OptionError, match=r"'on_epoch_ends' .did you mean 'on_epoch_end'"):
        LambdaCallback(on_epoch_ends=print)
    with pytest.raises(OptionError, match="on_epoch_end is 3; wanted a function"):
        LambdaCallback(on_epoch_end=3)


# ------------------------------------------------------------------------------------- early stopping


@pytest.mark.parametrize(
    ("options", "values", "stopped", "best"),
    [
        ({"patience": 2}, [5, 4, 4.5, 4.2, 3, 2], 3, 1),
        ({"patience": 3}, [5, 4, 4.5, 4.2, 3, 2], None, 5),
        ({}, [5, 4, 4.5, 3], 2, 1),
        ({"patience": 2, "min_delta": 0.5}, [5, 4.8, 4.6, 4.4], 2, 0),
        ({"patience": 2, "min_delta": 0.5}, [5, 4.8, 4.4, 4.2], None, 2),
        ({"patience": 2, "start_from_epoch": 2}, [1, 1, 5, 6, 7, 8], 4, 2),
        ({"patience": 2, "baseline": 3.0}, [5, 4, 3.5, 2], 1, 1),
        ({"patience": 3, "baseline": 3.0}, [5, 4, 2, 2.5, 2.4], None, 2),
        ({"patience": 2, "mode": "max"}, [1, 2, 1, 1], 3, 1),
        ({"patience": 2}, [5, math.nan, math.nan, 4], 2, 0),
        ({"patience": 2}, [math.nan, 5, 4, 3], None, 3),
        ({"patience": 2}, [math.nan, math.nan, 4], 1, 0),
    ],
)
def test_early_stopping(options, values, stopped, best):
    stop = EarlyStopping(**options)
    model = train([stop], losses(*values))
    assert stop.stopped_epoch == stopped
    assert stop.best_epoch == best
    assert model.value == (len(values) - 1 if stopped is None else stopped)


@pytest.mark.parametrize("values", [[5, 4, 6, 7, 8], [5, 4, 6]])
def test_early_stopping_gives_the_best_weights_back(values):
    model = train([EarlyStopping(patience=3, restore_best_weights=True)], losses(*values))
    assert model.value == 1


def test_early_stopping_gives_the_best_weights_back_after_ctrl_c():
    model = Model()
    with pytest.raises(KeyboardInterrupt):
        train([EarlyStopping(patience=9, restore_best_weights=True)], losses(5, 4, 6, 7), model, error_at=3)
    assert model.value == 1


def test_mode_auto_goes_by_the_name():
    def direction(monitor):
        return EarlyStopping(monitor).mode

    assert [direction(m) for m in ("val_accuracy", "acc", "val_f1", "val_r2", "binary_accuracy")] == ["max"] * 5
    assert [direction(m) for m in ("loss", "val_loss", "val_mae", "mse", "lr")] == ["min"] * 5
    with pytest.raises(OptionError, match=r"'auto', which cannot tell .*'val_mine'.*wanted 'min' or 'max'"):
        EarlyStopping("val_mine")
    assert EarlyStopping("val_mine", mode="max").mode == "max"


@pytest.mark.parametrize(
    "kind", [EarlyStopping, ReduceLROnPlateau, lambda **o: ModelCheckpoint("x", save_best_only=True, **o)]
)
def test_a_monitor_that_is_not_there(kind):
    with pytest.raises(
        OptionError, match=r"monitor is 'val_loss'; wanted one of loss, lr; fit was given no validation"
    ):
        train([kind()], [{"loss": 1.0}])
    with pytest.raises(OptionError, match=r"monitor is 'val_accuracy'; wanted one of loss, val_loss, lr$"):
        train([kind(monitor="val_accuracy")], losses(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(mode="up"), "mode of EarlyStopping is 'up'; wanted one of auto, min, max"),
        (lambda: EarlyStopping(patience=-1), "patience is -1; wanted an integer of at least 0"),
        (lambda: EarlyStopping(patience=1.5), "patience is 1.5"),
        (lambda: EarlyStopping(start_from_epoch="2"), "start_from_epoch is '2'"),
        (lambda: EarlyStopping(min_delta="small"), "min_delta is 'small'; wanted a number"),
        (lambda: ReduceLROnPlateau(factor=1.0), "factor is 1.0; wanted a number above 0 and below 1"),
        (lambda: ReduceLROnPlateau(min_lr=-1), "min_lr is -1; wanted a number of at least 0"),
        (lambda: ReduceLROnPlateau(cooldown=None), "cooldown is None"),
        (lambda: LearningRateScheduler(0.1), "schedule is 0.1; wanted a schedule or a function"),
        (lambda: Progress(3), "verbose is 3; wanted 0"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(OptionError, match=message):
        make()


# --------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_per_epoch(tmp_path):
    saver = ModelCheckpoint(tmp_path / "runs" / "{epoch:02d}-{val_loss:.2f}.ckpt")
    train([saver], losses(3.0, 2.5))
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["01-3.00.ckpt", "02-2.50.ckpt"]
    assert saver.saved == tmp_path / "runs" / "02-2.50.ckpt"
    state = checkpoint.load(saver.saved)
    assert state["epoch"] == 2
    assert state["logs"] == {"loss": 1.0, "val_loss": 2.5, "lr": 1.0}
    fresh = Model(lr=7.0)
    fresh.load_state_dict(state["model"])
    fresh.optimizer.load_state_dict(state["optimizer"])
    assert (fresh.value, fresh.optimizer.lr) == (1, 1.0)


def test_only_the_best_checkpoint(tmp_path):
    saver = ModelCheckpoint(tmp_path / "best.ckpt", monitor="val_accuracy", save_best_only=True)
    train([saver], [{"val_accuracy": value} for value in (0.5, 0.9, 0.7, math.nan)])
    assert checkpoint.load(tmp_path / "best.ckpt")["epoch"] == 2
    assert saver.best == 0.9


def test_a_damaged_checkpoint_does_not_load(tmp_path):
    train([ModelCheckpoint(tmp_path / "a")], losses(1))
    content = bytearray((tmp_path / "a").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "a")


def test_a_placeholder_that_is_not_there(tmp_path):
    with pytest.raises(
        OptionError, match=r"path is .*\{val_acc\}.*wanted placeholders among loss, val_loss, lr, epoch"
    ):
        train([ModelCheckpoint(tmp_path / "{val_acc}")], losses(1))


# ------------------------------------------------------------------------------------------- CSV log


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_csv_log(tmp_path):
    path = tmp_path / "logs" / "curve.csv"
    train([CSVLogger(path)], losses(3.0, 2.5))
    assert read(path) == [["epoch", "loss", "val_loss", "lr"], ["0", "1.0", "3.0", "1.0"], ["1", "1.0", "2.5", "1.0"]]
    train([CSVLogger(path, append=True)], losses(2.0))
    assert read(path)[3:] == [["0", "1.0", "2.0", "1.0"]]
    train([CSVLogger(path)], losses(9.0))
    assert len(read(path)) == 2


def test_csv_log_does_not_mix_columns(tmp_path):
    train([CSVLogger(tmp_path / "a.csv")], losses(3.0))
    with pytest.raises(DataError, match=r"a.csv: has the columns epoch, loss, val_loss, lr; the results are"):
        train([CSVLogger(tmp_path / "a.csv", append=True)], [{"loss": 1.0}])


# --------------------------------------------------------------------------------------- learning rate


def rates(callback, script, model=None):
    logger = LearningRateLogger()
    train([callback, logger] if callback else [logger], script, model)
    return logger.history


def test_learning_rate_logger():
    assert rates(None, losses(1, 2, 3), Model(0.25)) == [0.25] * 3


def test_learning_rate_from_a_schedule():
    model = Model(0.5)
    callback = LearningRateScheduler(schedules.Exponential(0.5))
    assert rates(callback, losses(1, 2, 3), model) == [0.5, 0.25, 0.125]
    assert rates(callback, losses(1, 2), model) == [0.5, 0.25]


def test_learning_rate_from_a_function():
    assert rates(LearningRateScheduler(lambda epoch: 1 / (1 + epoch)), losses(1, 2, 3)) == [1, 1 / 2, 1 / 3]
    assert rates(LearningRateScheduler(lambda epoch, lr: lr / 2), losses(1, 2, 3)) == [0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ({"patience": 2}, [3, 2, 2, 2, 2, 2, 2], [1, 1, 1, 0.5, 0.5, 0.25, 0.25]),
        ({"patience": 1, "cooldown": 2}, [3, 3, 3, 3, 3, 3], [1, 0.5, 0.5, 0.5, 0.25, 0.25]),
        ({"patience": 1, "min_lr": 0.4}, [3, 3, 3, 3], [1, 0.5, 0.4, 0.4]),
        ({"patience": 1, "min_delta": 1.0}, [3, 2.5, 1.5, 1.4], [1, 0.5, 0.5, 0.25]),
        ({"patience": 1, "mode": "max"}, [1, 2, 1, 3], [1, 1, 0.5, 0.5]),
        ({"patience": 0}, [3, 3, 2], [1, 0.5, 0.5]),
    ],
)
def test_reduce_on_plateau(options, values, expected):
    model, after = Model(), []
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: after.append(model.optimizer.lr))
    train([ReduceLROnPlateau(factor=0.5, **options), note], losses(*values), model)
    assert after == expected


def test_terminate_on_nan():
    for bad in (math.nan, math.inf):
        assert train([TerminateOnNaN()], [{"loss": 1.0}, {"loss": bad}, {"loss": 1.0}]).value == 1


# --------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_silent_on_demand(capsys):
    train([Progress(0)], losses(1, 2))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("verbose", [1, 2])
def test_progress_without_a_terminal_is_a_line_per_epoch(verbose, capsys):
    train([Progress(verbose)], [{"loss": 0.31214}, {"loss": 1e-7}, *losses(*[2.0] * 8)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("Epoch  1/10 - ")
    assert lines[0].endswith("s - loss: 0.3121 - lr: 1.0000")
    assert lines[1].endswith("s - loss: 1e-07 - lr: 1.0000")


def test_progress_on_a_terminal_is_one_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    screen = Terminal()
    train([Progress(1, file=screen)], losses(1.5, 0.25))
    assert "Epoch 2/2" in screen.getvalue()
    assert "val_loss: 0.2500" in screen.getvalue()
    lines = Terminal()
    train([Progress(2, file=lines)], losses(1.5, 0.25))
    assert len(lines.getvalue().splitlines()) == 2


def test_the_bar_is_taken_down_after_ctrl_c(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Terminal()
    with pytest.raises(KeyboardInterrupt):
        train([Progress(1, file=screen)], losses(1.5, 0.25, 0.2), error_at=1)
    assert screen.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


# ------------------------------------------------------------------------------------ a real training


@pytest.fixture
def net():
    from nanonet import nn

    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    model = nn.Sequential(nn.Linear(3, 2))
    model.compile(optimizer="sgd", loss="cross_entropy", metrics=["accuracy"])
    return model, x, y


def test_with_fit(net, tmp_path):
    model, x, y = net
    logger, saver = LearningRateLogger(), ModelCheckpoint(tmp_path / "best", save_best_only=True)
    stop = EarlyStopping("val_accuracy", patience=3, restore_best_weights=True)
    halve = LearningRateScheduler(lambda epoch, lr: lr / 2 if epoch else lr)
    start = model.optimizer.lr if getattr(model, "optimizer", None) is not None else 0.01
    history = model.fit(
        x,
        y,
        epochs=4,
        verbose=0,
        validation_split=0.25,
        callbacks=[halve, stop, saver, logger, CSVLogger(tmp_path / "c")],
    )
    assert logger.history == history.history["lr"] == [start / 2**i for i in range(len(history.epoch))]
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy", "lr"}
    assert [row[0] for row in read(tmp_path / "c")] == ["epoch", *map(str, history.epoch)]
    state = checkpoint.load(tmp_path / "best")
    model.load_state_dict(state["model"])
    assert model.evaluate(x[48:], y[48:])[0] == pytest.approx(state["logs"]["val_loss"])
