"""An ONNX graph gives the model's scores, for batches of any size and texts of any length, in every family."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from minilm.checkpoints.onnx_export import (
    check_installed,
    input_names,
    largest_difference,
    open_graph,
    quantize,
    write_onnx,
)
from minilm.errors import UserError
from minilm.models.architecture import Backbone
from minilm.models.heads import mlp_head
from tests.families import FAMILIES, draw_batch, small_model

ROOT = Path(__file__).parents[2]
QUICK = ("bert", "modernbert")  # segments; windows and rotary positions
LONGROPE = {"kind": "longrope", "trained": 8, "short": (1.0,) * 3, "long": (2.0,) * 3}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "only T5's encoder": ("t5", {"decoder": False, "head": mlp_head(24, pooling="mean")}),
    "a Gemma that reads to both sides": ("gemma3_text", {"bidirectional": True, "head": mlp_head(24, pooling="mean")}),
    "angles that depend on the length": ("llama", {"rotary": {"kind": "dynamic", "factor": 2.0}, "context": 8}),
    "angles that change at a length": ("llama", {"rotary": LONGROPE, "context": 64}),
}


def check(model: Backbone, path: Path) -> None:
    """The graph's scores are the model's, also for one text of one token and for texts longer than the example."""
    write_onnx(model, path)
    assert largest_difference(model, path) < 1e-5
    graph = open_graph(path)
    for lengths in ([1], [2, 1, 2, 1], [6, 40], [40]):
        batch = draw_batch(lengths, more=3)
        with torch.no_grad():
            torch.testing.assert_close(graph(batch), model(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_a_graph_gives_the_models_scores(tmp_path: Path, family: str) -> None:
    model, path = small_model(family), tmp_path / "model.onnx"
    check(model, path)
    graph = onnx.load(path).graph
    shapes = {value.name: [d.dim_param for d in value.type.tensor_type.shape.dim] for value in graph.input}
    assert shapes == {name: ["batch", "length"] for name in input_names(model.config)}
    assert [value.name for value in graph.output] == ["logits"]
    if family == "bert":  # the others are alike
        quantize(path, tmp_path / "int8.onnx")
        int8 = onnx.load(tmp_path / "int8.onnx").graph.initializer
        assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in int8)
        batch = draw_batch([20, 7])
        with torch.no_grad():
            torch.testing.assert_close(open_graph(tmp_path / "int8.onnx")(batch), model(batch), rtol=0.1, atol=0.1)
        assert str(ROOT).encode() not in path.read_bytes()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        with pytest.raises(RuntimeError, match=r"model\.onnx: its scores differ by"):
            largest_difference(model, path)


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS)
def test_a_graph_gives_the_scores_of_a_variant(tmp_path: Path, case: str) -> None:
    family, changes = OTHERS[case]
    check(small_model(family, **changes), tmp_path / "model.onnx")


def test_only_families_with_segments_read_them() -> None:
    named = {family for family in FAMILIES if "token_type_ids" in input_names(small_model(family, "encode").config)}
    assert named == {"albert", "bert", "deberta", "electra"}


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"--onnx needs the package {package}; .* pip install -e .*\[onnx\]'"):
        check_installed()
