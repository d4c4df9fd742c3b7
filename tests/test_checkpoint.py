"""Checkpoints: what goes in comes out, bit for bit, and a damaged one never does."""

import hashlib
import json
import math
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nanonet import checkpoint
from nanonet.errors import CheckpointError, DtypeError

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", ">f4", ">i8"]

arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), arrays,
    hnp.arrays(np.float32, ()).map(lambda array: array[()]),
)  # fmt: skip
keys = st.one_of(st.text(max_size=5), st.integers(), st.sampled_from(["__metadata__", "a.b", "0"]))
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a, b) -> bool:
    """Whether two states have the same types and the same bits."""
    if isinstance(a, (np.ndarray, np.generic)):
        return (
            type(a) is type(b)
            and a.shape == b.shape
            and a.dtype.newbyteorder("=") == b.dtype
            and a.astype(b.dtype).tobytes() == b.tobytes()
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(map(same, a.values(), b.values()))
    return a == b


STATE = {
    "model": {"0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "0.bias": np.zeros(3)},
    "step": 7,
    "curve": [0.5, math.nan, -math.inf],
    "betas": (0.9, 0.999),
    "done": False,
    "note": None,
}


@given(state=states)
def test_what_goes_in_comes_out(state):
    content = checkpoint.dumps(state)
    assert same(state, checkpoint.loads(content))
    assert checkpoint.dumps(checkpoint.loads(content)) == content


@given(bits=st.integers(0, 2**64 - 1))
def test_every_float_keeps_its_bits(bits):
    (number,) = struct.unpack("<d", struct.pack("<Q", bits))
    assert same([number], checkpoint.loads(checkpoint.dumps([number])))


def test_arrays_come_out_fresh_writable_and_whole():
    state = {"fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)), "strided": np.arange(20)[::3]}
    loaded = checkpoint.loads(checkpoint.dumps(state))
    for name, array in state.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].flags.c_contiguous
        loaded[name][...] = 0
    first, second = checkpoint.loads(checkpoint.dumps([state["strided"], state["strided"]]))
    assert not np.shares_memory(first, second)


# --------------------------------------------------------------------------------------- damage


def test_every_flipped_byte_is_found():
    content = checkpoint.dumps(STATE)
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(CheckpointError):
            checkpoint.loads(damaged)


@given(state=states, data=st.data())
def test_any_damage_is_found(state, data):
    content = checkpoint.dumps(state)
    at = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.integers(1, 255))
    damaged = bytearray(content)
    damaged[at] ^= change
    shorter = content[:at]
    without = content[:at] + content[at + 1 :]
    longer = content[:at] + bytes([change]) + content[at:]
    for wrong in (damaged, shorter, without, content + bytes([change]), longer):
        if wrong != content:
            with pytest.raises(CheckpointError):
                checkpoint.loads(wrong)


@given(content=st.binary(max_size=300))
def test_other_bytes_are_no_checkpoint(content):
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.loads(content)


def signed(header: dict, data: bytes = b"") -> bytes:
    """A file with a right checksum, whatever the header says."""
    text = json.dumps(header, separators=(",", ":")).encode()
    content = struct.pack("<Q", len(text)) + text + data
    return content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode(), 1)


def metadata(tree, **more):
    about = {"sha256": "0" * 64, "format": "nanonet state 2", "tree": tree, **more}
    return {"nanonet": json.dumps(about, separators=(",", ":"))}


def one_array(**about):
    """The header of a file with one array that is not as it should be."""
    return {
        "__metadata__": metadata({"array": "a"}),
        "a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8], **about},
    }


FORGED = {
    "another version": {"__metadata__": metadata(1, format="nanonet state 3")},
    "no tree": {"__metadata__": {"nanonet": json.dumps({"sha256": "0" * 64, "format": "nanonet state 2"})}},
    "nothing of ours": {"__metadata__": {"nanonet": json.dumps("0" * 64)}},
    "deep nesting": {"__metadata__": {"nanonet": "[" * 100_000 + "0" * 64}},
    "an unknown tag": {"__metadata__": metadata({"call": "print"})},
    "two tags": {"__metadata__": metadata({"map": [], "list": []})},
    "a missing array": {"__metadata__": metadata({"array": "a"})},
    "an object array": one_array(dtype="O"),
    "too little data": one_array(shape=[2], data_offsets=[0, 16]),
    "a negative shape": one_array(shape=[-2]),
    "a number for a shape": one_array(shape=1),
    "data before the data": one_array(data_offsets=[-8, 8]),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_right_checksum_over_nonsense_is_no_state(name):
    with pytest.raises(CheckpointError, match="not a state of this version|not a checkpoint"):
        checkpoint.loads(signed(FORGED[name], b"8" * 8))


# ---------------------------------------------------------------------------------------- files


def test_file_and_other_readers(tmp_path):
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, STATE)
    assert same(STATE, checkpoint.load(path))
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(path)
    assert set(tensors) == {"model.0.weight", "model.0.bias"}
    np.testing.assert_array_equal(tensors["model.0.weight"], STATE["model"]["0.weight"])


@given(state=states)
def test_safetensors_reads_every_checkpoint(state):
    pytest.importorskip("safetensors.numpy").load(checkpoint.dumps(state))


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "run"
    checkpoint.save(path, STATE)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"run: damaged"):
        checkpoint.load(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"run: not a checkpoint"):
        checkpoint.load(path)
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "other")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "run"
    checkpoint.save(path, {"epoch": 1})

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk is full"):
        checkpoint.save(path, {"epoch": 2})
    monkeypatch.undo()
    assert checkpoint.load(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": object()}}, "state.a.b is of type object"),
        ([1, {2, 3}], "state.1 is of type set"),
        ({"a": np.array(["x"])}, "state.a has dtype <U1"),
        ({"a": np.array([object()])}, "state.a has dtype object"),
        ({"a": np.zeros(2, np.complex128)}, "state.a has dtype complex128"),
        ({1.5: 1}, "the key 1.5"),
        ({True: 1}, "the key True"),
    ],
)
def test_what_cannot_be_stored_is_named(state, message):
    with pytest.raises(DtypeError, match=message):
        checkpoint.dumps(state)
