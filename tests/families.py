"""A small model of every registered architecture: tests take their families from here, so that none is left out.

An architecture that needs more than the settings that all have names them in ``OWN``; whoever registers one without
an entry here is told by ``tests/models/test_architecture.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minilm.checkpoints.models import new_model
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch
from minilm.models.heads import HeadConfig

SMALL: dict[str, Any] = {"vocab_size": 50, "width": 24, "depth": 2, "heads": 4, "mlp_width": 20}
DEBERTA = {"relative": True, "content_to_position": True, "position_to_content": True}
GEMMA = {"kv_heads": 2, "head_width": 8}
T5 = {"head_width": 8, "decoder_depth": 3, "buckets": 8, "max_distance": 16}
OWN: dict[str, dict[str, Any]] = {
    "albert": {"embedding_width": 8},
    "bart": {"decoder_depth": 3, "decoder_heads": 2, "scaled_tokens": True},
    "bert": {},
    "camembert": {"segments": 1, "first_position": 2},
    "deberta": {**DEBERTA, "segments": 2},
    "deberta-v2": {**DEBERTA, "shared": True, "buckets": 4, "relative_norm": True, "kernel": 3, "positions": False},
    "distilbert": {},
    "electra": {"embedding_width": 8},
    "gemma": {**GEMMA, "window": 0},
    "gemma2": {**GEMMA, "window": 3},
    "gemma3_text": {**GEMMA, "window": 3, "global_every": 2},
    "gpt2": {},
    "llama": {"kv_heads": 2},
    "mistral": {"kv_heads": 2, "window": 3},
    "modernbert": {"window": 4, "norm_bias": True},
    "mpnet": {},
    "mt5": T5,
    "phi3": {"kv_heads": 2, "window": 3},
    "qwen2": {"kv_heads": 2, "attention_bias": True, "window": 3, "full_layers": (0,)},
    "qwen3": {"kv_heads": 2, "head_width": 8, "head_norms": True, "window": 3, "full_layers": (0,)},
    "roberta": {"segments": 1, "first_position": 2},
    "smollm3": {"kv_heads": 2, "unplaced_layers": (1,)},
    "t5": T5,
    "umt5": T5,
    "xlm-roberta": {"segments": 1, "first_position": 2},
}
FAMILIES = tuple(ARCHITECTURES)
POOLERS = tuple(name for name in FAMILIES if "pooler" in ARCHITECTURES[name].switches)
DECODERS = tuple(name for name in FAMILIES if ARCHITECTURES[name].language_modeling == "causal")
ENCODER_DECODERS = tuple(name for name in FAMILIES if ARCHITECTURES[name].language_modeling == "seq2seq")
MASKED = tuple(name for name in FAMILIES if ARCHITECTURES[name].language_modeling == "masked")


def small_config(family: str, **changes: Any) -> Any:
    """The settings of a family's small model."""
    return ARCHITECTURES[family].config(**{**SMALL, **OWN[family], **changes})


def small_model(family: str, task: str = "classify", head: HeadConfig | None = None, **changes: Any) -> Backbone:
    """A small model with weights large enough for differences to show; a classifier has the classes a, b and c."""
    torch.manual_seed(1)
    labels = ["a", "b", "c"] if task == "classify" else []
    model = new_model(family, small_config(family, **changes), task, labels=labels, head=head)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def draw_batch(lengths: list[int], more: int = 0, seed: int = 0) -> Batch:
    """Texts of these lengths, padded to ``more`` positions beyond the longest, each with its label."""
    rng, shape = torch.Generator().manual_seed(seed), (len(lengths), max(lengths) + more)
    ids, segments = torch.randint(4, 50, shape, generator=rng), torch.randint(0, 2, shape, generator=rng)
    return Batch.of(ids, mask_of(lengths, shape[1]), segments)


def mask_of(lengths: list[int], longest: int) -> Tensor:
    """(B, T), True at real tokens."""
    return torch.arange(longest) < torch.tensor(lengths)[:, None]
