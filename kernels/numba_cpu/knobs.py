"""Which constants of the kernels may be set for a machine, and the values that were found for this one.

A knob is a constant of one of these modules, or of several that share it: the table says where it stands and which
values it may take; what it means is said where it stands. `nanonet doctor --tune` searches them and keeps what wins in
a file beside the folders of compiled kernels; it is read when the backend is first used. A file that is damaged, or
made for another table, is left aside with a warning. NANONET_TUNED=0 leaves it aside in any case.

Knobs change how work is cut up, so with other values the last bits of a result may differ, as sums are added in another
order. The same values give the same bits, whatever the number of threads.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from kernels.numba_cpu import compiler, threads
from kernels.numba_cpu.host import host

__all__ = ["KNOBS", "Knob", "defaults", "forget", "in_use", "kept", "load", "path", "save", "use"]

FORMAT = 1


def _powers(low: int, high: int) -> tuple[int, ...]:
    return tuple(1 << k for k in range(low, high + 1))


@dataclass(frozen=True)
class Knob:
    """name: group.what. places: module.CONSTANT of this package, one or more with the same value. values: ascending.

    shares_work: it says from how much work on threads share it; of no effect with one thread.
    """

    name: str
    places: tuple[str, ...]
    values: tuple[float, ...]
    shares_work: bool = False

    @property
    def group(self) -> str:
        return self.name.split(".")[0]


KNOBS = {
    knob.name: knob
    for knob in (
        # Matrix products. The panel and NC are constants of compiled code, whose name tells them (blocking.variant).
        Knob("matmul.kc", ("gemm.KC",), (128, 192, 256, 320, 384, 512, 640, 768, 1024)),
        Knob("matmul.block", ("gemm.BLOCK",), tuple(k << 10 for k in (64, 96, 128, 192, 256, 384, 512, 768, 1024))),
        Knob("matmul.nc", ("blocking.NC", "gemm.NC"), (512, 1024, 2048, 4096, 8192)),
        Knob("matmul.panel", ("blocking.PANEL",), (0, 2, 3)),
        Knob("matmul.many", ("gemm.MANY",), _powers(6, 10)),
        Knob("matmul.near", ("gemm.NEAR",), _powers(18, 23)),
        Knob("share.products", ("gemm.LEAST", "conv.LEAST", "winograd.LEAST"), _powers(15, 24), True),
        # Convolutions.
        Knob("convolution.band", ("correlation.BAND",), _powers(15, 20)),
        Knob("convolution.pixels", ("correlation.PIXELS",), (48, 96, 192, 384, 768)),
        Knob("convolution.units", ("correlation.UNITS",), (1, 2, 4, 8)),
        Knob("convolution.gradient_band", ("conv_weight.BAND",), (96, 192, 384, 768, 1536)),
        Knob("winograd.gain", ("winograd._GAIN",), (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 1.0, 1.15, 1.3)),
        Knob("winograd.v_bytes", ("winograd.V_BYTES",), _powers(18, 22)),
        Knob("winograd.u_bytes", ("winograd.U_BYTES",), _powers(21, 25)),
        Knob("winograd.tiles", ("winograd.MOST_TILES",), (48, 64, 96, 128, 192)),
        Knob("winograd.panels", ("winograd.GROUP",), (1, 2, 4, 8)),
        Knob("winograd.spread_bytes", ("winograd.SPREAD_BYTES",), _powers(21, 25)),
        # From how much work on threads share it.
        Knob("share.gradients", ("conv_weight.LEAST",), _powers(14, 22), True),
        Knob("elementwise.cheap", ("elementwise.LEAST_CHEAP",), _powers(10, 20), True),
        Knob("elementwise.other", ("elementwise.LEAST",), _powers(9, 18), True),
        Knob("rows.reduce", ("reduce.WORTH",), _powers(12, 20), True),
        Knob("rows.copy", ("copy.WORTH", "rows.WORTH"), _powers(15, 23), True),
        Knob("rows.norm", ("norm.WORTH", "group_norm.WORTH", "activation.WORTH"), _powers(11, 20), True),
        Knob("rows.pool", ("pool.WORTH",), _powers(11, 20), True),
        Knob("rows.softmax", ("softmax.WORTH",), _powers(9, 18), True),
        Knob("rows.update", ("updates.LEAST",), _powers(10, 20), True),
        Knob("rows.random", ("random.WORTH",), _powers(10, 20), True),
    )
}


# -------------------------------------------------------------------------------------- setting them


@cache
def defaults() -> dict[str, float]:
    """What the sources say, name -> value."""
    return {name: _read(knob) for name, knob in KNOBS.items()}


def in_use() -> dict[str, float]:
    """The values now, name -> value."""
    defaults()
    return {name: _read(knob) for name, knob in KNOBS.items()}


def use(values: Mapping[str, float]) -> None:
    """Take these values in this process from now on, and the defaults for knobs that are not named.

    Steps that are recorded already keep what they were recorded with. ValueError for an unknown name or a value that
    the knob cannot take; nothing is changed then.
    """
    _check(values)
    for name, value in (defaults() | dict(values)).items():
        for place in KNOBS[name].places:
            module, constant = _place(place)
            setattr(module, constant, value)
    for forget_it in _caches():  # what was worked out with other values
        forget_it()


@cache
def _place(place: str) -> tuple[Any, str]:
    module, constant = place.split(".")
    return import_module(f"kernels.numba_cpu.{module}"), constant


def _read(knob: Knob) -> float:
    module, constant = _place(knob.places[0])
    return getattr(module, constant)


@cache
def _caches() -> list[Callable[[], None]]:
    """How to empty what the modules keep for shapes that they have met."""
    emptying = []
    for module in {_place(place)[0].__name__: _place(place)[0] for k in KNOBS.values() for place in k.places}.values():
        for kept in vars(module).values():
            if hasattr(kept, "cache_clear") and kept.__module__ == module.__name__:
                emptying.append(kept.cache_clear)
        if hasattr(module, "_calls"):
            emptying.append(module._calls.clear)
    return emptying


def _check(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name not in KNOBS:
            raise ValueError(f"there is no knob {name!r}; there are {', '.join(KNOBS)}")
        if isinstance(value, bool) or value not in KNOBS[name].values:
            raise ValueError(f"{name} is {value!r}; wanted one of {', '.join(map(str, KNOBS[name].values))}")


# ------------------------------------------------------------------------------------------ the file


def path() -> Path | None:
    """Where the values for this machine are kept: named by the processor and how many of its cores may be used.

    None if nothing can be kept.
    """
    folder, _ = compiler.cache_folder()
    if folder is None:
        return None
    machine = host()
    about = "\n".join((machine.name, machine.features, machine.triple, str(threads.usable_cores())))
    digest = hashlib.sha256(about.encode()).hexdigest()[:12]
    return folder.parent / f"tuned-{machine.name}-{digest}.json"


def save(values: Mapping[str, float], about: Mapping[str, Any]) -> Path:
    """Keep values, and what is worth knowing about them (JSON-able, with the date as `when`). OSError if it fails."""
    _check(values)
    target = path()
    if target is None:
        raise OSError(compiler.cache_folder()[1])
    content = {"format": FORMAT, "table": _table(), "values": dict(values), "about": dict(about)}
    beside = target.with_suffix(f".{os.getpid()}")
    try:
        beside.write_text(json.dumps(content | {"checksum": _checksum(content)}, indent=2) + "\n", encoding="utf-8")
        os.replace(beside, target)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return target


def kept() -> dict[str, Any] | None:
    """{"values": ..., "about": ...} as `save` left them, None if there are none.

    ValueError says what is wrong with a file that cannot be used.
    """
    target = path()
    try:
        text = target.read_text(encoding="utf-8") if target is not None else None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{target} cannot be read: {error}") from None
    if text is None:
        return None
    try:
        content = json.loads(text)
        checksum = content.pop("checksum")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ValueError(f"{target} is damaged: not what was written") from None
    if checksum != _checksum(content):
        raise ValueError(f"{target} is damaged: its checksum is wrong")
    if content["format"] != FORMAT or content["table"] != _table():
        raise ValueError(f"{target} was made for another version; `nanonet doctor --tune` makes it anew")
    try:
        _check(content["values"])
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{target} cannot be used: {error}") from None
    return {"values": content["values"], "about": content["about"]}


def forget() -> bool:
    """Remove the file; whether there was one. The values stay in use until the process ends."""
    target = path()
    if target is None or not target.exists():
        return False
    target.unlink()
    return True


def load() -> None:
    """Use the values that are kept for this machine, if there are any and NANONET_TUNED is not 0. Never raises."""
    if os.environ.get("NANONET_TUNED", "1") == "0":
        return
    try:
        found = kept()
        if found is not None:
            use(found["values"])
    except Exception as error:
        warnings.warn(f"tuned kernel settings are left aside: {error}", RuntimeWarning, stacklevel=2)


def _table() -> str:
    """Tells tables of knobs apart: other values or defaults may mean something else."""
    rows = [(name, knob.places, knob.values, defaults()[name]) for name, knob in KNOBS.items()]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
