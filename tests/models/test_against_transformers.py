"""Many configurations drawn at random give the numbers of ``transformers``, run beside ours on the same texts."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")

from minilm.checkpoints.models import card_of, load_model
from minilm.checkpoints.names import published_tensors, rows_of
from minilm.models import ARCHITECTURES
from minilm.models.batch import Batch
from tests.models import test_bart as bart
from tests.models import test_deberta as deberta
from tests.models import test_gemma as gemma
from tests.models import test_llama_family as llama_family
from tests.reference.make_references import CASES, compute, family_of, random_batch, random_model

CLASSES = sorted({case.kind for case in CASES.values()} | {"BertForSequenceClassification", "DistilBertModel"})
DECODERS = [kind for kind in CLASSES if kind.startswith(("Gemma", "Phi3", "Qwen3", "SmolLM3"))]
CLASSES = [kind for kind in CLASSES if kind not in DECODERS]
ROTARY: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 40},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
    {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8, "attention_factor": 1.3},
]  # fmt: skip


def settings_of(family: str, draw: random.Random) -> dict[str, Any]:
    """Settings that a checkpoint of this family may have."""
    heads, head_width, depth = draw.choice([1, 2, 3, 5]), draw.choice([4, 6, 8]), draw.choice([1, 2, 3])
    width, hidden = heads * head_width, draw.choice([7, 24, 33])
    activation = draw.choice(["gelu", "gelu_new", "relu", "silu"])
    common = {"vocab_size": draw.choice([37, 64]), "num_labels": draw.choice([1, 2, 5])}
    if family == "GPT2":
        return {**common, "n_embd": width, "n_head": heads, "n_layer": depth, "n_inner": draw.choice([None, hidden]),
                "activation_function": activation, "layer_norm_epsilon": draw.choice([1e-5, 1e-3]),
                "tie_word_embeddings": draw.random() < 0.5, "scale_attn_weights": draw.random() < 0.5,
                "scale_attn_by_inverse_layer_idx": draw.random() < 0.5}  # fmt: skip
    if family == "Bart":
        return {**common, "d_model": 12 * heads, "encoder_layers": depth, "decoder_layers": draw.choice([1, 2]),
                "encoder_attention_heads": heads, "decoder_attention_heads": draw.choice([1, 3, 4]),
                "encoder_ffn_dim": hidden, "decoder_ffn_dim": draw.choice([7, 24]), "activation_function": activation,
                "max_position_embeddings": draw.choice([18, 40]), "scale_embedding": draw.random() < 0.5,
                "num_labels": draw.choice([2, 5])}  # fmt: skip
    if family == "DistilBert":
        return {**common, "dim": width, "n_heads": heads, "n_layers": depth, "hidden_dim": hidden,
                "activation": draw.choice(["gelu", "relu"])}  # fmt: skip
    if family.endswith("T5"):
        contradictions = draw.choice([{}, {"dense_act_fn": activation}, {"is_gated_act": draw.random() < 0.5}])
        return {**common, **contradictions, "d_model": draw.choice([12, 20]), "num_heads": heads, "d_kv": head_width,
                "num_layers": depth, "num_decoder_layers": draw.choice([1, 2]), "d_ff": hidden,
                "feed_forward_proj": draw.choice(["relu", "gated-gelu", "gated-silu", "gelu"]),
                "relative_attention_num_buckets": draw.choice([8, 32]), "tie_word_embeddings": draw.random() < 0.5,
                "relative_attention_max_distance": draw.choice([20, 128])}  # fmt: skip
    if family == "ModernBert":
        bases = [{"rope_theta": draw.choice([100.0, 1e4]), **draw.choice(ROTARY)} for _ in range(2)]
        kinds = ("full_attention", "sliding_attention")
        biases = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias", "decoder_bias", "tie_word_embeddings")
        return {**common, "hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": depth,
                "intermediate_size": hidden, "hidden_activation": activation, "max_position_embeddings": 16,
                "classifier_activation": draw.choice(["gelu", "silu"]), "norm_eps": draw.choice([1e-5, 1e-3]),
                "classifier_pooling": draw.choice(["cls", "mean"]), "local_attention": draw.choice([0, 3, 8]),
                "layer_types": [draw.choice(kinds) for _ in range(depth)], "pad_token_id": 0,
                "rope_parameters": dict(zip(kinds, bases, strict=True)),
                **{bias: draw.random() < 0.5 for bias in biases}}  # fmt: skip
    common |= {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": depth,
               "intermediate_size": hidden, "hidden_act": activation,
               "tie_word_embeddings": draw.random() < 0.5}  # fmt: skip
    if family.startswith("Gemma"):
        return common | gemma_settings(family, draw, head_width)
    if family in ("Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3", "Phi3"):
        common |= {"num_key_value_heads": draw.choice([1, heads]), "max_position_embeddings": 16,
                   "rms_norm_eps": draw.choice([1e-6, 1e-3])}  # fmt: skip
        common["rope_parameters"] = {"rope_theta": draw.choice([100.0, 1e4]), **draw.choice(ROTARY)}
        if family in ("Llama", "SmolLM3"):
            common |= {"attention_bias": draw.random() < 0.5, "mlp_bias": draw.random() < 0.5}
        if family in ("Llama",):
            return common
        if family == "Qwen3":
            common |= {"head_dim": draw.choice([6, 10]), "attention_bias": draw.random() < 0.5}
        if family.startswith("Qwen"):
            common |= {"use_sliding_window": True, "max_window_layers": draw.choice([0, 1])}
        if family == "SmolLM3":
            common |= {"no_rope_layer_interval": draw.choice([1, 2, 4]), "use_sliding_window": draw.random() < 0.5}
        if family in ("SmolLM3", "Phi3"):
            common |= {"pad_token_id": 3, "eos_token_id": 2}
        if family == "Phi3":
            common["rope_parameters"] = phi3_rotary(draw, head_width)
            common["original_max_position_embeddings"] = draw.choice([8, 16])
        return {**common, "sliding_window": draw.choice([2, 5, None])}
    common["layer_norm_eps"] = draw.choice([1e-12, 1e-3])
    if family.startswith("Deberta"):
        return common | deberta_settings(draw, width)
    if family == "Albert":
        return {**common, "embedding_size": draw.choice([5, 12]), "tie_word_embeddings": True}
    if family == "Electra":
        return {**common, "embedding_size": draw.choice([5, 12, width]), "type_vocab_size": draw.choice([1, 2, 4])}
    if family == "MPNet":
        return {**common, "relative_attention_num_buckets": draw.choice([32, 40])}
    return {**common, "type_vocab_size": draw.choice([1, 2, 4]) if family == "Bert" else 1}


def phi3_rotary(draw: random.Random, head_width: int) -> dict[str, Any]:
    """Phi-3's rotary positions: of a part of each head, perhaps stretched, pair by pair."""
    partial = draw.choice([0.5, 1.0]) if head_width % 4 == 0 else 1.0
    plain = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": partial}
    factors = [[draw.uniform(1, 4) for _ in range(int(head_width * partial) // 2)] for _ in range(2)]
    more = draw.choice([{}, {"factor": 3.0}, {"attention_factor": 1.3}])
    stretched = {**plain, **more, "rope_type": "longrope", "short_factor": factors[0], "long_factor": factors[1]}
    return draw.choice([plain, stretched, stretched])


def gemma_settings(family: str, draw: random.Random, head_width: int) -> dict[str, Any]:
    """What Gemma has of its own, beside those that all have."""
    heads = draw.choice([2, 4])
    settings: dict[str, Any] = {
        "num_attention_heads": heads, "num_key_value_heads": draw.choice([1, heads]), "hidden_size": 6 * heads,
        "head_dim": head_width, "max_position_embeddings": 16, "rms_norm_eps": draw.choice([1e-6, 1e-3]),
        "attention_bias": draw.random() < 0.5, "tie_word_embeddings": draw.random() < 0.5, "pad_token_id": 3,
    }  # fmt: skip
    bases = [{"rope_theta": draw.choice([100.0, 1e4]), **draw.choice(ROTARY)} for _ in range(2)]
    settings["rope_parameters"] = bases[0]
    if family == "Gemma":
        return settings | {"hidden_act": draw.choice(["gelu", "gelu_pytorch_tanh", "silu"])}
    kinds = ("full_attention", "sliding_attention")
    settings |= {"query_pre_attn_scalar": draw.choice([3, 8]), "sliding_window": draw.choice([2, 5, 40]),
                 "hidden_activation": draw.choice(["gelu_pytorch_tanh", "relu"]), "num_hidden_layers": 2,
                 "layer_types": draw.choice([None, [*kinds], [*kinds[::-1]], [kinds[0]] * 2]),
                 "final_logit_softcapping": draw.choice([None, 2.0])}  # fmt: skip
    if family == "Gemma2":
        return settings | {"attn_logit_softcapping": draw.choice([None, 1.5])}
    settings["rope_parameters"] = dict(zip(kinds, bases, strict=True))
    return settings | {"use_bidirectional_attention": draw.random() < 0.5}


def deberta_settings(draw: random.Random, width: int) -> dict[str, Any]:
    """DeBERTa's own: those of version 2 change nothing in version 1."""
    return {
        "relative_attention": draw.random() < 0.9, "pos_att_type": draw.choice(["c2p|p2c", ["p2c"], "C2P", None]),
        "max_relative_positions": draw.choice([-1, 4, 30]), "position_biased_input": draw.random() < 0.5,
        "type_vocab_size": draw.choice([0, 1, 3]), "max_position_embeddings": draw.choice([18, 40]),
        "pooler_hidden_act": draw.choice(["gelu", "tanh"]), "position_buckets": draw.choice([-1, 2, 5, 8]),
        "share_att_key": draw.random() < 0.5, "norm_rel_ebd": draw.choice(["none", "Layer_Norm"]),
        "conv_kernel_size": draw.choice([0, 1, 3, 5]), "conv_groups": draw.choice([1, width]),
        "conv_act": draw.choice(["tanh", "gelu"]), "embedding_size": draw.choice([width, 5]),
        "num_labels": draw.choice([2, 5]),  # of one it wants a label that is no whole number
    }  # fmt: skip


@pytest.mark.parametrize("number", range(60))
def test_a_random_configuration_gives_the_same_numbers(number: int, tmp_path: Path) -> None:
    kind, draw = CLASSES[number % len(CLASSES)], random.Random(number)
    compare(kind, settings_of(family_of(kind), draw), draw, number, tmp_path)


@pytest.mark.parametrize("number", range(100, 160))
def test_so_does_one_of_a_family_with_many_settings(number: int, tmp_path: Path) -> None:
    kinds, draw = [kind for kind in CLASSES if kind.startswith("Deberta")], random.Random(number)
    kinds = kinds if number < 120 else DECODERS
    kind = kinds[number % len(kinds)]
    settings = settings_of(family_of(kind), draw)
    if kind == "Gemma3ForCausalLM":
        settings["use_bidirectional_attention"] = False  # what reads both ways is refused as a language model
    compare(kind, settings, draw, number, tmp_path)


# Published configurations, from memory, and what they become in size; all that is no size stays.
CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: ("DebertaModel", config) for name, (config, _) in deberta.PUBLISHED.items() if "/deberta-l" in name},
    **{name: ("DebertaV2Model", config) for name, (config, _) in deberta.PUBLISHED.items() if "-v" in name},
    "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli": (
        "DebertaV2ForSequenceClassification",
        {**deberta.PUBLISHED["microsoft/deberta-v3-base"][0], "pooler_dropout": 0, "pooler_hidden_act": "gelu",
         "pooler_hidden_size": 768},
    ),
    **{name: (kind, config) for name, (kind, config, _) in (llama_family.PUBLISHED | gemma.PUBLISHED).items()},
    "facebook/bart-base": ("BartModel", bart.BASE),
    "facebook/bart-large-cnn": ("BartForConditionalGeneration", bart.LARGE),
    "facebook/bart-large-mnli": ("BartForSequenceClassification", bart.LARGE),
    "google/mt5-small": (
        "MT5ForConditionalGeneration",
        {"d_ff": 1024, "d_kv": 64, "d_model": 512, "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1,
         "feed_forward_proj": "gated-gelu", "is_encoder_decoder": True, "layer_norm_epsilon": 1e-6,
         "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8, "pad_token_id": 0,
         "relative_attention_num_buckets": 32, "tie_word_embeddings": False, "vocab_size": 250112},
    ),
    "google/umt5-small": (
        "UMT5ForConditionalGeneration",
        {"d_ff": 1024, "d_kv": 64, "d_model": 512, "decoder_start_token_id": 0, "dense_act_fn": "gelu_new",
         "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "is_encoder_decoder": True,
         "is_gated_act": True, "layer_norm_epsilon": 1e-6, "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8,
         "pad_token_id": 0, "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
         "scalable_attention": True, "tie_word_embeddings": False, "vocab_size": 256384},
    ),
    "stanford-crfm/BioMedLM": (
        "GPT2LMHeadModel",
        {"activation_function": "gelu_new", "attn_pdrop": 0.1, "bos_token_id": 28895, "embd_pdrop": 0.1,
         "eos_token_id": 28895, "layer_norm_epsilon": 1e-5, "n_embd": 2560, "n_head": 20, "n_inner": None,
         "n_layer": 32, "n_positions": 1024, "reorder_and_upcast_attn": True, "resid_pdrop": 0.1,
         "scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": True, "vocab_size": 28896},
    ),
}  # fmt: skip
SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "pooler_hidden_size"), 24),
    **dict.fromkeys(("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"), 40),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head"), 3),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 3),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("attention_head_size", "d_kv"), 8),
    "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DECODER = {  # which may have layers of two kinds, a window, and rotary positions that are stretched
    "num_hidden_layers": 4, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 3, "pad_token_id": 3,
    "max_position_embeddings": 16, "original_max_position_embeddings": 8,
}  # fmt: skip


