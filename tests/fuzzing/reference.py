"""What ``transformers`` computes from a checkpoint's folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from torch import Tensor

transformers.logging.set_verbosity_error()


def reference_output(folder: Path, expected: dict[str, Tensor], mask: Tensor) -> Tensor | None:
    """The output of the class that ``config.json`` names; None if it does not open the files wholly, or computes
    nothing from them."""
    try:
        name = json.loads((folder / "config.json").read_bytes())["architectures"][0]
        kind = getattr(transformers, name)
        model, loading = kind.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        if loading["missing_keys"] or loading["mismatched_keys"]:
            return None
        inputs = {"input_ids": expected["ids"], "attention_mask": mask.long()}
        inputs |= {"token_type_ids": expected["segments"]} if "segments" in expected else {}
        inputs |= {"decoder_input_ids": expected["decoder_ids"]} if "decoder_ids" in expected else {}
        with torch.no_grad():
            output = model.eval()(**inputs)
        found = output["logits"] if "logits" in output else output["last_hidden_state"]
        return found if isinstance(found, Tensor) else None
    except BaseException:
        return None
