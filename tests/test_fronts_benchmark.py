"""The benchmark of Pareto fronts measures what it says: fronts in closed form, seeds and budgets kept."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # last, so that what is installed is what is tested

from benchmarks import fronts

INTEGRALS = {"ZDT1": 1 / 3, "ZDT2": 2 / 3}  # of the true front's f2 over f1


@pytest.mark.parametrize("name", ["ZDT1", "ZDT2", "ZDT3"])
def test_nothing_is_missing_on_the_true_front(name):
    problem = fronts.PROBLEMS[name]
    rows = np.zeros((2001, problem.parameters))
    rows[:, 0] = np.linspace(0, 1, len(rows))
    values = [problem.value(row) for row in rows]
    assert 0 <= problem.missing(values) < 2e-3
    if name in INTEGRALS:
        assert problem.most == pytest.approx(10 - INTEGRALS[name], abs=1e-6)
    worse = [(a, b + 1) for a, b in values]
    assert problem.missing(worse) == pytest.approx(1 / problem.most, rel=0.01)


def test_the_sphere_is_the_front_of_dtlz2():
    problem = fronts.PROBLEMS["DTLZ2"]
    rng = np.random.default_rng(0)
    rows = np.full((60, 7), 0.5)
    rows[:, :2] = rng.random((60, 2))
    assert [math.hypot(*problem.value(row)) for row in rows] == pytest.approx([1.0] * 60)
    assert 0 < problem.missing([problem.value(row) for row in rows]) < 0.05
    assert max(max(problem.value(row)) for row in rng.integers(0, 2, (500, 7))) <= problem.worst[0]


def test_the_share_that_is_missing_falls_with_the_budget_and_depends_on_the_seed_alone(monkeypatch):
    calls = []

    def search(problem, seed, trials):
        calls.append((problem.name, seed, trials))
        x = np.random.default_rng(seed).random((trials, problem.parameters))
        return [problem.value(row) for row in x]

    monkeypatch.setitem(fronts.GROUPS, "evolution", fronts.Group((5, 20, 80), {"ours": search}))
    found = fronts.missing("ZDT2", "evolution", "ours", 3)
    assert calls == [("ZDT2", 3, 80)]
    assert 1 > found[0] > found[1] > found[2] > 0
    assert fronts.missing("ZDT2", "evolution", "ours", 3) == found != fronts.missing("ZDT2", "evolution", "ours", 4)


def test_ours_and_optunas_see_the_same_problem():
    pytest.importorskip("optuna")
    problem = fronts.PROBLEMS["ZDT1"]
    for make, name in ((fronts.ours, "RandomSampler"), (fronts.optuna, "RandomSampler")):
        values = make(name)(problem, 0, 12)
        assert len(values) == 12
        assert all(0 <= a <= 1 and 0 <= b <= 10 for a, b in values)
        assert 0 < problem.missing(values) < 1


def test_it_runs_prints_its_table_and_goes_on_from_cells(tmp_path, capsys, monkeypatch):
    pytest.importorskip("optuna")
    kept = {
        json.dumps([p, "TPE", s, seed]): [0.5 - 0.1 * (s == "TPESampler"), 0.25 + 0.01 * seed]
        for p in fronts.PROBLEMS
        for s in fronts.GROUPS["TPE"].searches
        for seed in range(2)
    }
    cells = tmp_path / "cells.json"
    cells.write_text(json.dumps(kept))
    monkeypatch.setattr(fronts, "RESULTS", tmp_path)
    assert fronts.main(["--groups", "TPE", "--seeds", "2", "--jobs", "1", "--cells", str(cells), "--write"]) == 0
    printed = capsys.readouterr().out
    assert "| TPESampler | all | 40.00 ± 0.00 | 25.50 ± 6.35 | +0.00 ± 0.00 | +0.00 ± 0.00 |" in printed
    assert "| optuna TPE | ZDT2 | 50.00 ± 0.00 | 25.50 ± 6.35 | -10.00 ± 0.00 | +0.00 ± 0.00 |" in printed
    assert printed.strip() in (tmp_path / "fronts.md").read_text()
