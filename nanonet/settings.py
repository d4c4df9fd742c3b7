"""Everything that one can set about a training run, declared once.

From this declaration come the estimator's arguments, the command line's flags (`Settings.fields()`) and the
tuner's default search space (`Settings.search_space()`).
"""

import dataclasses
import operator
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise

import numpy as np

from nanonet import init
from nanonet.errors import OptionError
from nanonet.options import count, inside, number, unknown

__all__ = ["Field", "Settings"]

Condition = Mapping[str, tuple]

# ------------------------------------------------------------------------------------ one setting


@dataclasses.dataclass(frozen=True)
class Field:
    """What is known about one setting.

    low, high, log or choices say where the tuner searches; `valid`, an interval as "[0, 1)", or `options` say
    what is accepted at all. condition = {other setting: values for which this one matters}: while it does not
    hold, the setting is kept but has no effect.
    """

    name: str
    type: type
    default: object
    help: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple | None = None
    condition: Condition | None = None
    tunable: bool = False
    valid: str | None = None
    options: tuple | None = None

    def check(self, value: object) -> object:
        """`value` as this setting's type; OptionError naming setting, value and what is wanted."""
        if self.type is tuple:
            return self._check_widths(value)
        if self.type is bool:
            if not isinstance(value, (bool, np.bool_)):
                raise self._error(value, "True or False")
            return bool(value)
        if self.type is str:
            return self._check_name(value)
        return self._check_number(value)

    def parse(self, text: str) -> object:
        """The value that `text` stands for, as typed on a command line. Raises OptionError."""
        text = text.strip()
        if self.type is str:
            return self.check(text)
        if self.type is bool:
            if text.lower() not in ("true", "false"):
                raise self._error(text, "true or false")
            return text.lower() == "true"
        try:
            if self.type is tuple:
                widths = [] if text.lower() in ("", "none") else text.split(",")
                return self.check(tuple(int(width) for width in widths))
            return self.check(self.type(text))
        except OptionError:
            raise
        except ValueError:
            wanted = "widths such as 128,64, or none" if self.type is tuple else self._wanted_number()
            raise self._error(text, wanted) from None

    def _check_number(self, value):
        if self.type is float:
            return number(self.name, value, self.valid)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not inside(value, self.valid):
            raise self._error(value, self._wanted_number())
        return int(value)

    def _check_name(self, value):
        if self.name == "initializer":  # open-ended: options may follow the name
            if not isinstance(value, str):
                raise self._error(value, "a name such as 'he_normal' or 'normal(mean=1.0, std=0.1)'")
            init.get(value)
        elif value not in self.options:
            raise unknown(self.name, value, self.options)
        return str(value)

    def _check_widths(self, value):
        try:
            widths = tuple(operator.index(width) for width in value)
            if isinstance(value, str) or any(isinstance(width, bool) for width in value):
                raise TypeError
        except TypeError:
            raise self._error(value, "a tuple of widths such as (128, 64)") from None
        if not all(inside(width, self.valid) for width in widths):
            raise self._error(value, f"each width to be an integer in {self.valid}")
        return widths

    def _wanted_number(self) -> str:
        return f"{'an integer' if self.type is int else 'a number'} in {self.valid}"

    def _error(self, value, wanted: str) -> OptionError:
        return OptionError(f"{self.name} is {value!r}; wanted {wanted}")


def setting(default, help: str, **about):
    """Declare a setting; `about` holds the other entries of its `Field`, and `search`, the rows of the
    search space that stand for it where its own range is not enough."""
    return dataclasses.field(default=default, metadata={"help": help, **about})


# ----------------------------------------------------------------------------------- the settings

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad")
SCHEDULES = ("constant", "step", "exponential", "inverse_time", "polynomial", "cosine", "one_cycle")
RESTART_GROWTH = 3  # how much later each restart of the schedule is than the one before
MOST_LAYERS = 3  # in the search; one may set more

