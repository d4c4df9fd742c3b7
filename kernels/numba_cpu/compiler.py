"""Machine code by name: from memory, from the object cache on disk, or freshly compiled.

    compile_kernel(name, make) -> address of  void kernel(int64 *args, int64 part, int64 parts)

Only fresh compilation imports Numba. The cache is ours: it holds plain object code with a checksum, and its folder
is named after everything that decides what the code is (our sources, Numba, LLVM, processor), so that it is never
stale. A damaged file is compiled again; a folder that cannot be written just means no cache.
"""

import hashlib
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from llvmlite import binding

from kernels.cache import kernel_cache
from kernels.numba_cpu.host import host, initialize

_MAGIC = b"nanonet object 1\n"
_HERE = Path(__file__).parent
_KEEP_FOLDERS = 12

_lock = threading.RLock()
_addresses: dict[str, int] = {}
_names: dict[int, str] = {}
_loaded = []  # objects must outlive their code

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def compile_kernel(name: str, make: Callable[[], Callable]) -> int:
    """The native address of the kernel called `name`.

    `name` says everything that the code depends on besides our sources (dtype, layout, formula text, ...): one name is
    one machine code. `make()` is called only if there is none yet; it returns a plain function (args, part, parts),
    which Numba compiles with args a pointer to int64, part and parts int64. Safe to call from any thread.
    """
    return compile_function(name, make)


def compile_function(
    name: str, make: Callable[[], Callable], parameters: str = "pii", result: bool = False, python: bool = False
) -> int:
    """As `compile_kernel`, for any parameters: "p" is a pointer to int64, "i" an int64.

    result: it returns an int64. python: it may call Python's C functions.
    """
    address = _addresses.get(name)
    if address is None:
        with _lock:
            address = _addresses.get(name)
            if address is None:
                address = _addresses[name] = _load(name, _object(name, make, parameters, result, python))
    return address


def symbol(name: str) -> str:
    """The symbol under which an object exports the kernel called `name`."""
    return "nanonet_" + hashlib.sha256(name.encode()).hexdigest()[:24]


def compiled_names() -> tuple[str, ...]:
    """Names of the kernels in memory."""
    return tuple(_addresses)


def compiled_name(address: int) -> str:
    """The name of the kernel at an address, or an empty text."""
    if len(_names) != len(_addresses):
        _names.update((address, name) for name, address in list(_addresses.items()))
    return _names.get(address, "")


# ---------------------------------------------------------------------------------------- machine code


def _object(name: str, make: Callable[[], Callable], parameters: str, result: bool, python: bool) -> bytes:
    code = _read(name)
    if code is None:
        from kernels.numba_cpu.jit.lower import lower

        code = lower(make(), symbol(name), parameters, result, python)
        _write(name, code)
    return code


@cache
def _engine() -> binding.ExecutionEngine:
    initialize()
    module = binding.parse_assembly("")
    module.triple = host().triple
    machine = binding.Target.from_triple(host().triple).create_target_machine(
        cpu=host().name, features=host().features, opt=3, codemodel="jitdefault", jit=True
    )
    return binding.create_mcjit_compiler(module, machine)


def _load(name: str, code: bytes) -> int:
    reference = binding.ObjectFileRef.from_data(code)
    _loaded.append(reference)
    _engine().add_object_file(reference)
    _engine().finalize_object()
    address = _engine().get_function_address(symbol(name))
    if not address:
        raise RuntimeError(f"kernel {name!r}: its object code does not export it")
    return address


def can_link(name: str) -> bool:
    """Whether machine code can call the C function `name` of this process."""
    if host().foreign:
        return True
    _engine()  # makes LLVM know the symbols of this process
    return bool(binding.address_of_symbol(name))


# --------------------------------------------------------------------------------------------- the cache


def cache_folder() -> tuple[Path | None, str]:
    """(folder, "") where compiled kernels are kept, or (None, the reason why none are)."""
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return None, f"{folder} cannot be written"
    except OSError as error:
        return None, f"{folder} cannot be made: {error}"
    return folder, ""


@cache
def _folder() -> Path:
    return kernel_cache() / _fingerprint()


@cache
def _fingerprint() -> str:
    """Names everything that decides the machine code, apart from the kernel's name."""
    versions = [metadata.version(package) for package in ("numba", "llvmlite")]
    machine = [host().name, host().features, host().triple, str(sys.maxsize)]
    return hashlib.sha256("\n".join([_sources(), *versions, *machine]).encode()).hexdigest()[:24]


def _sources() -> str:
    beside = [_HERE.parent / file for file in ("elementwise.py", "formula.py", "updates.py")]
    digest = hashlib.sha256()
    for path in sorted(_HERE.rglob("*.py")) + [path for path in beside if path.exists()]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


#: Taken before any kernel is made: if the sources change under a running process, it stops writing objects.
_sources_at_start = _sources()


def _path(name: str) -> Path:
    return _folder() / (symbol(name) + ".o")


def _checksum(name: str, code: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + code).digest()


def _read(name: str) -> bytes | None:
    try:
        data = _path(name).read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + 32
    code = data[start:]
    whole = data[: len(_MAGIC)] == _MAGIC and data[len(_MAGIC) : start] == _checksum(name, code)
    return code if whole else None


def _write(name: str, code: bytes) -> None:
    path = _path(name)
    beside = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _forget_old_folders(path.parent)
        if _sources() != _sources_at_start:
            return
        beside.write_bytes(_MAGIC + _checksum(name, code) + code)
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _forget_old_folders(current: Path) -> None:
    folders = sorted((f for f in current.parent.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime)
    for folder in [f for f in folders if f != current][: -_KEEP_FOLDERS or None]:
        for path in folder.glob("nanonet_*"):
            path.unlink(missing_ok=True)
        folder.rmdir()
