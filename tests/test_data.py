"""Loading, splitting, scaling and batching data."""

import gzip
import itertools
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonet import data
from nanonet.errors import DataError, DtypeError, OptionError, ShapeError

# ---------------------------------------------------------------------------------------- digits


def test_digits_are_the_ones_everybody_knows():
    digits = data.digits()
    assert digits.x.shape == (1797, 64)
    assert digits.x.dtype == np.float32
    assert digits.y.dtype == np.int64
    assert np.bincount(digits.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.class_names == tuple("0123456789")
    assert (digits.x.min(), digits.x.max(), digits.outputs, digits.task) == (0, 16, 10, "classification")
    assert digits.feature_names[:2] == ("pixel_0_0", "pixel_0_1")
    images = data.digits(images=True)
    np.testing.assert_array_equal(images.x.reshape(-1, 64), digits.x)
    assert images.x.shape == (1797, 8, 8, 1)


def test_digits_are_scikit_learns():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    ours = data.load("digits")
    np.testing.assert_array_equal(ours.x, theirs.data)
    np.testing.assert_array_equal(ours.y, theirs.target)


def test_digits_cannot_be_spoilt():
    data.digits().x[:] = 0
    data.digits().y[:] = 0
    assert data.digits().x.max() == 16
    assert data.digits().y.max() == 9


# ---------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("y", "task", "outputs"),
    [
        ([0, 1, 0, 1], "classification", 2),
        ([3.0, 7.0, 3.0, 7.0], "classification", 2),
        (["a", "b", "c", "a"], "classification", 3),
        (np.array(["a", "b", "a", "a"], dtype=object), "classification", 2),
        ([True, False, True, True], "classification", 2),
        ([[0, 1], [1, 0], [0, 1], [0, 1]], "classification", 2),
        ([[0], [1], [0], [1]], "classification", 2),
        ([0, 1, 2, 3], "regression", 1),
        ([0.5, 1.0, 0.5, 1.0], "regression", 1),
        ([[0.5, 1.0], [1, 2], [2, 3], [3, 4]], "regression", 2),
    ],
)
def test_the_task_is_guessed(y, task, outputs):
    dataset = data.from_arrays(np.zeros((4, 2)), y)
    assert (dataset.task, dataset.outputs) == (task, outputs)
    assert dataset.y.dtype == (np.int64 if task == "classification" else np.float32)


def test_many_classes_are_classes_if_they_are_counted():
    y = np.arange(500) % 100
    x = np.zeros((500, 1))
    assert data.from_arrays(x, y).task == "classification"
    assert data.from_arrays(x, y + 5).task == "regression"
    assert data.from_arrays(x, y + 5, task="classification").outputs == 100
    assert data.from_arrays(x, y % 3, task="regression").y.dtype == np.float32


