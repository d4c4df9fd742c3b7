"""State on disk: one file, readable by anything that reads safetensors, that loads whole or not at all.

A state is made of dicts (keys text or integers), lists, tuples, NumPy arrays and scalars, numbers, text,
booleans and None, nested at will. `loads(dumps(state))` gives the same types and the same bits.

    8 bytes              length of the header, little-endian
    header               JSON: {"__metadata__": {"sha256": 64 hex digits, "format": ..., "tree": ...}, tensors}
    data                 the arrays, little-endian, in C order

The tree is JSON too and refers to the arrays by name. The digest is over every byte of the file but its own
64, so that a byte changed, missing or added anywhere is found before anything is believed. There is no pickle
and nothing in a file is ever run.
"""

import hashlib
import json
import math
import os
import struct
from pathlib import Path

import numpy as np

from nanonet.errors import CheckpointError, DtypeError

__all__ = ["dumps", "load", "loads", "save"]

_FORMAT = "nanonet state 1"
_OPENING = b'{"__metadata__":{"sha256":"'
_DIGEST = slice(8 + len(_OPENING), 8 + len(_OPENING) + 64)

# The names that safetensors gives to NumPy's dtypes.
_DTYPES = {
    "BOOL": np.dtype(np.bool_), "U8": np.dtype("u1"), "I8": np.dtype("i1"), "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"), "U32": np.dtype("<u4"), "I32": np.dtype("<i4"), "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def save(path: str | os.PathLike, state: object) -> None:
    """Write `state` to one file, whole or not at all: whatever happens, `path` holds the old state or the new.

    Raises DtypeError for an array or a leaf that no checkpoint can hold, and OSError.
    """
    path = Path(path)
    content = dumps(state)
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def load(path: str | os.PathLike) -> object:
    """The state that `save` wrote. Raises CheckpointError if the file is damaged or of another kind, and OSError."""
    content = Path(path).read_bytes()
    try:
        return loads(content)
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from None


def dumps(state: object) -> bytes:
    """`state` as bytes. Equal states give equal bytes. Raises DtypeError."""
    arrays: dict[str, np.ndarray] = {}
    tree = json.dumps(_encode(state, "state", arrays), allow_nan=False, separators=(",", ":"))
    header = {"__metadata__": {"sha256": "0" * 64, "format": _FORMAT, "tree": tree}}
    data, at = [], 0
    for name in sorted(arrays, key=lambda name: -arrays[name].itemsize):  # stable; keeps every array aligned
        array = arrays[name]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        data.append(array.tobytes())
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = bytearray(b"".join([struct.pack("<Q", len(text)), text, *data]))
    content[_DIGEST] = _digest(content)
    return bytes(content)


def loads(content: bytes) -> object:
    """The state in `content`, arrays fresh and writable. Raises CheckpointError unless every byte is as written."""
    content = memoryview(content)
    if bytes(content[8 : _DIGEST.start]) != _OPENING:
        raise CheckpointError("not a checkpoint; wanted a file that nanonet saved")
    if bytes(content[_DIGEST]) != _digest(content):
        raise CheckpointError("damaged: the SHA-256 of its content is not the one written in it")
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(bytes(content[8 : 8 + length]))
        metadata = header.pop("__metadata__")
        if metadata["format"] != _FORMAT:
            raise ValueError(f"format is {metadata['format']!r}; wanted {_FORMAT!r}")
        data = content[8 + length :]
        arrays = {name: _array(data, **about) for name, about in header.items()}
        return _decode(json.loads(metadata["tree"]), arrays)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, struct.error, RecursionError) as error:
        raise CheckpointError(f"not a state of this version: {error}") from None


# --------------------------------------------------------------------------- the tree of a state
#
# JSON's own null, booleans, texts, integers, finite floats and lists stand for themselves. Every object is
# one of these tags:
#
#   {"map": [[key, value], ...]}   {"tuple": [...]}   {"float": "hex of a NaN or infinity"}
#   {"array": name}   {"scalar": name}   (NumPy's, the second an array without axes)


def _encode(value: object, path: str, arrays: dict[str, np.ndarray]) -> object:
    if isinstance(value, (np.ndarray, np.generic)):
        name = _free_name(path, arrays)
        arrays[name] = _plain(value, path)
        return {"array" if isinstance(value, np.ndarray) else "scalar": name}
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": struct.pack("<d", value).hex()}
    if kind in (list, tuple):
        items = [_encode(item, f"{path}.{i}", arrays) for i, item in enumerate(value)]
        return items if kind is list else {"tuple": items}
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise DtypeError(f"{path} has the key {key!r}; wanted text or integers as keys")
        return {"map": [[key, _encode(item, f"{path}.{key}", arrays)] for key, item in value.items()]}
    raise DtypeError(
        f"{path} is of type {kind.__name__}; wanted arrays, numbers, text, booleans, None, dicts and lists"
    )


def _decode(node: object, arrays: dict[str, np.ndarray]) -> object:
    if isinstance(node, list):
        return [_decode(item, arrays) for item in node]
    if not isinstance(node, dict):
        return node
    ((tag, content),) = node.items()
    if tag == "map":
        return {key: _decode(item, arrays) for key, item in content}
    if tag == "tuple":
        return tuple(_decode(item, arrays) for item in content)
    if tag == "float":
        return struct.unpack("<d", bytes.fromhex(content))[0]
    if tag == "array":
        return arrays[content]
    if tag == "scalar":
        return arrays[content][()]
    raise ValueError(f"unknown tag {tag!r}")


def _free_name(path: str, arrays: dict[str, np.ndarray]) -> str:
    """A name for the array at `path` that is not taken: "state.model.0.weight" is model.0.weight."""
    name = path.removeprefix("state.").encode("utf-8", "replace").decode()
    taken, number = name, 1
    while taken in arrays or taken == "__metadata__":
        number += 1
        taken = f"{name}#{number}"
    return taken


def _plain(value, path: str) -> np.ndarray:
    """The array as it is stored: little-endian, in C order."""
    array = np.asarray(value)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _NAMES:
        raise DtypeError(
            f"{path} has dtype {array.dtype}; wanted booleans, integers, floats up to 64 bits or complex64"
        )
    return array.astype(dtype, order="C", copy=False)


def _array(data: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    begin, end = data_offsets
    if not all(size >= 0 for size in (*shape, begin, end - begin)):
        raise ValueError(f"shape {shape} at {data_offsets}")
    flat = np.frombuffer(data[begin:end], dtype=_DTYPES[dtype])
    return flat.reshape(shape).astype(_DTYPES[dtype].newbyteorder("="))


# ------------------------------------------------------------------------------------------- bytes


def _digest(content) -> bytes:
    """SHA-256, in hex, of all of `content` but the 64 bytes where the digest itself stands."""
    whole = memoryview(content)
    digest = hashlib.sha256(whole[: _DIGEST.start])
    digest.update(whole[_DIGEST.stop :])
    return digest.hexdigest().encode()


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
