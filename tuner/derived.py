"""Search spaces derived from settings, or from a model and its optimizer, with priors around what these are now.

A model of one's own is searched so:

    space = tuner.space_of(model, optimizer)
    study = tuner.create_study(space=space)
    new_model, new_optimizer = tuner.build(model, trial.params, optimizer)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nanonet import nn
from nanonet.nn.activation import ACTIVATIONS
from nanonet.optim import Optimizer
from nanonet.random import as_generator
from nanonet.settings import Settings
from nanonet.training import Run

from .errors import SpaceError
from .priors import Near, Weights
from .space import Categorical, Domain, Float, Int, Ordinal, Space
from .tune import settings_space

__all__ = ["build", "space_of"]

SPREAD = 0.15  # of a prior: its deviation as a share of the range
FAVOUR = 3.0  # what the present choice counts, where each other one counts 1
TRIED = ("relu", "gelu", "silu", "tanh")  # activations to try in the place of the present one
NAMES = {kind: name for name, kind in reversed(ACTIVATIONS.items()) if name not in ("softmax", "log_softmax")}


def space_of(
    what: Settings | Run | nn.Module, optimizer: Optimizer | None = None, *, names: Iterable[str] | None = None
) -> Space:
    """A search space around what is there now, which is also the first point that AutoSampler tries.

    what: `Settings` (or a `Run`, for its settings): the parameters of `Settings.search_space`, as `tuner.tune` takes
        them; ranges are widened where they would leave a present value out.
    what: a model: "PATH.out_features" of each hidden Linear, from a quarter to four times its width; "PATH.p" of each
        Dropout; "PATH.activation" of each hidden activation. A Linear is hidden if in its Sequential only activations,
        dropout and normalization stand between it and the next Linear. PATH is that of `named_modules`.
    optimizer: "lr" (a factor of 30 up and down), "weight_decay" (a factor of 100, or 1e-6 to 1e-2 if it is 0),
        "momentum", "beta1" and "beta2", as far as it has them, of its first group.
    names: those to search; all, or for settings the tunable ones, unless given. SpaceError for a name that is unknown.
    """
    if isinstance(what, (Settings, Run)):
        if optimizer is not None:
            raise TypeError("space_of: optimizer is for a model; settings have their own")
        return _space_of_settings(what if isinstance(what, Settings) else what.settings, names)
    if not isinstance(what, nn.Module):
        raise TypeError(f"space_of: wanted Settings, a Run or a Module, got {type(what).__name__}")
    places = {**_places(what), **({} if optimizer is None else _options(optimizer))}
    if names is not None:
        places = {name: _known(places, name) for name in names}
    return Space(
        {name: place.domain for name, place in places.items()},
        defaults=[{name: place.value for name, place in places.items()}] if places else [],
    )


def build(
    model: nn.Module,
    params: Mapping[str, Any],
    optimizer: Optimizer | None = None,
    *,
    rng: np.random.Generator | int | None = 0,
) -> Any:
    """A new model with these settings, and with an optimizer the pair of it and a new optimizer over its parameters.

    params: values of parameters of `space_of(model, optimizer)`; what is left out stays as it is. A layer whose shape
    changes draws its weights anew, by its own initializers and `rng`; the others keep the model's present weights.
    Groups of the optimizer keep their ratios to the first one. The given model and optimizer are left alone. SpaceError
    for a name that is unknown or a value outside its domain.
    """
    new, rng = copy.deepcopy(model), as_generator(rng)
    places = _places(new)
    options = {} if optimizer is None else _options(optimizer)
    changes: list[dict[str, Any]] = [{} for _ in (optimizer.param_groups if optimizer is not None else ())]
    for name, value in params.items():
        place = _known({**places, **options}, name)
        if value not in place.domain:
            raise SpaceError(f"{name}={value!r} is not in {place.domain}")
        if name in places:
            place.change(value, rng)
        else:
            place.change(value, changes)
    if optimizer is None:
        return new
    theirs = {id(p): name for name, p in model.named_parameters()}
    ours = dict(new.named_parameters())
    groups = [
        {**{key: group[key] for key in group}, **changed, "params": [ours[theirs[id(p)]] for p in group["params"]]}
        for group, changed in zip(optimizer.param_groups, changes, strict=True)
    ]
    return new, type(optimizer)(groups)


@dataclass(frozen=True)
class _Place:
    """A setting: its domain, its present value, and how to change it: change(value, where)."""

    domain: Domain
    value: Any
    change: Callable[[Any, Any], None]


def _known(places: Mapping[str, _Place], name: str) -> _Place:
    if name not in places:
        raise SpaceError(f"there is no setting {name!r}; there are {', '.join(places) or 'none'}")
    return places[name]


# ------------------------------------------------------------------------------------------ of settings


def _space_of_settings(settings: Settings, names: Iterable[str] | None) -> Space:
    plain = settings_space(None if names is None else list(names), settings)
    flat = {**settings.to_dict(), "layers": len(settings.hidden), "learning_rate_sgd": settings.learning_rate}
    flat.update({f"width_{i + 1}": width for i, width in enumerate(settings.hidden)})
    present = {**plain.defaults[0], **{name: flat[name] for name in plain.names if name in plain.defaults[0]}}
    parameters = {}
    for name, domain in plain.parameters.items():
        if name not in present:  # of a branch that is not taken
            parameters[name] = domain
        elif isinstance(domain, (Float, Int)):
            low, high = min(domain.low, present[name]), max(domain.high, present[name])
            log = domain.log and low > 0
            parameters[name] = type(domain)(low, high, log=log, prior=Near(present[name], SPREAD))
        elif isinstance(domain, Ordinal):
            choices = sorted({*domain.choices, present[name]})
            parameters[name] = Ordinal(choices, prior=Near(present[name], SPREAD))
        else:
            parameters[name] = _choice(domain.choices, present[name])
    return Space(parameters, plain.conditions, defaults=[{name: present[name] for name in plain.defaults[0]}])


def _choice(choices: Iterable[Any], present: Any) -> Categorical:
    listed = list(dict.fromkeys([*choices, present]))
    return Categorical(listed, prior=Weights([FAVOUR if choice == present else 1.0 for choice in listed]))


# ------------------------------------------------------------------------------------------- of a model


@dataclass(frozen=True)
class _Slot:
    """A layer's place in a Sequential."""

    path: str
    parent: nn.Sequential
    name: str

    @property
    def layer(self) -> nn.Module:
        return getattr(self.parent, self.name)

    def put(self, layer: nn.Module) -> None:
        """A layer in the place of the present one, in its mode and its dtype."""
        old = self.layer
        for parameter in old.parameters():
            layer = layer.to(parameter.dtype)
        setattr(self.parent, self.name, layer.train(old.training))