def test_class_names_and_schema():
    first = data.from_arrays(np.zeros((4, 2)), [7, 3, 7, 3])
    assert first.class_names == ("3", "7")
    assert first.y.tolist() == [1, 0, 1, 0]
    schema = json.loads(json.dumps(first.schema))
    again = data.from_arrays(np.ones((2, 2)), [7, 7], schema=schema)
    assert again.y.tolist() == [1, 1]
    assert again.class_names == first.class_names
    assert data.from_arrays(np.ones((2, 2)), schema=schema).y is None
    with pytest.raises(DataError, match="y holds '4' in row 1; wanted one of 3, 7"):
        data.from_arrays(np.ones((2, 2)), [7, 4], schema=schema)
    with pytest.raises(ShapeError, match=r"rows of shape \(3,\); wanted \(2,\)"):
        data.from_arrays(np.ones((2, 3)), schema=schema)
    images = data.from_arrays(np.zeros((4, 2, 2, 1)), [0, 1, 0, 1]).schema
    assert data.from_arrays(np.zeros((3, 4)), schema=images).x.shape == (3, 2, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0, 2.0], [0, 1]), ShapeError, r"x has shape \(2,\)"),
        ((np.zeros((0, 3)), []), DataError, r"x has shape \(0, 3\); wanted at least one row"),
        ((np.zeros((3, 0)), [0, 1, 1]), DataError, "at least one row and one feature"),
        (([["a"], ["b"]], [0, 1]), DtypeError, "x has dtype <U1"),
        (([[1.0, 2.0], [1.0, np.nan]], [0, 1]), DataError, "x holds nan in row 1, feature 1"),
        (([[1.0], [1e39]], [0, 1]), DataError, "x holds inf in row 1, feature 0; wanted finite float32"),
        (([[1.0], [1.0]], [0, 1, 1]), ShapeError, r"y has shape \(3,\) and its inputs 2 rows"),
        (([[1.0], [1.0]], [0.5, np.inf]), DataError, "y holds inf in row 1"),
        (([[1.0], [1.0]], [None, 1]), DataError, "y has dtype object"),
        (([[1.0], [1.0]], None), DataError, "y is None"),
        (([[1.0], [1.0]], ["a", "a"]), DataError, "y holds only the class 'a'"),
        (([[1.0], [1.0]], ["a", "b"], "regression"), DataError, "y holds the text 'a'"),
        (([[1.0], [1.0]], [[0.5, 2], [1, 2]], "classification"), ShapeError, "one-hot"),
        (([[1.0], [1.0]], [0, 1], "classify"), OptionError, "did you mean 'classification'"),
    ],
)
def test_bad_arrays_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        data.from_arrays(*arguments)


# ------------------------------------------------------------------------------------------- CSV

IRIS = """\
length,colour,width,kind
1.5,red,2,setosa
2.5,blue,3,virginica

3.5,"dark, red",4,setosa
4.5,red,5e0,virginica
"""


@pytest.fixture
def csv_file(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_table_of_numbers_and_text(csv_file):
    table = data.load(csv_file(IRIS), target="kind")
    assert table.feature_names == ("length", "colour=blue", "colour=dark, red", "colour=red", "width")
    assert table.x.tolist() == [[1.5, 0, 0, 1, 2], [2.5, 1, 0, 0, 3], [3.5, 0, 1, 0, 4], [4.5, 0, 0, 1, 5]]
    assert table.class_names == ("setosa", "virginica")
    assert table.y.tolist() == [0, 1, 0, 1]
    assert (table.task, table.target, table.name) == ("classification", "kind", "table")


def test_the_same_columns_by_name_later(csv_file):
    table = data.read_csv(csv_file(IRIS), "kind")
    schema = json.loads(json.dumps(table.schema))
    again = data.load(csv_file("width,id,length,colour\n9,a,8,red\n7,b,6,blue\n", "new.csv"), schema=schema)
    assert again.x.tolist() == [[8, 0, 0, 1, 9], [6, 1, 0, 0, 7]]
    assert again.y is None
    assert again.feature_names == table.feature_names
    labelled = data.load(csv_file("kind,width,length,colour\nvirginica,9,8,red\n", "new.csv"), schema=schema)
    assert labelled.y.tolist() == [1]
    for text, message in [
        ("width,length\n1,2\n", "no column 'colour'"),
        ("width,length,colour\n1,2,green\n", "line 2, column 'colour': is 'green'; wanted one of blue, dark, red, red"),
        ("width,length,colour\nx,2,red\n", "line 2, column 'width': is 'x'; wanted a finite number"),
        ("width,length,colour,kind\n1,2,red,setosa\n\n1,2,red,rose\n", "column 'kind' holds 'rose' in line 4"),
    ]:
        with pytest.raises(DataError, match=message):
            data.load(csv_file(text, "new.csv"), schema=schema)


def test_columns_without_names_are_taken_as_they_come(csv_file):
    schema = data.digits(images=True).schema
    row = data.digits().x[5]
    header = ",".join(f"p{i}" for i in range(64))
    path = csv_file(f"{header},digit\n{','.join(map(str, row))},5\n")
    found = data.load(path, schema=schema)
    np.testing.assert_array_equal(found.x[0], row.reshape(8, 8, 1))
    assert found.y.tolist() == [5]
    with pytest.raises(DataError, match=r"rows of shape \(1,\); wanted \(8, 8, 1\)"):
        data.load(csv_file("a,digit\n1,2\n"), schema=schema)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a;b\n1;2\n3;4\n", [1, 3]),
        ("a\tb\r\n1\t2\r\n3\t4\r\n", [1, 3]),
        ("\ufeffa,b\n 1 , 2\n3,4", [1, 3]),
    ],
    ids=["semicolons", "tabs", "byte order mark"],
)
def test_dialects(csv_file, text, values):
    table = data.read_csv(csv_file(text), "b", task="regression")
    assert table.x[:, 0].tolist() == values
    assert table.y.tolist() == [2, 4]