def shrunk(published: dict[str, Any]) -> dict[str, Any]:
    """The configuration with other sizes; a list of all layers, and of all pairs that turn, with its first entries."""
    sizes, depth = {**SIZES}, published.get("num_hidden_layers")
    if "num_key_value_heads" in published:
        sizes |= {key: value for key, value in DECODER.items() if published.get(key) is not None}
        sizes["num_hidden_layers"] += 2 * (published["model_type"] == "gemma3_text")  # whose sixth layer is global
    settings = {key: sizes.get(key, value) for key, value in deepcopy(published).items() if key != "model_type"}
    for key, value in settings.items():
        if key.endswith("token_id") and isinstance(value, int) and value >= SIZES["vocab_size"]:
            settings[key] = 3
        if isinstance(value, list) and len(value) == depth:
            settings[key] = value[: settings["num_hidden_layers"]]
    if isinstance(rotary := settings.get("rope_scaling"), dict):
        pairs = int(8 * settings.get("partial_rotary_factor", 1)) // 2
        settings["rope_scaling"] = {k: v[:pairs] if isinstance(v, list) else v for k, v in rotary.items()}
    return settings


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_configuration_of_a_published_checkpoint_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    kind, published = CHECKPOINTS[name]
    compare(kind, shrunk(published), random.Random(0), 0, tmp_path)


