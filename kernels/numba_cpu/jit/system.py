"""What kernels may ask of the processor and the C library: calls by address, atomics, denormal modes, sleeping.

Addresses are int64; a word is an int64 in memory.
"""

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_cpu.host import host

_WORD = ir.IntType(64)
_INT = ir.IntType(32)


def _function(builder, name: str, result, parameters, variadic: bool = False):
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, parameters, var_arg=variadic), name)


def _pointer(builder, address, kind=_WORD):
    return builder.inttoptr(address, kind.as_pointer())


@intrinsic
def call(typingctx, address, args, part, parts):
    """call(address, args, part, parts): call the kernel at `address` with the argument block at address `args`."""

    def codegen(context, builder, sig, values):
        kind = ir.FunctionType(ir.VoidType(), [_WORD.as_pointer(), _WORD, _WORD])
        kernel = builder.inttoptr(values[0], kind.as_pointer())
        builder.call(kernel, [_pointer(builder, values[1]), values[2], values[3]])
        return context.get_dummy_value()

    return types.none(*[types.int64] * 4), codegen


# ------------------------------------------------------------------------------------------------ atomics


@intrinsic
def atomic_load(typingctx, address):
    """atomic_load(address): the word there, sequentially consistent."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_pointer(builder, args[0]), "seq_cst", 8, typ=_WORD)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx, address, value):
    """atomic_store(address, value): write the word, sequentially consistent."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[1], _pointer(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), codegen


@intrinsic
def atomic_add(typingctx, address, value):
    """atomic_add(address, value): add to the word and return what it was before."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_swap_if(typingctx, address, expected, value):
    """atomic_swap_if(address, expected, value): write value if the word is `expected`; whether it was."""

    def codegen(context, builder, sig, args):
        pair = builder.cmpxchg(_pointer(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(*[types.int64] * 3), codegen


# --------------------------------------------------------------------------------- waiting and denormals


@intrinsic
def pause(typingctx):
    """pause(): tell the processor that this is a spinning loop."""

    def codegen(context, builder, sig, args):
        if host().arch == "x86":
            builder.call(_function(builder, "llvm.x86.sse2.pause", ir.VoidType(), []), [])
        elif host().arch == "arm":
            builder.call(_function(builder, "llvm.aarch64.hint", ir.VoidType(), [_INT]), [_INT(1)])
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def flush_denormals(typingctx):
    """flush_denormals(): from now on this thread's denormal floats count as 0. Returns the mode before."""

    def codegen(context, builder, sig, args):
        before = _read_mode(builder)
        bits = {"x86": 0x8040, "arm": 1 << 24, "other": 0}[host().arch]  # FTZ | DAZ; FZ
        _write_mode(builder, builder.or_(before, _WORD(bits)))
        return before

    return types.int64(), codegen


@intrinsic
def restore_denormals(typingctx, mode):
    """restore_denormals(mode): back to what flush_denormals found."""

    def codegen(context, builder, sig, args):
        _write_mode(builder, args[0])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


def _read_mode(builder):
    if host().arch == "x86":
        slot = cgutils.alloca_once(builder, _INT)
        _mode_register(builder, "llvm.x86.sse.stmxcsr", slot)
        return builder.zext(builder.load(slot), _WORD)
    if host().arch == "arm":
        return builder.call(_function(builder, "llvm.aarch64.get.fpcr", _WORD, []), [])
    return _WORD(0)


def _write_mode(builder, mode) -> None:
    if host().arch == "x86":
        slot = cgutils.alloca_once(builder, _INT)
        builder.store(builder.trunc(mode, _INT), slot)
        _mode_register(builder, "llvm.x86.sse.ldmxcsr", slot)
    elif host().arch == "arm":
        builder.call(_function(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [_WORD]), [mode])


def _mode_register(builder, name: str, slot) -> None:
    byte = ir.IntType(8).as_pointer()
    builder.call(_function(builder, name, ir.VoidType(), [byte]), [builder.bitcast(slot, byte)])


_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if sys.platform.startswith("linux") else None


@intrinsic
def sleep_while(typingctx, address, value):
    """sleep_while(address, value): sleep if the low half of the word equals `value`'s, until `wake`; may wake early.

    Where the system has no futex it sleeps for two milliseconds.
    """

    def codegen(context, builder, sig, args):
        if _FUTEX:
            low = builder.trunc(args[1], _INT)
            null = ir.Constant(_WORD, 0)
            _futex(builder, args[0], 128, low, null)  # FUTEX_WAIT | FUTEX_PRIVATE_FLAG
        else:
            _sleep(builder, 2000)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), codegen


def _sleep(builder, microseconds: int) -> None:
    if sys.platform == "win32":
        builder.call(_function(builder, "Sleep", ir.VoidType(), [_INT]), [_INT(max(1, microseconds // 1000))])
    else:
        builder.call(_function(builder, "usleep", _INT, [_INT]), [_INT(microseconds)])


@intrinsic
def nap(typingctx):
    """nap(): sleep for about a tenth of a millisecond."""

    def codegen(context, builder, sig, args):
        _sleep(builder, 100)
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def wake(typingctx, address):
    """wake(address): wake every thread that sleeps on this word."""

    def codegen(context, builder, sig, args):
        if _FUTEX:
            _futex(builder, args[0], 129, _INT(2**31 - 1), ir.Constant(_WORD, 0))  # FUTEX_WAKE | FUTEX_PRIVATE_FLAG
        return context.get_dummy_value()

    return types.none(types.int64), codegen


def _futex(builder, address, operation: int, value, timeout) -> None:
    syscall = _function(builder, "syscall", _WORD, [_WORD], variadic=True)
    builder.call(syscall, [_WORD(_FUTEX), address, _WORD(operation), builder.zext(value, _WORD), timeout])


@intrinsic
def give_way(typingctx):
    """give_way(): let another thread run on this core."""

    def codegen(context, builder, sig, args):
        if sys.platform == "win32":
            builder.call(_function(builder, "Sleep", ir.VoidType(), [_INT]), [_INT(0)])
        else:
            builder.call(_function(builder, "sched_yield", _INT, []), [])
        return context.get_dummy_value()

    return types.none(), codegen