@given(
    rows=st.lists(
        st.tuples(st.floats(-1e30, 1e30), st.sampled_from(["x", "y, z", '"', "ä\nö"])), min_size=2, max_size=9
    )
)
def test_what_csv_writes_is_read(rows, tmp_path_factory):
    import csv

    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "number"), *((text, number) for number, text in rows)])
    table = data.read_csv(path, "number", task="regression")
    np.testing.assert_array_equal(table.y, np.array([number for number, _ in rows], np.float32))
    names = [name.removeprefix("text=") for name in table.feature_names]
    assert [names[i] for i in table.x.argmax(axis=1)] == [text for _, text in rows]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 lines; wanted a header"),
        ("a,b\n", "has 1 lines"),
        ("1,2\n3,4\n", "line 1: holds only numbers; wanted a header"),
        ("a,,b\n1,2,3\n", "line 1: column 2 has no name"),
        ("a,a,b\n1,2,3\n", "line 1: the column 'a' occurs twice"),
        ("a,b\n1,2\n3\n", "line 3: has 1 values; wanted 2"),
        ("a,b\n1,2\n3,4,5\n", "line 3: has 3 values; wanted 2"),
        ("a,b\n1,2\n,4\n", "line 3, column 'a': is ''; wanted a value"),
        ("a,b\n1,2\nNaN,4\n", "line 3, column 'a': is 'NaN'; wanted a value"),
        ("a,b\n1,2\n2,NA\n", "line 3, column 'b': is 'NA'; wanted a value"),
        ("a,b\n1,2\n1,2\n1o,4\n", "line 4, column 'a': is '1o'; wanted a finite number"),
        ("a,b\n1,2\n1,2\ninf,4\n", "line 4, column 'a': is 'inf'; wanted a finite number"),
        ("a,b\n1,2\n1e39,4\n", "line 3, column 'a': is '1e39'; wanted a finite float32 number"),
        ("b\n1\n2\n", "no column besides the target 'b'"),
        ("a,c\n1,2\n", "no target column 'b'; wanted one of a, c"),
        ("a,b\n1,z\n2,z\n", "column 'b' holds only the class 'z'"),
        ('a,b\n"1,2\n', "wanted a CSV file"),
        (b"a,b\n\xff\xfe,2\n", "byte 4 is not UTF-8"),
        ("a,b\n" + "".join(f"n{i},{i}\n" for i in range(101)), "column 'a' holds 101 different texts"),
    ],
)
def test_a_broken_table_is_named(csv_file, text, message):
    with pytest.raises(DataError, match=message) as caught:
        data.read_csv(csv_file(text), "b")
    assert "table.csv" in str(caught.value)


def test_a_table_wants_a_target(csv_file):
    with pytest.raises(DataError, match="no target column given; wanted one of length, colour, width, kind"):
        data.load(csv_file(IRIS))


# ------------------------------------------------------------------------------------ NPZ and IDX


