"""Every slot of the contract in plain array code, for NumPy or CuPy: the oracle, and the start of each backend."""

import importlib
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np

from kernels import elementwise as table
from kernels import plan
from kernels.contract import SLOTS, Backend, Kernel
from kernels.formula import Formula
from kernels.updates import Update, shares


def reference(xp: ModuleType) -> Backend:
    """A complete backend from plain array code. When a step is recorded, each call becomes a host call of the plan."""
    kernels = _Reference(xp)
    return Backend("reference", xp, **{slot: recorded(getattr(kernels, slot)) for slot in SLOTS})


def recorded(kernel: Kernel) -> Kernel:
    """The kernel, without warnings (NaN and infinity are results here), entered into the plan that is recorded."""

    @wraps(kernel)
    def call(*args: Any, **kwargs: Any) -> None:
        def carry_out() -> None:
            with np.errstate(all="ignore"):
                kernel(*args, **kwargs)

        carry_out()
        recorder = plan.current()
        if recorder is not None:
            recorder.host(carry_out, kernel.__name__)

    return call


def functions(xp: ModuleType) -> dict[str, Callable]:
    """The functions of the formula language on arrays of `xp`."""

    def sigmoid(x):
        e = xp.exp(-xp.abs(x))
        return xp.where(x >= 0, 1, e) / (1 + e)

    plain = ("exp", "log", "log1p", "expm1", "sqrt", "tanh", "abs", "sign", "floor", "sin", "cos", "where")
    return {
        **{name: getattr(xp, name) for name in plain},
        "max": xp.maximum,
        "min": xp.minimum,
        "sigmoid": sigmoid,
        "erf": _erf,
        "gelu": lambda x: xp.maximum(x, -1e9) * _beside(x, "scipy.special").ndtr(x),
    }


def _erf(x):
    return _beside(x, "scipy.special").erf(x)


def _beside(x, module: str) -> ModuleType:
    """SciPy's module for an array of NumPy, or CuPy's module of the same name for one of its arrays."""
    return importlib.import_module(module if type(x).__module__.startswith("numpy") else f"cupyx.{module}")


