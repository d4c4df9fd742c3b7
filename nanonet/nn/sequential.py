from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nanonet.nn.activation import FUSED
from nanonet.nn.module import Module
from nanonet.tensor import Tensor, as_tensor


class Sequential(Module):
    """Layers, one after another: given by place, as one list, or as one dict of names.

    A Linear or a convolution and the ReLU, Tanh or Sigmoid that follows it are computed by one kernel, a BatchNorm and
    its ReLU too, unless a hook looks at either.
    When the first layer has an input_shape, layers that would wait for their first input are built at once.
    """

    def __init__(self, *layers: Module | Sequence[Module] | Mapping[str, Module]):
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = dict(layers[0])
        elif len(layers) == 1 and isinstance(layers[0], (list, tuple)):
            named = {str(i): layer for i, layer in enumerate(layers[0])}
        else:
            named = {str(i): layer for i, layer in enumerate(layers)}
        for name, layer in named.items():
            self._put(name, layer)
        self._build_if_known()

    @property
    def layers(self) -> list[Module]:
        return [value for value in vars(self).values() if isinstance(value, Module)]

    def add(self, layer: Module) -> None:
        """Put a layer at the end."""
        self._put(str(len(self)), layer)
        self._build_if_known()

    append = add

    def _put(self, name: str, layer: Module) -> None:
        if not isinstance(layer, Module):
            raise TypeError(f"Sequential: layer {name} is a {type(layer).__name__}, wanted a Module")
        setattr(self, name, layer)

    def _build_if_known(self) -> None:
        shape = getattr(self.layers[0], "input_shape", None) if len(self) else None
        if shape is not None:
            self.build(shape)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def __getitem__(self, index: int | slice) -> Module:
        """The layer at a place; for a slice a Sequential of these layers, which it shares."""
        return Sequential(*self.layers[index]) if isinstance(index, slice) else self.layers[index]

    def __setitem__(self, index: int, layer: Module) -> None:
        names = [name for name, value in vars(self).items() if isinstance(value, Module)]
        self._put(names[index], layer)

    def forward(self, x: Tensor) -> Tensor:
        x = as_tensor(x)
        layers = self.layers
        layers.append(None)
        place = 0
        while (layer := layers[place]) is not None:
            following = layers[place + 1]
            activation = FUSED.get(type(following))
            fuses = vars(type(layer)).get("_fuses", ())  # a kind derived from it may compute something else
            if activation not in fuses or layer._hooks or following._hooks:
                x = layer(x)
                place += 1
            else:
                layer._watch()
                x = layer.forward(x, activation)
                place += 2
        return x
