"""Initial values: shapes, moments, names, and the randomness under them."""

import math
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nanonet import init
from nanonet import random as streams
from nanonet.errors import DtypeError, OptionError, ShapeError

SHAPE = (300, 200)
CONVOLUTION = (3, 3, 40, 60)  # fan_in 360, fan_out 540

#  initializer, shape -> mean and standard deviation
MOMENTS = [
    (init.zeros, SHAPE, 0.0, 0.0),
    (init.ones, SHAPE, 1.0, 0.0),
    (init.constant(0.5), SHAPE, 0.5, 0.0),
    (init.normal, SHAPE, 0.0, 0.05),
    (init.normal(mean=1.0, std=0.1), SHAPE, 1.0, 0.1),
    (init.uniform(low=1.0, high=3.0), SHAPE, 2.0, 2 / math.sqrt(12)),
    (init.truncated_normal(mean=1.0, std=0.1), SHAPE, 1.0, 0.0880),
    (init.truncated_normal(std=1.0, bound=0.5), SHAPE, 0.0, 0.2840),
    (init.xavier_normal, SHAPE, 0.0, math.sqrt(2 / 500)),
    (init.xavier_uniform(gain=2.0), SHAPE, 0.0, 2 * math.sqrt(2 / 500)),
    (init.he_normal, SHAPE, 0.0, math.sqrt(2 / 300)),
    (init.he_normal, CONVOLUTION, 0.0, math.sqrt(2 / 360)),
    (init.he_uniform(mode="fan_out"), CONVOLUTION, 0.0, math.sqrt(2 / 540)),
    (init.he_uniform(slope=0.5), SHAPE, 0.0, math.sqrt(2 / (1.25 * 300))),
    (init.xavier_normal, CONVOLUTION, 0.0, math.sqrt(2 / 900)),
    (init.lecun_normal, SHAPE, 0.0, math.sqrt(1 / 300)),
    (init.lecun_uniform, CONVOLUTION, 0.0, math.sqrt(1 / 360)),
    (init.orthogonal, SHAPE, 0.0, math.sqrt(1 / 300)),
]


@pytest.mark.parametrize(("initializer", "shape", "mean", "std"), MOMENTS, ids=str)
def test_mean_and_deviation(initializer, shape, mean, std):
    values = initializer(shape, rng=0, dtype=np.float64)
    assert values.mean() == pytest.approx(mean, abs=1e-12 + 5 * std / math.sqrt(values.size))
    assert values.std() == pytest.approx(std, rel=0.015, abs=1e-12)


def test_every_initializer_is_measured_above():
    assert {row[0].name for row in MOMENTS} == {init.get(name).name for name in init.names()}


@pytest.mark.parametrize("name", init.names())
@given(shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=5), seed=st.integers(0, 99))
def test_shape_dtype_and_seed(name, shape, seed):
    initializer = init.get(name)
    values = initializer(shape, rng=seed)
    assert values.shape == shape
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values, initializer(list(shape), rng=seed))
    np.testing.assert_array_equal(values, initializer(shape, rng=seed, dtype=np.float64).astype(np.float32))


def test_with_a_shape_it_draws_and_with_options_it_waits():
    rng = np.random.default_rng(0)
    waiting = init.normal(mean=1.0, std=0.1)
    np.testing.assert_array_equal(
        waiting((3, 4), rng=rng), init.normal((3, 4), mean=1.0, std=0.1, rng=np.random.default_rng(0))
    )
    assert init.normal(1.0, 0.1) == waiting == init.get("normal(mean=1.0, std=0.1)") != init.normal
    assert init.zeros((2,)).tolist() == [0.0, 0.0]
    assert init.get("zeros")(()).shape == ()
    assert init.he_normal() is init.he_normal


@pytest.mark.parametrize("name", init.names())
def test_text_and_pickle_give_it_back(name):
    plain = init.get(name)
    given = {option: value for option, value in plain.options.items() if option != "mode"}
    changed = plain(**{option: value + 0.25 for option, value in given.items()}) if given else plain
    for initializer in (plain, changed):
        assert init.get(str(initializer)) == initializer
        assert pickle.loads(pickle.dumps(initializer)) == initializer
        assert hash(init.get(str(initializer))) == hash(initializer)


