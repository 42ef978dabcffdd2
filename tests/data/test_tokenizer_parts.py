"""Tokenizers that are built from their parts: the ids of ``transformers``, and of SentencePiece's own package."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from minilm.data.sentencepiece_model import read_sentencepiece
from minilm.data.tokenization import encode, load_tokenizer
from minilm.data.tokenizer_parts import RECIPES
from minilm.data.tokenizer_settings import CLASS_OF_FAMILY
from minilm.errors import UserError
from tests.data.tokenizer_folders import NASTY, byte_pairs, sentence_pieces, word_pieces, write_json

transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

BRACKETS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ANGLES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
END = "<|endoftext|>"
LLAMA = {
    "unk_id": 0, "bos_id": 1, "eos_id": 2, "byte_fallback": True, "normalization_rule_name": "identity",
    "split_digits": True, "remove_extra_whitespaces": False, "vocab_size": 1000,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A folder as it is published, and how its ids differ from SentencePiece's."""

    model_type: str
    fill: Callable[[Path], None]
    config: dict[str, Any] | None = None  # tokenizer_config.json
    files: dict[str, Any] = field(default_factory=dict)  # more of its JSON files
    of_piece: Callable[[int], int] | None = None  # SentencePiece's number -> ours
    others: tuple[str, ...] = ()  # texts that the reference does not read as SentencePiece does


def pieces(name: str, kind: str = "unigram", **options: Any) -> Callable[[Path], None]:
    return lambda folder: sentence_pieces(folder / name, kind, **options)


