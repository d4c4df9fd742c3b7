"""Initial values of parameters.

Every name here is an `Initializer`. Called with a shape it draws; called with options it gives an
initializer with these options, to be called with a shape later:

    init.zeros((10,))                                  # zeros, float32
    init.normal((64, 128), mean=1.0, std=0.1, rng=rng)
    gates = init.normal(mean=1.0, std=0.1)             # mean one: a gate or a scale that starts open
    gates((128,), rng=rng)

`init.get` turns what a user types into an initializer: "he_normal", "normal(mean=1.0, std=0.1)", or any
function of (shape, rng=...). The first two are also what `str` of an initializer gives.

A weight of a linear layer has shape (in_features, out_features), that of a convolution
[KH, KW, C_in / groups, C_out]. So, for both, fan_out is the last axis and fan_in the one before it, each
times the size of the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nanonet.errors import DtypeError, OptionError, ShapeError
from nanonet.options import number, unknown
from nanonet.random import as_generator

__all__ = [
    "Initializer",
    "constant",
    "fans",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "names",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Shape = tuple[int, ...]
Draw = Callable[..., np.ndarray]  # (shape, rng, **options) -> float64 array

_DRAWS: dict[str, Draw] = {}
_BY_NAME: dict[str, Initializer] = {}


class Initializer:
    """A rule for initial values, with its options. Immutable; equal when name and options are."""

    __slots__ = ("name", "options")

    def __init__(self, name: str, options: dict[str, object]):
        self.name = name
        self.options = options

    def __call__(self, *args, rng: np.random.Generator | int | None = None, dtype=np.float32, **options):
        """(shape, rng=, dtype=) -> array of that shape, float32 or float64; (options) -> Initializer.

        A tuple or list as first argument is the shape; anything else is an option, by place or by name.
        Without `rng` the process's default randomness is used (`nanonet.seed`).
        Raises OptionError, ShapeError or DtypeError.
        """
        drawn = bool(args) and isinstance(args[0], (tuple, list))
        chosen = self._with(args[1:] if drawn else args, options)
        if not drawn:
            return chosen
        shape = _shape(self.name, args[0])
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise DtypeError(f"{self.name}: dtype is {dtype}; wanted float32 or float64")
        return _DRAWS[self.name](shape, as_generator(rng), **chosen.options).astype(dtype)

    def _with(self, by_place: tuple, by_name: dict[str, object]) -> Initializer:
        known = list(self.options)
        if len(by_place) > len(known):
            raise OptionError(
                f"{self.name}: got {by_place!r}; wanted a shape such as (64, 128), or the options ({', '.join(known)})"
            )
        given = {**dict(zip(known, by_place, strict=False)), **by_name}
        for option, value in given.items():
            if option not in self.options:
                raise unknown(f"an option of {self.name}", option, known or ["(it has none)"])
            _check(self.name, option, value)
        return Initializer(self.name, {**self.options, **given}) if given else self

    def __str__(self) -> str:
        default = _BY_NAME[self.name].options
        changed = ", ".join(f"{k}={v!r}" for k, v in self.options.items() if v != default[k])
        return f"{self.name}({changed})" if changed else self.name

    def __repr__(self) -> str:
        return f"init.{self}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Initializer) and (self.name, self.options) == (other.name, other.options)

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.options.items())))

    def __reduce__(self):
        return get, (str(self),)


def initializer(draw: Draw) -> Initializer:
    """Register `draw(shape, rng, *, option=default, ...)` under its own name."""
    _DRAWS[draw.__name__] = draw
    made = _BY_NAME[draw.__name__] = Initializer(draw.__name__, dict(draw.__kwdefaults__ or {}))
    return made


def names() -> tuple[str, ...]:
    """Every name that `get` knows, aliases included."""
    return tuple(_BY_NAME)


def get(spec: str | Callable) -> Callable:
    """An initializer from its name, from text such as "normal(mean=1.0, std=0.1)", or as it is.

    A function of the user's own is called as f(shape, rng=generator). Raises OptionError.
    """
    if not isinstance(spec, str):
        if callable(spec):
            return spec
        raise OptionError(
            f"initializer is {spec!r}; wanted a name, a name with options, or a function of (shape, rng=)"
        )
    name, _, options = spec.strip().partition("(")
    if name.strip() not in _BY_NAME:
        raise unknown("initializer", name.strip(), names())
    found = _BY_NAME[name.strip()]
    return found(**_parse_options(spec)) if options else found


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: inputs that reach one output, and outputs that one input reaches.

    Raises ShapeError for fewer than two axes, which have no fans.
    """
    if len(shape) < 2:
        raise ShapeError(f"shape is {tuple(shape)}; a fan wants at least two axes: (in_features, out_features)")
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


# ------------------------------------------------------------------------------------- fixed values


@initializer
def zeros(shape, rng):
    """0 everywhere."""
    return np.zeros(shape)


@initializer
def ones(shape, rng):
    """1 everywhere."""
    return np.ones(shape)


@initializer
def constant(shape, rng, *, value=0.0):
    """`value` everywhere."""
    return np.full(shape, float(value))


# ----------------------------------------------------------------------------- plain distributions


