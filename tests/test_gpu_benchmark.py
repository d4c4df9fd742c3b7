"""The script that measures a GPU runs from end to end, here on the CPU."""

import json

import numpy as np

from benchmarks import gpu


def test_the_script_checks_measures_and_keeps(tmp_path, capsys):
    assert gpu.main(["check", "matmul", "stacked", "--device", "cpu", "--quick", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gpu-cpu.json").read_text())
    assert report["check"]["the same bits twice"]
    assert report["check"]["replayed and eager, greatest difference"] < 1e-4
    assert [row["case"].split()[0] for row in report["matmul"]] == ["float32", "tf32", "bf16"]
    stacks = report["stacked"]
    assert [stack["case"].split()[0] for stack in stacks] == ["an", "tune:"]
    for stack in stacks:
        assert stack["seconds"] > 0 and stack["peers"]["one after another"]["ratio"] > 0
    assert "## matmul" in (tmp_path / "gpu-cpu.md").read_text()
    assert "## stacked" in capsys.readouterr().out


def test_a_part_that_fails_does_not_lose_the_others(tmp_path, monkeypatch):
    def broken(bench, peak):
        raise ValueError("on purpose")

    monkeypatch.setitem(gpu.PARTS, "conv", broken)
    gpu.main(["conv", "stacked", "--device", "cpu", "--quick", "--results", str(tmp_path)])
    report = json.loads((tmp_path / "gpu-cpu.json").read_text())
    assert report["conv"] == {"error": "ValueError: on purpose"}
    assert len(report["stacked"]) == 2


def test_limits_are_the_larger_of_arithmetic_and_memory():
    peak = {"tf32": 100.0, "bandwidth": 10.0}
    assert gpu.limit(peak, "tf32", 1000, 50) == 10
    assert gpu.limit(peak, "tf32", 100, 50) == 5
    assert gpu.limit(peak, "bf16", 100, 50) is None


def test_convolutions_measured_are_those_of_resnet18():
    shapes = {
        (layer.out, layer.size, layer.stride)
        for layer, _ in gpu.walk(gpu.resnet18(), (32, 32, 3))
        if isinstance(layer, gpu.Conv)
    }
    assert {(64, 3, 1), (128, 3, 2), (512, 3, 1), (512, 1, 2)} <= shapes
    assert np.isclose(gpu.RESNET18.parameters, 11.17e6, rtol=0.01)
