"""A real checkpoint on real texts: all-MiniLM-L6-v2 gives the numbers that transformers gives."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest
import torch

from minilm import hub
from minilm.checkpoints.models import load_model
from minilm.data.batching import collate, make_batches
from minilm.data.tokenization import encode, load_tokenizer, pad_id

ROOT = Path(__file__).parents[2]
NEWS = ROOT.parent / "shared" / "data" / "ag_news" / "test.csv"


def test_all_minilm_l6_v2_on_200_news_texts_equals_transformers(monkeypatch):
    folder = next((f for f in (hub.weights_folder() / "minilm", ROOT / "weights" / "minilm") if hub.is_whole(f)), None)
    if folder is None or not NEWS.exists():
        pytest.skip("needs weights/minilm (make weights MODEL=minilm) and ../shared/data/ag_news")
    transformers = pytest.importorskip("transformers")
    with NEWS.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in itertools.islice(csv.DictReader(file), 200)]
    tokenizer = load_tokenizer(folder)
    encoded = encode(tokenizer, texts, None, 256)
    ours = load_model(folder, "encode", dtype=torch.float32)
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    for rows in make_batches(encoded.lengths, 50, seed=0, epoch=0):
        batch = collate(encoded, rows, None, pad_id(tokenizer))
        mask = torch.ones_like(batch.ids) if batch.mask is None else batch.mask
        with torch.inference_mode():
            x = ours(batch)
            y = theirs(input_ids=batch.ids, attention_mask=mask.long()).last_hidden_state
        assert (x - y)[mask.bool()].abs().max() < 1e-5
