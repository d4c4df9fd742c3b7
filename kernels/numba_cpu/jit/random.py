"""Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") on vectors.

A lane is a counter. Its four words lie in the low halves of four vectors of 64-bit lanes, whose high halves hold
anything: a 32 x 32 -> 64 bit product needs only the low ones.
"""

import math
from collections.abc import Callable

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit.lifted import cos, log, sin
from kernels.numba_cpu.jit.vector import (
    Vector,
    cast,
    first,
    float_bits,
    iota,
    pointer,
    select,
    shuffle,
    splat,
    sqrt,
    store,
    store_masked,
)

U64 = types.uint64
#: Counters at a time: four registers of 64-bit lanes, so that their chains of ten rounds overlap.
C = 4 * host().lanes_f64
LOW = 0xFFFFFFFF


@njit(error_model="numpy")
def turn(a, b, c, d, low, high, i):
    """Round i."""
    low, high = (low + U64(i * 0x9E3779B9)) & U64(LOW), (high + U64(i * 0xBB67AE85)) & U64(LOW)
    left, right = (a & U64(LOW)) * U64(0xD2511F53), (c & U64(LOW)) * U64(0xCD9E8D57)
    return (right >> U64(32)) ^ (b ^ low), right, (left >> U64(32)) ^ (d ^ high), left


@njit(error_model="numpy")
def philox(seed, stream, step, block):
    """The words of counters block .. block + C - 1, each in the low halves of a vector whose high halves are 0."""
    a = iota(U64, C) + U64(block)
    b, c, d = splat(step & U64(LOW), C), splat(step >> U64(32), C), splat(stream & U64(LOW), C)
    low, high = seed & U64(LOW), seed >> U64(32)
    a, b, c, d = turn(a, b, c, d, low, high, 0)
    a, b, c, d = turn(a, b, c, d, low, high, 1)
    a, b, c, d = turn(a, b, c, d, low, high, 2)
    a, b, c, d = turn(a, b, c, d, low, high, 3)
    a, b, c, d = turn(a, b, c, d, low, high, 4)
    a, b, c, d = turn(a, b, c, d, low, high, 5)
    a, b, c, d = turn(a, b, c, d, low, high, 6)
    a, b, c, d = turn(a, b, c, d, low, high, 7)
    a, b, c, d = turn(a, b, c, d, low, high, 8)
    a, b, c, d = turn(a, b, c, d, low, high, 9)
    return a & U64(LOW), b & U64(LOW), c & U64(LOW), d & U64(LOW)


@intrinsic
def words(typingctx, v):
    """64-bit lanes as twice as many 32-bit lanes, the low half first."""
    vector = Vector(types.uint32, 2 * v.lanes)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], ir.VectorType(ir.IntType(32), vector.lanes))

    return vector(v), codegen


def _orders(lanes: int) -> tuple[tuple[int, ...], ...]:
    """Shuffles of two vectors: in turn (low and high halves), and back (even and odd lanes)."""
    turns = [k for i in range(lanes) for k in (i, lanes + i)]
    both = range(2 * lanes)
    return tuple(turns[:lanes]), tuple(turns[lanes:]), tuple(both[0::2]), tuple(both[1::2])


def _interleave(lanes: int) -> tuple[Callable, Callable]:
    """(a, b) -> a0 b0 a1 b1 ... as two vectors, and the way back."""
    low, high, even, odd = _orders(lanes)
    scope = {"shuffle": shuffle}
    exec(f"def zip(a, b): return shuffle(a, b, {low}), shuffle(a, b, {high})", scope)
    exec(f"def unzip(a, b): return shuffle(a, b, {even}), shuffle(a, b, {odd})", scope)
    return njit(error_model="numpy")(scope["zip"]), njit(error_model="numpy")(scope["unzip"])


def _uniform(dtype: str) -> tuple[Callable, int]:
    """uniform(seed, stream, step, block): the next 2 W elements as two vectors of W lanes; and W."""
    together, _ = _interleave(C)

    @njit(error_model="numpy")
    def single(w):
        return cast(cast(w >> types.uint32(8), types.int32), types.float32) * types.float32(2**-24)

    @njit(error_model="numpy")
    def double(a, b):
        return cast((a >> U64(5) << U64(26)) | (b >> U64(6)), types.float64) * 2.0**-53

    @njit(error_model="numpy")
    def uniform32(seed, stream, step, block):
        a, b, c, d = philox(seed, stream, step, block)
        low, high = together(a | (b << U64(32)), c | (d << U64(32)))
        return single(words(low)), single(words(high))

    @njit(error_model="numpy")
    def uniform64(seed, stream, step, block):
        a, b, c, d = philox(seed, stream, step, block)
        return together(double(a, b), double(c, d))

    return (uniform32, 2 * C) if dtype == "float32" else (uniform64, C)


def _kernel(dtype: str, drawn: str, finish: Callable) -> Callable:
    """args: state, out, n, rate, scale. out is `finish` of uniforms of dtype `drawn`, two vectors at a time."""
    T = getattr(types, dtype)
    uniform, W = _uniform(drawn)

    def kernel(args, part, parts):
        state, out, n = pointer(args[0], types.int64), pointer(args[1], T), args[2]
        seed, stream, step = U64(state[0]), U64(state[1]), U64(state[2])
        rate, scale = float_bits(args[3]), float_bits(args[4])
        blocks = (n + 2 * W - 1) // (2 * W)
        for block in range(part * blocks // parts, (part + 1) * blocks // parts):
            p, q = uniform(seed, stream, step, block * C)
            p, q = finish(p, q, rate, scale)
            i = 2 * W * block
            if i + 2 * W <= n:
                store(out, i, p)
                store(out, i + W, q)
            else:
                store_masked(out, i, p, first(n - i, W))
                store_masked(out, i + W, q, first(n - i - W, W))

    return kernel


def make_uniform(dtype: str) -> Callable:
    """args: state, out, n, 0.0, 0.0."""

    @njit(error_model="numpy")
    def finish(p, q, rate, scale):
        return p, q

    return _kernel(dtype, dtype, finish)


def make_normal(dtype: str) -> Callable:
    """args: state, out, n, 0.0, 0.0."""
    F = getattr(types, dtype)
    together, apart = _interleave(2 * C if dtype == "float32" else C)

    @njit(error_model="numpy")
    def finish(p, q, rate, scale):
        u, v = apart(p, q)
        radius = sqrt(F(-2) * log(F(1) - u))
        angle = F(2 * math.pi) * v
        return together(radius * cos(angle), radius * sin(angle))

    return _kernel(dtype, dtype, finish)


def make_dropout_mask(dtype: str) -> Callable:
    """args: state, out, n, rate, scale."""
    F = getattr(types, dtype)

    @njit(error_model="numpy")
    def finish(p, q, rate, scale):
        low, keep = types.float32(rate), F(scale)
        return select(p >= low, keep, F(0)), select(q >= low, keep, F(0))

    return _kernel(dtype, "float32", finish)
