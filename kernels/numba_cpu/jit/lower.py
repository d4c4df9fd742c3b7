"""From a Python function to object code: Numba's front end and optimizer, then LLVM for the chosen processor."""

from collections.abc import Callable
from functools import cache

from llvmlite import binding
from llvmlite import ir as llvm
from numba.core import compiler, types
from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from kernels.numba_cpu.compiler import can_link
from kernels.numba_cpu.host import host

#: Symbols of Python and of Numba's own runtime: a kernel that wants one of them is not free of Python.
_FOREIGN = ("Py", "_Py", "NRT_", "numba_", ".numba", "_ZN")

_PARAMETERS = {"p": types.CPointer(types.int64), "i": types.int64}


class _Library(CPUCodeLibrary):
    """LLVM of one kernel or helper, kept out of Numba's execution engine. Only a kernel, with all that it calls, is
    optimized; helpers are merely linked into it."""

    entry = ""

    def _optimize_functions(self, ll_module) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        if not self.entry:
            return
        for value in (*self._final_module.functions, *self._final_module.global_variables):
            if not value.is_declaration and value.name != self.entry:
                value.linkage = "internal"
        super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0


class _Codegen(JITCPUCodegen):
    """Numba's code generator for the chosen processor. Nothing of it can be called from Python."""

    _library_class = _Library

    def _get_host_cpu_name(self) -> str:
        return super()._get_host_cpu_name() if host().foreign else host().name

    def _get_host_cpu_features(self) -> str:
        return super()._get_host_cpu_features() if host().foreign else host().features

    def set_env(self, env_name, env) -> None:
        pass


def lower(function: Callable, symbol: str, parameters: str, result: bool, python: bool) -> bytes:
    """Object code that exports `function` as the C function `symbol` (see compiler.compile_function)."""
    optimized = module(function, symbol, parameters, result)
    _check_symbols(optimized, symbol, python)
    return target_machine().emit_object(optimized)


def target_machine() -> binding.TargetMachine:
    """LLVM's back end for the chosen processor."""
    machine = host()
    reloc = "static" if machine.arch == "x86" else "default"
    return binding.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.name, features=machine.features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True
    )


@cache
def _codegen() -> _Codegen:
    return _Codegen("nanonet")


@global_compiler_lock
def module(function: Callable, symbol: str, parameters: str, result: bool) -> binding.ModuleRef:
    """Optimized LLVM module that exports `function` as the C function `symbol`."""
    target = cpu_target.target_context
    target.refresh()
    cpu_target.typing_context.refresh()
    usual = target._internal_codegen
    target._internal_codegen = _codegen()  # for helpers, which Numba compiles on the way, too
    try:
        library = _library(target, function, symbol, parameters, result)
    finally:
        target._internal_codegen = usual
    optimized = library._final_module
    if host().foreign:
        optimized.triple = host().triple
        optimized.data_layout = str(target_machine().target_data)
    return optimized


def _library(target, function: Callable, symbol: str, parameters: str, result: bool) -> _Library:
    flags = compiler.Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.release_gil = True
    flags.error_model = "numpy"
    flags.fastmath = {"contract"}
    library = _Library(target.codegen(), symbol)
    library.entry = symbol
    arguments = tuple(_PARAMETERS[p] for p in parameters)
    returns = types.int64 if result else types.none
    typing = cpu_target.typing_context
    compiled = compiler.compile_extra(typing, target, function, arguments, returns, flags, {}, library=library)
    _add_entry(target, library, compiled.fndesc, symbol, result)
    library.finalize()
    return library


def _add_entry(target, library: _Library, description, symbol: str, result: bool) -> None:
    """A C function that calls Numba's function, which has another calling convention and an exception result."""
    wrapper = library.create_ir_module(symbol)
    kinds = [target.get_value_type(kind) for kind in description.argtypes]
    out = llvm.IntType(64) if result else llvm.VoidType()
    entry = llvm.Function(wrapper, llvm.FunctionType(out, kinds), symbol)
    builder = llvm.IRBuilder(entry.append_basic_block())
    inner = target.declare_function(wrapper, description)
    _, value = target.call_conv.call_function(
        builder, inner, description.restype, description.argtypes, list(entry.args)
    )
    if result:
        builder.ret(value)
    else:
        builder.ret_void()
    library.add_ir_module(wrapper)


def _check_symbols(optimized: binding.ModuleRef, symbol: str, python: bool) -> None:
    for function in optimized.functions:
        name = function.name
        if not function.is_declaration or name.startswith("llvm."):
            continue
        allowed = python if name.startswith("Py") else not name.startswith(_FOREIGN)
        if not allowed or not can_link(name):
            raise TypeError(f"kernel {symbol} needs {name!r}: it raises, allocates or calls something that is not C")
