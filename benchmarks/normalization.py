"""Normalization and pooling, forward and backward, on all cores: this backend and PyTorch in both layouts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.harness import Candidate, Row, installed, interleave, repeat
from benchmarks.peak import copy_loop

TITLE = "Normalization and pooling, float32, all cores"
NOTE = (
    "x is (n, h, w, c), or (n, c) for rows. The limit is what must be moved (each operand read or written once) at the "
    "copy bandwidth for as many bytes, timed in the same rounds; statistics need a second pass, which comes from the "
    "cache where it can. PyTorch is given contiguous (NCHW) and channels-last (NHWC) tensors, and every result is "
    "compared with its in float64 before it is timed."
)
ENVIRONMENT: dict[str, str] = {}
EPS = 1e-5


@dataclass(frozen=True)
class Case:
    """An operation ("batch norm", "layer norm", "group norm", "max pool", "average pool") on x of a shape.

    size: the pool's window and stride, or the number of groups.
    """

    operation: str
    shape: tuple[int, ...]
    size: int = 0

    def __str__(self) -> str:
        extra = {"group norm": f", {self.size} groups"}.get(self.operation, f", {self.size}x{self.size}")
        return f"{self.operation} {'x'.join(map(str, self.shape))}{extra if self.size else ''}"


CASES = (
    Case("batch norm", (64, 28, 28, 32)),
    Case("batch norm", (64, 32, 32, 16)),
    Case("batch norm", (64, 8, 8, 64)),
    Case("batch norm", (32, 56, 56, 64)),
    Case("layer norm", (512, 768)),
    Case("layer norm", (4096, 128)),
    Case("group norm", (32, 32, 32, 64), 8),
    Case("max pool", (64, 28, 28, 32), 2),
    Case("max pool", (32, 56, 56, 64), 2),
    Case("average pool", (64, 28, 28, 32), 2),
    Case("average pool", (64, 8, 8, 64), 8),
)


def run(quick: bool = False) -> list[Row]:
    """Two rows for each case: forward and backward."""
    cases = [Case("batch norm", (4, 6, 6, 8))] if quick else CASES
    return [_row(case, backward, rounds=3 if quick else 11) for case in cases for backward in (False, True)]


def _row(case: Case, backward: bool, rounds: int) -> Row:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.shape, np.float32)
    call, outs = _OURS[case.operation](case, x, backward)
    call()
    candidates: dict[str, Candidate] = {"nanonet": repeat(call)}
    columns = {}
    if installed("torch"):
        import torch

        found = torch_call(case, x, False, backward, torch.float64)()
        expected = (found if x.ndim == 2 else found.permute(0, 2, 3, 1)).numpy()
        error = np.abs(outs[0].reshape(expected.shape) - expected).max()
        assert error < 1e-3 * max(1, np.abs(expected).max()), f"{case} is wrong by {error:.1e}, so it is not timed"
        for name, last in (("PyTorch NCHW", False), ("PyTorch NHWC", True))[: 1 if x.ndim == 2 else 2]:
            candidates[name] = repeat(torch_call(case, x, last, backward, torch.float32))
            columns[name] = name
    moved = x.nbytes * (2 if backward else 1) + sum(out.nbytes for out in outs)
    if "pool" in case.operation and backward:
        moved = sum(out.nbytes for out in outs) + x.nbytes // case.size**2 * (2 if "max" in case.operation else 1)
    samples = interleave({**candidates, "copy": copy_loop(moved // 2)}, rounds)
    limit = float(np.median(samples["copy"]))
    row = Row.of(f"{case}, {'backward' if backward else 'forward'}", samples, peers=columns, limit=limit)
    return row.want(dict.fromkeys(columns, 1.0))


# --------------------------------------------------------------------------------------------------- ours

Call = tuple[Callable[[], None], list[np.ndarray]]
"""The call, and the arrays that it writes; the first of them is compared with PyTorch's result."""


