"""Differentiation: operations with derivative rules, and the sweep that applies them backwards.

An op is one function that computes on arrays. Its derivative rule stands beside it and is written on Tensors, so that
it can be differentiated again. The engine undoes broadcasting, and calls only the rules whose result is asked for.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kernels import plan, registry
from kernels.elementwise import BY_NAME
from kernels.memory import owner
from kernels.registry import backend_of
from nanonet.device import host, same_device, share_memory
from nanonet.errors import ShapeError
from nanonet.tensor import Tensor, as_tensor, constant, mode, ones_like, tensor

_count = itertools.count(1)


class Op:
    """A differentiable operation: `forward(*args)` gives its result, `rule(g, out, *args)` a function per argument.

    With `saves=True` forward returns (result, saved) and the rule is called as `rule(g, out, saved, *args)`. With
    `needs_out=False` the rule makes no use of `out`, and the result's memory is not held for it. Arguments that are no
    Tensors are constants of the operation; keyword arguments too, and they are given to both.
    """

    def __init__(self, forward: Callable, saves: bool = False, needs_out: bool = True):
        self.forward = forward
        self.name = forward.__name__
        self.__doc__ = forward.__doc__
        self.saves = saves
        self.needs_out = needs_out
        self.rule: Callable | None = None

    def derivative(self, rule: Callable) -> Callable:
        """Register the derivative rule: for each argument a function without arguments, or None."""
        self.rule = rule
        return rule

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        if registry.others:
            same_device(self.name, [arg.array for arg in args if isinstance(arg, Tensor)])
        out = self.forward(*args, **kwargs)
        saved = None
        if self.saves:
            out, saved = out
        if mode.anomaly:
            _check_finite(out, self.name, "forward")
        if mode.grad:
            recorder = plan.current()
            follow = False
            for arg in args:
                if isinstance(arg, Tensor):
                    if recorder is not None and arg.node is None and not recorder.arena.owns(arg.array):
                        recorder.guard(arg, "_requires_grad")
                    follow |= arg._requires_grad
            if follow and out.array.dtype.kind == "f":
                out.node = Node(self, args, kwargs, out.array if self.needs_out else None, saved)
                out._requires_grad = True
        return out

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def op(forward: Callable | None = None, *, saves: bool = False, needs_out: bool = True) -> Any:
    """Make an Op of a function; see `Op`."""
    if forward is None:
        return lambda function: Op(function, saves, needs_out)
    return Op(forward)


class Node:
    """One use of an op. Its number is larger than those of the nodes that it depends on."""

    __slots__ = ("args", "hooks", "kwargs", "number", "op", "out", "saved")

    def __init__(self, op: Op, args: tuple, kwargs: dict, out: np.ndarray | None, saved: Any):
        self.op = op
        self.args = args
        self.kwargs = kwargs
        self.out = out
        self.saved = saved
        self.hooks = None
        self.number = next(_count)

    def thunks(self, gradient: Tensor) -> Sequence[Callable[[], Tensor] | None]:
        if self.args is None:
            raise RuntimeError(
                f"{self.op.name}: this part of the graph has been differentiated and freed; "
                "pass retain_graph=True to the first backward"
            )
        out = None
        if self.out is not None:
            out = Tensor(self.out)
            out.node, out._requires_grad = self, True
        if self.op.saves:
            return self.op.rule(gradient, out, self.saved, *self.args, **self.kwargs)
        return self.op.rule(gradient, out, *self.args, **self.kwargs)

    def free(self) -> None:
        self.args = self.out = self.saved = None


# ------------------------------------------------------------------------------- the sweep


def backward(
    root: Tensor,
    gradient: Tensor | np.ndarray | None = None,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> None:
    """Add d(root)/d(leaf), times `gradient`, to `leaf.grad` of every leaf that requires it.

    root must have one element if no gradient (of root's shape) is given. The graph is freed on the way, unless
    `retain_graph`; with `create_graph` the gradients can themselves be differentiated.
    """
    gradient = _root_gradient("backward", root, gradient)
    if root.node is None:
        _add_to_leaf(root, gradient, None, create_graph)
        return
    sweep([(root, gradient)], None, retain_graph or create_graph, create_graph)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of `outputs` for `inputs`, as a tuple; nobody's `.grad` is touched.

    Only what leads from inputs to outputs is computed. Raises RuntimeError for an input that the outputs do not depend
    on, unless `allow_unused` (then its gradient is None).
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None:
        given = [None] * len(outputs)
    else:
        given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    if len(given) != len(outputs):
        raise ValueError(f"grad: {len(outputs)} outputs, but {len(given)} grad_outputs")
    roots = [(o, _root_gradient("grad", o, g)) for o, g in zip(outputs, given, strict=True)]
    keep = create_graph if retain_graph is None else retain_graph
    found = sweep(roots, inputs, keep, create_graph)
    for i, (x, value) in enumerate(zip(inputs, found, strict=True)):
        if value is None and not allow_unused:
            raise RuntimeError(f"grad: the outputs do not depend on input {i} (shape {x.shape}); see allow_unused")
    return tuple(found)


def sweep(
    roots: list[tuple[Tensor, Tensor]], inputs: list[Tensor] | None, retain_graph: bool, create_graph: bool
) -> list[Tensor | None]:
    """Carry gradients from `roots` back, last node first. With `inputs` collect theirs, else add to leaves' grad."""
    wanted = None if inputs is None else {_key(t) for t in inputs}
    useful = None if wanted is None else _leading_to(wanted, [t for t, _ in roots])
    collected: dict[int, Tensor] = {}
    pending: dict[Node, Tensor] = {}
    heap: list[tuple[int, Node]] = []

    def arrive(tensor: Tensor, gradient: Tensor, source: Tensor | None) -> None:
        node = tensor.node
        if node is not None:
            before = pending.get(node)
            if before is None:
                heapq.heappush(heap, (-node.number, node))
                pending[node] = gradient
            else:
                pending[node] = before + gradient
        elif wanted is None:
            _add_to_leaf(tensor, gradient, source, create_graph)
        elif id(tensor) in wanted:
            gradient = _apply_hooks(tensor._hooks, gradient)
            before = collected.get(id(tensor))
            collected[id(tensor)] = gradient if before is None else before + gradient

    before_grad = mode.grad
    mode.grad = create_graph
    try:
        for tensor, gradient in roots:
            arrive(tensor, gradient, gradient)
        while heap:
            _, node = heapq.heappop(heap)
            gradient = pending.pop(node)
            if node.hooks:
                gradient = _apply_hooks(node.hooks, gradient)
            if wanted is not None and id(node) in wanted:
                collected[id(node)] = gradient
                if node not in useful:
                    continue
            args = node.args
            for arg, thunk in zip(args or (), node.thunks(gradient), strict=False):
                if thunk is None or not isinstance(arg, Tensor) or not arg._requires_grad:
                    continue
                if useful is not None and _key(arg) not in wanted and arg.node not in useful:
                    continue
                value = thunk()
                if mode.anomaly:
                    _check_finite(value, node.op.name, "backward")
                if value.array.shape != arg.array.shape:
                    value = sum_to(value, arg.array.shape)
                arrive(arg, value, gradient)
            if not retain_graph:
                node.free()
    finally:
        mode.grad = before_grad
    return [] if inputs is None else [collected.get(_key(t)) for t in inputs]


def _key(tensor: Tensor) -> int:
    return id(tensor) if tensor.node is None else id(tensor.node)


def _leading_to(wanted: set[int], roots: list[Tensor]) -> set[Node]:
    """The nodes on a way from the wanted tensors to the roots (those that have a wanted argument, at any depth)."""
    useful: set[Node] = set()
    seen: set[Node] = set()
    stack = [(t.node, False) for t in roots if t.node is not None]
    while stack:
        node, done = stack.pop()
        tensors = [a for a in node.args or () if isinstance(a, Tensor) and a._requires_grad]
        if done:
            if any(_key(a) in wanted or a.node in useful for a in tensors):
                useful.add(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((a.node, False) for a in tensors if a.node is not None)
    return useful


def _root_gradient(caller: str, root: Tensor, gradient: Any) -> Tensor:
    if not root._requires_grad:
        raise RuntimeError(f"{caller}: the tensor does not depend on anything that requires a gradient")
    if gradient is None:
        if root.array.size != 1:
            raise ShapeError(
                f"{caller}: a tensor of shape {root.shape} needs a gradient of that shape; only a single value has none"
            )
        on_host = type(root.array) is np.ndarray
        return constant(1.0, root.dtype) if on_host and not root.ndim else ones_like(root)
    gradient = as_tensor(gradient, root.dtype, root)
    if gradient.shape != root.shape:
        raise ShapeError(f"{caller}: gradient has shape {gradient.shape}, the tensor {root.shape}")
    return gradient


def _apply_hooks(hooks: list | None, gradient: Tensor) -> Tensor:
    for hook in list(hooks or ()):
        changed = hook(gradient)
        gradient = gradient if changed is None else changed
    return gradient


def _add_to_leaf(leaf: Tensor, gradient: Tensor, source: Tensor | None, create_graph: bool) -> None:
    """leaf.grad += gradient. The sum is the leaf's own: it shares memory with no other gradient."""
    if leaf._hooks:
        gradient, source = _apply_hooks(leaf._hooks, gradient), None
    before = leaf.grad
    if create_graph:
        leaf.grad = gradient.clone() if before is None else before + gradient
    elif before is None:
        leaf.grad = gradient if _is_new(gradient, source) else tensor(gradient)
    elif before._requires_grad:  # others may need its values to differentiate through it
        leaf.grad = before + gradient
    else:
        array = before.array
        backend_of(array).elementwise(BY_NAME["add"].forward, array, gradient.array, out=array)


def _is_new(gradient: Tensor, source: Tensor | None) -> bool:
    """Was the gradient's memory made for it alone, by the rule that was given `source`?"""
    array = gradient.array
    if source is None or not array.flags.c_contiguous:
        return False
    if type(array) is not np.ndarray or type(source.array) is not np.ndarray:
        return not share_memory(array, source.array)
    return array.flags.writeable and owner(array) is not owner(source.array)


def sum_to(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo broadcasting: sum over the axes that `shape` lacks or has with length one."""
    extra = value.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, side in enumerate(shape) if side == 1 and value.shape[i + extra] != 1
    )
    value = value.sum(axes, keepdims=True)
    return value.reshape(shape) if value.shape != shape else value


def _check_finite(value: Tensor, name: str, direction: str) -> None:
    with plan.paused():
        array = host(value.array)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            raise FloatingPointError(f"{kind} arose in the {direction} computation of {name}, shape {array.shape}")


# ------------------------------------------------------------------------------ switches


@contextmanager
def _switch(name: str, value: bool) -> Iterator[None]:
    before = getattr(mode, name)
    setattr(mode, name, value)
    try:
        yield
    finally:
        setattr(mode, name, before)


def no_grad() -> Any:
    """Within this context (or decorated function) no derivatives are followed."""
    return _switch("grad", False)


def enable_grad() -> Any:
    """Within this context derivatives are followed, even inside `no_grad`."""
    return _switch("grad", True)


def is_grad_enabled() -> bool:
    """Whether derivatives are followed in this thread."""
    return mode.grad


def detect_anomaly() -> Any:
    """Within this context the first op whose result (or gradient) holds NaN or infinity raises FloatingPointError,
    which names it and says whether it arose forward or backward. Slow: it looks at every value."""
    return _switch("anomaly", True)


# ---------------------------------------------------------------------------- user's own ops


class Context:
    """What a Function's forward leaves for its backward; attributes may be set freely."""

    def __init__(self):
        self.saved_tensors: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors


class Function:
    """A user's own op: static methods `forward(ctx, *args) -> Tensor` and `backward(ctx, g) -> gradient per argument`.

    Call it with `apply`. backward is written on Tensors; if it uses differentiable operations on saved inputs, it can
    be differentiated again.
    """

    @staticmethod
    def forward(ctx: Context, *args: Any) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Context, *gradients: Tensor) -> Any:
        raise NotImplementedError

    @classmethod
    def apply(cls, *args: Any) -> Tensor:
        def forward(*args):
            ctx = Context()
            with no_grad():
                out = cls.forward(ctx, *args)
            if not isinstance(out, Tensor):
                raise TypeError(f"{cls.__name__}.forward returned {type(out).__name__}, wanted a Tensor")
            return Tensor(out.array), ctx

        def rule(g, out, ctx, *args):
            results = cls.backward(ctx, g)
            results = results if isinstance(results, tuple) else (results,)
            if len(results) != len(args):
                raise ValueError(f"{cls.__name__}.backward returned {len(results)} gradients for {len(args)} arguments")
            for i, (r, arg) in enumerate(zip(results, args, strict=True)):
                if r is not None and (not isinstance(r, Tensor) or r.shape != getattr(arg, "shape", None)):
                    raise ShapeError(
                        f"{cls.__name__}.backward: gradient {i} is a {type(r).__name__} of shape "
                        f"{getattr(r, 'shape', None)}, wanted a Tensor of its argument's, {getattr(arg, 'shape', None)}"
                    )
            return [None if r is None else r.clone for r in results]  # clones: it may have returned what it saved

        forward.__name__ = cls.__name__
        function = Op(forward, saves=True)
        function.rule = rule
        return function(*args)


# -------------------------------------------------------------------------- checking gradients


def gradcheck(
    function: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
) -> bool:
    """Compare the gradients of `function(*inputs)` with central differences (f(x + e) - f(x - e)) / 2e, in full.

    inputs are float64 tensors; those that require a gradient are varied. Raises AssertionError that names the input
    and shows both values at the worst place; returns True.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for i, x in enumerate(inputs):
        if x.requires_grad and x.dtype != np.float64:
            raise TypeError(f"gradcheck: input {i} is {x.dtype}, wanted float64")
    out = function(*inputs)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, out.shape)
    varied = [x for x in inputs if x.requires_grad]
    exact = grad(out, varied, as_tensor(weights, out.dtype, out), allow_unused=True)
    for i, (x, g) in enumerate(zip(varied, exact, strict=True)):
        found = np.zeros(x.shape) if g is None else host(g.array)
        expected = np.empty(x.shape)
        flat = x.array.reshape(-1) if x.array.flags.c_contiguous else None
        if flat is None:
            raise ValueError(f"gradcheck: input {i} is not contiguous")
        for j, middle in enumerate(host(flat).tolist()):
            sums = []
            for value in (middle + eps, middle - eps):
                flat[j] = value
                with no_grad():
                    sums.append(float((host(function(*inputs).array) * weights).sum()))
            flat[j] = middle
            expected.reshape(-1)[j] = (sums[0] - sums[1]) / (2 * eps)
        if not np.allclose(found, expected, atol=atol, rtol=rtol, equal_nan=True):
            worst = np.unravel_index(np.argmax(np.abs(found - expected)), x.shape)
            raise AssertionError(
                f"gradcheck: input {i} at {tuple(map(int, worst))}: "
                f"gradient {found[worst]}, differences {expected[worst]}"
            )
    return True


def gradgradcheck(
    function: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-4,
    rtol: float = 1e-3,
) -> bool:
    """`gradcheck` of the gradient itself: second derivatives. Arguments as there."""
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    varied = [i for i, x in enumerate(inputs) if x.requires_grad]

    def gradient(*args: Tensor) -> Tensor:
        with enable_grad():
            args = [
                a if i not in varied or a.requires_grad else a.detach().requires_grad_() for i, a in enumerate(args)
            ]
            out = function(*args)
            weights = np.random.default_rng(1).uniform(0.5, 1.5, out.shape)
            found = grad(
                out, [args[i] for i in varied], as_tensor(weights, out.dtype, out), create_graph=True, allow_unused=True
            )
        total = None
        for k, g in enumerate(found):
            if g is None:
                continue
            w = np.random.default_rng(2 + k).uniform(0.5, 1.5, g.shape)
            part = (g * as_tensor(w, g.dtype, g)).sum()
            total = part if total is None else total + part
        return total if total is not None else as_tensor(np.zeros(()), np.dtype(np.float64))

    probe = gradient(*inputs)
    if not probe.requires_grad:
        return True
    return gradcheck(gradient, inputs, eps, atol, rtol)
