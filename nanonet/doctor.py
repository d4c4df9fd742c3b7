"""What works on this machine, what does not, and why: `nanonet doctor`."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kernels import registry

__all__ = ["examine", "first_use", "text"]

LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "rich", "safetensors", "scikit-learn", "cupy")
#: The variables that change what nanonet does.
VARIABLES = (
    "NANONET_BACKEND",
    "NANONET_CPU",
    "NANONET_NUM_THREADS",
    "NANONET_CACHE_DIR",
    "NANONET_TUNED",
    "HYPOTHESIS_PROFILE",
)


def examine() -> dict[str, Any]:
    """Everything found, ready for JSON. `ok` says whether all that should work does; `problems` says what does not."""
    from nanonet import __version__

    report: dict[str, Any] = {
        "nanonet": __version__,
        "folder": str(Path(__file__).parent),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": {name: _version(name) for name in LIBRARIES},
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "backends": {name: {"reason": reason} for name, reason in registry.available().items()},
        "cpu": {"name": _processor(), "cores": _cores()},
        "gpu": _gpu() if registry.reason("cupy_gpu") is None else None,
        "cache": None,
        "tuned": None,
        "threads": 1,
    }
    problems: list[str] = []
    report["backend"] = _in_use(problems)
    if registry.reason("numba_cpu") is None:
        _look(report, problems)
    for name, about in report["backends"].items():
        if about["reason"] is None:
            about["test"] = _tested(name)
            if about["test"]["error"] is not None:
                problems.append(f"backend {name}: {about['test']['error']}")
    if report["backend"] is not None:
        registry.use(report["backend"])
    if report["backend"] == "reference" and "NANONET_BACKEND" not in os.environ:
        problems.append(f"only the slow reference backend works: {report['backends']['numba_cpu']['reason']}")
    report["problems"] = problems
    report["ok"] = not problems
    return report


def first_use() -> bool:
    """Are there no compiled kernels for this machine yet, so that the first steps will take some seconds longer?"""
    try:
        if os.environ.get("NANONET_BACKEND", "numba_cpu") != "numba_cpu" or registry.reason("numba_cpu"):
            return False
        from kernels.numba_cpu import compiler

        folder, _ = compiler.cache_folder()
        return folder is None or not any(folder.iterdir())
    except Exception:  # whatever ails it will be told when it is used
        return False


def text(report: dict[str, Any]) -> str:
    """The report for reading, a line for each thing found."""
    cpu, cache = report["cpu"], report["cache"]
    libraries = [f"{name} {version}" for name, version in report["libraries"].items() if version]
    lines = [
        ("nanonet", f"{report['nanonet']}  ({report['folder']})"),
        ("Python", f"{report['python']} on {report['system']}"),
        ("libraries", ", ".join(libraries)),
        ("not installed", ", ".join(name for name, version in report["libraries"].items() if not version) or "none"),
        ("processor", f"{cpu['name']}, {cpu['cores']} cores"),
    ]
    if "vector_bits" in cpu:
        vectors = f"{cpu['vector_bits']} bits: {cpu['lanes_float32']} float32 or {cpu['lanes_float64']} float64 lanes"
        lines.append(("vectors", f"{vectors}, {cpu['registers']} registers"))
    lines.append(("threads", str(report["threads"])))
    if report["gpu"] is not None:
        gpu = report["gpu"]
        memory = f"{gpu['free_bytes'] / 2**30:.1f} of {gpu['bytes'] / 2**30:.1f} GiB free"
        lines.append(("GPU", f"{gpu['name']}, compute capability {gpu['capability']}, {memory}"))
        lines.append(("CUDA", f"driver for {gpu['driver']}, runtime {gpu['runtime']}"))
    if cache is not None:
        state = f"{cache['files']} kernels, {cache['bytes'] / 1e6:.1f} MB" if cache["writable"] else cache["reason"]
        lines.append(("kernel cache", f"{cache['folder'] or 'none'}  ({state})"))
        lines.append(("kernel settings", _settings(report["tuned"])))
    for name, value in report["environment"].items():
        lines.append((name, value))
    for name, about in report["backends"].items():
        used = " (in use)" if name == report["backend"] else ""
        lines.append((f"backend {name}", _verdict(about) + used))
    lines += [("problem", problem) for problem in report["problems"]]
    lines.append(("result", "all is well" if report["ok"] else f"{len(report['problems'])} problem(s), see above"))
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in lines)


def _settings(tuned: dict[str, Any] | None) -> str:
    if tuned is None:
        return "the usual ones (`nanonet doctor --tune` searches for better ones)"
    about = tuned["about"]
    faster = f", {about['speed']:.2f} x as fast as the usual ones" if "speed" in about else ""
    unused = "" if tuned["in_use"] else ", not in use"
    return f"{len(tuned['values'])} of {tuned['knobs']} tuned on {about.get('when', 'an unknown day')}{faster}{unused}"


def _verdict(about: dict[str, Any]) -> str:
    if about["reason"] is not None:
        return f"not available: {about['reason']}"
    test = about["test"]
    if test["error"] is not None:
        return f"FAILED its test: {test['error']}"
    return f"works: matmul and training step are right (first use took {test['seconds']:.2f} s)"


# ---------------------------------------------------------------------------------------- looking


def _look(report: dict[str, Any], problems: list[str]) -> None:
    """What the compiled backend knows of the machine."""
    try:
        from kernels.numba_cpu import compiler, knobs, threads
        from kernels.numba_cpu.host import host

        machine = host()
        report["cpu"].update(
            llvm_name=machine.name,
            vector_bits=32 * machine.lanes_f32,
            lanes_float32=machine.lanes_f32,
            lanes_float64=machine.lanes_f64,
            registers=machine.vector_registers,
        )
        report["threads"] = threads.get_num_threads()
        folder, reason = compiler.cache_folder()
    except Exception as error:  # a doctor reports what ails, whatever it is
        problems.append(f"backend numba_cpu: {type(error).__name__}: {error}")
        return
    try:
        found = knobs.kept()
        if found is not None:
            now = knobs.in_use()
            used = all(now[name] == value for name, value in found["values"].items())
            report["tuned"] = {**found, "knobs": len(knobs.KNOBS), "file": str(knobs.path()), "in_use": used}
    except ValueError as error:
        problems.append(f"kernel settings: {error} (`nanonet doctor --tune --reset` removes the file)")
    files = [] if folder is None else [file.stat().st_size for file in folder.iterdir() if file.is_file()]
    report["cache"] = {
        "folder": None if folder is None else str(folder),
        "writable": folder is not None,
        "reason": reason or None,
        "files": len(files),
        "bytes": sum(files),
    }
    if folder is None:
        problems.append(f"kernel cache: {reason}; kernels are compiled anew in each process (set NANONET_CACHE_DIR)")


def _version(name: str) -> str | None:
    for candidate in (name, f"{name}-cuda12x", f"{name}-cuda13x") if name == "cupy" else (name,):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            named = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.processor() or platform.machine()


def _gpu() -> dict[str, Any]:
    """CuPy's current GPU."""
    from kernels.cupy_gpu.check import about

    return about()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_use(problems: list[str]) -> str | None:
    try:
        return registry.cpu().name
    except Exception as error:
        problems.append(f"no backend: {error}")
        return None


