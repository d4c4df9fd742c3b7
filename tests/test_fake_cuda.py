"""The GPU backend on the real CuPy and NVRTC over a CUDA of the tests' own, in processes that have no other GPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import fake_cuda
import pytest

ROOT = Path(__file__).parents[1]

#: Slots of each family of kernels.
SLOTS = "softmax or entropy or norm-None or update-adam or normal or take or advance or argmax or linear"
#: Files, and which of their tests; no test of these may be skipped.
PARTS = {
    "session": (["tests/fake_cuda", "tests/test_gpu_session.py", "tests/test_devices.py"], "not emulated"),
    "kernels": (["tests/test_kernels.py"], f"cupy_gpu and not emulated and float32 and ({SLOTS})"),
}
#: Tests of devices that need none.
NO_DEVICE = "not known_or_not_there and not through_dlpack"


@pytest.mark.parametrize("part", PARTS)
def test_the_gpu_works_on_a_fake(part):
    if os.environ.get("NANONET_FAKE_CUDA"):
        pytest.skip("this is such a process")
    reason = fake_cuda.reason()
    if reason is not None:
        pytest.skip(reason)
    files, wanted = PARTS[part]
    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "NANONET_FAKE_CUDA": "1"}
    done = subprocess.run(
        [*command, "-k", f"{wanted} and {NO_DEVICE}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert re.search(r"^\d+ passed(, \d+ deselected)? in", done.stdout, re.M), done.stdout[-2000:]