@initializer
def normal(shape, rng, *, mean=0.0, std=0.05):
    """Normal, of any mean: 0 for weights, 1 for gates and scales that should start open."""
    return mean + std * rng.standard_normal(shape)


@initializer
def uniform(shape, rng, *, low=-0.05, high=0.05):
    """Uniform in [low, high)."""
    if low > high:
        raise OptionError(f"uniform: low is {low} and high is {high}; wanted low at most high")
    return low + (high - low) * rng.random(shape)


@initializer
def truncated_normal(shape, rng, *, mean=0.0, std=0.05, bound=2.0):
    """Normal, with what lies further than `bound` standard deviations from the mean drawn again.

    `std` is that of the normal before truncation; at bound 2 the values' own is 0.88 of it.
    """
    values = rng.standard_normal(math.prod(shape))
    while (beyond := np.flatnonzero(np.abs(values) > bound)).size:
        values[beyond] = rng.standard_normal(beyond.size)
    return mean + std * values.reshape(shape)


# ------------------------------------------------------------------------------- scaled by the fans


@initializer
def xavier_normal(shape, rng, *, gain=1.0):
    """Variance gain^2 * 2 / (fan_in + fan_out) (Glorot & Bengio 2010, equation 12)."""
    return _scaled_normal(shape, rng, gain * math.sqrt(2 / _at_least_1(sum(fans(shape)))))


@initializer
def xavier_uniform(shape, rng, *, gain=1.0):
    """Uniform with variance gain^2 * 2 / (fan_in + fan_out) (Glorot & Bengio 2010, equation 16)."""
    return _scaled_uniform(shape, rng, gain * math.sqrt(2 / _at_least_1(sum(fans(shape)))))


@initializer
def he_normal(shape, rng, *, slope=0.0, mode="fan_in"):
    """Variance 2 / ((1 + slope^2) fan), for ReLU or a leaky one of that slope (He et al. 2015, equation 15)."""
    return _scaled_normal(shape, rng, _he(shape, slope, mode))


@initializer
def he_uniform(shape, rng, *, slope=0.0, mode="fan_in"):
    """Uniform with variance 2 / ((1 + slope^2) fan) (He et al. 2015, equation 15)."""
    return _scaled_uniform(shape, rng, _he(shape, slope, mode))


@initializer
def lecun_normal(shape, rng):
    """Variance 1 / fan_in (LeCun et al. 1998, section 4.6)."""
    return _scaled_normal(shape, rng, math.sqrt(1 / _at_least_1(fans(shape)[0])))


@initializer
def lecun_uniform(shape, rng):
    """Uniform with variance 1 / fan_in (LeCun et al. 1998, section 4.6)."""
    return _scaled_uniform(shape, rng, math.sqrt(1 / _at_least_1(fans(shape)[0])))


@initializer
def orthogonal(shape, rng, *, gain=1.0):
    """gain * Q, the leading axes taken as rows: Q's columns are orthonormal, or its rows if those are fewer.

    Q is uniform over such matrices (Saxe et al. 2014; signs as in Mezzadri 2007).
    """
    fans(shape)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return gain * (q if rows >= columns else q.T).reshape(shape)


# ----------------------------------------------------------------------------------- other names

glorot_normal = _BY_NAME["glorot_normal"] = xavier_normal
glorot_uniform = _BY_NAME["glorot_uniform"] = xavier_uniform
kaiming_normal = _BY_NAME["kaiming_normal"] = he_normal
kaiming_uniform = _BY_NAME["kaiming_uniform"] = he_uniform


def _scaled_normal(shape: Shape, rng: np.random.Generator, std: float) -> np.ndarray:
    return std * rng.standard_normal(shape)


def _scaled_uniform(shape: Shape, rng: np.random.Generator, std: float) -> np.ndarray:
    return math.sqrt(3) * std * (2 * rng.random(shape) - 1)


def _he(shape: Shape, slope: float, mode: str) -> float:
    fan_in, fan_out = fans(shape)
    fan = fan_in if mode == "fan_in" else fan_out
    return math.sqrt(2 / ((1 + slope * slope) * _at_least_1(fan)))


def _at_least_1(fan: int) -> int:
    return max(fan, 1)


def _shape(name: str, shape: tuple | list) -> Shape:
    if not all(isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise ShapeError(f"{name}: shape is {tuple(shape)!r}; wanted a tuple of integers of at least 0")
    return tuple(int(size) for size in shape)


def _check(name: str, option: str, value: object) -> None:
    """Raise OptionError unless `value` is one that `option` takes. Options mean the same everywhere."""
    if option == "mode":
        if value not in ("fan_in", "fan_out"):
            raise unknown(f"mode of {name}", value, ("fan_in", "fan_out"))
        return
    number(f"{name}: {option}", value, {"std": "[0, inf)", "bound": "[0.1, inf)"}.get(option, "(-inf, inf)"))


def _parse_options(spec: str) -> dict[str, object]:
    """{"mean": 1.0, "std": 0.1} from "normal(mean=1.0, std=0.1)"; only literals, nothing is evaluated."""
    import ast

    try:
        call = ast.parse(spec.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
            raise ValueError(spec)
        return {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise OptionError(
            f"initializer is {spec!r}; wanted a name with options, as in 'normal(mean=1.0, std=0.1)'"
        ) from None
