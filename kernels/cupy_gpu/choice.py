"""Which of several kernels makes a product or a convolution: by rule, or as it was found out on this machine.

In deterministic mode our own, cut by rule. Else what an earlier search has found to be fastest, which is kept in a file
beside the other caches. Where nothing was found: with `kernels.determinism.benchmark` it is found out now, else the
rule says. A search takes place when a slot is called, eagerly or for a recording, never while a graph is captured.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kernels import determinism, plan
from kernels.cache import kernel_cache
from kernels.cupy_gpu.device import Device
from kernels.errors import OutOfMemory

__all__ = ["OWN", "Choice", "File", "Unfit", "Way", "kept_file", "seconds"]

FORMAT = 1
#: The way that always serves.
OWN = "own"

#: Writes the result, through launches alone. It may raise Unfit as long as it has written to scratch memory alone.
Way = Callable[[], None]

#: By precision, how far another way's result may be from ours, relative to the whole, and be the same but for rounding.
CLOSE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 3e-2, "float64": 1e-11}


class Unfit(Exception):
    """A way does not serve for these arguments."""


class Choice:
    """file: asked for when it is first needed. stopwatch: gives the seconds that a way takes."""

    def __init__(self, device: Device, file: Callable[[], File], stopwatch: Callable[[Way], float]) -> None:
        self._device, self._made, self._stopwatch = device, file, stopwatch
        self._file: File | None = None
        self._found: dict[str, str] = {}
        self._lock = threading.RLock()

    def carry_out(self, key: str, precision: str, ways: Mapping[str, Way], out: Any, rule: str = OWN) -> None:
        """One of the ways, which all write the same into `out`, but for rounding. OWN is among them.

        key: tells all that speed depends on. rule: the way to go where nothing is known.
        """
        if determinism.deterministic():
            ways[OWN]()
            return
        name = self._all_found().get(key)
        if name not in ways:
            name = self._search(key, precision, ways, out) if determinism.benchmark() else None
        name = name or rule
        try:
            ways[name]()
        except Unfit:
            ways[OWN]()
        except RuntimeError as error:
            if name == OWN:
                raise
            warnings.warn(f"our own kernel serves in the place of {name}: {error}", RuntimeWarning, stacklevel=2)
            self._found[key] = OWN
            ways[OWN]()

    def _search(self, key: str, precision: str, ways: Mapping[str, Way], out: Any) -> str | None:
        """The fastest way, which is kept; None if that cannot be told now."""
        if self._device.capturing:
            return None
        with self._lock, self._device.aside():
            to_host = self._device.memory.to_host
            ways[OWN]()
            ours = to_host(out).astype(np.float64)
            size = np.linalg.norm(ours)
            if not np.isfinite(size):
                return None
            times: dict[str, float] = {}
            for name, way in ways.items():
                try:
                    way()
                    apart = np.linalg.norm(to_host(out) - ours)
                    times[name] = self._stopwatch(way) if apart <= CLOSE[precision] * size else float("inf")
                except (Unfit, OutOfMemory, RuntimeError):
                    if name == OWN:
                        raise
            best = min(times, key=times.__getitem__)
            self._found[key] = best
            self._file.add(key, best)
            return best

    def _all_found(self) -> dict[str, str]:
        if self._file is None:
            with self._lock:
                file = self._made()
                if os.environ.get("NANONET_TUNED", "1") != "0":
                    self._found |= file.read()
                self._file = file
        return self._found


def seconds(way: Way, times: int = 8, rounds: int = 5) -> float:
    """What a way takes on CuPy's current device, as part of a graph: the least of several rounds."""
    import cupy

    stream = cupy.cuda.get_current_stream()
    with plan.recording(plan.Recorder()) as recorder:
        for _ in range(times):
            way()
    recorded = recorder.plan()
    recorded.run()
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    found = []
    for _ in range(rounds):
        begin.record(stream)
        recorded.run()
        end.record(stream)
        end.synchronize()
        found.append(cupy.cuda.get_elapsed_time(begin, end) * 1e-3 / times)
    return min(found)


# -------------------------------------------------------------------------------------------- the file


class File:
    """What was found, key -> way, in a JSON file with a checksum. One that is damaged is left aside with a warning."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict[str, str]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            return self._left_aside(f"it cannot be read: {error}")
        try:
            content = json.loads(text)
            checksum = content.pop("checksum")
            ways = content["ways"]
            whole = checksum == _checksum(content) and content["format"] == FORMAT
        except (ValueError, AttributeError, KeyError, TypeError):
            whole = False
        return ways if whole else self._left_aside("it is damaged, or of another version")

    def add(self, key: str, way: str) -> None:
        """Keep one more, beside what other processes have added. Where nothing can be written, nothing is kept."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = {"format": FORMAT, "ways": self.read() | {key: way}}
        beside = self.path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(content | {"checksum": _checksum(content)}, indent=1, sort_keys=True)
            beside.write_text(text + "\n", encoding="utf-8")
            os.replace(beside, self.path)
        except OSError:
            with suppress(OSError):
                beside.unlink(missing_ok=True)

    def _left_aside(self, reason: str) -> dict[str, str]:
        warnings.warn(f"choices of GPU kernels are left aside: {self.path}: {reason}", RuntimeWarning, stacklevel=2)
        return {}


def kept_file() -> File:
    """That of CuPy's current GPU, named by all that speed and bits depend on: GPU, driver, libraries, our sources."""
    from kernels.cupy_gpu.check import about

    here = about()
    parts = [str(here[name]) for name in ("name", "capability", "multiprocessors", "driver", "runtime")]
    digest = hashlib.sha256("\n".join([*parts, *_libraries(), _sources()]).encode()).hexdigest()[:12]
    name = re.sub(r"\W+", "-", here["name"]).strip("-").lower()
    return File(kernel_cache() / f"chosen-{name}-{digest}.json")


def _libraries() -> list[str]:
    """Versions of the packages that hold CUDA's libraries."""
    found = []
    for library in (
        "cupy-cuda{}x",
        "nvidia-cublas-cu{}",
        "nvidia-cublas",
        "nvidia-cudnn-cu{}",
        "nvidia-cudnn-frontend",
    ):
        for major in (12, 13):
            with suppress(metadata.PackageNotFoundError):
                found.append(f"{library.format(major)} {metadata.version(library.format(major))}")
    return found


@cache
def _sources() -> str:
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted(path for path in here.rglob("*") if path.suffix in (".py", ".cu", ".cuh")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
