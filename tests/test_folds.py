"""Folds of whole groups and of time, against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonet import data
from nanonet.errors import DataError, ShapeError


@st.composite
def grouped(draw):
    """(groups, labels, k): at least k groups, rows in any order."""
    k = draw(st.integers(2, 5))
    groups = draw(st.lists(st.integers(0, 12), min_size=k, max_size=80).filter(lambda g: len(set(g)) >= k))
    labels = draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups)))
    return np.array(groups), np.array(labels), k


@given(case=grouped(), stratify=st.booleans(), shuffle=st.booleans(), seed=st.integers(0, 3))
def test_folds_keep_groups_together_and_use_each_row_once(case, stratify, shuffle, seed):
    groups, y, k = case
    pairs = list(data.GroupKFold(k, shuffle, seed, stratify).split(y, y, groups))
    assert len(pairs) == k
    for train, held in pairs:
        assert len(held)
        assert not set(groups[train]) & set(groups[held])
        np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(len(y)))
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in pairs])), np.arange(len(y)))


@given(case=grouped())
def test_folds_of_groups_are_as_even_as_scikit_learns(case):
    model_selection = pytest.importorskip("sklearn.model_selection")
    groups, y, k = case

    def sizes(splitter):
        return np.sort([len(held) for _, held in splitter.split(y, y, groups)])

    np.testing.assert_array_equal(sizes(data.GroupKFold(k, shuffle=False)), sizes(model_selection.GroupKFold(k)))


def test_labels_are_spread_over_folds_of_groups_as_evenly_as_by_scikit_learn():
    model_selection = pytest.importorskip("sklearn.model_selection")
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 400)
    y = (rng.random(400) < np.where(groups % 5 == 0, 0.7, 0.1)).astype(int)

    def unevenness(splitter):
        return np.std([y[held].mean() for _, held in splitter.split(y, y, groups)])

    ours = unevenness(data.GroupKFold(4, stratify=True))
    assert ours <= 1.2 * unevenness(model_selection.StratifiedGroupKFold(4))
    assert ours < unevenness(data.GroupKFold(4)) / 2


@given(n=st.integers(4, 60), k=st.integers(2, 6), gap=st.integers(0, 3))
def test_folds_of_time_are_scikit_learns(n, k, gap):
    model_selection = pytest.importorskip("sklearn.model_selection")
    x = np.zeros((n, 1))
    try:
        wanted = list(model_selection.TimeSeriesSplit(k, gap=gap).split(x))
        assert len(wanted[0][0])  # scikit-learn trains on nothing where the gap takes all
    except (ValueError, AssertionError):
        with pytest.raises(DataError, match="want more"):
            data.TimeSeriesSplit(k, gap).split(x)
        return
    for (train, held), (train_wanted, held_wanted) in zip(data.TimeSeriesSplit(k, gap).split(x), wanted, strict=True):
        np.testing.assert_array_equal(train, train_wanted)
        np.testing.assert_array_equal(held, held_wanted)


@given(case=grouped(), share=st.floats(0.05, 0.95), seed=st.integers(0, 5))
def test_groups_are_set_aside_whole(case, share, seed):
    groups, _, _ = case
    rest, apart = data.split_groups(groups, share, seed)
    assert len(rest) and len(apart)
    assert not set(groups[rest]) & set(groups[apart])
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, apart])), np.arange(len(groups)))
    assert abs(len(apart) - share * len(groups)) <= np.bincount(groups).max()


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="groups is None"):
        data.GroupKFold(2).split(np.zeros(4))
    with pytest.raises(ShapeError, match="groups has shape"):
        data.GroupKFold(2).split(np.zeros(4), groups=[1, 2])
    with pytest.raises(DataError, match="holds 1 groups; 2 folds want at least 2"):
        data.GroupKFold(2).split(np.zeros(4), groups=[1] * 4)
    with pytest.raises(DataError, match="wanted labels"):
        data.GroupKFold(2, stratify=True).split(np.zeros(4), np.linspace(0, 1, 4), [1, 1, 2, 2])
    with pytest.raises(DataError, match="at least 2 to set some aside"):
        data.split_groups([3, 3])
