"""What the machine can do at most: fused multiply-adds per second, and bytes copied per second."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
from llvmlite import binding

from kernels.numba_cpu.host import host, initialize

#: Independent chains of multiply-adds: enough to hide their latency, few enough for sixteen vector registers.
CHAINS = 12
#: Rounds of the loop in one repetition.
LOOPS = 4096


def fma_flop(dtype: str = "float32") -> int:
    """Floating-point operations in one repetition of `fma_loop`, on one thread."""
    return 2 * CHAINS * LOOPS * host().lanes(dtype)


def fma_loop(dtype: str = "float32", threads: int = 1) -> Callable[[int], None]:
    """A candidate that does nothing but multiply-adds in registers, on as many threads at once."""
    code = _compile(dtype)
    if threads == 1:
        return lambda times: code(times * LOOPS, 0.5, 1.0)
    pool = ThreadPoolExecutor(threads)

    def run(times: int) -> None:
        for done in [pool.submit(code, times * LOOPS, 0.5, 1.0) for _ in range(threads)]:
            done.result()

    return run


def copy_loop(size: int, threads: int = 1) -> Callable[[int], None]:
    """A candidate that reads `size` bytes and writes them elsewhere, on as many threads at once."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    bounds = [size * part // threads // 64 * 64 for part in range(threads)] + [size]
    pieces = [(target[a:b], source[a:b]) for a, b in pairwise(bounds)]
    pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def piece(times: int, to: np.ndarray, source: np.ndarray) -> None:
        for _ in range(times):
            np.copyto(to, source)

    def run(times: int) -> None:
        if pool is None:
            piece(times, *pieces[0])
        else:
            for done in [pool.submit(piece, times, *pair) for pair in pieces]:
                done.result()

    return run


@cache
def _compile(dtype: str) -> Callable[[int, float, float], float]:
    scalar, number = {"float32": ("float", ctypes.c_float), "float64": ("double", ctypes.c_double)}[dtype]
    initialize()
    machine = binding.Target.from_triple(host().triple).create_target_machine(
        cpu=host().name, features=host().features, opt=3, jit=True
    )
    engine = binding.create_mcjit_compiler(binding.parse_assembly(_loop(scalar, host().lanes(dtype))), machine)
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(number, ctypes.c_int64, number, number)(engine.get_function_address("peak"))
    call.engine = engine  # the code lives as long as its engine
    return call


def _loop(scalar: str, lanes: int) -> str:
    """LLVM text of  scalar peak(n, m, a):  x = x * m + a, n times, in CHAINS vectors side by side."""
    vector = f"<{lanes} x {scalar}>"
    fma = f"@llvm.fma.v{lanes}{'f32' if scalar == 'float' else 'f64'}"
    chains = range(CHAINS)
    lines = [
        f"declare {vector} {fma}({vector}, {vector}, {vector})",
        f"define {scalar} @peak(i64 %n, {scalar} %m0, {scalar} %a0) {{",
        "start:",
    ]
    for name in "ma":
        lines += [
            f"  %{name}1 = insertelement {vector} undef, {scalar} %{name}0, i32 0",
            f"  %{name} = shufflevector {vector} %{name}1, {vector} undef, <{lanes} x i32> zeroinitializer",
        ]
    lines += ["  br label %loop", "loop:", "  %i = phi i64 [0, %start], [%j, %loop]"]
    lines += [f"  %x{c} = phi {vector} [%a, %start], [%y{c}, %loop]" for c in chains]
    lines += [f"  %y{c} = call {vector} {fma}({vector} %x{c}, {vector} %m, {vector} %a)" for c in chains]
    lines += ["  %j = add i64 %i, 1", "  %more = icmp slt i64 %j, %n", "  br i1 %more, label %loop, label %end", "end:"]
    lines += [f"  %s{c} = fadd {vector} %{'y0' if c == 1 else f's{c - 1}'}, %y{c}" for c in chains if c > 0]
    lines += [f"  %r = extractelement {vector} %s{CHAINS - 1}, i32 0", f"  ret {scalar} %r", "}"]
    return "\n".join(lines)
