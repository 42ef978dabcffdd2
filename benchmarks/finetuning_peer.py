"""``python -m benchmarks.finetuning_peer METHOD FOLDER ORDER PRECISION``: the peer's side of ``benchmarks.finetuning``.

ORDER is random or grouped.

``transformers`` (SDPA) and PEFT in a plain loop with torch's fused AdamW. An epoch costs them what every other does, so
one is measured. After it the validation texts are looked at, as ours are; that takes memory, but none of the time.
"""

from __future__ import annotations

import csv
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # all is on this machine
import peft
import torch
import transformers
from transformers.trainer_pt_utils import get_length_grouped_indices

from benchmarks.finetuning import BATCH, LAST, RANK, RATE, TOKENS, WEIGHTS
from benchmarks.processes import serve


def make_model(method: str) -> Any:
    """The classifier, its part that trains chosen."""
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
        WEIGHTS, num_labels=2, attn_implementation="sdpa"
    )
    if method == "lora":
        config = peft.LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=16, target_modules=["query", "value"])
        return peft.get_peft_model(model, config)
    if method in ("last", "head"):
        model.bert.requires_grad_(False)
    if method == "last":
        model.bert.encoder.layer[-LAST:].requires_grad_(True)
        model.bert.pooler.requires_grad_(True)
    return model


def read_examples(path: Path, tokenizer: Any) -> list[dict[str, Any]]:
    """Tokens and label of each pair."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    firsts, seconds = ([row[name] for row in rows] for name in ("sentence1", "sentence2"))
    texts = tokenizer(firsts, seconds, truncation=True, max_length=TOKENS)
    return [{name: texts[name][i] for name in texts} | {"labels": int(row["label"])} for i, row in enumerate(rows)]


def main(method: str, folder: Path, order: str, precision: str) -> None:
    """Serve one method, with batches in one order."""
    transformers.logging.set_verbosity_error()  # it would tell each time that the head is new
    tokenizer = transformers.AutoTokenizer.from_pretrained(WEIGHTS)
    rows, held_out = (read_examples(folder / f"{split}.csv", tokenizer) for split in ("train", "validation"))
    lengths = [len(example["input_ids"]) for example in rows]
    collate = transformers.DataCollatorWithPadding(tokenizer)

    def work() -> tuple[int, float]:
        torch.manual_seed(1)
        model = make_model(method).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01, fused=True)
        started = time.process_time()
        # 50 batches sorted together, as for data of usual size, though there are fewer.
        indices = (
            get_length_grouped_indices(lengths, BATCH, mega_batch_mult=50)
            if order == "grouped"
            else torch.randperm(len(rows)).tolist()
        )
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, -(-len(rows) // BATCH))
        for start in range(0, len(indices), BATCH):
            batch = collate([rows[i] for i in indices[start : start + BATCH]])
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        seconds = time.process_time() - started
        model.eval()
        with torch.inference_mode():
            for start in range(0, len(held_out), BATCH):
                model(**collate(held_out[start : start + BATCH]))
        return len(rows), seconds

    serve(work)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