def _gradient(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def _weights(channels: int) -> np.ndarray:
    return np.random.default_rng(2).uniform(0.5, 1.5, (2, channels)).astype(np.float32)


def _backend():
    from kernels import registry

    return registry.get("numba_cpu")


def batch_norm(case: Case, x: np.ndarray, backward: bool) -> Call:
    backend, channels = _backend(), x.shape[-1]
    rows, (weight, bias) = x.reshape(-1, channels), _weights(channels)
    out, (mean, variance, dw, db) = np.empty_like(rows), np.empty((4, channels), np.float32)
    backend.batch_norm(rows, weight, bias, EPS, None, out, mean, variance)
    if not backward:
        return lambda: backend.batch_norm(rows, weight, bias, EPS, None, out, mean, variance), [out]
    g = _gradient(rows.shape)
    arguments = (g.reshape(rows.shape), rows, weight, bias, mean, variance, EPS, None, out, dw, db)
    return lambda: backend.batch_norm_backward(*arguments), [out]


def group_norm(case: Case, x: np.ndarray, backward: bool) -> Call:
    backend, channels = _backend(), x.shape[-1]
    x = x.reshape(len(x), -1, channels)
    groups, (weight, bias) = case.size or 1, _weights(channels)
    out, (dw, db) = np.empty_like(x), np.empty((2, channels), np.float32)
    mean, scale = np.empty((2, len(x), groups), np.float32)
    backend.group_norm(x, groups, weight, bias, EPS, out, mean, scale)
    if not backward:
        return lambda: backend.group_norm(x, groups, weight, bias, EPS, out, mean, scale), [out]
    arguments = (_gradient(x.shape), x, groups, weight, mean, scale, out, dw, db)
    return lambda: backend.group_norm_backward(*arguments), [out]


def _windows(side: int, size: int) -> np.ndarray:
    starts = np.arange(0, side, size)
    return np.stack([starts, starts + size, np.full_like(starts, size)], axis=1)


def max_pool(case: Case, x: np.ndarray, backward: bool) -> Call:
    backend, (n, h, w, c) = _backend(), x.shape
    windows = _windows(h, case.size), _windows(w, case.size)
    shape = (n, h // case.size, w // case.size, c)
    out, index, back = np.empty(shape, np.float32), np.empty(shape, np.int32), np.empty_like(x)
    backend.max_pool2d(x, *windows, out, index)
    if not backward:
        return lambda: backend.max_pool2d(x, *windows, out, index), [out, index]
    g = _gradient(shape)
    return lambda: backend.max_pool2d_backward(g, index, *windows, back), [back]


def average_pool(case: Case, x: np.ndarray, backward: bool) -> Call:
    backend, (n, h, w, c) = _backend(), x.shape
    windows = _windows(h, case.size), _windows(w, case.size)
    shape = (n, h // case.size, w // case.size, c)
    out, back = np.empty(shape, np.float32), np.empty_like(x)
    if not backward:
        return lambda: backend.avg_pool2d(x, *windows, out), [out]
    g = _gradient(shape)
    return lambda: backend.avg_pool2d_backward(g, *windows, back), [back]


_OURS = {
    "batch norm": batch_norm,
    "layer norm": group_norm,
    "group norm": group_norm,
    "max pool": max_pool,
    "average pool": average_pool,
}


# ------------------------------------------------------------------------------------------------ PyTorch


def torch_call(case: Case, x: np.ndarray, last: bool, backward: bool, dtype) -> Callable:
    """The same in PyTorch, on channels-last tensors or contiguous ones."""
    import torch

    def tensor(array: np.ndarray):
        made = torch.from_numpy(array).to(dtype)
        if made.ndim == 2:
            return made
        return made.permute(0, 3, 1, 2).contiguous(memory_format=_layout(last))

    weights = tuple(torch.from_numpy(a).to(dtype) for a in _weights(x.shape[-1]))
    shape = x.shape
    if "pool" in case.operation:
        shape = (len(x), x.shape[1] // case.size, x.shape[2] // case.size, x.shape[3])
    forward, reverse = _TORCH[case.operation](case, tensor(x), tensor(_gradient(shape)), *weights)
    return (lambda: _first(reverse())) if backward else (lambda: _first(forward()))


def _layout(last: bool):
    import torch

    return torch.channels_last if last else torch.contiguous_format


def _first(result):
    return result[0] if isinstance(result, tuple) else result


def _torch_batch_norm(case: Case, x, g, weight, bias) -> tuple[Callable, Callable]:
    from torch import ops

    def forward():
        return ops.aten.native_batch_norm(x, weight, bias, None, None, True, 0.1, EPS)

    _, mean, scale = forward()
    backward = ops.aten.native_batch_norm_backward
    return forward, lambda: backward(g, x, weight, None, None, mean, scale, True, EPS, [True] * 3)


def _torch_layer_norm(case: Case, x, g, weight, bias) -> tuple[Callable, Callable]:
    from torch import ops

    width = [x.shape[-1]]

    def forward():
        return ops.aten.native_layer_norm(x, width, weight, bias, EPS)

    _, mean, scale = forward()
    backward = ops.aten.native_layer_norm_backward
    return forward, lambda: backward(g, x, width, mean, scale, weight, bias, [True] * 3)


def _torch_group_norm(case: Case, x, g, weight, bias) -> tuple[Callable, Callable]:
    from torch import ops

    n, c, h, w = x.shape

    def forward():
        return ops.aten.native_group_norm(x, weight, bias, n, c, h * w, case.size, EPS)

    _, mean, scale = forward()
    backward = ops.aten.native_group_norm_backward
    return forward, lambda: backward(g, x, mean, scale, weight, n, c, h * w, case.size, [True] * 3)


def _torch_max_pool(case: Case, x, g, weight, bias) -> tuple[Callable, Callable]:
    from torch import ops

    window = ([case.size] * 2, [case.size] * 2, [0, 0], [1, 1], False)

    def forward():
        return ops.aten.max_pool2d_with_indices(x, *window)

    _, index = forward()
    return forward, lambda: ops.aten.max_pool2d_with_indices_backward(g, x, *window, index)


def _torch_average_pool(case: Case, x, g, weight, bias) -> tuple[Callable, Callable]:
    from torch import ops

    window = ([case.size] * 2, [case.size] * 2, [0, 0], False, True, None)
    return lambda: ops.aten.avg_pool2d(x, *window), lambda: ops.aten.avg_pool2d_backward(g, x, *window)


_TORCH = {
    "batch norm": _torch_batch_norm,
    "layer norm": _torch_layer_norm,
    "group norm": _torch_group_norm,
    "max pool": _torch_max_pool,
    "average pool": _torch_average_pool,
}