def test_a_function_of_ones_own_is_an_initializer():
    def mine(shape, rng=None):
        return np.full(shape, 7.0, np.float32)

    assert init.get(mine) is mine


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (3, 2, 4, 5), (5, 5)])
def test_orthogonal_has_orthonormal_columns_or_rows(shape):
    matrix = init.orthogonal(shape, rng=1, dtype=np.float64).reshape(-1, shape[-1])
    small = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-12)


def test_truncated_normal_stays_within_its_bound():
    values = init.truncated_normal((1000,), mean=1.0, std=2.0, bound=1.5, rng=0, dtype=np.float64)
    assert np.abs(values - 1).max() <= 3


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: init.get("he_norml"), OptionError, "did you mean 'he_normal'"),
        (lambda: init.get(3), OptionError, "initializer is 3"),
        (lambda: init.get("normal(mean=1.0"), OptionError, "wanted a name with options"),
        (lambda: init.get("normal(1.0)"), OptionError, "wanted a name with options"),
        (lambda: init.get("normal(mean=exit())"), OptionError, "wanted a name with options"),
        (lambda: init.get("normal(mu=1.0)"), OptionError, "'mu'.*wanted one of mean, std"),
        (lambda: init.get("zeros(value=1.0)"), OptionError, "has none"),
        (lambda: init.normal(std=-1.0), OptionError, "std is -1.0; wanted a number in \\[0, inf\\)"),
        (lambda: init.normal(mean=math.nan), OptionError, "mean is nan"),
        (lambda: init.normal(mean="high"), OptionError, "mean is 'high'"),
        (lambda: init.zeros(3), OptionError, "wanted a shape such as"),
        (lambda: init.uniform((3,), low=2.0, high=1.0), OptionError, "low at most high"),
        (lambda: init.he_normal(mode="fan"), OptionError, "fan_in, fan_out"),
        (lambda: init.he_normal((5,)), ShapeError, "at least two axes"),
        (lambda: init.orthogonal((5,)), ShapeError, "at least two axes"),
        (lambda: init.zeros((3, -1)), ShapeError, "wanted a tuple of integers"),
        (lambda: init.zeros((3, 2.0)), ShapeError, "wanted a tuple of integers"),
        (lambda: init.zeros((3,), dtype=np.int32), DtypeError, "int32; wanted float32 or float64"),
        (lambda: init.normal((3,), rng="x"), OptionError, "seed is 'x'"),
    ],
)
def test_bad_options_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ------------------------------------------------------------------------------- random streams


def test_streams_differ_and_repeat():
    names = [(), ("a",), ("b",), ("a", 1), ("a", "1"), ("a1",), ("a", "b"), ("ab",), (1,), ("1",), ("é",), ("\n",)]
    keys = {(seed, name): streams.key(seed, *name) for seed in (0, 1, -1, 2**70) for name in names}
    assert len(set(keys.values())) == len(keys)
    np.testing.assert_array_equal(streams.generator(3, "x", 1).random(5), streams.generator(3, "x", 1).random(5))


def test_streams_are_the_same_in_another_process():
    code = "from nanonet.random import key; print(key(5, 'dropout', 3))"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert int(found.stdout) == streams.key(5, "dropout", 3)


def test_keys_do_not_change_between_versions():
    """Stored studies and checkpoints rely on this."""
    assert streams.key(0) == 0x180CEB0EDCE751D9C29F4EB487973E3A


def test_default_seed_repeats_and_is_safe_in_threads():
    streams.seed(7)
    first = [streams.next_seed() for _ in range(400)]
    streams.seed(7)
    found = []
    threads = [threading.Thread(target=lambda: found.extend(streams.next_seed() for _ in range(100))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(first)
    assert len(set(first)) == 400
    assert all(0 <= number < 2**63 for number in first)
    streams.seed(7)
    values = init.normal((5,))
    streams.seed(7)
    np.testing.assert_array_equal(values, init.normal((5,)))


@pytest.mark.parametrize("bad", [1.5, "a", None])
def test_seeds_are_integers(bad):
    with pytest.raises(OptionError, match="wanted an integer"):
        streams.seed(bad)
    with pytest.raises(OptionError, match="wanted an integer"):
        streams.generator(bad)


def test_stream_names_are_text_or_integers():
    with pytest.raises(OptionError, match=r"a stream's name is 1\.5"):
        streams.generator(0, 1.5)
