"""Module: what layers and models have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from kernels import plan
from nanonet.autograd import no_grad
from nanonet.device import copied, host, memory, moved, write
from nanonet.errors import CheckpointError
from nanonet.nn.parameter import Buffer, Parameter
from nanonet.ops.random import Stream
from nanonet.tensor import Tensor, dtype_of, zeros

Hook = Callable[["Module", tuple, Any], Any]


class Module:
    """A layer or a model: parameters, other modules, and `forward`.

    A kind of module gives `forward`, and sets its parameters and modules as attributes; they are found there, also
    within lists, tuples and dicts, and named by the way to them: "encoder.0.weight". `super().__init__()` is allowed
    and not needed.

        class Net(nn.Module):
            def __init__(self):
                self.hidden = nn.Linear(64, 128)
                self.out = nn.Linear(128, 10)

            def forward(self, x):
                return self.out(self.hidden(x).relu())
    """

    _training = True
    _built = True
    _structure = (
        0  # counts the parameters, modules and options put in, and changes of dtype; a recorded step watches it
    )
    _hooks: tuple[Hook, ...] = ()
    _fuses: tuple[str, ...] = ()  # activations that this very kind takes as the second argument of its forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output for an input. Each kind of module has its own."""
        raise NotImplementedError(f"{type(self).__name__}: forward is missing")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if plan.current() is not None:
            self._watch()
        out = self.forward(*args, **kwargs)
        for hook in self._hooks:
            changed = hook(self, args, out)
            out = out if changed is None else changed
        return out

    def _watch(self) -> None:
        """Have a step that is recorded now be recorded again when a parameter or module of this one is replaced."""
        recorder = plan.current()
        if recorder is not None:
            recorder.guard(self, "_structure")

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.get(name)
        object.__setattr__(self, name, value)
        if before is not value and (isinstance(value, (Parameter, Buffer, Module)) or _is_option(name, before, value)):
            object.__setattr__(self, "_structure", self._structure + 1)

    def register_buffer(self, name: str, data: Any) -> None:
        """Make `data` a buffer under that name: part of the state, not trained."""
        setattr(self, name, data if isinstance(data, Buffer) else Buffer(data))

    def register_forward_hook(self, hook: Hook) -> Callable[[], None]:
        """Call `hook(module, args, output)` after each forward; what it returns, if not None, takes the output's place.

        Returns a function that removes the hook. A replay of a recorded step does not call hooks.
        """
        self._hooks = (*self._hooks, hook)

        def remove() -> None:
            self._hooks = tuple(h for h in self._hooks if h is not hook)

        return remove

    # ------------------------------------------------------------------------ what it holds

    def _members(self) -> Iterator[tuple[str, Any]]:
        """The parameters, buffers, modules and random streams it holds itself, with their names."""
        for name, value in vars(self).items():
            yield from _unpacked(name, value)

    def _find(self, kind: type) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in module._members():
                if isinstance(value, kind) and id(value) not in seen:
                    seen.add(id(value))
                    yield _join(path, name), value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) for each parameter once, in the order of the attributes, its own first.

        Raises RuntimeError while a layer in it waits for its first input to make its weights (see `build`).
        """
        for path, module in self.named_modules():
            if not module._built:
                raise RuntimeError(
                    f"{path or 'model'}: {module!r} has no weights before it knows its inputs; give it "
                    "input_shape=..., call build(input_shape), or call the model on data first"
                )
        return self._find(Parameter)

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        return self._find(Buffer)

    def buffers(self) -> Iterator[Buffer]:
        return (buffer for _, buffer in self.named_buffers())

    def named_streams(self) -> Iterator[tuple[str, Stream]]:
        """(name, stream) for each random stream, as that of a Dropout."""
        return self._find(Stream)

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """(name, module) for this module (named "") and each one in it, once, in depth."""
        return _walk("", self, set())

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) for each module that it holds itself."""
        return ((name, value) for name, value in self._members() if isinstance(value, Module))

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Call `function` on each module in it, children first, and on itself."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # ------------------------------------------------------------------------------- modes

    @property
    def training(self) -> bool:
        """Is it in training mode (the default)? A recorded step that asks is recorded again when the answer changes."""
        recorder = plan.current()
        if recorder is not None:
            recorder.guard(self, "_training")
        return self._training

    @training.setter
    def training(self, value: bool) -> None:
        recorder = plan.current()
        if recorder is not None:
            recorder.guard(self, "_training")
        self._training = bool(value)

    def train(self, mode: bool = True) -> Module:
        """Put it and all modules in it into training mode, or with False into evaluation mode."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Put it and all modules in it into evaluation mode: Dropout passes everything on, and BatchNorm takes its
        running mean and variance."""
        return self.train(False)

    def requires_grad_(self, value: bool = True) -> Module:
        """Have gradients be followed, or not, through all its parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(value)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of its parameters; with set_to_none=False fill them with zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def to(self, *targets: Any) -> Module:
        """Move it to a device ("cpu", "cuda"), give its float parameters and buffers another dtype, or both; in place.

        Gradients are forgotten; with another dtype, optimizers made before are to be made anew. Raises DeviceError,
        DtypeError, and BackendUnavailable where there is no GPU; then nothing has changed.
        """
        devices = [memory(t) for t in targets if isinstance(t, str) and t.partition(":")[0] in ("cpu", "cuda")]
        dtypes = [dtype_of(t) for t in targets if not isinstance(t, str) or t.partition(":")[0] not in ("cpu", "cuda")]
        for module in self.modules():
            module._structure += 1
        for tensor in (*self.parameters(), *self.buffers()):
            array = tensor.array
            for dtype in dtypes:
                array = copied(array, dtype) if array.dtype.kind == "f" and array.dtype != dtype else array
            for device in devices:
                array = moved(array, device)
            if array is not tensor.array:
                tensor.array, tensor.grad = array, None
        for _, stream in self.named_streams():
            for device in devices:
                stream.to(device)
        return self

    def cpu(self) -> Module:
        return self.to("cpu")

    def cuda(self) -> Module:
        return self.to("cuda")

    def float(self) -> Module:
        return self.to("float32")

    def double(self) -> Module:
        return self.to("float64")

    # ------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the values of all parameters and buffers by name."""
        return {name: tensor.numpy().copy() for name, tensor in self._state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Overwrite the parameters and buffers, in place, with arrays or tensors from `state_dict()`.

        Raises CheckpointError that lists names that are missing or unexpected (unless strict=False) and wrong shapes;
        then nothing is overwritten.
        """
        own = dict(self._state())
        given = {name: np.asarray(host(v.array) if isinstance(v, Tensor) else v) for name, v in state.items()}
        faults = []
        if strict:
            faults += [f"{name} is missing" for name in own if name not in given]
            faults += [f"{name} is unexpected" for name in given if name not in own]
        for name, tensor in own.items():
            if name in given and given[name].shape != tensor.shape:
                faults.append(f"{name} has shape {given[name].shape}, wanted {tensor.shape}")
            elif name in given and given[name].dtype.kind not in "fiub":
                faults.append(f"{name} holds {given[name].dtype}, wanted numbers")
        if faults:
            raise CheckpointError(f"load_state_dict: {'; '.join(faults)}")
        with no_grad():
            for name, tensor in own.items():
                if name in given:
                    tensor.copy_(given[name])

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.named_parameters()
        yield from self.named_buffers()

    def random_state(self) -> dict[str, np.ndarray]:
        """The states of all random streams by name: with them a restored model goes on drawing as it would have."""
        return {name: host(stream.state).copy() for name, stream in self.named_streams()}

    def load_random_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `random_state()`. Raises CheckpointError, and changes nothing, unless the names are the same."""
        own = dict(self.named_streams())
        if own.keys() != state.keys():
            raise CheckpointError(f"load_random_state: got streams {sorted(state)}, wanted {sorted(own)}")
        for name, stream in own.items():
            write(stream.state, state[name])

    def save(self, path: str | os.PathLike) -> None:
        """Write the parameters and buffers to one file (see `nanonet.checkpoint`)."""
        from nanonet import checkpoint

        checkpoint.save(path, {"kind": "weights", "weights": self.state_dict()})

    def load(self, path: str | os.PathLike) -> Module:
        """Overwrite the parameters and buffers with those of a file that `save` or a ModelCheckpoint wrote.

        Raises CheckpointError.
        """
        from nanonet import checkpoint

        state = checkpoint.load(path)
        state = state if isinstance(state, dict) else {}
        weights = state.get("weights") if state.get("kind") == "weights" else state.get("model")
        if not isinstance(weights, dict):
            raise CheckpointError(f"{os.fspath(path)}: holds no weights of a model")
        self.load_state_dict(weights)
        return self

    # -------------------------------------------------------------------------- its shapes

    @property
    def built(self) -> bool:
        """Have all layers in it made their weights? A Dense without input_shape waits for its first input."""
        return all(module._built for module in self.modules())

    def build(self, input_shape: tuple[int, ...]) -> Module:
        """Have layers that wait for their first input make their weights. input_shape: that of one row of the input."""
        if not self.built:
            self._try(input_shape)
        return self

    def _try(self, input_shape: tuple[int, ...]) -> None:
        """Call it on one row of zeros, in evaluation mode, without gradients and outside any recording."""
        with plan.paused(), no_grad(), _evaluating(self):
            self(zeros(1, *input_shape))

    def summary(self, input_shape: tuple[int, ...] | None = None, print_fn: Callable[[str], Any] = print) -> None:
        """Print a table of the layers: name, kind, output shape if input_shape (of one row) is given, parameters."""
        from nanonet.nn.summary import table

        print_fn(table(self, input_shape))

    def extra_repr(self) -> str:
        """What `repr` tells about this module itself; a kind of module may have its own."""
        return ""

    def __repr__(self) -> str:
        name, extra = type(self).__name__, self.extra_repr()
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        if not lines:
            return f"{name}({extra})"
        return "\n  ".join([f"{name}({extra}", *lines]) + "\n)"

    # ----------------------------------------------------------------------------- training

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """Choose optimizer, loss and metrics for `fit`. See `nanonet.fitting.compile`."""
        from nanonet import fitting

        return fitting.compile(self, *args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train on arrays and return the history. See `nanonet.fitting.fit`."""
        from nanonet import fitting

        return fitting.fit(self, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Loss and metrics on arrays. See `nanonet.fitting.evaluate`."""
        from nanonet import fitting

        return fitting.evaluate(self, *args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs for an array, as an array. See `nanonet.fitting.predict`."""
        from nanonet import fitting

        return fitting.predict(self, *args, **kwargs)


def _is_option(name: str, before: Any, value: Any) -> bool:
    """Is this another value for a number, a text or a tuple that a layer computes with, as `p` of a Dropout?"""
    kinds = (bool, int, float, str, tuple, np.number)
    return before != value and not name.startswith("_") and isinstance(before, kinds) and isinstance(value, kinds)


def _unpacked(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (Parameter, Buffer, Module, Stream)):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _unpacked(f"{name}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _unpacked(f"{name}.{key}", item)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _walk(path: str, module: Module, seen: set[int]) -> Iterator[tuple[str, Module]]:
    if id(module) not in seen:
        seen.add(id(module))
        yield path, module
        for name, child in module.named_children():
            yield from _walk(_join(path, name), child, seen)


def set_mode(modules: Iterable[Module], training: bool) -> None:
    """Put these modules, and none in them, into a mode: `Module.train` without looking for what is in a model."""
    for module in modules:
        object.__setattr__(module, "_training", training)


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode within; afterwards each module is in the mode it was in."""
    before = [(module, module._training) for module in model.modules()]
    for module, _ in before:
        module._training = False
    try:
        yield
    finally:
        for module, mode in before:
            module._training = mode