def test_npz(tmp_path):
    path = tmp_path / "d.npz"
    x, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 1, 0])
    np.savez(path, x=x, y=y)
    dataset = data.load(path)
    np.testing.assert_array_equal(dataset.x, x)
    assert dataset.x_test is None
    np.savez_compressed(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    dataset = data.load(path)
    assert dataset.x_test.shape == (1, 3)
    assert dataset.y_test.tolist() == [0]
    np.savez(path, x=x)
    assert data.load(path, schema=dataset.schema).y is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 2))}, "holds x; wanted the arrays x and y"),
        ({"a": np.zeros(2)}, "holds a; wanted the arrays x and y"),
        ({"x": np.zeros((2, 2)), "y": np.array([{}, []], dtype=object)}, "no .npz file of plain arrays"),
        ({"x": np.zeros((2, 2)), "y": np.zeros(3)}, "y has shape"),
        ({"x": np.array([["a"]]), "y": np.zeros(1)}, "x has dtype"),
        ({"x": np.full((2, 2), np.nan), "y": np.zeros(2)}, "x holds nan in row 0"),
        ({"x": np.zeros((4, 2)), "y": np.array([0, 1, 0, 1]), "x_test": np.zeros((1, 2))}, "wanted both or neither"),
    ],
)
def test_a_broken_npz_is_named(tmp_path, arrays, message):
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        data.load(path)
    assert "d.npz" in str(caught.value)


@given(flip=st.integers(0, 10**6), cut=st.integers(0, 10**6))
def test_a_damaged_npz_is_data_or_a_named_error(tmp_path_factory, flip, cut):
    path = tmp_path_factory.mktemp("npz") / "d.npz"
    np.savez(path, x=np.arange(12.0).reshape(4, 3), y=np.array([0, 1, 1, 0]))
    content = bytearray(path.read_bytes())
    content[flip % len(content)] ^= 255
    for damaged in (content, content[: cut % len(content)]):
        path.write_bytes(damaged)
        try:
            data.load(path)
        except DataError as error:
            assert "d.npz" in str(error)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 12), ("t10k", 4)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 5, 4), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(n) % 3).astype(np.uint8)
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path, arrays


@pytest.mark.parametrize("spelling", ["plain", "gz", "dots"])
def test_idx(idx_folder, spelling):
    folder, arrays = idx_folder
    for name in arrays:
        file = folder / name
        if spelling == "gz":
            (folder / f"{name}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
            file.unlink()
        elif spelling == "dots":
            file.rename(folder / name.replace("-idx", ".idx"))
    dataset = data.load(folder)
    np.testing.assert_array_equal(dataset.x[..., 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.y, arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(dataset.x_test[..., 0], arrays["t10k-images-idx3-ubyte"])
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.x.shape == (12, 5, 4, 1)


def test_idx_without_a_test_part_and_of_other_numbers(idx_folder):
    folder, _ = idx_folder
    for part in ("images-idx3", "labels-idx1"):
        (folder / f"t10k-{part}-ubyte").unlink()
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(">f4")
    (folder / "train-images-idx3-ubyte").write_bytes(idx(x, 0x0D))
    dataset = data.read_idx(folder)
    assert dataset.x_test is None
    np.testing.assert_array_equal(dataset.x, x)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"", "wanted an IDX file"),
        ("train-images-idx3-ubyte", b"\x89PNG....", "wanted an IDX file"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0", "for the sizes of its 3 axes"),
        ("train-images-idx3-ubyte", idx(np.zeros((12, 5, 4), np.uint8))[:-1], "has 255 bytes; wanted 256"),
        ("train-images-idx3-ubyte", idx(np.zeros((12, 5, 4), np.uint8)) + b"0", "has 257 bytes; wanted 256"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "wanted .* for shape"),
        ("train-images-idx3-ubyte", idx(np.zeros((11, 5, 4), np.uint8)), r"has shape \(11, 5, 4\)"),
        ("train-labels-idx1-ubyte", None, "has no train-labels file beside"),
        ("t10k-labels-idx1-ubyte", idx(np.full(4, 9, np.uint8)), "y_test holds '9' in row 0"),
    ],
)
def test_a_broken_idx_folder_is_named(idx_folder, name, content, message):
    folder, _ = idx_folder
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"123" * 99, mtime=0)[:-5], gzip.compress(b"", mtime=0)]
)
def test_a_broken_gzip_is_named(idx_folder, content):
    folder, _ = idx_folder
    (folder / "train-images-idx3-ubyte").unlink()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: "):
        data.load(folder)