# ---------------------------------------------------------------------------------------- testing


def _tested(name: str) -> dict[str, Any]:
    """Run a matmul and training steps on a backend and compare them with NumPy and with the reference backend."""
    start = time.perf_counter()
    error = None
    try:
        backend = registry.get(name)
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=(2, 65, 65)).astype(np.float32)
        place = backend.memory
        there = place.empty((65, 65), np.float32)
        backend.matmul(place.from_host(a), place.from_host(b), out=there)
        out = place.to_host(there)
        if not np.allclose(out, a.astype(np.float64) @ b, atol=1e-3):
            error = "matmul gives wrong numbers"
        elif not np.allclose(_train(name), _train("reference"), atol=1e-3):
            error = "a training step gives wrong numbers"
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    return {"error": error, "seconds": time.perf_counter() - start}


def _train(name: str) -> np.ndarray:
    """The weights of a small network after three recorded steps on a backend."""
    from nanonet import jit, losses, nn, optim
    from nanonet.random import generator
    from nanonet.tensor import Tensor

    rng = generator(0, "doctor")
    x, y = rng.normal(size=(20, 7)).astype(np.float32), rng.integers(0, 3, 20)
    device = "cpu"
    if name == "cupy_gpu":
        device = "cuda"
    else:
        registry.use(name)
    model = nn.Sequential(nn.Linear(7, 9, rng=rng), nn.ReLU(), nn.Linear(9, 3, rng=rng)).to(device)
    x, y = Tensor(x).to(device), Tensor(y).to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @jit
    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        losses.cross_entropy(model(x), y).backward()
        optimizer.step()

    for _ in range(3):
        step(x, y)
    return np.concatenate([p.numpy().ravel() for p in model.parameters()])
