"""python -m benchmarks: run benchmarks, print their tables and keep them in benchmarks/results/."""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from benchmarks import BENCHMARKS

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("numpy", "numba", "torch", "jax", "scikit-learn")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks that the arguments name; 1 if one of them failed."""
    options = parser().parse_args(arguments)
    if options.worker:
        return work(options.names[0], options.quick, Path(options.worker))

    report = load(options.results)
    failed = False
    for name in options.names if options.names and not options.all else BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        entry = measure(name, options.quick)
        if entry is None:
            failed = True
            continue
        report["machine"] = machine()
        report["benchmarks"][name] = entry
        if not options.json:
            print(section(entry), flush=True)
    if options.json:
        print(json.dumps(report, indent=1))
    if not options.quick:
        save(report, options.results)
    return int(failed)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    made.add_argument("names", nargs="*", type=benchmark, metavar="NAME", help=", ".join(BENCHMARKS))
    made.add_argument("--all", action="store_true", help="every benchmark; so it is without a NAME")
    made.add_argument("--json", action="store_true", help="print the results as JSON, in place of tables")
    made.add_argument("--quick", action="store_true", help="small cases and few rounds, to see that it runs; not kept")
    made.add_argument("--results", type=Path, default=RESULTS, help="folder of results.md and results.json")
    made.add_argument("--worker", help=argparse.SUPPRESS)
    return made


def benchmark(name: str) -> str:
    """`name`, if it is that of a benchmark."""
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(BENCHMARKS)}")
    return name


# ------------------------------------------------------------------------------------------------ running


def measure(name: str, quick: bool) -> dict | None:
    """Run one benchmark in a process of its own, under its own thread settings. None if it failed."""
    module = importlib.import_module(f"benchmarks.{name}")
    environment = {**os.environ, **module.ENVIRONMENT}
    # A core type that somebody set to save old machines from trouble would slow NumPy down.
    environment.pop("OPENBLAS_CORETYPE", None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks", name, "--worker", str(file), *(["--quick"] if quick else [])]
        if subprocess.run(command, env=environment, cwd=Path(__file__).parents[1]).returncode:
            return None
        return json.loads(file.read_text())


def work(name: str, quick: bool, file: Path) -> int:
    """The child's part: run the benchmark in this process and write its rows."""
    module = importlib.import_module(f"benchmarks.{name}")
    rows = [row.as_dict() for row in module.run(quick)]
    file.write_text(json.dumps({"title": module.TITLE, "note": module.NOTE, "rows": rows}))
    return 0


# ------------------------------------------------------------------------------------------------- report


def section(entry: dict) -> str:
    """One benchmark as Markdown."""
    from benchmarks.harness import from_dict, markdown

    return f"\n## {entry['title']}\n\n{entry['note']}\n\n{markdown([from_dict(row) for row in entry['rows']])}\n"


def load(folder: Path) -> dict:
    """The results that are there, or empty ones."""
    file = folder / "results.json"
    return json.loads(file.read_text()) if file.exists() else {"machine": {}, "benchmarks": {}}


def save(report: dict, folder: Path) -> None:
    """Write results.json and results.md."""
    folder.mkdir(parents=True, exist_ok=True)
    about = "\n".join(f"- {name}: {value}" for name, value in report["machine"].items())
    sections = "".join(section(report["benchmarks"][name]) for name in BENCHMARKS if name in report["benchmarks"])
    head = "# Benchmarks\n\nMedians; in brackets, how many times faster nanonet is than that peer.\n\n"
    (folder / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "results.md").write_text(f"{head}{about}\n{sections}")


def machine() -> dict[str, str]:
    """Processor, cores, system and versions."""
    found = {"processor": processor(), "cores": str(os.cpu_count()), "system": platform.platform()}
    found["Python"] = platform.python_version()
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def processor() -> str:
    """The processor's name and the instruction set that LLVM sees in it."""
    from kernels.numba_cpu.host import host

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name} ({host().name}, {host().lanes_f32} float32 lanes)"


if __name__ == "__main__":
    sys.exit(main())
