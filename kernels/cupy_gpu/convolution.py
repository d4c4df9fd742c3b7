"""Convolution, its transpose and its weight gradient, as products whose operands are gathered from images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

from kernels.cupy_gpu import cudnn
from kernels.cupy_gpu.choice import OWN, Unfit
from kernels.cupy_gpu.direct import Direct
from kernels.cupy_gpu.divisor import divisor
from kernels.cupy_gpu.gemm import WORTH, Gemm
from kernels.cupy_gpu.image import Image
from kernels.cupy_gpu.operand import Operand, Product, Target, strides_of

__all__ = ["Convolution"]

Pair = Sequence[int]

#: Groups of fewer channels, in or out, than this take the kernels without tiles.
FEW = 16


@dataclass(frozen=True)
class Axis:
    """Along one axis, places start, start + every, ... of the result, `size` of them: place i of these and tap t, which
    is tap first_tap + t * tap_step of the kernel, meet at i * step + first + t * apart of the image."""

    start: int
    every: int
    size: int
    first_tap: int
    tap_step: int
    taps: int
    step: int
    first: int
    apart: int

    @property
    def places(self) -> slice:
        return slice(self.start, None, self.every)

    @property
    def of_kernel(self) -> slice:
        return slice(self.first_tap, None, self.tap_step) if self.taps else slice(0)


def forward_axis(size: int, kernel: int, stride: int, before: int, dilation: int) -> Axis:
    """The places of a convolution's result."""
    return Axis(0, 1, size, 0, 1, kernel, stride, -before, dilation)


