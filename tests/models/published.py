"""Sixty well-known checkpoints: what they are for, their published class, and their configuration from memory.

``docs/make_checkpoints.py`` compares each with the reference, shrunk, and writes ``docs/checkpoints.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers

from tests.models import test_bart as bart
from tests.models import test_deberta as deberta
from tests.models import test_gemma as gemma
from tests.models import test_llama_family as llama_family
from tests.models.test_against_transformers import CHECKPOINTS
from tests.reference.make_references import family_of

Config = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """One checkpoint."""

    name: str  # its Hub id
    use: str
    kind: str  # its published class
    config: Config  # its config.json, without names of labels


BERT: Config = {
    "model_type": "bert", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512, "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
    "position_embedding_type": "absolute", "type_vocab_size": 2, "use_cache": True, "vocab_size": 30522,
}  # fmt: skip
MULTILINGUAL = BERT | {
    "vocab_size": 119547, "directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
}  # fmt: skip
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
MINILM = BERT | {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "gradient_checkpointing": False}
ROBERTA = BERT | {
    "model_type": "roberta", "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "layer_norm_eps": 1e-5,
    "max_position_embeddings": 514, "type_vocab_size": 1, "vocab_size": 50265,
}  # fmt: skip
XLM = ROBERTA | {"model_type": "xlm-roberta", "output_past": True, "vocab_size": 250002}
M3 = XLM | LARGE | {"max_position_embeddings": 8194, "classifier_dropout": None}
DISTILBERT: Config = {
    "model_type": "distilbert", "activation": "gelu", "attention_dropout": 0.1, "dim": 768, "dropout": 0.1,
    "hidden_dim": 3072, "initializer_range": 0.02, "max_position_embeddings": 512, "n_heads": 12, "n_layers": 6,
    "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False,
    "tie_weights_": True, "vocab_size": 30522,
}  # fmt: skip
MODERNBERT: Config = {
    "model_type": "modernbert", "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 50281,
    "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0,
    "classifier_pooling": "mean", "cls_token_id": 50281, "decoder_bias": True, "deterministic_flash_attn": False,
    "embedding_dropout": 0.0, "eos_token_id": 50282, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
    "gradient_checkpointing": False, "hidden_activation": "gelu", "hidden_size": 768,
    "initializer_cutoff_factor": 2.0, "initializer_range": 0.02, "intermediate_size": 1152, "layer_norm_eps": 1e-5,
    "local_attention": 128, "local_rope_theta": 10000.0, "max_position_embeddings": 8192, "mlp_bias": False,
    "mlp_dropout": 0.0, "norm_bias": False, "norm_eps": 1e-5, "num_attention_heads": 12, "num_hidden_layers": 22,
    "pad_token_id": 50283, "position_embedding_type": "absolute", "repad_logits_with_grad": False,
    "sep_token_id": 50282, "sparse_pred_ignore_index": -100, "sparse_prediction": False, "vocab_size": 50368,
}  # fmt: skip
T5: Config = {
    "model_type": "t5", "d_ff": 2048, "d_kv": 64, "d_model": 512, "decoder_start_token_id": 0, "dropout_rate": 0.1,
    "eos_token_id": 1, "initializer_factor": 1.0, "is_encoder_decoder": True, "layer_norm_epsilon": 1e-6,
    "n_positions": 512, "num_heads": 8, "num_layers": 6, "output_past": True, "pad_token_id": 0,
    "relative_attention_num_buckets": 32, "vocab_size": 32128,
}  # fmt: skip
GPT2: Config = {
    "model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1, "bos_token_id": 50256,
    "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-5, "n_ctx": 1024,
    "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": None,
    "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index",
    "summary_use_proj": True, "vocab_size": 50257,
}  # fmt: skip
LLAMA: Config = {
    "model_type": "llama", "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 5632, "max_position_embeddings": 2048, "num_attention_heads": 32,
    "num_hidden_layers": 22, "num_key_value_heads": 4, "pretraining_tp": 1, "rms_norm_eps": 1e-5,
    "rope_scaling": None, "tie_word_embeddings": False, "use_cache": True, "vocab_size": 32000,
}  # fmt: skip
ALBERT: Config = {
    "model_type": "albert", "attention_probs_dropout_prob": 0, "bos_token_id": 2, "classifier_dropout_prob": 0.1,
    "down_scale_factor": 1, "embedding_size": 128, "eos_token_id": 3, "gap_size": 0, "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0, "hidden_size": 768, "initializer_range": 0.02, "inner_group_num": 1,
    "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "net_structure_type": 0,
    "num_attention_heads": 12, "num_hidden_groups": 1, "num_hidden_layers": 12, "num_memory_blocks": 0,
    "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": 30000,
}  # fmt: skip
MPNET: Config = {
    "model_type": "mpnet", "attention_probs_dropout_prob": 0.1, "bos_token_id": 0, "eos_token_id": 2,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
    "intermediate_size": 3072, "layer_norm_eps": 1e-5, "max_position_embeddings": 514, "num_attention_heads": 12,
    "num_hidden_layers": 12, "pad_token_id": 1, "relative_attention_num_buckets": 32, "vocab_size": 30527,
}  # fmt: skip
ELECTRA: Config = {
    "model_type": "electra", "attention_probs_dropout_prob": 0.1, "embedding_size": 768, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "num_attention_heads": 12, "num_hidden_layers": 12,
    "pad_token_id": 0, "summary_activation": "gelu", "summary_last_dropout": 0.1, "summary_type": "first",
    "summary_use_proj": True, "type_vocab_size": 2, "vocab_size": 30522,
}  # fmt: skip
QWEN2: Config = {
    "model_type": "qwen2", "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
    "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
    "max_position_embeddings": 32768, "max_window_layers": 24, "num_attention_heads": 14, "num_hidden_layers": 24,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "sliding_window": 32768,
    "tie_word_embeddings": True, "use_cache": True, "use_mrope": False, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
V3 = deberta.PUBLISHED["microsoft/deberta-v3-base"][0] | {"pooler_dropout": 0, "pooler_hidden_act": "gelu"}
MANY = {"problem_type": "multi_label_classification"}
ONE = {"num_labels": 1}
CLASSIFIER = "ForSequenceClassification"


def labels(number: int) -> Config:
    return {"num_labels": number}


def published() -> list[Published]:
    """All of them, by use."""
    rows: list[Published] = []

    def add(use: str, *found: tuple[str, str, Config]) -> None:
        for name, kind, config in found:
            family = config.get("model_type") or getattr(transformers, f"{family_of(kind)}Config").model_type
            rows.append(Published(name, use, kind, {**config, "model_type": family}))

    xlm, bert, roberta = f"XLMRoberta{CLASSIFIER}", f"Bert{CLASSIFIER}", f"Roberta{CLASSIFIER}"
    distilbert, v3 = f"DistilBert{CLASSIFIER}", f"DebertaV2{CLASSIFIER}"
    add(
        "sentiment",
        ("distilbert/distilbert-base-uncased-finetuned-sst-2-english", distilbert, DISTILBERT | labels(2)),
        ("cardiffnlp/twitter-roberta-base-sentiment-latest", roberta, ROBERTA | labels(3)),
        ("cardiffnlp/twitter-xlm-roberta-base-sentiment", xlm, XLM | labels(3)),
        ("nlptown/bert-base-multilingual-uncased-sentiment", bert, MULTILINGUAL | {"vocab_size": 105879} | labels(5)),
        ("siebert/sentiment-roberta-large-english", roberta, ROBERTA | LARGE | labels(2)),
        ("ProsusAI/finbert", bert, BERT | {"gradient_checkpointing": False} | labels(3)),
        ("lxyuan/distilbert-base-multilingual-cased-sentiments-student", distilbert,
         DISTILBERT | {"vocab_size": 119547} | labels(3)),
    )  # fmt: skip
    add(
        "emotion",
        ("j-hartmann/emotion-english-distilroberta-base", roberta, ROBERTA | {"num_hidden_layers": 6} | labels(7)),
        ("SamLowe/roberta-base-go_emotions", roberta, ROBERTA | MANY | labels(28)),
        ("bhadresh-savani/distilbert-base-uncased-emotion", distilbert, DISTILBERT | labels(6)),
    )
    add(
        "toxicity",
        ("unitary/toxic-bert", bert, BERT | MANY | labels(6)),
        ("unitary/unbiased-toxic-roberta", roberta, ROBERTA | MANY | labels(16)),
        ("s-nlp/roberta_toxicity_classifier", roberta, ROBERTA | labels(2)),
        ("facebook/roberta-hate-speech-dynabench-r4-target", roberta, ROBERTA | labels(2)),
        ("martin-ha/toxic-comment-model", distilbert, DISTILBERT | labels(2)),
        ("protectai/deberta-v3-base-prompt-injection-v2", v3, V3 | labels(2)),
    )
    add("language", ("papluca/xlm-roberta-base-language-detection", xlm, XLM | labels(20)))
    add(
        "natural language inference",
        ("facebook/bart-large-mnli", f"Bart{CLASSIFIER}", bart.LARGE),
        ("FacebookAI/roberta-large-mnli", roberta, ROBERTA | LARGE | labels(3)),
        ("MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli", *CHECKPOINTS["MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli"]),
        ("cross-encoder/nli-deberta-v3-base", v3, V3 | labels(3)),
        ("microsoft/deberta-large-mnli", f"Deberta{CLASSIFIER}",
         deberta.PUBLISHED["microsoft/deberta-large"][0] | labels(3)),
        ("joeddav/xlm-roberta-large-xnli", xlm, XLM | LARGE | labels(3)),
        ("typeform/distilbert-base-uncased-mnli", distilbert, DISTILBERT | labels(3)),
    )  # fmt: skip
    add(
        "reranker",
        ("cross-encoder/ms-marco-MiniLM-L6-v2", bert, MINILM | ONE),
        ("cross-encoder/stsb-roberta-base", roberta, ROBERTA | ONE),
        ("BAAI/bge-reranker-base", xlm, XLM | ONE),
        ("BAAI/bge-reranker-v2-m3", xlm, M3 | ONE),
        ("mixedbread-ai/mxbai-rerank-base-v1", v3, V3 | ONE),
        ("Alibaba-NLP/gte-reranker-modernbert-base", f"ModernBert{CLASSIFIER}", MODERNBERT | ONE),
    )
    add(
        "sentence model",
        ("sentence-transformers/all-MiniLM-L6-v2", "BertModel", MINILM),
        ("sentence-transformers/all-mpnet-base-v2", "MPNetForMaskedLM", MPNET),
        ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "BertModel",
         MINILM | {"num_hidden_layers": 12, "vocab_size": 250037}),
        ("sentence-transformers/LaBSE", "BertModel", MULTILINGUAL | {"vocab_size": 501153}),
        ("sentence-transformers/sentence-t5-base", "T5EncoderModel",
         T5 | {"d_ff": 3072, "d_model": 768, "num_heads": 12, "num_layers": 12, "feed_forward_proj": "relu"}),
        ("BAAI/bge-small-en-v1.5", "BertModel",
         BERT | {"hidden_size": 384, "intermediate_size": 1536, "classifier_dropout": None}),
        ("BAAI/bge-m3", "XLMRobertaModel", M3),
        ("intfloat/multilingual-e5-base", "XLMRobertaModel", XLM),
        ("mixedbread-ai/mxbai-embed-large-v1", "BertModel", BERT | LARGE | {"use_cache": False}),
        ("Snowflake/snowflake-arctic-embed-m", "BertModel", BERT),
        ("Alibaba-NLP/gte-modernbert-base", "ModernBertModel", MODERNBERT),
        ("google/embeddinggemma-300m", *gemma.PUBLISHED["google/embeddinggemma-300m"][:2]),
        ("Qwen/Qwen3-Embedding-0.6B", *llama_family.PUBLISHED["Qwen/Qwen3-Embedding-0.6B"][:2]),
        ("nomic-ai/nomic-embed-text-v1.5", "NomicBertModel", {"model_type": "nomic_bert"}),
    )  # fmt: skip
    masked = "ForMaskedLM"
    add(
        "base model: encoder",
        ("google-bert/bert-base-uncased", f"Bert{masked}", BERT),
        ("FacebookAI/roberta-base", f"Roberta{masked}", ROBERTA),
        ("FacebookAI/xlm-roberta-base", f"XLMRoberta{masked}", XLM),
        ("distilbert/distilbert-base-uncased", f"DistilBert{masked}", DISTILBERT),
        ("albert/albert-base-v2", f"Albert{masked}", ALBERT),
        ("google/electra-base-discriminator", "ElectraModel", ELECTRA),
        ("almanach/camembert-base", f"Camembert{masked}", ROBERTA | {"model_type": "camembert", "vocab_size": 32005}),
        ("answerdotai/ModernBERT-base", f"ModernBert{masked}", MODERNBERT),
        ("xlnet/xlnet-base-cased", "XLNetLMHeadModel", {"model_type": "xlnet"}),
        ("allenai/longformer-base-4096", "LongformerModel", {"model_type": "longformer"}),
    )
    add(
        "base model: encoder-decoder",
        ("google/flan-t5-base", "T5ForConditionalGeneration",
         T5 | {"d_model": 768, "num_heads": 12, "num_layers": 12, "num_decoder_layers": 12,
               "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
        ("google/mt5-small", *CHECKPOINTS["google/mt5-small"]),
    )  # fmt: skip
    add(
        "base model: decoder",
        ("openai-community/gpt2", "GPT2LMHeadModel", GPT2),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "LlamaForCausalLM", LLAMA),
        ("Qwen/Qwen2.5-0.5B", "Qwen2ForCausalLM", QWEN2),
        ("Qwen/Qwen3-0.6B", *llama_family.PUBLISHED["Qwen/Qwen3-0.6B"][:2]),
    )
    return rows