def test_what_is_no_data_is_named(tmp_path):
    for source, message in [
        (tmp_path, "has no train-images-idx3-ubyte"),
        (tmp_path / "x.csv", "x.csv: cannot be read .No such file"),
        (tmp_path / "x.npz", "x.npz: there is no such file"),
        (tmp_path / "x.png", "x.png: wanted digits, a .csv file"),
        ("digit", "digit: wanted digits"),
    ]:
        with pytest.raises(DataError, match=message):
            data.load(source)
    with pytest.raises(DataError, match="is no folder"):
        data.read_idx(tmp_path / "x")
    (tmp_path / "y.csv").mkdir()
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory"):
        data.load(tmp_path / "y.csv", "a")


# ------------------------------------------------------------------------------------- splitting

shares = st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.4]), st.sampled_from([0.0, 0.15, 0.3, 0.5]))


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    share=shares,
    seed=st.integers(0, 9),
    stratify=st.booleans(),
)
def test_parts_are_all_the_rows_once(sizes, share, seed, stratify):
    y = np.repeat(np.arange(len(sizes)), sizes)
    validation, test = share
    try:
        train, validated, tested = data.split_rows(y, validation, test, stratify, seed)
    except DataError:
        assert len(y) * min(s for s in share if s) < 1 or max(sizes) < 4
        return
    assert sorted(np.concatenate([train, validated, tested])) == list(range(len(y)))
    if stratify:
        for label, size in enumerate(sizes):
            assert np.sum(y[train] == label) >= 1
            assert np.sum(y[tested] == label) <= np.ceil(size * test + 1e-9)
            assert np.sum(y[validated] == label) <= np.ceil(size * validation + 1e-9)
            if size > 20:
                assert np.sum(y[tested] == label) >= np.floor(size * test)
    again = data.split_rows(y, validation, test, stratify, seed)
    for a, b in zip(again, (train, validated, tested), strict=True):
        np.testing.assert_array_equal(a, b)


def test_split_of_digits():
    digits = data.digits()
    parts = data.split(digits.x, digits.y, seed=3)
    assert [len(part.y) for part in parts] == [1079, 359, 359]
    for part in parts:
        assert part.x.shape == (len(part.y), 64)
        np.testing.assert_allclose(np.bincount(part.y) / len(part.y), np.bincount(digits.y) / 1797, atol=0.004)
    other = data.split(digits.x, digits.y, seed=4)
    assert not np.array_equal(parts.test.x, other.test.x)
    x_train, x_test, _, y_test = data.train_test_split(digits.x, digits.y, 0.2, seed=3)
    np.testing.assert_array_equal(np.sort(y_test), np.sort(parts.test.y))
    assert len(x_train) == 1438
    assert len(x_test) == 359


def test_real_targets_and_texts_are_split_too():
    x = np.arange(10)[:, None]
    parts = data.split(x, x[:, 0] / 3, 0.2, 0.3)
    assert [len(part.y) for part in parts] == [5, 2, 3]
    np.testing.assert_allclose(parts.test.x[:, 0] / 3, parts.test.y)
    parts = data.split(x, ["a", "b"] * 5, 0.2, 0.2)
    assert sorted(parts.test.y) == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation": 1.0}, OptionError, r"validation is 1.0; wanted a number in \[0, 1\)"),
        ({"test": -0.1}, OptionError, "test is -0.1"),
        ({"test": "0.1"}, OptionError, "test is '0.1'"),
        ({"test": 0.5, "validation": 0.5}, OptionError, "together wanted less than 1"),
        ({"test": 0.01}, DataError, "too few for a test part of 0.01"),
    ],
)
def test_bad_shares_are_named(options, error, message):
    with pytest.raises(error, match=message):
        data.split(np.zeros((10, 1)), np.zeros(10, int), **options)


