"""Imports run one way, tuner -> nanonet -> kernels -> NumPy, and `import nanonet` stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Which of our packages the files of a package may import. `GLUE` may import all of them.
ALLOWED = {"kernels": {"kernels"}, "nanonet": {"nanonet", "kernels"}, "tuner": {"tuner"}}
GLUE = {
    "tuner/tune.py",
    "tuner/cli.py",
    "tuner/derived.py",
    "tuner/hypergradient.py",
    "tuner/kernel_tuning.py",
    "tuner/kernel_workloads.py",
    "tuner/range_test.py",
    *(
        f"tuner/tuning/{name}.py"
        for name in ("limits", "normalized", "objectives", "parts", "refinement", "result", "runs", "space", "stages")
    ),
}
#: Compilers and GPU libraries, and the only folders that may import them.
BACKENDS = {
    "kernels/numba_cpu": {"numba", "llvmlite"},
    "kernels/cupy_gpu": {"cupy", "cupyx", "cupy_backends"},
}
#: Imported from a third party when `import nanonet` runs.
LIGHT = {"numpy"}


# ------------------------------------------------------------------------------------------ reading imports


def python_files(root: Path) -> Iterator[Path]:
    for package in ALLOWED:
        yield from sorted((root / package).rglob("*.py"))


def module_name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in the tree; `from a import b` gives a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__") and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, name.value


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", None) or getattr(call.func, "id", "")


def at_module_level(tree: ast.Module) -> ast.Module:
    """What runs when the module is imported: no function bodies, nothing under `if TYPE_CHECKING`."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

        def visit_If(self, node):
            if "TYPE_CHECKING" in ast.unparse(node.test):
                return [self.visit(child) for child in node.orelse]
            return self.generic_visit(node)

    return Strip().visit(tree)


# ------------------------------------------------------------------------------------------------ the rules


def wrong_directions(root: Path) -> list[str]:
    """Imports against the direction, and compilers or GPU libraries outside their folder. One line for each."""
    wrong = []
    for file in python_files(root):
        path = file.relative_to(root).as_posix()
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tops = {}
        for line, name in imported(tree, module_name(root, file), file.name == "__init__.py"):
            tops.setdefault(name.split(".")[0], line)
        ours = set(ALLOWED) if path in GLUE else ALLOWED[path.split("/")[0]]
        for name, line in tops.items():
            if name in ALLOWED and name not in ours:
                wrong.append(f"{path}:{line} imports {name}")
            for folder, libraries in BACKENDS.items():
                if name in libraries and not path.startswith(f"{folder}/"):
                    wrong.append(f"{path}:{line} imports {name}, which belongs to {folder}")
    return wrong


