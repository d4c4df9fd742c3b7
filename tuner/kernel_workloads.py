"""The work that kernels are tuned on, and how long it takes with some settings compared with the usual ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

__all__ = ["Stopwatch", "Workload", "WorkloadError", "workloads"]

TURN = 0.4e-3  # seconds of one timing, about
TURNS = 3  # of each setting in a round; the fastest counts, as a disturbance only ever takes time
CLOSE = 1e-3  # of the largest element: results with other settings differ in their last bits only


class WorkloadError(RuntimeError):
    """A kernel gave wrong numbers with some settings."""


@dataclass(frozen=True)
class Workload:
    """run() writes its result into `out`, which it reads too if in_place. group: of the knobs that matter for it."""

    name: str
    group: str
    run: Callable[[], object]
    out: np.ndarray
    in_place: bool = False


def workloads() -> list[Workload]:
    """Products, convolutions and rows as small and medium networks have them, float32."""
    return [*_products(), *_convolutions(), *_elementwise(), *_rows()]


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + shape[0]).standard_normal(shape, np.float32)


def _products() -> Iterator[Workload]:
    from kernels.numba_cpu.gemm import matmul

    def product(group: str, m: int, k: int, n: int, turned: str = "") -> Workload:
        a = _normal(k, m).T if turned == "a" else _normal(m, k)
        b = _normal(n, k).T if turned == "b" else _normal(k, n)
        out = np.empty((m, n), np.float32)
        name = f"matmul {m} x {k} x {n}{f', {turned} transposed' if turned else ''}"
        return Workload(name, group, partial(matmul, a, b, out), out)

    yield product("matmul", 256, 256, 256)
    yield product("matmul", 512, 512, 512)
    yield product("matmul", 768, 768, 768)
    yield product("matmul", 128, 784, 1024)
    yield product("matmul", 256, 1024, 1024, "b")
    yield product("matmul", 1024, 256, 1024, "a")
    for m, k, n in ((32, 64, 64), (64, 64, 64), (128, 64, 128), (128, 128, 128), (128, 784, 32), (256, 128, 128)):
        yield product("share", m, k, n)
    yield product("share", 784, 128, 128, "a")


def _convolutions() -> Iterator[Workload]:
    from kernels.numba_cpu.conv import conv2d, conv2d_transpose
    from kernels.numba_cpu.conv_weight import conv2d_weight_gradient

    one = (1, 1)

    def shapes(n: int, side: int, c: int, o: int, taps: int, stride: int):
        x, w = _normal(n, side, side, c), _normal(taps, taps, c, o)
        padding = ((taps // 2, taps // 2),) * 2
        places = (side + 2 * (taps // 2) - taps) // stride + 1
        return x, w, padding, np.empty((n, places, places, o), np.float32), f"{n} x {side} x {side}, {c} to {o}"

    def forward(group: str, n: int, side: int, c: int, o: int, taps: int = 3, stride: int = 1) -> Workload:
        x, w, padding, out, text = shapes(n, side, c, o, taps, stride)
        run = partial(conv2d, x, w, None, (stride, stride), padding, one, 1, None, out)
        return Workload(f"conv {taps} x {taps} {text}", group, run, out)

    def backward(group: str, n: int, side: int, c: int, o: int) -> Workload:
        x, w, padding, g, text = shapes(n, side, c, o, 3, 1)
        g[...] = 1
        out = np.empty_like(x)
        run = partial(conv2d_transpose, g, w, None, one, padding, one, 1, None, out)
        return Workload(f"conv input gradient {text}", group, run, out)

    def weights(group: str, n: int, side: int, c: int, o: int, taps: int = 3, stride: int = 1) -> Workload:
        x, w, padding, g, text = shapes(n, side, c, o, taps, stride)
        g[...] = _normal(*g.shape)
        out = np.empty_like(w)
        run = partial(conv2d_weight_gradient, x, g, (stride, stride), padding, one, 1, out)
        return Workload(f"conv weight gradient {taps} x {taps} {text}", group, run, out)

    yield forward("convolution", 16, 28, 1, 32)
    yield forward("convolution", 8, 28, 8, 16)
    yield forward("convolution", 8, 16, 32, 64, 5)
    yield forward("convolution", 8, 28, 16, 32, 3, 2)
    yield weights("convolution", 16, 28, 1, 32)
    yield weights("convolution", 8, 16, 32, 64, 5)
    yield weights("convolution", 8, 28, 16, 32, 3, 2)
    yield forward("winograd", 4, 28, 24, 24)
    yield forward("winograd", 8, 14, 64, 64)
    yield forward("winograd", 2, 14, 128, 128)
    yield backward("winograd", 8, 14, 64, 32)
    yield weights("winograd", 8, 14, 64, 64)
    yield weights("winograd", 16, 14, 32, 32)
    yield forward("share", 2, 14, 8, 8)
    yield weights("share", 2, 14, 8, 16)


def _elementwise() -> Iterator[Workload]:
    from kernels.elementwise import BY_NAME
    from kernels.numba_cpu.elementwise import elementwise

    def function(name: str, size: int) -> Workload:
        x, out, formula = _normal(size), np.empty(size, np.float32), BY_NAME[name].forward
        return Workload(f"{name} of {size}", "elementwise", partial(elementwise, formula, x, out=out), out)

    for power in (11, 13, 14, 15, 16, 18):
        yield function("relu", 1 << power)
    for power in (10, 12, 13, 14, 16):
        yield function("tanh", 1 << power)


def _rows() -> Iterator[Workload]:
    from kernels.numba_cpu import copy, norm, pool, random, reduce, softmax, updates
    from kernels.updates import BY_NAME

    for rows in (16, 64, 256, 1024):
        x, total = _normal(rows, 64), np.empty(64, np.float32)
        outs = [np.empty((rows, 64), np.float32) for _ in range(3)]
        mean, variance = np.empty((2, 64), np.float32)
        state = np.array([1, 2, 3])
        text = f"of {rows} x 64"
        yield Workload(f"softmax {text}", "rows", partial(softmax.softmax, x, outs[0]), outs[0])
        yield Workload(f"sum {text}", "rows", partial(reduce.reduce, "sum", x, (0,), total), total)
        normalize = partial(norm.batch_norm, x, None, None, 1e-5, None, outs[1], mean, variance)
        yield Workload(f"batch normalization {text}", "rows", normalize, outs[1])
        yield Workload(f"dropout mask {text}", "rows", partial(random.dropout_mask, state, 0.5, outs[2]), outs[2])
    for side in (128, 256, 512):
        x, out = _normal(side, side), np.empty((side, side), np.float32)
        yield Workload(f"transpose of {side} x {side}", "rows", partial(copy.copy, x.T, out), out)
    windows = np.array([[2 * i, 2 * i + 2, 2] for i in range(14)])
    for n in (1, 8):
        x, out = _normal(n, 28, 28, 16), np.empty((n, 14, 14, 16), np.float32)
        index = np.empty(out.shape, np.int32)
        run = partial(pool.max_pool2d, x, windows, windows, out, index)
        yield Workload(f"pooling of {n} x 28 x 28 x 16", "rows", run, out)
    rule = BY_NAME["sgd"]
    for size in (1 << 11, 1 << 13, 1 << 15, 1 << 17):
        w, g = _normal(size), np.zeros(size, np.float32)  # without a gradient the step may be repeated
        values = np.zeros(len(rule.values))
        run = partial(updates.update, rule, [w], [g], [], values)
        yield Workload(f"update of {size}", "rows", run, w, in_place=True)


# --------------------------------------------------------------------------------------------- timing


class Stopwatch:
    """Compares settings with the usual ones on workloads, in turn, so that both meet the same disturbances."""

    def __init__(self, chosen: Sequence[Workload] | None = None, turn: float = TURN):
        from kernels.numba_cpu import knobs

        self._knobs = knobs
        self.workloads = list(workloads() if chosen is None else chosen)
        self._expected, self._times = {}, {}
        knobs.use({})
        for work in self.workloads:
            work.run()
            self._expected[work.name] = work.out.copy()
            begin = time.perf_counter()
            work.run()
            once = min(time.perf_counter() - begin, *(_seconds(work, 3) for _ in range(3)))
            self._times[work.name] = max(1, math.ceil(turn / max(once, 1e-7)))

    def __call__(self, groups: Sequence[str], values: Mapping[str, float], rounds: int) -> np.ndarray:
        """log(seconds with `values` / seconds with the defaults), the mean over the groups' workloads: (rounds,).

        The defaults are in use afterwards. WorkloadError if a result is wrong.
        """
        chosen = [work for work in self.workloads if work.group in groups]
        logs = np.empty((rounds, len(chosen)))
        try:
            self._knobs.use(values)
            for work in chosen:
                self._check(work, values)
            for number in range(rounds):
                for column, work in enumerate(chosen):
                    fastest = {True: math.inf, False: math.inf}
                    for turn in range(TURNS):
                        for tuned in (False, True) if (number + turn) % 2 else (True, False):
                            self._knobs.use(values if tuned else {})
                            work.run()  # works out anew what depends on the settings
                            fastest[tuned] = min(fastest[tuned], _seconds(work, self._times[work.name]))
                    logs[number, column] = math.log(fastest[True] / fastest[False])
        finally:
            self._knobs.use({})
        return logs.mean(axis=1)

    def _check(self, work: Workload, values: Mapping[str, float]) -> None:
        if not work.in_place:
            work.out.fill(np.nan)
        work.run()
        expected = self._expected[work.name]
        if not np.allclose(work.out, expected, rtol=0, atol=CLOSE * float(np.abs(expected).max())):
            raise WorkloadError(f"{work.name} is wrong with {dict(values)}")


def _seconds(work: Workload, times: int) -> float:
    """Seconds of one run, the mean of `times`."""
    run = work.run
    begin = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - begin) / times
