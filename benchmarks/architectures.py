"""Forward, and forward with backward, of four architectures beside ``transformers`` (SDPA): same sizes, same batch.

The batch is 4 texts of 64 to 128 tokens, padded on the right. Both models are in training mode with dropout 0, so that
both do all of the work and none of the chance.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import Result, compare
from minilm.checkpoints.models import load_model

TEXTS, LONGEST, AIM = 4, 128, 0.97


def published_models() -> dict[str, Callable[[], Any]]:
    """Each architecture's published model, random weights, no dropout."""
    import transformers as hf

    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    bielik = {
        "vocab_size": 32000, "hidden_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12,
        "num_key_value_heads": 2, "intermediate_size": 8960, "attention_bias": True, "mlp_bias": True,
    }  # fmt: skip
    configs = {
        "BERT-base": hf.BertConfig(**no_dropout),
        "DistilBERT": hf.DistilBertConfig(dropout=0.0, attention_dropout=0.0),
        "GPT-2": hf.GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        "Llama, 6 layers of Bielik's width": hf.LlamaConfig(**bielik),
    }
    return {
        name: lambda config=config: hf.AutoModel.from_config(config, attn_implementation="sdpa")
        for name, config in configs.items()
    }


def batch(vocab_size: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, (B, T)."""
    torch.manual_seed(0)
    lengths = torch.linspace(LONGEST // 2, LONGEST, TEXTS).long()
    mask = torch.arange(LONGEST) < lengths[:, None]
    return torch.randint(5, vocab_size, (TEXTS, LONGEST)) * mask, mask


def run() -> Iterator[Result]:
    """Every architecture, forward and forward with backward."""
    for name, make in published_models().items():
        theirs = make().train()
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            ours = load_model(folder, "encode", dtype=torch.float32)
        ours.train()
        ids, mask = batch(theirs.config.vocab_size)

        def step(forward: Callable[[], Tensor], model: torch.nn.Module, backward: bool) -> Callable[[], None]:
            def work() -> None:
                with torch.set_grad_enabled(backward):
                    x = forward()
                if backward:
                    x.sum().backward()
                    model.zero_grad()

            return work

        def our_forward(model: Any = ours, ids: Tensor = ids, mask: Tensor = mask) -> Tensor:
            return model(ids, mask)

        def their_forward(model: Any = theirs, ids: Tensor = ids, mask: Tensor = mask) -> Tensor:
            return model(input_ids=ids, attention_mask=mask.long()).last_hidden_state

        for what, backward in (("forward", False), ("forward + backward", True)):
            yield compare(
                f"{name}, {what}",
                step(our_forward, ours, backward),
                step(their_forward, theirs, backward),
                samples=(TEXTS, TEXTS),
                aim=AIM,
            )