def heavy_imports(root: Path, start: str) -> list[str]:
    """Third-party imports, other than LIGHT, that `import start` carries out. One line for each."""
    files = {module_name(root, file): file for file in python_files(root)}
    heavy, seen, waiting = [], set(), [start]
    while waiting:
        module = waiting.pop()
        if module in seen or module not in files:
            continue
        seen.add(module)
        file = files[module]
        tree = at_module_level(ast.parse(file.read_text(encoding="utf-8")))
        for line, name in imported(tree, module, file.name == "__init__.py"):
            top = name.split(".")[0]
            if top in ALLOWED:
                parts = name.split(".")
                waiting += [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
            elif top not in LIGHT and top not in sys.stdlib_module_names:
                heavy.append(f"{file.relative_to(root).as_posix()}:{line} imports {top}")
    return sorted(set(heavy))


# ----------------------------------------------------------------------------------------- the house obeys


def test_imports_run_one_way():
    assert wrong_directions(ROOT) == []


def test_importing_nanonet_is_light():
    assert heavy_imports(ROOT, "nanonet") == []


def test_importing_nanonet_loads_no_heavy_library():
    heavy = {"numba", "llvmlite", "scipy", "rich", "safetensors", "sklearn", "matplotlib", "cupy", "torch", "pandas"}
    code = f"import sys, nanonet; print(*sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


# ------------------------------------------------------------------------------------- the rules can fail


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("kernels/gemm.py", "import nanonet", "imports nanonet"),
        ("kernels/gemm.py", "def f():\n    from nanonet.tensor import Tensor", "imports nanonet"),
        ("kernels/gemm.py", "from numba import njit", "imports numba, which belongs to kernels/numba_cpu"),
        ("kernels/numba_cpu/gemm.py", "import cupy", "imports cupy, which belongs to kernels/cupy_gpu"),
        ("nanonet/ops.py", "import tuner.study", "imports tuner"),
        ("nanonet/ops.py", "def f():\n    import llvmlite.ir", "imports llvmlite, which belongs to kernels/numba_cpu"),
        ("nanonet/ops.py", "import importlib\nimportlib.import_module('tuner')", "imports tuner"),
        ("tuner/study.py", "from nanonet import Settings", "imports nanonet"),
        ("tuner/study.py", "import kernels", "imports kernels"),
    ],
)
def test_a_wrong_direction_is_found(tmp_path, path, source, complaint):
    write(tmp_path, {path: source})
    (found,) = wrong_directions(tmp_path)
    assert found.startswith(path)
    assert found.endswith(complaint)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/numba_cpu/gemm.py", "import numba, numpy\nfrom ..contract import Backend"),
        ("nanonet/tensor.py", "from kernels import plan\nfrom . import errors"),
        ("tuner/tune.py", "import nanonet\nfrom tuner.study import Study"),
    ],
)
def test_a_right_direction_is_accepted(tmp_path, path, source):
    write(tmp_path, {path: source})
    assert wrong_directions(tmp_path) == []


def test_a_heavy_import_is_found_through_other_modules(tmp_path):
    write(
        tmp_path,
        {
            "nanonet/__init__.py": "from nanonet.tensor import Tensor",
            "nanonet/tensor.py": "from . import ops\ndef f():\n    import rich",
            "nanonet/ops/__init__.py": "from kernels.plan import record",
            "nanonet/plotting.py": "import matplotlib",
            "kernels/__init__.py": "class A:\n    import safetensors",
            "kernels/plan.py": "import numpy, ctypes\ntry:\n    import scipy.special\nexcept ImportError:\n    pass",
        },
    )
    assert heavy_imports(tmp_path, "nanonet") == [
        "kernels/__init__.py:2 imports safetensors",
        "kernels/plan.py:3 imports scipy",
    ]


def write(root: Path, sources: dict[str, str]) -> None:
    for path, source in sources.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")


# -------------------------------------------------------------------------- another package named kernels


def test_an_alien_kernels_package_is_named_with_its_path(tmp_path):
    """Hugging Face's `kernels` has the same import name: say so, rather than fail somewhere inside."""
    write(tmp_path, {"kernels/__init__.py": "def get_kernel(name): ...\n"})
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import nanonet"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "kernels" in last
    assert str(tmp_path / "kernels") in result.stderr


# -------------------------------------------------------------------------------------------- docstrings


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_every_public_function_and_class_is_documented(package):
    """Public: at the top of a module outside the backends' folders, and in `__all__` where the module has one."""
    bare = []
    for file in sorted((ROOT / package).rglob("*.py")):
        if file.relative_to(ROOT).as_posix().startswith(tuple(BACKENDS)):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        listed = exported(tree)
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not ast.get_docstring(node):
                name = node.name
                if name in listed if listed is not None else not name.startswith("_"):
                    bare.append(f"{file.relative_to(ROOT).as_posix()}:{node.lineno} {name}")
    assert bare == []


def exported(tree: ast.Module) -> set[str] | None:
    """The names in a literal `__all__`, or None."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return set(ast.literal_eval(node.value))
    return None
