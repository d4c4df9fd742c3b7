"""State on disk: one safetensors file that loads whole or not at all.

A state is made of dicts (keys text or integers), lists, tuples, NumPy arrays and scalars, numbers, text,
booleans and None, nested at will. `loads(dumps(state))` gives the same types and the same bits.

The arrays are the file's tensors. Its metadata has one entry, "nanonet": JSON with the format, the tree, which
refers to the arrays by name, and a SHA-256 over every byte of the file, in which the digest's own 64 stand as
zeros. So a byte changed, missing or added anywhere is found before anything is believed. There is no pickle and
nothing in a file is ever run.
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

_FORMAT = "nanonet state 2"
_ENTRY = "nanonet"
_BLANK = "0" * 64
_KINDS = "?bBhHiIlLqQefd"


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
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    tree = _encode(state, "state", arrays)
    about = json.dumps({"sha256": _BLANK, "format": _FORMAT, "tree": tree}, allow_nan=False, separators=(",", ":"))
    content = bytearray(save(arrays, {_ENTRY: about}))
    place = _place(content, _BLANK)
    content[place] = _digest(content, place)
    return bytes(content)


def loads(content: bytes) -> object:
    """The state in `content`, arrays fresh and writable. Raises CheckpointError unless every byte is as written."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = bytes(content)
    try:
        (length,) = struct.unpack_from("<Q", content)
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_ENTRY])
        place = _place(content, about["sha256"])
    except (KeyError, TypeError, ValueError, IndexError, struct.error, RecursionError, OverflowError):
        raise CheckpointError("not a checkpoint; wanted a file that nanonet saved") from None
    if content[place] != _digest(content, place):
        raise CheckpointError("damaged: the SHA-256 of its content is not the one written in it")
    try:
        if about["format"] != _FORMAT:
            raise ValueError(f"format is {about['format']!r}; wanted {_FORMAT!r}")
        arrays = {name: np.array(array) for name, array in load(content).items()}
        return _decode(about["tree"], arrays)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, SafetensorError) as error:
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
    """The array as it is stored: in C order and the machine's byte order."""
    array = np.asarray(value)
    if array.dtype.char not in _KINDS:
        raise DtypeError(f"{path} has dtype {array.dtype}; wanted booleans, integers or floats up to 64 bits")
    return np.array(array, array.dtype.newbyteorder("="), order="C")


# ------------------------------------------------------------------------------------------- bytes


def _place(content: bytes, digest: str) -> slice:
    """Where the digest stands. Raises ValueError if it is none or stands nowhere."""
    if len(digest) != len(_BLANK):
        raise ValueError("the digest has another length")
    opening = b'{\\"sha256\\":\\"'
    start = content.index(opening + digest.encode()) + len(opening)
    return slice(start, start + len(digest))


def _digest(content: bytes, place: slice) -> bytes:
    """SHA-256, in hex, of `content` with zeros at `place`."""
    whole = memoryview(content)
    digest = hashlib.sha256(whole[: place.start])
    digest.update(_BLANK.encode())
    digest.update(whole[place.stop :])
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
