"""Make the reference checkpoints: tiny models of ``transformers`` with random weights, and what they compute.

    python tests/reference/make_references.py [CASE ...] [--folder FOLDER]

Without a name all cases are made; "gpt2*" names those that begin so. What is not named stays as it is, byte for byte.

Each case is a folder as published ones are (config.json, safetensors files, tokenizer.json) with expected.safetensors:

    ids (B, T), lengths (B,), segments, labels, decoder_ids   texts of different lengths, padded on the right
    hidden (B, T, D), pooled (B, D)                           the backbone's vectors (T5: the encoder's)
    logits, loss, grad.<published name>                       of the class that config.json names, in float32
    prompts.<i>, continuations.<i>                            greedy, for models that write
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

BERT = {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
ROBERTA = {**BERT, "max_position_embeddings": 26, "type_vocab_size": 1, "pad_token_id": 1}
DEBERTA = {**BERT, "max_position_embeddings": 24, "relative_attention": True, "pos_att_type": "p2c|c2p"}
DEBERTA_V3 = {  # the buckets are so few that distances share them
    **DEBERTA, "position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "position_biased_input": False,
}  # fmt: skip
LLAMA = {**BERT, "num_key_value_heads": 1, "max_position_embeddings": 32, "pad_token_id": 3}
GEMMA = {**LLAMA, "head_dim": 10}
T5 = {"vocab_size": 64, "d_model": 24, "num_layers": 2, "num_heads": 3, "d_kv": 6, "d_ff": 32}
FLAN = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 3}
BART = {
    "vocab_size": 64, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3,
    "decoder_attention_heads": 3, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 24,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": 64, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32, "pad_token_id": 3},
    "Llama": LLAMA,
    "Mistral": LLAMA,
    "Qwen2": LLAMA,
    "Qwen3": {**LLAMA, "head_dim": 12},
    "SmolLM3": {**LLAMA, "num_hidden_layers": 3, "no_rope_layer_interval": 2, "eos_token_id": 2, "bos_token_id": 1},
    "Gemma": GEMMA,
    "Gemma2": {**GEMMA, "query_pre_attn_scalar": 5, "sliding_window": 3},
    "Gemma3Text": {**GEMMA, "query_pre_attn_scalar": 5, "sliding_window": 3, "num_hidden_layers": 3,
                   "sliding_window_pattern": 3},
    "Phi3": {**LLAMA, "eos_token_id": 2},
    "Bart": BART,
    "Bert": {**BERT, "max_position_embeddings": 24},
    "Roberta": ROBERTA,
    "XLMRoberta": ROBERTA,
    "Deberta": DEBERTA,
    "DebertaV2": DEBERTA_V3,
    "DistilBert": {
        "vocab_size": 64,
        "dim": 24,
        "n_layers": 2,
        "n_heads": 3,
        "hidden_dim": 40,
        "max_position_embeddings": 24,
    },
    "Albert": {**BERT, "embedding_size": 12, "max_position_embeddings": 24},
    "Camembert": ROBERTA,
    "Electra": {**BERT, "embedding_size": 12, "max_position_embeddings": 24},
    "ModernBert": {
        **BERT,
        "num_hidden_layers": 4,
        "local_attention": 4,
        "max_position_embeddings": 24,
        "pad_token_id": 0,
    },
    "MPNet": {**BERT, "max_position_embeddings": 26},
    "MT5": T5,
    "T5": {**T5, "decoder_start_token_id": 0},
    "UMT5": T5,
}
LABELS = {"id2label": {0: "cold", 1: "mild", 2: "hot"}, "label2id": {"cold": 0, "mild": 1, "hot": 2}}


@dataclass(frozen=True)
class Case:
    """A published class, its settings, and how its files are written."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    shard: str = "1GB"  # the largest size of a file
    lengths: tuple[int, ...] = (9, 5, 1)
    edit: Callable[[dict[str, Any], dict[str, Tensor]], None] | None = None  # of config.json and the tensors


