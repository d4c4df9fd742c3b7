"""Metrics against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nanonet import metrics
from nanonet.errors import DataError, OptionError, ShapeError


@st.composite
def labels(draw, classes=4):
    """Two arrays of labels of one length; often some label is never true or never predicted."""
    n = draw(st.integers(1, 30))
    return tuple(draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1))) for _ in range(2))


@st.composite
def numbers(draw):
    shape = draw(st.sampled_from([(2,), (9,), (5, 1), (7, 3)]))
    elements = st.floats(-100, 100, width=32)
    return tuple(draw(hnp.arrays(np.float64, shape, elements=elements)) for _ in range(2))


@given(pair=labels(), average=st.sampled_from(["macro", "micro", "weighted", None]), empty=st.sampled_from([0.0, 1.0]))
@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_rates_agree_with_scikit_learn(name, pair, average, empty):
    theirs = getattr(pytest.importorskip("sklearn.metrics"), f"{name}_score")
    found = getattr(metrics, name)(*pair, average=average, zero_division=empty)
    np.testing.assert_allclose(found, theirs(*pair, average=average, zero_division=empty), rtol=1e-12, atol=1e-15)


@given(pair=labels(classes=2), positive=st.integers(0, 1))
@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_binary_rates_agree_with_scikit_learn(name, pair, positive):
    theirs = getattr(pytest.importorskip("sklearn.metrics"), f"{name}_score")
    found = getattr(metrics, name)(*pair, positive=positive)
    if positive in np.concatenate(pair):
        assert found == pytest.approx(theirs(*pair, pos_label=positive, zero_division=0.0))
    else:
        assert found == 0


@given(pair=labels())
def test_accuracy_and_confusion_agree_with_scikit_learn(pair):
    theirs = pytest.importorskip("sklearn.metrics")
    assert metrics.accuracy(*pair) == pytest.approx(theirs.accuracy_score(*pair))
    for order in (None, [3, 1, 0], [0, 1, 2, 3, 9]):
        found = metrics.confusion_matrix(*pair, labels=order)
        assert found.dtype == np.int64
        order = np.unique(np.concatenate(pair)) if order is None else order
        if np.isin(pair[0], order).any() and len(order) > 1:
            np.testing.assert_array_equal(found, theirs.confusion_matrix(*pair, labels=order))


@given(data=st.data(), n=st.integers(1, 20), k=st.integers(1, 4))
def test_top_k_agrees_with_scikit_learn(data, n, k):
    theirs = pytest.importorskip("sklearn.metrics").top_k_accuracy_score
    true = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 4)))
    scores = data.draw(hnp.arrays(np.float64, (n, 5), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))
    assert metrics.top_k_accuracy(true, scores, k) == pytest.approx(theirs(true, scores, k=k, labels=range(5)))


@given(pair=numbers())
def test_regression_agrees_with_scikit_learn(pair):
    theirs = pytest.importorskip("sklearn.metrics")
    assert metrics.mse(*pair) == pytest.approx(theirs.mean_squared_error(*pair), rel=1e-12)
    assert metrics.mae(*pair) == pytest.approx(theirs.mean_absolute_error(*pair), rel=1e-12)
    assert metrics.r2(*pair) == pytest.approx(theirs.r2_score(*pair), rel=1e-9)


def test_by_hand():
    true, predicted = [0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 2, 2]
    assert metrics.accuracy(true, predicted) == pytest.approx(4 / 6)
    assert metrics.confusion_matrix(true, predicted).tolist() == [[1, 1, 0], [0, 2, 1], [0, 0, 1]]
    np.testing.assert_allclose(metrics.precision(true, predicted, average=None), [1, 2 / 3, 1 / 2])
    np.testing.assert_allclose(metrics.recall(true, predicted, average=None), [1 / 2, 2 / 3, 1])
    np.testing.assert_allclose(metrics.f1(true, predicted, average=None), [2 / 3, 2 / 3, 2 / 3])
    assert metrics.mse([1.0, 2.0], [2.0, 4.0]) == 2.5
    assert metrics.mae([1.0, 2.0], [2.0, 4.0]) == 1.5
    assert metrics.r2([1.0, 3.0], [1.0, 2.0]) == 0.5
    assert metrics.r2([2.0, 2.0], [2.0, 2.0]) == 1
    assert metrics.r2([2.0, 2.0], [2.0, 3.0]) == 0


def test_scores_one_hot_columns_and_texts_are_labels_too():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    assert metrics.accuracy([1, 2], scores) == 0.5
    assert metrics.accuracy([[0, 1, 0], [0, 0, 1]], scores) == 0.5
    assert metrics.accuracy([[1], [2]], [1.0, 0.0]) == 0.5
    assert metrics.accuracy(["cat", "dog"], np.array(["cat", "cat"], dtype=object)) == 0.5
    assert metrics.f1(["cat", "dog"], ["cat", "cat"], positive="cat") == pytest.approx(2 / 3)
    assert metrics.binary_accuracy([0, 1, 1], [[0.2], [0.9], [0.4]]) == pytest.approx(2 / 3)
    assert metrics.binary_accuracy([True, False], [0.4, 0.1], threshold=0.3) == 1


def test_anything_with_an_array_in_it_will_do():
    class Holder:
        def __array__(self, dtype=None, copy=None):
            return np.array([0, 1])

    assert metrics.accuracy(Holder(), Holder()) == 1


def test_by_name():
    assert metrics.get("f1") is metrics.f1
    assert metrics.get("mean_absolute_error") is metrics.mae
    assert metrics.get(math.hypot) is math.hypot
    with pytest.raises(OptionError, match="did you mean 'accuracy'"):
        metrics.get("acuracy")


@pytest.mark.parametrize(
    ("measure", "error", "message"),
    [
        (lambda: metrics.accuracy([0, 1], [0]), ShapeError, "y_true has 2 rows and y_pred 1"),
        (lambda: metrics.accuracy([], []), DataError, "wanted at least one row"),
        (lambda: metrics.accuracy([0], [0.5]), DataError, "y_pred holds 0.5 in row 0"),
        (lambda: metrics.accuracy([0, 1], [0, math.nan]), DataError, "y_pred holds nan in row 1"),
        (lambda: metrics.accuracy([0, 3], np.ones((2, 3))), DataError, "y_true holds 3 in row 1.*0 to 2"),
        (lambda: metrics.accuracy([0], [[1.0, math.nan]]), DataError, "y_pred holds nan in row 0"),
        (lambda: metrics.accuracy([0], ["a"]), DataError, "labels of one kind"),
        (lambda: metrics.accuracy([None], [0]), DataError, "dtype object"),
        (lambda: metrics.accuracy(np.zeros((2, 2, 2)), [0, 0]), ShapeError, r"wanted \(n,\)"),
        (lambda: metrics.accuracy(3, 3), ShapeError, r"wanted \(n,\)"),
        (lambda: metrics.binary_accuracy([0, 2], [0.1, 0.9]), DataError, "wanted 0 and 1 only"),
        (lambda: metrics.top_k_accuracy([0], [0.1]), ShapeError, r"\(n, classes\)"),
        (lambda: metrics.top_k_accuracy([0], [[0.1, 0.2]], 0), OptionError, "k is 0"),
        (lambda: metrics.top_k_accuracy([5], [[0.1, 0.2]]), DataError, "holds 5 in row 0"),
        (lambda: metrics.f1([0, 1, 2], [0, 1, 2]), OptionError, "there are 3 labels"),
        (lambda: metrics.f1([0, 1], [0, 1], positive=2), OptionError, "positive is 2"),
        (lambda: metrics.f1([0, 1], [0, 1], average="macr"), OptionError, "did you mean 'macro'"),
        (lambda: metrics.confusion_matrix([0], [0], labels=[1, 1]), OptionError, "different labels"),
        (lambda: metrics.confusion_matrix([0], [0], labels=["a"]), DataError, "labels of one kind"),
        (lambda: metrics.mse([1.0], [math.nan]), DataError, "y_pred holds nan in row 0"),
        (lambda: metrics.mae([math.inf], [1.0]), DataError, "y_true holds inf in row 0"),
        (lambda: metrics.mse([1.0, 2.0], [[1.0, 2.0]]), ShapeError, "wanted the same"),
        (lambda: metrics.mse(["a"], [1.0]), DataError, "wanted real numbers"),
        (lambda: metrics.mse(1.0, 2.0), ShapeError, "single number"),
        (lambda: metrics.r2([1.0], [1.0]), DataError, "at least 2"),
    ],
)
def test_bad_input_is_named(measure, error, message):
    with pytest.raises(error, match=message):
        measure()
