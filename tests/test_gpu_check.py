"""Whether a GPU can be used, and what is said if not."""

import pytest

check = pytest.importorskip("kernels.cupy_gpu.check")
runtime = pytest.importorskip("cupy", reason="CuPy is not installed").cuda.runtime


def reason_with(monkeypatch, count, major, minor):
    monkeypatch.setattr(runtime, "getDeviceCount", lambda: count)
    monkeypatch.setattr(runtime, "getDevice", lambda: 0)
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda _: {"name": b"T", "major": major, "minor": minor})
    return check.reason.__wrapped__()


def test_no_gpu(monkeypatch):
    assert reason_with(monkeypatch, 0, 0, 0) == "there is no GPU"


@pytest.mark.parametrize("major, minor", [(8, 0), (8, 9), (9, 0), (12, 0)])
def test_a_gpu_that_serves(monkeypatch, major, minor):
    assert "capability" not in (reason_with(monkeypatch, 1, major, minor) or "")


@pytest.mark.parametrize("major, minor", [(7, 0), (7, 5)])
def test_a_gpu_that_is_too_old(monkeypatch, major, minor):
    found = reason_with(monkeypatch, 1, major, minor)
    assert found == f"T has compute capability {major}.{minor}, and 8.0 or later is needed"
