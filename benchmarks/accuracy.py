"""python -m benchmarks.accuracy [NAME ...]: the error of float32 functions over all 2^32 bit patterns. Takes minutes.

The error is in units of the last place of the result rounded to float32, against NumPy and SciPy in float64. Denormal
arguments count as 0, and a denormal result may be 0, as everywhere in kernels. gelu is x times the normal distribution
function in float64, so that its tail towards 0 is judged relatively, like everything else.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np

from kernels.elementwise import BY_NAME
from kernels.numba_cpu.elementwise import elementwise

#: Units of the last place that are allowed.
ALLOWED = 4.0
#: Bit patterns at a time.
CHUNK = 1 << 22
TINY = np.finfo(np.float32).tiny


def functions() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """name -> the function in float64. Needs SciPy."""
    from scipy import special

    return {
        "exp": np.exp,
        "log": np.log,
        "tanh": np.tanh,
        "sigmoid": special.expit,
        "erf": special.erf,
        "gelu": lambda x: np.maximum(x, -1e9) * special.ndtr(x),
        "expm1": np.expm1,
        "log1p": np.log1p,
        "sqrt": np.sqrt,
    }


def every_float(start: int = 0, stop: int = 1 << 32, step: int = CHUNK) -> Iterator[np.ndarray]:
    """All float32 values, in chunks, denormal ones as 0."""
    for first in range(start, stop, step):
        x = np.arange(first, min(first + step, stop), dtype=np.uint64).astype(np.uint32).view(np.float32)
        yield np.where(np.abs(x) < TINY, np.copysign(np.float32(0), x), x)


def errors(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Units of the last place between float32 and float64 results; infinite where one is NaN or infinite alone."""
    with np.errstate(all="ignore"):
        rounded = wanted.astype(np.float32)
        unit = np.maximum(np.spacing(np.abs(rounded)), TINY * np.finfo(np.float32).eps).astype(np.float64)
        error = np.abs(got - wanted) / unit
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    flushed = (np.abs(got) <= TINY) & (np.abs(wanted) <= TINY * (1 + ALLOWED * np.finfo(np.float32).eps))
    error[same | flushed] = 0
    error[np.isnan(error)] = np.inf
    return error


def largest(name: str) -> tuple[float, float]:
    """(the largest error of a function of the table, an argument where it occurs)."""
    exact, worst, where = functions()[name], 0.0, 0.0
    for x in every_float():
        got = np.full_like(x, np.nan)
        elementwise(BY_NAME[name].forward, x, out=got)
        with np.errstate(all="ignore"):
            error = errors(got, exact(x.astype(np.float64)))
        at = int(error.argmax())
        if error[at] > worst:
            worst, where = float(error[at]), float(x[at])
    return worst, where


def main() -> int:
    """Print the largest error of each function; 1 if one is above what is allowed."""
    parser = argparse.ArgumentParser("python -m benchmarks.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(functions()))
    failed = False
    for name in parser.parse_args().names or functions():
        worst, where = largest(name)
        failed |= not worst <= ALLOWED
        print(f"{name:8s} {worst:.2f} ulp at {where!r}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