def transposed_axes(size: int, kernel: int, stride: int, before: int, dilation: int) -> Iterator[Axis]:
    """The places of a transposed convolution's result: those with one remainder by the stride see the same taps."""
    tap_step = stride // gcd(stride, dilation)
    for start in range(min(stride, size)):
        count = -(-(size - start) // stride)
        seen = [tap for tap in range(kernel) if (start + before - tap * dilation) % stride == 0]
        first = (start + before - seen[0] * dilation) // stride if seen else 0
        apart = -(tap_step * dilation // stride)
        yield Axis(start, stride, count, seen[0] if seen else 0, tap_step, len(seen), 1, first, apart)


class Convolution:
    """The slots `conv2d`, `conv2d_transpose` and `conv2d_weight_gradient`, in the precision of `gemm`.

    Groups of few channels are summed by plain multiplication, whatever the precision. library: what else may be chosen
    for large ones, with `copy`, the slot.
    """

    def __init__(
        self,
        gemm: Gemm,
        library: Callable[[], cudnn.Cudnn | None] | None = None,
        copy: Callable[[Any, Any], None] | None = None,
    ):
        self.gemm, self.library, self.copy = gemm, library, copy
        self.direct = Direct(gemm.device)

    def conv2d(
        self,
        x: Any,
        w: Any,
        bias: Any,
        stride: Pair,
        padding: Sequence[Pair],
        dilation: Pair,
        groups: int,
        activation: str | None,
        out: Any,
    ) -> None:
        if out.size == 0:
            return
        if _pointwise(w, stride, padding, groups):
            self.gemm.linear(x, w[0, 0], bias, activation, out)
            return
        rows, columns = (
            forward_axis(out.shape[1 + i], w.shape[i], stride[i], padding[i][0], dilation[i]) for i in (0, 1)
        )
        self._choose(
            lambda: self._correlate(x, w, bias, groups, activation, out, rows, columns, False),
            *(cudnn.FORWARD, x, w, out, bias, activation, (stride, padding, dilation)),
        )

    def conv2d_transpose(
        self,
        x: Any,
        w: Any,
        bias: Any,
        stride: Pair,
        padding: Sequence[Pair],
        dilation: Pair,
        groups: int,
        activation: str | None,
        out: Any,
    ) -> None:
        if out.size == 0:
            return
        if _pointwise(w, stride, padding, groups):
            self.gemm.linear(x, w[0, 0].T, bias, activation, out)
            return
        rows, columns = (
            list(transposed_axes(out.shape[1 + i], w.shape[i], stride[i], padding[i][0], dilation[i])) for i in (0, 1)
        )

        def own() -> None:
            for row in rows:
                for column in columns:
                    kernel, places = w[row.of_kernel, column.of_kernel], out[:, row.places, column.places]
                    self._correlate(x, kernel, bias, groups, activation, places, row, column, True)

        constants = stride, padding, dilation
        self._choose(own, cudnn.INPUT_GRADIENT, out, w, x, bias, activation, constants)

    def conv2d_weight_gradient(
        self, x: Any, g: Any, stride: Pair, padding: Sequence[Pair], dilation: Pair, groups: int, out: Any
    ) -> None:
        if out.size == 0:
            return
        if _pointwise(out, stride, padding, groups) and x.flags.c_contiguous and g.flags.c_contiguous:
            c, o = out.shape[2:]
            self.gemm.matmul(x.reshape(-1, c).T, g.reshape(-1, o), out.reshape(c, o))
            return
        self._choose(
            lambda: self._weight_gradient(x, g, stride, padding, dilation, groups, out),
            *(cudnn.WEIGHT_GRADIENT, x, out, g, None, None, (stride, padding, dilation)),
        )

    def _choose(
        self,
        own: Callable[[], None],
        kind: cudnn.Kind,
        image: Any,
        w: Any,
        result: Any,
        bias: Any,
        activation: str | None,
        constants: tuple[Pair, Sequence[Pair], Pair],
    ) -> None:
        """One of image, w and result from the other two, as the kind says, then bias and activation."""
        gemm, precision = self.gemm, self.gemm.precision_of(result)
        worth = result.size * prod(w.shape[:3]) >= WORTH
        if self.library is None or gemm.choice is None or not worth:
            own()
            return
        out = (image, w, result)[kind.given]

        def library() -> None:
            there = self.library()
            if there is None or not (out is w or out.flags.c_contiguous):
                raise Unfit
            filters = gemm.device.empty((w.shape[3], *w.shape[:3]), w.dtype)
            if out is not w:
                self.copy(w.transpose(3, 0, 1, 2), filters)
            there.convolve(kind, precision, image, filters, result, *constants)
            if out is w:
                self.copy(filters.transpose(1, 2, 3, 0), w)
            if bias is not None or activation is not None:
                gemm.finish(out, bias, activation)

        shapes = " ".join(",".join(map(str, array.shape)) for array in (image, w, result))
        more = f"{'bias ' if bias is not None else ''}{activation or ''}"
        key = f"{kind.operation} {precision} {shapes} {constants} {more}".rstrip()
        gemm.choice.carry_out(key, precision, {OWN: own, "cudnn": library}, out)

    def _weight_gradient(
        self, x: Any, g: Any, stride: Pair, padding: Sequence[Pair], dilation: Pair, groups: int, out: Any
    ) -> None:
        n, *size, o = g.shape
        rows, columns = (forward_axis(size[i], out.shape[i], stride[i], padding[i][0], dilation[i]) for i in (0, 1))
        of_g, of_x = strides_of(g), strides_of(x)
        inputs, outputs = out.shape[2], o // groups
        image = gathered(x, rows, columns, inputs, of_g[:3])
        if few(groups, inputs, outputs):
            self.direct.weight_gradient(x, g, image, out)
            return
        taps, places = out.shape[0] * out.shape[1] * inputs, n * size[0] * size[1]
        aligned = self.gemm.aligned
        a_vector = of_x[3] == 1 and aligned(x, inputs, *of_x[:3])
        b_vector = of_g[3] == 1 and aligned(g, outputs, *of_g[:3])
        self.gemm.run(
            "WEIGHT_GRADIENT",
            Product(taps, outputs, places, 1, groups),
            Operand(x, 0, 0, 0, inputs * of_x[3], False, a_vector),
            Operand(g, of_g[3], 0, 0, outputs * of_g[3], False, b_vector),
            None,
            None,
            Target(out, o, 0, outputs),
            image,
        )

    def _correlate(
        self,
        x: Any,
        w: Any,
        bias: Any,
        groups: int,
        activation: str | None,
        out: Any,
        rows: Axis,
        columns: Axis,
        transposed: bool,
    ) -> None:
        """out = activation(x correlated with the taps w + bias); transposed: x is of the last axis of w, out of the one
        before. out may be a view of places that are apart."""
        if out.size == 0:
            return
        of_x, of_w, of_out = strides_of(x), strides_of(w), strides_of(out)
        n, *size, results = out.shape
        inputs, outputs = x.shape[3] // groups, results // groups
        by_input, by_output = (of_w[3], of_w[2]) if transposed else (of_w[2], of_w[3])
        by_group = w.shape[3] // groups * of_w[3]
        image = gathered(x, rows, columns, inputs, (*of_w[:2], by_input))
        steps = of_out[:3]
        if few(groups, inputs, outputs):
            self.direct.correlate(x, w, bias, activation, out, image, by_output, by_group, groups)
            return
        taps = w.shape[0] * w.shape[1] * inputs
        aligned = self.gemm.aligned
        along_k = by_output != 1
        near, extent, far = (by_input, inputs, by_output) if along_k else (by_output, outputs, by_input)
        self.gemm.run(
            "CORRELATION",
            Product(n * size[0] * size[1], outputs, taps, 1, groups),
            Operand(x, 0, 0, 0, inputs * of_x[3], True, of_x[3] == 1 and aligned(x, inputs, *of_x[:3])),
            Operand(w, by_output, 0, 0, by_group, along_k, near == 1 and aligned(w, extent, far, by_group, *of_w[:2])),
            bias,
            activation,
            Target(out, 0, 0, outputs, steps),
            image,
            bias_of_inner=True,
        )


def gathered(x: Any, rows: Axis, columns: Axis, inputs: int, steps: tuple[int, ...]) -> Image:
    """What is gathered from x, and the steps of the other operand."""
    axes = (rows, columns)
    window = (*x.shape[1:3], *(a.step for a in axes), *(a.first for a in axes), *(a.apart for a in axes))
    places = (rows.size * columns.size, columns.size)
    divisors = [divisor(max(1, n)) for n in (*places, inputs, columns.taps)]
    return Image(strides_of(x), window, tuple(steps), tuple(n for one in divisors for n in one))


def few(groups: int, inputs: int, outputs: int) -> bool:
    return groups > 1 and min(inputs, outputs) < FEW


def _pointwise(w: Any, stride: Pair, padding: Sequence[Pair], groups: int) -> bool:
    """Whether a convolution multiplies each place by a matrix."""
    none = all(before == after == 0 for before, after in padding)
    return w.shape[:2] == (1, 1) and groups == 1 and tuple(stride) == (1, 1) and none
