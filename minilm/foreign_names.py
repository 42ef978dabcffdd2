"""The names that other libraries have for what minilm has under a name of its own.

They are for messages only: whoever types such a name is answered with the one to type. A name stands for the last part
of a key (``learning_rate`` for ``train.lr``) or for a value (``f1`` for ``macro_f1``). docs/coming_from.md has more.
"""

from __future__ import annotations

FOREIGN_KEYS = {
    # transformers' TrainingArguments, tokenizers, and what people call these.
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulate",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "max_grad_norm": "clip",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "eps",
    "label_smoothing_factor": "label_smoothing",
    "eval_steps": "evaluate_every",
    "metric_for_best_model": "best",
    "early_stopping_patience": "patience",
    "early_stopping_threshold": "min_delta",
    "train_sampling_strategy": "group_by_length",
    "bf16": "precision",
    "fp16": "precision",
    "report_to": "log_to",
    "run_name": "name",
    "max_length": "max_tokens",
    "max_seq_length": "max_tokens",
    "text_column": "text",
    "label_column": "label",
    "model_name_or_path": "source",
    # PEFT's LoraConfig.
    "r": "rank",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "layers_to_transform": "layers",
    "use_dora": "dora",
    "use_rslora": "rank_stabilized",
}

FOREIGN_VALUES = {
    "f1": "macro_f1",
    "f1_macro": "macro_f1",
    "f1_micro": "micro_f1",
    "eval_loss": "loss",
    "eval_accuracy": "accuracy",
    "eval_f1": "macro_f1",
    "auc": "roc_auc",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "html": "tags",
    "lowercase": "lower",
}
