"""Machine code by name: the object cache, other processors, and what a kernel may not do."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

pytest.importorskip("numba")

from kernels.numba_cpu import compiler
from kernels.numba_cpu.compiler import compile_function, compile_kernel
from kernels.numba_cpu.executor import pack

ROOT = Path(__file__).parent.parent

ADD = """
    import ctypes, sys
    from kernels.numba_cpu import compiler

    def make():
        def kernel(args, part, parts):
            args[0] += args[1]
        return kernel

    def run(name="test/add"):
        words = (ctypes.c_int64 * 2)(40, 2)
        kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        kernel(compiler.compile_kernel(name, make))(ctypes.addressof(words), 0, 1)
        return words[0]
"""


def python(code, cache, **environment):
    """What a fresh Python prints."""
    code = textwrap.dedent(ADD) + textwrap.dedent(code)
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "NANONET_CACHE_DIR": str(cache), **environment},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def objects(cache):
    return list(Path(cache).rglob("*.o"))


def test_a_warm_start_does_not_import_numba(tmp_path):
    code = "print(run(), 'numba' in sys.modules)"
    assert python(code, tmp_path) == "42 True"
    assert python(code, tmp_path) == "42 False"


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_a_damaged_object_is_compiled_again(tmp_path, damage):
    assert python("print(run())", tmp_path) == "42"
    whole = {path: path.read_bytes() for path in objects(tmp_path)}
    assert len(whole) == 1
    for path, data in whole.items():
        changed = {
            "truncate": data[: len(data) // 2],
            "flip": data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
            "empty": b"",
            "text": b"not an object",
        }
        path.write_bytes(changed[damage])
    assert python("print(run(), 'numba' in sys.modules)", tmp_path) == "42 True"
    assert python("print(run(), 'numba' in sys.modules)", tmp_path) == "42 False"


def test_an_object_under_another_kernels_name_is_not_taken(tmp_path):
    assert python("print(run('test/one'))", tmp_path) == "42"
    (path,) = objects(tmp_path)
    path.rename(path.with_name(compiler.symbol("test/two") + ".o"))
    assert python("print(run('test/two'), 'numba' in sys.modules)", tmp_path) == "42 True"


def test_without_a_cache_folder_kernels_live_in_memory(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    out = python("print(run()); folder, why = compiler.cache_folder(); print(folder, bool(why))", blocked)
    assert out.splitlines() == ["42", "None True"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="a superuser may write anywhere")
def test_a_read_only_cache_folder(tmp_path):
    tmp_path.chmod(0o500)
    assert python("print(run())", tmp_path) == "42"


def test_the_folder_is_named_after_the_processor(tmp_path):
    names = {
        python("print(compiler.cache_folder()[0].name)", tmp_path, NANONET_CPU=name)
        for name in ("", "x86-64", "haswell")
        if not name or sys.platform == "linux"
    }
    assert len(names) == 3


def test_the_fingerprint_depends_on_every_source(monkeypatch, tmp_path):
    package = tmp_path / "numba_cpu" / "jit"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1")
    monkeypatch.setattr(compiler, "_HERE", tmp_path / "numba_cpu")
    first = compiler._sources()
    (package / "a.py").write_text("2")
    second = compiler._sources()
    (tmp_path / "formula.py").write_text("3")
    assert len({first, second, compiler._sources()}) == 3


def test_old_folders_are_forgotten(tmp_path):
    for i in range(30):
        folder = tmp_path / "kernels" / f"old{i:02}"
        folder.mkdir(parents=True)
        (folder / "nanonet_x.o").write_bytes(b"")
        os.utime(folder, (i, i))
    assert python("print(run())", tmp_path) == "42"
    left = sorted(path.name for path in (tmp_path / "kernels").iterdir() if path.name.startswith("old"))
    assert left and left[-1] == "old29" and len(left) < 20


def test_processes_that_compile_at_once(tmp_path):
    code = textwrap.dedent(ADD) + "print(run())"
    environment = {**os.environ, "NANONET_CACHE_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, env=environment)
        for _ in range(3)
    ]
    for process in processes:
        assert process.communicate(timeout=300)[0].strip() == b"42"
    assert len(objects(tmp_path)) == 1
    assert [path for path in Path(tmp_path).rglob("nanonet_*") if path.suffix != ".o"] == []


def test_threads_that_compile_at_once():
    made, addresses = [], []

    def make():
        made.append(1)

        def kernel(args, part, parts):
            args[0] = part

        return kernel

    name = f"test/threads/{os.getpid()}"
    workers = [threading.Thread(target=lambda: addresses.append(compile_kernel(name, make))) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(made) == 1 and len(set(addresses)) == 1 and len(addresses) == 6
    assert name in compiler.compiled_names()


def test_a_kernel_that_needs_python_is_refused():
    def make():
        def kernel(args, part, parts):
            if args[0] == 0:
                raise ValueError("no")
            print(args[0])

        return kernel

    with pytest.raises(TypeError, match="kernel"):
        compile_kernel("test/needs python", make)
    assert "test/needs python" not in compiler.compiled_names()


def test_functions_with_a_result():
    import ctypes

    def make():
        def function(a, b):
            return 10 * a + b

        return function

    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(
        compile_function("test/result", make, "ii", result=True)
    )
    assert function(4, 2) == 42


# ------------------------------------------------------------------------------------ other processors

x86 = pytest.mark.skipif("x86" not in __import__("platform").machine().lower(), reason="needs an x86 processor")


def test_an_unknown_processor_is_named():
    code = """
    from kernels.numba_cpu.host import forced
    try:
        forced("pentium-9")
    except ValueError as error:
        print(error)
    """
    assert "pentium-9" in python(code, "unused")


@x86
@pytest.mark.parametrize(("name", "lanes"), [("x86-64", 4), ("haswell", 8)])
def test_code_for_a_smaller_processor_runs(tmp_path, name, lanes):
    code = """
    from kernels.numba_cpu.host import host
    print(run(), host().lanes("float32"), host().lanes("float64"))
    """
    assert python(code, tmp_path, NANONET_CPU=name) == f"42 {lanes} {lanes // 2}"


@pytest.mark.parametrize(
    ("name", "register"), [("skylake-avx512", "zmm"), ("neoverse-n1", ".4s")], ids=["avx512", "neon"]
)
def test_code_for_a_processor_that_is_not_here(tmp_path, name, register):
    code = """
    from kernels.numba_cpu.host import host
    try:
        host()
    except RuntimeError as error:
        print("skip", error)
        raise SystemExit
    from kernels.numba_cpu.jit import executor, gemm, lower, tile, vector
    for function, parameters, result in (
        (tile.tile(vector.float32, "relu"), "i" * 13, False),
        (gemm.gemm(vector.float32), "pii", False),
        (executor.execute(), "piiii", True),
        (executor.work(), "i", True),
    ):
        made = lower.module(function, "kernel", parameters, result)
        machine = lower.target_machine()
        print(len(machine.emit_object(made)) > 500, REGISTER in machine.emit_assembly(made))
    """.replace("REGISTER", repr(register))
    out = python(code, tmp_path, NANONET_CPU=name)
    if out.startswith("skip"):
        pytest.skip(out)
    assert out.splitlines()[0] == "True True"
    assert all(line.startswith("True") for line in out.splitlines())


def test_packing_words():
    assert pack(1, -1) == (1).to_bytes(8, sys.byteorder) + b"\xff" * 8
