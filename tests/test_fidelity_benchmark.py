"""The benchmark of early stopping measures what it says: right curves, every epoch counted, budgets kept."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # last, so that what is installed is what is tested

from benchmarks import fidelity
from benchmarks.search_tasks import RANGES


@pytest.fixture
def folder(tmp_path):
    """Two tables of 12 rows and 6 epochs after the point before training; the second has no entry in norm.json."""
    rng = np.random.default_rng(0)
    names = list(RANGES)
    low, high = np.log(np.array(list(RANGES.values())).T)
    hp = np.exp(low + rng.random((12, len(names))) * (high - low))
    for i, name in enumerate(names):
        hp[:, i] = 1 - hp[:, i] if name.startswith("beta") else hp[:, i]
    valid = rng.uniform(0.2, 1.0, (12, 7)).astype(np.float32)
    valid[:, 0] = 0.0  # better than anything, and not to be read
    valid[3, 2:] = np.nan
    valid[4, 5] = 1e9
    (tmp_path / "taskset").mkdir()
    for name in ("one", "two"):
        np.savez(tmp_path / "taskset" / f"{name}.npz", hp=hp, hp_names=np.array(names), valid=valid, train=valid)
    np.savez(tmp_path / "other.npz", loss=np.zeros(3))
    (tmp_path / "norm.json").write_text(json.dumps({"taskset/one": {"mf_best": 0.1, "mf_median": 0.9}}))
    return tmp_path, hp, names, valid


def test_tables_are_read_as_their_readme_says(folder):
    path, hp, names, valid = folder
    one, two = fidelity.tables(path)
    assert (one.name, one.best, one.median, one.epochs) == ("one", 0.1, 0.9, 6)
    lowest = np.where(np.isnan(valid[:, 1:]) | (valid[:, 1:] > 2), 2.0, valid[:, 1:]).min(axis=1)
    assert two.best == pytest.approx(lowest.min())
    assert two.median == pytest.approx(np.median(lowest))
    for row in range(12):
        settings = {
            f"one_minus_{n}" if n.startswith("beta") else n: 1 - v if n.startswith("beta") else v
            for n, v in zip(names, hp[row].tolist())
        }
        curve = one.curve(settings)
        assert curve.tolist() == pytest.approx(
            [2.0 if not v <= 2 else v for v in valid[row, 1:].astype(np.float64)], abs=0
        )
    assert [one.regret(v) for v in (0.0, 0.1, 0.5, 0.9, 3.0)] == pytest.approx([0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("search", list(fidelity.SEARCHES))
def test_a_search_spends_its_epochs_and_no_more(folder, search):
    if search.startswith("optuna"):
        pytest.importorskip("optuna")
    table = fidelity.tables(folder[0])[0]
    seen = fidelity.SEARCHES[search](table, 0, 60)
    assert 60 - table.epochs < len(seen) <= 60
    assert set(seen) <= set(table.losses.ravel().tolist())


def test_the_plain_baseline_divides_its_budget():
    pruner = fidelity.plain(50, 500)
    assert (pruner.candidates, pruner.steps, pruner.keep) == (255, 1, 5)
    assert pruner.candidates + pruner.keep * 49 == 500


def test_the_program_keeps_cells_and_goes_on(folder, capsys):
    path = folder[0]
    arguments = ["--tables", str(path), "--seeds", "2", "--jobs", "1", "--cells", str(path / "cells.json")]
    arguments += ["--searches", "random, full trainings", "AutoPruner, random", "--results", str(path / "r.md")]
    assert fidelity.main(arguments) == 0
    text = (path / "r.md").read_text()
    assert "| AutoPruner, random |" in text
    cells = json.loads((path / "cells.json").read_text())
    assert len(cells) == 2 * 2 * 2
    for values in cells.values():
        assert values == sorted(values, reverse=True)
    (path / "cells.json").write_text(json.dumps({cell: [0.25, 0.25, 0.25] for cell in cells}))
    assert fidelity.main(arguments) == 0
    assert "0.2500 ± 0.0000" in capsys.readouterr().out, "what is kept is not run again"
    assert fidelity.main(["--tables", str(path / "none")]) == 2
