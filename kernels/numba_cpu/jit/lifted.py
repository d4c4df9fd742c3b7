"""The functions of jit/math.py for vectors in Numba code."""

from collections.abc import Callable

from numba.extending import intrinsic

from kernels.numba_cpu.jit import math
from kernels.numba_cpu.jit.values import Lanes


def _lifted(function: Callable[[Lanes], Lanes]) -> Callable:
    @intrinsic
    def call(typingctx, x):
        return x(x), lambda context, builder, sig, args: function(Lanes(builder, args[0])).value

    return call


exp, log, sin, cos = (_lifted(function) for function in (math.exp, math.log, math.sin, math.cos))
