"""Starting: importing nanonet, and the first training step of a process."""

import os
import subprocess
import sys
import tempfile
from statistics import median

from benchmarks.harness import Row

TITLE = "Start of a process"
NOTE = (
    "Importing, and the first training step (digits MLP, recorded), timed inside a new process from before the import "
    "on: with the compiled kernels in their cache, and with an empty cache."
)
ENVIRONMENT = dict.fromkeys(("NANONET_NUM_THREADS", "OMP_NUM_THREADS"), "1")

IMPORT = "import nanonet"
FIRST_STEP = """
import numpy as np
import nanonet, nanonet.functional as F
from nanonet import nn, optim
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
def step(x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss
float(nanonet.jit(step)(np.ones((32, 64), np.float32), np.arange(32) % 10))
"""


def run(quick: bool = False) -> list[Row]:
    """Rows for importing, and for the first training step with empty caches and with warm ones."""
    runs = 2 if quick else 7
    with tempfile.TemporaryDirectory() as cache:
        empty = timed(FIRST_STEP, cache)
        warm = median(timed(FIRST_STEP, cache) for _ in range(runs))
        importing = median(timed(IMPORT, cache) for _ in range(runs))
    return [
        Row("import nanonet", importing).want(under=0.15),
        Row("first training step, warm caches", warm).want(under=1.0),
        Row("first training step, empty caches", empty).want(under=20.0),
    ]


def timed(code: str, cache: str) -> float:
    """Seconds that a new process needs for `code`, with compiled kernels kept in the folder `cache`."""
    wrapped = f"import time\nstart = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    environment = {**os.environ, "NANONET_CACHE_DIR": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    result = subprocess.run([sys.executable, "-c", wrapped], env=environment, stdout=subprocess.PIPE, check=True)
    return float(result.stdout)
