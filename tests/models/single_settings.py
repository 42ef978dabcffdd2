"""One setting of config.json changed at a time: what the reference makes of it, and what we do.

For each registered family and each of its published classes, a small model of random weights is the start. One field of
its configuration class gets another value. Our model must then give the reference's numbers or be refused; if the
reference itself fails, ours is refused too, or reads what the reference reads (its numbers are the same).
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from minilm.checkpoints.models import load_model
from minilm.errors import UserError
from minilm.models import ARCHITECTURES, TASKS
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch
from tests.reference.make_references import SIZES, family_of, random_model

ACTIVATIONS = [
    "gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "gelu_10", "quick_gelu", "relu", "relu2",
    "silu", "swish", "mish", "tanh", "sigmoid", "linear", "leaky_relu", "no_such_activation",
]  # fmt: skip
ROTARIES = [
    {"rope_type": "default", "rope_theta": 50.0},
    {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5},
    {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 3.0},
    {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 40},
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8},
    {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8,
     "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    {"rope_type": "no_such_type", "rope_theta": 1e4},
]  # fmt: skip
# What a value of this name may be, beside what its type says.
NAMED: dict[str, list[Any]] = {
    "rope_parameters": ROTARIES,
    "pos_att_type": ["c2p", "p2c", "c2p|p2c", ["c2p", "p2c"], [], None, "p2p"],
    "norm_rel_ebd": ["none", "layer_norm"],
    "feed_forward_proj": [*ACTIVATIONS, *(f"gated-{name}" for name in ACTIVATIONS)],
    "dense_act_fn": ACTIVATIONS,
    "classifier_pooling": ["cls", "mean", "max"],
    "layer_types": [["full_attention"] * 4, ["sliding_attention"] * 4, ["full_attention"] * 2, None],
    "pad_token_id": [None, 0, 1, 2],
    "vocab_size": [65, 80],
    "max_position_embeddings": [13, 40],
    "n_positions": [13, 40],
    "problem_type": ["regression", "single_label_classification", "multi_label_classification"],
    "summary_type": ["last", "first", "mean", "cls_index"],
    "position_embedding_type": ["absolute", "relative_key", "relative_key_query"],
    "chunk_size_feed_forward": [0, 1, 3],
}
# How the reference's own functions answer, names of classes, and how weights are stored and drawn.
NO_NUMBERS = {
    "return_dict", "output_hidden_states", "output_attentions", "architectures", "id2label", "label2id",
    "transformers_version", "model_type", "tokenizer_class", "dtype", "initializer_range", "initializer_factor",
    "initializer_cutoff_factor", "init_std",
}  # fmt: skip
FAILS = (Exception, AssertionError)


@dataclass(frozen=True)
class Change:
    """One setting of one published class."""

    kind: str
    field: str
    value: Any

    def __str__(self) -> str:
        return f"{self.kind}: {self.field} = {self.value!r}"


def kinds() -> list[str]:
    """The published classes of all families."""
    return [kind for family in ARCHITECTURES.values() for task in TASKS if (kind := family.classes.get(task))]


def changes_of(kind: str) -> Iterator[Change]:
    """Every change of one field of a class's configuration that we try."""
    config_class = getattr(transformers, f"{family_of(kind)}Config")
    start = config_class(**SIZES[family_of(kind)])
    hints = typing.get_type_hints(config_class, localns=dict(vars(typing), torch=torch))
    for field in dataclasses.fields(config_class):
        if field.name in NO_NUMBERS or field.name.startswith("_"):
            continue
        now = getattr(start, field.name, None)
        for value in values_of(field.name, hints.get(field.name), now):
            if value != now or isinstance(value, bool) != isinstance(now, bool):
                yield Change(kind, field.name, value)


def values_of(name: str, hint: Any, now: Any) -> list[Any]:
    """Values that a setting may have, by its name or its type."""
    if name == "rope_parameters" and isinstance(now, dict) and all(isinstance(inner, dict) for inner in now.values()):
        return [{**now, kind: {**now[kind], **rotary}} for kind in now for rotary in ROTARIES]
    if name in NAMED:
        return NAMED[name]
    allowed = set(typing.get_args(hint)) if isinstance(hint, types.UnionType) or typing.get_args(hint) else {hint}
    if name.endswith(("_act", "activation", "activation_function")):
        return [*ACTIVATIONS, *([None] if type(None) in allowed else [])]
    found: list[Any] = [None] if type(None) in allowed else []
    number = now if isinstance(now, int | float) and not isinstance(now, bool) else None
    if bool in allowed or isinstance(now, bool):
        found += [True, False]
    if int in allowed or (isinstance(now, int) and not isinstance(now, bool)):
        found += [0, 1, 2, 3, *([number + 1, 2 * number] if isinstance(number, int) else [])]
    if float in allowed:
        found += [0.0, 0.25, 1.0, *([10 * number] if number else [])]
    if str in allowed:
        found.append("no such choice")
    return found


