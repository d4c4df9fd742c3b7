"""compile, fit, evaluate and predict; and programs in the style of other frameworks, on real digits."""

import numpy as np
import pytest

import nanonet
from nanonet import data, nn, optim
from nanonet import functional as F
from nanonet.errors import DataError, OptionError, ShapeError


@pytest.fixture(scope="module")
def digits():
    found = data.load("digits")
    x = (found.x.reshape(len(found.x), 64) / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], found.y[order]
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


# ------------------------------------------------------------ programs with the imports changed


def test_keras_sparse_labels(digits, capsys):
    (x_train, y_train), (x_test, y_test) = digits
    from nanonet.nn import Dense, Sequential

    model = Sequential()
    model.add(Dense(32, activation="relu", input_shape=(64,)))
    model.add(Dense(10, activation="softmax"))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x_train, y_train, batch_size=128, epochs=10, verbose=1, validation_data=(x_test, y_test))
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy", "lr"}
    assert history.history["val_accuracy"][-1] > 0.8 and len(history.history["loss"]) == 10
    assert capsys.readouterr()


def test_keras_one_hot_labels(digits):
    (x_train, y_train), (x_test, y_test) = digits
    from nanonet.data import one_hot
    from nanonet.nn import Dense, Sequential

    model = Sequential([Dense(128, activation="relu"), Dense(10, activation="softmax")])
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    targets = one_hot(y_test, 10)
    history = model.fit(
        x_train, one_hot(y_train, 10), batch_size=128, epochs=10, verbose=0, validation_data=(x_test, targets)
    )
    assert history.history["val_accuracy"][-1] > 0.9
    probabilities = model.predict(x_test)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_keras_flatten_dropout_evaluate(digits):
    (x_train, y_train), (x_test, y_test) = digits
    from nanonet.nn import Dense, Dropout, Flatten, Sequential

    model = Sequential(
        [
            Flatten(input_shape=(8, 8)),
            Dense(128, activation="relu"),
            Dropout(0.2),
            Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train.reshape(-1, 8, 8), y_train, epochs=5, verbose=0)
    loss, accuracy = model.evaluate(x_test.reshape(-1, 8, 8), y_test, verbose=0)
    assert accuracy > 0.9 and loss < 0.5


def test_pytorch_loop(digits):
    (x_train, y_train), (x_test, y_test) = digits
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.train()
    for _ in range(10):
        for start in range(0, len(x_train), 64):
            inputs = nanonet.tensor(x_train[start : start + 64])
            labels = nanonet.tensor(y_train[start : start + 64])
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
    model.eval()
    with nanonet.no_grad():
        predicted = model(nanonet.tensor(x_test)).argmax(1)
    assert (predicted.numpy() == y_test).mean() > 0.95
    assert loss.item() < 0.2


def test_the_same_loop_recorded(digits):
    (x_train, y_train), _ = digits

    def train(jitted):
        nanonet.seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
        optimizer = optim.Adam(model.parameters(), lr=1e-3)

        def step(x, y):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        step = nanonet.jit(step) if jitted else step
        losses = []
        for start in range(0, 1024, 32):
            x, y = x_train[start : start + 32], y_train[start : start + 32]
            losses.append(step(nanonet.tensor(x), nanonet.tensor(y)).item())
        return losses, model.state_dict()

    (eager, a), (recorded, b) = train(False), train(True)
    assert eager == recorded
    assert all(np.array_equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------- the parts of fit


def small(**compile_options):
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    options = {"optimizer": "sgd", "loss": "cross_entropy", "metrics": ["accuracy"], **compile_options}
    model.compile(**options)
    return model


def test_fit_equals_the_loop_written_out(digits):
    (x, y), _ = digits
    x, y = x[:100], y[:100]
    nanonet.seed(3)
    model = small(optimizer="sgd")
    twin = small()
    twin.load_state_dict(model.state_dict())
    history = model.fit(x, y, batch_size=32, epochs=1, shuffle=False, verbose=0)
    optimizer = optim.SGD(twin.parameters())
    total = 0.0
    for start in range(0, 100, 32):
        optimizer.zero_grad()
        xb, yb = nanonet.tensor(x[start : start + 32]), nanonet.tensor(y[start : start + 32])
        loss = F.cross_entropy(twin(xb), yb)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(xb)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name])
    assert history.history["loss"][0] == pytest.approx(total / 100, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_every_row_is_met_once_an_epoch(batch_size):
    x = np.arange(50, dtype=np.float32).reshape(50, 1)
    seen = []

    def loss(outputs, targets):
        return (outputs * 0 + targets).mean()

    model = nn.Sequential(nn.Linear(1, 1))
    model.compile(optimizer="sgd", loss=loss)
    history = model.fit(x, x, batch_size=batch_size, epochs=2, verbose=0)
    seen = history.history["loss"]
    np.testing.assert_allclose(seen, [x.mean()] * 2, rtol=1e-5)


def test_training_accuracy_is_that_of_the_outputs_met(digits):
    (x, y), _ = digits
    model = small()
    before = model.evaluate(x[:200], y[:200], return_dict=True)
    model._compiled.optimizer = optim.SGD(model.parameters(), lr=0.0)
    history = model.fit(x[:200], y[:200], epochs=1, verbose=0)
    assert history.history["accuracy"][0] == pytest.approx(before["accuracy"])
    assert history.history["loss"][0] == pytest.approx(before["loss"], rel=1e-5)


def test_validation_split_takes_the_last_rows(digits):
    (x, y), _ = digits
    model = small()
    history = model.fit(x[:100], y[:100], epochs=1, validation_split=0.25, verbose=0)
    expected = model.evaluate(x[75:100], y[75:100], return_dict=True)
    assert history.history["val_loss"][0] == pytest.approx(expected["loss"])


def test_class_weight_of_zero_ignores_a_class(digits):
    (x, y), _ = digits
    model = small()
    x, y = x[y < 2], y[y < 2]
    model.fit(x, y, epochs=20, class_weight={0: 0.0, 1: 1.0}, verbose=0)
    assert (model.predict(x).argmax(1) == 1).all()


def test_binary_and_regression(digits):
    (x, y), _ = digits
    even = (y % 2 == 0).astype(np.int64)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    model.fit(x, even, epochs=10, verbose=0)
    loss, accuracy = model.evaluate(x, even)
    assert accuracy > 0.85
    probabilities, labels = nanonet.tensor(model.predict(x)[:, 0]), nanonet.tensor(even.astype("f"))
    assert loss == pytest.approx(F.binary_cross_entropy(probabilities, labels).item(), rel=1e-3)
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1))
    model.compile(optimizer="adam", loss="mse", metrics=["mae", "r2"])
    history = model.fit(x, y.astype("f"), epochs=30, verbose=0, validation_split=0.1)
    assert history.history["val_r2"][-1] > 0.3 and history.history["r2"][-1] > 0.4


