"""The tables that the conformance suites run over. A registered thing without a row here fails the suite."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from kernels import SLOTS
from kernels.elementwise import FUSABLE, TABLE
from kernels.formula import Formula
from kernels.updates import TABLE as UPDATES
from tuner import pruners, samplers, storage


# --------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class KernelCase:
    """One way to call a slot. `arguments(draw, arrays)` gives its positional arguments, with `Out(shape)` for what it
    writes; `exact`: every backend gives the reference's bits."""

    slot: str
    arguments: Callable
    exact: bool = False
    label: str = ""

    def __str__(self) -> str:
        return f"{self.slot}-{self.label}" if self.label else self.slot


@dataclass
class Out:
    """An array that a kernel writes: overwritten, so that it starts as NaN, or accumulated into, from `start`."""

    shape: tuple[int, ...]
    dtype: type | None = None
    start: np.ndarray | None = None


SIDES = st.integers(0, 9)
WIDE = st.integers(1, 40)


def _formula_case(text, *variables, low=-3.0):
    formula = Formula.of(text, *variables)

    def arguments(draw, arrays):
        shape = tuple(draw(st.lists(SIDES, max_size=3)))
        views = [arrays(tuple(1 if draw(st.booleans()) else side for side in shape), low=low) for _ in variables]
        return [formula, *views, Out(shape)]

    return KernelCase("elementwise", arguments, label=text.replace(" ", ""))


def _reduce_case(name):
    def arguments(draw, arrays):
        shape = tuple(draw(st.lists(WIDE, min_size=1, max_size=3)))
        axes = tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
        return [name, arrays(shape), axes, Out(tuple(side for i, side in enumerate(shape) if i not in axes))]

    return KernelCase("reduce", arguments, label=name)


def _matmul(draw, arrays):
    m, k, n = draw(WIDE), draw(SIDES), draw(WIDE)
    lead = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    return [arrays((*lead, m, k)), arrays((k, n)), Out((*lead, m, n))]


def _linear(activation):
    def arguments(draw, arrays):
        m, k, n = draw(WIDE), draw(WIDE), draw(WIDE)
        return [arrays((m, k)), arrays((k, n)), arrays((n,)) if draw(st.booleans()) else None, activation, Out((m, n))]

    return KernelCase("linear", arguments, label=str(activation))


def _rows(slot, inputs):
    def arguments(draw, arrays):
        shape = (draw(WIDE), draw(WIDE))
        return [*(arrays(shape) for _ in range(inputs)), Out(shape)]

    return KernelCase(slot, arguments)


def _targets(draw, n, c):
    return np.array(draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n)), np.int64)


def _cross_entropy(draw, arrays):
    n, c = draw(WIDE), draw(st.integers(1, 20))
    weight = arrays((c,), low=0.1) if draw(st.booleans()) else None
    return [arrays((n, c)), _targets(draw, n, c), weight, draw(st.sampled_from([0.0, 0.1])), Out((n,)), Out((n, c))]


def _cross_entropy_backward(draw, arrays):
    n, c = draw(WIDE), draw(st.integers(1, 20))
    weight = arrays((c,), low=0.1) if draw(st.booleans()) else None
    smoothing = draw(st.sampled_from([0.0, 0.1]))
    return [arrays((n,)), arrays((n, c), low=0.0), _targets(draw, n, c), weight, smoothing, Out((n, c))]


def _take(draw, arrays):
    rows, n, width = draw(WIDE), draw(SIDES), draw(SIDES)
    index = np.array(draw(st.lists(st.integers(0, rows - 1), min_size=n, max_size=n)), np.int64)
    return [np.ascontiguousarray(arrays((rows, width))), index, Out((n, width))]


def _take_batch(draw, arrays):
    rows, n, width = draw(WIDE), draw(SIDES), draw(SIDES)
    order = np.random.default_rng(0).permutation(rows)
    cursor = np.array(draw(st.integers(0, rows - 1)), np.int64)
    return [np.ascontiguousarray(arrays((rows, width))), order, cursor, Out((n, width))]


def _scatter_add(draw, arrays):
    rows, n, width = draw(WIDE), draw(SIDES), draw(SIDES)
    index = np.array(draw(st.lists(st.integers(0, rows - 1), min_size=n, max_size=n)), np.int64)
    start = np.ascontiguousarray(arrays((rows, width)))
    return [index, np.ascontiguousarray(arrays((n, width))), Out((rows, width), start=start)]


def _update_case(rule):
    def arguments(draw, arrays):
        shapes = draw(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=3))
        numbers = {"t": draw(st.integers(1, 5)), "lr": 0.1, "decay": 0.01, "l1": 0.02, "eps": 1e-3}
        values = np.array([numbers.get(name, 0.9) for name in rule.values])
        parameters = [Out(shape, start=np.ascontiguousarray(arrays(shape))) for shape in shapes]
        gradients = [np.ascontiguousarray(arrays(shape)) for shape in shapes]
        states = [[Out(s, start=np.ascontiguousarray(arrays(s, low=0.1))) for s in shapes] for _ in rule.states]
        return [rule, parameters, gradients, states, values]

    return KernelCase("update", arguments, label=rule.name)


def _random(slot, *constants):
    def arguments(draw, arrays):
        state = np.array(draw(st.tuples(*[st.integers(0, 2**62)] * 3)), np.int64)
        return [state, *constants, Out((draw(SIDES), draw(WIDE)))]

    return KernelCase(slot, arguments, exact=slot != "random_normal")