def old_bart(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As BART was published: with settings that nothing reads, copies of the token table, the language head's bias."""
    config |= {"normalize_before": False, "normalize_embedding": True, "classif_dropout": 0.1, "add_bias_logits": False}
    for stack in ("encoder", "decoder"):
        tensors[f"model.{stack}.embed_tokens.weight"] = tensors["model.shared.weight"].clone()
        tensors[f"model.{stack}.version"] = torch.ones(1)
    tensors["final_logits_bias"] = torch.zeros(1, 64)


def old_bert(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As the first BERT checkpoints were published."""
    config["torch_dtype"] = config.pop("dtype")
    for name in list(tensors):
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        tensors["bert." + old] = tensors.pop(name)
    tensors["bert.embeddings.position_ids"] = torch.arange(24)[None]
    tensors["cls.seq_relationship.weight"] = torch.zeros(2, 24, dtype=torch.float16)


def old_gpt2(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As GPT-2 was published: without a prefix, with the buffers of the causal triangle, without the tied head."""
    config["n_ctx"] = config["n_positions"]
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(32, 32).tril()[None, None]


def old_llama(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As Llama checkpoints were published: other names for rotary positions and the dtype."""
    rotary = config.pop("rope_parameters")
    config["rope_theta"] = rotary["rope_theta"]
    config["rope_scaling"] = {"type": rotary["rope_type"], "factor": rotary["factor"]}
    config["torch_dtype"] = config.pop("dtype")
    for layer in range(2):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)


def old_modernbert(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As ModernBERT was published: global layers counted, and a base of rotary positions for each kind."""
    kinds = config.pop("layer_types")
    config["global_attn_every_n_layers"] = kinds.index("full_attention", 1)
    for old, kind in (("global", "full_attention"), ("local", "sliding_attention")):
        config[f"{old}_rope_theta"] = config["rope_parameters"][kind]["rope_theta"]
    del config["rope_parameters"]
    config["torch_dtype"] = config.pop("dtype")


def old_gemma3(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As Gemma 3 was published: global layers counted, and other names for rotary positions."""
    del config["layer_types"], config["use_bidirectional_attention"]
    tables = config.pop("rope_parameters")
    full, sliding = tables["full_attention"], tables["sliding_attention"]
    config |= {"rope_theta": full["rope_theta"], "rope_local_base_freq": sliding["rope_theta"]}
    config |= {"rope_scaling": {"rope_type": "linear", "factor": full["factor"]}, "sliding_window_pattern": 6}


def old_phi3(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As Phi-3 was published: the kind of its rotary positions was called "su"."""
    rotary = config.pop("rope_parameters")
    config["rope_theta"] = rotary["rope_theta"]
    config["rope_scaling"] = {"type": "su", **{key: rotary[key] for key in ("short_factor", "long_factor")}}


def all_names_of_t5(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As T5 was published: with copies of the token table, and a tensor that nobody needs."""
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors["shared.weight"].clone()
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(32, 3)


def flan_t5(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As Flan-T5 was published: its head is not tied, which also means that it is not scaled."""
    config["tie_word_embeddings"] = config.pop("scale_decoder_outputs")


def new_deberta(config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As DeBERTa-v3 was published: with a table that its config does without, and the head of its training."""
    tensors["deberta.embeddings.position_embeddings.weight"] = torch.ones(24, 24)
    tensors["mask_predictions.dense.weight"] = torch.ones(24, 24)


def rotary(kind: str, **settings: Any) -> dict[str, Any]:
    """Settings of rotary positions for a model of half the usual context."""
    parameters = {"rope_type": kind, "rope_theta": 1000.0, "factor": 4.0, **settings}
    return {"rope_parameters": parameters, "max_position_embeddings": 16}


def rotaries(global_layers: dict[str, Any], local_layers: dict[str, Any]) -> dict[str, Any]:
    """Settings of rotary positions for each kind of ModernBERT's layers."""
    return {"rope_parameters": {"full_attention": global_layers, "sliding_attention": local_layers}}


BIASES = {"attention_bias": True, "mlp_bias": True}
UPCAST = {"reorder_and_upcast_attn": True, "attn_implementation": "eager"}
ALL_BIASES = {  # of ModernBERT
    **BIASES, "norm_bias": True, "classifier_bias": True, "classifier_pooling": "mean", "classifier_activation": "relu",
    "tie_word_embeddings": False, "layer_types": ["sliding_attention", "full_attention"] * 2, "norm_eps": 1e-3,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
UNTIED = {"tie_word_embeddings": False}
UPPER_WINDOW = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
HALF = {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5}
LONGROPE = {
    "original_max_position_embeddings": 8,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1000.0, "short_factor": [1.0, 1.1, 1.3, 1.5],
        "long_factor": [1.2, 2.0, 5.0, 9.0],
    },
}  # fmt: skip
CAPS = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0}
STRETCHED = {"original_max_position_embeddings": 8}
CASES: dict[str, Case] = {
    "gpt2": Case("GPT2Model"),
    "gpt2-lm-old": Case("GPT2LMHeadModel", edit=old_gpt2),
    "gpt2-lm-untied": Case("GPT2LMHeadModel", {"tie_word_embeddings": False, "n_inner": 20}, torch.float16),
    "gpt2-classify": Case("GPT2ForSequenceClassification", LABELS, torch.bfloat16),
    "gpt2-lm-by-layer": Case("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True, **UPCAST}),
    "gpt2-unscaled": Case("GPT2Model", {"scale_attn_weights": False}),
    "llama": Case("LlamaModel", {"num_attention_heads": 6, "num_key_value_heads": 3}),
    "llama-lm-biases": Case("LlamaForCausalLM", {**BIASES, "tie_word_embeddings": True}),
    "llama-lm-sharded": Case("LlamaForCausalLM", {"head_dim": 4}, torch.bfloat16, shard="15KB"),
    "llama-linear-old": Case("LlamaForCausalLM", rotary("linear"), torch.float16, edit=old_llama),
    "llama-dynamic": Case("LlamaModel", rotary("dynamic"), lengths=(19, 4)),
    "llama-llama3": Case(
        "LlamaModel",
        rotary("llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
    ),
    "llama-yarn": Case("LlamaModel", rotary("yarn", **STRETCHED, beta_slow=0.5, beta_fast=2.0)),
    "llama-classify": Case("LlamaForSequenceClassification", {**BIASES, **LABELS}),
    "mistral-lm-window": Case("MistralForCausalLM", {"sliding_window": 3}),
    "mistral-classify": Case("MistralForSequenceClassification", LABELS),
    "camembert-lm": Case("CamembertForMaskedLM"),
    "camembert-classify": Case("CamembertForSequenceClassification", LABELS),
    "electra": Case("ElectraModel", {"embedding_size": 24, "type_vocab_size": 3}),
    "electra-lm": Case("ElectraForMaskedLM"),
    "electra-lm-untied": Case("ElectraForMaskedLM", {**UNTIED, "hidden_act": "relu"}, torch.float16),
    "electra-classify": Case("ElectraForSequenceClassification", LABELS),
    "modernbert": Case("ModernBertModel", rotaries(LINEAR, DYNAMIC), lengths=(27, 9, 1)),
    "modernbert-lm": Case("ModernBertForMaskedLM"),
    "modernbert-lm-old": Case("ModernBertForMaskedLM", {"decoder_bias": False}, torch.bfloat16, edit=old_modernbert),
    "modernbert-classify": Case("ModernBertForSequenceClassification", LABELS),
    "modernbert-classify-mean": Case("ModernBertForSequenceClassification", {**ALL_BIASES, **LABELS}),
    "mpnet": Case("MPNetModel", lengths=(20, 9, 1)),
    "mpnet-lm": Case("MPNetForMaskedLM", {"relative_attention_num_buckets": 40}),
    "mpnet-lm-untied": Case("MPNetForMaskedLM", {**UNTIED, "hidden_act": "silu"}, torch.float16),
    "mpnet-classify": Case("MPNetForSequenceClassification", LABELS),
    "qwen2-lm": Case("Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    "qwen2-lm-window": Case("Qwen2ForCausalLM", UPPER_WINDOW),
    "qwen2-classify": Case("Qwen2ForSequenceClassification", LABELS),
    "qwen3-lm": Case("Qwen3ForCausalLM", {"tie_word_embeddings": True}, torch.bfloat16),
    "qwen3-classify": Case("Qwen3ForSequenceClassification", {**LABELS, "attention_bias": True, **UPPER_WINDOW}),
    "smollm3-lm": Case("SmolLM3ForCausalLM", {"no_rope_layers": [1, 0, 0]}),
    "smollm3-classify": Case(
        "SmolLM3ForSequenceClassification", {**LABELS, **BIASES, "use_sliding_window": True, "sliding_window": 3}
    ),
    "phi3-lm": Case("Phi3ForCausalLM", {"tie_word_embeddings": True, "rope_parameters": HALF}),
    "phi3-classify": Case("Phi3ForSequenceClassification", {**LABELS, "sliding_window": 3}),
    "phi3-longrope": Case("Phi3Model", LONGROPE, edit=old_phi3),
    "phi3-longrope-short": Case("Phi3Model", LONGROPE, lengths=(8, 5, 1)),
    "gemma-lm": Case("GemmaForCausalLM", {"hidden_act": "gelu"}),
    "gemma-classify": Case("GemmaForSequenceClassification", {**LABELS, "attention_bias": True}),
    "gemma2-lm": Case("Gemma2ForCausalLM", CAPS, torch.bfloat16),
    "gemma2-classify": Case("Gemma2ForSequenceClassification", {**LABELS, **CAPS, **UNTIED}),
    "gemma3_text-lm": Case("Gemma3ForCausalLM", {"final_logit_softcapping": 2.0}),
    "gemma3_text-old": Case(
        "Gemma3TextModel",
        {**rotaries(LINEAR, {"rope_theta": 50.0}), "num_hidden_layers": 6, "sliding_window_pattern": 6},
        edit=old_gemma3,
    ),
    "gemma3_text-classify": Case("Gemma3TextForSequenceClassification", {**LABELS, "attention_bias": True}),
    "gemma3_text-bidirectional": Case("Gemma3TextModel", {"use_bidirectional_attention": True, "sliding_window": 4}),
    "bart-lm": Case(
        "BartForConditionalGeneration", {"scale_embedding": True, "decoder_layers": 3, "decoder_attention_heads": 2}
    ),
    "bart-classify": Case("BartForSequenceClassification", {**LABELS, "decoder_ffn_dim": 30}, edit=old_bart),
    "bert": Case("BertModel"),
    "bert-old": Case("BertModel", {"type_vocab_size": 3}, torch.float16, edit=old_bert),
    "bert-lm": Case("BertForMaskedLM", {"hidden_act": "relu"}),
    "bert-lm-untied": Case("BertForMaskedLM", {"tie_word_embeddings": False}),
    "bert-classify": Case("BertForSequenceClassification", LABELS),
    "roberta-lm": Case("RobertaForMaskedLM"),
    "roberta-classify": Case("RobertaForSequenceClassification", LABELS),
    "xlm-roberta-lm": Case("XLMRobertaForMaskedLM"),
    "xlm-roberta-classify": Case("XLMRobertaForSequenceClassification", {}),
    "deberta-lm": Case("DebertaForMaskedLM", {"type_vocab_size": 2}),
    "deberta-classify": Case("DebertaForSequenceClassification", {**LABELS, "max_relative_positions": 4}),
    "deberta-v2-lm-conv": Case(
        "DebertaV2ForMaskedLM",
        {"conv_kernel_size": 3, "conv_groups": 2, "conv_act": "gelu", "attention_head_size": 8, "embedding_size": 10},
    ),
    "deberta-v2-lm-new": Case("DebertaV2ForMaskedLM", {"legacy": False}, edit=new_deberta),
    "deberta-v2-classify": Case(
        "DebertaV2ForSequenceClassification", {**LABELS, "conv_kernel_size": 3, "pooler_hidden_act": "tanh"}
    ),
    "distilbert-lm": Case("DistilBertForMaskedLM"),
    "distilbert-classify": Case("DistilBertForSequenceClassification", LABELS),
    "albert-lm": Case("AlbertForMaskedLM"),
    "albert-classify": Case("AlbertForSequenceClassification", LABELS),
    "t5-lm": Case("T5ForConditionalGeneration", edit=all_names_of_t5),
    "t5-lm-flan": Case("T5ForConditionalGeneration", FLAN, torch.bfloat16, edit=flan_t5),
    "t5-lm-contradiction": Case(
        "T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu", "dense_act_fn": "relu", "num_layers": 1}
    ),
    "t5-encoder": Case("T5EncoderModel", {"relative_attention_max_distance": 8, "relative_attention_num_buckets": 8}),
    "t5-classify": Case("T5ForSequenceClassification", LABELS),
    "mt5-lm": Case("MT5ForConditionalGeneration", {"tie_word_embeddings": False}),
    "mt5-classify": Case("MT5ForSequenceClassification", LABELS),
    "umt5-lm": Case("UMT5ForConditionalGeneration", {"tie_word_embeddings": False, "num_decoder_layers": 3}),
    "umt5-classify": Case("UMT5ForSequenceClassification", LABELS),
}


def family_of(kind: str) -> str:
    """ "Bert" of "BertForMaskedLM"."""
    kind = kind.replace("Gemma3For", "Gemma3TextFor")
    return next(family for family in sorted(SIZES, key=len, reverse=True) if kind.startswith(family))


def random_model(kind: str, settings: dict[str, Any], seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model of this class whose parameters all matter: none is zero, and no norm is the identity.

    Its numbers are such as ``dtype`` can hold, and it computes in float32.
    """
    family = family_of(kind)
    config = getattr(transformers, family + "Config")(**{**SIZES[family], **settings})
    model = getattr(transformers, kind)(config)
    if kind.endswith("T5ForConditionalGeneration") and settings.get("tie_word_embeddings") is False:
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.shared.weight))  # the class always ties at first
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                is_norm = name.endswith("weight") and ("norm" in name.lower() or ".ln_" in name)
                noise = 0.2 * noise + (is_norm and "Gemma" not in family)  # whose weights are what is added to 1
            else:
                noise = noise * (0.5 if "embed" in name or "shared" in name else parameter.shape[-1] ** -0.5)
            parameter.copy_(noise.to(dtype))
    return model.eval()


def random_batch(model: nn.Module, lengths: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """Texts of these lengths for the model, and labels for what it is there to do."""
    config, kind = model.config, type(model).__name__
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, below: int) -> Tensor:
        return torch.randint(0, below, shape, generator=generator)

    rows, longest = len(lengths), max(lengths)
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    ids = 4 + draw(rows, longest, below=config.vocab_size - 4)
    if config.is_encoder_decoder or "T5" in kind:
        ids[torch.arange(rows), torch.tensor(lengths) - 1] = config.eos_token_id
    pad = config.pad_token_id if config.pad_token_id is not None else 0
    batch = {"ids": ids.masked_fill(~real, pad), "lengths": torch.tensor(lengths)}
    if getattr(config, "type_vocab_size", 1) > 1:
        batch["segments"] = draw(rows, longest, below=config.type_vocab_size)
    if kind.endswith("ForSequenceClassification"):
        batch["labels"] = draw(rows, below=config.num_labels)
        if config.problem_type == "multi_label_classification":
            batch["labels"] = draw(rows, config.num_labels, below=2).float()
        elif config.num_labels == 1:  # a score, which may be any number
            batch["labels"] = batch["labels"].float()
    elif kind.endswith("ForMaskedLM"):
        hidden = real & (torch.arange(longest) % 2 == 0)
        batch["labels"] = draw(rows, longest, below=config.vocab_size).masked_fill(~hidden, -100)
    elif kind.endswith("ForConditionalGeneration"):
        first = 4 if "Bart" in kind else 0  # BART's class never changes the vector of its padding token
        batch["labels"] = first + draw(rows, 6, below=config.vocab_size - first)
        batch["labels"][0, 4:] = -100
        batch["decoder_ids"] = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    elif kind.endswith(("ForCausalLM", "LMHeadModel")):
        batch["labels"] = batch["ids"].masked_fill(~real, -100)
    return batch


def compute(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the model makes of the batch, with the gradients of all parameters that the loss depends on."""
    mask = (torch.arange(batch["ids"].shape[1]) < batch["lengths"][:, None]).long()
    inputs = {"input_ids": batch["ids"], "attention_mask": mask}
    if "segments" in batch:
        inputs["token_type_ids"] = batch["segments"]
    backbone = model.get_encoder() if "T5" in type(model).__name__ else model.base_model
    output = backbone(**inputs)
    result = {"hidden": output.last_hidden_state}
    if getattr(output, "pooler_output", None) is not None:
        result["pooled"] = output.pooler_output
    if "labels" in batch:
        output = model(**inputs, labels=batch["labels"])
        result |= {"logits": output.logits, "loss": output.loss}
    else:
        result["loss"] = result["hidden"][mask.bool()].sin().mean()
    model.zero_grad()
    result["loss"].backward()
    gradients = {f"grad.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: tensor.detach().clone() for name, tensor in {**result, **gradients}.items()}


def continuations(model: nn.Module, seed: int, new_tokens: int = 10) -> dict[str, Tensor]:
    """Prompts of different lengths, and how the model goes on, greedily; it never stops by itself."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for index, length in enumerate((7, 1, 4)):
        prompt = 4 + torch.randint(0, model.config.vocab_size - 4, (1, length), generator=generator)
        model.generation_config.eos_token_id = model.generation_config.forced_eos_token_id = None
        output = model.generate(prompt, do_sample=False, max_new_tokens=new_tokens, pad_token_id=0, use_cache=False)
        result[f"prompts.{index}"] = prompt[0]
        result[f"continuations.{index}"] = output[0, -new_tokens:]
    return result


def write_tokenizer(path: Path, family: str) -> None:
    """A tokenizer of single letters with the family's special tokens."""
    specials, template = {
        "Bert": (("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "[CLS] $A [SEP]"),
        "Roberta": (("<s>", "<pad>", "</s>", "<unk>"), "<s> $A </s>"),
        "T5": (("<pad>", "</s>", "<unk>", "<extra_id_0>"), "$A </s>"),
        "GPT2": (("<unk>", "<s>", "</s>", "<pad>"), "$A"),
    }[
        {
            "Albert": "Bert", "Bart": "Roberta", "Camembert": "Roberta", "Deberta": "Bert", "DebertaV2": "Bert",
            "DistilBert": "Bert", "Electra": "Bert", "Gemma": "GPT2", "Gemma2": "GPT2", "Gemma3Text": "GPT2",
            "Llama": "GPT2", "Mistral": "GPT2", "ModernBert": "Bert", "MPNet": "Roberta", "MT5": "T5", "Phi3": "GPT2",
            "Qwen2": "GPT2", "Qwen3": "GPT2", "SmolLM3": "GPT2", "UMT5": "T5", "XLMRoberta": "Roberta",
        }.get(family, family)
    ]  # fmt: skip
    letters = " abcdefghijklmnopqrstuvwxyząćęłńóśźż0123456789.,!?'-:#@()"
    vocabulary = {token: index for index, token in enumerate([*specials, *letters][:64])}
    unknown = next(token for token in specials if "unk" in token.lower())
    written = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True,
            }
            for index, token in enumerate(specials)
        ],
        "normalizer": {"type": "Lowercase"},
        "post_processor": _post_processor(template, vocabulary),
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "unk_token": unknown, "vocab": vocabulary, "merges": []},
    }  # fmt: skip
    path.write_text(json.dumps(written, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def _post_processor(template: str, vocabulary: dict[str, int]) -> dict[str, Any]:
    def piece(token: str, segment: int) -> dict[str, Any]:
        if token.startswith("$"):
            return {"Sequence": {"id": "A" if segment == 0 else "B", "type_id": segment}}
        return {"SpecialToken": {"id": token, "type_id": segment}}

    single, special = template.split(), [token for token in template.split() if not token.startswith("$")]
    second = single[1:] if single[0] in special else single
    return {
        "type": "TemplateProcessing",
        "single": [piece(token, 0) for token in single],
        "pair": [*(piece(token, 0) for token in single), *(piece(token, 1) for token in second)],
        "special_tokens": {t: {"id": t, "ids": [vocabulary[t]], "tokens": [t]} for t in special},
    }


def make(name: str, case: Case, folder: Path) -> None:
    """Write one case, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    seed = sum(name.encode())
    model = random_model(case.kind, case.settings, seed, case.dtype)
    batch = random_batch(model, case.lengths, seed)
    expected = {**batch, **compute(model, batch)}
    gradients = [key for key in expected if key.startswith("grad.")]
    kept = {gradients[0], gradients[len(gradients) // 2], gradients[-1]}
    expected = {key: value for key, value in expected.items() if key not in gradients or key in kept}
    if case.kind.endswith(("LMHeadModel", "ForCausalLM", "ForConditionalGeneration")):
        expected |= continuations(model, seed)
    model.to(case.dtype).save_pretrained(folder, max_shard_size=case.shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    if case.edit is not None:
        tensors = load_file(folder / "model.safetensors")
        case.edit(config, tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config.pop("transformers_version")
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    write_tokenizer(folder / "tokenizer.json", family_of(case.kind))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the named cases, or all, and note with which version."""
    parser = argparse.ArgumentParser(description="Make the tests' reference checkpoints and outputs again.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help='a case, or a pattern such as "gpt2*"; none: all')
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    given = parser.parse_args(arguments)
    names = [name for name in CASES if any(fnmatch.fnmatchcase(name, case) for case in given.cases or "*")]
    if unknown := [case for case in given.cases if not fnmatch.filter(CASES, case)]:
        parser.error(f"no case {unknown[0]}; the cases are {', '.join(CASES)}")
    version = given.folder / "VERSION"
    here = f"transformers {transformers.__version__}\n"
    if given.cases and version.exists() and version.read_text() != here:
        parser.error(f"the others were made with {version.read_text().strip()}, here is {here.strip()}; make all again")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in names:
        make(name, CASES[name], given.folder / name)
    version.write_text(here)


if __name__ == "__main__":
    main()