def test_a_model_that_cannot_be_recorded_trains_eagerly(digits):
    (x, y), _ = digits

    class Peeking(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            scores = self.linear(x)
            return scores if scores.array.size and float(scores.max().item()) < 1e9 else scores * 2

    model = Peeking()
    model.compile(optimizer="adam", loss="cross_entropy", metrics=["accuracy"])
    history = model.fit(x[:300], y[:300], epochs=5, verbose=0)
    assert history.history["accuracy"][-1] > history.history["accuracy"][0]


def test_callbacks_and_stopping(digits):
    (x, y), (xv, yv) = digits
    from nanonet.callbacks import Callback

    class Stop(Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            assert {"loss", "val_loss"} <= set(logs)
            if epoch == 1:
                self.model.stop_training = True

    stop = Stop()
    history = small().fit(x, y, epochs=9, validation_data=(xv, yv), callbacks=[stop], verbose=0)
    assert stop.epochs == 2 and len(history.history["loss"]) == 2


def test_errors_name_the_argument(digits):
    (x, y), _ = digits
    model = nn.Sequential(nn.Linear(64, 10))
    with pytest.raises(OptionError, match="not compiled"):
        model.fit(x, y)
    with pytest.raises(OptionError, match="optimizer"):
        model.compile(optimizer="adamm", loss="mse")
    with pytest.raises(OptionError, match="loss"):
        model.compile(optimizer="adam", loss="nonsense")
    with pytest.raises(OptionError, match="metric"):
        model.compile(optimizer="adam", loss="cross_entropy", metrics=["nonsense"])
    model.compile(optimizer="adam", loss="cross_entropy")
    with pytest.raises(DataError, match="label 10"):
        model.fit(x, np.where(y == 9, 10, y))
    with pytest.raises(ShapeError, match="rows"):
        model.fit(x, y[:-1])
    with pytest.raises(DataError, match="NaN"):
        model.fit(x * np.nan, y)
    with pytest.raises(DataError, match="at least one row"):
        model.fit(x[:0], y[:0])
    with pytest.raises(ShapeError, match="64"):
        model.fit(x[:, :63], y)
    with pytest.raises(OptionError, match="batch_size"):
        model.fit(x, y, batch_size=0)
    with pytest.raises(OptionError, match="epochs"):
        model.fit(x, y, epochs=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
def test_a_model_of_float64_trains_in_float64(loss):
    y = np.arange(40) % 2 if loss == "cross_entropy" else np.eye(2)[np.arange(40) % 2]
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 2, rng=1)).double()
    model.compile(nanonet.optim.SGD(model.parameters(), lr=0.5), loss, ["accuracy"] if loss != "mse" else ["mae"])
    x = np.random.default_rng(0).normal(size=(len(y), 3))
    weight = {1: 0.5} if loss == "cross_entropy" else None
    history = model.fit(x, y, epochs=3, verbose=0, validation_data=(x, y), class_weight=weight)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert model.predict(x).dtype == np.float64 and model.evaluate(x, y)[0] > 0
    with nanonet.no_grad():
        np.testing.assert_array_equal(model.predict(x), model(nanonet.tensor(x, dtype="float64")).numpy())
