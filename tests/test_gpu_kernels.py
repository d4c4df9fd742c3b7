"""Kernels of the GPU backend, run by the emulator: what several blocks do, short and long rows, memory that is not
aligned, and that results do not depend on the device."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import emulated_backend
from hypothesis import given, settings
from hypothesis import strategies as st
from views import replayed, shapes, unset, views

from kernels.reference import reference
from kernels.updates import BY_NAME

ORACLE = reference(np)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def gpu():
    return emulated_backend("Emulator")


@pytest.fixture(scope="module")
def others():
    """The backend on devices of other sizes."""
    import emulator

    from kernels.cupy_gpu.backend import backend

    found = []
    for multiprocessors in (1, 7):
        device = emulator.Emulator()
        device.multiprocessors = multiprocessors
        found.append(backend(device))
    return found


def drawn(*shape, mean=0.0, dtype=np.float32):
    return RNG.normal(mean, 1, shape).astype(dtype)


def shifted(x):
    """A copy of x whose address no vector of numbers is aligned to."""
    memory = np.empty(x.size + 1, x.dtype)
    memory[1:] = x.reshape(-1)
    return memory[1:].reshape(x.shape)


def wide(*arguments):
    return [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments]


def compare(gpu, slot, arguments, *outs, scale=1.0):
    """What the slot writes into arrays of these shapes, and the reference in float64, are close."""
    found = [unset(shape, np.float32) for shape in outs]
    expected = [unset(shape, np.float64) for shape in outs]
    getattr(gpu, slot)(*arguments, *found)
    getattr(ORACLE, slot)(*wide(*arguments), *expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5 * scale)
    return found


# ---------------------------------------------------------------------------------- reductions


@settings(max_examples=40)
@given(data=st.data())
def test_reductions_of_any_view_over_any_axes(gpu, data):
    shape = data.draw(shapes(least_axes=1, most=7, most_axes=5, least=1))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)))))
    x = data.draw(views(shape, np.float32))
    for name in ("sum", "max"):
        compare(gpu, "reduce", (name, x, axes), tuple(n for i, n in enumerate(shape) if i not in axes), scale=10)


@pytest.mark.parametrize(
    "shape, axes", [((40_001,), (0,)), ((2, 20_000), (1,)), ((9_000, 40), (0,)), ((3, 70), (0, 1))]
)
@pytest.mark.parametrize("name", ["sum", "square_sum", "min"])
def test_long_axes_take_several_blocks(gpu, name, shape, axes):
    x = RNG.uniform(-0.1, 1, shape).astype(np.float32)
    out, want = np.empty(np.delete(shape, axes), np.float32), np.empty(np.delete(shape, axes))
    gpu.reduce(name, x, axes, out)
    ORACLE.reduce(name, x.astype(np.float64), axes, want)
    np.testing.assert_allclose(out, want, rtol=3e-7)


def test_empty_sums_are_zero(gpu):
    for shape, axes in [((0,), (0,)), ((3, 0), (1,)), ((0, 4), (0,)), ((2, 0, 3), (1, 2)), ((0, 3), (1,))]:
        out = unset(tuple(side for i, side in enumerate(shape) if i not in axes), np.float32)
        gpu.reduce("sum", np.empty(shape, np.float32), axes, out)
        np.testing.assert_array_equal(out, np.zeros(out.shape))


def test_argmax_takes_the_first_of_long_rows(gpu):
    x = np.floor(RNG.uniform(0, 20, (3, 2, 3000))).astype(np.float32)
    x[0, 1, 2000:] = np.nan
    x[1, 0] = -np.inf
    out = unset((3, 2), np.int64)
    gpu.argmax(x, out)
    np.testing.assert_array_equal(out, np.argmax(x, axis=-1))
    gpu.argmax(x.transpose(1, 0, 2)[..., ::-1], out.reshape(2, 3))
    np.testing.assert_array_equal(out.reshape(2, 3), np.argmax(x.transpose(1, 0, 2)[..., ::-1], axis=-1))


# ------------------------------------------------------------------------------------- softmax


@pytest.mark.parametrize("columns", [9, 600, 4500])
def test_softmax_of_rows_for_every_kind_of_group(gpu, columns):
    x, g = 3 * drawn(3, columns), drawn(3, columns)
    x[1, 5] = -np.inf
    target, weight = np.array([7, columns - 1, 0]), RNG.uniform(0, 2, columns).astype(np.float32)
    (y,) = compare(gpu, "softmax", (x,), x.shape)
    compare(gpu, "softmax_backward", (g, y), x.shape)
    (y,) = compare(gpu, "log_softmax", (x,), x.shape, scale=10)
    y[1, 5] = -100
    compare(gpu, "log_softmax_backward", (g, y), x.shape, scale=10)
    x[1, 5] = 0
    _, p = compare(gpu, "cross_entropy", (x, target, weight, 0.1), (3,), x.shape, scale=10)
    compare(gpu, "cross_entropy_backward", (g[:, 0], p, target, weight, 0.1), x.shape)


@pytest.mark.parametrize("columns", [9, 5000])
def test_infinite_and_missing_scores(gpu, columns):
    x = drawn(5, columns)
    x[0, -1], x[1, 0], x[2, -1], x[3], x[4] = np.nan, np.inf, -np.inf, -np.inf, 3e38
    compare(gpu, "softmax", (x,), x.shape)
    for weight in (None, (np.arange(columns) % 2.0).astype(np.float32)):
        target = np.full(5, columns - 1)
        with np.errstate(invalid="ignore"):
            compare(gpu, "cross_entropy", (x, target, weight, 0.0), (5,), x.shape)


# ---------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8, 12, 16, 17])
def test_rows_are_copied_whole_in_words_of_any_size(gpu, width):
    x = RNG.integers(0, 255, (11, width), np.uint8)
    index = np.array([3, 0, 10, 10, 7])
    for source in (x, shifted(x)):
        whole = unset((7, width), np.uint8)
        gpu.take(source, index, whole[1:-1])
        np.testing.assert_array_equal(whole[1:-1], x[index])
        assert (whole[[0, -1]] == 77).all()


def test_batches_stop_at_the_end_and_follow_the_cursor(gpu):
    x, order, cursor = drawn(50, 3, 5), RNG.permutation(50), np.zeros((), np.int64)
    out = unset((8, 3, 5), np.float32)
    plan = replayed(lambda: gpu.take_batch(x, order, cursor, out), out)
    for start in (8, 45, 60):
        cursor[...] = start
        plan.run()
        np.testing.assert_array_equal(out, x[order[np.minimum(start + np.arange(8), 49)]])


@pytest.mark.parametrize("n, rows, columns", [(1, 1, 3), (700, 5, 3), (5000, 9, 2), (2500, 700, 1), (2100, 70_000, 1)])
def test_scatter_add_keeps_the_order_however_it_sorts(gpu, n, rows, columns):
    index = RNG.integers(0, rows, 2 * n)[::2]
    index[n // 2 :] = np.minimum(index[n // 2 :], rows // 2)
    source = drawn(columns, n).T
    start = drawn(rows, columns)
    want, out = start.copy(), start.copy()
    np.add.at(want, index, source)
    gpu.scatter_add(index, source, out)
    np.testing.assert_array_equal(out, want)


def test_scatter_add_of_rows_of_several_axes(gpu):
    index, source, out = (
        np.array([2, 0, 2]),
        drawn(4, 5, 3).transpose(2, 1, 0)[:, ::-1],
        np.zeros((3, 5, 4), np.float32),
    )
    want = out.copy()
    np.add.at(want, index, source)
    gpu.scatter_add(index, source, out)
    np.testing.assert_array_equal(out, want)


# ------------------------------------------------------------------------- updates and randomness


def test_updates_of_large_and_unaligned_parameters(gpu):
    rule = BY_NAME["adam"]
    values = np.array([3, 0.05, 0.01, 0.003, 0.9, 0.999, 1e-8])
    plain = [[drawn(*shape) for shape in ((2500,), (3, 7), (0,), (1024,))] for _ in range(2)]
    states = [[abs(drawn(*w.shape)) for w in plain[0]] for _ in rule.states]
    odd = [[shifted(x) for x in group] for group in (*plain, *states)]
    expected = [wide(*group) for group in (*plain, *states)]
    gpu.update(rule, *plain, states, values)
    gpu.update(rule, *odd[:2], odd[2:], values)
    ORACLE.update(rule, *expected[:2], expected[2:], values)
    for group, same, close in zip((*plain, *states), odd, expected, strict=True):
        for a, b, c in zip(group, same, close, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-6)


def test_a_replayed_update_finds_its_arrays(gpu):
    """What a plan points to stays alive as long as the plan does."""
    from kernels import plan

    rule = BY_NAME["sgd"]
    w, values = drawn(300), np.array([1, 0.5, 0, 0])
    start, g = w.copy(), drawn(300)
    with plan.recording(plan.Recorder()) as recorder:
        gpu.update(rule, [w], [copied := g.copy()], [], values)
    recorded = recorder.plan()
    del recorder, copied
    for k in range(300):  # another table for each, so that the first is no longer kept for its use alone
        gpu.update(rule, [drawn(4)], [drawn(4)], [], values + k)
    recorded.run(2)
    np.testing.assert_allclose(w, start - 1.5 * g, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("slot, constants", [("random_uniform", ()), ("random_normal", ()), ("dropout_mask", (0.3,))])
def test_random_numbers_do_not_depend_on_alignment(gpu, slot, constants, dtype):
    for state in ([-1, -1, -1], [5, 2**40 + 3, -(2**63)]):
        for size in (1, 6, 1001):
            plain, odd, want = unset(size, dtype), shifted(unset(size, dtype)), unset(size, dtype)
            getattr(gpu, slot)(np.array(state), *constants, plain)
            getattr(gpu, slot)(np.array(state), *constants, odd)
            getattr(ORACLE, slot)(np.array(state), *constants, want)
            np.testing.assert_array_equal(plain, odd)
            np.testing.assert_allclose(plain, want, rtol=0, atol=4e-6 if slot == "random_normal" else 0)


# ------------------------------------------------------------------------------------- pooling


def test_pools_of_packed_channels_and_of_single_ones(gpu):
    x, g = np.round(2 * drawn(2, 6, 5, 8)), np.round(2 * drawn(2, 3, 2, 8))
    rows, columns = np.array([[0, 2, 2], [1, 5, 3], [4, 6, 2]]), np.array([[0, 3, 3], [1, 5, 1]])
    results = []
    for place in (np.copy, shifted):
        out, index, mean = place(g), np.zeros(g.shape, np.int32), place(g)
        back, spread = place(x), place(x)
        gpu.max_pool2d(place(x), rows, columns, out, index)
        gpu.max_pool2d_backward(place(g), index, rows, columns, back)
        gpu.avg_pool2d(place(x), rows, columns, mean)
        gpu.avg_pool2d_backward(place(g), rows, columns, spread)
        results.append([out, index, back, mean, spread])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_mean_of_a_large_window_is_shared_out(gpu):
    x = drawn(2, 20, 30, 5, mean=1)
    windows = np.array([[0, 20, 20]]), np.array([[0, 30, 30], [29, 30, 1]])
    compare(gpu, "avg_pool2d", (x, *windows), (2, 1, 2, 5), scale=0.01)


# ------------------------------------------------------------------------------- normalization


@pytest.mark.parametrize("mean", [0, 1e4])
def test_batch_norm_of_several_chunks(gpu, mean):
    x, weight, bias = drawn(2100, 5, mean=mean), drawn(5), drawn(5)
    exact = x.astype(np.float64)
    _, found, variance = compare(gpu, "batch_norm", (x, weight, bias, 1e-3, "relu"), x.shape, 5, 5, scale=1 + mean)
    np.testing.assert_allclose(found, exact.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, exact.var(0), rtol=1e-5)
    if mean == 0:
        y = (x - found) / np.sqrt(variance + 1e-3) * weight + bias
        g = np.where(abs(y) < 1e-4, 0, drawn(*x.shape)).astype(np.float32)
        arguments = (g, x, weight, bias, found, variance, 1e-3, "relu")
        compare(gpu, "batch_norm_backward", arguments, x.shape, 5, 5, scale=100)


@pytest.mark.parametrize(
    "shape, groups", [((700, 1, 20), 1), ((3, 1, 600), 1), ((2, 1, 5000), 1), ((3, 400, 12), 2), ((2, 300, 3), 3)]
)
def test_group_norm_of_long_rows_and_large_images(gpu, shape, groups):
    n, _, c = shape
    x, g, weight, bias = drawn(*shape, mean=100), drawn(*shape), drawn(c), drawn(c)
    _, mean, scale = compare(
        gpu, "group_norm", (x, groups, weight, bias, 1e-3), shape, (n, groups), (n, groups), scale=30
    )
    compare(gpu, "group_norm_backward", (g, x, groups, weight, mean, scale), shape, (c,), (c,), scale=1000)


def test_nothing_to_normalize(gpu):
    for shape in ((2, 0, 6), (2, 1, 0), (2, 3, 0), (0, 3, 6)):
        x, mean, scale = (
            np.empty(shape, np.float32),
            unset((shape[0], 2), np.float32),
            np.zeros((shape[0], 2), np.float32),
        )
        gpu.group_norm(x, 2, None, None, 1e-5, x, mean, scale)
        assert np.isnan(mean).all() and np.isnan(scale).all()
        sums = unset(shape[2], np.float32)
        gpu.group_norm_backward(x, x, 2, None, mean, scale, x, sums, None)
        assert (sums == 0).all()
    mean, variance = np.zeros(3, np.float32), np.zeros(3, np.float32)
    gpu.batch_norm(np.empty((0, 3), np.float32), None, None, 1e-5, None, np.empty((0, 3), np.float32), mean, variance)
    assert np.isnan(mean).all() and np.isnan(variance).all()


# ------------------------------------------------------------------------------ the same bits


def test_results_do_not_depend_on_the_size_of_the_device(gpu, others):
    x, index = drawn(9000, 3), RNG.integers(0, 40, 9000)
    results = []
    for backend in (gpu, *others):
        sums, rows, mask = unset(3, np.float32), np.zeros((40, 3), np.float32), unset(x.shape, np.float32)
        out, mean, variance = unset(x.shape, np.float32), unset(3, np.float32), unset(3, np.float32)
        backend.reduce("sum", x, (0,), sums)
        backend.scatter_add(index, x, rows)
        backend.dropout_mask(np.array([1, 2, 3]), 0.5, mask)
        backend.batch_norm(x, None, None, 1e-3, None, out, mean, variance)
        results.append([sums, rows, mask, out, mean, variance])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_threads_share_no_uploaded_table(gpu):
    """Where each thread has a stream of its own, another's copy might not be there yet."""
    import emulator

    from kernels.cupy_gpu.uploads import Uploads

    uploads, table = Uploads(emulator.Emulator()), np.arange(5)
    with ThreadPoolExecutor(1) as other:
        there = other.submit(uploads.copy_of, table).result()
    here = uploads.copy_of(table)
    assert here is uploads.copy_of(table.copy()) and here is not there
    np.testing.assert_array_equal(there, here)