def _places(model: nn.Module) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for path, layer in model.named_modules():
        if type(layer) is nn.Dropout:
            domain = Float(0.0, max(0.6, layer.p), prior=Near(layer.p, SPREAD))
            places[f"{path}.p"] = _Place(domain, layer.p, lambda p, _, layer=layer: setattr(layer, "p", float(p)))
    chains = list(_chains(model))
    ids = [id(slot.layer) for chain in chains for slot in chain]
    for chain in chains:
        for i, slot in enumerate(chain):
            if ids.count(id(slot.layer)) > 1:  # one layer in two places
                continue
            kind = type(slot.layer)
            if kind in NAMES and any(True for later in chain[i + 1 :] for _ in later.layer.parameters()):
                change = lambda name, _, slot=slot: _set_activation(slot, name)  # noqa: E731
                places[f"{slot.path}.activation"] = _Place(_choice(TRIED, NAMES[kind]), NAMES[kind], change)
            after = _until_next_linear(chain[i + 1 :]) if kind is nn.Linear else None
            if after is not None and all(ids.count(id(s.layer)) == 1 for s in after):
                width = slot.layer.out_features
                domain = Int(max(1, width // 4), 4 * width, log=True, prior=Near(width, SPREAD))
                change = lambda width, rng, slots=(slot, *after): _set_width(slots, width, rng)  # noqa: E731
                places[f"{slot.path}.out_features"] = _Place(domain, width, change)
    order = {path: i for i, (path, _) in enumerate(model.named_modules())}
    return dict(sorted(places.items(), key=lambda item: order[item[0].rpartition(".")[0]]))


def _chains(model: nn.Module) -> Iterator[list[_Slot]]:
    """The layers of each Sequential that stands in no other one, those of Sequentials in it among them."""
    inside = {id(c) for m in model.modules() if type(m) is nn.Sequential for c in m.layers}
    for path, module in model.named_modules():
        if type(module) is nn.Sequential and id(module) not in inside:
            yield list(_flat(path, module))


def _flat(path: str, sequential: nn.Sequential) -> Iterator[_Slot]:
    for name, value in vars(sequential).items():
        if isinstance(value, nn.Module):
            inner = f"{path}.{name}" if path else name
            if type(value) is nn.Sequential:
                yield from _flat(inner, value)
            else:
                yield _Slot(inner, sequential, name)


def _until_next_linear(slots: Iterable[_Slot]) -> list[_Slot] | None:
    """The slots up to the first Linear, if what stands before it can have any width; None otherwise."""
    found: list[_Slot] = []
    for slot in slots:
        found.append(slot)
        if type(slot.layer) is nn.Linear:
            return found
        if type(slot.layer) not in (*NAMES, nn.Dropout, *NORMS):
            return None
    return None


def _set_width(slots: tuple[_Slot, ...], width: int, rng: np.random.Generator) -> None:
    """Give the first Linear that many outputs, and the last one as many inputs."""
    first, last = slots[0].layer, slots[-1].layer
    if first.out_features == width:
        return
    slots[0].put(_linear(first, first.in_features, width, rng))
    slots[-1].put(_linear(last, width, last.out_features, rng))
    for slot in slots[1:-1]:
        if type(slot.layer) in NORMS:
            slot.put(NORMS[type(slot.layer)](slot.layer, width))


def _linear(old: nn.Linear, inputs: int, outputs: int, rng: np.random.Generator) -> nn.Linear:
    weights, biases = old.initializers
    return nn.Linear(inputs, outputs, old.bias is not None, weight_init=weights, bias_init=biases, rng=rng)


def _batch_norm(old: nn.BatchNorm, features: int) -> nn.BatchNorm:
    return type(old)(features, old.eps, old.momentum, old.affine, old.track_running_stats)


def _layer_norm(old: nn.LayerNorm, features: int) -> nn.LayerNorm:
    return nn.LayerNorm(features, old.eps, old.weight is not None, old.bias is not None)


#: Normalizations that can stand between two Linear layers, and how to make them for another width.
NORMS: dict[type, Callable[[Any, int], nn.Module]] = {
    nn.BatchNorm: _batch_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.LayerNorm: _layer_norm,
}


def _set_activation(slot: _Slot, name: str) -> None:
    if NAMES[type(slot.layer)] != name:
        slot.put(nn.activation(name))


# --------------------------------------------------------------------------------------- of an optimizer


def _options(optimizer: Optimizer) -> dict[str, _Place]:
    group = optimizer.param_groups[0]
    places: dict[str, _Place] = {}

    def place(name: str, value: float, domain: Domain, change: Callable[[Any, float], Any], key: str) -> None:
        """change(the group's own value, the new one) -> the group's new value."""

        def put(new: float, changes: list[dict[str, Any]]) -> None:
            for g, changed in zip(optimizer.param_groups, changes, strict=True):
                changed[key] = change(changed.get(key, g[key]), new)

        places[name] = _Place(domain, value, put)

    def scaled(key: str) -> Callable[[float, float], float]:
        before = group[key]
        return lambda own, new: own * (new / before) if before else new

    lr = group["lr"]
    place("lr", lr, Float(lr / 30, lr * 30, log=True, prior=Near(lr, SPREAD)), scaled("lr"), "lr")
    decay = group["weight_decay"]
    if decay:
        domain = Float(decay / 100, decay * 100, log=True, prior=Near(decay, SPREAD))
        place("weight_decay", decay, domain, scaled("weight_decay"), "weight_decay")
    else:
        domain = Float(1e-6, 1e-2, log=True)
        place("weight_decay", 1e-6, domain, scaled("weight_decay"), "weight_decay")
    if group.get("momentum"):
        value = group["momentum"]
        domain = Float(min(0.5, value), max(0.99, value), prior=Near(value, SPREAD))
        place("momentum", value, domain, lambda own, new: new, "momentum")
    if "betas" in group:
        for i, (low, high) in enumerate(((0.8, 0.99), (0.9, 0.9999))):
            value = group["betas"][i]
            domain = Float(min(low, value), max(high, value), prior=Near(value, SPREAD))
            change = (lambda own, new: (new, own[1])) if i == 0 else (lambda own, new: (own[0], new))
            place(f"beta{i + 1}", value, domain, change, "betas")
    return places
