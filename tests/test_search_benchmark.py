"""The benchmark of samplers measures what it says: right tables, right functions, fair peers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # last, so that what is installed is what is tested

from benchmarks import search, search_tasks

MINIMA = {
    "function/branin": {"x": np.pi, "y": 2.275},
    "function/hartmann6": dict(
        zip([f"x{i}" for i in range(6)], [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573], strict=True)
    ),
    "function/ackley5": {f"x{i}": 0.0 for i in range(5)},
    "function/mixed ackley": {**{f"b{i}": 0 for i in range(3)}, **{f"x{i}": 0.0 for i in range(3)}},
    "function/mixed network": {
        "learning_rate": 10**-2.5, "optimizer": "adam", "layers": 2, "width": 128, "dropout": 0.04
    },
    "function/conditional": {"method": "network", "blocks": 3, "rate": 10**-2.1, "units": 64},
}  # fmt: skip


def tasks():
    return {task.name: task for task in search_tasks.synthetic()}


@pytest.mark.parametrize("name", MINIMA)
def test_a_function_has_its_best_value_where_it_is_said_to_be_and_none_below(name):
    task = tasks()[name]
    assert task.loss(MINIMA[name]) == pytest.approx(task.best, abs=1e-5)
    points = np.random.default_rng(1).random((2000, task.space.dimensions))
    losses = [task.loss(task.space.decode(point)) for point in points]
    assert min(losses) >= task.best
    assert np.median(losses) == pytest.approx(task.median, rel=0.2)


def test_regret_is_0_at_the_best_and_1_from_the_median_on():
    task = search_tasks.Task("t", None, None, best=2.0, median=6.0)
    assert [task.regret(loss) for loss in (1.0, 2.0, 4.0, 6.0, 9.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_a_grid_is_read_cell_by_cell_and_its_replicates_averaged(tmp_path):
    loss = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    loss[1, 2, 1] = np.nan
    (tmp_path / "grids").mkdir()
    np.savez(
        tmp_path / "grids" / "g.npz", loss=loss, param_names=["a", "b"], param_kinds=["ordinal", "categorical"],
        choices_0=[8, 16], choices_1=["x", "y", "z"],
    )  # fmt: skip
    (tmp_path / "norm.json").write_text(json.dumps({"grids/g": {"best": 0.5, "median": 4.5}}))
    (task,) = search_tasks.tables(tmp_path)
    assert (task.name, task.best, task.median) == ("grids/g", 0.5, 4.5)
    assert [domain.kind for domain in task.space.parameters.values()] == ["ordinal", "categorical"]
    assert task.loss({"a": 8, "b": "y"}) == 2.5
    assert task.loss({"a": 16, "b": "z"}) == 10.0


def test_curves_are_looked_up_at_the_nearest_row(tmp_path):
    rng = np.random.default_rng(0)
    names = list(search_tasks.RANGES)
    low, high = np.array(list(search_tasks.RANGES.values())).T
    places = rng.random((40, len(names)))
    values = low * (high / low) ** places
    betas = np.array([name.startswith("beta") for name in names])
    values[:, betas] = 1 - values[:, betas]
    valid = rng.random((40, 51)).astype(np.float32)
    valid[0, -1], valid[1, -1] = np.nan, 1e9
    np.savez(tmp_path / "c.npz", hp=values, hp_names=names, valid=valid)
    (task,) = search_tasks.tables(tmp_path)
    for row in range(40):
        wanted = 2.0 if row < 2 else valid[row, -1]
        assert task.loss(task.space.decode(places[row])) == pytest.approx(wanted)
    point = rng.random(len(names))
    nearest = min(range(40), key=lambda row: np.linalg.norm(places[row] - point))
    assert task.loss(task.space.decode(point)) == pytest.approx(min(float(np.nan_to_num(valid[nearest, -1], nan=2)), 2))


def test_peers_are_asked_for_the_same_space():
    library = pytest.importorskip("optuna")
    for task in search_tasks.synthetic():
        study = library.create_study(sampler=library.samplers.RandomSampler(seed=0))
        for _ in range(20):
            settings = search.suggest(study.ask(), task.space)
            task.space.encode(settings)  # raises if one is missing, unknown or outside
            assert np.isfinite(task.loss(settings))


def test_the_table_has_a_row_for_each_task_and_tells_who_is_ahead(tmp_path, capsys):
    pytest.importorskip("optuna")
    arguments = ["--samplers", "RandomSampler", "optuna random", "--seeds", "2", "--jobs", "1", "--tasks", "branin"]
    cells = tmp_path / "cells.json"
    assert search.main([*arguments, "--cells", str(cells)]) == 0
    text = capsys.readouterr().out
    kept = json.loads(cells.read_text())
    assert len(kept) == 4
    gap = np.mean([kept[f"function/branin|RandomSampler|{s}"][2] - kept[f"function/branin|optuna random|{s}"][2]
                   for s in range(2)])  # fmt: skip
    assert "| function/branin |" in text
    assert f"{gap:+.4f}" in text
    assert search.main([*arguments, "--cells", str(cells)]) == 0  # what is kept is not run again
    assert capsys.readouterr().out == text