KERNELS = [
    *[_formula_case(row.formula, *row.inputs, low=0.1) for row in TABLE if row.result == "same" and row.name != "where"],
    KernelCase("copy", lambda draw, arrays: [arrays(s := (draw(SIDES), draw(WIDE))), Out(s)], exact=True),
    *[_reduce_case(name) for name in ("sum", "max", "min", "square_sum")],
    KernelCase("argmax", lambda draw, arrays: [arrays((n := draw(SIDES), draw(WIDE))), Out((n,), np.int64)], exact=True),
    KernelCase("matmul", _matmul),
    *[_linear(activation) for activation in (None, *FUSABLE)],
    *[_rows(slot, 1) for slot in ("softmax", "log_softmax")],
    *[_rows(slot, 2) for slot in ("softmax_backward", "log_softmax_backward")],
    KernelCase("cross_entropy", _cross_entropy),
    KernelCase("cross_entropy_backward", _cross_entropy_backward),
    KernelCase("take", _take, exact=True),
    KernelCase("take_batch", _take_batch, exact=True),
    KernelCase("scatter_add", _scatter_add),
    *[_update_case(rule) for rule in UPDATES],
    KernelCase("advance", lambda draw, arrays: [Out((), np.int64, np.array(draw(SIDES))), 3], exact=True),
    _random("random_uniform"),
    _random("random_normal"),
    _random("dropout_mask", 0.3),
]

#: Slots that each backend takes from the reference. A slot that falls back without standing here fails the suite.
FROM_REFERENCE = {"reference": set(SLOTS), "numba_cpu": set()}


# ------------------------------------------------------------------------------------------- ops

# ---------------------------------------------------------------------------------------- layers

# ------------------------------------------------------------------------------------ optimizers


@dataclass(frozen=True)
class OptimizerCase:
    """An optimizer with some options. peer: the class of torch.optim that takes the same options, if one does."""

    name: str
    options: dict
    peer: str | None = None

    def __str__(self):
        return "-".join([self.name, *(f"{name}={value}" for name, value in self.options.items())])


OPTIMIZERS = [
    OptimizerCase("sgd", {"lr": 0.1}, "SGD"),
    OptimizerCase("sgd", {"lr": 0.05, "weight_decay": 0.1}, "SGD"),
    OptimizerCase("sgd", {"lr": 0.05, "l1": 0.1}),
    OptimizerCase("sgd", {"lr": 0.05, "momentum": 0.9}, "SGD"),
    OptimizerCase("sgd", {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01}, "SGD"),
    OptimizerCase("sgd", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, "SGD"),
    OptimizerCase("adam", {"lr": 0.05}, "Adam"),
    OptimizerCase("adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}, "Adam"),
    OptimizerCase("adam", {"lr": 0.05, "l1": 0.1}),
    OptimizerCase("adamw", {"lr": 0.05}, "AdamW"),
    OptimizerCase("adamw", {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.2}, "AdamW"),
    OptimizerCase("adamw", {"lr": 0.05, "l1": 0.1, "weight_decay": 0.1}),
    OptimizerCase("rmsprop", {"lr": 0.02}, "RMSprop"),
    OptimizerCase("rmsprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.5}, "RMSprop"),
    OptimizerCase("rmsprop", {"lr": 0.01, "weight_decay": 0.1, "l1": 0.05, "momentum": 0.5}),
    OptimizerCase("adagrad", {"lr": 0.5}, "Adagrad"),
    OptimizerCase("adagrad", {"lr": 0.5, "lr_decay": 0.05, "weight_decay": 0.1, "eps": 1e-3}, "Adagrad"),
    OptimizerCase("adagrad", {"lr": 0.5, "l1": 0.1}),
]


# ----------------------------------------------------------- samplers, pruners, storages (tuner)


@dataclass(frozen=True)
class SamplerCase:
    """make(seed) -> a sampler for any space. even: do its points fill the cube more evenly than random ones?"""

    name: str
    make: Callable[[int], samplers.Sampler]
    even: bool = False

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class PrunerCase:
    """make() -> a pruner. ends_bad: does it end a trial that is worse than all others at each of 27 steps?"""

    name: str
    make: Callable[[], pruners.Pruner]
    ends_bad: bool = True

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class StorageCase:
    """open(folder) -> a storage; a second call opens the same one again if it `lasts`."""

    name: str
    open: Callable[[Path], storage.Storage]
    lasts: bool = False

    def __str__(self):
        return self.name


SAMPLERS = [
    SamplerCase("GridSampler", lambda seed: samplers.GridSampler(seed=seed, points=3)),
    SamplerCase("RandomSampler", lambda seed: samplers.RandomSampler(seed=seed)),
    SamplerCase("QMCSampler", lambda seed: samplers.QMCSampler(seed=seed), even=True),
    SamplerCase("AutoSampler", lambda seed: samplers.AutoSampler(seed=seed), even=True),
]

PRUNERS = [
    PrunerCase("NopPruner", lambda: pruners.NopPruner(), ends_bad=False),
    PrunerCase("MedianPruner", lambda: pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=3, interval_steps=4)),
    PrunerCase("PercentilePruner", lambda: pruners.PercentilePruner(25.0, n_startup_trials=2)),
    PrunerCase("PatientPruner", lambda: pruners.PatientPruner(None, patience=3)),
    PrunerCase("SuccessiveHalvingPruner", lambda: pruners.SuccessiveHalvingPruner(1, reduction_factor=3)),
]

STORAGES = [
    StorageCase("MemoryStorage", lambda folder: storage.MemoryStorage()),
    StorageCase("SqliteStorage", lambda folder: storage.SqliteStorage(folder / "study.db"), lasts=True),
]
