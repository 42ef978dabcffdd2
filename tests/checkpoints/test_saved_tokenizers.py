"""A tokenizer that we write beside a model is read alike by ``transformers``, whatever its family's class would do."""

from __future__ import annotations

from pathlib import Path

import pytest

import minilm
from minilm.checkpoints.models import write_tokenizer
from minilm.models import ARCHITECTURES
from tests.data.test_tokenizer_parts import SHAPES, made
from tests.data.tokenizer_folders import NASTY, write_json

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_written_tokenizer_gives_the_same_ids_there(name: str, side: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    tokenizer = minilm.load_tokenizer(made(tmp_path / "parts", shape, truncation_side=side))
    write_json(tmp_path, "config.json", {"model_type": shape.model_type})
    config = ARCHITECTURES[shape.model_type].config()
    write_tokenizer(tokenizer, tmp_path, config)
    theirs, again = transformers.AutoTokenizer.from_pretrained(tmp_path), minilm.load_tokenizer(tmp_path)
    for kind in ("plain", "capitals", "accents", "chinese", "spaces", "code"):
        ours, found = tokenizer.encode(NASTY[kind], "The Second"), theirs(NASTY[kind], "The Second")
        assert ours.ids == again.encode(NASTY[kind], "The Second").ids == found["input_ids"], kind
        assert ("token_type_ids" in found) == ("segments" in vars(config) and config.segments > 1)
        if "token_type_ids" in found:
            assert ours.type_ids == found["token_type_ids"], kind
    assert theirs.truncation_side == side
    assert again.get_vocab() == theirs.get_vocab() == tokenizer.get_vocab()
    pad = SHAPES[name].files.get("special_tokens_map.json", {}).get("pad_token", theirs.pad_token)
    assert pad == theirs.pad_token and (pad is None or theirs.pad_token_id < tokenizer.get_vocab_size())
