"""Reports: Markdown, JSON, HTML with figures, trials as a data frame."""

import base64
import json
import math
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest

import tuner
from tuner import Categorical, Float, Int, Ordinal, Resumable, Space, TrialPruned, TrialState
from tuner.console import jsonable
from tuner.pruners import SuccessiveHalvingPruner
from tuner.reporting.contents import gather
from tuner.samplers import RandomSampler

SPACE = Space(
    {
        "lr": Float(1e-4, 1.0, log=True),
        "layers": Int(1, 3),
        "width_2": Int(8, 256, log=True),
        "batch": Ordinal([16, 32, 64]),
        "kind": Categorical(["plain", "<b>|bold", None]),
        "share": Float(0, 0.5, step=0.1),
    },
    conditions={"width_2": {"parent": "layers", "at_least": 2}},
)


def loss(params):
    return (math.log10(params["lr"]) + 2) ** 2 + (params["kind"] == "plain") + 0.1 * params["layers"]


class Curves(Resumable):
    max_steps = 9

    def start(self, trial):
        return [loss(trial.params), 0]

    def advance(self, state, steps):
        values = [state[0] + 5 / (state[1] + i + 1) for i in range(steps)]
        state[1] += steps
        return state, values


def simple(trials=60, direction="minimize", storage=None):
    study = tuner.create_study(
        space=SPACE, sampler=RandomSampler(seed=0), direction=direction, study_name="nets", storage=storage
    )
    sign = 1 if direction == "minimize" else -1
    study.optimize(lambda trial: sign * loss(trial.params), n_trials=trials)
    return study


def resumable():
    study = tuner.create_study(
        space=SPACE, sampler=RandomSampler(seed=0), pruner=SuccessiveHalvingPruner(1, 3), study_name="curves"
    )
    study.optimize(Curves(), n_trials=40)
    return study


def two_objectives():
    study = tuner.create_study(
        space=SPACE, sampler=RandomSampler(seed=0), directions=["minimize", "maximize"], study_name="both"
    )
    study.optimize(lambda trial: (loss(trial.params), trial.params["layers"] + trial.params["lr"]), n_trials=60)
    return study


