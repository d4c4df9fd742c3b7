"""Convolutions with their two gradients on all cores, float32: this backend, PyTorch in both layouts, and JAX."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.harness import Candidate, Row, installed, interleave, mean_row, repeat
from benchmarks.peak import copy_loop, fma_flop, fma_loop
from kernels.numba_cpu.threads import usable_cores

TITLE = "Convolution, float32, all cores"
NOTE = (
    "Each case is height x width x channels -> channels, kernel, batch. The limit is the larger of FLOP / peak and "
    "bytes / copy bandwidth, timed in the same rounds; FLOP counts multiplications with padding too and is that of "
    "direct convolution: Winograd's algorithm, used for wide 3 x 3 kernels, may pass it. PyTorch runs oneDNN, on "
    "contiguous (NCHW) and channels-last (NHWC) tensors. Every result is compared with PyTorch's in float64 before it "
    "is timed."
)
ENVIRONMENT: dict[str, str] = {}


@dataclass(frozen=True)
class Shape:
    """x (n, h, w, c) with kernel (k, k, c / groups, o), padding k // 2."""

    h: int
    c: int
    o: int
    k: int
    n: int = 32
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        extra = f"/{self.stride}" if self.stride > 1 else ""
        extra += " depthwise" if self.groups > 1 else ""
        return f"{self.h}x{self.h}x{self.c}->{self.o} {self.k}x{self.k}{extra}, {self.n}"

    @property
    def padding(self) -> int:
        return self.k // 2

    @property
    def out(self) -> int:
        return (self.h + 2 * self.padding - self.k) // self.stride + 1

    @property
    def flop(self) -> float:
        return 2.0 * self.n * self.out**2 * self.k**2 * self.c // self.groups * self.o

    @property
    def bytes(self) -> int:
        return 4 * (self.n * (self.h**2 * self.c + self.out**2 * self.o) + self.k**2 * self.c // self.groups * self.o)

    @property
    def wide(self) -> bool:
        """Whether Winograd's algorithm is expected to be used."""
        return self.k == 3 and self.stride == self.groups == 1 and min(self.c, self.o) >= 128


SHAPES = (
    Shape(28, 1, 32, 3, n=64),
    Shape(32, 3, 16, 3, n=64),
    Shape(32, 16, 16, 3, n=64),
    Shape(16, 32, 32, 3, n=64),
    Shape(8, 64, 64, 3, n=64),
    Shape(28, 32, 64, 3, n=64),
    Shape(56, 64, 64, 3),
    Shape(28, 128, 128, 3),
    Shape(14, 256, 256, 3),
    Shape(28, 64, 256, 1),
    Shape(28, 256, 64, 1),
    Shape(28, 32, 64, 5),
    Shape(112, 3, 64, 7, n=8, stride=2),
    Shape(28, 64, 128, 3, stride=2),
    Shape(28, 128, 128, 3, groups=128),
)
KINDS = ("forward", "input gradient", "weight gradient")
LEAST, WIDE, MEAN = 0.95, 1.3, 1.2


def run(quick: bool = False) -> list[Row]:
    """Three rows for each shape, and the geometric mean of all."""
    shapes = [Shape(8, 4, 8, 3, n=2)] if quick else SHAPES
    rows = [_row(shape, kind, rounds=3 if quick else 9) for kind in KINDS for shape in shapes]
    return [*rows, mean_row(rows, "PyTorch, best").want({"PyTorch, best": MEAN})]


def _row(shape: Shape, kind: str, rounds: int) -> Row:
    arrays = inputs(shape)
    call, out = ours(shape, kind, arrays)
    call()
    candidates: dict[str, Candidate] = {"nanonet": repeat(call)}
    columns = {}
    if installed("torch"):
        check(kind, out, theirs(shape, kind, arrays, False, wide=True)())
        for name, last in (("PyTorch NCHW", False), ("PyTorch NHWC", True)):
            candidates[name] = repeat(theirs(shape, kind, arrays, last))
            columns[name] = name
    if installed("jax"):
        candidates["JAX"] = repeat(jax_call(shape, kind, arrays))
        columns["JAX"] = "JAX"
    cores = usable_cores()
    limits = {"peak": fma_loop(threads=cores), "copy": copy_loop(max(shape.bytes // 2, 1 << 16))}
    samples = interleave({**candidates, **limits}, rounds)
    compute = shape.flop / (cores * fma_flop()) * float(np.median(samples["peak"]))
    limit = max(compute, float(np.median(samples["copy"])))
    row = Row.of(f"{kind}: {shape}", samples, peers=columns, flop=shape.flop, limit=limit)
    torch = [row.peers[name] for name in columns if name != "JAX"]
    if torch:
        row.peers["PyTorch, best"] = min(torch, key=lambda entry: entry[1])
    return row.want({"PyTorch, best": WIDE if shape.wide else LEAST})


def inputs(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, w and the gradient of the result."""
    rng = np.random.default_rng(0)
    sizes = (
        (shape.n, shape.h, shape.h, shape.c),
        (shape.k, shape.k, shape.c // shape.groups, shape.o),
        (shape.n, shape.out, shape.out, shape.o),
    )
    return tuple(rng.standard_normal(size, np.float32) for size in sizes)


def ours(shape: Shape, kind: str, arrays: tuple[np.ndarray, ...]) -> tuple[Callable[[], None], np.ndarray]:
    """A call of the backend's kernel, and where it writes."""
    from kernels import registry

    backend = registry.get("numba_cpu")
    x, w, g = arrays
    p = (shape.padding, shape.padding)
    rest = ((shape.stride,) * 2, (p, p), (1, 1), shape.groups)
    out = np.full_like({"forward": g, "input gradient": x, "weight gradient": w}[kind], np.nan)
    if kind == "forward":
        return lambda: backend.conv2d(x, w, None, *rest, None, out=out), out
    if kind == "input gradient":
        return lambda: backend.conv2d_transpose(g, w, None, *rest, None, out=out), out
    return lambda: backend.conv2d_weight_gradient(x, g, *rest, out=out), out


def theirs(shape: Shape, kind: str, arrays: tuple[np.ndarray, ...], last: bool, wide: bool = False) -> Callable:
    """The same in PyTorch, on channels-last tensors or contiguous ones; wide: in float64."""
    import torch

    layout = {"memory_format": torch.channels_last if last else torch.contiguous_format}
    dtype = torch.float64 if wide else torch.float32
    x, g = (torch.from_numpy(a).to(dtype).permute(0, 3, 1, 2).contiguous(**layout) for a in arrays[::2])
    w = torch.from_numpy(arrays[1]).to(dtype).permute(3, 2, 0, 1).contiguous(**layout)
    stride, padding = [shape.stride] * 2, [shape.padding] * 2
    if kind == "forward":
        return lambda: torch.nn.functional.conv2d(x, w, None, stride, padding, 1, shape.groups)
    mask = [kind == "input gradient", kind == "weight gradient", False]
    backward = torch.ops.aten.convolution_backward
    rest = (None, stride, padding, [1, 1], False, [0, 0], shape.groups, mask)
    return lambda: backward(g, x, w, *rest)[0 if mask[0] else 1]


def jax_call(shape: Shape, kind: str, arrays: tuple[np.ndarray, ...]) -> Callable[[], object]:
    """The same in JAX, jitted, NHWC."""
    import jax
    import jax.numpy as jnp

    x, w, g = map(jnp.asarray, arrays)
    padding = [(shape.padding,) * 2] * 2

    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (shape.stride,) * 2,
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=shape.groups,
        )

    if kind == "forward":
        call = jax.jit(convolve)
        return lambda: call(x, w).block_until_ready()
    place = 0 if kind == "input gradient" else 1
    gradient = jax.jit(lambda x, w, g: jax.vjp(convolve, x, w)[1](g)[place])
    return lambda: gradient(x, w, g).block_until_ready()


def check(kind: str, out: np.ndarray, expected) -> None:
    """Raises AssertionError if `out` is not PyTorch's result in float64, to float32 accuracy."""
    order = (2, 3, 1, 0) if kind == "weight gradient" else (0, 2, 3, 1)
    expected = expected.permute(order).numpy()
    error = np.abs(out - expected).max() / np.abs(expected).max()
    assert error < 1e-4, f"the {kind} is wrong (relative error {error:.1e}), so it is not timed"
