from __future__ import annotations

from nanonet.nn.module import Module
from nanonet.nn.parameter import Parameter


def table(model: Module, input_shape: tuple[int, ...] | None = None) -> str:
    """A table of the model's layers as text. Output shapes are shown if input_shape, that of one row, is given."""
    shapes = {} if input_shape is None else _output_shapes(model, input_shape)
    rows = [("layer", "kind", "output", "parameters")]
    for name, module in model.named_modules():
        own = [value for _, value in module._members() if isinstance(value, Parameter)]
        if own or next(module.children(), None) is None:
            count = f"{sum(p.size for p in own):,}" if module._built else "not built"
            rows.append((name, type(module).__name__, shapes.get(id(module), ""), count))
    name, kind, output, count = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{r[0]:{name}}  {r[1]:{kind}}  {r[2]:{output}}  {r[3]:>{count}}" for r in rows]
    rule = "-" * len(lines[0])
    lines.insert(1, rule)
    if model.built:
        total = sum(p.size for p in model.parameters())
        trained = sum(p.size for p in model.parameters() if p.requires_grad)
        lines += [rule, f"{total:,} parameters, {trained:,} of them trained"]
    return "\n".join(lines)


def _output_shapes(model: Module, input_shape: tuple[int, ...]) -> dict[int, str]:
    """id of each module in the model -> the shape of its (last) output, with n for the number of rows."""
    shapes: dict[int, str] = {}

    def note(module: Module, args: tuple, out: object) -> None:
        if getattr(out, "shape", None):
            shapes[id(module)] = f"(n{''.join(f', {side}' for side in out.shape[1:])})"

    removers = [module.register_forward_hook(note) for module in model.modules()]
    try:
        model._try(input_shape)
    finally:
        for remove in removers:
            remove()
    return shapes
