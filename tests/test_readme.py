"""What the README shows works: its Python runs, .ci/run reads its commands, its links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nanonet

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(info: str) -> list[str]:
    """The texts of the fenced blocks with that info string."""
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(source: str, folder: Path) -> str:
    """What the program prints, run in that folder as a reader would, with warnings as errors."""
    (folder / "example.py").write_text(source, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(nanonet.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "example.py"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


PYTORCH, KERAS, IMAGES, OPTUNA, OWN, SPACES, RESUMABLE, SKLEARN = blocks("python")


def test_the_pytorch_example_learns(tmp_path):
    assert float(run(PYTORCH, tmp_path)) > 0.95


@pytest.mark.parametrize("example", [KERAS, IMAGES], ids=["keras", "images"])
def test_the_examples_that_fit_learn(example, tmp_path):
    last = run(example, tmp_path).splitlines()[-1]
    assert float(last.strip("[]").split(",")[1]) > 0.95


def test_the_optuna_example_finds_the_minimum_and_goes_on(tmp_path):
    assert float(run(OPTUNA, tmp_path).split()[0]) < 0.5
    assert (tmp_path / "study.db").exists()


def test_the_tuning_example_reports(tmp_path):
    printed = run(re.sub(r"minutes=\d+", "minutes=0.1", OWN), tmp_path)
    assert "learning_rate" in printed


def test_the_example_of_a_space_prints_its_front_and_what_matters(tmp_path):
    printed = run(SPACES, tmp_path)
    assert "width_1" in printed.splitlines()[0]
    assert "matters" in printed.splitlines()[-1] or "variance" in printed


def test_the_example_of_segments_finds_the_best_rate(tmp_path):
    assert float(run(RESUMABLE, tmp_path).split()[0]) < 1e-6


def test_the_scikit_learn_example_finds_a_good_model(tmp_path):
    pytest.importorskip("sklearn")
    assert float(run(SKLEARN, tmp_path).split()[0]) > 0.96


@pytest.mark.parametrize("tag", ["main-job", "tests"])
def test_each_set_up_command_is_one_line_that_ci_can_read(tag):
    (block,) = blocks(f"bash {tag}")
    (line,) = block.strip().splitlines()
    assert line.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install ")
    assert f"readme {tag}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_commands_shown_are_known_to_the_program():
    from tuner.arguments import make_parser

    (block,) = blocks("bash")
    for line in block.strip().splitlines():
        program, command, *arguments = shlex.split(line, comments=True)
        assert program == "nanonet"
        make_parser(command, nanonet.Settings.fields()).parse_args([command, *arguments])


def test_links_to_files_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
