"""Whole networks: what they give, that they learn, recorded as well as eagerly, and what they reach on real data."""

import gzip
import struct

import numpy as np
import pytest
from conftest import SLOW

import nanonet
import nanonet.functional as F
from nanonet import callbacks, data, models, nn, optim
from nanonet.errors import OptionError

#: name -> (the network, the shape of its images, its number of parameters)
MODELS = {
    "vgg plain": (lambda: models.vgg(5, 1, (8,), 1, batch_norm=False, dropout=0.2, rng=0), (8, 8, 1), None),
    "lenet": (lambda: models.lenet(rng=0), (28, 28, 1), 61_706),
    "vgg": (lambda: models.vgg(classes=5, widths=(8, 16), rng=0), (16, 16, 3), None),
    "resnet20": (lambda: models.resnet20(rng=0), (32, 32, 3), 272_282),
    "alexnet": (lambda: models.alexnet(10, width=0.0625, rng=0), (63, 63, 3), None),
    "resnet18": (lambda: models.resnet18(10, width=0.125, rng=0), (32, 32, 3), None),
}


def parameters(model):
    return sum(p.size for p in model.parameters())


def test_the_layer_lists_are_those_of_the_papers():
    assert parameters(models.lenet()) == 61_706
    assert parameters(models.alexnet()) == 61_100_840
    assert parameters(models.resnet18()) == 11_689_512
    # the stem, six 3 x 3 convolutions in each of three stages, two 1 x 1 shortcuts; two normalizations per block
    convolutions = 432 + 6 * 16 * 16 * 9 + (16 * 32 + 5 * 32 * 32) * 9 + (32 * 64 + 5 * 64 * 64) * 9 + 16 * 32 + 32 * 64
    norms = 2 * (6 * 16 + (16 + 5 * 32) + (32 + 5 * 64) + 64)
    assert parameters(models.resnet20()) == convolutions + norms + 650


@pytest.mark.parametrize("name", MODELS)
def test_a_model_learns_recorded_as_eagerly_and_is_stored(name, tmp_path, backend_in_use):
    make, shape, _ = MODELS[name]
    if backend_in_use.name in SLOW and name in ("alexnet", "resnet18", "resnet20"):
        pytest.skip(f"{backend_in_use.name}: too slow for a network of this size")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, *shape)).astype(np.float32), np.array([0, 1, 2, 3])
    runs = []
    for record in (False, True):
        model = make()
        assert model(x).shape == (4, 5 if "vgg" in name else 10)
        optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = nanonet.jit(step) if record else step
        runs.append([run(x, y).item() for _ in range(8)])
        assert not record or len(run.recordings) == 1
    assert runs[0] == runs[1]
    assert np.mean(runs[0][-2:]) < runs[0][0]
    model.save(tmp_path / "model")
    again = make().load(tmp_path / "model")
    np.testing.assert_array_equal(again.eval()(x).numpy(), model.eval()(x).numpy())


def test_options_that_make_no_network_are_named():
    with pytest.raises(OptionError, match="lenet: size is 8"):
        models.lenet(size=8)
    with pytest.raises(OptionError, match="width is 0"):
        models.resnet20(width=0)
    with pytest.raises(OptionError, match=r"vgg: widths is \(\)"):
        models.vgg(widths=())


# -------------------------------------------------------------------------------- real data


def test_a_convolutional_network_reaches_99_percent_of_digits(backend_in_use):
    """On a fifth of the rows, drawn before training, which has no part in it."""
    if backend_in_use.name in SLOW:
        pytest.skip(f"{backend_in_use.name}: too slow for a training of this size")
    digits = data.digits(images=True)
    parts = data.split(digits.x / 16, digits.y, test=0.2, seed=0)
    model = models.vgg(10, 1, (32, 64), 2, dropout=0.3, rng=0)
    nanonet.seed(0)
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    model.compile(optimizer, nn.CrossEntropyLoss(label_smoothing=0.1), ["accuracy"])
    cosine = callbacks.LearningRateScheduler(lambda epoch: 1e-3 * (1 + np.cos(np.pi * epoch / 40)))
    model.fit(parts.train.x, parts.train.y, batch_size=32, epochs=40, verbose=0, callbacks=[cosine])
    _, accuracy = model.evaluate(parts.test.x, parts.test.y)
    assert accuracy >= 0.99


def write_idx(path, array, compress):
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


def test_a_convolutional_network_trains_on_idx_files(tmp_path, backend_in_use):
    if backend_in_use.name in SLOW:
        pytest.skip(f"{backend_in_use.name}: too slow for a training of this size")
    digits = data.digits(images=True)
    shown = (digits.x[..., 0] * 15).astype(np.uint8)
    for part, rows, compress in (("train", slice(0, 1200), True), ("t10k", slice(1200, None), False)):
        end = ".gz" if compress else ""
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{end}", shown[rows], compress)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{end}", digits.y[rows], compress)
    found = data.load(tmp_path)
    assert found.x.shape == (1200, 8, 8, 1) and found.x_test.shape == (597, 8, 8, 1)
    nanonet.seed(0)
    model = models.vgg(10, 1, (16, 32), 1, rng=0)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    history = model.fit(found.x / 255, found.y, batch_size=32, epochs=8, verbose=0, validation_split=0.1)
    assert history.history["loss"][-1] < history.history["loss"][0] / 2
    assert model.evaluate(found.x_test / 255, found.y_test)[1] > 0.85