class _Reference:
    def __init__(self, xp: ModuleType):
        self.xp = xp
        self.functions = functions(xp)

    # ------------------------------------------------------------------------ elementwise

    def elementwise(self, formula: Formula, *inputs, out):
        dtype = out.dtype if out.dtype.kind == "f" else None
        inputs = [x.astype(dtype) if dtype is not None and x.dtype.kind == "i" else x for x in inputs]
        out[...] = formula.evaluate(self.functions, *inputs)

    def copy(self, x, out):
        out[...] = x

    def reduce(self, name, x, axes, out):
        if name == "square_sum":
            name, x = "sum", x * x
        out[...] = getattr(self.xp, name)(x, axis=axes)

    def argmax(self, x, out):
        out[...] = self.xp.argmax(x, axis=-1)

    # ---------------------------------------------------------------------- linear algebra

    def matmul(self, a, b, out):
        out[...] = self.xp.matmul(a, b)

    def linear(self, x, w, bias, activation, out):
        out[...] = self._finish(self.xp.matmul(x, w), bias, activation)

    def activation_gradient(self, g, y, activation, out, sums):
        if activation is not None:
            formula = table.BY_NAME[activation].backward["x"]
            scope = {"g": g, "y": y}
            out[...] = g = formula.evaluate(self.functions, *(scope[name] for name in formula.variables))
        sums[...] = g.sum(axis=0)

    # ------------------------------------------------------------------------- convolution

    def conv2d(self, x, w, bias, stride, padding, dilation, groups, activation, out):
        xp, (n, oh, ow, o) = self.xp, out.shape
        z = xp.zeros((n, oh, ow, groups, o // groups), out.dtype)
        split = w.reshape(*w.shape[:3], groups, o // groups)
        padded = xp.pad(x, ((0, 0), *padding, (0, 0)))
        for place, view in _taps(w.shape[:2], (oh, ow), stride, dilation):
            part = padded[view].reshape(n, oh, ow, groups, x.shape[3] // groups)
            z += xp.einsum("nhwgc,cgo->nhwgo", part, split[place])
        z = z.reshape(out.shape)
        out[...] = self._finish(z, bias, activation)

    def conv2d_transpose(self, x, w, bias, stride, padding, dilation, groups, activation, out):
        xp, (n, oh, ow, o) = self.xp, x.shape
        part = x.reshape(n, oh, ow, groups, o // groups)
        split = w.reshape(*w.shape[:3], groups, o // groups)
        (top, bottom), (left, right) = padding
        _, h, width, c = out.shape
        total = xp.zeros((n, h + top + bottom, width + left + right, c), out.dtype)
        for place, view in _taps(w.shape[:2], (oh, ow), stride, dilation):
            total[view] += xp.einsum("nhwgo,cgo->nhwgc", part, split[place]).reshape(n, oh, ow, c)
        out[...] = self._finish(total[:, top : top + h, left : left + width], bias, activation)

    def conv2d_weight_gradient(self, x, g, stride, padding, dilation, groups, out):
        n, oh, ow, o = g.shape
        parts = g.reshape(n, oh, ow, groups, o // groups)
        padded = self.xp.pad(x, ((0, 0), *padding, (0, 0)))
        for place, view in _taps(out.shape[:2], (oh, ow), stride, dilation):
            part = padded[view].reshape(n, oh, ow, groups, x.shape[3] // groups)
            out[place] = self.xp.einsum("nhwgc,nhwgo->cgo", part, parts).reshape(out.shape[2:])

    def _finish(self, z, bias, activation):
        z = z if bias is None else z + bias
        return z if activation is None else table.BY_NAME[activation].forward.evaluate(self.functions, z)

    # ----------------------------------------------------------------------------- pooling

    def max_pool2d(self, x, rows, columns, out, index):
        xp, width = self.xp, x.shape[2]
        for i, (top, bottom, _) in enumerate(rows):
            for j, (left, right, _) in enumerate(columns):
                window = x[:, top:bottom, left:right]
                flat = window.reshape(x.shape[0], window.shape[1] * window.shape[2], x.shape[3])
                first = xp.argmax(flat, axis=1)
                out[:, i, j] = xp.take_along_axis(flat, first[:, None], axis=1)[:, 0]
                across = right - left
                index[:, i, j] = (top + first // across) * width + left + first % across

    def max_pool2d_backward(self, g, index, rows, columns, out):
        n, h, w, c = out.shape
        image, channel = self.xp.arange(n)[:, None, None, None], self.xp.arange(c)
        total = self.xp.zeros((n, h * w, c), out.dtype)
        self.xp.add.at(total, (image, index, channel), g)
        out[...] = total.reshape(out.shape)

    def avg_pool2d(self, x, rows, columns, out):
        for i, (top, bottom, tall) in enumerate(rows):
            for j, (left, right, wide) in enumerate(columns):
                out[:, i, j] = x[:, top:bottom, left:right].sum(axis=(1, 2)) / float(tall * wide)

    def avg_pool2d_backward(self, g, rows, columns, out):
        out[...] = 0
        for i, (top, bottom, tall) in enumerate(rows):
            for j, (left, right, wide) in enumerate(columns):
                out[:, top:bottom, left:right] += (g[:, i, j] / float(tall * wide))[:, None, None]

    # ----------------------------------------------------------------------- normalization

    def batch_norm(self, x, weight, bias, eps, activation, out, mean, variance):
        mean[...] = x.mean(axis=0)
        variance[...] = x.var(axis=0)
        z = (x - mean) / self.xp.sqrt(variance + eps)
        out[...] = self._finish(z if weight is None else z * weight, bias, activation)

    def batch_norm_backward(
        self, g, x, weight, bias, mean, variance, eps, activation, out, weight_gradient, bias_gradient
    ):
        scale = 1 / self.xp.sqrt(variance + eps)
        z = (x - mean) * scale
        if activation is not None:
            y = z if weight is None else z * weight
            g = self.xp.where((y if bias is None else y + bias) > 0, g, 0)
        db, dw = g.sum(axis=0), (g * z).sum(axis=0)
        out[...] = (scale if weight is None else scale * weight) * (g - (db + z * dw) / len(x))
        weight_gradient[...], bias_gradient[...] = dw, db

    def group_norm(self, x, groups, weight, bias, eps, out, mean, scale):
        parts = x.reshape(*x.shape[:2], groups, x.shape[2] // groups)
        if mean is not None:
            mean[...] = parts.mean(axis=(1, 3))
            parts = parts - mean[:, None, :, None]
        scale[...] = 1 / self.xp.sqrt((parts * parts).mean(axis=(1, 3)) + eps)
        z = (parts * scale[:, None, :, None]).reshape(x.shape)
        out[...] = self._finish(z if weight is None else z * weight, bias, None)

    def group_norm_backward(self, g, x, groups, weight, mean, scale, out, weight_gradient, bias_gradient):
        shape = (*x.shape[:2], groups, x.shape[2] // groups)
        z = x.reshape(shape) if mean is None else x.reshape(shape) - mean[:, None, :, None]
        z = z * scale[:, None, :, None]
        if weight_gradient is not None:
            weight_gradient[...] = (g * z.reshape(x.shape)).sum(axis=(0, 1))
        if bias_gradient is not None:
            bias_gradient[...] = g.sum(axis=(0, 1))
        h = (g if weight is None else g * weight).reshape(shape)
        d = h - z * (h * z).mean(axis=(1, 3), keepdims=True)
        if mean is not None:
            d = d - h.mean(axis=(1, 3), keepdims=True)
        out[...] = (d * scale[:, None, :, None]).reshape(x.shape)

    # ----------------------------------------------------------------- softmax and its loss

    def softmax(self, x, out):
        e = self.xp.exp(x - x.max(axis=-1, keepdims=True))
        out[...] = e / e.sum(axis=-1, keepdims=True)

    def log_softmax(self, x, out):
        z = x - x.max(axis=-1, keepdims=True)
        out[...] = z - self.xp.log(self.xp.exp(z).sum(axis=-1, keepdims=True))

    def softmax_backward(self, g, y, out):
        out[...] = y * (g - (g * y).sum(axis=-1, keepdims=True))

    def log_softmax_backward(self, g, y, out):
        out[...] = g - self.xp.exp(y) * g.sum(axis=-1, keepdims=True)

    def _targets(self, target, weight, smoothing, classes, dtype):
        """weight * q, and where the target is a class."""
        index = self.xp.arange(classes)
        q = (target[:, None] == index).astype(dtype) * (1 - smoothing) + smoothing / classes
        return (q if weight is None else q * weight), (target >= 0) & (target < classes)

    def cross_entropy(self, x, target, weight, smoothing, loss, probabilities):
        logp = self.xp.empty(x.shape, x.dtype)
        self.log_softmax(x, logp)
        probabilities[...] = self.xp.exp(logp)
        wq, valid = self._targets(target, weight, smoothing, x.shape[1], x.dtype)
        terms = self.xp.where(wq == 0, 0, -wq * logp)
        loss[...] = self.xp.where(valid, terms.sum(axis=-1), self.xp.nan)

    def cross_entropy_backward(self, g, probabilities, target, weight, smoothing, out):
        wq, _ = self._targets(target, weight, smoothing, probabilities.shape[1], probabilities.dtype)
        out[...] = g[:, None] * (wq.sum(axis=-1, keepdims=True) * probabilities - wq)

    # -------------------------------------------------------------------------------- rows

    def take(self, x, index, out):
        out[...] = x[index]

    def take_batch(self, x, order, cursor, out):
        i = self.xp.minimum(int(cursor) + self.xp.arange(out.shape[0]), len(order) - 1)
        out[...] = x[order[i]]

    def scatter_add(self, index, source, out):
        self.xp.add.at(out, index, source)

    # --------------------------------------------------------------------------- optimizers

    def update(self, rule: Update, parameters, gradients, states, values):
        if values.ndim == 2:
            for share in shares(parameters, gradients, states, values):
                self.update(rule, *share)
            return
        scope = dict(zip(rule.values, (float(v) for v in values), strict=True))
        functions = {**self.functions, **{name: _scalar(f) for name, f in self.functions.items()}}
        for name, text in rule.scalars:
            scope[name] = float(Formula.of(text, *scope).evaluate(functions, *scope.values()))
        for i, w in enumerate(parameters):
            local = {**scope, "w": w, "g": gradients[i], **{s: states[k][i] for k, s in enumerate(rule.states)}}
            outs = {"w": w, **{s: states[k][i] for k, s in enumerate(rule.states)}}
            for name, text in rule.statements:
                local[name] = Formula.of(text, *local).evaluate(self.functions, *local.values())
            for name, out in outs.items():
                out[...] = local[name]

    def advance(self, counter, amount):
        counter += amount

    # ---------------------------------------------------------------------------- randomness

    def random_uniform(self, state, out):
        xp, n = self.xp, out.size
        if out.dtype == xp.float32:
            words = self._philox(state, -(-n // 4)).reshape(-1)[:n]
            out[...] = ((words >> 8).astype(xp.float32) * xp.float32(2**-24)).reshape(out.shape)
        else:
            a, b = self._philox(state, -(-n // 2)).reshape(-1, 2)[:n].T
            high = (a >> 5).astype(xp.float64) * 2**26
            out[...] = ((high + (b >> 6).astype(xp.float64)) * 2.0**-53).reshape(out.shape)

    def random_normal(self, state, out):
        xp, n = self.xp, out.size
        uniform = xp.empty(n + n % 2, out.dtype)
        self.random_uniform(state, uniform)
        radius = xp.sqrt(-2 * xp.log(1 - uniform[0::2]))
        angle = 2 * xp.pi * uniform[1::2]
        pairs = xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=-1)
        out[...] = pairs.reshape(-1)[:n].reshape(out.shape)

    def dropout_mask(self, state, rate, out):
        uniform = self.xp.empty(out.shape, self.xp.float32)
        self.random_uniform(state, uniform)
        out[...] = (uniform >= self.xp.float32(rate)) * out.dtype.type(1 / (1 - rate))

    def _philox(self, state, blocks):
        """Philox 4x32-10: uint32 words, shape (blocks, 4)."""
        xp = self.xp
        low = xp.uint64(0xFFFFFFFF)
        seed, stream, step = (int(s) & (2**64 - 1) for s in state)
        c = [xp.arange(blocks, dtype=xp.uint64)]
        c += [xp.full(blocks, word & 0xFFFFFFFF, xp.uint64) for word in (step, step >> 32, stream)]
        key = [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            left, right = c[0] * xp.uint64(0xD2511F53), c[2] * xp.uint64(0xCD9E8D57)
            c = [
                (right >> xp.uint64(32)) ^ c[1] ^ xp.uint64(key[0]),
                right & low,
                (left >> xp.uint64(32)) ^ c[3] ^ xp.uint64(key[1]),
                left & low,
            ]
            key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
        return xp.stack(c, axis=-1).astype(xp.uint32)


def _scalar(function):
    """A function of arrays, on numbers in float64."""
    return lambda *numbers: float(function(*(float(number) for number in numbers)))


def _taps(kernel, size, stride, dilation):
    """Each place of a convolution's kernel, and the (n, oh, ow, c) view of the padded input that it meets."""
    for place in np.ndindex(*kernel):
        starts = [p * d for p, d in zip(place, dilation)]
        stops = [start + (count - 1) * step + 1 for start, count, step in zip(starts, size, stride)]
        yield place, (slice(None), *(slice(*axis) for axis in zip(starts, stops, stride)))
