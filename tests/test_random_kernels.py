"""The compiled random numbers: Philox to the bit, and what is made of it."""

import numpy as np
import pytest
from views import replayed, same_in_parts, unset

from kernels.reference import reference

pytest.importorskip("numba")
from kernels.numba_cpu import random as module

ORACLE = reference(np)
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
SIZES = pytest.mark.parametrize(
    "shape", [(0,), (), (1,), (2,), (3,), (7,), (31,), (32,), (33,), (5, 13), (64, 65), (3001,)]
)
STATES = [[0, 0, 0], [7, 1, 3], [2**63 - 1, 2**31, 2**33 + 5], [-1, -1, -1], [-(2**63), 5, 2**62]]


def philox(counter, key):
    """Philox 4x32-10 of Salmon et al. (2011), in Python's integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(right >> 32) ^ c[1] ^ k[0], right & 0xFFFFFFFF, (left >> 32) ^ c[3] ^ k[1], left & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def words(state, count):
    seed, stream, step = (int(s) % 2**64 for s in state)
    low = 2**32 - 1
    blocks = [
        philox((i, step & low, step >> 32, stream & low), (seed & low, seed >> 32)) for i in range(-(-count // 4))
    ]
    return np.array(blocks, np.uint64).reshape(-1)[:count]


def test_published_answers():
    """Known answers that the authors publish with their library Random123."""
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    counter, key = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]
    assert philox(counter, key) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("state", STATES, ids=str)
@SIZES
def test_uniform_to_the_bit(shape, state):
    state = np.array(state, np.int64)
    count = int(np.prod(shape))
    out = unset(shape, np.float32)
    module.random_uniform(state, out)
    want = (words(state, count) >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)
    np.testing.assert_array_equal(out.reshape(-1), want)
    out = unset(shape, np.float64)
    module.random_uniform(state, out)
    a, b = words(state, 2 * count).reshape(-1, 2).T
    want = ((a >> np.uint64(5)) * np.uint64(2**26) + (b >> np.uint64(6))).astype(np.float64) * 2.0**-53
    np.testing.assert_array_equal(out.reshape(-1), want)


@FLOATS
@SIZES
def test_normal(shape, dtype):
    for state in STATES:
        out, want = unset(shape, dtype), unset(shape, np.float64)
        uniform = np.empty(out.size + out.size % 2, dtype)
        module.random_normal(np.array(state), out)
        module.random_uniform(np.array(state), uniform)
        u, v = uniform.astype(np.float64).reshape(-1, 2).T
        r = np.sqrt(-2 * np.log1p(-u))
        want = np.stack([r * np.cos(2 * np.pi * v), r * np.sin(2 * np.pi * v)], -1).reshape(-1)[: out.size]
        np.testing.assert_allclose(out.reshape(-1), want, atol=4e-6 if dtype == np.float32 else 1e-14)


@FLOATS
@SIZES
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.999, 1 - 1e-12])
def test_dropout_mask(rate, shape, dtype):
    state = np.array([7, 1, 3])
    out, want = unset(shape, dtype), unset(shape, dtype)
    module.dropout_mask(state, rate, out)
    ORACLE.dropout_mask(state, rate, want)
    np.testing.assert_array_equal(out, want)


@FLOATS
def test_parts_replay_and_a_state_that_moves_on(dtype):
    state = np.array([5, 2, 9])
    out = unset((37, 29), dtype)
    for call in (
        lambda: module.random_uniform(state, out),
        lambda: module.random_normal(state, out),
        lambda: module.dropout_mask(state, 0.3, out),
    ):
        same_in_parts(module, call, out)
        plan = replayed(call, out)
        before = out.copy()
        state[2] += 1
        plan.run()
        assert (out != before).any()
        after = out.copy()
        call()
        np.testing.assert_array_equal(out, after)


def test_moments():
    state, out = np.array([1, 2, 3]), np.empty(1_000_000, np.float32)
    module.random_uniform(state, out)
    assert 0 <= out.min() and out.max() < 1
    assert abs(out.mean() - 0.5) < 2e-3 and abs(out.var() - 1 / 12) < 1e-3
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 5e-3
    module.random_normal(state, out)
    assert abs(out.mean()) < 5e-3 and abs(out.var() - 1) < 1e-2 and abs((out**4).mean() - 3) < 5e-2
    assert np.isfinite(out).all()