_WIDTHS = (
    {"name": "layers", "kind": "int", "low": 1, "high": MOST_LAYERS, "log": False},
    {"name": "width_1", "kind": "int", "low": 32, "high": 256, "log": True},
    {"name": "width_2", "kind": "int", "low": 32, "high": 256, "log": True, "condition": {"layers": (2, 3)}},
    {"name": "width_3", "kind": "int", "low": 32, "high": 256, "log": True, "condition": {"layers": (3,)}},
)
_ADAPTIVE = tuple(name for name in OPTIMIZERS if name != "sgd")
_LEARNING_RATES = (
    {"name": "learning_rate", "kind": "float", "low": 5e-4, "high": 2e-2, "log": True,
     "condition": {"optimizer": _ADAPTIVE}},
    {"name": "learning_rate_sgd", "kind": "float", "low": 5e-3, "high": 0.3, "log": True,
     "condition": {"optimizer": ("sgd",)}},
)  # fmt: skip
_DEFAULTS = {
    "layers": 1, "width_1": 128, "width_2": 64, "width_3": 32, "learning_rate": 3e-3, "learning_rate_sgd": 0.05
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a training run: immutable, checked when made, equal when the values are.

        Settings(hidden=(128, 64), optimizer="adamw", learning_rate=3e-3)

    Raises OptionError naming the setting, the value and what is wanted.
    """

    # The network.
    hidden: tuple[int, ...] = setting(
        (128,), "widths of the hidden layers, first to last; none for a linear model",
        valid="[1, 65536]", tunable=True, search=_WIDTHS,
    )  # fmt: skip
    activation: str = setting(
        "relu",
        "what follows each hidden layer",
        options=ACTIVATIONS,
        choices=("relu", "gelu", "silu", "tanh"),
        tunable=True,
    )
    initializer: str = setting(
        "he_normal", "initial weights: a name, or one with options, as 'normal(mean=1.0, std=0.1)'",
        choices=("he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "lecun_normal", "orthogonal"),
    )  # fmt: skip
    batch_norm: bool = setting(False, "normalize each hidden layer's sums over the batch, before the activation")
    dropout: float = setting(
        0.0,
        "share of each hidden layer's outputs set to 0 in training",
        valid="[0, 1)",
        low=0.0,
        high=0.4,
        tunable=True,
    )

    # The optimizer.
    optimizer: str = setting(
        "adam", "update rule; sgd with momentum 0.9 and nesterov for those", options=OPTIMIZERS,
        choices=("sgd", "adam", "adamw"), tunable=True,
    )  # fmt: skip
    learning_rate: float = setting(
        3e-3, "base learning rate, which the schedule multiplies", valid="(0, inf)",
        low=5e-4, high=0.3, log=True, tunable=True, search=_LEARNING_RATES,
    )  # fmt: skip
    momentum: float = setting(
        0.9, "share of the last step that goes on", valid="[0, 1)",
        low=0.8, high=0.98, condition={"optimizer": ("sgd",)}, tunable=True,
    )  # fmt: skip
    nesterov: bool = setting(False, "look ahead along the momentum", condition={"optimizer": ("sgd",)})
    beta1: float = setting(
        0.9, "smoothing of the gradient", valid="[0, 1)", low=0.8, high=0.95, condition={"optimizer": ("adam", "adamw")}
    )
    beta2: float = setting(
        0.999, "smoothing of the squared gradient", valid="[0, 1)",
        low=0.9, high=0.9999, condition={"optimizer": ("adam", "adamw")},
    )  # fmt: skip
    weight_decay: float = setting(
        1e-4, "L2 penalty on the weights; decoupled from the gradient for adamw", valid="[0, inf)",
        low=1e-6, high=1e-2, log=True, tunable=True,
    )  # fmt: skip
    l1: float = setting(0.0, "L1 penalty on the weights", valid="[0, inf)", low=1e-7, high=1e-3, log=True)
    clip_norm: float = setting(
        0.0,
        "scale gradients down to this norm over all parameters; 0 is off",
        valid="[0, inf)",
        low=0.1,
        high=10.0,
        log=True,
    )
    clip_value: float = setting(
        0.0, "cut each gradient off at this size; 0 is off", valid="[0, inf)", low=0.01, high=10.0, log=True
    )

    # The learning rate over time.
    schedule: str = setting(
        "constant", "course of the learning rate over the epochs", options=SCHEDULES,
        choices=("constant", "cosine", "one_cycle"), tunable=True,
    )  # fmt: skip
    schedule_gamma: float = setting(
        0.5, "step: factor of each step; exponential: factor of each epoch", valid="(0, 1]",
        low=0.5, high=1.0, condition={"schedule": ("step", "exponential")},
    )  # fmt: skip
    schedule_step: int = setting(
        10, "epochs between two steps", valid="[1, inf)", low=1, high=100, log=True, condition={"schedule": ("step",)}
    )
    schedule_decay: float = setting(
        0.1, "the rate is divided by 1 + decay * epochs", valid="[0, inf)",
        low=1e-3, high=1.0, log=True, condition={"schedule": ("inverse_time",)},
    )  # fmt: skip
    schedule_power: float = setting(
        1.0, "power of the polynomial", valid="(0, inf)", low=0.5, high=3.0, condition={"schedule": ("polynomial",)}
    )
    schedule_end: float = setting(
        0.0, "share of the learning rate that is left at the end", valid="[0, 1]",
        low=0.0, high=0.1, condition={"schedule": ("polynomial", "cosine")},
    )  # fmt: skip
    restart: int = setting(
        0, "epochs after which the schedule begins anew, and again after 3, 9, ... times as many; 0 is off",
        valid="[0, inf)", low=1, high=18, log=True, condition={"schedule": ("polynomial", "cosine", "one_cycle")},
    )  # fmt: skip
    warmup: float = setting(
        0.0, "epochs over which the learning rate rises from a tenth", valid="[0, inf)", low=0.0, high=5.0,
        condition={"schedule": tuple(name for name in SCHEDULES if name != "one_cycle")},
    )  # fmt: skip

    # The course of training.
    batch_size: int = setting(
        32, "rows per update; 1 for single-sample, the number of rows for full-batch descent", valid="[1, inf)",
        choices=(16, 32, 64, 128), tunable=True,
    )  # fmt: skip
    epochs: int = setting(50, "passes over the training part", valid="[1, inf)", low=5, high=200, log=True)
    early_stopping: int = setting(
        0,
        "stop after this many epochs without a better validation loss; 0 is off",
        valid="[0, inf)",
        low=3,
        high=50,
        log=True,
    )
    label_smoothing: float = setting(
        0.0, "share of each label's weight spread over all classes", valid="[0, 1)", low=0.0, high=0.2, tunable=True
    )
    seed: int = setting(0, "seed of everything random in the run", valid="[0, 9007199254740991]")

    def __post_init__(self):
        for known in self.fields():
            object.__setattr__(self, known.name, known.check(getattr(self, known.name)))
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            raise OptionError("nesterov is True and momentum is 0; wanted momentum above 0 to look ahead along")

    # ------------------------------------------------------------------------------- the declaration

    @classmethod
    def fields(cls) -> tuple[Field, ...]:
        """What is known about each setting, in the order of declaration."""
        return _fields(cls)

    @classmethod
    def field(cls, name: str) -> Field:
        """What is known about one setting. Raises OptionError."""
        for known in cls.fields():
            if known.name == name:
                return known
        raise unknown("setting", name, (known.name for known in cls.fields()))

    def active(self) -> tuple[str, ...]:
        """The settings that have an effect, given the others."""
        return tuple(f.name for f in self.fields() if _holds(f.condition, self))

    # ---------------------------------------------------------------------------------- changing form

    def replace(self, **changes) -> "Settings":
        """A copy with some settings changed. Raises OptionError."""
        for name in changes:
            self.field(name)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, object]:
        """Every setting by name, ready for JSON."""
        values = {known.name: getattr(self, known.name) for known in self.fields()}
        return {**values, "hidden": list(self.hidden)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Settings":
        """Settings from `to_dict`'s form; what is absent keeps its default. Raises OptionError."""
        return cls().replace(**values)

    # ---------------------------------------------------------------------------------- the schedule

    def learning_rate_schedule(self, updates_per_epoch: int):
        """The schedule as a function of the number of updates made: warm-up times course.

        At update t of u per epoch, with e = t / u: step gamma ^ floor(t / (schedule_step u)), exponential
        gamma ^ e, inverse time 1 / (1 + decay e); polynomial, cosine and one cycle over epochs * u updates, or with
        restart r over the epochs to r, from there to 3 r, to 9 r, ... (Loshchilov & Hutter 2017): whenever training
        stops at one of these, its learning rate has just run out.
        """
        from nanonet.optim import schedules

        each = updates_per_epoch
        ends = self.cycle_ends()
        cycles = [self._course((end - begin) * each, each) for begin, end in pairwise((0, *ends))]
        course = schedules.Sequential(cycles, [end * each for end in ends[:-1]]) if len(cycles) > 1 else cycles[0]
        if self.warmup == 0 or self.schedule == "one_cycle":
            return course
        return schedules.LinearWarmup(round(self.warmup * each)) * course

    def cycle_ends(self) -> list[int]:
        """The epochs after which the schedule begins anew, and the last one. The last cycle takes at least a third."""
        ends = []
        if self.restart and _holds(self.field("restart").condition, self):
            end = self.restart
            while 3 * end <= 2 * self.epochs:
                ends.append(end)
                end *= RESTART_GROWTH
        return [*ends, self.epochs]

    def _course(self, total: int, each: int):
        """The schedule over `total` updates, `each` of which are an epoch."""
        from nanonet.optim import schedules

        options = {
            "constant": {},
            "step": {"step_size": self.schedule_step * each, "gamma": self.schedule_gamma},
            "exponential": {"gamma": self.schedule_gamma ** (1 / each)},
            "inverse_time": {"decay": self.schedule_decay / each},
            "polynomial": {"total": total, "power": self.schedule_power, "end": self.schedule_end},
            "cosine": {"total": total, "end": self.schedule_end},
            "one_cycle": {"total": total},
        }
        return schedules.get(self.schedule, **options[self.schedule])

    # ------------------------------------------------------------------------------------ the search

    @classmethod
    def search_space(cls, names: Iterable[str] | None = None, base: "Settings | None" = None) -> list[dict]:
        """Where the tuner looks: one dict per flat parameter, parents before those that depend on them.

        Each has name, kind, default and condition, None or {"parent": name, "in": values under which it
        counts}; "float" and "int" have low, high and log, "ordinal" and "categorical" have choices.
        The widths are layers, width_1, width_2, ...; the learning rate has a range of its own for sgd.

        names: the settings to search, by default those that are tunable. The others keep their value in
        `base` (default: the defaults), and a parameter whose condition then never holds is left out.
        Raises OptionError for a name that is unknown or has no range.
        """
        base = cls() if base is None else base
        names = [f.name for f in cls.fields() if f.tunable] if names is None else list(names)
        wanted = {name: _rows(cls.field(name)) for name in names}
        rows = [row for f in cls.fields() if f.name in wanted for row in wanted[f.name]]
        searched = {row["name"]: row for row in rows}
        space = []
        for row in rows:
            ((parent, values),) = (row["condition"] or {None: ()}).items()
            if parent in searched:
                values = tuple(value for value in values if value in searched[parent].get("choices", values))
                if values:
                    space.append({**row, "condition": {"parent": parent, "in": values}})
            elif _holds(row["condition"], base):
                space.append({**row, "condition": None})
        return space

    @classmethod
    def from_search(cls, values: Mapping[str, object], base: "Settings | None" = None) -> "Settings":
        """Settings from values of the search's parameters; the rest from `base`. Raises OptionError."""
        base = cls() if base is None else base
        values, changes = dict(values), {}
        layers = values.pop("layers", len(base.hidden))
        widths = {name: values.pop(name) for name in [*values] if name.startswith("width_")}
        optimizer = values.get("optimizer", base.optimizer)
        sgd_rate = values.pop("learning_rate_sgd", None)
        if sgd_rate is not None and optimizer == "sgd":
            values["learning_rate"] = sgd_rate
        if widths or layers != len(base.hidden):
            layers = count("layers", layers, least=0)
            old = base.hidden or (_fields(cls)[0].default[0],)
            for name in widths:
                if name[6:] not in map(str, range(1, MOST_LAYERS + 1)):
                    raise unknown("search parameter", name, (row["name"] for row in _WIDTHS))
            changes["hidden"] = tuple(widths.get(f"width_{i + 1}", old[min(i, len(old) - 1)]) for i in range(layers))
        return base.replace(**changes, **values)

    def to_search(self, names: Iterable[str] | None = None) -> dict[str, object]:
        """The point of the search space that is nearest to these settings, to be the first one tried."""
        flat = {**self.to_dict(), "layers": len(self.hidden), "learning_rate_sgd": self.learning_rate}
        flat.update({f"width_{i + 1}": width for i, width in enumerate(self.hidden)})
        point = {}
        for row in self.search_space(names, base=self):
            condition = row["condition"]
            if condition is None or point.get(condition["parent"]) in condition["in"]:
                value = flat.get(row["name"], row["default"])
                if "choices" in row:
                    point[row["name"]] = value if value in row["choices"] else row["default"]
                else:
                    point[row["name"]] = min(max(value, row["low"]), row["high"])
        return point


@lru_cache(maxsize=8)
def _fields(cls: type) -> tuple[Field, ...]:
    known = []
    for f in dataclasses.fields(cls):
        about = {key: value for key, value in f.metadata.items() if key != "search"}
        known.append(Field(name=f.name, type=type(f.default), default=f.default, **about))
    return tuple(known)


def _holds(condition: Condition | None, settings: Settings) -> bool:
    return all(getattr(settings, name) in values for name, values in (condition or {}).items())


def _rows(known: Field) -> list[dict]:
    """The search space's rows for one setting, conditions as {parent: values}."""
    search = Settings.__dataclass_fields__[known.name].metadata.get("search")
    if search is not None:
        return [{"default": _DEFAULTS[row["name"]], "condition": None, **row} for row in search]
    row = {"name": known.name, "default": known.default, "condition": known.condition}
    if known.choices or known.type is bool:
        kind = "categorical" if known.type in (str, bool) else "ordinal"
        return [{**row, "kind": kind, "choices": known.choices or (False, True)}]
    if known.low is None:
        raise OptionError(f"setting {known.name} has no range to search; wanted one that has")
    row["default"] = min(max(known.default, known.low), known.high)
    return [{**row, "kind": known.type.__name__, "low": known.low, "high": known.high, "log": known.log}]