class Outcome(typing.NamedTuple):
    """What came of a change: "equal", "refused", "refused by both", "failed there", "WRONG"."""

    what: str
    message: str = ""


def outcome(change: Change, folder: Path, seed: int = 0) -> Outcome:
    """Try one change in this empty folder."""
    kind, ours_only = change.kind, False
    try:
        there = random_model(kind, {change.field: change.value}, seed)
    except FAILS as error:  # no such model can be built: our reader sees the usual weights with this setting
        there, ours_only, why = random_model(kind, {}, seed), True, error
    there.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    if change.value is None and change.field not in config:
        pass  # absent means None
    else:
        config[change.field] = change.value
    (folder / "config.json").write_text(json.dumps(config))
    if not ours_only:
        try:
            again, loading = type(there).from_pretrained(folder, output_loading_info=True)
            if loading["missing_keys"] or loading["mismatched_keys"]:
                raise ValueError(f"does not fit: {loading}")
            again = again.float().eval()
            batch, wanted = computed(again, seed)
        except FAILS as error:
            ours_only, why = True, error
    try:
        backbone, whole = load_model(folder, "encode", dtype=torch.float32), load_model(folder, dtype=torch.float32)
        if ours_only:
            return Outcome("opened although the reference fails", f"{type(why).__name__}: {str(why)[:150]}")
        found = ours(backbone, whole, batch)
    except UserError as error:
        return Outcome("refused by both" if ours_only else "refused", str(error))
    worst = {name: (found[name] - wanted[name]).abs().max().item() for name in wanted}
    fits = all(torch.allclose(found[name], wanted[name], rtol=1e-4, atol=2e-5, equal_nan=True) for name in wanted)
    return Outcome("equal") if fits else Outcome("WRONG", str(worst))


def computed(model: nn.Module, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Texts, and what the reference makes of them: of several lengths; if it cannot pad, of one."""
    for lengths in ((9, 5, 2), (9,)):
        try:
            batch = texts_for(model, torch.tensor(lengths), seed)
            with torch.no_grad():
                return batch, numbers_of(model, batch)
        except FAILS as error:
            failed = error
    raise failed


def texts_for(model: nn.Module, lengths: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """Tokens from 4 on, that none is special; the last is an encoder-decoder's end of text."""
    config, kind = model.config, type(model).__name__
    generator, shape = torch.Generator().manual_seed(seed), (len(lengths), int(lengths.max()))
    ids = torch.randint(4, 64, shape, generator=generator)
    mask = torch.arange(shape[1]) < lengths[:, None]
    if "T5" in kind or "Bart" in kind:
        ids[torch.arange(len(lengths)), lengths - 1] = 1 if config.eos_token_id is None else config.eos_token_id
    pad = config.pad_token_id
    batch = {"ids": ids.masked_fill(~mask, 0 if pad is None else pad), "mask": mask}
    if (kinds := getattr(config, "type_vocab_size", 1)) > 1:
        batch["segments"] = torch.randint(0, kinds, shape, generator=generator)
    if kind.endswith("ForConditionalGeneration"):
        batch["decoder_ids"] = torch.randint(4, 64, (len(lengths), 6), generator=generator)
        batch["decoder_ids"][:, 0] = config.decoder_start_token_id or 0
    return batch


def numbers_of(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The backbone's vectors at real tokens, and the scores of the class's head."""
    mask, kind = batch["mask"], type(model).__name__
    inputs = {"input_ids": batch["ids"], "attention_mask": mask.long()}
    if "segments" in batch:
        inputs["token_type_ids"] = batch["segments"]
    backbone = model.get_encoder() if "T5" in kind else model.base_model
    found = {"hidden": backbone(**inputs).last_hidden_state[mask]}
    if "decoder_ids" in batch:
        found["scores"] = model(**inputs, decoder_input_ids=batch["decoder_ids"]).logits
    elif "For" in kind or "LMHead" in kind:
        scores = model(**inputs).logits
        found["scores"] = scores[mask] if scores.dim() == 3 else scores
    return found


def ours(backbone: Backbone, whole: Backbone, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same of our model, loaded as a backbone and as what it is."""
    mask = batch["mask"]
    text = Batch.of(batch["ids"], mask, batch.get("segments"))
    with torch.no_grad():
        found = {"hidden": backbone(text)[mask]}
        if whole.head is not None:
            scores = whole(replace(text, decoder_ids=batch.get("decoder_ids")))
            found["scores"] = scores[mask] if scores.dim() == 3 and "decoder_ids" not in batch else scores
    return found