XLM = pieces("sentencepiece.bpe.model", unk_id=0, bos_id=1, eos_id=2)
SHAPES = {
    "bert, uncased": Shape("bert", lambda f: word_pieces(f, BRACKETS)),
    "bert, cased": Shape("bert", lambda f: word_pieces(f, BRACKETS, False), {"do_lower_case": False}),
    "bert, no Chinese": Shape(
        "bert", lambda f: word_pieces(f, BRACKETS, False),
        {"do_lower_case": False, "tokenize_chinese_chars": False, "strip_accents": True},
    ),
    "bert, own special tokens": Shape(
        "bert", lambda f: word_pieces(f, ["<pad>", "[UNK]", "<s>", "</s>", "<mask>"]),
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
        {"special_tokens_map.json": {
            "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>",
            "mask_token": {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False,
                           "single_word": False},
        }, "added_tokens.json": {"naïve": 1001, "FOX": 1000}},
    ),
    "distilbert": Shape(
        "distilbert", lambda f: word_pieces(f, BRACKETS), {"tokenizer_class": "DistilBertTokenizer"}
    ),
    "electra": Shape("electra", lambda f: word_pieces(f, BRACKETS), {"tokenizer_class": "ElectraTokenizer"}),
    "mpnet": Shape("mpnet", lambda f: word_pieces(f, ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])),
    "roberta": Shape("roberta", lambda f: byte_pairs(f, ANGLES)),
    "roberta, lacking <mask>": Shape("roberta", lambda f: byte_pairs(f, ANGLES[:4])),
    "bart": Shape(
        "bart", lambda f: byte_pairs(f, ANGLES), {"tokenizer_class": "BartTokenizer", "add_prefix_space": True}
    ),
    "gpt2": Shape("gpt2", lambda f: byte_pairs(f, [END])),
    "deberta": Shape("deberta", lambda f: byte_pairs(f, BRACKETS)),
    "qwen2": Shape(
        "qwen2", lambda f: byte_pairs(f, [END]),
        {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {
            "800": {"content": "<|im_start|>", "lstrip": False, "normalized": False, "rstrip": False,
                    "single_word": False, "special": True}}},
    ),
    "gemma": Shape(
        "gemma2", pieces("tokenizer.model", "bpe", **{
            **LLAMA, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>", "eos_piece": "<eos>",
            "user_defined_symbols": ["<mask>", "<start_of_turn>"], "add_dummy_prefix": False,
        }), {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True}, of_piece=lambda i: i,
    ),
    "herbert": Shape(
        "bert", lambda f: write_herbert(f), {"tokenizer_class": "HerbertTokenizerFast"}
    ),
    "albert": Shape("albert", pieces(
        "spiece.model", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]"],
        user_defined_symbols=["[MASK]"],
    )),
    "albert, cased": Shape(
        "albert", pieces("spiece.model", pad_id=0, unk_id=1, bos_id=2, eos_id=3, bos_piece="[CLS]", eos_piece="[SEP]"),
        {"do_lower_case": False, "keep_accents": True},
    ),
    "t5": Shape(
        "t5", pieces("spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1), of_piece=lambda i: i,
    ),
    "mt5": Shape(
        "mt5", pieces("spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
        {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": None}, of_piece=lambda i: i,
    ),
    "deberta-v3": Shape("deberta-v2", pieces(
        "spm.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
        unk_piece="[UNK]", normalization_rule_name="identity",
    ), {"do_lower_case": False, "vocab_type": "spm"}),
    "deberta-v2, small letters": Shape("deberta-v2", pieces(
        "spm.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
        unk_piece="[UNK]",
    ), {"do_lower_case": True, "split_by_punct": True}),
    "xlm-roberta": Shape("xlm-roberta", XLM, of_piece=lambda i: i + 1 if i else 3),
    "camembert": Shape("camembert", XLM, of_piece=lambda i: i + 4 if i else 3),
    "llama": Shape(
        "llama", pieces("tokenizer.model", "bpe", **LLAMA),
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": True}, of_piece=lambda i: i,
        others=("spaces",),  # that it begins with spaces
    ),
    "llama, legacy off": Shape(
        "llama", pieces("tokenizer.model", "bpe", **LLAMA),
        {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": True, "legacy": False},
    ),
}  # fmt: skip
# In these the reference leaves out the space at the beginning, which SentencePiece's package does not.
AS_SENTENCEPIECE = {
    "mistral": Shape("mistral", pieces("tokenizer.model", "bpe", **LLAMA), {"tokenizer_class": "LlamaTokenizer"},
                     of_piece=lambda i: i, others=("spaces",)),
    "phi3": Shape("phi3", pieces("tokenizer.model", "bpe", **LLAMA), {"tokenizer_class": "LlamaTokenizerFast"},
                  of_piece=lambda i: i, others=("spaces",)),
    "umt5": Shape("umt5", pieces("spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1), of_piece=lambda i: i),
}  # fmt: skip


def write_herbert(folder: Path) -> None:
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, *(f"{c}</w>" for c in letters), "th", "the</w>"]
    write_json(folder, "vocab.json", {piece: number for number, piece in enumerate(vocabulary)})
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n", encoding="utf-8")


def made(folder: Path, shape: Shape, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder, "config.json", {"model_type": shape.model_type})
    if shape.config is not None or changes:
        write_json(folder, "tokenizer_config.json", {**(shape.config or {}), **changes})
    for name, content in shape.files.items():
        write_json(folder, name, content)
    shape.fill(folder)
    return folder


@pytest.mark.parametrize("name", SHAPES)
def test_the_ids_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder = made(tmp_path, SHAPES[name])
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for kind, text in NASTY.items():
        found, wanted = ours.encode(text), theirs(text, return_offsets_mapping=True)
        assert found.ids == wanted["input_ids"], kind
        assert found.offsets == wanted["offset_mapping"], kind
        pair, wanted = ours.encode("the other", text), theirs("the other", text, return_token_type_ids=True)
        assert (pair.ids, pair.type_ids) == (wanted["input_ids"], wanted["token_type_ids"]), kind
        if len(text) < 1000:
            assert ours.decode(found.ids) == theirs.decode(found.ids, skip_special_tokens=True), kind
    assert ours.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_and_pairs_are_cut_where_transformers_cuts_them(name: str, side: str, tmp_path: Path) -> None:
    folder = made(tmp_path, SHAPES[name], truncation_side=side)
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    texts = [NASTY[kind] for kind in ("plain", "accents", "chinese", "links", "one long word")]
    for limit in (8, 17):
        found = encode(ours, texts, None, limit)
        wanted = theirs(texts, truncation=True, max_length=limit)["input_ids"]
        assert [found.row(i).tolist() for i in range(len(texts))] == wanted
        found = encode(ours, texts, texts[::-1], limit)
        wanted = theirs(texts, texts[::-1], truncation=True, max_length=limit)["input_ids"]
        assert [found.row(i).tolist() for i in range(len(texts))] == wanted
    again = Tokenizer.from_str(ours.to_str())  # as a run keeps it
    assert encode(again, texts, None, 8).ids.tolist() == encode(ours, texts, None, 8).ids.tolist()


@pytest.mark.parametrize("name", [name for name, shape in (SHAPES | AS_SENTENCEPIECE).items() if shape.of_piece])
def test_the_ids_are_those_of_sentencepiece(name: str, tmp_path: Path) -> None:
    shape = (SHAPES | AS_SENTENCEPIECE)[name]
    folder = made(tmp_path, shape)
    ours = load_tokenizer(folder)
    theirs = sentencepiece.SentencePieceProcessor(str(next(folder.glob("*.model"))))
    for kind, text in NASTY.items():
        if kind not in ("special tokens", *shape.others):  # which its package does not know
            found = ours.encode(text, add_special_tokens=False).ids
            assert found == [shape.of_piece(i) for i in theirs.encode(text)], kind


def test_every_class_has_a_shape_and_every_family_a_class() -> None:
    named = {str((shape.config or {}).get("tokenizer_class", "")).removesuffix("Fast") for shape in SHAPES.values()}
    named |= {CLASS_OF_FAMILY[shape.model_type] for shape in SHAPES.values()}
    assert set(RECIPES) <= named
    assert set(CLASS_OF_FAMILY.values()) <= set(RECIPES)


@pytest.mark.parametrize(
    ("model_type", "there", "message"),
    [
        ("roberta", ["vocab.json"], "has vocab.json, but RobertaTokenizer needs vocab.json and merges.txt; download"),
        ("gpt2", ["merges.txt"], "download vocab.json"),
        ("bert", ["vocab.json", "merges.txt"], "BertTokenizer needs vocab.txt; download vocab.txt"),
        ("t5", ["spm.model"], "T5Tokenizer needs spiece.model"),
        ("unknown", ["vocab.txt"], "cannot build a tokenizer of unknown class .* set tokenizer_class in tokenizer_con"),
        ("bert", [], "no such file, and the folder contains no other tokenizer files"),
    ],
)
def test_half_the_parts_are_one_line(model_type: str, there: list[str], message: str, tmp_path: Path) -> None:
    write_json(tmp_path, "config.json", {"model_type": model_type})
    for name in there:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=message) as raised:
        load_tokenizer(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model_type", "name", "content", "message"),
    [
        ("bert", "vocab.txt", "a\nb\n", r"vocab.txt: does not contain \[UNK\], which is the unk_token"),
        ("bert", "vocab.txt", "[UNK]\na\n", None),  # the special tokens are added, as the reference adds them
        ("t5", "spiece.model", "version https://git-lfs.github.com/spec/v1\n", "not a SentencePiece model"),
        ("t5", "spiece.model", "", "not a SentencePiece model"),
        ("roberta", "merges.txt", "#version: 0.2\nx y\n", "vocab.json and merges.txt are not a readable tokenizer"),
    ],
)
def test_broken_parts_are_one_line(
    model_type: str, name: str, content: str, message: str | None, tmp_path: Path
) -> None:
    write_json(tmp_path, "config.json", {"model_type": model_type})
    write_json(tmp_path, "vocab.json", {"a": 0})
    (tmp_path / name).write_text(content)
    if message is None:
        assert load_tokenizer(tmp_path).encode("a").ids == [4, 1, 2]
        return
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_the_other_kind_of_sentencepiece_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path, "config.json", {"model_type": "t5"})
    sentence_pieces(tmp_path / "spiece.model", "bpe", **LLAMA)
    with pytest.raises(UserError, match=r"spiece.model: contains BPE, but T5Tokenizer needs Unigram"):
        load_tokenizer(tmp_path)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_sentencepiece_file_that_is_cut_or_damaged_is_an_error_or_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "spiece.model"
    sentence_pieces(path, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        model = read_sentencepiece(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert model.pieces and 0 <= model.unknown < len(model.pieces)


def test_a_file_of_sentencepiece_holds_what_its_package_reads(tmp_path: Path) -> None:
    sentence_pieces(tmp_path / "m.model", "bpe", **LLAMA)
    theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / "m.model"))
    found = read_sentencepiece(tmp_path / "m.model")
    assert found.byte_fallback and found.unknown == theirs.unk_id()
    for number, piece in enumerate(found.pieces):
        assert piece.text == theirs.id_to_piece(number)
        assert struct.pack("<f", piece.score) == struct.pack("<f", theirs.get_score(number))


# --- What lies beside a tokenizer.json -------------------------------------------------------------------------------


def beside(folder: Path, shape: Shape, **changes: Any) -> Path:
    """The shape's folder with a tokenizer.json in place of its parts, and other settings beside it."""
    made(folder / "parts", shape)
    load_tokenizer(folder / "parts").save(str(folder / "tokenizer.json"))
    write_json(folder, "config.json", {"model_type": shape.model_type})
    write_json(folder, "tokenizer_config.json", {**(shape.config or {}), **changes})
    return folder


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bert, uncased", {"do_lower_case": False}),
        ("bert, cased", {"do_lower_case": True}),
        ("bert, cased", {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}),
        ("distilbert", {"do_lower_case": False}),
        ("mpnet", {"do_lower_case": False}),
        ("albert", {"do_lower_case": False}),
        ("albert, cased", {"do_lower_case": True, "keep_accents": True}),
        ("deberta-v3", {"do_lower_case": True}),
        ("deberta-v2, small letters", {"do_lower_case": False, "split_by_punct": True}),
        ("bert, uncased", {"do_lower_case": True, "pad_token": "<filler>", "additional_special_tokens": ["<e1>"]}),
    ],
)
def test_a_setting_that_contradicts_tokenizer_json_wins(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = beside(tmp_path, SHAPES[name], **changes)
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for kind, text in {**NASTY, "named": "a <filler> b <e1>c"}.items():
        assert ours.encode(text).ids == theirs(text)["input_ids"], kind
    assert ours.get_vocab() == theirs.get_vocab()


def test_a_class_that_takes_tokenizer_json_as_it_is_is_not_contradicted(tmp_path: Path) -> None:
    changes = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}
    folder = beside(tmp_path, SHAPES["bert, cased"], **changes)
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.encode("The FOX").ids == theirs("The FOX")["input_ids"] != ours.encode("the fox").ids


