"""The table of optimizer updates: one row is the oracle and the compiled loop over all parameters of a group.

In each row w is the parameter, g its gradient, `states` are arrays of w's shape, `values` are numbers of the group
(float64, read from a buffer at every call), t counts the updates from 1. `scalars` are computed once per call, in
float64; then `statements` are carried out for each element, in w's dtype, in their order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Update:
    """A row of the table: how one optimizer changes a parameter."""

    name: str
    states: tuple[str, ...]
    values: tuple[str, ...]
    scalars: tuple[tuple[str, str], ...]
    statements: tuple[tuple[str, str], ...]


#: L2 and L1 penalties as parts of the gradient.
PENALTY = ("g", "g + decay * w + l1 * sign(w)")

TABLE = [
    Update("sgd", (), ("t", "lr", "decay", "l1"), (), (PENALTY, ("w", "w - lr * g"))),
    Update(
        "momentum",
        ("v",),
        ("t", "lr", "decay", "l1", "momentum", "dampening"),
        (("keep", "where(t > 1, momentum, 0)"), ("take", "where(t > 1, 1 - dampening, 1)")),
        (PENALTY, ("v", "keep * v + take * g"), ("w", "w - lr * v")),
    ),
    Update(
        "nesterov",
        ("v",),
        ("t", "lr", "decay", "l1", "momentum", "dampening"),
        (("keep", "where(t > 1, momentum, 0)"), ("take", "where(t > 1, 1 - dampening, 1)")),
        (PENALTY, ("v", "keep * v + take * g"), ("w", "w - lr * (g + momentum * v)")),
    ),
    Update(
        "adam",
        ("m", "v"),
        ("t", "lr", "decay", "l1", "b1", "b2", "eps"),
        (("rate", "lr / (1 - b1 ** t)"), ("root", "1 / sqrt(1 - b2 ** t)"), ("a1", "1 - b1"), ("a2", "1 - b2")),
        (
            PENALTY,
            ("m", "b1 * m + a1 * g"),
            ("v", "b2 * v + a2 * g * g"),
            ("w", "w - rate * m / (root * sqrt(v) + eps)"),
        ),
    ),
    Update(
        "adamw",
        ("m", "v"),
        ("t", "lr", "decay", "l1", "b1", "b2", "eps"),
        (("rate", "lr / (1 - b1 ** t)"), ("root", "1 / sqrt(1 - b2 ** t)"), ("a1", "1 - b1"), ("a2", "1 - b2")),
        (
            ("g", "g + l1 * sign(w)"),
            ("m", "b1 * m + a1 * g"),
            ("v", "b2 * v + a2 * g * g"),
            ("w", "w - lr * decay * w - rate * m / (root * sqrt(v) + eps)"),
        ),
    ),
    Update(
        "rmsprop",
        ("v",),
        ("t", "lr", "decay", "l1", "alpha", "eps"),
        (("beta", "1 - alpha"),),
        (PENALTY, ("v", "alpha * v + beta * g * g"), ("w", "w - lr * g / (sqrt(v) + eps)")),
    ),
    Update(
        "rmsprop_momentum",
        ("v", "b"),
        ("t", "lr", "decay", "l1", "alpha", "eps", "momentum"),
        (("beta", "1 - alpha"),),
        (
            PENALTY,
            ("v", "alpha * v + beta * g * g"),
            ("b", "momentum * b + g / (sqrt(v) + eps)"),
            ("w", "w - lr * b"),
        ),
    ),
    Update(
        "adagrad",
        ("s",),
        ("t", "lr", "decay", "l1", "lr_decay", "eps"),
        (("rate", "lr / (1 + (t - 1) * lr_decay)"),),
        (PENALTY, ("s", "s + g * g"), ("w", "w - rate * g / (sqrt(s) + eps)")),
    ),
]

#: name -> row
BY_NAME = {row.name: row for row in TABLE}


def shares(
    parameters: Sequence[Any], gradients: Sequence[Any], states: Sequence[Sequence[Any]], values: Any
) -> Iterator[tuple[Sequence[Any], Sequence[Any], list[Sequence[Any]], Any]]:
    """(parameters, gradients, states, values) of each share of an update with a row of values for each."""
    each = len(parameters) // len(values)
    for i, row in enumerate(values):
        part = slice(i * each, (i + 1) * each)
        yield parameters[part], gradients[part], [state[part] for state in states], row