def test_x_and_y_belong_together():
    with pytest.raises(ShapeError, match="same number of rows"):
        data.split(np.zeros((3, 1)), [1, 2])
    with pytest.raises(ShapeError, match="same number of rows"):
        data.StratifiedKFold(2).split(np.zeros((3, 1)), [1, 2])


@given(n=st.integers(2, 60), k=st.integers(2, 7), shuffle=st.booleans(), kinds=st.integers(1, 4))
def test_folds_are_all_the_rows_once(n, k, shuffle, kinds):
    x, y = np.zeros((n, 1)), np.arange(n) ** 2 % kinds
    for folds in (data.KFold(k, shuffle, seed=1), data.StratifiedKFold(k, shuffle, seed=1)):
        if n < k:
            with pytest.raises(DataError, match="folds want at least"):
                folds.split(x, y)
            continue
        pairs = list(folds.split(x, y))
        assert len(pairs) == k
        assert sorted(np.concatenate([held for _, held in pairs])) == list(range(n))
        sizes = [len(held) for _, held in pairs]
        assert max(sizes) - min(sizes) <= 1
        for train, held in pairs:
            assert sorted([*train, *held]) == list(range(n))
        if isinstance(folds, data.StratifiedKFold):
            for label in range(kinds):
                counts = [np.sum(y[held] == label) for _, held in pairs]
                assert max(counts) - min(counts) <= 1


def test_folds_want_labels_and_at_least_two():
    with pytest.raises(OptionError, match="k is 1; wanted an integer of at least 2"):
        data.StratifiedKFold(1)
    with pytest.raises(DataError, match="or use KFold"):
        data.StratifiedKFold(2).split(np.zeros((3, 1)), [0.5, 1.5, 2.5])


# --------------------------------------------------------------------------------------- scaling


@given(seed=st.integers(0, 99), per=st.sampled_from([None, "feature", "channel", "all"]), images=st.booleans())
def test_mean_0_and_deviation_1(seed, per, images):
    rng = np.random.default_rng(seed)
    x = rng.normal(5, 3, (40, 4, 3, 2) if images else (40, 6))
    z = data.Standardizer(per).fit_transform(x)
    axes = {"feature": (0,), "channel": tuple(range(x.ndim - 1)), "all": tuple(range(x.ndim))}
    axes = axes[per or ("channel" if images else "feature")]
    np.testing.assert_allclose(z.mean(axis=axes), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=axes), 1, rtol=1e-12)


def test_scaling_agrees_with_scikit_learn():
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    x = data.digits().x
    np.testing.assert_allclose(data.Standardizer().fit_transform(x), scaler.fit_transform(x.astype(float)), atol=2e-5)


def test_measured_on_one_part_and_applied_to_another():
    train, other = np.array([[0.0], [2.0]]), np.array([[4.0]])
    scale = data.Standardizer().fit(train)
    assert scale.transform(other).tolist() == [[3.0]]
    assert scale.inverse([[3.0]]).tolist() == [[4.0]]
    again = data.Standardizer.from_state(scale.state())
    assert again.transform(other).tolist() == [[3.0]]


def test_what_is_constant_becomes_0():
    x = np.array([[0.1, 1e7, 1.0], [0.1, 1e7, 2.0], [0.1, 1e7, 4.0]], np.float32)
    scale = data.Standardizer().fit(x)
    z = scale.transform(x)
    assert z.dtype == np.float32
    assert (z[:, :2] == 0).all()
    np.testing.assert_allclose(scale.inverse(z), x, rtol=1e-6)
    assert np.isfinite(data.Standardizer("all").fit_transform(np.ones((3, 2)))).all()
    assert data.Standardizer().fit_transform(np.array([[1], [3]], np.uint8)).tolist() == [[-1.0], [1.0]]


