"""Untrained classifiers to ask."""

from __future__ import annotations

import torch

from minilm.checkpoints.models import card_of, new_model
from minilm.data.tokenization import train_bpe
from minilm.devices import runtime
from minilm.evaluation.predictor import Classifier
from minilm.models.gpt2 import GPT2Config
from minilm.models.heads import mlp_head
from tests.tiny import texts

TEXTS = [text for text, _ in texts(30)]
CPU = runtime("cpu", "float32")


def classifier(*, several: bool = False, **reading: object) -> Classifier:
    """An untrained classifier with what it would remember of its training."""
    torch.manual_seed(0)
    tokenizer = train_bpe(TEXTS, 300)
    config = GPT2Config(tokenizer.get_vocab_size(), context=16, width=16, depth=1, heads=2)
    model = new_model("gpt2", config, "classify", labels=["no", "yes", "well"], head=mlp_head(16))
    card_of(model).extra |= reading
    if several:
        card_of(model).published["problem_type"] = "multi_label_classification"
    return Classifier(model, tokenizer, CPU)
