"""A trained model with its preprocessing: what goes in, what comes out, and on disk."""

import numpy as np
import pytest

from nanonet import checkpoint
from nanonet.data import Standardizer, from_arrays, read_csv
from nanonet.errors import CheckpointError, DataError, DtypeError, ShapeError
from nanonet.predictor import MODEL_FILE, Predictor, load_model, save_model
from nanonet.settings import Settings
from nanonet.training import Run

SETTINGS = Settings(hidden=(8,), epochs=30, batch_size=16, learning_rate=0.02)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of flowers: two numbers, a text, and the name of the kind."""
    rng = np.random.default_rng(0)
    lines = ["length,colour,width,kind"]
    for i in range(120):
        kind = i % 3
        length, width = 100 * kind + 5 * rng.normal(), 3 + 0.1 * rng.normal()
        lines.append(f"{length:.3f},{rng.choice(['red', 'blue'])},{width:.3f},{'abc'[kind]}")
    path = tmp_path_factory.mktemp("data") / "flowers.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def classifier(table):
    data = read_csv(table, "kind")
    scale = Standardizer().fit(data.x)
    run = Run(SETTINGS, scale.transform(data.x), data.y, task=data.task, classes=data.outputs)
    run.advance(SETTINGS.epochs)
    return Predictor(run.model, SETTINGS, data.schema, scale, scores={"accuracy": 1.0})


@pytest.fixture(scope="module", params=[1, 2], ids=["one target", "two targets"])
def regressor(request):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    y = 1000 + 50 * x @ rng.normal(size=(3, 2))
    data = from_arrays(x, y[:, 0] if request.param == 1 else y)
    target_scale = Standardizer().fit(data.y)
    run = Run(SETTINGS, x, target_scale.transform(data.y), task="regression")
    run.advance(SETTINGS.epochs)
    return Predictor(run.model, SETTINGS, data.schema, None, target_scale), data


def test_classification(classifier, table):
    data = read_csv(table, schema=classifier.schema)
    assert classifier.evaluate_on(data)["accuracy"] > 0.98
    assert classifier.evaluate_on(data)["loss"] < 0.2
    likely = classifier.probabilities(data.x)
    np.testing.assert_allclose(likely.sum(axis=1), 1)
    np.testing.assert_array_equal(classifier.predict(data.x), likely.argmax(axis=1))
    assert set(classifier.names(data.x)) == {"a", "b", "c"}
    assert (classifier.task, classifier.class_names) == ("classification", ("a", "b", "c"))
    assert classifier.feature_names == data.feature_names == ("length", "colour=blue", "colour=red", "width")


def test_regression_in_the_targets_own_unit(regressor):
    predictor, data = regressor
    found = predictor.predict(data.x)
    assert found.shape == data.y.shape
    scores = predictor.evaluate(data.x, data.y)
    assert scores["r2"] > 0.9
    assert scores["mae"] < 30
    assert np.isnan(predictor.evaluate(data.x[:1], data.y[:1])["r2"])
    for wrong in (predictor.probabilities, predictor.names):
        with pytest.raises(DataError, match="wanted a classification model"):
            wrong(data.x)


@pytest.mark.parametrize("into_folder", [True, False])
def test_comes_back_from_disk(classifier, table, tmp_path, into_folder):
    path = save_model(tmp_path if into_folder else tmp_path / "mine", classifier)
    assert path == (tmp_path / (MODEL_FILE if into_folder else "mine"))
    again = load_model(tmp_path if into_folder else path)
    x = read_csv(table, schema=again.schema).x
    np.testing.assert_array_equal(again.outputs(x), classifier.outputs(x))
    assert (again.settings, again.schema, again.scores) == (SETTINGS, classifier.schema, {"accuracy": 1.0})


def test_a_regression_comes_back_from_disk(regressor, tmp_path):
    predictor, data = regressor
    again = Predictor.load(predictor.save(tmp_path))
    np.testing.assert_array_equal(again.predict(data.x), predictor.predict(data.x))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((3, 5)), ShapeError, r"x has rows of shape \(5,\); wanted \(4,\)"),
        (np.full((3, 4), np.nan), DataError, "x holds nan in row 0"),
        (np.ones((0, 4)), DataError, "at least one row"),
        (np.full((3, 4), "a"), DtypeError, "wanted real numbers"),
    ],
)
def test_bad_inputs_are_named(classifier, x, error, message):
    with pytest.raises(error, match=message):
        classifier.predict(x)


@pytest.mark.parametrize("y", [[0, 1, 3], [0, -1, 1], [0.0, 1.0, 2.0], ["a", "b", "c"], [[0], [1], [2]]])
def test_bad_labels_are_named(classifier, y):
    with pytest.raises(DataError, match="wanted class numbers 0 to 2"):
        classifier.evaluate(np.ones((3, 4)), y)


def test_a_wrong_number_of_labels(classifier):
    with pytest.raises(ShapeError, match=r"y has shape \(2,\) and x 3 rows"):
        classifier.evaluate(np.ones((3, 4)), [0, 1])


def test_data_without_targets(classifier):
    with pytest.raises(DataError, match="has no targets; wanted the column 'kind'"):
        classifier.evaluate_on(from_arrays(np.ones((3, 4)), schema=classifier.schema))


def test_files_that_are_no_model(classifier, tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file; wanted a model, or the folder"):
        Predictor.load(tmp_path)
    checkpoint.save(tmp_path / "other", {"epoch": 3})
    with pytest.raises(CheckpointError, match="other: is not a saved model"):
        Predictor.load(tmp_path / "other")
    path = classifier.save(tmp_path / "model")
    state = checkpoint.load(path)
    for name in ("settings", "schema", "weights"):
        checkpoint.save(path, {key: value for key, value in state.items() if key != name})
        with pytest.raises(CheckpointError, match="is not a model of this version"):
            Predictor.load(path)
    checkpoint.save(path, {**state, "settings": {**state["settings"], "hidden": [9]}})
    with pytest.raises(CheckpointError, match="is not a model of this version.*shape"):
        Predictor.load(path)


def test_a_damaged_file_never_loads(classifier, tmp_path):
    path = classifier.save(tmp_path / "model")
    content = path.read_bytes()
    for at in (0, 40, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            Predictor.load(path)
    path.write_bytes(content[:-5])
    with pytest.raises(CheckpointError):
        Predictor.load(path)
