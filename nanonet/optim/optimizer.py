"""What all optimizers share: groups of parameters, their settings in buffers, and the fused update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import Any

import numpy as np

from kernels import plan
from kernels.memory import HOST, Memory
from kernels.registry import backend_of
from kernels.updates import BY_NAME, Update
from nanonet.autograd import enable_grad, no_grad
from nanonet.device import host, memory_of, moved, write
from nanonet.errors import CheckpointError, DtypeError, OptionError, ShapeError
from nanonet.ops.shape import contiguous
from nanonet.tensor import Tensor, forbid_recording, zeros_like

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


class Group(MutableMapping):
    """Parameters that share settings. A mapping from an option's name to its value, as `group["lr"] = 0.1`.

    Numbers live in one float64 buffer, which a recorded step reads at each replay, so a change is seen at once:
    `steps` (0-d) counts the updates and `rate` (1,) is the learning rate.
    """

    def __init__(self, kind: type[Optimizer], params: list[Tensor], options: dict[str, Any]):
        self._kind = kind
        self._options = options
        self.params = params
        self._build(steps=0)

    def _build(self, steps: float) -> None:
        """Set up the rule for the present options. What states it shares with the last rule are kept."""
        numbers = self._kind.numbers(self._options)
        before = dict(zip(self.rule.states, self.states, strict=True)) if hasattr(self, "rule") else {}
        self.rule: Update = BY_NAME[self._kind.rule(self._options)]
        memory = memory_of(self.params[0].array)
        values = np.array([steps, *(numbers[name] for name in self.rule.values[1:])], np.float64)
        self.values = values if memory is HOST else memory.from_host(values)
        self.states = [before.get(name) or [zeros_like(p).array for p in self.params] for name in self.rule.states]

    @property
    def steps(self) -> np.ndarray:
        """Updates done, a 0-d view of the buffer."""
        return self.values[:1].reshape(())

    @property
    def rate(self) -> np.ndarray:
        """The learning rate, a view (1,) of the buffer."""
        return self.values[1:2]

    def __getitem__(self, name: str) -> Any:
        if name == "lr":
            return float(host(self.rate)[0])
        return self.params if name == "params" else self._options[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._options:
            raise OptionError(f"{name!r} is no option of {self._kind.__name__}; there are {', '.join(self._options)}")
        options = {**self._options, "lr": self["lr"], name: value}
        self._kind.check(options)
        self._options = options
        if self._kind.rule(options) != self.rule.name:
            self._build(float(host(self.steps)))
        else:
            numbers = self._kind.numbers(options)
            write(self.values[1:], [numbers[n] for n in self.rule.values[1:]])

    def __delitem__(self, name: str) -> None:
        raise TypeError("options of a group cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self._options))

    def __len__(self) -> int:
        return 1 + len(self._options)

    def step(self) -> None:
        """One optimizer step for the parameters that have a gradient."""
        recorder = plan.current()
        if recorder is not None:
            recorder.guard(self, "rule")
        active = [i for i, p in enumerate(self.params) if p.grad is not None]
        if not active:
            return
        weights = [self.params[i].array for i in active]
        if type(self.values) is not type(weights[0]):
            self._follow(memory_of(weights[0]))
        gradients = [contiguous(self.params[i]._grad).array for i in active]
        states = [[state[i] for i in active] for state in self.states]
        backend = backend_of(weights[0])
        backend.advance(self.steps, 1)
        backend.update(self.rule, weights, gradients, states, self.values)

    def _follow(self, memory: Memory) -> None:
        """Go with the parameters to the device that they were moved to."""
        forbid_recording("the first step of an optimizer whose parameters were moved to another device")
        self.values = moved(self.values, memory)
        self.states = [[moved(array, memory) for array in state] for state in self.states]


class Optimizer:
    """Base of the optimizers. A kind gives its `rule` (a row of kernels.updates) and the rule's `numbers`.

    params: tensors that require gradients, or dicts with "params" and options of their own (parameter groups).
    Every kind takes weight_decay (L2: adds decay * w to the gradient) and l1 (adds l1 * sign(w)).
    """

    def __init__(self, params: Parameters, **defaults: Any):
        self.defaults = defaults
        self.check(defaults)
        self.param_groups: list[Group] = []
        params = list(params)
        if not params:
            raise OptionError(f"{type(self).__name__}: params is empty, wanted at least one parameter")
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            self.add_param_group(group)

    # ------------------------------------------------------------------------ what a kind gives

    @classmethod
    def rule(cls, options: dict[str, Any]) -> str:
        """The name of the update rule for these options."""
        raise NotImplementedError

    @classmethod
    def numbers(cls, options: dict[str, Any]) -> dict[str, float]:
        """The rule's values by name."""
        named = {"lr": options["lr"], "decay": options["weight_decay"], "l1": options["l1"]}
        named.update({k: v for k, v in options.items() if k in _PLAIN})
        if "betas" in options:
            named["b1"], named["b2"] = options["betas"]
        return named

    @classmethod
    def check(cls, options: dict[str, Any]) -> None:
        """Raise OptionError for an option out of range."""
        for name, value in options.items():
            if name in _RANGES:
                low, high, text = _RANGES[name]
                for number in value if isinstance(value, Sequence) else (value,):
                    if not low <= number <= high or number != number:
                        raise OptionError(f"{cls.__name__}: {name} is {value!r}, wanted {text}")

    # --------------------------------------------------------------------------- what people use

    def add_param_group(self, group: dict[str, Any]) -> None:
        """More parameters, with options of their own: {"params": [...], "lr": 0.1}."""
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for g in self.param_groups for p in g.params}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor) or not p.is_leaf or p.dtype.kind != "f":
                raise DtypeError(f"{type(self).__name__}: params[{i}] is {p!r:.80}, wanted a float leaf tensor")
            if id(p) in known:
                raise OptionError(f"{type(self).__name__}: params[{i}] (shape {p.shape}) is there twice")
            known.add(id(p))
        options = {name: value for name, value in group.items() if name != "params"}
        for name in options:
            if name not in self.defaults:
                kind = type(self).__name__
                raise OptionError(f"{name!r} is no option of {kind}; there are {', '.join(self.defaults)}")
        options = {**self.defaults, **options}
        self.check(options)
        for dtype in dict.fromkeys(p.dtype for p in params):
            self.param_groups.append(Group(type(self), [p for p in params if p.dtype == dtype], dict(options)))

    @property
    def lr(self) -> float:
        """The first group's learning rate; assigning sets it for all groups."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            group["lr"] = value

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; with set_to_none=False fill them with zeros."""
        for group in self.param_groups:
            for p in group.params:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad.zero_()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient. `closure`, if given, computes the loss first, and is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                group.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Options, step counts and states, as nested dicts and lists of numbers and copied arrays."""
        return {
            "kind": type(self).__name__,
            "groups": [
                {
                    "options": {k: list(g[k]) if isinstance(v, tuple) else g[k] for k, v in g._options.items()},
                    "steps": float(host(g.steps)),
                    "states": {
                        name: [host(array).copy() for array in arrays]
                        for name, arrays in zip(g.rule.states, g.states, strict=True)
                    },
                }
                for g in self.param_groups
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()` of an optimizer of the same kind over parameters of the same shapes."""
        if state.get("kind") != type(self).__name__ or len(state["groups"]) != len(self.param_groups):
            raise CheckpointError(
                f"{type(self).__name__}: the state is of {state.get('kind')} with {len(state.get('groups', []))} "
                f"groups, wanted {len(self.param_groups)} groups"
            )
        for group, saved in zip(self.param_groups, state["groups"], strict=True):
            for name, arrays in saved["states"].items():
                if [a.shape for a in arrays] != [p.shape for p in group.params]:
                    raise ShapeError(f"{type(self).__name__}: shapes of state {name!r} are not those of the parameters")
        for group, saved in zip(self.param_groups, state["groups"], strict=True):
            for name, value in saved["options"].items():
                group[name] = tuple(value) if isinstance(value, list) else value
            write(group.steps, saved["steps"])
            for name, arrays in zip(group.rule.states, group.states, strict=True):
                for array, source in zip(arrays, saved["states"][name], strict=True):
                    write(array, source)

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self.param_groups[0]._options.items())
        return f"{type(self).__name__}({options})"


_PLAIN = ("momentum", "dampening", "eps", "alpha", "lr_decay")
_INF = float("inf")
_RANGES = {
    "lr": (0, _INF, "a number >= 0"),
    "weight_decay": (0, _INF, "a number >= 0"),
    "l1": (0, _INF, "a number >= 0"),
    "momentum": (0, 1, "a number in [0, 1]"),
    "dampening": (0, 1, "a number in [0, 1]"),
    "eps": (0, _INF, "a number >= 0"),
    "alpha": (0, 1, "a number in [0, 1]"),
    "lr_decay": (0, _INF, "a number >= 0"),
    "betas": (0, 1 - 1e-12, "two numbers in [0, 1)"),
}