class Page(HTMLParser):
    """Headings, images and addresses of a page; fails on tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.images, self.addresses, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href") and tag != "img":
                self.addresses.append(value)
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


# ---------------------------------------------------------------------------------------------- text


def test_a_report_leads_with_the_words_and_lists_the_best():
    study = simple()
    report = tuner.report(study)
    text = str(report)
    lines = text.splitlines()
    assert lines[0] == "# Study nets"
    assert lines[2].startswith("- lr matters most: 0.")
    assert "| trials | 60 complete |" in lines
    ranked = sorted(study.trials, key=lambda t: t.value)[:5]
    table = lines[lines.index("## Best trials") + 4 :][:5]
    assert [int(row.split("|")[1]) for row in table] == [t.number for t in ranked]
    assert table[0].startswith(f"| {ranked[0].number} | {ranked[0].value:.4f} | {ranked[0].params['lr']:.2g} |")
    assert "## What matters" in lines
    assert "<b>\\|bold" in text
    assert json.dumps(jsonable(report.to_dict()), allow_nan=False)
    assert report.to_dict()["best"][0] == {
        "trial": ranked[0].number,
        "values": ranked[0].values,
        "params": ranked[0].params,
    }


def test_the_best_of_a_study_to_maximize_are_the_largest():
    study = simple(direction="maximize")
    assert [t.number for t in gather(study).best] == [
        t.number for t in sorted(study.trials, key=lambda t: -t.value)[:5]
    ]


def test_a_report_of_several_objectives_lists_the_front():
    study = two_objectives()
    report = tuner.report(study)
    front = {t.number for t in study.best_trials}
    assert {row["trial"] for row in report.to_dict()["best"]} <= front
    assert [o["name"] for o in report.to_dict()["objectives"]] == ["objective 1", "objective 2"]
    text = str(report)
    assert "**objective 2, to maximize**" in text
    assert "## Pareto front" in text
    second = text.split("**objective 2, to maximize**")[1]
    assert "- layers matters most" in second.split("| |")[0]


@pytest.mark.parametrize("trials", [0, 1, 3])
def test_a_report_of_few_trials_says_so(trials):
    text = str(tuner.report(simple(trials)))
    assert text.startswith("# Study nets\n\n- Note: ")
    assert "## What matters" not in text
    assert ("no trial has a value" in text) == (trials == 0)


def test_running_paused_and_failed_trials_are_counted():
    study = tuner.create_study(space=SPACE, sampler=RandomSampler(seed=0))

    def objective(trial):
        trial.report(1.0, 0)
        if trial.number == 1:
            raise TrialPruned
        return math.nan if trial.number == 2 else 2.0

    study.optimize(objective, n_trials=4)
    study.ask()
    contents = gather(study)
    assert contents.states == {"running": 1, "complete": 2, "pruned": 1, "fail": 1}


# ---------------------------------------------------------------------------------------------- pages


def page_of(study, path):
    pytest.importorskip("matplotlib")
    tuner.report(study, html=path)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.addresses == []  # nothing from elsewhere
    assert not re.search(r"https?://|@import|<script", path.read_text(encoding="utf-8"))
    for image in page.images:
        kind, data = image.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    return page


def test_a_page_has_a_figure_for_what_there_is(tmp_path):
    page = page_of(resumable(), tmp_path / "a.html")
    assert page.headings == [
        "Best trials",
        "How the search went",
        "What matters",
        "Where it is good",
        *(["What depends on each other"] if "What depends on each other" in page.headings else []),
        "All trials",
        "Learning curves",
        "When each trial ran",
        "What matters, in figures",
    ]
    assert len(page.images) == len(page.headings) - 2


def test_a_page_of_two_objectives_shows_the_front_and_both_parts(tmp_path):
    page = page_of(two_objectives(), tmp_path / "a.html")
    assert page.headings[:2] == ["Pareto front", "Pareto front"]
    assert "Where it is good for objective 1" in page.headings
    assert "Where it is good for objective 2" in page.headings


@pytest.mark.parametrize("trials", [0, 1, 3])
def test_a_page_of_few_trials(tmp_path, trials):
    page = page_of(simple(trials), tmp_path / "a.html")
    assert "What matters" not in page.headings


def test_a_page_with_infinite_and_equal_values(tmp_path):
    study = tuner.create_study(space=SPACE, sampler=RandomSampler(seed=0))
    study.optimize(lambda trial: math.inf if trial.number % 3 == 0 else 1.0, n_trials=40)
    page = page_of(study, tmp_path / "a.html")
    assert "What matters" not in page.headings and "All trials" in page.headings


def test_matplotlib_is_asked_for_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"figures want matplotlib; install it with pip install \"nanonet\[plot\]\""):
        tuner.report(simple(5), html=tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_a_report_without_a_page_imports_no_matplotlib():
    code = (
        "import sys, tuner; study = tuner.create_study(sampler=tuner.samplers.RandomSampler()); "
        "study.optimize(lambda t: t.suggest_float('x', 0, 1), 30); "
        "str(tuner.report(study)); assert not {'matplotlib', 'pandas', 'nanonet', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------------------------- data frames


def test_trials_as_a_data_frame():
    pandas = pytest.importorskip("pandas")
    study = simple(6)
    study.tell(study.ask(), state=TrialState.FAIL)
    table = study.trials_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns[:5]) == ["number", "value", "datetime_start", "datetime_complete", "duration"]
    assert list(table["number"]) == list(range(7))
    assert list(table["value"][:6]) == [t.value for t in study.trials[:6]]
    assert list(table["state"]) == ["COMPLETE"] * 6 + ["FAIL"]
    assert list(table["params_lr"]) == [t.params["lr"] for t in study.trials]
    pairs = study.trials_dataframe(("number", "params"), multi_index=True)
    assert ("params", "lr") in pairs.columns and ("number", "") in pairs.columns
    assert list(two_objectives().trials_dataframe(("values",)).columns) == ["values_0", "values_1"]
    with pytest.raises(ValueError, match="attrs names 'colour', which a trial does not have; it has number"):
        study.trials_dataframe(("colour",))
    assert len(tuner.create_study().trials_dataframe()) == 0


def test_data_frames_have_optunas_columns():
    pytest.importorskip("pandas")
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial):
        trial.set_user_attr("note", "a")
        return trial.suggest_float("x", 0, 1)

    theirs, ours = optuna.create_study(), tuner.create_study()
    theirs.optimize(objective, n_trials=3)
    ours.optimize(objective, n_trials=3)
    assert list(ours.trials_dataframe().columns) == list(theirs.trials_dataframe().columns)


def test_pandas_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="trials_dataframe wants pandas"):
        simple(1).trials_dataframe()


# ------------------------------------------------------------------------------------------ the command


@pytest.fixture
def run(capsys):
    from tuner import cli

    def command(*words):
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return command


def test_report_on_the_command_line(run, tmp_path):
    study = simple(60, storage=tmp_path / "study.db")
    told = str(tuner.report(study))
    study.storage.close()
    for place in (tmp_path, tmp_path / "study.db"):
        code, out, err = run("report", place)
        assert (code, err) == (0, "")
        assert out == told
    code, out, err = run("report", tmp_path, "--json")
    document = json.loads(out)
    assert (code, err, document["command"], document["trials"]) == (0, "", "report", 60)
    assert document["objectives"][0]["sentences"][0].startswith("lr matters most")
    assert document["objectives"][0]["good"]["lr"][0] < 1e-2 < document["objectives"][0]["good"]["lr"][1]


def test_report_leaves_a_page(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    simple(30, storage=tmp_path / "study.db").storage.close()
    begin = time.time()
    code, _, err = run("report", tmp_path, "--html", tmp_path / "page.html")
    assert code == 0 and "page.html" in err
    assert (tmp_path / "page.html").stat().st_mtime >= begin - 1
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = run("report", tmp_path, "--html", tmp_path / "other.html")
    assert code == 1 and "figures want matplotlib" in err


def test_report_names_what_is_wrong(run, tmp_path):
    code, _, err = run("report", tmp_path)
    assert code == 2 and "study.db: there is no such file" in err
    storage = tmp_path / "study.db"
    for name in "ab":
        tuner.create_study(study_name=name, storage=storage).storage.close()
    code, _, err = run("report", storage)
    assert code == 2 and "--name: " in err and "['a', 'b']" in err
    code, _, err = run("report", storage, "--name", "c")
    assert code == 2 and "there is no study 'c'" in err
    assert run("report", storage, "--name", "a")[0] == 0