@pytest.mark.parametrize("name", ["bert, uncased", "roberta", "t5"])
def test_an_old_file_of_added_tokens_is_followed(name: str, tmp_path: Path) -> None:
    folder = beside(tmp_path, SHAPES[name])
    known = load_tokenizer(folder)
    size = known.get_vocab_size()
    write_json(folder, "added_tokens.json", {"naïve": size + 1, "FOX": size, known.id_to_token(7): 7})
    write_json(folder, "special_tokens_map.json", {"additional_special_tokens": ["FOX"]})
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in (*NASTY.values(), "a FOX and a naïvety", "naÏve fox"):
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
    assert ours.get_vocab_size() == len(theirs) == size + 2


def test_the_side_that_tokenizer_json_stores_is_kept_unless_a_setting_says_otherwise(tmp_path: Path) -> None:
    folder, text = beside(tmp_path, SHAPES["bert, uncased"]), NASTY["plain"]
    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stored.enable_truncation(64, direction="left")
    stored.save(str(folder / "tokenizer.json"))
    for side in (None, "right", "left"):
        write_json(folder, "tokenizer_config.json", {} if side is None else {"truncation_side": side})
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        wanted = theirs(text, truncation=True, max_length=6)["input_ids"]
        assert encode(load_tokenizer(folder), [text], None, 6).ids.tolist() == wanted, side


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["do_lower_case", "strip_accents", "tokenizer_class", "pad_token", "mask_token", "content",
                        "extra_special_tokens", "additional_special_tokens", "added_tokens_decoder", "lstrip",
                        "truncation_side", "add_prefix_space", "model_type"])  # fmt: skip


@given(
    name=st.sampled_from(["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"]),
    content=st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=3), max_size=4),
    parts=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_any_json_beside_a_tokenizer_is_followed_or_refused(
    name: str, content: dict[str, Any], parts: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = made(folder, SHAPES["bert, uncased"]) if parts else beside(folder, SHAPES["bert, uncased"])
    write_json(source, name, content)
    try:
        load_tokenizer(source).encode("The fox")
    except UserError as error:
        assert str(source) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", {"do_lower_case": "no"}, 'do_lower_case must be true or false, got .no.'),
        ("tokenizer_config.json", {"truncation_side": "top"}, 'truncation_side must be "left" or "right"'),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": "y"}}, "special or added tokens cannot be read"),
        ("tokenizer_config.json", {"pad_token": 3}, "3 is not a token"),
        ("added_tokens.json", {"x": "y"}, "special or added tokens cannot be read"),
    ],
)
def test_broken_settings_are_one_line(name: str, content: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = beside(tmp_path, SHAPES["bert, uncased"])
    write_json(folder, name, content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(folder)
    assert json.loads((folder / name).read_text()) == content