def compare(kind: str, settings: dict[str, Any], draw: random.Random, number: int, tmp_path: Path) -> None:
    """Vectors, scores and gradients of this published class with these settings, beside ours."""
    there = random_model(kind, settings, number)
    lengths = tuple(draw.randint(1, 18) for _ in range(draw.randint(1, 4)))
    tensors = random_batch(there, lengths, number)
    expected = compute(there, tensors)
    there.save_pretrained(tmp_path)

    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    batch = Batch(tensors["ids"], mask, tensors.get("segments"), decoder_ids=tensors.get("decoder_ids"))
    with torch.no_grad():
        hidden = load_model(tmp_path, "encode")(replace(batch, decoder_ids=None))  # a decoder reads the text
    torch.testing.assert_close(hidden[mask], expected["hidden"][mask], rtol=1e-5, atol=1e-5)
    if "logits" not in expected:
        return
    model = load_model(tmp_path)
    logits = model(batch)
    real = mask if logits.dim() == 3 and batch.decoder_ids is None else ...
    wanted = expected["logits"].reshape(logits.shape)  # DeBERTa's are flat if there is one
    torch.testing.assert_close(logits[real], wanted[real], rtol=1e-5, atol=1e-5)

    labels = tensors["labels"]
    if kind.endswith(("ForCausalLM", "LMHeadModel")):
        logits, labels = logits[:, :-1], labels[:, 1:]
    if labels.is_floating_point():  # of a regression, or several labels a text
        one = labels.dim() == 1
        loss = F.mse_loss(logits[:, 0], labels) if one else F.binary_cross_entropy_with_logits(logits, labels)
        loss.backward()
    elif bool((labels >= 0).any()):
        F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=-100).backward()
    rows = rows_of(ARCHITECTURES[card_of(model).model_type].names, model.config, card_of(model).task, prefixed=True)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in published_tensors(gradients, rows):
        if (wanted := expected.get(f"grad.{name}")) is not None:
            assert (gradient - wanted).norm() <= 1e-4 * wanted.norm() + 1e-6, name
