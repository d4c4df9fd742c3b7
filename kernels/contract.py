"""What a backend is: one documented slot per kernel.

Every kernel writes into `out` arrays that the caller gives, overwrites them (unless the slot says "accumulate"),
allocates nothing that outlives the call and keeps no reference; that is what makes it recordable (`kernels.plan`).
Inputs may be any strided view. An `out` is C-contiguous and overlaps no input, unless the slot says otherwise.
Floats are float32 or float64, all of one dtype in a call; indices are int64. Empty arrays are fine.
The bits of a result depend on nothing but the inputs: not on the number of threads, not on alignment.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import ModuleType

from kernels.memory import HOST, Memory

Kernel = Callable[..., None]


@dataclass(frozen=True)
class Backend:
    """The kernels of one kind of array."""

    name: str

    xp: ModuleType
    """numpy or cupy: makes the arrays that the kernels take."""

    elementwise: Kernel
    """elementwise(formula, *inputs, out): the value of `formula` (kernels.formula.Formula) for each element.

    inputs stand for formula.variables, broadcast to out.shape; float, int64 or bool. out is float, or bool where the
    formula is a comparison; any strided view. out may be the same array as an input (not merely overlap it).
    """

    copy: Kernel
    """copy(x, out): out[...] = x, broadcasting and converting the dtype (bool, int32, int64, float32, float64).

    x and out are any strided views: transposes, slices, reversed axes.
    """

    reduce: Kernel
    """reduce(name, x, axes, out): sum, max, min or square_sum over `axes` (sorted tuple of non-negative ints).

    out.shape is x.shape without the axes. Sums of float32 are pairwise or wider, error O(log n) ulp. An empty sum is 0;
    an empty max or min is the caller's error. NaN wins in max and min.
    """

    argmax: Kernel
    """argmax(x, out): index of the first maximum along the last axis, out int64 of shape x.shape[:-1]. NaN wins."""

    matmul: Kernel
    """matmul(a, b, out): a (..., m, k) @ b (..., k, n) -> out (..., m, n); leading axes broadcast; zeros for k = 0."""

    linear: Kernel
    """linear(x, w, bias, activation, out): x (n, k) @ w (k, m) + bias (m,) or None -> out (n, m), then
    `activation`, one of elementwise.FUSABLE or None."""

    activation_gradient: Kernel
    """activation_gradient(g, y, activation, out, sums): the gradient for z and for a bias in it, of y = activation(z).

    g, y (n, m) -> out (n, m), g times the derivative at y, and sums (m,), the sum of out over n. activation is one of
    elementwise.FUSABLE or None: then y and out are None, and sums is that of g.
    """

    conv2d: Kernel
    """conv2d(x, w, bias, stride, padding, dilation, groups, activation, out): cross-correlation, NHWC.

    x (n, h, w, c), w (kh, kw, c / groups, o), bias (o,) or None -> out (n, oh, ow, o), then `activation`, one of
    elementwise.FUSABLE or None. stride (2,), padding ((top, bottom), (left, right)), dilation (2,) are ints, with

        oh = (h + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1

    Group i takes the i-th part of c to the i-th part of o. Padding may be larger than the kernel, but not negative.
    """

    conv2d_transpose: Kernel
    """conv2d_transpose(x, w, bias, stride, padding, dilation, groups, activation, out): the transpose of conv2d for its
    input, and so the gradient for that; then bias and activation.

    x (n, oh, ow, o), w (kh, kw, c / groups, o), bias (c,) or None -> out (n, h, w, c), where h, w are such that conv2d
    with the same arguments takes a (n, h, w, c) to (n, oh, ow, o).
    """

    conv2d_weight_gradient: Kernel
    """conv2d_weight_gradient(x, g, stride, padding, dilation, groups, out): the gradient of sum(g * conv2d(x, w))
    for w.

    x (n, h, w, c), g (n, oh, ow, o) -> out (kh, kw, c / groups, o).
    """

    max_pool2d: Kernel
    """max_pool2d(x, rows, columns, out, index): the greatest element of each window, and where it is.

    x (n, h, w, c) -> out (n, oh, ow, c) and index (n, oh, ow, c) int32, the place i * w + j of the first maximum within
    its image. rows (oh, 3) and columns (ow, 3), int64 on the host: start, stop and divisor (not used here) of the
    windows along an axis; none is empty. NaN wins.
    """

    max_pool2d_backward: Kernel
    """max_pool2d_backward(g, index, rows, columns, out): g (n, oh, ow, c) added where max_pool2d found its maximum.

    out (n, h, w, c); places that no window has taken are 0.
    """

    avg_pool2d: Kernel
    """avg_pool2d(x, rows, columns, out): the sum over each window / (its divisor along h * its divisor along w).

    x (n, h, w, c) -> out (n, oh, ow, c). rows, columns as in max_pool2d; a window may be empty: its mean is 0.
    """

    avg_pool2d_backward: Kernel
    """avg_pool2d_backward(g, rows, columns, out): g (n, oh, ow, c) -> out (n, h, w, c), the transpose of avg_pool2d."""

    batch_norm: Kernel
    """batch_norm(x, weight, bias, eps, activation, out, mean, variance): each column with mean 0 and variance 1.

    x (n, c), weight, bias (c,) or None. Writes mean and variance (c,) of x over n (the biased variance), and

        out = activation(weight * (x - mean) / sqrt(variance + eps) + bias)

    activation is "relu" or None. The variance is that of the differences from the mean (two passes or Welford).
    """

    batch_norm_backward: Kernel
    """batch_norm_backward(g, x, weight, bias, mean, variance, eps, activation, out, weight_gradient, bias_gradient)

    The gradients of sum(g * batch_norm(x)), through mean and variance too. With z the normalized x and g' = g where
    weight * z + bias > 0 (activation "relu") or g' = g (None):

        bias_gradient = sum(g')    weight_gradient = sum(g' z)                                      (c,)
        out = weight / sqrt(variance + eps) * (g' - (bias_gradient + z * weight_gradient) / n)      (n, c)
    """

    group_norm: Kernel
    """group_norm(x, groups, weight, bias, eps, out, mean, scale): each group of each image with mean 0 and variance 1.

    x (n, s, c), c in `groups` equal parts; weight, bias (c,) or None; out (n, s, c). Writes mean and
    scale = 1 / sqrt(variance + eps), (n, groups), taken over s and the part of c, and out = weight * (x - mean) * scale
    + bias. mean None: no mean is subtracted, and the variance is the mean square (RMS normalization). Layer
    normalization of rows is s = 1, groups = 1.
    """

    group_norm_backward: Kernel
    """group_norm_backward(g, x, groups, weight, mean, scale, out, weight_gradient, bias_gradient)

    The gradients of sum(g * group_norm(x)). With z = (x - mean) * scale, g' = weight * g, and means over a group:

        bias_gradient = sum(g)    weight_gradient = sum(g z)     over n, s; (c,); either may be None
        out = scale * (g' - mean(g') - z * mean(g' z))           (n, s, c); without mean(g') where mean is None
    """

    softmax: Kernel
    """softmax(x, out): exp(x - max) / sum over the last axis (not empty)."""

    log_softmax: Kernel
    """log_softmax(x, out): x - max - log(sum(exp(x - max))) over the last axis (not empty)."""

    softmax_backward: Kernel
    """softmax_backward(g, y, out): y * (g - sum(g * y)) over the last axis; y = softmax(x)."""

    log_softmax_backward: Kernel
    """log_softmax_backward(g, y, out): g - exp(y) * sum(g) over the last axis; y = log_softmax(x)."""

    cross_entropy: Kernel
    """cross_entropy(x, target, weight, smoothing, loss, probabilities)

    x (n, c) scores, target (n,) int64, weight (c,) or None, smoothing a number in [0, 1). Writes, with
    p = softmax(x) and q = (1 - smoothing) * onehot(target) + smoothing / c:

        loss[i] = -sum_j weight[j] q[i, j] log p[i, j]        loss (n,)
        probabilities = p                                     (n, c)

    A target outside 0..c-1 gives a loss of NaN. Both outs are C-contiguous.
    """

    cross_entropy_backward: Kernel
    """cross_entropy_backward(g, probabilities, target, weight, smoothing, out): the gradient for x, (n, c), of
    sum(g * loss), where g (n,) may be a broadcast view; with s_i = sum_j weight[j] q[i, j]:

        out[i, j] = g[i] (s_i p[i, j] - weight[j] q[i, j])
    """

    take: Kernel
    """take(x, index, out): out[i] = x[index[i]] along the first axis; x (r, ...), index (n,) int64, out (n, ...).

    x is C-contiguous, of dtype bool, uint8, int64, float32 or float64, as out is. The caller checks the indices.
    """

    take_batch: Kernel
    """take_batch(x, order, cursor, out): out[i] = x[order[cursor + i]], as `take`; order (m,) int64; cursor a 0-d int64
    buffer that is read at every call; i beyond the end of order stops at its last entry."""

    scatter_add: Kernel
    """scatter_add(index, source, out): out[index[i]] += source[i], in the order of i; accumulates into out (r, ...)."""

    update: Kernel
    """update(rule, parameters, gradients, states, values): one optimizer step, in place, for a list of parameters.

    rule is a row of kernels.updates; parameters and gradients are equally long lists of C-contiguous arrays of one
    dtype; states[s][i] is state s of parameter i; values is a float64 vector in the order of rule.values, read at every
    call. Gradients are not changed. values may also be (m, n), C-contiguous: then the parameters are m equal shares,
    one after the other, and each takes its own row.
    """

    advance: Kernel
    """advance(counter, amount): counter += amount, for a 0-d int64 or float64 buffer and a constant amount."""

    random_uniform: Kernel
    """random_uniform(state, out): uniform in [0, 1), Philox 4x32-10 (Salmon et al. 2011).

    state is an int64 vector (seed, stream, step), read at every call and not changed (see `advance`). Element i uses
    the counter (i // 4, step & 0xffffffff, step >> 32, stream & 0xffffffff), the key (seed & 0xffffffff, seed >> 32)
    and word w = i % 4; float32: (w >> 8) * 2**-24. float64 takes two words: counter i // 2, words a, b = 2 (i % 2) and
    the next: ((a >> 5) * 2**26 + (b >> 6)) * 2**-53.
    """

    random_normal: Kernel
    """random_normal(state, out): normal, mean 0 and deviation 1, by Box and Muller (1958) from pairs of uniforms.

    Elements 2j and 2j + 1 are r cos(a), r sin(a) with r = sqrt(-2 log(1 - u)), a = 2 pi v, where u, v are elements
    2j, 2j + 1 of random_uniform.
    """

    dropout_mask: Kernel
    """dropout_mask(state, rate, out): 1 / (1 - rate) where random_uniform's value (float32 rule) >= rate, else 0.

    state as in random_uniform; rate in [0, 1).
    """

    memory: Memory = HOST
    """Where its arrays live."""


#: Names of the slots, in the order of the contract.
SLOTS = tuple(f.name for f in fields(Backend) if f.name not in ("name", "xp", "memory"))