def test_targets_can_be_scaled_too():
    y = np.array([1.0, 3.0], np.float32)
    scale = data.Standardizer().fit(y)
    assert scale.transform(y).tolist() == [-1.0, 1.0]
    assert scale.inverse(scale.transform(y)).tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda s: s.transform([[1.0]]), OptionError, "not fitted"),
        (lambda s: s.fit(np.zeros((0, 2))), DataError, "at least one row"),
        (lambda s: s.fit([[np.nan]]), DataError, "NaN"),
        (lambda s: s.fit(["a"]), DtypeError, "real numbers"),
        (lambda s: s.fit(1.0), ShapeError, "single number"),
        (lambda s: s.fit([[1.0, 2.0]]).transform([[1.0]]), ShapeError, r"fitted on \(n, ..., 2\)"),
        (lambda s: data.Standardizer("pixel"), OptionError, "feature, channel, all"),
    ],
)
def test_bad_scaling_is_named(use, error, message):
    with pytest.raises(error, match=message):
        use(data.Standardizer())


# --------------------------------------------------------------------------------------- batches


@given(n=st.integers(0, 50), size=st.integers(1, 60), epoch=st.integers(0, 3), shuffle=st.booleans())
def test_batches_hold_every_row_once(n, size, epoch, shuffle):
    rows = list(data.batches(n, size, seed=1, epoch=epoch, shuffle=shuffle))
    assert sorted(itertools.chain(*rows)) == list(range(n))
    assert all(len(batch) == size for batch in rows[:-1])
    whole = list(data.batches(n, size, seed=1, epoch=epoch, shuffle=shuffle, drop_last=True))
    assert len(whole) == n // size
    for a, b in zip(whole, rows, strict=False):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        np.concatenate([*rows, []]), data.order(n, 1, epoch) if shuffle else np.arange(n)
    )  # fmt: skip


def test_each_epoch_has_an_order_of_its_own():
    orders = {(seed, epoch): data.order(50, seed, epoch).tobytes() for seed in range(4) for epoch in range(4)}
    assert len(set(orders.values())) == 16
    assert data.order(50, 2, 3).tobytes() == orders[2, 3]


def test_a_loop_of_ones_own():
    x, y = np.arange(10)[:, None], np.arange(10)
    loader = data.Batches(x, y, batch_size=4, seed=0)
    assert len(loader) == 3
    assert len(data.Batches(x, y, 4, drop_last=True)) == 2
    epochs = []
    for _ in range(2):
        parts = list(loader)
        assert [len(part) for part, _ in parts] == [4, 4, 2]
        for part, targets in parts:
            np.testing.assert_array_equal(part[:, 0], targets)
        epochs.append(np.concatenate([targets for _, targets in parts]).tolist())
    assert epochs[0] != epochs[1]
    assert epochs == [data.order(10, 0, epoch).tolist() for epoch in (0, 1)]
    loader.epoch = 1
    assert np.concatenate([targets for _, targets in loader]).tolist() == epochs[1]
    assert [len(part) for part in data.Batches(x, batch_size=5, shuffle=False)] == [5, 5]


def test_one_hot():
    assert data.one_hot([1, 0]).tolist() == [[0, 1], [1, 0]]
    assert data.one_hot([1.0], 3, np.float64).tolist() == [[0, 1, 0]]
    assert data.one_hot([]).shape == (0, 0)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: data.batches(5, 0), OptionError, "batch_size is 0; wanted an integer of at least 1"),
        (lambda: data.batches(5, 2.5), OptionError, "batch_size is 2.5"),
        (lambda: data.batches(-1, 2), OptionError, "n is -1"),
        (lambda: data.Batches([[1]], [1, 2]), ShapeError, "same number of rows"),
        (lambda: data.Batches([]), DataError, "at least one row"),
        (lambda: data.Batches([[1]], batch_size=True), OptionError, "batch_size is True"),
        (lambda: data.one_hot([3], 3), DataError, "y holds 3 in row 0; wanted labels from 0 to 2"),
        (lambda: data.one_hot([-1]), DataError, "y holds -1 in row 0"),
        (lambda: data.one_hot([0.5]), DataError, "whole numbers"),
        (lambda: data.one_hot([[1]]), ShapeError, r"wanted \(n,\)"),
    ],
)
def test_bad_batches_are_named(use, error, message):
    with pytest.raises(error, match=message):
        use()
