"""Gradient-based tuning of continuous settings: differentiating the validation loss through training steps.

With w_K(h) the weights after K steps of an optimizer with settings h (Maclaurin et al. 2015, Franceschi et al. 2017),

    L(h) = validation loss of w_K(h),    dL/dh by the chain rule through all K steps.

The steps are the rows of `kernels.updates`, evaluated on Tensors, so every optimizer can be unrolled. Settings are
searched as theta: h = exp(theta) for rates and penalties, h = 1 - exp(-theta) for momentum and betas.

    better = tuner.gradient_tune(settings, x, y, (x_validation, y_validation)).settings
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.formula import Formula, names
from nanonet import nn
from nanonet.autograd import grad
from nanonet.data.batching import order
from nanonet.device import write
from nanonet.errors import OptionError
from nanonet.jit import jit
from nanonet.nn.parameter import Parameter
from nanonet.objectives import inputs, objective, targets, task_and_outputs
from nanonet.ops import shape
from nanonet.ops.elementwise import FUNCTIONS, where
from nanonet.optim import Optimizer
from nanonet.options import count, unknown
from nanonet.settings import Settings
from nanonet.tensor import Tensor, zeros_like
from nanonet.training import Run, build_model, build_optimizer

__all__ = ["Data", "GradientTuning", "Hypergradient", "gradient_tune", "gradient_tune_over"]

RULE_NAMES = {"lr": "lr", "weight_decay": "decay", "l1": "l1", "momentum": "momentum", "beta1": "b1", "beta2": "b2"}
SHARES = ("momentum", "beta1", "beta2")  # of what is kept: in [0, 1)
MOST_BYTES = 2**28  # of the states of all steps
SETTING_NAMES = {"learning_rate": "lr"}  # of `Settings`, where it differs from the optimizer's


class Hypergradient:
    """theta -> (validation loss after K steps, its gradient).

    The way back goes through the steps one by one, from states that were kept on the way there: with s_k the weights
    and the optimizer's states after k steps, s_k+1 = F_k(s_k, theta), and a_K = dL/ds_K,

        dL/dtheta += a_k+1 dF_k/dtheta,    a_k = a_k+1 dF_k/ds_k.

    Where the states of all steps would fill the memory, one in sqrt(K) is kept, and the steps between are done again on
    the way back (Griewank 1992). F and its products with a are recorded once and replayed for every step. Each call
    starts from the model's present weights and the optimizer's present state, and leaves them as they are. The running
    averages of a batch normalization, which the validation loss depends on, count as constants.

    names: of "lr", "weight_decay", "l1", "momentum", "beta1", "beta2", those that the optimizer has. A group of the
        optimizer that has another value than the first one keeps its ratio to it, if it is a rate or a penalty.
    loss: (outputs, targets) -> a 0-d mean; smoothed: that of training, where labels are smoothed.
    xs (K, b, ...), ys (K, b, ...): the mini-batches of the steps, arrays or what gives one for each step by its index.
    factors: (K,) what the learning rate is multiplied with at each step, as a schedule does; None for a constant rate.
    validation: (x, y). Raises OptionError for a name that the optimizer does not have, or whose present value is 0.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        xs: Sequence[np.ndarray] | np.ndarray,
        ys: Sequence[np.ndarray] | np.ndarray,
        validation: tuple[np.ndarray, np.ndarray],
        names: Sequence[str] = ("lr", "weight_decay"),
        factors: np.ndarray | None = None,
        smoothed: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self.names = tuple(names)
        self._model, self._optimizer = model, optimizer
        self._loss, self._training_loss = loss, smoothed or loss
        self._dtype = optimizer.param_groups[0].params[0].dtype
        self._xs, self._ys = xs, ys
        self._validation = [_data(array, self._dtype) for array in validation]
        self._stride = self._kept_steps()
        self._factors = np.ones(len(xs)) if factors is None else np.asarray(factors, np.float64)
        self._first = {name: _present(optimizer, name) for name in self.names}
        self._ahead, self._back, self._judge = jit(self._step), jit(self._adjoint), jit(self._value)

    @property
    def theta(self) -> np.ndarray:
        """The optimizer's present settings, float64 (names,)."""
        return self.of({name: self._first[name] for name in self.names})

    def of(self, settings: Mapping[str, float]) -> np.ndarray:
        """Settings as theta."""
        return np.array([-math.log1p(-settings[n]) if n in SHARES else math.log(settings[n]) for n in self.names])

    def settings(self, theta: np.ndarray) -> dict[str, float]:
        """theta as settings."""
        return {n: -math.expm1(-v) if n in SHARES else math.exp(v) for n, v in zip(self.names, theta, strict=True)}

    def untrained(self) -> float:
        """The validation loss before the first step."""
        before = self._model.training
        self._model.eval()
        try:
            return float(self._judge(*self._validation, *self._state())[0].item())
        finally:
            self._model.train(before)

    def _state(self) -> list[Tensor]:
        """For each parameter its values and the optimizer's states."""
        groups = self._optimizer.param_groups
        return [Tensor(a) for g in groups for i, p in enumerate(g.params) for a in (p.array, *(s[i] for s in g.states))]

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        model, groups = self._model, self._optimizer.param_groups
        fixed = tuple(tuple(group.values[1:].tolist()) for group in groups)
        random, mode = model.random_state(), model.training
        buffers = [(buffer, buffer.numpy().copy()) for buffer in model.buffers()]
        chosen = Tensor(np.array(theta, np.float64))
        done = np.array([float(group.steps) for group in groups])
        steps = [Tensor(np.append(done + k + 1, factor)) for k, factor in enumerate(self._factors)]
        streams = []

        def ahead(k: int, state: list[Tensor]) -> list[Tensor]:
            return self._ahead(fixed, chosen, steps[k], *self._batch(k), *state)

        try:
            model.train()
            state = self._state()
            kept = []
            for k in range(len(steps)):
                if k % self._stride == 0:
                    kept.append(state)
                streams.append(model.random_state())
                state = ahead(k, state)
            model.eval()
            value, *adjoint = self._judge(*self._validation, *state)
            gradient = np.zeros(len(self.names))
            model.train()
            for begin in reversed(range(0, len(steps), self._stride)):
                states = [kept.pop()]
                end = min(begin + self._stride, len(steps))
                for k in range(begin, end - 1):
                    model.load_random_state(streams[k])
                    states.append(ahead(k, states[-1]))
                for k in reversed(range(begin, end)):
                    model.load_random_state(streams[k])
                    found, *adjoint = self._back(fixed, chosen, steps[k], *self._batch(k), *states.pop(), *adjoint)
                    gradient += found.numpy()
        finally:
            model.load_random_state(random)
            for buffer, kept in buffers:
                write(buffer.array, kept)
            model.train(mode)
        return float(value.item()), gradient

    def _batch(self, k: int) -> tuple[Tensor, Tensor]:
        return _data(self._xs[k], self._dtype), _data(self._ys[k], self._dtype)

    def _kept_steps(self) -> int:
        """Every how many steps a state is kept."""
        steps = len(self._xs)
        fits = steps * sum(s.array.nbytes for s in self._state()) <= MOST_BYTES
        return 1 if fits else math.isqrt(steps - 1) + 1

    def _step(self, fixed: tuple, theta: Tensor, t: Tensor, x: Tensor, y: Tensor, *state: Tensor) -> list[Tensor]:
        """F: the state after a step. fixed: the groups' values; t (groups + 1,): the numbers of their steps, and the
        factor of the learning rate."""
        after = self._after(fixed, theta, t, x, y, [_leaf(s) for s in state], create_graph=False)
        return [s.detach() for s in after]

    def _adjoint(
        self, fixed: tuple, theta: Tensor, t: Tensor, x: Tensor, y: Tensor, *state_and_adjoint: Tensor
    ) -> list[Tensor]:
        """The adjoint after the step, taken back through it: [for theta, *for the state before]."""
        half = len(state_and_adjoint) // 2
        leaves = [_leaf(theta), *map(_leaf, state_and_adjoint[:half])]
        after = self._after(fixed, leaves[0], t, x, y, leaves[1:], create_graph=True)
        gradients = grad(after, leaves, list(state_and_adjoint[half:]), allow_unused=True)
        return [zeros_like(leaf) if g is None else g.detach() for leaf, g in zip(leaves, gradients, strict=True)]

    def _value(self, x: Tensor, y: Tensor, *state: Tensor) -> list[Tensor]:
        """[validation loss, *its gradient for the state]."""
        leaves = [_leaf(s) for s in state]
        with self._substituted(
            [leaf for leaf, is_weight in zip(leaves, self._are_weights(), strict=True) if is_weight]
        ):
            value = self._loss(self._model(x), y)
        gradients = grad(value, leaves, allow_unused=True)
        return [value.detach(), *(zeros_like(s) if g is None else g for s, g in zip(leaves, gradients, strict=True))]

    def _after(
        self, fixed: tuple, theta: Tensor, t: Tensor, x: Tensor, y: Tensor, state: list[Tensor], create_graph: bool
    ) -> list[Tensor]:
        """One step of the optimizer, as `kernels.contract.Backend.update` has it, on Tensors."""
        weights = [s for s, is_weight in zip(state, self._are_weights(), strict=True) if is_weight]
        with self._substituted(weights):
            loss = self._training_loss(self._model(x), y)
        gradients = iter(grad(loss, weights, create_graph=create_graph, allow_unused=True))
        after, place = [], 0
        for i, group in enumerate(self._optimizer.param_groups):
            numbers = self._numbers(group, fixed[i], theta) | {"t": t[i]}
            numbers["lr"] = numbers["lr"] * t[-1]
            for name, text in group.rule.scalars:
                numbers[name] = _evaluate(text, numbers)
            scope = {name: shape.to(number, self._dtype) for name, number in numbers.items()}
            for _ in group.params:
                w, *states = state[place : place + 1 + len(group.rule.states)]
                g = next(gradients)
                known = {**scope, "w": w, "g": g, **dict(zip(group.rule.states, states, strict=True))}
                for name, text in group.rule.statements if g is not None else ():
                    known[name] = _evaluate(text, known)
                after += [known["w"], *(known[name] for name in group.rule.states)]
                place += 1 + len(states)
        return after

    def _are_weights(self) -> list[bool]:
        """Of each array of the state whether it is a weight; otherwise it is one of the optimizer's states."""
        groups = self._optimizer.param_groups
        return [i == 0 for g in groups for _ in g.params for i in range(1 + len(g.rule.states))]

    def _numbers(self, group: Any, fixed: Sequence[float], theta: Tensor) -> dict[str, Tensor]:
        """The values of the group's rule by name, 0-d and float64: those that are searched depend on theta."""
        before = dict(zip(group.rule.values[1:], fixed, strict=True))
        numbers = {name: Tensor(np.array(value)) for name, value in before.items()}
        for i, name in enumerate(self.names):
            key = RULE_NAMES[name]
            numbers[key] = (
                1 - (-theta[i]).exp() if name in SHARES else theta[i].exp() * (before[key] / self._first[name])
            )
        return numbers

    @contextmanager
    def _substituted(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """The model with these tensors in the place of the optimizer's parameters."""
        params = [p for group in self._optimizer.param_groups for p in group.params]
        places = {id(p): w for p, w in zip(params, weights, strict=True)}
        found = [
            (module, name, value)
            for module in self._model.modules()
            for name, value in vars(module).items()
            if isinstance(value, Parameter) and id(value) in places
        ]
        if len({id(value) for _, _, value in found}) < len(places):
            raise OptionError("model: holds parameters of the optimizer elsewhere than as attributes of modules")
        try:
            for module, name, value in found:
                object.__setattr__(module, name, places[id(value)])
            yield
        finally:
            for module, name, value in found:
                object.__setattr__(module, name, value)


def _evaluate(text: str, scope: Mapping[str, Any]) -> Any:
    used = sorted(names(text))
    return Formula.of(text, *used).evaluate(_ON_TENSORS, *(scope[name] for name in used))


def _sqrt(x: Tensor) -> Tensor:
    """The square root, with the derivative 0 at 0, where weights lie that never had a gradient."""
    positive = x > 0
    return where(positive, where(positive, x, 1).sqrt(), 0)


_ON_TENSORS = {**FUNCTIONS, "sqrt": _sqrt}


def _data(array: Any, dtype: np.dtype) -> Tensor:
    """Floats as a tensor of that dtype, labels as they are."""
    array = np.asarray(array)
    return Tensor(np.ascontiguousarray(array, dtype if array.dtype.kind == "f" else np.int64))


def _leaf(tensor: Tensor) -> Tensor:
    """The tensor's values as the beginning of a graph."""
    leaf = tensor.detach()
    leaf.requires_grad = True
    return leaf


def _present(optimizer: Optimizer, name: str) -> float:
    """The first group's value of a setting; OptionError if there is none or it has no logarithm."""
    if name not in RULE_NAMES:
        raise unknown("names", name, RULE_NAMES)
    for group in optimizer.param_groups:
        if RULE_NAMES[name] not in group.rule.values:
            raise OptionError(f"names: {type(optimizer).__name__} with these options has no {name}")
    value = float(optimizer.param_groups[0].values[optimizer.param_groups[0].rule.values.index(RULE_NAMES[name])])
    if not value > 0:
        raise OptionError(f"names: {name} is {value}; wanted a value above 0 to begin with")
    return value


# ----------------------------------------------------------------------------------------- of settings


@dataclass(frozen=True)
class Data:
    """Rows to train and to validate on, and the other arguments of `nanonet.training.Run`."""

    x: Any
    y: Any
    validation: tuple[Any, Any]
    task: str | None = None
    classes: int | None = None


@dataclass(frozen=True)
class GradientTuning:
    """What `gradient_tune` found: the settings, and one dict per round with the settings tried and the loss."""

    settings: Settings
    history: list[dict[str, float]]


def gradient_tune(
    settings: Settings,
    x: Any,
    y: Any,
    validation: tuple[Any, Any],
    *,
    names: Sequence[str] = ("learning_rate", "weight_decay"),
    steps: int = 100,
    rounds: int = 30,
    task: str | None = None,
    classes: int | None = None,
) -> GradientTuning:
    """Improve continuous settings by the gradient of the validation loss after `steps` mini-batches of training.

    x (n, ...), y (n,), validation (xv, yv), task and classes as for `nanonet.training.Run`. names: of "learning_rate",
        "weight_decay", "l1", "momentum", "beta1" and "beta2". Every round trains from the same first weights on the
        same mini-batches, at a constant rate and without clipping; what is best after few steps need not be so after
        many (Wu et al. 2018), so `steps` should not be much less than an epoch.
    rounds: evaluations of the gradient at most. Each setting moves by a step of its own, which grows while its
        derivative keeps its sign and shrinks when it changes or when nothing is gained (Riedmiller & Braun 1993).

    Where the learning rate is so high that training is chaotic its derivative means nothing (Metz et al. 2019): from
    above the rate at which the range test's loss is lowest, the search begins with that test's suggestion instead.

    Raises OptionError for a setting that is unknown, unused, or 0, and where the loss falls at no learning rate.
    """
    data = Data(x, y, validation, task, classes)
    return gradient_tune_over(settings, [data], names=names, steps=steps, rounds=rounds)


def gradient_tune_over(
    settings: Settings,
    parts: Sequence[Data],
    *,
    names: Sequence[str] = ("learning_rate", "weight_decay"),
    steps: int = 100,
    rounds: int = 30,
    scheduled: bool = False,
    deadline: float = math.inf,
) -> GradientTuning:
    """`gradient_tune` by the mean of the validation losses over several parts, such as the folds of a validation.

    scheduled: let the learning rate take the settings' own course over these steps, in place of a constant one.
    No round is begun after `deadline`, of time.monotonic. The range test is done on the first part.
    """
    count("steps", steps)
    count("rounds", rounds)
    functions = [
        _first_steps(settings, part, [SETTING_NAMES.get(n, n) for n in names], steps, scheduled) for part in parts
    ]
    function = functions[0]
    theta, move = function.theta, np.full(len(names), FIRST_MOVE)
    untrained = float(np.mean([f.untrained() for f in functions]))
    if "learning_rate" in names:
        found = Run(settings, parts[0].x, parts[0].y, task=parts[0].task, classes=parts[0].classes).lr_range_test()
        if settings.learning_rate > found.lowest:
            theta[function.names.index("lr")] = math.log(found.suggestion)
    best, best_loss, best_gradient = theta, math.inf, np.zeros(len(names))
    history: list[dict[str, float]] = []
    for _ in range(rounds):
        if time.monotonic() >= deadline:
            break
        losses, gradients = zip(*(f(theta) for f in functions), strict=True)
        loss, gradient = float(np.mean(losses)), np.mean(gradients, axis=0)
        tried = dict(zip(names, function.settings(theta).values(), strict=True))
        history.append({**tried, "loss": loss})
        # A gradient many times the loss, or NaN, says nothing about a step's length away.
        if loss < best_loss and np.abs(gradient).max() <= 3 * untrained:
            kept = gradient * best_gradient >= 0
            move = np.where(kept, np.minimum(move * GROW, LARGEST_MOVE), move * SHRINK)
            best, best_loss, best_gradient = theta, loss, gradient
        else:
            move = move * SHRINK
        if move.max() < LEAST_MOVE or not math.isfinite(best_loss):
            break
        size = np.abs(best_gradient)
        theta = best - move * np.sign(best_gradient) * (size >= MATTERS * size.max())
    if not math.isfinite(best_loss):
        return GradientTuning(settings, history)
    chosen = dict(zip(names, function.settings(best).values(), strict=True))
    return GradientTuning(settings.replace(**chosen), history)


FIRST_MOVE, LARGEST_MOVE, LEAST_MOVE = 1.0, 2.0, 0.02  # of theta: factors of 2.7, 7.4 and 1.02
GROW, SHRINK = 1.3, 0.5
MATTERS = 0.01  # of the largest derivative: settings with a smaller one stay


def _first_steps(
    settings: Settings, part: Data, names: Sequence[str], steps: int, scheduled: bool = False
) -> Hypergradient:
    """The hypergradient of the run that these settings describe, over its first steps."""
    x, y = inputs(part.x), np.asarray(part.y)
    xv, yv = inputs(part.validation[0], "validation x"), np.asarray(part.validation[1])
    task, outputs = task_and_outputs(y, yv, part.task, part.classes)
    loss = "cross_entropy" if task == "classification" else "mse"
    model = build_model(settings, x.shape[1:], outputs)
    goal = objective(model, loss)
    y, yv = targets(y, goal.task, len(x), (outputs,)), targets(yv, goal.task, len(xv), (outputs,))
    size = min(settings.batch_size, len(x))
    each = len(x) // size
    rows = np.concatenate([order(len(x), settings.seed, e)[: each * size] for e in range(-(-steps // each))])
    rows = rows[: steps * size].reshape(steps, size)
    optimizer = build_optimizer(settings, model)
    epochs = -(-steps // each)
    restart = settings.restart if epochs >= settings.epochs else 0
    course = settings.replace(epochs=epochs, restart=restart).learning_rate_schedule(each)
    factors = np.asarray(course(np.arange(steps)), np.float64) * np.ones(steps) if scheduled else None
    xs, ys = _Batches(x, rows), _Batches(y, rows)
    smoothed = objective(model, loss, smoothing=settings.label_smoothing).loss if loss == "cross_entropy" else None
    return Hypergradient(model, optimizer, goal.loss, xs, ys, (xv, yv), names, factors, smoothed)


@dataclass(frozen=True)
class _Batches:
    """Rows of an array, `rows` (K, b), gathered when a step asks for them."""

    array: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: int) -> np.ndarray:
        return self.array[self.rows[k]]
