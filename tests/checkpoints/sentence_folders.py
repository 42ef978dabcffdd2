"""Small sentence models, written as sentence-transformers writes them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from minilm.checkpoints.contents import read_contents
from minilm.checkpoints.models import write_tokenizer
from minilm.data.tokenization import load_tokenizer
from tests.data.tokenizer_folders import write_json

REFERENCE = Path(__file__).parents[1] / "reference"
TYPES = "sentence_transformers.models."


def sentence_model(
    folder: Path,
    backbone: str,
    pooling: dict[str, Any],
    *,
    dense: list[dict[str, Any]] | None = None,
    normalize: bool = False,
    prompts: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> Path:
    """The backbone of a reference folder with these modules after it. ``dense``: the config of each dense layer."""
    shutil.copytree(REFERENCE / backbone, folder)
    config = read_contents(folder).config
    write_tokenizer(load_tokenizer(folder), folder, config)  # for others, by which they take it as it is
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    write_json(folder / "1_Pooling", "config.json", {"word_embedding_dimension": config.width, **pooling})
    generator = torch.Generator().manual_seed(0)
    for number, layer in enumerate(dense or [], 2):
        place = folder / f"{number}_Dense"
        modules.append(("Dense", place.name))
        write_json(place, "config.json", layer)
        tensors = {"linear.weight": torch.randn(layer["out_features"], layer["in_features"], generator=generator)}
        if layer.get("bias", True):
            tensors["linear.bias"] = torch.randn(layer["out_features"], generator=generator)
        save_file(tensors, place / "model.safetensors")
    if normalize:
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
        (folder / modules[-1][1]).mkdir()
    written = [
        {"idx": i, "name": str(i), "path": path, "type": TYPES + kind} for i, (kind, path) in enumerate(modules)
    ]
    write_json(folder, "modules.json", written)
    if prompts is not None:
        write_json(folder, "config_sentence_transformers.json", prompts)
    write_json(folder, "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False, **(settings or {})})
    return folder
