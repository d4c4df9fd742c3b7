"""The benchmark of the search over real training runs: its data, its peer and its statistics."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # last, so that what is installed is what is tested

from benchmarks import strokes, tuning  # noqa: E402
from nanonet import data  # noqa: E402
from nanonet.settings import Settings  # noqa: E402
from nanonet.training import Run  # noqa: E402
from tuner.tuning.parts import Parts  # noqa: E402


def test_strokes_are_idx_files_of_characters_that_can_be_told_apart(tmp_path):
    folders = [strokes.write(tmp_path / name, 1500, 500, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    files = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]
    assert files[0] == files[1] != files[2]
    rows = data.load(str(folders[0]))
    assert rows.x.shape == (1500, 28, 28, 1) and rows.x_test.shape == (500, 28, 28, 1)
    assert set(rows.y) == set(range(10))
    means = np.array([rows.x[rows.y == c].mean(axis=0).ravel() for c in range(10)])
    test = rows.x_test.reshape(500, -1)
    nearest = ((test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert 0.3 < np.mean(nearest == rows.y_test) < 0.95  # neither noise nor child's play


def test_the_peer_trains_as_we_do():
    """The same settings come to about the same accuracy, so neither side has an easier task."""
    torch = pytest.importorskip("torch")
    rows = data.load("digits")
    fold = Parts.of(rows, "split", 0.2, 0).folds[0]
    parts = [torch.from_numpy(a) for a in (fold.x, fold.y, fold.x_validation, fold.y_validation)]
    settings = Settings(schedule="cosine", epochs=tuning.EPOCHS, dropout=0.1)
    theirs = [a for a, _ in zip(tuning.torch_epochs(settings, parts[:2], parts[2:], 10), range(8), strict=False)]
    run = Run(settings, fold.x, fold.y, (fold.x_validation, fold.y_validation), classes=10)
    ours = [epoch["val_accuracy"] for epoch in run.advance(8)]
    assert abs(theirs[-1] - ours[-1]) < 0.02
    assert min(theirs[-1], ours[-1]) > 0.93


def test_the_peer_searches_the_same_space():
    optuna = pytest.importorskip("optuna")
    given = Settings(optimizer="sgd", hidden=(64, 32)).to_search()
    assert tuning._suggested(optuna.trial.FixedTrial(given)) == given


def test_both_searches_tell_when_they_are_there():
    pytest.importorskip("torch")
    pytest.importorskip("optuna")
    rows = data.load("digits")
    for search in (tuning.nanonet, tuning.optuna):
        start = time.perf_counter()
        assert 0 < search(rows, 0.5, 0, 60.0, time.perf_counter) < time.perf_counter() - start
    assert tuning.nanonet(rows, 1.1, 0, 0.3, time.perf_counter) == float("inf")


def test_the_table_counts_searches_that_did_not_arrive_as_slow():
    found = {"digits": {
        tuning.OURS: np.array([1.0, 2.0, 3.0]),
        tuning.PEER: np.array([30.0, np.inf, np.inf]),
        tuning.ENQUEUED: np.array([20.0, 20.0, 20.0]),
    }}  # fmt: skip
    text = tuning.table(found, 100.0)
    assert "| Optuna + PyTorch | > 100 |" in text
    assert "| 50.0 |" in text and "| 10.0 |" in text
    low, high = tuning.interval(lambda v: float(np.median(v)), np.arange(101.0))
    assert 35 < low < 50 < high < 65
