"""A table of a model's layers: the class of each part, the shape of its output, and its trained parameters.

    Layer             Class           Output        Parameters  Trained
    -------------------------------------------------------------------
    GPT2              GPT2            (1, 3)         5,728,003  5,695,235
    ├─ embeddings     GPT2Embeddings  (1, 16, 128)   4,128,768  4,096,000
    │  └─ token       Embedding       (1, 16, 128)   4,096,000  all
    │  └─ position    Embedding       (16, 128)         32,768  none
    ├─ layers.0       GPT2Layer       (1, 16, 128)     197,760  all
    ...

A row counts all parameters in its part, including the parts inside it. A tensor that several parts share counts where
it first appears; a part that contains only such tensors has "shared". A layer whose rows would repeat those of an
earlier layer is one row, "as layers.0". Modules without parameters (dropout, activations) have no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minilm.models.architecture import Backbone, evaluation_mode
from minilm.reporting.tables import ABSENT, count, text_table


@dataclass(frozen=True)
class LayerRow:
    """One part of a model."""

    name: str  # as in ``named_modules``; empty: the model itself
    label: str  # its name in its parent
    depth: int
    kind: str  # its class, or "as" and the name of an equal earlier layer
    shape: tuple[int, ...] | None  # of its output; None: not called in this forward, or not a tensor
    parameters: int  # in it and its parts, without those that an earlier row has counted
    trained: int  # how many of these have gradients


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """The number of parameters, and of trained parameters. Shared parameters count once."""
    return _sizes(list(model.parameters()))


def summarize(model: nn.Module) -> str:
    """The table of layers and the totals, as text."""
    lines = [(_tree(row) + row.label, row.kind, str(row.shape or ABSENT), *_counts(row)) for row in layer_rows(model)]
    table = text_table(("Layer", "Class", "Output", "Parameters", "Trained"), lines, left=3)
    rule = table.splitlines()[1]
    total, trained = parameter_counts(model)
    mebibytes = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    totals = {
        "Parameters": count(total),
        "Trained": count(trained),
        "Frozen": count(total - trained),
        "Size in MiB": f"{mebibytes:,.1f}",
    }
    return "\n".join([table, rule, *(f"{name:<12}{value:>15}" for name, value in totals.items())])


def layer_rows(model: nn.Module) -> list[LayerRow]:
    """The model's parts, each before the parts that it contains.

    Output shapes come from a forward pass in evaluation mode, without gradients, with one text of 16 zeros as ids
    (1, 16), or fewer if the model's context is shorter. The model is not changed. A model on the meta device is
    summarised without computation.
    """
    root = LayerRow("", type(model).__name__, 0, "", None, 0, 0)
    return _rows(root, model, _output_shapes(model), set())


# --- Implementation ---


def _rows(
    row: LayerRow, module: nn.Module, shapes: dict[nn.Module, tuple[int, ...]], counted: set[int]
) -> list[LayerRow]:
    """The completed row of a module, and the rows of its parts. ``counted``: ids of the parameters in earlier rows."""
    new = [p for p in module.parameters() if id(p) not in counted]
    total, trained = _sizes(new)
    rows = [replace(row, kind=type(module).__name__, shape=shapes.get(module), parameters=total, trained=trained)]
    unfolded: dict[Any, str] = {}  # a layer's rows without its name -> the first layer with these rows
    for label, child in _children(module) if new else ():
        name = f"{row.name}.{label}".lstrip(".")
        below = _rows(LayerRow(name, label, row.depth + 1, "", None, 0, 0), child, shapes, counted)
        # Shapes may differ, as a classifier's last layer computes only one position.
        look = tuple((r.label if r is not below[0] else "", r.depth, r.kind, r.parameters, r.trained) for r in below)
        twin = unfolded.setdefault(look, label)
        rows += below if twin == label or len(below) == 1 else [replace(below[0], kind=f"as {twin}")]
    counted.update(map(id, new))
    return rows


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts with parameters. Members of a list count as parts of the module ("layers.0")."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{label}", member) for label, member in _children(child))
        elif any(True for _ in child.parameters()):
            yield name, child


def _output_shapes(model: nn.Module) -> dict[nn.Module, tuple[int, ...]]:
    """The shape of each module's last output in a forward pass with zeros."""
    ids_shape = (1, min(16, (model.context if isinstance(model, Backbone) else 0) or 16))
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = _first_tensor(output)
        if tensor is not None:
            shapes[module] = tuple(tensor.shape)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with evaluation_mode(model), torch.no_grad():
            model(torch.zeros(ids_shape, dtype=torch.int64, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _first_tensor(output: Any) -> Tensor | None:
    """The first tensor in a module's output: the output itself, or inside a tuple or a dataclass."""
    if isinstance(output, Tensor):
        return output
    if is_dataclass(output):
        output = [getattr(output, f.name) for f in fields(output)]
    elif isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return next((t for t in map(_first_tensor, output) if t is not None), None)
    return None


def _sizes(parameters: list[nn.Parameter]) -> tuple[int, int]:
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _tree(row: LayerRow) -> str:
    return "│  " * (row.depth - 1) + (("├─ " if row.depth == 1 else "└─ ") if row.depth else "")


def _counts(row: LayerRow) -> tuple[str, str]:
    if row.parameters == 0:
        return "shared", ""
    return count(row.parameters), {0: "none", row.parameters: "all"}.get(row.trained, count(row.trained))
